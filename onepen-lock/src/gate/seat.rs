//! The threads of one process, which take part as one.
//!
//! Their seats stand in a line of their own. The first of it stands at the gate
//! for all of them and sleeps on the slot's word; when the turn is there it is the
//! first one's, and goes to the next of the line while the slice lasts. A seat
//! that stands in line and is not waited on (a program that asks again by itself
//! and gave up without a word) is forgotten after a while.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::MutexGuard;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use super::layout::Turn;
use super::member::Inner;
use super::queue::{LONGEST_READ, Look, Released, TWICE, Watched};
use super::{Waited, clock, text};

/// A seat that nobody waits on is forgotten after so long.
const FORGOTTEN: u64 = 20_000_000;

/// A process that writes again within this time is given the turn for it: to
/// wake another and wait until it has the turn takes about as long.
const RETURNS: u64 = 30_000;

/// How long a turn of another seat of this process may stand still before it is
/// asked whether SQLite's lock is held at all. Longer than between processes: a
/// neighbour that was not scheduled for a while is a neighbour.
const STILL_HERE: u64 = 100_000_000;

/// How long nobody of us takes SQLite's lock, for programs that poll for it.
const GAP: Duration = Duration::from_millis(1);
/// How often, while such a program has the database open,
const GAP_EVERY: u64 = 20_000_000;
/// and while one was lately met writing.
const GAP_EVERY_WRITER: u64 = 5_000_000;
/// How long "lately" is, in both cases.
const OPEN_LATELY: u64 = 1_000_000_000;
const WROTE_LATELY: u64 = 5_000_000_000;
/// How often the kernel is asked for such programs, by whoever writes all the time.
const ASK_EVERY: u64 = 250_000_000;
/// Writes that follow each other so closely may leave them no other gap.
const CLOSELY: u64 = 5_000_000;

/// Whoever of this process wants the turn or has it.
#[derive(Default)]
pub(super) struct Line {
    /// The seat that has the turn, and the turn word as it was taken.
    holder: Option<u64>,
    turn: Option<Turn>,
    seats: VecDeque<Standing>,
    /// Our number at the gate, while the first of the line stands there.
    ticket: u64,
    watched: Watched,
    /// When the turn was let go while others waited; 0 otherwise.
    let_go: u64,
    /// The last time the next write came soon after.
    returns: bool,
    /// The slice of which the first at the gate knows that it is kept.
    told: u64,
    /// When the last turn was taken.
    taken: u64,
    still: Still,
    asked: u64,
    /// The purpose in our slot is not empty.
    purpose: bool,
}

/// What is known of a turn of ours that may stand still: a program that was given
/// the turn while it slept, and gave up without a word.
#[derive(Default)]
struct Still {
    /// Which turn.
    taken: u64,
    ask_at: u64,
    found_free: bool,
}

struct Standing {
    seat: u64,
    /// Its thread is in [`Seat::wait`] now.
    here: bool,
    /// When it last was.
    seen: u64,
}

impl Line {
    fn first(&mut self, now: u64) -> Option<u64> {
        while (self.seats.front())
            .is_some_and(|first| !first.here && now.saturating_sub(first.seen) > FORGOTTEN)
        {
            self.seats.pop_front();
        }
        self.seats.front().map(|first| first.seat)
    }

    fn stand(&mut self, seat: u64, here: bool, now: u64) {
        match self.seats.iter_mut().find(|standing| standing.seat == seat) {
            Some(standing) => {
                standing.here = here;
                standing.seen = now;
            }
            None if here => self.seats.push_back(Standing {
                seat,
                here,
                seen: now,
            }),
            None => {}
        }
    }

    /// Learns whether the next write comes soon after the last.
    fn somebody_wants_it(&mut self, now: u64) {
        if self.let_go != 0 {
            self.returns = now.saturating_sub(self.let_go) < RETURNS;
            self.let_go = 0;
        }
    }

