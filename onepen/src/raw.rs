//! The part of SQLite's C interface that the writer needs and rusqlite does not
//! offer in every version we accept: hooks that share state, and three cheap
//! questions.
//!
//! All of it is about *one* connection that only one thread uses at a time: the
//! holder of the pen. That is what every `SAFETY` comment below leans on.

use std::cell::Cell;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::Instant;

use rusqlite::{Connection, ffi};

use crate::blocks::raw::reset_unfinished;
use crate::changes::recorder::Recorder;
use crate::wal::WalLevel;

/// What the hooks of the write connection look at. Boxed by its owner, because
/// SQLite keeps its address.
pub(crate) struct Guards {
    /// Foreign code is running: the authorizer refuses what members may not do.
    inside: Cell<bool>,
    /// Savepoints may be used: by us, between two statements of a member.
    savepoints: Cell<bool>,
    /// A COMMIT is ours; every other one is turned into a rollback.
    may_commit: Cell<bool>,
    /// Why the authorizer refused the last statement.
    refused: Cell<Option<&'static str>>,
    wal: Arc<WalLevel>,
    /// When the running member is to be ended.
    until: Cell<Option<Instant>>,
    /// What members change, while somebody wants to know.
    pub(crate) recorder: Recorder,
}

impl Guards {
    pub(crate) fn new(wal: Arc<WalLevel>) -> Box<Self> {
        Box::new(Self {
            inside: Cell::new(false),
            savepoints: Cell::new(false),
            may_commit: Cell::new(true),
            refused: Cell::new(None),
            wal,
            until: Cell::new(None),
            recorder: Recorder::new(),
        })
    }

    pub(crate) fn set_inside(&self, inside: bool) {
        self.inside.set(inside);
        self.may_commit.set(!inside);
        self.recorder.set_inside(inside);
    }

    pub(crate) fn allow_savepoints(&self, allowed: bool) {
        self.savepoints.set(allowed);
    }

    pub(crate) fn take_refusal(&self) -> Option<&'static str> {
        self.refused.take()
    }

    fn judge(
        &self,
        action: c_int,
        first: Option<&CStr>,
        second: Option<&CStr>,
        database: Option<&CStr>,
    ) -> Option<&'static str> {
        if !self.inside.get() {
            return None;
        }
        match action {
            ffi::SQLITE_TRANSACTION => Some(
                "a write closure may not BEGIN, COMMIT or ROLLBACK: its transaction began before \
                 it and ends after it; return an error to undo it",
            ),
            ffi::SQLITE_SAVEPOINT if !self.savepoints.get() => Some(
                "a write closure may not use SAVEPOINT, RELEASE or ROLLBACK TO in SQL; use \
                 `WriteTx::savepoint`",
            ),
            ffi::SQLITE_ATTACH | ffi::SQLITE_DETACH => Some(
                "a write closure may not ATTACH, DETACH or VACUUM: use `Database::exclusively`",
            ),
            ffi::SQLITE_CREATE_TEMP_INDEX
            | ffi::SQLITE_CREATE_TEMP_TABLE
            | ffi::SQLITE_CREATE_TEMP_TRIGGER
            | ffi::SQLITE_CREATE_TEMP_VIEW => Some(NO_TEMPORARIES),
            // `CREATE TABLE temp.x` is reported as an ordinary CREATE TABLE.
            ffi::SQLITE_CREATE_INDEX
            | ffi::SQLITE_CREATE_TABLE
            | ffi::SQLITE_CREATE_TRIGGER
            | ffi::SQLITE_CREATE_VIEW
            | ffi::SQLITE_CREATE_VTABLE
                if database == Some(c"temp") =>
            {
                Some(NO_TEMPORARIES)
            }
            ffi::SQLITE_PRAGMA if !pragma_is_harmless(first, second) => Some(
                "a write closure may not use this PRAGMA, whose effect would outlast it: set it in \
                 `Options::on_connect`, or use `Database::exclusively`",
            ),
            _ => None,
        }
    }
}

const NO_TEMPORARIES: &str = "a write closure may not make temporary tables, views or triggers, \
     which other writes would see: use `Database::exclusively`";

/// PRAGMAs that only read, and those that a rollback takes back.
fn pragma_is_harmless(name: Option<&CStr>, value: Option<&CStr>) -> bool {
    const READ_WITH_ARGUMENT: &[&str] = &[
        "foreign_key_check",
        "foreign_key_list",
        "index_info",
        "index_list",
        "index_xinfo",
        "integrity_check",
        "quick_check",
        "table_info",
        "table_list",
        "table_xinfo",
    ];
    const TRANSACTIONAL: &[&str] = &["application_id", "user_version"];
    const READ: &[&str] = &[
        "auto_vacuum",
        "busy_timeout",
        "cache_size",
        "collation_list",
        "compile_options",
        "data_version",
        "database_list",
        "defer_foreign_keys",
        "encoding",
        "foreign_keys",
        "freelist_count",
        "function_list",
        "journal_mode",
        "max_page_count",
        "module_list",
        "page_count",
        "page_size",
        "pragma_list",
        "query_only",
        "recursive_triggers",
        "schema_version",
        "synchronous",
        "wal_autocheckpoint",
    ];
    let Some(Ok(name)) = name.map(CStr::to_str) else {
        return false;
    };
    let is_in = |list: &[&str]| list.iter().any(|known| known.eq_ignore_ascii_case(name));
    is_in(READ_WITH_ARGUMENT) || is_in(TRANSACTIONAL) || (value.is_none() && is_in(READ))
}

