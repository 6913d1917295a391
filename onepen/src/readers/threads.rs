//! Threads that read for those who must not block: tasks of an async runtime.
//!
//! A small set of threads serves one queue in the order of arrival. Threads
//! are started when there is work and nobody idle, at most so many, and end
//! when they were idle for a while or the readers are closed.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Weak;
use std::time::{Duration, Instant};

use super::Readers;
use super::slots::closed;
use crate::cancel::Cancel;
use crate::engine::Patience;
use crate::error::{Error, ErrorKind, Result, Waited, WaitedFor};
use crate::pen::{WhenFull, gave_up};
use crate::sync::{Arc, Condvar, Mutex, lock, spawn, thread};
use crate::timer::Expires;

impl Expires for Readers {
    fn expire(&self, _now: Instant) -> Option<Instant> {
        self.threads.sweep()
    }
}

/// How long a thread without work stays.
const IDLE: Duration = Duration::from_secs(5);

/// A piece of work, which is told one of the two.
pub(super) trait Task: Send {
    fn run(self: Box<Self>, readers: &Arc<Readers>);
    fn refuse(self: Box<Self>, error: Error);
    /// When waiting ends.
    fn deadline(&self) -> Option<Instant>;
    /// Why it is over before it began, if it is.
    fn given_up(&self) -> Option<Error>;
}

/// What a task that waits with these limits says.
pub(super) fn given_up(limits: &super::Limits, since: Instant) -> Option<Error> {
    let why = limits.exhausted()?;
    Some(gave_up(
        why,
        Waited::new(WaitedFor::Reader, since.elapsed()),
    ))
}

/// Looks through the queue when a token is cancelled, while `life` lives.
pub(super) struct Sweep<L> {
    pub(super) readers: Weak<Readers>,
    pub(super) life: Weak<L>,
}

impl<L: Send + Sync> Cancel for Sweep<L> {
    fn cancel(&self) {
        if let Some(readers) = self.readers.upgrade() {
            readers.threads.sweep();
        }
    }

    fn is_over(&self) -> bool {
        self.life.strong_count() == 0
    }
}

pub(super) struct Threads {
    state: Mutex<State>,
    work: Condvar,
    at_most: usize,
}

struct State {
    tasks: VecDeque<Box<dyn Task>>,
    /// When the timer will call us: the earliest is the last.
    calls: Vec<Instant>,
    alive: usize,
    idle: usize,
    handles: Vec<thread::JoinHandle<()>>,
    started: usize,
    closed: bool,
}

impl Threads {
    pub(super) fn new(at_most: usize) -> Self {
        Self {
            state: Mutex::new(State {
                tasks: VecDeque::new(),
                calls: Vec::new(),
                alive: 0,
                idle: 0,
                handles: Vec::new(),
                started: 0,
                closed: false,
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
        let limits = &readers.connector.options.limits;
        if limits.when_full == WhenFull::Refuse && state.tasks.len() >= limits.queue_members {
            let waiting = state.tasks.len();
            drop(state);
            task.refuse(Error::new(
                ErrorKind::QueueFull,
                format!("{waiting} asynchronous reads wait already"),
            ));
            return;
        }
        if let Some(at) = task.deadline()
            && let Some(timer) = super::pool::timer()
            && state.calls.last().is_none_or(|&earliest| at < earliest)
        {
            state.calls.push(at);
            let this: Arc<dyn Expires> = Arc::clone(readers) as _;
            timer.wake_at(at, &this);
        }
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
        drop(state);
        self.work.notify_one();
    }

    /// Ends what waits for nothing any more; says when to look again.
    pub(super) fn sweep(&self) -> Option<Instant> {
        let now = Instant::now();
        let mut state = lock(&self.state);
        while state.calls.pop_if(|at| *at <= now).is_some() {}
        let mut over = Vec::new();
        for task in std::mem::take(&mut state.tasks) {
            match task.given_up() {
                Some(error) => over.push((task, error)),
                None => state.tasks.push_back(task),
            }
        }
        let earliest = state.tasks.iter().filter_map(|task| task.deadline()).min();
        // Asked for only when no call comes earlier anyway.
        let again = earliest.filter(|again| state.calls.last().is_none_or(|call| again < call));
        state.calls.extend(again);
        drop(state);
        for (task, error) in over {
            // With it goes its closure, and what that owns.
            let _ = catch_unwind(AssertUnwindSafe(|| task.refuse(error)));
        }
        again
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

#[cfg(not(any(onepen_loom, onepen_shuttle)))]
fn is_finished(handle: &thread::JoinHandle<()>) -> bool {
    handle.is_finished()
}

#[cfg(any(onepen_loom, onepen_shuttle))]
fn is_finished(_handle: &thread::JoinHandle<()>) -> bool {
    false
}
