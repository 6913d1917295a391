//! Who goes first, and what happens when too many wait.

use std::sync::{Arc, Mutex};

use onepen::{Database, ErrorKind, Priority, Submitted, WhenFull};

use crate::common::{Scene, block_on, poll_once, until};

const TABLE: &str = "CREATE TABLE t(n INTEGER PRIMARY KEY AUTOINCREMENT, who INTEGER);";

fn queue(db: &Database, priority: Priority, who: i64) -> Submitted<usize> {
    db.with()
        .priority(priority)
        .submit(move |tx| tx.execute("INSERT INTO t(who) VALUES (?1)", (who,)))
        .unwrap()
}

#[test]
fn writes_are_served_in_the_order_they_came_whatever_their_kind() {
    let scene = Scene::new(TABLE);
    let hold = scene.hold();
    let insert = "INSERT INTO t(who) VALUES (?1)";
    std::thread::scope(|scope| {
        let db = &scene.db;
        let mut threads = Vec::new();
        for who in 0..40i64 {
            threads.push(scope.spawn(move || {
                match who % 5 {
                    0 => db.execute(insert, (who,)).map(drop),
                    1 => db.write_once(|tx| tx.execute(insert, (who,))).map(drop),
                    2 => db
                        .exclusively(|connection| Ok(connection.execute(insert, (who,))?))
                        .map(drop),
                    3 => block_on(db.execute_async(insert, (who,))).map(drop),
                    _ => db
                        .submit(move |tx| tx.execute(insert, (who,)))
                        .unwrap()
                        .wait()
                        .map(drop),
                }
            }));
            scene.wait_for_queue(usize::try_from(who).unwrap() + 1);
        }
        hold.release();
        threads
            .into_iter()
            .for_each(|thread| thread.join().unwrap().unwrap());
    });
    let order = scene.numbers("SELECT who FROM t ORDER BY n");
    assert_eq!(order, (0..40).collect::<Vec<_>>());
}

#[test]
fn a_higher_priority_goes_first_and_order_holds_within_one() {
    let scene = Scene::new(TABLE);
    let hold = scene.hold();
    let mut writes = Vec::new();
    for who in 0..3 {
        writes.push(queue(&scene.db, Priority::Low, 200 + who));
        writes.push(queue(&scene.db, Priority::Normal, 100 + who));
        writes.push(queue(&scene.db, Priority::High, who));
    }
    hold.release();
    writes
        .into_iter()
        .for_each(|write| assert_eq!(write.wait().unwrap(), 1));
    let order = scene.numbers("SELECT who FROM t ORDER BY n");
    assert_eq!(order, [0, 1, 2, 100, 101, 102, 200, 201, 202]);
}

/// For every eight that pass it, one of the lower is served.
#[test]
fn a_priority_starves_nobody() {
    let scene = Scene::new(TABLE);
    let hold = scene.hold();
    let mut writes = Vec::new();
    for who in 0..3 {
        writes.push(queue(&scene.db, Priority::Low, 2000 + who));
        writes.push(queue(&scene.db, Priority::Normal, 1000 + who));
    }
    for who in 0..100 {
        writes.push(queue(&scene.db, Priority::High, who));
    }
    hold.release();
    writes
        .into_iter()
        .for_each(|write| assert_eq!(write.wait().unwrap(), 1));
    let order = scene.numbers("SELECT who FROM t ORDER BY n");
    for lane in [1000, 2000] {
        let mut passed = 0;
        let mut served = 0;
        for who in &order {
            if who / 1000 == lane / 1000 {
                passed = 0;
                served += 1;
            } else if *who < lane && served < 3 {
                passed += 1;
                // Two lanes may be due at the same moment.
                assert!(passed <= 9, "{passed} passed {lane}: {order:?}");
            }
        }
        assert_eq!(served, 3);
    }
    let high: Vec<_> = order.iter().filter(|who| **who < 1000).copied().collect();
    assert_eq!(high, (0..100).collect::<Vec<_>>());
}

