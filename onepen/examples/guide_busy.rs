//! Ending a wait for a lock: by an interrupt, and by a token.
//!
//! ```text
//! cargo run -p onepen --example guide_busy
//! ```

use std::path::Path;
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use onepen::blocks::{BusyHandler, Class, Immediate, Transactions};
use onepen::{CancelToken, ErrorKind};
use rusqlite::Connection;

const TIMEOUT: Duration = Duration::from_millis(300);
const INSERT: &str = "INSERT INTO t VALUES (1)";

pub(crate) fn main() -> onepen::Result<()> {
    let dir = tempfile::tempdir().map_err(onepen::Error::other)?;
    let path = dir.path().join("app.db");
    let mut other = Connection::open(&path)?;
    other.execute_batch("CREATE TABLE t(n)")?;
    let held = other.begin::<Immediate>()?;

    let (waited, error) = without(&path)?;
    println!("interrupted, and it waited on for {waited:.0?}, until {error}");
    assert!(waited >= TIMEOUT);
    assert_eq!(
        Class::of(&error),
        Some(Class::Busy),
        "not the interrupt, but the timeout"
    );

    let error = with_handler(&path)?;
    println!("cancelled: {error}");
    assert_eq!(error.kind(), ErrorKind::Cancelled);
    drop(held);
    Ok(())
}

/// `sqlite3_interrupt` raises a flag that running statements look at, and so does the
/// parser. A busy handler sleeps, and looks at nothing.
fn without(path: &Path) -> onepen::Result<(Duration, rusqlite::Error)> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(TIMEOUT)?;
    let handle = connection.get_interrupt_handle();
    let (parsed, go) = channel();
    let since = Instant::now();
    let waits = thread::spawn(move || {
        let mut insert = connection.prepare(INSERT)?;
        let _ = parsed.send(());
        insert.execute(())
    });
    go.recv().expect("it is parsed");
    while !waits.is_finished() {
        handle.interrupt(); // again and again
        thread::sleep(Duration::from_millis(1));
    }
    let refused = waits.join().expect("the thread does not panic");
    Ok((since.elapsed(), refused.expect_err("the lock is held")))
}

fn with_handler(path: &Path) -> onepen::Result<onepen::Error> {
    let token = CancelToken::new();
    let (waiting, go) = channel();
    let connection = Connection::open(path)?;
    // It waits for ever, unless it is cancelled.
    let control = BusyHandler::closure(move |wait| {
        let _ = waiting.send(wait.waited);
        onepen::blocks::Busy::TryAgainAfter(Duration::from_secs(3600))
    })
    .cancel_with(&token)
    .install(&connection)?;
    let waits = thread::spawn(move || {
        let refused = connection.execute(INSERT, ());
        control.explain(refused.expect_err("the lock is held"))
    });
    go.recv().expect("it waits");
    token.cancel();
    Ok(waits.join().expect("the thread does not panic"))
}
