//! What a run found, in one value that every form of output is made from.
//!
//! Guarantee: the JSON form is stable. A field is never renamed, never changes
//! its unit and never disappears under the same [`SCHEMA`]; new ones may come.
//! `null` means that it could not be measured, never zero.

mod html;
mod plot;
mod table;

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

pub use html::page;
pub use table::{Style, print};

use super::driver::{Counted, Plan, Point, Ran, Round};
use super::ways::{About, Durability, Journal};
use super::workloads::Verdict;

/// The name of the form of the JSON report.
pub const SCHEMA: &str = "onepen-bench/1";

/// One run.
#[derive(Debug, Serialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: &'static str,
    /// The version of this program.
    pub onepen: &'static str,
    /// The version of SQLite linked into it.
    pub sqlite: String,
    /// The version of PostgreSQL, when it took part.
    pub postgres: Option<String>,
    /// Where it ran.
    pub machine: Machine,
    /// What was run.
    pub settings: Settings,
    /// Whether ctrl-C ended it early.
    pub interrupted: bool,
    /// One for each number of threads.
    pub points: Vec<PointReport>,
}

/// Where it ran.
#[derive(Debug, Serialize)]
pub struct Machine {
    /// The operating system.
    pub os: &'static str,
    /// The processor's architecture.
    pub arch: &'static str,
    /// Processors this program may use.
    pub cores: usize,
    /// The type of the scratch directory's file system.
    pub file_system: String,
}

/// What was run.
#[derive(Debug, Serialize)]
pub struct Settings {
    /// The workload's name.
    pub workload: String,
    /// Its size.
    pub scale: u32,
    /// What COMMIT promises.
    pub durability: Durability,
    /// Processes.
    pub processes: u32,
    /// Reading threads of each process.
    pub readers: u32,
    /// Length of a slice, in seconds.
    pub duration_s: f64,
    /// Slices of each way.
    pub rounds: u32,
    /// Where the random numbers began.
    pub seed: u64,
}

/// All ways at one number of threads.
#[derive(Debug, Serialize)]
pub struct PointReport {
    /// Writing threads of each process.
    pub threads: u32,
    /// In the order of the run.
    pub ways: Vec<WayReport>,
}

/// One way at one number of threads.
#[derive(Debug, Serialize)]
pub struct WayReport {
    /// Its name.
    pub way: &'static str,
    /// What it is.
    pub about: &'static str,
    /// What to know beside its figures.
    pub note: Option<&'static str>,
    /// Writing clients of all processes.
    pub clients: usize,
    /// Rounds that ran.
    pub rounds: usize,
    /// Acknowledged transactions per second: the median of the rounds.
    pub tx_per_s: Option<f64>,
    /// The same, round by round.
    pub tx_per_s_rounds: Vec<f64>,
    /// Latency of what was acknowledged, over all rounds.
    pub latency_us: Option<Latency>,
    /// Acknowledged transactions of all rounds.
    pub committed: u64,
    /// Transactions of all rounds that failed.
    pub failed: u64,
    /// The failures by class: SQLite's extended name, `SQLSTATE …`, or ours.
    pub errors: BTreeMap<String, u64>,
    /// What the first failure of each class said.
    pub error_examples: BTreeMap<String, String>,
    /// The smallest share of a client by the largest: the median of the rounds.
    pub fairness: Option<f64>,
    /// Flushes to disk of all rounds.
    pub fsyncs: Option<u64>,
    /// Acknowledged updates that were not in the database afterwards.
    pub lost_updates: Option<u64>,
    /// Whatever else the invariant found.
    pub violations: Vec<String>,
    /// The readers beside the writers.
    pub readers: Option<ReaderReport>,
    /// Why it could not run.
    pub could_not_run: Option<String>,
}

