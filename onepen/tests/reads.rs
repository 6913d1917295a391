//! A finished read leaves its transaction open for the next one: attacks on the
//! promise that nobody can tell.

mod common;

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use common::{Scene, block_on, options, until};
use onepen::{Database, ErrorKind, ReadTx, Result};
use rusqlite::ffi;

const TABLE: &str = "CREATE TABLE t(n INTEGER);";
const INSERT: &str = "INSERT INTO t VALUES (1)";
const COUNT: &str = "SELECT count(*) FROM t";

fn count(db: &Database) -> Result<i64> {
    db.query_row(COUNT, (), |row| row.get(0))
}

/// The same in all the ways that go on in a transaction left open.
#[track_caller]
fn sees(db: &Database, expected: i64, after: &str) {
    // Twice, so that the second finds what the first left.
    for _ in 0..2 {
        assert_eq!(count(db).unwrap(), expected, "after {after}");
        let closure = db.read(|tx| tx.query_row(COUNT, (), |row| row.get::<_, i64>(0)));
        assert_eq!(closure.unwrap(), expected, "after {after}");
    }
}

#[test]
fn a_read_sees_whatever_was_done_before_it_by_whomever() {
    let scene = Scene::new(TABLE);
    let db = &scene.db;
    let stranger = scene.stranger();
    stranger.busy_timeout(Duration::from_secs(30)).unwrap();
    let checkpoint = |mode: &str| {
        let sql = format!("PRAGMA wal_checkpoint({mode})");
        stranger.query_row(&sql, (), |_| Ok(())).unwrap();
    };
    let mut expected = 0;
    for round in 0..40 {
        sees(db, expected, "the last round");
        db.execute(INSERT, ()).unwrap();
        expected += 1;
        sees(db, expected, "a write of ours");
        stranger.execute_batch(INSERT).unwrap();
        expected += 1;
        sees(db, expected, "a stranger's write");
        checkpoint(["PASSIVE", "FULL", "RESTART", "TRUNCATE"][round % 4]);
        sees(db, expected, "a checkpoint");
        // The log starts over with this one, after a reset.
        stranger.execute_batch(INSERT).unwrap();
        expected += 1;
        sees(db, expected, "a write to a log that started over");
        if round % 10 == 0 {
            db.exclusively(|c| Ok(c.execute_batch("VACUUM; INSERT INTO t VALUES (1)")?))
                .unwrap();
            expected += 1;
            sees(db, expected, "an exclusive call");
            stranger
                .execute_batch("ALTER TABLE t RENAME TO u; ALTER TABLE u RENAME TO t; VACUUM")
                .unwrap();
            sees(db, expected, "changes of the schema");
            stranger
                .execute_batch("BEGIN; INSERT INTO t VALUES (1); ROLLBACK")
                .unwrap();
            sees(db, expected, "a rollback");
        }
    }
}

/// A process that dies between two steps leaves a half-written header, which the
/// next one to notice rebuilds under those who read.
#[test]
fn readers_never_go_back_while_other_processes_write_and_are_killed() {
    let scene = Scene::new(TABLE);
    let db = &scene.db;
    let script = "import sqlite3, sys
c = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=30)
while True:
    c.execute('INSERT INTO t VALUES (1)')";
    let last = AtomicI64::new(0);
    for _ in 0..4 {
        let mut writer = std::process::Command::new("python3")
            .args(["-c", script])
            .arg(scene.path())
            .spawn()
            .expect("python3 is there");
        let before = last.load(Ordering::SeqCst);
        until("the other process writes", || {
            let seen = count(db).unwrap();
            assert!(seen >= last.load(Ordering::SeqCst), "went back to {seen}");
            last.store(seen, Ordering::SeqCst);
            seen > before + 20
        });
        writer.kill().unwrap();
        writer.wait().unwrap();
        let stranger = scene.number(COUNT);
        sees(db, stranger, "the death of a writer");
        last.store(stranger, Ordering::SeqCst);
    }
}

#[test]
fn after_an_error_a_deadline_or_a_panic_reads_go_on_as_before() {
    let scene = Scene::new(TABLE);
    let db = &scene.db;
    let endless =
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n";
    for written in 0..3 {
        sees(db, written, "a write");
        let at_once = || db.with().deadline(Duration::from_millis(2));
        for late in [
            at_once().query_row(endless, (), |_| Ok(())),
            at_once().read(|tx| tx.query_row(endless, (), |_| Ok(()))),
        ] {
            assert_eq!(late.unwrap_err().kind(), ErrorKind::DeadlineExceeded);
        }
        sees(db, written, "a deadline");
        db.query_row("SELECT nothing FROM t", (), |_| Ok(()))
            .unwrap_err();
        db.read(|tx| tx.query_row("SELECT * FROM nowhere", (), |_| Ok(())))
            .unwrap_err();
        db.read(|tx| Ok(tx.connection().execute_batch("COMMIT")?))
            .unwrap_err();
        db.read(|tx| Ok(tx.connection().execute_batch("ROLLBACK")?))
            .unwrap_err();
        db.read(|tx| Ok(tx.connection().execute_batch("BEGIN")?))
            .unwrap_err();
        sees(db, written, "errors");
        let panic = || {
            db.read(|tx| {
                tx.query_row(COUNT, (), |_| -> rusqlite::Result<()> {
                    std::panic::resume_unwind(Box::new(()))
                })
            })
        };
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(panic)).unwrap_err();
        sees(db, written, "a panic");
        db.execute(INSERT, ()).unwrap();
    }
    assert_eq!(db.stats().readers, 1, "one connection did all of it");
}

