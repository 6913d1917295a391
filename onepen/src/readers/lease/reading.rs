//! Who reads, as [`Database::reading`](crate::Database::reading) and messages tell
//! it.
//!
//! Guarantees: it names the call, the thread and the line of the program, and
//! nothing of what is read.

use std::fmt;
use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;

/// How something reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[repr(u8)]
pub enum ReadBy {
    /// A closure, or a single query; for tasks as well.
    Closure,
    /// A [`Snapshot`](crate::Snapshot).
    Snapshot,
    /// A [`RowStream`](crate::RowStream).
    Stream,
    /// A [backup](crate::backup), which has limits of its own and no lease.
    Backup,
}

impl ReadBy {
    pub(super) fn of(byte: u8) -> Self {
        match byte {
            1 => Self::Snapshot,
            2 => Self::Stream,
            3 => Self::Backup,
            _ => Self::Closure,
        }
    }
}

impl fmt::Display for ReadBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Closure => "a read",
            Self::Snapshot => "a snapshot",
            Self::Stream => "a stream",
            Self::Backup => "a backup",
        })
    }
}

/// Somebody of this process who reads now: [`Database::reading`](crate::Database::reading).
///
/// [`Display`](fmt::Display) says all of it in words.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Reading {
    /// How.
    pub by: ReadBy,
    /// The [label](crate::Call::label) of the call.
    pub label: Option<Arc<str>>,
    /// The thread on which it was begun.
    pub thread: Option<Arc<str>>,
    /// The line that called for it.
    pub begun: Option<&'static Location<'static>>,
    /// How long its state has been kept. Of a single query that runs in no
    /// transaction: how long it has been seen running.
    pub since: Duration,
    /// The last frame of the log that it sees: no later one can be reset to the
    /// beginning as long as it does. `None` where it is not known, or there is no
    /// log.
    pub frame: Option<u32>,
    /// How many commits were made since, by anybody. `None` where it is not known.
    pub behind: Option<u32>,
    /// It has outlasted its lease, and is in the way of something.
    pub overdue: bool,
    /// It was told to end, and has not let go yet.
    pub ending: bool,
}

impl fmt::Display for Reading {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(label) = &self.label {
            write!(f, "`{label}`, ")?;
        }
        write!(f, "{}", self.by)?;
        if let Some(thread) = &self.thread {
            write!(f, " of {thread}")?;
        }
        if let Some(begun) = self.begun {
            write!(f, ", begun at {begun}")?;
        }
        write!(f, ", since {:.1?}", self.since)?;
        if let Some(frame) = self.frame {
            write!(f, ", at frame {frame} of the log")?;
        }
        if let Some(behind) = self.behind {
            write!(f, ", {behind} commits behind")?;
        }
        if self.overdue {
            f.write_str(", past its lease")?;
        }
        if self.ending {
            f.write_str(", told to end")?;
        }
        Ok(())
    }
}

impl Reading {
    /// In words, with the name of the file alone where it was begun.
    pub(crate) fn without_path(&self) -> String {
        let text = self.to_string();
        let Some(begun) = self.begun else { return text };
        let file = begun.file();
        text.replacen(file, file.rsplit(['/', '\\']).next().unwrap_or(file), 1)
    }
}
