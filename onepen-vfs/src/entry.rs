//! How a SQLite library gets to know this VFS.

use std::ffi::{c_char, c_int, c_void};

use crate::guard::guard;
use crate::host::{FUNCTIONS, Host};
use crate::sqlite::{self, Db};
use crate::vfs;

/// Set to `0`, loading the extension registers the VFS by name only.
const DEFAULT: &str = "ONEPEN_VFS_DEFAULT";

fn load(api: *const c_void, default: bool) -> c_int {
    guard(sqlite::ERROR, || {
        // SAFETY: SQLite hands its own table to an extension's entry point.
        let Some(host) = (unsafe { Host::from_table(api) }) else {
            return sqlite::ERROR;
        };
        // SAFETY: the library is loaded, and the answer keeps this one loaded.
        match unsafe { vfs::register(host, default) } {
            sqlite::OK => sqlite::OK_LOAD_PERMANENTLY,
            error => error,
        }
    })
}

fn is_default() -> bool {
    guard(true, || {
        std::env::var_os(DEFAULT).is_none_or(|value| value != "0")
    })
}

/// An entry point for SQLite to call when it loads the extension.
macro_rules! entry_points {
    ($($(#[doc = $doc:literal])* $name:ident($default:expr);)*) => {$(
        $(#[doc = $doc])*
        ///
        /// # Safety
        /// For SQLite to call when it loads the extension.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name(
            _db: *mut Db,
            _error: *mut *mut c_char,
            api: *const c_void,
        ) -> c_int {
            load(api, $default)
        }
    )*};
}

entry_points! {
    /// The entry point SQLite tries first.
    sqlite3_extension_init(is_default());
    /// The entry point after the name of the library.
    sqlite3_onepenvfs_init(is_default());
    /// The entry point for who wants to say `?vfs=onepen` wherever it is to be used.
    sqlite3_onepenvfsnamed_init(false);
}

/// Registers the VFS with a SQLite library that loads no extensions, given its
/// functions: `functions` points to `count` addresses, in the order of
/// [`onepen_vfs_function`]. With `make_default` not 0 it becomes the default.
///
/// Answers 0, or one of SQLite's error codes: 21 (`SQLITE_MISUSE`) when functions
/// are missing, 1 when the library is older than 3.40.1 or refuses.
///
/// # Safety
/// Each address has to be null or that of the function of this name, all of one
/// SQLite library, which stays loaded.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn onepen_vfs_install(
    functions: *const *const c_void,
    count: c_int,
    make_default: c_int,
) -> c_int {
    guard(sqlite::ERROR, || {
        if functions.is_null() || usize::try_from(count) != Ok(FUNCTIONS) {
            return sqlite::MISUSE;
        }
        // SAFETY: the caller gives so many addresses.
        let functions = unsafe { functions.cast::<[*const c_void; FUNCTIONS]>().read() };
        // SAFETY: the caller vouches for what they are.
        let Some(host) = (unsafe { Host::from_functions(&functions) }) else {
            return sqlite::MISUSE;
        };
        // SAFETY: SQLite's function of this name takes nothing.
        if unsafe { (host.libversion_number)() } < crate::host::OLDEST {
            return sqlite::ERROR;
        }
        pin();
        // SAFETY: all of one library, which stays loaded; this one does from now on.
        unsafe { vfs::register(host, make_default != 0) }
    })
}

/// The name of the function whose address stands at `index` in what
/// [`onepen_vfs_install`] takes; null after the last.
#[unsafe(no_mangle)]
pub extern "C" fn onepen_vfs_function(index: c_int) -> *const c_char {
    usize::try_from(index)
        .ok()
        .and_then(|index| crate::host::NAMES.get(index))
        .map_or(std::ptr::null(), |name| name.as_ptr())
}

/// From now on this library is not unloaded: SQLite calls its functions.
fn pin() {
    // SAFETY: the address is of this library; what `dladdr` fills in is read only if
    // it says that it did.
    unsafe {
        let mut info = std::mem::zeroed::<libc::Dl_info>();
        let own = pin as fn() as *const c_void;
        if libc::dladdr(own, &raw mut info) != 0 && !info.dli_fname.is_null() {
            // The handle is kept for ever. In a program that has this code linked
            // in there is nothing to keep, and this finds the program itself.
            libc::dlopen(info.dli_fname, libc::RTLD_LAZY | libc::RTLD_NOLOAD);
        }
    }
}
