//! From looks to pictures: rates between two of them, and since when something
//! has been so.
//!
//! Pure: what was seen and when goes in. Whatever lasts longer than one look is
//! told by what did *not* change: a process that has the write lock at two looks
//! has held it all the time only if nothing was committed between them.

use std::collections::HashMap;
use std::time::{Duration, Instant, SystemTime};

use onepen_lock::gate::{Counters, Stand};

use super::look::{Hold, Member, Raw};
use super::picture::{Does, Is, Journal, LogPicture, Picture, Pins, Row, SCHEMA, Totals};

/// Remembers the last look, and when what lasts began.
pub struct Watch {
    database: String,
    last: Option<Last>,
    /// Since when each of these has been seen at every look.
    began: HashMap<Lasting, Instant>,
}

struct Last {
    at: Instant,
    counters: HashMap<(usize, u32, u64), Counters>,
    commits: Option<u32>,
}

/// Something that lasts; a change of any part of it is another one.
#[derive(Clone, PartialEq, Eq, Hash)]
enum Lasting {
    /// The write lock, since the last commit.
    Writes {
        pid: Option<u32>,
        commits: Option<u32>,
        changed: Option<SystemTime>,
    },
    /// A snapshot that ends there. A log that begins anew has other salts.
    Pins {
        pid: Option<u32>,
        frame: u32,
        salt: [u32; 2],
    },
    /// A read over a rollback journal, where nobody can commit meanwhile.
    Reads {
        pid: Option<u32>,
        changed: Option<SystemTime>,
    },
}

impl Watch {
    pub fn new(database: String) -> Self {
        Self {
            database,
            last: None,
            began: HashMap::new(),
        }
    }

    /// The picture of what was just seen.
    pub fn picture(&mut self, raw: &Raw) -> Picture {
        let seconds = self
            .last
            .as_ref()
            .map(|last| raw.at.saturating_duration_since(last.at).as_secs_f64())
            .filter(|seconds| *seconds > 0.0);
        let mut lasting = HashMap::new();
        let mut holds: Vec<Option<&Hold>> = raw.holds.iter().map(Some).collect();
        let mut rows: Vec<Row> = raw
            .members
            .iter()
            .map(|member| {
                let hold = holds
                    .iter_mut()
                    .find(|hold| {
                        hold.is_some_and(|hold| {
                            hold.pid == Some(member.pid) && hold.started == member.started
                        })
                    })
                    .and_then(Option::take);
                self.row_of_ours(raw, member, hold, seconds, &mut lasting)
            })
            .collect();
        for hold in holds.into_iter().flatten() {
            rows.push(self.row_of_a_stranger(raw, hold, &mut lasting));
        }
        let commits = raw.log.map(|log| log.changes);
        let sum =
            |of: fn(&Row) -> Option<f64>| seconds.map(|_| rows.iter().filter_map(of).sum::<f64>());
        let totals = Totals {
            onepen: rows.iter().filter(|row| row.is == Is::Onepen).count(),
            strangers: rows.iter().filter(|row| row.is == Is::Stranger).count(),
            waiting: rows.iter().filter(|row| row.does == Does::Waits).count(),
            transactions_per_s: sum(|row| row.transactions_per_s),
            writes_per_s: sum(|row| row.writes_per_s),
            commits_per_s: self.commits_per_s(commits, seconds),
        };
        self.began = lasting;
        self.last = Some(Last {
            at: raw.at,
            counters: raw
                .members
                .iter()
                .map(|member| (key(member), member.counters))
                .collect(),
            commits,
        });
        Picture {
            schema: SCHEMA,
            database: self.database.clone(),
            journal: journal(raw),
            database_bytes: raw.database_bytes,
            log: raw.log_bytes.map(|bytes| LogPicture {
                bytes,
                frames: raw.log.map(|log| log.frames),
                copied_back: raw.log.map(|log| log.copied),
                pinned_at: rows
                    .iter()
                    .filter_map(|row| row.pins.map(|pins| pins.frame))
                    .min(),
            }),
            seconds,
            totals,
            rows,
            unseen: raw.unseen.clone(),
        }
    }

    fn commits_per_s(&self, now: Option<u32>, seconds: Option<f64>) -> Option<f64> {
        let before = self.last.as_ref()?.commits?;
        Some(f64::from(now?.wrapping_sub(before)) / seconds?)
    }

