//! Turns, as a program sees them.

use onepen::rusqlite::Connection;
use onepen::{Database, Journal, Options};

use crate::worker::{TABLE, Worker, options};

#[test]
fn a_long_write_sees_that_another_process_waits() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.db");
    let (mut a, mut b) = (Worker::of(&path, 0), Worker::of(&path, 1));
    assert_eq!(a.ask("write_until_others_wait"), "inside");
    b.tell("write");
    assert_eq!(a.hear(), "saw 1");
    assert_eq!(b.hear(), "wrote 0");
}

#[test]
fn a_long_write_sees_that_its_own_process_waits() {
    let db = Database::open_in_memory().unwrap();
    db.execute(TABLE, ()).unwrap();
    let (inside, is_inside) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        let long = scope.spawn(|| {
            db.write_once(|tx| {
                inside.send(()).unwrap();
                while tx.others_are_waiting() == 0 {
                    std::thread::yield_now();
                }
                Ok(tx.others_are_waiting())
            })
        });
        is_inside.recv().unwrap();
        db.execute("INSERT INTO t(n) VALUES (1)", ()).unwrap();
        assert_eq!(long.join().unwrap().unwrap(), 1);
    });
    assert_eq!(db.write(|tx| Ok(tx.others_are_waiting())).unwrap(), 0);
}

#[test]
fn a_deadline_that_passes_names_the_process_that_has_the_turn() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.db");
    let (mut a, mut b) = (Worker::of(&path, 0), Worker::of(&path, 1));
    assert_eq!(a.ask("hold"), "holds");
    let error = b.ask("write_within_100_ms");
    assert!(error.starts_with("DeadlineExceeded Turn"), "{error}");
    assert!(
        error.contains("held by `the long one` on thread "),
        "{error}"
    );
    let pid = format!("(pid {}", a.pid());
    assert!(error.contains(&pid), "{error}");
    assert_eq!(a.ask("end"), "let go");
    assert_eq!(b.ask("write"), "wrote 0");
}

#[test]
fn the_writes_of_a_crowd_leave_room_for_another_process() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.db");
    let (mut a, mut b) = (Worker::of(&path, 0), Worker::of(&path, 1));
    assert_eq!(a.ask("many_at_once"), "queued");
    assert_eq!(b.ask("write"), "wrote 0");
    assert_eq!(a.hear(), "done");
    let connection = Connection::open(&path).unwrap();
    let after: u32 = connection
        .query_row(
            "SELECT count(*) FROM t WHERE id > (SELECT id FROM t WHERE process = 1)",
            (),
            |row| row.get(0),
        )
        .unwrap();
    assert!(after > 0, "it had to wait for all of the others' writes");
}

#[test]
fn many_processes_make_a_new_database_together() {
    let dir = tempfile::tempdir().unwrap();
    for round in 0..3 {
        let path = dir.path().join(format!("{round}.db"));
        std::thread::scope(|scope| {
            for number in 0..6 {
                let path = &path;
                scope.spawn(move || {
                    assert_eq!(Worker::of(path, number).ask("write"), "wrote 0");
                });
            }
        });
        let connection = Connection::open(&path).unwrap();
        let rows: u32 = connection
            .query_row("SELECT count(*) FROM t", (), |row| row.get(0))
            .unwrap();
        assert_eq!(rows, 6);
    }
}

#[test]
fn without_a_gate_everything_works_and_it_is_said_why() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.db");
    let side = dir.path().join("a.db-gate");
    let because = |db: &Database| db.stats().alone_because.map(|why| why.to_string());
    let write = |db: &Database| {
        db.execute(TABLE, ()).unwrap();
        db.execute("INSERT INTO t(n) VALUES (1)", ()).unwrap();
    };
    let db = options().gate(false).open(&path).unwrap();
    write(&db);
    assert_eq!(because(&db).as_deref(), Some("Options::gate is off"));
    assert!(!side.exists());
    drop(db);
    // In its place is something that is not ours.
    std::fs::write(&side, "somebody's notes").unwrap();
    let db = options().open(&path).unwrap();
    write(&db);
    let why = because(&db).unwrap();
    assert!(why.contains("was not made by onepen"), "{why}");
    assert_eq!(std::fs::read_to_string(&side).unwrap(), "somebody's notes");
    drop(db);
    std::fs::remove_file(&side).unwrap();
    let db = options().open(&path).unwrap();
    write(&db);
    assert_eq!(because(&db), None);
    assert!(side.exists());
    let db = Options::new().open_in_memory().unwrap();
    assert_eq!(because(&db).as_deref(), Some("the database is in memory"));
}

#[test]
fn over_a_rollback_journal_turns_pass_as_well() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.db");
    let db = options().journal(Journal::Rollback).open(&path).unwrap();
    assert_eq!(db.stats().alone_because, None);
    db.execute(TABLE, ()).unwrap();
    for n in 0..10 {
        db.execute("INSERT INTO t(n) VALUES (?1)", (n,)).unwrap();
    }
    let view = onepen_lock::gate::Observer::open(&path)
        .unwrap()
        .unwrap()
        .look()
        .unwrap();
    assert_eq!(view.members[0].counters.commits, 11);
    assert_eq!(view.members[0].pid, std::process::id());
}
