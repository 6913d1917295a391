//! Who is told what was committed: never too little, never too early, in order.

#[path = "../common/mod.rs"]
mod common;
#[path = "../../../onepen-lock/tests/common/lines.rs"]
mod lines;

mod elsewhere;
mod order;
mod processes;
mod tables;
mod watch;
