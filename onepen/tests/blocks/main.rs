//! The building blocks, one by one, over plain connections.

#[path = "../common/mod.rs"]
mod common;

mod busy;
mod examples;
mod per_thread;
mod permit;
mod pool;
mod retry;
mod shared;
mod transactions;

use std::path::{Path, PathBuf};

use rusqlite::Connection;

/// A file in write-ahead mode with a table `t(n)`, gone with the home.
pub(crate) struct Home {
    dir: tempfile::TempDir,
}

impl Home {
    pub(crate) fn new() -> Self {
        Self::with("PRAGMA journal_mode = wal; CREATE TABLE t(n INTEGER);")
    }

    pub(crate) fn with(sql: &str) -> Self {
        let home = Self {
            dir: tempfile::tempdir().unwrap(),
        };
        home.connect().execute_batch(sql).unwrap();
        home
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.dir.path().join("home.db")
    }

    /// A connection that waits for nobody.
    pub(crate) fn connect(&self) -> Connection {
        connect(&self.path())
    }

    pub(crate) fn count(&self) -> i64 {
        number(&self.connect(), "SELECT count(*) FROM t")
    }
}

/// A connection that waits for nobody.
pub(crate) fn connect(path: &Path) -> Connection {
    let connection = Connection::open(path).unwrap();
    connection.busy_timeout(std::time::Duration::ZERO).unwrap();
    connection
}

pub(crate) fn number(connection: &Connection, sql: &str) -> i64 {
    connection.query_row(sql, (), |row| row.get(0)).unwrap()
}
