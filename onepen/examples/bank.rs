//! A whole program: eight threads move money between accounts for a second,
//! while another one counts it again and again and always finds the same sum.
//!
//! ```text
//! cargo run --release -p onepen --example bank
//! ```

use std::time::{Duration, Instant};

use onepen::{Database, Error, ErrorKind, Migrations, Options, Result};

const ACCOUNTS: i64 = 100;
const EACH: i64 = 1_000;
const THREADS: u64 = 8;

fn main() -> Result<()> {
    let dir = tempfile::tempdir().map_err(Error::other)?;
    let schema = Migrations::new()
        .step(
            "accounts",
            "CREATE TABLE account(id INTEGER PRIMARY KEY, n INTEGER NOT NULL)",
        )
        .step_with("first customers", |tx| {
            let mut insert = tx.prepare("INSERT INTO account VALUES (?1, ?2)")?;
            (1..=ACCOUNTS).try_for_each(|id| insert.execute((id, EACH)).map(drop))
        });
    let db = Options::new()
        .migrations(schema)
        .label("bank")
        .open(dir.path().join("bank.db"))?;

    let until = Instant::now() + Duration::from_secs(1);
    let (moved, refused, counted) = std::thread::scope(|scope| {
        let clerks: Vec<_> = (1..=THREADS)
            .map(|seed| {
                scope.spawn({
                    let db = &db;
                    move || clerk(db, seed, until)
                })
            })
            .collect();
        let auditor = scope.spawn(|| audit(&db, until));
        let (mut moved, mut refused) = (0, 0);
        for clerk in clerks {
            let (done, poor) = clerk.join().expect("no clerk panics")?;
            moved += done;
            refused += poor;
        }
        let counted = auditor.join().expect("the auditor does not panic")?;
        Ok::<_, Error>((moved, refused, counted))
    })?;

    let stats = db.stats();
    println!("{moved} transfers, {refused} refused for want of money, counted {counted} times");
    println!(
        "{} turns of the pen, at most {} writes in one; a write waited at most {:.1?}",
        stats.groups,
        stats.largest_group,
        stats.waits.longest()
    );
    Ok(())
}

/// Moves money until it is time to go home.
fn clerk(db: &Database, seed: u64, until: Instant) -> Result<(u32, u32)> {
    let mut random = seed;
    let (mut moved, mut refused) = (0, 0);
    while Instant::now() < until {
        let mut next = |below: i64| {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (random >> 33).cast_signed() % below
        };
        let (from, to, n) = (1 + next(ACCOUNTS), 1 + next(ACCOUNTS), 1 + next(EACH));
        match transfer(db, from, to, n) {
            Ok(()) => moved += 1,
            // Our own error: the transfer was undone, and nobody else's.
            Err(error) if error.kind() == ErrorKind::Other => refused += 1,
            Err(error) => return Err(error),
        }
    }
    Ok((moved, refused))
}

fn transfer(db: &Database, from: i64, to: i64, n: i64) -> Result<()> {
    db.write(|tx| {
        tx.execute("UPDATE account SET n = n + ?2 WHERE id = ?1", (to, n))?;
        let left: i64 = tx.query_row(
            "UPDATE account SET n = n - ?2 WHERE id = ?1 RETURNING n",
            (from, n),
            |row| row.get(0),
        )?;
        if left < 0 {
            return Err(Error::other("not enough money"));
        }
        Ok(())
    })
}

/// Adds all accounts up until then. It waits for no clerk.
fn audit(db: &Database, until: Instant) -> Result<u32> {
    let mut counted = 0;
    while Instant::now() < until {
        let sum: i64 = db.query_row("SELECT sum(n) FROM account", (), |row| row.get(0))?;
        assert_eq!(sum, ACCOUNTS * EACH, "money was lost or made");
        counted += 1;
    }
    Ok(counted)
}
