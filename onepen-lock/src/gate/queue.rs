//! The protocol: one process's moves on the shared page.
//!
//! Every move is a few atomic operations in an order that the header of
//! [`gate`](super) explains, and may be the last thing its process ever does.
//! Nothing here sleeps; `tests/gate_model` has the same moves as a model, with
//! a crash and a stop between any two of them.

use std::num::NonZero;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};

use super::layout::{Owner, Page, Phase, SLOTS, Slot, Turn};

/// How long a process that was given the turn may take to claim it.
pub(super) const GRACE: u64 = 5_000_000;

/// How long a turn may stand still before it is asked whether SQLite's write lock
/// is held at all.
pub(super) const STILL: u64 = 10_000_000;

/// How often the first in line looks whether the turn's owner lives. Those behind
/// look more rarely, for the case that the first itself is stopped.
pub(super) const LOOK: u64 = 10_000_000;

/// A lock found free is looked at once more after so long: who polls for it, as
/// programs that do not queue make it necessary, may have been about to take it.
pub(super) const TWICE: u64 = 4_000_000;

/// How long after the end of a slice the next in line looks: later than the
/// owner itself would have passed it on.
const ALARM: u64 = 100_000;

/// The longest time that is believed in which a turn is kept for reading.
pub(super) const LONGEST_READ: u64 = 1_000_000_000;

/// The longest slice that is believed.
pub(super) const LONGEST_SLICE: u64 = 2_000_000;

/// A move that others thwart again and again is given up after so many times: only
/// somebody who changes the page all the time does that, and no queue is worth an
/// endless race with him. (Each of the dead in line takes one.)
const ATTEMPTS: usize = 256;

const _: () = assert!(ATTEMPTS > SLOTS);

/// What the queue needs to know of the world.
pub(super) trait World {
    /// Whether the owner of the slot lives.
    fn lives(&self, slot: usize) -> bool;
    /// Whether anybody holds SQLite's write lock.
    fn lock_is_held(&self) -> bool;
    /// Wakes who sleeps on the word.
    fn wake(&self, word: &AtomicU32);
}

/// One process's place at the page.
pub(super) struct Place<'a, W> {
    pub(super) page: &'a Page,
    pub(super) slot: usize,
    pub(super) generation: u16,
    pub(super) world: W,
}

/// What a waiter found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// The turn is ours now.
    Mine(Turn),
    /// Sleep, but no longer than so many nanoseconds.
    Sleep(u64),
}

/// How long a waiter has seen the same turn word.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Watched {
    word: u64,
    since: u64,
    /// When to ask for the lock next, and how long to wait after that.
    ask_at: u64,
    ask_again: u64,
    found_free: bool,
}

impl Watched {
    /// For how long this very word has been seen.
    fn see(&mut self, word: u64, now: u64) -> u64 {
        if self.word != word || self.since > now {
            *self = Self {
                word,
                since: now,
                ask_at: now.saturating_add(STILL),
                ask_again: STILL,
                found_free: false,
            };
        }
        now - self.since
    }
}

