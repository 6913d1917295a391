//! The table of methods that SQLite calls on a file of ours, and what it tells by file
//! controls. Each enters Rust under a guard: no panic crosses into C.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::mem::ManuallyDrop;
use std::ptr::null;

use super::shm::NEITHER;
use super::{Busy, Open, Wrapped, below, parts};
use crate::guard::guard;
use crate::sqlite::{self, Db, File, IoMethods};

/// Our methods over those of a file below: of the same version, with the same ones
/// missing, because SQLite asks for what is there.
pub(super) fn methods(model: &IoMethods) -> IoMethods {
    let two = model.version >= 2;
    let three = model.version >= 3;
    IoMethods {
        version: model.version.clamp(1, 3),
        close: Some(close),
        read: Some(read),
        write: Some(write),
        truncate: Some(truncate),
        sync: Some(sync),
        file_size: Some(file_size),
        lock: Some(lock),
        unlock: Some(unlock),
        check_reserved_lock: Some(check_reserved_lock),
        file_control: Some(file_control),
        sector_size: model.sector_size.and(Some(sector_size)),
        device_characteristics: model
            .device_characteristics
            .and(Some(device_characteristics)),
        shm_map: if two {
            model.shm_map.and(Some(shm_map))
        } else {
            None
        },
        shm_lock: if two {
            model.shm_lock.and(Some(shm_lock))
        } else {
            None
        },
        shm_barrier: if two {
            model.shm_barrier.and(Some(shm_barrier))
        } else {
            None
        },
        shm_unmap: if two {
            model.shm_unmap.and(Some(shm_unmap))
        } else {
            None
        },
        fetch: if three {
            model.fetch.and(Some(fetch))
        } else {
            None
        },
        unfetch: if three {
            model.unfetch.and(Some(unfetch))
        } else {
            None
        },
    }
}

/// Whether these are the methods of a file of ours. (Another copy of this library has
/// functions of its own.)
///
/// # Safety
/// Has to be null or methods of a file that is open.
pub(super) unsafe fn is_ours(methods: *const IoMethods) -> bool {
    // SAFETY: not null, so methods.
    !methods.is_null()
        && unsafe { (*methods).close }
            .is_some_and(|its| its as *const c_void == close as *const c_void)
}

/// A call of the file below with the same arguments.
macro_rules! below {
    ($($name:ident($($argument:ident: $type:ty),*) $(-> $answer:ty, $none:expr)?;)*) => {$(
        unsafe extern "C" fn $name(file: *mut File, $($argument: $type),*) $(-> $answer)? {
            // SAFETY: SQLite calls it with a file of ours that is open and with
            // arguments for this very method, which the file below takes as well.
            unsafe {
                let below = below(file);
                match (*(*below).methods).$name {
                    Some(method) => method(below, $($argument),*),
                    None => { $($none)? }
                }
            }
        }
    )*};
}

below! {
    read(into: *mut c_void, bytes: c_int, offset: i64) -> c_int, sqlite::IOERR;
    write(from: *const c_void, bytes: c_int, offset: i64) -> c_int, sqlite::IOERR;
    truncate(bytes: i64) -> c_int, sqlite::IOERR;
    sync(flags: c_int) -> c_int, sqlite::IOERR;
    file_size(bytes: *mut i64) -> c_int, sqlite::IOERR;
    check_reserved_lock(found: *mut c_int) -> c_int, sqlite::IOERR;
    sector_size() -> c_int, 0;
    device_characteristics() -> c_int, 0;
    shm_barrier();
    fetch(offset: i64, bytes: c_int, at: *mut *mut c_void) -> c_int, sqlite::IOERR;
    unfetch(offset: i64, at: *mut c_void) -> c_int, sqlite::IOERR;
}

unsafe extern "C" fn close(file: *mut File) -> c_int {
    let wrapped = file.cast::<Wrapped>();
    // SAFETY: SQLite closes an open file once; after that it does not touch it.
    let open = unsafe { Box::from_raw((*wrapped).open) };
    guard((), || open.end());
    // SAFETY: the file below is open, and is closed here once.
    let rc = unsafe {
        let close = (*(*open.below).methods).close;
        (*wrapped).file.methods = null();
        close.map_or(sqlite::OK, |close| close(open.below))
    };
    // The seat's drop passes a turn on.
    let mut open = ManuallyDrop::new(open);
    guard((), || {
        // SAFETY: it is dropped here and nowhere else.
        unsafe { ManuallyDrop::drop(&mut open) };
    });
    rc
}

unsafe extern "C" fn shm_lock(file: *mut File, offset: c_int, n: c_int, flags: c_int) -> c_int {
    // SAFETY: SQLite calls it with a file of ours that is open.
    let open = unsafe { parts(file) };
    if open.is_short(offset, flags)
        && let Some(rc) = open.short_shm_lock(offset, n, flags)
    {
        return rc;
    }
    guarded_shm_lock(open, offset, n, flags)
}

