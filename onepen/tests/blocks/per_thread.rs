use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::thread::{self, ThreadId};

use onepen::ErrorKind;
use onepen::blocks::{PerThread, Tracked};
use rusqlite::Connection;

use crate::common::gate;
use crate::{Home, number};

fn of(home: &Home) -> PerThread<Connection> {
    let path = home.path();
    PerThread::new(move || Ok(crate::connect(&path)))
}

#[test]
fn a_thread_finds_its_own_connection_again_and_no_other_thread_does() {
    let home = Home::new();
    let connections = of(&home);
    let mark = |connections: &PerThread<Connection>, n: i64| {
        connections.with(|c| Ok(c.pragma_update(None, "cache_size", n)?))
    };
    let mark_is = |connections: &PerThread<Connection>| {
        connections.with(|c| Ok(number(c, "PRAGMA cache_size")))
    };
    mark(&connections, 111).unwrap();
    thread::scope(|scope| {
        for n in 0..4 {
            let connections = &connections;
            scope.spawn(move || {
                assert_ne!(mark_is(connections).unwrap(), 111);
                mark(connections, 200 + n).unwrap();
                assert_eq!(mark_is(connections).unwrap(), 200 + n);
            });
        }
    });
    assert_eq!(mark_is(&connections).unwrap(), 111);
    assert_eq!(connections.opened(), 5);
}

#[cfg(target_os = "linux")]
#[test]
fn ten_thousand_short_threads_leave_nothing_open() {
    let descriptors = |path: &std::path::Path| {
        let name = path.to_str().unwrap();
        std::fs::read_dir("/proc/self/fd")
            .unwrap()
            .filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok())
            .filter(|target| target.to_string_lossy().starts_with(name))
            .count()
    };
    // Over a log, opening meets BUSY while the last one closes.
    let home = Home::with("CREATE TABLE t(n)");
    let connections = of(&home);
    for _ in 0..1_250 {
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| connections.with(|c| Ok(number(c, "SELECT 1"))).unwrap());
            }
        });
    }
    assert_eq!(connections.opened(), 10_000);
    // `scope` returns when the closures have; storage of the threads goes a
    // moment later.
    crate::common::until("every thread has gone", || connections.open() == 0);
    crate::common::until("every file is closed", || descriptors(&home.path()) == 0);
}

/// Says which thread drops it.
struct Witness(Arc<Mutex<Vec<ThreadId>>>);

impl Drop for Witness {
    fn drop(&mut self) {
        self.0.lock().unwrap().push(thread::current().id());
    }
}

fn witnesses() -> (PerThread<Witness>, Arc<Mutex<Vec<ThreadId>>>) {
    let dropped = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&dropped);
    let owner = PerThread::new(move || Ok(Witness(Arc::clone(&seen))));
    (owner, dropped)
}

#[test]
fn a_connection_is_closed_on_its_own_thread_when_that_ends() {
    let (owner, dropped) = witnesses();
    let owner = Arc::new(owner);
    let here = Arc::clone(&owner);
    let thread = thread::spawn(move || here.with(|_| Ok(thread::current().id())).unwrap());
    let id = thread.thread().id();
    assert_eq!(thread.join().unwrap(), id);
    assert_eq!(*dropped.lock().unwrap(), [id]);
    assert_eq!(owner.open(), 0);
}

#[test]
fn dropping_the_owner_closes_the_connections_of_threads_that_live_on() {
    let (owner, dropped) = witnesses();
    let owner = Arc::new(owner);
    let (arrive, gate) = gate();
    let here = Arc::clone(&owner);
    let thread = thread::spawn(move || {
        here.with(|_| Ok(())).unwrap();
        drop(here);
        arrive.stop();
    });
    gate.wait_for_arrival();
    drop(Arc::into_inner(owner).expect("the thread has dropped its own"));
    assert_eq!(*dropped.lock().unwrap(), [thread::current().id()]);
    gate.open();
    thread.join().unwrap();
    assert_eq!(dropped.lock().unwrap().len(), 1, "closed twice");
}

#[test]
fn a_connection_in_use_is_not_given_a_second_time() {
    let home = Home::new();
    let connections = of(&home);
    let inner = connections.with(|_| connections.with(|_| Ok(())));
    assert_eq!(inner.unwrap_err().kind(), ErrorKind::Reentrant);
    connections.with(|_| Ok(())).unwrap();
}

#[test]
fn a_failed_opening_is_tried_again_and_a_panic_loses_nothing() {
    let tries = AtomicU32::new(0);
    let home = Home::new();
    let path = home.path();
    let connections = PerThread::new(move || {
        if tries.fetch_add(1, Ordering::Relaxed) == 0 {
            return Err(onepen::Error::other("not yet"));
        }
        Ok(crate::connect(&path))
    });
    assert_eq!(
        connections.with(|_| Ok(())).unwrap_err().to_string(),
        "not yet"
    );
    assert_eq!(connections.open(), 0);
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        connections.with(|_| -> onepen::Result<()> { panic!("on purpose") })
    }));
    assert!(panicked.is_err());
    connections.with(|c| Ok(number(c, "SELECT 1"))).unwrap();
    assert_eq!(connections.opened(), 1);
}

#[test]
fn two_of_them_are_told_apart_on_one_thread() {
    let (one, other) = (
        Home::new(),
        Home::with("CREATE TABLE t(n); INSERT INTO t VALUES (1)"),
    );
    let (first, second) = (of(&one), of(&other));
    let count = |connections: &PerThread<Connection>| {
        connections
            .with(|c| Ok(number(c, "SELECT count(*) FROM t")))
            .unwrap()
    };
    assert_eq!((count(&first), count(&second), count(&first)), (0, 1, 0));
}

#[test]
fn a_thread_that_ends_in_a_transaction_is_reported_with_where_it_began() {
    let home = Home::new();
    let (sender, reports) = channel();
    let path = home.path();
    let connections = PerThread::new(move || {
        let sender = sender.clone();
        Ok(
            Tracked::new(crate::connect(&path)).on_leftover(move |left| {
                sender.send(left.clone()).unwrap();
            }),
        )
    });
    let line = line!() + 4;
    thread::scope(|scope| {
        let forgetful = scope.spawn(|| {
            connections.with(|c| {
                c.execute_batch("BEGIN; INSERT INTO t VALUES (1)")?;
                Ok(())
            })
        });
        forgetful.join().unwrap().unwrap();
    });
    let left = reports.recv().unwrap();
    let began = left.began.unwrap();
    assert_eq!((began.file(), began.line()), (file!(), line), "{left}");
    assert_eq!(home.count(), 0);
    home.connect()
        .execute_batch("INSERT INTO t VALUES (2)")
        .unwrap(); // no lock is left
}

#[test]
fn an_opening_that_asks_for_a_connection_itself_ends_with_one() {
    static ASKED: std::sync::OnceLock<PerThread<Connection>> = std::sync::OnceLock::new();
    let depth = AtomicU32::new(0);
    let connections = ASKED.get_or_init(|| {
        PerThread::new(move || {
            if depth.fetch_add(1, Ordering::Relaxed) == 0 {
                ASKED.get().unwrap().with(|_| Ok(()))?;
            }
            Ok(Connection::open_in_memory()?)
        })
    });
    thread::scope(|scope| {
        let asks = scope.spawn(|| {
            for _ in 0..3 {
                connections.with(|_| Ok(())).unwrap();
            }
            (connections.open(), connections.opened())
        });
        assert_eq!(asks.join().unwrap(), (1, 2));
    });
}
