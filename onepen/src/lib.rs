//! One SQLite database, any number of threads and tasks.
//!
//! SQLite lets many read and one write. onepen gives every thread and task of
//! a program its turn with that one pen, in the order they came; it commits
//! writes that wait together with one COMMIT, and acknowledges each only when it
//! is durable. Other processes may use the file too: their locks are waited for,
//! within a deadline.
//!
//! ```
//! # fn main() -> onepen::Result<()> {
//! # let dir = tempfile::tempdir().unwrap();
//! # let path = dir.path().join("app.db");
//! let db = onepen::Database::open(path)?;
//! db.execute("CREATE TABLE account(id INTEGER PRIMARY KEY, n INTEGER NOT NULL)", ())?;
//! db.write(|tx| tx.execute("INSERT INTO account(n) VALUES (?1)", (100,)))?;
//! let sum: i64 = db.read(|tx| tx.query_row("SELECT sum(n) FROM account", (), |row| row.get(0)))?;
//! assert_eq!(sum, 100);
//! # Ok(()) }
//! ```
//!
//! # Which call for what
//!
//! | call | closure | runs | transaction |
//! |---|---|---|---|
//! | [`Database::write`] | `Fn`, may run again | this thread or the writer thread | shared with whoever else waits |
//! | [`Database::write_once`] | `FnOnce` | the same | its own |
//! | [`Database::execute`], [`execute_many`](Database::execute_many) | none: a statement | the same | shared |
//! | [`Database::submit`] | `Fn` | the writer thread, later | shared |
//! | [`Database::exclusively`] | `FnOnce` | the same as `write` | none: VACUUM, ATTACH, PRAGMA |
//! | [`Database::read`] | `FnOnce` | this thread | one snapshot |
//! | [`Database::query_row`] | none: a query | this thread | one statement |
//! | [`Database::snapshot`] | none: a value | this thread | one snapshot, until dropped |
//! | [`Database::stream`] | maps a row | a reader thread | one snapshot |
//! | `…_async` | owns what it needs | writer or reader thread | as above |
//!
//! [`Database::with`] gives any of them a deadline, a priority, a label, a cancel
//! token or an idempotency key.
//!
//! # Guarantees
//!
//! What exactly, what not, and which tests show it: `docs/guarantees.md` in the
//! repository. In short:
//!
//! 1. **Durable acknowledgement.** When a write returns `Ok`, its transaction is
//!    committed. With the default [`Durability::Full`] it survives a loss of
//!    power, provided that the disk honours a flush.
//! 2. **Independent members.** Writes that share a COMMIT do not know it. One that
//!    fails, panics or breaks a constraint (deferred ones too) undoes itself
//!    alone; its neighbours commit as if it had never come. A closure may be run
//!    again for a neighbour's sake; beyond that and time, none can tell that it
//!    was grouped.
//!    ```
//!    # fn main() -> onepen::Result<()> {
//!    # let db = onepen::Database::open_in_memory()?;
//!    # db.execute("CREATE TABLE a(n INTEGER PRIMARY KEY)", ())?;
//!    let first = db.submit(|tx| tx.execute("INSERT INTO a VALUES (1)", ()))?;
//!    let twice = db.submit(|tx| {
//!        tx.execute("INSERT INTO a VALUES (2)", ())?;
//!        tx.execute("INSERT INTO a VALUES (1)", ()) // breaks the key
//!    })?;
//!    let third = db.submit(|tx| tx.execute("INSERT INTO a VALUES (3)", ()))?;
//!    assert!(first.wait().is_ok() && twice.wait().is_err() && third.wait().is_ok());
//!    let rows: Vec<i64> = db.read(|tx| tx.query_map("SELECT n FROM a", (), |row| row.get(0)))?;
//!    assert_eq!(rows, [1, 3]);
//!    # Ok(()) }
//!    ```
//! 3. **Arrival order.** Within this process, writers get the pen in the order
//!    they came. A [`Priority`] is explicit and cannot starve the rest. Between
//!    processes that use onepen turns pass in the order they were asked for
//!    ([`Options::gate`], Linux); with all others SQLite's own lock decides, which is
//!    neither in order nor fair.
//! 4. **Snapshot reads.** A read closure sees one committed state, waits for no
//!    writer, and cannot write: by type, and by the connection it uses.
//!    ```
//!    # fn main() -> onepen::Result<()> {
//!    # let db = onepen::Database::open_in_memory()?;
//!    # db.execute("CREATE TABLE a(n)", ())?;
//!    let count = "SELECT count(*) FROM a";
//!    db.read(|tx| {
//!        let before: i64 = tx.query_row(count, (), |row| row.get(0))?;
//!        db.execute("INSERT INTO a VALUES (1)", ())?;
//!        let after: i64 = tx.query_row(count, (), |row| row.get(0))?;
//!        assert_eq!(before, after);
//!        Ok(())
//!    })?;
//!    # Ok(()) }
//!    ```
//! 5. **Read your writes.** A read that starts after a write returned sees it, from
//!    any thread.
//! 6. **Bounded waiting.** Every wait has a deadline ([`Options::wait`],
//!    [`Call::deadline`]) and can be cancelled ([`CancelToken`]), also while it
//!    waits for SQLite's lock. What fails says what it waited for, how long, and
//!    who was in the way.
//!    ```
//!    # fn main() -> onepen::Result<()> {
//!    # let dir = tempfile::tempdir().unwrap();
//!    # let path = dir.path().join("app.db");
//!    use onepen::{ErrorKind, Outcome, WaitedFor};
//!    # use std::time::Duration;
//!    let db = onepen::Database::open(&path)?;
//!    let stranger = rusqlite::Connection::open(&path)?;
//!    stranger.execute_batch("BEGIN IMMEDIATE")?; // and never ends it
//!    let late = db
//!        .with()
//!        .deadline(Duration::from_millis(20))
//!        .execute("CREATE TABLE a(n)", ())
//!        .unwrap_err();
//!    assert_eq!(late.kind(), ErrorKind::DeadlineExceeded);
//!    assert_eq!(late.outcome(), Outcome::NotCommitted);
//!    assert_eq!(late.waited().what, WaitedFor::WriteLock);
//!    # drop(stranger); Ok(()) }
//!    ```
//! 7. **Back-pressure.** The write queue is bounded ([`Options::queue`]); at the
//!    bound a caller waits in order, or is refused, as it chose.
//! 8. **No silent sharing.** What SQLite forbids to share between threads does not
//!    compile; a handle used in a forked child fails with [`ErrorKind::Forked`];
//!    a write within a write closure of the same database fails with
//!    [`ErrorKind::Reentrant`] instead of waiting for itself.
//!    ```
//!    # fn main() -> onepen::Result<()> {
//!    # let db = onepen::Database::open_in_memory()?;
//!    let inner = db.write(|_tx| db.write(|_tx| Ok(()))).unwrap_err();
//!    assert_eq!(inner.kind(), onepen::ErrorKind::Reentrant);
//!    # Ok(()) }
//!    ```
//!
//! # Outcomes
//!
//! A failed write is [`NotCommitted`](Outcome::NotCommitted), with one exception:
//! when COMMIT itself fails on its way to the disk it is
//! [`Unknown`](Outcome::Unknown), because a crash at that moment may bring the
//! transaction back. Nothing retries such a write. A write that carries a
//! [key](Call::key) can be [settled](Database::outcome_of) afterwards, and a
//! program that was restarted in the middle does not do it twice.
//!
//! # Errors of your own
//!
//! A closure returns [`Result`]. `?` converts rusqlite's errors; everything else
//! goes through [`Error::other`], undoes the write, and comes back as it was:
//!
//! ```
//! # fn main() -> onepen::Result<()> {
//! # let db = onepen::Database::open_in_memory()?;
//! # db.execute("CREATE TABLE file(text)", ())?;
//! let missing = db.write(|tx| {
//!     let text = std::fs::read_to_string("no such file").map_err(onepen::Error::other)?;
//!     tx.execute("INSERT INTO file VALUES (?1)", (text,))
//! });
//! let error = missing.unwrap_err();
//! let why: &std::io::Error = error.downcast_ref().unwrap();
//! assert_eq!(why.kind(), std::io::ErrorKind::NotFound);
//! # Ok(()) }
//! ```
//!
//! # Threads
//!
//! A database has a writer thread and, in write-ahead mode, a checkpoint thread;
//! reads of tasks start reader threads, which end when they are idle. They are
//! joined by [`Database::close`]. One thread more, for deadlines, serves all
//! databases of the process and stays. All of them are named `onepen-…`.

