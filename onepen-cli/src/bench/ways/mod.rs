//! The ways of using SQLite that are compared, one room per family.
//!
//! Guarantees: every way runs the same transactions ([`Job`]) on a database
//! that began the same, with the same durability, with cached prepared
//! statements and with foreign keys enforced. What is left to differ is who
//! waits for whom, and how.

mod ceiling;
pub mod onepen;
mod plain;
mod pool;
mod postgres;
mod shared;
mod sqlite;
mod writer_thread;

use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use self::onepen::Onepen;
pub use self::postgres::Server;
pub use sqlite::{OnConnection, open, set_journal};

use super::sql::Fault;
use super::workloads::Job;

/// What a way needs to know.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The database file.
    pub path: PathBuf,
    /// What COMMIT promises.
    pub durability: Durability,
    /// Where PostgreSQL is, when it takes part.
    pub server: Option<Server>,
}

/// What an acknowledged transaction has survived.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// A loss of power (`synchronous = FULL`; PostgreSQL: `synchronous_commit = on`).
    #[default]
    Full,
    /// The end of the process (`synchronous = NORMAL`; PostgreSQL: `synchronous_commit = off`).
    Normal,
}

/// One way, open on one database.
pub trait Way: Send + Sync {
    /// What one thread needs of its own; called on that thread.
    fn client(&self) -> Result<Box<dyn Client + '_>, Fault>;
}

/// One thread's side of a way.
pub trait Client {
    /// Runs one transaction; Ok means acknowledged.
    fn run(&mut self, job: &Job) -> Result<(), Fault>;

    /// The time is over.
    fn finish(&mut self) -> Result<(), Fault> {
        Ok(())
    }
}

/// A way that is open.
pub enum Opened {
    /// Its clients are threads.
    Threads(Box<dyn Way>),
    /// Its client is one thread, whatever `--threads` says.
    OneThread(Box<dyn Way>),
    /// Its clients are tasks on one thread.
    Tasks(Arc<Onepen>),
}

/// The file's journal when a way gets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Journal {
    /// SQLite's default.
    Rollback,
    /// Write-ahead log.
    Wal,
    /// As it was: the way sees to it.
    AsItIs,
    /// There is no SQLite file.
    Server,
}

/// What is known about a way before it is opened.
pub struct About {
    /// As the user writes it.
    pub name: &'static str,
    /// One line.
    pub line: &'static str,
    /// How the file is prepared.
    pub journal: Journal,
    /// Opens it.
    pub open: fn(&Setup) -> Result<Opened, Fault>,
}

/// All ways, in the order of the report: from what beginners write to what is
/// recommended.
pub const ALL: &[About] = &[
    About {
        name: "naive",
        line: "a connection per thread, no timeout, rollback journal: SQLite's defaults",
        journal: Journal::Rollback,
        open: |setup| plain::open(setup, &plain::NAIVE),
    },
    About {
        name: "timeout",
        line: "the same with busy_timeout 5 s",
        journal: Journal::Rollback,
        open: |setup| plain::open(setup, &plain::TIMEOUT),
    },
    About {
        name: "wal+timeout",
        line: "a connection per thread, WAL, busy_timeout 5 s, plain BEGIN",
        journal: Journal::Wal,
        open: |setup| plain::open(setup, &plain::WAL_TIMEOUT),
    },
    About {
        name: "wal+immediate+retry",
        line: "a connection per thread, WAL, BEGIN IMMEDIATE, tried again after 1 ms for up to 30 s",
        journal: Journal::Wal,
        open: |setup| plain::open(setup, &plain::WAL_IMMEDIATE_RETRY),
    },
    About {
        name: "mutex",
        line: "one connection for all threads, behind a mutex, WAL",
        journal: Journal::Wal,
        open: shared::mutex,
    },
    About {
        name: "own+mutex",
        line: "a connection per thread, one mutex around every write, WAL, BEGIN IMMEDIATE, busy_timeout 5 s",
        journal: Journal::Wal,
        open: shared::own_and_mutex,
    },
    About {
        name: "reopen",
        line: "open, one transaction, close: the common mistake; WAL, BEGIN IMMEDIATE, busy_timeout 5 s",
        journal: Journal::Wal,
        open: plain::reopen,
    },
    About {
        name: "writer-thread",
        line: "one thread writes what comes through a queue, a transaction each; reads on own connections; WAL",
        journal: Journal::Wal,
        open: writer_thread::open,
    },
    About {
        name: "pool",
        line: "r2d2 with its defaults (10 connections), WAL, BEGIN IMMEDIATE, busy_timeout 5 s",
        journal: Journal::Wal,
        open: pool::open,
    },
    About {
        name: "onepen",
        line: "the library onepen from blocking threads",
        journal: Journal::AsItIs,
        open: onepen::threads,
    },
    About {
        name: "onepen-async",
        line: "the library onepen from --tasks async tasks on one thread",
        journal: Journal::AsItIs,
        open: onepen::tasks,
    },
    About {
        name: "one-transaction",
        line: "the ceiling, no contender: one thread, everything in one transaction, durable only at its end",
        journal: Journal::Wal,
        open: ceiling::open,
    },
    About {
        name: "postgres",
        line: "PostgreSQL, a connection per thread, reached through a socket (needs --postgres URL)",
        journal: Journal::Server,
        open: postgres::open,
    },
];

impl About {
    /// Whether it runs without being asked for by name.
    pub fn is_default(&self) -> bool {
        self.name != "one-transaction" && self.journal != Journal::Server
    }
}

/// The way of this name.
pub fn by_name(name: &str) -> Option<&'static About> {
    ALL.iter().find(|about| about.name == name)
}
