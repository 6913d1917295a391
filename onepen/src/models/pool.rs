//! The pool over connections of SQLite's own: given out in the order they were
//! asked for, none of them twice, and none forgotten, whoever gives up, fails or
//! closes the pool at whatever moment.
//!
//! Not under loom, which has no room for SQLite; there the line that the pool
//! stands on is looked at (`line`).

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use rusqlite::Connection;

use super::explore::explore;
use crate::blocks::{Get, Pool, PoolOptions, Wait};
use crate::cancel::CancelToken;
use crate::error::{Error, ErrorKind};
use crate::pen::future::block_on;
use crate::sync::{Arc, AtomicU32, Ordering, thread};

fn pool(size: usize) -> Pool {
    Pool::new(size, || Ok(Connection::open_in_memory()?))
}

/// A task's wait that stands in line.
fn in_line(pool: &Pool) -> Get {
    let mut get = pool.get_async();
    let mut cx = Context::from_waker(Waker::noop());
    assert!(matches!(Pin::new(&mut get).poll(&mut cx), Poll::Pending));
    get
}

/// All of it is in the pool again, and can be had.
fn nothing_is_left(pool: &Pool, size: usize) {
    let state = pool.state();
    assert_eq!((state.in_use, state.waiting), (0, 0), "{state:?}");
    let all: Vec<_> = (0..size)
        .map(|_| pool.get_with(&Wait::at_most(std::time::Duration::ZERO)))
        .collect();
    assert!(all.iter().all(Result::is_ok), "a place was lost");
    assert_eq!(pool.state().in_use, size);
}

#[test]
fn connections_are_had_in_the_order_they_were_asked_for() {
    explore(|| {
        let pool = pool(1);
        let had = Arc::new(AtomicU32::new(0));
        let held = pool.get().unwrap();
        let users: Vec<_> = (0..3)
            .map(|nth| {
                let (mut get, had) = (in_line(&pool), Arc::clone(&had));
                thread::spawn(move || {
                    let connection = block_on(|cx| Pin::new(&mut get).poll(cx)).unwrap();
                    assert_eq!(had.fetch_add(1, Ordering::SeqCst), nth, "out of turn");
                    drop(connection);
                })
            })
            .collect();
        drop(held);
        for user in users {
            user.join().unwrap();
        }
        nothing_is_left(&pool, 1);
    });
}

#[test]
fn never_more_are_out_than_the_pool_is_large() {
    explore(|| {
        let pool = pool(2);
        let out = Arc::new(AtomicU32::new(0));
        let users: Vec<_> = (0..4)
            .map(|_| {
                let (pool, out) = (pool.clone(), Arc::clone(&out));
                thread::spawn(move || {
                    for _ in 0..2 {
                        let connection = pool.get().unwrap();
                        assert!(out.fetch_add(1, Ordering::SeqCst) < 2, "too many are out");
                        thread::yield_now();
                        out.fetch_sub(1, Ordering::SeqCst);
                        drop(connection);
                    }
                })
            })
            .collect();
        for user in users {
            user.join().unwrap();
        }
        assert!(pool.state().opened <= 2);
        nothing_is_left(&pool, 2);
    });
}

#[test]
fn a_waiter_that_is_cancelled_leaves_its_place_to_the_next() {
    explore(|| {
        let pool = pool(1);
        let held = pool.get().unwrap();
        let token = CancelToken::new();
        let cancelled = {
            let (pool, wait) = (pool.clone(), Wait::forever().cancel_with(&token));
            thread::spawn(move || match pool.get_with(&wait) {
                Ok(connection) => drop(connection),
                Err(error) => assert_eq!(error.kind(), ErrorKind::Cancelled),
            })
        };
        let dropped = in_line(&pool);
        let next = {
            let pool = pool.clone();
            thread::spawn(move || drop(pool.get().unwrap()))
        };
        let dropper = thread::spawn(move || drop(dropped));
        token.cancel();
        drop(held);
        for user in [cancelled, next, dropper] {
            user.join().unwrap();
        }
        nothing_is_left(&pool, 1);
    });
}

#[test]
fn an_opening_that_fails_or_panics_passes_its_place_on() {
    explore(|| {
        let tries = AtomicU32::new(0);
        let pool = Pool::new(1, move || match tries.fetch_add(1, Ordering::SeqCst) {
            0 => Err(Error::other("not this time")),
            1 => super::panic_quietly("nor this"),
            _ => Ok(Connection::open_in_memory()?),
        });
        let users: Vec<_> = (0..4)
            .map(|_| {
                let pool = pool.clone();
                thread::spawn(move || {
                    let get = std::panic::AssertUnwindSafe(|| pool.get().map(drop));
                    std::panic::catch_unwind(get).is_ok_and(|got| got.is_ok())
                })
            })
            .collect();
        let had: Vec<bool> = users.into_iter().map(|user| user.join().unwrap()).collect();
        assert_eq!(had.iter().filter(|had| **had).count(), 2);
        nothing_is_left(&pool, 1);
    });
}

#[test]
fn closing_leaves_no_connection_behind_and_nobody_waiting() {
    explore(|| {
        let pool = PoolOptions::new(1).open_with(|| Ok(Connection::open_in_memory()?));
        let held = pool.get().unwrap();
        let waits = {
            let pool = pool.clone();
            thread::spawn(move || match pool.get() {
                Ok(connection) => drop(connection),
                Err(error) => assert_eq!(error.kind(), ErrorKind::Closed),
            })
        };
        let user = thread::spawn(move || drop(held));
        pool.close();
        for thread in [waits, user] {
            thread.join().unwrap();
        }
        let state = pool.state();
        assert_eq!((state.idle, state.in_use, state.waiting), (0, 0, 0));
        assert_eq!(pool.get().unwrap_err().kind(), ErrorKind::Closed);
    });
}
