//! What a read can do: look at one committed state of the database.

use std::cell::Cell;
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use rusqlite::{CachedStatement, Connection, Params, Row};

use super::lease::{Leases, Tenure};
use super::raw::ReadConnection;
use crate::error::{Error, ErrorKind, Result};
use crate::query;

/// A prepared statement of a read, from the connection's cache and back to it
/// when dropped.
///
/// It is rusqlite's ([`CachedStatement`], through `Deref`), which knows nothing of
/// transactions: when its transaction is gone (its [lease](crate::Options::reader_lease)
/// has ended, or SQLite ended it after an error), running it fails with SQLite's
/// own answer, `SQLITE_INTERRUPT`. Inside a read closure that becomes the error
/// which says why; beside a [`Snapshot`](crate::Snapshot) its
/// [`check`](ReadTx::check) does.
pub struct Statement<'a> {
    statement: CachedStatement<'a>,
    // After the statement, which goes back to the cache first.
    using: Using<'a>,
}

impl<'a> Deref for Statement<'a> {
    type Target = CachedStatement<'a>;

    fn deref(&self) -> &Self::Target {
        &self.statement
    }
}

impl DerefMut for Statement<'_> {
    /// Every use of a statement begins here.
    #[inline]
    fn deref_mut(&mut self) -> &mut Self::Target {
        if self.using.0.is_spoiled() {
            self.using.0.raw().refuse_all();
        }
        &mut self.statement
    }
}

impl fmt::Debug for Statement<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Statement").finish_non_exhaustive()
    }
}

/// A read transaction: one committed state of the database, from its first
/// moment to its end, whatever is written meanwhile.
///
/// It cannot write. There is no method for it:
///
/// ```compile_fail,E0599
/// # fn main() -> onepen::Result<()> {
/// # let db = onepen::Database::open_in_memory()?;
/// db.read(|tx| tx.execute("DELETE FROM account", ()))?;
/// # Ok(()) }
/// ```
///
/// and the connection behind it is open for reading only, so that SQL which
/// writes (or attaches, changes a setting, or ends the transaction) fails with
/// [`ErrorKind::NotAllowed`](crate::ErrorKind::NotAllowed).
///
/// It stays in its closure, and so do its statements:
///
/// ```compile_fail
/// # fn main() -> onepen::Result<()> {
/// # let db = onepen::Database::open_in_memory()?;
/// let leaked = db.read(|tx| Ok(tx))?;
/// # Ok(()) }
/// ```
///
/// ```compile_fail
/// # fn main() -> onepen::Result<()> {
/// # let db = onepen::Database::open_in_memory()?;
/// let leaked = db.read(|tx| tx.prepare("SELECT 1"))?;
/// # Ok(()) }
/// ```
///
/// nor can another thread use it:
///
/// ```compile_fail,E0277
/// # fn main() -> onepen::Result<()> {
/// # let db = onepen::Database::open_in_memory()?;
/// db.read(|tx| {
///     std::thread::scope(|scope| {
///         scope.spawn(|| tx.prepare("SELECT 1").is_ok());
///     });
///     Ok(())
/// })?;
/// # Ok(()) }
/// ```
pub struct ReadTx {
    connection: ReadConnection,
    database: Arc<str>,
    open: Arc<AtomicUsize>,
    tenure: Arc<Tenure>,
    /// How many things of the caller's use the connection now, where readers may be
    /// ended: queries inside queries, statements in the caller's hands.
    depth: Cell<u32>,
}

/// The connection is in use while it lives.
struct Using<'a>(&'a ReadTx);

impl Drop for Using<'_> {
    #[inline]
    fn drop(&mut self) {
        self.0.leave();
    }
}

impl ReadTx {
    pub(super) fn new(
        connection: Connection,
        database: &Arc<str>,
        open: &Arc<AtomicUsize>,
        leases: &Arc<Leases>,
    ) -> rusqlite::Result<Self> {
        let interrupt = connection.get_interrupt_handle();
        let connection = ReadConnection::new(connection)?;
        let tenure = leases.enroll(interrupt, connection.remote());
        open.fetch_add(1, Relaxed);
        Ok(Self {
            connection,
            database: Arc::clone(database),
            open: Arc::clone(open),
            tenure,
            depth: Cell::new(0),
        })
    }

    #[inline]
    pub(super) fn tenure(&self) -> &Tenure {
        &self.tenure
    }

    /// It has begun a transaction of its own.
    pub(super) fn pins(&self) {
        let (sees, commits) = self.raw().sees();
        self.tenure.pins(sees.as_ref(), commits);
    }

    /// The caller's code has it from now on, and uses it now and then.
    #[inline]
    pub(super) fn lend(&self) {
        if self.tenure.is_enforced() {
            self.depth.set(0);
            self.tenure.release();
        }
    }

