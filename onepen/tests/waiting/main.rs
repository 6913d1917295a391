//! Waiting for the pen: in order, within bounds, with an end and a reason.

#[path = "../common/mod.rs"]
mod common;

mod cancel;
mod deadlines;
mod order;
mod reentry;
