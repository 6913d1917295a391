//! What both sides need of SQLite's C interface and rusqlite does not offer:
//! statements that outlive a borrow, failures by their code, and a flush of a
//! connection's own files.
//!
//! All of it is about a connection that one thread uses at a time: the holder of
//! the pen, the owner of a reader's slot, the checkpoint thread. That is what
//! every `SAFETY` comment below leans on.

use std::ffi::{CStr, c_int};
use std::ptr::{self, NonNull};

use rusqlite::{Connection, ffi};

/// A statement of our own, prepared once and for all: BEGIN, COMMIT and the like.
pub(crate) struct Control {
    statement: NonNull<ffi::sqlite3_stmt>,
}

// SAFETY: a statement of a connection that is never used by two threads at a
// time, like the connection itself, which rusqlite declares `Send`.
unsafe impl Send for Control {}

impl Control {
    /// The result must be dropped before `connection` is closed.
    pub(crate) fn prepare(connection: &Connection, sql: &'static CStr) -> rusqlite::Result<Self> {
        let mut statement = ptr::null_mut();
        // SAFETY: the handle is open, `sql` ends with a NUL, and `statement` is
        // a place for the result.
        let code = unsafe {
            ffi::sqlite3_prepare_v3(
                connection.handle(),
                sql.as_ptr(),
                -1,
                ffi::SQLITE_PREPARE_PERSISTENT,
                &raw mut statement,
                ptr::null_mut(),
            )
        };
        match NonNull::new(statement) {
            Some(statement) if code == ffi::SQLITE_OK => Ok(Self { statement }),
            _ => Err(failure(connection, code)),
        }
    }

    /// Runs the statement once; its extended result code.
    pub(crate) fn run(&self) -> c_int {
        // SAFETY: the statement is live until `drop`, and the caller holds the
        // connection.
        unsafe {
            ffi::sqlite3_step(self.statement.as_ptr());
            // Gives the same answer as the step, or 0 after a success.
            ffi::sqlite3_reset(self.statement.as_ptr())
        }
    }
}

impl Control {
    /// For whoever ends the transaction of a connection that its owner does not use
    /// at the moment: to be [run](run_at) only while this lives.
    pub(crate) fn at(&self) -> NonNull<ffi::sqlite3_stmt> {
        self.statement
    }
}

/// Runs a [`Control`] that lives elsewhere.
///
/// # Safety
/// It lives, and nobody uses its connection until this returns.
pub(crate) unsafe fn run_at(statement: NonNull<ffi::sqlite3_stmt>) -> c_int {
    // SAFETY: the caller's promise.
    unsafe {
        ffi::sqlite3_step(statement.as_ptr());
        ffi::sqlite3_reset(statement.as_ptr())
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        // SAFETY: finalised once; the connection is still open, by the contract
        // of `prepare`.
        unsafe { ffi::sqlite3_finalize(self.statement.as_ptr()) };
    }
}

/// SQLite's last error on this connection.
#[cold]
pub(crate) fn failure(connection: &Connection, code: c_int) -> rusqlite::Error {
    // SAFETY: the handle is open; the message is SQLite's and copied at once.
    let message = unsafe {
        let message = ffi::sqlite3_errmsg(connection.handle());
        (!message.is_null()).then(|| CStr::from_ptr(message).to_string_lossy().into_owned())
    };
    rusqlite::Error::SqliteFailure(ffi::Error::new(code), message)
}

/// A file that a connection has open.
#[derive(Clone, Copy)]
pub(crate) enum File {
    Database,
    Log,
}

/// Flushes one of the connection's files, through SQLite's own descriptor of it:
/// to open and close another would drop every lock that this process has on it.
///
/// # Errors
/// The code of the VFS's flush that failed.
pub(crate) fn flush(connection: &Connection, file: File) -> rusqlite::Result<()> {
    let which = match file {
        File::Database => ffi::SQLITE_FCNTL_FILE_POINTER,
        File::Log => ffi::SQLITE_FCNTL_JOURNAL_POINTER,
    };
    let mut found: *mut ffi::sqlite3_file = ptr::null_mut();
    // SAFETY: the handle is open, the name ends with a NUL, and these two
    // operations write one pointer: to the file object of the connection, which
    // nobody closes while we have it. A file without methods is not open.
    let code = unsafe {
        let handle = connection.handle();
        let code =
            ffi::sqlite3_file_control(handle, c"main".as_ptr(), which, (&raw mut found).cast());
        match found.as_ref().and_then(|file| file.pMethods.as_ref()) {
            Some(methods) if code == ffi::SQLITE_OK => match methods.xSync {
                Some(sync) => sync(found, ffi::SQLITE_SYNC_NORMAL),
                None => code,
            },
            _ => code,
        }
    };
    match code {
        ffi::SQLITE_OK => Ok(()),
        code => Err(failure(connection, code)),
    }
}
