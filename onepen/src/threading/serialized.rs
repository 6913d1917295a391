//! One connection, any number of threads, soundly.
//!
//! SQLite's own promise of serialized mode is that *each call* may come from any
//! thread. What people do takes several: step and then ask for `changes`; insert
//! and then ask for the row's id; fail and then ask for the message. Between two
//! calls another thread may come in and the answer is about its work. rusqlite's
//! `Connection` moreover keeps things of its own without any lock.
//!
//! So everything here happens in sections, and a section holds SQLite's own mutex
//! of that connection, which is recursive: the calls inside enter it again for
//! nothing, and whoever has the raw handle is kept out too.
//!
//! # Why it is sound
//!
//! - All access goes through [`Serialized::with`], which has entered the mutex;
//!   so one thread at a time touches the connection and what rusqlite keeps
//!   beside it. The mutex is a real one: `adopt` looked at it.
//! - What the closure is lent is `&Connection` for a lifetime it cannot name:
//!   statements, rows, transactions and blobs cannot leave it. `&Connection` is
//!   not `Send`: a thread started inside cannot have it.
//! - It is not `&mut Connection`, which could be swapped for a connection without
//!   a mutex.
//! - A section within a section of the same connection is refused. It would get
//!   its lock; but a hook, or an SQL function, could so reach the connection that
//!   is calling it, and replace the hook that is running.
//! - What is stored in a connection (functions, hooks) rusqlite requires to be
//!   `Send`, and it is called by one thread at a time.

use std::cell::Cell;
use std::fmt;
use std::mem::ManuallyDrop;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rusqlite::{Connection, InterruptHandle, ffi};

use super::{ThreadingMode, process, raw};
use crate::blocks::raw::close;
use crate::error::{Error, ErrorKind, Result, Waited, WaitedFor};

/// A connection in serialized mode, for any number of threads.
///
/// ```
/// # fn main() -> onepen::Result<()> {
/// use onepen::threading::Serialized;
/// let shared = Serialized::open_in_memory()?;
/// shared.with(|c| Ok(c.execute_batch("CREATE TABLE a(n INTEGER PRIMARY KEY)")?))?;
/// std::thread::scope(|scope| {
///     for _ in 0..4 {
///         scope.spawn(|| {
///             // The id is this thread's, whoever inserts at the same time.
///             let (id, n) = shared.with(|c| {
///                 let n = c.execute("INSERT INTO a DEFAULT VALUES", ())?;
///                 Ok((c.last_insert_rowid(), n))
///             })?;
///             assert!(id > 0 && n == 1);
///             Ok::<_, onepen::Error>(())
///         });
///     }
/// });
/// # Ok(()) }
/// ```
///
/// Nothing that belongs to the connection leaves a section:
///
/// ```compile_fail
/// # fn main() -> onepen::Result<()> {
/// let shared = onepen::threading::Serialized::open_in_memory()?;
/// let statement = shared.with(|c| Ok(c.prepare("SELECT 1")?))?;
/// # Ok(()) }
/// ```
///
/// nor goes to another thread from within:
///
/// ```compile_fail,E0277
/// # fn main() -> onepen::Result<()> {
/// let shared = onepen::threading::Serialized::open_in_memory()?;
/// shared.with(|c| {
///     std::thread::scope(|scope| {
///         scope.spawn(|| c.execute_batch("CREATE TABLE a(n)"));
///     });
///     Ok(())
/// })?;
/// # Ok(()) }
/// ```
///
/// It makes calls wait for each other, and with them the threads: one connection
/// does one thing at a time. Readers that do not wait, and writers in the order
/// they came, are [`Database`](crate::Database)'s.
pub struct Serialized {
    connection: ManuallyDrop<Connection>,
    mutex: NonNull<ffi::sqlite3_mutex>,
    /// Asking rusqlite for it is a use of the connection, which outside of a
    /// section nobody may make.
    handle: *mut ffi::sqlite3,
    interrupt: InterruptHandle,
    /// Which thread is in a section ([`this_thread`]), or 0.
    inside: AtomicUsize,
    born: u32,
}

// SAFETY: the connection may go to another thread (rusqlite: `Connection: Send`),
// and the mutex is a part of it.
unsafe impl Send for Serialized {}
// SAFETY: through a shared reference nothing is reached but in a section, by one
// thread at a time; the head of this file has the whole argument.
unsafe impl Sync for Serialized {}

impl Serialized {
    /// `mutex` is that of `connection`.
    pub(super) fn new(connection: Connection, mutex: NonNull<ffi::sqlite3_mutex>) -> Self {
        Self {
            mutex,
            handle: raw::handle(&connection),
            interrupt: connection.get_interrupt_handle(),
            connection: ManuallyDrop::new(connection),
            inside: AtomicUsize::new(0),
            born: crate::fork::born(),
        }
    }

