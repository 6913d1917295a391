use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::Poll;
use std::thread;
use std::time::Duration;

use onepen::blocks::{Transactions, Wait, WritePermit};
use onepen::{CancelToken, Database, ErrorKind, Options, WaitedFor};

use crate::Home;
use crate::common::{Hold, block_on, gate, poll_once, until, wait_for_queue};

fn of(home: &Home) -> WritePermit {
    WritePermit::of(home.path()).unwrap()
}

#[test]
fn one_at_a_time_has_the_turn_of_a_file_by_whatever_path() {
    let home = Home::new();
    let link = home.path().with_file_name("link.db");
    #[cfg(unix)]
    std::os::unix::fs::symlink(home.path(), &link).unwrap();
    #[cfg(not(unix))]
    let link = home.path();
    let by_link = WritePermit::of(link).unwrap();
    let by_name = of(&home);
    let turn = by_link.take().unwrap();
    thread::scope(|scope| {
        let late = scope.spawn(|| by_name.take_with(&Wait::at_most(Duration::ZERO)).map(drop));
        let late = late.join().unwrap().unwrap_err();
        assert_eq!(
            (late.kind(), late.waited().what),
            (ErrorKind::DeadlineExceeded, WaitedFor::Pen)
        );
        assert!(late.to_string().contains("permit.rs:"), "{late}");
    });
    let other = Home::new();
    drop(of(&other).take().unwrap()); // another file, another line
    drop(turn);
    drop(by_name.take().unwrap());
}

#[test]
fn turns_are_given_in_the_order_they_were_asked_for() {
    let home = Home::new();
    let permit = of(&home);
    let order = Mutex::new(Vec::new());
    thread::scope(|scope| {
        let turn = permit.take().unwrap();
        for n in 0..8 {
            let (permit, order) = (&permit, &order);
            scope.spawn(move || {
                if n % 2 == 0 {
                    let _turn = permit.take().unwrap();
                    order.lock().unwrap().push(n);
                } else {
                    let _turn = block_on(permit.take_async()).unwrap();
                    order.lock().unwrap().push(n);
                }
            });
            until("it waits", || permit.waiting() == n + 1);
        }
        drop(turn);
    });
    assert_eq!(order.into_inner().unwrap(), [0, 1, 2, 3, 4, 5, 6, 7]);
}

/// None of these connections has a busy timeout, nor waits in any other way.
#[test]
fn whoever_has_the_turn_never_meets_the_write_lock_of_another() {
    let home = Home::new();
    let db = Database::open(home.path()).unwrap();
    let (inside, wrote) = (AtomicU32::new(0), AtomicU32::new(0));
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let mut connection = home.connect();
                let permit = of(&home);
                for n in 0..100 {
                    let turn = permit.take().unwrap();
                    assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                    connection
                        .immediate(|tx| tx.execute("INSERT INTO t VALUES (?1)", (n,)))
                        .expect("nobody else has the write lock");
                    inside.fetch_sub(1, Ordering::SeqCst);
                    drop(turn);
                }
                wrote.fetch_add(100, Ordering::SeqCst);
            });
        }
        for _ in 0..3 {
            scope.spawn(|| {
                for n in 0..100 {
                    db.write(|tx| {
                        assert_eq!(inside.load(Ordering::SeqCst), 0, "two writers at once");
                        tx.execute("INSERT INTO t VALUES (?1)", (n,))
                    })
                    .unwrap();
                }
                wrote.fetch_add(100, Ordering::SeqCst);
            });
        }
    });
    assert_eq!(wrote.load(Ordering::SeqCst), 600);
    assert_eq!(home.count(), 600);
}

#[test]
fn a_permit_waits_for_a_write_of_the_database_and_the_other_way_round() {
    let home = Home::new();
    let db = Options::new().open(home.path()).unwrap();
    let permit = of(&home);
    let hurried = Wait::at_most(Duration::from_millis(5));

    let hold = Hold::of(&db);
    let late = permit.take_with(&hurried).map(drop).unwrap_err();
    assert_eq!(late.kind(), ErrorKind::DeadlineExceeded);
    assert!(late.to_string().contains("a write of `Database`"), "{late}");
    hold.release();

    let insert = "INSERT INTO t VALUES (1)";
    let turn = permit.take().unwrap();
    thread::scope(|scope| {
        let soon = Duration::from_millis(5);
        let late = scope
            .spawn(move || db_with(&db, soon, insert))
            .join()
            .unwrap();
        let (late, db) = late;
        let late = late.unwrap_err();
        assert_eq!(late.kind(), ErrorKind::DeadlineExceeded);
        let text = late.to_string();
        assert!(
            text.contains("a write permit taken at") && text.contains("permit.rs:"),
            "{text}"
        );
        // Queued, alone and exclusive ones wait alike, and none is lost.
        let (one, two, three) = (db.clone(), db.clone(), db.clone());
        let queued = scope.spawn(move || one.execute(insert, ()));
        let alone = scope.spawn(move || two.write_once(|tx| tx.execute(insert, ())));
        let exclusive = scope
            .spawn(move || three.exclusively(|connection| Ok(connection.execute_batch(insert)?)));
        // One of them has the pen and waits for the turn with it.
        wait_for_queue(&db, 2);
        assert_eq!(home.count(), 0);
        drop(turn);
        queued.join().unwrap().unwrap();
        alone.join().unwrap().unwrap();
        exclusive.join().unwrap().unwrap();
        assert_eq!(home.count(), 3);
    });
}

