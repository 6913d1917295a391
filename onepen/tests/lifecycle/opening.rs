//! Opening: alike on every connection, and safe for all who open at once.

use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use onepen::{Database, ErrorKind, Options, WaitedFor};
use rusqlite::config::DbConfig;

use crate::common::{Scene, child, in_child};

#[test]
fn one_of_twenty_openers() {
    let Some(path) = in_child() else { return };
    let db = Database::open(path).unwrap();
    db.write(|tx| {
        tx.execute("CREATE TABLE IF NOT EXISTS t(pid INTEGER)", ())?;
        tx.execute("INSERT INTO t VALUES (?1)", (std::process::id(),))
    })
    .unwrap();
    let seen: i64 = db
        .query_row("SELECT count(*) FROM t", (), |row| row.get(0))
        .unwrap();
    assert!(seen >= 1);
}

#[test]
fn twenty_processes_open_a_new_file_together_without_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("new.db");
    let children: Vec<_> = (0..20)
        .map(|_| {
            child("opening::one_of_twenty_openers", &path)
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap()
        })
        .collect();
    for child in children {
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
    }
    let connection = rusqlite::Connection::open(&path).unwrap();
    let processes: i64 = connection
        .query_row("SELECT count(DISTINCT pid) FROM t", (), |row| row.get(0))
        .unwrap();
    assert_eq!(processes, 20);
}

#[test]
fn an_opener_in_its_directory() {
    let Some(path) = in_child() else { return };
    let db = Database::open(path).unwrap();
    db.execute("CREATE TABLE t(n)", ()).unwrap();
    let mode: String = db
        .write(|tx| tx.query_row("PRAGMA journal_mode", (), |row| row.get(0)))
        .unwrap();
    assert_eq!(mode, "wal", "a query parameter was obeyed");
}

/// SQLite takes a name that begins with `file:` for a URI, with parameters that
/// can switch locking off.
#[test]
fn a_path_that_looks_like_a_uri_is_a_path() {
    for name in [
        "file:x?nolock=1",
        "file:x?mode=memory",
        "file::memory:",
        ":memory:",
        "a%20b?c#d",
    ] {
        let dir = tempfile::tempdir().unwrap();
        let status = child("opening::an_opener_in_its_directory", Path::new(name))
            .current_dir(dir.path())
            .stdout(Stdio::null())
            .status()
            .unwrap();
        assert!(status.success(), "{name}");
        assert!(dir.path().join(name).is_file(), "{name}");
    }
}

/// `on_connect` runs last on each connection, so it sees what is in force there.
#[test]
fn every_connection_is_defensive_and_trusts_no_schema() {
    let connections = Arc::new(AtomicU32::new(0));
    let seen = Arc::clone(&connections);
    let options = crate::common::options()
        .readers(3)
        .on_connect(move |connection| {
            for (setting, wanted) in [
                (DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true),
                (DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false),
                (DbConfig::SQLITE_DBCONFIG_DQS_DDL, false),
                (DbConfig::SQLITE_DBCONFIG_DQS_DML, false),
                (DbConfig::SQLITE_DBCONFIG_ENABLE_FKEY, true),
            ] {
                assert_eq!(connection.db_config(setting)?, wanted, "{setting:?}");
            }
            for (pragma, wanted) in [
                ("wal_autocheckpoint", 0),
                ("synchronous", 2),
                ("busy_timeout", 0),
            ] {
                let is: i64 = connection.pragma_query_value(None, pragma, |row| row.get(0))?;
                assert_eq!(is, wanted, "{pragma}");
            }
            let mode: String =
                connection.pragma_query_value(None, "journal_mode", |row| row.get(0))?;
            assert_eq!(mode, "wal");
            seen.fetch_add(1, Ordering::Relaxed);
            Ok(())
        });
    let scene = Scene::with(options, "CREATE TABLE t(n)");
    let barrier = std::sync::Barrier::new(3);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let read = scene.db.read(|_| {
                    barrier.wait();
                    Ok(())
                });
                read.unwrap();
            });
        }
    });
    scene.db.exclusively(|_| Ok(())).unwrap();
    // One to write, three to read, one lent and one to write again.
    assert!(connections.load(Ordering::Relaxed) >= 6);
}

#[test]
fn a_string_in_double_quotes_is_a_name() {
    let scene = Scene::new("CREATE TABLE t(n)");
    let error = scene
        .db
        .execute("CREATE INDEX i ON t(\"no such\")", ())
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Sqlite);
    let query = "SELECT \"no such\"";
    for error in [
        scene
            .db
            .write(|tx| tx.query_row(query, (), |_| Ok(())))
            .unwrap_err(),
        scene
            .db
            .read(|tx| tx.query_row(query, (), |_| Ok(())))
            .unwrap_err(),
    ] {
        assert!(error.to_string().contains("no such column"), "{error}");
    }
}

