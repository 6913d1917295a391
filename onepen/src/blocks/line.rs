//! A line: a number of permits, given out in the order they were asked for.
//!
//! Guarantees: never more permits are out than there are; a permit that comes
//! back goes to whoever has waited longest, before anybody who comes later;
//! whoever gives up, is cancelled or whose future is dropped leaves nothing
//! behind: not a place in the line, and not a permit that reached it a moment
//! before. Threads and tasks stand in one and the same line.
//!
//! A permit is free only while nobody waits. So a returned one is handed over
//! under the lock, nobody can barge in, and whoever leaves the line from the
//! middle owes nothing to those behind.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use crate::cancel::{CancelToken, Sleeps};
use crate::engine::{GiveUp, Patience, Until};
use crate::sync::{Arc, AtomicU8, Mutex, Ordering, WaitWord, lock};
use crate::timer::{Calls, Expires};

/// Why somebody left the line without a permit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Left {
    GaveUp(GiveUp),
    /// The line was closed.
    Closed,
}

pub(crate) struct Line {
    state: Mutex<State>,
}

struct State {
    free: usize,
    closed: bool,
    waiting: VecDeque<Arc<Waiter>>,
    calls: Calls,
}

const WAITS: u8 = 0;
const SERVED: u8 = 1;
const SENT_AWAY: u8 = 2;
const EXPIRED: u8 = 3;

struct Waiter {
    /// Leaves `WAITS` once, under the line's lock.
    fate: AtomicU8,
    word: WaitWord,
    /// A task's; its deadline is the timer's business, a thread's its own.
    task: Option<Task>,
}

struct Task {
    waker: Mutex<Option<Waker>>,
    deadline: Option<Instant>,
}

impl Sleeps for Waiter {
    /// To be called without the line's lock: wakers are foreign code.
    fn wake(&self) {
        self.word.advance();
        if let Some(task) = &self.task {
            let waker = lock(&task.waker).take();
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }
}

impl Waiter {
    fn outcome(&self) -> Option<Result<(), Left>> {
        match self.fate.load(Ordering::Acquire) {
            WAITS => None,
            SERVED => Some(Ok(())),
            SENT_AWAY => Some(Err(Left::Closed)),
            _ => Some(Err(Left::GaveUp(GiveUp::Deadline))),
        }
    }

    fn settle(&self, fate: u8) {
        self.fate.store(fate, Ordering::Release);
    }
}

impl Line {
    pub(crate) fn new(permits: usize) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State {
                free: permits,
                closed: false,
                waiting: VecDeque::new(),
                calls: Calls::default(),
            }),
        })
    }

    /// Takes a permit if one is free, which means that nobody waits.
    fn try_take(state: &mut State) -> Option<Result<(), Left>> {
        if state.closed {
            return Some(Err(Left::Closed));
        }
        state.free = state.free.checked_sub(1)?;
        Some(Ok(()))
    }

    /// Takes a permit, after a wait in line if need be. After an `Ok`,
    /// [`give_back`](Self::give_back) is owed.
    pub(crate) fn take(&self, patience: &dyn Patience) -> Result<(), Left> {
        let waiter = {
            let mut state = lock(&self.state);
            if let Some(taken) = Self::try_take(&mut state) {
                return taken;
            }
            let waiter = Arc::new(Waiter {
                fate: AtomicU8::new(WAITS),
                word: WaitWord::new(),
                task: None,
            });
            state.waiting.push_back(Arc::clone(&waiter));
            waiter
        };
        if let Some(token) = patience.token() {
            token.nudge(&waiter);
        }
        loop {
            let seen = waiter.word.current();
            if let Some(outcome) = waiter.outcome() {
                return outcome;
            }
            if let Some(why) = patience.exhausted() {
                if self.step_out(&waiter) {
                    return Err(Left::GaveUp(why));
                }
                continue; // it was settled in the meantime
            }
            waiter.word.wait(seen, patience.ask_again());
        }
    }

    /// The same for a task. The future gives its permit back when it is dropped
    /// without having been asked for it.
    pub(crate) fn wait(
        self: &Arc<Self>,
        deadline: Option<Instant>,
        cancel: Option<CancelToken>,
    ) -> Waiting {
        Waiting {
            line: Arc::clone(self),
            deadline,
            cancel,
            waiter: None,
        }
    }

    /// Hands a permit to the next in line, or leaves it free.
    pub(crate) fn give_back(&self) {
        let next = {
            let mut state = lock(&self.state);
            match state.waiting.pop_front() {
                Some(next) => {
                    next.settle(SERVED);
                    next
                }
                None => {
                    state.free += 1;
                    return;
                }
            }
        };
        next.wake();
    }

    /// Leaves the line; `false` when the fate of `waiter` was settled before.
    fn step_out(&self, waiter: &Arc<Waiter>) -> bool {
        let mut state = lock(&self.state);
        let mut places = state.waiting.iter();
        let Some(place) = places.position(|other| Arc::ptr_eq(other, waiter)) else {
            return false;
        };
        state.waiting.remove(place);
        true
    }

    /// Sends everybody away who waits, and everybody who comes.
    pub(crate) fn close(&self) {
        let away = {
            let mut state = lock(&self.state);
            state.closed = true;
            for waiter in &state.waiting {
                waiter.settle(SENT_AWAY);
            }
            std::mem::take(&mut state.waiting)
        };
        away.iter().for_each(|waiter| waiter.wake());
    }

    pub(crate) fn is_closed(&self) -> bool {
        lock(&self.state).closed
    }

    /// How many wait.
    pub(crate) fn waiting(&self) -> usize {
        lock(&self.state).waiting.len()
    }
}

