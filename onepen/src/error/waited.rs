//! What was waited for, how long in each part, and who was in the way.
//!
//! Guarantees: nothing here is found out before a wait has been too long; what
//! is not known is `None`, never a guess; and no value or statement is in it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

pub use onepen_lock::holders::Activity;

/// What a wait was for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum WaitedFor {
    /// Nothing was waited for.
    Nothing,
    /// Other writers of this process held the pen or stood before us.
    Pen,
    /// The write queue was at its bound.
    QueueSpace,
    /// SQLite's write lock was held by somebody who does not use this pen:
    /// another process, or another library in this one.
    WriteLock,
    /// It was the turn of another process, of those that queue for the write lock
    /// with this one ([`Options::gate`](crate::Options::gate)).
    Turn,
    /// All reader connections were in use.
    Reader,
    /// All connections of a [pool](crate::blocks::Pool) were in use, or the one
    /// that is [shared](crate::blocks::Shared).
    Connection,
    /// Readers had to finish first (only over a rollback journal).
    Readers,
    /// Another process was opening, closing or recovering the database.
    Opening,
    /// A query ran longer than its deadline allowed.
    Query,
}

impl fmt::Display for WaitedFor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nothing => "for nothing",
            Self::Pen => "for the pen",
            Self::QueueSpace => "for space in the write queue",
            Self::WriteLock => "for SQLite's write lock",
            Self::Turn => "for this process's turn to write",
            Self::Reader => "for a reader connection",
            Self::Connection => "for a connection",
            Self::Readers => "for readers to finish",
            Self::Opening => "for the database to open",
            Self::Query => "for a query",
        })
    }
}

/// Between whom a wait was decided: what has to change for it to be shorter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Contention {
    /// There was none: nothing was waited for, or a query of the caller's own ran
    /// too long.
    None,
    /// With other writes of this process: too many, or one that is too long.
    OwnWrites,
    /// With other reads of this process: more at once than reader connections, or,
    /// over a rollback journal, reads that a COMMIT has to wait for.
    OwnReads,
    /// With others of this process who had all connections of a pool, or the one
    /// that is shared.
    OwnConnections,
    /// With another process, which is named: a program that uses SQLite by other
    /// means, or another onepen.
    OtherProcess,
    /// With another connection in this very process that does not belong to
    /// onepen: another binding, or a second copy of SQLite.
    OtherLibrary,
    /// With somebody outside the pen who could not be seen, or had gone when
    /// somebody looked.
    Unseen,
}

/// Who had what was waited for.
///
/// [`Display`](fmt::Display) says all of it in words.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Holder {
    /// The process; `None` when it could not be seen.
    pub pid: Option<u32>,
    /// Its program and, for an interpreter, the script: no other argument.
    pub command: Option<Arc<str>>,
    /// What that process was doing.
    pub activity: Option<Activity>,
    /// The thread, where it is one of onepen's.
    pub thread: Option<Arc<str>>,
    /// The [label](crate::Call::label) of the call, where it is one of onepen's.
    pub label: Option<Arc<str>>,
    /// The locks it had, in SQLite's words.
    pub locks: Option<Arc<str>>,
    /// How long it had been in the way. Of a process without onepen the system
    /// does not tell, and this is how long ago it was first seen with the lock:
    /// it is longer in truth.
    pub since: Option<Duration>,
}

impl Holder {
    /// Whether it is this process itself.
    pub fn is_this_process(&self) -> bool {
        self.pid == Some(std::process::id())
    }

    /// Other reads of this process.
    pub(crate) fn own_reads() -> Self {
        Self {
            pid: Some(std::process::id()),
            thread: Some("reads, streams or snapshots of this process".into()),
            ..Self::default()
        }
    }
}

