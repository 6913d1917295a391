//! `cargo xtask programs`: programs nobody changed, as they are and with the extension.
//!
//! The programs are in `onepen-vfs/programs`; the extension gets into them through
//! their environment. Both ways alternate within one run, each on a new database on
//! the same disk. That the extension was at work is looked up on the disk (its side
//! file), and that it was not where it should not be; so a run that only seems to
//! have it fails.

mod counted;
mod idle;
mod kills;
mod place;
mod slices;
mod timed;
mod traced;
mod worker;

use std::path::PathBuf;

use serde_json::{Value, json};

use place::Place;

type Failure = Box<dyn std::error::Error>;

const USAGE: &str = "\
usage: cargo xtask programs [options] [FILTER]

  --quick            fewer transactions, shorter; times are told, not demanded (for CI)
  --stock            only the programs as they are
  --transactions N   of each process, where transactions are counted (1500)
  --runs N           how often what is timed is measured each way (5)
  --seconds S        how long each of those lasts (12)
  --kills N          how many workers are killed (200)
  --extension FILE   a built extension (else it is built: -p onepen-vfs)
  --python FILE      the Python whose sqlite3 is used (python3)
  --dir DIR          where databases, virtual environment and node_modules are made
                     (target/programs)
  --json FILE        all that was measured, as JSON
  FILTER             only rows whose name contains it

Needs python3 with venv, node and npm; pip and npm reach their registries once.
Ends with 1 when a row does not reach what it must.
";

/// How a program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Stock,
    Extension,
}

impl Way {
    fn name(self) -> &'static str {
        match self {
            Self::Stock => "stock",
            Self::Extension => "extension",
        }
    }
}

struct Options {
    quick: bool,
    stock: bool,
    transactions: u32,
    runs: usize,
    seconds: f64,
    kills: u32,
    extension: Option<PathBuf>,
    python: PathBuf,
    dir: PathBuf,
    json: Option<PathBuf>,
    filter: String,
}

impl Options {
    /// The ways to run, whoever begins; that changes with every run.
    fn ways(&self, run: usize) -> Vec<Way> {
        match (self.stock, run % 2) {
            (true, _) => vec![Way::Stock],
            (false, 0) => vec![Way::Stock, Way::Extension],
            (false, _) => vec![Way::Extension, Way::Stock],
        }
    }

    fn wants(&self, row: &str) -> bool {
        row.contains(&self.filter)
    }
}

/// What a row has to say.
struct Told {
    row: String,
    /// One line for each way, and perhaps one for both.
    lines: Vec<String>,
    /// What the extension did not reach.
    failures: Vec<String>,
    json: Value,
}

/// Runs the verb with the words after it.
pub fn main(words: Vec<String>) -> Result<(), Failure> {
    let Some(options) = parse(words)? else {
        print!("{USAGE}");
        return Ok(());
    };
    let place = Place::make(&options)?;
    println!("{}", place.described()?);
    let mut all = Vec::new();
    let mut tell = |told: Told| {
        println!("\n{}", told.row);
        for line in &told.lines {
            println!("  {line}");
        }
        if options.stock {
            println!("  nothing demanded: stock only");
        } else if told.failures.is_empty() {
            println!("  reached");
        } else {
            println!("  NOT REACHED: {}", told.failures.join("; "));
        }
        all.push(told);
    };
    for row in counted::ROWS.iter().filter(|row| options.wants(row.name)) {
        tell(counted::measure(row, &place, &options)?);
    }
    for row in timed::ROWS.iter().filter(|row| options.wants(row.name)) {
        tell(timed::measure(row, &place, &options)?);
    }
    if options.wants(idle::NAME) && !options.stock {
        tell(idle::measure(&place, &options)?);
    }
    if options.wants(traced::NAME) {
        tell(traced::measure(&place, &options)?);
    }
    if options.wants(kills::NAME) {
        tell(kills::measure(&place, &options)?);
    }
    if let Some(path) = &options.json {
        let rows: Vec<_> = all
            .iter()
            .map(|told| json!({ "row": told.row, "measured": told.json, "not_reached": told.failures }))
            .collect();
        let all = json!({ "quick": options.quick, "programs": place.described()?, "rows": rows });
        std::fs::write(path, serde_json::to_string_pretty(&all)? + "\n")?;
    }
    let missed = all.iter().filter(|told| !told.failures.is_empty()).count();
    match (all.len(), missed) {
        (0, _) => Err("no row has that in its name".into()),
        (_, 0) => Ok(()),
        (all, missed) => Err(format!("{missed} of {all} rows do not reach what they must").into()),
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn parse(words: Vec<String>) -> Result<Option<Options>, Failure> {
    use lexopt::prelude::*;
    let mut options = Options {
        quick: false,
        stock: false,
        transactions: 1500,
        runs: 5,
        seconds: 12.0,
        kills: 200,
        extension: None,
        python: "python3".into(),
        dir: place::root().join("target/programs"),
        json: None,
        filter: String::new(),
    };
    let mut parser = lexopt::Parser::from_args(words);
    while let Some(word) = parser.next()? {
        match word {
            Long("quick") => {
                options.quick = true;
                options.transactions = 150;
                options.runs = 1;
                options.seconds = 1.0;
                options.kills = 20;
            }
            Long("stock") => options.stock = true,
            Long("transactions") => options.transactions = parser.value()?.parse()?,
            Long("runs") => options.runs = parser.value()?.parse::<usize>()?.max(1),
            Long("seconds") => options.seconds = parser.value()?.parse()?,
            Long("kills") => options.kills = parser.value()?.parse()?,
            Long("extension") => options.extension = Some(parser.value()?.into()),
            Long("python") => options.python = parser.value()?.into(),
            Long("dir") => options.dir = parser.value()?.into(),
            Long("json") => options.json = Some(parser.value()?.into()),
            Long("help") | Short('h') => return Ok(None),
            Value(filter) => options.filter = filter.string()?,
            other => return Err(other.unexpected().into()),
        }
    }
    Ok(Some(options))
}