    fn row_of_ours(
        &self,
        raw: &Raw,
        member: &Member,
        hold: Option<&Hold>,
        seconds: Option<f64>,
        lasting: &mut HashMap<Lasting, Instant>,
    ) -> Row {
        let before = self
            .last
            .as_ref()
            .and_then(|last| last.counters.get(&key(member)));
        let rate = |of: fn(&Counters) -> u64| {
            let more = of(&member.counters).saturating_sub(of(before?));
            Some(more as f64 / seconds?)
        };
        let mut row = Row {
            label: Some(member.label.clone()),
            transactions_per_s: rate(|counters| counters.commits),
            writes_per_s: rate(|counters| counters.writes),
            waits_per_s: rate(|counters| counters.waits),
            longest_wait_s: Some(member.counters.longest_wait.as_secs_f64()),
            ..Row::idle(Some(member.pid), &member.command, Is::Onepen)
        };
        row.activity.clone_from(&member.activity);
        row.stopped = member.stopped;
        if let Some(hold) = hold {
            self.put_locks(&mut row, raw, hold, lasting);
        }
        match &member.stand {
            // What the system says of its locks is less than what it says itself.
            Stand::Turn {
                since,
                thread,
                purpose,
                ..
            } => {
                row.does = row.does.min(Does::HasTurn);
                row.for_s = Some(since.as_secs_f64());
                row.thread = Some(*thread).filter(|thread| *thread != 0);
                row.purpose.clone_from(purpose);
            }
            Stand::Waiting { before, since, .. } if row.does > Does::Waits => {
                row.does = Does::Waits;
                row.for_s = Some(since.as_secs_f64());
                row.before = Some(*before);
            }
            _ => {}
        }
        row
    }

    fn row_of_a_stranger(
        &self,
        raw: &Raw,
        hold: &Hold,
        lasting: &mut HashMap<Lasting, Instant>,
    ) -> Row {
        let mut row = Row::idle(hold.pid, &hold.command, Is::Stranger);
        row.activity.clone_from(&hold.activity);
        row.stopped = hold.stopped;
        self.put_locks(&mut row, raw, hold, lasting);
        row
    }

    /// What a process does as far as its locks tell.
    fn put_locks(
        &self,
        row: &mut Row,
        raw: &Raw,
        hold: &Hold,
        lasting: &mut HashMap<Lasting, Instant>,
    ) {
        let mut lasts = |what: Lasting| -> Duration {
            let began = self.began.get(&what).copied().unwrap_or(raw.at);
            lasting.insert(what, began);
            raw.at.saturating_duration_since(began)
        };
        row.locks = Some(hold.locks.clone());
        if let Some(log) = raw.log.filter(|_| hold.in_wal) {
            let oldest = hold.marks.iter().map(|mark| log.ends(*mark)).min();
            row.pins = oldest.map(|frame| Pins {
                frame,
                behind: log.frames.saturating_sub(frame),
                for_s: lasts(Lasting::Pins {
                    pid: hold.pid,
                    frame,
                    salt: log.salt,
                })
                .as_secs_f64(),
            });
        }
        let (does, for_s) = if hold.writes {
            let since = lasts(Lasting::Writes {
                pid: hold.pid,
                commits: raw.log.map(|log| log.changes),
                changed: if hold.in_wal { None } else { raw.changed },
            });
            (Does::Writes, Some(since.as_secs_f64()))
        } else if hold.checkpoints {
            (Does::CopiesBack, None)
        } else if hold.reads {
            let since = match row.pins {
                Some(pins) => pins.for_s,
                None => lasts(Lasting::Reads {
                    pid: hold.pid,
                    changed: raw.changed,
                })
                .as_secs_f64(),
            };
            (Does::Reads, Some(since))
        } else {
            (Does::Idle, None)
        };
        row.does = does;
        row.for_s = for_s;
    }
}

fn key(member: &Member) -> (usize, u32, u64) {
    (member.slot, member.pid, member.started)
}

fn journal(raw: &Raw) -> Option<Journal> {
    if raw.log.is_some() || raw.holds.iter().any(|hold| hold.in_wal) {
        Some(Journal::Wal)
    } else if raw.holds.iter().any(|hold| hold.shares) {
        Some(Journal::Rollback)
    } else {
        raw.log_bytes.map(|_| Journal::Wal)
    }
}
