//! Writes that carry a key are done once, by whichever call and with whichever
//! settings; [`Database::outcome_of`] tells what became of them.

mod common;

use std::time::Duration;

use onepen::{
    CancelToken, Database, ErrorKind, KeyedCall, Once, Outcome, Priority, Result, WriteTx,
};
use rusqlite::params;

use common::{Scene, block_on, poll_once, quick};

const TABLE: &str = "CREATE TABLE t(n);";
const INSERT: &str = "INSERT INTO t VALUES (?1)";

fn insert(tx: &WriteTx<'_>) -> Result<usize> {
    tx.execute(INSERT, (1,))
}

/// What one says is how many rows it wrote.
type Write = fn(KeyedCall<'_>) -> Result<Once<usize>>;

/// Every way to write with a key.
const WRITES: [(&str, Write); 10] = [
    ("write", |call| call.write(insert)),
    ("write_once", |call| call.write_once(insert)),
    ("execute", |call| call.execute(INSERT, params![1])),
    ("execute_many", |call| call.execute_many(INSERT, [(1,)])),
    ("write_async", |call| block_on(call.write_async(insert))),
    ("write_once_async", |call| {
        block_on(call.write_once_async(insert))
    }),
    ("execute_async", |call| {
        block_on(call.execute_async(INSERT, (1,)))
    }),
    ("execute_many_async", |call| {
        block_on(call.execute_many_async(INSERT, [(1,)]))
    }),
    ("submit", |call| call.submit(insert)?.wait()),
    ("submit_async", |call| {
        block_on(async { call.submit_async(insert).await?.await })
    }),
];

fn settled(db: &Database, key: &str) -> Outcome {
    db.outcome_of(key).unwrap()
}

#[test]
fn every_kind_of_write_is_done_once_for_its_key() {
    let scene = Scene::with(quick(), TABLE);
    for (name, write) in WRITES {
        assert_eq!(settled(&scene.db, name), Outcome::NotCommitted, "{name}");
        let call = || scene.db.with().key(name);
        assert_eq!(write(call()).unwrap(), Once::Done(1), "{name}");
        assert_eq!(settled(&scene.db, name), Outcome::Committed, "{name}");
        for (other, again) in WRITES {
            assert_eq!(again(call()).unwrap(), Once::AlreadyDone, "{name}, {other}");
        }
    }
    assert_eq!(
        scene.number("SELECT count(*) FROM t"),
        WRITES.len().try_into().unwrap()
    );
}

#[test]
fn a_key_that_cannot_be_one_is_refused_by_every_kind_before_it_is_queued() {
    let scene = Scene::with(quick(), TABLE);
    // The pen is taken: whatever was queued would wait for it.
    let hold = scene.hold();
    for key in [String::new(), "k".repeat(256)] {
        for (name, write) in WRITES {
            let refused = write(scene.db.with().key(key.as_str())).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::NotAllowed, "{name}");
            assert!(refused.to_string().contains("1 to 255 bytes"), "{refused}");
        }
    }
    hold.release();
}

#[test]
fn a_write_that_fails_leaves_no_key_behind() {
    let scene = Scene::with(quick(), "CREATE TABLE t(n PRIMARY KEY);");
    scene.db.execute(INSERT, (1,)).unwrap();
    for (name, write) in WRITES {
        write(scene.db.with().key(name)).unwrap_err();
        assert_eq!(settled(&scene.db, name), Outcome::NotCommitted, "{name}");
    }
}

#[test]
fn settings_hold_whether_they_come_before_the_key_or_after_it() {
    let scene = Scene::with(quick(), TABLE);
    let db = &scene.db;
    let short = Duration::from_millis(20);
    let cancelled = CancelToken::new();
    cancelled.cancel();
    let hold = scene.hold();
    for call in [
        db.with().deadline(short).label("late").key("k"),
        db.with().key("k").deadline(short).label("late"),
    ] {
        let late = call.execute(INSERT, (1,)).unwrap_err();
        assert_eq!(late.kind(), ErrorKind::DeadlineExceeded);
        assert_eq!(late.label(), Some("late"));
        // Its own deadline, not the database's, which is a minute.
        let waited = late.waited().how_long;
        assert!(
            (short..Duration::from_secs(30)).contains(&waited),
            "{waited:?}"
        );
    }
    for call in [
        db.with().cancel_with(&cancelled).key("k"),
        db.with().key("k").cancel_with(&cancelled),
    ] {
        let ended = call.execute(INSERT, (1,)).unwrap_err();
        assert_eq!(ended.kind(), ErrorKind::Cancelled);
    }
    hold.release();
    for (key, call) in [
        ("a", db.with().priority(Priority::High).key("a")),
        ("b", db.with().key("b").priority(Priority::High)),
    ] {
        let hold = scene.hold();
        let mut first = Box::pin(db.execute_async("DELETE FROM t", ()));
        assert!(poll_once(&mut first).is_pending());
        let mut second = Box::pin(call.execute_async(INSERT, (key,)));
        assert!(poll_once(&mut second).is_pending());
        scene.wait_for_queue(2);
        hold.release();
        // It went first, so the other one found its row.
        assert_eq!(block_on(second).unwrap(), Once::Done(1));
        assert_eq!(block_on(first).unwrap(), 1, "{key}");
    }
    assert_eq!(settled(db, "k"), Outcome::NotCommitted);
}
