//! The seam towards other processes: whose turn it is with SQLite's write lock.
//!
//! SQLite's own lock decides who may write; it is safe and not fair. A
//! [`WriteLock`] stands before it and makes an order: a turn is taken before a
//! group's BEGIN, or before a closure has the connection to itself, and passed on
//! when the last COMMIT of the turn is done, whatever happened in between. Today
//! there is [`Alone`], which lets everybody through at once; what SQLite's lock
//! then refuses is polled by the engine.

use super::Pen;
use crate::engine::{Engine, GiveUp, Patience};

/// A queue for the write lock that reaches beyond this process. Advisory: it
/// may grant a turn wrongly, and then only fairness suffers.
pub(crate) trait WriteLock: Send + Sync {
    /// Waits for our turn. After an `Ok`, [`pass_on`](Self::pass_on) follows.
    fn take(&self, patience: &dyn Patience) -> Result<(), GiveUp>;
    /// Ends the turn.
    fn pass_on(&self);
}

/// Nobody else takes turns.
pub(crate) struct Alone;

impl WriteLock for Alone {
    fn take(&self, _patience: &dyn Patience) -> Result<(), GiveUp> {
        Ok(())
    }

    fn pass_on(&self) {}
}

/// A turn, passed on when dropped.
pub(crate) struct Turn<'a>(&'a dyn WriteLock);

impl<'a> Turn<'a> {
    pub(crate) fn take<E: Engine>(
        pen: &'a Pen<E>,
        patience: &dyn Patience,
    ) -> Result<Self, GiveUp> {
        let lock = &*pen.write_lock;
        lock.take(patience).map(|()| Self(lock))
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.pass_on();
    }
}
