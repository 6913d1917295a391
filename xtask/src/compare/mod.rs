//! `cargo xtask compare`: is onepen as fast as it must be, measured against
//! what people use today?
//!
//! All contenders of a section run in turn, A B C A B C …, for several rounds,
//! each run in a process of its own with a new database in a new directory on
//! a real file system. What is stated are medians over the rounds; a ratio is
//! the median of the ratios within each round, so that a machine that was
//! slower for a while was slower for both. A missed target is printed plainly
//! and is no failure: speed is never a test. What is a failure of a contender
//! (fewer rows than it acknowledged, another durability than asked) makes its
//! row read WRONG.
//!
//! The rooms: `plan` says what is compared and what must be reached,
//! `contender` builds and runs programs, `postgres` keeps a private cluster,
//! `figures` does the arithmetic, `table` prints, `machine` says where.

mod contender;
mod figures;
mod machine;
mod plan;
mod postgres;
pub mod table;

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde_json::{Value, json};

use contender::{Built, Outcome, Place};
use figures::Measured;
use machine::Usage;
use plan::Section;
use postgres::Postgres;

/// Anything that ends the whole comparison, in a sentence.
pub type Failure = Box<dyn std::error::Error>;

const USAGE: &str = "\
usage: cargo xtask compare [--quick] [--only NAMES] [--dir DIR] [--json FILE]

  --quick        fewer and shorter rounds: under two minutes instead of ten
  --only NAMES   some of: async,threads,single,reads,memory,peers,postgres
  --dir DIR      where the databases go (default: target/compare); should be
                 a real file system, and is said beside the figures
  --json FILE    every run's own figures, the medians and the verdicts
";

struct Options {
    quick: bool,
    only: Vec<String>,
    dir: Option<PathBuf>,
    json: Option<PathBuf>,
}

/// Runs the verb with the words after it.
pub fn main(words: Vec<String>) -> Result<(), Failure> {
    let Some(options) = parse(words)? else {
        print!("{USAGE}");
        return Ok(());
    };
    let started = Instant::now();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("xtask lies in the workspace");
    let sections: Vec<Section> = plan::sections(options.quick)
        .into_iter()
        .filter(|section| options.only.is_empty() || options.only.iter().any(|o| o == section.key))
        .collect();

    let base = options
        .dir
        .clone()
        .unwrap_or_else(|| root.join("target").join("compare"));
    let place = Place::new(&base)?;
    let built = Built::new(root, &sections)?;
    let builds = started.elapsed();
    let started = Instant::now();
    let machine = machine::facts(place.dir())?;
    println!("{}", table::machine(&machine));
    let postgres = sections
        .iter()
        .any(Section::needs_postgres)
        .then(|| Postgres::start(place.dir()));
    if let Some(Err(reason)) = &postgres {
        println!("PostgreSQL is skipped: {reason}\n");
    }
    let postgres = postgres.map(|started| started.map_err(|error| error.to_string()));

    let mut all = Vec::new();
    for section in sections {
        let measured = run(section, &place, &built, postgres.as_ref())?;
        println!("{}", table::section(&measured));
        all.push(measured);
    }
    println!("{}", table::summary(&all));
    if let Some(Ok(postgres)) = postgres {
        postgres.stop()?;
    }
    let took = started.elapsed().as_secs_f64();
    if let Some(file) = options.json {
        let document = json!({
            "machine": machine,
            "quick": options.quick,
            "took_s": took,
            "sections": all.iter().map(Measured::to_json).collect::<Vec<Value>>(),
        });
        std::fs::write(&file, format!("{document:#}\n"))
            .map_err(|error| format!("cannot write {}: {error}", file.display()))?;
    }
    println!(
        "took {took:.0} s, and the builds before it {:.0} s",
        builds.as_secs_f64()
    );
    Ok(())
}

/// All rounds of one section.
fn run(
    section: Section,
    place: &Place,
    built: &Built,
    postgres: Option<&Result<Postgres, String>>,
) -> Result<Measured, Failure> {
    let mut measured = Measured::new(section);
    let rounds = measured.section.rounds;
    let server = postgres
        .and_then(|postgres| postgres.as_ref().ok())
        .map(Postgres::id);
    let before = Usage::now(server)?;
    for round in 1..=rounds {
        for at in 0..measured.section.contenders.len() {
            let contender = &measured.section.contenders[at];
            progress(&format!(
                "{}: round {round} of {rounds}: {}",
                measured.section.key, contender.label
            ));
            let outcome = contender::run(contender, &measured.section, place, built, postgres);
            // One that breaks must not cost the figures of all others.
            measured.add(
                at,
                outcome.unwrap_or_else(|error| Outcome::Wrong(Value::Null, error.to_string())),
            );
        }
    }
    progress("");
    let cores = std::thread::available_parallelism()?.get() as f64;
    measured.others = Usage::now(server)?.others_since(&before, cores);
    Ok(measured)
}

/// One line that is written over by the next, where somebody watches.
fn progress(line: &str) {
    if std::io::stderr().is_terminal() {
        eprint!("\r\x1b[2K{line}");
    }
}

fn parse(words: Vec<String>) -> Result<Option<Options>, Failure> {
    use lexopt::prelude::*;
    let mut options = Options {
        quick: false,
        only: Vec::new(),
        dir: None,
        json: None,
    };
    let mut parser = lexopt::Parser::from_args(words);
    while let Some(argument) = parser.next()? {
        match argument {
            Long("quick") => options.quick = true,
            Long("only") => {
                for name in parser.value()?.string()?.split(',') {
                    if !plan::KEYS.contains(&name) {
                        return Err(
                            format!("--only {name}: not one of {}", plan::KEYS.join(",")).into(),
                        );
                    }
                    options.only.push(name.to_owned());
                }
            }
            Long("dir") => options.dir = Some(parser.value()?.into()),
            Long("json") => options.json = Some(parser.value()?.into()),
            Short('h') | Long("help") => return Ok(None),
            other => return Err(other.unexpected().into()),
        }
    }
    Ok(Some(options))
}
