//! What a write closure gets to work with.

use std::cell::Cell;
#[cfg(feature = "tracing")]
use std::panic::Location;
#[cfg(feature = "tracing")]
use std::sync::Arc;
use std::time::{Duration, Instant};

use rusqlite::{CachedStatement, Connection, Params, Row};

use crate::blocks::transaction::part_of;
use crate::changes::CommitToken;
use crate::error::{Error, ErrorKind, Result};
use crate::params::Sent;
use crate::pen::job::Ticket;
use crate::query;
use crate::sqlite::SqliteEngine;

/// The transaction of a write closure.
///
/// It began before the closure and ends after it: with COMMIT when the closure
/// returns `Ok`, without a trace when it returns an error or panics. Others may
/// share the transaction; nothing of them can be seen from here except their
/// effects, as if they had committed before.
///
/// It cannot leave the closure, nor can statements and rows made from it:
///
/// ```compile_fail
/// # let db = onepen::Database::open_in_memory().unwrap();
/// let mut kept = None;
/// db.write_once(|tx| { kept = Some(tx.prepare("SELECT 1")?); Ok(()) }).unwrap();
/// ```
///
/// and it stays on its thread:
///
/// ```compile_fail
/// # let db = onepen::Database::open_in_memory().unwrap();
/// db.write(|tx| { std::thread::scope(|s| { s.spawn(|| tx.changes()); }); Ok(()) }).unwrap();
/// ```
pub struct WriteTx<'a> {
    engine: &'a SqliteEngine,
    connection: &'a Connection,
    depth: Cell<u32>,
    /// What the connection had changed before this closure began.
    changed_before: i32,
}

/// Runs a write closure as a member of whatever transaction it is in: with its
/// limit, and so that it can be named while it runs.
pub(crate) fn as_member<T>(
    engine: &SqliteEngine,
    about: &About,
    call: impl FnOnce(&WriteTx<'_>) -> Result<T>,
) -> Result<T> {
    #[cfg(feature = "tracing")]
    let _runs = engine.running.begin(about.at, about.label.as_ref());
    let Some(limit) = about.limit.as_deref().copied() else {
        return run(engine, call);
    };
    let since = Instant::now();
    engine.limit(since.checked_add(limit));
    let limited = Limited(engine);
    let answer = run(engine, call);
    drop(limited);
    if since.elapsed() < limit {
        return answer;
    }
    Err(Error::new(
        ErrorKind::LimitExceeded,
        "the closure held the pen for longer than its limit, and was undone",
    ))
}

/// The limit is taken away again, also when the closure panics.
struct Limited<'a>(&'a SqliteEngine);

impl Drop for Limited<'_> {
    fn drop(&mut self) {
        self.0.limit(None);
    }
}

/// What is known of a write closure that its code does not say. It lies in every
/// queued write, twice in a task's, so it is small.
#[derive(Clone)]
pub(crate) struct About {
    /// Where it was submitted.
    #[cfg(feature = "tracing")]
    at: &'static Location<'static>,
    #[cfg(feature = "tracing")]
    label: Option<Arc<str>>,
    /// The longest it may hold the pen.
    limit: Option<Box<Duration>>,
}

impl About {
    #[track_caller]
    pub(crate) fn of(ticket: &Ticket) -> Self {
        Self {
            #[cfg(feature = "tracing")]
            at: Location::caller(),
            #[cfg(feature = "tracing")]
            label: ticket.label.clone(),
            limit: ticket.limit.map(Box::new),
        }
    }
}

impl<'a> WriteTx<'a> {
    pub(crate) fn new(engine: &'a SqliteEngine) -> Result<Self> {
        let connection = engine.connection()?;
        Ok(Self {
            engine,
            connection,
            depth: Cell::new(0),
            changed_before: crate::raw::total_changes(connection),
        })
    }

    /// Runs one statement and returns how many rows it changed. The statement is
    /// prepared once per connection.
    ///
    /// # Errors
    /// SQLite's; [`ErrorKind::NotAllowed`] for what a write closure may not do
    /// (transaction control, ATTACH, temporary tables, PRAGMAs that last).
    pub fn execute<P: Params>(&self, sql: &str, params: P) -> Result<usize> {
        self.prepare(sql)?
            .execute(params)
            .map_err(|error| self.explain(error))
    }

    /// [`execute`](Self::execute) with parameters that travelled here.
    pub(crate) fn run(&self, sql: &str, params: &impl Sent) -> Result<usize> {
        params
            .execute(&mut *self.prepare(sql)?)
            .map_err(|error| self.explain(error))
    }

