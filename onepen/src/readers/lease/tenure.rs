//! One connection's lease: who uses the connection now, and how another thread ends
//! that.
//!
//! Guarantees: no two threads use the connection at once; an end hits the use it
//! was meant for, or nobody; and what a read pays for it is a handful of stores.
//!
//! # How a reader is ended
//! A connection is used by one thread at a time, so another one may use it only
//! while its owner surely does not. Each connection has a word for that, with a
//! phase and the number of the present use:
//!
//! ```text
//!                ┌─ owner ──▶ USED ◀─ looker ─▶ INTERRUPTING
//!  FREE ─▶ IDLE ◀┘
//!                └─ looker ─▶ ENDING ─▶ ENDED
//! ```
//!
//! A closure or a snapshot between two queries is IDLE: the one who looks after
//! the leases (the timer's thread) then ends its transaction itself. In a query
//! it is USED: SQLite is interrupted, and the owner ends the transaction when it
//! is back. The owner waits out the two phases of the other, which last
//! microseconds; the number keeps a late end from hitting the next user.
//!
//! A prepared statement or the connection itself in the caller's hands is USED
//! for as long: it may be running at any time. Then the next use fails, and what
//! is pinned is let go when the statement is dropped, or the read ends.

use std::panic::Location;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use rusqlite::InterruptHandle;

use super::lock;
use super::reading::{ReadBy, Reading};
use crate::error::{Error, ErrorKind};
use crate::readers::mark::{CommitMark, Mark};
use crate::readers::raw::Remote;
use crate::running::Running;

const FREE: u64 = 0;
const IDLE: u64 = 1;
const USED: u64 = 2;
const INTERRUPTING: u64 = 3;
const ENDING: u64 = 4;
const ENDED: u64 = 5;
const PHASE: u64 = 7;
/// Uses are counted in steps that leave the phase alone.
const USE: u64 = PHASE + 1;

/// Ends what it is of from another thread, if nobody uses it at the moment.
pub(in crate::readers) trait Ends: Send + Sync {
    fn end(&self) -> bool;
}

/// One connection, and who reads on it. On cache lines of its own: each read
/// writes to it.
#[repr(align(128))]
pub(in crate::readers) struct Tenure {
    word: AtomicU64,
    /// The use whose lease is over.
    over: AtomicU64,
    /// When its transaction began, in nanoseconds after the epoch; 0 where there is
    /// none.
    began: AtomicU64,
    /// The last frame and the count of commits that it sees; all ones where that is
    /// not known.
    sees: AtomicU64,
    by: AtomicU8,
    /// Whose thread is in `thread`.
    token: AtomicU64,
    running: Running,
    thread: Mutex<Option<Arc<str>>>,
    /// It is one of those that a writer over a rollback journal waits for.
    counted: AtomicBool,
    outside: Arc<AtomicUsize>,
    /// Readers of this database may be ended.
    enforced: bool,
    epoch: Instant,
    lease: Duration,
    /// Where commits show, while the connection is open.
    commits: Mutex<Option<CommitMark>>,
    interrupt: InterruptHandle,
    remote: Remote,
    stream: Mutex<Option<Weak<dyn Ends>>>,
    seen: Mutex<Seen>,
}

/// What was known at the last look.
#[derive(Default)]
struct Seen {
    number: u64,
    since: Option<Instant>,
    told: bool,
}

/// The last frame and the count of commits in what was seen of shared memory.
fn frame_and_commits(mark: &Mark) -> (u32, u32) {
    let half = |word: u64, which: usize| {
        let bytes = word.to_ne_bytes();
        let at = which * 4;
        u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
    };
    (half(mark[2], 0), half(mark[1], 0))
}

impl Tenure {
    /// A connection that nobody uses yet. `lease` and `enforced`: what becomes of
    /// those who read for too long.
    pub(super) fn new(
        interrupt: InterruptHandle,
        remote: Remote,
        lease: Option<Duration>,
        enforced: bool,
        epoch: Instant,
        outside: &Arc<AtomicUsize>,
    ) -> Self {
        Self {
            word: AtomicU64::new(FREE),
            over: AtomicU64::new(0),
            began: AtomicU64::new(0),
            sees: AtomicU64::new(u64::MAX),
            by: AtomicU8::new(0),
            token: AtomicU64::new(0),
            running: Running::default(),
            thread: Mutex::default(),
            counted: AtomicBool::new(false),
            outside: Arc::clone(outside),
            enforced,
            epoch,
            lease: lease.unwrap_or(Duration::MAX),
            commits: Mutex::new(None),
            interrupt,
            remote,
            stream: Mutex::new(None),
            seen: Mutex::default(),
        }
    }

