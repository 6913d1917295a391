//! What is compared, and what must be reached: the table "Must reach" as data.
//! Nothing here runs anything.

/// The names that `--only` takes, in the order of the sections.
pub const KEYS: [&str; 7] = [
    "async", "threads", "single", "reads", "memory", "peers", "postgres",
];

/// One table of the output: contenders that run in turn under the same rule.
#[derive(Clone, Debug)]
pub struct Section {
    /// What `--only` calls it. Several sections may share one.
    pub key: &'static str,
    pub title: String,
    pub rounds: usize,
    /// How long each run's clients run before anything is measured.
    pub warmup: f64,
    pub seconds: f64,
    /// What one operation is called.
    pub unit: &'static str,
    pub contenders: Vec<Contender>,
    pub goals: Vec<Goal>,
    /// What a reader of the figures must know.
    pub note: &'static str,
}

impl Section {
    pub fn needs_postgres(&self) -> bool {
        self.contenders
            .iter()
            .any(|c| matches!(c.program, Program::Pgbench { .. }))
    }
}

/// One way of doing it.
#[derive(Clone, Debug)]
pub struct Contender {
    /// Unique within its section; goals refer to it.
    pub label: String,
    pub program: Program,
}

#[derive(Clone, Debug)]
pub enum Program {
    /// A binary of a package under `peers/`.
    Peer {
        package: &'static str,
        binary: &'static str,
        arguments: Vec<String>,
    },
    /// PostgreSQL's own benchmark, against the private cluster.
    Pgbench { clients: usize },
}

/// One line of "Must reach".
#[derive(Clone, Debug)]
pub struct Goal {
    /// The contender that must reach it.
    pub of: String,
    pub kind: GoalKind,
}

#[derive(Clone, Debug)]
pub enum GoalKind {
    /// The rate of `of`, divided by the rate of `to`, is at least this.
    Ratio { to: String, at_least: f64 },
    /// This figure of `of`, which has this name for people, is at most this.
    AtMost {
        words: &'static str,
        figure: &'static str,
        at_most: f64,
        unit: &'static str,
    },
}

/// All sections, in the order of the table.
pub fn sections(quick: bool) -> Vec<Section> {
    let pace = Pace { quick };
    vec![
        asynchronous(pace),
        threads(pace),
        single(pace, "full", 1),
        single(pace, "normal", 8),
        reads(pace),
        memory(),
        peers(pace, 128),
        peers(pace, 512),
        postgres(pace),
    ]
}

#[derive(Clone, Copy)]
struct Pace {
    quick: bool,
}

impl Pace {
    fn of<T>(self, full: T, quick: T) -> T {
        if self.quick { quick } else { full }
    }
}

fn contender(label: &str, package: &'static str, binary: &'static str, words: &str) -> Contender {
    let arguments = words.split_whitespace().map(str::to_owned).collect();
    Contender {
        label: label.to_owned(),
        program: Program::Peer {
            package,
            binary,
            arguments,
        },
    }
}

fn pgbench(clients: usize) -> Contender {
    Contender {
        label: format!("PostgreSQL, {clients} clients"),
        program: Program::Pgbench { clients },
    }
}

fn ratio(of: &str, to: &str, at_least: f64) -> Goal {
    Goal {
        of: of.to_owned(),
        kind: GoalKind::Ratio {
            to: to.to_owned(),
            at_least,
        },
    }
}

fn p99(of: &str, at_most: f64) -> Goal {
    Goal {
        of: of.to_owned(),
        kind: GoalKind::AtMost {
            words: "p99",
            figure: "p99_us",
            at_most,
            unit: "µs",
        },
    }
}

fn beyond_its_closure(of: &str, at_most: f64) -> Goal {
    Goal {
        of: of.to_owned(),
        kind: GoalKind::AtMost {
            words: "beyond its closure",
            figure: "bytes_beyond_closure",
            at_most,
            unit: "bytes",
        },
    }
}

const POSTGRES_NOTE: &str = "PostgreSQL is reached through a unix socket by its own pgbench \
    (one-INSERT script, -M prepared, a thread per core; fsync=on, synchronous_commit=on); SQLite's \
    contenders run inside the process that writes.";

