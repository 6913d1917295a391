//! An answer is given once, about a world that was committed.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use onepen::{Error, ErrorKind, Result};
use rusqlite::ffi;

use crate::common::{Scene, block_on};

const TABLE: &str = "CREATE TABLE t(n INTEGER PRIMARY KEY, of TEXT);";

/// The first run of the second member sees what the first member wrote in the
/// run that is undone, and fails because of it. That error must never be told.
#[test]
fn an_error_seen_against_an_undone_neighbour_is_not_delivered() {
    let scene = Scene::new(TABLE);
    scene.make_wary();
    let hold = scene.hold();
    let runs = Arc::new(AtomicU32::new(0));
    let run = Arc::clone(&runs);
    let fickle = scene.db.submit(move |tx| {
        // Something else each time, as a closure that reads a clock would.
        let n = run.fetch_add(1, Ordering::SeqCst);
        tx.execute("INSERT INTO t VALUES (?1, 'fickle')", (n,))
    });
    let victim = scene
        .db
        .submit(|tx| tx.execute("INSERT INTO t VALUES (0, 'victim')", ()));
    let spoiler = scene.db.submit(|tx| {
        tx.execute("INSERT INTO t VALUES (50, 'spoiler')", ())?;
        tx.execute("INSERT OR ROLLBACK INTO t VALUES (50, 'again')", ())
    });
    scene.wait_for_queue(3);
    hold.release();
    assert_eq!(fickle.unwrap().wait().unwrap(), 1);
    assert_eq!(
        victim.unwrap().wait().unwrap(),
        1,
        "it failed only in the run that was undone"
    );
    spoiler.unwrap().wait().unwrap_err();
    assert_eq!(runs.load(Ordering::SeqCst), 2);
    assert_eq!(scene.numbers("SELECT n FROM t ORDER BY n"), [0, 1]);
    scene.largest_group_was(3);
}

/// A value of a run that was undone is dropped, not delivered.
#[test]
fn a_value_of_an_undone_run_is_not_delivered() {
    let scene = Scene::new(TABLE);
    let hold = scene.hold();
    let runs = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&runs);
    let counting = scene.db.submit(move |tx| {
        tx.execute("INSERT INTO t VALUES (1, 'counting')", ())?;
        Ok(counted.fetch_add(1, Ordering::SeqCst) + 1)
    });
    let failing = scene
        .db
        .submit(|_| Err::<(), _>(Error::other("on purpose")))
        .unwrap();
    scene.wait_for_queue(2);
    hold.release();
    assert_eq!(counting.unwrap().wait().unwrap(), 2);
    failing.wait().unwrap_err();
    assert_eq!(runs.load(Ordering::SeqCst), 2);
    assert_eq!(scene.number("SELECT count(*) FROM t"), 1);
}

#[test]
fn a_group_without_a_failure_runs_each_member_once() {
    let scene = Scene::new(TABLE);
    let hold = scene.hold();
    let runs = Arc::new(AtomicU32::new(0));
    let members: Vec<_> = (0..20)
        .map(|n| {
            let runs = Arc::clone(&runs);
            scene.db.submit(move |tx| {
                runs.fetch_add(1, Ordering::SeqCst);
                tx.execute("INSERT INTO t VALUES (?1, '')", (n,))
            })
        })
        .collect();
    scene.wait_for_queue(20);
    hold.release();
    for member in members {
        assert_eq!(member.unwrap().wait().unwrap(), 1);
    }
    assert_eq!(runs.load(Ordering::SeqCst), 20);
    scene.largest_group_was(20);
}

/// Even when everything else in its group fails: `FnOnce` is run once.
#[test]
fn write_once_runs_once_whatever_its_neighbours_do() {
    let scene = Scene::new(TABLE);
    let hold = scene.hold();
    let spoil = || {
        scene.db.submit(|tx| {
            tx.execute("INSERT INTO t VALUES (50, '')", ())?;
            tx.execute("INSERT OR ROLLBACK INTO t VALUES (50, '')", ())
        })
    };
    let runs = Mutex::new(0);
    std::thread::scope(|scope| {
        let first = spoil();
        let once = scope.spawn(|| {
            scene.db.write_once(|tx| {
                *runs.lock().unwrap() += 1;
                tx.execute("INSERT INTO t VALUES (1, 'once')", ())
            })
        });
        scene.wait_for_queue(2);
        let last = spoil();
        let db = scene.db.clone();
        let task = scope.spawn(move || {
            block_on(db.write_once_async(|tx| tx.execute("INSERT INTO t VALUES (2, 'task')", ())))
        });
        scene.wait_for_queue(4);
        hold.release();
        first.unwrap().wait().unwrap_err();
        assert_eq!(once.join().unwrap().unwrap(), 1);
        last.unwrap().wait().unwrap_err();
        assert_eq!(task.join().unwrap().unwrap(), 1);
    });
    assert_eq!(*runs.lock().unwrap(), 1);
    assert_eq!(scene.numbers("SELECT n FROM t ORDER BY n"), [1, 2]);
}

