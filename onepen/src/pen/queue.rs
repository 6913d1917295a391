//! Who waits for the pen, in the order they came.

use std::collections::VecDeque;
use std::time::Instant;

use super::job::{Kind, Member};
use crate::sync::Arc;

pub(crate) type Queued<E> = Arc<dyn Member<E>>;

/// After so many writes that passed it, a waiting write of lower priority is
/// served.
const MAX_BYPASS: u32 = 8;

/// Three queues, one for each priority, each first in first out.
///
/// A cancelled job stays in its place, marked, until it is reached or until
/// such jobs are the majority: taking it out of the middle would cost every
/// cancellation a walk.
pub(crate) struct Queue<E> {
    lanes: [VecDeque<Queued<E>>; 3],
    // How many jobs were served from above while this lane waited.
    bypassed: [u32; 3],
    live: usize,
    dead: usize,
    bytes: usize,
}

impl<E> Queue<E> {
    pub(crate) fn new() -> Self {
        Self {
            lanes: [VecDeque::new(), VecDeque::new(), VecDeque::new()],
            bypassed: [0; 3],
            live: 0,
            dead: 0,
            bytes: 0,
        }
    }

    /// Jobs that still want to run.
    pub(crate) fn len(&self) -> usize {
        self.live
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.live == 0
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn push(&mut self, job: Queued<E>) {
        let header = job.header();
        header.enqueue();
        self.live += 1;
        self.bytes += header.bytes as usize;
        self.lanes[header.priority as usize].push_back(job);
    }

    /// A job in the queue was cancelled.
    pub(crate) fn mark_dead(&mut self, bytes: u32) {
        self.live -= 1;
        self.dead += 1;
        self.bytes -= bytes as usize;
        if self.dead > 64 && self.dead > self.live {
            for lane in &mut self.lanes {
                lane.retain(|job| job.header().is_waiting());
            }
            self.dead = 0;
        }
    }

    /// The lane that is next, after dropping cancelled jobs at the heads.
    fn next_lane(&mut self) -> Option<usize> {
        for lane in &mut self.lanes {
            while lane.front().is_some_and(|job| !job.header().is_waiting()) {
                lane.pop_front();
                self.dead = self.dead.saturating_sub(1);
            }
        }
        let starved = (1..3)
            .rev()
            .find(|&lane| self.bypassed[lane] >= MAX_BYPASS && !self.lanes[lane].is_empty());
        starved.or_else(|| (0..3).find(|&lane| !self.lanes[lane].is_empty()))
    }

    /// How the next job wants to be run.
    pub(crate) fn next_kind(&mut self) -> Option<Kind> {
        let lane = self.next_lane()?;
        self.lanes[lane].front().map(|job| job.header().kind)
    }

    /// Takes the next job for running.
    pub(crate) fn claim(&mut self) -> Option<Queued<E>> {
        let lane = self.next_lane()?;
        let job = self.lanes[lane].pop_front()?;
        self.bypassed[lane] = 0;
        for below in lane + 1..3 {
            if !self.lanes[below].is_empty() {
                self.bypassed[below] += 1;
            }
        }
        job.header().claim();
        self.live -= 1;
        self.bytes -= job.header().bytes as usize;
        Some(job)
    }

    /// Every job that is still waiting.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Queued<E>> {
        self.lanes
            .iter()
            .flatten()
            .filter(|job| job.header().is_waiting())
    }

    pub(crate) fn earliest_deadline(&self) -> Option<Instant> {
        self.iter().filter_map(|job| job.header().deadline()).min()
    }
}
