//! What is said of SQLite and threads, tried out. `without` has for each remedy a
//! program that fails when it is left out; `wrong` what many texts say and what is
//! so instead; `power` what is left after a loss of power; `network` what two machines
//! do to a file. The table that goes
//! with it is docs/literature.md.
//!
//! Nothing here is onepen's but a few remedies at the end of a program: these are
//! facts about SQLite, through rusqlite alone, and so they would tell us should a
//! new SQLite change one.

#[cfg(target_os = "linux")]
mod network;
mod power;
mod without;
mod wrong;

use std::path::PathBuf;
use std::time::Duration;

use rusqlite::{Connection, ffi};

/// A file and connections to it that wait for nobody.
pub(crate) struct Scene {
    dir: tempfile::TempDir,
}

impl Scene {
    /// A file in write-ahead mode with a table `a(n)` of one row, 1.
    pub(crate) fn wal() -> Self {
        Self::with("WAL")
    }

    /// The same over a rollback journal, which is SQLite's default.
    pub(crate) fn rollback() -> Self {
        Self::with("DELETE")
    }

    fn with(journal: &str) -> Self {
        let scene = Self {
            dir: tempfile::tempdir().unwrap(),
        };
        let first = scene.open();
        let is: String = first
            .query_row(&format!("PRAGMA journal_mode={journal}"), (), |r| r.get(0))
            .unwrap();
        assert!(is.eq_ignore_ascii_case(journal));
        first
            .execute_batch("CREATE TABLE a(n); INSERT INTO a VALUES (1)")
            .unwrap();
        scene
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.dir.path().join("a.db")
    }

    pub(crate) fn beside(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A connection of its own, with no busy timeout.
    pub(crate) fn open(&self) -> Connection {
        let connection = Connection::open(self.path()).unwrap();
        connection.busy_timeout(Duration::ZERO).unwrap();
        connection
    }

    /// A connection that would wait for an hour: what fails nevertheless has not
    /// been waited for.
    pub(crate) fn patient(&self) -> Connection {
        let connection = self.open();
        connection.busy_timeout(Duration::from_secs(3600)).unwrap();
        connection
    }
}

pub(crate) const INSERT: &str = "INSERT INTO a VALUES (2)";

pub(crate) fn run(connection: &Connection, sql: &str) {
    connection.execute_batch(sql).unwrap();
}

/// Runs what must fail; its extended code.
#[track_caller]
pub(crate) fn code(connection: &Connection, sql: &str) -> i32 {
    let error = connection.execute_batch(sql).expect_err("must fail");
    error.sqlite_error().unwrap().extended_code
}

pub(crate) fn number(connection: &Connection, sql: &str) -> i64 {
    connection.query_row(sql, (), |row| row.get(0)).unwrap()
}

pub(crate) fn rows(connection: &Connection) -> i64 {
    number(connection, "SELECT count(*) FROM a")
}

pub(crate) const BUSY: i32 = ffi::SQLITE_BUSY;
