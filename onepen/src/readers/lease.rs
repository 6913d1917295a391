//! Leases: how long a reader may keep the log from being reset.
//!
//! Guarantees: whoever reads for longer than the lease, while others have
//! committed since, is named once, while it still does
//! ([`Options::reader_lease`](crate::Options::reader_lease)); if asked
//! ([`Options::lease_grace`](crate::Options::lease_grace)) it is ended, and what
//! it does after that fails with its own error; nothing it read was of another
//! state, and nobody else is touched, the next reader on its connection neither.
//! A short read pays a handful of stores for it.
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

use std::fmt;
use std::panic::Location;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use rusqlite::InterruptHandle;

use super::mark::{CommitMark, Mark};
use super::raw::Remote;
use crate::error::{Error, ErrorKind};
use crate::running::Running;
use crate::timer::{Expires, Timer};
use crate::trace::event;

/// Looks within a lease.
const LOOKS: u32 = 4;
/// How soon somebody who could not be ended is tried again.
const AGAIN: Duration = Duration::from_millis(20);
/// No look comes sooner after another.
const LEAST: Duration = Duration::from_millis(1);

const FREE: u64 = 0;
const IDLE: u64 = 1;
const USED: u64 = 2;
const INTERRUPTING: u64 = 3;
const ENDING: u64 = 4;
const ENDED: u64 = 5;
const PHASE: u64 = 7;
/// Uses are counted in steps that leave the phase alone.
const USE: u64 = PHASE + 1;

/// How something reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[repr(u8)]
pub enum ReadBy {
    /// A closure, or a single query; for tasks as well.
    Closure,
    /// A [`Snapshot`](crate::Snapshot).
    Snapshot,
    /// A [`RowStream`](crate::RowStream).
    Stream,
    /// A [backup](crate::backup), which has limits of its own and no lease.
    Backup,
}

impl ReadBy {
    fn of(byte: u8) -> Self {
        match byte {
            1 => Self::Snapshot,
            2 => Self::Stream,
            3 => Self::Backup,
            _ => Self::Closure,
        }
    }
}

impl fmt::Display for ReadBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Closure => "a read",
            Self::Snapshot => "a snapshot",
            Self::Stream => "a stream",
            Self::Backup => "a backup",
        })
    }
}

/// Somebody of this process who reads now: [`Database::reading`](crate::Database::reading).
///
/// [`Display`](fmt::Display) says all of it in words.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Reading {
    /// How.
    pub by: ReadBy,
    /// The [label](crate::Call::label) of the call.
    pub label: Option<Arc<str>>,
    /// The thread on which it was begun.
    pub thread: Option<Arc<str>>,
    /// The line that called for it.
    pub begun: Option<&'static Location<'static>>,
    /// How long its state has been kept. Of a single query that runs in no
    /// transaction: how long it has been seen running.
    pub since: Duration,
    /// The last frame of the log that it sees: no later one can be reset to the
    /// beginning as long as it does. `None` where it is not known, or there is no
    /// log.
    pub frame: Option<u32>,
    /// How many commits were made since, by anybody. `None` where it is not known.
    pub behind: Option<u32>,
    /// It has outlasted its lease, and is in the way of something.
    pub overdue: bool,
    /// It was told to end, and has not let go yet.
    pub ending: bool,
}

impl fmt::Display for Reading {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(label) = &self.label {
            write!(f, "`{label}`, ")?;
        }
        write!(f, "{}", self.by)?;
        if let Some(thread) = &self.thread {
            write!(f, " of {thread}")?;
        }
        if let Some(begun) = self.begun {
            write!(f, ", begun at {begun}")?;
        }
        write!(f, ", since {:.1?}", self.since)?;
        if let Some(frame) = self.frame {
            write!(f, ", at frame {frame} of the log")?;
        }
        if let Some(behind) = self.behind {
            write!(f, ", {behind} commits behind")?;
        }
        if self.overdue {
            f.write_str(", past its lease")?;
        }
        if self.ending {
            f.write_str(", told to end")?;
        }
        Ok(())
    }
}

impl Reading {
    /// In words, with the name of the file alone where it was begun.
    pub(crate) fn without_path(&self) -> String {
        let text = self.to_string();
        let Some(begun) = self.begun else { return text };
        let file = begun.file();
        text.replacen(file, file.rsplit(['/', '\\']).next().unwrap_or(file), 1)
    }
}

