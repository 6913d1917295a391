//! What joins a refused lock to the sleep that follows it.
//!
//! SQLite's busy handler is called after a lock was refused, on the same thread,
//! and sleeps through the VFS, which is not told for which file. So the file that
//! refused last is remembered per thread, until another file of ours is asked for a
//! lock by that thread.

use std::cell::RefCell;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::time::Duration;

use crate::turns::Turns;

thread_local! {
    static REFUSED: RefCell<Option<Weak<Turns>>> = const { RefCell::new(None) };
}

/// How many threads remember a file. Almost always 0, and then nobody looks.
static REMEMBER: AtomicUsize = AtomicUsize::new(0);

/// A lock of this file was refused because it was not its turn, or because somebody
/// who does not queue has it.
pub fn refused(turns: &Arc<Turns>) {
    let _ = REFUSED.try_with(|refused| {
        if refused.replace(Some(Arc::downgrade(turns))).is_none() {
            REMEMBER.fetch_add(1, Relaxed);
        }
    });
}

/// Whether any thread remembers a file, so that [`asked`] has something to do.
#[inline]
pub fn does_anybody_remember() -> bool {
    REMEMBER.load(Relaxed) != 0
}

/// This file is asked for a lock: no other one's refusal is the last any more.
#[inline]
pub fn asked(turns: &Arc<Turns>) {
    if does_anybody_remember() {
        forget_unless(|refused| std::ptr::eq(refused.as_ptr(), Arc::as_ptr(turns)));
    }
}

/// The last refusal is over.
pub fn over() {
    if does_anybody_remember() {
        forget_unless(|_| false);
    }
}

fn forget_unless(keep: impl Fn(&Weak<Turns>) -> bool) {
    let _ = REFUSED.try_with(|refused| {
        let mut refused = refused.borrow_mut();
        if refused.as_ref().is_some_and(|refused| !keep(refused)) {
            *refused = None;
            REMEMBER.fetch_sub(1, Relaxed);
        }
    });
}

/// Waits for the turn of the file that refused last, for so long at most. `false`:
/// there is none, and nobody has waited.
pub fn sleep(microseconds: i32) -> bool {
    if !does_anybody_remember() {
        return false;
    }
    let refused = REFUSED
        .try_with(|refused| refused.borrow().as_ref().and_then(Weak::upgrade))
        .ok()
        .flatten();
    let time = Duration::from_micros(u64::from(microseconds.unsigned_abs()));
    refused.is_some_and(|turns| turns.sleep(time))
}
