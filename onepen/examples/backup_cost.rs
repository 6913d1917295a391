//! What writers lose while their database is copied.
//!
//! ```text
//! cargo run --release -p onepen --example backup_cost
//! cargo run --release -p onepen --example backup_cost -- --megabytes 256 --updates
//! cargo run --release -p onepen --example backup_cost -- --snapshot
//! cargo run --release -p onepen --example backup_cost -- --only-hold 10
//! ```
//!
//! Threads write as fast as they can, each write its own durable transaction
//! (`synchronous=FULL`), and do not stop. Phases without and with a copy take
//! turns in the same run, and every copy is compared with the phases before and
//! after it; with `--only-hold` there is no copy, but a snapshot that pins the log,
//! to tell what that alone costs. Printed is the ratio of the throughputs for each round, and the
//! median.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use onepen::backup::{Check, Phase, WhenLogFull};
use onepen::{Database, Result};

struct Settings {
    megabytes: u64,
    writers: u64,
    rounds: usize,
    quiet: Duration,
    /// Random rows of the large table are changed, each on a page of its own,
    /// instead of rows being added to another one.
    updates: bool,
    share: Option<f64>,
    rate: Option<u64>,
    check: Check,
    compact: bool,
    /// From a snapshot, not through the pen.
    snapshot: bool,
    /// Nothing is copied: a snapshot is held, for so long.
    only_hold: Option<Duration>,
}

const ROW: u64 = 1000;

fn main() -> Result<()> {
    let settings = settings();
    let dir = tempfile::tempdir_in(".").expect("a temporary directory");
    let path = dir.path().join("app.db");
    let db = Database::open(&path)?;
    fill(&db, settings.megabytes)?;
    let size = length(&path);
    println!(
        "{} writers under synchronous=FULL, {}; database of {} MB; copies {} with {}, {:?} check",
        settings.writers,
        if settings.updates {
            "each changes a random row of it"
        } else {
            "each adds a row"
        },
        size >> 20,
        if settings.snapshot {
            "of a snapshot"
        } else {
            "through the pen"
        },
        settings
            .share
            .map_or("the usual share".to_owned(), |share| format!(
                "share {share}"
            )),
        settings.check,
    );
    let writes = AtomicU64::new(0);
    let longest = AtomicU64::new(0);
    let stop = AtomicBool::new(false);
    let failed = Mutex::new(None);
    let rows = size / ROW;
    let measured = std::thread::scope(|scope| {
        for seed in 0..settings.writers {
            let (db, writes, longest, stop, failed) = (&db, &writes, &longest, &stop, &failed);
            let updates = settings.updates;
            scope.spawn(move || {
                let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
                while !stop.load(Relaxed) {
                    random ^= random << 13;
                    random ^= random >> 7;
                    random ^= random << 17;
                    let since = Instant::now();
                    let done = if updates {
                        let row = i64::try_from(random % rows).unwrap_or(1);
                        db.execute("UPDATE big SET n = n + 1 WHERE id = ?1", (row,))
                    } else {
                        db.execute(
                            "INSERT INTO log(n, text) VALUES (?1, ?2)",
                            (
                                i64::try_from(random >> 1).unwrap_or(0),
                                "some words that were said",
                            ),
                        )
                    };
                    match done {
                        Ok(_) => {
                            writes.fetch_add(1, Relaxed);
                            let micros = u64::try_from(since.elapsed().as_micros());
                            longest.fetch_max(micros.unwrap_or(u64::MAX), Relaxed);
                        }
                        Err(error) => {
                            *failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                            return;
                        }
                    }
                }
            });
        }
        let measured = measure(
            &db,
            &settings,
            &dir.path().join("copy.db"),
            &writes,
            &longest,
        );
        stop.store(true, Relaxed);
        measured
    });
    if let Some(error) = failed.lock().unwrap_or_else(PoisonError::into_inner).take() {
        return Err(error);
    }
    let mut ratios = measured?;
    ratios.sort_by(f64::total_cmp);
    println!(
        "median of what writers keep: {:.2}",
        ratios[ratios.len() / 2]
    );
    Ok(())
}