// The models run the pen and nothing else.
#![cfg_attr(
    any(onepen_loom, onepen_shuttle),
    allow(
        dead_code,
        unused_imports,
        reason = "the models reach only a part of the crate"
    )
)]

pub mod backup;
pub mod blocks;
mod call;
mod cancel;
mod capi;
mod changes;
mod checkpoint;
mod connection;
mod database;
mod engine;
mod error;
mod file;
mod fork;
mod gate;
mod keyed;
mod keys;
mod long;
#[cfg(feature = "metrics")]
mod metrics;
mod migrate;
#[cfg(test)]
mod models;
mod options;
mod params;
mod pen;
mod plain;
mod query;
mod raw;
mod readers;
pub mod refusals;
mod registry;
mod report;
mod running;
mod sqlite;
pub mod sqlite_log;
mod stats;
pub mod status;
mod strangers;
mod sync;
pub mod threading;
mod timer;
mod trace;
mod tx;
mod wal;

pub use call::{Call, Submitted};
pub use cancel::CancelToken;
pub use changes::{Change, Changes, CommitAddress, CommitToken, Origin, Tables, Watch};
pub use database::Database;
pub use error::{
    Activity, Contention, Error, ErrorKind, Holder, Outcome, Part, Result, Waited, WaitedFor,
};
pub use keyed::{KeyedCall, Once};
pub use long::{Stepped, Steps};
pub use migrate::Migrations;
pub use options::{Durability, Journal, Options};
pub use params::Parameters;
pub use pen::WhenFull;
pub use pen::job::Priority;
pub use readers::{ReadBy, ReadTx, Reading, RowStream, Snapshot, Statement};
pub use report::Report;
/// The SQLite binding whose types appear in this crate's interface: parameters, rows,
/// connections, errors.
///
/// Name those types as `onepen::rusqlite::…`, and they fit whichever version was
/// chosen: this crate takes any of a range (0.39 to 0.41 now), because
/// `links = "sqlite3"` lets only one into a program. That the range grows at its upper
/// end is a compatible change of this crate; that it loses one at its lower end is
/// not.
pub use rusqlite;
pub use stats::{Histogram, Stats};
pub use tx::WriteTx;

// The pages of the repository are compiled and run with the other examples.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
#[cfg(doctest)]
#[doc = include_str!("../../docs/guarantees.md")]
struct Guarantees;
#[cfg(doctest)]
mod guide {
    macro_rules! page {
        ($name:ident, $file:literal) => {
            #[doc = include_str!(concat!("../../docs/guide/", $file))]
            struct $name;
        };
    }
    page!(ThreadingModes, "threading-modes.md");
    page!(Refusals, "refusals.md");
    page!(LogAndStatus, "log-and-status.md");
    page!(Neighbours, "neighbours.md");
    page!(Backup, "backup.md");
}
