//! `cargo xtask proof`: every instrument of docs/proof.md, one after the other,
//! with a table of what each of them looked at.
//!
//! Guarantees: an instrument that cannot be built, does not start or finds
//! something makes the whole run fail, after the others had their turn; the
//! table names the commit that was looked at. To add an instrument, add a room
//! beside `power` and a line to [`INSTRUMENTS`].

mod coverage;
mod kills;
mod memory;
mod miri;
mod mutants;
mod planted;
mod power;
mod sanitizer;
mod sweeps;
mod tests;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// Anything that ends the run of an instrument, in a sentence.
pub type Failure = Box<dyn std::error::Error>;

/// How much to look at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Strength {
    /// What fits in a check of every change.
    Quick,
    #[default]
    Usual,
    /// As much as one asks for before a release.
    Long,
}

/// What is asked of an instrument.
#[derive(Clone, Debug, Default)]
pub struct Ask {
    pub strength: Strength,
    /// Other random choices than the usual ones.
    pub seed: Option<u64>,
    /// The words that are the instrument's own. It refuses those that it does
    /// not know ([`Ask::own_words`]).
    pub words: Vec<String>,
}

/// What an instrument looked at, for its row of the table. An instrument that
/// found something returns an error instead, having printed what it found and
/// how to see it again.
pub struct Figures(pub Vec<(&'static str, String)>);

struct Instrument {
    verb: &'static str,
    watches: &'static str,
    /// The words of its own that it knows, for the help.
    words: &'static str,
    /// Whether `cargo xtask proof` without a verb runs it.
    in_all: bool,
    run: fn(&Ask) -> Result<Figures, Failure>,
}

const INSTRUMENTS: &[Instrument] = &[
    Instrument {
        verb: "power",
        watches: "what a loss of power at any moment leaves of acknowledged writes",
        words: "--images N · --replay IMAGE",
        in_all: true,
        run: power::run,
    },
    Instrument {
        verb: "kills",
        watches: "what kill -9 leaves, at every point and at any time",
        words: "--cycles N · --deed NAME · --anew",
        in_all: true,
        run: kills::run,
    },
    Instrument {
        verb: "sweeps",
        watches: "what is told when each call on a file, each allocation fails",
        words: "",
        in_all: true,
        run: sweeps::run,
    },
    Instrument {
        verb: "planted",
        watches: "whether the instruments see: known bugs in a copy of the library",
        words: "--only TEXT · --anew · --json",
        in_all: true,
        run: planted::run,
    },
    Instrument {
        verb: "miri",
        watches: "undefined behaviour in what calls no C, interpreted",
        words: "",
        in_all: true,
        run: miri::run,
    },
    Instrument {
        verb: "tsan",
        watches: "data races of the library and of SQLite in it",
        words: "--only TEXT · --anew",
        in_all: true,
        run: sanitizer::tsan,
    },
    Instrument {
        verb: "asan",
        watches: "memory of the library and of SQLite in it",
        words: "--only TEXT · --anew",
        in_all: true,
        run: sanitizer::asan,
    },
    Instrument {
        verb: "coverage",
        watches: "which lines of the core the tests run",
        words: "--lines",
        in_all: false,
        run: coverage::run,
    },
    Instrument {
        verb: "mutants",
        watches: "whether a test fails for each small change of the core",
        words: "--only TEXT · --shard K/N · --resume · --jobs N · --json",
        in_all: false,
        run: mutants::run,
    },
];

fn usage() -> String {
    let mut text = String::from(
        "usage: cargo xtask proof [INSTRUMENT] [--quick|--long] [--seed N] [its own words]\n\n\
         Without an instrument: all of them (but those marked *), one after the other.\n\n",
    );
    for Instrument {
        verb,
        watches,
        words,
        in_all,
        ..
    } in INSTRUMENTS
    {
        let mark = if *in_all { ' ' } else { '*' };
        text.push_str(&format!("  {verb:10}{mark} {watches}\n"));
        if !words.is_empty() {
            text.push_str(&format!("  {:11} {words}\n", ""));
        }
    }
    text
}

/// Runs the verb with the words after it.
pub fn main(words: Vec<String>) -> Result<(), Failure> {
    let Some((verb, ask)) = parse(words)? else {
        print!("{}", usage());
        return Ok(());
    };
    let chosen: Vec<&Instrument> = match verb {
        None => INSTRUMENTS.iter().filter(|one| one.in_all).collect(),
        Some(verb) => INSTRUMENTS.iter().filter(|one| one.verb == verb).collect(),
    };
    let commit = commit();
    println!("proof of {commit}\n");
    let rows: Vec<Row> = chosen.iter().map(|one| Row::of(one, &ask)).collect();
    print_table(&commit, &rows);
    let failed: Vec<_> = rows
        .iter()
        .filter(|row| row.outcome.is_err())
        .map(|row| row.verb)
        .collect();
    if failed.is_empty() {
        Ok(())
    } else {
        Err(format!("not proven: {}", failed.join(", ")).into())
    }
}

fn parse(words: Vec<String>) -> Result<Option<(Option<String>, Ask)>, Failure> {
    let (mut verb, mut ask) = (None, Ask::default());
    let mut words = words.into_iter();
    while let Some(word) = words.next() {
        match word.as_str() {
            "--help" | "-h" | "help" => return Ok(None),
            "--quick" => ask.strength = Strength::Quick,
            "--long" => ask.strength = Strength::Long,
            "--seed" => {
                let seed = words.next().ok_or("--seed needs a number")?;
                let parsed = seed
                    .parse()
                    .map_err(|_| format!("--seed {seed}: not a number"))?;
                ask.seed = Some(parsed);
            }
            _ if verb.is_none() && !word.starts_with('-') => {
                if INSTRUMENTS.iter().all(|one| one.verb != word) {
                    eprint!("{}", usage());
                    return Err(format!("there is no instrument `{word}`").into());
                }
                verb = Some(word);
            }
            _ if verb.is_some() => ask.words.push(word),
            _ => return Err(format!("`{word}` belongs behind an instrument's name").into()),
        }
    }
    Ok(Some((verb, ask)))
}

impl Ask {
    /// The values of the words in `known`, each of which takes one.
    ///
    /// # Errors
    /// For a word that is not known, and for one without its value.
    pub fn own_words<const N: usize>(
        &self,
        known: [&str; N],
    ) -> Result<[Option<String>; N], Failure> {
        let mut values = [const { None }; N];
        let mut words = self.words.iter();
        while let Some(word) = words.next() {
            let place = known
                .iter()
                .position(|known| known == word)
                .ok_or_else(|| format!("`{word}` is not known here\n{}", usage()))?;
            let value = words
                .next()
                .ok_or_else(|| format!("{word} needs a value"))?;
            values[place] = Some(value.clone());
        }
        Ok(values)
    }
}

struct Row {
    verb: &'static str,
    took: Duration,
    outcome: Result<Figures, Failure>,
}

impl Row {
    fn of(instrument: &Instrument, ask: &Ask) -> Self {
        println!("== {}: {}", instrument.verb, instrument.watches);
        let began = Instant::now();
        let outcome = (instrument.run)(ask);
        let took = began.elapsed();
        match &outcome {
            Ok(_) => println!("== {}: {:.1} s\n", instrument.verb, took.as_secs_f64()),
            Err(error) => println!("== {}: FAILED: {error}\n", instrument.verb),
        }
        Self {
            verb: instrument.verb,
            took,
            outcome,
        }
    }
}

fn print_table(commit: &str, rows: &[Row]) {
    println!("| instrument | figures | seconds | verdict |\n|---|---|---|---|");
    for row in rows {
        let (figures, verdict) = match &row.outcome {
            Ok(Figures(figures)) => {
                let figures: Vec<_> = figures
                    .iter()
                    .map(|(what, figure)| format!("{figure} {what}"))
                    .collect();
                (figures.join(", "), "nothing found")
            }
            Err(error) => (
                error.to_string().lines().next().unwrap_or("").to_owned(),
                "FAILED",
            ),
        };
        let seconds = row.took.as_secs_f64();
        println!("| {} | {figures} | {seconds:.1} | {verdict} |", row.verb);
    }
    println!("\ncommit {commit}");
}

/// The commit that is looked at, and whether the files are still its.
fn commit() -> String {
    let git = |arguments: &[&str]| {
        let output = Command::new("git")
            .args(arguments)
            .current_dir(root())
            .output()
            .ok()?;
        let said = String::from_utf8(output.stdout).ok()?;
        output.status.success().then(|| said.trim().to_owned())
    };
    match git(&["rev-parse", "--short=12", "HEAD"]) {
        None => "an unknown commit".to_owned(),
        Some(commit) => match git(&["status", "--porcelain", "--untracked-files=no"]) {
            Some(changed) if changed.is_empty() => commit,
            _ => format!("{commit} and changes that are not committed"),
        },
    }
}

/// The directory of the workspace this very program was built from.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// `cargo`, in the directory of the workspace; the one that runs this program.
pub fn cargo() -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(root());
    cargo
}
