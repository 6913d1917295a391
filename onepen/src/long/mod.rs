//! Work that takes longer than others want to wait.
//!
//! | file | subject |
//! |---|---|
//! | [`steps`] | a big job in slices, with everybody else between them |
//! | [`prepare`] | long reading before a short write |

mod prepare;
mod steps;

pub use steps::{Stepped, Steps};
