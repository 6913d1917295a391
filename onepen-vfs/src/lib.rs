//! Fair turns at SQLite's write lock for programs that cannot be changed.
//!
//! This library is a SQLite VFS over the one that a program has. Loaded as an
//! extension (or [registered](register_linked) from Rust) it becomes the default, and
//! from then on every connection that is opened stands in line for the write lock
//! with all others of the machine, at the [gate](onepen_lock::gate) of its database,
//! instead of polling for it; and a transaction that reads first and writes later is
//! not refused any more because somebody else wrote in between. Nothing of the
//! program is changed. The guide is `docs/guide/vfs.md`.
//!
//! # What it guarantees
//!
//! - **SQLite decides.** Every lock that SQLite thinks it has is held at the operating
//!   system; turns are an order before the locks and never replace one. A gate that
//!   is missing, wrong or tampered with costs fairness only.
//! - **Who waits holds no lock**, and waits as long as the connection's busy handler
//!   says: a connection without a timeout is refused at once, as ever.
//! - **A turn covers its checkpoint.**
//! - **Nothing is left behind.** A turn ends with its transaction, its connection or
//!   its process, however that ends.
//! - **No second SQLite.** The functions of the program's own SQLite are called (3.40.1
//!   or later); no descriptor of a database, log or wal-index is opened here.
//!
//! # Rooms
//!
//! | module | subject |
//! |---|---|
//! | [`promotion`] | which lock when, in write-ahead mode: a pure machine |
//! | [`kinds`] | which transactions are expected to write |
//! | `turns` | one file's turns at the gate |
//! | `waiting` | joins a refused lock to the sleep that follows it |
//! | `file`, `vfs` | SQLite's methods, over those below |
//! | `entry`, `host`, `sqlite`, `guard` | how SQLite gets here, and its C interface |

pub mod kinds;
pub mod promotion;

#[cfg(unix)]
mod entry;
#[cfg(unix)]
mod file;
#[cfg(unix)]
mod guard;
#[cfg(unix)]
mod host;
#[cfg(unix)]
mod linked;
#[cfg(unix)]
#[doc(hidden)]
pub mod sqlite;
#[cfg(unix)]
mod turns;
#[cfg(unix)]
mod vfs;
#[cfg(unix)]
mod waiting;

#[cfg(unix)]
pub use entry::{
    onepen_vfs_function, onepen_vfs_install, sqlite3_extension_init, sqlite3_onepenvfs_init,
    sqlite3_onepenvfsnamed_init,
};
#[cfg(unix)]
#[doc(hidden)]
pub use host::{FUNCTIONS, NAMES, SLOTS};
#[cfg(unix)]
pub use linked::{NotRegistered, register_functions};
