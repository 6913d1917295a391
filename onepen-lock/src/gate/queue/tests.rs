//! The moves one by one, on a page of memory, in a world whose clock, locks and
//! deaths are told: what each of them leaves on the page, and for how long it
//! says to sleep. What processes make of it is the subject of `tests/gate`.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;

use super::*;
use crate::gate::map::blank;

mod waiting;

const SLICE: u64 = 1_000_000;
const NOW: u64 = 5_000_000_000;

struct Fake<'a> {
    page: &'a Page,
    dead: RefCell<BTreeSet<usize>>,
    locked: Cell<bool>,
    woken: RefCell<Vec<usize>>,
    /// Comes to stand in line while it is asked who lives.
    comes: Cell<Option<usize>>,
    /// Leaves the line when it is woken.
    leaves: Cell<Option<usize>>,
}

impl World for &Fake<'_> {
    fn lives(&self, slot: usize) -> bool {
        if let Some(comes) = self.comes.take() {
            self.place(comes).enter(NOW);
        }
        !self.dead.borrow().contains(&slot)
    }

    fn lock_is_held(&self) -> bool {
        self.locked.get()
    }

    fn wake(&self, word: &AtomicU32) {
        let slot = (self.page.slots.iter()).position(|slot| std::ptr::eq(&slot.word, word));
        let slot = slot.expect("a slot's word");
        self.woken.borrow_mut().push(slot);
        if self.leaves.get() == Some(slot) {
            self.place(slot).leave();
        }
    }
}

impl<'a> Fake<'a> {
    fn of(page: &'a Page) -> Self {
        for (index, slot) in page.slots.iter().enumerate() {
            slot.generation.store(100 + index as u32, SeqCst);
        }
        Self {
            page,
            dead: RefCell::default(),
            locked: Cell::new(false),
            woken: RefCell::default(),
            comes: Cell::new(None),
            leaves: Cell::new(None),
        }
    }

    fn place(&self, slot: usize) -> Place<'a, &Self> {
        Place {
            page: self.page,
            slot,
            generation: self.page.slots[slot].generation.load(SeqCst) as u16,
            world: self,
        }
    }

    fn dies(&self, slot: usize) {
        self.dead.borrow_mut().insert(slot);
    }

    fn woken(&self) -> Vec<usize> {
        self.woken.take()
    }

    fn turn(&self) -> Option<(usize, Phase)> {
        let owner = Turn::unpack(self.page.header.turn.load(SeqCst)).owner?;
        assert_eq!(usize::from(owner.generation), 100 + owner.slot);
        Some((owner.slot, owner.phase))
    }

    fn stands_in_line(&self, slot: usize) -> bool {
        let bit = self.page.header.waiting[slot / 64].load(SeqCst) >> (slot % 64) & 1 == 1;
        assert_eq!(bit, self.page.slots[slot].ticket.load(SeqCst) != 0);
        bit
    }
}

/// It takes a turn that is free.
fn taken<W: World>(place: &Place<'_, W>, now: u64) -> Turn {
    place
        .try_take(&mut Watched::default(), now, SLICE)
        .expect("the turn is free")
}

#[test]
fn a_free_turn_is_taken_and_let_go_and_its_slice_begins_with_it() {
    let page = blank();
    let world = Fake::of(&page);
    let a = world.place(3);
    let turn = taken(&a, NOW);
    assert_eq!(world.turn(), Some((3, Phase::Held)));
    assert_eq!(a.slice_ends(), NOW + SLICE);
    assert!(!a.slice_is_over(NOW + SLICE - 1));
    assert!(a.slice_is_over(NOW + SLICE));
    assert_eq!(a.release(turn, false), Released::Passed);
    assert_eq!(world.turn(), None);
    assert_eq!(a.release(turn, false), Released::Lost);
    assert_eq!(a.release(turn, true), Released::Lost);
    assert!(world.woken().is_empty());
}

#[test]
fn a_slice_that_is_longer_than_any_is_over() {
    let page = blank();
    let world = Fake::of(&page);
    let a = world.place(0);
    page.header.slice_ends.store(NOW + LONGEST_SLICE, Relaxed);
    assert!(!a.slice_is_over(NOW));
    page.header
        .slice_ends
        .store(NOW + LONGEST_SLICE + 1, Relaxed);
    assert!(a.slice_is_over(NOW));
}

