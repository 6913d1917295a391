//! What happens around a program: signals, a stopped neighbour, a clock that
//! jumps, a disk that is full, rights that are missing, and files beside the
//! database that are damaged, left over, or put there on purpose.
//!
//! What is tested elsewhere is listed in docs/proof.md, "Environment".
#![cfg(all(target_os = "linux", target_env = "gnu"))]

mod clocks;
#[path = "../common/mod.rs"]
mod common;
mod damage;
mod full;
mod leftovers;
mod moved;
mod rights;
mod signals;
