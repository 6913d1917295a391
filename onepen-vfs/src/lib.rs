//! Fair turns at SQLite's write lock for programs that cannot be changed.

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
mod sqlite;
#[cfg(unix)]
mod turns;
#[cfg(unix)]
mod vfs;
#[cfg(unix)]
mod waiting;
