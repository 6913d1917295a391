//! Who reads for longer than the lease. No time passes: the looks are made by hand,
//! at a moment of the test's choice.

use super::*;
use crate::timer::Expires;

const LEASE: Duration = Duration::from_secs(3600);
const GRACE: Duration = Duration::from_secs(60);

fn enforced() -> Fixture {
    let options = Options::new().readers(2);
    Fixture::with(options.reader_lease(LEASE).lease_grace(GRACE))
}

impl Fixture {
    /// A look so long after now.
    fn look_in(&self, time: Duration) {
        self.readers.leases.expire(Instant::now() + time);
    }

    fn look_after_all(&self) {
        // Of a single query it is known only since when it was seen.
        self.look_in(Duration::ZERO);
        self.look_in(LEASE + GRACE * 2);
    }

    fn overdue(&self) -> Vec<Reading> {
        let mut reading = self.readers.leases.reading(Instant::now() + LEASE);
        reading.retain(|it| it.overdue);
        reading
    }
}

fn kind<T>(of: Result<T>) -> ErrorKind {
    of.map(drop).expect_err("it has ended").kind()
}

#[test]
fn a_snapshot_past_its_lease_is_ended_and_says_so_from_then_on() {
    let db = enforced();
    let snapshot = db.readers.snapshot(&patient()).expect("a snapshot");
    let younger = db.readers.snapshot(&patient()).expect("a snapshot");
    db.write();
    db.look_in(LEASE - GRACE);
    assert_eq!(count_in(&snapshot), 0, "its lease is not over");
    db.look_in(LEASE + GRACE / 2);
    assert_eq!(count_in(&snapshot), 0, "named, not ended");
    db.look_in(LEASE + GRACE * 2);
    for _ in 0..2 {
        assert_eq!(
            kind(snapshot.query_row(COUNT, (), |_| Ok(()))),
            ErrorKind::LeaseEnded
        );
        assert_eq!(
            kind(snapshot.query_map(COUNT, (), |_| Ok(()))),
            ErrorKind::LeaseEnded
        );
        assert_eq!(
            kind(snapshot.query_each(COUNT, (), |_| Ok(()))),
            ErrorKind::LeaseEnded
        );
        assert_eq!(kind(snapshot.prepare(COUNT)), ErrorKind::LeaseEnded);
        assert_eq!(kind(snapshot.check()), ErrorKind::LeaseEnded);
    }
    assert_eq!(db.readers.leases.ended(), 2, "the other one as well");
    assert!(db.can_restart_log(), "although both are still there");
    assert_eq!(db.readers.oldest_snapshot(), None);
    drop((snapshot, younger));
    assert_eq!(db.readers.in_use(), 0);
    let after = db.readers.snapshot(&patient()).expect("a snapshot");
    assert_eq!(count_in(&after), 1, "on the connection that was ended");
}

#[test]
fn whoever_keeps_the_present_state_is_in_nobodys_way() {
    let db = enforced();
    let snapshot = db.readers.snapshot(&patient()).expect("a snapshot");
    db.look_after_all();
    assert_eq!(db.overdue(), []);
    assert_eq!(count_in(&snapshot), 0);
    db.write();
    assert_eq!(db.overdue().len(), 1);
    db.look_after_all();
    assert_eq!(kind(snapshot.check()), ErrorKind::LeaseEnded);
}

#[test]
fn without_a_grace_it_is_named_and_goes_on() {
    let db = Fixture::with(Options::new().reader_lease(LEASE));
    let ticket = Ticket {
        label: Some("export".into()),
        ..patient()
    };
    let line = line!() + 1;
    let snapshot = db.readers.snapshot(&ticket).expect("a snapshot");
    db.write();
    db.write();
    db.look_after_all();
    let [overdue] = &db.overdue()[..] else {
        panic!("{:?}", db.overdue())
    };
    assert_eq!(overdue.by, ReadBy::Snapshot);
    assert_eq!(overdue.label.as_deref(), Some("export"));
    let thread = overdue.thread.as_deref().expect("a thread");
    let id = format!("{:?}", std::thread::current().id());
    assert!(thread.contains(&id), "{thread}");
    let begun = overdue.begun.expect("a place");
    assert!(begun.file().ends_with("leases.rs") && begun.line() == line);
    assert_eq!(overdue.behind, Some(2));
    assert!(overdue.frame.expect("a frame") > 0 && overdue.since >= LEASE);
    assert!(!overdue.ending);
    assert_eq!(count_in(&snapshot), 0);
    assert_eq!(db.readers.leases.ended(), 0);
}

