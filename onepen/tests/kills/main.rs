//! Programs that are killed: before every system call they make, one after the
//! other (`points`), and at any time, several of them at once (`random`).
//!
//! After each kill: what was acknowledged is there; of each write all is there or
//! nothing; the file is whole; and another process, which was there all the time
//! and waits for its turn, gets it.
#![cfg(all(target_os = "linux", target_env = "gnu"))]

#[path = "../common/mod.rs"]
mod common;
mod deeds;
mod points;
mod random;
#[path = "../../../onepen-lock/tests/common/traced.rs"]
mod traced;
