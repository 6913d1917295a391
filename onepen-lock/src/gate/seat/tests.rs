//! The line of one process, with another process at the gate that is none: a
//! place on the page, and a lock on its byte by a description of its own.

use std::fs::File;
use std::sync::atomic::Ordering::SeqCst;

use super::*;
use crate::gate::layout::{Page, SLOTS};
use crate::gate::queue::Place;
use crate::gate::together::Kernel;
use crate::gate::{Gate, alive};
use crate::holders::{WAL_OPEN_BYTE, WAL_WRITE_BYTE};

const NOW: u64 = 1_000_000_000_000;

struct Scene {
    dir: tempfile::TempDir,
    gate: Gate,
    /// Of the other process.
    other: File,
}

const OTHER: usize = SLOTS - 1;

impl Scene {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let database = dir.path().join("app.db");
        File::create(&database).unwrap();
        let gate = Gate::join(&database, "here").unwrap();
        let open = File::options().read(true).write(true).open(gate.path());
        Self {
            dir,
            gate,
            other: open.unwrap(),
        }
    }

    /// The other process stands in line, and its number.
    fn other_waits(&self, seat: &Seat) -> u64 {
        assert!(alive::claim(&self.other, OTHER).unwrap());
        other(page(seat)).enter(clock::now())
    }

    /// SQLite's lock on a byte of its shared memory is held, by nobody here.
    fn locks(&self, byte: u64) -> File {
        let path = self.dir.path().join("app.db-shm");
        let file = File::create(path).unwrap();
        // SAFETY: a `flock` is made of integers, for which zeros are valid.
        let mut lock: libc::flock = unsafe { std::mem::zeroed() };
        lock.l_type = libc::F_WRLCK as i16;
        lock.l_whence = libc::SEEK_SET as i16;
        lock.l_start = byte as i64;
        lock.l_len = 1;
        let fd = std::os::fd::AsRawFd::as_raw_fd(&file);
        // SAFETY: an open descriptor, and what this command takes.
        let refused = unsafe { libc::fcntl(fd, libc::F_OFD_SETLK, &raw const lock) };
        assert_eq!(refused, 0);
        file
    }
}

fn page(seat: &Seat) -> &Page {
    seat.inner.place().page
}

fn other(page: &Page) -> Place<'_, Kernel> {
    page.slots[OTHER].generation.store(7, SeqCst);
    Place {
        page,
        slot: OTHER,
        generation: 7,
        world: Kernel,
    }
}

fn take(seat: &Seat) {
    assert_eq!(seat.take(None, None, &|| false), Waited::Turn);
}

fn standing(line: &Line) -> Vec<u64> {
    line.seats.iter().map(|standing| standing.seat).collect()
}

#[test]
fn a_seat_is_first_until_nobody_has_waited_on_it_for_a_while() {
    let mut line = Line::default();
    line.stand(1, true, NOW);
    line.stand(2, true, NOW);
    line.stand(1, false, NOW + 5);
    assert_eq!(line.first(NOW + 5 + FORGOTTEN), Some(1));
    // Whoever waits is never forgotten.
    assert_eq!(line.first(NOW + 6 + FORGOTTEN), Some(2));
    assert_eq!(line.first(u64::MAX), Some(2));
    assert_eq!(standing(&line), [2]);
    // It stands at its old place when it comes back, and at the end when it had
    // been forgotten; who is not here does not come to stand in line.
    line.stand(3, true, NOW);
    line.stand(2, false, NOW);
    line.stand(2, true, NOW + 1);
    line.stand(1, false, NOW);
    assert_eq!(standing(&line), [2, 3]);
    line.stand(1, true, NOW);
    line.remove(3);
    assert_eq!(standing(&line), [2, 1]);
}

#[test]
fn the_next_write_comes_soon_or_not_and_that_is_remembered_until_the_next() {
    let mut line = Line::default();
    line.somebody_wants_it(NOW);
    assert!(!line.returns, "nobody let it go");
    for (after, returns) in [(RETURNS - 1, true), (RETURNS, false), (0, true)] {
        line.let_go = NOW;
        line.somebody_wants_it(NOW + after);
        assert_eq!(line.returns, returns, "{after}");
        assert_eq!(line.let_go, 0);
        line.somebody_wants_it(NOW + 2 * RETURNS);
        assert_eq!(line.returns, returns, "{after}");
    }
}

