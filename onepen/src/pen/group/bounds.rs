//! How large a group becomes: by members, by bytes, by time, and by who else
//! waits for the turn.
//!
//! Guarantees: a group that has reached a bound takes nobody else; no bound keeps
//! the first member out; jobs are claimed in the order of the queue, and whoever
//! was in the lobby is admitted to the places that become free.

use std::time::{Duration, Instant};

use super::{Claimed, Group};
use crate::engine::Engine;
use crate::pen::Pen;
use crate::pen::job::{Header, Kind};
use crate::sync::{Arc, lock};
use crate::trace::event;

/// Members claimed at a time: few enough that what was claimed is also run
/// within the group's time, many enough that the lock is not the cost.
const CLAIM: usize = 32;

/// What ends a group. None of it keeps the first member out.
pub(super) struct Bounds {
    members_left: usize,
    bytes_left: usize,
    /// `None`: time does not end it.
    until: Option<Instant>,
    /// Nobody else may join.
    pub(super) closed: bool,
}

impl Bounds {
    pub(super) fn of<E: Engine>(pen: &Pen<E>, started: Instant) -> Self {
        Self {
            members_left: pen.limits.group_members,
            bytes_left: pen.limits.group_bytes,
            until: started.checked_add(pen.limits.group_time),
            closed: false,
        }
    }

    /// Claims the next few, if the group may still grow.
    pub(super) fn claim<E: Engine>(&mut self, pen: &Pen<E>, group: &mut Group<E>) {
        if self.closed {
            return;
        }
        let now = Instant::now();
        let nobody_yet = group.members.is_empty() && group.claimed.is_empty();
        let is_over = self.until.is_some_and(|until| now >= until) || pen.write_lock.should_end();
        if !nobody_yet && is_over {
            self.closed = true;
            return;
        }
        let mut long = LongWaits::default();
        let mut state = lock(&pen.state);
        while group.claimed.len() < CLAIM
            && self.members_left > 0
            && (self.bytes_left > 0 || nobody_yet && group.claimed.is_empty())
        {
            match state.queue.next_kind() {
                Some(Kind::Grouped) => {}
                // Before anybody else ran it may use this very transaction.
                Some(Kind::Alone) if group.claimed.is_empty() && group.members.is_empty() => {}
                _ => {
                    self.closed = !group.members.is_empty();
                    break;
                }
            }
            let Some(job) = state.queue.claim() else {
                break;
            };
            let header = job.header();
            let waited = now.saturating_duration_since(header.since);
            pen.tally.waited(waited);
            long.add(pen, header, waited);
            self.members_left -= 1;
            self.bytes_left = self.bytes_left.saturating_sub(header.bytes as usize);
            let alone = header.kind == Kind::Alone;
            if group.members.is_empty() && group.claimed.is_empty() {
                state.holder.label = header.label();
            }
            group.claimed.push_back(Claimed { job, alone });
            if alone {
                self.closed = true;
                break;
            }
        }
        let admitted = pen.admit(&mut state);
        drop(state);
        pen.announce(admitted);
        long.say(pen);
    }
}

/// Writes that waited for longer than is thought right, to be told of without the
/// pen's lock: whoever listens to events is foreign code.
#[derive(Default)]
pub(super) struct LongWaits {
    writes: usize,
    longest: Duration,
    label: Option<Arc<str>>,
}

impl LongWaits {
    #[inline]
    pub(super) fn add<E>(&mut self, pen: &Pen<E>, header: &Header, waited: Duration) {
        if cfg!(feature = "tracing") && pen.witness.get().is_some_and(|it| it.is_long(waited)) {
            self.writes += 1;
            if waited > self.longest {
                self.longest = waited;
                self.label = header.label();
            }
        }
    }

    #[inline]
    pub(super) fn say<E>(&self, pen: &Pen<E>) {
        if self.writes > 0 {
            event!(
                WARN,
                "a wait was long",
                database = pen.name.get().map(|name| &**name),
                waits = "for the pen",
                waited_ms = self.longest.as_millis() as u64,
                label = self.label.as_deref(),
                writes = self.writes,
            );
            let _ = pen;
        }
    }
}

/// Claims everybody who could have been in this turn.
pub(super) fn claim_all<E: Engine>(pen: &Pen<E>, group: &mut Group<E>) {
    let mut state = lock(&pen.state);
    while state
        .queue
        .next_kind()
        .is_some_and(|kind| matches!(kind, Kind::Grouped | Kind::Alone))
    {
        let Some(job) = state.queue.claim() else {
            break;
        };
        group.claimed.push_back(Claimed { job, alone: false });
    }
    let admitted = pen.admit(&mut state);
    drop(state);
    pen.announce(admitted);
}