#[test]
fn a_turn_that_is_kept_goes_on_in_its_slice_and_begins_another_after_it() {
    let page = blank();
    let world = Fake::of(&page);
    let a = world.place(0);
    let turn = taken(&a, NOW);
    assert_eq!(a.release(turn, true), Released::Kept);
    assert_eq!(world.turn(), Some((0, Phase::Open)));
    let turn = taken(&a, NOW + 10);
    assert_eq!(world.turn(), Some((0, Phase::Held)));
    assert_eq!(a.slice_ends(), NOW + SLICE);
    assert_eq!(a.release(turn, true), Released::Kept);
    taken(&a, NOW + SLICE);
    assert_eq!(a.slice_ends(), NOW + 2 * SLICE);
    // What it has already is a turn like any other.
    taken(&a, NOW + SLICE + 5);
    assert_eq!(a.slice_ends(), NOW + 2 * SLICE + 5);
}

#[test]
fn who_waits_is_counted_by_the_others_and_not_by_itself() {
    let page = blank();
    let world = Fake::of(&page);
    for slot in [0, 1, 63, 64, 127] {
        let place = world.place(slot);
        place.enter(NOW);
        assert!(!place.others_wait(), "{slot}");
        assert_eq!(place.how_many_wait(), 0);
        for other in [0, 1, 62, 63, 64, 65, 127] {
            let sees = u32::from(other != slot);
            assert_eq!(world.place(other).how_many_wait(), sees, "{slot} {other}");
            assert_eq!(
                world.place(other).others_wait(),
                sees == 1,
                "{slot} {other}"
            );
        }
        place.leave();
        assert!(!world.stands_in_line(slot));
        assert!(!world.place(2).others_wait());
    }
    world.place(63).enter(NOW);
    world.place(64).enter(NOW);
    world.place(65).enter(NOW);
    assert_eq!(world.place(64).how_many_wait(), 2);
    assert_eq!(world.place(2).how_many_wait(), 3);
}

#[test]
fn a_number_is_drawn_once_and_is_never_zero() {
    let page = blank();
    let world = Fake::of(&page);
    page.header.tickets.store(u64::MAX - 1, SeqCst);
    assert_eq!(world.place(0).enter(NOW), u64::MAX);
    assert_eq!(world.place(1).enter(NOW + 1), 1);
    assert_eq!(page.slots[1].waits_since.load(Relaxed), NOW + 1);
    // Also across the end of the numbers.
    assert_eq!(world.place(1).position(1), 1);
    assert_eq!(world.place(0).position(u64::MAX), 0);
    assert_eq!(world.place(2).first(None), Some(0));
}

#[test]
fn the_oldest_number_is_first_and_one_from_the_future_last() {
    let page = blank();
    let world = Fake::of(&page);
    let order = [70, 5, 127, 64];
    let tickets: Vec<u64> = order
        .iter()
        .map(|&slot| world.place(slot).enter(NOW))
        .collect();
    for (position, (&slot, &ticket)) in order.iter().zip(&tickets).enumerate() {
        assert_eq!(world.place(slot).position(ticket), position);
    }
    assert_eq!(world.place(0).first(None), Some(70));
    assert_eq!(world.place(0).first(Some(70)), Some(5));
    assert_eq!(world.place(0).first(Some(5)), Some(70));
    // Nonsense on the page is nobody's advantage.
    page.slots[70].ticket.store(tickets[3] + 1, SeqCst);
    assert_eq!(world.place(0).first(None), Some(5));
    assert_eq!(world.place(127).position(tickets[2]), 1);
    let last = page.header.tickets.load(SeqCst);
    for (age, first) in [(u64::MAX / 2, 70), (u64::MAX / 2 + 1, 5)] {
        let ticket = last.wrapping_sub(age);
        page.slots[70].ticket.store(ticket, SeqCst);
        assert_eq!(world.place(0).first(None), Some(first), "{age}");
    }
    // Whoever has the turn stands before nobody.
    let five = Owner {
        slot: 5,
        generation: 105,
        phase: Phase::Granted,
    };
    page.header
        .turn
        .store(world.place(0).turn().next(Some(five)).word, SeqCst);
    assert_eq!(world.place(127).position(tickets[2]), 0);
    assert_eq!(world.place(64).position(tickets[3]), 1);
}