/// The ratio of each round.
fn measure(
    db: &Database,
    settings: &Settings,
    copy: &Path,
    writes: &AtomicU64,
    longest: &AtomicU64,
) -> Result<Vec<f64>> {
    let quiet = || {
        let (since, before) = (Instant::now(), writes.load(Relaxed));
        longest.store(0, Relaxed);
        std::thread::sleep(settings.quiet);
        let rate = (writes.load(Relaxed) - before) as f64 / since.elapsed().as_secs_f64();
        (rate, Duration::from_micros(longest.load(Relaxed)))
    };
    let mut ratios = Vec::new();
    quiet(); // to get warm
    let mut before = quiet();
    println!(
        "{:>5} {:>11} {:>11} {:>11} {:>6} {:>6} {:>6} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9}",
        "round",
        "before /s",
        "copying /s",
        "after /s",
        "keep",
        "copy",
        "check",
        "copying",
        "checking",
        "all",
        "log",
        "longest",
        "else"
    );
    for round in 1..=settings.rounds {
        let (since, at_first) = (Instant::now(), writes.load(Relaxed));
        longest.store(0, Relaxed);
        if let Some(time) = settings.only_hold {
            let held = db.snapshot()?;
            std::thread::sleep(time);
            drop(held);
            let rate = (writes.load(Relaxed) - at_first) as f64 / since.elapsed().as_secs_f64();
            let after = quiet();
            let keep = rate / ((before.0 + after.0) / 2.0);
            println!(
                "{round:>5} {:>11.0} {rate:>11.0} {:>11.0} {keep:>6.2}",
                before.0, after.0
            );
            ratios.push(keep);
            before = after;
            continue;
        }
        let mut transfer = db
            .backup_to(copy)
            .replace(true)
            .check(settings.check)
            .compact(settings.compact)
            .snapshot(settings.snapshot)
            .log_limit(8 << 30, WhenLogFull::Stop);
        if let Some(share) = settings.share {
            transfer = transfer.share(share);
        }
        if let Some(rate) = settings.rate {
            transfer = transfer.rate(rate);
        }
        // How many were made when the check began, and when that was.
        let mut checking = None;
        let copied = transfer
            .progress(|done| {
                if done.phase != Phase::Copying {
                    checking.get_or_insert_with(|| (Instant::now(), writes.load(Relaxed)));
                }
            })
            .run()?;
        let (check_began, until_check) = checking.unwrap_or((Instant::now(), at_first));
        let now = writes.load(Relaxed);
        let while_copying =
            (until_check - at_first) as f64 / check_began.duration_since(since).as_secs_f64();
        let while_checking = (now - until_check) as f64 / check_began.elapsed().as_secs_f64();
        let rate = (writes.load(Relaxed) - at_first) as f64 / since.elapsed().as_secs_f64();
        let slowest = Duration::from_micros(longest.load(Relaxed));
        let after = quiet();
        let usual = (before.0 + after.0) / 2.0;
        let keep = rate / usual;
        println!(
            "{round:>5} {:>11.0} {rate:>11.0} {:>11.0} {keep:>6.2} {:>6.2} {:>6.2} {:>9.1?} {:>9.1?} {:>9.1?} {:>6} MB {slowest:>9.1?} {:>9.1?}",
            before.0,
            after.0,
            while_copying / usual,
            while_checking / usual,
            copied.copying,
            copied.checking,
            copied.took,
            copied.log_max >> 20,
            before.1.max(after.1),
        );
        ratios.push(keep);
        before = after;
    }
    Ok(ratios)
}

fn fill(db: &Database, megabytes: u64) -> Result<()> {
    db.write(|tx| {
        tx.execute_batch(
            "CREATE TABLE big(id INTEGER PRIMARY KEY, n INTEGER NOT NULL, fill BLOB NOT NULL);
             CREATE TABLE log(id INTEGER PRIMARY KEY, n INTEGER NOT NULL, text TEXT NOT NULL)",
        )
    })?;
    let (mut left, at_once) = ((megabytes << 20) / ROW, 20_000);
    while left > 0 {
        let rows = left.min(at_once);
        db.execute(
            "INSERT INTO big(n, fill) WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c \
             WHERE i < ?1) SELECT 0, randomblob(?2) FROM c",
            (rows as i64, ROW as i64 - 30),
        )?;
        left -= rows;
    }
    Ok(())
}

fn length(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |meta| meta.len())
}

fn settings() -> Settings {
    let mut settings = Settings {
        megabytes: 1024,
        writers: 32,
        rounds: 3,
        quiet: Duration::from_secs(2),
        updates: false,
        share: None,
        rate: None,
        check: Check::Full,
        compact: false,
        snapshot: false,
        only_hold: None,
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut number = || -> f64 {
            let text = words.next().unwrap_or_default();
            text.parse()
                .unwrap_or_else(|_| panic!("{word} needs a number"))
        };
        match word.as_str() {
            "--megabytes" => settings.megabytes = number() as u64,
            "--writers" => settings.writers = number() as u64,
            "--rounds" => settings.rounds = number() as usize,
            "--seconds" => settings.quiet = Duration::from_secs_f64(number()),
            "--share" => settings.share = Some(number()),
            "--rate" => settings.rate = Some(number() as u64),
            "--updates" => settings.updates = true,
            "--compact" => settings.compact = true,
            "--snapshot" => settings.snapshot = true,
            "--only-hold" => settings.only_hold = Some(Duration::from_secs_f64(number())),
            "--check" => {
                settings.check = match words.next().as_deref() {
                    Some("full") => Check::Full,
                    Some("quick") => Check::Quick,
                    Some("none") => Check::None,
                    _ => panic!("--check full, quick or none"),
                }
            }
            other => panic!("there is no setting {other}"),
        }
    }
    settings
}
