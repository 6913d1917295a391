//! Cancelling: what has not started will not run; what has started tells its
//! true outcome; nobody else notices.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

use onepen::{CancelToken, Database, ErrorKind, Outcome, WaitedFor, WhenFull};

use crate::common::{Scene, block_on, gate, poll_once, until};

const TABLE: &str = "CREATE TABLE t(n INTEGER PRIMARY KEY);";
const SQL: &str = "INSERT INTO t VALUES (1)";

#[test]
fn a_token_cancelled_before_the_call_ends_it_even_when_the_pen_is_free() {
    let scene = Scene::new(TABLE);
    let token = CancelToken::new();
    token.cancel();
    let with = || scene.db.with().cancel_with(&token);
    for error in [
        with().execute(SQL, ()).unwrap_err(),
        with().write_once(|tx| tx.execute(SQL, ())).unwrap_err(),
        with()
            .exclusively(|connection| Ok(connection.execute(SQL, ())?))
            .unwrap_err(),
        with().submit(move |tx| tx.execute(SQL, ())).unwrap_err(),
        block_on(with().execute_async(SQL, ())).unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::Cancelled, "{error}");
        assert_eq!(error.outcome(), Outcome::NotCommitted, "{error}");
    }
    assert_eq!(scene.number("SELECT count(*) FROM t"), 0);
}

#[test]
fn a_token_takes_a_queued_write_out_of_the_queue() {
    let scene = Scene::new(TABLE);
    let token = CancelToken::new();
    let hold = scene.hold();
    std::thread::scope(|scope| {
        let blocking = scope.spawn(|| scene.db.with().cancel_with(&token).execute(SQL, ()));
        let task = scope.spawn(|| {
            block_on(
                scene
                    .db
                    .with()
                    .cancel_with(&token)
                    .label("task")
                    .execute_async(SQL, ()),
            )
        });
        scene.wait_for_queue(2);
        let stays = scene
            .db
            .submit(|tx| tx.execute("INSERT INTO t VALUES (2)", ()))
            .unwrap();
        token.cancel();
        for error in [
            blocking.join().unwrap().unwrap_err(),
            task.join().unwrap().unwrap_err(),
        ] {
            assert_eq!(error.kind(), ErrorKind::Cancelled, "{error}");
            assert_eq!(error.waited().what, WaitedFor::Pen, "{error}");
        }
        assert_eq!(scene.db.stats().queue_length, 1);
        hold.release();
        stays.wait().unwrap();
    });
    assert_eq!(scene.numbers("SELECT n FROM t"), [2]);
}

#[test]
fn a_token_ends_a_wait_for_a_strangers_lock() {
    let scene = Scene::new(TABLE);
    let stranger = scene.stranger();
    stranger.execute_batch("BEGIN IMMEDIATE").unwrap();
    let token = CancelToken::new();
    std::thread::scope(|scope| {
        let first = scope.spawn(|| scene.db.with().cancel_with(&token).execute(SQL, ()));
        let second = scope.spawn(|| {
            // Behind the first, unless it came to be first itself.
            scene
                .db
                .with()
                .cancel_with(&token)
                .execute("INSERT INTO t VALUES (2)", ())
        });
        scene.wait_for_queue(1);
        // Whoever has the pen has come to the lock with it.
        until("a wait for the write lock", || {
            let short = scene.db.with().deadline(Duration::from_millis(1));
            let error = short.execute("INSERT INTO t VALUES (3)", ()).unwrap_err();
            error.waited().what == WaitedFor::WriteLock
        });
        token.cancel();
        for waiting in [first, second] {
            let error = waiting.join().unwrap().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Cancelled, "{error}");
            assert_eq!(error.waited().what, WaitedFor::WriteLock, "{error}");
        }
    });
    stranger.execute_batch("ROLLBACK").unwrap();
    assert_eq!(scene.number("SELECT count(*) FROM t"), 0);
}

#[test]
fn a_write_that_has_started_is_not_cancelled() {
    let scene = Scene::new(TABLE);
    let token = CancelToken::new();
    let (arrive, gate) = gate();
    std::thread::scope(|scope| {
        let running = scope.spawn(|| {
            let with = scene.db.with().cancel_with(&token);
            block_on(with.write_async(move |tx| {
                arrive.stop();
                tx.execute(SQL, ())
            }))
        });
        gate.wait_for_arrival();
        token.cancel();
        gate.open();
        assert_eq!(running.join().unwrap().unwrap(), 1);
    });
    assert_eq!(scene.numbers("SELECT n FROM t"), [1]);
}

#[test]
fn a_token_cancelled_after_the_end_changes_nothing() {
    let scene = Scene::new(TABLE);
    let token = CancelToken::new();
    scene
        .db
        .with()
        .cancel_with(&token)
        .execute(SQL, ())
        .unwrap();
    let done = scene
        .db
        .with()
        .cancel_with(&token)
        .submit(|_| Ok(7))
        .unwrap();
    until("it is done", || done.is_done());
    token.cancel();
    assert_eq!(done.wait().unwrap(), 7);
}

