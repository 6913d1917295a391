//! Cancelling a call from another thread.

use std::sync::Weak;
use std::time::{Duration, Instant};

use crate::sync::{Arc, AtomicBool, Mutex, Ordering, WaitWord, lock};

/// Something that a token can end.
pub(crate) trait Cancel: Send + Sync {
    fn cancel(&self);
    /// Whether there is nothing left to cancel.
    fn is_over(&self) -> bool;
}

/// Something that sleeps, and looks at the token when it is woken.
pub(crate) trait Sleeps: Send + Sync {
    fn wake(&self);
}

impl Sleeps for WaitWord {
    fn wake(&self) {
        self.advance();
    }
}

/// A sleeper as a token knows it.
struct Nudge<T>(Weak<T>);

impl<T: Sleeps> Cancel for Nudge<T> {
    fn cancel(&self) {
        if let Some(sleeper) = self.0.upgrade() {
            sleeper.wake();
        }
    }

    fn is_over(&self) -> bool {
        self.0.strong_count() == 0
    }
}

/// A token that ends with another one.
struct Child(Weak<Inner>);

impl Cancel for Child {
    fn cancel(&self) {
        if let Some(inner) = self.0.upgrade() {
            CancelToken { inner }.cancel();
        }
    }

    fn is_over(&self) -> bool {
        self.0.strong_count() == 0
    }
}

struct Inner {
    cancelled: AtomicBool,
    watchers: Mutex<Vec<Box<dyn Cancel>>>,
}

/// Cancels calls that were given it ([`Call::cancel_with`](crate::Call::cancel_with)).
///
/// A write that has not started will not run and fails with
/// [`ErrorKind::Cancelled`](crate::ErrorKind::Cancelled), also while it waits
/// for SQLite's write lock. A write that has started runs on and its caller
/// gets its true outcome, so no answer is lost. A read is interrupted.
#[derive(Clone)]
pub struct CancelToken {
    inner: Arc<Inner>,
}

impl CancelToken {
    /// A token that is not cancelled.
    pub fn new() -> Self {
        Self {
            inner: Arc::new(Inner {
                cancelled: AtomicBool::new(false),
                watchers: Mutex::new(Vec::new()),
            }),
        }
    }

    /// Cancels every call that was given this token, now and from now on.
    pub fn cancel(&self) {
        self.inner.cancelled.store(true, Ordering::SeqCst);
        // Taken out first: a watcher takes the pen's lock, and a call that
        // registers holds it.
        let watchers = std::mem::take(&mut *lock(&self.inner.watchers));
        for watcher in watchers {
            watcher.cancel();
        }
    }

    /// Whether [`cancel`](Self::cancel) was called.
    pub fn is_cancelled(&self) -> bool {
        self.inner.cancelled.load(Ordering::SeqCst)
    }

    /// A token of its own that is cancelled with this one.
    pub(crate) fn child(&self) -> Self {
        let child = Self::new();
        self.watch(Box::new(Child(crate::sync::Arc::downgrade(&child.inner))));
        if self.is_cancelled() {
            child.cancel();
        }
        child
    }

    /// Registers a call. Its own check of `is_cancelled` must come after.
    pub(crate) fn watch(&self, watcher: Box<dyn Cancel>) {
        let mut watchers = lock(&self.inner.watchers);
        if watchers.len() == watchers.capacity() {
            watchers.retain(|watcher| !watcher.is_over());
        }
        watchers.push(watcher);
    }

    /// How many calls it remembers.
    #[cfg(test)]
    pub(crate) fn watchers(&self) -> usize {
        lock(&self.inner.watchers).len()
    }

    /// Wakes `sleeper` when it is cancelled. Its own check of `is_cancelled` must
    /// come after.
    pub(crate) fn nudge<T: Sleeps + 'static>(&self, sleeper: &Arc<T>) {
        self.watch(Box::new(Nudge(Arc::downgrade(sleeper))));
    }

    /// Sleeps so long, or until it is cancelled.
    pub(crate) fn sleep(&self, pause: Duration) {
        if cfg!(any(onepen_loom, onepen_shuttle)) {
            return crate::sync::pause(pause); // no timeout ever fires in a model
        }
        let until = Instant::now().checked_add(pause);
        let word = Arc::new(WaitWord::new());
        self.nudge(&word);
        loop {
            let seen = word.current();
            if self.is_cancelled() || until.is_some_and(|at| Instant::now() >= at) {
                return;
            }
            word.wait(seen, until);
        }
    }
}

impl Default for CancelToken {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for CancelToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CancelToken")
            .field("cancelled", &self.is_cancelled())
            .finish()
    }
}
