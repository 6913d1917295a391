//! For Rust programs with a SQLite linked in, whichever crate brought it.

use std::ffi::c_void;
use std::fmt;

use crate::guard::guard;
use crate::host::{FUNCTIONS, Host, OLDEST};
use crate::{sqlite, vfs};

/// The VFS could not be registered. Connections work as they did without it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NotRegistered {
    /// The linked SQLite is older than 3.40.1.
    TooOld,
    /// SQLite refused, with this error code.
    Refused(i32),
}

impl fmt::Display for NotRegistered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooOld => f.write_str("the linked SQLite is older than 3.40.1"),
            Self::Refused(code) => write!(f, "SQLite refused the VFS `onepen` (code {code})"),
        }
    }
}

impl std::error::Error for NotRegistered {}

/// Registers the VFS with the SQLite of these functions, in the order of the
/// names that `onepen_vfs_function` gives; as the default if `default`. What
/// [`register_linked!`](crate::register_linked) calls.
///
/// # Errors
/// [`NotRegistered`] says why not.
///
/// # Safety
/// Each has to be SQLite's function of that name, all of one library, which stays
/// loaded, as the code of this crate has to.
pub unsafe fn register_functions(
    functions: [*const c_void; FUNCTIONS],
    default: bool,
) -> Result<(), NotRegistered> {
    let code = guard(sqlite::ERROR, || {
        // SAFETY: the caller vouches for the functions.
        let Some(host) = (unsafe { Host::from_functions(&functions) }) else {
            return sqlite::MISUSE;
        };
        // SAFETY: SQLite's function of this name takes nothing.
        if unsafe { (host.libversion_number)() } < OLDEST {
            return sqlite::NOTFOUND;
        }
        // SAFETY: as the caller says.
        unsafe { vfs::register(host, default) }
    });
    match code {
        sqlite::OK => Ok(()),
        sqlite::NOTFOUND => Err(NotRegistered::TooOld),
        code => Err(NotRegistered::Refused(code)),
    }
}

/// Makes `onepen` the default VFS of the SQLite that is linked into this program, so
/// that every connection opened from now on takes part: those of rusqlite, sqlx,
/// diesel, or any other crate. With `named` it has to be asked for, as in
/// `file:app.db?vfs=onepen`.
///
/// A macro, because the names of SQLite's functions must be bound in the program that
/// links them: this crate links none.
///
/// ```
/// # use rusqlite::Connection;
/// onepen_vfs::register_linked!()?;
/// let connection = Connection::open_in_memory()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`NotRegistered`] says why not.
#[macro_export]
macro_rules! register_linked {
    () => {
        $crate::register_linked!(@ true)
    };
    (named) => {
        $crate::register_linked!(@ false)
    };
    (@ $default:literal) => {{
        mod linked {
            unsafe extern "C" {
                pub fn sqlite3_libversion_number();
                pub fn sqlite3_vfs_find();
                pub fn sqlite3_vfs_register();
                pub fn sqlite3_uri_parameter();
                pub fn sqlite3_get_autocommit();
                pub fn sqlite3_next_stmt();
                pub fn sqlite3_stmt_busy();
                pub fn sqlite3_stmt_readonly();
                pub fn sqlite3_sql();
                pub fn sqlite3_txn_state();
                pub fn sqlite3_db_name();
                pub fn sqlite3_file_control();
                pub fn sqlite3_malloc();
            }
        }
        let functions = [
            linked::sqlite3_libversion_number as *const (),
            linked::sqlite3_vfs_find as *const (),
            linked::sqlite3_vfs_register as *const (),
            linked::sqlite3_uri_parameter as *const (),
            linked::sqlite3_get_autocommit as *const (),
            linked::sqlite3_next_stmt as *const (),
            linked::sqlite3_stmt_busy as *const (),
            linked::sqlite3_stmt_readonly as *const (),
            linked::sqlite3_sql as *const (),
            linked::sqlite3_txn_state as *const (),
            linked::sqlite3_db_name as *const (),
            linked::sqlite3_file_control as *const (),
            linked::sqlite3_malloc as *const (),
        ]
        .map(|function| function.cast::<::std::ffi::c_void>());
        // SAFETY: these names are SQLite's own, bound by the linker, in the order
        // that is asked for; what is linked is never unloaded.
        unsafe { $crate::register_functions(functions, $default) }
    }};
}
