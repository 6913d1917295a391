//! The seam towards other writers: whose turn it is with SQLite's write lock.
//!
//! SQLite's own lock decides who may write; it is safe and not fair. A
//! [`WriteLock`] stands before it and makes an order: a turn is taken before a
//! group's BEGIN, or before a closure has the connection to itself, and passed on
//! when the last COMMIT of the turn is done, whatever happened in between. Over a
//! file that others may open it is the gate ([`crate::gate`]); [`Alone`] lets
//! everybody through at once, and what SQLite's lock then refuses is polled by the
//! engine.
//!
//! Before the line of the processes comes the file's own in this process
//! ([`Turns`]), which everybody takes who asks for a permit.

use crate::sync::Ordering::Relaxed;

use super::Pen;
use crate::blocks::inside::Inside;
use crate::blocks::permit::Turns;
use crate::engine::{Engine, GiveUp, Patience};
use crate::error::{Holder, WaitedFor};
use crate::sync::{Arc, lock};

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

/// Why there is no turn, and in which line the wait ended.
pub(crate) struct NotTaken {
    pub(crate) why: GiveUp,
    pub(crate) what: WaitedFor,
}

/// A turn, passed on when dropped.
pub(crate) struct Turn<'a, E: Engine> {
    pen: &'a Pen<E>,
    pub(crate) done: Done,
    /// Passed on after the other.
    _here: Option<Here<'a>>,
}

/// The turn among those of this process.
struct Here<'a> {
    turns: &'a Turns,
    _inside: Inside,
}

impl Drop for Here<'_> {
    fn drop(&mut self) {
        self.turns.pass_on();
    }
}

impl<'a, E: Engine> Turn<'a, E> {
    pub(crate) fn take(
        pen: &'a Pen<E>,
        patience: &dyn Patience,
        label: Option<&str>,
    ) -> Result<Self, NotTaken> {
        let here = match pen.turns.get() {
            Some(turns) => {
                let what = WaitedFor::Pen;
                turns.take(patience).map_err(|why| NotTaken { why, what })?;
                Some(Here {
                    turns,
                    _inside: turns.enter(),
                })
            }
            None => None,
        };
        if !pen.write_lock.take_now(label) {
            pen.at_gate.store(true, Relaxed);
            let taken = pen.write_lock.take(patience, label);
            pen.at_gate.store(false, Relaxed);
            let what = WaitedFor::Turn;
            taken.map_err(|why| NotTaken { why, what })?;
        }
        Ok(Self {
            pen,
            done: Done::default(),
            _here: here,
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

impl<E: Engine> Pen<E> {
    /// All writers of this process to the file that take turns, from here on.
    pub(crate) fn stand_in_line(&self, turns: Arc<Turns>) {
        let _ = self.turns.set(turns);
    }

    /// Whether this thread has the turn by a permit: it would wait for itself.
    pub(super) fn is_permitted_here(&self) -> bool {
        self.turns.get().is_some_and(|turns| turns.is_held_here())
    }

    /// Who has the turn by a permit.
    pub(super) fn permit_holder(&self) -> Option<Holder> {
        self.turns.get()?.holder()
    }
}
