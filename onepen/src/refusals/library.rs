//! A second SQLite in the process: which ones are loaded, and whether one of them
//! has a file open that is ours.
//!
//! The kernel gives POSIX locks to a process, not to a library. Two copies of
//! SQLite do not know of each other: both get the write lock, and when one closes
//! its descriptor all locks of the other on that file are gone
//! (<https://www.sqlite.org/howtocorrupt.html#_multiple_copies_of_sqlite_linked_into_the_same_application>).
//!
//! How it is noticed, on Linux:
//! - A copy of SQLite opens the shared memory of a log (`app.db-shm`) once for all
//!   its connections. Two descriptors of it in one process are two copies (or
//!   somebody who reads the file by himself, whose closing does the same harm).
//!   This is exact, and knows after opening.
//! - Opening is harm enough. So before a file is opened that this library does not
//!   know to be open: a descriptor of it together with another SQLite among the
//!   loaded libraries is refused. It may be wrong, when the descriptor is a
//!   connection of the same library made without this crate.
//!
//! Over a rollback journal only the second way is there. Copies that hide their
//! symbols count as loaded, too: `hidden` finds them, but for one that is linked
//! into the same object as ours under other names.

use std::path::{Path, PathBuf};

use rusqlite::Connection;

use crate::error::{Error, ErrorKind, Result};
use crate::status::{Marks, connection_status};

/// A SQLite other than the one this crate is linked with.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Library {
    /// The file it was loaded from.
    pub path: PathBuf,
    /// Its version, as it says itself; `of 2026-01-31`, the day it was made, where
    /// its functions cannot be called.
    pub version: String,
}

/// The other SQLite libraries that are loaded into this process, those that hide
/// their symbols included. On systems other than Linux none are found.
///
/// That one is loaded is no harm; that two have the same file open is.
pub fn second_libraries() -> Vec<Library> {
    imp::libraries()
}

pub(super) fn refuse_where_others_may_be(path: &Path) -> Result<()> {
    let descriptors = imp::descriptors(path).max(imp::descriptors(&shared_memory_of(path)));
    if descriptors == 0 {
        return Ok(());
    }
    let Some(library) = second_libraries().into_iter().next() else {
        return Ok(());
    };
    Err(refused(
        path,
        &format!(
            "is open in this process already, and {} (SQLite {}) is loaded beside the linked {}; if \
             that one has it open",
            library.path.display(),
            library.version,
            rusqlite::version()
        ),
    ))
}

pub(super) fn refuse_beside_others(path: &Path) -> Result<()> {
    if imp::descriptors(&shared_memory_of(path)) < 2 {
        return Ok(());
    }
    let who = second_libraries().into_iter().next().map_or_else(
        || "a second copy of SQLite, hidden in another library of this process,".to_owned(),
        |library| format!("{} (SQLite {})", library.path.display(), library.version),
    );
    Err(refused(
        path,
        &format!("{who} has it open, or reads its shared memory"),
    ))
}

fn refused(path: &Path, what: &str) -> Error {
    Error::new(
        ErrorKind::Refused,
        format!(
            "{}: {what}: each of the two frees the other's locks without knowing, and both write \
             at once (https://www.sqlite.org/howtocorrupt.html#_multiple_copies_of_sqlite_linked_into_the_same_application): \
             use one library for one file, or a process of its own, or accept the risk with \
             `Options::any_sqlite`",
            path.display()
        ),
    )
}

/// SQLite names it after the file that a symbolic link leads to.
fn shared_memory_of(path: &Path) -> PathBuf {
    let real = std::fs::canonicalize(path);
    let mut name = real.as_deref().unwrap_or(path).as_os_str().to_owned();
    name.push("-shm");
    PathBuf::from(name)
}

pub(super) fn shares_its_cache(connection: &Connection) -> Result<bool> {
    // SQLite reports the whole cache, and this connection's part of it.
    let status = connection_status(connection, Marks::Keep)?;
    Ok(status.cache_shared < status.cache || imp::asked_for_a_shared_cache(connection))
}

mod imp {
    use std::ffi::CStr;

    use rusqlite::{Connection, ffi};

    #[cfg(target_os = "linux")]
    pub(super) use super::linux::{descriptors, libraries};

    #[cfg(not(target_os = "linux"))]
    pub(super) fn descriptors(_path: &std::path::Path) -> usize {
        0
    }

    #[cfg(not(target_os = "linux"))]
    pub(super) fn libraries() -> Vec<super::Library> {
        Vec::new()
    }

