//! A pool that trusts its users, and [`Pool`].
//!
//! ```text
//! cargo run -p onepen --example guide_pool
//! ```

use std::sync::Mutex;

use onepen::blocks::Pool;
use rusqlite::Connection;

pub(crate) fn main() -> onepen::Result<()> {
    let rows = without()?;
    println!("by hand: the second user's INSERT returned Ok, and {rows} rows are in the file");
    assert_eq!(rows, 0, "an acknowledged write is gone");

    let rows = with_pool()?;
    println!("Pool: the second user's INSERT returned Ok, and {rows} row is in the file");
    assert_eq!(rows, 1);
    Ok(())
}

fn count(path: &std::path::Path) -> onepen::Result<i64> {
    let connection = Connection::open(path)?;
    Ok(connection.query_row("SELECT count(*) FROM payment", (), |row| row.get(0))?)
}

/// A vector of connections. Nobody looks at what comes back.
fn without() -> onepen::Result<i64> {
    let dir = tempfile::tempdir().map_err(onepen::Error::other)?;
    let path = dir.path().join("app.db");
    Connection::open(&path)?.execute_batch("CREATE TABLE payment(id INTEGER PRIMARY KEY)")?;
    let pool = Mutex::new(vec![Connection::open(&path)?]);

    // The first user returns early, in the middle of a transaction.
    let first = |connection: &Connection| -> rusqlite::Result<()> {
        connection.execute_batch("BEGIN")?;
        connection.execute_batch("INSERT INTO no_such_table VALUES (1)")?;
        connection.execute_batch("COMMIT")
    };
    let connection = pool.lock().unwrap().pop().expect("there is one");
    assert!(first(&connection).is_err());
    pool.lock().unwrap().push(connection);

    // The second one's statement joins it, and is told that all is well.
    let connection = pool.lock().unwrap().pop().expect("there is one");
    connection.execute("INSERT INTO payment VALUES (1)", ())?;
    pool.lock().unwrap().push(connection);

    drop(pool); // the program ends
    count(&path)
}

fn with_pool() -> onepen::Result<i64> {
    let dir = tempfile::tempdir().map_err(onepen::Error::other)?;
    let path = dir.path().join("app.db");
    Connection::open(&path)?.execute_batch("CREATE TABLE payment(id INTEGER PRIMARY KEY)")?;
    let file = path.clone();
    let pool = Pool::new(1, move || Ok(Connection::open(&file)?));

    let first = || -> onepen::Result<()> {
        let connection = pool.get()?;
        connection.execute_batch("BEGIN")?;
        connection.execute_batch("INSERT INTO no_such_table VALUES (1)")?;
        Ok(connection.execute_batch("COMMIT")?)
    };
    assert!(first().is_err());
    for leftover in pool.leftovers() {
        println!("Pool: {leftover}");
        let began = leftover
            .began
            .expect("it began through the pool's connection");
        assert!(began.file().ends_with("guide_pool.rs"));
    }
    assert_eq!(pool.leftovers().len(), 1);

    pool.get()?.execute("INSERT INTO payment VALUES (1)", ())?;
    drop(pool);
    count(&path)
}
