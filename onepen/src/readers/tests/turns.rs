//! Who reads when: turns, limits, holds and closing.

use super::*;

#[test]
fn those_who_wait_get_a_reader_in_the_order_they_came() {
    let db = Fixture::new(1);
    let (end, first) = reading(&db.readers);
    let (say, order) = mpsc::channel();
    let waiting: Vec<_> = (0..5)
        .map(|number| {
            let (readers, say) = (Arc::clone(&db.readers), say.clone());
            let thread = std::thread::spawn(move || {
                let read = readers.read(&patient(), |_| {
                    say.send(number).expect("the test listens");
                    Ok(())
                });
                read.expect("a read");
            });
            until(|| db.readers.pool.slots.waiting() == number + 1);
            thread
        })
        .collect();
    end.send(()).expect("the read listens");
    for thread in waiting {
        thread.join().expect("a read");
    }
    first.join().expect("a read");
    assert_eq!(order.try_iter().collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
    assert_eq!(db.readers.in_use(), 0);
}

#[test]
fn who_gives_up_waiting_leaves_nothing_behind() {
    let db = Fixture::new(1);
    let (end, first) = reading(&db.readers);
    let late = db
        .readers
        .read(&within(Duration::from_millis(5)), |_| Ok(()));
    let late = late.unwrap_err();
    assert_eq!(late.kind(), ErrorKind::DeadlineExceeded);
    assert_eq!(late.waited().what, WaitedFor::Reader);
    assert!(late.waited().how_long >= Duration::from_millis(5));

    let token = CancelToken::new();
    let cancelled = std::thread::scope(|scope| {
        let read = scope.spawn(|| db.readers.read(&cancelled_by(&token), |_| Ok(())));
        until(|| db.readers.pool.slots.waiting() == 1);
        token.cancel();
        read.join().expect("no panic")
    });
    assert_eq!(cancelled.unwrap_err().kind(), ErrorKind::Cancelled);
    assert_eq!(db.readers.pool.slots.waiting(), 0);

    end.send(()).expect("the read listens");
    first.join().expect("a read");
    assert_eq!(db.count(), 0);
    assert_eq!(db.readers.in_use(), 0);
}

#[test]
fn a_read_inside_a_read_waits_for_nobody() {
    let db = Fixture::new(1);
    let nested = db.readers.read(&patient(), |outer| {
        db.write();
        let hold = std::thread::scope(|scope| {
            let hold = scope.spawn(|| db.readers.hold(Duration::ZERO).drained());
            hold.join().expect("no panic")
        });
        assert!(!hold, "this thread reads");
        let inner = db.readers.read(&patient(), |inner| Ok(count_in(inner)))?;
        Ok((count_in(outer), inner, db.count()))
    });
    assert_eq!(nested.expect("a read"), (0, 1, 1));
    assert_eq!((db.readers.in_use(), db.readers.opened()), (0, 2));
}

#[test]
fn a_deadline_of_the_call_stops_a_running_query() {
    let db = Fixture::new(1);
    let ticket = within(Duration::from_millis(5));
    let late = [
        db.readers.query_row(&ticket, ENDLESS, (), |_| Ok(())),
        db.readers
            .read(&ticket, |tx| tx.query_row(ENDLESS, (), |_| Ok(()))),
    ];
    for late in late {
        let late = late.unwrap_err();
        assert_eq!(late.kind(), ErrorKind::DeadlineExceeded, "{late}");
        assert_eq!(late.waited().what, WaitedFor::Query);
        assert!(late.waited().how_long >= Duration::from_millis(5));
    }
    // The next call on the same connection has no such limit.
    let slow = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300000)
                SELECT count(*) FROM n";
    let slow = db
        .readers
        .query_row(&patient(), slow, (), |row| row.get::<_, i64>(0));
    assert_eq!(slow.ok(), Some(300_000));
}

