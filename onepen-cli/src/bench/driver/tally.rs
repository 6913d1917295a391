//! What is counted, by each client for itself, and added up afterwards.
//!
//! A rate counts what was acknowledged before the time was over. What a client
//! was still waiting for then is finished, and counts for the latencies and
//! for the invariant: a client that starved until the end shows in the maximum.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::bench::sql::Fault;
use crate::bench::workloads::Job;

/// What the clients of one thread counted.
pub struct Tallies {
    /// Client by client.
    pub clients: Vec<Tally>,
    /// The latencies of all of them.
    pub latencies: Histogram<u64>,
}

impl Tallies {
    /// Of no client yet.
    pub fn new() -> Self {
        Self {
            clients: Vec::new(),
            latencies: histogram(),
        }
    }
}

/// One client's counts.
// Without a histogram of its own: those of a thousand tasks do not fit into the
// processor's caches, and made every tenth instruction of the fastest way wait.
pub struct Tally {
    in_time: u64,
    committed: u64,
    effects: u64,
    unknown: u64,
    errors: BTreeMap<String, Errors>,
}

/// The errors of one class.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Errors {
    /// How many.
    pub count: u64,
    /// What the first one said.
    pub example: String,
}

/// An empty histogram of nanoseconds, which grows with what it is given.
pub fn histogram() -> Histogram<u64> {
    Histogram::new(2).expect("two digits are allowed")
}

/// Adds one latency.
pub fn record(latencies: &mut Histogram<u64>, took: Duration) {
    let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
    record_n(latencies, nanos, 1);
}

fn record_n(latencies: &mut Histogram<u64>, nanos: u64, count: u64) {
    latencies
        .record_n(nanos, count)
        .expect("a growing histogram takes every number");
}

impl Tally {
    /// Nothing yet.
    pub fn new() -> Self {
        Self {
            in_time: 0,
            committed: 0,
            effects: 0,
            unknown: 0,
            errors: BTreeMap::new(),
        }
    }

    /// Counts one transaction; answers whether its latency is to be recorded.
    pub fn count(&mut self, job: &Job, in_time: bool, answer: Result<(), Fault>) -> bool {
        match answer {
            Ok(()) => {
                self.committed += 1;
                self.in_time += u64::from(in_time);
                self.effects += job.work().effects();
                true
            }
            Err(fault) => {
                if fault.is_unknown() {
                    self.unknown += job.work().effects();
                }
                self.failed(&fault);
                false
            }
        }
    }

    /// Counts a failure.
    pub fn failed(&mut self, fault: &Fault) {
        self.errors
            .entry(fault.class())
            .or_insert_with(|| Errors {
                count: 0,
                example: fault.to_string(),
            })
            .count += 1;
    }
}

/// The counts of many clients of one kind.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Counted {
    /// Transactions acknowledged before the time was over.
    pub in_time: u64,
    /// Transactions acknowledged.
    pub committed: u64,
    /// Their effects.
    pub effects: u64,
    /// Effects of transactions whose outcome nobody knows.
    pub unknown: u64,
    /// Failures by class.
    pub errors: BTreeMap<String, Errors>,
    /// Nanoseconds and how often, ascending.
    pub latencies: Vec<(u64, u64)>,
    /// What each client got in time.
    pub shares: Vec<u64>,
}

impl Counted {
    /// Adds up threads.
    pub fn from_threads(threads: Vec<Tallies>) -> Self {
        let mut counted = Self::default();
        let mut latencies = histogram();
        for thread in threads {
            for client in thread.clients {
                counted.in_time += client.in_time;
                counted.committed += client.committed;
                counted.effects += client.effects;
                counted.unknown += client.unknown;
                counted.shares.push(client.in_time);
                add_errors(&mut counted.errors, client.errors);
            }
            latencies
                .add(&thread.latencies)
                .expect("a growing histogram takes any other");
        }
        counted.latencies = buckets(&latencies);
        counted
    }

