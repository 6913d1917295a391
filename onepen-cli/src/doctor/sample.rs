//! Looking several times: what stayed the same, and what went on.
//!
//! Guarantees: a lock counts as *held throughout* only when every look found it
//! with the same process (pid and time of birth) and the same read mark at the
//! same place. Two transactions in a row that look alike at every look would be
//! taken for one; a commit between them would show in the counters.

use std::thread;
use std::time::{Duration, Instant};

use onepen_lock::gate::{Member, Observer, Stand, View};
use onepen_lock::holders::{self, Activity, Held, Look, Process};

use crate::files::{Files, Header, Log};

/// How often is looked.
const PAUSE: Duration = Duration::from_millis(100);
/// The kernel counts processor time in these.
const TICK: Duration = Duration::from_millis(10);

/// One look.
#[derive(Clone, Debug)]
pub struct Sample {
    pub at: Instant,
    pub look: Look,
    /// What those with onepen say of themselves.
    pub gate: View,
    pub log: Option<Log>,
    pub wal_bytes: u64,
    pub journal_bytes: u64,
    pub changes: u32,
}

impl Sample {
    fn of(files: &Files) -> Result<(Self, Option<String>), String> {
        // The counters before the locks: a commit between the two then looks
        // like one more change, not like a transaction that stood still.
        let (log, unseen) = match Log::read(&files.path) {
            Ok(log) => (log, None),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => (None, None),
            Err(error) => (
                None,
                Some(format!("how far the log is: -shm cannot be read ({error})")),
            ),
        };
        let len = |ending| {
            let path = holders::beside(&files.path, ending);
            std::fs::metadata(path).map_or(0, |meta| meta.len())
        };
        let sample = Self {
            log,
            wal_bytes: len("-wal"),
            journal_bytes: len("-journal"),
            changes: Header::read(&files.path).map_or(0, |header| header.changes),
            gate: Observer::open(&files.path)
                .ok()
                .flatten()
                .and_then(|observer| observer.look().ok())
                .unwrap_or_default(),
            look: holders::look(&files.path).map_err(|error| error.to_string())?,
            at: Instant::now(),
        };
        Ok((sample, unseen))
    }

    /// What a process with onepen says it holds the lock for.
    pub fn purpose(&self, process: &Process) -> Option<String> {
        let is_it = |member: &&Member| {
            member.alive && (member.pid, member.started) == (process.pid, process.started)
        };
        match &self.gate.members.iter().find(is_it)?.stand {
            Stand::Turn {
                since,
                thread,
                purpose,
                ..
            } => Some(format!(
                "{}thread {thread}, its turn since {:.1} s",
                purpose
                    .as_ref()
                    .map_or_else(String::new, |label| format!("`{label}` on ")),
                since.as_secs_f64()
            )),
            _ => None,
        }
    }

    /// How many processes with onepen wait for their turn.
    pub fn waiting(&self) -> usize {
        let waits = |member: &&Member| matches!(member.stand, Stand::Waiting { .. });
        self.gate.members.iter().filter(waits).count()
    }

    /// Whether nobody has committed between the two.
    fn is_as(&self, other: &Self) -> bool {
        let log = |sample: &Self| sample.log.map(|log| (log.changes, log.frames, log.salt));
        log(self) == log(other) && self.changes == other.changes
    }

    fn bytes(&self) -> (u64, u64) {
        (self.wal_bytes, self.journal_bytes)
    }
}

/// All looks of one visit; never none.
#[derive(Clone, Debug)]
pub struct Samples {
    pub all: Vec<Sample>,
    pub unseen: Vec<String>,
}

/// A process that was in the same transaction at every look.
#[derive(Clone, Debug)]
pub struct Steady {
    pub process: Process,
    /// What it held at the last look.
    pub held: Held,
    /// Processor time it used meanwhile.
    pub worked: Duration,
    /// It was running, or in line for a processor, at most of the looks.
    pub ran: bool,
    /// Somebody committed meanwhile.
    pub committed: bool,
    /// The log or the journal grew or shrank meanwhile.
    pub wrote: bool,
}

impl Samples {
    /// Looks for as long as `window`, and calls `first` with the first look.
    ///
    /// # Errors
    /// When it cannot look at all.
    pub fn take(
        files: &Files,
        window: Duration,
        first: impl FnOnce(&Sample),
    ) -> Result<Self, String> {
        let (sample, unseen) = Sample::of(files)?;
        first(&sample);
        let until = sample.at + window;
        let mut this = Self {
            all: vec![sample],
            unseen: unseen.into_iter().collect(),
        };
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(this);
            }
            thread::sleep(left.min(PAUSE));
            this.all.push(Sample::of(files)?.0);
        }
    }

    pub fn first(&self) -> &Sample {
        &self.all[0]
    }

    pub fn last(&self) -> &Sample {
        &self.all[self.all.len() - 1]
    }

    pub fn lasted(&self) -> Duration {
        self.last().at - self.first().at
    }

    /// Transactions that were committed meanwhile, as the log counts them.
    pub fn commits(&self) -> Option<u32> {
        let (first, last) = (self.first(), self.last());
        match (first.log, last.log) {
            (Some(first), Some(last)) => Some(last.changes.wrapping_sub(first.changes)),
            (None, None) => Some(last.changes.wrapping_sub(first.changes)),
            _ => None,
        }
    }

    /// Everybody who was in the same transaction at every look.
    pub fn steady(&self) -> Vec<Steady> {
        let first = self.first();
        let committed = !self.all.iter().all(|sample| sample.is_as(first));
        let wrote = self.all.iter().any(|it| it.bytes() != first.bytes());
        first
            .look
            .holders
            .iter()
            .filter_map(|holder| {
                let before = holder.process.as_ref()?;
                let mut last = holder;
                let mut running = 0;
                for sample in &self.all {
                    last = find(&sample.look, before)?;
                    if !is_same(&holder.held, first, &last.held, sample) {
                        return None;
                    }
                    let activity = last.process.as_ref().map(|it| it.activity);
                    running += usize::from(activity == Some(Activity::Running));
                }
                let process = last.process.clone()?;
                let ticks = process.ticks.saturating_sub(before.ticks);
                Some(Steady {
                    worked: TICK * u32::try_from(ticks).unwrap_or(u32::MAX),
                    held: last.held.clone(),
                    process,
                    ran: running * 3 > self.all.len() * 2,
                    committed,
                    wrote,
                })
            })
            .collect()
    }
}

fn find<'a>(look: &'a Look, process: &Process) -> Option<&'a holders::Holder> {
    look.holders.iter().find(|holder| {
        holder
            .process
            .as_ref()
            .is_some_and(|it| (it.pid, it.started) == (process.pid, process.started))
    })
}

/// Whether what was held then may be the transaction that is held now.
fn is_same(then: &Held, at: &Sample, now: &Held, later: &Sample) -> bool {
    if then.writes() {
        return now.writes();
    }
    if !then.reads() || !now.reads() || now.writes() {
        return false;
    }
    let ends = |held: &Held, sample: &Sample| -> Vec<(u8, Option<u32>)> {
        held.marks()
            .map(|mark| (mark, sample.log.map(|log| log.ends(mark))))
            .collect()
    };
    // Of several readers in one process one may come and go.
    let now = ends(now, later);
    !then.in_wal || ends(then, at).iter().any(|end| now.contains(end))
}
