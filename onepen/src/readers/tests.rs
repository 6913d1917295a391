//! The rules of reading, over real files.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::task::{Context, Poll, Wake, Waker};

use futures_core::Stream;
use rusqlite::Connection;

use super::*;
use crate::error::{Error, ErrorKind};
use crate::file::TempHome;
use crate::options::{Journal, Options};
use crate::params::Parameters;

const LONG: Duration = Duration::from_secs(30);
/// Does not end by itself.
const ENDLESS: &str =
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n";
const COUNT: &str = "SELECT count(*) FROM t";

struct Fixture {
    readers: Arc<Readers>,
    writer: Connection,
    home: TempHome,
}

impl Fixture {
    fn new(readers: usize) -> Self {
        Self::with(Options::new().readers(readers))
    }

    fn with(options: Options) -> Self {
        let home = TempHome::new().expect("a private directory");
        let connector = Connector::new(&home.path().join("a.db"), options, true).expect("a path");
        let forever = Until {
            deadline: None,
            cancel: None,
        };
        let writer = connector.open(Role::Writer, &forever).expect("a writer");
        writer
            .execute_batch("CREATE TABLE t (v INTEGER)")
            .expect("a table");
        Self {
            readers: Arc::new(Readers::new(Arc::new(connector))),
            writer,
            home,
        }
    }

    fn write(&self) {
        self.writer
            .execute("INSERT INTO t VALUES (1)", ())
            .expect("a row");
    }

    fn count(&self) -> i64 {
        count(&self.readers)
    }

    fn stream<T: Send + 'static>(
        &self,
        ticket: Ticket,
        sql: &str,
        params: impl Parameters<Sent: 'static>,
        map: impl FnMut(&Row<'_>) -> rusqlite::Result<T> + Send + 'static,
    ) -> RowStream<T> {
        let params = params.send().expect("parameters");
        self.readers.stream(ticket, sql, params, map)
    }

    /// Another connection, which knows nothing of the readers.
    fn stranger(&self) -> Connection {
        let stranger = Connection::open(self.home.path().join("a.db")).expect("a connection");
        stranger.busy_timeout(Duration::ZERO).expect("no wait");
        stranger
    }

    /// Whether nobody keeps the log from being reset.
    fn can_restart_log(&self) -> bool {
        let busy = self
            .writer
            .query_row("PRAGMA wal_checkpoint(RESTART)", (), |row| row.get(0));
        busy == Ok(0)
    }
}

fn patient() -> Ticket {
    Ticket {
        patience: Some(LONG),
        ..Ticket::default()
    }
}

fn within(patience: Duration) -> Ticket {
    Ticket {
        patience: Some(patience),
        deadline_is_own: true,
        ..Ticket::default()
    }
}

fn cancelled_by(token: &CancelToken) -> Ticket {
    Ticket {
        cancel: Some(token.clone()),
        ..patient()
    }
}

fn count(readers: &Readers) -> i64 {
    readers
        .query_row(&patient(), COUNT, (), |row| row.get(0))
        .expect("a count")
}

fn count_in(tx: &ReadTx) -> i64 {
    tx.query_row(COUNT, (), |row| row.get(0)).expect("a count")
}

/// Looks until it is so. Like every wait of these tests it has an end, so that a
/// rule that is broken fails its test instead of hanging all of them.
fn until(so: impl Fn() -> bool) {
    let since = Instant::now();
    while !so() {
        assert!(since.elapsed() < LONG, "it never happened");
        std::thread::yield_now();
    }
}

/// A thread that reads from when this returns until told to end.
fn reading(readers: &Arc<Readers>) -> (Sender<()>, std::thread::JoinHandle<()>) {
    let (end, ended) = mpsc::channel::<()>();
    let (start, started) = mpsc::channel();
    let readers = Arc::clone(readers);
    let thread = std::thread::spawn(move || {
        let read = readers.read(&patient(), |_| {
            start.send(()).expect("the test listens");
            let _ = ended.recv();
            Ok(())
        });
        read.expect("a read");
    });
    started.recv_timeout(LONG).expect("the read starts");
    (end, thread)
}

