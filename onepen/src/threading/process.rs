//! The two decisions that hold for the whole process: how SQLite was compiled,
//! and how it was started.

use std::ptr::NonNull;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread::ThreadId;

use rusqlite::{Connection, ffi};

use super::{ThreadingMode, raw};
use crate::error::{Error, ErrorKind, Result};

/// How the linked SQLite was compiled, which bounds everything after it.
///
/// It is `SQLITE_THREADSAFE` of that build: 0 is single-thread, 1 serialized and
/// 2 multi-thread. Older documentation says that `sqlite3_threadsafe()` answers
/// zero or not zero and cannot tell 1 from 2. The function has returned the
/// number itself for as long as this crate's oldest SQLite; what it cannot tell
/// is what happened *afterwards*, and that is asked separately
/// ([`default_mode`], [`effective_mode`]).
///
/// ```
/// use onepen::threading::{ThreadingMode, compiled};
/// // This documentation is tested with SQLite as rusqlite bundles it.
/// assert_eq!(compiled(), ThreadingMode::Serialized);
/// ```
pub fn compiled() -> ThreadingMode {
    match raw::threadsafe() {
        0 => ThreadingMode::SingleThread,
        2 => ThreadingMode::MultiThread,
        _ => ThreadingMode::Serialized,
    }
}

/// Whether SQLite is initialised in this process, after which [`configure`] is
/// too late. Opening any connection, by any library, initialises it.
///
/// Asking changes nothing. (SQLite finds the question odd once it is
/// initialised: its log then has a line about misuse, which
/// [`sqlite_log`](crate::sqlite_log) leaves out.)
pub fn is_initialized() -> bool {
    let _one = one_at_a_time();
    crate::sqlite_log::quietly(raw::is_initialized)
}

/// The mode in force for connections that do not choose one themselves, as SQLite
/// shows it now: two connections to nothing are opened and looked at.
///
/// Initialises SQLite, if nobody has: after asking, [`configure`] is too late.
///
/// # Errors
/// - [`ErrorKind::Refused`] in single-thread mode, on any thread but SQLite's
///   [`owner`].
/// - [`ErrorKind::Sqlite`] when there is no memory for a connection.
pub fn default_mode() -> Result<ThreadingMode> {
    may_call_sqlite()?;
    if is_single_thread() || !raw::would_get_a_mutex(ffi::SQLITE_OPEN_FULLMUTEX)? {
        return Ok(ThreadingMode::SingleThread);
    }
    Ok(if raw::would_get_a_mutex(0)? {
        ThreadingMode::Serialized
    } else {
        ThreadingMode::MultiThread
    })
}

/// The mode of this connection, which is whether it has a mutex.
///
/// ```
/// use onepen::rusqlite::{Connection, OpenFlags};
/// use onepen::threading::{ThreadingMode, effective_mode};
/// # fn main() -> onepen::Result<()> {
/// // rusqlite opens without a mutex unless it is told otherwise.
/// let ordinary = Connection::open_in_memory()?;
/// assert_eq!(effective_mode(&ordinary), ThreadingMode::MultiThread);
///
/// let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_FULL_MUTEX;
/// let locked = Connection::open_in_memory_with_flags(flags)?;
/// assert_eq!(effective_mode(&locked), ThreadingMode::Serialized);
/// # Ok(()) }
/// ```
pub fn effective_mode(connection: &Connection) -> ThreadingMode {
    mode_given(raw::mutex_of(connection))
}

/// The mode of a connection that has this mutex, or none.
pub(super) fn mode_given(mutex: Option<NonNull<ffi::sqlite3_mutex>>) -> ThreadingMode {
    if mutex.is_some() {
        ThreadingMode::Serialized
    } else if is_single_thread() {
        ThreadingMode::SingleThread
    } else {
        ThreadingMode::MultiThread
    }
}

