//! What is written down of SQLite's C interface, against the bindings that are made
//! from its headers and against the table that a linked SQLite hands out.
#![cfg(unix)]

use std::ffi::{CStr, c_char, c_int, c_void};
use std::mem::offset_of;
use std::sync::atomic::{AtomicPtr, Ordering};

use onepen_vfs::sqlite::{File, IoMethods, Vfs};
use rusqlite::ffi;

#[test]
fn files_and_their_methods_are_laid_out_as_in_sqlites_header() {
    assert_eq!(size_of::<File>(), size_of::<ffi::sqlite3_file>());
    assert_eq!(size_of::<IoMethods>(), size_of::<ffi::sqlite3_io_methods>());
    macro_rules! same {
        ($($ours:ident $theirs:ident),* $(,)?) => {$(
            assert_eq!(
                offset_of!(IoMethods, $ours),
                offset_of!(ffi::sqlite3_io_methods, $theirs),
                stringify!($theirs)
            );
        )*};
    }
    same!(
        version iVersion, close xClose, read xRead, write xWrite, truncate xTruncate,
        sync xSync, file_size xFileSize, lock xLock, unlock xUnlock,
        check_reserved_lock xCheckReservedLock, file_control xFileControl,
        sector_size xSectorSize, device_characteristics xDeviceCharacteristics,
        shm_map xShmMap, shm_lock xShmLock, shm_barrier xShmBarrier,
        shm_unmap xShmUnmap, fetch xFetch, unfetch xUnfetch,
    );
}

#[test]
fn a_vfs_is_laid_out_as_in_sqlites_header() {
    assert_eq!(size_of::<Vfs>(), size_of::<ffi::sqlite3_vfs>());
    macro_rules! same {
        ($($ours:ident $theirs:ident),* $(,)?) => {$(
            assert_eq!(
                offset_of!(Vfs, $ours),
                offset_of!(ffi::sqlite3_vfs, $theirs),
                stringify!($theirs)
            );
        )*};
    }
    same!(
        version iVersion, file_size szOsFile, max_path mxPathname, next pNext, name zName,
        app_data pAppData, open xOpen, delete xDelete, access xAccess,
        full_pathname xFullPathname, dl_open xDlOpen, dl_error xDlError, dl_sym xDlSym,
        dl_close xDlClose, randomness xRandomness, sleep xSleep, current_time xCurrentTime,
        get_last_error xGetLastError, current_time_int64 xCurrentTimeInt64,
        set_system_call xSetSystemCall, get_system_call xGetSystemCall,
        next_system_call xNextSystemCall,
    );
}

static TABLE: AtomicPtr<c_void> = AtomicPtr::new(std::ptr::null_mut());

unsafe extern "C" fn keep(
    _db: *mut ffi::sqlite3,
    _error: *mut *mut c_char,
    api: *const ffi::sqlite3_api_routines,
) -> c_int {
    TABLE.store(api.cast_mut().cast(), Ordering::SeqCst);
    0
}

#[test]
fn the_functions_stand_where_they_are_looked_for_in_the_table_of_extensions() {
    // SAFETY: `keep` is what SQLite calls for each connection that is opened.
    unsafe {
        #[allow(
            clippy::missing_transmute_annotations,
            reason = "the type of the argument differs between versions of the bindings"
        )]
        let rc = ffi::sqlite3_auto_extension(Some(std::mem::transmute(keep as *const ())));
        assert_eq!(rc, 0);
    }
    drop(rusqlite::Connection::open_in_memory().unwrap());
    let table = TABLE.load(Ordering::SeqCst).cast::<*const c_void>();
    assert!(!table.is_null());
    let linked: [*const (); onepen_vfs::FUNCTIONS] = [
        ffi::sqlite3_libversion_number as *const (),
        ffi::sqlite3_vfs_find as *const (),
        ffi::sqlite3_vfs_register as *const (),
        ffi::sqlite3_uri_parameter as *const (),
        ffi::sqlite3_get_autocommit as *const (),
        ffi::sqlite3_next_stmt as *const (),
        ffi::sqlite3_stmt_busy as *const (),
        ffi::sqlite3_stmt_readonly as *const (),
        ffi::sqlite3_sql as *const (),
        ffi::sqlite3_txn_state as *const (),
        ffi::sqlite3_db_name as *const (),
        ffi::sqlite3_file_control as *const (),
        ffi::sqlite3_malloc as *const (),
    ];
    for (index, (slot, function)) in onepen_vfs::SLOTS.iter().zip(linked).enumerate() {
        // SAFETY: the table has all slots of this version.
        let found = unsafe { table.add(*slot).read() };
        assert_eq!(
            found.cast::<()>(),
            function,
            "{:?}",
            onepen_vfs::NAMES[index]
        );
    }
}

#[test]
fn the_names_to_look_up_end_with_a_null() {
    let count = onepen_vfs::FUNCTIONS as c_int;
    for index in 0..count {
        // SAFETY: names are strings of this library.
        let name = unsafe { CStr::from_ptr(onepen_vfs::onepen_vfs_function(index)) };
        assert!(name.to_bytes().starts_with(b"sqlite3_"));
    }
    assert!(onepen_vfs::onepen_vfs_function(count).is_null());
    assert!(onepen_vfs::onepen_vfs_function(-1).is_null());
}
