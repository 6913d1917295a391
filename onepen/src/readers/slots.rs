//! Who may use which reader connection, and who is next.
//!
//! Guarantees: a slot has one owner at a time; callers who find all slots
//! taken get one in the order they came; a caller who gives up leaves nothing
//! behind; a thread that owns a slot never waits for another.
//!
//! Each slot is one word on a cache line of its own: its owner's token, and
//! flags. A thread takes its own slot again with one compare-and-swap from
//! *free, no flags* and gives it back with another one to the same; in between
//! it writes nothing that other threads read. Whoever wants something else (to
//! wait in line, to hold readers back, to close) raises a flag in *every* slot
//! under the lock. From then on both swaps fail and everybody comes to the
//! lock, where things are slow and simple. Since flag and owner are the same
//! word, there is no moment in which one is seen without the other, and no
//! fence is needed.

use std::cell::Cell;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64 as Counter, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crate::cancel::Sleeps;
use crate::engine::{Patience, Until};
use crate::error::{Error, ErrorKind, Result, Waited, WaitedFor};
use crate::pen::{gave_up, job::Ticket, patience};
use crate::sync::{
    Arc, AtomicU32, AtomicU64, Condvar, Mutex, MutexGuard, Ordering, WaitWord, lock, thread_local,
};

/// Somebody waits in line: slots are handed over, not left free.
const WAITED: u64 = 1;
/// Nobody starts to read now.
const HELD: u64 = 2;
/// Nobody will ever start to read again.
const CLOSED: u64 = 4;
const FLAGS: u64 = WAITED | HELD | CLOSED;
/// Tokens are counted in steps that leave the flags' bits alone.
const TOKEN: u64 = FLAGS + 1;

/// Whoever looks after slots that nobody uses: an owner for a microsecond.
const CARETAKER: u64 = 1 << 63;
/// How often a thread looks again whether the caretaker has left its slot.
const LOOKS: u32 = if cfg!(any(onepen_loom, onepen_shuttle)) {
    1 // a model would count every one of them
} else {
    1000
};

const NOT_YET: u32 = u32::MAX;
const SENT_AWAY: u32 = u32::MAX - 1;

/// What a thread remembers, so that it finds its own connection again.
struct Here {
    token: Cell<u64>,
    /// Slots by database; one that lost its place to another is only slower.
    hints: [Cell<Hint>; 4],
}

#[derive(Clone, Copy)]
struct Hint {
    slots: u32,
    index: u32,
}

impl Here {
    #[cfg_attr(any(onepen_loom, onepen_shuttle), allow(clippy::missing_const_for_fn))]
    const fn new() -> Self {
        Self {
            token: Cell::new(0),
            hints: [const { Cell::new(Hint { slots: 0, index: 0 }) }; 4],
        }
    }

    fn hint(&self, slots: u32) -> Option<usize> {
        let hint = self.hints[slots as usize % 4].get();
        (hint.slots == slots).then_some(hint.index as usize)
    }

    fn remember(&self, slots: u32, index: usize) {
        self.hints[slots as usize % 4].set(Hint {
            slots,
            index: index as u32,
        });
    }

    fn token(&self) -> u64 {
        static NEXT: Counter = Counter::new(TOKEN);
        if self.token.get() == 0 {
            self.token.set(NEXT.fetch_add(TOKEN, Relaxed));
        }
        self.token.get()
    }
}

// Nothing in it needs dropping, so no access registers or checks a destructor.
#[cfg(not(any(onepen_loom, onepen_shuttle)))]
thread_local! {
    static HERE: Here = const { Here::new() };
}
#[cfg(any(onepen_loom, onepen_shuttle))]
thread_local! {
    static HERE: Here = Here::new();
}

/// Two cache lines: processors fetch them in pairs.
#[repr(align(128))]
struct Slot(AtomicU64);

impl Slot {
    fn owner(&self) -> u64 {
        self.0.load(Ordering::Acquire) & !FLAGS
    }

    fn swap(&self, from: u64, to: u64) -> bool {
        self.0
            .compare_exchange(from, to, Ordering::AcqRel, Ordering::Relaxed)
            .is_ok()
    }
}

