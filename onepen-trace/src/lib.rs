//! What `onepen trace` puts into a program to see its SQLite locks, and how its
//! records are read.
//!
//! [`LIBRARY`] is a shared object, compiled from `preload/` by this crate's build
//! script and a part of whatever links this crate: a program that uses it is one
//! file. [`Events`] writes it into a private directory, with a file beside it
//! into which every process that loads it writes what it saw.
//!
//! The traced program must never notice. The library allocates nothing, keeps no
//! descriptor, takes no lock on the way of a lock call, leaves errno as it was, and
//! does nothing at all where it cannot reach its file. It links no SQLite.
//!
//! The memory is bounded: a fixed number of slots, freed as they are read; when
//! none is free, the record is left out and counted ([`Events::dropped`]). A
//! killed process leaves what it had noted until then.

#![cfg(unix)]
#![forbid(unsafe_code)]

mod events;
mod record;

pub use events::{Events, Process};
pub use record::{Kind, Outcome, Record, Timeout, What};

/// The shared object to be preloaded; empty where there is none (it is for
/// Linux on 64 bits).
pub const LIBRARY: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/preload.so"));
