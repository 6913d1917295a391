use std::ffi::{c_int, c_uint, c_void};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::thread;
use std::time::Duration;

use onepen::blocks::{Get, Immediate, LeftBehind, Pool, PoolOptions, Pooled, Transactions, Wait};
use onepen::{CancelToken, ErrorKind, WaitedFor};
use rusqlite::{Connection, ffi};

use crate::common::{block_on, poll_once, until};
use crate::{Home, number};

fn of(home: &Home, size: usize) -> Pool {
    let path = home.path();
    Pool::new(size, move || Ok(crate::connect(&path)))
}

fn in_use(pool: &Pool) -> usize {
    pool.state().in_use
}

fn granted(future: &mut Get) -> Pooled {
    match poll_once(future) {
        Poll::Ready(connection) => connection.unwrap(),
        Poll::Pending => panic!("it is not its turn"),
    }
}

#[test]
fn connections_are_given_out_in_the_order_they_were_asked_for() {
    let home = Home::new();
    let pool = of(&home, 1);
    let first = pool.get().unwrap();
    let order = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for n in 0..8 {
            // Threads and tasks stand in the same line.
            let (pool, order) = (&pool, &order);
            scope.spawn(move || {
                let connection = if n % 2 == 0 {
                    pool.get().unwrap()
                } else {
                    block_on(pool.get_async()).unwrap()
                };
                order.lock().unwrap().push(n);
                drop(connection);
            });
            until("it waits", || pool.state().waiting == n + 1);
        }
        drop(first);
    });
    assert_eq!(order.into_inner().unwrap(), [0, 1, 2, 3, 4, 5, 6, 7]);
}

#[test]
fn a_connection_that_comes_back_goes_past_nobody_who_waits() {
    let home = Home::new();
    let pool = of(&home, 1);
    let first = pool.get().unwrap();
    let mut waits = pool.get_async();
    assert!(poll_once(&mut waits).is_pending());
    drop(first);
    // It is free, but it is not ours.
    let late = pool.get_with(&Wait::at_most(Duration::ZERO)).map(drop);
    assert_eq!(late.unwrap_err().kind(), ErrorKind::DeadlineExceeded);
    drop(granted(&mut waits));
    drop(pool.get().unwrap());
}

#[test]
fn a_checkout_ends_at_its_deadline_and_says_where_the_others_are() {
    let home = Home::new();
    let pool = of(&home, 2);
    let line = line!() + 1;
    let taken = [pool.get().unwrap(), pool.get().unwrap()];
    let wait = Wait::at_most(Duration::from_millis(5));
    let late = pool.get_with(&wait).unwrap_err();
    assert_eq!(late.kind(), ErrorKind::DeadlineExceeded);
    assert_eq!(late.waited().what, WaitedFor::Connection);
    assert!(late.waited().how_long >= Duration::from_millis(5));
    let text = late.to_string();
    assert!(text.contains(&format!("pool.rs:{line}:")), "{text}");
    drop(taken);

    let path = home.path();
    let pool = PoolOptions::new(1)
        .wait(wait)
        .open_with(move || Ok(crate::connect(&path)));
    let taken = pool.get().unwrap();
    let late = block_on(pool.get_async()).unwrap_err();
    assert_eq!(late.kind(), ErrorKind::DeadlineExceeded);
    drop(taken);
    drop(pool.get().unwrap());
}

#[test]
fn waiters_that_are_cancelled_or_dropped_leak_nothing() {
    let home = Home::new();
    let path = home.path();
    let token = CancelToken::new();
    let pool = PoolOptions::new(2)
        .wait(Wait::forever().cancel_with(&token))
        .open_with(move || Ok(crate::connect(&path)));
    let forever = Wait::forever();
    let held = [
        pool.get_with(&forever).unwrap(),
        pool.get_with(&forever).unwrap(),
    ];

    let mut dropped: Vec<Get> = (0..10).map(|_| pool.get_async()).collect();
    for waits in &mut dropped {
        assert!(poll_once(waits).is_pending());
    }
    // From the middle, the ends, and two that were served but never asked.
    drop(dropped.remove(5));
    drop(dropped.remove(0));
    drop(dropped.pop());
    assert_eq!(pool.state().waiting, 7);
    drop(held);
    assert_eq!(pool.state().waiting, 5);
    drop(dropped);
    assert_eq!((pool.state().waiting, in_use(&pool)), (0, 0));

    let held = [
        pool.get_with(&forever).unwrap(),
        pool.get_with(&forever).unwrap(),
    ];
    thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| pool.get())).collect();
        let mut task = pool.get_async();
        assert!(poll_once(&mut task).is_pending());
        until("all wait", || pool.state().waiting == 5);
        token.cancel();
        for waits in threads {
            assert_eq!(
                waits.join().unwrap().unwrap_err().kind(),
                ErrorKind::Cancelled
            );
        }
        let Poll::Ready(ended) = poll_once(&mut task) else {
            panic!("it still waits")
        };
        assert_eq!(ended.unwrap_err().kind(), ErrorKind::Cancelled);
    });
    drop(held);
    let both = [
        pool.get_with(&forever).unwrap(),
        pool.get_with(&forever).unwrap(),
    ];
    assert_eq!((in_use(&pool), pool.state().waiting), (2, 0));
    drop(both);
}

