//! A deadline ends a wait, whatever is waited for, and says what that was.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdout, Stdio};
use std::time::{Duration, Instant};

use onepen::{Contention, ErrorKind, Outcome, Priority, WaitedFor};

use crate::common::{Hold, Scene, block_on, child, in_child};

const TABLE: &str = "CREATE TABLE t(n INTEGER PRIMARY KEY);";
const SOON: Duration = Duration::from_millis(50);

#[test]
fn a_queued_write_past_its_deadline_is_not_run_and_says_whom_it_waited_for() {
    let scene = Scene::new(TABLE);
    let hold = Hold::labelled(&scene.db, "nightly import");
    let before = scene
        .db
        .submit(|tx| tx.execute("INSERT INTO t VALUES (1)", ()))
        .unwrap();
    let late = scene
        .db
        .with()
        .label("checkout")
        .deadline(SOON)
        .write(|tx| tx.execute("INSERT INTO t VALUES (2)", ()))
        .unwrap_err();
    assert_eq!(late.kind(), ErrorKind::DeadlineExceeded);
    assert_eq!(late.outcome(), Outcome::NotCommitted);
    assert_eq!(late.label(), Some("checkout"));
    assert_eq!(late.waited().what, WaitedFor::Pen);
    assert!(late.waited().how_long >= SOON, "{late}");
    assert_eq!(late.waited().position, Some(1));
    let holder = late.waited().holder.clone().unwrap();
    assert_eq!(holder.label.as_deref(), Some("nightly import"), "{late}");
    assert!(holder.thread.is_some() && holder.since.is_some(), "{late}");
    assert!(holder.is_this_process(), "{late}");
    assert_eq!(late.waited().contention(), Contention::OwnWrites);
    let text = late.to_string();
    for part in ["checkout", "scene.db", "nightly import", "1 before it"] {
        assert!(text.contains(part), "`{part}` is missing in: {text}");
    }
    assert_eq!(scene.db.stats().queue_length, 1);
    hold.release();
    before.wait().unwrap();
    assert_eq!(scene.numbers("SELECT n FROM t"), [1]);
}

/// The same in every form a write can take; each says the same things.
#[test]
fn every_kind_of_queued_write_has_its_deadline() {
    let scene = Scene::new(TABLE);
    let hold = scene.hold();
    let with = || scene.db.with().deadline(SOON).label("late");
    let sql = "INSERT INTO t VALUES (1)";
    let errors = [
        with().write(|tx| tx.execute(sql, ())).unwrap_err(),
        with().write_once(|tx| tx.execute(sql, ())).unwrap_err(),
        with().execute(sql, ()).unwrap_err(),
        with().execute_many(sql, [()]).unwrap_err(),
        with()
            .exclusively(|connection| Ok(connection.execute(sql, ())?))
            .unwrap_err(),
        with()
            .submit(move |tx| tx.execute(sql, ()))
            .unwrap()
            .wait()
            .unwrap_err(),
        block_on(with().write_async(move |tx| tx.execute(sql, ()))).unwrap_err(),
        block_on(with().write_once_async(move |tx| tx.execute(sql, ()))).unwrap_err(),
        block_on(with().execute_async(sql, ())).unwrap_err(),
        block_on(with().execute_many_async(sql, vec![()])).unwrap_err(),
        block_on(with().exclusively_async(move |connection| Ok(connection.execute(sql, ())?)))
            .unwrap_err(),
    ];
    for error in &errors {
        assert_eq!(error.kind(), ErrorKind::DeadlineExceeded, "{error}");
        assert_eq!(error.waited().what, WaitedFor::Pen, "{error}");
        assert!(error.waited().how_long >= SOON, "{error}");
        assert_eq!(error.label(), Some("late"), "{error}");
        assert!(error.to_string().contains("scene.db"), "{error}");
    }
    assert_eq!(scene.db.stats().queue_length, 0);
    hold.release();
    assert_eq!(scene.number("SELECT count(*) FROM t"), 0);
}

/// A deadline bounds waiting: a write that need not wait runs, and one that has
/// started is not ended.
#[test]
fn a_deadline_of_nothing_only_forbids_to_wait() {
    let scene = Scene::new(TABLE);
    let now = || scene.db.with().deadline(Duration::ZERO);
    now().execute("INSERT INTO t VALUES (1)", ()).unwrap();
    let hold = scene.hold();
    let error = now().execute("INSERT INTO t VALUES (2)", ()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DeadlineExceeded);
    hold.release();
    assert_eq!(scene.numbers("SELECT n FROM t"), [1]);
}