struct Unpark(std::thread::Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut future = pin!(future);
    let since = Instant::now();
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(ready) => return ready,
            Poll::Pending => std::thread::park_timeout(LONG.saturating_sub(since.elapsed())),
        }
        assert!(since.elapsed() < LONG, "nobody woke the task");
    }
}

fn poll_once<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

fn all<T: Send + 'static>(rows: &mut RowStream<T>) -> Vec<Result<T>> {
    let mut all = Vec::new();
    while let Some(row) = block_on(std::future::poll_fn(|cx| {
        Pin::new(&mut *rows).poll_next(cx)
    })) {
        all.push(row);
    }
    all
}

const NUMBERS: &str =
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1) SELECT i FROM n";

fn numbers(fixture: &Fixture, up_to: i64) -> RowStream<i64> {
    let number = |row: &Row<'_>| row.get(0);
    fixture.stream(patient(), NUMBERS, (up_to,), number)
}

#[test]
fn a_read_sees_one_state_from_its_first_moment() {
    let db = Fixture::new(1);
    for _ in 0..3 {
        let before = db.count();
        let read = db.readers.read(&patient(), |tx| {
            db.write();
            let first = count_in(tx);
            db.write();
            Ok((first, count_in(tx)))
        });
        assert_eq!(read.expect("a read"), (before, before));
    }
}

#[test]
fn a_read_sees_every_write_that_returned_before_it_began() {
    let db = Fixture::new(2);
    for written in 1..200 {
        db.write();
        assert_eq!(db.count(), written);
        let read = |tx: &ReadTx| Ok(count_in(tx));
        assert_eq!(db.readers.read(&patient(), read).ok(), Some(written));
        assert_eq!(db.count(), written);
        let elsewhere = std::thread::scope(|scope| {
            let elsewhere = scope.spawn(|| count(&db.readers));
            elsewhere.join().expect("a count")
        });
        assert_eq!(elsewhere, written);
    }
}

#[test]
fn readers_on_many_threads_never_go_back_and_never_miss_a_write() {
    use std::sync::atomic::{AtomicI64, Ordering};
    let db = Fixture::new(3);
    let returned = AtomicI64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                loop {
                    let before = returned.load(Ordering::SeqCst);
                    let seen = count(&db.readers);
                    assert!(seen >= before, "{seen} of {before}");
                    if before == 500 {
                        break;
                    }
                }
            });
        }
        for _ in 0..500 {
            db.write();
            returned.fetch_add(1, Ordering::SeqCst);
        }
    });
}

#[test]
fn nothing_that_a_read_runs_can_write_or_leave_a_trace() {
    let db = Fixture::new(1);
    db.write();
    for sql in [
        "INSERT INTO t VALUES (2)",
        "WITH gone AS (SELECT 1) DELETE FROM t",
        "UPDATE t SET v = 3 RETURNING v",
        "CREATE TABLE u (v)",
        "CREATE TEMP TABLE u (v)",
        "DROP TABLE t",
        "BEGIN",
        "COMMIT",
        "ROLLBACK",
        "SAVEPOINT s",
        "ATTACH 'other.db' AS other",
        "PRAGMA user_version = 7",
        "PRAGMA cache_size = 7",
        "PRAGMA query_only = 0",
        "PRAGMA wal_checkpoint",
    ] {
        let refused = [
            db.readers.query_row(&patient(), sql, (), |_| Ok(())),
            db.readers
                .read(&patient(), |tx| tx.query_row(sql, (), |_| Ok(()))),
        ];
        for refused in refused {
            let error = refused.expect_err(sql);
            assert_eq!(error.kind(), ErrorKind::NotAllowed, "{sql}: {error}");
        }
    }
    let version: i64 = db
        .readers
        .query_row(&patient(), "PRAGMA user_version", (), |row| row.get(0))
        .expect("asking is allowed");
    assert_eq!((db.count(), version), (1, 0));
}

