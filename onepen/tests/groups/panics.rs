//! A panic in a closure comes back to its caller and hurts nobody else.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use onepen::{Database, Error, Result, WriteTx};

use crate::common::{Scene, among_neighbours, block_on};

const TABLE: &str = "CREATE TABLE t(n INTEGER PRIMARY KEY); INSERT INTO t VALUES (1);";

/// Unwinds without the panic hook's message on every test's output.
fn panicking(tx: &WriteTx<'_>) -> Result<()> {
    tx.execute("INSERT INTO t VALUES (2)", ())?;
    resume_unwind(Box::new("the payload"))
}

fn payload<T>(run: impl FnOnce() -> T) -> &'static str {
    let payload = match catch_unwind(AssertUnwindSafe(run)) {
        Ok(_) => panic!("the panic did not come back"),
        Err(payload) => payload,
    };
    payload
        .downcast_ref::<&'static str>()
        .copied()
        .expect("the payload is another")
}

#[test]
fn a_panicking_member_is_undone_and_its_neighbours_stay() {
    among_neighbours(TABLE, panicking, |answer, scene| {
        let payload = answer.expect_err("the panic did not come back");
        assert_eq!(payload.downcast_ref::<&str>(), Some(&"the payload"));
        assert_eq!(scene.numbers("SELECT n FROM t"), [1]);
    });
}

#[test]
fn a_panic_on_the_callers_own_thread_arrives_there() {
    let scene = Scene::new(TABLE);
    assert_eq!(payload(|| scene.db.write(panicking)), "the payload");
    assert_eq!(payload(|| scene.db.write_once(panicking)), "the payload");
    assert_eq!(
        payload(|| scene
            .db
            .exclusively(|_| -> Result<()> { resume_unwind(Box::new("alone")) })),
        "alone"
    );
    scene.db.execute("INSERT INTO t VALUES (3)", ()).unwrap();
    assert_eq!(scene.numbers("SELECT n FROM t"), [1, 3]);
}

/// Queues `panicker` between two writes, and says what came back to it.
fn behind_others(
    scene: &Scene,
    panicker: impl FnOnce(Database) -> &'static str + Send,
) -> &'static str {
    let hold = scene.hold();
    let before = scene
        .db
        .submit(|tx| tx.execute("INSERT INTO t VALUES (10)", ()))
        .unwrap();
    scene.wait_for_queue(1);
    std::thread::scope(|scope| {
        let db = scene.db.clone();
        let panicker = scope.spawn(move || panicker(db));
        scene.wait_for_queue(2);
        let after = scene
            .db
            .submit(|tx| tx.execute("INSERT INTO t VALUES (11)", ()))
            .unwrap();
        scene.wait_for_queue(3);
        hold.release();
        assert_eq!(before.wait().unwrap(), 1);
        assert_eq!(after.wait().unwrap(), 1);
        panicker.join().unwrap()
    })
}

#[test]
fn a_panic_of_a_queued_blocking_write_arrives_on_its_thread() {
    let scene = Scene::new(TABLE);
    assert_eq!(
        behind_others(&scene, |db| payload(|| db.write(panicking))),
        "the payload"
    );
    assert_eq!(scene.numbers("SELECT n FROM t"), [1, 10, 11]);
    scene.largest_group_was(3);
}

#[test]
fn a_panic_of_an_asynchronous_write_arrives_in_its_task() {
    let scene = Scene::new(TABLE);
    let back = behind_others(&scene, |db| payload(|| block_on(db.write_async(panicking))));
    assert_eq!(back, "the payload");
    assert_eq!(scene.numbers("SELECT n FROM t"), [1, 10, 11]);
    scene.largest_group_was(3);
}

