//! An allocator that counts the bytes that are allocated and not yet freed.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicI64, Ordering};

/// The system's allocator, counting what was asked of it (what it rounds up
/// to is its own affair).
pub struct Counting;

static BYTES: AtomicI64 = AtomicI64::new(0);

/// How many bytes are allocated now.
pub fn bytes() -> i64 {
    BYTES.load(Ordering::Relaxed)
}

fn add(bytes: usize) {
    BYTES.fetch_add(bytes as i64, Ordering::Relaxed);
}

fn subtract(bytes: usize) {
    BYTES.fetch_sub(bytes as i64, Ordering::Relaxed);
}

// SAFETY: every call is passed on to `System` with the arguments it came with,
// so `System` upholds the contract of the trait; the counter is touched beside
// it and never allocates.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        add(layout.size());
        // SAFETY: the caller upholds the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        subtract(layout.size());
        // SAFETY: the caller upholds the contract of `dealloc`, and the
        // pointer came from `System`.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        subtract(layout.size());
        add(size);
        // SAFETY: the caller upholds the contract of `realloc`, and the
        // pointer came from `System`.
        unsafe { System.realloc(pointer, layout, size) }
    }
}
