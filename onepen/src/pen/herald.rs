//! A second thread that wakes the members of large groups.
//!
//! Waking a blocked thread takes the kernel longer than writing a row takes
//! SQLite. While the writer thread wakes a hundred callers it could have run and
//! committed half of the next group; so from [`Limits::wake_beside`] blocked
//! members on it only rings, and the herald wakes them while the writer thread
//! goes on. Smaller groups are woken by the writer thread: to ring would cost more.
//!
//! Rings may run together: what is kept is a set of words, and a caller that is
//! woken too early looks and sleeps again. The herald is started by the first
//! large group, and outlives every ring: [`Herald::stop`] comes after the last.
//!
//! [`Limits::wake_beside`]: super::Limits::wake_beside

use super::Pen;
use crate::engine::Engine;
use crate::sync::{Arc, AtomicU32, Ordering, WaitWord, spawn, thread};

/// Beyond the bits of the words: nothing comes after this.
const LAST: u32 = 1 << 31;

/// Where the writer thread rings.
pub(crate) struct Bell {
    rung: WaitWord,
    words: AtomicU32,
}

impl Bell {
    pub(super) fn new() -> Self {
        Self {
            rung: WaitWord::new(),
            words: AtomicU32::new(0),
        }
    }

    fn ring(&self, words: u32) {
        self.words.fetch_or(words, Ordering::SeqCst);
        self.rung.advance();
    }

    /// Sleeps until there is something to wake.
    fn listen(&self) -> u32 {
        loop {
            let seen = self.rung.current();
            match self.words.swap(0, Ordering::SeqCst) {
                0 => self.rung.wait(seen, None),
                words => return words,
            }
        }
    }
}

/// The thread, as its writer thread knows it.
#[derive(Default)]
pub(super) enum Herald {
    #[default]
    NotStarted,
    Listens(thread::JoinHandle<()>),
    /// The system has no thread for us; the writer thread wakes everybody.
    Refused,
}

impl Herald {
    /// Has `words` woken beside the caller; `false` when there is no thread to
    /// do it.
    pub(super) fn wake<E: Engine>(&mut self, pen: &Arc<Pen<E>>, words: u32) -> bool {
        if matches!(self, Self::NotStarted) {
            let its = Arc::clone(pen);
            let name = match pen.name.get() {
                Some(name) => format!("onepen-wake {name}"),
                None => "onepen-wake".to_owned(),
            };
            *self = match spawn(name, move || serve(&its)) {
                Ok(thread) => Self::Listens(thread),
                Err(_) => Self::Refused,
            };
        }
        let listens = matches!(self, Self::Listens(_));
        if listens {
            pen.bell.ring(words);
        }
        listens
    }

    /// Waits until everybody is awake.
    pub(super) fn stop<E: Engine>(self, pen: &Pen<E>) {
        if let Self::Listens(thread) = self {
            pen.bell.ring(LAST);
            let _ = thread.join();
        }
    }
}

fn serve<E: Engine>(pen: &Pen<E>) {
    loop {
        let words = pen.bell.listen();
        pen.wake_words(words & !LAST);
        if words & LAST != 0 {
            return;
        }
    }
}