unsafe extern "C" fn authorizer(
    guards: *mut c_void,
    action: c_int,
    first: *const c_char,
    second: *const c_char,
    database: *const c_char,
    _trigger: *const c_char,
) -> c_int {
    // SAFETY: `guards` is the address that `install` was given; its owner keeps
    // it alive for as long as the connection, and only the thread that is
    // calling into the connection gets here. The strings are SQLite's, valid
    // for the call.
    let reason = unsafe {
        let text = |pointer: *const c_char| {
            NonNull::new(pointer.cast_mut()).map(|pointer| CStr::from_ptr(pointer.as_ptr()))
        };
        let guards = &*guards.cast::<Guards>();
        guards
            .recorder
            .compiling(action, text(first), text(database));
        let reason = guards.judge(action, text(first), text(second), text(database));
        if reason.is_some() {
            guards.refused.set(reason);
        }
        reason
    };
    if reason.is_some() {
        ffi::SQLITE_DENY
    } else {
        ffi::SQLITE_OK
    }
}

unsafe extern "C" fn on_commit(guards: *mut c_void) -> c_int {
    // SAFETY: as in `authorizer`.
    let may_commit = unsafe { (*guards.cast::<Guards>()).may_commit.get() };
    c_int::from(!may_commit)
}

unsafe extern "C" fn on_wal(
    guards: *mut c_void,
    _connection: *mut ffi::sqlite3,
    _database: *const c_char,
    frames: c_int,
) -> c_int {
    // SAFETY: as in `authorizer`.
    unsafe {
        (*guards.cast::<Guards>())
            .wal
            .committed(frames.max(0).cast_unsigned())
    };
    ffi::SQLITE_OK
}

/// How many instructions of SQLite's run between two looks at the clock.
const INSTRUCTIONS: c_int = 1000;

unsafe extern "C" fn on_progress(guards: *mut c_void) -> c_int {
    // SAFETY: as in `authorizer`.
    let until = unsafe { (*guards.cast::<Guards>()).until.get() };
    c_int::from(until.is_some_and(|until| Instant::now() >= until))
}

/// Interrupts whatever runs at `until` or later; `None` is never.
pub(crate) fn limit(connection: &Connection, guards: &Guards, until: Option<Instant>) {
    guards.until.set(until);
    let context = std::ptr::from_ref(guards).cast_mut().cast::<c_void>();
    let (every, handler): (_, Option<unsafe extern "C" fn(_) -> _>) = match until {
        Some(_) => (INSTRUCTIONS, Some(on_progress)),
        None => (0, None),
    };
    // SAFETY: the handle is open; `guards` outlives the connection's use, and the
    // callback only looks at a cell and the clock.
    unsafe { ffi::sqlite3_progress_handler(connection.handle(), every, handler, context) };
}

/// Puts the hooks in place. `guards` must outlive the connection's use; the
/// caller owns both.
pub(crate) fn install(connection: &Connection, guards: &Guards) {
    let guards = std::ptr::from_ref(guards).cast_mut().cast::<c_void>();
    // SAFETY: the handle is open. The callbacks have the signatures SQLite
    // documents and do not unwind: they read cells and compare strings.
    unsafe {
        let handle = connection.handle();
        ffi::sqlite3_set_authorizer(handle, Some(authorizer), guards);
        ffi::sqlite3_commit_hook(handle, Some(on_commit), guards);
        ffi::sqlite3_wal_hook(handle, Some(on_wal), guards);
    }
}

/// Whether deferred foreign keys are violated now. A boolean, says SQLite's
/// source, for the connection as a whole.
pub(crate) fn owes_foreign_keys(connection: &Connection) -> bool {
    let (mut current, mut highest) = (0, 0);
    // SAFETY: the handle is open; both places are ours.
    unsafe {
        ffi::sqlite3_db_status(
            connection.handle(),
            ffi::SQLITE_DBSTATUS_DEFERRED_FKS,
            &raw mut current,
            &raw mut highest,
            0,
        );
    }
    current != 0
}

/// How many rows the connection has changed since it was opened, modulo 2^32.
pub(crate) fn total_changes(connection: &Connection) -> c_int {
    // SAFETY: the handle is open.
    unsafe { ffi::sqlite3_total_changes(connection.handle()) }
}

/// Resets every statement that foreign code left unfinished, and forgets the
/// last row id, so that the next one sees neither.
pub(crate) fn clean_up(connection: &Connection) {
    // SAFETY: no Rust borrow of a statement is alive: `Statement` and `Rows`
    // cannot leave the closure, so whatever is busy here was leaked and nobody
    // will step it again.
    unsafe { reset_unfinished(connection, |_| ()) };
    // SAFETY: the handle is open.
    unsafe { ffi::sqlite3_set_last_insert_rowid(connection.handle(), 0) };
}
