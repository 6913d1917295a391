//! Which threads may use which connection: SQLite's threading modes, by name.
//!
//! SQLite decides three times how much it protects itself
//! (<https://www.sqlite.org/threadsafe.html>), and each time can only take away
//! or give within what was decided before:
//!
//! | when | who decides | asked here | set here |
//! |---|---|---|---|
//! | compile time | `SQLITE_THREADSAFE` of the build | [`compiled`] | by the [build](#three-builds) |
//! | start time | `sqlite3_config`, before SQLite is initialised | [`default_mode`] | [`configure`] |
//! | run time | the flags of each `sqlite3_open_v2` | [`effective_mode`] | [`Mutexes`] |
//!
//! A build without mutexes, or a start in single-thread mode, has taken all
//! mutexes away: no connection can get one afterwards. From the other two modes
//! each connection is free to choose between multi-thread and serialized, and
//! none can go down to single-thread.
//!
//! # Guarantees
//!
//! - What is reported was asked of SQLite at that moment, and never remembered:
//!   the mode of a connection is whether it *has* a mutex (`sqlite3_db_mutex`).
//! - The mode is in the type. A [`MultiThread`] connection is `Send` and not
//!   `Sync`; a [`Serialized`] one is both, and what runs on it together sees no
//!   other thread in between; a [`SingleThread`] one is neither.
//! - In single-thread mode the first thread that opens owns SQLite for the rest
//!   of the process: openings elsewhere fail, and [`Database`](crate::Database),
//!   which has threads of its own, refuses.
//! - All of it may be called from several threads at once. It cannot hold off a
//!   library that calls SQLite directly; [`configure`] says what that means.
//!
//! # Three builds
//!
//! `LIBSQLITE3_FLAGS` of the final program's build decides, when SQLite is
//! compiled in (feature `bundled`, the default):
//!
//! ```sh
//! cargo build                                                # 1: serialized
//! LIBSQLITE3_FLAGS=-DSQLITE_THREADSAFE=2 cargo build         # 2: multi-thread
//! LIBSQLITE3_FLAGS=-DSQLITE_THREADSAFE=0 cargo build \
//!     --features onepen/sqlite-without-mutexes               # 0: single-thread
//! ```
//!
//! A SQLite built with 0 leaves out the functions for mutexes, which rusqlite
//! and this module call; the feature `sqlite-without-mutexes` puts five empty
//! ones in their place. With any other build the linker finds them twice and
//! says so.

mod connection;
#[cfg(feature = "sqlite-without-mutexes")]
mod missing;
mod process;
mod raw;
mod serialized;

use std::fmt;

pub use connection::{MultiThread, Mutexes, Opened, SingleThread, open};
pub use process::{compiled, configure, configure_single_thread, default_mode, effective_mode};
pub use process::{is_initialized, owner};
pub use serialized::Serialized;

pub(crate) use process::{may_call_sqlite, may_configure_sqlite, refuse_single_thread};

/// How much SQLite protects itself against threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ThreadingMode {
    /// No mutexes at all: one thread of the process may use SQLite.
    SingleThread,
    /// SQLite protects what connections have in common; a connection itself is
    /// used by one thread at a time, which is what Rust's types say of it.
    MultiThread,
    /// Each connection has a mutex too, which every call takes: any thread may
    /// call at any time. It makes *calls* atomic, not what you do with several.
    Serialized,
}

impl fmt::Display for ThreadingMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SingleThread => "single-thread",
            Self::MultiThread => "multi-thread",
            Self::Serialized => "serialized",
        })
    }
}
