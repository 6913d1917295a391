//! Connections that carry their threading mode in their type.
//!
//! They are raw: SQLite's connection as rusqlite opens it (a busy timeout of five
//! seconds, its own cache, extended result codes, no URI), and nothing of the
//! pen. What makes a file unfit is refused as [`Database`](crate::Database)
//! refuses it. Whoever wants a connection with settings of its own opens it with
//! rusqlite and lets it be adopted, which looks at its mode.

use std::ffi::CString;
use std::fmt;
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::ops::{Deref, DerefMut};
use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, ffi};

use super::{Serialized, ThreadingMode, effective_mode, may_call_sqlite, raw};
use crate::error::{Error, ErrorKind, Result};
use crate::options::Options;

/// What a connection asks of SQLite when it is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mutexes {
    /// No mutex of its own (`SQLITE_OPEN_NOMUTEX`): multi-thread mode.
    MultiThread,
    /// A mutex that every call takes (`SQLITE_OPEN_FULLMUTEX`): serialized mode.
    Serialized,
    /// Neither flag: the [default](super::default_mode) in force. What that was is
    /// found out afterwards, and in the type of what comes back.
    Inherit,
}

/// A connection in the mode that it turned out to have.
#[derive(Debug)]
pub enum Opened {
    /// SQLite has no mutexes at all.
    SingleThread(SingleThread),
    /// The connection has none of its own.
    MultiThread(MultiThread),
    /// The connection has one.
    Serialized(Serialized),
}

impl Opened {
    /// The mode of the connection, asked of SQLite.
    pub fn effective_mode(&self) -> ThreadingMode {
        match self {
            Self::SingleThread(connection) => effective_mode(connection),
            Self::MultiThread(connection) => effective_mode(connection),
            Self::Serialized(connection) => connection.effective_mode(),
        }
    }
}

/// Opens a connection to the database at `path`, in the mode that `mutexes` asks
/// for, or that is in force.
///
/// Of the options those count that say whether the file is fit:
/// [`read_only`](Options::read_only), [`any_file_system`](Options::any_file_system)
/// and [`any_sqlite`](Options::any_sqlite).
///
/// ```
/// use onepen::threading::{self, Mutexes, Opened};
/// # fn main() -> onepen::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let path = dir.path().join("app.db");
/// match threading::open(&path, &onepen::Options::new(), Mutexes::Inherit)? {
///     Opened::Serialized(shared) => shared.with(|c| Ok(c.execute_batch("CREATE TABLE a(n)")?))?,
///     Opened::MultiThread(own) => own.execute_batch("CREATE TABLE a(n)")?,
///     Opened::SingleThread(only) => only.execute_batch("CREATE TABLE a(n)")?,
/// }
/// # Ok(()) }
/// ```
///
/// # Errors
/// - [`ErrorKind::Refused`]: the file is unfit ([`Options::open`] says when); a
///   mutex, or multi-thread mode, is asked for and SQLite is in single-thread
///   mode, which nothing leaves; SQLite is in single-thread mode and belongs to
///   another thread.
/// - [`ErrorKind::Sqlite`]: SQLite could not open it.
pub fn open(path: impl AsRef<Path>, options: &Options, mutexes: Mutexes) -> Result<Opened> {
    let path = path.as_ref();
    may_call_sqlite()?;
    crate::file::check(path, options)?;
    if !options.any_sqlite {
        crate::connection::refuse_wal_reset_bug(rusqlite::version_number())?;
    }
    // As in `Connector::new`: absolute, so that it is never taken for a URI.
    let absolute = std::path::absolute(path)
        .map_err(|error| Error::io(format!("{}: not a usable path", path.display()), error))?;
    let access = if options.read_only {
        ffi::SQLITE_OPEN_READONLY
    } else {
        ffi::SQLITE_OPEN_READWRITE | ffi::SQLITE_OPEN_CREATE
    };
    let opened = open_raw(&c_path(&absolute)?, access, mutexes)
        .map_err(|error| error.with_database(&crate::error::shown(path)))?;
    Ok(opened)
}

fn open_in_memory(mutexes: Mutexes) -> Result<Opened> {
    may_call_sqlite()?;
    let access = ffi::SQLITE_OPEN_READWRITE | ffi::SQLITE_OPEN_MEMORY;
    open_raw(c":memory:", access, mutexes)
}