    /// Adds another process, or another round.
    pub fn add(&mut self, other: Self) {
        self.in_time += other.in_time;
        self.committed += other.committed;
        self.effects += other.effects;
        self.unknown += other.unknown;
        self.shares.extend(other.shares);
        add_errors(&mut self.errors, other.errors);
        let mut latencies = histogram();
        for (nanos, count) in self.latencies.drain(..).chain(other.latencies) {
            record_n(&mut latencies, nanos, count);
        }
        self.latencies = buckets(&latencies);
    }

    /// How many failed.
    pub fn failed(&self) -> u64 {
        self.errors.values().map(|errors| errors.count).sum()
    }

    /// The smallest share of a client by the largest; `None` when nobody got
    /// anything or there is nobody to be fair to.
    pub fn fairness(&self) -> Option<f64> {
        let most = *self.shares.iter().max()?;
        let least = *self.shares.iter().min()?;
        (most > 0 && self.shares.len() > 1).then(|| least as f64 / most as f64)
    }

    /// The latency that this share of the transactions did not exceed.
    pub fn quantile(&self, quantile: f64) -> Option<Duration> {
        let total: u64 = self.latencies.iter().map(|&(_, count)| count).sum();
        let wanted = ((total as f64 * quantile).ceil() as u64).clamp(1, total.max(1));
        let mut seen = 0;
        self.latencies
            .iter()
            .find(|&&(_, count)| {
                seen += count;
                seen >= wanted
            })
            .map(|&(nanos, _)| Duration::from_nanos(nanos))
    }
}

fn add_errors(to: &mut BTreeMap<String, Errors>, from: BTreeMap<String, Errors>) {
    for (class, errors) in from {
        to.entry(class)
            .and_modify(|known| known.count += errors.count)
            .or_insert(errors);
    }
}

fn buckets(histogram: &Histogram<u64>) -> Vec<(u64, u64)> {
    histogram
        .iter_recorded()
        .map(|step| (step.value_iterated_to(), step.count_at_value()))
        .collect()
}

/// What one way did in one slice of time.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Ran {
    /// From the start until everybody was told to stop.
    pub lasted: Duration,
    /// The writers.
    pub writers: Counted,
    /// The readers beside them.
    pub readers: Counted,
    /// Flushes to disk, where they can be counted.
    pub fsyncs: Option<u64>,
}

impl Ran {
    /// Adds another process of the same slice.
    pub fn add(&mut self, other: Self) {
        self.lasted = self.lasted.max(other.lasted);
        self.writers.add(other.writers);
        self.readers.add(other.readers);
        self.fsyncs = self.fsyncs.zip(other.fsyncs).map(|(a, b)| a + b);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(shares: &[u64], latencies: &[(u64, u64)]) -> Counted {
        Counted {
            shares: shares.to_vec(),
            latencies: latencies.to_vec(),
            ..Counted::default()
        }
    }

    #[test]
    fn fairness_is_the_smallest_share_by_the_largest() {
        assert_eq!(counted(&[50, 100, 75], &[]).fairness(), Some(0.5));
        assert_eq!(counted(&[0, 100], &[]).fairness(), Some(0.0));
        assert_eq!(counted(&[0, 0], &[]).fairness(), None);
        assert_eq!(counted(&[7], &[]).fairness(), None);
    }

    #[test]
    fn a_quantile_is_the_latency_that_share_did_not_exceed() {
        let counted = counted(&[], &[(10, 50), (20, 49), (1_000, 1)]);
        let nanos = |quantile| counted.quantile(quantile).unwrap().as_nanos();
        assert_eq!(nanos(0.5), 10);
        assert_eq!(nanos(0.51), 20);
        assert_eq!(nanos(0.99), 20);
        assert_eq!(nanos(0.999), 1_000);
        assert_eq!(nanos(1.0), 1_000);
        assert_eq!(Counted::default().quantile(0.5), None);
    }

    #[test]
    fn adding_keeps_every_latency_and_every_share() {
        let mut sum = counted(&[1], &[(100, 3)]);
        sum.add(counted(&[2], &[(100, 1), (70_000_000_000, 1)]));
        assert_eq!(sum.shares, [1, 2]);
        assert_eq!(sum.latencies.iter().map(|&(_, n)| n).sum::<u64>(), 5);
        let longest = sum.quantile(1.0).unwrap().as_secs_f64();
        assert!((69.0..71.0).contains(&longest), "{longest}");
    }
}
