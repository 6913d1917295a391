//! How long the write-ahead log gets under a writer that does not stop and
//! readers that always overlap, and what keeping it short costs the writer:
//! onepen beside SQLite's own automatic checkpoints. Under `synchronous=NORMAL`,
//! because there the log grows fastest.
//!
//! ```text
//! cargo run --release -p onepen --example log_growth
//! ```
//!
//! The contenders take turns in every round; printed are medians over the
//! rounds, and for the log the largest of all rounds.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use rusqlite::Connection;

const ROUNDS: usize = 3;
const TIME: Duration = Duration::from_millis(1500);
const READERS: usize = 3;
const INSERT: &str = "INSERT INTO t (v) VALUES (randomblob(200))";
const READ: &str = "SELECT count(*) FROM t WHERE k > (SELECT max(k) FROM t) - 100";

/// How long each read goes on, and how long its thread rests after it.
struct Load {
    name: &'static str,
    read: Duration,
    rest: Duration,
}

const LOADS: [Load; 3] = [
    Load {
        name: "reads of 3 ms, no pause",
        read: Duration::from_millis(3),
        rest: Duration::ZERO,
    },
    Load {
        name: "reads of 30 ms, no pause",
        read: Duration::from_millis(30),
        rest: Duration::ZERO,
    },
    Load {
        name: "reads of 3 ms, pauses of 3 ms",
        read: Duration::from_millis(3),
        rest: Duration::from_millis(3),
    },
];

#[derive(Clone, Copy, Default)]
struct Result {
    per_second: f64,
    p99: Duration,
    longest: Duration,
    longest_read_start: Duration,
    log: u64,
}

fn main() {
    println!(
        "{:<30} {:<8} {:>9} {:>10} {:>10} {:>12} {:>9}",
        "readers", "by", "writes/s", "p99", "longest", "read begins", "log"
    );
    for load in &LOADS {
        let mut results = [Vec::new(), Vec::new()];
        for _ in 0..ROUNDS {
            results[0].push(sqlite(load));
            results[1].push(onepen(load));
        }
        for (name, results) in ["SQLite", "onepen"].iter().zip(results) {
            let median = |of: fn(&Result) -> Duration| {
                let mut all: Vec<_> = results.iter().map(of).collect();
                all.sort();
                all[ROUNDS / 2]
            };
            let mut speed: Vec<_> = results.iter().map(|result| result.per_second).collect();
            speed.sort_by(f64::total_cmp);
            let log = results.iter().map(|result| result.log).max().unwrap_or(0);
            println!(
                "{:<30} {:<8} {:>9.0} {:>10.1?} {:>10.1?} {:>12.1?} {:>6.1} MB",
                load.name,
                name,
                speed[ROUNDS / 2],
                median(|result| result.p99),
                median(|result| result.longest),
                median(|result| result.longest_read_start),
                log as f64 / 1e6
            );
        }
    }
}

fn sqlite(load: &Load) -> Result {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("a.db");
    let open = || {
        let connection = Connection::open(&path).unwrap();
        connection
            .execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL")
            .unwrap();
        connection
    };
    let writer = open();
    create(|sql| writer.execute_batch(sql).unwrap());
    run(
        &path,
        load,
        || {
            writer.prepare_cached(INSERT).unwrap().execute(()).unwrap();
        },
        |read| {
            let reader = open();
            Box::new(move || {
                let since = Instant::now();
                let tx = reader.unchecked_transaction().unwrap();
                let _: i64 = tx
                    .prepare_cached(READ)
                    .unwrap()
                    .query_row((), |row| row.get(0))
                    .unwrap();
                let began = since.elapsed();
                std::thread::sleep(read);
                began
            })
        },
    )
}

fn onepen(load: &Load) -> Result {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("a.db");
    let db = onepen::Options::new()
        .durability(onepen::Durability::Normal)
        .open(&path)
        .unwrap();
    create(|sql| db.write(|tx| tx.execute_batch(sql)).unwrap());
    run(
        &path,
        load,
        || {
            db.execute(INSERT, ()).unwrap();
        },
        |read| {
            let db = db.clone();
            Box::new(move || {
                let since = Instant::now();
                db.read(|tx| {
                    let _: i64 = tx.query_row(READ, (), |row| row.get(0))?;
                    let began = since.elapsed();
                    std::thread::sleep(read);
                    Ok(began)
                })
                .unwrap()
            })
        },
    )
}

fn create(run: impl Fn(&str)) {
    run("CREATE TABLE t (k INTEGER PRIMARY KEY, v)");
    run(INSERT);
}

fn run(
    path: &Path,
    load: &Load,
    write: impl Fn(),
    reader: impl Fn(Duration) -> Box<dyn FnMut() -> Duration> + Sync,
) -> Result {
    let log = PathBuf::from(format!("{}-wal", path.display()));
    let stop = AtomicBool::new(false);
    let mut result = Result::default();
    let mut times = Vec::new();
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..READERS)
            .map(|_| {
                scope.spawn(|| {
                    let mut read = reader(load.read);
                    let mut longest = Duration::ZERO;
                    read();
                    while !stop.load(Relaxed) {
                        longest = longest.max(read());
                        std::thread::sleep(load.rest);
                    }
                    longest
                })
            })
            .collect();
        let started = Instant::now();
        while started.elapsed() < TIME {
            let since = Instant::now();
            write();
            times.push(since.elapsed());
            if times.len() % 64 == 0 {
                let length = std::fs::metadata(&log).map_or(0, |meta| meta.len());
                result.log = result.log.max(length);
            }
        }
        result.per_second = times.len() as f64 / started.elapsed().as_secs_f64();
        stop.store(true, Relaxed);
        for reader in readers {
            result.longest_read_start = result.longest_read_start.max(reader.join().unwrap());
        }
    });
    times.sort();
    result.p99 = times[times.len() * 99 / 100];
    result.longest = *times.last().unwrap_or(&Duration::ZERO);
    result
}
