//! Whether anything was committed since: a look at shared memory instead of
//! two system calls.
//!
//! Every commit to a database in write-ahead mode, by any process, ends with a
//! new header in the memory that all its users share (the wal-index,
//! <https://www.sqlite.org/walformat.html#the_wal_index_header>). A read
//! transaction begins with a comparison of that header with the copy taken by
//! the last one, and goes on to take a lock. When the header has not moved, the
//! snapshot taken then *is* the present state: a transaction still open from
//! then can serve a new read. That is the whole idea; [`super::pool`] decides how
//! long one stays open.
//!
//! The header holds the number of commits, two checksums and two random salts,
//! so that it never returns to a former value.
//!
//! Looked at as well is how much of the log was copied back, by whomever. Once
//! it is all of it, a new read takes nothing from the log and does not keep it
//! from being reset; one left open from before would.

use std::ffi::c_int;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU64, Ordering};

use onepen_lock::gate::Stamp;
use rusqlite::{Connection, ffi};

/// The words that are looked at: the header, 48 bytes, and at byte 96 `nBackfill`,
/// with the first read mark, which is always 0.
const WORDS: [usize; 7] = [0, 1, 2, 3, 4, 5, 12];
/// The size of the pieces in which the wal-index is mapped.
const PIECE: c_int = 32 * 1024;

/// What they held.
pub(super) type Mark = [u64; WORDS.len()];

/// Where the wal-index is, for as long as the connection it was asked of is open.
#[derive(Clone, Copy)]
pub(crate) struct CommitMark(NonNull<AtomicU64>);

// SAFETY: a pointer to memory that is shared between processes and read with
// atomic loads.
unsafe impl Send for CommitMark {}
// SAFETY: the same; it has no other state.
unsafe impl Sync for CommitMark {}

impl CommitMark {
    /// `None` where there is no log, or none in shared memory. Asked within a
    /// read transaction, so that the wal-index is mapped already.
    pub(crate) fn of(connection: &Connection) -> Option<Self> {
        let setting = |name| connection.pragma_query_value(None, name, |row| row.get(0));
        let journal: String = setting("journal_mode").ok()?;
        let locking: String = setting("locking_mode").ok()?;
        if journal != "wal" || locking != "normal" || connection.is_autocommit() {
            return None;
        }
        let mut file: *mut ffi::sqlite3_file = ptr::null_mut();
        let mut piece = ptr::null_mut();
        // SAFETY: the handle is open. SQLite gives its open file, whose methods
        // are valid as long as it is, and whose version says that there is an
        // `xShmMap`. In a read transaction of a database in write-ahead mode this
        // only asks for the address of the first piece, mapped already (nothing
        // is extended); it stays there until the last connection of this process
        // to the file is closed.
        let code = unsafe {
            ffi::sqlite3_file_control(
                connection.handle(),
                c"main".as_ptr(),
                ffi::SQLITE_FCNTL_FILE_POINTER,
                (&raw mut file).cast(),
            );
            let methods = file.as_ref()?.pMethods.as_ref()?;
            if methods.iVersion < 2 {
                return None;
            }
            methods.xShmMap?(file, 0, PIECE, 0, &raw mut piece)
        };
        let header = NonNull::new(piece.cast::<AtomicU64>())?;
        (code == ffi::SQLITE_OK && header.is_aligned()).then_some(Self(header))
    }

    /// What is another after every commit, by whomever, and stays while the log is
    /// copied back or reset: SQLite's count of commits (`iChange`), and its checksum
    /// over the log (`aFrameCksum`).
    pub(crate) fn stamp(&self) -> Stamp {
        let word = |at: usize| {
            // SAFETY: as in `now`.
            unsafe { self.0.add(at).as_ref() }.load(Ordering::Acquire)
        };
        let commits = |word: u64| {
            let bytes = word.to_ne_bytes();
            u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
        };
        // Somebody may be writing it. What does not belong together is found out by
        // whoever compares it with another.
        let mut before = word(1);
        for _ in 0..100 {
            let checksum = word(3);
            let after = word(1);
            if before == after {
                return Stamp {
                    commits: commits(after),
                    checksum,
                };
            }
            before = after;
        }
        Stamp {
            commits: commits(before),
            checksum: 0,
        }
    }

    /// The words now. A commit that returned before this call is in them.
    #[inline]
    pub(super) fn now(&self) -> Mark {
        WORDS.map(|word| {
            // SAFETY: within the first piece, which is mapped (see `of`). Others
            // write to it, so all we do are atomic loads; a value of which only a
            // part was written yet is equal to no other.
            unsafe { self.0.add(word).as_ref() }.load(Ordering::Acquire)
        })
    }
}
