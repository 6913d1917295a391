//! The seam towards other writers: whose turn it is with SQLite's write lock.
//!
//! SQLite's own lock decides who may write; it is safe and not fair. A
//! [`WriteLock`] stands before it and makes an order: a turn is taken before a
//! group's BEGIN, or before a closure has the connection to itself, and passed on
//! when the last COMMIT of the turn is done, whatever happened in between. In a
//! program it is the file's [`Turns`], which all writers of this process take
//! that ask for one; what SQLite's lock then refuses, because of other
//! processes, is polled by the engine.

use super::Pen;
use crate::blocks::inside::Inside;
use crate::blocks::permit::Turns;
use crate::engine::{Engine, GiveUp, Patience};
use crate::error::Holder;

/// A queue for the write lock that reaches beyond this process. Advisory: it
/// may grant a turn wrongly, and then only fairness suffers.
pub(crate) trait WriteLock: Send + Sync {
    /// Waits for our turn. After an `Ok`, [`pass_on`](Self::pass_on) follows.
    fn take(&self, patience: &dyn Patience) -> Result<(), GiveUp>;
    /// Ends the turn.
    fn pass_on(&self);
    /// Marks this thread as the one that has the turn.
    fn enter(&self) -> Option<Inside> {
        None
    }
    /// Whether this thread has the turn: it would wait for itself.
    fn is_held_here(&self) -> bool {
        false
    }
    /// Who has the turn instead of us, if that is known.
    fn holder(&self) -> Option<Holder> {
        None
    }
}

impl WriteLock for Turns {
    fn take(&self, patience: &dyn Patience) -> Result<(), GiveUp> {
        Self::take(self, patience)
    }

    fn pass_on(&self) {
        Self::pass_on(self);
    }

    fn enter(&self) -> Option<Inside> {
        Some(Self::enter(self))
    }

    fn is_held_here(&self) -> bool {
        Self::is_held_here(self)
    }

    fn holder(&self) -> Option<Holder> {
        Self::holder(self)
    }
}

/// A turn, passed on when dropped.
pub(crate) struct Turn<'a> {
    lock: &'a dyn WriteLock,
    _inside: Option<Inside>,
}

impl<'a> Turn<'a> {
    pub(crate) fn take<E: Engine>(
        pen: &'a Pen<E>,
        patience: &dyn Patience,
    ) -> Result<Self, GiveUp> {
        let lock = &*pen.write_lock;
        lock.take(patience).map(|()| Self {
            lock,
            _inside: lock.enter(),
        })
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.lock.pass_on();
    }
}