fn open_raw(path: &std::ffi::CStr, access: i32, mutexes: Mutexes) -> Result<Opened> {
    let choice = match mutexes {
        Mutexes::MultiThread => ffi::SQLITE_OPEN_NOMUTEX,
        Mutexes::Serialized => ffi::SQLITE_OPEN_FULLMUTEX,
        Mutexes::Inherit => 0,
    };
    let flags = access | choice | ffi::SQLITE_OPEN_PRIVATECACHE | ffi::SQLITE_OPEN_EXRESCODE;
    // SAFETY: in single-thread mode this is the owning thread
    // (`may_call_sqlite`), and the connection goes into a `SingleThread`, which
    // stays there, or is closed before this returns.
    let connection = unsafe { raw::open(path, flags)? };
    connection.busy_timeout(Duration::from_secs(5))?;
    let mode = effective_mode(&connection);
    match (mutexes, mode) {
        (Mutexes::Inherit, _)
        | (Mutexes::MultiThread, ThreadingMode::MultiThread)
        | (Mutexes::Serialized, ThreadingMode::Serialized) => {}
        (asked, ThreadingMode::SingleThread) => {
            let asked = match asked {
                Mutexes::Serialized => ThreadingMode::Serialized,
                _ => ThreadingMode::MultiThread,
            };
            return Err(Error::new(
                ErrorKind::Refused,
                format!(
                    "a connection cannot be opened in {asked} mode: SQLite is in single-thread \
                     mode, which no connection leaves; compile it with SQLITE_THREADSAFE=1 or 2 \
                     and start it in another mode, or open with `threading::SingleThread`"
                ),
            ));
        }
        (asked, mode) => return Err(contradicts(asked, mode)),
    }
    Ok(match mode {
        ThreadingMode::SingleThread => Opened::SingleThread(SingleThread {
            connection: ManuallyDrop::new(connection),
            born: crate::fork::born(),
            stays: PhantomData,
        }),
        ThreadingMode::MultiThread => Opened::MultiThread(MultiThread::adopt(connection)?),
        ThreadingMode::Serialized => Opened::Serialized(Serialized::adopt(connection)?),
    })
}

/// A build with `SQLITE_ENABLE_MULTITHREADED_CHECKS` gives every connection a
/// mutex, to notice two threads on one that asked for none.
fn contradicts(asked: Mutexes, mode: ThreadingMode) -> Error {
    Error::new(
        ErrorKind::Refused,
        format!("a connection was asked to be {asked:?} and SQLite opened it in {mode} mode"),
    )
}

#[cfg(unix)]
fn c_path(path: &Path) -> Result<CString> {
    use std::os::unix::ffi::OsStrExt;
    CString::new(path.as_os_str().as_bytes()).map_err(|_| bad_path(path))
}

#[cfg(not(unix))]
fn c_path(path: &Path) -> Result<CString> {
    let text = path.to_str().ok_or_else(|| bad_path(path))?;
    CString::new(text).map_err(|_| bad_path(path))
}

fn bad_path(path: &Path) -> Error {
    Error::io(
        format!("{}: not a path that SQLite can be given", path.display()),
        std::io::ErrorKind::InvalidInput.into(),
    )
}

/// A connection without a mutex: one thread at a time, and any thread.
///
/// It is a [`rusqlite::Connection`] that was looked at. It may be sent to another
/// thread, together with everything that belongs to it:
///
/// ```
/// # fn main() -> onepen::Result<()> {
/// let connection = onepen::threading::MultiThread::open_in_memory()?;
/// std::thread::spawn(move || connection.execute_batch("CREATE TABLE a(n)")).join().unwrap()?;
/// # Ok(()) }
/// ```
///
/// and not be used by two:
///
/// ```compile_fail,E0277
/// # fn main() -> onepen::Result<()> {
/// let connection = onepen::threading::MultiThread::open_in_memory()?;
/// std::thread::scope(|scope| {
///     scope.spawn(|| connection.execute_batch("CREATE TABLE a(n)"));
/// });
/// # Ok(()) }
/// ```
///
/// A statement stays where its connection is, because it borrows it:
///
/// ```compile_fail,E0277
/// # fn main() -> onepen::Result<()> {
/// let connection = onepen::threading::MultiThread::open_in_memory()?;
/// let mut statement = connection.prepare("SELECT 1")?;
/// std::thread::scope(|scope| {
///     scope.spawn(move || statement.exists(()));
/// });
/// # Ok(()) }
/// ```
pub struct MultiThread(Connection);

impl MultiThread {
    /// Opens the database at `path`; [`open`] says how.
    ///
    /// # Errors
    /// As [`open`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::of(open(path, &Options::new(), Mutexes::MultiThread)?)
    }

    /// Opens a private database in memory.
    ///
    /// # Errors
    /// As [`open`].
    pub fn open_in_memory() -> Result<Self> {
        Self::of(open_in_memory(Mutexes::MultiThread)?)
    }

    fn of(opened: Opened) -> Result<Self> {
        match opened {
            Opened::MultiThread(connection) => Ok(connection),
            other => Err(contradicts(Mutexes::MultiThread, other.effective_mode())),
        }
    }

    /// Takes a connection of rusqlite's, whatever it was opened with, if it has no
    /// mutex.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`] when it has one, or shares its cache with others; the
    /// connection is closed.
    pub fn adopt(connection: Connection) -> Result<Self> {
        crate::refusals::shared_cache(&connection)?;
        match effective_mode(&connection) {
            ThreadingMode::MultiThread => Ok(Self(connection)),
            mode => Err(contradicts(Mutexes::MultiThread, mode)),
        }
    }

    /// The connection as rusqlite has it.
    pub fn into_inner(self) -> Connection {
        self.0
    }
}

impl Deref for MultiThread {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.0
    }
}