#[test]
fn a_full_queue_refuses_at_once_when_that_was_chosen() {
    let options = crate::common::options().queue(3, usize::MAX, WhenFull::Refuse);
    let scene = Scene::with(options, TABLE);
    let hold = scene.hold();
    let queued: Vec<_> = (0..3)
        .map(|who| queue(&scene.db, Priority::Normal, who))
        .collect();
    let insert = "INSERT INTO t(who) VALUES (9)";
    for error in [
        scene.db.execute(insert, ()).unwrap_err(),
        scene
            .db
            .write_once(|tx| tx.execute(insert, ()))
            .unwrap_err(),
        scene.db.exclusively(|_| Ok(())).unwrap_err(),
        scene
            .db
            .submit(move |tx| tx.execute(insert, ()))
            .unwrap_err(),
        block_on(scene.db.execute_async(insert, ())).unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::QueueFull, "{error}");
        let text = error.to_string();
        assert!(
            text.contains("3 writes") && text.contains("scene.db"),
            "{text}"
        );
    }
    assert_eq!(scene.db.stats().queue_length, 3);
    hold.release();
    queued
        .into_iter()
        .for_each(|write| assert_eq!(write.wait().unwrap(), 1));
    scene
        .db
        .execute("INSERT INTO t(who) VALUES (3)", ())
        .unwrap();
    assert_eq!(scene.numbers("SELECT who FROM t ORDER BY n"), [0, 1, 2, 3]);
}

/// The bound is of bytes as well: what a closure carries counts.
#[test]
fn a_queue_is_full_by_bytes_as_well() {
    let options = crate::common::options().queue(1000, 10_000, WhenFull::Refuse);
    let scene = Scene::with(options, TABLE);
    let hold = scene.hold();
    let heavy = [7u8; 4096];
    let submit = || scene.db.submit(move |_| Ok(heavy[0]));
    let queued = [submit().unwrap(), submit().unwrap()];
    assert_eq!(submit().unwrap_err().kind(), ErrorKind::QueueFull);
    hold.release();
    queued
        .into_iter()
        .for_each(|write| assert_eq!(write.wait().unwrap(), 7));
}

/// A single write larger than the whole bound must not wait for ever.
#[test]
fn a_write_larger_than_the_bound_passes_when_it_is_alone() {
    let options = crate::common::options().queue(10, 100, WhenFull::Wait);
    let scene = Scene::with(options, TABLE);
    let hold = scene.hold();
    let heavy = [7u8; 4096];
    let write = scene.db.submit(move |_| Ok(heavy[0])).unwrap();
    hold.release();
    assert_eq!(write.wait().unwrap(), 7);
}

#[test]
fn a_full_queue_lets_callers_wait_outside_in_the_order_they_came() {
    let options = crate::common::options().queue(2, usize::MAX, WhenFull::Wait);
    let scene = Scene::with(options, TABLE);
    let hold = scene.hold();
    let inside: Vec<_> = (0..2)
        .map(|who| queue(&scene.db, Priority::Normal, who))
        .collect();
    std::thread::scope(|scope| {
        let db = &scene.db;
        let insert = "INSERT INTO t(who) VALUES (?1)";
        let mut outside = Vec::new();
        for who in 2..30i64 {
            outside.push(scope.spawn(move || match who % 3 {
                0 => db.execute(insert, (who,)),
                1 => block_on(db.execute_async(insert, (who,))),
                _ => queue(db, Priority::Normal, who).wait(),
            }));
            scene.wait_for_queue(usize::try_from(who).unwrap() + 1);
        }
        hold.release();
        outside
            .into_iter()
            .for_each(|write| assert_eq!(write.join().unwrap().unwrap(), 1));
    });
    inside
        .into_iter()
        .for_each(|write| assert_eq!(write.wait().unwrap(), 1));
    let order = scene.numbers("SELECT who FROM t ORDER BY n");
    assert_eq!(order, (0..30).collect::<Vec<_>>());
}

