use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use onepen::blocks::{
    Busy, BusyHandler, Class, EffectiveTimeout, Immediate, Schedule, Transactions,
    effective_timeout,
};
use onepen::{CancelToken, ErrorKind};
use rusqlite::Connection;

use crate::Home;
use crate::common::until;

const INSERT: &str = "INSERT INTO t VALUES (1)";

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn effective(connection: &Connection) -> EffectiveTimeout {
    effective_timeout(connection).unwrap()
}

#[test]
fn a_closure_is_told_the_attempt_the_time_and_the_database() {
    let home = Home::new();
    let mut other = home.connect();
    let held = other.begin::<Immediate>().unwrap();
    let connection = home.connect();
    let (sender, asked) = channel();
    BusyHandler::closure(move |wait| {
        let database = wait.database.map(PathBuf::from);
        sender
            .send((wait.attempt, wait.waited, database, wait.holder()))
            .unwrap();
        if wait.attempt < 3 {
            Busy::TryAgainAfter(ms(2))
        } else {
            Busy::GiveUp
        }
    })
    .install(&connection)
    .unwrap();
    for _ in 0..2 {
        let since = Instant::now();
        let error = connection.execute(INSERT, ()).unwrap_err();
        assert_eq!(Class::of(&error), Some(Class::Busy));
        let took = since.elapsed();
        let asked: Vec<_> = asked.try_iter().collect();
        let attempts: Vec<_> = asked.iter().map(|asked| asked.0).collect();
        assert_eq!(attempts, [0, 1, 2, 3]);
        assert_eq!(asked[0].1, Duration::ZERO, "a new wait begins");
        assert!(asked[3].1 <= took, "it is longer than the wait");
        for (tries, pair) in asked.windows(2).enumerate() {
            assert!(pair[1].1 >= pair[0].1 + ms(2), "{tries}: {pair:?}");
        }
        assert!(asked.iter().all(|asked| asked.2 == Some(home.path())));
        #[cfg(target_os = "linux")]
        for holder in asked.iter().map(|asked| asked.3.as_ref()) {
            assert!(
                holder.is_some_and(onepen::Holder::is_this_process),
                "{holder:?}"
            );
        }
    }
    drop(held);
    connection.execute(INSERT, ()).unwrap();
}

#[test]
fn a_lock_that_is_let_go_in_time_is_got() {
    let home = Home::new();
    let mut other = home.connect();
    let held = other.begin::<Immediate>().unwrap();
    thread::scope(|scope| {
        let asked = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&asked);
        let path = home.path();
        let waits = scope.spawn(move || {
            let connection = crate::connect(&path);
            BusyHandler::closure(move |_| {
                counted.fetch_add(1, Ordering::SeqCst);
                Busy::TryAgainAfter(ms(1))
            })
            .install(&connection)
            .unwrap();
            connection.execute(INSERT, ())
        });
        until("it has asked several times", || {
            asked.load(Ordering::SeqCst) > 3
        });
        drop(held);
        waits.join().unwrap().unwrap();
    });
    assert_eq!(home.count(), 1);
}

#[test]
fn a_timeout_is_kept_whatever_the_schedule() {
    let home = Home::new();
    let mut other = home.connect();
    let held = other.begin::<Immediate>().unwrap();
    let connection = home.connect();
    for schedule in [
        Schedule::constant(ms(1)),
        Schedule::constant(ms(3_600_000)), // the last pause ends at the timeout
        Schedule::exponential(ms(1), ms(4)),
        Schedule::reversed(ms(8), ms(1)),
    ] {
        let handler = BusyHandler::timeout(ms(20)).schedule(schedule);
        let control = handler.install(&connection).unwrap();
        let error = control.explain(connection.execute(INSERT, ()).unwrap_err());
        assert_eq!(error.kind(), ErrorKind::DeadlineExceeded, "{schedule:?}");
        assert!(error.waited().how_long >= ms(20), "{schedule:?}: {error}");
        assert_eq!(Class::of_error(&error), Some(Class::Busy));
    }
    drop(held);
}

#[test]
fn cancelling_ends_a_wait_that_an_interrupt_does_not() {
    let home = Home::new();
    let mut other = home.connect();
    let held = other.begin::<Immediate>().unwrap();
    let token = CancelToken::new();
    thread::scope(|scope| {
        let asked = Arc::new(AtomicU32::new(0));
        let (sender, handle) = channel();
        let (counted, path, token_) = (Arc::clone(&asked), home.path(), token.clone());
        let waits = scope.spawn(move || {
            let connection = crate::connect(&path);
            sender.send(connection.get_interrupt_handle()).unwrap();
            let control = BusyHandler::closure(move |_| {
                // From here on it sleeps for an hour, unless it is cancelled.
                let asked = counted.fetch_add(1, Ordering::SeqCst);
                Busy::TryAgainAfter(if asked < 10 { ms(1) } else { ms(3_600_000) })
            })
            .cancel_with(&token_)
            .install(&connection)
            .unwrap();
            let error = connection.execute(INSERT, ()).unwrap_err();
            control.explain(error)
        });
        let handle = handle.recv().unwrap();
        until("it waits", || asked.load(Ordering::SeqCst) > 0);
        let before = asked.load(Ordering::SeqCst);
        handle.interrupt();
        until("it waits on", || {
            asked.load(Ordering::SeqCst) > before.max(10)
        });
        token.cancel();
        let error = waits.join().unwrap();
        assert_eq!(error.kind(), ErrorKind::Cancelled);
        #[cfg(target_os = "linux")]
        assert!(
            error.to_string().contains("held by another connection"),
            "{error}"
        );
    });
    drop(held);
}

