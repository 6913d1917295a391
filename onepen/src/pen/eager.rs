//! Giving the processor away before going to sleep.
//!
//! To put a thread to sleep and to wake it again takes the kernel longer than its
//! row takes SQLite. Where many callers wait together, the answer is a few hundred
//! microseconds away; a caller that lets the others run (`sched_yield`) until then
//! is neither put to sleep nor woken, and whole groups pass that way.
//!
//! It is a gift only while nobody else wants the processor. A program beside us is
//! given what we give away, a time slice for each time, and our writer thread waits
//! with its callers; a slow disk is not waited for faster by being impatient. So
//! nothing is assumed and everything is measured, on the waits themselves:
//!
//! * a call that comes back after more than [`SLOW`] went to somebody who kept the
//!   processor; a wait of more than [`LATE`] was none to be impatient about. Either is
//!   bad news, and counts once in a [stretch](STRETCH) of a few milliseconds: a disk
//!   that stumbles is bad news for a hundred callers at once, and over again;
//! * when bad news comes in more than every fifth stretch ([`WORTH`]), everybody sleeps
//!   for a while, and for longer each time that it comes back soon;
//! * then one caller at a time tries ([`PROBES`] good waits), while the others sleep.
//!
//! What is decided here changes who runs when, never what anybody is told: a caller
//! that gives up goes to sleep on its word as if it had never been here.

use std::time::{Duration, Instant};

use crate::sync::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};

/// Elsewhere everybody sleeps: in a model, and where it was not measured.
const HERE: bool = cfg!(all(
    target_os = "linux",
    not(any(onepen_loom, onepen_shuttle))
));

/// Somebody else had the processor: more than hundreds of our own threads take in
/// between (less than that took them for somebody else), and what a busy program beside
/// us takes nearly every time (with more than that it was found too late).
const SLOW: Duration = Duration::from_millis(3);

/// Not worth being impatient about.
const LATE: Duration = Duration::from_millis(4);

/// Nanoseconds, as a power of two: 4 ms. Bad news counts once in each.
const STRETCH: u32 = 22;

/// How many stretches without bad news make up for one with it.
const WORTH: u32 = 4;

/// More than can be made up for: so many bad stretches in a row.
const TOO_BAD: u32 = 10 * WORTH;

/// Good waits of one caller at a time before all may.
const PROBES: u8 = 16;

/// For how long everybody sleeps: at first, and at most.
const PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(3_200));

/// A stretch so many times as long as the pause before it makes the next one short again.
const LASTED: u64 = 20;

/// What became of a wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wait {
    /// Over before it was late.
    Good,
    Late,
    Slow,
}

/// Leave to give the processor away; a wait is reported with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leave {
    /// Everybody has it.
    All,
    /// One caller at a time.
    Probe,
}

/// Whether it is a good time to give the processor away. Times are nanoseconds
/// since its beginning; races between reports cost accuracy, not more.
pub(super) struct Eager {
    began: Instant,
    /// The last group had many blocked members.
    crowd: AtomicBool,
    /// Everybody may; else one caller at a time, from `after` on.
    all: AtomicBool,
    /// Bad news, not made up for so far, and the stretch it last came in.
    score: AtomicU32,
    bad: AtomicU64,
    probing: AtomicBool,
    probes: AtomicU8,
    after: AtomicU64,
    pause: AtomicU64,
    /// When everybody was allowed to.
    since: AtomicU64,
}

impl Eager {
    pub(super) fn new() -> Self {
        Self {
            began: Instant::now(),
            crowd: AtomicBool::new(false),
            all: AtomicBool::new(false),
            score: AtomicU32::new(0),
            bad: AtomicU64::new(0),
            probing: AtomicBool::new(false),
            probes: AtomicU8::new(0),
            after: AtomicU64::new(0),
            pause: AtomicU64::new(nanos(PAUSE.0)),
            since: AtomicU64::new(0),
        }
    }

    /// Says whether the last group had many blocked members.
    pub(super) fn crowd(&self, crowd: bool) {
        if HERE && self.crowd.load(Ordering::Relaxed) != crowd {
            self.crowd.store(crowd, Ordering::Relaxed);
        }
    }

    /// Gives the processor away until `over`, as long as that is sensible; whether
    /// it is over.
    pub(super) fn wait(&self, over: impl Fn() -> bool) -> bool {
        if !HERE || !self.crowd.load(Ordering::Relaxed) {
            return false;
        }
        let clock = || nanos(self.began.elapsed());
        let start = clock();
        let Some(leave) = self.leave(start) else {
            return false;
        };
        let (wait, now) = give_away(start, clock, &over);
        self.report(leave, wait, now);
        over()
    }

    fn leave(&self, now: u64) -> Option<Leave> {
        if self.all.load(Ordering::Relaxed) {
            return Some(Leave::All);
        }
        let may_probe = now >= self.after.load(Ordering::Relaxed)
            && !self.probing.swap(true, Ordering::Relaxed);
        may_probe.then_some(Leave::Probe)
    }

