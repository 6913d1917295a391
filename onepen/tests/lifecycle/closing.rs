//! Closing finishes what was queued, and whoever is the last one closes.

use std::path::Path;
use std::sync::Arc;

use onepen::{Database, ErrorKind, Options, WhenFull};

use crate::common::{Scene, block_on, gate, poll_once, until};

const TABLE: &str = "CREATE TABLE t(n INTEGER PRIMARY KEY);";
const SQL: &str = "INSERT INTO t VALUES (1)";

fn log_is_gone(path: &Path) -> bool {
    let log = format!("{}-wal", path.display());
    !Path::new(&log).exists()
}

fn count(path: &Path) -> i64 {
    let connection = rusqlite::Connection::open(path).unwrap();
    connection
        .query_row("SELECT count(*) FROM t", (), |row| row.get(0))
        .unwrap()
}

#[test]
fn close_finishes_everything_that_was_queued() {
    let scene = Scene::new(TABLE);
    let hold = scene.hold();
    let kept: Vec<_> = (0..100)
        .map(|n| {
            scene
                .db
                .submit(move |tx| tx.execute("INSERT INTO t VALUES (?1)", (n,)))
                .unwrap()
        })
        .collect();
    // Nobody waits for these.
    for n in 100..200 {
        drop(
            scene
                .db
                .submit(move |tx| tx.execute("INSERT INTO t VALUES (?1)", (n,)))
                .unwrap(),
        );
    }
    std::thread::scope(|scope| {
        let closing = scope.spawn(|| scene.db.close());
        until("the database is closed to newcomers", || {
            scene.db.submit(|_| Ok(())).is_err()
        });
        hold.release();
        closing.join().unwrap();
    });
    for write in kept {
        assert!(write.is_done());
        assert_eq!(write.wait().unwrap(), 1);
    }
    assert!(log_is_gone(&scene.path()));
    assert_eq!(scene.number("SELECT count(*) FROM t"), 200);
}

#[test]
fn close_finishes_those_in_the_lobby_as_well() {
    let scene = Scene::with(
        crate::common::options().queue(2, usize::MAX, WhenFull::Wait),
        TABLE,
    );
    let hold = scene.hold();
    std::thread::scope(|scope| {
        let db = &scene.db;
        let mut waiting = Vec::new();
        for n in 0..10usize {
            waiting.push(scope.spawn(move || db.execute("INSERT INTO t VALUES (?1)", (n as i64,))));
            scene.wait_for_queue(n + 1);
        }
        let closing = scope.spawn(|| db.close());
        until("the database is closed to newcomers", || {
            matches!(
                block_on(db.with().deadline(std::time::Duration::ZERO).execute_async(SQL, ())),
                Err(error) if error.kind() == ErrorKind::Closed
            )
        });
        hold.release();
        closing.join().unwrap();
        waiting
            .into_iter()
            .for_each(|write| assert_eq!(write.join().unwrap().unwrap(), 1));
    });
    assert_eq!(scene.number("SELECT count(*) FROM t"), 10);
}

#[test]
fn after_close_every_call_says_closed() {
    let scene = Scene::new(TABLE);
    let clone = scene.db.clone();
    scene.db.close();
    scene.db.close();
    for db in [&scene.db, &clone] {
        for error in [
            db.execute(SQL, ()).unwrap_err(),
            db.write(|tx| tx.execute(SQL, ())).unwrap_err(),
            db.write_once(|tx| tx.execute(SQL, ())).unwrap_err(),
            db.execute_many(SQL, [()]).unwrap_err(),
            db.exclusively(|_| Ok(())).unwrap_err(),
            db.submit(|_| Ok(())).unwrap_err(),
            block_on(db.execute_async(SQL, ())).unwrap_err(),
            block_on(db.write_once_async(|tx| tx.execute(SQL, ()))).unwrap_err(),
            block_on(db.exclusively_async(|_| Ok(()))).unwrap_err(),
            db.read(|_| Ok(())).unwrap_err(),
            db.query_row("SELECT 1", (), |_| Ok(())).unwrap_err(),
            db.snapshot().map(drop).unwrap_err(),
        ] {
            assert_eq!(error.kind(), ErrorKind::Closed, "{error}");
            assert!(error.to_string().contains("scene.db"), "{error}");
        }
        assert_eq!(db.stats().queue_length, 0);
    }
    assert_eq!(scene.number("SELECT count(*) FROM t"), 0);
}

#[test]
fn a_closed_database_leaves_its_file_and_its_gate() {
    let scene = Scene::new(TABLE);
    scene
        .db
        .read(|tx| tx.query_row("SELECT count(*) FROM t", (), |_| Ok(())))
        .unwrap();
    scene.db.execute(SQL, ()).unwrap();
    scene.db.close();
    let mut files: Vec<_> = std::fs::read_dir(scene.dir())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    files.retain(|file| file != "scene.db-gate"); // where there is a gate, it stays
    assert_eq!(files, ["scene.db"]);
}

#[test]
fn the_last_handle_finishes_what_was_submitted_and_closes() {
    let scene = Scene::new(TABLE);
    let path = scene.path();
    let db = Database::open(scene.dir().join("other.db")).unwrap();
    db.execute("CREATE TABLE t(n)", ()).unwrap();
    let (arrive, gate) = gate();
    drop(
        db.submit(move |_| {
            arrive.stop();
            Ok(())
        })
        .unwrap(),
    );
    gate.wait_for_arrival();
    for n in 0..100 {
        drop(
            db.submit(move |tx| tx.execute("INSERT INTO t VALUES (?1)", (n,)))
                .unwrap(),
        );
    }
    gate.open();
    drop(db);
    let other = path.with_file_name("other.db");
    assert!(log_is_gone(&other));
    assert_eq!(count(&other), 100);
}