#[test]
fn a_closure_that_does_not_query_is_ended_where_it_stands() {
    let db = enforced();
    let answer = db.readers.read(&patient(), |tx| {
        let before = count_in(tx);
        db.write();
        db.look_after_all();
        assert!(db.can_restart_log(), "within the closure");
        assert_eq!(
            kind(tx.query_row(COUNT, (), |_| Ok(()))),
            ErrorKind::LeaseEnded
        );
        Ok(before)
    });
    assert_eq!(answer.ok(), Some(0), "all of one state");
    let answer = db.readers.read(&patient(), |tx| {
        db.write();
        db.look_after_all();
        tx.query_row(COUNT, (), |row| row.get::<_, i64>(0))
    });
    assert_eq!(kind(answer), ErrorKind::LeaseEnded);
    assert_eq!(db.count(), 2);
}

#[test]
fn a_query_past_its_lease_is_interrupted_and_nobody_else() {
    let db = enforced();
    for whole in [true, false] {
        let (start, started) = mpsc::channel();
        let readers = Arc::clone(&db.readers);
        let long = std::thread::spawn(move || {
            start.send(()).expect("the test listens");
            if whole {
                kind(readers.read(&patient(), |tx| tx.query_row(ENDLESS, (), |_| Ok(()))))
            } else {
                kind(readers.query_row(&patient(), ENDLESS, (), |_| Ok(())))
            }
        });
        started.recv_timeout(LONG).expect("it starts");
        until(|| !db.readers.leases.reading(Instant::now()).is_empty());
        let neighbour = db.readers.snapshot(&patient()).expect("a snapshot");
        let seen = count_in(&neighbour);
        db.write();
        // The neighbour's lease is made to last for longer than all looks.
        let neighbour = neighbour.without_lease();
        let looks = || db.look_after_all();
        until(|| {
            looks();
            long.is_finished()
        });
        assert_eq!(long.join().expect("no panic"), ErrorKind::LeaseEnded);
        assert_eq!(count_in(&neighbour), seen);
        drop(neighbour);
        assert_eq!(db.count(), seen + 1, "the connection is fit for the next");
    }
}

#[test]
fn an_end_that_comes_late_does_not_hit_the_next_on_the_connection() {
    let db = enforced();
    let snapshot = db.readers.snapshot(&patient()).expect("a snapshot");
    db.write();
    let found = snapshot.tenure().look_for_tests(Instant::now() + LEASE);
    drop(snapshot);
    let next = db.readers.snapshot(&patient()).expect("a snapshot");
    db.readers.leases.end_for_tests(next.tenure(), found);
    assert_eq!(count_in(&next), 1);
    next.check().expect("it was not meant");
}

#[test]
fn a_statement_prepared_before_its_lease_ended_fails_and_lets_go_when_dropped() {
    let db = enforced();
    let snapshot = db.readers.snapshot(&patient()).expect("a snapshot");
    let mut statement = snapshot.prepare(COUNT).expect("a statement");
    db.write();
    db.look_after_all();
    for _ in 0..3 {
        let answer = statement.query_row((), |row| row.get::<_, i64>(0));
        let code = answer.expect_err("it has ended").sqlite_error_code();
        assert_eq!(code, Some(rusqlite::ErrorCode::OperationInterrupted));
    }
    assert_eq!(kind(snapshot.check()), ErrorKind::LeaseEnded);
    assert!(!db.can_restart_log(), "it may be running");
    drop(statement);
    assert!(db.can_restart_log());
    assert_eq!(kind(snapshot.check()), ErrorKind::LeaseEnded);

    let answer = db.readers.read(&patient(), |tx| {
        let mut statement = tx.prepare(COUNT)?;
        db.write();
        db.look_after_all();
        Ok(statement.query_row((), |row| row.get::<_, i64>(0))?)
    });
    assert_eq!(kind(answer), ErrorKind::LeaseEnded, "a closure is told why");
}

