//! What SQLite knows about its mutexes, asked in C.
//!
//! Every function here may be called from any thread unless it says otherwise;
//! in single-thread mode only by the owner of SQLite, which callers see to
//! ([`super::process`]).

use std::ffi::{CStr, c_int};
use std::ptr::NonNull;

use rusqlite::{Connection, ffi};

use super::ThreadingMode;

/// What SQLite hands out for a mutex when it has none. rusqlite leans on the
/// same number; it is in `mutex.h` and in `mutex_noop.c`.
pub(super) const NO_MUTEX: usize = 8;

/// `SQLITE_THREADSAFE` as the linked library was compiled.
pub(super) fn threadsafe() -> c_int {
    // SAFETY: returns a constant.
    unsafe { ffi::sqlite3_threadsafe() }
}

pub(super) fn real(mutex: *mut ffi::sqlite3_mutex) -> Option<NonNull<ffi::sqlite3_mutex>> {
    NonNull::new(mutex).filter(|mutex| mutex.addr().get() != NO_MUTEX)
}

/// Whether a library with mutexes was told at its start to use none. Initialises
/// it, if nobody has.
pub(super) fn was_started_without_mutexes() -> bool {
    // SAFETY: allocating takes no lock of ours, and what was allocated is freed
    // once. With a library that has no mutexes nobody calls this.
    unsafe {
        let mutex = ffi::sqlite3_mutex_alloc(ffi::SQLITE_MUTEX_FAST);
        let none = real(mutex).is_none();
        ffi::sqlite3_mutex_free(mutex);
        none
    }
}

/// Whether SQLite is initialised. It answers a question about its mutexes, which
/// changes nothing, before that moment only.
pub(super) fn is_initialized() -> bool {
    let mut methods = std::mem::MaybeUninit::<ffi::sqlite3_mutex_methods>::uninit();
    // SAFETY: the operation takes the place for one structure, and at most
    // fills it; nobody reads it.
    let code = unsafe { ffi::sqlite3_config(ffi::SQLITE_CONFIG_GETMUTEX, methods.as_mut_ptr()) };
    code == ffi::SQLITE_MISUSE
}

pub(super) fn initialize() -> c_int {
    // SAFETY: may be called at any time by any thread.
    unsafe { ffi::sqlite3_initialize() }
}

/// Sets the mode in which SQLite will start.
///
/// # Safety
/// For [`ThreadingMode::SingleThread`]: from here on nobody in the process uses
/// SQLite from another thread than one.
///
/// The other two set two bytes. The first (mutexes at all) becomes what it is
/// already; the second (a mutex for each connection, unless it says otherwise)
/// is read by nothing but `sqlite3_open_v2`. A thread that gets there first,
/// behind our back, finds either value and goes on with it.
pub(super) unsafe fn configure(mode: ThreadingMode) -> c_int {
    let operation = match mode {
        ThreadingMode::SingleThread => ffi::SQLITE_CONFIG_SINGLETHREAD,
        ThreadingMode::MultiThread => ffi::SQLITE_CONFIG_MULTITHREAD,
        ThreadingMode::Serialized => ffi::SQLITE_CONFIG_SERIALIZED,
    };
    // SAFETY: these operations take no further argument; the rest is the
    // caller's promise.
    unsafe { ffi::sqlite3_config(operation) }
}

/// SQLite's handle, good for as long as the connection is open.
pub(super) fn handle(connection: &Connection) -> *mut ffi::sqlite3 {
    // SAFETY: nothing is done with it here.
    unsafe { connection.handle() }
}

/// The mutex of a connection, if it has one.
pub(super) fn mutex_of(connection: &Connection) -> Option<NonNull<ffi::sqlite3_mutex>> {
    // SAFETY: the connection is open.
    unsafe { mutex_of_handle(handle(connection)) }
}

/// # Safety
/// The connection is open. Any thread may ask: the answer is a field that never
/// changes.
pub(super) unsafe fn mutex_of_handle(
    handle: *mut ffi::sqlite3,
) -> Option<NonNull<ffi::sqlite3_mutex>> {
    // SAFETY: by the caller's promise.
    real(unsafe { ffi::sqlite3_db_mutex(handle) })
}

/// Whether a connection opened with these flags now gets a mutex.
pub(super) fn would_get_a_mutex(flags: c_int) -> rusqlite::Result<bool> {
    let flags = flags | ffi::SQLITE_OPEN_MEMORY | ffi::SQLITE_OPEN_PRIVATECACHE;
    // SAFETY: a connection of our own, which nobody else ever sees.
    unsafe {
        let connection = open(c":memory:", flags)?;
        Ok(mutex_of(&connection).is_some())
    }
}

/// Opens a connection without rusqlite's refusal of single-thread mode.
///
/// # Safety
/// rusqlite's type is `Send`. In single-thread mode the caller must keep it, and
/// everything made from it, on the thread that owns SQLite.
pub(super) unsafe fn open(path: &CStr, flags: c_int) -> rusqlite::Result<Connection> {
    const HOW: c_int = ffi::SQLITE_OPEN_READWRITE | ffi::SQLITE_OPEN_READONLY;
    let flags = match flags & HOW {
        0 => flags | ffi::SQLITE_OPEN_READWRITE | ffi::SQLITE_OPEN_CREATE,
        _ => flags,
    };
    let mut handle = std::ptr::null_mut();
    // SAFETY: the path is terminated, `handle` is a place of ours, and what it
    // gets is closed once: here, or by the `Connection` that owns it.
    unsafe {
        let code = ffi::sqlite3_open_v2(path.as_ptr(), &raw mut handle, flags, std::ptr::null());
        if code == ffi::SQLITE_OK {
            return Connection::from_handle_owned(handle);
        }
        let message = (!handle.is_null()).then(|| {
            CStr::from_ptr(ffi::sqlite3_errmsg(handle))
                .to_string_lossy()
                .into_owned()
        });
        ffi::sqlite3_close(handle);
        Err(rusqlite::Error::SqliteFailure(
            ffi::Error::new(code),
            message,
        ))
    }
}

/// Whether anything is going on: a transaction, or a statement that reads.
pub(super) fn is_in_a_transaction(connection: &Connection) -> bool {
    // SAFETY: the handle is open. Without a name the answer is for all databases
    // of the connection, and cannot fail.
    let state = unsafe { ffi::sqlite3_txn_state(handle(connection), std::ptr::null()) };
    state != ffi::SQLITE_TXN_NONE || !connection.is_autocommit()
}

/// Enters the mutex of a connection and returns whether it could be had. With
/// `wait` it always can.
///
/// # Safety
/// The connection is open until the matching [`leave`].
pub(super) unsafe fn enter(mutex: NonNull<ffi::sqlite3_mutex>, wait: bool) -> bool {
    // SAFETY: a live mutex, by the caller's promise.
    unsafe {
        if wait {
            ffi::sqlite3_mutex_enter(mutex.as_ptr());
            return true;
        }
        ffi::sqlite3_mutex_try(mutex.as_ptr()) == ffi::SQLITE_OK
    }
}

/// # Safety
/// This thread has entered the mutex, and the connection is still open.
pub(super) unsafe fn leave(mutex: NonNull<ffi::sqlite3_mutex>) {
    // SAFETY: by the caller's promise.
    unsafe { ffi::sqlite3_mutex_leave(mutex.as_ptr()) };
}
