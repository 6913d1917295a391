//! Threads in the place of processes, over one page in memory: what two members do
//! to it at once. Small enough for Miri, which runs them under weak memory in many
//! schedules.

use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::thread;

use super::layout::Page;
use super::map::blank;
use super::notes::{self, Note, Stamp};
use super::queue::{Look, Place, Watched, World};
use super::text;

/// Everybody lives, a wake-up is counted; and nobody is passed over, for SQLite's lock
/// is held.
pub(super) struct Kernel;

impl World for Kernel {
    fn lives(&self, _: usize) -> bool {
        true
    }

    fn lock_is_held(&self) -> bool {
        true
    }

    fn wake(&self, word: &AtomicU32) {
        word.fetch_add(1, SeqCst);
    }
}

const SLICE: u64 = 1_000_000;

/// Takes the turn as a seat does that finds it taken, and changes something that
/// only whoever has the turn may change.
fn take_turns(page: &Page, slot: usize, rounds: u32, counter: &AtomicU32) {
    page.slots[slot].generation.store(1, SeqCst);
    let place = Place {
        page,
        slot,
        generation: 1,
        world: Kernel,
    };
    for round in 0..rounds {
        let mut watched = Watched::default();
        let turn = place.try_take(&mut watched, 0, SLICE).unwrap_or_else(|| {
            let ticket = place.enter(0);
            loop {
                match place.look(ticket, &mut watched, 0, SLICE) {
                    Look::Mine(turn) => break turn,
                    Look::Sleep(_) => thread::yield_now(),
                }
            }
        });
        // Two steps, and no order of their own: the turn has to make it.
        let seen = counter.load(Relaxed);
        thread::yield_now(); // so that the others have to wait
        counter.store(seen + 1, Relaxed);
        place.release(turn, round % 2 == 1 && round + 1 < rounds);
    }
}

#[test]
fn a_turn_is_one_members_at_a_time_and_orders_what_they_do() {
    let rounds = if cfg!(miri) { 3 } else { 1000 };
    let (page, counter) = (blank(), AtomicU32::new(0));
    thread::scope(|scope| {
        for slot in [0, 1] {
            let (page, counter) = (&page, &counter);
            scope.spawn(move || take_turns(page, slot, rounds, counter));
        }
    });
    assert_eq!(counter.into_inner(), 2 * rounds);
}

#[test]
fn a_text_is_read_whole_or_not_at_all_while_it_changes() {
    let (words, version) = (Default::default(), AtomicU32::new(0));
    let texts = ["orders", "a longer one than that, of two words"];
    let rounds = if cfg!(miri) { 4 } else { 10_000 };
    text::write(&words, &version, texts[0]);
    thread::scope(|scope| {
        scope.spawn(|| {
            for round in 0..rounds {
                text::write(&words, &version, texts[round % 2]);
            }
        });
        for _ in 0..rounds {
            let read = text::read(&words, &version);
            assert!(read.is_empty() || texts.contains(&&*read), "{read}");
        }
    });
}

/// Two that write the note of one commit at once are two whose notes have the same
/// place: whoever was slow, and another one 128 commits later.
#[test]
fn a_note_is_one_of_those_that_were_written_or_none() {
    let page = blank();
    let note = |checksum: u64, table: &str| Note {
        before: Stamp {
            commits: 6,
            checksum,
        },
        after: Stamp {
            commits: 7,
            checksum,
        },
        changed: Some(vec![table.repeat(20)]),
        tokens: vec![checksum],
        all_tokens: true,
    };
    let both = [note(1, "one"), note(2, "other")];
    let rounds = if cfg!(miri) { 2 } else { 2000 };
    thread::scope(|scope| {
        for note in &both {
            let page = &page;
            scope.spawn(move || {
                for _ in 0..rounds {
                    notes::write(page, note);
                }
            });
        }
        for _ in 0..rounds {
            if let Some(read) = notes::read(&page, 7) {
                assert!(both.contains(&read), "{read:?}");
            }
        }
    });
}

/// Whoever listens is seen by all who look after that, and what one does to the
/// bits takes nobody else's away.
#[test]
fn two_who_begin_to_listen_at_once_are_both_seen() {
    let page = blank();
    thread::scope(|scope| {
        for slot in [3, 4] {
            let page = &page;
            scope.spawn(move || notes::listen(page, slot, true));
        }
    });
    assert_eq!(notes::listeners(&page).collect::<Vec<_>>(), [3, 4]);
}
