//! Waking those whose jobs are done, with as few wake-ups as possible.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::Waker;

use super::job::{self, Member, NO_WORD};
use super::{Pen, WORDS};
use crate::engine::Engine;
use crate::sync::{Ordering, WaitWord, fence};

/// Sleepers to wake once no lock is held.
#[derive(Default)]
pub(crate) struct Wake {
    words: u32,
    /// How many callers sleep on them.
    sleepers: usize,
    pub(super) lobby: bool,
    pub(super) wakers: Vec<Waker>,
}

impl Wake {
    /// Makes the answer of `job` final.
    pub(crate) fn add<E>(&mut self, job: &dyn Member<E>) {
        self.wakers.extend(job.finish());
        let word = &job.header().word;
        // A task's job has none from the beginning; only a blocked caller moves.
        if word.load(Ordering::Relaxed) != NO_WORD {
            fence(Ordering::SeqCst); // see `choose_word`
            self.sleepers += 1;
            self.words |= 1 << word.load(Ordering::Relaxed);
        }
    }

    /// How many blocked callers there are to wake.
    pub(super) fn sleepers(&self) -> usize {
        self.sleepers
    }

    /// The words of the blocked callers, for somebody else to wake.
    pub(super) fn take_words(&mut self) -> u32 {
        self.sleepers = 0;
        std::mem::take(&mut self.words)
    }

    /// Wakes them. Keeps the allocation for the next time.
    pub(crate) fn wake_all<E: Engine>(&mut self, pen: &Pen<E>) {
        pen.wake_words(self.take_words());
        if self.lobby {
            pen.admitted.advance();
        }
        self.wakers.drain(..).for_each(wake_task);
        self.lobby = false;
    }
}

/// A waker is foreign code: its panic is not our business.
pub(super) fn wake_task(waker: Waker) {
    let _ = catch_unwind(AssertUnwindSafe(|| waker.wake()));
}

impl<E: Engine> Pen<E> {
    /// The word for a job that is queued now. A job that moves is not missed:
    /// [`Wake::add`] reads the word after the answer is final, we look at the
    /// answer after the word is stored, and of the two fences in between one is
    /// the first. (Fences, because loom takes `SeqCst` accesses for weaker ones.)
    pub(super) fn choose_word(&self, header: &job::Header) -> &WaitWord {
        let word = self.epoch.load(Ordering::Relaxed) % WORDS as u8;
        header.word.store(word, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        &self.words[word as usize]
    }

    /// Wakes those whose jobs are done, each sleeping place once.
    pub(crate) fn wake_words(&self, words: u32) {
        for (index, word) in self.words.iter().enumerate() {
            if words & (1 << index) != 0 {
                word.advance();
            }
        }
    }

    pub(crate) fn next_epoch(&self) {
        self.epoch.fetch_add(1, Ordering::Relaxed);
    }
}
