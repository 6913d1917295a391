//! `Options::read_only`: everything that can be read is read, nothing is written,
//! and what cannot be read is told in words.
#![cfg(unix)]

mod common;

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};

use common::{block_on, child, in_child};
use onepen::{Database, Error, ErrorKind, Journal, Migrations, Options, Result};

const TABLE: &str = "CREATE TABLE t(n INTEGER); INSERT INTO t VALUES (7)";

fn reading() -> Options {
    Options::new().read_only(true)
}

fn seven(db: &Database) -> Result<i64> {
    db.query_row("SELECT n FROM t", (), |row| row.get(0))
}

/// A database that nobody has open.
fn closed(dir: &Path, journal: Journal) -> PathBuf {
    let path = dir.join("a.db");
    let db = Options::new()
        .journal(journal)
        .gate(false)
        .open(&path)
        .unwrap();
    db.write(|tx| tx.execute_batch(TABLE)).unwrap();
    drop(db);
    // Left behind by TRUNCATE, empty.
    let _ = std::fs::remove_file(dir.join("a.db-journal"));
    assert_eq!(names(dir).len(), 1, "{:?}", names(dir));
    path
}

fn names(dir: &Path) -> BTreeSet<String> {
    let entries = std::fs::read_dir(dir).unwrap();
    let name = |entry: std::io::Result<std::fs::DirEntry>| {
        entry.unwrap().file_name().into_string().unwrap()
    };
    entries.map(name).collect()
}

fn refused<T>(answer: Result<T>, kind: ErrorKind) -> Error {
    let error = answer.map(drop).expect_err("must be refused");
    assert_eq!(error.kind(), kind, "{error}");
    error
}

#[test]
fn no_call_writes_and_nothing_is_made_beside_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = closed(dir.path(), Journal::Rollback);
    let db = reading().open(&path).unwrap();
    let insert = "INSERT INTO t VALUES (8)";
    let not_allowed = |answer: Result<()>| {
        let error = refused(answer, ErrorKind::NotAllowed);
        assert!(
            error.to_string().contains("opened for reading only"),
            "{error}"
        );
    };
    not_allowed(db.execute(insert, ()).map(drop));
    not_allowed(db.execute_many(insert, [()]).map(drop));
    not_allowed(db.write(|_| Ok(())));
    not_allowed(db.write_once(|_| Ok(())));
    not_allowed(db.exclusively(|_| Ok(())));
    not_allowed(db.submit(|_| Ok(())).map(drop));
    not_allowed(db.with().key("k").execute(insert, ()).map(drop));
    not_allowed(db.outcome_of("k").map(drop));
    not_allowed(block_on(db.execute_async(insert, ())).map(drop));
    not_allowed(block_on(db.execute_many_async(insert, vec![()])).map(drop));
    not_allowed(block_on(db.write_async(|_| Ok(()))));
    not_allowed(block_on(db.write_once_async(|_| Ok(()))));
    not_allowed(block_on(db.exclusively_async(|_| Ok(()))));
    not_allowed(block_on(db.submit_async(|_| Ok(()))).map(drop));
    let by_sql = db.query_row("INSERT INTO t VALUES (8) RETURNING n", (), |_| Ok(()));
    refused(by_sql, ErrorKind::NotAllowed);
    let same = reading().migrations(Migrations::new().step("one", "CREATE TABLE u(n)"));
    not_allowed(same.open(&path).map(drop));

    assert_eq!(seven(&db).unwrap(), 7);
    assert_eq!(
        db.read(|tx| tx.query_row("SELECT n FROM t", (), |row| row.get::<_, i64>(0)))
            .unwrap(),
        7
    );
    assert_eq!(
        db.snapshot()
            .unwrap()
            .query_row("SELECT n FROM t", (), |row| row.get::<_, i64>(0))
            .unwrap(),
        7
    );
    assert_eq!(names(dir.path()).len(), 1);
    drop(db);
    assert_eq!(names(dir.path()).len(), 1);
}

#[test]
fn what_is_not_there_or_no_database_is_said_at_open() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("missing.db");
    let error = refused(reading().open(&missing), ErrorKind::Io);
    assert!(error.to_string().contains("missing.db"), "{error}");
    assert!(!missing.exists(), "looking must not create");

    let text = dir.path().join("text.db");
    std::fs::write(
        &text,
        "all work and no play makes a dull database ".repeat(99),
    )
    .unwrap();
    for options in [
        reading(),
        reading().journal(Journal::Rollback),
        Options::new(),
    ] {
        let error = refused(options.open(&text), ErrorKind::Sqlite);
        assert!(error.to_string().contains("not a database"), "{error}");
    }
    // Nothing at all is an empty database, says SQLite.
    let empty = dir.path().join("empty.db");
    std::fs::write(&empty, "").unwrap();
    let db = reading().open(&empty).unwrap();
    let none: i64 = db
        .query_row("SELECT count(*) FROM sqlite_schema", (), |row| row.get(0))
        .unwrap();
    assert_eq!(none, 0);
    drop(db);
    assert_eq!(
        names(dir.path()),
        ["empty.db", "text.db"].map(String::from).into()
    );
}

