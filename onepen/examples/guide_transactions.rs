//! Read, modify, write: by BEGIN, and by a transaction that may do it.
//!
//! ```text
//! cargo run -p onepen --example guide_transactions
//! ```

use std::time::Duration;

use onepen::blocks::{Class, Transactions};
use rusqlite::Connection;

pub(crate) fn main() -> onepen::Result<()> {
    let dir = tempfile::tempdir().map_err(onepen::Error::other)?;
    let path = dir.path().join("app.db");
    let mut one = Connection::open(&path)?;
    one.execute_batch(
        "PRAGMA journal_mode = wal;
         CREATE TABLE account(id INTEGER PRIMARY KEY, n INTEGER);
         INSERT INTO account VALUES (1, 100);",
    )?;
    let mut other = Connection::open(&path)?;

    let n = without_any(&one, &other)?;
    println!("no transaction: 100 - 10 - 10 = {n}");
    assert_eq!(n, 90, "an update is lost");

    let refused = without(&one, &other)?;
    println!("BEGIN: refused at once, with a busy timeout of an hour: {refused:?}");
    assert_eq!(refused, Class::BusySnapshot);

    one.execute_batch("UPDATE account SET n = 100")?;
    for connection in [&mut one, &mut other] {
        connection.immediate(|tx| {
            tx.modify(
                "SELECT n FROM account WHERE id = ?1",
                "UPDATE account SET n = ?2 WHERE id = ?1",
                1,
                |n: i64| n - 10,
            )
        })?;
    }
    let n = read(&one)?;
    println!("immediate: 100 - 10 - 10 = {n}");
    assert_eq!(n, 80);
    Ok(())
}

fn read(connection: &Connection) -> rusqlite::Result<i64> {
    connection.query_row("SELECT n FROM account WHERE id = 1", (), |row| row.get(0))
}

fn write(connection: &Connection, n: i64) -> rusqlite::Result<usize> {
    connection.execute("UPDATE account SET n = ?1 WHERE id = 1", [n])
}

/// Two read, both write what they made of it.
fn without_any(one: &Connection, other: &Connection) -> rusqlite::Result<i64> {
    let (seen_by_one, seen_by_other) = (read(one)?, read(other)?);
    write(one, seen_by_one - 10)?;
    write(other, seen_by_other - 10)?;
    read(one)
}

/// A plain BEGIN is deferred. It keeps the update from getting lost, by refusing
/// whoever has read before the other wrote: waiting would not help, so the
/// timeout is not even consulted.
fn without(one: &Connection, other: &Connection) -> rusqlite::Result<Class> {
    one.busy_timeout(Duration::from_secs(3600))?;
    one.execute_batch("BEGIN")?;
    let seen = read(one)?;
    write(other, 50)?;
    let refused = write(one, seen - 10).expect_err("SQLite refuses it");
    one.execute_batch("ROLLBACK")?;
    Ok(Class::of(&refused).expect("it is a matter of locks"))
}
