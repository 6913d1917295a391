//! How a wait ends without a turn: by a deadline, by a token, by a dropped future.
//!
//! All of them take the pen's lock, find the job still waiting, take it off the
//! queue and answer it. A job that was claimed is left alone: it runs, and its
//! caller gets its true outcome.

use std::time::{Duration, Instant};

use super::job::{self, Member, Ticket, drop_quietly};
use super::queue::Queued;
use super::wake::Wake;
use super::{Pen, State};
use crate::cancel::Cancel;
use crate::engine::{Engine, GiveUp, Patience, Until, deadline_exceeded};
pub(crate) use crate::engine::{cancelled, gave_up};
use crate::error::{Error, ErrorKind, Holder, Waited, WaitedFor};
use crate::sync::{Arc, Ordering, lock};
use crate::timer::Expires;

/// A job that was taken off the queue unrun and has no answer yet.
pub(super) struct Ended<E> {
    job: Queued<E>,
    waited: Waited,
    wake: Wake,
}

/// A job's place in a token's list of calls to cancel.
pub(super) struct Watch<E> {
    pub(super) pen: std::sync::Weak<Pen<E>>,
    pub(super) job: std::sync::Weak<dyn Member<E>>,
}

impl<E: Engine> Cancel for Watch<E> {
    fn cancel(&self) {
        if let (Some(pen), Some(job)) = (self.pen.upgrade(), self.job.upgrade()) {
            pen.cancel(&job);
        }
    }

    fn is_over(&self) -> bool {
        self.job.strong_count() == 0
    }
}

impl<E: Engine> Expires for Pen<E> {
    fn expire(&self, now: Instant) -> Option<Instant> {
        let mut state = lock(&self.state);
        let began = Instant::now();
        state.calls.answered(now);
        let due: Vec<_> = state
            .queue
            .iter()
            .chain(state.lobby.iter().map(|waiting| &waiting.job))
            .filter(|job| job.header().deadline().is_some_and(|at| at <= now))
            .cloned()
            .collect();
        let ended: Vec<_> = due
            .iter()
            .filter_map(|job| self.end(&mut state, job))
            .collect();
        let lobby = state
            .lobby
            .iter()
            .filter_map(|waiting| waiting.job.header().deadline())
            .min();
        // Looking through a long queue takes its time, under the lock: a tenth of
        // all time at most, rather than once for each of many deadlines.
        let pause = began.elapsed() * 10;
        let again = state
            .queue
            .earliest_deadline()
            .into_iter()
            .chain(lobby)
            .min()
            .map(|earliest| earliest.max(now + pause))
            .filter(|&again| state.calls.ask(again));
        let admitted = self.admit(&mut state);
        drop(state);
        self.announce(admitted);
        for ended in ended {
            self.answer(ended, deadline_exceeded);
        }
        again
    }
}

/// The patience of a group: as long as anybody is still waiting for it.
pub(crate) struct WhileSomebodyWaits<'a, E>(pub(crate) &'a Pen<E>);

impl<E: Engine> Patience for WhileSomebodyWaits<'_, E> {
    fn exhausted(&self) -> Option<GiveUp> {
        lock(&self.0.state)
            .queue
            .is_empty()
            .then_some(GiveUp::NobodyWaits)
    }
}

impl<E: Engine> Pen<E> {
    /// Ends a job that has not started. A job that has is left alone.
    pub(crate) fn cancel(&self, job: &Queued<E>) {
        let mut state = lock(&self.state);
        let Some(ended) = self.end(&mut state, job) else {
            return;
        };
        let admitted = self.admit(&mut state);
        drop(state);
        self.announce(admitted);
        self.answer(ended, cancelled);
    }

    /// Takes a job that nobody claimed off the queue, for [`answer`](Self::answer).
    pub(super) fn end(&self, state: &mut State<E>, job: &Queued<E>) -> Option<Ended<E>> {
        let header = job.header();
        if !header.is_waiting() {
            return None;
        }
        let in_lobby = header.is_in_lobby();
        let waited = self.waited(state, header, in_lobby);
        let mut wake = Wake::default();
        header.claim();
        if in_lobby {
            let mut lobby = state.lobby.iter();
            let place = lobby.position(|waiting| Arc::ptr_eq(&waiting.job, job));
            let left = place.and_then(|place| state.lobby.remove(place));
            // Its submitter waits for admission, which never comes.
            wake.wakers.extend(left.and_then(|left| left.submitter));
            wake.lobby = true;
        } else {
            state.queue.mark_dead(header.bytes);
        }
        Some(Ended {
            job: Arc::clone(job),
            waited,
            wake,
        })
    }

    /// Answers a job that was ended, and wakes whoever waits for it. The pen's
    /// lock is not held: what the closure owns is dropped here.
    pub(super) fn answer(&self, ended: Ended<E>, error: fn(Waited) -> Error) {
        let Ended {
            job,
            waited,
            mut wake,
        } = ended;
        job.discard();
        let outside = |what| match what {
            WaitedFor::Turn => self.write_lock.holder().0,
            what => self.witness.get()?.who(what),
        };
        job.fail(
            error(waited)
                .blaming(outside)
                .with_label(job.header().label()),
        );
        wake.add(&*job);
        wake.wake_all(self);
        drop_quietly(job);
    }

    /// What a job that ends now has waited for.
    pub(super) fn waited(&self, state: &State<E>, header: &job::Header, in_lobby: bool) -> Waited {
        let what = if in_lobby {
            WaitedFor::QueueSpace
        } else if self.readers_are_awaited() {
            WaitedFor::Readers
        } else if self.at_gate.load(Ordering::Relaxed) {
            WaitedFor::Turn
        } else if self.at_write_lock.load(Ordering::Relaxed) {
            WaitedFor::WriteLock
        } else {
            WaitedFor::Pen
        };
        // In line for space, then for the pen, and then its holder, who works for
        // everybody in line, waits for somebody outside.
        let lobby = header.lobby_left().unwrap_or_default();
        let pen = match (what, state.holder.since) {
            (WaitedFor::WriteLock | WaitedFor::Turn | WaitedFor::Readers, Some(turn)) => {
                turn.saturating_duration_since(header.since)
            }
            _ => Duration::ZERO,
        };
        let mut waited = Waited::new(what, header.since.elapsed())
            .after([(WaitedFor::QueueSpace, lobby), (WaitedFor::Pen, pen)]);
        waited.position = Some(header.position.load(Ordering::Relaxed) as usize);
        waited.holder = match what {
            // Found out without the pen's lock, by `answer`.
            WaitedFor::WriteLock | WaitedFor::Turn => None,
            WaitedFor::Readers => Some(Holder::own_reads()),
            _ => self.permit_holder().or_else(|| state.holder.describe()),
        };
        waited
    }
}

/// The patience of the caller behind `ticket`, from `since` on.
pub(crate) fn patience(ticket: &Ticket, since: Instant) -> Until<'_> {
    Until {
        deadline: ticket
            .patience
            .and_then(|patience| since.checked_add(patience)),
        cancel: ticket.cancel.as_ref(),
    }
}

pub(super) fn closed() -> Error {
    Error::new(ErrorKind::Closed, "the database handle is closed")
}