impl Holder {
    /// Somebody in this process.
    pub(crate) fn here(what: impl Into<Arc<str>>, since: Option<Duration>) -> Self {
        Self {
            pid: Some(std::process::id()),
            thread: Some(what.into()),
            since,
            ..Self::default()
        }
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(label) = &self.label {
            write!(f, "`{label}` on ")?;
        }
        if let Some(thread) = &self.thread {
            f.write_str(thread)?;
            if !self.is_this_process() {
                f.write_str(" of ")?;
            }
        }
        match (&self.command, self.pid) {
            (_, Some(_)) if self.is_this_process() && self.thread.is_some() => {}
            (_, Some(_)) if self.is_this_process() => {
                f.write_str("another connection of this process, not onepen's")?;
            }
            (Some(command), Some(pid)) => {
                write!(f, "{command} (pid {pid}")?;
                if let Some(activity) = self.activity {
                    write!(f, ", {activity}")?;
                }
                f.write_str(")")?;
            }
            (None, Some(pid)) => write!(f, "process {pid}")?,
            (_, None) => f.write_str("a process that cannot be seen")?,
        }
        if let Some(locks) = &self.locks {
            write!(f, " with {locks}")?;
        }
        if let Some(since) = self.since {
            write!(f, " since {since:.1?}")?;
        }
        Ok(())
    }
}

/// One stretch of a wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Part {
    /// What was waited for.
    pub what: WaitedFor,
    /// How long.
    pub how_long: Duration,
}

/// How long a failed call had waited, for what, and behind whom.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Waited {
    /// What the wait was for when it ended.
    pub what: WaitedFor,
    /// How long, all parts together.
    pub how_long: Duration,
    /// What was waited for one after the other, and how long each took; one part,
    /// or none, when it was the same thing all the time.
    pub parts: Vec<Part>,
    /// How many writes stood before this one when it was queued.
    pub position: Option<usize>,
    /// Who had what was waited for at the end, when that is known.
    pub holder: Option<Holder>,
}

impl Waited {
    pub(crate) const NOT: Self = Self {
        what: WaitedFor::Nothing,
        how_long: Duration::ZERO,
        parts: Vec::new(),
        position: None,
        holder: None,
    };

    pub(crate) fn new(what: WaitedFor, how_long: Duration) -> Self {
        Self {
            what,
            how_long,
            ..Self::NOT
        }
    }

    /// Splits the time: each of `ends` is something that was waited for before
    /// what is waited for now, and how long after the beginning that was over.
    pub(crate) fn after(mut self, ends: impl IntoIterator<Item = (WaitedFor, Duration)>) -> Self {
        let mut begun = Duration::ZERO;
        for (what, end) in ends {
            let end = end.min(self.how_long);
            if end > begun {
                self.parts.push(Part {
                    what,
                    how_long: end - begun,
                });
                begun = end;
            }
        }
        if !self.parts.is_empty() {
            self.parts.push(Part {
                what: self.what,
                how_long: self.how_long - begun,
            });
        }
        self
    }

    /// The wait was longer than those who measured its end knew.
    pub(crate) fn lasted(&mut self, how_long: Duration) {
        // The parts are of the end.
        if let Some(first) = self.parts.first_mut() {
            first.how_long += how_long.saturating_sub(self.how_long);
        }
        self.how_long = how_long;
    }

    /// Between whom the wait was decided.
    pub fn contention(&self) -> Contention {
        let outside = match &self.holder {
            Some(holder) if holder.is_this_process() && holder.thread.is_some() => {
                Contention::OwnReads
            }
            Some(holder) if holder.is_this_process() => Contention::OtherLibrary,
            Some(holder) if holder.pid.is_some() => Contention::OtherProcess,
            _ => Contention::Unseen,
        };
        match self.what {
            WaitedFor::Nothing | WaitedFor::Query => Contention::None,
            WaitedFor::Pen | WaitedFor::QueueSpace => Contention::OwnWrites,
            WaitedFor::Reader => Contention::OwnReads,
            WaitedFor::Connection => Contention::OwnConnections,
            WaitedFor::Readers | WaitedFor::WriteLock | WaitedFor::Turn | WaitedFor::Opening => {
                outside
            }
        }
    }
}

