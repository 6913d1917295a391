//! What makes a path, a library or a cache unfit, provoked for real.

#![cfg(target_os = "linux")]

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::Command;

use onepen::refusals::{Reason, Refusal, check, second_libraries, shared_cache};
use onepen::status::{Marks, connection_status};
use onepen::threading::{MultiThread, Serialized};
use onepen::{Database, ErrorKind, Journal, Options};
use rusqlite::{Connection, OpenFlags};

/// Runs `scene` in a process of its own: what is loaded stays loaded.
fn alone(test: &str, scene: impl FnOnce()) {
    const ALONE: &str = "ONEPEN_ALONE";
    if std::env::var_os(ALONE).is_some() {
        return scene();
    }
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(ALONE, "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&child.stdout);
    assert!(
        child.status.success() && said.contains("1 passed"),
        "{said}{}",
        String::from_utf8_lossy(&child.stderr)
    );
}

/// The system's SQLite, loaded beside the one that is linked.
struct Second {
    library: *mut c_void,
    handle: *mut c_void,
    /// What the names of its functions begin with.
    prefix: &'static str,
}

impl Second {
    fn load() -> Self {
        Self::load_from(c"libsqlite3.so.0")
    }

    /// A driver with a SQLite in it, and hidden there: the one that is linked into
    /// this test as well.
    fn load_hidden(dir: &Path) -> Self {
        let (source, driver) = (dir.join("driver.c"), dir.join("driver.so"));
        let code = "int sqlite3_open(const char*, void**);\n\
            int sqlite3_exec(void*, const char*, void*, void*, char**);\n\
            int driver_open(const char *path, void **db) { return sqlite3_open(path, db); }\n\
            int driver_exec(void *db, const char *sql, void *f, void *a, char **e)\n\
            { return sqlite3_exec(db, sql, f, a, e); }\n";
        std::fs::write(&source, code).unwrap();
        let made = Command::new("cc")
            .args(["-shared", "-fPIC", "-Wl,--exclude-libs,ALL", "-o"])
            .args([&driver, &source, &linked_library()])
            .args(["-lm", "-lpthread", "-ldl"])
            .output()
            .expect("this test needs a C compiler");
        let said = String::from_utf8_lossy(&made.stderr);
        assert!(made.status.success(), "{said}");
        Self {
            prefix: "driver",
            ..Self::load_from(&CString::new(driver.as_os_str().as_bytes()).unwrap())
        }
    }

    fn load_from(name: &CStr) -> Self {
        // SAFETY: the library's constructors do nothing.
        let library = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW) };
        assert!(
            !library.is_null(),
            "this test needs the system's libsqlite3.so.0"
        );
        Self {
            library,
            handle: std::ptr::null_mut(),
            prefix: "sqlite3",
        }
    }

    fn symbol(&self, name: &str) -> *mut c_void {
        let name = CString::new(format!("{}_{name}", self.prefix)).unwrap();
        // SAFETY: a live library.
        let symbol = unsafe { libc::dlsym(self.library, name.as_ptr()) };
        assert!(!symbol.is_null(), "{name:?}");
        symbol
    }

    fn open(&mut self, path: &Path) {
        type Open = unsafe extern "C" fn(*const c_char, *mut *mut c_void) -> c_int;
        let path = CString::new(path.as_os_str().as_bytes()).unwrap();
        // SAFETY: SQLite's function of that name.
        let code = unsafe {
            let open: Open = std::mem::transmute(self.symbol("open"));
            open(path.as_ptr(), &raw mut self.handle)
        };
        assert_eq!(code, 0);
    }

    fn run(&self, sql: &CStr) -> c_int {
        type Exec = unsafe extern "C" fn(
            *mut c_void,
            *const c_char,
            *const c_void,
            *mut c_void,
            *mut *mut c_char,
        ) -> c_int;
        // SAFETY: SQLite's function of that name, over its own handle.
        unsafe {
            let exec: Exec = std::mem::transmute(self.symbol("exec"));
            let null = std::ptr::null_mut();
            exec(self.handle, sql.as_ptr(), null, null, std::ptr::null_mut())
        }
    }
}

/// The archive that cargo linked into this test.
fn linked_library() -> std::path::PathBuf {
    let test = std::env::current_exe().unwrap();
    let built = test.parent().unwrap().parent().unwrap().join("build");
    let archives = std::fs::read_dir(&built).unwrap().flatten();
    archives
        .map(|package| package.path().join("out/libsqlite3.a"))
        .find(|archive| archive.exists())
        .unwrap_or_else(|| panic!("no libsqlite3.a below {}", built.display()))
}

fn reasons(found: &[Refusal]) -> Vec<Reason> {
    found.iter().map(|refusal| refusal.reason).collect()
}

const TABLE: &str = "PRAGMA journal_mode=WAL; CREATE TABLE a(n); INSERT INTO a VALUES (1)";

