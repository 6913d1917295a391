//! One queued write: its closure, its answer, and who wants to know.
//!
//! A job has exactly one answer. Its phase only moves forward:
//!
//! ```text
//! NEW ──▶ LOBBY ──▶ QUEUED ──▶ CLAIMED ──▶ DONE
//! ```
//!
//! The steps before CLAIMED are made under the pen's lock, so a job is claimed once:
//! by the holder of the pen, who runs it, or by whoever cancels it, who answers it.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::sync::{AtomicU8, AtomicU32, Mutex, Ordering, lock};

/// How a job wants to be run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Re-runnable; may share its transaction with others.
    Grouped,
    /// Runs at most once, in a transaction of its own.
    Alone,
    /// Has the connection to itself, outside any transaction.
    Exclusive,
    /// Work of ours that needs the pen to be still: no transaction, no guards.
    Maintenance,
}

/// Which writes go first when several wait.
///
/// A higher priority is served first, but for every eight writes that pass a
/// waiting one of lower priority, one of the lower is served: a priority
/// shortens a queue, it cannot starve one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Priority {
    /// Somebody is looking at a screen.
    High,
    /// Everything else.
    #[default]
    Normal,
    /// Work that can wait.
    Low,
}

/// Everything about a call that is not its closure.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ticket {
    pub(crate) priority: Priority,
    pub(crate) label: Option<std::sync::Arc<str>>,
    pub(crate) patience: Option<Duration>,
    /// `patience` was asked for by the caller, so a query that runs longer is
    /// stopped; the default bounds only the wait for a turn.
    pub(crate) deadline_is_own: bool,
    pub(crate) cancel: Option<crate::cancel::CancelToken>,
    /// The longest the closure may hold the pen.
    pub(crate) limit: Option<Duration>,
    /// Heap bytes behind the closure, as far as known.
    pub(crate) bytes: u32,
}

const NEW: u8 = 0;
const LOBBY: u8 = 1;
const QUEUED: u8 = 2;
const CLAIMED: u8 = 3;
const DONE: u8 = 4;

/// No thread sleeps for this job; a task may.
pub(crate) const NO_WORD: u8 = u8::MAX;

pub(crate) struct Header {
    phase: AtomicU8,
    pub(crate) kind: Kind,
    pub(crate) priority: Priority,
    /// Which of the pen's words a blocked caller sleeps on.
    pub(crate) word: AtomicU8,
    pub(crate) position: AtomicU32,
    pub(crate) bytes: u32,
    /// Milliseconds from `since` until it left the lobby, rounded up; 0 when it
    /// was never there.
    lobby_left: AtomicU32,
    pub(crate) since: Instant,
    /// Nanoseconds from `since` on that it waits; `u64::MAX` for ever. (An `Option`
    /// of an `Instant` is twice as large.)
    patience: u64,
    /// Behind one more pointer: few writes have one.
    label: Option<Box<std::sync::Arc<str>>>,
}

impl Header {
    pub(crate) fn new(ticket: &Ticket, kind: Kind, since: Instant, closure: usize) -> Self {
        Self {
            phase: AtomicU8::new(NEW),
            kind,
            priority: ticket.priority,
            word: AtomicU8::new(NO_WORD),
            position: AtomicU32::new(0),
            bytes: ticket
                .bytes
                .saturating_add(u32::try_from(closure).unwrap_or(u32::MAX)),
            lobby_left: AtomicU32::new(0),
            since,
            patience: ticket
                .patience
                .and_then(|patience| u64::try_from(patience.as_nanos()).ok())
                .unwrap_or(u64::MAX),
            label: ticket.label.clone().map(Box::new),
        }
    }

    pub(crate) fn label(&self) -> Option<std::sync::Arc<str>> {
        self.label.as_deref().cloned()
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        match self.patience {
            u64::MAX => None,
            nanos => self.since.checked_add(Duration::from_nanos(nanos)),
        }
    }

    /// Whether nobody has claimed it yet.
    pub(crate) fn is_waiting(&self) -> bool {
        matches!(self.phase.load(Ordering::Acquire), LOBBY | QUEUED)
    }

    pub(crate) fn is_in_lobby(&self) -> bool {
        self.phase.load(Ordering::Acquire) == LOBBY
    }

    pub(crate) fn is_done(&self) -> bool {
        self.phase.load(Ordering::Acquire) == DONE
    }

    /// Under the pen's lock only.
    pub(crate) fn enter_lobby(&self) {
        self.phase.store(LOBBY, Ordering::Release);
    }

    /// There is room for it now. Under the pen's lock only.
    pub(crate) fn leave_lobby(&self) {
        let millis = self.since.elapsed().as_millis() + 1;
        let millis = u32::try_from(millis).unwrap_or(u32::MAX);
        self.lobby_left.store(millis, Ordering::Relaxed);
    }

    /// How long after its beginning it left the lobby, if it was there.
    pub(crate) fn lobby_left(&self) -> Option<Duration> {
        match self.lobby_left.load(Ordering::Relaxed) {
            0 => None,
            millis => Some(Duration::from_millis(millis.into())),
        }
    }

    /// Under the pen's lock only.
    pub(crate) fn enqueue(&self) {
        self.phase.store(QUEUED, Ordering::Release);
    }

