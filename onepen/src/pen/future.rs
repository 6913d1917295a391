//! Writes of tasks: queued when first polled, never run on the task's thread.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Wake, Waker};
use std::time::Instant;

use super::Pen;
use super::job::{Answer, Job, Kind, Ticket, unwrap_ran};
use super::queue::Queued;
use crate::engine::Engine;
use crate::error::{Error, ErrorKind, Result};
use crate::sync::Arc;

/// A queued job from its owner's side. Dropping it ends the job if it has not
/// started; [`detach`](Self::detach) lets it run.
pub(crate) struct Pending<E: Engine, T> {
    pen: Arc<Pen<E>>,
    member: Queued<E>,
    answer: Arc<dyn Answer<T>>,
    over: bool,
}

impl<E: Engine, T> Pending<E, T> {
    /// Queues `call`; an error means that it was not.
    pub(crate) fn enqueue<C>(
        pen: Arc<Pen<E>>,
        ticket: &Ticket,
        kind: Kind,
        call: C,
        waker: Option<&Waker>,
    ) -> Result<Self>
    where
        C: FnMut(&mut E) -> Result<T> + Send + 'static,
        T: Send + 'static,
    {
        let job = Arc::new(Job::new(ticket, kind, Instant::now(), call));
        if let Some(waker) = waker {
            // Before it is queued: it may be done before we are back here.
            let _ = Answer::poll(&*job, &mut Context::from_waker(waker));
        }
        let member: Queued<E> = Arc::clone(&job) as _;
        pen.enqueue(ticket, &member)
            .map_err(|error| pen.context(error).with_label(ticket.label.clone()))?;
        Ok(Self {
            pen,
            member,
            answer: job as _,
            over: false,
        })
    }

    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<T>> {
        if self.over {
            return Poll::Ready(Err(already_taken()));
        }
        match self.answer.poll(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(ran) => {
                self.over = true;
                Poll::Ready(unwrap_ran(ran).map_err(|error| self.pen.context(error)))
            }
        }
    }

    pub(crate) fn is_done(&self) -> bool {
        self.over || self.answer.header().is_done()
    }

    pub(crate) fn pen(&self) -> &Arc<Pen<E>> {
        &self.pen
    }

    pub(crate) fn member(&self) -> &Queued<E> {
        &self.member
    }

    /// The job runs whether or not anybody wants its answer.
    pub(crate) fn detach(&mut self) {
        self.over = true;
    }
}

impl<E: Engine, T> Drop for Pending<E, T> {
    fn drop(&mut self) {
        if !self.over && self.member.header().is_waiting() {
            self.pen.cancel(&self.member);
        }
    }
}

fn already_taken() -> Error {
    Error::new(
        ErrorKind::Closed,
        "the answer of this write was already taken",
    )
}

/// The future of an asynchronous write.
pub(crate) enum Write<E: Engine, C, T> {
    New {
        pen: Result<Arc<Pen<E>>>,
        ticket: Arc<Ticket>,
        kind: Kind,
        call: C,
    },
    Queued(Pending<E, T>),
    /// It was wrong before it could be queued.
    Refused(Error),
    Over,
}

// Nothing in it is ever pinned: a closure is moved once, into its job.
impl<E: Engine, C, T> Unpin for Write<E, C, T> {}

impl<E, C, T> Future for Write<E, C, T>
where
    E: Engine,
    C: FnMut(&mut E) -> Result<T> + Send + 'static,
    T: Send + 'static,
{
    type Output = Result<T>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<T>> {
        let this = &mut *self;
        if let Self::Queued(pending) = this {
            pending.pen.refuse_reentry()?;
            return pending.poll(cx);
        }
        match std::mem::replace(this, Self::Over) {
            Self::New {
                pen,
                ticket,
                kind,
                call,
            } => {
                let pen = pen?;
                pen.refuse_reentry()?;
                let pending = Pending::enqueue(pen, &ticket, kind, call, Some(cx.waker()))?;
                *this = Self::Queued(pending);
                Poll::Pending
            }
            Self::Refused(error) => Poll::Ready(Err(error)),
            Self::Queued(_) | Self::Over => Poll::Ready(Err(already_taken())),
        }
    }
}

/// Blocks this thread until `poll` is ready.
pub(crate) fn block_on<T>(mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>) -> T {
    struct Unpark(crate::sync::thread::Thread);
    impl Wake for Unpark {
        fn wake(self: std::sync::Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(std::sync::Arc::new(Unpark(crate::sync::thread::current())));
    let mut cx = Context::from_waker(&waker);
    loop {
        if let Poll::Ready(value) = poll(&mut cx) {
            return value;
        }
        crate::sync::thread::park();
    }
}
