//! A handle opened before `fork` is an error in the child, at the price of one
//! load for each call.
//!
//! A child has its parent's memory but none of its threads and none of its
//! POSIX locks: to go on with SQLite connections opened before the fork corrupts
//! the database (<https://www.sqlite.org/howtocorrupt.html#_carrying_an_open_database_connection_across_a_fork_>).
//! How a fork is noticed: [`onepen_lock::fork`].
//!
//! In the child even dropping a handle must not close its connections: the last
//! one to close removes the log. And because they stay, the child cannot open
//! the same file again either ([`crate::registry`] says why).

use crate::error::{Error, ErrorKind, Result};

/// The generation of this process, to be kept beside what is opened now.
pub(crate) fn born() -> u32 {
    onepen_lock::fork::born()
}

/// Whether what was opened in generation `born` may be used by this process.
///
/// # Errors
/// [`ErrorKind::Forked`] in a child that was forked since.
pub(crate) fn check(born: u32) -> Result<()> {
    if onepen_lock::fork::generation() == born {
        return Ok(());
    }
    Err(forked())
}

#[cold]
fn forked() -> Error {
    Error::new(
        ErrorKind::Forked,
        "the database was opened before this process was forked, and can be used in the parent \
         alone (where it is unharmed); fork first and open it after, or let the child exec",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_refusal_says_what_to_do() {
        let error = check(born().wrapping_sub(1)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Forked);
        assert!(error.to_string().contains("fork first and open it after"));
    }
}
