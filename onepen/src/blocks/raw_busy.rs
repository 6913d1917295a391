//! Hands a busy handler to SQLite, to be freed with the connection.
//!
//! SQLite keeps a busy handler's pointer and has no destructor for it. A
//! function of SQL has one, which runs when the connection closes (after its
//! files, and even when it closes late because a statement was leaked) or when
//! the function is replaced. So the handler is the user data of such a function,
//! and the function is good for something: it tells the timeout.

use std::ffi::{CStr, c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;

use rusqlite::{Connection, ffi};

use super::busy::{EffectiveTimeout, Waiting};

const NAME: &CStr = c"onepen_busy_timeout";

unsafe extern "C" fn on_busy(waiting: *mut c_void, attempt: c_int) -> c_int {
    // SAFETY: `install` gave SQLite the address of a `Waiting` that lives until
    // the handler is replaced or the connection has closed; it is used through
    // shared references alone.
    let waiting = unsafe { &*waiting.cast::<Waiting>() };
    let again = catch_unwind(AssertUnwindSafe(|| {
        waiting.ask(attempt.max(0).cast_unsigned())
    }));
    c_int::from(again.unwrap_or(false))
}

unsafe extern "C" fn tell_timeout(
    context: *mut ffi::sqlite3_context,
    _arguments: c_int,
    _values: *mut *mut ffi::sqlite3_value,
) {
    // SAFETY: the user data is the `Waiting` of `install`, alive while the
    // function exists; the context is SQLite's, for the time of the call.
    unsafe {
        let waiting = &*ffi::sqlite3_user_data(context).cast::<Waiting>();
        match waiting.timeout {
            EffectiveTimeout::AtOnce => ffi::sqlite3_result_int64(context, 0),
            EffectiveTimeout::AtMost(timeout) => {
                let ms = i64::try_from(timeout.as_millis()).unwrap_or(i64::MAX);
                ffi::sqlite3_result_int64(context, ms);
            }
            EffectiveTimeout::Forever => ffi::sqlite3_result_int64(context, -1),
            EffectiveTimeout::UpToClosure => ffi::sqlite3_result_null(context),
        }
    }
}

unsafe extern "C" fn free(waiting: *mut c_void) {
    // SAFETY: SQLite calls this once for the box that `install` gave it. What the
    // closure owns may panic when it is dropped; that must not unwind into C.
    let _ = catch_unwind(AssertUnwindSafe(|| unsafe {
        drop(Box::from_raw(waiting.cast::<Waiting>()));
    }));
}

/// Makes `waiting` the connection's busy handler.
pub(super) fn install(connection: &Connection, waiting: Box<Waiting>) -> rusqlite::Result<()> {
    let waiting = Box::into_raw(waiting).cast::<c_void>();
    // SAFETY: the handle is open. SQLite owns the box from here on, also when it
    // refuses it. The old box is freed by the first call and the old handler
    // leaves with the second one; in between nobody else can use the connection:
    // it is ours (`&Connection` is not shared between threads), or its mutex is,
    // which may be taken twice by one thread, and may be null.
    let code = unsafe {
        let handle = connection.handle();
        let mutex = ffi::sqlite3_db_mutex(handle);
        ffi::sqlite3_mutex_enter(mutex);
        let code = ffi::sqlite3_create_function_v2(
            handle,
            NAME.as_ptr(),
            0,
            ffi::SQLITE_UTF8 | ffi::SQLITE_DIRECTONLY,
            waiting,
            Some(tell_timeout),
            None,
            None,
            Some(free),
        );
        if code == ffi::SQLITE_OK {
            ffi::sqlite3_busy_handler(handle, Some(on_busy), waiting);
        }
        ffi::sqlite3_mutex_leave(mutex);
        code
    };
    check(connection, code)
}

/// Takes every busy handler away.
pub(super) fn remove(connection: &Connection) -> rusqlite::Result<()> {
    // SAFETY: as in `install`; without an implementation the function is deleted,
    // and its box freed. If that is refused the handler stays as well.
    let code = unsafe {
        let handle = connection.handle();
        let mutex = ffi::sqlite3_db_mutex(handle);
        ffi::sqlite3_mutex_enter(mutex);
        let code = ffi::sqlite3_create_function_v2(
            handle,
            NAME.as_ptr(),
            0,
            ffi::SQLITE_UTF8,
            ptr::null_mut(),
            None,
            None,
            None,
            None,
        );
        if code == ffi::SQLITE_OK {
            ffi::sqlite3_busy_handler(handle, None, ptr::null_mut());
        }
        ffi::sqlite3_mutex_leave(mutex);
        code
    };
    check(connection, code)
}

/// What the installed handler says; [`EffectiveTimeout::AtOnce`] when there is
/// none of ours.
pub(super) fn timeout_of(connection: &Connection) -> rusqlite::Result<EffectiveTimeout> {
    let is_there = "SELECT count(*) FROM pragma_function_list WHERE name = 'onepen_busy_timeout'";
    let there: i64 = connection.query_row(is_there, (), |row| row.get(0))?;
    if there == 0 {
        return Ok(EffectiveTimeout::AtOnce);
    }
    let ms: Option<i64> =
        connection.query_row("SELECT onepen_busy_timeout()", (), |row| row.get(0))?;
    Ok(match ms {
        None => EffectiveTimeout::UpToClosure,
        Some(ms) => match u64::try_from(ms) {
            Ok(0) => EffectiveTimeout::AtOnce,
            Ok(ms) => EffectiveTimeout::AtMost(std::time::Duration::from_millis(ms)),
            Err(_) => EffectiveTimeout::Forever,
        },
    })
}

fn check(connection: &Connection, code: c_int) -> rusqlite::Result<()> {
    match code {
        ffi::SQLITE_OK => Ok(()),
        code => Err(crate::capi::failure(connection, code)),
    }
}