#[test]
fn temporary_tables_of_the_hook_do_not_keep_reads_from_starting() {
    let hook = |connection: &Connection| {
        connection.pragma_update(None, "query_only", false)?;
        connection.execute_batch("CREATE TEMP TABLE mine AS SELECT 7 AS v")
    };
    let db = Fixture::with(Options::new().readers(1).on_connect(hook));
    let seven = |tx: &ReadTx| tx.query_row("SELECT v FROM mine", (), |row| row.get::<_, i64>(0));
    assert_eq!(db.readers.read(&patient(), seven).ok(), Some(7));
    let refused = db.readers.read(&patient(), |tx| {
        tx.query_row("DELETE FROM mine", (), |_| Ok(()))
    });
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::NotAllowed);
}

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
fn forgotten_rows_neither_pin_the_log_nor_disturb_the_next() {
    let db = Fixture::new(1);
    db.write();
    db.write();
    let ticket = patient();
    for _ in 0..3 {
        let read = db.readers.read(&ticket, |tx| {
            let mut statement = tx.prepare("SELECT v FROM t")?;
            let mut rows = statement.query(())?;
            assert!(rows.next()?.is_some());
            std::mem::forget(rows);
            Ok(())
        });
        read.expect("a read");
        db.write();
        assert!(db.can_restart_log(), "a statement was left running");
    }
    let values = |tx: &ReadTx| tx.query_map("SELECT v FROM t", (), |row| row.get::<_, i64>(0));
    let values = db.readers.read(&ticket, values).expect("a read");
    assert_eq!(values.len(), 5);
}

#[test]
fn a_panic_passes_and_gives_the_reader_back() {
    let db = Fixture::new(1);
    let read =
        |tx: &ReadTx| -> Result<()> { tx.query_each("SELECT 1", (), |_| panic!("of the caller")) };
    let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        db.readers.read(&patient(), read)
    }));
    assert_eq!(panic.unwrap_err().downcast_ref(), Some(&"of the caller"));
    assert_eq!(db.readers.in_use(), 0);
    assert!(db.can_restart_log());
    assert_eq!(db.count(), 0);
}

