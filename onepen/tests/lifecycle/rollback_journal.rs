//! Over a rollback journal a COMMIT waits for readers: for strangers too, but not
//! for ever.

use std::time::Duration;

use onepen::{ErrorKind, Journal, Outcome, WaitedFor};

use crate::common::{Scene, block_on, until};

const SOON: Duration = Duration::from_millis(50);

fn scene() -> Scene {
    let options = crate::common::options().journal(Journal::Rollback);
    Scene::with(options, "CREATE TABLE t(n INTEGER PRIMARY KEY);")
}

fn reading(scene: &Scene) -> rusqlite::Connection {
    let stranger = scene.stranger();
    stranger.execute_batch("BEGIN").unwrap();
    stranger
        .query_row("SELECT count(*) FROM t", (), |_| Ok(()))
        .unwrap();
    stranger
}

/// A writer at its COMMIT lets nobody begin to read.
fn nobody_can_begin_to_read(scene: &Scene) -> bool {
    let other = scene.stranger();
    other.busy_timeout(Duration::ZERO).unwrap();
    other
        .query_row("SELECT count(*) FROM t", (), |_| Ok(()))
        .is_err()
}

#[test]
fn a_commit_waits_for_a_strangers_reader() {
    let scene = scene();
    let stranger = reading(&scene);
    std::thread::scope(|scope| {
        let lone = scope.spawn(|| scene.db.execute("INSERT INTO t VALUES (1)", ()));
        until("the write is at its COMMIT", || {
            nobody_can_begin_to_read(&scene)
        });
        stranger.execute_batch("COMMIT").unwrap();
        assert_eq!(lone.join().unwrap().unwrap(), 1);
    });
    let stranger = reading(&scene);
    let queued = scene
        .db
        .submit(|tx| tx.execute("INSERT INTO t VALUES (2)", ()))
        .unwrap();
    until("the group is at its COMMIT", || {
        nobody_can_begin_to_read(&scene)
    });
    assert!(!queued.is_done());
    stranger.execute_batch("COMMIT").unwrap();
    assert_eq!(queued.wait().unwrap(), 1);
    assert_eq!(scene.numbers("SELECT n FROM t"), [1, 2]);
}

#[test]
fn a_commit_waits_for_a_strangers_reader_no_longer_than_its_deadline() {
    let scene = scene();
    let stranger = reading(&scene);
    let with = || scene.db.with().deadline(SOON);
    for error in [
        with().execute("INSERT INTO t VALUES (1)", ()).unwrap_err(),
        with()
            .write_once(|tx| tx.execute("INSERT INTO t VALUES (1)", ()))
            .unwrap_err(),
        block_on(with().execute_async("INSERT INTO t VALUES (1)", ())).unwrap_err(),
        with()
            .submit(|tx| tx.execute("INSERT INTO t VALUES (1)", ()))
            .unwrap()
            .wait()
            .unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::DeadlineExceeded, "{error}");
        assert_eq!(error.outcome(), Outcome::NotCommitted, "{error}");
        assert_eq!(error.waited().what, WaitedFor::Readers, "{error}");
        assert!(error.waited().how_long >= SOON, "{error}");
        assert!(!nobody_can_begin_to_read(&scene), "its lock was left");
    }
    stranger.execute_batch("COMMIT").unwrap();
    scene.db.execute("INSERT INTO t VALUES (2)", ()).unwrap();
    assert_eq!(scene.numbers("SELECT n FROM t"), [2]);
}
