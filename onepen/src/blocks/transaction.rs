//! Transactions of a plain connection, by what may safely be done in them.
//!
//! Guarantees: whatever leaves a transaction other than through
//! [`commit`](Transaction::commit) or a closure that returned `Ok` is rolled
//! back; a COMMIT that may or may not have reached the disk is reported as
//! [`Outcome::Unknown`]; a transaction that reads before it writes has the write
//! lock from its first moment, or does not compile.

use std::cell::Cell;
use std::marker::PhantomData;
use std::time::Instant;

use rusqlite::types::{FromSql, ToSql};
use rusqlite::{CachedStatement, Connection, Params, Row, ffi};

use super::raw::{self, Holds};
use super::retry::Class;
use crate::error::{Error, ErrorKind, Outcome, Result, Waited, WaitedFor};
use crate::query;

mod savepoint;

pub use self::savepoint::Savepoint;
pub(crate) use self::savepoint::part_of;

mod sealed {
    pub trait Sealed {}
}

/// How a transaction begins: [`Deferred`], [`Immediate`] or [`Exclusive`]
/// (<https://www.sqlite.org/lang_transaction.html>).
pub trait Behavior: sealed::Sealed {
    #[doc(hidden)]
    const BEGIN: &'static str;
    #[doc(hidden)]
    const WRITES: bool;
}

/// A transaction that has the write lock from its first moment, so that what it
/// has read is still true when it writes.
pub trait MayWrite: Behavior {}

/// `BEGIN DEFERRED`: takes no lock until it reads. Read only, by type: a
/// deferred transaction that has read and then writes fails with BUSY at once,
/// whatever the busy timeout, when somebody else wrote in between.
#[derive(Clone, Copy, Debug)]
pub enum Deferred {}

/// `BEGIN IMMEDIATE`: waits for the write lock first; others go on reading.
#[derive(Clone, Copy, Debug)]
pub enum Immediate {}

/// `BEGIN EXCLUSIVE`: as [`Immediate`] in write-ahead mode; over a rollback
/// journal nobody else reads meanwhile.
#[derive(Clone, Copy, Debug)]
pub enum Exclusive {}

impl sealed::Sealed for Deferred {}
impl sealed::Sealed for Immediate {}
impl sealed::Sealed for Exclusive {}

impl Behavior for Deferred {
    const BEGIN: &'static str = "BEGIN DEFERRED";
    const WRITES: bool = false;
}

impl Behavior for Immediate {
    const BEGIN: &'static str = "BEGIN IMMEDIATE";
    const WRITES: bool = true;
}

impl Behavior for Exclusive {
    const BEGIN: &'static str = "BEGIN EXCLUSIVE";
    const WRITES: bool = true;
}

impl MayWrite for Immediate {}
impl MayWrite for Exclusive {}

/// Where a connection is: in a transaction or not, and what it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct TransactionState {
    /// No transaction is open: every statement is one by itself, and is
    /// committed when it ends.
    pub autocommit: bool,
    /// What the connection holds. [`Holds::Snapshot`] together with
    /// `autocommit` means that a statement was left unfinished: it keeps the log
    /// from being reset.
    pub holds: Holds,
}