impl<W: World> Place<'_, W> {
    pub(super) fn own(&self) -> &Slot {
        &self.page.slots[self.slot]
    }

    pub(super) fn turn(&self) -> Turn {
        Turn::unpack(self.page.header.turn.load(SeqCst))
    }

    fn is_mine(&self, owner: Owner) -> bool {
        owner.slot == self.slot && owner.generation == self.generation
    }

    /// The only way the turn word ever changes.
    fn change(&self, from: Turn, owner: Option<Owner>) -> Option<Turn> {
        let to = from.next(owner);
        self.page
            .header
            .turn
            .compare_exchange(from.word, to.word, SeqCst, SeqCst)
            .is_ok()
            .then_some(to)
    }

    fn me(&self, phase: Phase) -> Option<Owner> {
        Some(Owner {
            slot: self.slot,
            generation: self.generation,
            phase,
        })
    }

    /// The turn as ours. A new slice begins, unless one of ours goes on.
    fn claim(&self, from: Turn, now: u64, slice: u64) -> Option<Turn> {
        self.assert_generation();
        let mine = self.change(from, self.me(Phase::Held))?;
        let goes_on = from.owner.is_some_and(|owner| owner.phase == Phase::Open)
            && now < self.page.header.slice_ends.load(Relaxed);
        if !goes_on {
            let ends = now.saturating_add(slice);
            self.page.header.slice_ends.store(ends, Relaxed);
        }
        Some(mine)
    }

    /// When the slice of whoever has the turn ends.
    pub(super) fn slice_ends(&self) -> u64 {
        self.page.header.slice_ends.load(Relaxed)
    }

    /// Whether that is past.
    pub(super) fn slice_is_over(&self, now: u64) -> bool {
        let ends = self.slice_ends();
        now >= ends || ends - now > LONGEST_SLICE
    }

    /// Takes the turn if that needs no waiting: it is nobody's and nobody waits,
    /// or it is ours already.
    pub(super) fn try_take(&self, watched: &mut Watched, now: u64, slice: u64) -> Option<Turn> {
        for _ in 0..ATTEMPTS {
            let turn = self.turn();
            let Some(owner) = turn.owner else {
                if self.others_wait() {
                    // Whoever let it go, or who waits, hands it on; if that one
                    // died in between, we do.
                    self.hand_over(turn, None);
                    return None;
                }
                match self.claim(turn, now, slice) {
                    Some(mine) => return Some(mine),
                    None => continue,
                }
            };
            if self.is_mine(owner) {
                let over = owner.phase == Phase::Open && self.slice_is_over(now);
                if over && self.others_wait() {
                    self.hand_over(turn, None);
                    return None;
                }
                match self.claim(turn, now, slice) {
                    Some(mine) => return Some(mine),
                    None => continue,
                }
            }
            match self.patience_with(turn, owner, watched, now) {
                Some(_) => return None,
                None => self.pass_over(turn, owner),
            }
        }
        None
    }

    /// Whoever has the slot says which generation it is. If anybody else wrote there,
    /// we would never know a turn that we are given as ours.
    fn assert_generation(&self) {
        let own = &self.own().generation;
        if own.load(SeqCst) as u16 != self.generation {
            own.store(u32::from(self.generation), SeqCst);
        }
    }

    /// Our turn, once more, under a new number: who looked at it before and found that
    /// it stands still passes it over no more. `None` when somebody has done so.
    pub(super) fn confirm(&self, turn: Turn) -> Option<Turn> {
        self.change(turn, self.me(Phase::Held))
    }

    /// Draws a number and stands in line.
    pub(super) fn enter(&self, now: u64) -> u64 {
        let draw = || {
            self.page
                .header
                .tickets
                .fetch_add(1, SeqCst)
                .wrapping_add(1)
        };
        // 0 is no ticket.
        let ticket = NonZero::new(draw()).map_or_else(|| draw().max(1), NonZero::get);
        self.own().waits_since.store(now, Relaxed);
        self.stand(ticket);
        ticket
    }

    fn stand(&self, ticket: u64) {
        // The ticket first: a bit without one says nothing.
        self.own().ticket.store(ticket, SeqCst);
        self.page.header.waiting[self.slot / 64].fetch_or(1 << (self.slot % 64), SeqCst);
    }

    /// Leaves the line, with the turn or without.
    pub(super) fn leave(&self) {
        self.remove(self.slot);
    }

    /// Leaves the line without the turn, for good: what we were given meanwhile
    /// is handed on, and who is first now gets to know it.
    pub(super) fn give_up(&self) {
        self.leave();
        let turn = self.turn();
        match turn.owner {
            Some(owner) if self.is_mine(owner) => {
                self.hand_over(turn, None);
            }
            // It has an alarm to set that was ours.
            _ => self.wake_first(),
        }
    }

    fn remove(&self, slot: usize) {
        self.page.header.waiting[slot / 64].fetch_and(!(1 << (slot % 64)), SeqCst);
        self.page.slots[slot].ticket.store(0, SeqCst);
    }

    /// Takes off the line what is none of a living process: bits without tickets,
    /// which no order of events here leaves behind.
    fn sweep(&self) {
        for (index, word) in self.page.header.waiting.iter().enumerate() {
            let mut bits = word.load(SeqCst);
            while bits != 0 {
                let slot = index * 64 + bits.trailing_zeros() as usize;
                bits &= bits - 1;
                if slot != self.slot && !self.world.lives(slot) {
                    self.remove(slot);
                }
            }
        }
    }

    /// Whether another process stands in line.
    pub(super) fn others_wait(&self) -> bool {
        self.page
            .header
            .waiting
            .iter()
            .enumerate()
            .any(|(index, word)| {
                let mut bits = word.load(SeqCst);
                if index == self.slot / 64 {
                    bits &= !(1 << (self.slot % 64));
                }
                bits != 0
            })
    }

    /// How many other processes stand in line.
    pub(super) fn how_many_wait(&self) -> u32 {
        let all: u32 = (self.page.header.waiting.iter())
            .map(|word| word.load(Relaxed).count_ones())
            .sum();
        let own = self.page.header.waiting[self.slot / 64].load(Relaxed) >> (self.slot % 64) & 1;
        all - (own as u32).min(all)
    }

    /// Those in line, with the age of their tickets: the oldest has the largest.
    fn line(&self) -> impl Iterator<Item = (usize, u64)> + '_ {
        let last = self.page.header.tickets.load(SeqCst);
        let words = self.page.header.waiting.iter().enumerate();
        words.flat_map(move |(index, word)| {
            let mut bits = word.load(SeqCst);
            std::iter::from_fn(move || {
                let bit = bits.trailing_zeros() as usize;
                bits = bits.checked_sub(1)? & bits;
                Some(index * 64 + bit)
            })
            .filter_map(move |slot| {
                let ticket = self.page.slots[slot].ticket.load(SeqCst);
                // A number from the future is nonsense, and the last in line.
                let age = last.wrapping_sub(ticket);
                let age = if age > u64::MAX / 2 { 0 } else { age };
                (ticket != 0).then_some((slot, age))
            })
        })
    }

    /// How many stand before us; the turn's owner does not count.
    pub(super) fn position(&self, ticket: u64) -> usize {
        let last = self.page.header.tickets.load(SeqCst);
        let own = last.wrapping_sub(ticket);
        let owner = self.turn().owner.map(|owner| owner.slot);
        self.line()
            .filter(|&(slot, age)| slot != self.slot && Some(slot) != owner && age > own)
            .count()
    }

    fn first(&self, but: Option<usize>) -> Option<usize> {
        self.line()
            .filter(|&(slot, _)| Some(slot) != but)
            .max_by_key(|&(_, age)| age)
            .map(|(slot, _)| slot)
    }

    /// Gives the turn to the first in line who lives, or to nobody. `but` is the
    /// one it was just taken from.
    /// Says whether it was ours to give.
    pub(super) fn hand_over(&self, mut turn: Turn, but: Option<usize>) -> bool {
        let mut gave = false;
        for _ in 0..ATTEMPTS {
            let Some(first) = self.first(but) else {
                self.sweep();
                match self.change(turn, None) {
                    // Somebody may have come to stand in line after we looked,
                    // and before there was a free turn to be seen.
                    Some(free) if self.first(but).is_some() => turn = free,
                    changed => return gave || changed.is_some(),
                }
                gave = true;
                continue;
            };
            if first != self.slot && !self.world.lives(first) {
                self.remove(first);
                continue;
            }
            let generation = self.page.slots[first].generation.load(SeqCst) as u16;
            let granted = Owner {
                slot: first,
                generation,
                phase: Phase::Granted,
            };
            let Some(given) = self.change(turn, Some(granted)) else {
                return gave; // somebody else moved it
            };
            gave = true;
            if first != self.slot {
                self.world.wake(&self.page.slots[first].word);
            }
            // It may have left before it could see that.
            if self.page.slots[first].ticket.load(SeqCst) != 0 || first == self.slot {
                return true;
            }
            turn = given;
        }
        gave
    }

    /// After a write. Keeps the turn for the next one, or passes it on.
    pub(super) fn release(&self, turn: Turn, keep: bool) -> Released {
        if keep {
            return match self.change(turn, self.me(Phase::Open)) {
                Some(_) => Released::Kept,
                None => Released::Lost,
            };
        }
        if self.others_wait() {
            return if self.hand_over(turn, None) {
                Released::Passed
            } else {
                Released::Lost
            };
        }
        let Some(free) = self.change(turn, None) else {
            return Released::Lost;
        };
        // Who came to stand in line before the turn was free did not see it so.
        if self.others_wait() {
            self.hand_over(free, None);
        }
        Released::Passed
    }

    /// Lets the first in line know that the turn is kept: it sets its alarm to
    /// the end of the slice.
    pub(super) fn wake_first(&self) {
        if let Some(first) = self.first(Some(self.slot)) {
            self.world.wake(&self.page.slots[first].word);
        }
    }

    /// One look of a waiter with `ticket`.
    pub(super) fn look(&self, ticket: u64, watched: &mut Watched, now: u64, slice: u64) -> Look {
        // Whoever was stopped for a while may have been taken off the line. It
        // goes back to its old place.
        let bit = self.page.header.waiting[self.slot / 64].load(SeqCst) >> (self.slot % 64) & 1;
        if bit == 0 || self.own().ticket.load(SeqCst) != ticket {
            self.stand(ticket);
        }
        self.assert_generation();
        for _ in 0..ATTEMPTS {
            let turn = self.turn();
            let Some(owner) = turn.owner else {
                self.hand_over(turn, None);
                continue;
            };
            if self.is_mine(owner) {
                match self.claim(turn, now, slice) {
                    Some(mine) => {
                        self.leave();
                        return Look::Mine(mine);
                    }
                    None => continue,
                }
            }
            match self.patience_with(turn, owner, watched, now) {
                Some(left) => {
                    let before = self.position(ticket).min(4) as u64;
                    // To the moment, for who is next; the others are only there in
                    // case that the next is stopped.
                    let left = if before == 0 { left } else { LOOK };
                    return Look::Sleep(left + before * LOOK);
                }
                None => self.pass_over(turn, owner),
            }
        }
        Look::Sleep(LOOK)
    }

    /// How long to wait for the owner of the turn before looking again; `None`
    /// when the turn has to be passed over.
    fn patience_with(
        &self,
        turn: Turn,
        owner: Owner,
        watched: &mut Watched,
        now: u64,
    ) -> Option<u64> {
        let seen_for = watched.see(turn.word, now);
        let slice_left = self.slice_ends().saturating_sub(now);
        let slice_left = (1..=LONGEST_SLICE)
            .contains(&slice_left)
            .then_some(slice_left + ALARM);
        if owner.phase == Phase::Open {
            return slice_left;
        }
        let slot = &self.page.slots[owner.slot];
        let is_gone = slot.generation.load(SeqCst) as u16 != owner.generation;
        if is_gone || !self.world.lives(owner.slot) {
            return None;
        }
        if owner.phase == Phase::Granted {
            return GRACE.checked_sub(seen_for).filter(|&left| left > 0);
        }
        if self.reads(owner.slot, now) {
            return Some(LOOK);
        }
        if now < watched.ask_at {
            let left = (watched.ask_at - now).min(LOOK);
            return Some(slice_left.map_or(left, |slice_left| left.min(slice_left)));
        }
        if self.world.lock_is_held() {
            watched.found_free = false;
            watched.ask_again = (watched.ask_again * 2).min(10 * STILL);
            watched.ask_at = now.saturating_add(watched.ask_again);
            return Some(LOOK);
        }
        if watched.found_free {
            return None;
        }
        watched.found_free = true;
        watched.ask_at = now.saturating_add(TWICE);
        Some(TWICE)
    }

    /// Whether the owner of the slot reads what it is going to change.
    pub(super) fn reads(&self, slot: usize, now: u64) -> bool {
        let until = self.page.slots[slot].reads_until.load(Relaxed);
        (1..=LONGEST_READ).contains(&until.saturating_sub(now))
    }

    /// Takes the turn from an owner that is dead, stopped or idle.
    fn pass_over(&self, turn: Turn, owner: Owner) {
        let slot = &self.page.slots[owner.slot];
        if owner.phase == Phase::Open {
            self.hand_over(turn, None);
            return;
        }
        let ticket = slot.ticket.load(SeqCst);
        if !self.hand_over(turn, Some(owner.slot)) {
            return; // it has moved after all
        }
        slot.passed_over.fetch_add(1, Relaxed);
        // Off the line, or it would be given the next turn, and every next one.
        // Should it go on, it stands in line again, with the same ticket.
        if ticket != 0
            && slot
                .ticket
                .compare_exchange(ticket, 0, SeqCst, SeqCst)
                .is_ok()
        {
            self.page.header.waiting[owner.slot / 64].fetch_and(!(1 << (owner.slot % 64)), SeqCst);
        }
    }
}

/// What became of a turn after a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Released {
    Kept,
    Passed,
    /// It had been passed over meanwhile.
    Lost,
}

const _: () = assert!(SLOTS.is_multiple_of(64));

#[cfg(test)]
mod tests;
