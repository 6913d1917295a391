//! Deadlines, fired by one thread per process, or by hand in a model.
//!
//! Nobody who waits in a queue keeps a timer of his own: a queue remembers
//! only its earliest deadline, and asks to be looked at then. With the usual
//! equal deadlines that is one wake-up per deadline *span*, however many
//! writes pass through, so a deadline costs a write two loads.

use std::time::Instant;

use crate::sync::Arc;

/// Something with deadlines inside it.
pub(crate) trait Expires: Send + Sync {
    /// Fires everything due at `now`; says when to come back.
    fn expire(&self, now: Instant) -> Option<Instant>;
}

/// Asks for [`Expires::expire`] at a time. Injected, so that a model can fire
/// deadlines from a task of its own.
pub(crate) trait Timer: Send + Sync {
    /// Calls `target.expire` at `at` or soon after, unless it is gone by then.
    fn wake_at(&self, at: Instant, target: &Arc<dyn Expires>);
}

/// When a queue will be looked at: asked for only when no look comes earlier
/// anyway. Were every look renewed, they would pile up for as long as somebody
/// waits.
#[derive(Default)]
pub(crate) struct Calls(Vec<Instant>); // the earliest is the last

impl Calls {
    /// Whether a look at `deadline` has to be asked for; takes note of it then.
    pub(crate) fn ask(&mut self, deadline: Instant) -> bool {
        let first = self.0.last().is_none_or(|&earliest| deadline < earliest);
        if first {
            self.0.push(deadline);
        }
        first
    }

    /// The looks due at `now` have come.
    pub(crate) fn answered(&mut self, now: Instant) {
        while self.0.pop_if(|at| *at <= now).is_some() {}
    }
}

/// The real one: a thread that sleeps until the earliest request.
#[cfg(not(any(onepen_loom, onepen_shuttle)))]
pub(crate) use real::shared;

/// In a model no time passes by itself.
#[cfg(any(onepen_loom, onepen_shuttle))]
pub(crate) fn shared() -> Arc<dyn Timer> {
    struct Never;
    impl Timer for Never {
        fn wake_at(&self, _: Instant, _: &Arc<dyn Expires>) {}
    }
    Arc::new(Never)
}

#[cfg(not(any(onepen_loom, onepen_shuttle)))]
mod real {
    use std::cmp::Reverse;
    use std::collections::BinaryHeap;
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::{Arc, Condvar, Mutex, OnceLock, Weak};
    use std::time::Instant;

    use super::{Expires, Timer};
    use crate::sync::lock;

    struct Request {
        at: Instant,
        target: Weak<dyn Expires>,
    }

    impl PartialEq for Request {
        fn eq(&self, other: &Self) -> bool {
            self.at == other.at
        }
    }
    impl Eq for Request {}
    impl PartialOrd for Request {
        fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
            Some(self.cmp(other))
        }
    }
    impl Ord for Request {
        fn cmp(&self, other: &Self) -> std::cmp::Ordering {
            self.at.cmp(&other.at)
        }
    }

    #[derive(Default)]
    struct Requests {
        heap: BinaryHeap<Reverse<Request>>,
        // The pid of the process whose thread serves the heap: a forked child
        // has the memory but not the thread.
        served_by: Option<u32>,
    }

    #[derive(Default)]
    struct TimerThread {
        requests: Mutex<Requests>,
        earlier: Condvar,
    }

    fn timer_thread() -> &'static Arc<TimerThread> {
        static SHARED: OnceLock<Arc<TimerThread>> = OnceLock::new();
        SHARED.get_or_init(Arc::default)
    }

    /// The timer of this process; its thread starts with the first request.
    pub(crate) fn shared() -> Arc<dyn Timer> {
        Arc::clone(timer_thread()) as Arc<dyn Timer>
    }

    impl Timer for TimerThread {
        fn wake_at(&self, at: Instant, target: &Arc<dyn Expires>) {
            let mut requests = lock(&self.requests);
            let first = requests
                .heap
                .peek()
                .is_none_or(|Reverse(first)| at < first.at);
            requests.heap.push(Reverse(Request {
                at,
                target: Arc::downgrade(target),
            }));
            if requests.served_by != Some(std::process::id()) {
                let started = std::thread::Builder::new()
                    .name("onepen-timer".into())
                    .spawn(|| timer_thread().serve());
                // Without its thread deadlines in queues fire late: when the
                // queue moves. Nothing hangs that would not hang anyway.
                if started.is_ok() {
                    requests.served_by = Some(std::process::id());
                }
            } else if first {
                self.earlier.notify_one();
            }
        }
    }

    impl TimerThread {
        fn serve(&self) {
            let mut requests = lock(&self.requests);
            loop {
                let now = Instant::now();
                match requests.heap.peek() {
                    None => {
                        requests = self
                            .earlier
                            .wait(requests)
                            .unwrap_or_else(std::sync::PoisonError::into_inner);
                    }
                    Some(Reverse(first)) if first.at > now => {
                        let left = first.at - now;
                        requests = self
                            .earlier
                            .wait_timeout(requests, left)
                            .unwrap_or_else(std::sync::PoisonError::into_inner)
                            .0;
                    }
                    Some(_) => {
                        let due = requests.heap.pop();
                        drop(requests); // `expire` takes locks of its own and wakes tasks
                        // The target may be the last to hold closures of others,
                        // whose destructors may panic. The next deadline is owed
                        // all the same.
                        let _ = catch_unwind(AssertUnwindSafe(|| {
                            if let Some(target) = due.and_then(|Reverse(due)| due.target.upgrade())
                                && let Some(again) = target.expire(now)
                            {
                                self.wake_at(again, &target);
                            }
                        }));
                        requests = lock(&self.requests);
                    }
                }
            }
        }
    }
}