/// Readers beside writers.
#[derive(Debug, Serialize)]
pub struct ReaderReport {
    /// Reading clients of all processes.
    pub clients: usize,
    /// Reads per second: the median of the rounds.
    pub tx_per_s: Option<f64>,
    /// Their latency, over all rounds.
    pub latency_us: Option<Latency>,
    /// Failures by class.
    pub errors: BTreeMap<String, u64>,
}

/// Microseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Latency {
    /// Half were faster.
    pub p50: f64,
    /// 99 of 100 were faster.
    pub p99: f64,
    /// 999 of 1,000 were faster.
    pub p99_9: f64,
    /// None was slower.
    pub max: f64,
}

impl Latency {
    fn of(counted: &Counted) -> Option<Self> {
        let micros = |quantile| {
            counted
                .quantile(quantile)
                .map(|duration: Duration| duration.as_nanos() as f64 / 1_000.0)
        };
        Some(Self {
            p50: micros(0.5)?,
            p99: micros(0.99)?,
            p99_9: micros(0.999)?,
            max: micros(1.0)?,
        })
    }
}

/// What the caller knows and the plan does not.
pub struct Surroundings {
    /// The scratch directory's.
    pub file_system: String,
    /// The server's version.
    pub postgres: Option<String>,
}

impl Report {
    /// From what was measured.
    pub fn new(
        plan: &Plan,
        surroundings: Surroundings,
        points: Vec<Point>,
        interrupted: bool,
    ) -> Self {
        let slice = &plan.slice;
        let workload = serde_json::to_value(slice.workload.kind)
            .ok()
            .and_then(|name| name.as_str().map(str::to_owned))
            .expect("a workload's name is a text");
        Self {
            schema: SCHEMA,
            onepen: env!("CARGO_PKG_VERSION"),
            sqlite: rusqlite::version().to_owned(),
            postgres: surroundings.postgres,
            machine: Machine {
                os: std::env::consts::OS,
                arch: std::env::consts::ARCH,
                cores: std::thread::available_parallelism().map_or(1, usize::from),
                file_system: surroundings.file_system,
            },
            settings: Settings {
                workload,
                scale: slice.workload.scale,
                durability: slice.durability,
                processes: plan.processes,
                readers: slice.readers,
                duration_s: slice.duration.as_secs_f64(),
                rounds: plan.rounds,
                seed: slice.seed,
            },
            interrupted,
            points: points
                .into_iter()
                .map(|point| PointReport {
                    threads: point.threads,
                    ways: point
                        .ways
                        .into_iter()
                        .map(|(about, rounds)| WayReport::new(about, rounds))
                        .collect(),
                })
                .collect(),
        }
    }

    /// The report as JSON, for other programs.
    pub fn json(&self) -> String {
        serde_json::to_string_pretty(self).expect("a report has only text and numbers")
    }

    fn ways(&self) -> impl Iterator<Item = &WayReport> {
        self.points.iter().flat_map(|point| &point.ways)
    }

    /// Whether some way lost or broke something.
    pub fn is_violated(&self) -> bool {
        self.ways().any(WayReport::is_violated)
    }

    /// Whether some way could not run.
    pub fn could_not_run(&self) -> bool {
        self.ways().any(|way| way.could_not_run.is_some())
    }
}

impl WayReport {
    fn new(about: &'static About, rounds: Vec<Round>) -> Self {
        let mut report = Self {
            way: about.name,
            about: about.line,
            note: (about.journal == Journal::Server).then_some(
                "reached through a socket, in processes of its own; SQLite is linked into this one",
            ),
            clients: 0,
            rounds: 0,
            tx_per_s: None,
            tx_per_s_rounds: Vec::new(),
            latency_us: None,
            committed: 0,
            failed: 0,
            errors: BTreeMap::new(),
            error_examples: BTreeMap::new(),
            fairness: None,
            fsyncs: None,
            lost_updates: None,
            violations: Vec::new(),
            readers: None,
            could_not_run: None,
        };
        let mut ran = Vec::new();
        for round in rounds {
            match round {
                Round::Ran(figures, verdict) => {
                    report.judged(verdict);
                    ran.push(*figures);
                }
                Round::Failed(why) => report.could_not_run = Some(why),
            }
        }
        report.measured(about, ran);
        report
    }