fn asynchronous(pace: Pace) -> Section {
    Section {
        key: "async",
        title: "1,000 async writers, FULL, one small insert each, again and again".to_owned(),
        rounds: pace.of(7, 3),
        warmup: 0.3,
        seconds: pace.of(2.0, 1.0),
        unit: "rows/s",
        contenders: vec![
            contender("raw-single-tx", "onepen", "raw-single-tx", "--threads 1"),
            contender(
                "onepen execute_async",
                "onepen",
                "onepen-writes",
                "--tasks 1000 --sample 16 --way execute",
            ),
            contender(
                "onepen write_async",
                "onepen",
                "onepen-writes",
                "--tasks 1000 --sample 16 --way write",
            ),
        ],
        goals: vec![
            ratio("onepen execute_async", "raw-single-tx", 0.30),
            ratio("onepen write_async", "raw-single-tx", 0.30),
        ],
        note: "raw-single-tx is one prepared INSERT repeated by one thread in one single \
            transaction, its one commit included: one durable commit against thousands.",
    }
}

fn threads(pace: Pace) -> Section {
    Section {
        key: "threads",
        title: "128 blocking threads, FULL".to_owned(),
        rounds: pace.of(5, 3),
        warmup: 0.3,
        seconds: pace.of(2.0, 1.0),
        unit: "tx/s",
        contenders: vec![
            contender(
                "onepen write",
                "onepen",
                "onepen-writes",
                "--threads 128 --sample 4 --way write",
            ),
            contender(
                "onepen execute",
                "onepen",
                "onepen-writes",
                "--threads 128 --sample 4 --way execute",
            ),
            contender(
                "r2d2_sqlite",
                "r2d2_sqlite",
                "peer-r2d2_sqlite",
                "--threads 128",
            ),
            contender(
                "r2d2_sqlite, 128 connections",
                "r2d2_sqlite",
                "peer-r2d2_sqlite",
                "--threads 128 --way 128",
            ),
            pgbench(128),
            contender(
                "no database",
                "onepen",
                "sleepers",
                "--threads 128 --sample 4",
            ),
        ],
        goals: vec![
            ratio("onepen write", "r2d2_sqlite", 40.0),
            ratio("onepen write", "PostgreSQL, 128 clients", 8.0),
            p99("onepen write", 2_000.0),
            ratio("onepen execute", "r2d2_sqlite", 40.0),
            ratio("onepen execute", "PostgreSQL, 128 clients", 8.0),
            p99("onepen execute", 2_000.0),
        ],
        note: "PostgreSQL is reached through a unix socket by its own pgbench (one-INSERT script, \
            -M prepared, a thread per core; fsync=on, synchronous_commit=on); SQLite's contenders run \
            inside the process that writes. `no database` only puts its clients to sleep, flushes a \
            file for all who wait, and wakes them: the most that blocked callers can get here.",
    }
}

fn single(pace: Pace, durability: &'static str, sample: u32) -> Section {
    let words =
        |way: &str| format!("--threads 1 --durability {durability} --sample {sample} {way}");
    Section {
        key: "single",
        title: format!("1 thread alone, {}", durability.to_uppercase()),
        rounds: pace.of(11, 5),
        warmup: 0.5,
        seconds: pace.of(0.6, 0.3),
        unit: "tx/s",
        contenders: vec![
            contender("raw", "onepen", "raw-writes", &words("")),
            contender(
                "onepen write",
                "onepen",
                "onepen-writes",
                &words("--way write"),
            ),
            contender(
                "onepen execute",
                "onepen",
                "onepen-writes",
                &words("--way execute"),
            ),
        ],
        goals: vec![
            ratio("onepen write", "raw", 0.97),
            ratio("onepen execute", "raw", 0.97),
        ],
        note: "raw is rusqlite with cached statements: BEGIN IMMEDIATE, INSERT, COMMIT.",
    }
}

fn reads(pace: Pace) -> Section {
    let mut contenders = Vec::new();
    for threads in [1, 2] {
        for (way, kind) in [("one", "statement"), ("closure", "closure")] {
            for (who, binary) in [("raw", "raw-reads"), ("onepen", "onepen-reads")] {
                contenders.push(contender(
                    &format!(
                        "{who} {kind}, {threads} thread{}",
                        if threads == 1 { "" } else { "s" }
                    ),
                    "onepen",
                    binary,
                    &format!("--threads {threads} --sample 32 --way {way}"),
                ));
            }
        }
    }
    Section {
        key: "reads",
        title: "One row by key through the pool".to_owned(),
        rounds: pace.of(11, 5),
        warmup: 0.05,
        seconds: pace.of(0.5, 0.25),
        unit: "reads/s",
        contenders,
        goals: vec![
            ratio(
                "onepen statement, 1 thread",
                "raw statement, 1 thread",
                0.95,
            ),
            ratio("onepen closure, 1 thread", "raw closure, 1 thread", 0.95),
            ratio(
                "onepen statement, 2 threads",
                "onepen statement, 1 thread",
                1.8,
            ),
            ratio("onepen closure, 2 threads", "onepen closure, 1 thread", 1.8),
        ],
        note: "raw is a connection per thread with cached statements: a statement in autocommit, \
            a closure between BEGIN and COMMIT. 10,000 rows, all in the page cache.",
    }
}