/// The slots of one database.
pub(crate) struct Slots {
    id: u32,
    slots: Box<[Slot]>,
    line: Mutex<Line>,
    /// A slot became free while somebody waits for all of them.
    emptied: Condvar,
}

struct Line {
    waiting: VecDeque<Arc<Waiter>>,
    /// Threads that hold readers back.
    holders: Vec<u64>,
    closed: bool,
    /// Slots given to `close` already.
    emptied: Vec<usize>,
}

struct Waiter {
    token: u64,
    /// The slot given to it; written under the lock.
    granted: AtomicU32,
    word: WaitWord,
}

impl Sleeps for Waiter {
    fn wake(&self) {
        self.word.advance();
    }
}

/// The right to use a slot, or to read outside of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    Slot {
        index: usize,
        token: u64,
    },
    /// This thread reads already, or holds the readers back itself.
    Outside,
}

impl Slots {
    pub(crate) fn new(count: usize) -> Self {
        static NEXT: Counter = Counter::new(1);
        Self {
            id: NEXT.fetch_add(1, Relaxed) as u32,
            slots: (0..count).map(|_| Slot(AtomicU64::new(0))).collect(),
            line: Mutex::new(Line {
                waiting: VecDeque::new(),
                holders: Vec::new(),
                closed: false,
                emptied: Vec::new(),
            }),
            emptied: Condvar::new(),
        }
    }

    /// The slot this thread had before, if it is free and nobody wants
    /// anything.
    #[inline]
    pub(crate) fn own(&self) -> Option<Entry> {
        HERE.with(|here| {
            let index = here.hint(self.id)?;
            let token = here.token.get();
            let slot = self.slots.get(index)?;
            slot.swap(0, token).then_some(Entry::Slot { index, token })
        })
    }

    /// Any slot, after a wait in line if need be. `prefer` says which of the
    /// free ones are worth more than others.
    #[cold]
    pub(crate) fn any(
        &self,
        ticket: &Ticket,
        since: Option<Instant>,
        prefer: impl Fn(usize) -> bool,
    ) -> Result<Entry> {
        let token = HERE.with(Here::token);
        if let Some(entry) = self.after_the_caretaker() {
            return Ok(entry);
        }
        if self.slots.iter().any(|slot| slot.owner() == token) {
            return Ok(Entry::Outside);
        }
        for preferred in [true, false] {
            for (index, slot) in self.slots.iter().enumerate() {
                if (!preferred || prefer(index)) && slot.swap(0, token) {
                    return Ok(self.mine(index, token));
                }
            }
        }
        let waiter = Arc::new(Waiter {
            token,
            granted: AtomicU32::new(NOT_YET),
            word: WaitWord::new(),
        });
        let mut line = lock(&self.line);
        if line.closed {
            return Err(closed());
        }
        if line.holders.contains(&token) {
            return Ok(Entry::Outside);
        }
        if line.waiting.is_empty() {
            self.raise(WAITED);
        }
        line.waiting.push_back(Arc::clone(&waiter));
        // A slot may have become free since we looked.
        let served = self.serve(&mut line);
        drop(line);
        served.wake();
        self.wait(&waiter, ticket, since)
    }

    /// This thread's own slot, if only the caretaker is in the way: to take
    /// another one for that would open one more connection.
    fn after_the_caretaker(&self) -> Option<Entry> {
        let index = HERE.with(|here| here.hint(self.id))?;
        for _ in 0..LOOKS {
            if self.slots.get(index)?.owner() != CARETAKER {
                break;
            }
            std::hint::spin_loop();
        }
        self.own()
    }

    fn wait(&self, waiter: &Arc<Waiter>, ticket: &Ticket, since: Option<Instant>) -> Result<Entry> {
        let since = since.unwrap_or_else(Instant::now);
        let patience: Until<'_> = patience(ticket, since);
        if let Some(cancel) = &ticket.cancel {
            cancel.nudge(waiter);
        }
        loop {
            let seen = waiter.word.current();
            match waiter.granted.load(Ordering::Acquire) {
                NOT_YET => {}
                SENT_AWAY => return Err(closed()),
                index => return Ok(self.mine(index as usize, waiter.token)),
            }
            if let Some(why) = patience.exhausted() {
                let mut line = lock(&self.line);
                let place = line
                    .waiting
                    .iter()
                    .position(|other| Arc::ptr_eq(other, waiter));
                if let Some(place) = place {
                    line.waiting.remove(place);
                    if line.waiting.is_empty() {
                        self.lower(WAITED);
                    }
                    let waited = Waited::new(WaitedFor::Reader, since.elapsed());
                    return Err(gave_up(why, waited));
                }
                continue; // it was given something in the meantime
            }
            waiter.word.wait(seen, patience.deadline);
        }
    }