#[test]
fn two_sqlite_libraries_in_one_process_both_get_the_write_lock() {
    // Why it is refused: this is what happens without the refusal.
    alone(
        "two_sqlite_libraries_in_one_process_both_get_the_write_lock",
        || {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("a.db");
            let ours = Connection::open(&path).unwrap();
            ours.execute_batch(TABLE).unwrap();
            let mut second = Second::load();
            second.open(&path);
            ours.execute_batch("BEGIN IMMEDIATE").unwrap();
            // Two writers at once. One library would have said SQLITE_BUSY:
            assert_eq!(second.run(c"BEGIN IMMEDIATE"), 0);
            let third = Connection::open(&path).unwrap();
            third.busy_timeout(std::time::Duration::ZERO).unwrap();
            third.execute_batch("BEGIN IMMEDIATE").unwrap_err();
        },
    );
}

#[test]
fn a_second_library_that_has_the_file_open_is_refused_before_it_is_opened() {
    let test = "a_second_library_that_has_the_file_open_is_refused_before_it_is_opened";
    alone(test, || {
        let dir = tempfile::tempdir().unwrap();
        for (journal, name) in [(Journal::Wal, "a.db"), (Journal::Rollback, "b.db")] {
            let path = dir.path().join(name);
            let mut second = Second::load();
            let libraries = second_libraries();
            assert_eq!(libraries.len(), 1, "{libraries:?}");
            assert!(libraries[0].version.starts_with("3."), "{libraries:?}");
            // Loaded and elsewhere: no harm.
            let options = || Options::new().journal(journal);
            let db = options().open(&path).unwrap();
            db.execute("CREATE TABLE a(n)", ()).unwrap();
            // Another handle, and opening again, are the same library's.
            drop(options().open(&path).unwrap());
            db.close();
            drop(db);

            second.open(&path);
            assert_eq!(second.run(c"BEGIN IMMEDIATE"), 0);
            let error = options().open(&path).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
            let text = error.to_string();
            assert!(
                text.contains("libsqlite3.so") && text.contains("any_sqlite"),
                "{text}"
            );
            // And its locks are unharmed by the refusal: a process that looks sees it.
            let other = Command::new("python3")
                .args(["-c", "import sqlite3, sys; sqlite3.connect(sys.argv[1], timeout=0).execute('BEGIN IMMEDIATE')"])
                .arg(&path)
                .output()
                .unwrap();
            let said = String::from_utf8_lossy(&other.stderr).into_owned();
            assert!(said.contains("database is locked"), "{said}");
            let accepted = options()
                .any_sqlite(true)
                .wait(std::time::Duration::ZERO)
                .open(&path);
            assert_ne!(
                accepted.err().map(|error| error.kind()),
                Some(ErrorKind::Refused)
            );
        }
    });
}

#[test]
fn a_hidden_library_that_has_the_file_open_is_refused_before_it_is_opened() {
    let test = "a_hidden_library_that_has_the_file_open_is_refused_before_it_is_opened";
    alone(test, || {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.db");
        assert_eq!(second_libraries(), []);
        let mut hidden = Second::load_hidden(dir.path());
        let libraries = second_libraries();
        assert_eq!(libraries.len(), 1, "{libraries:?}");
        assert!(libraries[0].path.ends_with("driver.so"), "{libraries:?}");
        assert!(libraries[0].version.starts_with("of 20"), "{libraries:?}");

        // Over a rollback journal nothing else tells.
        hidden.open(&path);
        assert_eq!(hidden.run(c"CREATE TABLE a(n); BEGIN IMMEDIATE"), 0);
        let error = Options::new().journal(Journal::Rollback).open(&path);
        assert_eq!(error.unwrap_err().kind(), ErrorKind::Refused);
        assert_eq!(hidden.run(c"COMMIT"), 0);
    });
}

#[test]
fn a_second_library_that_came_later_is_found_by_asking_again() {
    alone(
        "a_second_library_that_came_later_is_found_by_asking_again",
        || {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("a.db");
            let db = Database::open(&path).unwrap();
            db.execute("CREATE TABLE a(n)", ()).unwrap();
            // Any number of connections of the one library are one descriptor.
            let more: Vec<_> = (0..3).map(|_| Connection::open(&path).unwrap()).collect();
            for connection in &more {
                connection
                    .query_row("SELECT count(*) FROM a", (), |_| Ok(()))
                    .unwrap();
            }
            assert_eq!(check(&path, &Options::new()).unwrap(), []);
            let mut second = Second::load();
            assert_eq!(check(&path, &Options::new()).unwrap(), []);
            second.open(&path);
            assert_eq!(second.run(c"SELECT * FROM a"), 0);
            let found = check(&path, &Options::new()).unwrap();
            assert_eq!(reasons(&found), [Reason::SecondLibrary]);
            assert!(found[0].message.contains("libsqlite3.so"), "{found:?}");
            assert_eq!(check(&path, &Options::new().any_sqlite(true)).unwrap(), []);
        },
    );
}

