//! Who is told what was committed: never too little, never too early, in order.

#[path = "../common/mod.rs"]
mod common;

mod elsewhere;
mod order;
mod processes;
mod tables;
mod watch;
