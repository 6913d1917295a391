//! What `onepen top` shows of one moment: the same for the screen, for plain text
//! and, as it stands, for `--json`.

use serde::Serialize;

/// The name and version of the form of `--json`.
pub const SCHEMA: &str = "onepen-top/1";

#[derive(Clone, Debug, Serialize)]
pub struct Picture {
    pub schema: &'static str,
    /// As it was named.
    pub database: String,
    /// `null` when nobody has it open and the files do not say.
    pub journal: Option<Journal>,
    pub database_bytes: u64,
    /// The write-ahead log, if there is one.
    pub log: Option<LogPicture>,
    /// What rates are taken over; `null` in the first picture, which has none.
    pub seconds: Option<f64>,
    pub totals: Totals,
    /// One for each process.
    pub rows: Vec<Row>,
    /// What could not be seen, in sentences.
    pub unseen: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Journal {
    Wal,
    Rollback,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LogPicture {
    pub bytes: u64,
    /// `null` where nobody has it open: the file's size alone does not tell.
    pub frames: Option<u32>,
    /// How many of them are in the database file already.
    pub copied_back: Option<u32>,
    /// The end of the oldest snapshot somebody reads: no more than this can be
    /// copied back, and the log cannot begin anew.
    pub pinned_at: Option<u32>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Totals {
    /// Processes that use onepen, and others.
    pub onepen: usize,
    pub strangers: usize,
    /// Processes in line for their turn.
    pub waiting: usize,
    /// Of the processes that use onepen; others count nothing.
    pub transactions_per_s: Option<f64>,
    pub writes_per_s: Option<f64>,
    /// Of all processes, onepen or not, as the log counts commits.
    pub commits_per_s: Option<f64>,
}

#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// `null` when the process that has these locks could not be found.
    pub pid: Option<u32>,
    pub command: String,
    pub is: Is,
    /// What a process that uses onepen calls the database.
    pub label: Option<String>,
    /// `running`, `sleeping`, `stopped` …
    pub activity: String,
    pub stopped: bool,
    pub does: Does,
    /// For how long; what was only seen from outside is at least so old.
    pub for_s: Option<f64>,
    /// How many are before it in line, when it waits.
    pub before: Option<usize>,
    /// The thread that writes, as in `/proc/PID/task`, and what it says it is for.
    pub thread: Option<u32>,
    pub purpose: Option<String>,
    /// SQLite's locks in SQLite's words.
    pub locks: Option<String>,
    pub transactions_per_s: Option<f64>,
    pub writes_per_s: Option<f64>,
    pub waits_per_s: Option<f64>,
    /// Since it opened the database.
    pub longest_wait_s: Option<f64>,
    /// The snapshot it reads.
    pub pins: Option<Pins>,
}

impl Row {
    /// A process that has the database open, and no more is known.
    pub fn idle(pid: Option<u32>, command: &str, is: Is) -> Self {
        Self {
            pid,
            command: command.to_owned(),
            is,
            label: None,
            activity: String::new(),
            stopped: false,
            does: Does::Idle,
            for_s: None,
            before: None,
            thread: None,
            purpose: None,
            locks: None,
            transactions_per_s: None,
            writes_per_s: None,
            waits_per_s: None,
            longest_wait_s: None,
            pins: None,
        }
    }

    /// How it is called in one word or two.
    pub fn name(&self) -> &str {
        match &self.label {
            Some(label) if !label.is_empty() => label,
            _ if self.command.is_empty() => "?",
            _ => &self.command,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Is {
    Onepen,
    /// Uses the database without onepen.
    Stranger,
}

impl Is {
    pub fn word(self) -> &'static str {
        match self {
            Self::Onepen => "onepen",
            Self::Stranger => "stranger",
        }
    }
}

/// The most that a process does; in this order in line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Does {
    /// Has SQLite's write lock.
    Writes,
    /// Has the turn: has just written, or is about to.
    HasTurn,
    /// Stands in line for the turn.
    Waits,
    /// Copies the log back into the database.
    CopiesBack,
    /// Is in the middle of a read.
    Reads,
    /// Has the database open.
    Idle,
}

impl Does {
    pub fn word(self) -> &'static str {
        match self {
            Self::Writes => "writes",
            Self::HasTurn => "has turn",
            Self::Waits => "waits",
            Self::CopiesBack => "copies back",
            Self::Reads => "reads",
            Self::Idle => "idle",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Pins {
    /// The frame of the log where its snapshot ends; 0 reads the database file.
    pub frame: u32,
    /// How many frames were written since.
    pub behind: u32,
    /// For how long, at least.
    pub for_s: f64,
}
