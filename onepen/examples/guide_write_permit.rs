//! A connection for each thread: by luck, and in order with a [`WritePermit`].
//!
//! ```text
//! cargo run -p onepen --example guide_write_permit
//! ```

use std::path::Path;
use std::sync::Mutex;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use onepen::blocks::{Immediate, Transactions, WritePermit};
use rusqlite::Connection;

pub(crate) fn main() -> onepen::Result<()> {
    let dir = tempfile::tempdir().map_err(onepen::Error::other)?;
    let path = dir.path().join("app.db");
    // Stays open: the last one to close locks everybody out for a moment.
    let keeper = Connection::open(&path)?;
    keeper.execute_batch("PRAGMA journal_mode = wal; CREATE TABLE t(who TEXT)")?;

    // Whoever waits with SQLite's timeout sleeps ever longer, and nobody wakes
    // him. A few rounds, because luck may be on his side.
    let mut overtaken = false;
    for _ in 0..20 {
        overtaken |= without(&path)? == ["came last", "came first"];
        if overtaken {
            break;
        }
    }
    println!("a busy timeout: whoever came last was served first: {overtaken}");
    assert!(overtaken);

    let order = with_permit(&path)?;
    println!("WritePermit: {order:?}");
    assert_eq!(order, ["came first", "came last"]);
    drop(keeper);
    Ok(())
}

fn without(path: &Path) -> onepen::Result<Vec<&'static str>> {
    let order = Mutex::new(Vec::new());
    let mut holder = Connection::open(path)?;
    let held = holder.begin::<Immediate>()?;
    thread::scope(|scope| {
        let first = scope.spawn(|| -> onepen::Result<()> {
            let mut connection = Connection::open(path)?;
            connection.busy_timeout(Duration::from_secs(60))?;
            let tx = connection.begin::<Immediate>()?;
            order.lock().unwrap().push("came first");
            tx.commit()
        });
        // It waits, in pauses of 1, 2, 5, 10, 15, 20, 25, … 100 ms.
        thread::sleep(Duration::from_millis(300));
        held.commit()?;
        let mut connection = Connection::open(path)?;
        connection.busy_timeout(Duration::from_secs(60))?;
        let tx = connection.begin::<Immediate>()?;
        order.lock().unwrap().push("came last");
        tx.commit()?;
        first.join().expect("the thread does not panic")
    })?;
    Ok(order.into_inner().unwrap())
}

fn with_permit(path: &Path) -> onepen::Result<Vec<&'static str>> {
    let order = Mutex::new(Vec::new());
    let permit = WritePermit::of(path)?;
    let write = |who: &'static str| -> onepen::Result<()> {
        let mut connection = Connection::open(path)?;
        connection.busy_timeout(Duration::ZERO)?; // nothing will be locked
        let _turn = permit.take()?;
        connection.immediate(|tx| {
            order.lock().unwrap().push(who);
            tx.execute("INSERT INTO t VALUES (?1)", [who])
        })?;
        Ok(())
    };
    let (has_it, go) = channel();
    thread::scope(|scope| {
        let holder = scope.spawn(|| {
            permit.hold(|| {
                has_it.send(()).unwrap();
                while permit.waiting() < 2 {
                    thread::yield_now();
                }
                Ok(())
            })
        });
        go.recv().unwrap();
        let first = scope.spawn(|| write("came first"));
        while permit.waiting() < 1 {
            thread::yield_now();
        }
        let last = scope.spawn(|| write("came last"));
        for thread in [holder, first, last] {
            thread.join().expect("the thread does not panic")?;
        }
        Ok::<(), onepen::Error>(())
    })?;
    Ok(order.into_inner().unwrap())
}
