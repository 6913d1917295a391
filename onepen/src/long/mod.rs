//! Work that takes longer than others want to wait.
//!
//! | file | subject |
//! |---|---|
//! | [`steps`] | a big job in slices, with everybody else between them |
//! | [`overseer`] | who holds the pen for long is named |
//! | [`prepare`] | long reading before a short write |

#[cfg(feature = "tracing")]
pub(crate) mod overseer;
mod prepare;
mod steps;

pub use steps::{Stepped, Steps};
