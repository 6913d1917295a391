//! A connection that knows where things began on it.
//!
//! Guarantees: after [`Tracked::tidy`] no transaction is open on the connection
//! and no statement unfinished, and each that was is reported with the place in
//! the program where it began; prepared statements stay in the cache.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::{Deref, DerefMut};
use std::panic::{AssertUnwindSafe, Location, catch_unwind};
use std::sync::Arc;

use rusqlite::{CachedStatement, Connection, Params, Statement};

use super::raw;
use super::transaction::{Behavior, Deferred, Exclusive, Immediate, Transaction};
use crate::error::Result;

type Place = &'static Location<'static>;

/// What somebody left on a connection: it was rolled back, or reset.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Leftover {
    /// What it was.
    pub what: LeftBehind,
    /// Where it began, if it began through a method of [`Tracked`].
    pub began: Option<&'static Location<'static>>,
    /// Where the connection was taken: out of a [`Pool`](super::Pool), or for a
    /// closure of [`Shared`](super::Shared).
    pub taken: Option<&'static Location<'static>>,
}

/// What was left.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LeftBehind {
    /// An open transaction; it was rolled back.
    Transaction,
    /// A statement that was neither finished nor reset, by its text: it kept a
    /// snapshot, and so the log, for as long. It was reset.
    Statement {
        /// As it was prepared, without the values bound to it.
        sql: String,
    },
}

impl fmt::Display for Leftover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.what {
            LeftBehind::Transaction => f.write_str("a transaction was left open")?,
            LeftBehind::Statement { sql } => write!(f, "a statement was left unfinished: `{sql}`")?,
        }
        if let Some(began) = self.began {
            write!(f, "; it began at {began}")?;
        }
        if let Some(taken) = self.taken {
            write!(f, "; the connection was taken at {taken}")?;
        }
        Ok(())
    }
}

/// Who is told of leftovers.
pub(super) type Listener = Arc<dyn Fn(&Leftover) + Send + Sync>;

/// Tells a listener, and the spans of the program. A panic of the listener
/// stays with it: the connection is in the middle of being given back.
pub(super) fn report(listener: Option<&Listener>, leftover: &Leftover) {
    crate::trace::event!(
        WARN,
        "a transaction or a statement was left behind on a connection",
        began = leftover.began.map(tracing::field::display),
        taken = leftover.taken.map(tracing::field::display)
    );
    if let Some(listener) = listener {
        let _ = catch_unwind(AssertUnwindSafe(|| listener(leftover)));
    }
}

/// A [`Connection`] that remembers where transactions and statements began, so
/// that what is left open can be told with its place.
///
/// It is a `Connection` in every other respect. Only what is begun through the
/// methods below is remembered; through the [`Connection`] itself (as a library
/// would that is given `&mut Connection`) it is still found and undone.
///
/// ```
/// # fn main() -> onepen::Result<()> {
/// use onepen::blocks::{LeftBehind, Tracked};
/// let mut connection = Tracked::new(rusqlite::Connection::open_in_memory()?);
/// connection.execute_batch("BEGIN")?; // and an early return, say
/// let left = connection.tidy();
/// assert_eq!(left[0].what, LeftBehind::Transaction);
/// assert_eq!(left[0].began.map(|place| place.file()), Some(file!()));
/// assert!(connection.is_autocommit());
/// # Ok(()) }
/// ```
///
/// When it is dropped with something open, the listener
/// ([`on_leftover`](Self::on_leftover)) is told too: a connection that closes
/// rolls back without a word otherwise.
pub struct Tracked {
    connection: Option<Connection>,
    places: Places,
    listener: Option<Listener>,
}

#[derive(Default)]
struct Places {
    transaction: Cell<Option<Place>>,
    /// By the hash of their texts.
    statements: RefCell<HashMap<u64, Place>>,
    taken: Cell<Option<Place>>,
}

/// More texts than a connection has in its cache are not worth the memory.
const MOST_PLACES: usize = 256;