    /// Whether the URI it was opened with has `cache=shared`.
    pub(super) fn asked_for_a_shared_cache(connection: &Connection) -> bool {
        // SAFETY: the handle is open. The name is one that SQLite made, which is
        // what `sqlite3_uri_parameter` needs; the value lives as long as it does.
        unsafe {
            let name = ffi::sqlite3_db_filename(connection.handle(), c"main".as_ptr());
            if name.is_null() {
                return false;
            }
            let value = ffi::sqlite3_uri_parameter(name, c"cache".as_ptr());
            !value.is_null() && CStr::from_ptr(value) == c"shared"
        }
    }
}

#[cfg(target_os = "linux")]
mod linux {
    use std::collections::BTreeMap;
    use std::ffi::{CStr, CString, OsStr, c_char, c_int, c_void};
    use std::os::unix::ffi::OsStrExt;
    use std::path::{Path, PathBuf};

    use rusqlite::ffi;

    use super::super::hidden::{Copy, copies};
    use super::Library;

    /// How many descriptors of this process lead to the file. Looks through
    /// `/proc`, and opens nothing of it.
    pub(in super::super) fn descriptors(path: &Path) -> usize {
        use std::os::unix::fs::MetadataExt;
        let identity = |path: &Path| {
            let meta = std::fs::metadata(path).ok()?;
            Some((meta.dev(), meta.ino()))
        };
        let Some(wanted) = identity(path) else {
            return 0;
        };
        let Ok(open) = std::fs::read_dir("/proc/self/fd") else {
            return 0;
        };
        open.flatten()
            .filter(|entry| identity(&entry.path()) == Some(wanted))
            .count()
    }

    pub(in super::super) fn libraries() -> Vec<Library> {
        // Told apart by where their version stands, and not by the function's
        // address, which a linker may replace by one of its own.
        // SAFETY: returns a constant.
        let ours = unsafe { ffi::sqlite3_libversion() }.addr();
        let mut found: BTreeMap<_, _> =
            loaded().iter().filter_map(|name| sqlite_of(name)).collect();
        found.remove(&ours);
        let is_known =
            |copy: &Copy| copy.contains(ours) || found.keys().any(|at| copy.contains(*at));
        let hidden = copies().into_iter().filter(|copy| !is_known(copy));
        let hidden: Vec<_> = hidden.map(Copy::into_library).collect();
        found.into_values().chain(hidden).collect()
    }

    /// The names of all loaded objects.
    fn loaded() -> Vec<CString> {
        unsafe extern "C" fn each(
            info: *mut libc::dl_phdr_info,
            _size: usize,
            names: *mut c_void,
        ) -> c_int {
            // SAFETY: the loader's structure, and the vector that was passed in;
            // pushing may end the process for want of memory, and does not unwind.
            unsafe {
                let name = CStr::from_ptr((*info).dlpi_name);
                (*names.cast::<Vec<CString>>()).push(name.to_owned());
            }
            0
        }
        let mut names: Vec<CString> = Vec::new();
        // SAFETY: `each` gets the vector, during this call alone.
        unsafe { libc::dl_iterate_phdr(Some(each), (&raw mut names).cast()) };
        // The program itself has no name.
        names.retain(|name| !name.is_empty());
        names
    }

    /// The SQLite that is found from this object, and where its version is.
    fn sqlite_of(name: &CStr) -> Option<(usize, Library)> {
        // SAFETY: with NOLOAD nothing is loaded and no constructor runs; the
        // handle is closed once. The symbol, if it is there, is SQLite's function
        // of that name, which takes nothing and returns a constant; its object
        // stays loaded, because it was before us.
        unsafe {
            let handle = libc::dlopen(name.as_ptr(), libc::RTLD_LAZY | libc::RTLD_NOLOAD);
            if handle.is_null() {
                return None;
            }
            let symbol = libc::dlsym(handle, c"sqlite3_libversion".as_ptr());
            let found = if symbol.is_null() {
                None
            } else {
                let version: unsafe extern "C" fn() -> *const c_char = std::mem::transmute(symbol);
                let stands = version();
                let version = CStr::from_ptr(stands).to_string_lossy().into_owned();
                let mut info = std::mem::zeroed::<libc::Dl_info>();
                let path = if libc::dladdr(symbol, &raw mut info) != 0 && !info.dli_fname.is_null()
                {
                    CStr::from_ptr(info.dli_fname)
                } else {
                    name
                };
                let path = PathBuf::from(OsStr::from_bytes(path.to_bytes()));
                Some((stands.addr(), Library { path, version }))
            };
            libc::dlclose(handle);
            found
        }
    }
}
