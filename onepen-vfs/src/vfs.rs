//! The VFS itself: every call goes to the one that was the default when this was
//! registered. Opened databases are wrapped ([`crate::file`]), other files are not.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr::null_mut;

use crate::file;
use crate::guard::guard;
use crate::host::Host;
use crate::sqlite::{self, Symbol, SystemCall, Vfs};
use crate::waiting;

/// The name to ask for with `?vfs=onepen`.
pub const NAME: &CStr = c"onepen";

/// One registration, with one SQLite library. It lives as long as the process.
#[repr(C)]
pub struct Served {
    vfs: Vfs,
    /// The VFS that does the work.
    pub below: *mut Vfs,
    pub host: Host,
}

/// Registers the VFS with the library of `host`; as its default if `default`.
/// To do it again changes no more than that.
///
/// # Safety
/// `host` has to hold functions of one SQLite library, which stays loaded, as this
/// library has to.
pub unsafe fn register(host: Host, default: bool) -> c_int {
    // SAFETY: SQLite's own functions, with a name that ends in 0.
    let registered = unsafe { (host.vfs_find)(NAME.as_ptr()) };
    if !registered.is_null() {
        return if default {
            // SAFETY: it is in SQLite's list, so it may be registered again.
            unsafe { (host.vfs_register)(registered, 1) }
        } else {
            sqlite::OK
        };
    }
    // SAFETY: null asks for the default.
    let below = unsafe { (host.vfs_find)(std::ptr::null()) };
    if below.is_null() {
        return sqlite::ERROR;
    }
    // SAFETY: what SQLite has in its list is a VFS of the version it says.
    let model = unsafe { &*below };
    // Another thread, or another copy of this library, has just registered it. Never
    // one over the other: they would take turns from each other.
    // SAFETY: a VFS that is in SQLite's list has a name, which ends in 0.
    if !model.name.is_null() && unsafe { CStr::from_ptr(model.name) } == NAME {
        return sqlite::OK;
    }
    let of_version = |version| model.version >= version;
    let served = Box::new(Served {
        vfs: Vfs {
            version: model.version.clamp(1, 3),
            file_size: file::size(model.file_size),
            max_path: model.max_path,
            next: null_mut(),
            name: NAME.as_ptr(),
            app_data: null_mut(),
            open: Some(file::open),
            delete: Some(delete),
            access: Some(access),
            full_pathname: Some(full_pathname),
            dl_open: model.dl_open.and(Some(dl_open)),
            dl_error: model.dl_error.and(Some(dl_error)),
            dl_sym: model.dl_sym.and(Some(dl_sym)),
            dl_close: model.dl_close.and(Some(dl_close)),
            randomness: Some(randomness),
            sleep: Some(sleep),
            current_time: Some(current_time),
            get_last_error: model.get_last_error.and(Some(get_last_error)),
            current_time_int64: if of_version(2) {
                model.current_time_int64.and(Some(current_time_int64))
            } else {
                None
            },
            set_system_call: if of_version(3) {
                model.set_system_call.and(Some(set_system_call))
            } else {
                None
            },
            get_system_call: if of_version(3) {
                model.get_system_call.and(Some(get_system_call))
            } else {
                None
            },
            next_system_call: if of_version(3) {
                model.next_system_call.and(Some(next_system_call))
            } else {
                None
            },
        },
        below,
        host,
    });
    let served = Box::into_raw(served);
    // SAFETY: its first field is a VFS, and it is never freed.
    unsafe { (host.vfs_register)(served.cast(), c_int::from(default)) }
}

/// # Safety
/// `vfs` has to be one that [`register`] made.
pub unsafe fn served(vfs: *mut Vfs) -> &'static Served {
    // SAFETY: SQLite hands out the pointer it was given, which is to the first
    // field of a `Served` that is never freed.
    unsafe { &*vfs.cast::<Served>() }
}

/// A call of the VFS below with the same arguments.
macro_rules! below {
    ($($name:ident($($argument:ident: $type:ty),*) $(-> $answer:ty, $none:expr)?;)*) => {$(
        unsafe extern "C" fn $name(vfs: *mut Vfs, $($argument: $type),*) $(-> $answer)? {
            // SAFETY: SQLite calls it with our VFS and with arguments for this very
            // method, which the VFS below takes as well.
            unsafe {
                let below = served(vfs).below;
                match (*below).$name {
                    Some(method) => method(below, $($argument),*),
                    None => { $($none)? }
                }
            }
        }
    )*};
}

below! {
    delete(name: *const c_char, sync: c_int) -> c_int, sqlite::IOERR;
    access(name: *const c_char, flags: c_int, found: *mut c_int) -> c_int, sqlite::IOERR;
    full_pathname(name: *const c_char, size: c_int, out: *mut c_char) -> c_int, sqlite::IOERR;
    dl_open(name: *const c_char) -> *mut c_void, null_mut();
    dl_error(size: c_int, out: *mut c_char);
    dl_sym(library: *mut c_void, name: *const c_char) -> Symbol, None;
    dl_close(library: *mut c_void);
    randomness(size: c_int, out: *mut c_char) -> c_int, 0;
    current_time(out: *mut f64) -> c_int, sqlite::ERROR;
    get_last_error(size: c_int, out: *mut c_char) -> c_int, 0;
    current_time_int64(out: *mut i64) -> c_int, sqlite::ERROR;
    set_system_call(name: *const c_char, call: SystemCall) -> c_int, sqlite::NOTFOUND;
    get_system_call(name: *const c_char) -> SystemCall, None;
    next_system_call(name: *const c_char) -> *const c_char, std::ptr::null();
}

/// SQLite's own busy handler sleeps here, at a moment when its connection holds no
/// lock: the place to stand in line.
unsafe extern "C" fn sleep(vfs: *mut Vfs, microseconds: c_int) -> c_int {
    let waited = guard(false, || waiting::sleep(microseconds));
    if waited {
        return microseconds;
    }
    // SAFETY: as in `below!`.
    unsafe {
        let below = served(vfs).below;
        (*below).sleep.map_or(0, |sleep| sleep(below, microseconds))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::FUNCTIONS;
    use std::cell::Cell;

    thread_local! {
        static DEFAULT: Cell<*mut Vfs> = const { Cell::new(null_mut()) };
        static REGISTERED: Cell<u32> = const { Cell::new(0) };
    }

    /// Between its two questions another thread has registered one.
    unsafe extern "C" fn find(name: *const c_char) -> *mut Vfs {
        if name.is_null() {
            DEFAULT.get()
        } else {
            null_mut()
        }
    }

    unsafe extern "C" fn register_it(_: *mut Vfs, _: c_int) -> c_int {
        REGISTERED.set(REGISTERED.get() + 1);
        sqlite::OK
    }

    #[test]
    fn it_is_never_put_over_itself() {
        let functions = [find as *const c_void; FUNCTIONS];
        // SAFETY: of these only the two that are put in their places are called.
        let mut host = unsafe { Host::from_functions(&functions) }.unwrap();
        host.vfs_find = find;
        host.vfs_register = register_it;
        // SAFETY: zeros are a VFS without methods: numbers, and pointers that may be null.
        let mut default: Vfs = unsafe { std::mem::zeroed() };
        default.version = 3;
        for (name, registered) in [(c"unix", 1), (NAME, 0)] {
            default.name = name.as_ptr();
            DEFAULT.set(&raw mut default);
            REGISTERED.set(0);
            // SAFETY: what is registered is never used.
            assert_eq!(unsafe { register(host, true) }, sqlite::OK);
            assert_eq!(REGISTERED.get(), registered);
        }
    }
}