    /// Under the pen's lock only.
    pub(crate) fn claim(&self) {
        self.phase.store(CLAIMED, Ordering::Release);
    }
}

/// A job as the pen sees it: the closure and the answer have no type here.
pub(crate) trait Member<E>: Send + Sync {
    fn header(&self) -> &Header;
    /// Runs the closure and keeps its answer; says whether it was `Ok`.
    fn run(&self, engine: &mut E) -> bool;
    /// Replaces whatever answer there is.
    fn fail(&self, error: Error);
    /// Drops the closure of a job that will not run. Foreign code: outside any
    /// lock.
    fn discard(&self);
    /// Whether the last run returned `Ok`.
    fn answered_ok(&self) -> bool;
    /// The answer is final. Hands over the task that waits for it.
    fn finish(&self) -> Option<Waker>;
}

type Ran<T> = std::thread::Result<Result<T>>;

struct Slot<T> {
    ran: Option<Ran<T>>,
    waker: Option<Waker>,
}

pub(crate) struct Job<C, T> {
    header: Header,
    // Locked only by the holder of the pen, so never contended; it makes the
    // job `Sync` for closures that are only `Send`.
    call: Mutex<Option<C>>,
    slot: Mutex<Slot<T>>,
}

impl<C, T> Job<C, T> {
    pub(crate) fn new(ticket: &Ticket, kind: Kind, since: Instant, call: C) -> Self {
        Self {
            header: Header::new(ticket, kind, since, size_of::<C>()),
            call: Mutex::new(Some(call)),
            slot: Mutex::new(Slot {
                ran: None,
                waker: None,
            }),
        }
    }
}

impl<E, C, T> Member<E> for Job<C, T>
where
    C: FnMut(&mut E) -> Result<T> + Send,
    T: Send,
{
    fn header(&self) -> &Header {
        &self.header
    }

    fn run(&self, engine: &mut E) -> bool {
        let mut call = lock(&self.call);
        let ran = match &mut *call {
            Some(call) => catch_unwind(AssertUnwindSafe(|| call(engine)))
                .map(|answer| answer.map_err(|error| error.with_label(self.header.label()))),
            None => Ok(Err(discarded())),
        };
        drop(call);
        let fine = matches!(ran, Ok(Ok(_)));
        // An earlier answer is of a run that was undone. It is dropped after
        // the lock, because `T` may have a destructor of its own.
        let undone = lock(&self.slot).ran.replace(ran);
        drop_quietly(undone);
        fine
    }

    fn fail(&self, error: Error) {
        let undone = lock(&self.slot).ran.replace(Ok(Err(error)));
        drop_quietly(undone);
    }

    fn discard(&self) {
        let call = lock(&self.call).take();
        drop_quietly(call);
    }

    fn answered_ok(&self) -> bool {
        matches!(lock(&self.slot).ran, Some(Ok(Ok(_))))
    }

    fn finish(&self) -> Option<Waker> {
        let mut slot = lock(&self.slot);
        debug_assert!(
            slot.ran.is_some(),
            "bug in the pen: a job finished without an answer"
        );
        // Inside the lock, so that a task which finds the job unfinished has
        // its waker in place before `take` below.
        self.header.phase.store(DONE, Ordering::Release);
        slot.waker.take()
    }
}

fn discarded() -> Error {
    Error::new(
        crate::ErrorKind::Closed,
        "bug in onepen: a cancelled write was run",
    )
}

/// A destructor that panics must not take the pen with it.
pub(super) fn drop_quietly<T>(value: T) {
    let _ = catch_unwind(AssertUnwindSafe(|| drop(value)));
}

/// The other end of a job.
pub(crate) trait Answer<T>: Send + Sync {
    fn header(&self) -> &Header;
    /// The answer, once, when it is final.
    fn take(&self) -> Option<Ran<T>>;
    /// Like `take`, leaving a waker when it is not.
    fn poll(&self, cx: &mut Context<'_>) -> Poll<Ran<T>>;
}

impl<C: Send, T: Send> Answer<T> for Job<C, T> {
    fn header(&self) -> &Header {
        &self.header
    }

    fn take(&self) -> Option<Ran<T>> {
        if !self.header.is_done() {
            return None;
        }
        lock(&self.slot).ran.take()
    }

    fn poll(&self, cx: &mut Context<'_>) -> Poll<Ran<T>> {
        let mut slot = lock(&self.slot);
        if self.header.is_done() {
            return Poll::Ready(slot.ran.take().unwrap_or_else(|| Ok(Err(polled_again()))));
        }
        let known = slot.waker.as_ref();
        if !known.is_some_and(|waker| waker.will_wake(cx.waker())) {
            let replaced = slot.waker.replace(cx.waker().clone());
            // Foreign code, which may own the last handle of the database and
            // close it, waiting for the writer thread, which may wait for us.
            drop(slot);
            drop(replaced);
        }
        Poll::Pending
    }
}

fn polled_again() -> Error {
    Error::new(
        crate::ErrorKind::Closed,
        "the answer of this write was already taken",
    )
}

/// Gives a panic back to the caller it belongs to.
pub(crate) fn unwrap_ran<T>(ran: Ran<T>) -> Result<T> {
    ran.unwrap_or_else(|payload: Box<dyn Any + Send>| std::panic::resume_unwind(payload))
}