impl fmt::Display for Waited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.what == WaitedFor::Nothing {
            return f.write_str("nothing was waited for");
        }
        write!(f, "waited {:.1?} ", self.how_long)?;
        if self.parts.is_empty() {
            write!(f, "{}", self.what)?;
        } else {
            f.write_str("in all: ")?;
            for (index, part) in self.parts.iter().enumerate() {
                let separator = if index == 0 { "" } else { ", then " };
                write!(f, "{separator}{:.1?} {}", part.how_long, part.what)?;
            }
        }
        if let Some(position) = self.position {
            write!(f, ", {position} before it")?;
        }
        match &self.holder {
            Some(holder) => write!(f, ", held by {holder}"),
            // Who has the turn had just passed it on.
            None if self.what == WaitedFor::Turn => Ok(()),
            None if self.contention() == Contention::Unseen => {
                f.write_str(", held by another process, or another library in this one")
            }
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    #[test]
    fn the_parts_of_a_wait_add_up_to_it() {
        let waited = Waited::new(WaitedFor::WriteLock, secs(10))
            .after([(WaitedFor::QueueSpace, secs(1)), (WaitedFor::Pen, secs(4))]);
        let parts: Vec<_> = waited.parts.iter().map(|part| part.how_long).collect();
        assert_eq!(parts, [secs(1), secs(3), secs(6)]);
        assert_eq!(
            waited.to_string(),
            "waited 10.0s in all: 1.0s for space in the write queue, then 3.0s for the pen, then \
             6.0s for SQLite's write lock, held by another process, or another library in this one"
        );
        // Nothing before it, or nothing but it, is no part; a clock read late is none either.
        let one =
            |ends: [(WaitedFor, Duration); 1]| Waited::new(WaitedFor::Pen, secs(2)).after(ends);
        assert!(
            one([(WaitedFor::QueueSpace, Duration::ZERO)])
                .parts
                .is_empty()
        );
        let all: Duration = one([(WaitedFor::QueueSpace, secs(5))])
            .parts
            .iter()
            .map(|part| part.how_long)
            .sum();
        assert_eq!(all, secs(2));
    }

    #[test]
    fn a_holder_reads_well_whatever_is_known_of_it() {
        let stranger = Holder {
            pid: Some(u32::MAX),
            command: Some("python3 app.py".into()),
            activity: Some(Activity::Sleeping),
            locks: Some("WRITER, READ1".into()),
            since: Some(secs(3)),
            ..Holder::default()
        };
        assert_eq!(
            stranger.to_string(),
            "python3 app.py (pid 4294967295, sleeping) with WRITER, READ1 since 3.0s"
        );
        let other_onepen = Holder {
            thread: Some("ThreadId(7)".into()),
            label: Some("import".into()),
            locks: None,
            ..stranger
        };
        assert_eq!(
            other_onepen.to_string(),
            "`import` on ThreadId(7) of python3 app.py (pid 4294967295, sleeping) since 3.0s"
        );
        let here = Holder {
            pid: Some(std::process::id()),
            thread: Some("the writer thread".into()),
            since: Some(secs(1)),
            ..Holder::default()
        };
        assert_eq!(here.to_string(), "the writer thread since 1.0s");
        assert_eq!(
            Holder::default().to_string(),
            "a process that cannot be seen"
        );
    }

    #[test]
    fn the_contention_follows_from_what_was_waited_for_and_who_had_it() {
        let class = |what, pid: Option<u32>| {
            let mut waited = Waited::new(what, secs(1));
            waited.holder = Some(Holder {
                pid,
                ..Holder::default()
            });
            waited.contention()
        };
        let here = Some(std::process::id());
        for (what, pid, expected) in [
            (WaitedFor::Pen, here, Contention::OwnWrites),
            (WaitedFor::QueueSpace, here, Contention::OwnWrites),
            (WaitedFor::Reader, None, Contention::OwnReads),
            (WaitedFor::Readers, here, Contention::OtherLibrary),
            (WaitedFor::Readers, Some(u32::MAX), Contention::OtherProcess),
            (
                WaitedFor::WriteLock,
                Some(u32::MAX),
                Contention::OtherProcess,
            ),
            (WaitedFor::WriteLock, here, Contention::OtherLibrary),
            (WaitedFor::WriteLock, None, Contention::Unseen),
            (WaitedFor::Opening, None, Contention::Unseen),
            (WaitedFor::Query, here, Contention::None),
            (WaitedFor::Nothing, None, Contention::None),
        ] {
            assert_eq!(class(what, pid), expected, "{what:?} {pid:?}");
        }
        let mut own = Waited::new(WaitedFor::Readers, secs(1));
        own.holder = Some(Holder::own_reads());
        assert_eq!(own.contention(), Contention::OwnReads);
    }
}
