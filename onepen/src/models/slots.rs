//! The checkout of reader connections: one owner at a time, nobody forgotten.
//!
//! Blocked for ever is a failure too: loom and shuttle report a deadlock.

use super::LONG;
use super::explore::explore;
use crate::cancel::CancelToken;
use crate::error::{ErrorKind, Result};
use crate::pen::job::Ticket;
use crate::readers::slots::{Entry, Slots};
use crate::sync::{Arc, AtomicU32, Ordering, thread};

/// Slots, and for each how many are in it.
struct Rig {
    slots: Slots,
    inside: Vec<AtomicU32>,
}

impl Rig {
    fn new(count: usize) -> Arc<Self> {
        Arc::new(Self {
            slots: Slots::new(count),
            inside: (0..count).map(|_| AtomicU32::new(0)).collect(),
        })
    }

    fn enter(&self, ticket: &Ticket) -> Result<Entry> {
        let entry = match self.slots.own() {
            Some(entry) => entry,
            None => self.slots.any(ticket, None, |_| true)?,
        };
        if let Entry::Slot { index, .. } = entry {
            self.step_into(index);
        }
        Ok(entry)
    }

    fn leave(&self, entry: Entry) {
        if let Entry::Slot { index, .. } = entry {
            self.step_out_of(index);
        }
        self.slots.leave(entry);
    }

    // Relaxed on purpose: the slots themselves have to order what their owners
    // do.
    fn step_into(&self, index: usize) {
        let others = self.inside[index].load(Ordering::Relaxed);
        assert_eq!(others, 0, "a slot has two owners");
        self.inside[index].store(1, Ordering::Relaxed);
    }

    fn step_out_of(&self, index: usize) {
        self.inside[index].store(0, Ordering::Relaxed);
    }

    fn is_empty(&self) -> bool {
        let is_empty = |slot: &AtomicU32| slot.load(Ordering::Relaxed) == 0;
        self.inside.iter().all(is_empty)
    }

    /// A thread that uses a slot as often as told.
    fn reader(self: &Arc<Self>, times: usize) -> thread::JoinHandle<Result<()>> {
        let rig = Arc::clone(self);
        thread::spawn(move || {
            for _ in 0..times {
                let entry = rig.enter(&Ticket::default())?;
                rig.leave(entry);
            }
            Ok(())
        })
    }
}

#[test]
fn a_slot_has_one_owner_at_a_time_and_whoever_waits_gets_it() {
    explore(|| {
        let rig = Rig::new(1);
        let other = rig.reader(2);
        let entry = rig.enter(&Ticket::default()).unwrap();
        rig.leave(entry);
        other.join().unwrap().unwrap();
        assert_eq!((rig.slots.in_use(), rig.slots.waiting()), (0, 0));
    });
}

#[test]
fn more_readers_than_slots_are_all_served() {
    explore(|| {
        let rig = Rig::new(2);
        let others = [rig.reader(1), rig.reader(1)];
        let entry = rig.enter(&Ticket::default()).unwrap();
        rig.leave(entry);
        for other in others {
            other.join().unwrap().unwrap();
        }
        assert_eq!((rig.slots.in_use(), rig.slots.waiting()), (0, 0));
    });
}

#[test]
fn a_waiter_that_is_cancelled_takes_nothing_with_it() {
    explore(|| {
        let rig = Rig::new(1);
        let entry = rig.enter(&Ticket::default()).unwrap();
        let token = CancelToken::new();
        let ticket = Ticket {
            cancel: Some(token.clone()),
            ..Ticket::default()
        };
        let cancelled = {
            let rig = Arc::clone(&rig);
            thread::spawn(move || match rig.enter(&ticket) {
                Ok(entry) => rig.leave(entry),
                Err(error) => assert_eq!(error.kind(), ErrorKind::Cancelled),
            })
        };
        let other = rig.reader(1);
        token.cancel();
        rig.leave(entry);
        cancelled.join().unwrap();
        other.join().unwrap().unwrap();
        assert_eq!((rig.slots.in_use(), rig.slots.waiting()), (0, 0));
    });
}

#[test]
fn nobody_reads_while_readers_are_held_and_all_read_on_afterwards() {
    explore(|| {
        let rig = Rig::new(1);
        let other = rig.reader(2);
        let hold = rig.slots.hold(LONG, |index| {
            rig.step_into(index);
            rig.step_out_of(index);
        });
        assert!(hold.drained());
        assert!(rig.is_empty());
        drop(hold);
        other.join().unwrap().unwrap();
        assert_eq!((rig.slots.in_use(), rig.slots.waiting()), (0, 0));
    });
}

#[test]
fn the_caretaker_meets_nobody_in_a_slot() {
    explore(|| {
        let rig = Rig::new(1);
        let other = rig.reader(2);
        rig.slots.visit(|index| {
            rig.step_into(index);
            rig.step_out_of(index);
        });
        let entry = rig.enter(&Ticket::default()).unwrap();
        rig.leave(entry);
        other.join().unwrap().unwrap();
        assert_eq!((rig.slots.in_use(), rig.slots.waiting()), (0, 0));
    });
}

#[test]
fn closing_waits_for_readers_refuses_others_and_gets_each_slot_once() {
    explore(|| {
        let rig = Rig::new(1);
        let reader = rig.reader(2);
        let closer = {
            let rig = Arc::clone(&rig);
            thread::spawn(move || rig.slots.close())
        };
        let mut free = rig.slots.close();
        assert!(rig.is_empty());
        free.extend(closer.join().unwrap());
        assert_eq!(free, [0]);
        if let Err(error) = reader.join().unwrap() {
            assert_eq!(error.kind(), ErrorKind::Closed);
        }
        let late = rig.enter(&Ticket::default()).unwrap_err();
        assert_eq!(late.kind(), ErrorKind::Closed);
    });
}

/// Closing empties what it was given without the lock of the line.
#[test]
fn who_holds_readers_back_meets_nobody_who_closes_in_a_slot() {
    explore(|| {
        let rig = Rig::new(1);
        let closer = {
            let rig = Arc::clone(&rig);
            thread::spawn(move || {
                for index in rig.slots.close() {
                    rig.step_into(index);
                    thread::yield_now();
                    rig.step_out_of(index);
                }
            })
        };
        let hold = rig.slots.hold(LONG, |index| {
            rig.step_into(index);
            rig.step_out_of(index);
        });
        drop(hold);
        closer.join().unwrap();
    });
}
