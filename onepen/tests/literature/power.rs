//! What is left after a loss of power: what was flushed, and nothing else.
//!
//! A VFS that is SQLite's own but for three functions: when SQLite flushes a file,
//! its contents go to a second directory, the *disk*, and what it removes is
//! removed there. A loss of power at any moment leaves the disk at its worst, and
//! that can be opened and counted. (A real disk may have more than was flushed. It
//! cannot have less, if it honours a flush.)

use std::collections::HashMap;
use std::ffi::{CStr, c_char, c_int};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, Once};

use rusqlite::{Connection, OpenFlags, ffi};

use super::{rows, run};

const NAME: &CStr = c"keeps-what-was-flushed";

type Sync = unsafe extern "C" fn(*mut ffi::sqlite3_file, c_int) -> c_int;
type Open = unsafe extern "C" fn(
    *mut ffi::sqlite3_vfs,
    *const c_char,
    *mut ffi::sqlite3_file,
    c_int,
    *mut c_int,
) -> c_int;

type Delete = unsafe extern "C" fn(*mut ffi::sqlite3_vfs, *const c_char, c_int) -> c_int;

/// SQLite's own functions, and the path of each open file.
struct Own {
    open: Open,
    delete: Delete,
    sync: HashMap<usize, (Sync, PathBuf)>,
}

static OWN: Mutex<Option<Own>> = Mutex::new(None);

unsafe extern "C" fn open(
    vfs: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    out: *mut c_int,
) -> c_int {
    let own = OWN.lock().unwrap().as_ref().unwrap().open;
    // SAFETY: SQLite's arguments, for SQLite's function. A file that was opened
    // has a table of functions; it gets a copy with one of them replaced, which
    // is never freed, because a few bytes of a test are no loss.
    unsafe {
        let code = own(vfs, name, file, flags, out);
        if code == ffi::SQLITE_OK && !name.is_null() && !(*file).pMethods.is_null() {
            let mut methods = Box::new(*(*file).pMethods);
            let path = PathBuf::from(CStr::from_ptr(name).to_str().unwrap());
            let mut guard = OWN.lock().unwrap();
            let known = &mut guard.as_mut().unwrap().sync;
            known.insert(file.addr(), (methods.xSync.unwrap(), path));
            methods.xSync = Some(sync);
            (*file).pMethods = Box::leak(methods);
        }
        code
    }
}

unsafe extern "C" fn sync(file: *mut ffi::sqlite3_file, flags: c_int) -> c_int {
    let (own, path) = OWN.lock().unwrap().as_ref().unwrap().sync[&file.addr()].clone();
    // SAFETY: SQLite's argument, for the function it would have called.
    let code = unsafe { own(file, flags) };
    std::fs::copy(&path, on_disk(&path)).unwrap();
    code
}

unsafe extern "C" fn delete(
    vfs: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    flush: c_int,
) -> c_int {
    let own = OWN.lock().unwrap().as_ref().unwrap().delete;
    // SAFETY: SQLite's arguments, for SQLite's function.
    unsafe {
        let _ = std::fs::remove_file(on_disk(Path::new(CStr::from_ptr(name).to_str().unwrap())));
        own(vfs, name, flush)
    }
}

fn on_disk(path: &Path) -> PathBuf {
    path.parent()
        .unwrap()
        .join("disk")
        .join(path.file_name().unwrap())
}

fn register() {
    static ONCE: Once = Once::new();
    // SAFETY: a copy of SQLite's default VFS, under another name, with one
    // function replaced; it is never freed.
    ONCE.call_once(|| unsafe {
        let default = ffi::sqlite3_vfs_find(std::ptr::null());
        let mut vfs = Box::new(*default);
        *OWN.lock().unwrap() = Some(Own {
            open: vfs.xOpen.unwrap(),
            delete: vfs.xDelete.unwrap(),
            sync: HashMap::new(),
        });
        vfs.xOpen = Some(open);
        vfs.xDelete = Some(delete);
        vfs.zName = NAME.as_ptr();
        vfs.pNext = std::ptr::null_mut();
        assert_eq!(ffi::sqlite3_vfs_register(Box::leak(vfs), 0), ffi::SQLITE_OK);
    });
}

/// Commits five rows, and returns how many are left after a loss of power.
fn left_of_five(journal: &str, synchronous: &str) -> i64 {
    register();
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("disk")).unwrap();
    let path = dir.path().join("a.db");
    let connection =
        Connection::open_with_flags_and_vfs(&path, OpenFlags::default(), NAME).unwrap();
    run(
        &connection,
        &format!("PRAGMA journal_mode={journal}; PRAGMA synchronous=FULL"),
    );
    run(&connection, "CREATE TABLE a(n)");
    if journal == "WAL" {
        run(&connection, "PRAGMA wal_checkpoint(TRUNCATE)");
    }
    run(&connection, &format!("PRAGMA synchronous={synchronous}"));
    for n in 0..5 {
        // Each is acknowledged.
        connection
            .execute("INSERT INTO a VALUES (?1)", (n,))
            .unwrap();
    }
    assert_eq!(rows(&connection), 5);
    // Now the power goes.
    let after = Connection::open(on_disk(&path)).unwrap();
    let check: String = after
        .query_row("PRAGMA integrity_check", (), |row| row.get(0))
        .unwrap();
    assert_eq!(check, "ok");
    rows(&after)
}

/// "WAL with synchronous=NORMAL is safe", and is fast for it. It is consistent; it
/// is not durable.
#[test]
fn write_ahead_mode_with_synchronous_normal_loses_the_last_commits() {
    assert_eq!(left_of_five("WAL", "NORMAL"), 0);
    assert_eq!(left_of_five("WAL", "OFF"), 0);
    assert_eq!(left_of_five("WAL", "FULL"), 5);
    assert_eq!(left_of_five("DELETE", "FULL"), 5);
}