#[test]
fn a_panic_of_a_submitted_write_arrives_where_its_answer_is_taken() {
    let scene = Scene::new(TABLE);
    let back = behind_others(&scene, |db| {
        let submitted = db.submit(panicking).unwrap();
        payload(|| block_on(submitted))
    });
    assert_eq!(back, "the payload");
    assert_eq!(scene.numbers("SELECT n FROM t"), [1, 10, 11]);
}

#[test]
fn a_panic_of_a_queued_exclusive_call_arrives_on_its_thread() {
    let scene = Scene::new(TABLE);
    let back = behind_others(&scene, |db| {
        payload(|| {
            db.exclusively(|connection| -> Result<()> {
                connection.execute_batch("BEGIN; INSERT INTO t VALUES (2)")?;
                resume_unwind(Box::new("alone"))
            })
        })
    });
    assert_eq!(
        back, "alone",
        "the transaction it left open is not what it has to report"
    );
    assert_eq!(scene.numbers("SELECT n FROM t"), [1, 10, 11]);
}

#[test]
fn a_panic_nobody_waits_for_is_no_harm() {
    let scene = Scene::new(TABLE);
    let hold = scene.hold();
    drop(scene.db.submit(panicking).unwrap());
    let after = scene
        .db
        .submit(|tx| tx.execute("INSERT INTO t VALUES (3)", ()))
        .unwrap();
    hold.release();
    after.wait().unwrap();
    assert_eq!(scene.numbers("SELECT n FROM t"), [1, 3]);
}

/// Panics when it is dropped, once it is armed.
struct Bomb(Arc<AtomicBool>);

impl Drop for Bomb {
    fn drop(&mut self) {
        if self.0.load(Ordering::SeqCst) {
            resume_unwind(Box::new("bomb"));
        }
    }
}

#[test]
fn a_panicking_destructor_of_a_closure_leaves_nobody_without_an_answer() {
    let scene = Scene::new(TABLE);
    let armed = Arc::new(AtomicBool::new(true));
    let hold = scene.hold();
    let bomb = Bomb(armed);
    // Nobody keeps the handles: the pen drops closures and answers.
    drop(
        scene
            .db
            .submit(move |tx| {
                let _ = &bomb;
                tx.execute("INSERT INTO t VALUES (2)", ())
            })
            .unwrap(),
    );
    drop(
        scene
            .db
            .submit(|_| Ok(Bomb(Arc::new(AtomicBool::new(true)))))
            .unwrap(),
    );
    std::thread::scope(|scope| {
        let blocked = scope.spawn(|| scene.db.execute("INSERT INTO t VALUES (3)", ()));
        scene.wait_for_queue(3);
        let submitted = scene
            .db
            .submit(|tx| tx.execute("INSERT INTO t VALUES (4)", ()))
            .unwrap();
        hold.release();
        assert_eq!(blocked.join().unwrap().unwrap(), 1);
        assert_eq!(submitted.wait().unwrap(), 1);
    });
    assert_eq!(scene.numbers("SELECT n FROM t"), [1, 2, 3, 4]);
}

#[test]
fn a_panicking_destructor_of_an_undone_answer_is_no_harm() {
    let scene = Scene::new(TABLE);
    let hold = scene.hold();
    let first_run = Arc::new(AtomicBool::new(true));
    let once = Arc::clone(&first_run);
    // Its first answer is thrown away, because the next member fails.
    let bomb = scene
        .db
        .submit(move |tx| {
            tx.execute("INSERT INTO t VALUES (2)", ())?;
            Ok(Bomb(Arc::new(AtomicBool::new(
                once.swap(false, Ordering::SeqCst),
            ))))
        })
        .unwrap();
    let failing = scene
        .db
        .submit(|_| Err::<(), _>(Error::other("on purpose")))
        .unwrap();
    hold.release();
    failing.wait().unwrap_err();
    drop(bomb.wait().unwrap());
    assert!(!first_run.load(Ordering::SeqCst));
    assert_eq!(scene.numbers("SELECT n FROM t"), [1, 2]);
}