    fn judged(&mut self, verdict: Verdict) {
        if let Some(lost) = verdict.lost {
            *self.lost_updates.get_or_insert(0) += lost;
        }
        for violation in verdict.violations {
            if !self.violations.contains(&violation) {
                self.violations.push(violation);
            }
        }
    }

    fn measured(&mut self, about: &About, ran: Vec<Ran>) {
        let Some(first) = ran.first() else {
            return;
        };
        self.clients = first.writers.shares.len();
        self.rounds = ran.len();
        self.tx_per_s_rounds = ran.iter().map(|ran| rate(&ran.writers, ran)).collect();
        self.tx_per_s = median(self.tx_per_s_rounds.clone());
        self.fairness = median(
            ran.iter()
                .filter_map(|ran| ran.writers.fairness())
                .collect(),
        );
        if about.journal != Journal::Server {
            self.fsyncs = ran.iter().map(|ran| ran.fsyncs).sum();
        }
        let readers = first.readers.shares.len();
        let reads = median(ran.iter().map(|ran| rate(&ran.readers, ran)).collect());
        let mut writing = Counted::default();
        let mut reading = Counted::default();
        for ran in ran {
            writing.add(ran.writers);
            reading.add(ran.readers);
        }
        self.latency_us = Latency::of(&writing);
        self.committed = writing.committed;
        self.failed = writing.failed();
        for (class, errors) in writing.errors {
            self.errors.insert(class.clone(), errors.count);
            self.error_examples.insert(class, errors.example);
        }
        self.readers = (readers > 0).then(|| ReaderReport {
            clients: readers,
            tx_per_s: reads,
            latency_us: Latency::of(&reading),
            errors: reading
                .errors
                .into_iter()
                .map(|(class, errors)| (class, errors.count))
                .collect(),
        });
    }

    /// Its name as it stands beside its figures.
    pub fn title(&self) -> String {
        match self.note {
            None => self.way.to_owned(),
            Some(_) => format!("{} (socket)", self.way),
        }
    }

    /// Whether it lost or broke something.
    pub fn is_violated(&self) -> bool {
        self.lost_updates.unwrap_or(0) > 0 || !self.violations.is_empty()
    }

    /// The share of the transactions that failed.
    pub fn failed_share(&self) -> Option<f64> {
        let all = self.failed + self.committed;
        (all > 0).then(|| self.failed as f64 / all as f64)
    }

    /// Transactions that one flush made durable.
    pub fn tx_per_fsync(&self) -> Option<f64> {
        self.fsyncs
            .filter(|&fsyncs| fsyncs > 0)
            .map(|fsyncs| self.committed as f64 / fsyncs as f64)
    }
}

fn rate(counted: &Counted, ran: &Ran) -> f64 {
    counted.in_time as f64 / ran.lasted.as_secs_f64().max(f64::MIN_POSITIVE)
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        n if n % 2 == 1 => Some(values[middle]),
        _ => Some(f64::midpoint(values[middle - 1], values[middle])),
    }
}

pub use crate::words::thousands;

/// A rate as people read it: three digits that matter, thousands apart.
pub fn count(value: f64) -> String {
    if value < 9.95 {
        return format!("{value:.1}");
    }
    let rounded = {
        let digits = value.log10().floor() - 2.0;
        let unit = 10_f64.powf(digits.max(0.0));
        (value / unit).round() * unit
    };
    thousands(rounded as u64)
}

