//! Reads for tasks: no runtime is named and no executor thread blocked.

use std::any::Any;
use std::future::Future;
use std::panic::{AssertUnwindSafe, Location, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::Weak;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use super::threads::{Sweep, Task, given_up};
use super::{ReadTx, Readers, wait_limits};
use crate::cancel::{Cancel, CancelToken};
use crate::error::{Error, Result};
use crate::pen::job::Ticket;
use crate::sync::{Arc, AtomicBool, Mutex, Ordering, lock};

type Ran<T> = Result<Result<T>, Box<dyn Any + Send>>;

impl Readers {
    /// Runs `f` in a read transaction on a thread of ours. Queued at the first
    /// poll; its deadline counts from there. Dropping the future keeps a queued
    /// read from running and interrupts one that runs.
    #[track_caller]
    pub(crate) fn read_async<T, F>(
        self: &Arc<Self>,
        ticket: Ticket,
        f: F,
    ) -> impl Future<Output = Result<T>> + Send + 'static
    where
        F: FnOnce(&ReadTx) -> Result<T> + Send + 'static,
        T: Send + 'static,
    {
        let at = Location::caller();
        self.read_async_at(ticket, at, f)
    }

    pub(crate) fn read_async_at<T, F>(
        self: &Arc<Self>,
        ticket: Ticket,
        at: &'static Location<'static>,
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
                    ran: None,
                    waker: None,
                }),
            });
            let callers = ticket.cancel.clone();
            let (ticket, dropped) = with_token_of_its_own(ticket);
            let task = Read {
                ticket,
                since: Instant::now(),
                at,
                f,
                answer: Arc::clone(&answer),
            };
            readers.threads.submit(&readers, Box::new(task));
            if let Some(callers) = callers {
                callers.watch(Box::new(Sweep {
                    readers: Arc::downgrade(&readers),
                    life: Arc::downgrade(&answer),
                }));
                // Cancelled before it could be heard.
                if callers.is_cancelled() {
                    readers.threads.sweep();
                }
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
    at: &'static Location<'static>,
    f: F,
    answer: Arc<Answer<T>>,
}

impl<T, F> Task for Read<F, T>
where
    F: FnOnce(&ReadTx) -> Result<T> + Send,
    T: Send,
{
    fn run(self: Box<Self>, readers: &Arc<Readers>) {
        let Self {
            ticket,
            since,
            at,
            f,
            answer,
        } = *self;
        answer.give(catch_unwind(AssertUnwindSafe(|| {
            readers.read_since(&ticket, Some(since), at, f)
        })));
    }

    fn refuse(self: Box<Self>, error: Error) {
        self.answer.give(Ok(Err(error)));
    }

    fn deadline(&self) -> Option<Instant> {
        wait_limits(&self.ticket, self.since).deadline
    }

    fn given_up(&self) -> Option<Error> {
        given_up(&wait_limits(&self.ticket, self.since), self.since)
    }
}

struct Answer<T> {
    slot: Mutex<Slot<T>>,
}

struct Slot<T> {
    ran: Option<Ran<T>>,
    waker: Option<Waker>,
}

impl<T> Answer<T> {
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