    fn remove(&mut self, seat: u64) {
        self.seats.retain(|standing| standing.seat != seat);
    }
}

/// The place of one connection within its process. Several connections of a
/// process have one each; who waits longest is first.
///
/// Dropping a seat passes its turn on, or leaves the line.
pub struct Seat {
    inner: Arc<Inner>,
    id: u64,
}

impl Seat {
    pub(super) fn new(inner: Arc<Inner>) -> Self {
        let id = inner.seats.fetch_add(1, Relaxed);
        Self { inner, id }
    }

    /// Takes the turn if that needs no waiting. Never sleeps, for callers that
    /// must not (`xShmLock` of a VFS); `false` means "not your turn": release
    /// every lock, and [`wait`](Self::wait).
    pub fn try_take(&self, purpose: Option<&str>) -> bool {
        let inner = &*self.inner;
        if !inner.is_here() {
            return true;
        }
        let mut line = inner.line();
        let now = clock::now();
        if line.holder == Some(self.id) {
            return true;
        }
        line.somebody_wants_it(now);
        self.tidy(&mut line, now);
        if line.holder.is_some() || line.first(now).is_some_and(|first| first != self.id) {
            return false;
        }
        let place = inner.place();
        let found = if line.ticket == 0 {
            place.try_take(&mut line.watched, now, inner.slice)
        } else {
            match place.look(line.ticket, &mut line.watched, now, inner.slice) {
                Look::Mine(turn) => Some(turn),
                Look::Sleep(_) => None,
            }
        };
        match found {
            Some(turn) => {
                self.has_turn(&mut line, turn, now, purpose);
                true
            }
            None => false,
        }
    }

    /// Takes the turn, sleeping until it comes, until the deadline `until`, or
    /// until `given_up` says that nobody wants it any more (asked at every
    /// wake-up, every few milliseconds to every 50).
    ///
    /// After [`Waited::Turn`] the turn has to be [passed on](Self::pass_on); after
    /// anything else there is none, and the seat is not in line any more.
    pub fn take(
        &self,
        purpose: Option<&str>,
        until: Option<Instant>,
        given_up: &dyn Fn() -> bool,
    ) -> Waited {
        let waited = if self.try_take(purpose) {
            Waited::Turn
        } else {
            self.wait(purpose, until, given_up)
        };
        match waited {
            Waited::Turn => self.leave_a_gap(),
            Waited::TimedOut | Waited::GaveUp => self.leave(),
        }
        waited
    }

    /// Stands in line, at the old place if the seat is in line already, and sleeps
    /// until the turn comes. After [`Waited::TimedOut`] it is still in line, for
    /// 20 ms, so that a program that polls keeps its place between two polls.
    pub fn wait(
        &self,
        purpose: Option<&str>,
        until: Option<Instant>,
        given_up: &dyn Fn() -> bool,
    ) -> Waited {
        let inner = &*self.inner;
        if !inner.is_here() {
            return Waited::Turn;
        }
        let started = clock::now();
        let mut line = inner.line();
        if line.holder == Some(self.id) {
            return Waited::Turn;
        }
        line.somebody_wants_it(started);
        self.tidy(&mut line, started);
        line.stand(self.id, true, started);
        let (mut line, waited) = self.wait_in(line, until, given_up);
        let now = clock::now();
        match waited {
            Ok(turn) => {
                self.has_turn(&mut line, turn, now, purpose);
                self.waited(now.saturating_sub(started));
                Waited::Turn
            }
            Err(Waited::GaveUp) => {
                self.leave_line(&mut line);
                Waited::GaveUp
            }
            Err(other) => {
                line.stand(self.id, false, now);
                other
            }
        }
    }

