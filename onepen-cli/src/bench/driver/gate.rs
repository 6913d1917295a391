//! Nobody starts before everybody is ready, and everybody is told at the same
//! moment that the time is over.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// The gate of one process.
pub struct Gate {
    over: AtomicBool,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    missing: usize,
    failed: Option<String>,
    opened: Option<Instant>,
}

impl Gate {
    /// For this many threads.
    pub fn new(threads: usize) -> Self {
        Self {
            over: AtomicBool::new(false),
            state: Mutex::new(State {
                missing: threads,
                failed: None,
                opened: None,
            }),
            changed: Condvar::new(),
        }
    }

    /// A thread is ready, or could not become so; blocks until the start.
    /// `false`: there will be none.
    pub fn arrive(&self, ready: Result<(), String>) -> bool {
        let mut state = self.state();
        state.missing -= 1;
        if let Err(why) = ready {
            state.failed.get_or_insert(why);
        }
        self.changed.notify_all();
        while state.opened.is_none() && !self.is_over() {
            state = self.wait(state);
        }
        state.opened.is_some()
    }

    /// Waits until all are ready, or one has failed.
    pub fn all_ready(&self) -> Result<(), String> {
        let mut state = self.state();
        while state.missing > 0 {
            state = self.wait(state);
        }
        state.failed.clone().map_or(Ok(()), Err)
    }

    /// Lets them go.
    pub fn open(&self) -> Instant {
        let mut state = self.state();
        self.changed.notify_all();
        *state.opened.insert(Instant::now())
    }

    /// Tells them that the time is over.
    pub fn close(&self) {
        // Under the lock, so that nobody misses it between looking and waiting.
        let _state = self.state();
        self.over.store(true, Ordering::Relaxed);
        self.changed.notify_all();
    }

    /// Whether the time is over.
    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, guard: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.changed
            .wait(guard)
            .unwrap_or_else(PoisonError::into_inner)
    }
}
