//! No panic crosses into C.
//!
//! Guarantees: whatever panics behind a [`guard`] becomes an answer to SQLite. What it
//! leaves behind is looked at only by code that can bear any content: the machine's
//! state is a value, and locks recover from poison. A lock of SQLite's that was not let
//! go by a panic is let go when its connection is closed.
//!
//! A program that is itself built with `panic = "abort"` and links this crate ends at a
//! panic, as it asked for.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// What `work` answers, or `otherwise` when it panics.
#[inline]
pub fn guard<T>(otherwise: T, work: impl FnOnce() -> T) -> T {
    catch_unwind(AssertUnwindSafe(|| {
        #[cfg(test)]
        tests::panic_if_planted();
        work()
    }))
    .unwrap_or(otherwise)
}

#[cfg(test)]
mod tests;