#[test]
fn a_turn_that_is_let_go_is_the_firsts_who_lives_and_wakes() {
    let page = blank();
    let world = Fake::of(&page);
    let a = world.place(0);
    let turn = taken(&a, NOW);
    for slot in [70, 5, 9] {
        world.place(slot).enter(NOW);
    }
    world.dies(70);
    assert_eq!(a.release(turn, false), Released::Passed);
    assert_eq!(world.turn(), Some((5, Phase::Granted)));
    assert_eq!(world.woken(), [5]);
    assert!(!world.stands_in_line(70));
    assert!(world.stands_in_line(5) && world.stands_in_line(9));
    // It is not ours any more.
    assert_eq!(a.release(turn, false), Released::Lost);
    assert_eq!(world.turn(), Some((5, Phase::Granted)));
    assert!(world.woken().is_empty());
}

#[test]
fn a_turn_that_was_given_is_claimed_and_its_owner_has_left_the_line() {
    let page = blank();
    let world = Fake::of(&page);
    let (a, b) = (world.place(0), world.place(64));
    let turn = taken(&a, NOW);
    let ticket = b.enter(NOW);
    let mut watched = Watched::default();
    assert!(matches!(
        b.look(ticket, &mut watched, NOW, SLICE),
        Look::Sleep(_)
    ));
    a.release(turn, false);
    let Look::Mine(turn) = b.look(ticket, &mut watched, NOW + 7, SLICE) else {
        panic!("it was given the turn");
    };
    assert_eq!(world.turn(), Some((64, Phase::Held)));
    assert_eq!(b.slice_ends(), NOW + 7 + SLICE);
    assert!(!world.stands_in_line(64));
    assert_eq!(b.release(turn, false), Released::Passed);
    assert_eq!(world.turn(), None);
}

#[test]
fn a_free_turn_is_the_first_in_lines_whoever_comes_by() {
    let page = blank();
    let world = Fake::of(&page);
    let (a, b) = (world.place(0), world.place(1));
    let ticket = b.enter(NOW);
    assert_eq!(a.try_take(&mut Watched::default(), NOW, SLICE), None);
    assert_eq!(world.turn(), Some((1, Phase::Granted)));
    assert_eq!(world.woken(), [1]);
    assert!(matches!(
        b.look(ticket, &mut Watched::default(), NOW, SLICE),
        Look::Mine(_)
    ));
    // Nobody else came by: it finds it by itself, and is awake.
    let page = blank();
    let world = Fake::of(&page);
    let b = world.place(1);
    let ticket = b.enter(NOW);
    let found = b.look(ticket, &mut Watched::default(), NOW, SLICE);
    assert!(matches!(found, Look::Mine(_)));
    assert!(world.woken().is_empty());
}

#[test]
fn who_gives_up_hands_on_what_it_was_given() {
    let page = blank();
    let world = Fake::of(&page);
    let (a, b, c) = (world.place(0), world.place(1), world.place(2));
    let turn = taken(&a, NOW);
    b.enter(NOW);
    c.enter(NOW);
    a.release(turn, false);
    world.woken();
    b.give_up();
    assert_eq!(world.turn(), Some((2, Phase::Granted)));
    assert_eq!(world.woken(), [2]);
    assert!(!world.stands_in_line(1));
    c.give_up();
    assert_eq!(world.turn(), None);
}

#[test]
fn when_the_first_gives_up_the_next_gets_to_know_it() {
    let page = blank();
    let world = Fake::of(&page);
    let (a, b, c) = (world.place(0), world.place(1), world.place(2));
    taken(&a, NOW);
    b.enter(NOW);
    c.enter(NOW);
    b.give_up();
    assert_eq!(world.turn(), Some((0, Phase::Held)));
    assert_eq!(world.woken(), [2]);
    c.give_up();
    assert!(world.woken().is_empty());
}

