//! `cargo xtask models`: the hand-over of the pen, through every schedule loom
//! can count and thousands that shuttle can draw; and, with `--planted`, proof
//! that these checks can fail.
//!
//! Each model is a build of its own (`--cfg onepen_loom`, `--cfg
//! onepen_shuttle`) with a target directory of its own, so that going back and
//! forth rebuilds nothing. The scenarios are in `onepen/src/models`; `suite`
//! runs them and reads what they print, [`planted`] breaks a copy
//! of the library one bug at a time.

pub mod suite;

use crate::planted;
use suite::{Model, Report, Strength};

/// Anything that ends the whole run, in a sentence.
pub type Failure = Box<dyn std::error::Error>;

const USAGE: &str = "\
usage: cargo xtask models [options] [FILTER]

  --quick        fewer schedules: both suites in some ten seconds
  --long         every scenario with one more preemption, 30 times the schedules,
                 a minute at most (`+`: there are more); within an hour
  --loom         loom alone
  --shuttle      shuttle alone
  --seed N       other random schedules than the usual ones
  --planted      plants known bugs in a copy of the library, one at a time, and
                 demands that a scenario fails for each
  FILTER         only scenarios whose name contains it

A failure prints its schedule. To run that one again:
  ONEPEN_MODEL_REPLAY=<schedule> cargo xtask models --shuttle <scenario>
and keep it as a line of onepen/model-regressions/<scenario, :: written as ->.
";

#[derive(Default)]
struct Options {
    strength: Strength,
    only: Option<Model>,
    seed: Option<u64>,
    planted: bool,
    filter: Option<String>,
}

/// Runs the verb with the words after it.
pub fn main(words: Vec<String>) -> Result<(), Failure> {
    let Some(options) = parse(words)? else {
        print!("{USAGE}");
        return Ok(());
    };
    if options.planted {
        planted::run(&planted::Wanted {
            only: options.filter,
            quick: options.strength == Strength::Quick,
            only_models: true,
            anew: false,
            json: false,
        })?;
        return Ok(());
    }
    let mut reports = Vec::new();
    for model in [Model::Loom, Model::Shuttle] {
        if options.only.is_none_or(|only| only == model) {
            let filter = options.filter.as_deref().unwrap_or_default();
            reports.push(suite::run(model, options.strength, options.seed, filter)?);
        }
    }
    print_table(&reports);
    if reports.iter().any(Report::failed) {
        return Err("a model failed".into());
    }
    Ok(())
}

fn parse(words: Vec<String>) -> Result<Option<Options>, Failure> {
    use lexopt::prelude::*;

    let mut options = Options::default();
    let mut parser = lexopt::Parser::from_args(words);
    while let Some(word) = parser.next()? {
        match word {
            Long("quick") => options.strength = Strength::Quick,
            Long("long") => options.strength = Strength::Long,
            Long("loom") => options.only = Some(Model::Loom),
            Long("shuttle") => options.only = Some(Model::Shuttle),
            Long("seed") => options.seed = Some(parser.value()?.parse()?),
            Long("planted") => options.planted = true,
            Long("help") | Short('h') => return Ok(None),
            Value(filter) if options.filter.is_none() => options.filter = Some(filter.string()?),
            other => return Err(other.unexpected().into()),
        }
    }
    Ok(Some(options))
}

fn print_table(reports: &[Report]) {
    let mut names: Vec<&str> = reports
        .iter()
        .flat_map(|report| report.scenarios.iter())
        .map(|scenario| scenario.name.as_str())
        .collect();
    names.sort_unstable();
    names.dedup();
    let width = names.iter().map(|name| name.len()).max().unwrap_or(8);
    print!("\n{:width$}", "scenario");
    for report in reports {
        print!("  {:>20}", report.model.name());
    }
    println!();
    for name in names {
        print!("{name:width$}");
        for report in reports {
            print!("  {:>20}", report.cell(name));
        }
        println!();
    }
    for report in reports {
        println!("{}", report.summary());
        if report.failed() {
            println!("{}", report.output);
        }
    }
}
