//! A disk that fails now and then, in this process alone.
//!
//! SQLite's own unix VFS does all the work. A copy of it, registered as the
//! default before anything is opened, hands out the same files with four of
//! their methods replaced: read, write, truncate, sync, and nothing else. Each
//! replacement either fails as that call may fail, or calls the one it stands
//! for.
//!
//! What is injected: reads, writes (all of it missing, or half of it written),
//! a full disk, truncations and syncs that fail, on the database and on its log
//! alike, once each and not for good. What is not: failing opens, locks and
//! shared memory, a lack of memory, a loss of power. A failed sync is an error
//! only: what was written before it stays in the operating system's cache.

use std::ffi::{c_int, c_void};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rusqlite::ffi;

use crate::bench::random::mix;

/// One call of so many fails.
const ONE_OF: u64 = 400;

static ARMED: AtomicBool = AtomicBool::new(false);
static STATE: AtomicU64 = AtomicU64::new(0);
static INJECTED: AtomicU64 = AtomicU64::new(0);

/// Calls that have failed.
pub fn injected() -> u64 {
    INJECTED.load(Ordering::Relaxed)
}

/// From now on calls fail, or no longer.
pub fn arm(armed: bool) {
    ARMED.store(armed, Ordering::SeqCst);
}

/// Whether this call fails, and a number to choose how.
fn strikes() -> Option<u64> {
    if !ARMED.load(Ordering::Relaxed) {
        return None;
    }
    let n = mix(STATE.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed));
    if !n.is_multiple_of(ONE_OF) {
        return None;
    }
    INJECTED.fetch_add(1, Ordering::Relaxed);
    Some(n / ONE_OF)
}

/// The methods of a file as SQLite finds them, and those they stand for.
#[repr(C)]
struct Methods {
    ours: ffi::sqlite3_io_methods,
    theirs: *const ffi::sqlite3_io_methods,
}

static THEIR_VFS: OnceLock<usize> = OnceLock::new();

/// Makes the failing VFS the default of this process. Before the first
/// connection, and once.
pub fn install(seed: u64) -> Result<(), String> {
    STATE.store(mix(seed), Ordering::SeqCst);
    // SAFETY: SQLite initialises itself; the VFS it returns lives as long as it.
    let theirs = unsafe { ffi::sqlite3_vfs_find(std::ptr::null()) };
    if theirs.is_null() {
        return Err("SQLite has no VFS".to_owned());
    }
    if THEIR_VFS.set(theirs as usize).is_err() {
        return Ok(());
    }
    // SAFETY: as above; a plain copy of a C struct.
    let mut ours = unsafe { std::ptr::read(theirs) };
    ours.zName = c"onepen-faults".as_ptr();
    ours.pNext = std::ptr::null_mut();
    ours.xOpen = Some(open);
    let ours = Box::leak(Box::new(ours));
    // SAFETY: it lives for ever.
    match unsafe { ffi::sqlite3_vfs_register(ours, 1) } {
        ffi::SQLITE_OK => Ok(()),
        code => Err(format!("the failing VFS was refused: {code}")),
    }
}

unsafe extern "C" fn open(
    _vfs: *mut ffi::sqlite3_vfs,
    name: ffi::sqlite3_filename,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    flags_out: *mut c_int,
) -> c_int {
    let Some(&theirs) = THEIR_VFS.get() else {
        return ffi::SQLITE_CANTOPEN;
    };
    let theirs = theirs as *mut ffi::sqlite3_vfs;
    // SAFETY: their function with what it was called with; it fills in `file`,
    // and a file without methods is not open.
    unsafe {
        let Some(open) = (*theirs).xOpen else {
            return ffi::SQLITE_CANTOPEN;
        };
        let answer = open(theirs, name, file, flags, flags_out);
        if answer == ffi::SQLITE_OK && !(*file).pMethods.is_null() {
            (*file).pMethods = patched((*file).pMethods).cast();
        }
        answer
    }
}

/// The methods to give out for theirs. There are two or three kinds of files, so
/// what is leaked is bounded.
fn patched(theirs: *const ffi::sqlite3_io_methods) -> *const Methods {
    use std::sync::{Mutex, PoisonError};
    static KNOWN: Mutex<Vec<(usize, usize)>> = Mutex::new(Vec::new());
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(&(_, ours)) = known.iter().find(|(of, _)| *of == theirs as usize) {
        return ours as *const Methods;
    }
    // SAFETY: the methods of a file that is open, which are constants of the VFS.
    let mut ours = unsafe { *theirs };
    ours.xRead = Some(read);
    ours.xWrite = Some(write);
    ours.xTruncate = Some(truncate);
    ours.xSync = Some(sync);
    let ours: &'static Methods = Box::leak(Box::new(Methods { ours, theirs }));
    known.push((theirs as usize, std::ptr::from_ref(ours) as usize));
    ours
}

/// The methods that ours stand for.
///
/// # Safety
/// `file` was opened by [`open`].
unsafe fn theirs(file: *mut ffi::sqlite3_file) -> &'static ffi::sqlite3_io_methods {
    // SAFETY: `open` gave the file methods that are the head of a `Methods`.
    unsafe { &*(*(*file).pMethods.cast::<Methods>()).theirs }
}

// SAFETY (of the four): SQLite calls them with a file that `open` opened and with
// the arguments of the method they stand for, which gets them unchanged.

unsafe extern "C" fn read(
    file: *mut ffi::sqlite3_file,
    to: *mut c_void,
    amount: c_int,
    offset: ffi::sqlite3_int64,
) -> c_int {
    // SAFETY: see above.
    match (strikes(), unsafe { theirs(file) }.xRead) {
        // SAFETY: see above.
        (None, Some(read)) => unsafe { read(file, to, amount, offset) },
        _ => ffi::SQLITE_IOERR_READ,
    }
}

unsafe extern "C" fn write(
    file: *mut ffi::sqlite3_file,
    from: *const c_void,
    amount: c_int,
    offset: ffi::sqlite3_int64,
) -> c_int {
    // SAFETY: see above.
    let Some(write) = unsafe { theirs(file) }.xWrite else {
        return ffi::SQLITE_IOERR_WRITE;
    };
    match strikes() {
        // SAFETY: see above.
        None => unsafe { write(file, from, amount, offset) },
        Some(how) if how.is_multiple_of(3) => {
            // SAFETY: less of the same.
            unsafe { write(file, from, amount / 2, offset) };
            ffi::SQLITE_FULL
        }
        Some(how) if how % 3 == 1 => ffi::SQLITE_FULL,
        Some(_) => ffi::SQLITE_IOERR_WRITE,
    }
}

unsafe extern "C" fn truncate(file: *mut ffi::sqlite3_file, size: ffi::sqlite3_int64) -> c_int {
    // SAFETY: see above.
    match (strikes(), unsafe { theirs(file) }.xTruncate) {
        // SAFETY: see above.
        (None, Some(truncate)) => unsafe { truncate(file, size) },
        _ => ffi::SQLITE_IOERR_TRUNCATE,
    }
}

unsafe extern "C" fn sync(file: *mut ffi::sqlite3_file, flags: c_int) -> c_int {
    // Rarer than writes, so that one of a few fails.
    let strikes = strikes().or_else(|| (0..15).find_map(|_| strikes()));
    // SAFETY: see above.
    match (strikes, unsafe { theirs(file) }.xSync) {
        // SAFETY: see above.
        (None, Some(sync)) => unsafe { sync(file, flags) },
        _ => ffi::SQLITE_IOERR_FSYNC,
    }
}
