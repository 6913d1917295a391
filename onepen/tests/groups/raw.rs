//! What only SQLite's C interface can do to a connection, done to it from
//! within a member.

use std::ffi::{c_int, c_void};

use rusqlite::{Connection, ffi};

unsafe extern "C" fn say_stop(_: *mut c_void) -> c_int {
    1
}

unsafe extern "C" fn interrupt(connection: *mut c_void) -> c_int {
    // SAFETY: `while_interrupting` registered the connection that is running.
    unsafe { ffi::sqlite3_interrupt(connection.cast()) };
    0
}

/// What a progress handler does when it is called.
pub enum Progress {
    Stop,
    Interrupt,
}

/// Runs `statements` with a progress handler that ends long ones.
pub fn with_progress<T>(
    connection: &Connection,
    progress: Progress,
    statements: impl FnOnce(&Connection) -> T,
) -> T {
    const OPCODES: c_int = 10_000;
    // SAFETY: the handle is open; the handler is taken off before it closes.
    unsafe {
        let handle = connection.handle();
        match progress {
            Progress::Stop => {
                ffi::sqlite3_progress_handler(
                    handle,
                    OPCODES,
                    Some(say_stop),
                    std::ptr::null_mut(),
                );
            }
            Progress::Interrupt => {
                ffi::sqlite3_progress_handler(handle, OPCODES, Some(interrupt), handle.cast());
            }
        }
    }
    let result = statements(connection);
    // SAFETY: as above.
    unsafe {
        ffi::sqlite3_progress_handler(connection.handle(), 0, None, std::ptr::null_mut());
    }
    result
}

/// Takes every guard off the connection.
pub fn remove_guards(connection: &Connection) {
    // SAFETY: the handle is open; a null callback removes the hook.
    unsafe {
        let handle = connection.handle();
        ffi::sqlite3_set_authorizer(handle, None, std::ptr::null_mut());
        ffi::sqlite3_commit_hook(handle, None, std::ptr::null_mut());
        ffi::sqlite3_wal_hook(handle, None, std::ptr::null_mut());
    }
}

/// Opens row 1 of `t.n` for writing and never closes it.
pub fn forget_a_blob(connection: &Connection) {
    let mut blob = std::ptr::null_mut();
    // SAFETY: the handle is open, the names end with NUL, `blob` is ours. The
    // blob handle is leaked, which is the point.
    let code = unsafe {
        ffi::sqlite3_blob_open(
            connection.handle(),
            c"main".as_ptr(),
            c"t".as_ptr(),
            c"b".as_ptr(),
            1,
            1,
            &raw mut blob,
        )
    };
    assert_eq!(code, ffi::SQLITE_OK);
    assert!(!blob.is_null());
}
