//! What the kernel's table of locks (`/proc/locks`) says of one database.
//!
//! The table is read, nothing is opened. A process in another container is not
//! in it: its locks look free, and then a turn may be passed over wrongly, which
//! is unfair and nothing worse.

use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Bytes of the database file (<https://www.sqlite.org/fileformat2.html>,
/// `os.h`): PENDING and RESERVED.
const PENDING: u64 = 0x4000_0000;
const RESERVED: u64 = PENDING + 1;
/// Bytes of `-shm` (`wal.c`): the writer's, the checkpointer's, and the one that
/// every connection holds for reading while it uses the log.
const WRITE: u64 = 120;
const CHECKPOINT: u64 = 121;
const IN_USE: u64 = 128;

/// The files of one database.
#[derive(Debug)]
pub(super) struct Files {
    database: PathBuf,
    shared_memory: PathBuf,
    seen: Arc<AtomicU64>,
}

impl Files {
    /// `database` has no symbolic links in it.
    pub(super) fn of(database: &Path) -> Self {
        let mut shared_memory = database.as_os_str().to_owned();
        shared_memory.push("-shm");
        Self {
            database: database.to_owned(),
            shared_memory: shared_memory.into(),
            seen: Arc::default(),
        }
    }

    /// Whether anybody holds SQLite's write lock, or checkpoints. `false` also
    /// when that cannot be known.
    pub(super) fn lock_is_held(&self) -> bool {
        let (database, shared_memory) = self.inodes();
        locks().iter().any(|lock| {
            lock.write
                && (lock.covers(shared_memory, WRITE)
                    || lock.covers(shared_memory, CHECKPOINT)
                    || lock.covers(database, RESERVED)
                    || lock.covers(database, PENDING))
        })
    }

    /// Looks, on a thread of its own, whether a process other than `members` has
    /// the database open in write-ahead mode. To open the table makes the kernel
    /// wait for all processors, some 10 ms: whoever writes must not.
    pub(super) fn ask_for_strangers(&self, members: Vec<u32>, now: u64) {
        let (_, shared_memory) = self.inodes();
        let seen = Arc::clone(&self.seen);
        let look = move || {
            let strange = |lock: &Lock| lock.pid.is_none_or(|pid| !members.contains(&pid));
            let is_one = |lock: &Lock| lock.covers(shared_memory, IN_USE) && strange(lock);
            if locks().iter().any(is_one) {
                seen.fetch_max(now, Relaxed);
            }
        };
        // Without a thread to spare no gap is left, as without strangers.
        let _ = std::thread::Builder::new()
            .name("onepen-gate".to_owned())
            .spawn(look);
    }

    /// The time of the latest question that found one; 0 for none.
    pub(super) fn strangers_seen(&self) -> u64 {
        self.seen.load(Relaxed)
    }

    /// By number alone: some file systems (btrfs, overlayfs) tell `stat` another
    /// device than the table has.
    fn inodes(&self) -> (Option<u64>, Option<u64>) {
        let inode = |path: &Path| Some(path.metadata().ok()?.ino());
        (inode(&self.database), inode(&self.shared_memory))
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Lock {
    write: bool,
    /// `None`: it belongs to an open file description, and so to nobody.
    pid: Option<u32>,
    inode: u64,
    first: u64,
    last: u64,
}

impl Lock {
    fn covers(&self, inode: Option<u64>, byte: u64) -> bool {
        Some(self.inode) == inode && (self.first..=self.last).contains(&byte)
    }
}

/// The table, twice: the kernel hands it out in pieces of a page, and what is
/// freed in between by others moves the rest, so that a lock may be missed.
fn locks() -> Vec<Lock> {
    let mut table = String::with_capacity(1 << 16);
    for _ in 0..2 {
        // In reads as large as the kernel answers, so in as few as possible.
        if let Ok(mut file) = std::fs::File::open("/proc/locks") {
            let _ = file.read_to_string(&mut table);
        }
    }
    table.lines().filter_map(parse).collect()
}

/// `1: POSIX  ADVISORY  WRITE 23700 fe:00:1234 120 120`
fn parse(line: &str) -> Option<Lock> {
    let mut words = line.split_whitespace().skip(1);
    // One that waits for the lock has an arrow here.
    matches!(words.next()?, "POSIX" | "OFDLCK").then_some(())?;
    let write = words.nth(1)? == "WRITE";
    let pid = words.next()?.parse().ok();
    let inode = words.next()?.rsplit(':').next()?.parse().ok()?;
    let first = words.next()?.parse().ok()?;
    let last = match words.next()? {
        "EOF" => u64::MAX,
        last => last.parse().ok()?,
    };
    Some(Lock {
        write,
        pid,
        inode,
        first,
        last,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_table_is_understood_and_waiters_are_not_holders() {
        let lock = parse("1: POSIX  ADVISORY  WRITE 23700 fe:00:1234 120 120").unwrap();
        assert!(lock.write && lock.pid == Some(23700));
        assert!(lock.covers(Some(1234), WRITE) && !lock.covers(Some(1234), CHECKPOINT));
        assert!(!lock.covers(None, WRITE));
        let lock = parse("7: OFDLCK ADVISORY  READ -1 00:2f:88 0 EOF").unwrap();
        assert!(!lock.write && lock.pid.is_none() && lock.covers(Some(88), RESERVED));
        for other in [
            "1: -> POSIX  ADVISORY  WRITE 23700 fe:00:1234 120 120",
            "2: FLOCK  ADVISORY  WRITE 1 fe:00:1234 0 EOF",
            "3: POSIX",
            "",
        ] {
            assert_eq!(parse(other), None, "{other}");
        }
    }
}