/// Ends what it is of from another thread, if nobody uses it at the moment.
pub(super) trait Ends: Send + Sync {
    fn end(&self) -> bool;
}

/// The readers of one database, for the one who looks after their leases.
pub(crate) struct Leases {
    name: Arc<str>,
    lease: Option<Duration>,
    grace: Option<Duration>,
    all: Mutex<Vec<Weak<Tenure>>>,
    started: Mutex<bool>,
    timer: Option<Arc<dyn Timer>>,
    epoch: Instant,
    outside: Arc<AtomicUsize>,
    ended: AtomicU64,
}

/// One connection, and who reads on it. On cache lines of its own: each read
/// writes to it.
#[repr(align(128))]
pub(super) struct Tenure {
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

fn lock<T: ?Sized>(of: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
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

impl Leases {
    pub(super) fn new(
        name: &Arc<str>,
        lease: Option<Duration>,
        grace: Option<Duration>,
        timer: Option<Arc<dyn Timer>>,
        outside: &Arc<AtomicUsize>,
    ) -> Arc<Self> {
        Arc::new(Self {
            name: Arc::clone(name),
            lease,
            grace: lease.and(grace),
            all: Mutex::default(),
            started: Mutex::default(),
            timer,
            epoch: Instant::now(),
            outside: Arc::clone(outside),
            ended: AtomicU64::new(0),
        })
    }

    /// How many were ended.
    pub(crate) fn ended(&self) -> u64 {
        self.ended.load(Ordering::Relaxed)
    }

    /// A new connection.
    pub(super) fn enroll(
        self: &Arc<Self>,
        interrupt: InterruptHandle,
        remote: Remote,
    ) -> Arc<Tenure> {
        let tenure = Arc::new(Tenure {
            word: AtomicU64::new(FREE),
            over: AtomicU64::new(0),
            began: AtomicU64::new(0),
            sees: AtomicU64::new(u64::MAX),
            by: AtomicU8::new(0),
            token: AtomicU64::new(0),
            running: Running::default(),
            thread: Mutex::default(),
            counted: AtomicBool::new(false),
            outside: Arc::clone(&self.outside),
            enforced: self.grace.is_some(),
            epoch: self.epoch,
            lease: self.lease.unwrap_or(Duration::MAX),
            commits: Mutex::new(None),
            interrupt,
            remote,
            stream: Mutex::new(None),
            seen: Mutex::default(),
        });
        let mut all = lock(&self.all);
        all.retain(|other| other.strong_count() > 0);
        all.push(Arc::downgrade(&tenure));
        drop(all);
        let mut started = lock(&self.started);
        if let (false, Some(lease), Some(timer)) = (*started, self.lease, &self.timer)
            && let Some(at) = Instant::now().checked_add(lease / LOOKS)
        {
            *started = true;
            let this: Arc<dyn Expires> = Arc::clone(self) as _;
            timer.wake_at(at, &this);
        }
        tenure
    }

    fn tenures(&self) -> Vec<Arc<Tenure>> {
        lock(&self.all).iter().filter_map(Weak::upgrade).collect()
    }

    /// Who reads at `now`.
    pub(crate) fn reading(&self, now: Instant) -> Vec<Reading> {
        let mut found: Vec<_> = self
            .tenures()
            .iter()
            .filter_map(|tenure| tenure.look(now))
            .map(|(_, reading)| reading)
            .collect();
        found.sort_by_key(|reading| std::cmp::Reverse(reading.since));
        found
    }

    fn name_it(&self, reading: &Reading) {
        event!(
            WARN,
            "a reader keeps the log from being reset",
            database = &*self.name,
            by = tracing::field::display(reading.by),
            label = reading.label.as_deref(),
            thread = reading.thread.as_deref(),
            begun = reading.begun.map(tracing::field::display),
            since_ms = reading.since.as_millis() as u64,
            frame = reading.frame,
            commits_behind = reading.behind,
        );
        let _ = (&self.name, reading);
    }

    fn end(&self, tenure: &Tenure, number: u64, reading: &Reading) -> bool {
        let first = tenure.over.swap(number, Ordering::SeqCst) != number;
        let gone = tenure.end(number);
        if first {
            event!(
                WARN,
                "a reader was told to end: its lease is over",
                database = &*self.name,
                by = tracing::field::display(reading.by),
                label = reading.label.as_deref(),
                thread = reading.thread.as_deref(),
                begun = reading.begun.map(tracing::field::display),
                since_ms = reading.since.as_millis() as u64,
                frame = reading.frame,
            );
            let _ = (&self.name, reading);
            self.ended.fetch_add(1, Ordering::Relaxed);
        }
        gone
    }
}

impl Expires for Leases {
    fn expire(&self, now: Instant) -> Option<Instant> {
        let lease = self.lease?;
        let mut again = lease / LOOKS;
        for tenure in self.tenures() {
            let Some((number, reading)) = tenure.look(now) else {
                continue;
            };
            if reading.by == ReadBy::Backup {
                continue;
            }
            if !reading.overdue {
                again = again.min(lease.saturating_sub(reading.since).max(lease / 64));
                continue;
            }
            let told = {
                let mut seen = lock(&tenure.seen);
                std::mem::replace(&mut seen.told, true)
            };
            if !told {
                self.name_it(&reading);
            }
            let Some(grace) = self.grace else { continue };
            let left = (lease + grace).saturating_sub(reading.since);
            if !left.is_zero() {
                again = again.min(left);
            } else if !self.end(&tenure, number, &reading) {
                again = again.min(AGAIN);
            }
        }
        now.checked_add(again.max(LEAST))
    }
}

impl Tenure {
    pub(super) fn is_enforced(&self) -> bool {
        self.enforced
    }

    /// The owner begins to use the connection.
    #[inline]
    pub(super) fn begin(
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
    pub(super) fn pins(&self, sees: Option<&Mark>, commits: Option<CommitMark>) {
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
    pub(super) fn pins_nothing(&self) {
        self.began.store(0, Ordering::Relaxed);
        self.sees.store(u64::MAX, Ordering::Relaxed);
    }

    /// Writers over a rollback journal wait for it, from before its owner leaves the
    /// slot it began in until its locks are given back.
    pub(super) fn counts(&self) {
        self.counted.store(true, Ordering::Relaxed);
        self.outside.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn counts_no_more(&self) {
        if self.counted.swap(false, Ordering::AcqRel) {
            self.outside.fetch_sub(1, Ordering::Release);
        }
    }

    pub(super) fn is_of_a_stream(&self, stream: Weak<dyn Ends>) {
        self.by.store(ReadBy::Stream as u8, Ordering::Relaxed);
        if self.enforced {
            *lock(&self.stream) = Some(stream);
        }
    }

    pub(super) fn is_of_a_backup(&self) {
        self.by.store(ReadBy::Backup as u8, Ordering::Relaxed);
    }

    /// The connection is about to be closed, and with it goes what it has mapped.
    pub(super) fn close(&self) {
        *lock(&self.commits) = None;
    }

    /// The owner is about to use the connection; `false` when there is nothing left
    /// to use.
    pub(super) fn hold(&self) -> bool {
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
    pub(super) fn release(&self) {
        let word = self.leave(IDLE);
        if self.over.load(Ordering::SeqCst) == word / USE {
            self.end(word / USE);
        }
    }

    /// The owner is done with it.
    #[inline]
    pub(super) fn finish(&self) {
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
    pub(super) fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst) == self.word.load(Ordering::Relaxed) / USE
    }

    /// Whether its transaction was ended by another. Asked by its owner.
    pub(super) fn has_ended(&self) -> bool {
        self.word.load(Ordering::Acquire) & PHASE == ENDED
    }

    /// Ends the use with this number, or interrupts what it runs; whether it pins
    /// nothing any more.
    fn end(&self, number: u64) -> bool {
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

    /// Who uses it, and the number of that use.
    fn look(&self, now: Instant) -> Option<(u64, Reading)> {
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
    pub(super) fn lease_ended(&self) -> Error {
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
    pub(super) fn look_for_tests(&self, now: Instant) -> (u64, Reading) {
        self.look(now).expect("somebody reads")
    }
}

#[cfg(test)]
impl Leases {
    pub(super) fn end_for_tests(&self, tenure: &Tenure, (number, reading): (u64, Reading)) {
        self.end(tenure, number, &reading);
    }
}
