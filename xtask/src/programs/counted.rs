//! Read a number, write the next: how many transactions fail, and is one lost?

use serde_json::{Value, json};

use super::place::Place;
use super::worker::{Report, together};
use super::{Failure, Options, Told, Way};

/// A program and how often it runs.
pub struct Row {
    pub name: &'static str,
    program: &'static str,
    processes: usize,
    journal: &'static str,
    word: Option<&'static str>,
    /// Of the transactions asked for, one in so many.
    share: u32,
}

const fn row(
    name: &'static str,
    program: &'static str,
    processes: usize,
    journal: &'static str,
) -> Row {
    Row {
        name,
        program,
        processes,
        journal,
        word: None,
        share: 1,
    }
}

impl Row {
    const fn with_share(mut self, share: u32) -> Self {
        self.share = share;
        self
    }

    const fn with(mut self, word: &'static str, share: u32) -> Self {
        self.word = Some(word);
        self.share = share;
        self
    }
}

pub const ROWS: &[Row] = &[
    row(
        "two Python threads, as the tutorial",
        "two_threads.py",
        1,
        "delete",
    ),
    row(
        "two Python threads, write-ahead",
        "two_threads.py",
        1,
        "wal",
    ),
    row("sqlite3, 6 processes", "stdlib.py", 6, "wal"),
    row("SQLAlchemy, 6 processes", "with_sqlalchemy.py", 6, "wal"),
    row("Django, 6 worker processes", "with_django.py", 6, "wal"),
    row("peewee, 6 processes", "with_peewee.py", 6, "wal"),
    row(
        "aiosqlite, 6 processes of 4 tasks",
        "with_aiosqlite.py",
        6,
        "wal",
    ),
    row(
        "better-sqlite3, 6 processes",
        "with_better_sqlite3.js",
        6,
        "wal",
    ),
    row("sqlite3, every third writes", "stdlib.py", 6, "wal").with("every=3", 1),
    row("sqlite3, every 50th writes", "stdlib.py", 6, "wal").with("every=50", 1),
    row("sqlite3, every 200th writes", "stdlib.py", 6, "wal").with("every=200", 1),
    row(
        "two attached databases in opposite orders",
        "attached.py",
        6,
        "wal",
    )
    .with_share(5),
    row(
        "sqlite3, a checkpoint after each commit",
        "stdlib.py",
        6,
        "wal",
    )
    .with("checkpoint=1", 5),
];

pub fn measure(row: &Row, place: &Place, options: &Options) -> Result<Told, Failure> {
    let mut told = Told {
        row: row.name.to_owned(),
        lines: Vec::new(),
        failures: Vec::new(),
        json: json!({ "processes": row.processes, "journal": row.journal }),
    };
    for way in options.ways(0) {
        let run = place.run(row.journal)?;
        let transactions = options.transactions / row.share;
        let mut words = vec![format!("transactions={transactions}")];
        words.extend(row.word.map(str::to_owned));
        let programs = [(row.program, row.processes, &words[..])];
        let report = together(place, &run, way, &programs)?.remove(0);
        let left = place.look(&run, way)?;
        let counter = left["counter"].as_i64().ok_or("no counter")?;
        let least = left["second"]
            .as_i64()
            .map_or(counter, |second| second.min(counter));
        let lost = report.done as i64 - least;
        told.lines.push(line(way, &report, lost));
        told.json[way.name()] = as_json(&report, lost, &left);
        if way == Way::Extension {
            let sound = left["integrity"] == "ok";
            let checks = [
                (report.errors == 0, format!("{} errors", report.errors)),
                (lost == 0, format!("{lost} updates lost")),
                (sound, format!("integrity: {}", left["integrity"])),
            ];
            let failures = checks.into_iter().filter(|(reached, _)| !reached);
            told.failures.extend(failures.map(|(_, said)| said));
        }
    }
    Ok(told)
}

fn line(way: Way, report: &Report, lost: i64) -> String {
    let said = report.said.as_deref().map(|said| format!("   ({said})"));
    format!(
        "{:9} {:>6} committed   {:>6} failed ({:4.1} %)   {lost} lost   longest {:>8.1} ms   \
         p99 {:>7.1} ms   {:>6.0}/s{}",
        way.name(),
        report.done,
        report.errors,
        report.failed(),
        report.longest_ms,
        report.p99_ms,
        report.per_second(),
        said.unwrap_or_default(),
    )
}

fn as_json(report: &Report, lost: i64, left: &Value) -> Value {
    json!({
        "committed": report.done,
        "failed": report.errors,
        "failed_percent": report.failed(),
        "said": report.said,
        "lost": lost,
        "longest_ms": report.longest_ms,
        "p99_ms": report.p99_ms,
        "per_second": report.per_second(),
        "integrity": left["integrity"],
    })
}