#[test]
fn a_task_that_waits_is_woken_and_may_move_to_another_thread() {
    let home = Home::new();
    let pool = of(&home, 1);
    let held = pool.get().unwrap();
    let waits = pool.get_async();
    let task = thread::spawn(move || {
        let connection = block_on(waits).unwrap();
        connection.execute("INSERT INTO t VALUES (1)", ()).unwrap();
    });
    until("it waits", || pool.state().waiting == 1);
    drop(held);
    task.join().unwrap();
    assert_eq!(home.count(), 1);
}

#[test]
fn a_transaction_left_open_is_rolled_back_and_reported_with_where_it_began() {
    let home = Home::new();
    let (sender, reports) = channel();
    let sender = Mutex::new(sender);
    let path = home.path();
    let pool = PoolOptions::new(1)
        .on_leftover(move |left| sender.lock().unwrap().send(left.clone()).unwrap())
        .open_with(move || Ok(crate::connect(&path)));
    let line = line!() + 2;
    let connection = pool.get().unwrap();
    connection.execute_batch("BEGIN").unwrap();
    connection.execute("INSERT INTO t VALUES (1)", ()).unwrap();
    drop(connection);
    let left = reports.try_recv().unwrap();
    assert_eq!(left.what, LeftBehind::Transaction);
    let (began, taken) = (left.began.unwrap(), left.taken.unwrap());
    assert_eq!((began.file(), began.line()), (file!(), line));
    assert_eq!((taken.file(), taken.line()), (file!(), line - 1));

    let mut connection = pool.get().unwrap();
    assert!(connection.state().autocommit);
    assert_eq!(number(&connection, "SELECT count(*) FROM t"), 0);
    // A guard that was forgotten, too.
    let line = line!() + 1;
    let tx = connection.begin::<Immediate>().unwrap();
    tx.execute("INSERT INTO t VALUES (2)", ()).unwrap();
    std::mem::forget(tx);
    drop(connection);
    assert_eq!(reports.try_recv().unwrap().began.unwrap().line(), line);
    // And one that a library began, which was given a plain connection.
    let mut connection = pool.get().unwrap();
    let line = line!() - 1;
    fn library(connection: &mut Connection) {
        connection.execute_batch("BEGIN").unwrap();
    }
    library(&mut connection);
    drop(connection);
    let left = reports.try_recv().unwrap();
    assert_eq!((left.began, left.taken.unwrap().line()), (None, line));
    // Nor is what ended before blamed for it.
    let mut connection = pool.get().unwrap();
    connection.immediate(|_| Ok(())).unwrap();
    drop(connection.transaction().unwrap());
    library(&mut connection);
    drop(connection);
    assert_eq!(reports.try_recv().unwrap().began, None);
    let mut connection = pool.get().unwrap();
    connection.immediate(|_| Ok(())).unwrap();
    let plain: &Connection = &connection;
    plain.execute_batch("BEGIN").unwrap();
    drop(connection);
    assert_eq!(reports.try_recv().unwrap().began, None);
    assert_eq!((pool.leftovers().len(), pool.state().leftovers), (5, 5));
    home.connect()
        .execute_batch("INSERT INTO t VALUES (3)")
        .unwrap(); // no lock is left
}