    fn report(&self, leave: Leave, wait: Wait, now: u64) {
        match leave {
            Leave::All => {
                if wait != Wait::Good && self.is_too_bad(now >> STRETCH) {
                    let lasted = now.saturating_sub(self.since.load(Ordering::Relaxed));
                    if lasted > self.pause.load(Ordering::Relaxed).saturating_mul(LASTED) {
                        self.pause.store(nanos(PAUSE.0), Ordering::Relaxed);
                    }
                    self.rest(now);
                }
            }
            Leave::Probe => {
                if wait != Wait::Good {
                    self.rest(now);
                } else if self.probes.fetch_add(1, Ordering::Relaxed) + 1 >= PROBES {
                    self.probes.store(0, Ordering::Relaxed);
                    self.score.store(0, Ordering::Relaxed);
                    self.since.store(now, Ordering::Relaxed);
                    self.all.store(true, Ordering::Relaxed);
                }
                self.probing.store(false, Ordering::Relaxed);
            }
        }
    }

    /// Counts bad news in `stretch`; whether it is the last straw.
    fn is_too_bad(&self, stretch: u64) -> bool {
        let last = self.bad.swap(stretch, Ordering::Relaxed);
        let Some(good) = stretch.checked_sub(last + 1) else {
            return false; // counted
        };
        let good = u32::try_from(good).unwrap_or(u32::MAX);
        let score = self.score.load(Ordering::Relaxed).saturating_sub(good) + WORTH;
        self.score.store(score, Ordering::Relaxed);
        score > TOO_BAD && self.all.swap(false, Ordering::Relaxed)
    }

    /// Everybody sleeps for a while, and longer the next time.
    fn rest(&self, now: u64) {
        let pause = self.pause.load(Ordering::Relaxed);
        self.probes.store(0, Ordering::Relaxed);
        self.after.store(now + pause, Ordering::Relaxed);
        let longer = pause.saturating_mul(2).min(nanos(PAUSE.1));
        self.pause.store(longer, Ordering::Relaxed);
    }
}

