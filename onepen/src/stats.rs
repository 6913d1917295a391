//! What the pen and the readers count, cheaply.
//!
//! Histograms have one bucket for each power of two of nanoseconds, so that
//! recording is one relaxed addition and reading is exact to a factor of two.

use std::time::Duration;

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

const BUCKETS: usize = 48;

/// Durations, counted by powers of two.
#[derive(Debug)]
pub(crate) struct Counts {
    buckets: [AtomicU64; BUCKETS],
    longest: AtomicU64,
}

impl Default for Counts {
    fn default() -> Self {
        Self {
            buckets: std::array::from_fn(|_| AtomicU64::new(0)),
            longest: AtomicU64::new(0),
        }
    }
}

impl Counts {
    pub(crate) fn record(&self, duration: Duration) {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let bucket = (64 - nanos.leading_zeros() as usize).min(BUCKETS - 1);
        self.buckets[bucket].fetch_add(1, Relaxed);
        if nanos > self.longest.load(Relaxed) {
            self.longest.fetch_max(nanos, Relaxed);
        }
    }

    fn snapshot(&self) -> Histogram {
        Histogram {
            buckets: std::array::from_fn(|index| self.buckets[index].load(Relaxed)),
            longest: Duration::from_nanos(self.longest.load(Relaxed)),
        }
    }
}

/// How often which duration was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Histogram {
    buckets: [u64; BUCKETS],
    longest: Duration,
}

impl Histogram {
    /// How many durations were recorded.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// The longest of them, exactly.
    pub fn longest(&self) -> Duration {
        self.longest
    }

    /// A duration that `quantile` (0.0 to 1.0) of them did not exceed, rounded
    /// up to the next power of two of nanoseconds and never above
    /// [`longest`](Self::longest).
    pub fn quantile(&self, quantile: f64) -> Duration {
        let wanted = (self.count() as f64 * quantile.clamp(0.0, 1.0)).ceil() as u64;
        let mut seen = 0;
        for (bucket, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= wanted && *count > 0 {
                return Duration::from_nanos(1 << bucket).min(self.longest);
            }
        }
        Duration::ZERO
    }
}

/// The counters of one pen.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    turns: AtomicU64,
    writes: AtomicU64,
    largest_group: AtomicU64,
    longest_queue: AtomicUsize,
    waits: Counts,
    holds: Counts,
}

impl Tally {
    /// Somebody was queued; so many wait now.
    pub(crate) fn queued(&self, length: usize) {
        if length > self.longest_queue.load(Relaxed) {
            self.longest_queue.fetch_max(length, Relaxed);
        }
    }

    pub(crate) fn waited(&self, duration: Duration) {
        self.waits.record(duration);
    }

    /// The pen was held once, for so many writes.
    pub(crate) fn turn(&self, members: usize, held: Duration) {
        let members = members as u64;
        self.turns.fetch_add(1, Relaxed);
        self.writes.fetch_add(members, Relaxed);
        if members > self.largest_group.load(Relaxed) {
            self.largest_group.fetch_max(members, Relaxed);
        }
        self.holds.record(held);
    }

    pub(crate) fn snapshot(&self, stats: &mut Stats) {
        stats.groups = self.turns.load(Relaxed);
        stats.writes = self.writes.load(Relaxed);
        stats.largest_group = self.largest_group.load(Relaxed);
        stats.longest_queue = self.longest_queue.load(Relaxed);
        stats.waits = self.waits.snapshot();
        stats.holds = self.holds.snapshot();
    }
}

/// What a database did since it was opened ([`Database::stats`](crate::Database::stats)).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Stats {
    /// How many times the pen was held; nearly the number of COMMITs.
    pub groups: u64,
    /// How many writes were run, successful or not.
    pub writes: u64,
    /// The most writes that shared one COMMIT.
    pub largest_group: u64,
    /// Writes that wait for the pen now.
    pub queue_length: usize,
    /// The most that ever waited.
    pub longest_queue: usize,
    /// How long queued writes waited for their turn.
    pub waits: Histogram,
    /// How long the pen was held at a time.
    pub holds: Histogram,
    /// Reader connections.
    pub readers: usize,
    /// Reader connections in use now, snapshots included.
    pub readers_in_use: usize,
    /// The age of the oldest [`Snapshot`](crate::Snapshot): the log cannot be
    /// reset beyond it.
    pub oldest_snapshot: Option<Duration>,
    /// Frames in the write-ahead log after the last commit, 0 without one.
    pub wal_frames: u32,
    /// The most frames the log ever had.
    pub wal_frames_max: u32,
    /// How many times the log was reset to its beginning.
    pub wal_resets: u64,
    /// How long a reader has been keeping the log from being reset, if one is.
    pub wal_pinned_for: Option<Duration>,
    /// Readers that keep the log from being reset for longer than their
    /// [lease](crate::Options::reader_lease), the oldest first.
    pub overdue: Vec<crate::Reading>,
    /// How many were [ended](crate::Options::lease_grace) for it.
    pub leases_ended: u64,
    /// Other processes that wait for their turn to write now.
    pub processes_waiting: usize,
    /// Why this process has no place in the queue between processes; `None` when it
    /// has one ([`Options::gate`](crate::Options::gate)).
    pub alone_because: Option<std::sync::Arc<str>>,
}

impl Default for Stats {
    fn default() -> Self {
        let nothing = Counts::default().snapshot();
        Self {
            groups: 0,
            writes: 0,
            largest_group: 0,
            queue_length: 0,
            longest_queue: 0,
            waits: nothing.clone(),
            holds: nothing,
            readers: 0,
            readers_in_use: 0,
            oldest_snapshot: None,
            wal_frames: 0,
            wal_frames_max: 0,
            wal_resets: 0,
            wal_pinned_for: None,
            overdue: Vec::new(),
            leases_ended: 0,
            processes_waiting: 0,
            alone_because: None,
        }
    }
}
