//! Members of a group are independent of each other, whatever they do.
//!
//! Every way in which SQLite lets one statement spoil a transaction that others
//! share is a test here, run with the spoiler first, in the middle and last,
//! over a group that starts bare and one that starts with savepoints.

#[path = "../common/mod.rs"]
mod common;

mod answers;
mod leftovers;
mod mix;
mod panics;
mod raw;
mod refusals;
mod rollbacks;
mod schema;