#[test]
fn foreign_keys_are_enforced_unless_it_was_chosen_otherwise() {
    let schema = "CREATE TABLE p(id INTEGER PRIMARY KEY); CREATE TABLE c(p REFERENCES p(id));";
    let orphan = "INSERT INTO c VALUES (1)";
    let scene = Scene::new(schema);
    scene.db.execute(orphan, ()).unwrap_err();
    scene
        .db
        .exclusively(|connection| Ok(connection.execute(orphan, ())?))
        .unwrap_err();
    let scene = Scene::with(Options::new().foreign_keys(false), schema);
    scene.db.execute(orphan, ()).unwrap();
}

#[test]
fn a_stranger_in_exclusive_mode_is_waited_for_until_the_deadline() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("locked.db");
    let stranger = rusqlite::Connection::open(&path).unwrap();
    stranger
        .execute_batch(
            "PRAGMA locking_mode = EXCLUSIVE; CREATE TABLE t(n); INSERT INTO t VALUES (1)",
        )
        .unwrap();
    let soon = Duration::from_millis(50);
    let began = std::time::Instant::now();
    let error = Options::new().wait(soon).open(&path).unwrap_err();
    assert!(began.elapsed() >= soon, "{error}");
    assert_eq!(error.kind(), ErrorKind::DeadlineExceeded, "{error}");
    assert_eq!(error.waited().what, WaitedFor::Opening, "{error}");
    // Less than all of it: the file was looked at first.
    assert!(error.waited().how_long > soon / 2, "{error}");
    assert!(error.to_string().contains("locked.db"), "{error}");
    std::thread::scope(|scope| {
        let opening = scope.spawn(|| Database::open(&path));
        stranger.close().unwrap();
        opening
            .join()
            .unwrap()
            .unwrap()
            .execute("INSERT INTO t VALUES (2)", ())
            .unwrap();
    });
}

/// The child of the next test: says what locks it meets.
#[test]
fn a_stranger_who_tries_the_locks() {
    let Some(path) = in_child() else { return };
    let stranger = rusqlite::Connection::open(path).unwrap();
    stranger.busy_timeout(Duration::ZERO).unwrap();
    stranger
        .query_row("SELECT count(*) FROM t", (), |_| Ok(()))
        .unwrap();
    let write = stranger.execute_batch("BEGIN IMMEDIATE").unwrap_err();
    assert_eq!(
        write.sqlite_error_code(),
        Some(rusqlite::ErrorCode::DatabaseBusy)
    );
    // Needs the file without anybody else.
    let journal = stranger
        .query_row("PRAGMA journal_mode = DELETE", (), |_| Ok(()))
        .unwrap_err();
    assert_eq!(
        journal.sqlite_error_code(),
        Some(rusqlite::ErrorCode::DatabaseBusy)
    );
}

/// POSIX takes every lock of a process off a file when it closes *any* descriptor
/// of that file.
#[cfg(unix)]
#[test]
fn opening_a_file_that_is_open_drops_none_of_its_locks() {
    let scene = Scene::new("CREATE TABLE t(n)");
    let link = scene.dir().join("link.db");
    std::os::unix::fs::symlink(scene.path(), &link).unwrap();
    let hold = scene.hold();
    for path in [scene.path(), link] {
        let again = crate::common::options().open(&path).unwrap();
        again
            .read(|tx| tx.query_row("SELECT count(*) FROM t", (), |_| Ok(())))
            .unwrap();
        drop(again);
        let other = Options::new().readers(77).open(&path).unwrap_err();
        assert_eq!(other.kind(), ErrorKind::SettingsDiffer, "{other}");
        drop(Options::new().read_only(true).open(&path));
    }
    let _ = scene.db.stats();
    let output = child("opening::a_stranger_who_tries_the_locks", &scene.path())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    hold.release();
    // While somebody writes, that lock (it is on the shared memory) hides what
    // became of the one on the file itself, which says that somebody has it open.
    #[cfg(target_os = "linux")]
    {
        use std::os::unix::fs::MetadataExt;
        let file = format!(":{} ", std::fs::metadata(scene.path()).unwrap().ino());
        let locks = std::fs::read_to_string("/proc/locks").unwrap();
        assert!(
            locks.lines().any(|lock| lock.contains(&file)),
            "no lock on the file is left"
        );
    }
}
