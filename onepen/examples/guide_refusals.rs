//! Two ways in which a file has two SQLites that do not know of each other, what that
//! does to it, and what onepen says first.
//!
//! ```text
//! cargo run -p onepen --example guide_refusals
//! ```

use std::path::Path;

use onepen::Options;
use onepen::refusals::check;
use rusqlite::Connection;

pub(crate) fn main() -> onepen::Result<()> {
    let dir = tempfile::tempdir().map_err(onepen::Error::other)?;
    two_names(dir.path())?;
    #[cfg(target_os = "linux")]
    two_libraries(&dir.path().join("b.db"))?;
    Ok(())
}

const TABLE: &str = "PRAGMA journal_mode=WAL; CREATE TABLE a(n)";

/// A second name for the same file: each name has a log of its own, and what is
/// in one the other does not find. (Two processes would not even get the error:
/// each would go on with its own log.)
fn two_names(dir: &Path) -> onepen::Result<()> {
    let (one, two) = (dir.join("a.db"), dir.join("also-a.db"));
    let first = Connection::open(&one)?;
    first.execute_batch(TABLE)?;
    std::fs::hard_link(&one, &two).map_err(onepen::Error::other)?;
    first.execute_batch("INSERT INTO a VALUES (1)")?;
    let count = |c: &Connection| c.query_row("SELECT count(*) FROM a", (), |row| row.get(0));
    let by_one: i64 = count(&first)?;
    let by_two: Result<i64, _> = count(&Connection::open(&two)?);
    println!("two names: {by_one} row by the one, and by the other: {by_two:?}");
    assert!(by_one == 1 && by_two.is_err());

    let refused = check(&one, &Options::new())?;
    println!("refused: {}\n", refused[0].message);
    assert!(onepen::Database::open(&one).is_err());
    Ok(())
}

/// The system's SQLite beside the one that is linked: the kernel takes them for
/// one, and gives both the write lock.
#[cfg(target_os = "linux")]
fn two_libraries(path: &Path) -> onepen::Result<()> {
    let first = Connection::open(path)?;
    first.execute_batch(TABLE)?;
    let second = second::open(path);
    first.execute_batch("BEGIN IMMEDIATE; INSERT INTO a VALUES (1)")?;
    let code = second.run(c"BEGIN IMMEDIATE");
    println!("two libraries: one has the write lock; the other asks for it and is told {code}");
    assert_eq!(code, 0, "SQLITE_OK");
    second.run(c"ROLLBACK");
    first.execute_batch("COMMIT")?;
    drop(first);

    let refused = onepen::Database::open(path).unwrap_err();
    println!("refused: {refused}");
    assert_eq!(refused.kind(), onepen::ErrorKind::Refused);
    Ok(())
}

/// As much of another SQLite as one needs to see it lock.
#[cfg(target_os = "linux")]
mod second {
    use std::ffi::{CStr, CString, c_char, c_int, c_void};
    use std::os::unix::ffi::OsStrExt;
    use std::path::Path;
    use std::ptr::{null, null_mut};

    pub(super) struct Second(*mut c_void, *mut c_void);

    fn symbol(library: *mut c_void, name: &CStr) -> *mut c_void {
        // SAFETY: the library is loaded, and stays.
        let symbol = unsafe { libc::dlsym(library, name.as_ptr()) };
        assert!(!symbol.is_null(), "{name:?}");
        symbol
    }

    pub(super) fn open(path: &Path) -> Second {
        type Open = unsafe extern "C" fn(*const c_char, *mut *mut c_void) -> c_int;
        let path = CString::new(path.as_os_str().as_bytes()).unwrap();
        // SAFETY: SQLite's function of that name, with its arguments.
        unsafe {
            let library = libc::dlopen(c"libsqlite3.so.0".as_ptr(), libc::RTLD_NOW);
            assert!(
                !library.is_null(),
                "this program needs the system's libsqlite3.so.0"
            );
            let open: Open = std::mem::transmute(symbol(library, c"sqlite3_open"));
            let mut handle = null_mut();
            assert_eq!(open(path.as_ptr(), &raw mut handle), 0);
            Second(library, handle)
        }
    }

    impl Second {
        pub(super) fn run(&self, sql: &CStr) -> c_int {
            type Exec = unsafe extern "C" fn(
                *mut c_void,
                *const c_char,
                *const c_void,
                *mut c_void,
                *mut c_void,
            ) -> c_int;
            // SAFETY: SQLite's function of that name, over its own handle.
            unsafe {
                let exec: Exec = std::mem::transmute(symbol(self.0, c"sqlite3_exec"));
                exec(self.1, sql.as_ptr(), null(), null_mut(), null_mut())
            }
        }
    }
}