#[test]
fn an_error_of_the_caller_comes_back_as_it_was() {
    let db = Fixture::new(1);
    let read: Result<()> = db
        .readers
        .read(&patient(), |_| Err(Error::other("not today")));
    assert_eq!(read.unwrap_err().to_string(), "not today");
    let none = db
        .readers
        .query_row(&patient(), "SELECT v FROM t", (), |_| Ok(()));
    let none = none.unwrap_err();
    assert!(matches!(
        none.sqlite(),
        Some(rusqlite::Error::QueryReturnedNoRows)
    ));
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
fn a_snapshot_stays_what_it_is_and_moves_between_threads() {
    let db = Fixture::new(1);
    db.write();
    let snapshot = db.readers.snapshot(&patient()).expect("a snapshot");
    db.write();
    assert_eq!((count_in(&snapshot), db.count()), (1, 2));
    assert_eq!(db.readers.in_use(), 1);
    assert!(db.readers.oldest_snapshot().is_some());
    assert!(!db.can_restart_log(), "the snapshot needs the log");
    let there = std::thread::spawn(move || count_in(&snapshot));
    assert_eq!(there.join().expect("no panic"), 1);
    assert_eq!(
        (db.readers.in_use(), db.readers.oldest_snapshot()),
        (0, None)
    );
    db.readers.rest();
    assert!(db.can_restart_log());
    let opened = db.readers.opened();
    drop(db.readers.snapshot(&patient()));
    assert_eq!(
        db.readers.opened(),
        opened,
        "connections are kept for later"
    );
}

#[test]
fn a_thread_with_snapshots_still_reads() {
    let db = Fixture::new(1);
    let snapshots: Vec<_> = (0..4)
        .map(|_| db.readers.snapshot(&patient()).expect("a snapshot"))
        .collect();
    assert_eq!(db.count(), 0);
    assert_eq!(db.readers.in_use(), snapshots.len());
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
fn a_finished_read_leaves_its_transaction_to_the_next_while_nothing_changes() {
    let db = Fixture::new(1);
    let still_open = || {
        let mut open = false;
        db.readers.pool.slots.visit(|index| {
            // SAFETY: `visit` lends us the slot.
            let tx = unsafe { db.readers.pool.desks.get(index) };
            open |= tx.as_ref().is_some_and(|tx| tx.raw().is_reading());
        });
        open
    };
    // Until the caretaker does not come in between.
    until(|| {
        db.count();
        db.count();
        still_open()
    });
    // A look at the connection itself is no reason to end it as long as nothing
    // was left running on it.
    until(|| {
        let look = |tx: &ReadTx| Ok(tx.connection().is_autocommit());
        assert_eq!(db.readers.read(&patient(), look).ok(), Some(false));
        still_open()
    });
    assert!(db.readers.hold(LONG).drained());
    assert!(!still_open());
    assert!(db.can_restart_log());

    db.count();
    let read = db.readers.read(&patient(), |_| {
        db.write();
        Ok(())
    });
    read.expect("a read");
    assert!(!still_open(), "it does not see the present state");
}

#[test]
fn nobody_who_stopped_reading_pins_the_log() {
    let db = Fixture::new(4);
    let readers = &db.readers;
    for _ in 0..3 {
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..50).for_each(|_| assert!(count(readers) >= 0)));
            }
        });
        // The caretaker comes, without being asked.
        until(|| db.can_restart_log());
        db.write();
    }
}

#[test]
fn who_reads_without_pause_lets_the_log_be_reset_once_it_is_copied_back() {
    let db = Fixture::new(1);
    for _ in 0..20 {
        db.write();
        db.count();
        db.count();
        // Another process, which cannot hold our readers back.
        let copied = "PRAGMA wal_checkpoint(PASSIVE)";
        db.stranger()
            .query_row(copied, (), |_| Ok(()))
            .expect("it is copied back");
        db.count();
        assert!(db.can_restart_log());
    }
}

#[test]
fn over_a_rollback_journal_a_read_leaves_no_lock_and_waits_for_a_writers_end() {
    let db = Fixture::with(Options::new().readers(2).journal(Journal::Rollback));
    db.count();
    let read = |tx: &ReadTx| Ok(count_in(tx));
    assert_eq!(db.readers.read(&patient(), read).ok(), Some(0));
    let stranger = db.stranger();
    stranger
        .execute_batch("BEGIN EXCLUSIVE; INSERT INTO t VALUES (1)")
        .expect("nobody reads");
    for late in [
        db.readers.read(&within(Duration::from_millis(5)), read),
        db.readers
            .query_row(&within(Duration::from_millis(5)), COUNT, (), |row| {
                row.get(0)
            }),
    ] {
        let late = late.unwrap_err();
        assert_eq!(late.kind(), ErrorKind::DeadlineExceeded, "{late}");
    }
    let readers = &db.readers;
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| readers.read(&patient(), read));
        let too = scope.spawn(|| count(readers));
        until(|| db.readers.in_use() == 2);
        stranger.execute_batch("COMMIT").expect("a commit");
        assert_eq!(waits.join().expect("no panic").ok(), Some(1));
        assert_eq!(too.join().expect("no panic"), 1);
    });
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

#[test]
fn a_task_reads_without_a_runtime() {
    let db = Fixture::new(2);
    db.write();
    let name = || std::thread::current().name().map(str::to_owned);
    let here = name();
    let read = db
        .readers
        .read_async(patient(), move |tx| Ok((count_in(tx), name())));
    let (count, there) = block_on(read).expect("a read");
    assert_eq!(count, 1);
    assert_ne!(there, here);
    assert!(there.is_some_and(|name| name.starts_with("onepen-read-")));
}

