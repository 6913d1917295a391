//! Waiting for the COMMIT of somebody else.

use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::error::Outcome;

/// What will become of a write that is running: taken inside its closure
/// ([`WriteTx::commit_token`](crate::WriteTx::commit_token)), and given to
/// whoever has to wait until his reads include it.
///
/// A token is of one *run* of a closure. When the closure is run again, the token
/// of the run that was undone says [`Outcome::NotCommitted`].
#[derive(Clone)]
pub struct CommitToken(Arc<Fate>);

#[derive(Default)]
struct Fate {
    outcome: Mutex<Option<Outcome>>,
    known: Condvar,
}

impl Fate {
    fn outcome(&self) -> MutexGuard<'_, Option<Outcome>> {
        self.outcome.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl CommitToken {
    pub(crate) fn new() -> Self {
        Self(Arc::default())
    }

    pub(crate) fn settle(&self, outcome: Outcome) {
        self.0.outcome().get_or_insert(outcome);
        self.0.known.notify_all();
    }

    /// What became of it, if that is known. After [`Outcome::Committed`] every
    /// read that begins includes it, in this process and in every other.
    pub fn outcome(&self) -> Option<Outcome> {
        *self.0.outcome()
    }

    /// Waits for the outcome, at most so long; `None` when it is not known by
    /// then. Waiting within the very closure it is of would be in vain.
    pub fn wait(&self, at_most: Duration) -> Option<Outcome> {
        let deadline = Instant::now().checked_add(at_most);
        let mut outcome = self.0.outcome();
        loop {
            if outcome.is_some() {
                return *outcome;
            }
            outcome = match deadline {
                None => self.0.known.wait(outcome),
                Some(at) => {
                    let left = at.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return None;
                    }
                    let waited = self.0.known.wait_timeout(outcome, left);
                    Ok(waited.unwrap_or_else(PoisonError::into_inner).0)
                }
            }
            .unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl fmt::Debug for CommitToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("CommitToken").field(&self.outcome()).finish()
    }
}

/// The tokens that were taken in the open transaction, in order.
#[derive(Default)]
pub(crate) struct Tokens {
    taken: Vec<CommitToken>,
    mark: usize,
}

impl Tokens {
    pub(crate) fn take(&mut self) -> CommitToken {
        let token = CommitToken::new();
        self.taken.push(token.clone());
        token
    }

    pub(crate) fn savepoint(&mut self) {
        self.mark = self.taken.len();
    }

    pub(crate) fn rollback_to(&mut self) {
        let mark = self.mark.min(self.taken.len());
        for token in self.taken.drain(mark..) {
            token.settle(Outcome::NotCommitted);
        }
    }

    #[inline]
    pub(crate) fn settle(&mut self, outcome: Outcome) {
        self.mark = 0;
        for token in self.taken.drain(..) {
            token.settle(outcome);
        }
    }
}

impl Drop for Tokens {
    fn drop(&mut self) {
        self.settle(Outcome::NotCommitted);
    }
}
