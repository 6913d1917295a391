//! The functions that a SQLite compiled with `SQLITE_THREADSAFE=0` leaves out.
//!
//! Its header turns them into macros, so that C programs still compile; Rust
//! calls functions, and a program with rusqlite would not link. They do here
//! what the macros do: nothing. The feature is for such builds alone, and with
//! any other the linker refuses to have the functions twice.

use std::ffi::c_int;

use rusqlite::ffi;

use super::raw::NO_MUTEX;

#[unsafe(no_mangle)]
extern "C" fn sqlite3_mutex_alloc(_kind: c_int) -> *mut ffi::sqlite3_mutex {
    std::ptr::without_provenance_mut(NO_MUTEX)
}

#[unsafe(no_mangle)]
extern "C" fn sqlite3_mutex_free(_mutex: *mut ffi::sqlite3_mutex) {}

#[unsafe(no_mangle)]
extern "C" fn sqlite3_mutex_enter(_mutex: *mut ffi::sqlite3_mutex) {}

#[unsafe(no_mangle)]
extern "C" fn sqlite3_mutex_try(_mutex: *mut ffi::sqlite3_mutex) -> c_int {
    ffi::SQLITE_OK
}

#[unsafe(no_mangle)]
extern "C" fn sqlite3_mutex_leave(_mutex: *mut ffi::sqlite3_mutex) {}