/// Whether a turn is kept, let go within its slice while another process waits.
fn is_kept(returns: bool, neighbour: bool, more: bool) -> bool {
    loop {
        let scene = Scene::new();
        let (seat, next) = (scene.gate.seat(), scene.gate.seat());
        take(&seat);
        scene.other_waits(&seat);
        let mut line = seat.inner.line();
        line.returns = returns;
        if neighbour {
            line.stand(next.id, true, clock::now());
        }
        let ends = clock::now() + 1_900_000;
        page(&seat).header.slice_ends.store(ends, Relaxed);
        seat.release(&mut line, || more);
        if clock::now() < ends {
            let kept = line.let_go != 0 && seat.inner.place().turn().owner.unwrap().slot != OTHER;
            line.remove(next.id);
            return kept;
        }
        line.remove(next.id); // and once more, faster
    }
}

#[test]
fn a_turn_is_kept_within_its_slice_for_a_write_that_follows() {
    assert!(!is_kept(false, false, false));
    assert!(is_kept(true, false, false));
    assert!(is_kept(false, true, false));
    assert!(is_kept(false, false, true));
}

#[test]
fn a_turn_is_not_kept_after_its_slice_and_not_while_nobody_waits() {
    let scene = Scene::new();
    let seat = scene.gate.seat();
    take(&seat);
    seat.pass_on(1, 1, || panic!("nobody waits: it is not asked"));
    assert_eq!(seat.inner.place().turn().owner, None);
    take(&seat);
    scene.other_waits(&seat);
    assert!(!seat.should_end() || seat.inner.place().slice_is_over(clock::now()));
    page(&seat).header.slice_ends.store(clock::now(), Relaxed);
    assert!(seat.should_end());
    seat.pass_on(1, 1, || true);
    assert_eq!(seat.inner.place().turn().owner.unwrap().slot, OTHER);
}

#[test]
fn the_first_at_the_gate_is_told_once_in_a_slice_that_the_turn_is_kept() {
    // Again until three writes fit into one slice.
    loop {
        let scene = Scene::new();
        let seat = scene.gate.seat();
        take(&seat);
        scene.other_waits(&seat);
        let ends = clock::now() + 1_900_000;
        page(&seat).header.slice_ends.store(ends, Relaxed);
        for _ in 0..3 {
            seat.pass_on(1, 1, || true);
            take(&seat);
        }
        if clock::now() < ends {
            assert_eq!(page(&seat).slots[OTHER].word.load(SeqCst), 1);
            return;
        }
    }
}

#[test]
fn who_stands_first_here_takes_the_turn_and_nobody_else_of_us() {
    let scene = Scene::new();
    let (a, b) = (scene.gate.seat(), scene.gate.seat());
    // b waits, and nobody has the turn.
    a.inner.line().stand(b.id, true, clock::now());
    assert!(!a.try_take(None));
    assert!(b.try_take(None));
    // b has it, and nobody waits.
    assert!(!a.try_take(None));
    assert!(b.try_take(None) && b.has_the_turn() && !a.has_the_turn());
    b.pass_on(1, 1, || false);
    assert!(a.try_take(None));
}

#[test]
fn who_waits_is_counted_here_and_elsewhere() {
    let scene = Scene::new();
    let (a, b) = (scene.gate.seat(), scene.gate.seat());
    take(&a);
    assert!(!a.is_somebody_waiting() && !b.is_somebody_waiting());
    a.inner.line().stand(b.id, true, clock::now());
    assert!(a.is_somebody_waiting(), "b");
    assert!(!b.is_somebody_waiting(), "it is b alone");
    assert_eq!(a.others_are_waiting(), 0, "no other process");
    a.inner.line().remove(b.id);
    scene.other_waits(&a);
    assert!(a.is_somebody_waiting());
    assert_eq!(a.others_are_waiting(), 1);
    assert_eq!((a.position(), b.position()), (None, None), "not in line");
}

#[test]
fn a_turn_is_counted_with_what_was_done_in_it() {
    let scene = Scene::new();
    let (a, b) = (scene.gate.seat(), scene.gate.seat());
    let before = clock::now();
    assert!(a.try_take(Some("orders")));
    let own = seat_slot(&a);
    assert!((before..=clock::now()).contains(&own.turn_since.load(Relaxed)));
    assert_eq!(own.thread.load(Relaxed), thread());
    let purpose = || text::read(&own.purpose, &own.purpose_version);
    assert_eq!(purpose(), "orders");
    b.pass_on(9, 9, || false); // it has none
    a.pass_on(1, 3, || false);
    a.pass_on(9, 9, || false);
    take(&b);
    assert_eq!(purpose(), "");
    b.pass_on(2, 5, || false);
    let counted = [&own.turns, &own.commits, &own.writes].map(|counter| counter.load(Relaxed));
    assert_eq!(counted, [2, 3, 8]);
    a.waited(5);
    a.waited(3);
    let counted = [&own.waits, &own.waited, &own.longest_wait].map(|it| it.load(Relaxed));
    assert_eq!(counted, [2, 8, 5]);
    assert!(format!("{a:?}").contains(&format!("Seat {{ id: {}", a.id)));
}

