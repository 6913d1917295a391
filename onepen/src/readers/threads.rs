//! Threads that read for those who must not block: tasks of an async runtime.
//!
//! A small set of threads serves one queue in the order of arrival. Threads
//! are started when there is work and nobody idle, at most so many, and end
//! when they were idle for a while or the readers are closed. Whoever waits for
//! a thread longer than he has patience is told so.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use super::Readers;
use super::slots::closed;
use crate::error::{Error, Result, Waited, WaitedFor};
use crate::pen::{deadline_exceeded, job::Ticket};
use crate::sync::{Arc, Condvar, Mutex, lock, thread};
use crate::timer::Expires;

/// How long a thread without work stays.
const IDLE: Duration = Duration::from_secs(5);

/// A piece of work, which is told one of the two.
pub(super) trait Task: Send {
    /// Since when it waits, and until when it is willing to.
    fn patience(&self) -> Patience;
    fn run(self: Box<Self>, readers: &Arc<Readers>);
    fn refuse(self: Box<Self>, error: Error);
}

#[derive(Clone, Copy)]
pub(super) struct Patience {
    pub(super) since: Instant,
    pub(super) deadline: Option<Instant>,
}

impl Patience {
    pub(super) fn of(ticket: &Ticket, since: Instant) -> Self {
        let deadline = ticket
            .patience
            .and_then(|patience| since.checked_add(patience));
        Self { since, deadline }
    }
}

pub(super) struct Threads {
    state: Mutex<State>,
    work: Condvar,
    at_most: usize,
}

struct State {
    tasks: VecDeque<Box<dyn Task>>,
    alive: usize,
    idle: usize,
    handles: Vec<thread::JoinHandle<()>>,
    started: usize,
    closed: bool,
    /// The earliest time at which the timer will call.
    call: Option<Instant>,
}

impl Threads {
    pub(super) fn new(at_most: usize) -> Self {
        Self {
            state: Mutex::new(State {
                tasks: VecDeque::new(),
                alive: 0,
                idle: 0,
                handles: Vec::new(),
                started: 0,
                closed: false,
                call: None,
            }),
            work: Condvar::new(),
            at_most,
        }
    }

    /// Queues `task`. Never blocks for longer than it takes to start a thread.
    pub(super) fn submit(&self, readers: &Arc<Readers>, task: Box<dyn Task>) {
        let mut state = lock(&self.state);
        if state.closed {
            drop(state);
            task.refuse(closed());
            return;
        }
        let deadline = task.patience().deadline;
        state.tasks.push_back(task);
        if state.tasks.len() > state.idle
            && state.alive < self.at_most
            && let Err(error) = self.start(&mut state, readers)
            && state.alive == 0
        {
            let stranded = state.tasks.pop_back();
            drop(state);
            if let Some(task) = stranded {
                task.refuse(error);
            }
            return;
        }
        // Only when all threads have other work may it take long.
        if state.tasks.len() > state.idle
            && let Some(deadline) = deadline
            && state.call.is_none_or(|call| deadline < call)
        {
            state.call = Some(deadline);
            let this: Arc<dyn Expires> = Arc::clone(readers) as _;
            crate::timer::shared().wake_at(deadline, &this);
        }
        drop(state);
        self.work.notify_one();
    }

    /// Refuses the tasks that have waited for longer than they wanted to.
    fn expire(&self, now: Instant) -> (Vec<Box<dyn Task>>, Option<Instant>) {
        let mut state = lock(&self.state);
        let is_due = |task: &dyn Task| task.patience().deadline.is_some_and(|at| at <= now);
        let tasks = std::mem::take(&mut state.tasks);
        let (due, left): (Vec<_>, Vec<_>) = tasks.into_iter().partition(|task| is_due(&**task));
        state.tasks = left.into();
        let deadlines = state.tasks.iter();
        state.call = deadlines
            .filter_map(|task| task.patience().deadline)
            .min();
        (due, state.call)
    }

    fn start(&self, state: &mut State, readers: &Arc<Readers>) -> Result<()> {
        state.handles.retain(|handle| !is_finished(handle));
        let name = format!("onepen-read-{}", state.started);
        let readers = Arc::clone(readers);
        let handle = spawn(name, move || readers.threads.serve(&readers))
            .map_err(|error| Error::io("could not start a thread to read on", error))?;
        state.started += 1;
        state.alive += 1;
        state.handles.push(handle);
        Ok(())
    }

    fn serve(&self, readers: &Arc<Readers>) {
        let mut state = lock(&self.state);
        loop {
            if let Some(task) = state.tasks.pop_front() {
                drop(state);
                // A task catches the panics of the code it runs. What is left are
                // the destructors of what nobody waits for any more.
                let _ = catch_unwind(AssertUnwindSafe(|| task.run(readers)));
                state = lock(&self.state);
                continue;
            }
            if state.closed {
                break;
            }
            state.idle += 1;
            let (woken, timeout) = self
                .work
                .wait_timeout(state, IDLE)
                .unwrap_or_else(std::sync::PoisonError::into_inner);
            state = woken;
            state.idle -= 1;
            if timeout.timed_out() && state.tasks.is_empty() {
                break;
            }
        }
        state.alive -= 1;
    }

    /// Refuses what is queued and waits for what runs. On one of its own
    /// threads it waits for the others only.
    pub(super) fn close(&self) {
        let mut state = lock(&self.state);
        state.closed = true;
        let refused = std::mem::take(&mut state.tasks);
        let handles = std::mem::take(&mut state.handles);
        drop(state);
        self.work.notify_all();
        for task in refused {
            task.refuse(closed());
        }
        for handle in handles {
            if handle.thread().id() != thread::current().id() {
                let _ = handle.join();
            }
        }
    }
}

impl Expires for Readers {
    fn expire(&self, now: Instant) -> Option<Instant> {
        let (due, again) = self.threads.expire(now);
        for task in due {
            let waited = Waited::new(WaitedFor::Reader, task.patience().since.elapsed());
            let error = self.connector.context(deadline_exceeded(waited));
            let _ = catch_unwind(AssertUnwindSafe(|| task.refuse(error)));
        }
        again
    }
}

#[cfg(not(any(onepen_loom, onepen_shuttle)))]
fn spawn(
    name: String,
    run: impl FnOnce() + Send + 'static,
) -> std::io::Result<thread::JoinHandle<()>> {
    thread::Builder::new().name(name).spawn(run)
}

#[cfg(any(onepen_loom, onepen_shuttle))]
fn spawn(
    _name: String,
    run: impl FnOnce() + Send + 'static,
) -> std::io::Result<thread::JoinHandle<()>> {
    Ok(thread::spawn(run))
}

#[cfg(not(any(onepen_loom, onepen_shuttle)))]
fn is_finished(handle: &thread::JoinHandle<()>) -> bool {
    handle.is_finished()
}

#[cfg(any(onepen_loom, onepen_shuttle))]
fn is_finished(_handle: &thread::JoinHandle<()>) -> bool {
    false
}
