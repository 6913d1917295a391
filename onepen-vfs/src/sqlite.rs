//! The parts of SQLite's C interface that a VFS needs, written down by hand.
//!
//! No SQLite is linked: a second library in a process would lose the first one's
//! locks, and the bindings of `libsqlite3-sys` refuse the SQLite of Debian 12. The
//! layouts are those of `sqlite3.h` and `sqlite3ext.h`, which SQLite only ever
//! appends to; `tests/layout.rs` compares them with the bindings and with the
//! table that a linked SQLite hands out.

use std::ffi::{c_char, c_int, c_void};

#[repr(C)]
pub struct Db {
    _opaque: [u8; 0],
}

#[repr(C)]
pub struct Stmt {
    _opaque: [u8; 0],
}

/// `sqlite3_file`.
#[repr(C)]
pub struct File {
    pub methods: *const IoMethods,
}

type Method0 = unsafe extern "C" fn(*mut File) -> c_int;
type Method1<A> = unsafe extern "C" fn(*mut File, A) -> c_int;
type Method2<A, B> = unsafe extern "C" fn(*mut File, A, B) -> c_int;
type Method3<A, B, C> = unsafe extern "C" fn(*mut File, A, B, C) -> c_int;
type Method4<A, B, C, D> = unsafe extern "C" fn(*mut File, A, B, C, D) -> c_int;

/// `sqlite3_io_methods`, to version 3.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct IoMethods {
    pub version: c_int,
    pub close: Option<Method0>,
    pub read: Option<Method3<*mut c_void, c_int, i64>>,
    pub write: Option<Method3<*const c_void, c_int, i64>>,
    pub truncate: Option<Method1<i64>>,
    pub sync: Option<Method1<c_int>>,
    pub file_size: Option<Method1<*mut i64>>,
    pub lock: Option<Method1<c_int>>,
    pub unlock: Option<Method1<c_int>>,
    pub check_reserved_lock: Option<Method1<*mut c_int>>,
    pub file_control: Option<Method2<c_int, *mut c_void>>,
    pub sector_size: Option<Method0>,
    pub device_characteristics: Option<Method0>,
    // Version 2.
    pub shm_map: Option<Method4<c_int, c_int, c_int, *mut *mut c_void>>,
    pub shm_lock: Option<Method3<c_int, c_int, c_int>>,
    pub shm_barrier: Option<unsafe extern "C" fn(*mut File)>,
    pub shm_unmap: Option<Method1<c_int>>,
    // Version 3.
    pub fetch: Option<Method3<i64, c_int, *mut *mut c_void>>,
    pub unfetch: Option<Method2<i64, *mut c_void>>,
}

/// What `xDlSym` answers.
pub type Symbol = Option<unsafe extern "C" fn(*mut Vfs, *mut c_void, *const c_char)>;
/// `sqlite3_syscall_ptr`.
pub type SystemCall = Option<unsafe extern "C" fn()>;

type Vfs0 = unsafe extern "C" fn(*mut Vfs) -> c_int;

/// `sqlite3_vfs`, to version 3.
#[repr(C)]
pub struct Vfs {
    pub version: c_int,
    pub file_size: c_int,
    pub max_path: c_int,
    pub next: *mut Vfs,
    pub name: *const c_char,
    pub app_data: *mut c_void,
    pub open: Option<
        unsafe extern "C" fn(*mut Vfs, *const c_char, *mut File, c_int, *mut c_int) -> c_int,
    >,
    pub delete: Option<unsafe extern "C" fn(*mut Vfs, *const c_char, c_int) -> c_int>,
    pub access: Option<unsafe extern "C" fn(*mut Vfs, *const c_char, c_int, *mut c_int) -> c_int>,
    pub full_pathname:
        Option<unsafe extern "C" fn(*mut Vfs, *const c_char, c_int, *mut c_char) -> c_int>,
    pub dl_open: Option<unsafe extern "C" fn(*mut Vfs, *const c_char) -> *mut c_void>,
    pub dl_error: Option<unsafe extern "C" fn(*mut Vfs, c_int, *mut c_char)>,
    pub dl_sym: Option<unsafe extern "C" fn(*mut Vfs, *mut c_void, *const c_char) -> Symbol>,
    pub dl_close: Option<unsafe extern "C" fn(*mut Vfs, *mut c_void)>,
    pub randomness: Option<unsafe extern "C" fn(*mut Vfs, c_int, *mut c_char) -> c_int>,
    pub sleep: Option<unsafe extern "C" fn(*mut Vfs, c_int) -> c_int>,
    pub current_time: Option<unsafe extern "C" fn(*mut Vfs, *mut f64) -> c_int>,
    pub get_last_error: Option<unsafe extern "C" fn(*mut Vfs, c_int, *mut c_char) -> c_int>,
    // Version 2.
    pub current_time_int64: Option<unsafe extern "C" fn(*mut Vfs, *mut i64) -> c_int>,
    // Version 3.
    pub set_system_call: Option<unsafe extern "C" fn(*mut Vfs, *const c_char, SystemCall) -> c_int>,
    pub get_system_call: Option<unsafe extern "C" fn(*mut Vfs, *const c_char) -> SystemCall>,
    pub next_system_call: Option<unsafe extern "C" fn(*mut Vfs, *const c_char) -> *const c_char>,
}

const _: () = assert!(size_of::<Vfs0>() == size_of::<*const c_void>());

pub const OK: c_int = 0;
pub const ERROR: c_int = 1;
pub const BUSY: c_int = 5;
pub const NOMEM: c_int = 7;
pub const IOERR: c_int = 10;
pub const NOTFOUND: c_int = 12;
pub const MISUSE: c_int = 21;
pub const OK_LOAD_PERMANENTLY: c_int = 256;

pub const OPEN_READONLY: c_int = 0x1;
pub const OPEN_MAIN_DB: c_int = 0x100;

pub const SHM_UNLOCK: c_int = 1;
pub const SHM_LOCK: c_int = 2;
pub const SHM_SHARED: c_int = 4;
pub const SHM_EXCLUSIVE: c_int = 8;

/// Slots of the wal-index (`wal.c`).
pub const SLOT_WRITE: c_int = 0;
pub const SLOT_CHECKPOINT: c_int = 1;
pub const SLOT_READ: c_int = 3;
pub const SLOTS: c_int = 8;

pub const LOCK_NONE: c_int = 0;
pub const LOCK_SHARED: c_int = 1;
pub const LOCK_RESERVED: c_int = 2;

pub const FCNTL_PRAGMA: c_int = 14;
pub const FCNTL_BUSYHANDLER: c_int = 15;
pub const FCNTL_FILE_POINTER: c_int = 7;
pub const FCNTL_PDB: c_int = 30;
pub const FCNTL_LOCK_TIMEOUT: c_int = 34;

/// `SQLITE_TXN_NONE`.
pub const TXN_NONE: c_int = 0;