#[test]
fn a_token_takes_a_write_out_of_the_lobby() {
    let options = crate::common::options().queue(1, usize::MAX, WhenFull::Wait);
    let scene = Scene::with(options, TABLE);
    let token = CancelToken::new();
    let hold = scene.hold();
    let queued = scene
        .db
        .submit(|tx| tx.execute("INSERT INTO t VALUES (2)", ()))
        .unwrap();
    std::thread::scope(|scope| {
        let outside = scope.spawn(|| scene.db.with().cancel_with(&token).execute(SQL, ()));
        let submitting = scope.spawn(|| {
            // Returns when the write is in the queue, or never will be.
            let with = scene.db.with().cancel_with(&token);
            with.submit(|tx| tx.execute(SQL, ())).unwrap().wait()
        });
        scene.wait_for_queue(3);
        token.cancel();
        for error in [
            outside.join().unwrap().unwrap_err(),
            submitting.join().unwrap().unwrap_err(),
        ] {
            assert_eq!(error.kind(), ErrorKind::Cancelled, "{error}");
            assert_eq!(error.waited().what, WaitedFor::QueueSpace, "{error}");
        }
    });
    hold.release();
    queued.wait().unwrap();
    assert_eq!(scene.numbers("SELECT n FROM t"), [2]);
}

#[test]
fn a_future_that_was_never_polled_queues_nothing() {
    let scene = Scene::new(TABLE);
    let hold = scene.hold();
    drop(scene.db.execute_async(SQL, ()));
    assert_eq!(scene.db.stats().queue_length, 0);
    hold.release();
    assert_eq!(scene.number("SELECT count(*) FROM t"), 0);
}

#[test]
fn a_future_dropped_while_queued_does_not_run() {
    let scene = Scene::new(TABLE);
    let hold = scene.hold();
    let mut future = Box::pin(scene.db.execute_async(SQL, ()));
    assert!(poll_once(&mut future).is_pending());
    scene.wait_for_queue(1);
    drop(future);
    assert_eq!(scene.db.stats().queue_length, 0);
    hold.release();
    scene.db.execute("INSERT INTO t VALUES (2)", ()).unwrap();
    assert_eq!(scene.numbers("SELECT n FROM t"), [2]);
}

#[test]
fn a_future_dropped_while_its_write_runs_lets_it_run() {
    let scene = Scene::new(TABLE);
    let (arrive, gate) = gate();
    let mut future = Box::pin(scene.db.write_async(move |tx| {
        arrive.stop();
        tx.execute(SQL, ())
    }));
    assert!(poll_once(&mut future).is_pending());
    gate.wait_for_arrival();
    drop(future);
    gate.open();
    scene.db.execute("INSERT INTO t VALUES (2)", ()).unwrap();
    assert_eq!(scene.numbers("SELECT n FROM t"), [1, 2]);
}

#[test]
fn a_finished_future_says_so_when_it_is_polled_again() {
    let scene = Scene::new(TABLE);
    let mut future: Pin<Box<dyn Future<Output = onepen::Result<usize>>>> =
        Box::pin(scene.db.execute_async(SQL, ()));
    assert_eq!(block_on(&mut future).unwrap(), 1);
    match poll_once(&mut future) {
        Poll::Ready(Err(error)) => assert_eq!(error.kind(), ErrorKind::Closed),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_submitted_write_whose_handle_is_dropped_runs_all_the_same() {
    let scene = Scene::new(TABLE);
    let hold = scene.hold();
    drop(scene.db.submit(|tx| tx.execute(SQL, ())).unwrap());
    assert_eq!(scene.db.stats().queue_length, 1);
    hold.release();
    scene.db.execute("INSERT INTO t VALUES (2)", ()).unwrap();
    assert_eq!(scene.numbers("SELECT n FROM t"), [1, 2]);
}

struct Flag(Arc<AtomicBool>);

impl Drop for Flag {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// What a cancelled closure owns is not kept until the queue gets to it.
#[test]
fn a_cancelled_closure_is_dropped_at_once() {
    let scene = Scene::new(TABLE);
    let hold = scene.hold();
    let dropped = Arc::new(AtomicBool::new(false));
    let flag = Flag(Arc::clone(&dropped));
    let mut future = Box::pin(scene.db.write_async(move |_| {
        let _ = &flag;
        Ok(())
    }));
    assert!(poll_once(&mut future).is_pending());
    assert!(!dropped.load(Ordering::SeqCst));
    drop(future);
    assert!(dropped.load(Ordering::SeqCst));
    hold.release();
}

/// Its destructor closes the database, which must not happen under a lock that
/// closing takes.
#[test]
fn a_cancelled_closure_may_own_the_last_handle() {
    let dir = tempfile::tempdir().unwrap();
    let db = Database::open(dir.path().join("last.db")).unwrap();
    let (arrive, gate) = gate();
    let running = db
        .submit(move |_| {
            arrive.stop();
            Ok(())
        })
        .unwrap();
    gate.wait_for_arrival();
    let last = db.clone();
    let mut future = Box::pin(db.write_async(move |_| {
        let _ = &last;
        Ok(())
    }));
    assert!(poll_once(&mut future).is_pending());
    drop(db);
    gate.open();
    drop(future);
    running.wait().unwrap();
}
