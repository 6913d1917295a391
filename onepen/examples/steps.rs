//! Writes a million rows beside others who are in a hurry, and measures how long
//! those wait.
//!
//! `cargo run --release --example steps [rows]` (default: 1,000,000)

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use onepen::{Database, Result};

fn main() -> Result<()> {
    let rows: i64 = std::env::args()
        .nth(1)
        .map_or(1_000_000, |rows| rows.parse().expect("a number of rows"));
    let dir = tempfile::tempdir().expect("a directory");
    let db = Database::open(dir.path().join("steps.db"))?;
    db.write(|tx| {
        tx.execute_batch(
            "CREATE TABLE bulk(id INTEGER PRIMARY KEY, text TEXT); CREATE INDEX by_text ON bulk(text);
             CREATE TABLE quick(n INTEGER)",
        )
    })?;
    let alone = others_beside(&db, || std::thread::sleep(Duration::from_secs(3))).0;
    let since = Instant::now();
    let (beside, stepped) = others_beside(&db, || {
        db.with().label("bulk").in_steps().run(0..rows, |tx, n| {
            let text = format!("row {}", n * 7919 % rows);
            tx.execute("INSERT INTO bulk(text) VALUES (?1)", (text,))?;
            Ok(())
        })
    });
    let took = since.elapsed();
    let stepped = stepped?;
    let count: i64 = db.query_row("SELECT count(*) FROM bulk", (), |row| row.get(0))?;
    assert_eq!(count, rows);
    println!(
        "{} rows in {} slices, {:.1} s",
        stepped.done,
        stepped.slices,
        took.as_secs_f64()
    );
    let held = db.stats().holds;
    println!(
        "the pen was held for {:.1?} (median), {:.1?} (p99), {:.1?} (longest); log: {} frames at the most, {} resets",
        held.quantile(0.5),
        held.quantile(0.99),
        held.longest(),
        db.stats().wal_frames_max,
        db.stats().wal_resets
    );
    tell("4 others alone", alone);
    tell("4 others beside it", beside);
    Ok(())
}

/// Runs `job` beside four who are in a hurry; how long each of their writes took.
fn others_beside<T>(db: &Database, job: impl FnOnce() -> T) -> (Vec<Duration>, T) {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let others: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| hurry(db, &over).expect("a write")))
            .collect();
        let done = job();
        over.store(true, Ordering::SeqCst);
        let waits = others
            .into_iter()
            .flat_map(|it| it.join().expect("no panic"));
        (waits.collect(), done)
    })
}

fn tell(who: &str, mut waits: Vec<Duration>) {
    waits.sort();
    let at = |quantile: f64| waits[((waits.len() - 1) as f64 * quantile) as usize];
    println!(
        "{who}: {} writes, median {:.1?}, p99 {:.1?}, longest {:.1?}",
        waits.len(),
        at(0.5),
        at(0.99),
        at(1.0)
    );
}

/// Writes a row every few milliseconds; how long each took.
fn hurry(db: &Database, over: &AtomicBool) -> Result<Vec<Duration>> {
    let mut waits = Vec::new();
    while !over.load(Ordering::SeqCst) {
        let since = Instant::now();
        db.execute("INSERT INTO quick VALUES (1)", ())?;
        waits.push(since.elapsed());
        std::thread::sleep(Duration::from_millis(3));
    }
    Ok(waits)
}