fn seat_slot(seat: &Seat) -> &crate::gate::layout::Slot {
    &page(seat).slots[seat.inner.place().slot]
}

#[test]
fn who_reads_first_says_for_how_long_and_only_in_its_turn() {
    let scene = Scene::new();
    let (a, b) = (scene.gate.seat(), scene.gate.seat());
    take(&a);
    let until = || seat_slot(&a).reads_until.load(Relaxed);
    assert!(!b.reads_first(Duration::from_millis(5)));
    assert_eq!(until(), 0);
    for (asked, given) in [(5_000_000, 5_000_000), (u64::MAX, LONGEST_READ)] {
        let before = clock::now();
        assert!(a.reads_first(Duration::from_nanos(asked)));
        assert!((before + given..=clock::now() + given).contains(&until()));
    }
    a.pass_on(1, 1, || false);
    take(&b);
    assert_eq!(until(), 0, "the next turn is another");
}

/// Who was not scheduled between the turn and SQLite's lock.
#[test]
fn a_turn_that_is_confirmed_is_passed_over_no_more_and_one_that_was_is_known_to_be_lost() {
    let scene = Scene::new();
    let (a, b) = (scene.gate.seat(), scene.gate.seat());
    assert!(alive::claim(&scene.other, OTHER).unwrap());
    for reads in [false, true] {
        let confirm = || match reads {
            true => a.reads_first(Duration::from_millis(5)),
            false => a.confirm(),
        };
        assert!(!confirm(), "it is nobody's turn");
        take(&a);
        assert!(!b.confirm());
        assert!(confirm() && confirm(), "as often as it likes");
        // By another process, before and after.
        let other = other(page(&a));
        let seen = other.turn();
        assert!(confirm());
        assert!(!other.hand_over(seen, None), "it looked too early");
        assert!(a.has_the_turn());
        assert!(other.hand_over(other.turn(), None));
        assert!(a.has_the_turn(), "it does not know");
        assert!(!confirm());
        assert!(!a.has_the_turn());
        // By another seat of ours.
        take(&a);
        a.pass_over(&mut b.inner.line());
        assert!(!confirm());
        assert!(b.try_take(None), "it is free again");
        b.pass_on(0, 0, || false);
    }
}

#[test]
fn when_the_last_of_us_leaves_the_line_so_does_the_process() {
    let scene = Scene::new();
    let (a, b) = (scene.gate.seat(), scene.gate.seat());
    let in_line = || seat_slot(&a).ticket.load(SeqCst) != 0;
    let stand = |seat: &Seat| {
        let mut line = seat.inner.line();
        line.stand(seat.id, true, clock::now());
        if line.ticket == 0 {
            line.ticket = seat.inner.place().enter(clock::now());
        }
    };
    assert!(alive::claim(&scene.other, OTHER).unwrap());
    let other = other(page(&a));
    let turn = other.try_take(&mut Watched::default(), clock::now(), 1_000_000);
    assert!(turn.is_some());
    stand(&a);
    stand(&b);
    assert_eq!(a.position(), Some(0));
    a.leave();
    assert!(in_line(), "b stands there");
    b.leave();
    assert!(!in_line());
    // The same of one that is forgotten.
    stand(&a);
    a.inner.line().stand(a.id, false, 0);
    assert!(!b.try_take(None));
    assert!(!in_line());
    // And of one who gives up, or whose time is over.
    let soon = Some(Instant::now());
    assert_eq!(a.wait(None, None, &|| true), Waited::GaveUp);
    assert!(!in_line());
    assert_eq!(a.wait(None, soon, &|| false), Waited::TimedOut);
    assert!(in_line(), "for a while");
    a.leave();
    assert_eq!(a.take(None, soon, &|| false), Waited::TimedOut);
    assert!(!in_line());
    let counted = seat_slot(&a).waits.load(Relaxed);
    assert_eq!(counted, 0, "none of them was served");
}