    /// Runs `section` with the connection to itself: what it does in several calls
    /// nobody comes between. Waits for sections of other threads, in no order and
    /// without end, as SQLite's mutex does; [`with_within`](Self::with_within) has
    /// an end, and [`Database`](crate::Database) an order.
    ///
    /// A section ends what it begins: a transaction left open would be joined by
    /// whoever comes next. It is rolled back, also when the section panics;
    /// statements that were forgotten while running are reset.
    ///
    /// # Errors
    /// - What the section returns.
    /// - [`ErrorKind::Reentrant`] inside a section of the same connection.
    /// - [`ErrorKind::TransactionLost`] when it returned `Ok` and had left a
    ///   transaction open.
    /// - [`ErrorKind::Forked`] in a child forked after the opening.
    pub fn with<T>(&self, section: impl FnOnce(&Connection) -> Result<T>) -> Result<T> {
        self.run(Section::enter(self, None)?, section)
    }

    /// As [`with`](Self::with), and waits for other sections no longer than
    /// `longest`.
    ///
    /// # Errors
    /// As [`with`](Self::with); and [`ErrorKind::DeadlineExceeded`] when the time
    /// is over, in which case the section did not run.
    pub fn with_within<T>(
        &self,
        longest: Duration,
        section: impl FnOnce(&Connection) -> Result<T>,
    ) -> Result<T> {
        self.run(Section::enter(self, Some(longest))?, section)
    }

    fn run<T>(
        &self,
        entered: Section<'_>,
        section: impl FnOnce(&Connection) -> Result<T>,
    ) -> Result<T> {
        let answer = section(&self.connection)?;
        if entered.end() {
            return Err(Error::new(
                ErrorKind::TransactionLost,
                "the section left a transaction open, which other threads would have joined; it \
                 was rolled back: commit it before the section ends",
            ));
        }
        Ok(answer)
    }

    /// The mode of the connection, asked of SQLite. Waits for nothing.
    pub fn effective_mode(&self) -> ThreadingMode {
        // SAFETY: the handle is open for as long as `self` is.
        process::mode_given(unsafe { raw::mutex_of_handle(self.handle) })
    }

    /// Ends what the connection is doing, from any thread; its section gets
    /// `SQLITE_INTERRUPT`. Does not wait for the section. It does not end a wait
    /// for another connection's lock.
    ///
    /// # Errors
    /// [`ErrorKind::Forked`] in a child forked after the opening.
    pub fn interrupt(&self) -> Result<()> {
        crate::fork::check(self.born)?;
        self.interrupt.interrupt();
        Ok(())
    }
}

impl Drop for Serialized {
    fn drop(&mut self) {
        // Closing in a forked child would remove the parent's log.
        if crate::fork::check(self.born).is_ok() {
            // SAFETY: taken once, here; nobody is in a section, because a section
            // borrows `self`.
            let connection = unsafe { ManuallyDrop::take(&mut self.connection) };
            // Also over a statement that a section has forgotten.
            close(connection);
        }
    }
}

impl fmt::Debug for Serialized {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Serialized").finish_non_exhaustive()
    }
}

/// A number that is this thread's alone while it lives, and never 0.
fn this_thread() -> usize {
    thread_local!(static HERE: Cell<u8> = const { Cell::new(0) });
    HERE.with(|here| std::ptr::from_ref(here).addr())
}

/// The time between entering the mutex and leaving it.
struct Section<'a> {
    shared: &'a Serialized,
    /// Nothing is left to be undone.
    clean: bool,
}

impl<'a> Section<'a> {
    fn enter(shared: &'a Serialized, longest: Option<Duration>) -> Result<Self> {
        crate::fork::check(shared.born)?;
        let me = this_thread();
        // Relaxed: only this thread writes this number, so it reads it if and
        // only if it wrote it last.
        if shared.inside.load(Ordering::Relaxed) == me {
            return Err(Error::new(
                ErrorKind::Reentrant,
                "a section of this connection is running on this thread already; use the \
                 connection that section was given",
            ));
        }
        // SAFETY: the connection is open as long as `shared` is.
        let enter = |wait| unsafe { raw::enter(shared.mutex, wait) };
        match longest {
            None => _ = enter(true),
            Some(longest) if !enter(false) => {
                let since = Instant::now();
                while !enter(false) {
                    let waited = since.elapsed();
                    if waited >= longest {
                        return Err(Error::new(
                            ErrorKind::DeadlineExceeded,
                            "another thread has the connection",
                        )
                        .with_waited(Waited::new(WaitedFor::Connection, waited)));
                    }
                    crate::sync::pause(crate::connection::POLL);
                }
            }
            Some(_) => {}
        }
        shared.inside.store(me, Ordering::Relaxed);
        Ok(Self {
            shared,
            clean: false,
        })
    }

    /// Whether a transaction had been left open, which is over now.
    fn end(mut self) -> bool {
        self.clean = true;
        self.roll_back()
    }

    fn roll_back(&self) -> bool {
        let connection = &self.shared.connection;
        if !raw::is_in_a_transaction(connection) {
            return false;
        }
        // A forgotten statement would pin its snapshot for as long as the
        // connection lives.
        crate::raw::clean_up(connection);
        if connection.is_autocommit() {
            return false;
        }
        // A ROLLBACK that fails has found nothing to roll back.
        let _ = connection.execute_batch("ROLLBACK");
        true
    }
}

impl Drop for Section<'_> {
    fn drop(&mut self) {
        if !self.clean {
            self.roll_back();
        }
        self.shared.inside.store(0, Ordering::Relaxed);
        // SAFETY: entered in `enter`, by this thread, since a section is on its
        // thread's stack.
        unsafe { raw::leave(self.shared.mutex) };
    }
}
