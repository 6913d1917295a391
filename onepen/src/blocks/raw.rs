//! What the blocks ask of SQLite's C interface and rusqlite does not offer.
//!
//! Each function takes a connection that the caller has to itself for the time
//! of the call: a `&Connection` cannot be shared between threads, so that is
//! what having one means.

use std::ffi::CStr;
use std::ptr;

use rusqlite::{Connection, ffi};

/// What a connection holds of the database file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Holds {
    /// No lock, and no snapshot.
    Nothing,
    /// A snapshot (over a rollback journal, a shared lock).
    Snapshot,
    /// The write lock.
    WriteLock,
}

pub(super) fn holds(connection: &Connection) -> Holds {
    // SAFETY: the handle is open; a null schema means all of them.
    match unsafe { ffi::sqlite3_txn_state(connection.handle(), ptr::null()) } {
        ffi::SQLITE_TXN_NONE => Holds::Nothing,
        ffi::SQLITE_TXN_READ => Holds::Snapshot,
        _ => Holds::WriteLock,
    }
}

/// The extended result code of the last call that failed on this connection, or
/// of a later one that did not.
pub(crate) fn last_code(connection: &Connection) -> i32 {
    // SAFETY: the handle is open.
    unsafe { ffi::sqlite3_extended_errcode(connection.handle()) }
}

/// Forgets the last row id, so that the next user does not see it.
pub(super) fn forget_rowid(connection: &Connection) {
    // SAFETY: the handle is open.
    unsafe { ffi::sqlite3_set_last_insert_rowid(connection.handle(), 0) };
}

/// Resets every statement that was left unfinished, and tells `found` its text.
///
/// # Safety
/// Nobody may go on with such a statement: no `Rows` of this connection may be
/// alive that anybody can still reach.
pub(crate) unsafe fn reset_unfinished(connection: &Connection, mut found: impl FnMut(&CStr)) {
    // SAFETY: the handle is open, the statements are its own, and resetting one
    // is allowed at any time; that nobody goes on with it is the caller's
    // promise. The text lives as long as its statement.
    unsafe {
        let handle = connection.handle();
        let mut statement = ffi::sqlite3_next_stmt(handle, ptr::null_mut());
        while !statement.is_null() {
            if ffi::sqlite3_stmt_busy(statement) != 0 {
                let sql = ffi::sqlite3_sql(statement);
                found(if sql.is_null() {
                    c""
                } else {
                    CStr::from_ptr(sql)
                });
                ffi::sqlite3_reset(statement);
            }
            statement = ffi::sqlite3_next_stmt(handle, statement);
        }
    }
}

/// Closes the connection, whatever foreign code forgot on it.
///
/// SQLite refuses to close over a statement whose owner was forgotten
/// (`mem::forget`), but before that it ends every virtual table, and so the
/// statements that those have of their own: what is left then is forgotten, and
/// may be finalised. Before it that would be somebody's who finalises it again.
pub(crate) fn close(connection: Connection) {
    let Err((connection, _)) = connection.close() else {
        return;
    };
    // SAFETY: no Rust borrow of a statement is alive, since the connection is ours.
    unsafe { reset_unfinished(&connection, |_| ()) };
    // A forgotten statement may keep a virtual table and its statements.
    let virtual_tables =
        "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND sql LIKE 'CREATE VIRTUAL%'";
    let some = connection.query_row(virtual_tables, (), |row| row.get::<_, i64>(0));
    if !matches!(some, Ok(0)) {
        std::mem::forget(connection); // nothing runs on it: a leak, and no lock
        return;
    }
    // SAFETY: the handle is open. Every `Statement` borrows the connection, which
    // is ours: whatever is left was leaked by its owner, and nobody can reach it
    // any more. Ours were finalised before.
    unsafe {
        let handle = connection.handle();
        loop {
            let statement = ffi::sqlite3_next_stmt(handle, std::ptr::null_mut());
            if statement.is_null() {
                break;
            }
            ffi::sqlite3_finalize(statement);
        }
    }
}
