//! Every call on a file and every allocation fails in turn: the first, the
//! second, the third, until none is left to fail; once, and from there on for
//! good. This is SQLite's own method (<https://sqlite.org/testing.html#anomaly_testing>).
//!
//! Whatever fails, and whatever was being done ([`deeds`]):
//! - what was told is true: `Committed` is in the file, `NotCommitted` is not,
//!   now, after a crash at this moment, and when everything was closed and opened
//!   again; what was in the file before is still there;
//! - nobody is left with a lock: a stranger can write at once;
//! - the handle works again as soon as the disk does;
//! - nothing panics, hangs, or asks the disk for ever.
#![cfg(all(target_os = "linux", target_env = "gnu"))]

#[path = "../common/calls.rs"]
mod calls;
#[path = "../common/mod.rs"]
mod common;
mod copies;
mod deeds;
#[path = "../common/disk.rs"]
mod disk;
mod files;
mod memory;
mod trial;
