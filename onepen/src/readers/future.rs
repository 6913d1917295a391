//! Reads for tasks: no runtime is named and no executor thread blocked.

use std::any::Any;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::Weak;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use super::threads::{Patience, Task};
use super::{ReadTx, Readers};
use crate::cancel::{Cancel, CancelToken};
use crate::connection::Connector;
use crate::error::{Error, Result, Waited, WaitedFor};
use crate::pen::{cancelled, job::Ticket};
use crate::sync::{Arc, AtomicBool, Mutex, Ordering, lock};

type Ran<T> = Result<Result<T>, Box<dyn Any + Send>>;

impl Readers {
    /// Runs `f` in a read transaction on a thread of ours. Queued at the first
    /// poll; its deadline counts from there. Dropping the future keeps a queued
    /// read from running and interrupts one that runs.
    pub(crate) fn read_async<T, F>(
        self: &Arc<Self>,
        ticket: Ticket,
        f: F,
    ) -> impl Future<Output = Result<T>> + Send + 'static
    where
        F: FnOnce(&ReadTx) -> Result<T> + Send + 'static,
        T: Send + 'static,
    {
        let readers = Arc::clone(self);
        async move {
            readers.refuse_inside_a_write(
                "a write closure waits for an asynchronous read of the same database; over a \
                 rollback journal that read waits for the closure: read through the transaction \
                 the closure was given",
            )?;
            let answer = Arc::new(Answer {
                slot: Mutex::new(Slot {
                    started: false,
                    ran: None,
                    waker: None,
                }),
                since: Instant::now(),
                connector: Arc::clone(&readers.connector),
            });
            let theirs = ticket.cancel.clone();
            let (ticket, dropped) = with_token_of_its_own(ticket);
            if let Some(theirs) = &theirs {
                theirs.watch(Box::new(Unstarted(Arc::downgrade(&answer))));
            }
            let task = Read {
                ticket,
                since: answer.since,
                f,
                answer: Arc::clone(&answer),
            };
            readers.threads.submit(&readers, Box::new(task));
            if theirs.is_some_and(|theirs| theirs.is_cancelled()) {
                answer.cancel();
            }
            Reading { answer, dropped }.await
        }
    }
}

/// Cancels one token when another is.
struct Pass(Weak<Link>);

struct Link(CancelToken);

impl Cancel for Pass {
    fn cancel(&self) {
        if let Some(link) = self.0.upgrade() {
            link.0.cancel();
        }
    }

    fn is_over(&self) -> bool {
        self.0.strong_count() == 0
    }
}

/// Answers a read that waits for a thread when its token is cancelled. Its
/// closure is dropped by the thread that comes to it.
struct Unstarted<T>(Weak<Answer<T>>);

impl<T: Send> Cancel for Unstarted<T> {
    fn cancel(&self) {
        if let Some(answer) = self.0.upgrade() {
            answer.cancel();
        }
    }

    fn is_over(&self) -> bool {
        self.0.strong_count() == 0
    }
}

/// Ends a read when it is dropped.
pub(super) struct CancelOnDrop {
    link: Arc<Link>,
    armed: AtomicBool,
}

impl CancelOnDrop {
    /// There is nothing left to cancel.
    pub(super) fn disarm(&self) {
        self.armed.store(false, Ordering::Relaxed);
    }

    pub(super) fn cancel(&self) {
        self.link.0.cancel();
    }
}

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        if self.armed.load(Ordering::Relaxed) {
            self.cancel();
        }
    }
}

/// Gives the call a token that we may cancel, and that is cancelled with the
/// caller's.
pub(super) fn with_token_of_its_own(mut ticket: Ticket) -> (Ticket, CancelOnDrop) {
    let own = CancelToken::new();
    let link = Arc::new(Link(own.clone()));
    if let Some(theirs) = ticket.cancel.replace(own) {
        theirs.watch(Box::new(Pass(Arc::downgrade(&link))));
        if theirs.is_cancelled() {
            link.0.cancel();
        }
    }
    let armed = AtomicBool::new(true);
    (ticket, CancelOnDrop { link, armed })
}

struct Read<F, T> {
    ticket: Ticket,
    since: Instant,
    f: F,
    answer: Arc<Answer<T>>,
}

impl<T, F> Task for Read<F, T>
where
    F: FnOnce(&ReadTx) -> Result<T> + Send,
    T: Send,
{
    fn patience(&self) -> Patience {
        Patience::of(&self.ticket, self.since)
    }

    fn run(self: Box<Self>, readers: &Arc<Readers>) {
        let Self {
            ticket,
            since,
            f,
            answer,
        } = *self;
        if !answer.start() {
            return;
        }
        answer.give(catch_unwind(AssertUnwindSafe(|| {
            readers.read_since(&ticket, Some(since), f)
        })));
    }

    fn refuse(self: Box<Self>, error: Error) {
        if self.answer.start() {
            self.answer.give(Ok(Err(error)));
        }
    }
}

struct Answer<T> {
    slot: Mutex<Slot<T>>,
    since: Instant,
    connector: Arc<Connector>,
}

struct Slot<T> {
    /// Somebody is about to answer.
    started: bool,
    ran: Option<Ran<T>>,
    waker: Option<Waker>,
}

impl<T> Answer<T> {
    /// Whoever starts gives the answer, and there is one.
    fn start(&self) -> bool {
        !std::mem::replace(&mut lock(&self.slot).started, true)
    }

    fn cancel(&self) {
        if self.start() {
            let waited = Waited::new(WaitedFor::Reader, self.since.elapsed());
            let error = self.connector.context(cancelled(waited));
            self.give(Ok(Err(error)));
        }
    }

    fn give(&self, ran: Ran<T>) {
        let waker = {
            let mut slot = lock(&self.slot);
            slot.ran = Some(ran);
            slot.waker.take()
        };
        wake(waker);
    }
}

/// Wakers are foreign code: their panics are not our business.
pub(super) fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        let _ = catch_unwind(AssertUnwindSafe(|| waker.wake()));
    }
}

struct Reading<T> {
    answer: Arc<Answer<T>>,
    dropped: CancelOnDrop,
}

impl<T> Future for Reading<T> {
    type Output = Result<T>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<T>> {
        let mut slot = lock(&self.answer.slot);
        let Some(ran) = slot.ran.take() else {
            match &mut slot.waker {
                Some(waker) => waker.clone_from(cx.waker()),
                empty => *empty = Some(cx.waker().clone()),
            }
            return Poll::Pending;
        };
        drop(slot);
        self.dropped.disarm();
        Poll::Ready(ran.unwrap_or_else(|panic| resume_unwind(panic)))
    }
}
