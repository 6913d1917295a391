//! The connections behind the slots, and what happens to them between reads.
//!
//! A read transaction costs two system calls for its lock, several times what a
//! query by key costs, and those take turns on a lock of the process and of the
//! kernel, so that two threads read hardly more than one. Therefore the
//! transaction of a finished read stays open, and the next read on the same
//! connection goes on in it, *if nothing was committed since*, which a look at
//! shared memory tells ([`super::mark`]). The guarantees do not change: it sees
//! the state that is committed when it begins.
//!
//! An open transaction keeps the log from being reset. So none stays open for
//! longer than two rounds of 5 ms: a caretaker ends those that nobody uses, and
//! a reader does not resume one of an earlier round. Whoever holds readers back
//! ends them at once. The caretaker rests when nobody reads.

use std::sync::atomic::AtomicU32;
use std::time::{Duration, Instant};

use super::ReadTx;
use super::desk::Desks;
use super::slots::{Held, Slots};
use crate::sync::{Arc, AtomicBool, Ordering};
use crate::timer::{Expires, Timer};

const ROUND: Duration = Duration::from_millis(5);

pub(super) struct Pool {
    pub(super) slots: Slots,
    pub(super) desks: Desks<ReadTx>,
    /// On a cache line of its own: every read looks at it.
    round: Round,
    /// The caretaker will come.
    expected: AtomicBool,
    timer: Option<Arc<dyn Timer>>,
}

#[repr(align(128))]
struct Round(AtomicU32);

impl Pool {
    pub(super) fn new(count: usize) -> Self {
        Self {
            slots: Slots::new(count),
            desks: Desks::new(count),
            round: Round(AtomicU32::new(0)),
            expected: AtomicBool::new(false),
            timer: timer(),
        }
    }

    #[inline]
    pub(super) fn round(&self) -> u32 {
        self.round.0.load(Ordering::Acquire)
    }

    /// A transaction that began in the present round is about to stay open. Asked
    /// by the owner of its slot, before leaving it.
    ///
    /// The caretaker takes this back before it looks at any slot. So either it
    /// finds the owner still there, and comes again, or the owner finds it gone.
    pub(super) fn expect_caretaker(self: &Arc<Self>) {
        if self.expected.load(Ordering::Acquire) || self.expected.swap(true, Ordering::AcqRel) {
            return;
        }
        self.call_caretaker();
    }

    #[cold]
    fn call_caretaker(self: &Arc<Self>) {
        if let (Some(timer), Some(at)) = (&self.timer, Instant::now().checked_add(ROUND)) {
            let this: Arc<dyn Expires> = Arc::clone(self) as _;
            timer.wake_at(at, &this);
        }
    }

    /// Calls `each` with every connection that nobody uses; `None` where one is in
    /// use.
    pub(super) fn each_idle<T>(
        &self,
        count: usize,
        mut each: impl FnMut(&ReadTx) -> T,
    ) -> Vec<Option<T>> {
        let mut found: Vec<Option<T>> = Vec::new();
        let opened = (0..count).filter(|&index| self.desks.is_filled(index));
        let opened: Vec<usize> = opened.collect();
        found.resize_with(opened.len(), || None);
        self.slots.visit(|index| {
            let place = opened.iter().position(|&it| it == index);
            // SAFETY: as in `rest_at`.
            let tx = unsafe { self.desks.get(index) };
            if let (Some(place), Some(tx)) = (place, tx) {
                found[place] = Some(each(tx));
            }
        });
        found
    }

    /// Ends the transactions that nobody uses; says whether some are used.
    pub(super) fn rest(&self) -> bool {
        self.round.0.fetch_add(1, Ordering::AcqRel);
        !self.slots.visit(|index| self.rest_at(index))
    }

    pub(super) fn hold(&self, at_most: Duration) -> Held<'_> {
        self.slots.hold(at_most, |index| self.rest_at(index))
    }

    fn rest_at(&self, index: usize) {
        // SAFETY: called by `Slots::visit` and `Slots::hold`, which say that the
        // slot is ours alone for the moment.
        if let Some(tx) = unsafe { self.desks.get(index) } {
            tx.raw().rest();
        }
    }
}

impl Expires for Pool {
    fn expire(&self, now: Instant) -> Option<Instant> {
        self.expected.store(false, Ordering::Release);
        let in_use = self.rest();
        // A reader that came first has asked for the next visit already.
        if in_use && !self.expected.swap(true, Ordering::AcqRel) {
            return now.checked_add(ROUND);
        }
        None
    }
}

#[cfg(not(any(onepen_loom, onepen_shuttle)))]
pub(super) fn timer() -> Option<Arc<dyn Timer>> {
    Some(crate::timer::shared())
}

#[cfg(any(onepen_loom, onepen_shuttle))]
pub(super) fn timer() -> Option<Arc<dyn Timer>> {
    None
}