/// Runs the test `name` again, as somebody to whom the directory belongs in no
/// way, when this process could do everything.
fn as_nobody(name: &str, argument: &Path) {
    let mut command = child(name, argument);
    let copy = tempfile::tempdir().unwrap();
    // SAFETY: asks for a number.
    if unsafe { libc::geteuid() } == 0 {
        // The test program itself may be out of reach for nobody.
        open_to_all(copy.path());
        let program = copy.path().join("test");
        std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
        let mut copied = std::process::Command::new(program);
        copied.args(command.get_args());
        copied.env("ONEPEN_TEST_CHILD", argument);
        copied.uid(65534).gid(65534).current_dir("/");
        command = copied;
    }
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.contains("1 passed"),
        "{said}"
    );
}

fn open_to_all(dir: &Path) {
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o755)).unwrap();
}

/// Nobody may write here, and everybody read.
fn lock(dir: &Path) {
    for name in names(dir) {
        let mode = std::fs::Permissions::from_mode(0o444);
        std::fs::set_permissions(dir.join(name), mode).unwrap();
    }
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o555)).unwrap();
}

#[test]
fn without_the_right_to_write_a_rollback_database_is_read() {
    if let Some(path) = in_child() {
        let db = reading().open(path).unwrap();
        assert_eq!(seven(&db).unwrap(), 7);
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = closed(dir.path(), Journal::Rollback);
    lock(dir.path());
    as_nobody(
        "without_the_right_to_write_a_rollback_database_is_read",
        &path,
    );
    assert_eq!(names(dir.path()).len(), 1);
    open_to_all(dir.path());
}

#[test]
fn without_the_right_to_write_a_write_ahead_database_needs_its_log_or_says_so() {
    if let Some(path) = in_child() {
        let alone = !path.with_extension("db-wal").exists();
        let opened = reading().open(path);
        if alone {
            let error = opened.expect_err("there is no log, and none can be made");
            assert_eq!(error.kind(), ErrorKind::Sqlite, "{error}");
            assert!(error.to_string().contains("read-only media"), "{error}");
        } else {
            let db = opened.unwrap();
            assert_eq!(seven(&db).unwrap(), 7);
            let twice =
                db.read(|tx| tx.query_row("SELECT 2 * n FROM t", (), |row| row.get::<_, i64>(0)));
            assert_eq!(twice.unwrap(), 14);
        }
        return;
    }
    let name = "without_the_right_to_write_a_write_ahead_database_needs_its_log_or_says_so";
    let dir = tempfile::tempdir().unwrap();
    let path = closed(dir.path(), Journal::Wal);
    lock(dir.path());
    as_nobody(name, &path);
    open_to_all(dir.path());

    // With somebody who has it open for writing the log is there.
    let mode = std::fs::Permissions::from_mode(0o644);
    std::fs::set_permissions(&path, mode).unwrap();
    let writer = Database::open(&path).unwrap();
    writer.execute("UPDATE t SET n = n", ()).unwrap();
    lock(dir.path());
    as_nobody(name, &path);
    open_to_all(dir.path());
}

#[test]
fn a_crashed_transaction_that_cannot_be_taken_back_is_said_so() {
    if let Some(path) = in_child() {
        let error = reading().open(path).expect_err("the journal is hot");
        assert_eq!(error.kind(), ErrorKind::Sqlite, "{error}");
        assert!(error.to_string().contains("rollback journal"), "{error}");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = closed(dir.path(), Journal::Rollback);
    common::crash_beside(&path);
    // For nobody, and for somebody who could but was told not to.
    let error = refused(reading().open(&path), ErrorKind::Sqlite);
    assert!(
        error
            .to_string()
            .contains("open the database once for writing"),
        "{error}"
    );
    lock(dir.path());
    as_nobody(
        "a_crashed_transaction_that_cannot_be_taken_back_is_said_so",
        &path,
    );
    open_to_all(dir.path());
    for name in names(dir.path()) {
        let mode = std::fs::Permissions::from_mode(0o644);
        std::fs::set_permissions(dir.path().join(name), mode).unwrap();
    }
    drop(
        Options::new()
            .journal(Journal::Rollback)
            .open(&path)
            .unwrap(),
    );
    assert_eq!(seven(&reading().open(&path).unwrap()).unwrap(), 7);
}