    fn mine(&self, index: usize, token: u64) -> Entry {
        HERE.with(|here| here.remember(self.id, index));
        Entry::Slot { index, token }
    }

    /// Gives a slot back.
    #[inline]
    pub(crate) fn leave(&self, entry: Entry) {
        if let Entry::Slot { index, token } = entry
            && !self.slots[index].swap(token, 0)
        {
            self.leave_slowly(index);
        }
    }

    #[cold]
    fn leave_slowly(&self, index: usize) {
        let mut line = lock(&self.line);
        self.slots[index].0.fetch_and(FLAGS, Ordering::AcqRel);
        let served = self.serve(&mut line);
        if !line.holders.is_empty() || line.closed {
            self.emptied.notify_all();
        }
        drop(line);
        served.wake();
    }

    /// Whether slots given back from now on are to be left empty.
    pub(crate) fn is_closed(&self) -> bool {
        self.is_closed_at(0)
    }

    /// The same for whoever has `entry`. The flag is in every slot; a look at
    /// another reader's would fetch what that one writes all the time.
    #[inline]
    pub(crate) fn is_closed_for(&self, entry: Entry) -> bool {
        self.is_closed_at(match entry {
            Entry::Slot { index, .. } => index,
            Entry::Outside => 0,
        })
    }

    #[inline]
    fn is_closed_at(&self, index: usize) -> bool {
        self.slots[index].0.load(Ordering::Relaxed) & CLOSED != 0
    }

    pub(crate) fn in_use(&self) -> usize {
        let in_use = |slot: &&Slot| ![0, CARETAKER].contains(&slot.owner());
        self.slots.iter().filter(in_use).count()
    }

    /// Whether this thread reads.
    pub(super) fn is_mine(&self) -> bool {
        let token = HERE.with(|here| here.token.get());
        token != 0 && self.slots.iter().any(|slot| slot.owner() == token)
    }

    /// Whether this thread holds the others back.
    pub(super) fn is_held_here(&self) -> bool {
        lock(&self.line).holders.contains(&HERE.with(Here::token))
    }

    /// Has each slot that is free to itself for a moment; says whether that was
    /// all of them.
    pub(crate) fn visit(&self, mut each: impl FnMut(usize)) -> bool {
        let mut all = true;
        for (index, slot) in self.slots.iter().enumerate() {
            if slot.swap(0, CARETAKER) {
                each(index);
                self.leave(Entry::Slot {
                    index,
                    token: CARETAKER,
                });
            } else {
                all = false;
            }
        }
        all
    }

    /// Hands free slots to those in line. While a flag is up nobody else takes
    /// a free slot, so what is free stays free.
    fn serve(&self, line: &mut MutexGuard<'_, Line>) -> Served {
        let mut served = Served(Vec::new());
        if line.waiting.is_empty() || !line.holders.is_empty() {
            return served;
        }
        for (index, slot) in self.slots.iter().enumerate() {
            if slot.owner() != 0 {
                continue;
            }
            let Some(first) = line.waiting.pop_front() else {
                break;
            };
            slot.0.fetch_or(first.token, Ordering::AcqRel);
            first.granted.store(index as u32, Ordering::Release);
            served.0.push(first);
        }
        if line.waiting.is_empty() {
            self.lower(WAITED);
        }
        served
    }

    /// The token of this thread.
    pub(super) fn here() -> u64 {
        HERE.with(Here::token)
    }

    /// How many wait in line.
    #[cfg(test)]
    pub(crate) fn waiting(&self) -> usize {
        lock(&self.line).waiting.len()
    }

    #[cfg(test)]
    pub(crate) fn is_held(&self) -> bool {
        !lock(&self.line).holders.is_empty()
    }

    fn raise(&self, flag: u64) {
        for slot in &self.slots {
            slot.0.fetch_or(flag, Ordering::AcqRel);
        }
    }

