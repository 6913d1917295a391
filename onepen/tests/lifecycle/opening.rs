//! Opening: alike on every connection, and safe for all who open at once.

use std::path::Path;
use std::process::Stdio;

use onepen::{Database, ErrorKind, Options};
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

#[test]
fn the_write_connection_is_defensive_and_trusts_no_schema() {
    let scene = Scene::new("");
    let check = |connection: &rusqlite::Connection| {
        for (setting, wanted) in [
            (DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true),
            (DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false),
            (DbConfig::SQLITE_DBCONFIG_DQS_DDL, false),
            (DbConfig::SQLITE_DBCONFIG_DQS_DML, false),
            (DbConfig::SQLITE_DBCONFIG_ENABLE_FKEY, true),
        ] {
            assert_eq!(
                connection.db_config(setting).unwrap(),
                wanted,
                "{setting:?}"
            );
        }
        for (pragma, wanted) in [
            ("wal_autocheckpoint", 0),
            ("synchronous", 2),
            ("mmap_size", 0),
        ] {
            let is: i64 = connection
                .pragma_query_value(None, pragma, |row| row.get(0))
                .unwrap_or(0);
            assert_eq!(is, wanted, "{pragma}");
        }
    };
    scene
        .db
        .exclusively(|connection| {
            check(connection);
            Ok(())
        })
        .unwrap();
    scene
        .db
        .write(|tx| {
            let error = tx
                .execute_batch("CREATE TABLE t(n DEFAULT \"text\")")
                .unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Sqlite);
            let error = tx
                .query_row("SELECT \"no such column\"", (), |_| Ok(()))
                .unwrap_err();
            assert!(error.to_string().contains("no such column"), "{error}");
            Ok(())
        })
        .unwrap();
}

#[test]
fn every_reader_has_the_same_settings() {
    let scene = Scene::with(crate::common::options().readers(3), "CREATE TABLE t(n)");
    let barrier = std::sync::Barrier::new(3);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                scene
                    .db
                    .read(|tx| {
                        barrier.wait();
                        let read = |pragma: &str| {
                            let sql = format!("PRAGMA {pragma}");
                            tx.query_row(&sql, (), |row| row.get::<_, i64>(0)).unwrap()
                        };
                        assert_eq!(read("trusted_schema"), 0);
                        assert_eq!(read("foreign_keys"), 1);
                        assert_eq!(read("query_only"), 1);
                        assert_eq!(read("wal_autocheckpoint"), 0);
                        let quoted = "SELECT \"no such column\"";
                        assert!(tx.query_row(quoted, (), |_| Ok(())).is_err());
                        barrier.wait();
                        Ok(())
                    })
                    .unwrap();
            });
        }
    });
    assert!(scene.db.stats().readers >= 3);
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