#[test]
fn more_tasks_than_threads_are_served_in_order() {
    let db = Fixture::new(1);
    let (end, first) = occupy(&db);
    let (say, order) = mpsc::channel();
    let queued: Vec<_> = (0..20)
        .map(|number| {
            let say = say.clone();
            let mut read = Box::pin(db.readers.read_async(patient(), move |_| {
                say.send(number).expect("the test listens");
                Ok(())
            }));
            assert!(poll_once(read.as_mut()).is_pending());
            read
        })
        .collect();
    end.send(()).expect("the read listens");
    block_on(first).expect("a read");
    for read in queued {
        block_on(read).expect("a read");
    }
    assert_eq!(
        order.try_iter().collect::<Vec<_>>(),
        (0..20).collect::<Vec<_>>()
    );
}

/// An asynchronous read that occupies its thread until told to end.
fn occupy(db: &Fixture) -> (Sender<()>, impl Future<Output = Result<()>>) {
    let (end, ended) = mpsc::channel::<()>();
    let (start, started) = mpsc::channel();
    let mut read = Box::pin(db.readers.read_async(patient(), move |_| {
        start.send(()).expect("the test listens");
        let _ = ended.recv();
        Ok(())
    }));
    assert!(poll_once(read.as_mut()).is_pending());
    started.recv_timeout(LONG).expect("the read starts");
    (end, read)
}

#[test]
fn a_queued_asynchronous_read_is_ended_by_its_deadline_and_by_its_token() {
    let db = Fixture::new(1);
    let (end, first) = occupy(&db);
    let soon = |own| Ticket {
        patience: Some(Duration::from_millis(20)),
        deadline_is_own: own,
        ..Ticket::default()
    };
    // The thread is busy all the time: what ends these is not its turn.
    for own in [true, false] {
        let late = block_on(db.readers.read_async(soon(own), |_| Ok(()))).unwrap_err();
        assert_eq!(late.kind(), ErrorKind::DeadlineExceeded);
        assert_eq!(late.waited().what, WaitedFor::Reader);
        let mut rows = db.stream(soon(own), COUNT, (), |row| row.get::<_, i64>(0));
        let item = block_on(std::future::poll_fn(|cx| Pin::new(&mut rows).poll_next(cx)));
        let late = item.expect("an item").unwrap_err();
        assert_eq!(late.kind(), ErrorKind::DeadlineExceeded);
    }
    let token = CancelToken::new();
    let with_token = Ticket {
        cancel: Some(token.clone()),
        ..patient()
    };
    let mut read = Box::pin(db.readers.read_async(with_token.clone(), |_| Ok(())));
    assert!(poll_once(read.as_mut()).is_pending());
    let mut rows = db.stream(with_token, COUNT, (), |row| row.get::<_, i64>(0));
    let mut next = Box::pin(std::future::poll_fn(|cx| Pin::new(&mut rows).poll_next(cx)));
    assert!(poll_once(next.as_mut()).is_pending());
    token.cancel();
    assert_eq!(block_on(read).unwrap_err().kind(), ErrorKind::Cancelled);
    let item = block_on(next).expect("an item");
    assert_eq!(item.unwrap_err().kind(), ErrorKind::Cancelled);
    end.send(()).expect("the read listens");
    block_on(first).expect("a read");
}

#[test]
fn a_dropped_future_keeps_a_queued_read_from_running() {
    let db = Fixture::new(1);
    let (end, first) = occupy(&db);
    let (say, ran): (Sender<()>, Receiver<()>) = mpsc::channel();
    let mut queued = Box::pin(db.readers.read_async(patient(), move |_| {
        say.send(()).expect("the test listens");
        Ok(())
    }));
    assert!(poll_once(queued.as_mut()).is_pending());
    drop(queued);
    end.send(()).expect("the read listens");
    block_on(first).expect("a read");
    // The closure was dropped without having been run.
    assert_eq!(ran.recv_timeout(LONG), Err(RecvTimeoutError::Disconnected));
}