/// Transactions for [`rusqlite::Connection`], as closures and as guards.
///
/// ```
/// # fn main() -> onepen::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let path = dir.path().join("app.db");
/// use onepen::blocks::{Holds, Transactions};
/// let mut connection = rusqlite::Connection::open(path)?;
/// connection.execute_batch("CREATE TABLE account(id INTEGER PRIMARY KEY, n INTEGER)")?;
///
/// connection.immediate(|tx| {
///     tx.execute("INSERT INTO account VALUES (1, 100)", ())?;
///     tx.modify(
///         "SELECT n FROM account WHERE id = ?1",
///         "UPDATE account SET n = ?2 WHERE id = ?1",
///         1,
///         |n: i64| n - 10,
///     )
/// })?;
/// let n: i64 = connection.deferred(|tx| tx.query_row("SELECT n FROM account", (), |r| r.get(0)))?;
/// assert_eq!(n, 90);
///
/// assert!(connection.state().autocommit);
/// assert_eq!(connection.state().holds, Holds::Nothing);
/// # Ok(()) }
/// ```
pub trait Transactions {
    /// Runs `work` in a read transaction: one state of the database from its
    /// first query on.
    ///
    /// # Errors
    /// What `work` returned.
    fn deferred<T>(
        &mut self,
        work: impl FnOnce(&Transaction<'_, Deferred>) -> Result<T>,
    ) -> Result<T>;

    /// Runs `work` with the write lock. Commits when it returns `Ok`; an error
    /// or a panic undoes all of it.
    ///
    /// # Errors
    /// - BEGIN's: above all BUSY, when the connection's busy handler gave up
    ///   ([`Class`] tells them apart).
    /// - What `work` returned, and what [`Transaction::commit`] may return.
    fn immediate<T>(
        &mut self,
        work: impl FnOnce(&Transaction<'_, Immediate>) -> Result<T>,
    ) -> Result<T>;

    /// As [`immediate`](Self::immediate); over a rollback journal nobody else
    /// reads meanwhile.
    ///
    /// # Errors
    /// As [`immediate`](Self::immediate).
    fn exclusive<T>(
        &mut self,
        work: impl FnOnce(&Transaction<'_, Exclusive>) -> Result<T>,
    ) -> Result<T>;

    /// A transaction as a guard: rolled back when dropped, unless
    /// [committed](Transaction::commit).
    ///
    /// # Errors
    /// BEGIN's.
    fn begin<B: Behavior>(&mut self) -> Result<Transaction<'_, B>>;

    /// Whether a transaction is open, and what is held.
    fn state(&self) -> TransactionState;
}

impl Transactions for Connection {
    fn deferred<T>(
        &mut self,
        work: impl FnOnce(&Transaction<'_, Deferred>) -> Result<T>,
    ) -> Result<T> {
        Transaction::run(self, work)
    }

    fn immediate<T>(
        &mut self,
        work: impl FnOnce(&Transaction<'_, Immediate>) -> Result<T>,
    ) -> Result<T> {
        Transaction::run(self, work)
    }

    fn exclusive<T>(
        &mut self,
        work: impl FnOnce(&Transaction<'_, Exclusive>) -> Result<T>,
    ) -> Result<T> {
        Transaction::run(self, work)
    }

    fn begin<B: Behavior>(&mut self) -> Result<Transaction<'_, B>> {
        Transaction::begin(self)
    }

    fn state(&self) -> TransactionState {
        TransactionState {
            autocommit: self.is_autocommit(),
            holds: raw::holds(self),
        }
    }
}

/// An open transaction. Rolled back when dropped, unless
/// [committed](Self::commit).
///
/// A [`Deferred`] one has no method that writes, and refuses SQL that does:
///
/// ```compile_fail,E0599
/// use onepen::blocks::Transactions;
/// # fn main() -> onepen::Result<()> {
/// let mut connection = rusqlite::Connection::open_in_memory()?;
/// connection.deferred(|tx| {
///     let n: i64 = tx.query_row("SELECT n FROM account", (), |row| row.get(0))?;
///     tx.execute("UPDATE account SET n = ?1", (n - 10,)) // would be BUSY_SNAPSHOT one day
/// })?;
/// # Ok(()) }
/// ```
///
/// Read-modify-write is for those that have the write lock already:
///
/// ```compile_fail,E0277
/// use onepen::blocks::{Deferred, Transaction};
/// fn take_ten(tx: &Transaction<'_, Deferred>) -> onepen::Result<usize> {
///     tx.modify("SELECT n FROM account WHERE id = ?1",
///               "UPDATE account SET n = ?2 WHERE id = ?1", 1, |n: i64| n - 10)
/// }
/// ```
///
/// Two at a time on one connection are impossible:
///
/// ```compile_fail,E0499
/// use onepen::blocks::{Immediate, Transaction};
/// # fn main() -> onepen::Result<()> {
/// let mut connection = rusqlite::Connection::open_in_memory()?;
/// let one = Transaction::<Immediate>::begin(&mut connection)?;
/// let two = Transaction::<Immediate>::begin(&mut connection)?;
/// one.commit()?;
/// # Ok(()) }
/// ```
#[must_use = "a transaction that is dropped is rolled back"]
pub struct Transaction<'c, B: Behavior> {
    connection: &'c Connection,
    depth: Cell<u32>,
    behavior: PhantomData<B>,
}

impl<'c, B: Behavior> Transaction<'c, B> {
    /// Begins. Waits for locks as long as the connection's busy handler does.
    ///
    /// # Errors
    /// BEGIN's, with how long it waited.
    pub fn begin(connection: &'c mut Connection) -> Result<Self> {
        let connection = &*connection;
        let since = Instant::now();
        control(connection, B::BEGIN).map_err(|error| match Class::of(&error) {
            Some(_) => {
                let waited = Waited::new(WaitedFor::WriteLock, since.elapsed());
                Error::from(error).with_waited(waited)
            }
            None => error.into(),
        })?;
        Ok(Self {
            connection,
            depth: Cell::new(0),
            behavior: PhantomData,
        })
    }

    /// Begins, runs `work`, and commits what it did if it returns `Ok`.
    ///
    /// # Errors
    /// BEGIN's, those of `work`, and COMMIT's.
    pub fn run<T>(
        connection: &'c mut Connection,
        work: impl FnOnce(&Self) -> Result<T>,
    ) -> Result<T> {
        let transaction = Self::begin(connection)?;
        let value = work(&transaction)?;
        transaction.commit()?;
        Ok(value)
    }

    /// Commits. Waits for readers (over a rollback journal) as long as the
    /// connection's busy handler does.
    ///
    /// # Errors
    /// - [`ErrorKind::CommitFailed`]: [`Outcome::NotCommitted`], rolled back; or
    ///   [`Outcome::Unknown`], when it failed on the way to the disk. Nothing may
    ///   repeat the transaction then.
    /// - [`ErrorKind::TransactionLost`]: SQLite rolled it back before, or somebody
    ///   ended it through [`connection`](Self::connection).
    pub fn commit(self) -> Result<()> {
        let connection = self.connection;
        if connection.is_autocommit() {
            return Err(lost());
        }
        let mut committed = control(connection, "COMMIT");
        if committed.is_err() && !connection.is_autocommit() && self.reset_forgotten() {
            committed = control(connection, "COMMIT");
        }
        if let Err(error) = committed {
            let code = error
                .sqlite_error()
                .map_or(ffi::SQLITE_ERROR, |error| error.extended_code);
            return Err(Error::commit(&error.into(), outcome_of_failed_commit(code)));
        }
        Ok(())
    }

    /// Rolls back. Dropping does the same, and swallows the error.
    ///
    /// # Errors
    /// SQLite's.
    pub fn rollback(self) -> Result<()> {
        if self.connection.is_autocommit() {
            return Ok(());
        }
        Ok(control(self.connection, "ROLLBACK")?)
    }

    /// Statements that were begun in this transaction and leaked
    /// (`mem::forget`). Says whether there were any.
    fn reset_forgotten(&self) -> bool {
        let mut any = false;
        // SAFETY: the connection was borrowed mutably when this transaction
        // began, so no older statement of it is in anybody's hands; later ones
        // borrow the transaction, and the caller is about to give it up.
        unsafe { raw::reset_unfinished(self.connection, |_| any = true) };
        any
    }

    /// A statement from the connection's cache.
    ///
    /// # Errors
    /// SQLite's; [`ErrorKind::NotAllowed`] when it writes and the transaction
    /// may not.
    pub fn prepare(&self, sql: &str) -> Result<CachedStatement<'_>> {
        let statement = self.connection.prepare_cached(sql)?;
        if !B::WRITES && !statement.readonly() {
            return Err(Error::new(
                ErrorKind::NotAllowed,
                "a deferred transaction is for reading: one that has read cannot get the write \
                 lock once somebody else has written; use `immediate`",
            ));
        }
        Ok(statement)
    }

    /// The first row of a query.
    ///
    /// # Errors
    /// As [`prepare`](Self::prepare); SQLite's
    /// [`QueryReturnedNoRows`](rusqlite::Error::QueryReturnedNoRows) when there
    /// is none.
    pub fn query_row<T, P, F>(&self, sql: &str, params: P, map: F) -> Result<T>
    where
        P: Params,
        F: FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    {
        Ok(self.prepare(sql)?.query_row(params, map)?)
    }

    /// The first row of a query, if there is one.
    ///
    /// # Errors
    /// As [`prepare`](Self::prepare), and those of `map`.
    pub fn query_row_optional<T, P, F>(&self, sql: &str, params: P, map: F) -> Result<Option<T>>
    where
        P: Params,
        F: FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    {
        Ok(query::first(self.prepare(sql)?, params, map)?)
    }

    /// All rows of a query.
    ///
    /// # Errors
    /// As [`prepare`](Self::prepare), and those of `map`.
    pub fn query_map<T, P, F>(&self, sql: &str, params: P, map: F) -> Result<Vec<T>>
    where
        P: Params,
        F: FnMut(&Row<'_>) -> rusqlite::Result<T>,
    {
        Ok(query::all(self.prepare(sql)?, params, map)?)
    }

    /// Runs `part` so that its changes are undone when it fails, while what came
    /// before stays. Savepoints nest.
    ///
    /// # Errors
    /// What `part` returned; [`ErrorKind::TransactionLost`] when SQLite ended the
    /// whole transaction in there.
    pub fn savepoint<T>(&self, part: impl FnOnce(&Self) -> Result<T>) -> Result<T> {
        part_of(
            &self.depth,
            || self.connection.is_autocommit(),
            |sql| Ok(self.connection.execute_batch(sql)?),
            || part(self),
        )
    }

    /// A savepoint as a guard: what came after it is undone when it is dropped,
    /// unless it is [kept](Savepoint::keep).
    ///
    /// # Errors
    /// SQLite's.
    pub fn begin_savepoint(&mut self) -> Result<Savepoint<'_, 'c, B>> {
        Savepoint::begin(self)
    }

    /// The connection itself, for libraries that want one. What is done to the
    /// transaction through it is noticed at [`commit`](Self::commit) only in so
    /// far as the transaction is gone by then.
    pub fn connection(&self) -> &Connection {
        self.connection
    }
}

impl<B: MayWrite> Transaction<'_, B> {
    /// Runs one statement; how many rows it changed.
    ///
    /// # Errors
    /// SQLite's.
    pub fn execute<P: Params>(&self, sql: &str, params: P) -> Result<usize> {
        Ok(self.connection.prepare_cached(sql)?.execute(params)?)
    }

    /// Runs several statements without parameters.
    ///
    /// # Errors
    /// SQLite's.
    pub fn execute_batch(&self, sql: &str) -> Result<()> {
        Ok(self.connection.execute_batch(sql)?)
    }

    /// Reads a value, makes another one of it, and writes that: nobody can have
    /// written in between. `read` has the key as `?1`; `write` has it as `?1`
    /// and the new value as `?2`. Returns how many rows were written.
    ///
    /// # Errors
    /// SQLite's; `QueryReturnedNoRows` when nothing has that key.
    pub fn modify<T: FromSql, U: ToSql>(
        &self,
        read: &str,
        write: &str,
        key: impl ToSql,
        change: impl FnOnce(T) -> U,
    ) -> Result<usize> {
        let old: T = self.query_row(read, [&key], |row| row.get(0))?;
        let new = change(old);
        self.execute(write, (&key, &new))
    }

    /// The row id of the last insert on this connection.
    pub fn last_insert_rowid(&self) -> i64 {
        self.connection.last_insert_rowid()
    }

    /// How many rows the last statement changed.
    pub fn changes(&self) -> u64 {
        self.connection.changes()
    }
}

impl<B: Behavior> Drop for Transaction<'_, B> {
    fn drop(&mut self) {
        if !self.connection.is_autocommit() {
            let _ = control(self.connection, "ROLLBACK");
        }
        if raw::holds(self.connection) != Holds::Nothing {
            self.reset_forgotten(); // it would keep the snapshot
        }
    }
}

impl<B: Behavior> std::fmt::Debug for Transaction<'_, B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Transaction")
            .field("begun_with", &B::BEGIN)
            .finish_non_exhaustive()
    }
}

