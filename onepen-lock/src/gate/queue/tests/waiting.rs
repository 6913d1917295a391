//! Those who wait: how long they sleep, whom they pass over and when, and who keeps
//! the turn meanwhile.

use super::*;

/// How long `place` sleeps when it looks at `now`; `None`: it has the turn.
fn sleeps(
    place: &Place<'_, &Fake<'_>>,
    ticket: u64,
    watched: &mut Watched,
    now: u64,
) -> Option<u64> {
    match place.look(ticket, watched, now, SLICE) {
        Look::Mine(_) => None,
        Look::Sleep(nanos) => Some(nanos),
    }
}

#[test]
fn the_first_looks_again_when_it_matters_and_those_behind_more_rarely() {
    let page = blank();
    let world = Fake::of(&page);
    taken(&world.place(0), NOW);
    world.locked.set(true);
    for (before, slot) in (1..=7).enumerate() {
        let place = world.place(slot);
        let ticket = place.enter(NOW);
        let slept = sleeps(&place, ticket, &mut Watched::default(), NOW).unwrap();
        let looks = before.min(4) as u64;
        let own = if before == 0 { SLICE + ALARM } else { LOOK };
        assert_eq!(slept, own + looks * LOOK, "{before}");
    }
}

#[test]
fn a_turn_that_was_not_claimed_in_time_is_passed_over() {
    let page = blank();
    let world = Fake::of(&page);
    let (a, b, c) = (world.place(0), world.place(1), world.place(2));
    let turn = taken(&a, NOW);
    b.enter(NOW);
    let ticket = c.enter(NOW);
    a.release(turn, false);
    // The first to look at it is the first of whom it is known that it stands still.
    let mut watched = Watched::default();
    let before = LOOK + LOOK; // b does not count: it has the turn
    assert_eq!(sleeps(&c, ticket, &mut watched, NOW), Some(GRACE));
    assert!(before > GRACE);
    assert_eq!(sleeps(&c, ticket, &mut watched, NOW + GRACE - 1), Some(1));
    assert_eq!(page.slots[1].passed_over.load(Relaxed), 0);
    assert_eq!(sleeps(&c, ticket, &mut watched, NOW + GRACE), None);
    assert_eq!(world.turn(), Some((2, Phase::Held)));
    assert_eq!(page.slots[1].passed_over.load(Relaxed), 1);
    assert!(
        !world.stands_in_line(1),
        "or it would be given every next turn"
    );
}

#[test]
fn a_turn_that_is_kept_ends_with_its_slice_and_nobody_is_blamed() {
    let page = blank();
    let world = Fake::of(&page);
    let (a, b) = (world.place(0), world.place(1));
    let turn = taken(&a, NOW);
    let ticket = b.enter(NOW);
    assert_eq!(a.release(turn, true), Released::Kept);
    let mut watched = Watched::default();
    assert_eq!(sleeps(&b, ticket, &mut watched, NOW), Some(SLICE + ALARM));
    let almost = NOW + SLICE - 1;
    assert_eq!(sleeps(&b, ticket, &mut watched, almost), Some(1 + ALARM));
    assert_eq!(sleeps(&b, ticket, &mut watched, NOW + SLICE), None);
    assert_eq!(page.slots[0].passed_over.load(Relaxed), 0);
    // A slice of nonsense is none.
    let page = blank();
    let world = Fake::of(&page);
    let (a, b) = (world.place(0), world.place(1));
    let turn = taken(&a, NOW);
    let ticket = b.enter(NOW);
    assert_eq!(a.release(turn, true), Released::Kept);
    page.header
        .slice_ends
        .store(NOW + LONGEST_SLICE + 1, Relaxed);
    assert_eq!(sleeps(&b, ticket, &mut Watched::default(), NOW), None);
}

#[test]
fn who_kept_the_turn_gives_it_away_after_its_slice_if_others_wait() {
    let page = blank();
    let world = Fake::of(&page);
    let (a, b) = (world.place(0), world.place(1));
    let turn = taken(&a, NOW);
    a.release(turn, true);
    b.enter(NOW);
    let mut watched = Watched::default();
    let turn = a.try_take(&mut watched, NOW + SLICE - 1, SLICE);
    a.release(turn.expect("its slice goes on"), true);
    assert_eq!(a.try_take(&mut watched, NOW + SLICE, SLICE), None);
    assert_eq!(world.turn(), Some((1, Phase::Granted)));
    // What it has and has not let go is its own, however long ago.
    let page = blank();
    let world = Fake::of(&page);
    let (a, b) = (world.place(0), world.place(1));
    taken(&a, NOW);
    b.enter(NOW);
    assert!(a.try_take(&mut watched, NOW + SLICE, SLICE).is_some());
}

#[test]
fn a_turn_that_stands_still_is_passed_over_when_the_lock_is_free_at_two_looks() {
    let page = blank();
    let world = Fake::of(&page);
    let (a, b) = (world.place(0), world.place(1));
    let turn = taken(&a, NOW);
    let ticket = b.enter(NOW);
    let mut watched = Watched::default();
    assert_eq!(sleeps(&b, ticket, &mut watched, NOW), Some(SLICE + ALARM));
    // After the slice, to the moment at which it is asked.
    let late = NOW + 2 * SLICE;
    assert_eq!(
        sleeps(&b, ticket, &mut watched, late),
        Some(STILL - 2 * SLICE)
    );
    assert_eq!(sleeps(&b, ticket, &mut watched, NOW + STILL - 1), Some(1));
    assert_eq!(sleeps(&b, ticket, &mut watched, NOW + STILL), Some(TWICE));
    let again = NOW + STILL + TWICE;
    assert_eq!(sleeps(&b, ticket, &mut watched, again - 1), Some(1));
    assert_eq!(page.slots[0].passed_over.load(Relaxed), 0);
    assert_eq!(sleeps(&b, ticket, &mut watched, again), None);
    assert_eq!(page.slots[0].passed_over.load(Relaxed), 1);
    assert_eq!(
        a.release(turn, false),
        Released::Lost,
        "and it learns of it"
    );
}