#[test]
fn submit_returns_when_there_is_space_and_not_before() {
    let options = crate::common::options().queue(1, usize::MAX, WhenFull::Wait);
    let scene = Scene::with(options, TABLE);
    let hold = scene.hold();
    let first = queue(&scene.db, Priority::Normal, 0);
    let returned = Arc::new(Mutex::new(false));
    std::thread::scope(|scope| {
        let (db, flag) = (scene.db.clone(), Arc::clone(&returned));
        let second = scope.spawn(move || {
            let write = queue(&db, Priority::Normal, 1);
            *flag.lock().unwrap() = true;
            write
        });
        scene.wait_for_queue(2);
        assert!(!*returned.lock().unwrap());
        hold.release();
        assert_eq!(second.join().unwrap().wait().unwrap(), 1);
    });
    assert_eq!(first.wait().unwrap(), 1);
}

#[test]
fn a_future_dropped_in_the_lobby_makes_no_hole() {
    let options = crate::common::options().queue(1, usize::MAX, WhenFull::Wait);
    let scene = Scene::with(options, TABLE);
    let hold = scene.hold();
    let first = queue(&scene.db, Priority::Normal, 0);
    let mut gone = Box::pin(scene.db.execute_async("INSERT INTO t(who) VALUES (1)", ()));
    assert!(poll_once(&mut gone).is_pending());
    let mut stays = Box::pin(scene.db.execute_async("INSERT INTO t(who) VALUES (2)", ()));
    assert!(poll_once(&mut stays).is_pending());
    scene.wait_for_queue(3);
    drop(gone);
    scene.wait_for_queue(2);
    hold.release();
    assert_eq!(block_on(stays).unwrap(), 1);
    assert_eq!(first.wait().unwrap(), 1);
    assert_eq!(scene.numbers("SELECT who FROM t ORDER BY n"), [0, 2]);
}

#[test]
fn a_hundred_thousand_writes_can_be_queued_at_once() {
    let scene = Scene::new(TABLE);
    let hold = scene.hold();
    let writes: Vec<_> = (0..100_000)
        .map(|who| queue(&scene.db, Priority::Normal, who))
        .collect();
    assert_eq!(scene.db.stats().queue_length, 100_000);
    hold.release();
    until("everything is written", || {
        scene.db.stats().queue_length == 0
    });
    for write in writes {
        assert_eq!(write.wait().unwrap(), 1);
    }
    let sum: i64 = (0..100_000).sum();
    assert_eq!(scene.number("SELECT sum(who) FROM t"), sum);
    assert_eq!(scene.number("SELECT count(*) FROM t WHERE who <> n - 1"), 0);
}

/// There would be room for the small one, again and again.
#[test]
fn a_small_write_does_not_pass_a_large_one_that_waits_for_space() {
    let options = crate::common::options().queue(1000, 10_000, WhenFull::Wait);
    let scene = Scene::with(options, TABLE);
    let hold = scene.hold();
    let insert = "INSERT INTO t(who) VALUES (?1)";
    let large = [7u8; 8000];
    let large = |who: i64| {
        scene.db.write_async(move |tx| {
            assert_eq!(large[0], 7);
            tx.execute(insert, (who,))
        })
    };
    let mut inside = Box::pin(large(0));
    assert!(poll_once(&mut inside).is_pending());
    let mut outside = Box::pin(large(1));
    assert!(poll_once(&mut outside).is_pending());
    let mut small = Box::pin(scene.db.execute_async(insert, (2,)));
    assert!(poll_once(&mut small).is_pending());
    hold.release();
    for write in [block_on(inside), block_on(outside), block_on(small)] {
        assert_eq!(write.unwrap(), 1);
    }
    assert_eq!(scene.numbers("SELECT who FROM t ORDER BY n"), [0, 1, 2]);
}