impl Places {
    /// What began there has ended, so it must not be blamed for what a library
    /// begins next. Whoever reaches the connection comes through here.
    fn forget_if_over(&self, connection: &Connection) {
        if self.transaction.get().is_some() && connection.is_autocommit() {
            self.transaction.set(None);
        }
    }

    fn prepared(&self, sql: &str, place: Place) {
        let mut statements = self.statements.borrow_mut();
        if statements.len() >= MOST_PLACES {
            statements.clear();
        }
        statements.insert(hash(sql), place);
    }

    fn of_statement(&self, sql: &str) -> Option<Place> {
        self.statements.borrow().get(&hash(sql)).copied()
    }
}

fn hash(sql: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    sql.trim().hash(&mut hasher);
    hasher.finish()
}

impl Tracked {
    /// Wraps a connection, all of it: not one made of a handle that somebody
    /// else uses too (`Connection::from_handle`), whose statements would be
    /// undone along with ours.
    pub fn new(connection: Connection) -> Self {
        Self {
            connection: Some(connection),
            places: Places::default(),
            listener: None,
        }
    }

    /// Calls `listener` for everything that is found when this is dropped.
    pub fn on_leftover(mut self, listener: impl Fn(&Leftover) + Send + Sync + 'static) -> Self {
        self.listener = Some(Arc::new(listener));
        self
    }

    /// The connection, as it is.
    pub fn into_inner(mut self) -> Connection {
        match self.connection.take() {
            Some(connection) => connection,
            None => unreachable!("it is taken out here and in `drop`, each of them the last"),
        }
    }

    /// Rolls back what is open, resets what is unfinished, and says what that
    /// was. Prepared statements stay prepared.
    pub fn tidy(&mut self) -> Vec<Leftover> {
        let taken = self.places.taken.take();
        let began = self.places.transaction.take();
        let mut left = Vec::new();
        let connection: &Connection = self;
        // SAFETY: the connection is borrowed mutably, and every statement of it
        // that somebody could go on with borrows it too: what is unfinished was
        // leaked.
        unsafe {
            raw::reset_unfinished(connection, |sql| {
                let sql = sql.to_string_lossy().trim().to_owned();
                left.push(Leftover {
                    began: self.places.of_statement(&sql),
                    what: LeftBehind::Statement { sql },
                    taken,
                });
            });
        }
        if !connection.is_autocommit() {
            let what = LeftBehind::Transaction;
            left.insert(0, Leftover { what, began, taken });
            let _ = connection.execute_batch("ROLLBACK");
        }
        self.places.statements.borrow_mut().clear();
        left
    }

    pub(super) fn taken_at(&self, place: Place) {
        self.places.taken.set(Some(place));
    }

    /// The connection, on which a transaction is about to begin.
    fn begins(&mut self, place: Place) -> &mut Connection {
        let Self {
            connection, places, ..
        } = self;
        places.transaction.set(Some(place));
        match connection {
            Some(connection) => connection,
            None => unreachable!("it is taken out when nobody can ask any more"),
        }
    }

    /// Takes note if a transaction began in `run`.
    fn noting<T>(&self, place: Place, run: impl FnOnce(&Connection) -> T) -> T {
        let outside = self.is_autocommit();
        let result = run(self);
        if outside && !self.is_autocommit() {
            self.places.transaction.set(Some(place));
        }
        result
    }

    /// [`Connection::execute_batch`].
    ///
    /// # Errors
    /// SQLite's.
    #[track_caller]
    pub fn execute_batch(&self, sql: &str) -> rusqlite::Result<()> {
        self.noting(Location::caller(), |c| c.execute_batch(sql))
    }

    /// [`Connection::execute`].
    ///
    /// # Errors
    /// SQLite's.
    #[track_caller]
    pub fn execute<P: Params>(&self, sql: &str, params: P) -> rusqlite::Result<usize> {
        self.noting(Location::caller(), |c| c.execute(sql, params))
    }

