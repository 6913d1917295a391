//! The SQLite library that this VFS serves: the few functions of it that are
//! called, found in the table an extension is given, or handed over one by one.

use std::ffi::{CStr, c_char, c_int, c_void};

use crate::sqlite::{Db, Stmt, Vfs};

/// The functions of one SQLite library, of 3.40.1 or later.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Host {
    /// `sqlite3_libversion_number`.
    pub libversion_number: unsafe extern "C" fn() -> c_int,
    /// `sqlite3_vfs_find`.
    pub vfs_find: unsafe extern "C" fn(*const c_char) -> *mut Vfs,
    /// `sqlite3_vfs_register`.
    pub vfs_register: unsafe extern "C" fn(*mut Vfs, c_int) -> c_int,
    /// `sqlite3_uri_parameter`.
    pub uri_parameter: unsafe extern "C" fn(*const c_char, *const c_char) -> *const c_char,
    /// `sqlite3_get_autocommit`.
    pub get_autocommit: unsafe extern "C" fn(*mut Db) -> c_int,
    /// `sqlite3_next_stmt`.
    pub next_stmt: unsafe extern "C" fn(*mut Db, *mut Stmt) -> *mut Stmt,
    /// `sqlite3_stmt_busy`.
    pub stmt_busy: unsafe extern "C" fn(*mut Stmt) -> c_int,
    /// `sqlite3_stmt_readonly`.
    pub stmt_readonly: unsafe extern "C" fn(*mut Stmt) -> c_int,
    /// `sqlite3_sql`.
    pub sql: unsafe extern "C" fn(*mut Stmt) -> *const c_char,
    /// `sqlite3_txn_state`.
    pub txn_state: unsafe extern "C" fn(*mut Db, *const c_char) -> c_int,
    /// `sqlite3_db_name`.
    pub db_name: unsafe extern "C" fn(*mut Db, c_int) -> *const c_char,
    /// `sqlite3_file_control`.
    pub file_control: unsafe extern "C" fn(*mut Db, *const c_char, c_int, *mut c_void) -> c_int,
    /// `sqlite3_malloc`.
    pub malloc: unsafe extern "C" fn(c_int) -> *mut c_void,
}

/// How many functions of SQLite are called.
pub const FUNCTIONS: usize = size_of::<Host>() / size_of::<*const c_void>();

/// Their names, in the order of the fields.
pub const NAMES: [&CStr; FUNCTIONS] = [
    c"sqlite3_libversion_number",
    c"sqlite3_vfs_find",
    c"sqlite3_vfs_register",
    c"sqlite3_uri_parameter",
    c"sqlite3_get_autocommit",
    c"sqlite3_next_stmt",
    c"sqlite3_stmt_busy",
    c"sqlite3_stmt_readonly",
    c"sqlite3_sql",
    c"sqlite3_txn_state",
    c"sqlite3_db_name",
    c"sqlite3_file_control",
    c"sqlite3_malloc",
];

/// Where they stand in `sqlite3_api_routines` (`sqlite3ext.h`). SQLite only ever
/// appends to that table, so these numbers are the same in all versions.
pub const SLOTS: [usize; FUNCTIONS] =
    [67, 141, 142, 189, 60, 152, 184, 185, 153, 252, 264, 127, 68];

/// The oldest SQLite that is tested: older ones are refused.
pub const OLDEST: c_int = 3_040_001;

impl Host {
    /// From functions in the order of [`NAMES`]; `None` when one is missing.
    ///
    /// # Safety
    /// Each must be null or SQLite's function of that name.
    pub unsafe fn from_functions(functions: &[*const c_void; FUNCTIONS]) -> Option<Self> {
        if functions.iter().any(|function| function.is_null()) {
            return None;
        }
        // SAFETY: a `Host` is exactly so many function pointers (`repr(C)`, all of
        // one size), none of them is null, and the caller vouches for what they are.
        Some(unsafe { std::ptr::read(functions.as_ptr().cast::<Self>()) })
    }

    /// From the table that SQLite hands to an extension.
    ///
    /// # Safety
    /// `api` must be null or that table, of any version.
    pub unsafe fn from_table(api: *const c_void) -> Option<Self> {
        if api.is_null() {
            return None;
        }
        let table = api.cast::<*const c_void>();
        // The version first: the table of an older one may be shorter.
        // SAFETY: this slot is in every version that can load an extension with an
        // entry point of this kind; the function takes nothing.
        let version = unsafe {
            let function = table.add(SLOTS[0]).read();
            if function.is_null() {
                return None;
            }
            std::mem::transmute::<*const c_void, unsafe extern "C" fn() -> c_int>(function)()
        };
        if version < OLDEST {
            return None;
        }
        // SAFETY: a table of this version has all of the slots.
        let functions = SLOTS.map(|slot| unsafe { table.add(slot).read() });
        // SAFETY: they are SQLite's, by the order of the table.
        unsafe { Self::from_functions(&functions) }
    }
}
