//! Names a write closure that holds the pen for too long, while it still does.
//!
//! Looked at by the timer thread a few times within the time that is thought
//! right, so that a closure pays a handful of stores and no clock.

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use crate::pen::Pen;
use crate::running::Running;
use crate::sqlite::SqliteEngine;
use crate::timer::{Expires, Timer};
use crate::trace::event;

/// Looks within the time after which a closure is named.
const LOOKS: u32 = 4;

pub(crate) struct Overseer {
    pen: Weak<Pen<SqliteEngine>>,
    running: Arc<Running>,
    name: Arc<str>,
    after: Duration,
    last: Mutex<Last>,
}

#[derive(Default)]
struct Last {
    count: u64,
    since: Option<Instant>,
    told: bool,
}

impl Overseer {
    /// Looks for as long as the result lives.
    pub(crate) fn start(
        pen: &Arc<Pen<SqliteEngine>>,
        running: Arc<Running>,
        name: &Arc<str>,
        after: Duration,
    ) -> Arc<Self> {
        let this = Arc::new(Self {
            pen: Arc::downgrade(pen),
            running,
            name: Arc::clone(name),
            after: after.max(Duration::from_millis(4)),
            last: Mutex::default(),
        });
        let target: Arc<dyn Expires> = Arc::clone(&this) as _;
        let timer: Arc<dyn Timer> = crate::timer::shared();
        // None: longer than this clock can count.
        if let Some(at) = Instant::now().checked_add(this.after / LOOKS) {
            timer.wake_at(at, &target);
        }
        this
    }
}

impl Expires for Overseer {
    fn expire(&self, now: Instant) -> Option<Instant> {
        let count = self.running.count();
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.count != count || last.since.is_none() {
            *last = Last {
                count,
                since: Some(now),
                told: false,
            };
        } else if count % 2 == 1
            && !last.told
            && last.since.is_some_and(|since| now - since >= self.after)
        {
            let seen = self.running.look();
            if seen.count == count {
                last.told = true;
                let holder = self.pen.upgrade().and_then(|pen| pen.holder());
                let held = holder.as_ref().and_then(|holder| holder.since);
                event!(
                    WARN,
                    "a write holds the pen",
                    database = &*self.name,
                    label = seen.label.as_deref(),
                    thread = holder.as_ref().and_then(|holder| holder.thread.as_deref()),
                    submitted = seen.at.map(tracing::field::display),
                    held_ms = held.map(|held| held.as_millis() as u64),
                    last_ran = seen.last.as_deref(),
                );
                let _ = (&seen.at, &seen.label, &seen.last, held);
            }
        }
        now.checked_add(self.after / LOOKS)
    }
}