    /// [`Connection::prepare`].
    ///
    /// # Errors
    /// SQLite's.
    #[track_caller]
    pub fn prepare(&self, sql: &str) -> rusqlite::Result<Statement<'_>> {
        self.places.prepared(sql, Location::caller());
        Connection::prepare(self, sql)
    }

    /// [`Connection::prepare_cached`].
    ///
    /// # Errors
    /// SQLite's.
    #[track_caller]
    pub fn prepare_cached(&self, sql: &str) -> rusqlite::Result<CachedStatement<'_>> {
        self.places.prepared(sql, Location::caller());
        Connection::prepare_cached(self, sql)
    }

    /// [`Connection::unchecked_transaction`].
    ///
    /// # Errors
    /// SQLite's.
    #[track_caller]
    pub fn unchecked_transaction(&self) -> rusqlite::Result<rusqlite::Transaction<'_>> {
        let connection: &Connection = self;
        self.places.transaction.set(Some(Location::caller()));
        connection.unchecked_transaction()
    }

    /// [`Connection::transaction`].
    ///
    /// # Errors
    /// SQLite's.
    #[track_caller]
    pub fn transaction(&mut self) -> rusqlite::Result<rusqlite::Transaction<'_>> {
        self.begins(Location::caller()).transaction()
    }

    /// [`Transactions::begin`](super::Transactions::begin).
    ///
    /// # Errors
    /// BEGIN's.
    #[track_caller]
    pub fn begin<B: Behavior>(&mut self) -> Result<Transaction<'_, B>> {
        Transaction::begin(self.begins(Location::caller()))
    }

    /// [`Transactions::deferred`](super::Transactions::deferred).
    ///
    /// # Errors
    /// As there.
    #[track_caller]
    pub fn deferred<T>(
        &mut self,
        work: impl FnOnce(&Transaction<'_, Deferred>) -> Result<T>,
    ) -> Result<T> {
        Transaction::run(self.begins(Location::caller()), work)
    }

    /// [`Transactions::immediate`](super::Transactions::immediate).
    ///
    /// # Errors
    /// As there.
    #[track_caller]
    pub fn immediate<T>(
        &mut self,
        work: impl FnOnce(&Transaction<'_, Immediate>) -> Result<T>,
    ) -> Result<T> {
        Transaction::run(self.begins(Location::caller()), work)
    }

    /// [`Transactions::exclusive`](super::Transactions::exclusive).
    ///
    /// # Errors
    /// As there.
    #[track_caller]
    pub fn exclusive<T>(
        &mut self,
        work: impl FnOnce(&Transaction<'_, Exclusive>) -> Result<T>,
    ) -> Result<T> {
        Transaction::run(self.begins(Location::caller()), work)
    }
}

impl Deref for Tracked {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        match &self.connection {
            Some(connection) => {
                self.places.forget_if_over(connection);
                connection
            }
            None => unreachable!("it is taken out when nobody can ask any more"),
        }
    }
}

impl DerefMut for Tracked {
    fn deref_mut(&mut self) -> &mut Connection {
        if let Some(connection) = &self.connection {
            self.places.forget_if_over(connection);
        }
        match &mut self.connection {
            Some(connection) => connection,
            None => unreachable!("it is taken out when nobody can ask any more"),
        }
    }
}

impl From<Connection> for Tracked {
    fn from(connection: Connection) -> Self {
        Self::new(connection)
    }
}

impl Drop for Tracked {
    fn drop(&mut self) {
        if self.connection.is_none() {
            return;
        }
        for leftover in self.tidy() {
            report(self.listener.as_ref(), &leftover);
        }
        if let Some(connection) = self.connection.take() {
            // A statement whose owner was forgotten would keep SQLite from
            // closing the connection, for ever.
            raw::close(connection);
        }
    }
}

impl fmt::Debug for Tracked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tracked")
            .field("connection", &self.connection)
            .finish_non_exhaustive()
    }
}