#[test]
fn a_dropped_future_stops_a_running_query() {
    let db = Fixture::new(1);
    let (start, started) = mpsc::channel();
    let (say, how) = mpsc::channel();
    let mut read = Box::pin(db.readers.read_async(patient(), move |tx| {
        start.send(()).expect("the test listens");
        let ended = tx.query_row(ENDLESS, (), |_| Ok(()));
        say.send(ended.map_err(|error| error.kind()))
            .expect("the test listens");
        Ok(())
    }));
    assert!(poll_once(read.as_mut()).is_pending());
    started.recv_timeout(LONG).expect("the read starts");
    drop(read);
    assert_eq!(
        how.recv_timeout(LONG).expect("it ends"),
        Err(ErrorKind::Cancelled)
    );
}

#[test]
fn the_callers_token_reaches_a_read_on_another_thread() {
    let db = Fixture::new(1);
    let token = CancelToken::new();
    let (start, started) = mpsc::channel();
    let mut read = Box::pin(db.readers.read_async(cancelled_by(&token), move |tx| {
        start.send(()).expect("the test listens");
        tx.query_row(ENDLESS, (), |_| Ok(()))
    }));
    assert!(poll_once(read.as_mut()).is_pending());
    started.recv_timeout(LONG).expect("the read starts");
    token.cancel();
    assert_eq!(block_on(read).unwrap_err().kind(), ErrorKind::Cancelled);
}

#[test]
fn a_panic_comes_back_to_the_task_and_hurts_no_thread() {
    let db = Fixture::new(1);
    let read = db
        .readers
        .read_async(patient(), |_| -> Result<()> { panic!("of the task") });
    let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| block_on(read)));
    assert_eq!(panic.unwrap_err().downcast_ref(), Some(&"of the task"));
    let next = db.readers.read_async(patient(), |tx| Ok(count_in(tx)));
    assert_eq!(block_on(next).ok(), Some(0));
}

#[test]
fn close_tells_queued_reads() {
    let db = Fixture::new(1);
    let (end, first) = occupy(&db);
    let mut queued = Box::pin(db.readers.read_async(patient(), |_| Ok(())));
    assert!(poll_once(queued.as_mut()).is_pending());
    std::thread::scope(|scope| {
        scope.spawn(|| db.readers.close());
        until(|| db.readers.pool.slots.is_closed());
        end.send(()).expect("the read listens");
    });
    block_on(first).expect("it ran");
    assert_eq!(block_on(queued).unwrap_err().kind(), ErrorKind::Closed);
}

#[test]
fn rows_come_to_a_thread_as_it_asks_for_them() {
    let db = Fixture::new(1);
    let rows: Result<Vec<i64>> = numbers(&db, 1000).collect();
    assert_eq!(rows.expect("rows"), (1..=1000).collect::<Vec<_>>());
    assert_eq!(numbers(&db, i64::MAX).take(3).count(), 3);
    assert_eq!(db.readers.in_use(), 0);
}

#[test]
fn rows_are_of_one_state_and_stopping_early_ends_the_query() {
    let db = Fixture::new(1);
    for _ in 0..500 {
        db.write();
    }
    let mut rows = db.stream(patient(), "SELECT v FROM t", (), |row| row.get::<_, i64>(0));
    assert!(rows.next().is_some_and(|row| row.is_ok()));
    db.write();
    assert_eq!(db.readers.in_use(), 1);
    assert_eq!(rows.by_ref().count(), 499);
    assert!(rows.next().is_none());
    assert_eq!(
        db.readers.in_use(),
        0,
        "the end of the rows ends the snapshot"
    );
    let mut rows = numbers(&db, i64::MAX);
    assert!(rows.next().is_some());
    drop(rows);
    assert_eq!(db.readers.in_use(), 0);
}