    /// The caller's code is done with it. To be asked before anything is done with
    /// the connection.
    #[inline]
    pub(super) fn take_back(&self) {
        if self.tenure.is_enforced() {
            self.tenure.hold();
        }
    }

    /// The connection is the caller's, for a query.
    #[inline]
    fn enter(&self) -> Result<Using<'_>> {
        if self.tenure.is_enforced() {
            self.enter_slowly()?;
        }
        Ok(Using(self))
    }

    fn enter_slowly(&self) -> Result<()> {
        let depth = self.depth.get();
        if depth == 0 && !self.tenure.hold() {
            return Err(self.lease_ended());
        }
        if self.tenure.is_over() {
            if depth == 0 {
                self.tenure.release();
            }
            return Err(self.lease_ended());
        }
        self.depth.set(depth + 1);
        Ok(())
    }

    #[inline]
    fn leave(&self) {
        if self.tenure.is_enforced() {
            self.leave_slowly();
        }
    }

    fn leave_slowly(&self) {
        let depth = self.depth.get().saturating_sub(1);
        self.depth.set(depth);
        if depth == 0 {
            if self.raw().is_refusing() {
                self.raw().unwatch(); // it would refuse COMMIT
            }
            self.tenure.release();
        }
    }

    /// What is read from now on would be of another state, or is not wanted any more.
    #[inline]
    fn is_spoiled(&self) -> bool {
        self.raw().connection().is_autocommit()
            || (self.tenure.is_enforced() && self.tenure.is_over())
    }

    #[cold]
    pub(super) fn lease_ended(&self) -> Error {
        self.tenure.lease_ended().with_database(&self.database)
    }

    /// Whether the state is still there to be read.
    ///
    /// For whoever has a [`Snapshot`](crate::Snapshot) and a statement of it that
    /// fails with `SQLITE_INTERRUPT`; every other call says it by itself.
    ///
    /// # Errors
    /// [`ErrorKind::LeaseEnded`](crate::ErrorKind::LeaseEnded) when it was kept for longer than
    /// its [lease](crate::Options::reader_lease) and ended,
    /// [`ErrorKind::TransactionLost`](crate::ErrorKind::TransactionLost) when SQLite ended it
    /// after an error.
    pub fn check(&self) -> Result<()> {
        let _using = self.enter()?;
        self.whole(Ok(()))
    }

    pub(super) fn raw(&self) -> &ReadConnection {
        &self.connection
    }

    /// The first row of a query.
    ///
    /// ```
    /// # fn main() -> onepen::Result<()> {
    /// # let db = onepen::Database::open_in_memory()?;
    /// let sum: i64 = db.read(|tx| tx.query_row("SELECT ?1 + ?2", (1, 2), |row| row.get(0)))?;
    /// assert_eq!(sum, 3);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// SQLite's [`QueryReturnedNoRows`](rusqlite::Error::QueryReturnedNoRows)
    /// when there is none.
    #[inline]
    pub fn query_row<T, P, F>(&self, sql: &str, params: P, map: F) -> Result<T>
    where
        P: Params,
        F: FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    {
        let _using = self.enter()?;
        let answer = query::row(self.raw().connection(), sql, params, map);
        self.whole(answer.map_err(|error| self.failed(error)))
    }

    /// The first row of a query, if there is one.
    ///
    /// # Errors
    /// Whatever SQLite or `map` say.
    pub fn query_row_optional<T, P, F>(&self, sql: &str, params: P, map: F) -> Result<Option<T>>
    where
        P: Params,
        F: FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    {
        let _using = self.enter()?;
        let answer = query::row_optional(self.raw().connection(), sql, params, map);
        self.whole(answer.map_err(|error| self.failed(error)))
    }

    /// Calls `each` for every row of a query, one after the other; nothing is
    /// loaded ahead. Stops at the first error of `each` and returns it.
    ///
    /// # Errors
    /// Whatever SQLite or `each` say.
    pub fn query_each<P, F>(&self, sql: &str, params: P, each: F) -> Result<()>
    where
        P: Params,
        F: FnMut(&Row<'_>) -> Result<()>,
    {
        let _using = self.enter()?;
        let answer = query::each(self.raw().connection(), sql, params, each, |error| {
            self.failed(error)
        });
        self.whole(answer.map_err(|error| self.explained(error)))
    }

    /// All rows of a query.
    ///
    /// ```
    /// # fn main() -> onepen::Result<()> {
    /// # let db = onepen::Database::open_in_memory()?;
    /// let rows: Vec<i64> = db.read(|tx| {
    ///     tx.query_map("SELECT value FROM json_each('[1, 2, 3]')", (), |row| row.get(0))
    /// })?;
    /// assert_eq!(rows, [1, 2, 3]);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Whatever SQLite or `map` say.
    pub fn query_map<T, P, F>(&self, sql: &str, params: P, map: F) -> Result<Vec<T>>
    where
        P: Params,
        F: FnMut(&Row<'_>) -> rusqlite::Result<T>,
    {
        let _using = self.enter()?;
        let answer = query::map(self.raw().connection(), sql, params, map);
        self.whole(answer.map_err(|error| self.failed(error)))
    }

    /// Prepares a statement, or finds it in the connection's cache.
    ///
    /// # Errors
    /// When SQLite cannot compile `sql`, and as [`check`](Self::check).
    pub fn prepare(&self, sql: &str) -> Result<Statement<'_>> {
        let using = self.enter()?;
        self.whole(Ok(()))?;
        let statement = self.raw().lend().prepare_cached(sql);
        let statement = statement.map_err(|error| self.failed(error))?;
        Ok(Statement { statement, using })
    }

    /// The connection itself, for what this type does not offer.
    ///
    /// This lifts the guarantee *snapshot reads* in one respect: what you change
    /// on the connection (a function, a collation, a hook, a limit) is there for
    /// whoever gets it next. Writing stays impossible. And a [lease](crate::Options::reader_lease)
    /// that ends is noticed by what runs then and by the next call of this type, not by
    /// what is begun on the connection itself.
    pub fn connection(&self) -> &Connection {
        self.keep();
        self.raw().lend()
    }

    /// It is in use until the end of the read, or has ended already.
    pub(super) fn keep(&self) {
        if let Ok(using) = self.enter() {
            std::mem::forget(using);
        }
    }

    /// An answer, if it is of the one state that this transaction sees.
    ///
    /// SQLite ends a transaction after an I/O error or a lack of memory, also
    /// after one it tells nobody about: when a changed schema is read again, an
    /// error in reading `sqlite_stat1` is dropped (`sqlite3AnalysisLoad` in
    /// `sqlite3InitOne`). What is read after that is of another state.
    #[inline]
    pub(super) fn whole<T>(&self, answer: Result<T>) -> Result<T> {
        if answer.is_ok()
            && self.raw().connection().is_autocommit()
            // What was read before that was all of one state.
            && !self.tenure.has_ended()
        {
            return Err(self.lost());
        }
        answer
    }

    #[cold]
    fn lost(&self) -> Error {
        let lost = Error::new(
            ErrorKind::TransactionLost,
            "SQLite ended the read transaction after an error, so what was read may be of several states",
        );
        lost.with_database(&self.database)
    }

    /// Which tables `sql`, which has just run in this transaction, reads; `None`
    /// when a virtual table is among them, which may read any other.
    pub(crate) fn tables_of(&self, sql: &str) -> Result<Option<Vec<String>>> {
        let using = self.enter()?;
        let tables = self
            .raw()
            .tables_of(sql)
            .map_err(|error| self.failed(error))?;
        drop(using);
        self.ordinary(tables)
    }

    /// Runs `run`, which reads in this transaction; the tables it read, as
    /// [`tables_of`](Self::tables_of).
    pub(crate) fn noting_tables<T>(
        &self,
        run: impl FnOnce() -> Result<T>,
    ) -> Result<(T, Option<Vec<String>>)> {
        let using = self.enter()?;
        let (answer, mut tables) = self.raw().noting_tables(run);
        drop(using);
        tables.sort_unstable();
        tables.dedup();
        Ok((answer?, self.ordinary(tables)?))
    }

    /// The tables, if none of them is virtual.
    fn ordinary(&self, tables: Vec<String>) -> Result<Option<Vec<String>>> {
        let is_virtual = "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = ?1 COLLATE \
             NOCASE AND sql LIKE 'CREATE VIRTUAL%'";
        for table in &tables {
            if self
                .query_row_optional(is_virtual, (table,), |_| Ok(()))?
                .is_some()
            {
                return Ok(None);
            }
        }
        Ok(Some(tables))
    }

    #[cold]
    pub(super) fn failed(&self, error: rusqlite::Error) -> Error {
        self.explained(Error::from(error))
    }

    #[cold]
    pub(super) fn explained(&self, error: Error) -> Error {
        let explained = self.connection.explain(error);
        let interrupted = explained.kind() == ErrorKind::Sqlite
            && explained.sqlite_code() == Some(rusqlite::ffi::SQLITE_INTERRUPT);
        if interrupted && self.tenure.is_enforced() && self.tenure.is_over() {
            return self.lease_ended();
        }
        if interrupted && self.raw().is_refusing() {
            return self.lost();
        }
        explained.with_database(&self.database)
    }
}

impl Drop for ReadTx {
    fn drop(&mut self) {
        self.tenure.close();
        self.open.fetch_sub(1, Relaxed);
    }
}

impl fmt::Debug for ReadTx {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadTx")
            .field("database", &self.database)
            .finish_non_exhaustive()
    }
}
