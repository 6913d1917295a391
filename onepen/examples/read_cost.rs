//! What a read costs through the readers, beside the same statements on a
//! connection that a thread has to itself.
//!
//! ```text
//! cargo run --release -p onepen --example read_cost
//! ```
//!
//! The contenders take turns in every round, so that they see the same machine;
//! printed are medians over the rounds, in nanoseconds per read.

use std::path::Path;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use rusqlite::{Connection, OpenFlags};

const ROWS: i64 = 1000;
const BATCH: u32 = 1000;
const ROUND: Duration = Duration::from_millis(100);
const ROUNDS: usize = 15;
const QUERY: &str = "SELECT v FROM t WHERE k = ?1";

/// What one thread does in one round.
type Reads<'a> = Box<dyn FnMut(u32) + Send + 'a>;
/// Makes a thread's part: each has a connection or a handle of its own.
type Contender<'a> = (&'static str, Box<dyn Fn() -> Reads<'a> + 'a>);

fn main() -> onepen::Result<()> {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("reads.db");
    let db = onepen::Database::open(&path)?;
    fill(&db)?;

    let contenders: [Contender<'_>; 4] = [
        (
            "raw, autocommit",
            Box::new(|| {
                let raw = raw(&path);
                Box::new(move |reads| {
                    for k in keys(reads) {
                        let v = raw.prepare_cached(QUERY).unwrap().query_row((k,), value);
                        assert_eq!(v.unwrap(), k);
                    }
                })
            }),
        ),
        (
            "query_row",
            Box::new(|| {
                let db = db.clone();
                Box::new(move |reads| {
                    for k in keys(reads) {
                        assert_eq!(db.query_row(QUERY, (k,), value).unwrap(), k);
                    }
                })
            }),
        ),
        (
            "raw, BEGIN … COMMIT",
            Box::new(|| {
                let raw = raw(&path);
                Box::new(move |reads| {
                    for k in keys(reads) {
                        raw.prepare_cached("BEGIN").unwrap().execute(()).unwrap();
                        let v = raw.prepare_cached(QUERY).unwrap().query_row((k,), value);
                        raw.prepare_cached("COMMIT").unwrap().execute(()).unwrap();
                        assert_eq!(v.unwrap(), k);
                    }
                })
            }),
        ),
        (
            "read closure",
            Box::new(|| {
                let db = db.clone();
                Box::new(move |reads| {
                    for k in keys(reads) {
                        let v = db.read(|tx| tx.query_row(QUERY, (k,), value));
                        assert_eq!(v.unwrap(), k);
                    }
                })
            }),
        ),
    ];

    let thread_counts = [1, 2];
    let mut times = vec![[const { Vec::new() }; 2]; contenders.len()];
    for _ in 0..ROUNDS {
        for (which, (_, make)) in contenders.iter().enumerate() {
            for (column, threads) in thread_counts.iter().enumerate() {
                let parts = (0..*threads).map(|_| make()).collect();
                times[which][column].push(round(parts));
            }
        }
    }
    println!(
        "{:24}{:>12}{:>12}{:>12}",
        "ns per read", "1 thread", "2 threads", "speed-up"
    );
    let mut medians = Vec::new();
    for ((name, _), times) in contenders.iter().zip(&mut times) {
        let [one, two] = times.each_mut().map(|times| median(times));
        println!("{name:24}{one:12.1}{two:12.1}{:12.2}", one / two);
        medians.push([one, two]);
    }
    for (ours, raw) in [(1, 0), (3, 2)] {
        let share = |column: usize| medians[raw][column] / medians[ours][column];
        println!(
            "{} reaches {:.3} of {} (2 threads: {:.3})",
            contenders[ours].0,
            share(0),
            contenders[raw].0,
            share(1)
        );
    }
    Ok(())
}

/// Runs the parts at the same moment for a while; the time they took together
/// for each read, in nanoseconds.
fn round(parts: Vec<Reads<'_>>) -> f64 {
    let start = Barrier::new(parts.len());
    std::thread::scope(|scope| {
        let running: Vec<_> = parts
            .into_iter()
            .map(|mut part| {
                let start = &start;
                scope.spawn(move || {
                    part(BATCH); // opens connections, fills caches
                    start.wait();
                    let since = Instant::now();
                    let mut reads = 0;
                    while since.elapsed() < ROUND {
                        part(BATCH);
                        reads += BATCH;
                    }
                    f64::from(reads) / since.elapsed().as_secs_f64()
                })
            })
            .collect();
        let rates = running
            .into_iter()
            .map(|part| part.join().expect("a round"));
        1e9 / rates.sum::<f64>()
    })
}

fn keys(reads: u32) -> impl Iterator<Item = i64> {
    (0..i64::from(reads)).map(|i| i * 7 % ROWS)
}

fn value(row: &rusqlite::Row<'_>) -> rusqlite::Result<i64> {
    row.get(0)
}

fn median(times: &mut [f64]) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// A connection set up like those of the readers.
fn raw(path: &Path) -> Connection {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let raw = Connection::open_with_flags(path, flags).expect("a connection");
    raw.set_prepared_statement_cache_capacity(64);
    raw.pragma_update(None, "cache_size", -8192)
        .expect("a page cache");
    raw.pragma_update(None, "mmap_size", 0).expect("no mapping");
    raw
}

fn fill(db: &onepen::Database) -> onepen::Result<()> {
    db.write(|tx| {
        tx.execute(
            "CREATE TABLE t (k INTEGER PRIMARY KEY, v INTEGER NOT NULL)",
            (),
        )?;
        tx.execute(
            "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < ?1 - 1)
             INSERT INTO t SELECT i, i FROM n",
            (ROWS,),
        )
    })?;
    Ok(())
}