#[test]
fn who_holds_the_lock_is_waited_for_and_asked_ever_more_rarely() {
    let page = blank();
    let world = Fake::of(&page);
    let (a, b) = (world.place(0), world.place(1));
    taken(&a, NOW);
    let ticket = b.enter(NOW);
    let mut watched = Watched::default();
    world.locked.set(true);
    b.look(ticket, &mut watched, NOW, SLICE);
    let mut now = NOW + STILL;
    for pause in [2, 4, 8, 10, 10] {
        assert_eq!(sleeps(&b, ticket, &mut watched, now), Some(LOOK), "{pause}");
        // Until then the lock could be free: nobody asks.
        world.locked.set(false);
        let next = now + pause * STILL;
        assert_eq!(
            sleeps(&b, ticket, &mut watched, next - 1),
            Some(1),
            "{pause}"
        );
        assert_eq!(
            sleeps(&b, ticket, &mut watched, next - LOOK - 1),
            Some(LOOK)
        );
        world.locked.set(true);
        now = next;
    }
    // Free once and held again: it moves.
    world.locked.set(false);
    assert_eq!(sleeps(&b, ticket, &mut watched, now), Some(TWICE));
    now += TWICE;
    world.locked.set(true);
    assert_eq!(sleeps(&b, ticket, &mut watched, now), Some(LOOK));
    now += 10 * STILL;
    world.locked.set(false);
    assert_eq!(sleeps(&b, ticket, &mut watched, now), Some(TWICE));
    assert_eq!(world.turn(), Some((0, Phase::Held)));
}

#[test]
fn a_turn_that_moves_is_watched_anew_and_so_is_one_in_a_clock_that_went_back() {
    let mut watched = Watched::default();
    assert_eq!(watched.see(1, NOW), 0);
    assert_eq!(watched.see(1, NOW + 5), 5);
    assert_eq!(watched.see(2, NOW + 9), 0);
    assert_eq!(watched.ask_at, NOW + 9 + STILL);
    assert_eq!(watched.see(2, NOW + 9), 0);
    assert_eq!(watched.see(2, NOW + 8), 0);
    assert_eq!(watched.ask_at, NOW + 8 + STILL);
    watched.found_free = true;
    for now in [NOW + 8, NOW + 9] {
        watched.see(2, now);
        assert!(watched.found_free, "what is known of it is not forgotten");
    }
    watched.see(3, NOW + 9);
    assert!(!watched.found_free);
}

#[test]
fn who_reads_first_is_not_asked_for_the_lock_before_its_time() {
    let page = blank();
    let world = Fake::of(&page);
    let (a, b) = (world.place(0), world.place(1));
    taken(&a, NOW);
    let ticket = b.enter(NOW);
    let mut watched = Watched::default();
    b.look(ticket, &mut watched, NOW, SLICE);
    let until = NOW + 2 * STILL;
    page.slots[0].reads_until.store(until, Relaxed);
    assert!(b.reads(0, until - 1));
    assert!(!b.reads(0, until));
    assert!(b.reads(0, until - LONGEST_READ));
    assert!(
        !b.reads(0, until - LONGEST_READ - 1),
        "nobody reads that long"
    );
    assert_eq!(sleeps(&b, ticket, &mut watched, until - 1), Some(LOOK));
    assert_eq!(sleeps(&b, ticket, &mut watched, until), Some(TWICE));
    assert_eq!(sleeps(&b, ticket, &mut watched, until + TWICE), None);
}

#[test]
fn a_dead_owner_is_passed_over_at_once_in_every_phase() {
    for phase in [Phase::Granted, Phase::Held] {
        let page = blank();
        let world = Fake::of(&page);
        let b = world.place(1);
        let owner = Owner {
            slot: 0,
            generation: 100,
            phase,
        };
        page.header
            .turn
            .store(b.turn().next(Some(owner)).word, SeqCst);
        assert_eq!(b.try_take(&mut Watched::default(), NOW, SLICE), None);
        world.dies(0);
        taken(&b, NOW);
        assert_eq!(page.slots[0].passed_over.load(Relaxed), 1);
    }
}

#[test]
fn whom_the_turn_is_taken_from_is_not_given_it() {
    let page = blank();
    let world = Fake::of(&page);
    let (a, b) = (world.place(0), world.place(1));
    let turn = taken(&a, NOW);
    a.enter(NOW);
    assert!(b.hand_over(turn, Some(0)));
    assert_eq!(world.turn(), None);
    // To whomever it belongs, who has it not any more cannot give it.
    assert!(!a.hand_over(turn, None));
    assert_eq!(world.turn(), None);
}

#[test]
fn the_first_is_told_and_never_oneself() {
    let page = blank();
    let world = Fake::of(&page);
    let a = world.place(0);
    a.enter(NOW);
    a.wake_first();
    assert!(world.woken().is_empty());
    world.place(9).enter(NOW);
    a.wake_first();
    assert_eq!(world.woken(), [9]);
}