pub(crate) fn lost() -> Error {
    Error::new(
        ErrorKind::TransactionLost,
        "SQLite has rolled the transaction back, so the closure cannot go on",
    )
}

/// What a failed COMMIT means.
///
/// Only failures that SQLite reports before it asked the disk for anything
/// (CORRUPT is one met earlier in the transaction, INTERRUPT comes before the
/// first instruction), or after the disk took nothing (FULL is a write that did
/// not happen), are certain. After any other the commit frame may be in the file,
/// where the next recovery will find it: `faults` tests show exactly that for a
/// failed fsync.
pub(crate) fn outcome_of_failed_commit(code: i32) -> Outcome {
    match code & 0xff {
        ffi::SQLITE_BUSY
        | ffi::SQLITE_CONSTRAINT
        | ffi::SQLITE_CORRUPT
        | ffi::SQLITE_FULL
        | ffi::SQLITE_INTERRUPT
        | ffi::SQLITE_READONLY
        | ffi::SQLITE_MISUSE
        | ffi::SQLITE_ERROR => Outcome::NotCommitted,
        _ => Outcome::Unknown,
    }
}

/// Runs BEGIN and its like, from the connection's cache.
fn control(connection: &Connection, sql: &str) -> rusqlite::Result<()> {
    connection.prepare_cached(sql)?.execute(()).map(drop)
}
