//! The calls to SQLite that tell what a statement may write, and that it ran.
//!
//! All of it is about a connection that one thread uses at a time: whoever holds
//! the pen. That is what the `SAFETY` comments lean on.

use std::ffi::{CStr, c_int, c_uint, c_void};
use std::ptr::{self, NonNull};

use rusqlite::{Connection, ffi};

use super::recorder::Recorder;

/// Called by SQLite when a statement begins to run.
unsafe extern "C" fn on_statement(
    event: c_uint,
    recorder: *mut c_void,
    statement: *mut c_void,
    _text: *mut c_void,
) -> c_int {
    if event != ffi::SQLITE_TRACE_STMT {
        return 0;
    }
    // SAFETY: `recorder` is what `trace` was given, alive as long as the
    // connection. For this event SQLite passes the statement that begins, whose
    // text it keeps as long as the statement lives.
    unsafe {
        let text = ffi::sqlite3_sql(statement.cast());
        if !text.is_null() {
            let recorder = &*recorder.cast::<Recorder>();
            recorder.ran(statement as usize, CStr::from_ptr(text));
        }
    }
    0
}

/// Has `recorder` told of every statement that begins to run, or no longer.
/// `recorder` must outlive the connection's use, at its place.
pub(super) fn trace(connection: &Connection, recorder: &Recorder, on: bool) {
    let (events, callback): (_, Option<unsafe extern "C" fn(_, _, _, _) -> _>) = if on {
        (ffi::SQLITE_TRACE_STMT, Some(on_statement))
    } else {
        (0, None)
    };
    let recorder = ptr::from_ref(recorder).cast_mut().cast();
    // SAFETY: the handle is open; the callback has the signature SQLite documents
    // and does not unwind (it pushes to vectors and compares bytes).
    unsafe { ffi::sqlite3_trace_v2(connection.handle(), events, callback, recorder) };
}

/// Compiles `sql`, so that the authorizer is asked about it, and nothing else.
/// Says whether it could be compiled.
pub(super) fn compile(connection: &Connection, sql: &CStr) -> bool {
    let mut statement = ptr::null_mut();
    // SAFETY: the handle is open, `sql` ends with a NUL, `statement` is a place
    // for the result, which is finalised at once.
    unsafe {
        let code = ffi::sqlite3_prepare_v3(
            connection.handle(),
            sql.as_ptr(),
            -1,
            0,
            &raw mut statement,
            ptr::null_mut(),
        );
        if let Some(statement) = NonNull::new(statement) {
            ffi::sqlite3_finalize(statement.as_ptr());
        }
        code == ffi::SQLITE_OK
    }
}