#[test]
fn an_unfinished_statement_is_reset_and_reported_and_stays_prepared() {
    let home =
        Home::with("PRAGMA journal_mode = wal; CREATE TABLE t(n); INSERT INTO t VALUES (1), (2)");
    let pool = of(&home, 1);
    let connection = pool.get().unwrap();
    let line = line!() + 1;
    let mut statement = connection.prepare_cached("SELECT n FROM t").unwrap();
    let mut rows = statement.query(()).unwrap();
    rows.next().unwrap();
    std::mem::forget(rows);
    drop(statement); // into the cache, still running
    drop(connection);
    let left = &pool.leftovers()[0];
    let sql = "SELECT n FROM t".to_owned();
    assert_eq!(left.what, LeftBehind::Statement { sql });
    assert_eq!(left.began.unwrap().line(), line);
    let connection = pool.get().unwrap();
    assert_eq!(connection.state().holds, onepen::blocks::Holds::Nothing);
    let mut statement = connection.prepare_cached("SELECT n FROM t").unwrap();
    let rows: Vec<i64> = statement
        .query_map((), |row| row.get(0))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    assert_eq!(rows, [1, 2]);
}

#[test]
fn a_user_who_leaves_nothing_is_not_reported() {
    let home = Home::new();
    let pool = of(&home, 1);
    for n in 0..3 {
        let mut connection = pool.get().unwrap();
        connection
            .immediate(|tx| tx.execute("INSERT INTO t VALUES (?1)", (n,)))
            .unwrap();
        let rolled_back = connection.transaction().unwrap();
        rolled_back.execute("INSERT INTO t VALUES (9)", ()).unwrap();
        drop(rolled_back);
        connection
            .prepare("SELECT n FROM t")
            .unwrap()
            .query(())
            .unwrap()
            .next()
            .unwrap();
    }
    assert_eq!(pool.leftovers(), []);
    assert_eq!(home.count(), 3);
}

#[test]
fn a_thread_gets_the_connection_again_whose_cache_has_its_statements() {
    let home = Home::new();
    let pool = of(&home, 2);
    let prepared = |connection: &Connection| {
        let (mut now, mut most) = (0, 0);
        // SAFETY: the handle is open, and both places are ours.
        unsafe {
            let used = ffi::SQLITE_DBSTATUS_STMT_USED;
            ffi::sqlite3_db_status(connection.handle(), used, &raw mut now, &raw mut most, 0);
        }
        now
    };
    let mine = pool.get().unwrap();
    let others = pool.get().unwrap();
    mine.prepare_cached("SELECT 'mine'").unwrap();
    drop(mine);
    thread::scope(|scope| scope.spawn(move || drop(others)).join().unwrap());
    // The other one is on top, but it is another thread's.
    let again = pool.get().unwrap();
    assert!(prepared(&again) > 0, "the statement is not in the cache");
    drop(again);
    thread::scope(|scope| {
        let theirs = scope.spawn(|| prepared(&pool.get().unwrap()));
        // Theirs is the one that came back from a thread that is gone, or mine.
        theirs.join().unwrap();
    });
    assert_eq!(pool.state().opened, 2);
}

#[test]
fn a_checkout_asks_sqlite_nothing() {
    static STATEMENTS: AtomicU32 = AtomicU32::new(0);
    unsafe extern "C" fn count(_: c_uint, _: *mut c_void, _: *mut c_void, _: *mut c_void) -> c_int {
        STATEMENTS.fetch_add(1, Ordering::Relaxed);
        0
    }
    let home = Home::new();
    let path = home.path();
    let pool = Pool::new(1, move || {
        let connection = crate::connect(&path);
        // SAFETY: the handle is open, and the callback touches a static alone.
        unsafe {
            let statements = ffi::SQLITE_TRACE_STMT as c_uint;
            let nothing = std::ptr::null_mut();
            ffi::sqlite3_trace_v2(connection.handle(), statements, Some(count), nothing);
        }
        Ok(connection)
    });
    for _ in 0..1000 {
        drop(pool.get().unwrap());
    }
    assert_eq!(STATEMENTS.load(Ordering::Relaxed), 0);
    number(&pool.get().unwrap(), "SELECT 1");
    assert_eq!(
        STATEMENTS.load(Ordering::Relaxed),
        1,
        "the count sees statements"
    );
}

#[test]
fn a_connection_that_met_damage_is_not_given_out_again() {
    let home = Home::new();
    let pool = of(&home, 1);
    let nonsense = home.path().with_file_name("nonsense");
    std::fs::write(&nonsense, [b'x'; 4096]).unwrap();
    let connection = pool.get().unwrap();
    let met = connection.execute("ATTACH ?1 AS nonsense", [nonsense.to_str()]);
    assert!(met.is_err());
    drop(connection);
    assert_eq!((pool.state().idle, pool.state().discarded), (0, 1));
    number(&pool.get().unwrap(), "SELECT 1");
    assert_eq!(pool.state().opened, 2);
    // An error that is the user's own keeps its connection.
    let connection = pool.get().unwrap();
    assert!(connection.execute_batch("no such thing").is_err());
    drop(connection);
    assert_eq!(pool.state().discarded, 1);
}

