//! Which generation of a process this is: 0 until it forks, and another one in
//! each child.
//!
//! The kernel is not asked who we are at each call: a handler that `fork` runs in
//! the child counts the generation up, so asking costs one load.
//!
//! A child made without the C library's `fork` (a bare `clone` system call) is
//! not noticed. `vfork` and `posix_spawn` run no handler either, and need none:
//! such a child may do nothing but `exec`.

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
        // process with several threads.
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
