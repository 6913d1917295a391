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
        "{:22}{:>10}{:>10}{:>9}{:>12}{:>10}",
        "ns per read", "1 thread", "2", "speed-up", "CPU: 1", "2"
    );
    let mut medians = Vec::new();
    for ((name, _), times) in contenders.iter().zip(&times) {
        let [one, two] = times.each_ref().map(|costs| Cost {
            clock: median(costs.iter().map(|cost| cost.clock)),
            cpu: median(costs.iter().map(|cost| cost.cpu)),
        });
        println!(
            "{name:22}{:10.0}{:10.0}{:9.2}{:12.0}{:10.0}",
            one.clock,
            two.clock,
            one.clock / two.clock,
            one.cpu,
            two.cpu
        );
        medians.push([one, two]);
    }
    for (ours, raw) in [(1, 0), (3, 2)] {
        let [(one, one_cpu), (two, two_cpu)] = [0, 1].map(|column| {
            let (raw, ours) = (medians[raw][column], medians[ours][column]);
            (raw.clock / ours.clock, raw.cpu / ours.cpu)
        });
        println!(
            "{} reaches {one:.2} of {} (CPU {one_cpu:.2}); 2 threads {two:.2} (CPU {two_cpu:.2})",
            contenders[ours].0, contenders[raw].0,
        );
    }
    Ok(())
}

/// What reads cost, in nanoseconds each.
#[derive(Clone, Copy)]
struct Cost {
    /// Of the clock: the time of all threads together for one read.
    clock: f64,
    /// Of a processor: what one thread spends on one read. It does not change
    /// when other programs want the processors too, and it is the same for two
    /// threads as for one if they are not in each other's way.
    cpu: f64,
}

/// Runs the parts at the same moment for a while.
fn round(parts: Vec<Reads<'_>>) -> Cost {
    let threads = parts.len() as f64;
    let start = Barrier::new(parts.len());
    std::thread::scope(|scope| {
        let running: Vec<_> = parts
            .into_iter()
            .map(|mut part| {
                let start = &start;
                scope.spawn(move || {
                    part(BATCH); // opens connections, fills caches
                    start.wait();
                    let (since, cpu) = (Instant::now(), cpu_time());
                    let mut reads = 0.0;
                    while since.elapsed() < ROUND {
                        part(BATCH);
                        reads += f64::from(BATCH);
                    }
                    let cpu = (cpu_time() - cpu) / reads;
                    (reads / since.elapsed().as_secs_f64(), cpu)
                })
            })
            .collect();
        let (mut rate, mut cpu) = (0.0, 0.0);
        for part in running {
            let of_one = part.join().expect("a round");
            rate += of_one.0;
            cpu += of_one.1 / threads;
        }
        let clock = 1e9 / rate;
        Cost { clock, cpu }
    })
}

/// Nanoseconds this thread has had a processor for; not a number where the
/// system does not say.
fn cpu_time() -> f64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanos = stat.split(' ').next().and_then(|nanos| nanos.parse().ok());
    nanos.unwrap_or(f64::NAN)
}

fn keys(reads: u32) -> impl Iterator<Item = i64> {
    (0..i64::from(reads)).map(|i| i * 7 % ROWS)
}

fn value(row: &rusqlite::Row<'_>) -> rusqlite::Result<i64> {
    row.get(0)
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
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
