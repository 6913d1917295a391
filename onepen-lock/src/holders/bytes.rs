//! SQLite's lock bytes, and what a range of them means.
//!
//! Guarantees: every range that the kernel can report is given its meaning in
//! SQLite's words, merged ranges too (the kernel joins adjoining locks of one
//! owner into one), and a range that meets no byte of SQLite's has none.
//!
//! Sources: `os.h` (`PENDING_BYTE` and its neighbours), `wal.c` and `os_unix.c`
//! (`WAL_WRITE_LOCK` and its neighbours, from `UNIX_SHM_BASE` = (22 + 8) × 4 on), and
//! <https://www.sqlite.org/lockingv3.html>,
//! <https://www.sqlite.org/walformat.html#wal_locks>.

use std::fmt;
use std::ops::RangeInclusive;

/// First of the lock bytes in the database file: one gibibyte in.
pub const PENDING_BYTE: u64 = 0x4000_0000;
/// A writer that has not begun to write holds this byte.
pub const RESERVED_BYTE: u64 = PENDING_BYTE + 1;
/// Readers share these bytes; who writes to the file holds all of them alone.
pub const SHARED_BYTES: RangeInclusive<u64> = PENDING_BYTE + 2..=PENDING_BYTE + 511;

/// The writer's byte in the `-shm` file.
pub const WAL_WRITE_BYTE: u64 = 120;
/// The checkpointer's byte in the `-shm` file.
pub const WAL_CHECKPOINT_BYTE: u64 = 121;
/// The byte in the `-shm` file of whoever rebuilds it after a crash.
pub const WAL_RECOVER_BYTE: u64 = 122;
/// One byte in the `-shm` file for each read mark.
pub const WAL_READ_BYTES: RangeInclusive<u64> = 123..=127;
/// Whoever has the `-shm` file open shares this byte ("dead man's switch").
pub const WAL_OPEN_BYTE: u64 = 128;

/// How far a connection over a rollback journal has come, in SQLite's five
/// states (<https://www.sqlite.org/lockingv3.html#locking>). Each includes the
/// ones before it.
///
/// In write-ahead mode everybody who has the database open is `Shared`, all
/// the time, and who writes is told by [`Lock::Writer`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// No lock: neither reads nor writes.
    #[default]
    Unlocked,
    /// Reads; others may read too.
    Shared,
    /// Is going to write; others still read.
    Reserved,
    /// Waits for the last readers to finish; nobody begins to read.
    Pending,
    /// Writes to the file; nobody else may do anything.
    Exclusive,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unlocked => "UNLOCKED",
            Self::Shared => "SHARED",
            Self::Reserved => "RESERVED",
            Self::Pending => "PENDING",
            Self::Exclusive => "EXCLUSIVE",
        })
    }
}

/// A lock of SQLite's write-ahead mode, all of them in the `-shm` file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lock {
    /// May append to the log: the one writer. Checkpoints of the kinds RESTART
    /// and TRUNCATE hold it too.
    Writer,
    /// Copies the log back into the database.
    Checkpointer,
    /// Rebuilds the `-shm` file after a crash; nobody else can do anything.
    Recovery,
    /// Reads a snapshot that ends at the frame in this mark (0 to 4; 0 reads the
    /// database alone). Several readers may share a mark.
    Read(u8),
    /// Has a mark to itself: a reader that moves it, a checkpoint, a reset.
    Mark(u8),
}

impl fmt::Display for Lock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Writer => f.write_str("WRITER"),
            Self::Checkpointer => f.write_str("CHECKPOINTER"),
            Self::Recovery => f.write_str("RECOVERY"),
            Self::Read(mark) => write!(f, "READ{mark}"),
            Self::Mark(mark) => write!(f, "READ{mark} (alone)"),
        }
    }
}

/// Some bytes of a file that somebody has locked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bytes {
    pub(crate) exclusive: bool,
    pub(crate) first: u64,
    pub(crate) last: u64,
}

impl Bytes {
    fn meets(&self, bytes: &RangeInclusive<u64>) -> bool {
        self.first <= *bytes.end() && *bytes.start() <= self.last
    }

    fn has(&self, byte: u64) -> bool {
        self.meets(&(byte..=byte))
    }

