//! One connection, many threads.
//!
//! Guarantees: one closure at a time has the connection, in the order they
//! came; each is a transaction of its own, committed when it returns `Ok` and
//! rolled back otherwise, so no thread ever finds itself in another's
//! transaction, which is what sharing a connection bare comes to.

use std::fmt;
use std::panic::Location;
use std::time::Instant;

use super::inside::{self, Inside};
use super::line::{Left, Line};
use super::tracked::{Tracked, report};
use super::transaction::{Deferred, Immediate, Transaction};
use super::{Pool, Wait, WritePermit};
use crate::engine::gave_up;
use crate::error::{Error, ErrorKind, Holder, Result, Waited, WaitedFor};
use crate::sync::{Arc, Mutex, lock};

struct Inner {
    line: Arc<Line>,
    id: usize,
    born: u32,
    /// Locked by whoever has the line's one permit.
    connection: Mutex<Option<Tracked>>,
    /// Where the closure that runs was passed in.
    holder: Mutex<Option<(Instant, &'static Location<'static>)>>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        if crate::fork::check(self.born).is_err() {
            // The parent's: closing it here would harm it.
            std::mem::forget(lock(&self.connection).take());
        }
    }
}

/// One connection that any number of threads share. Clones share it.
///
/// ```
/// # fn main() -> onepen::Result<()> {
/// use onepen::blocks::Shared;
/// let shared = Shared::new(rusqlite::Connection::open_in_memory()?);
/// shared.write(|tx| tx.execute_batch("CREATE TABLE account(n INTEGER)"))?;
/// std::thread::scope(|scope| {
///     for n in 0..4 {
///         let shared = &shared;
///         scope.spawn(move || shared.write(|tx| {
///             tx.execute("INSERT INTO account VALUES (?1)", (n,))
///         }));
///     }
/// });
/// let rows: i64 = shared.read(|tx| {
///     tx.query_row("SELECT count(*) FROM account", (), |row| row.get(0))
/// })?;
/// assert_eq!(rows, 4);
/// # Ok(()) }
/// ```
///
/// A read waits for the write before it: it is one connection. Where reads are
/// to go on meanwhile, give them connections of their own ([`SharedWrites`]).
#[derive(Clone)]
pub struct Shared {
    inner: Arc<Inner>,
    wait: Wait,
    permit: Option<WritePermit>,
}

impl Shared {
    /// Shares a connection.
    pub fn new(connection: impl Into<Tracked>) -> Self {
        Self {
            inner: Arc::new(Inner {
                line: Line::new(1),
                id: inside::new_id(),
                born: crate::fork::born(),
                connection: Mutex::new(Some(connection.into())),
                holder: Mutex::new(None),
            }),
            wait: Wait::default(),
            permit: None,
        }
    }

    /// How long a call waits for its turn. Default: at most 10 seconds.
    pub fn wait(mut self, wait: Wait) -> Self {
        self.wait = wait;
        self
    }

    /// Takes the file's write permit for each [`write`](Self::write) and
    /// [`alone`](Self::alone) too: for a file that a
    /// [`Database`](crate::Database), or somebody else with a permit, writes to.
    pub fn under(mut self, permit: WritePermit) -> Self {
        self.permit = Some(permit);
        self
    }

    /// Runs `work` in a transaction that has the write lock. Commits when it
    /// returns `Ok`.
    ///
    /// # Errors
    /// - [`ErrorKind::DeadlineExceeded`], [`ErrorKind::Cancelled`]: before its
    ///   turn came; with who had the connection.
    /// - [`ErrorKind::Reentrant`]: inside another closure of this connection.
    /// - [`ErrorKind::Forked`].
    /// - BEGIN's, COMMIT's, and those of `work`: nothing of it stays, unless the
    ///   outcome is [`Unknown`](crate::Outcome::Unknown).
    #[doc(alias = "execute_write")]
    #[track_caller]
    pub fn write<T>(
        &self,
        work: impl FnOnce(&Transaction<'_, Immediate>) -> Result<T>,
    ) -> Result<T> {
        let place = Location::caller();
        self.permitted(|| self.turn(place, |connection| Transaction::run(connection, work)))
    }

    /// Runs `work` in a read transaction: one state of the database.
    ///
    /// # Errors
    /// As [`write`](Self::write); [`ErrorKind::NotAllowed`] for SQL that writes.
    #[doc(alias = "execute_read")]
    #[track_caller]
    pub fn read<T>(&self, work: impl FnOnce(&Transaction<'_, Deferred>) -> Result<T>) -> Result<T> {
        self.turn(Location::caller(), |connection| {
            Transaction::run(connection, work)
        })
    }

    /// Gives `work` the connection itself: for PRAGMAs, VACUUM, ATTACH. Settings
    /// stay.
    ///
    /// # Errors
    /// As [`write`](Self::write); [`ErrorKind::TransactionLost`] when `work` left a
    /// transaction open, which is rolled back. The error says where it began.
    #[track_caller]
    pub fn alone<T>(&self, work: impl FnOnce(&mut Tracked) -> Result<T>) -> Result<T> {
        let place = Location::caller();
        self.permitted(|| {
            self.turn(place, |connection| {
                let value = work(connection);
                let left = connection.tidy();
                let open = left.iter().find(|left| {
                    report(None, left);
                    left.what == super::LeftBehind::Transaction
                });
                match open {
                    Some(left) if value.is_ok() => Err(Error::new(
                        ErrorKind::TransactionLost,
                        format!("{left}; it was rolled back"),
                    )),
                    _ => value,
                }
            })
        })
    }

    /// How many wait for the connection now.
    pub fn waiting(&self) -> usize {
        self.inner.line.waiting()
    }

    #[track_caller]
    fn permitted<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        // The permit first, always: whoever has the connection never waits for
        // somebody who waits for the connection.
        let _turn = match &self.permit {
            Some(permit) => Some(permit.take_with(&self.wait)?),
            None => None,
        };
        work()
    }

    fn turn<T>(
        &self,
        place: &'static Location<'static>,
        work: impl FnOnce(&mut Tracked) -> Result<T>,
    ) -> Result<T> {
        /// Gives the connection to the next, also when `work` panics.
        struct Leaving<'a> {
            inner: &'a Inner,
            _inside: Inside,
        }

        impl Drop for Leaving<'_> {
            fn drop(&mut self) {
                *lock(&self.inner.holder) = None;
                self.inner.line.give_back();
            }
        }