/// Apart, because it would weigh down the short way. (Of the C interface, so that it is
/// known not to panic.)
#[inline(never)]
extern "C" fn guarded_shm_lock(open: &Open, offset: c_int, n: c_int, flags: c_int) -> c_int {
    guard(sqlite::IOERR, || open.shm_lock(offset, n, flags))
}

unsafe extern "C" fn shm_map(
    file: *mut File,
    region: c_int,
    size: c_int,
    extend: c_int,
    at: *mut *mut c_void,
) -> c_int {
    // SAFETY: as above; the arguments are SQLite's.
    unsafe {
        let open = parts(file);
        let Some(shm_map) = (*(*open.below).methods).shm_map else {
            return sqlite::IOERR;
        };
        let rc = shm_map(open.below, region, size, extend, at);
        if region == 0 && rc == sqlite::OK && !at.is_null() {
            open.index.set((*at).cast::<u64>().cast_const());
        }
        rc
    }
}

unsafe extern "C" fn shm_unmap(file: *mut File, delete: c_int) -> c_int {
    // SAFETY: as above.
    let open = unsafe { parts(file) };
    guard((), || open.end());
    // SAFETY: as above.
    unsafe {
        let shm_unmap = (*(*open.below).methods).shm_unmap;
        shm_unmap.map_or(sqlite::OK, |shm_unmap| shm_unmap(open.below, delete))
    }
}

unsafe extern "C" fn lock(file: *mut File, level: c_int) -> c_int {
    // SAFETY: as above.
    let open = unsafe { parts(file) };
    guard(sqlite::IOERR, || open.lock(level))
}

unsafe extern "C" fn unlock(file: *mut File, level: c_int) -> c_int {
    // SAFETY: as above.
    let open = unsafe { parts(file) };
    guard(sqlite::IOERR, || open.unlock(level))
}

unsafe extern "C" fn file_control(file: *mut File, code: c_int, argument: *mut c_void) -> c_int {
    let ours = matches!(
        code,
        sqlite::FCNTL_PDB
            | sqlite::FCNTL_BUSYHANDLER
            | sqlite::FCNTL_PRAGMA
            | sqlite::FCNTL_LOCK_TIMEOUT
    );
    // SAFETY: as above.
    if ours && let Some(rc) = unsafe { guarded_file_control(parts(file), code, argument) } {
        return rc;
    }
    // SAFETY: as above.
    unsafe {
        let below = below(file);
        let file_control = (*(*below).methods).file_control;
        file_control.map_or(sqlite::NOTFOUND, |file_control| {
            file_control(below, code, argument)
        })
    }
}

/// Those of which we want to know; what of it could panic is guarded. `None`: the file
/// below does, too.
///
/// # Safety
/// The argument has to be what SQLite gives with this code.
#[cold]
unsafe fn guarded_file_control(open: &Open, code: c_int, argument: *mut c_void) -> Option<c_int> {
    match code {
        sqlite::FCNTL_PDB if !argument.is_null() => {
            open.db.set(argument.cast::<*mut Db>());
            open.short.set(NEITHER);
        }
        sqlite::FCNTL_BUSYHANDLER if !argument.is_null() => {
            // SAFETY: for this code the argument is an array of two pointers, a
            // function and what it takes, to be used for as long as the file is open.
            open.busy.set(unsafe {
                let pair = argument.cast::<*mut c_void>();
                let handler = pair.read();
                (!handler.is_null()).then(|| Busy {
                    handler: std::mem::transmute::<
                        *mut c_void,
                        unsafe extern "C" fn(*mut c_void) -> c_int,
                    >(handler),
                    argument: pair.add(1).read(),
                })
            });
        }
        sqlite::FCNTL_PRAGMA if !argument.is_null() => {
            // SAFETY: for this code the argument is an array of three strings: where
            // the answer goes, the name, and the value or null.
            let [name, value] = unsafe {
                let strings = argument.cast::<*const c_char>();
                [strings.add(1).read(), strings.add(2).read()]
            };
            if !name.is_null() {
                // SAFETY: not null, so strings of SQLite's.
                let name = unsafe { CStr::from_ptr(name) }.to_bytes();
                // SAFETY: as above.
                let value = (!value.is_null()).then(|| unsafe { CStr::from_ptr(value) }.to_bytes());
                if let Some(answer) = guard(None, || open.pragma(name, value)) {
                    let answer = answer.to_bytes_with_nul();
                    // SAFETY: SQLite frees the answer as its own memory; it is
                    // copied into as much as was asked for.
                    unsafe {
                        let copy = (open.served.host.malloc)(answer.len() as c_int);
                        if copy.is_null() {
                            return Some(sqlite::NOMEM);
                        }
                        std::ptr::copy_nonoverlapping(answer.as_ptr(), copy.cast(), answer.len());
                        argument.cast::<*mut c_void>().write(copy);
                    }
                    return Some(sqlite::OK);
                }
            }
        }
        // Where SQLite would block in a lock itself it would do so out of turn.
        sqlite::FCNTL_LOCK_TIMEOUT if !open.through.get() => return Some(sqlite::NOTFOUND),
        _ => {}
    }
    None
}
