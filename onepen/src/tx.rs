//! What a write closure gets to work with.

use std::cell::Cell;
use std::panic::Location;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rusqlite::{CachedStatement, Connection, Params, Row};

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
    let runs =
        cfg!(feature = "tracing").then(|| engine.running.begin(about.at, about.label.as_ref()));
    let Some(limit) = about.limit else {
        let answer = call(&WriteTx::new(engine)?);
        drop(runs);
        return answer;
    };
    let since = Instant::now();
    engine.limit(since.checked_add(limit));
    let limited = Limited(engine);
    let answer = call(&WriteTx::new(engine)?);
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

/// What is known of a write closure that its code does not say.
#[derive(Clone)]
pub(crate) struct About {
    /// Where it was submitted.
    pub(crate) at: &'static Location<'static>,
    pub(crate) label: Option<Arc<str>>,
    /// The longest it may hold the pen.
    pub(crate) limit: Option<Duration>,
}

impl About {
    #[track_caller]
    pub(crate) fn of(ticket: &Ticket) -> Self {
        Self {
            at: Location::caller(),
            label: ticket.label.clone(),
            limit: ticket.limit,
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
        if self.connection.is_autocommit() {
            // SAVEPOINT would begin a transaction here that looks like the lost
            // one, and the pen would take it for the group's.
            return Err(transaction_lost());
        }
        let depth = self.depth.get();
        self.control(&format!("SAVEPOINT onepen_part_{depth}"))?;
        self.depth.set(depth + 1);
        let open = OpenPart { tx: self, depth };
        let result = part(self);
        std::mem::forget(open);
        self.depth.set(depth);
        if self.connection.is_autocommit() {
            // SQLite ended the transaction in there, and the savepoint with it.
            return result.and_then(|_| Err(transaction_lost()));
        }
        if result.is_err() {
            self.control(&format!("ROLLBACK TO onepen_part_{depth}"))?;
        }
        self.control(&format!("RELEASE onepen_part_{depth}"))?;
        result
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

fn transaction_lost() -> Error {
    Error::new(
        ErrorKind::TransactionLost,
        "SQLite has rolled the transaction back, so the closure cannot go on",
    )
}

/// A part that panicked: undone, as far as SQLite still lets us.
struct OpenPart<'a, 'tx> {
    tx: &'a WriteTx<'tx>,
    depth: u32,
}

impl Drop for OpenPart<'_, '_> {
    fn drop(&mut self) {
        let depth = self.depth;
        self.tx.depth.set(depth);
        // The closure is unwinding, so the whole member is undone in any case.
        let _ = self.tx.control(&format!("ROLLBACK TO onepen_part_{depth}"));
        let _ = self.tx.control(&format!("RELEASE onepen_part_{depth}"));
    }
}

impl std::fmt::Debug for WriteTx<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WriteTx").finish_non_exhaustive()
    }
}
