//! A copy that a task waits for.
//!
//! Guarantees: nothing begins before the first poll; the work is done on a thread of
//! its own, so no executor is blocked; when the future is dropped, the copy ends as
//! when it is cancelled. Its thread is not waited for: it removes what it wrote.

use std::any::Any;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use super::Copied;
use super::transfer::{Transfer, in_thread};
use crate::cancel::CancelToken;
use crate::error::{Error, ErrorKind, Result};

type Made = std::result::Result<Result<Copied>, Box<dyn Any + Send>>;

/// What the thread and the future share.
#[derive(Default)]
struct Shared(Mutex<(Option<Made>, Option<Waker>)>);

impl Shared {
    fn lock(&self) -> MutexGuard<'_, (Option<Made>, Option<Waker>)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) enum Copying {
    New(Box<Transfer<'static>>),
    Running(Running),
    Over,
}

pub(super) struct Running {
    shared: Arc<Shared>,
    token: CancelToken,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.token.cancel(); // of no effect when it has ended
    }
}

impl Future for Copying {
    type Output = Result<Copied>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let Self::New(_) = &*self
            && let Self::New(transfer) = std::mem::replace(&mut *self, Self::Over)
        {
            *self = Self::Running(begin(*transfer, cx.waker())?);
        }
        let Self::Running(running) = &*self else {
            let again = "the copy was made, and its answer taken";
            return Poll::Ready(Err(Error::new(ErrorKind::Closed, again)));
        };
        let mut state = running.shared.lock();
        let Some(made) = state.0.take() else {
            state.1 = Some(cx.waker().clone());
            return Poll::Pending;
        };
        drop(state);
        *self = Self::Over;
        Poll::Ready(made.unwrap_or_else(|panic| resume_unwind(panic)))
    }
}

fn begin(mut transfer: Transfer<'static>, waker: &Waker) -> Result<Running> {
    let token = transfer.end_with_its_future();
    let shared = Arc::new(Shared::default());
    shared.lock().1 = Some(waker.clone());
    let theirs = Arc::clone(&shared);
    let prepared = transfer.prepare();
    in_thread(|builder| {
        builder.spawn(move || {
            let made = catch_unwind(AssertUnwindSafe(|| prepared.make()));
            let mut state = theirs.lock();
            state.0 = Some(made);
            let waker = state.1.take();
            drop(state);
            if let Some(waker) = waker {
                waker.wake();
            }
        })
    })?;
    Ok(Running { shared, token })
}
