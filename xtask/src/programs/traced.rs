//! What `onepen trace` costs the program it runs, where nothing is contended: one
//! process each way, in slices by turns ([`slices`]).

use std::path::Path;
use std::process::Command;

use serde_json::json;

use super::place::{self, Place};
use super::worker::Worker;
use super::{Failure, Options, Told, Way, slices};

pub const NAME: &str = "cost of onepen trace";

const PROGRAMS: &[(&str, &str)] = &[
    ("Python (sqlite3)", "sql.py"),
    ("Node (better-sqlite3)", "sql.js"),
    ("Rust (rusqlite)", "sql"),
];
const PARTS: &[&str] = &["autocommit_writes", "autocommit_reads", "transactions"];

pub fn measure(place: &Place, options: &Options) -> Result<Told, Failure> {
    let pairs = if options.quick { 10 } else { 100 };
    let onepen = place::built("onepen-cli", &["--bin", "onepen"], "onepen")?;
    let sql = place::built("onepen-cli", &["--example", "sql"], "examples/sql")?;
    let program = |name: &str| match name {
        "sql" => Command::new(&sql),
        name => place.program(name, Way::Stock),
    };
    let (mut lines, mut measured) = (Vec::new(), Vec::new());
    for (who, name) in PROGRAMS {
        let runs = [
            place.run_in("wal", "plain")?,
            place.run_in("wal", "traced")?,
        ];
        let mut workers = [
            Worker::start(program(name).arg(runs[0].database()))?,
            Worker::start(traced(&onepen, &program(name)).arg(runs[1].database()))?,
        ];
        for worker in &mut workers {
            worker.hear_ready()?;
        }
        for part in PARTS {
            let part = slices::measure(part, pairs, |way, times| {
                workers[way].tell(&format!("{part} {times}"))?;
                Ok(workers[way].hear()?.parse()?)
            })?;
            let each = |ms: f64| ms * 1000.0 / part.times as f64;
            lines.push(format!(
                "{who:22} {:18} {:>9.2} µs   traced {:>9.2} µs   {:.3}",
                part.name,
                each(part.ms[0]),
                each(part.ms[1]),
                part.ratio
            ));
            let mut part = part.json(["plain", "traced"]);
            part["program"] = json!(who);
            measured.push(part);
        }
    }
    Ok(Told {
        row: NAME.to_owned(),
        lines,
        failures: Vec::new(),
        json: json!(measured),
    })
}

/// The same command, traced; the report is of no interest.
fn traced(onepen: &Path, program: &Command) -> Command {
    let mut command = Command::new(onepen);
    command.args(["trace", "--output", "/dev/null", "--"]);
    command.arg(program.get_program()).args(program.get_args());
    for (name, value) in program.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    if let Some(dir) = program.get_current_dir() {
        command.current_dir(dir);
    }
    command
}
