//! One record, as `preload/records.h` lays it out.
//!
//! Guarantees: reading is pure and takes any bytes; what has no meaning becomes
//! "not known".

/// The size of a record in bytes.
pub(crate) const SIZE: usize = 384;

/// What a record tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// A lock was refused or waited for.
    Waited,
    /// The write lock was had for 10 ms or more.
    Held,
    /// The code of two libraries locks one file. [`Record::text`] names them, one
    /// on each line.
    TwoLibraries,
    /// A descriptor of the file was closed while a transaction wrote: its locks
    /// are gone. [`Record::text`] names the library whose code closed it.
    DroppedLocks,
    /// Not known to this version.
    Unknown,
}

/// The lock that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum What {
    /// The write lock of the log.
    Writer,
    /// The right to copy the log back.
    Checkpointer,
    /// The right to rebuild the `-shm` file, or its end.
    Recovery,
    /// A read mark.
    Read,
    /// A read mark for oneself: who resets the log, or moves the mark.
    Mark,
    /// The `-shm` file's lock of who has it open.
    Opening,
    /// Of the database: to read.
    Shared,
    /// Of the database: to be the one who is going to write.
    Reserved,
    /// Of the database: to let no more readers in.
    Pending,
    /// Of the database: to be alone.
    Exclusive,
    /// Not known to this version.
    Unknown,
}

impl What {
    /// SQLite's word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Writer => "WRITER",
            Self::Checkpointer => "CHECKPOINTER",
            Self::Recovery => "RECOVERY",
            Self::Read => "READ",
            Self::Mark => "READ (alone)",
            Self::Opening => "OPEN",
            Self::Shared => "SHARED",
            Self::Reserved => "RESERVED",
            Self::Pending => "PENDING",
            Self::Exclusive => "EXCLUSIVE",
            Self::Unknown => "?",
        }
    }
}

/// How a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// It was had in the end.
    Got,
    /// It was not: the program was told "database is locked".
    Refused,
    /// Nobody saw: its process ended, or has not asked again.
    Open,
}

/// The busy timeout of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Timeout {
    /// Could not be seen.
    Unknown,
    /// A handler of the program's own.
    Handler,
    /// So many milliseconds; 0 means none.
    Milliseconds(u32),
}

/// What happened to one thread, once. Times are in nanoseconds, moments of the
/// system's monotonic clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// What it tells.
    pub kind: Kind,
    /// Its process, as that sees itself.
    pub pid: u32,
    /// Its thread.
    pub tid: u32,
    /// The thread's name.
    pub thread: String,
    /// The database ([`Events::database`](crate::Events::database)).
    pub database: u32,
    /// The lock.
    pub what: What,
    /// How it ended.
    pub outcome: Outcome,
    /// The first refusal; of a hold its beginning.
    pub first: u64,
    /// When the lock was had, or else the last refusal or the end of the last sleep.
    pub last: u64,
    /// How long of it SQLite slept.
    pub slept: u64,
    /// How often SQLite slept.
    pub sleeps: u32,
    /// How often the lock was refused.
    pub refusals: u32,
    /// The connection's timeout.
    pub timeout: Timeout,
    /// SQLite's extended result code, if it was seen.
    pub code: Option<i32>,
    /// Who had the lock at the refusals: the process and how often. 0 is somebody
    /// who had gone by the time of asking, −1 somebody whose lock belongs to an open
    /// file description.
    pub holders: Vec<(i32, u32)>,
    /// How often it was somebody else.
    pub other_holders: u32,
    /// The thread of the same process that had the write lock.
    pub own_holder: Option<u32>,
    /// How long who had the write lock had had it, at the most, where that was seen.
    pub held_for: Option<u64>,
    /// The beginning of the statement (never a bound value), or of what
    /// [`Kind`] says.
    pub text: Option<String>,
    flags: u32,
}

