//! Back from a copy.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use onepen::backup::restore;
use onepen::{Database, ErrorKind};
use rusqlite::Connection;

use super::common::{Scene, crash_beside};
use super::{beside, names, pair, scene, write};

/// Writes once more and dies, so that it stays in the log.
pub fn leave_a_log(path: &Path) {
    let script = "import os, sqlite3, sys
c = sqlite3.connect(sys.argv[1], isolation_level=None)
c.execute('PRAGMA journal_mode=WAL')
c.execute('UPDATE pair SET n = n + 1')
os._exit(0)";
    let ran = Command::new("python3")
        .args(["-c", script])
        .arg(path)
        .status()
        .unwrap();
    assert!(ran.success());
    assert!(fs::metadata(beside(path, "-wal")).unwrap().len() > 0);
}

/// A scene with a copy of its first state, and its database closed.
fn closed() -> (Scene, PathBuf, PathBuf) {
    let scene = scene();
    let copy = scene.dir().join("copy.db");
    scene.db.backup_to(&copy).run().unwrap();
    write(&scene.db);
    scene.db.close();
    let path = scene.path();
    (scene, path, copy)
}

#[test]
fn a_database_is_put_back_and_can_be_used_at_once() {
    let (scene, app, copy) = closed();
    assert_eq!(
        restore(&copy, &app).run().unwrap_err().kind(),
        ErrorKind::Refused
    );
    assert_eq!(pair(&app), (1, 1));
    restore(&copy, &app).replace(true).run().unwrap();
    let db = Database::open(&app).unwrap();
    write(&db);
    db.close();
    assert_eq!(pair(&app), (1, 1));
    assert_eq!(names(scene.dir()), ["copy.db"], "the copy is as it was");
    assert_eq!(pair(&copy), (0, 0));
}

#[test]
fn it_is_refused_while_this_process_has_the_target_open() {
    let scene = scene();
    let copy = scene.dir().join("copy.db");
    scene.db.backup_to(&copy).run().unwrap();
    let app = scene.path();
    let refused = |whom: &str| {
        let error = restore(&copy, &app).replace(true).run().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Refused);
        assert!(error.to_string().contains(whom), "{error}");
    };
    refused("this very program");
    let snapshot = scene.db.snapshot().unwrap();
    scene.db.close();
    refused("this very program"); // a snapshot outlives its handle
    drop(snapshot);
    // Another library's connection, which rests and has no lock.
    let other = Connection::open(&app).unwrap();
    other.execute_batch("PRAGMA journal_mode = DELETE").unwrap();
    refused("this very program");
    // And it still has the locks that it takes: they are this process's.
    other
        .execute_batch("BEGIN IMMEDIATE; UPDATE pair SET n = 7")
        .unwrap();
    refused("this very program");
    let second = Connection::open(&app).unwrap();
    second.execute_batch("UPDATE pair SET n = 8").unwrap_err();
    other.execute_batch("COMMIT").unwrap();
    drop((other, second));
    restore(&copy, &app).replace(true).run().unwrap();
    assert_eq!(pair(&app), (0, 0));
}

#[test]
fn it_is_refused_while_another_process_has_the_target_open_and_that_one_is_named() {
    for journal in ["wal", "delete"] {
        let (_scene, app, copy) = closed();
        let script = format!(
            "import sqlite3, sys
c = sqlite3.connect(sys.argv[1], isolation_level=None)
c.execute('PRAGMA journal_mode={journal}')
c.execute('SELECT count(*) FROM pair').fetchall()
print('open', flush=True)
sys.stdin.read()"
        );
        let mut stranger = Command::new("python3")
            .args(["-c", &script])
            .arg(&app)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        std::io::BufRead::read_line(
            &mut std::io::BufReader::new(stranger.stdout.as_mut().unwrap()),
            &mut line,
        )
        .unwrap();
        let error = restore(&copy, &app).replace(true).run().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Refused);
        let text = error.to_string();
        assert!(
            text.contains(&format!("pid {}", stranger.id())),
            "{journal}: {text}"
        );
        drop(stranger.stdin.take());
        stranger.wait().unwrap();
        assert_eq!(pair(&app), (1, 1));
        restore(&copy, &app).replace(true).run().unwrap();
        assert_eq!(pair(&app), (0, 0));
    }
}

