//! Runs the plan: who runs when, for how long, and what is counted.
//!
//! Data flows one way: [`rounds`] alternates the ways, [`processes`] spreads
//! one of them over processes, [`mod@slice`] runs it on the threads of one.

mod gate;
mod processes;
mod rounds;
mod slice;
mod tally;

pub use processes::worker;
pub use rounds::{Plan, Point, Round, Watch, run};
#[cfg(test)]
pub use slice::run_opened;
pub use slice::{Slice, WorkloadKind, WorkloadSpec};
pub use tally::{Counted, Ran};