#[test]
fn a_file_that_was_replaced_is_noticed() {
    let home = Home::new();
    let pool = of(&home, 1);
    number(&pool.get().unwrap(), "SELECT count(*) FROM t");
    let other = home.path().with_file_name("other.db");
    crate::connect(&other)
        .execute_batch("CREATE TABLE t(n); INSERT INTO t VALUES (1), (2), (3)")
        .unwrap();
    std::fs::rename(&other, home.path()).unwrap();
    until("the new file is read", || {
        number(&pool.get().unwrap(), "SELECT count(*) FROM t") == 3
    });
    assert_eq!((pool.state().opened, pool.state().discarded), (2, 1));
}

#[test]
fn a_failed_opening_gives_its_place_back() {
    let home = Home::new();
    let path = home.path();
    let tries = AtomicU32::new(0);
    let pool = Pool::new(1, move || match tries.fetch_add(1, Ordering::Relaxed) {
        0 => Err(onepen::Error::other("not yet")),
        1 => panic!("on purpose"),
        _ => Ok(crate::connect(&path)),
    });
    assert_eq!(pool.get().unwrap_err().to_string(), "not yet");
    let opening = std::panic::AssertUnwindSafe(|| pool.get());
    assert!(std::panic::catch_unwind(opening).is_err());
    drop(pool.get_with(&Wait::at_most(Duration::ZERO)).unwrap());
}

#[test]
fn closing_sends_everybody_away_and_takes_back_what_is_out() {
    let home = Home::new();
    let pool = of(&home, 1);
    let out = pool.get().unwrap();
    thread::scope(|scope| {
        let waits = scope.spawn(|| pool.get().map(drop));
        let mut task = pool.get_async();
        assert!(poll_once(&mut task).is_pending());
        until("both wait", || pool.state().waiting == 2);
        pool.close();
        assert_eq!(waits.join().unwrap().unwrap_err().kind(), ErrorKind::Closed);
        let Poll::Ready(ended) = poll_once(&mut task) else {
            panic!("it still waits")
        };
        assert_eq!(ended.unwrap_err().kind(), ErrorKind::Closed);
    });
    number(&out, "SELECT 1");
    drop(out);
    let state = pool.state();
    assert_eq!((state.idle, state.in_use), (0, 0));
    assert_eq!(pool.get().unwrap_err().kind(), ErrorKind::Closed);
}

#[test]
fn a_listener_that_panics_does_no_harm() {
    let home = Home::new();
    let path = home.path();
    let pool = PoolOptions::new(1)
        .on_leftover(|_| panic!("on purpose"))
        .open_with(move || Ok(crate::connect(&path)));
    pool.get().unwrap().execute_batch("BEGIN").unwrap();
    assert!(
        pool.get_with(&Wait::at_most(Duration::ZERO))
            .unwrap()
            .is_autocommit()
    );
}

#[test]
fn a_pool_is_filled_with_as_many_as_it_may_have() {
    let home = Home::new();
    let pool = of(&home, 4);
    let out = pool.get().unwrap();
    pool.fill().unwrap();
    let state = pool.state();
    assert_eq!((state.opened, state.idle, state.in_use), (4, 3, 1));
    drop(out);
    pool.fill().unwrap();
    assert_eq!(pool.state().opened, 4);
}

#[test]
fn many_threads_and_few_connections_are_never_too_many_at_once() {
    let home = Home::new();
    let pool = of(&home, 3);
    let (now, most) = (AtomicU32::new(0), AtomicU32::new(0));
    thread::scope(|scope| {
        for n in 0..8 {
            let (pool, now, most) = (&pool, &now, &most);
            scope.spawn(move || {
                for _ in 0..200 {
                    let connection = if n % 2 == 0 {
                        pool.get().unwrap()
                    } else {
                        block_on(pool.get_async()).unwrap()
                    };
                    most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    number(&connection, "SELECT 1");
                    now.fetch_sub(1, Ordering::SeqCst);
                }
            });
        }
    });
    assert!(most.load(Ordering::SeqCst) <= 3);
    let state = pool.state();
    assert!(
        state.opened <= 3 && state.idle == state.opened as usize,
        "{state:?}"
    );
    drop(Arc::new(pool));
}