    pub(in crate::readers) fn is_enforced(&self) -> bool {
        self.enforced
    }

    /// The owner begins to use the connection.
    #[inline]
    pub(in crate::readers) fn begin(
        &self,
        by: ReadBy,
        token: u64,
        at: &'static Location<'static>,
        label: Option<&Arc<str>>,
    ) {
        self.running.note(at, label);
        self.by.store(by as u8, Ordering::Relaxed);
        if self.token.load(Ordering::Relaxed) != token {
            self.on_this_thread(token);
        }
        let word = self.word.load(Ordering::Relaxed) & !PHASE;
        self.word.store(word + USE + USED, Ordering::Release);
    }

    #[cold]
    fn on_this_thread(&self, token: u64) {
        let thread = std::thread::current();
        let text = match thread.name() {
            Some(name) => format!("thread `{name}`, {:?}", thread.id()),
            None => format!("{:?}", thread.id()),
        };
        *lock(&self.thread) = Some(text.into());
        self.token.store(token, Ordering::Relaxed);
    }

    /// It has begun a transaction, which sees this.
    pub(in crate::readers) fn pins(&self, sees: Option<&Mark>, commits: Option<CommitMark>) {
        let since = self.epoch.elapsed().as_nanos();
        let since = u64::try_from(since).unwrap_or(u64::MAX).max(1);
        self.began.store(since, Ordering::Relaxed);
        let sees = sees.map(frame_and_commits);
        let sees = sees.map_or(u64::MAX, |(frame, commits)| {
            u64::from(frame) | u64::from(commits) << 32
        });
        self.sees.store(sees, Ordering::Relaxed);
        if let Some(commits) = commits {
            lock(&self.commits).get_or_insert(commits);
        }
    }

    /// It runs a single query without one.
    #[inline]
    pub(in crate::readers) fn pins_nothing(&self) {
        self.began.store(0, Ordering::Relaxed);
        self.sees.store(u64::MAX, Ordering::Relaxed);
    }

    /// Writers over a rollback journal wait for it, from before its owner leaves the
    /// slot it began in until its locks are given back.
    pub(in crate::readers) fn counts(&self) {
        self.counted.store(true, Ordering::Relaxed);
        self.outside.fetch_add(1, Ordering::Relaxed);
    }

    pub(in crate::readers) fn counts_no_more(&self) {
        if self.counted.swap(false, Ordering::AcqRel) {
            self.outside.fetch_sub(1, Ordering::Release);
        }
    }

    pub(in crate::readers) fn is_of_a_stream(&self, stream: Weak<dyn Ends>) {
        self.by.store(ReadBy::Stream as u8, Ordering::Relaxed);
        if self.enforced {
            *lock(&self.stream) = Some(stream);
        }
    }

    pub(in crate::readers) fn is_of_a_backup(&self) {
        self.by.store(ReadBy::Backup as u8, Ordering::Relaxed);
    }

    /// The connection is about to be closed, and with it goes what it has mapped.
    pub(in crate::readers) fn close(&self) {
        *lock(&self.commits) = None;
    }

    /// The owner is about to use the connection; `false` when there is nothing left
    /// to use.
    pub(in crate::readers) fn hold(&self) -> bool {
        loop {
            let word = self.word.load(Ordering::Acquire);
            match word & PHASE {
                IDLE => {
                    let taken = self.word.compare_exchange(
                        word,
                        word - IDLE + USED,
                        Ordering::AcqRel,
                        Ordering::Relaxed,
                    );
                    if taken.is_ok() {
                        return true;
                    }
                }
                INTERRUPTING | ENDING => std::thread::yield_now(),
                ENDED => return false,
                _ => return true,
            }
        }
    }

    /// The owner does not use it for now. If its lease has ended meanwhile it ends
    /// now.
    pub(in crate::readers) fn release(&self) {
        let word = self.leave(IDLE);
        if self.over.load(Ordering::SeqCst) == word / USE {
            self.end(word / USE);
        }
    }

    /// The owner is done with it.
    #[inline]
    pub(in crate::readers) fn finish(&self) {
        if self.enforced {
            self.finish_slowly();
        } else {
            let word = self.word.load(Ordering::Relaxed) & !PHASE;
            self.word.store(word + FREE, Ordering::Release);
        }
    }

    fn finish_slowly(&self) {
        self.leave(FREE);
        *lock(&self.stream) = None;
    }

    /// From USED or ENDED to another phase.
    fn leave(&self, phase: u64) -> u64 {
        loop {
            let word = self.word.load(Ordering::Acquire);
            debug_assert_ne!(word & PHASE, IDLE, "bug in a lease: nobody holds it");
            if matches!(word & PHASE, INTERRUPTING | ENDING) {
                std::thread::yield_now();
                continue;
            }
            let next = (word & !PHASE) + phase;
            let left = self
                .word
                .compare_exchange(word, next, Ordering::SeqCst, Ordering::Relaxed);
            if left.is_ok() {
                return next;
            }
        }
    }

