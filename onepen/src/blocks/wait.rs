//! How long a caller is willing to wait.

use std::time::{Duration, Instant};

use crate::cancel::CancelToken;
use crate::engine::Until;

/// How long a call may wait, and what else ends the wait. Every block that waits
/// takes one; without it the wait is at most 10 seconds.
///
/// ```
/// use std::time::Duration;
/// use onepen::{CancelToken, blocks::Wait};
/// let token = CancelToken::new();
/// let wait = Wait::at_most(Duration::from_millis(250)).cancel_with(&token);
/// # drop(wait);
/// ```
#[derive(Clone, Debug)]
#[must_use = "says how long to wait, and waits for nothing"]
pub struct Wait {
    at_most: Option<Duration>,
    cancel: Option<CancelToken>,
}

impl Wait {
    /// At most so long. Zero means: not at all.
    pub const fn at_most(wait: Duration) -> Self {
        Self {
            at_most: Some(wait),
            cancel: None,
        }
    }

    /// Without an end, save by a token.
    pub const fn forever() -> Self {
        Self {
            at_most: None,
            cancel: None,
        }
    }

    /// Ends the wait also when the token is cancelled.
    pub fn cancel_with(mut self, token: &CancelToken) -> Self {
        self.cancel = Some(token.clone());
        self
    }

    pub(super) fn deadline(&self, since: Instant) -> Option<Instant> {
        since.checked_add(self.at_most?)
    }

    pub(super) fn token(&self) -> Option<&CancelToken> {
        self.cancel.as_ref()
    }

    pub(super) fn patience(&self, since: Instant) -> Until<'_> {
        Until {
            deadline: self.deadline(since),
            cancel: self.cancel.as_ref(),
        }
    }
}

impl Default for Wait {
    fn default() -> Self {
        Self::at_most(Duration::from_secs(10))
    }
}
