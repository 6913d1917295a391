//! One of several processes that write to one database as fast as they can.
//!
//! `cargo xtask gate` starts them, in turn with the gate, without it, and over
//! plain connections with `busy_timeout`, and compares. It says `ready`, starts
//! at a line of input, and ends with a line of JSON.

use std::io::BufRead;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use onepen::rusqlite::{self, Connection};
use onepen::{Database, Durability, Options};

type Failure = Box<dyn std::error::Error + Send + Sync>;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// onepen, standing in line.
    Gate,
    /// onepen, with SQLite's lock alone.
    Alone,
    /// Plain connections, one for each thread, with SQLite's busy timeout.
    BusyTimeout,
}

struct Plan {
    path: PathBuf,
    way: Way,
    full: bool,
    held: Duration,
    threads: usize,
    lasts: Duration,
}

#[derive(Default)]
struct Ran {
    writes: u64,
    errors: u64,
    waits: Vec<u32>,
}

fn main() -> Result<(), Failure> {
    let plan = plan()?;
    let onepen = (plan.way != Way::BusyTimeout)
        .then(|| open(&plan))
        .transpose()?;
    let plain = match plan.way {
        Way::BusyTimeout => (0..plan.threads)
            .map(|_| connect(&plan.path, plan.full))
            .collect::<Result<Vec<_>, _>>()?,
        _ => Vec::new(),
    };
    println!("ready");
    std::io::stdin().lock().read_line(&mut String::new())?;
    let over = AtomicBool::new(false);
    let began = Instant::now();
    let ran: Vec<Ran> = std::thread::scope(|scope| {
        let mut workers = Vec::new();
        let mut plain = plain.into_iter();
        for _ in 0..plan.threads {
            let (over, held) = (&over, plan.held);
            let onepen = onepen.clone();
            let connection = plain.next();
            workers.push(scope.spawn(move || match (onepen, connection) {
                (Some(db), _) => run(over, held, || {
                    db.write(|tx| {
                        tx.execute("INSERT INTO t(n) VALUES (?1)", (1,))?;
                        hold(held);
                        Ok(())
                    })
                    .is_ok()
                }),
                (None, Some(connection)) => run(over, held, || insert(&connection, held).is_ok()),
                (None, None) => Ran::default(),
            }));
        }
        std::thread::sleep(plan.lasts.saturating_sub(began.elapsed()));
        over.store(true, Ordering::Relaxed);
        workers
            .into_iter()
            .filter_map(|worker| worker.join().ok())
            .collect()
    });
    report(&ran, began.elapsed());
    Ok(())
}

fn run(over: &AtomicBool, held: Duration, mut write: impl FnMut() -> bool) -> Ran {
    let mut ran = Ran::default();
    while !over.load(Ordering::Relaxed) {
        let since = Instant::now();
        if write() {
            ran.writes += 1;
        } else {
            ran.errors += 1;
        }
        let waited = since.elapsed().saturating_sub(held);
        ran.waits
            .push(u32::try_from(waited.as_micros()).unwrap_or(u32::MAX));
    }
    ran
}

fn report(ran: &[Ran], lasted: Duration) {
    let mut waits: Vec<u32> = ran
        .iter()
        .flat_map(|ran| ran.waits.iter().copied())
        .collect();
    waits.sort_unstable();
    let at = |share: f64| {
        let index = (waits.len() as f64 * share) as usize;
        waits.get(index.min(waits.len().saturating_sub(1))).copied()
    };
    println!(
        "{{\"writes\":{},\"errors\":{},\"seconds\":{:.6},\"p50_us\":{},\"p99_us\":{},\"max_us\":{}}}",
        ran.iter().map(|ran| ran.writes).sum::<u64>(),
        ran.iter().map(|ran| ran.errors).sum::<u64>(),
        lasted.as_secs_f64(),
        at(0.5).unwrap_or(0),
        at(0.99).unwrap_or(0),
        at(1.0).unwrap_or(0),
    );
}

fn open(plan: &Plan) -> onepen::Result<Database> {
    let durability = if plan.full {
        Durability::Full
    } else {
        Durability::Normal
    };
    let db = Options::new()
        .durability(durability)
        .gate(plan.way == Way::Gate)
        .wait(Duration::from_secs(60))
        .open(&plan.path)?;
    if plan.way == Way::Gate
        && let Some(why) = db.stats().alone_because
    {
        return Err(onepen::Error::other(format!("there is no gate: {why}")));
    }
    db.execute(
        "CREATE TABLE IF NOT EXISTS t(id INTEGER PRIMARY KEY, n INTEGER)",
        (),
    )?;
    Ok(db)
}

fn connect(path: &Path, full: bool) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(Duration::from_secs(60))?;
    connection.pragma_update(None, "journal_mode", "wal")?;
    connection.pragma_update(None, "synchronous", if full { "FULL" } else { "NORMAL" })?;
    connection.execute_batch("CREATE TABLE IF NOT EXISTS t(id INTEGER PRIMARY KEY, n INTEGER)")?;
    Ok(connection)
}

fn insert(connection: &Connection, held: Duration) -> rusqlite::Result<()> {
    connection.prepare_cached("BEGIN IMMEDIATE")?.execute(())?;
    connection
        .prepare_cached("INSERT INTO t(n) VALUES (?1)")?
        .execute((1,))?;
    hold(held);
    connection.prepare_cached("COMMIT")?.execute(())?;
    Ok(())
}

/// A transaction that has something else to do.
fn hold(held: Duration) {
    if !held.is_zero() {
        std::thread::sleep(held);
    }
}

fn plan() -> Result<Plan, Failure> {
    let mut plan = Plan {
        path: PathBuf::new(),
        way: Way::Gate,
        full: false,
        held: Duration::ZERO,
        threads: 1,
        lasts: Duration::from_secs(3),
    };
    let mut words = std::env::args_os().skip(1);
    plan.path = words.next().ok_or("which database?")?.into();
    for word in words {
        let word = word.into_string().map_err(|_| "not a word")?;
        match word.split_once('=') {
            Some(("way", "gate")) => plan.way = Way::Gate,
            Some(("way", "alone")) => plan.way = Way::Alone,
            Some(("way", "busy_timeout")) => plan.way = Way::BusyTimeout,
            Some(("synchronous", level)) => plan.full = level == "FULL",
            Some(("held_us", us)) => plan.held = Duration::from_micros(us.parse()?),
            Some(("threads", threads)) => plan.threads = threads.parse()?,
            Some(("seconds", seconds)) => plan.lasts = Duration::from_secs_f64(seconds.parse()?),
            _ => return Err(format!("what is `{word}`?").into()),
        }
    }
    Ok(plan)
}