/// Chooses the mode in which SQLite starts, and starts it.
///
/// It is the default of connections that choose nothing themselves; those of this
/// crate and of rusqlite do choose. Call it first thing in `main`: SQLite can be
/// told only before it is initialised, and every library that opens a connection
/// initialises it. Asking again for what is in force is fine at any time, from
/// any number of threads.
///
/// SQLite asks that no other thread is inside it meanwhile. Threads that use this
/// crate are held off. One that calls SQLite behind its back at this very moment
/// may get a connection in the former default: both are safe, and what is in
/// force afterwards is verified.
///
/// # Errors
/// [`ErrorKind::Refused`], always with the mode that is in force:
/// - SQLite is initialised already, in another mode;
/// - it was compiled without mutexes, and something else than
///   [`ThreadingMode::SingleThread`] is asked for;
/// - [`ThreadingMode::SingleThread`] is asked for and not in force: it would take
///   the mutexes from everybody in the process, which no check can make safe; see
///   [`configure_single_thread`].
///
/// ```
/// # #[cfg(not(target_os = "linux"))] fn main() {} #[cfg(target_os = "linux")]
/// # fn main() -> onepen::Result<()> {
/// use onepen::threading::{self, ThreadingMode};
/// threading::configure(ThreadingMode::MultiThread)?;
/// threading::configure(ThreadingMode::MultiThread)?; // the same again is fine
/// assert_eq!(threading::default_mode()?, ThreadingMode::MultiThread);
///
/// let late = threading::configure(ThreadingMode::Serialized).unwrap_err();
/// assert_eq!(late.kind(), onepen::ErrorKind::Refused);
/// # Ok(()) }
/// ```
pub fn configure(mode: ThreadingMode) -> Result<()> {
    if compiled() == ThreadingMode::SingleThread {
        return match mode {
            ThreadingMode::SingleThread => Ok(()),
            _ => Err(refused(format!(
                "SQLite cannot start in {mode} mode: it was compiled without mutexes \
                 (SQLITE_THREADSAFE=0); compile it with 1 or 2"
            ))),
        };
    }
    if mode == ThreadingMode::SingleThread {
        return match default_mode_if_known()? {
            Some(ThreadingMode::SingleThread) => Ok(()),
            _ => Err(refused(
                "SQLite would start without mutexes for everybody in the process, and nothing can \
                 check that no other library uses it from a second thread: promise it with \
                 `configure_single_thread`, which is unsafe",
            )),
        };
    }
    // SAFETY: not single-thread mode.
    unsafe { start(mode) }
}

/// Starts SQLite in single-thread mode: no mutexes, for anybody. This thread
/// becomes SQLite's [`owner`].
///
/// It saves some nanoseconds a call (`cargo run --release -p onepen --example
/// threading_cost`). [`Database`](crate::Database) and rusqlite's own
/// `Connection::open` refuse from then on; use [`SingleThread`](super::SingleThread).
///
/// # Errors
/// [`ErrorKind::Refused`] when SQLite is initialised already in another mode, or
/// another thread owns it.
///
/// # Safety
/// Until the process ends no other thread calls SQLite, in whatever library or
/// language. Those that check (this crate, rusqlite) keep it by themselves; sqlx,
/// diesel and C code do not check.
pub unsafe fn configure_single_thread() -> Result<()> {
    if compiled() != ThreadingMode::SingleThread {
        // SAFETY: by the caller's promise.
        unsafe { start(ThreadingMode::SingleThread)? };
    }
    may_call_sqlite()
}