        let inner = &*self.inner;
        crate::fork::check(inner.born)?;
        if Inside::is_in(inner.id) {
            return Err(Error::new(
                ErrorKind::Reentrant,
                "inside a closure of the same shared connection, which would wait for itself; use \
                 the transaction that closure was given",
            ));
        }
        let since = Instant::now();
        inner
            .line
            .take(&self.wait.patience(since))
            .map_err(|left| self.in_vain(left, since))?;
        let _leaving = Leaving {
            inner,
            _inside: Inside::enter(inner.id),
        };
        *lock(&inner.holder) = Some((Instant::now(), place));
        let mut connection = lock(&inner.connection);
        match &mut *connection {
            Some(connection) => {
                connection.taken_at(place);
                work(connection)
            }
            None => Err(super::closed()),
        }
    }

    fn in_vain(&self, left: Left, since: Instant) -> Error {
        let Left::GaveUp(why) = left else {
            return super::closed();
        };
        let mut waited = Waited::new(WaitedFor::Connection, since.elapsed());
        waited.holder = lock(&self.inner.holder).map(|(since, place)| {
            Holder::here(format!("a closure at {place}"), Some(since.elapsed()))
        });
        gave_up(why, waited)
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("waiting", &self.waiting())
            .finish_non_exhaustive()
    }
}

/// Only writes share a connection; reads have their own, and in write-ahead mode
/// wait for no writer. Clones share both.
///
/// ```
/// # fn main() -> onepen::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let path = dir.path().join("app.db");
/// use onepen::blocks::{Pool, Shared, SharedWrites};
/// use rusqlite::{Connection, OpenFlags};
/// let writer = Connection::open(&path)?;
/// writer.pragma_update(None, "journal_mode", "wal")?;
/// writer.execute_batch("CREATE TABLE account(n INTEGER)")?;
/// let readers = Pool::new(4, move || {
///     Ok(Connection::open_with_flags(&path, OpenFlags::SQLITE_OPEN_READ_ONLY)?)
/// });
/// let db = SharedWrites::new(Shared::new(writer), readers);
/// db.write(|tx| tx.execute("INSERT INTO account VALUES (1)", ()))?;
/// let n: i64 = db.read(|tx| tx.query_row("SELECT n FROM account", (), |row| row.get(0)))?;
/// assert_eq!(n, 1);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct SharedWrites {
    writer: Shared,
    readers: Pool,
}

impl SharedWrites {
    /// Writes through `writer`, reads through connections of `readers`, which had
    /// best be open for reading only.
    pub fn new(writer: Shared, readers: Pool) -> Self {
        Self { writer, readers }
    }

    /// As [`Shared::write`].
    ///
    /// # Errors
    /// As there.
    #[doc(alias = "execute_write")]
    #[track_caller]
    pub fn write<T>(
        &self,
        work: impl FnOnce(&Transaction<'_, Immediate>) -> Result<T>,
    ) -> Result<T> {
        self.writer.write(work)
    }

    /// Runs `work` in a read transaction on a connection of the pool. It sees
    /// every write that returned before it began.
    ///
    /// # Errors
    /// As [`Pool::get`], and those of `work`.
    #[doc(alias = "execute_read")]
    #[track_caller]
    pub fn read<T>(&self, work: impl FnOnce(&Transaction<'_, Deferred>) -> Result<T>) -> Result<T> {
        self.readers.get()?.deferred(work)
    }

    /// The connection that writes.
    pub fn writer(&self) -> &Shared {
        &self.writer
    }

    /// The connections that read.
    pub fn readers(&self) -> &Pool {
        &self.readers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shared_connections_can_be_shared() {
        fn is_shared<T: Send + Sync + Clone>() {}
        is_shared::<Shared>();
        is_shared::<SharedWrites>();
        is_shared::<WritePermit>();
        is_shared::<Pool>();
    }
}
