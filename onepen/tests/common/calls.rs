//! More calls of the C library that can be made to fail: those with which SQLite
//! reads, truncates, maps, opens, locks and renames files. See `disk`, which
//! plans the faults and has the writes and flushes.
//!
//! Not seen are system calls made without the C library, as `rustix` makes them
//! for the gate.

use std::ffi::{CStr, OsStr, c_char, c_int, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::disk::{Doing, fail, next, verdict, verdict_on};

type Truncate = unsafe extern "C" fn(c_int, i64) -> c_int;
type Map = unsafe extern "C" fn(*mut c_void, usize, c_int, c_int, c_int, i64) -> *mut c_void;
type Open = unsafe extern "C" fn(*const c_char, c_int, libc::mode_t) -> c_int;
type Read = unsafe extern "C" fn(c_int, *mut c_void, usize, i64) -> isize;
type Control = unsafe extern "C" fn(c_int, c_int, usize) -> c_int;
type Unlink = unsafe extern "C" fn(*const c_char) -> c_int;
type Rename = unsafe extern "C" fn(*const c_char, *const c_char) -> c_int;

/// # Safety
/// `path` is a C string.
unsafe fn fails(path: *const c_char, doing: Doing) -> Option<c_int> {
    // SAFETY: by the caller.
    let path = unsafe { CStr::from_ptr(path) };
    let path = Path::new(OsStr::from_bytes(path.to_bytes()));
    verdict_on(path, doing).map(|(_, errno)| errno)
}

// SAFETY (of all names and bodies here): each replaces the function of that name
// with one of the same type, which hands on what it was given, or fails as that
// function may. `open` and `fcntl` take a variable number of arguments; the one
// that may be missing is passed in a register either way, and looked at only by
// who gave it.

macro_rules! truncate {
    ($name:ident, $symbol:literal) => {
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $name(descriptor: c_int, size: i64) -> c_int {
            let real = next!($symbol as Truncate);
            match verdict(descriptor, Doing::Truncating) {
                Some((_, errno)) => fail(errno),
                // SAFETY: see above.
                None => unsafe { real(descriptor, size) },
            }
        }
    };
}
truncate!(ftruncate, c"ftruncate");
truncate!(ftruncate64, c"ftruncate64");

macro_rules! map {
    ($name:ident, $symbol:literal) => {
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $name(
            at: *mut c_void,
            size: usize,
            protection: c_int,
            flags: c_int,
            descriptor: c_int,
            offset: i64,
        ) -> *mut c_void {
            let real = next!($symbol as Map);
            let verdict = (descriptor >= 0).then(|| verdict(descriptor, Doing::Mapping));
            match verdict.flatten() {
                Some((_, errno)) => {
                    fail(errno);
                    libc::MAP_FAILED
                }
                // SAFETY: see above.
                None => unsafe { real(at, size, protection, flags, descriptor, offset) },
            }
        }
    };
}
map!(mmap, c"mmap");
map!(mmap64, c"mmap64");

macro_rules! open {
    ($name:ident, $symbol:literal) => {
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $name(path: *const c_char, flags: c_int, mode: libc::mode_t) -> c_int {
            let real = next!($symbol as Open);
            // SAFETY: see above.
            unsafe {
                match fails(path, Doing::Opening) {
                    Some(errno) => fail(errno),
                    None => real(path, flags, mode),
                }
            }
        }
    };
}
open!(open, c"open");
open!(open64, c"open64");

macro_rules! read {
    ($name:ident, $symbol:literal) => {
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $name(
            descriptor: c_int,
            to: *mut c_void,
            count: usize,
            at: i64,
        ) -> isize {
            let real = next!($symbol as Read);
            match verdict(descriptor, Doing::Reading) {
                Some((_, errno)) => fail(errno) as isize,
                // SAFETY: see above.
                None => unsafe { real(descriptor, to, count, at) },
            }
        }
    };
}
read!(pread, c"pread");
read!(pread64, c"pread64");

macro_rules! control {
    ($name:ident, $symbol:literal) => {
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $name(descriptor: c_int, command: c_int, argument: usize) -> c_int {
            let real = next!($symbol as Control);
            // Only what takes a lock: to let one go does not fail.
            let takes = command == libc::F_SETLK && {
                // SAFETY: with this command the argument is the address of a lock.
                let lock = unsafe { &*(argument as *const libc::flock) };
                lock.l_type != libc::F_UNLCK as i16
            };
            let verdict = takes.then(|| verdict(descriptor, Doing::Locking));
            match verdict.flatten() {
                Some((_, errno)) => fail(errno),
                // SAFETY: see above.
                None => unsafe { real(descriptor, command, argument) },
            }
        }
    };
}
control!(fcntl, c"fcntl");
control!(fcntl64, c"fcntl64");

#[unsafe(no_mangle)]
unsafe extern "C" fn unlink(path: *const c_char) -> c_int {
    let real = next!(c"unlink" as Unlink);
    // SAFETY: see above.
    unsafe {
        match fails(path, Doing::Naming) {
            Some(errno) => fail(errno),
            None => real(path),
        }
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn rename(from: *const c_char, to: *const c_char) -> c_int {
    let real = next!(c"rename" as Rename);
    // SAFETY: see above.
    unsafe {
        match fails(to, Doing::Naming) {
            Some(errno) => fail(errno),
            None => real(from, to),
        }
    }
}
