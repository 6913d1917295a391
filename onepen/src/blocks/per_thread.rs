//! A connection for each thread.
//!
//! Guarantees: a thread opens its connection when it first asks, and finds the
//! same one again; no other thread ever uses it; it is closed when the thread
//! ends, on that thread, or with the [`PerThread`], whichever comes first; a
//! forked child can neither use nor close its parent's.

use std::any::Any;
use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{TryLockError, Weak};

use crate::error::{Error, ErrorKind, Result};
use crate::sync::{Arc, Mutex, lock};

type Open<C> = Box<dyn Fn() -> Result<C> + Send + Sync>;

/// Connections of any kind, one for each thread that asks: rusqlite's, diesel's,
/// a [`Tracked`](super::Tracked).
///
/// ```
/// # fn main() -> onepen::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let path = dir.path().join("app.db");
/// use onepen::blocks::PerThread;
/// let connections = PerThread::new(move || Ok(rusqlite::Connection::open(&path)?));
/// connections.with(|c| Ok(c.execute_batch("CREATE TABLE a(n); INSERT INTO a VALUES (1)")?))?;
/// std::thread::scope(|scope| {
///     for _ in 0..4 {
///         scope.spawn(|| connections.with(|c| {
///             let n: i64 = c.query_row("SELECT n FROM a", (), |row| row.get(0))?;
///             assert_eq!(n, 1);
///             Ok(())
///         }));
///     }
/// });
/// # assert_eq!(connections.opened(), 5);
/// # Ok(()) }
/// ```
///
/// Threads that write wait for each other as strangers do, unless they take a
/// [`WritePermit`](super::WritePermit).
///
/// A connection cannot leave its thread through the closure:
///
/// ```compile_fail
/// let connections = onepen::blocks::PerThread::new(|| Ok(rusqlite::Connection::open_in_memory()?));
/// let stolen = connections.with(|c| Ok(c)).unwrap();
/// ```
pub struct PerThread<C: Send + 'static> {
    home: Arc<Home<C>>,
    open: Open<C>,
}

/// Where the connections are. Threads have a weak hold on it, so that whoever
/// goes first, the thread or the owner, takes them along.
struct Home<C> {
    id: u64,
    born: u32,
    connections: Mutex<HashMap<u64, Arc<Mutex<C>>>>,
    opened: AtomicU64,
}

/// A home as a thread that ends knows it.
trait Leave: Send + Sync {
    fn leave(&self, thread: u64);
}

impl<C: Send> Leave for Home<C> {
    fn leave(&self, thread: u64) {
        let connection = lock(&self.connections).remove(&thread);
        self.close(connection); // not under the lock
    }
}

impl<C> Home<C> {
    fn close<T>(&self, connections: T) {
        if crate::fork::check(self.born).is_ok() {
            drop(connections);
        } else {
            // The parent's. Closing them here would drop its locks, or worse.
            std::mem::forget(connections);
        }
    }
}

impl<C> Drop for Home<C> {
    fn drop(&mut self) {
        let connections = std::mem::take(&mut *lock(&self.connections));
        self.close(connections);
    }
}

/// What this thread has, and where.
struct Mine {
    thread: u64,
    places: RefCell<Vec<Place>>,
}

struct Place {
    id: u64,
    connection: Weak<dyn Any + Send + Sync>,
    home: Weak<dyn Leave>,
}

impl Drop for Mine {
    fn drop(&mut self) {
        for place in self.places.take() {
            if let Some(home) = place.home.upgrade() {
                home.leave(self.thread);
            }
        }
    }
}

fn next() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Relaxed)
}

std::thread_local! {
    static MINE: Mine = Mine { thread: next(), places: RefCell::default() };
}

impl Mine {
    fn find<C: Send + 'static>(&self, id: u64) -> Option<Arc<Mutex<C>>> {
        let places = self.places.borrow();
        let place = places.iter().find(|place| place.id == id)?;
        place.connection.upgrade()?.downcast().ok()
    }
}

impl<C: Send + 'static> PerThread<C> {
    /// `open` runs on each thread that asks for the first time.
    pub fn new(open: impl Fn() -> Result<C> + Send + Sync + 'static) -> Self {
        Self {
            home: Arc::new(Home {
                id: next(),
                born: crate::fork::born(),
                connections: Mutex::default(),
                opened: AtomicU64::new(0),
            }),
            open: Box::new(open),
        }
    }

    /// Runs `work` with this thread's connection, opened now if there is none.
    ///
    /// # Errors
    /// - Those of opening and of `work`.
    /// - [`ErrorKind::Reentrant`]: inside another `with` of this thread. Use the
    ///   connection that one was given.
    /// - [`ErrorKind::Forked`]: this was made before a `fork`.
    /// - [`ErrorKind::Closed`]: while the thread ends, after it has given its
    ///   connection back.
    pub fn with<T>(&self, work: impl FnOnce(&mut C) -> Result<T>) -> Result<T> {
        crate::fork::check(self.home.born)?;
        let connection = MINE
            .try_with(|mine| match mine.find(self.home.id) {
                Some(connection) => Ok(connection),
                None => self.move_in(mine),
            })
            .map_err(|_| {
                Error::new(
                    ErrorKind::Closed,
                    "the thread is ending and has closed its connection",
                )
            })??;
        let mut connection = match connection.try_lock() {
            Ok(connection) => connection,
            // Whoever panicked was unwound past its transaction.
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => {
                return Err(Error::new(
                    ErrorKind::Reentrant,
                    "this thread's connection is in use further up; use the one that closure was \
                     given",
                ));
            }
        };
        work(&mut connection)
    }

    #[cold]
    fn move_in(&self, mine: &Mine) -> Result<Arc<Mutex<C>>> {
        let connection = Arc::new(Mutex::new((self.open)()?));
        self.home.opened.fetch_add(1, Relaxed);
        lock(&self.home.connections).insert(mine.thread, Arc::clone(&connection));
        let connection_: Arc<dyn Any + Send + Sync> = Arc::clone(&connection) as _;
        let home: Arc<dyn Leave> = Arc::clone(&self.home) as _;
        let mut places = mine.places.borrow_mut();
        // Those of owners that are gone; and one of ours, if `open` has asked for
        // a connection itself.
        places.retain(|place| place.home.strong_count() > 0 && place.id != self.home.id);
        places.push(Place {
            id: self.home.id,
            connection: Arc::downgrade(&connection_),
            home: Arc::downgrade(&home),
        });
        Ok(connection)
    }

    /// How many are open now.
    pub fn open(&self) -> usize {
        lock(&self.home.connections).len()
    }

    /// How many were ever opened.
    pub fn opened(&self) -> u64 {
        self.home.opened.load(Relaxed)
    }
}

impl<C: Send + 'static> fmt::Debug for PerThread<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PerThread")
            .field("open", &self.open())
            .field("opened", &self.opened())
            .finish()
    }
}
