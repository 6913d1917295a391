//! Keeps something for the owner of each slot.
//!
//! This is the one `unsafe` of the checkout: a slot's content is reached by
//! whoever owns the slot, and [`Slots`](super::slots::Slots) lets one own it.

use std::cell::UnsafeCell;

use crate::sync::{AtomicBool, Ordering};

/// Padded like the slots: what a reader writes while it works must not share a
/// cache line with its neighbour's.
#[repr(align(128))]
struct Desk<T> {
    content: UnsafeCell<Option<T>>,
    filled: AtomicBool,
}

pub(super) struct Desks<T>(Box<[Desk<T>]>);

// SAFETY: contents move between threads (`T: Send`), and `content` promises
// that no two threads reach the same one at the same time.
unsafe impl<T: Send> Sync for Desks<T> {}

impl<T> Desks<T> {
    pub(super) fn new(count: usize) -> Self {
        let empty = || Desk {
            content: UnsafeCell::new(None),
            filled: AtomicBool::new(false),
        };
        Self((0..count).map(|_| empty()).collect())
    }

    /// Whether there was something when its owner last left.
    pub(super) fn is_filled(&self, index: usize) -> bool {
        self.0[index].filled.load(Ordering::Relaxed)
    }

    /// What is kept at slot `index`.
    ///
    /// # Safety
    /// The caller owns the slot, and lets no other reference to its content
    /// live while it changes it.
    pub(super) unsafe fn get(&self, index: usize) -> &Option<T> {
        // SAFETY: by the caller's promise nobody changes it meanwhile.
        unsafe { &*self.0[index].content.get() }
    }

    /// Replaces what is kept at slot `index`.
    ///
    /// # Safety
    /// The caller owns the slot, and no reference from `get` is alive.
    pub(super) unsafe fn replace(&self, index: usize, content: Option<T>) -> Option<T> {
        self.0[index]
            .filled
            .store(content.is_some(), Ordering::Relaxed);
        // SAFETY: by the caller's promise nobody looks at it meanwhile.
        unsafe { std::mem::replace(&mut *self.0[index].content.get(), content) }
    }
}