/// A time in microseconds as people read it.
pub fn time(micros: f64) -> String {
    let (value, unit) = match micros {
        m if m < 999.5 => (m, "µs"),
        m if m < 999_500.0 => (m / 1_000.0, "ms"),
        m => (m / 1_000_000.0, "s"),
    };
    match value {
        v if v < 9.95 => format!("{v:.1} {unit}"),
        v => format!("{v:.0} {unit}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::ways;

    /// One round of a way that lost three of four updates.
    fn with_a_loss() -> Report {
        let ran = Ran {
            lasted: Duration::from_secs(1),
            writers: Counted {
                in_time: 4,
                committed: 4,
                effects: 4,
                latencies: vec![(1_000, 4)],
                shares: vec![3, 1],
                ..Counted::default()
            },
            readers: Counted::default(),
            fsyncs: Some(2),
        };
        let verdict = Verdict {
            lost: Some(3),
            violations: vec!["<the sum> is 1, must be 2".to_owned()],
        };
        // The longest name there is.
        let about = ways::by_name("wal+immediate+retry").expect("it is in the list");
        Report {
            schema: SCHEMA,
            onepen: "0",
            sqlite: "3".to_owned(),
            postgres: None,
            machine: Machine {
                os: "os",
                arch: "arch",
                cores: 1,
                file_system: "ext4".to_owned(),
            },
            settings: Settings {
                workload: "bank".to_owned(),
                scale: 1,
                durability: Durability::Full,
                processes: 1,
                readers: 0,
                duration_s: 1.0,
                rounds: 1,
                seed: 1,
            },
            interrupted: true,
            points: vec![PointReport {
                threads: 2,
                ways: vec![WayReport::new(
                    about,
                    vec![Round::Ran(Box::new(ran), verdict)],
                )],
            }],
        }
    }

    #[test]
    fn what_was_lost_is_said_in_every_form() {
        let report = with_a_loss();
        assert!(report.is_violated() && !report.could_not_run());
        let json: serde_json::Value = serde_json::from_str(&report.json()).expect("JSON");
        let way = &json["points"][0]["ways"][0];
        assert_eq!(way["lost_updates"], 3);
        assert_eq!(way["tx_per_s"], 4.0);
        assert_eq!(way["fairness"], 1.0 / 3.0);
        let style = Style {
            color: false,
            width: 120,
        };
        let text = print(&report, style);
        assert!(
            text.contains("retry  3 acknowledged updates are lost"),
            "{text}"
        );
        assert!(text.contains("retry  <the sum> is 1, must be 2"), "{text}");
        assert!(text.contains("Interrupted"), "{text}");
        let page = page(&report);
        assert!(page.contains("3 acknowledged updates are lost"), "{page}");
        assert!(page.contains("&lt;the sum&gt; is 1"), "{page}");
        assert!(page.contains("was interrupted"), "{page}");
    }

    #[test]
    fn a_table_fits_a_narrow_terminal_by_leaving_things_out() {
        let widest = |width| {
            let style = Style {
                color: false,
                width,
            };
            let text = print(&with_a_loss(), style);
            assert_eq!(text.contains('█'), width > 90, "{text}");
            // What went wrong is said in whole sentences.
            let rows = text.lines().skip(1).take(3);
            rows.map(|line| line.chars().count()).max().expect("lines")
        };
        assert!(widest(120) <= 120);
        assert!(widest(80) <= 80);
    }

    #[test]
    fn numbers_read_well() {
        assert_eq!(count(0.0), "0.0");
        assert_eq!(count(9.94), "9.9");
        assert_eq!(count(812.3), "812");
        assert_eq!(count(171_234.0), "171,000");
        assert_eq!(count(1_234_567.0), "1,230,000");
        assert_eq!(time(7.25), "7.2 µs");
        assert_eq!(time(999.7), "1.0 ms");
        assert_eq!(time(23_400.0), "23 ms");
        assert_eq!(time(5_000_000.0), "5.0 s");
    }

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median(vec![]), None);
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0, 3.0, 2.0]), Some(2.5));
    }
}