#[test]
fn idle_readers_keep_neither_strangers_nor_the_end_from_emptying_the_log() {
    let scene = Scene::new(TABLE);
    let db = &scene.db;
    let stranger = scene.stranger();
    for _ in 0..5 {
        db.execute(INSERT, ()).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..20).for_each(|_| assert!(count(db).is_ok())));
            }
        });
        until("a stranger truncates the log", || {
            let busy = stranger.query_row("PRAGMA wal_checkpoint(TRUNCATE)", (), |row| row.get(0));
            busy == Ok(0)
        });
    }
    drop(stranger);
    db.execute(INSERT, ()).unwrap();
    count(db).unwrap();
    db.close();
    assert!(!scene.dir().join("scene.db-wal").exists());
}

#[test]
fn ten_thousand_short_threads_leave_nothing_behind() {
    let scene = Scene::with(options().readers(4), TABLE);
    let db = &scene.db;
    for _ in 0..1250 {
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| assert_eq!(count(db).unwrap(), 0));
            }
        });
    }
    let stats = db.stats();
    assert_eq!(stats.readers_in_use, 0);
    assert!(stats.readers <= 4, "{}", stats.readers);
}

#[test]
fn the_last_handle_may_be_dropped_inside_a_read() {
    let scene = Scene::new(TABLE);
    let path = scene.path();
    let other = options().open(&path).unwrap();
    let second = other.clone();
    let future = other.read_async(move |tx| {
        drop(second);
        tx.query_row(COUNT, (), |row| row.get::<_, i64>(0))
    });
    drop(other);
    assert_eq!(block_on(future).unwrap(), 0);
    assert_eq!(count(&scene.db).unwrap(), 0);

    let dir = tempfile::tempdir().unwrap();
    let db = Database::open(dir.path().join("a.db")).unwrap();
    db.write(|tx| tx.execute_batch(TABLE)).unwrap();
    let inside = db.clone();
    let future = db.read_async(move |tx| {
        drop(inside);
        tx.query_row(COUNT, (), |row| row.get::<_, i64>(0))
    });
    drop(db);
    // Now the closure has the only handle, and this thread the snapshot.
    assert_eq!(block_on(future).unwrap(), 0);
    let again = Database::open(dir.path().join("a.db")).unwrap();
    assert_eq!(count(&again).unwrap(), 0);
    let snapshot = again.snapshot().unwrap();
    drop(again);
    std::thread::spawn(move || drop(snapshot)).join().unwrap();
    drop(Database::open(dir.path().join("a.db")).unwrap());
    assert!(!dir.path().join("a.db-wal").exists());
}

#[test]
fn a_read_that_closes_the_database_ends_well() {
    let scene = Scene::new(TABLE);
    let db = &scene.db;
    db.execute(INSERT, ()).unwrap();
    count(db).unwrap();
    let seen = db.read(|tx| {
        db.close();
        tx.query_row(COUNT, (), |row| row.get::<_, i64>(0))
    });
    assert_eq!(seen.unwrap(), 1);
    assert_eq!(count(db).unwrap_err().kind(), ErrorKind::Closed);
}

/// SQLite ends a transaction after an I/O error, also after one that it tells
/// nobody about (`ReadTx::whole` in the sources): what is read from then on is of
/// another state. Here the error comes from a function, and the closure drops it.
#[test]
fn a_read_whose_transaction_sqlite_ended_is_not_answered_as_if_it_saw_one_state() {
    let breaks = |connection: &rusqlite::Connection| {
        let error = ffi::Error::new(ffi::SQLITE_IOERR_READ);
        connection.create_scalar_function(
            "breaks",
            0,
            rusqlite::functions::FunctionFlags::SQLITE_UTF8,
            move |_| Err::<i64, _>(rusqlite::Error::SqliteFailure(error, None)),
        )
    };
    let scene = Scene::with(options().on_connect(breaks), TABLE);
    let broken = |tx: &ReadTx| {
        let query = tx.query_row("SELECT breaks() FROM sqlite_schema", (), |row| {
            row.get::<_, i64>(0)
        });
        assert_eq!(
            query.unwrap_err().sqlite_code(),
            Some(ffi::SQLITE_IOERR_READ)
        );
    };
    let through_calls = |tx: &ReadTx, db: &Database| {
        let before: i64 = tx.query_row(COUNT, (), |row| row.get(0))?;
        broken(tx);
        db.execute(INSERT, ())?;
        let after: i64 = tx.query_row(COUNT, (), |row| row.get(0))?;
        Ok((before, after))
    };
    let through_statements = move |tx: &ReadTx, db: &Database| {
        let before: i64 = tx.query_row(COUNT, (), |row| row.get(0))?;
        broken(tx);
        db.execute(INSERT, ())?;
        let after: i64 = tx.prepare(COUNT)?.query_row((), |row| row.get(0))?;
        Ok((before, after))
    };
    let lost = |answer: Result<(i64, i64)>| {
        assert_eq!(answer.unwrap_err().kind(), ErrorKind::TransactionLost);
        // And the next read has a transaction again.
        let (one, other) = scene
            .db
            .read(|tx| {
                let one: i64 = tx.query_row(COUNT, (), |row| row.get(0))?;
                scene.db.execute(INSERT, ())?;
                Ok((one, tx.query_row(COUNT, (), |row| row.get(0))?))
            })
            .unwrap();
        assert_eq!(one, other);
    };
    lost(scene.db.read(|tx| through_calls(tx, &scene.db)));
    lost(scene.db.read(|tx| through_statements(tx, &scene.db)));
    let db = scene.db.clone();
    lost(block_on(
        scene.db.read_async(move |tx| through_statements(tx, &db)),
    ));
    let snapshot = scene.db.snapshot().unwrap();
    lost(through_calls(&snapshot, &scene.db));
}