#[test]
fn a_file_that_was_closed_can_be_opened_again() {
    let scene = Scene::new(TABLE);
    for n in 0..5 {
        let db = Database::open(scene.dir().join("again.db")).unwrap();
        db.execute("CREATE TABLE IF NOT EXISTS t(n)", ()).unwrap();
        db.execute("INSERT INTO t VALUES (?1)", (n,)).unwrap();
        if n % 2 == 0 {
            db.close();
        }
    }
    assert_eq!(count(&scene.dir().join("again.db")), 5);
}

/// One database whose log is always to be reset, so that its checkpointer wants
/// the pen too; the last handle to it goes where `run` says.
fn last_handle(run: impl FnOnce(Database)) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("last.db");
    let db = Options::new()
        .wal_limit(16, std::time::Duration::from_millis(1))
        .open(&path)
        .unwrap();
    db.execute("CREATE TABLE t(b BLOB)", ()).unwrap();
    db.execute_many(
        "INSERT INTO t VALUES (randomblob(?1))",
        (0..2000).map(|_| (1000,)),
    )
    .unwrap();
    run(db);
    until("the last handle has closed the database", || {
        log_is_gone(&path)
    });
    assert_eq!(count(&path), 2001);
}

#[test]
fn the_last_handle_may_go_in_a_closure_on_the_callers_thread() {
    last_handle(|db| {
        let inner = std::sync::Mutex::new(Some(db.clone()));
        let write = |tx: &onepen::WriteTx<'_>| {
            drop(inner.lock().unwrap().take());
            tx.execute("INSERT INTO t VALUES (1)", ())
        };
        db.write(write).unwrap();
        drop(db);
    });
}

#[test]
fn the_last_handle_may_go_in_a_closure_on_the_writer_thread() {
    last_handle(|db| {
        let (arrive, gate) = gate();
        let last = std::sync::Mutex::new(Some(db.clone()));
        let write = db
            .submit(move |tx| {
                arrive.stop();
                drop(last.lock().unwrap().take());
                tx.execute("INSERT INTO t VALUES (1)", ())
            })
            .unwrap();
        gate.wait_for_arrival();
        drop(db);
        gate.open();
        assert_eq!(write.wait().unwrap(), 1);
    });
}

#[test]
fn the_last_handle_may_go_with_the_closure_that_owns_it() {
    last_handle(|db| {
        let (arrive, gate) = gate();
        let last = db.clone();
        let write = db.submit(move |tx| {
            arrive.stop();
            let _ = &last;
            tx.execute("INSERT INTO t VALUES (1)", ())
        });
        drop(write.unwrap());
        gate.wait_for_arrival();
        drop(db);
        gate.open();
    });
}

/// A task holds the last handle, and is dropped by its waker, on the writer
/// thread.
#[test]
fn the_last_handle_may_go_with_a_waker() {
    struct Owner(std::sync::Mutex<Option<Database>>);
    impl std::task::Wake for Owner {
        fn wake(self: Arc<Self>) {
            drop(self.0.lock().unwrap().take());
        }
    }
    last_handle(|db| {
        let (arrive, gate) = gate();
        let mut future = Box::pin(db.write_async(move |tx| {
            arrive.stop();
            tx.execute("INSERT INTO t VALUES (1)", ())
        }));
        let waker = Arc::new(Owner(std::sync::Mutex::new(Some(db)))).into();
        assert!(
            future
                .as_mut()
                .poll(&mut std::task::Context::from_waker(&waker))
                .is_pending()
        );
        drop(waker);
        gate.wait_for_arrival();
        gate.open();
        assert_eq!(block_on(future).unwrap(), 1);
    });
}

#[test]
fn close_within_a_closure_closes_when_the_closure_has_ended() {
    last_handle(|db| {
        db.write(|tx| {
            db.close();
            tx.execute("INSERT INTO t VALUES (1)", ())
        })
        .unwrap();
        assert_eq!(
            db.execute("INSERT INTO t VALUES (1)", ())
                .unwrap_err()
                .kind(),
            ErrorKind::Closed
        );
    });
    last_handle(|db| {
        let handle = db.clone();
        let write = db.write_async(move |tx| {
            handle.close();
            tx.execute("INSERT INTO t VALUES (1)", ())
        });
        assert_eq!(block_on(write).unwrap(), 1);
    });
}

#[test]
fn a_future_outlives_the_database_it_was_made_from() {
    let scene = Scene::new(TABLE);
    let db = Database::open(scene.dir().join("short.db")).unwrap();
    db.execute("CREATE TABLE t(n)", ()).unwrap();
    let mut queued = Box::pin(db.execute_async("INSERT INTO t VALUES (1)", ()));
    let mut new = Box::pin(db.execute_async("INSERT INTO t VALUES (2)", ()));
    assert!(poll_once(&mut queued).is_pending());
    drop(db);
    assert_eq!(block_on(queued).unwrap(), 1);
    assert_eq!(block_on(&mut new).unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(count(&scene.dir().join("short.db")), 1);
}