#[test]
fn rows_come_to_a_task_and_any_number_of_streams_are_open() {
    let db = Fixture::new(1);
    let mut streams: Vec<_> = (0..5).map(|_| numbers(&db, 2000)).collect();
    for rows in &mut streams {
        let first = block_on(std::future::poll_fn(|cx| {
            Pin::new(&mut *rows).poll_next(cx)
        }));
        assert!(matches!(first, Some(Ok(1))));
    }
    for rows in &mut streams {
        let rest: Result<Vec<i64>> = all(rows).into_iter().collect();
        assert_eq!(rest.expect("rows"), (2..=2000).collect::<Vec<_>>());
    }
    assert_eq!(db.readers.in_use(), 0);
}

#[test]
fn a_stream_that_is_dropped_while_it_is_filled_stops() {
    let db = Fixture::new(1);
    let mut rows = db.stream(patient(), ENDLESS, (), |row| row.get::<_, i64>(0));
    let polled = Pin::new(&mut rows).poll_next(&mut Context::from_waker(Waker::noop()));
    assert!(polled.is_pending());
    until(|| db.readers.in_use() > 0);
    drop(rows);
    until(|| db.readers.in_use() == 0);
}

#[test]
fn the_deadline_of_a_stream_is_its_last_item() {
    let db = Fixture::new(1);
    let ticket = within(Duration::from_millis(20));
    let rows = db.stream(ticket, NUMBERS, (i64::MAX,), |row| row.get::<_, i64>(0));
    let last = rows.last().expect("at least the error");
    assert_eq!(last.unwrap_err().kind(), ErrorKind::DeadlineExceeded);
}

#[test]
fn an_error_or_a_panic_of_the_mapping_comes_after_the_rows_before_it() {
    let db = Fixture::new(1);
    let third_fails = |row: &Row<'_>| match row.get::<_, i64>(0)? {
        3 => row.get::<_, i64>("no such column"),
        number => Ok(number),
    };
    let mut rows = db.stream(patient(), NUMBERS, (9,), third_fails);
    let mut got = all(&mut rows);
    assert!(got.pop().is_some_and(|third| third.is_err()));
    assert_eq!(
        got.into_iter().collect::<Result<Vec<_>>>().ok(),
        Some(vec![1, 2])
    );

    let third_panics = |row: &Row<'_>| match row.get::<_, i64>(0)? {
        3 => panic!("of the mapping"),
        number => Ok(number),
    };
    let mut rows = db.stream(patient(), NUMBERS, (9,), third_panics);
    assert!(rows.next().is_some() && rows.next().is_some());
    let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| rows.next()));
    assert_eq!(panic.unwrap_err().downcast_ref(), Some(&"of the mapping"));
    assert!(rows.next().is_none());

    let mut wrong = db.stream(patient(), "SELECT nothing", (), |_| Ok(()));
    assert!(wrong.next().is_some_and(|error| error.is_err()));
    assert!(wrong.next().is_none());
}

/// What nobody wants any more is dropped on a reading thread.
#[test]
fn a_destructor_that_panics_costs_no_reading_thread() {
    struct Bad;
    impl Drop for Bad {
        fn drop(&mut self) {
            std::panic::resume_unwind(Box::new("of a destructor"));
        }
    }
    let db = Fixture::new(1);
    for _ in 0..3 {
        let (end, ended) = mpsc::channel::<()>();
        let (start, started) = mpsc::channel();
        let mut read = Box::pin(db.readers.read_async(patient(), move |_| {
            start.send(()).expect("the test listens");
            let _ = ended.recv();
            Ok(Bad)
        }));
        assert!(poll_once(read.as_mut()).is_pending());
        started.recv_timeout(LONG).expect("the read starts");
        drop(read);
        end.send(()).expect("the read listens");
    }
    let read = db.readers.read_async(patient(), |tx| Ok(count_in(tx)));
    assert_eq!(block_on(read).ok(), Some(0));
}
