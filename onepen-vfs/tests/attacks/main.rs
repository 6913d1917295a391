//! Somebody means harm, or a host does what hosts do: programs in the system's Python with
//! the extension, which end by themselves, with the right data, whatever happens.
//!
//! | room | subject |
//! |---|---|
//! | `side_file` | a hostile `app.db-gate` |
//! | `signals` | the handler of SIGBUS, beside those of the host |
//! | `loading` | loaded twice, by several threads, unloaded, in two copies |
//! | `forks` | forks at any moment, with connections open |
#![cfg(target_os = "linux")]

#[path = "../common/mod.rs"]
mod common;
mod forks;
mod loading;
mod side_file;
mod signals;
