//! Threads that read for those who must not block: tasks of an async runtime.
//!
//! A small set of threads serves one queue in the order of arrival. Threads
//! are started when there is work and nobody idle, at most so many, and end
//! when they were idle for a while or the readers are closed.

use std::collections::VecDeque;
use std::time::Duration;

use super::Readers;
use super::slots::closed;
use crate::error::{Error, Result};
use crate::sync::{Arc, Condvar, Mutex, lock, thread};

/// How long a thread without work stays.
const IDLE: Duration = Duration::from_secs(5);

/// A piece of work, which is told one of the two.
pub(super) trait Task: Send {
    fn run(self: Box<Self>, readers: &Arc<Readers>);
    fn refuse(self: Box<Self>, error: Error);
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
                // A task catches the panics of the code it runs.
                task.run(readers);
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