    /// Runs several statements separated by semicolons, without parameters.
    ///
    /// # Errors
    /// As [`execute`](Self::execute). Statements before the failing one have run
    /// and are undone only if the closure fails.
    pub fn execute_batch(&self, sql: &str) -> Result<()> {
        self.runs(sql);
        self.connection
            .execute_batch(sql)
            .map_err(|error| self.explain(error))
    }

    /// The first row of a query, mapped.
    ///
    /// # Errors
    /// SQLite's, and `QueryReturnedNoRows` when there is none.
    pub fn query_row<P, T, F>(&self, sql: &str, params: P, map: F) -> Result<T>
    where
        P: Params,
        F: FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    {
        self.runs(sql);
        query::row(self.connection, sql, params, map).map_err(|error| self.explain(error))
    }

    /// The first row of a query, mapped, if there is one.
    ///
    /// # Errors
    /// SQLite's.
    pub fn query_row_optional<T, P, F>(&self, sql: &str, params: P, map: F) -> Result<Option<T>>
    where
        P: Params,
        F: FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    {
        self.runs(sql);
        query::row_optional(self.connection, sql, params, map).map_err(|error| self.explain(error))
    }

    /// All rows of a query, mapped.
    ///
    /// # Errors
    /// SQLite's.
    pub fn query_map<T, P, F>(&self, sql: &str, params: P, map: F) -> Result<Vec<T>>
    where
        P: Params,
        F: FnMut(&Row<'_>) -> rusqlite::Result<T>,
    {
        self.runs(sql);
        query::map(self.connection, sql, params, map).map_err(|error| self.explain(error))
    }

    /// Calls `each` for every row of a query, one after the other; nothing is
    /// loaded ahead. Stops at the first error of `each` and returns it.
    ///
    /// # Errors
    /// SQLite's and those of `each`.
    pub fn query_each<P, F>(&self, sql: &str, params: P, each: F) -> Result<()>
    where
        P: Params,
        F: FnMut(&Row<'_>) -> Result<()>,
    {
        self.runs(sql);
        query::each(self.connection, sql, params, each, |error| {
            self.explain(error)
        })
    }

    /// A statement from the connection's cache, for as long as the closure runs.
    ///
    /// # Errors
    /// As [`execute`](Self::execute).
    pub fn prepare(&self, sql: &str) -> Result<CachedStatement<'_>> {
        self.runs(sql);
        self.connection
            .prepare_cached(sql)
            .map_err(|error| self.explain(error))
    }

    /// The row id of the last insert of *this* closure; 0 before one.
    pub fn last_insert_rowid(&self) -> i64 {
        self.connection.last_insert_rowid()
    }

    /// How many rows the last statement of *this* closure changed; 0 before one.
    pub fn changes(&self) -> u64 {
        // SQLite's count is the connection's: until something was changed here
        // it is about a statement of somebody else.
        if crate::raw::total_changes(self.connection) == self.changed_before {
            return 0;
        }
        self.connection.changes()
    }

    /// Runs `part` so that its changes are undone when it fails, while what came
    /// before stays. Savepoints nest.
    ///
    /// # Errors
    /// What `part` returned.
    pub fn savepoint<T>(&self, part: impl FnOnce(&Self) -> Result<T>) -> Result<T> {
        part_of(
            &self.depth,
            || self.connection.is_autocommit(),
            |sql| self.control(sql),
            || part(self),
        )
    }

    /// What will become of this run of the closure: for another thread that must
    /// not read before it is committed. See [`CommitToken`].
    ///
    /// ```
    /// # fn main() -> onepen::Result<()> {
    /// # let db = onepen::Database::open_in_memory()?;
    /// # db.execute("CREATE TABLE job(id INTEGER PRIMARY KEY)", ())?;
    /// use std::time::Duration;
    /// let (send, receive) = std::sync::mpsc::channel();
    /// std::thread::scope(|scope| {
    ///     scope.spawn(|| {
    ///         for (job, token) in receive {
    ///             let token: onepen::CommitToken = token;
    ///             if token.wait(Duration::from_secs(1)) == Some(onepen::Outcome::Committed) {
    ///                 let found: i64 = db.query_row("SELECT id FROM job WHERE id = ?1", (job,), |row| row.get(0)).unwrap();
    ///                 assert_eq!(found, job);
    ///             }
    ///         }
    ///     });
    ///     db.write(|tx| {
    ///         tx.execute("INSERT INTO job DEFAULT VALUES", ())?;
    ///         send.send((tx.last_insert_rowid(), tx.commit_token())).unwrap();
    ///         Ok(())
    ///     })
    ///     .unwrap();
    ///     drop(send);
    /// });
    /// # Ok(()) }
    /// ```
    pub fn commit_token(&self) -> CommitToken {
        self.engine.commit_token()
    }

    /// Statements of ours, for the closure's sake.
    pub(crate) fn own_statements<T>(
        &self,
        run: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T> {
        run(self.connection).map_err(|error| self.explain(error))
    }

    /// For whoever is told that this closure takes long.
    #[inline]
    fn runs(&self, sql: &str) {
        if cfg!(feature = "tracing") {
            self.engine.running.statement(sql);
        }
    }

    fn control(&self, sql: &str) -> Result<()> {
        // Not from the statement cache: the authorizer judges a statement when
        // it is prepared, so a closure could run what it found there.
        self.engine
            .with_savepoints(|connection| connection.execute_batch(sql))?
            .map_err(|error| self.explain(error))
    }

    /// How many others wait to write now: writes of this process that are not yet
    /// in a group, and other processes at the gate
    /// ([`Options::gate`](crate::Options::gate)). A closure that has much to do can
    /// look at it from time to time, end early, and do the rest in a write of its
    /// own.
    ///
    /// ```
    /// # fn main() -> onepen::Result<()> {
    /// # let db = onepen::Database::open_in_memory()?;
    /// # db.execute("CREATE TABLE old(id INTEGER PRIMARY KEY)", ())?;
    /// # db.execute("INSERT INTO old VALUES (1), (2), (3)", ())?;
    /// loop {
    ///     let deleted = db.write(|tx| {
    ///         let mut deleted = 0;
    ///         while deleted < 10_000 {
    ///             let some = tx.execute(
    ///                 "DELETE FROM old WHERE id IN (SELECT id FROM old LIMIT 100)", ())?;
    ///             deleted += some;
    ///             if some == 0 || tx.others_are_waiting() > 0 {
    ///                 break;
    ///             }
    ///         }
    ///         Ok(deleted)
    ///     })?;
    ///     if deleted == 0 {
    ///         break;
    ///     }
    /// }
    /// # Ok(()) }
    /// ```
    pub fn others_are_waiting(&self) -> usize {
        self.engine.others_are_waiting()
    }

    /// The connection itself, for libraries that want one.
    ///
    /// This lifts guarantee 2 (independent members) in so far as settings made on
    /// the connection (functions, limits, pragmas) stay for the writers after
    /// you. The guards against transaction control are put back after the closure
    /// if it removed them.
    pub fn connection(&self) -> &Connection {
        self.engine.expose();
        self.connection
    }

    /// What a closure's error is to its caller. After SQLite has rolled the
    /// transaction back the closure ran on outside of any, where a stranger's
    /// lock or our own guard met it: neither is what went wrong.
    fn after_all(&self, error: Error) -> Error {
        use rusqlite::ffi;
        if error.kind() != ErrorKind::Sqlite || !self.connection.is_autocommit() {
            return error;
        }
        let code = error.sqlite_code().unwrap_or(ffi::SQLITE_OK);
        match (code, code & 0xff) {
            (ffi::SQLITE_CONSTRAINT_COMMITHOOK, _)
            | (_, ffi::SQLITE_BUSY | ffi::SQLITE_LOCKED | ffi::SQLITE_PROTOCOL) => {
                error.restated(ErrorKind::TransactionLost, LOST)
            }
            _ => error,
        }
    }

    pub(crate) fn explain(&self, error: rusqlite::Error) -> Error {
        let refusal = self.engine.take_refusal();
        // A reason may be left from a refusal that the closure saw on the
        // connection itself: it explains no other failure.
        let denied = error
            .sqlite_error()
            .is_some_and(|error| error.extended_code & 0xff == rusqlite::ffi::SQLITE_AUTH);
        match refusal {
            Some(reason) if denied => Error::new(ErrorKind::NotAllowed, reason),
            _ => error.into(),
        }
    }
}

const LOST: &str = "SQLite has rolled the transaction back, so the closure cannot go on";

/// Runs a write closure in the transaction that is open.
pub(crate) fn run<T>(
    engine: &SqliteEngine,
    closure: impl FnOnce(&WriteTx<'_>) -> Result<T>,
) -> Result<T> {
    let tx = WriteTx::new(engine)?;
    closure(&tx).map_err(|error| tx.after_all(error))
}

impl std::fmt::Debug for WriteTx<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WriteTx").finish_non_exhaustive()
    }
}
