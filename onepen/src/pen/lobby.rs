//! Into the queue, by the front door or through the lobby.
//!
//! The queue is bounded. Beyond the bound a job waits in the lobby, in the order
//! it came, and its caller with it: so what a lobby can hold is bounded by the
//! callers that exist. Whenever the queue has room the first of the lobby moves
//! up, and nobody passes it.

use std::task::Waker;

use super::ending::{Watch, cancelled, closed};
use super::job::Ticket;
use super::queue::Queued;
use super::wake::wake_task;
use super::{Pen, State, WhenFull};
use crate::cancel::CancelToken;
use crate::engine::Engine;
use crate::error::{Error, ErrorKind, Result, Waited, WaitedFor};
use crate::sync::{Arc, Ordering, lock};
use crate::timer::Expires;

/// A write beyond the queue's bound.
pub(super) struct InLobby<E> {
    pub(super) job: Queued<E>,
    /// The task that submitted it and waits until it is queued.
    pub(super) submitter: Option<Waker>,
}

pub(crate) struct Admitted {
    any: bool,
    wakers: Vec<Waker>,
}

impl<E: Engine> Pen<E> {
    /// Puts a job at the end of the queue, or of the lobby when the queue is at
    /// its bound. An error is the job's answer; it was not queued then.
    pub(crate) fn enqueue(self: &Arc<Self>, ticket: &Ticket, job: &Queued<E>) -> Result<()> {
        if let Some(token) = &ticket.cancel {
            token.watch(Box::new(Watch {
                pen: Arc::downgrade(self),
                job: Arc::downgrade(job),
            }));
        }
        let header = job.header();
        if ticket
            .cancel
            .as_ref()
            .is_some_and(CancelToken::is_cancelled)
        {
            return Err(cancelled(Waited::new(
                WaitedFor::Pen,
                header.since.elapsed(),
            )));
        }
        let mut state = lock(&self.state);
        if state.closed {
            return Err(closed());
        }
        let before = state.queue.len() + state.lobby.len();
        header
            .position
            .store(u32::try_from(before).unwrap_or(u32::MAX), Ordering::Relaxed);
        if self.has_room(&state, header.bytes) && state.lobby.is_empty() {
            state.queue.push(Arc::clone(job));
        } else if self.limits.when_full == WhenFull::Refuse {
            return Err(Error::new(
                ErrorKind::QueueFull,
                format!(
                    "the write queue is full: {} writes, {} bytes",
                    state.queue.len(),
                    state.queue.bytes()
                ),
            ));
        } else {
            header.enter_lobby();
            state.lobby.push_back(InLobby {
                job: Arc::clone(job),
                submitter: None,
            });
        }
        self.tally.queued(before + 1);
        if let Some(deadline) = header.deadline()
            && state.calls.ask(deadline)
        {
            let this: Arc<dyn Expires> = Arc::clone(self) as _;
            self.timer.wake_at(deadline, &this);
        }
        let wake = self.claim_writer_wakeup(&mut state);
        drop(state);
        if wake {
            self.writer.advance();
        }
        // After the job is queued: a cancellation either found it there, or is
        // seen here.
        if ticket
            .cancel
            .as_ref()
            .is_some_and(CancelToken::is_cancelled)
        {
            self.cancel(job);
        }
        Ok(())
    }

    pub(super) fn has_room(&self, state: &State<E>, bytes: u32) -> bool {
        state.queue.len() < self.limits.queue_members
            // A single write larger than the bound must pass all the same.
            && (state.queue.is_empty()
                || state.queue.bytes() + bytes as usize <= self.limits.queue_bytes)
    }

    /// Lets callers in the lobby move up.
    pub(crate) fn admit(&self, state: &mut State<E>) -> Admitted {
        let mut admitted = Admitted {
            any: false,
            wakers: Vec::new(),
        };
        while let Some(first) = state.lobby.front() {
            if !self.has_room(state, first.job.header().bytes) {
                break;
            }
            let Some(first) = state.lobby.pop_front() else {
                break;
            };
            first.job.header().leave_lobby();
            state.queue.push(first.job);
            admitted.wakers.extend(first.submitter);
            admitted.any = true;
        }
        admitted
    }

    pub(crate) fn announce(&self, admitted: Admitted) {
        if admitted.any {
            self.admitted.advance();
            admitted.wakers.into_iter().for_each(wake_task);
        }
    }

    /// Blocks until `job` is out of the lobby.
    pub(crate) fn wait_until_admitted(&self, job: &Queued<E>) {
        loop {
            let seen = self.admitted.current();
            if !job.header().is_in_lobby() {
                return;
            }
            self.admitted.wait(seen, None);
        }
    }

    /// The same for a task: `false` means that `waker` will be woken.
    pub(crate) fn poll_admitted(&self, job: &Queued<E>, waker: &Waker) -> bool {
        if !job.header().is_in_lobby() {
            return true;
        }
        let waker = waker.clone(); // foreign code: not under the lock
        let mut state = lock(&self.state);
        // From the back: the first time, it has just come.
        let mut lobby = state.lobby.iter_mut().rev();
        let Some(waiting) = lobby.find(|waiting| Arc::ptr_eq(&waiting.job, job)) else {
            return true;
        };
        let replaced = waiting.submitter.replace(waker);
        drop(state);
        drop(replaced);
        false
    }
}
