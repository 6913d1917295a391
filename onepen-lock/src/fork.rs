//! Which generation of a process this is: 0 until it forks, and another one in
//! each child.
//!
//! The kernel is not asked who we are at each call: a handler that `fork` runs in
//! the child counts the generation up, so asking costs one load.
//!
//! A child made without the C library's `fork` (a bare `clone` system call) is
//! not noticed. `vfork` and `posix_spawn` run no handler either, and need none:
//! such a child may do nothing but `exec`.

#[cfg(target_os = "linux")]
use std::sync::atomic::AtomicPtr;
#[cfg(target_os = "linux")]
use std::sync::atomic::Ordering::{AcqRel, Acquire};

/// The generation, to be kept beside what is opened now. From here on forks are
/// noticed.
pub fn born() -> u32 {
    imp::watch();
    imp::generation()
}

/// The generation of this process.
pub fn generation() -> u32 {
    imp::generation()
}

/// A value that each process has for itself: a forked child has a new one.
///
/// For locks: of the parent's lock a child has a copy, and if another thread of the
/// parent held it at the fork, nobody in the child ever lets it go.
#[cfg(target_os = "linux")]
pub(crate) struct PerProcess<T>(AtomicPtr<Own<T>>);

#[cfg(target_os = "linux")]
struct Own<T> {
    born: u32,
    value: T,
}

#[cfg(target_os = "linux")]
impl<T: Default + Send + Sync + 'static> PerProcess<T> {
    pub(crate) const fn new() -> Self {
        Self(AtomicPtr::new(std::ptr::null_mut()))
    }

    /// This process's. Never freed; what the parent had is left as it is.
    pub(crate) fn get(&self) -> &'static T {
        let born = born();
        let mut found = self.0.load(Acquire);
        loop {
            // SAFETY: null, or what was leaked below and is shared from then on.
            if let Some(own) = unsafe { found.as_ref() }.filter(|own| own.born == born) {
                return &own.value;
            }
            let value = T::default();
            let new = Box::into_raw(Box::new(Own { born, value }));
            match self.0.compare_exchange(found, new, AcqRel, Acquire) {
                Ok(_) => found = new,
                Err(other) => {
                    // SAFETY: made above, and nobody else has seen it.
                    drop(unsafe { Box::from_raw(new) });
                    found = other;
                }
            }
        }
    }
}

#[cfg(unix)]
mod imp {
    // Not those of `crate::sync`: the handler runs where no model does.
    use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};

    static GENERATION: AtomicU32 = AtomicU32::new(0);
    static WATCHED: AtomicBool = AtomicBool::new(false);

    // Relaxed is enough: `fork` itself stands between the addition and every
    // load in the child, which has a single thread at that moment.
    extern "C" fn in_child() {
        GENERATION.fetch_add(1, Relaxed);
    }

    pub(super) fn generation() -> u32 {
        GENERATION.load(Relaxed)
    }

    /// No lock and no `Once` here: a fork in the middle of it would leave them
    /// taken in the child for ever. Two threads that come first together both
    /// register, and a child then counts two steps instead of one.
    pub(super) fn watch() {
        if WATCHED.load(Relaxed) {
            return;
        }
        // SAFETY: `in_child` is a function of this library, which is never
        // unloaded while it is registered (the C library drops the handlers of
        // a library that it unloads), and it does nothing but one atomic
        // addition, which POSIX allows between `fork` and `exec`.
        let refused = unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
        // ENOMEM is the only refusal: the next opening tries again.
        WATCHED.store(refused == 0, Relaxed);
    }
}

#[cfg(not(unix))]
mod imp {
    pub(super) fn watch() {}

    pub(super) fn generation() -> u32 {
        0
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    /// What `question` answers in a forked child, as the child's exit code.
    /// `question` must not take a lock: another thread of the test binary may
    /// hold it, and in the child nobody lets it go.
    fn in_a_child(question: fn(u32) -> bool, born: u32) -> bool {
        // SAFETY: the child calls nothing but loads, arithmetic, `fork`,
        // `waitpid` and `_exit`, all of which POSIX allows in the child of a
        // process with several threads, and the allocator, which the C library
        // keeps fit for use over a fork.
        unsafe {
            match libc::fork() {
                -1 => panic!("fork failed"),
                0 => libc::_exit(i32::from(!question(born))),
                child => {
                    let mut status = 0;
                    assert_eq!(libc::waitpid(child, &raw mut status, 0), child);
                    libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0
                }
            }
        }
    }

    #[test]
    fn what_was_opened_before_a_fork_is_refused_in_the_child_alone() {
        let before = born();
        assert!(in_a_child(|before| imp::generation() != before, before));
        assert_eq!(born(), before);
    }

    #[test]
    fn what_the_child_opens_itself_works_there() {
        assert!(in_a_child(
            |before| {
                let own = born();
                own != before && imp::generation() == own
            },
            born()
        ));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_lock_that_was_taken_at_the_fork_is_free_in_the_child() {
        static LOCK: PerProcess<std::sync::Mutex<u32>> = PerProcess::new();
        let taken = LOCK.get().lock().unwrap();
        assert!(LOCK.get().try_lock().is_err(), "it is one for all threads");
        assert!(in_a_child(|_| LOCK.get().try_lock().is_ok(), born()));
        drop(taken);
    }

    #[test]
    fn a_grandchild_is_neither_its_parent_nor_its_grandparent() {
        assert!(in_a_child(
            |first| {
                let second = born();
                second != first && in_a_child(|second| imp::generation() != second, second)
            },
            born()
        ));
    }
}
