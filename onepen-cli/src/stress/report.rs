//! The verdict, for people and for programs.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

use onepen_check::History;
use serde::Serialize;

/// The version of the JSON.
pub const SCHEMA: &str = "onepen-stress/1";

/// Everything that is said at the end.
#[derive(Debug, Serialize)]
pub struct Report {
    pub schema: &'static str,
    pub onepen: &'static str,
    pub sqlite: &'static str,
    /// `None` when files were checked again.
    pub seed: Option<u64>,
    pub file_system: Option<String>,
    pub interrupted: bool,
    /// Workloads that were asked for, and were not begun.
    pub not_run: Vec<String>,
    pub is_clean: bool,
    pub runs: Vec<Run>,
}

/// One history and what is wrong with it.
#[derive(Debug, Serialize)]
pub struct Run {
    /// The workload, or the file.
    pub name: String,
    /// What the history says of itself.
    pub about: String,
    pub transactions: usize,
    pub committed: usize,
    pub not_committed: usize,
    pub unknown: usize,
    pub unknown_found: usize,
    pub operations: usize,
    pub checked_in_seconds: f64,
    pub kills: u64,
    pub stops: u64,
    pub faults: u64,
    /// Errors that clients were told, by class.
    pub errors: BTreeMap<String, u64>,
    /// How many anomalies there are.
    pub found: usize,
    /// The first of each class.
    pub anomalies: Vec<Anomaly>,
    /// What is wrong without a history.
    pub violations: Vec<String>,
    /// Where the history was kept.
    pub history: Option<PathBuf>,
}

/// One anomaly with its minimal history.
#[derive(Debug, Serialize)]
pub struct Anomaly {
    pub class: &'static str,
    pub what: String,
    pub transactions: Vec<String>,
}

impl Run {
    /// Judges a history.
    pub fn of(name: String, history: &History) -> Self {
        let began = std::time::Instant::now();
        let report = history.check();
        let checked_in_seconds = began.elapsed().as_secs_f64();
        let anomalies = report.anomalies.iter().map(|anomaly| Anomaly {
            class: anomaly.class.name(),
            what: anomaly.what.clone(),
            transactions: lines(history, &anomaly.transactions),
        });
        Self {
            name,
            about: history.about.clone(),
            transactions: report.transactions,
            committed: report.committed,
            not_committed: report.not_committed,
            unknown: report.unknown,
            unknown_found: report.unknown_found,
            operations: report.operations,
            checked_in_seconds,
            kills: 0,
            stops: 0,
            faults: 0,
            errors: BTreeMap::new(),
            found: report.found,
            anomalies: anomalies.collect(),
            violations: Vec::new(),
            history: None,
        }
    }

    /// Nothing is wrong.
    pub fn is_clean(&self) -> bool {
        self.found == 0 && self.violations.is_empty()
    }
}

/// The lines of these transactions, as they stand in the history.
fn lines(history: &History, ids: &[u64]) -> Vec<String> {
    ids.iter()
        .flat_map(|&id| {
            let asked = history
                .transactions
                .iter()
                .filter(move |transaction| transaction.id == id)
                .map(|transaction| onepen_check::text::answered(transaction, history));
            let done = history
                .ledger
                .iter()
                .filter(move |entry| entry.id == id)
                .map(|entry| {
                    let steps =
                        onepen_check::text::steps_of(&history.ops[entry.ops.clone()], history);
                    format!("l {} {}{steps}", entry.serial, entry.id)
                });
            asked.chain(done)
        })
        .map(|line| line.trim_end().to_owned())
        .collect()
}

impl Report {
    /// As JSON.
    pub fn json(&self) -> Result<String, String> {
        serde_json::to_string_pretty(self)
            .map(|text| text + "\n")
            .map_err(|error| error.to_string())
    }

    /// For people.
    pub fn text(&self) -> String {
        let mut text = String::new();
        // A String takes everything.
        let _ = self.put(&mut text);
        text
    }

    fn put(&self, text: &mut String) -> std::fmt::Result {
        let width = self
            .runs
            .iter()
            .map(|run| run.name.len())
            .max()
            .unwrap_or(0);
        writeln!(
            text,
            "{:width$}  {:>12}  {:>10}  {:>9}  {:>7}  {:>8}  verdict",
            "", "transactions", "committed", "refused", "unknown", "found in"
        )?;
        for run in &self.runs {
            let verdict = if run.is_clean() { "ok" } else { "ANOMALY" };
            writeln!(
                text,
                "{:width$}  {:>12}  {:>10}  {:>9}  {:>7}  {:>8}  {verdict}",
                run.name,
                grouped(run.transactions as u64),
                grouped(run.committed as u64),
                grouped(run.not_committed as u64),
                grouped(run.unknown as u64),
                grouped(run.unknown_found as u64),
            )?;
        }
        let sum = |of: fn(&Run) -> u64| self.runs.iter().map(of).sum::<u64>();
        let [kills, stops, faults] = [
            sum(|run| run.kills),
            sum(|run| run.stops),
            sum(|run| run.faults),
        ];
        for (n, what) in [
            (kills, "processes killed (kill -9)"),
            (stops, "processes stopped for a while"),
            (faults, "faults injected"),
        ] {
            if n > 0 {
                writeln!(text, "{:>12}  {what}", grouped(n))?;
            }
        }
        let mut errors: BTreeMap<&str, u64> = BTreeMap::new();
        for (class, n) in self.runs.iter().flat_map(|run| &run.errors) {
            *errors.entry(class).or_default() += n;
        }
        for (class, n) in errors {
            writeln!(text, "{:>12}  answers: {class}", grouped(n))?;
        }
        for run in self.runs.iter().filter(|run| !run.is_clean()) {
            writeln!(text, "\n{}: {}", run.name, run.about)?;
            for violation in &run.violations {
                writeln!(text, "  {violation}")?;
            }
            for anomaly in &run.anomalies {
                writeln!(text, "  {}: {}", anomaly.class, anomaly.what)?;
                for line in &anomaly.transactions {
                    writeln!(text, "    {}", shortened(line))?;
                }
            }
            if run.found > run.anomalies.len() {
                writeln!(
                    text,
                    "  {} anomalies in all; the first of each kind is shown.",
                    grouped(run.found as u64)
                )?;
            }
            if let Some(history) = &run.history {
                writeln!(
                    text,
                    "  The history: {0} (onepen stress --check {0})",
                    history.display()
                )?;
            }
        }
        if self.interrupted {
            let not_run = match &*self.not_run {
                [] => String::new(),
                names => format!(" Not begun: {}.", names.join(", ")),
            };
            writeln!(
                text,
                "\nInterrupted: what ran until then was checked.{not_run}"
            )?;
        }
        let transactions = grouped(sum(|run| run.transactions as u64));
        let operations = grouped(sum(|run| run.operations as u64));
        let seed = self
            .seed
            .map_or(String::new(), |seed| format!(", seed {seed}"));
        if self.is_clean {
            writeln!(
                text,
                "\nNo anomaly in {transactions} transactions ({operations} operations) checked{seed}."
            )
        } else {
            writeln!(
                text,
                "\nSOMETHING IS WRONG among {transactions} transactions checked{seed}."
            )
        }
    }
}

fn shortened(line: &str) -> String {
    const MOST: usize = 400;
    if line.chars().count() <= MOST {
        return line.to_owned();
    }
    line.chars().take(MOST).chain(" …".chars()).collect()
}

/// `1234567` as `1,234,567`.
pub fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
