//! What a read can do: look at one committed state of the database.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use rusqlite::{Connection, Params, Row};

use super::raw::ReadConnection;
use crate::error::{Error, ErrorKind, Result};
use crate::query;

/// A prepared statement of a read, from the connection's cache and back to it
/// when dropped.
pub type Statement<'a> = rusqlite::CachedStatement<'a>;

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
}

impl ReadTx {
    pub(super) fn new(
        connection: Connection,
        database: &Arc<str>,
        open: &Arc<AtomicUsize>,
    ) -> rusqlite::Result<Self> {
        let connection = ReadConnection::new(connection)?;
        open.fetch_add(1, Relaxed);
        Ok(Self {
            connection,
            database: Arc::clone(database),
            open: Arc::clone(open),
        })
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
        let answer = query::map(self.raw().connection(), sql, params, map);
        self.whole(answer.map_err(|error| self.failed(error)))
    }

    /// Prepares a statement, or finds it in the connection's cache.
    ///
    /// # Errors
    /// When SQLite cannot compile `sql`.
    pub fn prepare(&self, sql: &str) -> Result<Statement<'_>> {
        self.raw()
            .lend()
            .prepare_cached(sql)
            .map_err(|error| self.failed(error))
    }

    /// The connection itself, for what this type does not offer.
    ///
    /// This lifts the guarantee *snapshot reads* in one respect: what you change
    /// on the connection (a function, a collation, a hook, a limit) is there for
    /// whoever gets it next. Writing stays impossible.
    pub fn connection(&self) -> &Connection {
        self.raw().lend()
    }

    /// An answer, if it is of the one state that this transaction sees.
    ///
    /// SQLite ends a transaction after an I/O error or a lack of memory, also
    /// after one it tells nobody about: when a changed schema is read again, an
    /// error in reading `sqlite_stat1` is dropped (`sqlite3AnalysisLoad` in
    /// `sqlite3InitOne`). What is read after that is of another state.
    #[inline]
    pub(super) fn whole<T>(&self, answer: Result<T>) -> Result<T> {
        if answer.is_ok() && self.raw().connection().is_autocommit() {
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
        let tables = self
            .raw()
            .tables_of(sql)
            .map_err(|error| self.failed(error))?;
        self.ordinary(tables)
    }

    /// Runs `run`, which reads in this transaction; the tables it read, as
    /// [`tables_of`](Self::tables_of).
    pub(crate) fn noting_tables<T>(
        &self,
        run: impl FnOnce() -> Result<T>,
    ) -> Result<(T, Option<Vec<String>>)> {
        let (answer, mut tables) = self.raw().noting_tables(run);
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
        self.connection.explain(error).with_database(&self.database)
    }
}

impl Drop for ReadTx {
    fn drop(&mut self) {
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