/// Gives the processor away from `start` on, as long as that is sensible: what became
/// of the wait, and when.
fn give_away(start: u64, clock: impl Fn() -> u64, over: impl Fn() -> bool) -> (Wait, u64) {
    let mut before = start;
    loop {
        std::thread::yield_now();
        let now = clock();
        if now - before > nanos(SLOW) {
            return (Wait::Slow, now);
        }
        before = now;
        if over() {
            return (Wait::Good, now);
        }
        if now - start > nanos(LATE) {
            return (Wait::Late, now);
        }
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
#[cfg(not(any(onepen_loom, onepen_shuttle)))]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    /// A pen that has found at `now` that it may.
    fn allowed(now: u64) -> Eager {
        let eager = Eager::new();
        probe_until_allowed(&eager, now);
        eager
    }

    fn probe_until_allowed(eager: &Eager, now: u64) {
        for _ in 0..PROBES {
            assert_eq!(eager.leave(now), Some(Leave::Probe));
            eager.report(Leave::Probe, Wait::Good, now);
        }
        assert_eq!(eager.leave(now), Some(Leave::All));
    }

    /// Bad news in every stretch from `from` on, until it is too bad: when.
    fn until_it_rests(eager: &Eager, from: u64) -> u64 {
        let mut now = from;
        while eager.leave(now) == Some(Leave::All) {
            now += 1 << STRETCH;
            assert!(now < from + 1_000 * MS, "it never rests");
            eager.report(Leave::All, Wait::Slow, now);
        }
        now
    }

    fn pause_from(eager: &Eager, now: u64) -> u64 {
        eager.after.load(Ordering::Relaxed) - now
    }

    #[test]
    fn without_a_crowd_nobody_is_impatient() {
        let eager = Eager::new();
        assert!(!eager.wait(|| true));
        eager.crowd(true);
        eager.crowd(false);
        assert!(!eager.wait(|| true));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_wait_that_is_over_is_told_so_and_one_that_is_not_goes_to_sleep() {
        let eager = Eager::new();
        eager.crowd(true);
        assert!(eager.wait(|| true));
        // Whatever the machine does meanwhile: either is a reason to sleep.
        let eager = Eager::new();
        eager.crowd(true);
        assert!(!eager.wait(|| false));
        assert_eq!(eager.leave(0), None, "and nobody tries again at once");
    }

    /// A wait from `start` on, with looks at a clock `steps` apart, which is over at the
    /// look `over`: what became of it, and after how long.
    fn wait_of(steps: &[u64], over: usize) -> (Wait, u64) {
        const START: u64 = 60_000 * MS;
        let (looks, now) = (std::cell::Cell::new(0), std::cell::Cell::new(START));
        let clock = || {
            now.set(now.get() + steps[looks.get()]);
            looks.set(looks.get() + 1);
            now.get()
        };
        let (wait, end) = give_away(START, clock, || looks.get() == over);
        assert_eq!(end, now.get(), "the last look");
        (wait, end - START)
    }

    #[test]
    fn a_wait_is_slow_by_one_call_late_by_all_of_them_and_else_good() {
        let (slow, late) = (nanos(SLOW), nanos(LATE));
        assert_eq!(wait_of(&[MS, MS, MS], 3), (Wait::Good, 3 * MS));
        assert_eq!(wait_of(&[slow], 1), (Wait::Good, slow));
        assert_eq!(wait_of(&[1, slow + 1], 2), (Wait::Slow, slow + 2));
        assert_eq!(wait_of(&[MS, late - MS, 1], 3), (Wait::Good, late + 1));
        assert_eq!(wait_of(&[MS, late - MS, 1], 4), (Wait::Late, late + 1));
    }

    #[test]
    fn good_waits_are_no_news_however_many() {
        let eager = allowed(0);
        for k in 0..1_000 {
            eager.report(Leave::All, Wait::Good, k << STRETCH);
            assert_eq!(eager.leave(0), Some(Leave::All));
        }
    }

    #[test]
    fn ten_bad_stretches_in_a_row_can_be_made_up_for_and_one_more_cannot() {
        let eager = allowed(0);
        for k in 1..=10 {
            eager.report(Leave::All, Wait::Late, k << STRETCH);
            assert_eq!(eager.leave(0), Some(Leave::All), "{k}");
        }
        eager.report(Leave::All, Wait::Late, 11 << STRETCH);
        assert_eq!(eager.leave(0), None);
    }

    #[test]
    fn one_caller_at_a_time_tries_until_it_has_been_good_often_enough() {
        let eager = Eager::new();
        assert_eq!(eager.leave(0), Some(Leave::Probe));
        assert_eq!(eager.leave(0), None, "a second one meanwhile");
        eager.report(Leave::Probe, Wait::Good, 0);
        for _ in 1..PROBES {
            assert_eq!(eager.leave(0), Some(Leave::Probe));
            eager.report(Leave::Probe, Wait::Good, 0);
        }
        assert_eq!(eager.leave(0), Some(Leave::All));
    }

    #[test]
    fn a_bad_try_makes_everybody_sleep_for_a_while_and_the_tries_begin_anew() {
        for bad in [Wait::Slow, Wait::Late] {
            let eager = Eager::new();
            for _ in 1..PROBES {
                assert_eq!(eager.leave(0), Some(Leave::Probe));
                eager.report(Leave::Probe, Wait::Good, 0);
            }
            assert_eq!(eager.leave(7), Some(Leave::Probe));
            eager.report(Leave::Probe, bad, 7);
            let later = 7 + nanos(PAUSE.0);
            assert_eq!(eager.leave(later - 1), None);
            probe_until_allowed(&eager, later);
        }
    }

    #[test]
    fn a_stumble_is_bad_news_once_for_however_many_callers() {
        let eager = allowed(0);
        for _ in 0..10_000 {
            eager.report(Leave::All, Wait::Late, 50 * MS);
            eager.report(Leave::All, Wait::Slow, 50 * MS);
        }
        assert_eq!(eager.leave(50 * MS), Some(Leave::All));
    }

    #[test]
    fn bad_news_in_every_fifth_stretch_is_made_up_for_and_in_every_fourth_it_is_not() {
        let often = |every: u64| {
            let eager = allowed(0);
            (1..400).all(|k| {
                eager.report(Leave::All, Wait::Late, (k * every) << STRETCH);
                eager.leave(0) == Some(Leave::All)
            })
        };
        assert!(often(5));
        assert!(!often(4));
    }

    #[test]
    fn when_the_processor_is_wanted_everybody_sleeps_within_fifty_milliseconds() {
        let eager = allowed(0);
        let rests = until_it_rests(&eager, 0);
        assert!(rests <= 50 * MS, "after {rests} ns");
        assert_eq!(eager.leave(rests), None);
    }

    #[test]
    fn the_pauses_grow_while_it_does_not_last_and_begin_anew_when_it_did() {
        let eager = allowed(0);
        let mut now = until_it_rests(&eager, 0);
        let mut pause = pause_from(&eager, now);
        assert_eq!(pause, nanos(PAUSE.0));
        for _ in 0..10 {
            now += pause;
            probe_until_allowed(&eager, now);
            now = until_it_rests(&eager, now);
            let next = pause_from(&eager, now);
            assert_eq!(next, (2 * pause).min(nanos(PAUSE.1)));
            pause = next;
        }
        assert_eq!(pause, nanos(PAUSE.1));
        now += pause;
        probe_until_allowed(&eager, now);
        now = until_it_rests(&eager, now + 2 * LASTED * nanos(PAUSE.1));
        assert_eq!(pause_from(&eager, now), nanos(PAUSE.0));
    }

    #[test]
    fn it_did_last_when_it_was_more_than_twenty_times_the_pause() {
        let pause_after = |lasted: u64| {
            let eager = allowed(0);
            let rests = until_it_rests(&eager, 0);
            let since = rests + pause_from(&eager, rests);
            probe_until_allowed(&eager, since);
            for k in (0..=10).rev() {
                eager.report(Leave::All, Wait::Late, since + lasted - (k << STRETCH));
            }
            pause_from(&eager, since + lasted)
        };
        let next = 2 * nanos(PAUSE.0);
        assert_eq!(pause_after(20 * next), next);
        assert_eq!(pause_after(20 * next + 1), nanos(PAUSE.0));
    }
}