#[test]
fn a_token_can_be_given_for_one_request_and_taken_away_for_the_next() {
    let home = Home::new();
    let mut other = home.connect();
    let held = other.begin::<Immediate>().unwrap();
    let connection = home.connect();
    let control = BusyHandler::timeout(ms(5)).install(&connection).unwrap();
    let token = CancelToken::new();
    token.cancel();
    let fails = || {
        control
            .explain(connection.execute(INSERT, ()).unwrap_err())
            .kind()
    };
    control.cancel_with(Some(&token));
    assert_eq!(fails(), ErrorKind::Cancelled);
    control.cancel_with(None);
    assert_eq!(fails(), ErrorKind::DeadlineExceeded);
    drop(held);
    // A cancelled token is no obstacle where nothing is waited for.
    control.cancel_with(Some(&token));
    connection.execute(INSERT, ()).unwrap();
}

#[test]
fn the_effective_timeout_is_what_was_set_last() {
    let home = Home::new();
    let connection = home.connect();
    assert_eq!(effective(&connection), EffectiveTimeout::AtOnce);
    connection.busy_timeout(ms(1234)).unwrap();
    assert_eq!(effective(&connection), EffectiveTimeout::AtMost(ms(1234)));

    BusyHandler::timeout(ms(777)).install(&connection).unwrap();
    assert_eq!(effective(&connection), EffectiveTimeout::AtMost(ms(777)));
    let by_sql = crate::number(&connection, "SELECT onepen_busy_timeout()");
    assert_eq!(by_sql, 777);
    BusyHandler::forever().install(&connection).unwrap();
    assert_eq!(effective(&connection), EffectiveTimeout::Forever);
    BusyHandler::closure(|_| Busy::GiveUp)
        .install(&connection)
        .unwrap();
    assert_eq!(effective(&connection), EffectiveTimeout::UpToClosure);

    connection.pragma_update(None, "busy_timeout", 55).unwrap();
    assert_eq!(effective(&connection), EffectiveTimeout::AtMost(ms(55)));
    BusyHandler::remove(&connection).unwrap();
    assert_eq!(effective(&connection), EffectiveTimeout::AtOnce);
    BusyHandler::remove(&connection).unwrap(); // nothing is there: nothing to do
}

#[test]
fn a_closure_that_panics_ends_the_wait() {
    let home = Home::new();
    let mut other = home.connect();
    let _held = other.begin::<Immediate>().unwrap();
    let connection = home.connect();
    BusyHandler::closure(|_| panic!("on purpose"))
        .install(&connection)
        .unwrap();
    for _ in 0..2 {
        let error = connection.execute(INSERT, ()).unwrap_err();
        assert_eq!(Class::of(&error), Some(Class::Busy));
    }
}

/// What the closure owns tells when it is dropped.
struct Dropped(Arc<Mutex<u32>>);

impl Drop for Dropped {
    fn drop(&mut self) {
        *self.0.lock().unwrap() += 1;
    }
}

#[test]
fn a_handler_is_freed_once_when_it_is_replaced_removed_or_closed() {
    let home = Home::new();
    let dropped = Arc::new(Mutex::new(0));
    let install = |connection: &Connection| {
        let owned = Dropped(Arc::clone(&dropped));
        BusyHandler::closure(move |_| {
            let _ = &owned;
            Busy::GiveUp
        })
        .install(connection)
        .unwrap()
    };
    let count = || *dropped.lock().unwrap();
    let connection = home.connect();
    let control = install(&connection);
    install(&connection);
    assert_eq!(count(), 1);
    BusyHandler::remove(&connection).unwrap();
    assert_eq!(count(), 2);
    install(&connection);
    drop(connection);
    assert_eq!(count(), 3);
    // A control outlives its connection.
    control.cancel_with(None);
}

#[test]
fn a_handler_is_refused_while_a_statement_runs_and_the_old_one_stays() {
    let home = Home::with("CREATE TABLE t(n); INSERT INTO t VALUES (1), (2)");
    let connection = home.connect();
    BusyHandler::timeout(ms(5)).install(&connection).unwrap();
    let mut statement = connection.prepare("SELECT n FROM t").unwrap();
    let mut rows = statement.query(()).unwrap();
    rows.next().unwrap();
    let refused = BusyHandler::timeout(ms(9))
        .install(&connection)
        .unwrap_err();
    assert_eq!(Class::of_error(&refused), Some(Class::Busy));
    assert!(BusyHandler::remove(&connection).is_err());
    drop(rows);
    drop(statement);
    assert_eq!(effective(&connection), EffectiveTimeout::AtMost(ms(5)));
    let mut other = home.connect();
    let _held = other.begin::<Immediate>().unwrap();
    assert!(connection.execute(INSERT, ()).is_err());
}
