//! What [`Observer`](super::Observer) shows.

use std::time::Duration;

/// What was seen in one look.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct View {
    /// The processes at the gate: whoever has the turn, then those that wait, in
    /// their order, then the others.
    pub members: Vec<Member>,
}

/// One process at the gate. A process that loaded two copies of this library is
/// two members.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Member {
    /// Its place in the side file.
    pub slot: usize,
    /// Its process, as it calls itself. In another container the number means
    /// something else there.
    pub pid: u32,
    /// When that process started, in clock ticks after boot, as in field 22 of
    /// `/proc/PID/stat`: a pid that is in use again has another.
    pub started: u64,
    /// Whether the kernel says that the process, or a child it forked, is there.
    pub alive: bool,
    /// What it calls the database; control characters are replaced.
    pub label: String,
    /// What it is doing at the gate.
    pub stand: Stand,
    /// What it has counted since it joined.
    pub counters: Counters,
}

/// What a member is doing at the gate.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stand {
    /// Nothing.
    Idle,
    /// It waits for its turn.
    Waiting {
        /// How many are before it, whoever has the turn not counted.
        before: usize,
        /// For how long.
        since: Duration,
        /// How many of its threads wait, as far as they wait at the gate.
        threads: u32,
    },
    /// It has the turn: it writes, or is about to, or has just written.
    Turn {
        /// For how long. A turn that others wait for is passed on within about a
        /// millisecond, or at the end of the transaction.
        since: Duration,
        /// The thread, as in `/proc/PID/task`; 0 when it did not say.
        thread: u32,
        /// What the write is for, when its caller said so.
        purpose: Option<String>,
        /// Whether it has claimed the turn it was given. If not for long, it is
        /// stopped, and about to be passed over.
        claimed: bool,
    },
}

/// What a member has counted since it joined.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counters {
    /// Turns it had.
    pub turns: u64,
    /// Transactions in them.
    pub commits: u64,
    /// Writes in those: a group of several is one transaction.
    pub writes: u64,
    /// How often it had to wait.
    pub waits: u64,
    /// For how long, together.
    pub waited: Duration,
    /// The longest of them.
    pub longest_wait: Duration,
    /// How often its turn was passed over, because it did not move.
    pub passed_over: u64,
}
