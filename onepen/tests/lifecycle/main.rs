//! From open to close: what is in force, what is finished, what is left.

#[path = "../common/mod.rs"]
mod common;

mod checkpoints;
mod closing;
mod exclusive;
mod opening;
mod rollback_journal;