#[test]
fn a_statement_of_a_snapshot_whose_transaction_sqlite_ended_does_not_read_another_state() {
    for options in [Options::new(), Options::new().lease_grace(GRACE)] {
        let db = Fixture::with(options.readers(1));
        let snapshot = db.readers.snapshot(&patient()).expect("a snapshot");
        let mut statement = snapshot.prepare(COUNT).expect("a statement");
        let mut other = snapshot.prepare("SELECT 1").expect("a statement");
        db.write();
        // As SQLite does after an error in reading.
        assert!(snapshot.raw().end());
        for _ in 0..2 {
            let answer = statement.query_row((), |row| row.get::<_, i64>(0));
            assert!(answer.is_err(), "{answer:?}");
            let rows = other.query(()).and_then(|mut rows| rows.next().map(|_| ()));
            assert!(rows.is_err());
        }
        drop((statement, other));
        assert_eq!(kind(snapshot.prepare(COUNT)), ErrorKind::TransactionLost);
        assert_eq!(kind(snapshot.check()), ErrorKind::TransactionLost);
        let count = snapshot.query_row(COUNT, (), |row| row.get::<_, i64>(0));
        assert_eq!(kind(count), ErrorKind::TransactionLost);
        drop(snapshot);
        let next = db.readers.snapshot(&patient()).expect("a snapshot");
        assert_eq!(count_in(&next), 1, "and the connection is fit for the next");
    }
}

#[test]
fn a_stream_whose_consumer_is_slow_is_ended_after_the_rows_it_has() {
    let db = enforced();
    let rows = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000)
                SELECT i FROM n, t";
    db.write();
    let mut stream = db.stream(patient(), rows, (), |row| row.get::<_, i64>(0));
    assert!(stream.next().expect("a row").is_ok());
    db.write();
    let [overdue] = &db.overdue()[..] else {
        panic!("{:?}", db.overdue())
    };
    assert_eq!(overdue.by, ReadBy::Stream);
    db.look_after_all();
    assert!(db.can_restart_log(), "although nobody asks for more");
    let rest: Vec<_> = stream.collect();
    let (last, told) = rest.split_last().expect("the error");
    assert!(told.iter().all(Result::is_ok) && told.len() < 4999);
    let last = last.as_ref().expect_err("it has ended");
    assert_eq!(last.kind(), ErrorKind::LeaseEnded);
}

#[test]
fn a_task_that_reads_past_its_lease_is_told() {
    let db = enforced();
    let (start, started) = mpsc::channel();
    let read = db.readers.read_async(patient(), move |tx| {
        start.send(()).expect("the test listens");
        tx.query_row(ENDLESS, (), |_| Ok(()))
    });
    let mut read = pin!(read);
    assert!(poll_once(read.as_mut()).is_pending());
    started.recv_timeout(LONG).expect("it starts");
    db.write();
    let since = Instant::now();
    let told = loop {
        db.look_after_all();
        if let Poll::Ready(answer) = poll_once(read.as_mut()) {
            break answer;
        }
        assert!(since.elapsed() < LONG, "it never ended");
    };
    assert_eq!(kind(told), ErrorKind::LeaseEnded);
}

#[test]
fn over_a_rollback_journal_a_snapshot_past_its_lease_lets_writers_in() {
    let options = Options::new().journal(Journal::Rollback);
    let db = Fixture::with(options.reader_lease(LEASE).lease_grace(GRACE));
    let snapshot = db.readers.snapshot(&patient()).expect("a snapshot");
    assert_eq!(count_in(&snapshot), 0);
    let nobody = Until {
        deadline: None,
        cancel: None,
    };
    db.look_after_all();
    db.readers.make_way(LONG, &nobody).expect("nobody reads");
    db.readers.let_go();
    assert_eq!(kind(snapshot.check()), ErrorKind::LeaseEnded);
    drop(snapshot);
    assert_eq!(db.readers.in_use(), 0);
}

#[test]
fn reads_go_on_beside_looks_that_end_them() {
    let db = enforced();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    let answer = db.readers.read(&patient(), |tx| {
                        let first = count_in_or(tx)?;
                        let second = count_in_or(tx)?;
                        assert_eq!(first, second, "of one state");
                        Ok(first)
                    });
                    if let Err(error) = answer {
                        assert_eq!(error.kind(), ErrorKind::LeaseEnded, "{error}");
                    }
                }
            });
        }
        for _ in 0..500 {
            db.write();
            db.look_in(LEASE + GRACE * 2);
        }
        over.store(true, Ordering::Relaxed);
    });
    assert_eq!(db.count(), 500);
}

fn count_in_or(tx: &ReadTx) -> Result<i64> {
    tx.query_row(COUNT, (), |row| row.get(0))
}