#[test]
fn each_failing_member_gets_its_own_error() {
    for wary in [false, true] {
        let scene = Scene::new(TABLE);
        if wary {
            scene.make_wary();
        }
        let hold = scene.hold();
        let members: Vec<_> = (0..30)
            .map(|n| {
                scene
                    .db
                    .with()
                    .label(format!("member {n}"))
                    .submit(move |tx| {
                        tx.execute("INSERT INTO t VALUES (?1, 'first')", (n,))?;
                        match n % 3 {
                            0 => Ok(n),
                            1 => Err(Error::other(format!("refused {n}"))),
                            _ => tx
                                .execute("INSERT INTO t VALUES (?1, 'again')", (n,))
                                .map(|_| unreachable!()),
                        }
                    })
                    .unwrap()
            })
            .collect();
        scene.wait_for_queue(30);
        hold.release();
        for (n, member) in (0..).zip(members) {
            match (n % 3, member.wait()) {
                (0, answer) => assert_eq!(answer.unwrap(), n),
                (1, answer) => {
                    let error = answer.unwrap_err();
                    assert_eq!(error.kind(), ErrorKind::Other);
                    assert_eq!(error.label(), Some(&*format!("member {n}")));
                    assert_eq!(
                        error.into_other().unwrap().to_string(),
                        format!("refused {n}")
                    );
                }
                (_, answer) => {
                    let error = answer.unwrap_err();
                    assert_eq!(error.sqlite_code(), Some(ffi::SQLITE_CONSTRAINT_PRIMARYKEY));
                }
            }
        }
        let kept: Vec<i64> = (0..30).filter(|n| n % 3 == 0).collect();
        assert_eq!(scene.numbers("SELECT n FROM t ORDER BY n"), kept);
        scene.largest_group_was(30);
    }
}

#[test]
fn members_see_what_came_before_them_in_the_order_they_came() {
    let scene = Scene::new(TABLE);
    let hold = scene.hold();
    let members: Vec<_> = (0..50i64)
        .map(|n| {
            scene.db.submit(move |tx| -> Result<i64> {
                tx.execute("INSERT INTO t VALUES (?1, '')", (n,))?;
                tx.query_row("SELECT count(*) FROM t", (), |row| row.get(0))
            })
        })
        .collect();
    scene.wait_for_queue(50);
    hold.release();
    for (n, member) in (1..).zip(members) {
        assert_eq!(member.unwrap().wait().unwrap(), n);
    }
    scene.largest_group_was(50);
}

#[test]
fn no_reader_sees_a_member_before_its_group_is_committed() {
    let scene = Scene::new(TABLE);
    let hold = scene.hold();
    let (arrive, gate) = crate::common::gate();
    let first = scene
        .db
        .submit(|tx| tx.execute("INSERT INTO t VALUES (1, '')", ()))
        .unwrap();
    let second = scene.db.submit(move |_| {
        arrive.stop();
        Ok(())
    });
    scene.wait_for_queue(2);
    hold.release();
    gate.wait_for_arrival();
    assert!(!first.is_done(), "told before the COMMIT");
    assert_eq!(scene.number("SELECT count(*) FROM t"), 0);
    gate.open();
    assert_eq!(first.wait().unwrap(), 1);
    assert_eq!(scene.number("SELECT count(*) FROM t"), 1);
    second.unwrap().wait().unwrap();
}

/// SQLite fails a transaction that read before somebody else wrote, and wants to
/// write now. Here the write lock comes first.
#[test]
fn a_closure_that_reads_first_never_meets_a_newer_snapshot() {
    let scene = Scene::new(TABLE);
    for write in [
        "INSERT INTO t VALUES (1, '')",
        "INSERT INTO t VALUES (2, '')",
    ] {
        let done = scene.db.write(|tx| {
            tx.query_row("SELECT count(*) FROM t", (), |_| Ok(()))?;
            let stranger = scene.stranger();
            stranger.busy_timeout(std::time::Duration::ZERO)?;
            stranger
                .execute("INSERT INTO t VALUES (9, '')", ())
                .unwrap_err();
            tx.execute(write, ())
        });
        assert_eq!(done.unwrap(), 1);
    }
    assert_eq!(scene.numbers("SELECT n FROM t ORDER BY n"), [1, 2]);
}

/// Bounds that would end a group before it began.
#[test]
fn a_group_of_no_time_or_no_bytes_still_serves_everybody() {
    use std::time::Duration;
    for (members, bytes, held) in [
        (1, 0, Duration::ZERO),
        (0, 0, Duration::MAX),
        (1, usize::MAX, Duration::ZERO),
    ] {
        let scene = Scene::with(crate::common::options().group(members, bytes, held), TABLE);
        let hold = scene.hold();
        let writes: Vec<_> = (0..10)
            .map(|n| {
                scene
                    .db
                    .submit(move |tx| tx.execute("INSERT INTO t VALUES (?1, '')", (n,)))
            })
            .collect();
        scene.wait_for_queue(10);
        hold.release();
        for write in writes {
            assert_eq!(write.unwrap().wait().unwrap(), 1);
        }
    }
}

#[test]
fn a_group_has_no_more_members_than_its_bound() {
    let scene = Scene::with(
        crate::common::options().group(7, 1 << 20, std::time::Duration::MAX),
        TABLE,
    );
    let hold = scene.hold();
    let writes: Vec<_> = (0..20)
        .map(|n| {
            scene
                .db
                .submit(move |tx| tx.execute("INSERT INTO t VALUES (?1, '')", (n,)))
        })
        .collect();
    scene.wait_for_queue(20);
    hold.release();
    for write in writes {
        assert_eq!(write.unwrap().wait().unwrap(), 1);
    }
    scene.largest_group_was(7);
}
