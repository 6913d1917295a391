//! The one place where the crate meets threads, locks and atomics.
//!
//! Everything above imports from here, so that the same code runs over `std`
//! in a program, over [loom](https://docs.rs/loom) when built with
//! `--cfg onepen_loom`, and over [shuttle](https://docs.rs/shuttle) with
//! `--cfg onepen_shuttle`. Neither model ever fires a timeout; deadlines
//! therefore go through [`crate::timer`], which a model drives by hand.
//!
//! `Arc` is always std's: reference counts are not what we model, and only
//! std's coerces to `Arc<dyn Trait>`.

pub(crate) use std::sync::Arc;

#[cfg(onepen_loom)]
pub(crate) use loom::{
    sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering, fence},
    sync::{Condvar, Mutex, MutexGuard},
    thread, thread_local,
};

#[cfg(all(onepen_shuttle, not(onepen_loom)))]
pub(crate) use shuttle::{
    sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering, fence},
    sync::{Condvar, Mutex, MutexGuard},
    thread, thread_local,
};

#[cfg(not(any(onepen_loom, onepen_shuttle)))]
pub(crate) use std::{
    sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering, fence},
    sync::{Condvar, Mutex, MutexGuard},
    thread, thread_local,
};

use std::time::Instant;

/// Locks, and looks through poisoning: foreign code never runs under a lock of
/// ours, so a poisoned one only means that some thread died elsewhere.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Sleeps; in a model, where time does not pass, lets the others run.
pub(crate) fn pause(duration: std::time::Duration) {
    #[cfg(not(any(onepen_loom, onepen_shuttle)))]
    thread::sleep(duration);
    #[cfg(any(onepen_loom, onepen_shuttle))]
    {
        let _ = duration;
        thread::yield_now();
    }
}

/// Starts a thread; a model has no names for its threads.
///
/// # Errors
/// When the system has no more threads for us.
pub(crate) fn spawn(
    name: String,
    run: impl FnOnce() + Send + 'static,
) -> std::io::Result<thread::JoinHandle<()>> {
    #[cfg(not(any(onepen_loom, onepen_shuttle)))]
    return thread::Builder::new().name(name).spawn(run);
    #[cfg(any(onepen_loom, onepen_shuttle))]
    {
        drop(name);
        Ok(thread::spawn(run))
    }
}

/// A word on which any number of threads sleep until it moves on.
///
/// A waiter reads [`current`](Self::current), checks its own condition, and
/// sleeps with the value it read; whoever changes a condition calls
/// [`advance`](Self::advance) afterwards. A change between the check and the
/// sleep is not missed, because the word has moved by then. One `advance`
/// wakes every sleeper with a single system call, which is what makes
/// acknowledging a whole group cheap.
pub(crate) struct WaitWord {
    inner: word::Word,
}

impl WaitWord {
    pub(crate) fn new() -> Self {
        Self {
            inner: word::Word::new(),
        }
    }

    pub(crate) fn current(&self) -> u32 {
        self.inner.current()
    }

    /// Sleeps until the word differs from `seen`, or until `deadline`. May
    /// also return for no reason at all: callers loop.
    pub(crate) fn wait(&self, seen: u32, deadline: Option<Instant>) {
        self.inner.wait(seen, deadline);
    }

    pub(crate) fn advance(&self) {
        self.inner.advance();
    }
}

/// Linux: the word is a futex.
#[cfg(all(target_os = "linux", not(any(onepen_loom, onepen_shuttle))))]
mod word {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Instant;

    use rustix::thread::futex;

    pub(super) struct Word(AtomicU32);

    impl Word {
        pub(super) fn new() -> Self {
            Self(AtomicU32::new(0))
        }

        pub(super) fn current(&self) -> u32 {
            self.0.load(Ordering::SeqCst)
        }

        pub(super) fn wait(&self, seen: u32, deadline: Option<Instant>) {
            let timeout = match deadline {
                None => None,
                Some(at) => match at.checked_duration_since(Instant::now()) {
                    None => return,
                    Some(left) => Some(futex::Timespec {
                        tv_sec: left.as_secs().try_into().unwrap_or(i64::MAX),
                        tv_nsec: left.subsec_nanos().into(),
                    }),
                },
            };
            // Every error (woken, value moved on, timed out, interrupted) means
            // the same to the caller: look again.
            let _ = futex::wait(&self.0, futex::Flags::PRIVATE, seen, timeout.as_ref());
        }

        // All at once by one thread. Waking two that wake two more each was tried
        // and was far slower: the first to be awake filled the next group alone.
        pub(super) fn advance(&self) {
            self.0.fetch_add(1, Ordering::SeqCst);
            let _ = futex::wake(&self.0, futex::Flags::PRIVATE, i32::MAX as u32);
        }
    }
}

/// Elsewhere, and in the models: a mutex and a condition variable.
#[cfg(not(all(target_os = "linux", not(any(onepen_loom, onepen_shuttle)))))]
mod word {
    use std::time::Instant;

    use super::{Condvar, Mutex, lock};

    pub(super) struct Word(Mutex<u32>, Condvar);

    impl Word {
        pub(super) fn new() -> Self {
            Self(Mutex::new(0), Condvar::new())
        }

        pub(super) fn current(&self) -> u32 {
            *lock(&self.0)
        }

        pub(super) fn wait(&self, seen: u32, deadline: Option<Instant>) {
            let word = lock(&self.0);
            if *word != seen {
                return;
            }
            match deadline {
                None => drop(self.1.wait(word)),
                Some(at) => {
                    if let Some(left) = at.checked_duration_since(Instant::now()) {
                        drop(self.1.wait_timeout(word, left));
                    }
                }
            }
        }

        pub(super) fn advance(&self) {
            let mut word = lock(&self.0);
            *word = word.wrapping_add(1);
            drop(word);
            self.1.notify_all();
        }
    }
}