#[test]
fn a_write_that_started_in_time_keeps_its_true_outcome() {
    let scene = Scene::new(TABLE);
    let (arrive, gate) = crate::common::gate();
    let started = Instant::now();
    std::thread::scope(|scope| {
        let db = scene.db.clone();
        let slow = scope.spawn(move || {
            block_on(db.with().deadline(SOON).write_async(move |tx| {
                arrive.stop();
                tx.execute("INSERT INTO t VALUES (1)", ())
            }))
        });
        gate.wait_for_arrival();
        crate::common::until("the deadline passed", || started.elapsed() > 2 * SOON);
        gate.open();
        assert_eq!(slow.join().unwrap().unwrap(), 1);
    });
    assert_eq!(scene.numbers("SELECT n FROM t"), [1]);
}

#[test]
fn the_earliest_deadline_fires_first_whatever_the_order_they_came_in() {
    let scene = Scene::new(TABLE);
    let hold = scene.hold();
    let submit = |millis| {
        scene
            .db
            .with()
            .deadline(Duration::from_millis(millis))
            .submit(|_| Ok(()))
            .unwrap()
    };
    let far = submit(3_600_000);
    let near = submit(20);
    let nearer = submit(5);
    assert_eq!(
        nearer.wait().unwrap_err().kind(),
        ErrorKind::DeadlineExceeded
    );
    assert_eq!(near.wait().unwrap_err().kind(), ErrorKind::DeadlineExceeded);
    assert!(!far.is_done());
    hold.release();
    far.wait().unwrap();
}

/// The child of the tests below: takes the write lock as a stranger does, says
/// so, and keeps it until its input ends.
#[test]
fn a_stranger() {
    let Some(path) = in_child() else { return };
    let connection = rusqlite::Connection::open(path).unwrap();
    connection.execute_batch("BEGIN IMMEDIATE").unwrap();
    println!("locked");
    std::io::stdin()
        .lock()
        .read_line(&mut String::new())
        .unwrap();
    connection.execute_batch("ROLLBACK").unwrap();
}

struct Stranger {
    child: Child,
    // Kept open: the child writes to it once more when it ends.
    _output: BufReader<ChildStdout>,
}

impl Stranger {
    fn with_the_write_lock(scene: &Scene) -> Self {
        let mut command = child("deadlines::a_stranger", &scene.path());
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let locked = output
            .by_ref()
            .lines()
            .any(|line| line.unwrap().contains("locked"));
        assert!(locked, "the stranger did not get the lock");
        Self {
            child,
            _output: output,
        }
    }

    fn let_go(mut self) {
        self.child.stdin.take().unwrap().write_all(b"\n").unwrap();
        assert!(self.child.wait().unwrap().success());
    }
}

#[test]
fn a_strangers_write_lock_is_waited_for_until_the_deadline() {
    let scene = Scene::new(TABLE);
    let stranger = Stranger::with_the_write_lock(&scene);
    let sql = "INSERT INTO t VALUES (1)";
    let with = || scene.db.with().deadline(SOON);
    for error in [
        // On the caller's own thread …
        with().execute(sql, ()).unwrap_err(),
        with().write_once(|tx| tx.execute(sql, ())).unwrap_err(),
        // … and in the queue.
        with()
            .submit(move |tx| tx.execute(sql, ()))
            .unwrap()
            .wait()
            .unwrap_err(),
        block_on(with().execute_async(sql, ())).unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::DeadlineExceeded, "{error}");
        assert_eq!(error.outcome(), Outcome::NotCommitted, "{error}");
        assert_eq!(error.waited().what, WaitedFor::WriteLock, "{error}");
        assert!(error.waited().how_long >= SOON, "{error}");
        assert!(error.waited().holder.is_some(), "{error}");
    }
    // Behind somebody who waits for the stranger.
    std::thread::scope(|scope| {
        let patient = scope.spawn(|| scene.db.execute("INSERT INTO t VALUES (2)", ()));
        crate::common::until("somebody waits for the lock", || {
            let behind = with().submit(|_| Ok(())).unwrap().wait();
            behind.is_err_and(|error| error.waited().what == WaitedFor::WriteLock)
        });
        stranger.let_go();
        assert_eq!(patient.join().unwrap().unwrap(), 1);
    });
    assert_eq!(scene.numbers("SELECT n FROM t"), [2]);
}

#[test]
fn everybody_queued_behind_a_stranger_is_served_when_it_lets_go() {
    let scene = Scene::new(TABLE);
    let stranger = Stranger::with_the_write_lock(&scene);
    let waiting: Vec<_> = (0..100)
        .map(|n| {
            let with = scene.db.with().priority(Priority::Normal);
            with.submit(move |tx| tx.execute("INSERT INTO t VALUES (?1)", (n,)))
                .unwrap()
        })
        .collect();
    stranger.let_go();
    for write in waiting {
        assert_eq!(write.wait().unwrap(), 1);
    }
    assert_eq!(scene.number("SELECT count(*) FROM t"), 100);
}