    /// What locking these bytes of the database file means.
    ///
    /// A *shared* lock on the pending byte is a reader at the door, for some
    /// microseconds, and no state of its own.
    pub(super) fn of_database(&self) -> State {
        match self.exclusive {
            true if self.meets(&SHARED_BYTES) => State::Exclusive,
            true if self.has(PENDING_BYTE) => State::Pending,
            true if self.has(RESERVED_BYTE) => State::Reserved,
            false if self.meets(&SHARED_BYTES) => State::Shared,
            _ => State::Unlocked,
        }
    }

    /// What locking these bytes of the `-shm` file means.
    pub(super) fn of_shared_memory(&self) -> impl Iterator<Item = Lock> + use<> {
        let this = *self;
        let alone = [
            (WAL_WRITE_BYTE, Lock::Writer),
            (WAL_CHECKPOINT_BYTE, Lock::Checkpointer),
            (WAL_RECOVER_BYTE, Lock::Recovery),
        ]
        .into_iter()
        .filter(move |(byte, _)| this.exclusive && this.has(*byte))
        .map(|(_, lock)| lock);
        let marks = (0u8..)
            .zip(WAL_READ_BYTES)
            .filter(move |(_, byte)| this.has(*byte))
            .map(move |(mark, _)| match this.exclusive {
                true => Lock::Mark(mark),
                false => Lock::Read(mark),
            });
        alone.chain(marks)
    }

    /// Whether the owner has the `-shm` file open in SQLite.
    pub(super) fn is_open_in_wal(&self) -> bool {
        self.has(WAL_OPEN_BYTE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(exclusive: bool, first: u64, last: u64) -> Bytes {
        Bytes {
            exclusive,
            first,
            last,
        }
    }

    fn wal(exclusive: bool, first: u64, last: u64) -> Vec<Lock> {
        bytes(exclusive, first, last).of_shared_memory().collect()
    }

    #[test]
    fn the_five_states_have_their_bytes() {
        let state = |exclusive, first, last| bytes(exclusive, first, last).of_database();
        assert_eq!(state(false, 1_073_741_826, 1_073_742_335), State::Shared);
        assert_eq!(state(true, 1_073_741_825, 1_073_741_825), State::Reserved);
        assert_eq!(state(true, 1_073_741_824, 1_073_741_824), State::Pending);
        assert_eq!(state(true, 1_073_741_826, 1_073_742_335), State::Exclusive);
        // Joined by the kernel.
        assert_eq!(state(true, 1_073_741_824, 1_073_741_825), State::Pending);
        assert_eq!(state(true, 1_073_741_824, 1_073_742_335), State::Exclusive);
        assert_eq!(state(true, 0, u64::MAX), State::Exclusive);
        // A single byte of the shared ones: what SQLite does on Windows of old.
        assert_eq!(state(false, 1_073_741_900, 1_073_741_900), State::Shared);
    }

    #[test]
    fn other_bytes_mean_nothing() {
        for (first, last) in [(0, 1_073_741_823), (1_073_742_336, u64::MAX), (128, 120)] {
            assert_eq!(bytes(true, first, last).of_database(), State::Unlocked);
        }
        // A reader at the door.
        assert_eq!(
            bytes(false, PENDING_BYTE, PENDING_BYTE).of_database(),
            State::Unlocked
        );
        assert_eq!(wal(true, 0, 119), []);
        assert_eq!(wal(true, 129, u64::MAX), []);
        assert_eq!(wal(false, 120, 122), [], "nobody shares these");
    }

    #[test]
    fn the_locks_of_the_log_have_their_bytes_alone_and_joined() {
        assert_eq!(wal(true, 120, 120), [Lock::Writer]);
        assert_eq!(wal(true, 121, 121), [Lock::Checkpointer]);
        assert_eq!(wal(true, 120, 121), [Lock::Writer, Lock::Checkpointer]);
        assert_eq!(wal(true, 122, 122), [Lock::Recovery]);
        assert_eq!(wal(false, 123, 123), [Lock::Read(0)]);
        assert_eq!(wal(false, 126, 128), [Lock::Read(3), Lock::Read(4)]);
        assert_eq!(
            wal(true, 120, 127).len(),
            8,
            "recovery takes all of them at once"
        );
        assert_eq!(wal(true, 124, 124), [Lock::Mark(1)]);
        assert!(bytes(false, 126, 128).is_open_in_wal());
        assert!(!bytes(false, 126, 127).is_open_in_wal());
    }
}
