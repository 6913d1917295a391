//! No panic crosses into C.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// What `work` answers, or `otherwise` when it panics.
#[inline]
pub fn guard<T>(otherwise: T, work: impl FnOnce() -> T) -> T {
    // What a panic leaves behind is only looked at by code that can bear any
    // content: the machine's state is a value, and locks recover from poison.
    catch_unwind(AssertUnwindSafe(work)).unwrap_or(otherwise)
}
