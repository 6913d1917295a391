//! The seam towards other processes: whose turn it is with SQLite's write lock.
//!
//! SQLite's own lock decides who may write; it is safe and not fair. A
//! [`WriteLock`] stands before it and makes an order: a turn is taken before a
//! group's BEGIN, or before a closure has the connection to itself, and passed on
//! when the last COMMIT of the turn is done, whatever happened in between. Over a
//! file that others may open it is the gate ([`crate::gate`]); [`Alone`] lets
//! everybody through at once, and what SQLite's lock then refuses is polled by the
//! engine.

use std::sync::atomic::Ordering::Relaxed;

use super::Pen;
use crate::engine::{Engine, GiveUp, Patience};
use crate::error::Holder;
use crate::sync::lock;

/// A queue for the write lock that reaches beyond this process. Advisory: it
/// may grant a turn wrongly, and then only fairness suffers.
pub(crate) trait WriteLock: Send + Sync {
    /// Takes the turn if that needs no waiting. After `true`,
    /// [`pass_on`](Self::pass_on) follows.
    fn take_now(&self, _label: Option<&str>) -> bool {
        false
    }
    /// Waits for our turn. After an `Ok`, [`pass_on`](Self::pass_on) follows.
    fn take(&self, patience: &dyn Patience, label: Option<&str>) -> Result<(), GiveUp>;
    /// Ends the turn. `more` says whether somebody is waiting to write next, and
    /// is asked only if it matters.
    fn pass_on(&self, done: Done, more: &mut dyn FnMut() -> bool);
    /// Whether the turn has lasted long enough, because others wait.
    fn should_end(&self) -> bool {
        false
    }
    /// How many others wait for their turn.
    fn others_are_waiting(&self) -> usize {
        0
    }
    /// SQLite's lock was held although the turn is ours.
    fn met_a_stranger(&self) {}
    /// Who has the turn, and how many stand before us.
    fn holder(&self) -> (Option<Holder>, Option<usize>) {
        (None, None)
    }
}

/// What was done in a turn.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Done {
    pub(crate) commits: u64,
    pub(crate) writes: u64,
}

/// Nobody else takes turns.
pub(crate) struct Alone;

impl WriteLock for Alone {
    fn take_now(&self, _label: Option<&str>) -> bool {
        true
    }

    fn take(&self, _patience: &dyn Patience, _label: Option<&str>) -> Result<(), GiveUp> {
        Ok(())
    }

    fn pass_on(&self, _done: Done, _more: &mut dyn FnMut() -> bool) {}
}

/// A turn, passed on when dropped.
pub(crate) struct Turn<'a, E: Engine> {
    pen: &'a Pen<E>,
    pub(crate) done: Done,
}

impl<'a, E: Engine> Turn<'a, E> {
    pub(crate) fn take(
        pen: &'a Pen<E>,
        patience: &dyn Patience,
        label: Option<&str>,
    ) -> Result<Self, GiveUp> {
        if !pen.write_lock.take_now(label) {
            pen.at_gate.store(true, Relaxed);
            let taken = pen.write_lock.take(patience, label);
            pen.at_gate.store(false, Relaxed);
            taken?;
        }
        Ok(Self {
            pen,
            done: Done::default(),
        })
    }

    /// So many writes were made, and committed together.
    pub(crate) fn wrote(&mut self, writes: usize) {
        self.done = Done {
            commits: u64::from(writes > 0),
            writes: writes as u64,
        };
    }
}

impl<E: Engine> Drop for Turn<'_, E> {
    fn drop(&mut self) {
        let mut more = || !lock(&self.pen.state).queue.is_empty();
        self.pen.write_lock.pass_on(self.done, &mut more);
    }
}