#[test]
fn a_copy_of_sqlite_without_a_name_is_noticed_by_what_it_has_open() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.db");
    let elsewhere = Connection::open(&path).unwrap();
    elsewhere.execute_batch(TABLE).unwrap();
    // Another connection of this library is no reason.
    drop(Database::open(&path).unwrap());
    let hidden = std::fs::File::open(dir.path().join("a.db-shm")).unwrap();
    let error = Database::open(&path).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
    assert!(error.to_string().contains("hidden"), "{error}");
    // By whatever name.
    let link = dir.path().join("link.db");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    for path in [&path, &link] {
        let found = check(path, &Options::new()).unwrap();
        assert_eq!(reasons(&found), [Reason::SecondLibrary]);
    }
    drop(hidden);
    assert_eq!(check(&path, &Options::new()).unwrap(), []);
}

#[test]
fn a_shared_cache_is_told_and_not_adopted() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.db");
    let flags = |mutex| OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | mutex;
    let open = |flags| Connection::open_with_flags(&path, flags).unwrap();
    let shared =
        || open(flags(OpenFlags::SQLITE_OPEN_NO_MUTEX) | OpenFlags::SQLITE_OPEN_SHARED_CACHE);
    let (one, two) = (shared(), shared());
    one.execute_batch("CREATE TABLE a(n); INSERT INTO a VALUES (1)")
        .unwrap();

    // What nobody deserves: LOCKED, at once, whatever the timeout.
    two.busy_timeout(std::time::Duration::from_secs(3600))
        .unwrap();
    one.execute_batch("BEGIN; INSERT INTO a VALUES (2)")
        .unwrap();
    let error = two
        .query_row("SELECT n FROM a", (), |_| Ok(()))
        .unwrap_err();
    let code = error.sqlite_error().unwrap().extended_code;
    assert_eq!(code, rusqlite::ffi::SQLITE_LOCKED_SHAREDCACHE);
    one.execute_batch("COMMIT").unwrap();

    assert_eq!(shared_cache(&one).unwrap_err().kind(), ErrorKind::Refused);
    assert!(MultiThread::adopt(two).is_err());
    let uri = format!("file:{}?cache=shared", path.display());
    let by_uri = Connection::open_with_flags(
        uri,
        flags(OpenFlags::SQLITE_OPEN_FULL_MUTEX) | OpenFlags::SQLITE_OPEN_URI,
    );
    assert!(Serialized::adopt(by_uri.unwrap()).is_err());
    drop(one);
    shared_cache(&open(flags(OpenFlags::SQLITE_OPEN_NO_MUTEX))).unwrap();
}

#[test]
fn connections_are_private_even_where_sharing_was_made_the_default() {
    alone(
        "connections_are_private_even_where_sharing_was_made_the_default",
        || {
            // SAFETY: nobody else is in this process.
            unsafe { rusqlite::ffi::sqlite3_enable_shared_cache(1) };
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("a.db");
            let db = Database::open(&path).unwrap();
            db.execute("CREATE TABLE a(n)", ()).unwrap();
            let own = [
                MultiThread::open(&path).unwrap(),
                MultiThread::open(&path).unwrap(),
            ];
            for connection in &own {
                connection
                    .query_row("SELECT count(*) FROM a", (), |_| Ok(()))
                    .unwrap();
            }
            let private = |connection: &Connection| {
                let status = connection_status(connection, Marks::Keep).unwrap();
                status.cache > 0 && status.cache == status.cache_shared
            };
            assert!(own.iter().all(|connection| private(connection)));
            assert!(db.exclusively(|c| Ok(private(c))).unwrap());
            // The default did take effect for those who do not say.
            let (one, two) = (
                Connection::open(&path).unwrap(),
                Connection::open(&path).unwrap(),
            );
            for connection in [&one, &two] {
                connection
                    .query_row("SELECT count(*) FROM a", (), |_| Ok(()))
                    .unwrap();
            }
            assert!(!private(&one) && !private(&two));
        },
    );
}

#[test]
fn all_reasons_are_given_and_nothing_is_made() {
    let dir = tempfile::tempdir().unwrap();
    let (path, other) = (dir.path().join("a.db"), dir.path().join("b.db"));
    assert_eq!(check(&path, &Options::new()).unwrap(), []);
    assert!(!path.exists());
    std::fs::write(&path, "").unwrap();
    std::fs::hard_link(&path, &other).unwrap();
    let found = check(&path, &Options::new()).unwrap();
    assert_eq!(reasons(&found), [Reason::HardLinks]);
    let opened = Database::open(&path).unwrap_err();
    assert_eq!(opened.to_string(), found[0].message);
    assert_eq!(
        reasons(&check(dir.path(), &Options::new()).unwrap()),
        [Reason::NotAFile]
    );
    // Accepting a file system accepts no directory.
    let lenient = Options::new().any_file_system(true);
    assert_eq!(
        reasons(&check("/proc/self", &lenient).unwrap()),
        [Reason::NotAFile]
    );
    let missing = check(dir.path().join("no/a.db"), &Options::new()).unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::Io);
}