fn memory() -> Section {
    Section {
        key: "memory",
        title: "Memory of a queued async write, 100,000 queued at once".to_owned(),
        rounds: 1,
        warmup: 0.0,
        seconds: 1.0,
        unit: "jobs",
        contenders: vec![
            contender(
                "onepen write_async",
                "onepen",
                "onepen-memory",
                "--tasks 100000 --way write",
            ),
            contender(
                "onepen execute_async",
                "onepen",
                "onepen-memory",
                "--tasks 100000 --way execute",
            ),
        ],
        goals: vec![
            beyond_its_closure("onepen write_async", 256.0),
            beyond_its_closure("onepen execute_async", 256.0),
        ],
        note: "Counted by the allocator while somebody else holds the pen: what each queued \
            write has allocated, its future included, without the caller's own closure.",
    }
}

fn peers(pace: Pace, clients: usize) -> Section {
    let words = |kind: &str| format!("--{kind} {clients}");
    Section {
        key: "peers",
        title: format!("{clients} clients, FULL: what people use today"),
        rounds: pace.of(3, 1),
        warmup: 0.3,
        seconds: pace.of(2.0, 1.0),
        unit: "tx/s",
        contenders: vec![
            contender(
                "onepen, threads",
                "onepen",
                "onepen-writes",
                &(words("threads") + " --sample 4 --way write"),
            ),
            contender(
                "onepen, tasks",
                "onepen",
                "onepen-writes",
                &(words("tasks") + " --sample 16 --way write"),
            ),
            contender(
                "r2d2_sqlite, threads",
                "r2d2_sqlite",
                "peer-r2d2_sqlite",
                &words("threads"),
            ),
            contender(
                "deadpool-sqlite, tasks",
                "deadpool-sqlite",
                "peer-deadpool-sqlite",
                &words("tasks"),
            ),
            contender(
                "tokio-rusqlite, tasks",
                "tokio-rusqlite",
                "peer-tokio-rusqlite",
                &words("tasks"),
            ),
            contender("sqlx, tasks", "sqlx", "peer-sqlx", &words("tasks")),
        ],
        goals: Vec::new(),
        note: "Each as its documentation says, with its own defaults for the pool; see peers/*/src/main.rs.",
    }
}

fn postgres(pace: Pace) -> Section {
    let mut contenders = Vec::new();
    for clients in [128, 512] {
        contenders.push(contender(
            &format!("onepen, {clients} threads"),
            "onepen",
            "onepen-writes",
            &format!("--threads {clients} --sample 4 --way write"),
        ));
        contenders.push(pgbench(clients));
    }
    Section {
        key: "postgres",
        title: "PostgreSQL at 128 and 512 clients, FULL".to_owned(),
        rounds: pace.of(3, 1),
        warmup: 0.3,
        seconds: pace.of(3.0, 1.0),
        unit: "tx/s",
        contenders,
        goals: Vec::new(),
        note: POSTGRES_NOTE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_goal_names_contenders_of_its_section() {
        for section in sections(true).into_iter().chain(sections(false)) {
            let labels: BTreeSet<_> = section.contenders.iter().map(|c| &c.label).collect();
            assert_eq!(
                labels.len(),
                section.contenders.len(),
                "{}: labels are unique",
                section.title
            );
            for goal in &section.goals {
                assert!(labels.contains(&goal.of), "{}: {}", section.title, goal.of);
                if let GoalKind::Ratio { to, .. } = &goal.kind {
                    assert!(labels.contains(to), "{}: {to}", section.title);
                }
            }
        }
    }

    #[test]
    fn every_selection_selects_something() {
        for key in KEYS {
            assert!(
                sections(true).iter().any(|section| section.key == key),
                "{key}"
            );
        }
    }
}
