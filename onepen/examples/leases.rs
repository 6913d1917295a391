//! A reader that was forgotten, and what becomes of the log.
//!
//! `cargo run --example leases` writes beside a snapshot that nobody uses any more:
//! with a lease alone it is named, with a grace it is ended and the log starts over.

use std::time::{Duration, Instant};

use onepen::{Durability, ErrorKind, Options, Result};

fn main() -> Result<()> {
    for grace in [None, Some(Duration::from_millis(100))] {
        let dir = tempfile::tempdir().expect("a directory");
        let db = Options::new()
            .durability(Durability::Normal)
            .wal_limit(64, Duration::from_millis(5))
            .reader_lease(Duration::from_millis(100))
            .lease_grace(grace)
            .open(dir.path().join("leases.db"))?;
        db.execute("CREATE TABLE event(text TEXT)", ())?;
        let forgotten = db.with().label("export").snapshot()?;
        println!("\nlease 100 ms, grace {grace:?}");

        let since = Instant::now();
        let mut named = None;
        while since.elapsed() < Duration::from_millis(600) {
            db.execute("INSERT INTO event VALUES (?1)", ("x".repeat(500),))?;
            named = named.or_else(|| db.stats().overdue.into_iter().next());
        }
        let stats = db.stats();
        println!(
            "named: {}",
            named.expect("it kept the log from being reset")
        );
        println!(
            "log: {} frames at the most, reset {} times; readers ended: {}",
            stats.wal_frames_max, stats.wal_resets, stats.leases_ended
        );
        let count = forgotten.query_row("SELECT count(*) FROM event", (), |row| row.get(0));
        match (grace, count) {
            (None, Ok(0_i64)) => println!("the snapshot still sees its state"),
            (Some(_), Err(error)) if error.kind() == ErrorKind::LeaseEnded => {
                println!("the snapshot says: {error}");
                assert!(stats.wal_resets > 0, "the log starts over");
            }
            (_, other) => panic!("{other:?}"),
        }
    }
    Ok(())
}