#[test]
fn a_token_stops_a_running_query() {
    let db = Fixture::new(1);
    let token = CancelToken::new();
    let (start, started) = mpsc::channel();
    let read = std::thread::scope(|scope| {
        let read = scope.spawn(|| {
            db.readers.read(&cancelled_by(&token), |tx| {
                start.send(()).expect("the test listens");
                tx.query_row(ENDLESS, (), |_| Ok(()))
            })
        });
        started.recv_timeout(LONG).expect("the read starts");
        token.cancel();
        read.join().expect("no panic")
    });
    let error = read.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled);
    assert_eq!(error.waited().what, WaitedFor::Query);
    let again = db.readers.read(&cancelled_by(&token), |_| Ok(()));
    assert_eq!(again.unwrap_err().kind(), ErrorKind::Cancelled);
}

#[test]
fn a_hold_waits_for_those_who_read_and_makes_others_wait() {
    let db = Fixture::new(2);
    let (end, first) = reading(&db.readers);
    assert!(!db.readers.hold(Duration::from_millis(1)).drained());
    let (held, hold) = mpsc::channel();
    let (release, released) = mpsc::channel::<()>();
    std::thread::scope(|scope| {
        let readers = &db.readers;
        scope.spawn(move || {
            let hold = readers.hold(LONG);
            // Whoever holds the others may read.
            assert_eq!(count(readers), 0);
            held.send(hold.drained()).expect("the test listens");
            released.recv().expect("the test lets go");
        });
        until(|| readers.pool.slots.is_held());
        let late = scope.spawn(|| count(readers));
        until(|| readers.pool.slots.waiting() == 1);
        assert!(hold.try_recv().is_err(), "somebody reads still");
        end.send(()).expect("the read listens");
        assert_eq!(hold.recv_timeout(LONG), Ok(true));
        assert_eq!(readers.pool.slots.waiting(), 1);
        db.write();
        release.send(()).expect("the hold listens");
        assert_eq!(late.join().expect("no panic"), 1);
    });
    first.join().expect("a read");
}

#[test]
fn close_waits_for_reads_and_sends_the_others_away() {
    let db = Fixture::new(1);
    let (end, first) = reading(&db.readers);
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| db.readers.read(&patient(), |_| Ok(())));
        until(|| db.readers.pool.slots.waiting() == 1);
        let close = scope.spawn(|| db.readers.close());
        let away = waiting.join().expect("no panic");
        assert_eq!(away.unwrap_err().kind(), ErrorKind::Closed);
        assert!(!close.is_finished(), "somebody reads still");
        end.send(()).expect("the read listens");
    });
    first.join().expect("a read");
    assert_eq!(db.readers.opened(), 0);
    let late = [
        db.readers.read(&patient(), |_| Ok(())),
        db.readers.query_row(&patient(), COUNT, (), |_| Ok(())),
        db.readers.snapshot(&patient()).map(drop),
        block_on(db.readers.read_async(patient(), |_| Ok(()))),
    ];
    for late in late {
        assert_eq!(late.unwrap_err().kind(), ErrorKind::Closed);
    }
}

#[test]
fn close_inside_a_read_does_not_wait_for_itself() {
    let db = Fixture::new(1);
    let snapshot = db.readers.snapshot(&patient()).expect("a snapshot");
    let read = db.readers.read(&patient(), |tx| {
        db.readers.close();
        Ok(count_in(tx))
    });
    assert_eq!(read.ok(), Some(0));
    assert_eq!(count_in(&snapshot), 0, "snapshots live on");
    drop(snapshot);
    assert_eq!(db.readers.opened(), 0);

    let db = Fixture::new(1);
    let readers = Arc::clone(&db.readers);
    let on_a_thread_of_ours = db.readers.read_async(patient(), move |_| {
        readers.close();
        Ok(7)
    });
    assert_eq!(block_on(on_a_thread_of_ours).ok(), Some(7));
}
