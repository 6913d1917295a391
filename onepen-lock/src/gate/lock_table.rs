//! What the kernel's table of locks (`/proc/locks`) says of one database.
//!
//! The table is read, nothing is opened. A process in another container is not
//! in it: its locks look free, and then a turn may be passed over wrongly, which
//! is unfair and nothing worse.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::holders::table::{self, Line, Owner};
use crate::holders::{
    PENDING_BYTE, RESERVED_BYTE, WAL_CHECKPOINT_BYTE, WAL_OPEN_BYTE, WAL_WRITE_BYTE,
};

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
        any(|lock| {
            lock.bytes.exclusive
                && (covers(lock, shared_memory, WAL_WRITE_BYTE)
                    || covers(lock, shared_memory, WAL_CHECKPOINT_BYTE)
                    || covers(lock, database, RESERVED_BYTE)
                    || covers(lock, database, PENDING_BYTE))
        })
    }

    /// Looks, on a thread of its own, whether a process other than `members` has
    /// the database open in write-ahead mode. To open the table makes the kernel
    /// wait for all processors, some 10 ms: whoever writes must not.
    pub(super) fn ask_for_strangers(&self, members: Vec<u32>, now: u64) {
        let (_, shared_memory) = self.inodes();
        let seen = Arc::clone(&self.seen);
        let look = move || {
            let strange = |lock: &Line| match lock.owner {
                Owner::Process(pid) => !members.contains(&pid),
                Owner::Description => true,
            };
            if any(|lock| covers(lock, shared_memory, WAL_OPEN_BYTE) && strange(lock)) {
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

    /// Whether anybody, this process included, has the database open in write-ahead
    /// mode. `None` when that cannot be known.
    pub(super) fn is_open(&self) -> Option<bool> {
        let (_, shared_memory) = self.inodes();
        let is_open = |line: &Line| !line.waits && covers(line, shared_memory, WAL_OPEN_BYTE);
        table::read(is_open).ok().map(|found| !found.is_empty())
    }

    /// By number alone: some file systems (btrfs, overlayfs) tell `stat` another
    /// device than the table has.
    fn inodes(&self) -> (Option<u64>, Option<u64>) {
        let inode = |path: &Path| Some(path.metadata().ok()?.ino());
        (inode(&self.database), inode(&self.shared_memory))
    }
}

/// Whether somebody has such a lock. `false` also when that cannot be known.
fn any(is_one: impl Fn(&Line) -> bool) -> bool {
    table::read(|line| !line.waits && is_one(line)).is_ok_and(|found| !found.is_empty())
}

fn covers(line: &Line, inode: Option<u64>, byte: u64) -> bool {
    Some(line.inode) == inode && (line.bytes.first..=line.bytes.last).contains(&byte)
}
