//! Leases: how long a reader may keep the log from being reset.
//!
//! Guarantees: whoever reads for longer than the lease, while others have
//! committed since, is named once, while it still does
//! ([`Options::reader_lease`](crate::Options::reader_lease)); if asked
//! ([`Options::lease_grace`](crate::Options::lease_grace)) it is ended, and what
//! it does after that fails with its own error; nothing it read was of another
//! state, and nobody else is touched, the next reader on its connection neither.
//! A short read pays a handful of stores for it. How a reader is ended: [`tenure`].

mod reading;
mod tenure;

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use rusqlite::InterruptHandle;

pub use self::reading::{ReadBy, Reading};
pub(super) use self::tenure::{Ends, Tenure};
use super::raw::Remote;
use crate::timer::{Expires, Timer};
use crate::trace::event;

/// Looks within a lease.
const LOOKS: u32 = 4;
/// How soon somebody who could not be ended is tried again.
const AGAIN: Duration = Duration::from_millis(20);
/// No look comes sooner after another.
const LEAST: Duration = Duration::from_millis(1);

/// The readers of one database, for the one who looks after their leases.
pub(crate) struct Leases {
    name: Arc<str>,
    lease: Option<Duration>,
    grace: Option<Duration>,
    all: Mutex<Vec<Weak<Tenure>>>,
    started: Mutex<bool>,
    timer: Option<Arc<dyn Timer>>,
    epoch: Instant,
    outside: Arc<AtomicUsize>,
    ended: AtomicU64,
}

fn lock<T: ?Sized>(of: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Leases {
    pub(super) fn new(
        name: &Arc<str>,
        lease: Option<Duration>,
        grace: Option<Duration>,
        timer: Option<Arc<dyn Timer>>,
        outside: &Arc<AtomicUsize>,
    ) -> Arc<Self> {
        Arc::new(Self {
            name: Arc::clone(name),
            lease,
            grace: lease.and(grace),
            all: Mutex::default(),
            started: Mutex::default(),
            timer,
            epoch: Instant::now(),
            outside: Arc::clone(outside),
            ended: AtomicU64::new(0),
        })
    }

    /// How many were ended.
    pub(crate) fn ended(&self) -> u64 {
        self.ended.load(Ordering::Relaxed)
    }

    /// A new connection.
    pub(super) fn enroll(
        self: &Arc<Self>,
        interrupt: InterruptHandle,
        remote: Remote,
    ) -> Arc<Tenure> {
        let enforced = self.grace.is_some();
        let tenure = Tenure::new(
            interrupt,
            remote,
            self.lease,
            enforced,
            self.epoch,
            &self.outside,
        );
        let tenure = Arc::new(tenure);
        let mut all = lock(&self.all);
        all.retain(|other| other.strong_count() > 0);
        all.push(Arc::downgrade(&tenure));
        drop(all);
        let mut started = lock(&self.started);
        if let (false, Some(lease), Some(timer)) = (*started, self.lease, &self.timer)
            && let Some(at) = Instant::now().checked_add(lease / LOOKS)
        {
            *started = true;
            let this: Arc<dyn Expires> = Arc::clone(self) as _;
            timer.wake_at(at, &this);
        }
        tenure
    }

    fn tenures(&self) -> Vec<Arc<Tenure>> {
        lock(&self.all).iter().filter_map(Weak::upgrade).collect()
    }

    /// Who reads at `now`.
    pub(crate) fn reading(&self, now: Instant) -> Vec<Reading> {
        let mut found: Vec<_> = self
            .tenures()
            .iter()
            .filter_map(|tenure| tenure.look(now))
            .map(|(_, reading)| reading)
            .collect();
        found.sort_by_key(|reading| std::cmp::Reverse(reading.since));
        found
    }

    fn name_it(&self, reading: &Reading) {
        event!(
            WARN,
            "a reader keeps the log from being reset",
            database = &*self.name,
            by = tracing::field::display(reading.by),
            label = reading.label.as_deref(),
            thread = reading.thread.as_deref(),
            begun = reading.begun.map(tracing::field::display),
            since_ms = reading.since.as_millis() as u64,
            frame = reading.frame,
            commits_behind = reading.behind,
        );
        let _ = (&self.name, reading);
    }

    fn end(&self, tenure: &Tenure, number: u64, reading: &Reading) -> bool {
        let first = tenure.mark_over(number);
        let gone = tenure.end(number);
        if first {
            event!(
                WARN,
                "a reader was told to end: its lease is over",
                database = &*self.name,
                by = tracing::field::display(reading.by),
                label = reading.label.as_deref(),
                thread = reading.thread.as_deref(),
                begun = reading.begun.map(tracing::field::display),
                since_ms = reading.since.as_millis() as u64,
                frame = reading.frame,
            );
            let _ = (&self.name, reading);
            self.ended.fetch_add(1, Ordering::Relaxed);
        }
        gone
    }
}

impl Expires for Leases {
    fn expire(&self, now: Instant) -> Option<Instant> {
        let lease = self.lease?;
        let mut again = lease / LOOKS;
        for tenure in self.tenures() {
            let Some((number, reading)) = tenure.look(now) else {
                continue;
            };
            if reading.by == ReadBy::Backup {
                continue;
            }
            if !reading.overdue {
                again = again.min(lease.saturating_sub(reading.since).max(lease / 64));
                continue;
            }
            if tenure.name_once() {
                self.name_it(&reading);
            }
            let Some(grace) = self.grace else { continue };
            let left = lease.saturating_add(grace).saturating_sub(reading.since);
            if !left.is_zero() {
                again = again.min(left);
            } else if !self.end(&tenure, number, &reading) {
                again = again.min(AGAIN);
            }
        }
        now.checked_add(again.max(LEAST))
    }
}

#[cfg(test)]
impl Leases {
    pub(super) fn end_for_tests(&self, tenure: &Tenure, (number, reading): (u64, Reading)) {
        self.end(tenure, number, &reading);
    }
}