#[test]
fn the_turn_of_another_generation_is_not_ours() {
    let page = blank();
    let world = Fake::of(&page);
    let a = world.place(0);
    taken(&a, NOW);
    page.slots[0].generation.store(200, SeqCst);
    let next = Place {
        generation: 200,
        ..world.place(0)
    };
    // The former owner is gone, so the turn is passed over.
    let mut watched = Watched::default();
    assert!(next.try_take(&mut watched, NOW, SLICE).is_some());
    assert_eq!(next.turn().owner.map(|owner| owner.generation), Some(200));
    // And what another slot has is not ours either.
    let b = world.place(1);
    assert_eq!(b.try_take(&mut Watched::default(), NOW, SLICE), None);
}

#[test]
fn the_dead_are_taken_off_a_line_in_which_nobody_is_first() {
    let page = blank();
    let world = Fake::of(&page);
    let a = world.place(0);
    let turn = taken(&a, NOW);
    // Bits without tickets: of the dead, of one who lives, and our own.
    for slot in [0, 7, 63, 64, 90] {
        page.header.waiting[slot / 64].fetch_or(1 << (slot % 64), SeqCst);
    }
    for slot in [0, 7, 64, 90] {
        world.dies(slot);
    }
    assert_eq!(a.release(turn, false), Released::Passed);
    assert_eq!(world.turn(), None);
    let left = [1 << 63 | 1, 0];
    let waiting = [0, 1].map(|index| page.header.waiting[index].load(SeqCst));
    assert_eq!(waiting, left);
}

#[test]
fn who_comes_while_the_turn_is_let_go_is_not_overlooked() {
    let page = blank();
    let world = Fake::of(&page);
    let a = world.place(0);
    let turn = taken(&a, NOW);
    // A bit without a ticket: somebody is about to come, and nobody is first.
    page.header.waiting[0].fetch_or(1 << 7, SeqCst);
    world.comes.set(Some(9));
    assert_eq!(a.release(turn, false), Released::Passed);
    assert_eq!(world.turn(), Some((9, Phase::Granted)));
    assert_eq!(world.woken(), [9]);
}

#[test]
fn who_leaves_while_it_is_given_the_turn_does_not_keep_it() {
    let page = blank();
    let world = Fake::of(&page);
    let a = world.place(0);
    let turn = taken(&a, NOW);
    world.place(5).enter(NOW);
    world.place(9).enter(NOW);
    world.leaves.set(Some(5));
    assert_eq!(a.release(turn, false), Released::Passed);
    assert_eq!(world.turn(), Some((9, Phase::Granted)));
    assert_eq!(world.woken(), [5, 9]);
}

#[test]
fn who_was_taken_off_the_line_goes_back_to_its_old_place() {
    let page = blank();
    let world = Fake::of(&page);
    let (a, b, c) = (world.place(0), world.place(65), world.place(66));
    taken(&a, NOW);
    let ticket = b.enter(NOW);
    let last = c.enter(NOW);
    let mut watched = Watched::default();
    for taken_off in [true, false] {
        match taken_off {
            true => b.leave(),
            // Somebody else's number in its slot is not its own.
            false => page.slots[65].ticket.store(ticket + 9, SeqCst),
        }
        b.look(ticket, &mut watched, NOW, SLICE);
        assert!(world.stands_in_line(65));
        assert_eq!(page.slots[65].ticket.load(SeqCst), ticket);
        assert_eq!(a.first(None), Some(65));
    }
    // The ticket alone is as good as nothing, whoever else stands in line.
    for (place, ticket) in [(&b, ticket), (&c, last)] {
        page.header.waiting[1].fetch_and(!(1 << (place.slot % 64)), SeqCst);
        place.look(ticket, &mut watched, NOW, SLICE);
        assert!(world.stands_in_line(place.slot));
    }
}

#[test]
fn a_turn_that_nobody_wants_is_let_go_once() {
    let page = blank();
    let world = Fake::of(&page);
    let a = world.place(0);
    let turn = taken(&a, NOW);
    assert!(a.hand_over(turn, None));
    assert_eq!(world.turn(), None);
    assert_eq!(a.turn().serial, turn.serial.wrapping_add(1));
}