fn db_with(db: &Database, wait: Duration, sql: &str) -> (onepen::Result<usize>, Database) {
    (db.with().deadline(wait).execute(sql, ()), db.clone())
}

#[test]
fn a_thread_that_would_wait_for_itself_is_told() {
    let home = Home::new();
    let db = Database::open(home.path()).unwrap();
    let permit = of(&home);
    let turn = permit.take().unwrap();
    assert_eq!(
        permit.take().map(drop).unwrap_err().kind(),
        ErrorKind::Reentrant
    );
    let written = db.execute("INSERT INTO t VALUES (1)", ());
    assert_eq!(written.unwrap_err().kind(), ErrorKind::Reentrant);
    db.read(|tx| tx.query_map("SELECT n FROM t", (), |_| Ok(())))
        .unwrap();
    drop(turn);
    let inner = db.write(|_| permit.take().map(drop));
    assert_eq!(inner.unwrap_err().kind(), ErrorKind::Reentrant);
    db.execute("INSERT INTO t VALUES (1)", ()).unwrap();
    drop(permit.take().unwrap());
}

#[test]
fn a_wait_for_the_turn_can_be_cancelled_and_leaves_nothing() {
    let home = Home::new();
    let permit = of(&home);
    let token = CancelToken::new();
    let turn = block_on(permit.take_async()).unwrap();
    let mut gone = permit.take_async();
    assert!(poll_once(&mut gone).is_pending());
    drop(gone);
    assert_eq!(permit.waiting(), 0);
    thread::scope(|scope| {
        let wait = Wait::forever().cancel_with(&token);
        let permit = &permit;
        let waits = scope.spawn(move || permit.take_with(&wait).map(drop));
        until("it waits", || permit.waiting() == 1);
        token.cancel();
        assert_eq!(
            waits.join().unwrap().unwrap_err().kind(),
            ErrorKind::Cancelled
        );
    });
    // Served, and dropped without having been asked.
    let mut served = permit.take_async();
    assert!(poll_once(&mut served).is_pending());
    drop(turn);
    drop(served);
    let mut next = permit.take_async();
    let Poll::Ready(turn) = poll_once(&mut next) else {
        panic!("the turn is lost")
    };
    drop(turn.unwrap());
}

#[test]
fn a_tasks_turn_may_move_between_threads() {
    let home = Home::new();
    let permit = of(&home);
    let turn = block_on(permit.take_async()).unwrap();
    thread::spawn(move || drop(turn)).join().unwrap();
    drop(permit.take().unwrap());
}

#[test]
fn a_turn_held_while_a_panic_unwinds_is_passed_on() {
    let home = Home::new();
    let permit = of(&home);
    let panicked =
        std::panic::catch_unwind(|| permit.hold(|| -> onepen::Result<()> { panic!("on purpose") }));
    assert!(panicked.is_err());
    drop(permit.take_with(&Wait::at_most(Duration::ZERO)).unwrap());
}

#[test]
fn closing_the_database_under_a_permit_waits_for_the_turn_but_not_for_its_own() {
    let home = Home::new();
    let db = Database::open(home.path()).unwrap();
    let permit = of(&home);
    let (arrive, gate) = gate();
    thread::scope(|scope| {
        let permit = &permit;
        let holder = scope.spawn(move || {
            let _turn = permit.take().unwrap();
            arrive.stop();
        });
        gate.wait_for_arrival();
        let write = {
            let db = db.clone();
            scope.spawn(move || db.execute("INSERT INTO t VALUES (1)", ()))
        };
        until("the write waits", || permit.waiting() == 1);
        let closing = scope.spawn(move || db.close());
        gate.open();
        write.join().unwrap().unwrap();
        closing.join().unwrap();
        holder.join().unwrap();
    });
    assert_eq!(home.count(), 1);
    let db = Database::open(home.path()).unwrap();
    let turn = permit.take().unwrap();
    db.close(); // by the thread whose turn it is
    drop(turn);
}

#[test]
fn a_permit_for_no_file_is_an_error() {
    let home = Home::new();
    let nowhere = home.path().with_file_name("nowhere.db");
    let error = WritePermit::of(&nowhere).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    assert!(error.to_string().contains("nowhere.db"), "{error}");
    assert!(!nowhere.exists());
}
