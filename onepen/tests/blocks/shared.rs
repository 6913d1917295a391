use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use onepen::blocks::{Pool, Shared, SharedWrites, Wait, WritePermit};
use onepen::{Error, ErrorKind, WaitedFor};

use crate::common::{gate, until};
use crate::{Home, number};

fn insert(shared: &Shared, n: i64) -> onepen::Result<usize> {
    shared.write(|tx| tx.execute("INSERT INTO t VALUES (?1)", (n,)))
}

#[test]
fn closures_have_the_connection_in_the_order_they_came() {
    let home = Home::new();
    let shared = Shared::new(home.connect());
    let (arrive, gate) = gate();
    let order = Mutex::new(Vec::new());
    thread::scope(|scope| {
        scope.spawn(|| {
            shared.read(|_| {
                arrive.stop();
                Ok(())
            })
        });
        gate.wait_for_arrival();
        for n in 0..8 {
            let (shared, order) = (&shared, &order);
            scope.spawn(move || {
                if n % 2 == 0 {
                    shared.write(|_| {
                        order.lock().unwrap().push(n);
                        Ok(())
                    })
                } else {
                    shared.read(|_| {
                        order.lock().unwrap().push(n);
                        Ok(())
                    })
                }
            });
            until("it waits", || shared.waiting() == n + 1);
        }
        gate.open();
    });
    assert_eq!(order.into_inner().unwrap(), [0, 1, 2, 3, 4, 5, 6, 7]);
}

#[test]
fn no_thread_finds_itself_in_anothers_transaction() {
    let home = Home::new();
    let shared = Shared::new(home.connect());
    thread::scope(|scope| {
        for n in 0..4_i64 {
            let shared = &shared;
            scope.spawn(move || {
                for round in 0..50 {
                    let result = shared.write(|tx| {
                        let before: i64 =
                            tx.query_row("SELECT count(*) FROM t", (), |r| r.get(0))?;
                        tx.execute("INSERT INTO t VALUES (?1)", (n,))?;
                        let after: i64 =
                            tx.query_row("SELECT count(*) FROM t", (), |r| r.get(0))?;
                        assert_eq!(after, before + 1);
                        if round % 2 == 0 {
                            return Err(Error::other("not this one"));
                        }
                        Ok(())
                    });
                    assert_eq!(result.is_err(), round % 2 == 0);
                }
            });
        }
    });
    assert_eq!(home.count(), 100);
}

#[test]
fn a_closure_that_fails_or_panics_leaves_nothing_and_the_next_goes_on() {
    let home = Home::new();
    let shared = Shared::new(home.connect());
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        shared.write(|tx| -> onepen::Result<()> {
            tx.execute("INSERT INTO t VALUES (1)", ())?;
            panic!("on purpose")
        })
    }));
    assert!(panicked.is_err());
    insert(&shared, 2).unwrap();
    assert_eq!(home.count(), 1);
    let refused = shared.read(|tx| tx.prepare("DELETE FROM t").map(drop));
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::NotAllowed);
}

#[test]
fn a_closure_inside_a_closure_is_refused_instead_of_waiting_for_itself() {
    let home = Home::new();
    let shared = Shared::new(home.connect());
    let inner = shared.write(|_| shared.read(|_| Ok(())));
    assert_eq!(inner.unwrap_err().kind(), ErrorKind::Reentrant);
    insert(&shared, 1).unwrap();
}

#[test]
fn whoever_waits_in_vain_is_told_who_has_the_connection() {
    let home = Home::new();
    let shared = Shared::new(home.connect());
    let (arrive, gate) = gate();
    thread::scope(|scope| {
        let line = line!() + 2;
        let long = scope.spawn(|| {
            shared.write(|_| {
                arrive.stop();
                Ok(())
            })
        });
        gate.wait_for_arrival();
        let hurried = shared.clone().wait(Wait::at_most(Duration::from_millis(5)));
        let late = insert(&hurried, 1).unwrap_err();
        assert_eq!(late.kind(), ErrorKind::DeadlineExceeded);
        assert_eq!(late.waited().what, WaitedFor::Connection);
        let text = late.to_string();
        assert!(text.contains(&format!("shared.rs:{line}:")), "{text}");
        gate.open();
        long.join().unwrap().unwrap();
    });
    assert_eq!(home.count(), 0);
}

#[test]
fn a_transaction_left_open_alone_is_rolled_back_and_said_with_where_it_began() {
    let home = Home::new();
    let shared = Shared::new(home.connect());
    let line = line!() + 2;
    let left = shared.alone(|connection| {
        connection.execute_batch("BEGIN; INSERT INTO t VALUES (1)")?;
        Ok(())
    });
    let left = left.unwrap_err();
    assert_eq!(left.kind(), ErrorKind::TransactionLost);
    let text = left.to_string();
    assert!(
        text.contains(&format!("it began at {}:{line}:", file!())),
        "{text}"
    );
    insert(&shared, 2).unwrap();
    assert_eq!(home.count(), 1);
    shared
        .alone(|connection| Ok(connection.execute_batch("VACUUM")?))
        .unwrap();
}

#[test]
fn reads_with_connections_of_their_own_go_on_while_a_write_runs() {
    let home = Home::new();
    let path = home.path();
    let readers = Pool::new(2, move || Ok(crate::connect(&path)));
    let db = SharedWrites::new(Shared::new(home.connect()), readers);
    insert(db.writer(), 1).unwrap();
    let count = |db: &SharedWrites| {
        db.read(|tx| tx.query_row("SELECT count(*) FROM t", (), |row| row.get::<_, i64>(0)))
    };
    let (arrive, gate) = gate();
    thread::scope(|scope| {
        let write = scope.spawn(|| {
            db.write(|tx| {
                tx.execute("INSERT INTO t VALUES (2)", ())?;
                arrive.stop();
                Ok(())
            })
        });
        gate.wait_for_arrival();
        assert_eq!(count(&db).unwrap(), 1);
        gate.open();
        write.join().unwrap().unwrap();
        assert_eq!(count(&db).unwrap(), 2);
    });
    let refused = db.read(|tx| tx.prepare("DELETE FROM t").map(drop));
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::NotAllowed);
}

#[test]
fn under_a_permit_its_writes_stand_in_the_files_line() {
    let home = Home::new();
    let permit = WritePermit::of(home.path()).unwrap();
    let hurried = Wait::at_most(Duration::from_millis(5));
    let shared = Shared::new(home.connect())
        .wait(hurried)
        .under(permit.clone());
    let turn = permit.take().unwrap();
    thread::scope(|scope| {
        let late = scope
            .spawn(|| insert(&shared, 1))
            .join()
            .unwrap()
            .unwrap_err();
        assert_eq!(
            (late.kind(), late.waited().what),
            (ErrorKind::DeadlineExceeded, WaitedFor::Pen)
        );
        // Reads need no turn.
        let read = scope.spawn(|| shared.read(|tx| Ok(number(tx.connection(), "SELECT 1"))));
        assert_eq!(read.join().unwrap().unwrap(), 1);
    });
    drop(turn);
    insert(&shared, 1).unwrap();
}