impl DerefMut for MultiThread {
    fn deref_mut(&mut self) -> &mut Connection {
        &mut self.0
    }
}

impl fmt::Debug for MultiThread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("MultiThread").field(&self.0).finish()
    }
}

/// A connection of a SQLite in single-thread mode. It stays on the thread that
/// owns SQLite, where it was opened:
///
/// ```compile_fail,E0277
/// # fn main() -> onepen::Result<()> {
/// let connection = onepen::threading::SingleThread::open_in_memory()?;
/// std::thread::spawn(move || connection.execute_batch("CREATE TABLE a(n)"));
/// # Ok(()) }
/// ```
///
/// ```compile_fail,E0277
/// # fn main() -> onepen::Result<()> {
/// let connection = onepen::threading::SingleThread::open_in_memory()?;
/// std::thread::scope(|scope| {
///     scope.spawn(|| connection.execute_batch("CREATE TABLE a(n)"));
/// });
/// # Ok(()) }
/// ```
///
/// Used in a forked child it is not noticed; dropped there, it is left alone.
pub struct SingleThread {
    // Lent out only by reference: a `Connection` of one's own could be sent.
    connection: ManuallyDrop<Connection>,
    born: u32,
    stays: PhantomData<*const ()>,
}

impl SingleThread {
    /// Opens the database at `path`; [`open`] says how.
    ///
    /// # Errors
    /// As [`open`]; and [`ErrorKind::Refused`] when SQLite is not in
    /// single-thread mode, to which no connection goes down by itself.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        refuse_to_go_down()?;
        Self::of(open(path, &Options::new(), Mutexes::Inherit)?)
    }

    /// Opens a private database in memory.
    ///
    /// # Errors
    /// As [`SingleThread::open`].
    pub fn open_in_memory() -> Result<Self> {
        refuse_to_go_down()?;
        Self::of(open_in_memory(Mutexes::Inherit)?)
    }

    fn of(opened: Opened) -> Result<Self> {
        match opened {
            Opened::SingleThread(connection) => Ok(connection),
            other => Err(not_single_thread(other.effective_mode())),
        }
    }
}

fn refuse_to_go_down() -> Result<()> {
    match super::default_mode()? {
        ThreadingMode::SingleThread => Ok(()),
        mode => Err(not_single_thread(mode)),
    }
}

fn not_single_thread(mode: ThreadingMode) -> Error {
    Error::new(
        ErrorKind::Refused,
        format!(
            "SQLite is in {mode} mode, and no single connection can go down to single-thread mode: \
             compile it with SQLITE_THREADSAFE=0, or start it with \
             `threading::configure_single_thread`; `threading::MultiThread` is a connection \
             without a mutex of its own"
        ),
    )
}

impl Deref for SingleThread {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.connection
    }
}

impl Drop for SingleThread {
    fn drop(&mut self) {
        // Closing in a forked child would remove the parent's log.
        if crate::fork::check(self.born).is_ok() {
            // SAFETY: dropped once, here, and on the thread it was opened on,
            // because the type is not `Send`.
            unsafe { ManuallyDrop::drop(&mut self.connection) };
        }
    }
}

impl fmt::Debug for SingleThread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SingleThread")
            .field(&*self.connection)
            .finish()
    }
}

impl Serialized {
    /// Opens the database at `path`; [`open`] says how.
    ///
    /// # Errors
    /// As [`open`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::of(open(path, &Options::new(), Mutexes::Serialized)?)
    }

    /// Opens a private database in memory.
    ///
    /// # Errors
    /// As [`open`].
    pub fn open_in_memory() -> Result<Self> {
        Self::of(open_in_memory(Mutexes::Serialized)?)
    }

    fn of(opened: Opened) -> Result<Self> {
        match opened {
            Opened::Serialized(connection) => Ok(connection),
            other => Err(contradicts(Mutexes::Serialized, other.effective_mode())),
        }
    }

    /// Takes a connection of rusqlite's, whatever it was opened with, if it has a
    /// mutex.
    ///
    /// ```
    /// use onepen::rusqlite::{Connection, OpenFlags};
    /// # fn main() -> onepen::Result<()> {
    /// let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_FULL_MUTEX;
    /// let connection = Connection::open_in_memory_with_flags(flags)?;
    /// connection.pragma_update(None, "foreign_keys", true)?;
    /// let shared = onepen::threading::Serialized::adopt(connection)?;
    /// # drop(shared); Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::Refused`] when it has none, or shares its cache with others; the
    /// connection is closed.
    pub fn adopt(connection: Connection) -> Result<Self> {
        crate::refusals::shared_cache(&connection)?;
        match raw::mutex_of(&connection) {
            Some(mutex) => Ok(Self::new(connection, mutex)),
            None => Err(contradicts(
                Mutexes::Serialized,
                effective_mode(&connection),
            )),
        }
    }

    /// The flags with which rusqlite opens a connection that can be adopted.
    pub fn flags() -> OpenFlags {
        OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_CREATE
            | OpenFlags::SQLITE_OPEN_FULL_MUTEX
            | OpenFlags::SQLITE_OPEN_PRIVATE_CACHE
    }
}
