//! What this thread holds, so that it is never made to wait for itself.

use std::cell::RefCell;
use std::marker::PhantomData;

crate::sync::thread_local! {
    #[allow(clippy::missing_const_for_thread_local, reason = "loom's macro does not know that form")]
    /// The pens, permits and shared connections that this thread holds.
    static INSIDE: RefCell<Vec<usize>> = RefCell::new(Vec::new());
}

/// A number for something that can be held.
pub(crate) fn new_id() -> usize {
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
    static NEXT: AtomicUsize = AtomicUsize::new(1);
    NEXT.fetch_add(1, Relaxed)
}

/// Marks this thread as holding something, while it lives. Stays on its thread.
pub(crate) struct Inside(usize, PhantomData<*const ()>);

impl Inside {
    pub(crate) fn enter(id: usize) -> Self {
        INSIDE.with(|inside| inside.borrow_mut().push(id));
        Self(id, PhantomData)
    }

    /// Whether this thread holds it.
    pub(crate) fn is_in(id: usize) -> bool {
        INSIDE.with(|inside| inside.borrow().contains(&id))
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        // A guard of somebody may outlive this thread's storage.
        let _ = INSIDE.try_with(|inside| {
            let mut inside = inside.borrow_mut();
            // Guards may be dropped in any order.
            if let Some(last) = inside.iter().rposition(|id| *id == self.0) {
                inside.remove(last);
            }
        });
    }
}