    fn lower(&self, flag: u64) {
        for slot in &self.slots {
            slot.0.fetch_and(!flag, Ordering::AcqRel);
        }
    }

    /// Lets nobody start to read, and waits at most so long for those who do;
    /// then has each slot that is free to itself for a moment, unless they are
    /// closed.
    pub(crate) fn hold(&self, at_most: Duration, mut each: impl FnMut(usize)) -> Held<'_> {
        let token = HERE.with(Here::token);
        let mut line = lock(&self.line);
        line.holders.push(token);
        self.raise(HELD);
        let until = Instant::now().checked_add(at_most);
        let line = self.wait_until_empty(line, token, until);
        for (index, slot) in self.slots.iter().enumerate() {
            // What is free once it is closed belongs to `close`, which empties it
            // without the lock.
            if slot.owner() == 0 && !line.closed {
                // Nobody takes it: the flag is up, and the lock is ours.
                each(index);
            }
        }
        drop(line);
        Held {
            slots: self,
            token,
            drained: self.in_use() == 0,
        }
    }

    /// Ends a hold that this thread began.
    pub(crate) fn let_go_here(&self) {
        self.let_go(HERE.with(Here::token));
    }

    fn let_go(&self, token: u64) {
        let mut line = lock(&self.line);
        if let Some(place) = line.holders.iter().position(|&holder| holder == token) {
            line.holders.swap_remove(place);
        }
        if line.holders.is_empty() {
            self.lower(HELD);
        }
        let served = self.serve(&mut line);
        drop(line);
        served.wake();
    }

    /// Waits for everybody but this thread, which cannot wait for itself.
    fn wait_until_empty<'a>(
        &'a self,
        mut line: MutexGuard<'a, Line>,
        token: u64,
        until: Option<Instant>,
    ) -> MutexGuard<'a, Line> {
        let others = || {
            let taken_by_another = |slot: &Slot| ![0, token].contains(&slot.owner());
            self.slots.iter().any(taken_by_another)
        };
        while others() {
            line = match until.map(|until| until.checked_duration_since(Instant::now())) {
                None => wait(&self.emptied, line),
                Some(None) => break,
                Some(Some(left)) => wait_at_most(&self.emptied, line, left),
            };
        }
        line
    }

    /// Sends everybody in line away, waits for those who read, and says which
    /// slots are now free for good: each of them once, to one caller. The one
    /// this thread itself reads in is not among them.
    pub(crate) fn close(&self) -> Vec<usize> {
        let token = HERE.with(Here::token);
        let mut line = lock(&self.line);
        if !line.closed {
            line.closed = true;
            self.raise(CLOSED);
        }
        let away: Vec<_> = line.waiting.drain(..).collect();
        for waiter in &away {
            waiter.granted.store(SENT_AWAY, Ordering::Release);
        }
        Served(away).wake();
        let mut line = self.wait_until_empty(line, token, None);
        let free: Vec<usize> = (0..self.slots.len())
            .filter(|index| self.slots[*index].owner() == 0 && !line.emptied.contains(index))
            .collect();
        line.emptied.extend(&free);
        free
    }
}

fn wait<'a, T>(condvar: &Condvar, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
    condvar
        .wait(guard)
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn wait_at_most<'a, T>(
    condvar: &Condvar,
    guard: MutexGuard<'a, T>,
    at_most: Duration,
) -> MutexGuard<'a, T> {
    condvar
        .wait_timeout(guard, at_most)
        .unwrap_or_else(std::sync::PoisonError::into_inner)
        .0
}

/// Waiters to wake once the lock is given back.
struct Served(Vec<Arc<Waiter>>);

impl Served {
    fn wake(self) {
        for waiter in self.0 {
            waiter.word.advance();
        }
    }
}

/// While it lives nobody starts to read.
pub(crate) struct Held<'a> {
    slots: &'a Slots,
    token: u64,
    drained: bool,
}

impl Held<'_> {
    /// Whether nobody reads.
    pub(crate) fn drained(&self) -> bool {
        self.drained
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.slots.let_go(self.token);
    }
}

pub(crate) fn closed() -> Error {
    Error::new(ErrorKind::Closed, "the database handle is closed")
}