#[test]
fn somebody_who_opened_it_during_the_work_keeps_it() {
    let (scene, app, copy) = closed();
    let mut opened = None;
    let error = restore(&copy, &app)
        .replace(true)
        .progress(|_| {
            opened.get_or_insert_with(|| {
                let connection = Connection::open(&app).unwrap();
                connection.execute_batch("UPDATE pair SET n = 9").unwrap();
                connection
            });
        })
        .run()
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    drop(opened);
    assert_eq!(pair(&app), (9, 9));
    assert_eq!(names(scene.dir()), ["copy.db"]);
}

#[test]
fn the_log_of_the_replaced_database_is_never_applied_to_the_new_one() {
    let (scene, app, copy) = closed();
    leave_a_log(&app);
    restore(&copy, &app).replace(true).run().unwrap();
    for ending in ["-wal", "-shm", "-journal"] {
        assert!(!beside(&app, ending).exists(), "{ending}");
    }
    assert_eq!(pair(&app), (0, 0));
    drop(scene);
}

#[test]
fn nor_is_its_rollback_journal() {
    let dir = tempfile::tempdir().unwrap();
    let (app, copy) = (dir.path().join("app.db"), dir.path().join("copy.db"));
    for path in [&app, &copy] {
        let made = Connection::open(path).unwrap();
        made.execute_batch("CREATE TABLE t(n); INSERT INTO t VALUES (1)")
            .unwrap();
    }
    crash_beside(&app);
    restore(&copy, &app).replace(true).run().unwrap();
    assert!(!beside(&app, "-journal").exists());
    let sum: i64 = Connection::open(&app)
        .unwrap()
        .query_row("SELECT sum(n) FROM t", (), |row| row.get(0))
        .unwrap();
    assert_eq!(sum, 1);
}

#[test]
fn a_damaged_database_is_replaced_but_not_while_a_journal_belongs_to_it() {
    let (_scene, app, copy) = closed();
    leave_a_log(&app);
    spoil(&app);
    restore(&copy, &app).replace(true).run().unwrap();
    assert!(!beside(&app, "-wal").exists());
    assert_eq!(pair(&app), (0, 0));
    spoil(&app);
    // What SQLite cannot judge is left for its owner to judge.
    let journal = beside(&app, "-journal");
    fs::write(&journal, [0; 600]).unwrap();
    let error = restore(&copy, &app).replace(true).run().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert!(error.to_string().contains("away"), "{error}");
    assert_eq!(fs::read(&journal).unwrap(), [0; 600]);
    fs::remove_file(&journal).unwrap();
    restore(&copy, &app).replace(true).run().unwrap();
    assert_eq!(pair(&app), (0, 0));
}

/// Makes it a file that is no database.
fn spoil(path: &Path) {
    use std::os::unix::fs::FileExt;
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(&[7; 100], 0).unwrap();
}

#[test]
fn any_descriptor_of_the_target_is_seen() {
    let (_scene, app, copy) = closed();
    let old = fs::File::open(&app).unwrap();
    let refused = restore(&copy, &app).replace(true).run().unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Refused);
    drop(old);
    restore(&copy, &app).replace(true).run().unwrap();
}

#[test]
fn a_copy_that_is_in_use_itself_can_be_restored() {
    let (_scene, app, copy) = closed();
    let user = Database::open(&copy).unwrap();
    write(&user);
    write(&user);
    restore(&copy, &app).replace(true).run().unwrap();
    assert_eq!(pair(&app), (2, 2), "with what is in its log");
    let missing = restore(app.with_extension("missing"), &app)
        .replace(true)
        .run()
        .unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::Io);
    assert!(
        missing.to_string().contains("no such database"),
        "{missing}"
    );
}