/// # Safety
/// As [`raw::configure`].
unsafe fn start(mode: ThreadingMode) -> Result<()> {
    {
        let _one = one_at_a_time();
        // SAFETY: by the caller's promise.
        let code = crate::sqlite_log::quietly(|| unsafe { raw::configure(mode) });
        match code {
            // So that what was set is what is in force, and can be looked at.
            ffi::SQLITE_OK => check(raw::initialize(), "SQLite could not be initialised")?,
            // Initialised already: what is in force may be what is wanted.
            ffi::SQLITE_MISUSE => {}
            code => check(code, "SQLite refused the threading mode")?,
        }
    }
    let now = default_mode()?;
    if now == mode {
        return Ok(());
    }
    Err(refused(format!(
        "it is too late for {mode} mode: SQLite is initialised already, in {now} mode; call \
         `threading::configure` before anything in the process opens a connection, or choose for \
         each connection"
    )))
}

fn default_mode_if_known() -> Result<Option<ThreadingMode>> {
    is_initialized().then(default_mode).transpose()
}

fn is_single_thread() -> bool {
    compiled() == ThreadingMode::SingleThread || raw::was_started_without_mutexes()
}

struct Owner {
    thread: ThreadId,
    name: String,
}

static OWNER: OnceLock<Owner> = OnceLock::new();

/// The thread that owns SQLite: in single-thread mode, the first that used it.
/// `None` in the other modes, or before anybody did.
pub fn owner() -> Option<ThreadId> {
    OWNER.get().map(|owner| owner.thread)
}

/// Whether this thread may call SQLite. In single-thread mode the first to ask
/// may, and from then on it alone.
pub(crate) fn may_call_sqlite() -> Result<()> {
    initialize()?;
    if !is_single_thread() {
        return Ok(());
    }
    let me = std::thread::current();
    let owner = OWNER.get_or_init(|| Owner {
        thread: me.id(),
        name: me.name().unwrap_or("a thread without a name").to_owned(),
    });
    if owner.thread == me.id() {
        return Ok(());
    }
    Err(refused(format!(
        "SQLite is in single-thread mode, and the thread that used it first owns it until the \
         process ends: `{}`; call from there, or use a SQLite with mutexes",
        owner.name
    )))
}

/// As [`may_call_sqlite`], for what is done before SQLite is initialised and does
/// not initialise it.
pub(crate) fn may_configure_sqlite() -> Result<()> {
    if compiled() == ThreadingMode::SingleThread || is_initialized() {
        return may_call_sqlite();
    }
    Ok(())
}

/// Refuses what has threads of its own, in single-thread mode.
pub(crate) fn refuse_single_thread() -> Result<()> {
    if compiled() == ThreadingMode::SingleThread {
        return Err(refused(
            "a `Database` serves many threads, and this SQLite was compiled for one \
             (SQLITE_THREADSAFE=0): compile it with 1 or 2, or use `threading::SingleThread`",
        ));
    }
    initialize()?;
    if raw::was_started_without_mutexes() {
        return Err(refused(
            "a `Database` serves many threads, and SQLite was started in single-thread mode \
             (SQLITE_CONFIG_SINGLETHREAD): start it in another, or use `threading::SingleThread`",
        ));
    }
    Ok(())
}

/// Initialises SQLite, but not while another thread is configuring it. A build
/// without mutexes is left alone: only its owner may do even that.
fn initialize() -> Result<()> {
    static DONE: OnceLock<()> = OnceLock::new();
    if compiled() == ThreadingMode::SingleThread || DONE.get().is_some() {
        return Ok(());
    }
    {
        let _one = one_at_a_time();
        check(raw::initialize(), "SQLite could not be initialised")?;
    }
    DONE.get_or_init(|| ());
    Ok(())
}

/// Held while SQLite is being configured or first initialised. Nothing of the
/// user's runs under it, so it cannot be waited for by its own holder.
fn one_at_a_time() -> impl Drop {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn check(code: i32, doing: &'static str) -> Result<()> {
    if code == ffi::SQLITE_OK {
        return Ok(());
    }
    let error = rusqlite::Error::SqliteFailure(ffi::Error::new(code), None);
    Err(Error::from(error).restated(ErrorKind::Sqlite, doing))
}

fn refused(why: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::Refused, why)
}