macro_rules! flags {
    ($($(#[$doc:meta])* $name:ident = $bit:literal;)*) => {
        impl Record {
            $($(#[$doc])* pub fn $name(&self) -> bool { self.flags & $bit != 0 })*
        }
    };
}

flags! {
    /// It happened within a call of `sqlite3_step` that was seen.
    is_by_api = 1;
    /// Another connection of the same process was in the way.
    is_in_process = 2;
    /// No refusal was seen, only what follows from one.
    is_inferred = 4;
    /// Who had the lock had the checkpointer's as well.
    is_beside_checkpoint = 8;
    /// The thread had a read lock of the database before.
    had_read = 16;
    /// SQLite said in which transaction the connection was afterwards.
    is_transaction_known = 128;
    /// It was in a read transaction.
    is_in_read = 32;
    /// It was in a write transaction.
    is_in_write = 64;
    /// It was asked again, not by SQLite's own timeout.
    is_own_retry = 256;
    /// A `-wal` file lay beside the database.
    has_log = 512;
    /// The snapshot was too old to write (`SQLITE_BUSY_SNAPSHOT`).
    is_snapshot = 1024;
    /// Whether the next could be seen.
    is_stack_known = 4096;
    /// The read lock and this one were asked for by one call: it is the beginning of
    /// a transaction, no upgrade.
    is_one_activation = 8192;
}

impl Record {
    pub(crate) fn parse(bytes: &[u8; SIZE]) -> Self {
        let u32_at = |at: usize| u32::from_ne_bytes(bytes[at..at + 4].try_into().expect("four"));
        let i32_at = |at: usize| u32_at(at).cast_signed();
        let u64_at = |at: usize| u64::from_ne_bytes(bytes[at..at + 8].try_into().expect("eight"));
        let text_at = |at: usize, len: usize| {
            let text = bytes[at..at + len].split(|byte| *byte == 0).next();
            String::from_utf8_lossy(text.unwrap_or_default()).into_owned()
        };
        let flags = u32_at(20);
        let kind = match bytes[16] {
            1 => Kind::Waited,
            2 => Kind::Held,
            3 => Kind::TwoLibraries,
            4 => Kind::DroppedLocks,
            _ => Kind::Unknown,
        };
        let what = match bytes[17] {
            1 => What::Writer,
            2 => What::Checkpointer,
            3 => What::Recovery,
            4 => What::Read,
            5 => What::Mark,
            6 => What::Opening,
            7 => What::Shared,
            8 => What::Reserved,
            9 => What::Pending,
            10 => What::Exclusive,
            _ => What::Unknown,
        };
        let holders = (0..4).map(|n| (i32_at(64 + 8 * n), u32_at(68 + 8 * n)));
        let has_text = flags & 2048 != 0 || matches!(kind, Kind::TwoLibraries | Kind::DroppedLocks);
        Self {
            kind,
            pid: u32_at(4),
            tid: u32_at(8),
            database: u32_at(12),
            what,
            outcome: match bytes[18] {
                1 => Outcome::Got,
                2 => Outcome::Refused,
                _ => Outcome::Open,
            },
            first: u64_at(24),
            last: u64_at(32),
            slept: u64_at(40),
            refusals: u32_at(48),
            timeout: match i32_at(52) {
                -1 => Timeout::Handler,
                ms => u32::try_from(ms).map_or(Timeout::Unknown, Timeout::Milliseconds),
            },
            code: Some(i32_at(56)).filter(|code| *code != 0),
            sleeps: u32_at(60),
            holders: holders.filter(|(_, times)| *times > 0).collect(),
            other_holders: u32_at(96),
            own_holder: Some(u32_at(100)).filter(|tid| *tid != 0),
            held_for: Some(u64_at(104)).filter(|time| *time > 0),
            thread: text_at(112, 16),
            text: has_text.then(|| text_at(128, 256)),
            flags,
        }
    }

    /// How long it lasted, in nanoseconds.
    pub fn lasted(&self) -> u64 {
        self.last.saturating_sub(self.first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_bytes_are_a_record() {
        let nothing = Record::parse(&[0; SIZE]);
        assert_eq!(nothing.kind, Kind::Unknown);
        assert!(!nothing.had_read() && nothing.text.is_none());
        let noise = Record::parse(&[0xff; SIZE]);
        assert_eq!((noise.what, noise.outcome), (What::Unknown, Outcome::Open));
        assert_eq!(noise.timeout, Timeout::Handler);
        assert_eq!(noise.lasted(), 0);
    }
}