    fn wait_in<'a>(
        &'a self,
        mut line: MutexGuard<'a, Line>,
        until: Option<Instant>,
        given_up: &dyn Fn() -> bool,
    ) -> (MutexGuard<'a, Line>, Result<Turn, Waited>) {
        let inner = &*self.inner;
        let place = inner.place();
        let own = place.own();
        loop {
            let now = clock::now();
            let first = line.first(now) == Some(self.id);
            if first && line.holder.is_some() && self.stands_still(&mut line, now) {
                self.pass_over(&mut line);
            }
            let at_gate = first && line.holder.is_none();
            let mut nanos = super::queue::LOOK;
            let mut seen = 0;
            if at_gate {
                if line.ticket == 0 {
                    if let Some(turn) = place.try_take(&mut line.watched, now, inner.slice) {
                        return (line, Ok(turn));
                    }
                    line.ticket = place.enter(now);
                }
                own.waiters
                    .store(u32::try_from(line.seats.len()).unwrap_or(u32::MAX), Relaxed);
                seen = own.word.load(std::sync::atomic::Ordering::SeqCst);
                let ticket = line.ticket;
                match place.look(ticket, &mut line.watched, now, inner.slice) {
                    Look::Mine(turn) => return (line, Ok(turn)),
                    Look::Sleep(longest) => nanos = longest,
                }
            }
            if given_up() {
                return (line, Err(Waited::GaveUp));
            }
            if let Some(until) = until {
                let left = until.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return (line, Err(Waited::TimedOut));
                }
                nanos = nanos.min(clock::nanos(left));
            }
            line = if at_gate {
                drop(line);
                inner.sleep(seen, nanos);
                inner.line()
            } else {
                (inner.moved)
                    .wait_timeout(line, Duration::from_nanos(nanos))
                    .unwrap_or_else(std::sync::PoisonError::into_inner)
                    .0
            };
        }
    }

    /// Whether the turn of another seat of ours is to be passed over, as the gate
    /// would do with another process's: nobody holds SQLite's lock, at two looks.
    fn stands_still(&self, line: &mut Line, now: u64) -> bool {
        if line.still.taken != line.taken {
            line.still = Still {
                taken: line.taken,
                ask_at: line.taken.saturating_add(STILL_HERE),
                found_free: false,
            };
        }
        let still = &mut line.still;
        let place = self.inner.place();
        if now < still.ask_at || place.reads(place.slot, now) {
            return false;
        }
        if self.inner.files.lock_is_held() {
            still.found_free = false;
            still.ask_at = now.saturating_add(STILL_HERE);
            return false;
        }
        still.ask_at = now.saturating_add(TWICE);
        std::mem::replace(&mut still.found_free, true)
    }

    /// Takes the turn from another seat of ours, which notices when it comes back.
    fn pass_over(&self, line: &mut Line) {
        line.holder = None;
        let place = self.inner.place();
        add(&place.own().passed_over, 1);
        if let Some(turn) = line.turn.take() {
            place.release(turn, false);
        }
    }

    /// Leaves the gate's line when all have gone who stood there for it.
    fn tidy(&self, line: &mut Line, now: u64) {
        if line.first(now).is_none() && line.ticket != 0 {
            line.ticket = 0;
            self.inner.place().give_up();
        }
    }

    /// The turn is this seat's.
    fn has_turn(&self, line: &mut Line, turn: Turn, now: u64, purpose: Option<&str>) {
        line.remove(self.id);
        line.holder = Some(self.id);
        line.turn = Some(turn);
        line.ticket = 0;
        let place = self.inner.place();
        let own = place.own();
        own.turn_since.store(now, Relaxed);
        if own.reads_until.load(Relaxed) != 0 {
            own.reads_until.store(0, Relaxed);
        }
        own.thread.store(thread(), Relaxed);
        if purpose.is_some() || line.purpose {
            text::write(&own.purpose, &own.purpose_version, purpose.unwrap_or(""));
            line.purpose = purpose.is_some();
        }
        add(&own.turns, 1);
        let closely = now.saturating_sub(line.taken) < CLOSELY;
        line.taken = now;
        if closely && self.gap_is_due(line, now) {
            place.page.header.gap.store(now, Relaxed);
            self.inner.gap_due.store(true, Relaxed);
        }
    }

    /// Ends the turn: `commits` transactions with `writes` writes were made in it.
    /// `more` says whether the next write follows at once; the turn may then be
    /// kept for it, to the end of the slice. Asked only when others wait. Does
    /// nothing without a turn.
    pub fn pass_on(&self, commits: u64, writes: u64, more: impl FnOnce() -> bool) {
        let inner = &*self.inner;
        if !inner.is_here() {
            return;
        }
        let mut line = inner.line();
        if line.holder != Some(self.id) {
            return;
        }
        let place = inner.place();
        let own = place.own();
        add(&own.commits, commits);
        add(&own.writes, writes);
        self.release(&mut line, more);
        let others = !line.seats.is_empty();
        drop(line);
        if others {
            inner.moved.notify_all();
        }
    }

    fn release(&self, line: &mut Line, more: impl FnOnce() -> bool) {
        line.holder = None;
        let Some(turn) = line.turn.take() else {
            return;
        };
        let place = self.inner.place();
        if !place.others_wait() {
            place.release(turn, false);
            return;
        }
        let now = clock::now();
        let keep = !place.slice_is_over(now) && (line.returns || !line.seats.is_empty() || more());
        line.let_go = now;
        if place.release(turn, keep) == Released::Kept {
            let slice = place.slice_ends();
            if line.told != slice {
                line.told = slice;
                place.wake_first();
            }
        }
    }

    /// Leaves the line, if the seat stands in it.
    pub fn leave(&self) {
        if self.inner.is_here() {
            let mut line = self.inner.line();
            self.leave_line(&mut line);
        }
    }

    fn leave_line(&self, line: &mut Line) {
        line.remove(self.id);
        if line.seats.is_empty() && line.ticket != 0 {
            line.ticket = 0;
            self.inner.place().give_up();
        }
        self.inner.moved.notify_all();
    }

    /// Whether the slice is over and others wait: who has the turn should end its
    /// transaction and pass on.
    pub fn should_end(&self) -> bool {
        let place = self.inner.place();
        place.others_wait() && place.slice_is_over(clock::now())
    }

    /// How many other processes wait for their turn now.
    pub fn others_are_waiting(&self) -> u32 {
        self.inner.place().how_many_wait()
    }

    /// How many processes stand before this one, whoever has the turn not counted;
    /// `None` when it does not stand in line.
    pub fn position(&self) -> Option<usize> {
        let ticket = self.inner.line().ticket;
        (ticket != 0).then(|| self.inner.place().position(ticket))
    }

    /// SQLite's write lock was held although the turn is ours: there is somebody
    /// who does not queue. For a while he is left more room.
    pub fn met_a_stranger(&self) {
        let header = &self.inner.place().page.header;
        let now = clock::now();
        header.stranger_wrote.store(now, Relaxed);
        header.stranger_seen.store(now, Relaxed);
    }

    /// Within the turn: it reads first what it is going to change, without SQLite's
    /// write lock. For so long, and a second at most, it is not taken for idle and
    /// passed over. Whoever holds the lock beside the queue is not kept away by it.
    ///
    /// `false`: it had been passed over before, as by [`confirm`](Self::confirm).
    #[must_use]
    pub fn reads_first(&self, time: Duration) -> bool {
        if !self.inner.is_here() {
            return true;
        }
        let mut line = self.inner.line();
        if line.holder != Some(self.id) {
            return false;
        }
        let time = clock::nanos(time).min(LONGEST_READ);
        let until = clock::now().saturating_add(time);
        self.inner.place().own().reads_until.store(until, Relaxed);
        self.confirm_in(&mut line)
    }

    /// Within the turn, with SQLite's write lock in hand: whether it is still our turn,
    /// and from now on it stays so while that lock is held. `false`: whoever has it was
    /// not scheduled between the turn and the lock for so long that it was passed over,
    /// and somebody else may read what he is going to change. There is no turn any more;
    /// the lock is to be let go at once.
    #[must_use]
    pub fn confirm(&self) -> bool {
        if !self.inner.is_here() {
            return true;
        }
        let mut line = self.inner.line();
        line.holder == Some(self.id) && self.confirm_in(&mut line)
    }

    fn confirm_in(&self, line: &mut Line) -> bool {
        let place = self.inner.place();
        line.turn = line.turn.and_then(|turn| place.confirm(turn));
        if line.turn.is_none() {
            line.holder = None;
        }
        line.turn.is_some()
    }

    /// Whether it is this seat's turn: it was taken, not passed on, and not passed
    /// over by another seat of this process.
    pub fn has_the_turn(&self) -> bool {
        self.inner.is_here() && self.inner.line().holder == Some(self.id)
    }

    /// Whether anybody waits for a turn, in this process or another.
    pub fn is_somebody_waiting(&self) -> bool {
        let line = self.inner.line();
        let here = line.seats.iter().any(|standing| standing.seat != self.id);
        drop(line);
        here || self.others_are_waiting() > 0
    }

    /// Whether somebody holds SQLite's write lock now, as the kernel's table of locks
    /// says, which takes tens of microseconds to read. For who has the turn and was
    /// refused that lock: is it worth asking again?
    pub fn lock_is_held(&self) -> bool {
        self.inner.files.lock_is_held()
    }

    /// Within the turn, before BEGIN: sleeps for a millisecond when it is time to
    /// leave SQLite's lock to programs that poll for it, which is hardly ever.
    /// [`take`](Self::take) does it by itself.
    pub fn leave_a_gap(&self) {
        if self.inner.gap_due.load(Relaxed) {
            self.inner.gap_due.store(false, Relaxed);
            std::thread::sleep(GAP);
        }
    }

    fn gap_is_due(&self, line: &mut Line, now: u64) -> bool {
        let header = &self.inner.place().page.header;
        if line.asked == 0 {
            line.asked = now; // a few writes one after the other are no load
        }
        if now.saturating_sub(line.asked) >= ASK_EVERY {
            line.asked = now;
            self.inner.files.ask_for_strangers(self.inner.pids(), now);
        }
        let seen = self.inner.files.strangers_seen();
        if seen > header.stranger_seen.load(Relaxed) {
            header.stranger_seen.store(seen, Relaxed);
        }
        let since = |stamp: &AtomicU64| match stamp.load(Relaxed) {
            0 => u64::MAX,
            stamp => now.saturating_sub(stamp),
        };
        let every = if since(&header.stranger_wrote) < WROTE_LATELY {
            GAP_EVERY_WRITER
        } else if since(&header.stranger_seen) < OPEN_LATELY {
            GAP_EVERY
        } else {
            return false;
        };
        since(&header.gap) >= every
    }

    fn waited(&self, nanos: u64) {
        let place = self.inner.place();
        let own = place.own();
        add(&own.waits, 1);
        add(&own.waited, nanos);
        own.longest_wait
            .store(own.longest_wait.load(Relaxed).max(nanos), Relaxed);
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.pass_on(0, 0, || false);
        self.leave();
    }
}

impl std::fmt::Debug for Seat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Seat")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// Only the threads of one process write to its counters, under its lock.
fn add(counter: &AtomicU64, more: u64) {
    counter.store(counter.load(Relaxed).wrapping_add(more), Relaxed);
}

/// The kernel's number of this thread.
fn thread() -> u32 {
    thread_local! {
        static NUMBER: u32 = rustix::thread::gettid().as_raw_nonzero().get().unsigned_abs();
    }
    NUMBER.with(|number| *number)
}

#[cfg(test)]
mod tests;
