//! The gate between real processes. Each test writes one interleaving out, step by
//! step: an [`Actor`](actor::Actor) is a process that does what it is told over a
//! pipe, and the test goes on when the side file shows that it has.
#![cfg(target_os = "linux")]

mod actor;
mod crash;
mod file;
mod order;
mod stop;
mod threads;