impl Expires for Line {
    fn expire(&self, now: Instant) -> Option<Instant> {
        let mut late = Vec::new();
        let again = {
            let mut state = lock(&self.state);
            let State { waiting, calls, .. } = &mut *state;
            let deadline = |waiter: &Waiter| waiter.task.as_ref().and_then(|task| task.deadline);
            waiting.retain(|waiter| {
                let in_time = deadline(waiter).is_none_or(|at| at > now);
                if !in_time {
                    waiter.settle(EXPIRED);
                    late.push(Arc::clone(waiter));
                }
                in_time
            });
            calls.answered(now);
            let earliest = waiting.iter().filter_map(|waiter| deadline(waiter)).min();
            earliest.filter(|&at| calls.ask(at))
        };
        late.iter().for_each(|waiter| waiter.wake());
        again
    }
}

/// A task's wait for a permit. Ready once; the permit is the task's then.
///
/// Cancel safe: dropping it leaves the line, and passes on a permit that came
/// too late to be noticed.
pub(crate) struct Waiting {
    line: Arc<Line>,
    deadline: Option<Instant>,
    cancel: Option<CancelToken>,
    /// Set while this task stands in line or owns a permit it does not know of;
    /// `Drop` undoes either.
    waiter: Option<Arc<Waiter>>,
}

impl Waiting {
    fn join(&mut self, cx: &Context<'_>) -> Poll<Result<(), Left>> {
        let task = Task {
            waker: Mutex::new(Some(cx.waker().clone())), // foreign code: not under the lock
            deadline: self.deadline,
        };
        let call = {
            let mut state = lock(&self.line.state);
            if let Some(taken) = Line::try_take(&mut state) {
                return Poll::Ready(taken);
            }
            let waiter = Arc::new(Waiter {
                fate: AtomicU8::new(WAITS),
                word: WaitWord::new(),
                task: Some(task),
            });
            state.waiting.push_back(Arc::clone(&waiter));
            self.waiter = Some(waiter);
            self.deadline.filter(|&at| state.calls.ask(at))
        };
        if let Some(at) = call {
            let line: Arc<dyn Expires> = Arc::clone(&self.line) as _;
            crate::timer::shared().wake_at(at, &line);
        }
        if let (Some(token), Some(waiter)) = (&self.cancel, &self.waiter) {
            token.nudge(waiter);
        }
        Poll::Pending
    }
}

impl Future for Waiting {
    type Output = Result<(), Left>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let patience = Until {
            deadline: None, // the timer's
            cancel: this.cancel.as_ref(),
        };
        if this.waiter.is_none() {
            if let Some(why) = patience.exhausted() {
                return Poll::Ready(Err(Left::GaveUp(why)));
            }
            if let Poll::Ready(taken) = this.join(cx) {
                return Poll::Ready(taken);
            }
            // A token cancelled meanwhile has missed us: look again.
        }
        let Some(waiter) = &this.waiter else {
            return Poll::Pending;
        };
        if let Some(task) = &waiter.task {
            let waker = cx.waker().clone();
            let before = lock(&task.waker).replace(waker);
            drop(before);
        }
        // After the waker is in place: whoever settles us wakes it, or is seen.
        let outcome = match waiter.outcome() {
            Some(outcome) => outcome,
            None => match Patience::exhausted(&Until {
                deadline: None,
                cancel: this.cancel.as_ref(),
            }) {
                Some(why) if this.line.step_out(waiter) => Err(Left::GaveUp(why)),
                Some(_) => match waiter.outcome() {
                    Some(outcome) => outcome,
                    None => return Poll::Pending,
                },
                None => return Poll::Pending,
            },
        };
        this.waiter = None;
        Poll::Ready(outcome)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some(waiter) = self.waiter.take()
            && !self.line.step_out(&waiter)
            && waiter.outcome() == Some(Ok(()))
        {
            self.line.give_back();
        }
    }
}
