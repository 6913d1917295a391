//! Several processes write to one database through onepen: in turns, past those
//! that die, and beside programs that know of no turns.
#![cfg(target_os = "linux")]

#[path = "../common/mod.rs"]
mod common;
mod kills;
#[path = "../../../onepen-lock/tests/common/lines.rs"]
mod lines;
mod strangers;
mod turns;
mod worker;
