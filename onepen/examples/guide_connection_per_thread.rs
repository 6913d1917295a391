//! A connection for each thread, kept by hand and kept by [`PerThread`].
//!
//! ```text
//! cargo run -p onepen --example guide_connection_per_thread
//! ```

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::thread::{self, ThreadId};

use onepen::blocks::PerThread;
use rusqlite::Connection;

const THREADS: usize = 200;

pub(crate) fn main() -> onepen::Result<()> {
    let left = without()?;
    println!("by hand: {THREADS} threads came and went, {left} connections are open");
    assert_eq!(left, THREADS, "each thread has left its connection behind");

    let left = with_per_thread()?;
    println!("PerThread: {THREADS} threads came and went, {left} connections are open");
    assert_eq!(left, 0);
    Ok(())
}

/// Nobody tells the map that a thread has ended. A server that starts a thread
/// for each request is out of file descriptors after some hundred of them.
fn without() -> onepen::Result<usize> {
    let dir = tempfile::tempdir().map_err(onepen::Error::other)?;
    let path = dir.path().join("app.db");
    Connection::open(&path)?.execute_batch("CREATE TABLE t(n)")?;
    let connections: Mutex<HashMap<ThreadId, Arc<Mutex<Connection>>>> = Mutex::default();
    for _ in 0..THREADS {
        thread::scope(|scope| {
            let request = scope.spawn(|| -> rusqlite::Result<()> {
                let mine = Arc::new(Mutex::new(Connection::open(&path)?));
                let here = thread::current().id();
                connections.lock().unwrap().insert(here, Arc::clone(&mine));
                mine.lock().unwrap().execute_batch("SELECT * FROM t")
            });
            request.join().expect("the thread does not panic")
        })?;
    }
    Ok(connections.into_inner().unwrap().len())
}

fn with_per_thread() -> onepen::Result<usize> {
    let dir = tempfile::tempdir().map_err(onepen::Error::other)?;
    let path = dir.path().join("app.db");
    Connection::open(&path)?.execute_batch("CREATE TABLE t(n)")?;
    let connections = Arc::new(PerThread::new(move || Ok(Connection::open(&path)?)));
    for _ in 0..THREADS {
        let connections = Arc::clone(&connections);
        let request = thread::spawn(move || {
            connections.with(|c| Ok(c.execute_batch("SELECT * FROM t")?))?;
            connections.with(|c| Ok(c.execute_batch("SELECT * FROM t")?)) // the same one
        });
        request.join().expect("the thread does not panic")?;
    }
    assert_eq!(connections.opened(), THREADS as u64);
    Ok(connections.open())
}
