//! One connection and two threads: under a mutex, and as a [`Shared`].
//!
//! ```text
//! cargo run -p onepen --example guide_shared_connection
//! ```

use std::sync::Mutex;
use std::sync::mpsc::channel;
use std::thread;

use onepen::blocks::Shared;
use rusqlite::Connection;

pub(crate) fn main() -> onepen::Result<()> {
    let rows = without()?;
    println!("a mutex: the other thread's INSERT returned Ok, and {rows} rows are there");
    assert_eq!(rows, 0, "an acknowledged write is gone");

    let rows = with_shared()?;
    println!("Shared: the other thread's INSERT returned Ok, and {rows} row is there");
    assert_eq!(rows, 1);
    Ok(())
}

/// No two threads are ever in SQLite at once, as with a serialized connection.
/// But a transaction belongs to the connection: whoever uses it meanwhile is in
/// it, and goes down with it.
fn without() -> onepen::Result<i64> {
    let connection = Mutex::new(Connection::open_in_memory()?);
    let execute = |sql: &str| connection.lock().unwrap().execute_batch(sql);
    execute("CREATE TABLE payment(id INTEGER PRIMARY KEY)")?;
    let (begun, go) = channel();
    let (paid, end) = channel();
    thread::scope(|scope| {
        let report = scope.spawn(move || {
            execute("BEGIN")?;
            begun.send(()).unwrap();
            end.recv().unwrap();
            execute("ROLLBACK") // it was only a test run
        });
        let payment = scope.spawn(move || {
            go.recv().unwrap();
            let done = execute("INSERT INTO payment VALUES (1)");
            paid.send(()).unwrap();
            done
        });
        payment.join().unwrap()?;
        report.join().unwrap()
    })?;
    let count = "SELECT count(*) FROM payment";
    let connection = connection.into_inner().unwrap();
    Ok(connection.query_row(count, (), |row| row.get(0))?)
}

fn with_shared() -> onepen::Result<i64> {
    let shared = Shared::new(Connection::open_in_memory()?);
    shared.write(|tx| tx.execute_batch("CREATE TABLE payment(id INTEGER PRIMARY KEY)"))?;
    let (begun, go) = channel();
    thread::scope(|scope| {
        let shared = &shared;
        let report = scope.spawn(move || {
            shared.write(|_tx| -> onepen::Result<()> {
                begun.send(()).unwrap();
                while shared.waiting() == 0 {
                    thread::yield_now(); // until the other one wants the connection
                }
                Err(onepen::Error::other("it was only a test run"))
            })
        });
        let payment = scope.spawn(move || {
            go.recv().unwrap();
            shared.write(|tx| tx.execute("INSERT INTO payment VALUES (1)", ()))
        });
        assert!(report.join().unwrap().is_err());
        payment.join().unwrap()
    })?;
    shared.read(|tx| tx.query_row("SELECT count(*) FROM payment", (), |row| row.get(0)))
}