    /// Whether the lease of the present use is over. Asked by its owner.
    #[inline]
    pub(in crate::readers) fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst) == self.word.load(Ordering::Relaxed) / USE
    }

    /// Whether its transaction was ended by another. Asked by its owner.
    pub(in crate::readers) fn has_ended(&self) -> bool {
        self.word.load(Ordering::Acquire) & PHASE == ENDED
    }

    /// The lease of the use with this number is over; whether that is new.
    pub(super) fn mark_over(&self, number: u64) -> bool {
        self.over.swap(number, Ordering::SeqCst) != number
    }

    /// Ends the use with this number, or interrupts what it runs; whether it pins
    /// nothing any more.
    pub(super) fn end(&self, number: u64) -> bool {
        let in_phase = |phase| number * USE + phase;
        let take = |from, to| {
            let word = &self.word;
            word.compare_exchange(
                in_phase(from),
                in_phase(to),
                Ordering::SeqCst,
                Ordering::Relaxed,
            )
            .is_ok()
        };
        if take(IDLE, ENDING) {
            // SAFETY: in this phase nobody but us uses the connection, and its owner
            // waits for the next phase before it does anything with it, dropping
            // it included.
            unsafe { self.remote.end() };
            self.counts_no_more();
            self.word.store(in_phase(ENDED), Ordering::SeqCst);
            return true;
        }
        let stream = lock(&self.stream).clone();
        if let Some(stream) = stream.and_then(|stream| stream.upgrade())
            && stream.end()
        {
            return true;
        }
        if take(USED, INTERRUPTING) {
            self.interrupt.interrupt();
            self.word.store(in_phase(USED), Ordering::SeqCst);
            return false;
        }
        let word = self.word.load(Ordering::SeqCst);
        word / USE != number || matches!(word & PHASE, FREE | ENDED)
    }

    /// Whether the use that was last looked at has not been named yet; it counts as
    /// named from here on.
    pub(super) fn name_once(&self) -> bool {
        !std::mem::replace(&mut lock(&self.seen).told, true)
    }

    /// Who uses it, and the number of that use.
    pub(super) fn look(&self, now: Instant) -> Option<(u64, Reading)> {
        let word = self.word.load(Ordering::SeqCst);
        if matches!(word & PHASE, FREE | ENDED) {
            return None;
        }
        let number = word / USE;
        let first = {
            let mut seen = lock(&self.seen);
            if seen.number != number {
                *seen = Seen {
                    number,
                    since: Some(now),
                    told: false,
                };
            }
            seen.since
        };
        let began = self.began.load(Ordering::Relaxed);
        let began = match began {
            0 => first,
            nanos => self.epoch.checked_add(Duration::from_nanos(nanos)),
        };
        let since = began.map_or(Duration::ZERO, |began| now.saturating_duration_since(began));
        let sees = self.sees.load(Ordering::Relaxed);
        let sees = (sees != u64::MAX).then_some((sees as u32, (sees >> 32) as u32));
        // With the lock in hand: so long the memory stays where it is.
        let is = lock(&self.commits)
            .as_ref()
            .map(|it| frame_and_commits(&it.now()));
        let behind = sees.zip(is).map(|((_, saw), (_, is))| is.wrapping_sub(saw));
        let seen = self.running.look();
        let reading = Reading {
            by: ReadBy::of(self.by.load(Ordering::Relaxed)),
            label: seen.label,
            thread: lock(&self.thread).clone(),
            begun: seen.at,
            since,
            frame: sees.map(|(frame, _)| frame),
            behind,
            // Of the present state nobody has to be rid.
            overdue: since >= self.lease && behind != Some(0),
            ending: self.over.load(Ordering::SeqCst) == number,
        };
        // What was written meanwhile may be of the next.
        let still = self.word.load(Ordering::SeqCst) / USE == number;
        still.then_some((number, reading))
    }

    /// What the owner is told from then on.
    #[cold]
    pub(in crate::readers) fn lease_ended(&self) -> Error {
        let lease = self.lease;
        Error::new(
            ErrorKind::LeaseEnded,
            format!(
                "the read was ended: it kept its state for longer than its lease of {lease:?}, and \
                 the log could not be reset; begin another, or read in shorter pieces"
            ),
        )
    }
}

#[cfg(test)]
impl Tenure {
    pub(in crate::readers) fn look_for_tests(&self, now: Instant) -> (u64, Reading) {
        self.look(now).expect("somebody reads")
    }
}
