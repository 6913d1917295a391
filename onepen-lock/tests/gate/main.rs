//! The gate between real processes. Each test writes one interleaving out, step by
//! step: an [`Actor`](actor::Actor) is a process that does what it is told over a
//! pipe, and the test goes on when the side file shows that it has.
#![cfg(target_os = "linux")]

mod actor;
mod crash;
mod file;
mod hostile;
#[path = "../common/lines.rs"]
mod lines;
mod order;
#[cfg(target_arch = "x86_64")]
mod steps;
mod stop;
#[cfg(target_arch = "x86_64")]
#[path = "../common/stores.rs"]
mod stores;
mod threads;
