//! Trying again: the statement for ever, and the right thing once.
//!
//! ```text
//! cargo run -p onepen --example guide_retry
//! ```

use onepen::blocks::{Class, Deferred, Retry};
use rusqlite::Connection;

const READ: &str = "SELECT n FROM account";
const WRITE: &str = "UPDATE account SET n = ?1";

pub(crate) fn main() -> onepen::Result<()> {
    let dir = tempfile::tempdir().map_err(onepen::Error::other)?;
    let path = dir.path().join("app.db");
    let mut one = Connection::open(&path)?;
    one.execute_batch(
        "PRAGMA journal_mode = wal; CREATE TABLE account(n INTEGER); INSERT INTO account VALUES (100)",
    )?;
    let other = Connection::open(&path)?;

    let tries = without(&one, &other)?;
    println!("\"database is locked\", so the statement is repeated: {tries} times, all refused");
    assert_eq!(tries, 1000);

    one.execute_batch("UPDATE account SET n = 100")?;
    let (n, tries) = with_retry(&mut one, &other)?;
    println!("the transaction is repeated: {tries} tries, and 100 + 50 - 10 = {n}");
    assert_eq!((n, tries), (140, 2));
    Ok(())
}

/// The message is the one of every other lock, but this lock is nobody's: the
/// transaction has read a state that is gone, and every repetition of the
/// statement is in the same transaction.
fn without(one: &Connection, other: &Connection) -> rusqlite::Result<u32> {
    one.execute_batch("BEGIN")?;
    let n: i64 = one.query_row(READ, (), |row| row.get(0))?;
    other.execute(WRITE, [n + 50])?; // and it is done: nobody has a lock now
    let mut tries = 0;
    while tries < 1000 {
        match one.execute(WRITE, [n - 10]) {
            Ok(_) => break,
            Err(error) if error.to_string().contains("database is locked") => tries += 1,
            Err(error) => return Err(error),
        }
    }
    one.execute_batch("ROLLBACK")?;
    Ok(tries)
}

fn with_retry(one: &mut Connection, other: &Connection) -> onepen::Result<(i64, u32)> {
    let mut tries = 0;
    let retry = Retry::new().only(&[Class::Busy, Class::BusySnapshot]);
    retry.transaction::<Deferred, _>(one, |tx| {
        tries += 1;
        let n: i64 = tx.query_row(READ, (), |row| row.get(0))?;
        if tries == 1 {
            other.execute(WRITE, [n + 50])?;
        }
        // By way of the connection: a deferred transaction has no method that
        // writes, because of just this.
        tx.connection().execute(WRITE, [n - 10])?;
        Ok(())
    })?;
    Ok((one.query_row(READ, (), |row| row.get(0))?, tries))
}