#[test]
fn a_turn_of_ours_that_stands_still_is_passed_over_at_the_second_look() {
    let scene = Scene::new();
    let seat = scene.gate.seat();
    take(&seat);
    let mut line = seat.inner.line();
    let taken = line.taken;
    let asked = taken + STILL_HERE;
    assert!(!seat.stands_still(&mut line, taken));
    assert!(!seat.stands_still(&mut line, asked - 1));
    assert!(!line.still.found_free);
    assert!(!seat.stands_still(&mut line, asked));
    assert!(line.still.found_free, "free at one look");
    assert!(!seat.stands_still(&mut line, asked + TWICE - 1));
    // Who has SQLite's lock now has moved.
    assert!(!seat.lock_is_held());
    let lock = scene.locks(WAL_WRITE_BYTE);
    assert!(seat.lock_is_held());
    assert!(!seat.stands_still(&mut line, asked + TWICE));
    drop(lock);
    let again = asked + TWICE + STILL_HERE;
    assert!(!seat.stands_still(&mut line, again - 1));
    assert!(!seat.stands_still(&mut line, again));
    // It reads, and says so.
    let slot = seat_slot(&seat);
    slot.reads_until.store(again + TWICE + 1, Relaxed);
    assert!(!seat.stands_still(&mut line, again + TWICE));
    slot.reads_until.store(0, Relaxed);
    assert!(seat.stands_still(&mut line, again + TWICE));
    // Another turn is another matter.
    line.taken = again;
    assert!(!seat.stands_still(&mut line, again + TWICE));
    seat.pass_over(&mut line);
    assert_eq!((line.holder, slot.passed_over.load(Relaxed)), (None, 1));
    assert_eq!(seat.inner.place().turn().owner, None);
}

#[test]
fn a_gap_is_left_as_often_as_strangers_need_it() {
    let scene = Scene::new();
    let seat = scene.gate.seat();
    let header = &page(&seat).header;
    let mut line = seat.inner.line();
    let mut is_due = |now| seat.gap_is_due(&mut line, now);
    assert!(!is_due(NOW), "nobody was ever seen");
    for (stamp, lately, every) in [
        (&header.stranger_wrote, WROTE_LATELY, GAP_EVERY_WRITER),
        (&header.stranger_seen, OPEN_LATELY, GAP_EVERY),
    ] {
        header.stranger_wrote.store(0, Relaxed);
        header.stranger_seen.store(0, Relaxed);
        header.gap.store(0, Relaxed);
        stamp.store(NOW - lately + 1, Relaxed);
        assert!(is_due(NOW), "there was none yet");
        assert!(!is_due(NOW + 1), "that is a while ago");
        header.gap.store(NOW - every + 1, Relaxed);
        assert!(!is_due(NOW));
        header.gap.store(NOW - every, Relaxed);
        assert!(is_due(NOW));
    }
    // Met at the lock a moment ago.
    drop(line);
    seat.met_a_stranger();
    let met = [&header.stranger_wrote, &header.stranger_seen].map(|it| it.load(Relaxed));
    assert!(met[0] == met[1] && met[0] > 0 && met[0] <= clock::now());
}

#[test]
fn strangers_are_looked_for_now_and_then_by_who_writes_all_the_time() {
    let scene = Scene::new();
    let seat = scene.gate.seat();
    let _stranger = scene.locks(WAL_OPEN_BYTE);
    let mut line = seat.inner.line();
    assert!(!seat.gap_is_due(&mut line, NOW));
    assert_eq!(line.asked, NOW, "as if it had just been asked");
    seat.gap_is_due(&mut line, NOW + ASK_EVERY - 1);
    assert_eq!(line.asked, NOW);
    let asked = NOW + ASK_EVERY;
    seat.gap_is_due(&mut line, asked);
    assert_eq!(line.asked, asked);
    // On a thread of its own, which comes to it.
    while seat.inner.files.strangers_seen() == 0 {
        std::thread::yield_now();
    }
    assert_eq!(seat.inner.files.strangers_seen(), asked);
    let seen = &page(&seat).header.stranger_seen;
    assert!(seat.gap_is_due(&mut line, asked + 1));
    assert_eq!(seen.load(Relaxed), asked);
    // What another process saw later is not overwritten.
    seen.store(asked + 7, Relaxed);
    seat.gap_is_due(&mut line, asked + 8);
    assert_eq!(seen.load(Relaxed), asked + 7);
}

#[test]
fn a_gap_is_left_only_between_writes_that_follow_each_other_closely() {
    let scene = Scene::new();
    let seat = scene.gate.seat();
    let header = &page(&seat).header;
    for (pause, due) in [(CLOSELY - 1, true), (CLOSELY, false)] {
        header.stranger_wrote.store(NOW, Relaxed);
        header.gap.store(0, Relaxed);
        let mut line = seat.inner.line();
        let place = seat.inner.place();
        let turn = place
            .try_take(&mut Watched::default(), NOW, 1_000_000)
            .unwrap();
        line.taken = NOW - pause;
        seat.has_turn(&mut line, turn, NOW, None);
        assert_eq!(line.taken, NOW);
        drop(line);
        assert_eq!(seat.inner.gap_due.load(Relaxed), due);
        assert_eq!(header.gap.load(Relaxed), if due { NOW } else { 0 });
        let before = Instant::now();
        seat.leave_a_gap();
        assert!(!due || before.elapsed() >= GAP);
        assert!(!seat.inner.gap_due.load(Relaxed));
        seat.pass_on(0, 0, || false);
    }
}
