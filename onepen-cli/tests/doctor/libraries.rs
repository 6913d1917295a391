//! Processes whose SQLite is wrong: two of them, one that is too old, one that was
//! carried into a child.

use std::process::Command;

use crate::common::json;
use crate::python::{Python, ROLLBACK, WAL, home};
use crate::{doctor, finding, is_about, names, says};

/// Loads a second copy of the library Python has, and opens the file with it.
const SECOND_LIBRARY: &str = "
import ctypes, shutil
one = next(l.split()[-1] for l in open('/proc/self/maps') if 'libsqlite3' in l)
two = os.path.join(os.path.dirname(path), 'another.so')
shutil.copy(one, two)
lib, db = ctypes.CDLL(two), ctypes.c_void_p()
lib.sqlite3_open(path.encode(), ctypes.byref(db))
lib.sqlite3_exec(db, b'SELECT count(*) FROM t', None, None, None)
gate()
";

#[test]
fn two_copies_of_sqlite_in_one_process_are_found() {
    for (mode, file) in [(WAL, "its -shm file"), (ROLLBACK, "the database")] {
        let (_home, path) = home();
        let user = Python::at_gate(&path, &format!("{mode}{SECOND_LIBRARY}"));
        let found = finding(&doctor(&path), "two-sqlite-libraries");
        is_about(&found, &user);
        says(
            &found,
            &[file, "open 2 times", "inferred", "libsqlite3", "another.so"],
        );
    }
}

#[test]
fn a_second_connection_of_the_same_library_is_no_second_copy() {
    let (_home, path) = home();
    let _user = Python::at_gate(
        &path,
        &format!("{WAL}\nd = connect(); d.execute('SELECT * FROM t').fetchall(); gate()"),
    );
    let found = names(&doctor(&path));
    assert!(
        !found.contains(&"two-sqlite-libraries".to_owned()),
        "{found:?}"
    );
}

#[test]
fn a_connection_carried_across_a_fork_has_lost_its_locks() {
    let (_home, path) = home();
    let mut parent = Python::at_gate(
        &path,
        &format!(
            "{WAL}
pipe = fork(lambda: c.execute('SELECT * FROM t').fetchall())
gate()"
        ),
    );
    parent.hears(); // both of them said so
    let found = finding(&doctor(&path), "locks-lost");
    says(&found, &["-shm file open and no lock on it"]);
    assert_ne!(found["pids"], serde_json::json!([parent.pid()]));
    assert_eq!(found["pids"].as_array().unwrap().len(), 1);
}

#[test]
fn a_sqlite_with_the_wal_reset_bug_is_found_and_a_newer_one_not() {
    let (_home, path) = home();
    let version = Command::new("python3")
        .args(["-c", "import sqlite3; print(sqlite3.sqlite_version)"])
        .output()
        .unwrap();
    let version = String::from_utf8(version.stdout).unwrap();
    let parts: Vec<u32> = version
        .trim()
        .split('.')
        .map(|it| it.parse().unwrap())
        .collect();
    let user = Python::at_gate(&path, &format!("{WAL}\ngate()"));
    let ran = doctor(&path);
    if parts < vec![3, 51, 3] {
        let found = finding(&ran, "wal-reset-bug");
        is_about(&found, &user);
        says(
            &found,
            &[&format!("SQLite {} (", version.trim()), "libsqlite3"],
        );
    } else {
        assert_eq!(names(&ran), [""; 0]);
    }
}

#[test]
fn a_shared_cache_is_found_where_the_arguments_ask_for_it() {
    let (_home, path) = home();
    let user = Python::at_gate(
        &path,
        "c = sqlite3.connect('file:' + path + '?cache=shared', uri=True)
c.execute('CREATE TABLE t(n)'); gate()",
    );
    let found = finding(&doctor(&path), "shared-cache");
    is_about(&found, &user);
    let secret = json(&doctor(&path)).to_string();
    assert!(
        !secret.contains("CREATE TABLE"),
        "arguments are not shown: {secret}"
    );
}
