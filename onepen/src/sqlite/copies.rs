//! Pages copied through the write connection, a few at a time, in the pen's turn.
//!
//! Guarantees: between two steps no lock is held and no snapshot, so the log can be
//! reset as ever. What the write connection commits meanwhile is put into the copy
//! by SQLite itself, so that does not make it begin anew, and the copy is the state
//! of the moment of its last step. A failure of the copy, a full disk too, is the
//! copy's alone: a write never hears of it
//! (`sqlite3BackupUpdate`: <https://www.sqlite.org/backup.html>).
//!
//! What makes SQLite begin anew is that the pages it has may not be those of the
//! database any more: another connection has committed, or a transaction that had
//! changed something was rolled back over a write-ahead log (`sqlite3BackupRestart`).
//! The copy stays right; it is only told of ([`Step::began_anew`]).
//!
//! Unsafe, because rusqlite's backup borrows both connections, and here one lies
//! beside it in the same structure. Whoever has the engine has the source, the
//! target and the copy: one thread at a time.

use std::ffi::c_int;
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rusqlite::{Connection, ffi};

use crate::sync::{AtomicBool, Ordering};

/// So many pages are copied between two looks at the clock. Each look costs a
/// read lock, taken and let go.
const AT_ONCE: c_int = 16;

/// What a step did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    /// Pages that are in the copy, and that there are.
    pub(crate) pages: u32,
    pub(crate) of: u32,
    /// The size of one of them in bytes.
    pub(crate) page_size: u32,
    pub(crate) began_anew: bool,
    pub(crate) state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    More,
    /// The copy is whole, and in its file.
    Done,
    /// Somebody has a lock that is in the way.
    Busy,
}

/// A copy, from the side of whoever makes it. Dropping it ends the copy.
pub(crate) struct Wanted(Arc<AtomicBool>);

impl Drop for Wanted {
    fn drop(&mut self) {
        self.0.store(false, Ordering::SeqCst);
    }
}

impl Wanted {
    fn is(&self, copy: &PageCopy) -> bool {
        Arc::ptr_eq(&self.0, &copy.wanted)
    }
}

/// The copies that are being made from one connection. To be dropped before it.
#[derive(Default)]
pub(crate) struct Copies(Vec<PageCopy>);

struct PageCopy {
    backup: NonNull<ffi::sqlite3_backup>,
    /// The target. Closed after `drop`, in which the backup is finished.
    _to: Connection,
    wanted: Arc<AtomicBool>,
    pages: u32,
    /// It cannot change: whatever changes it has the connection to itself, which is
    /// closed for that.
    page_size: u32,
}

// SAFETY: the backup is used with its two connections, by whoever has the engine,
// and a connection may be used by any thread that has it to itself.
unsafe impl Send for PageCopy {}

impl Copies {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Begins to copy all of `from` into `to`.
    ///
    /// # Safety
    /// `from` is the connection beside which `self` lies: the same every time, and
    /// not closed before `self` is dropped or [cleared](Self::clear).
    pub(crate) unsafe fn begin(
        &mut self,
        from: &Connection,
        to: Connection,
    ) -> rusqlite::Result<Wanted> {
        let page_size = from.pragma_query_value(None, "page_size", |row| row.get(0))?;
        // SAFETY: both handles are open, the names end with a NUL. `to` goes into
        // the structure and is closed after `sqlite3_backup_finish`; for `from` it
        // is the caller's promise.
        let backup = unsafe {
            ffi::sqlite3_backup_init(
                to.handle(),
                c"main".as_ptr(),
                from.handle(),
                c"main".as_ptr(),
            )
        };
        let Some(backup) = NonNull::new(backup) else {
            // The error is the target's, wherever it comes from.
            let code = crate::blocks::raw::last_code(&to);
            return Err(crate::capi::failure(&to, code));
        };
        let wanted = Arc::new(AtomicBool::new(true));
        self.0.push(PageCopy {
            backup,
            _to: to,
            wanted: Arc::clone(&wanted),
            pages: 0,
            page_size,
        });
        Ok(Wanted(wanted))
    }

    /// Copies until so many bytes are copied, or so much time has passed. `None` if
    /// this copy ended before: with the connection that it was of.
    pub(crate) fn step(
        &mut self,
        wanted: &Wanted,
        bytes: u64,
        time: Duration,
    ) -> Option<rusqlite::Result<Step>> {
        let at = self.0.iter().position(|copy| wanted.is(copy))?;
        let step = self.0[at].step(bytes, time);
        if !matches!(&step, Ok(step) if step.state != State::Done) {
            drop(self.0.swap_remove(at));
        }
        Some(step)
    }

    /// Ends those that nobody wants any more.
    pub(crate) fn forget_unwanted(&mut self) {
        self.0.retain(|copy| copy.wanted.load(Ordering::SeqCst));
    }
}

impl PageCopy {
    fn step(&mut self, bytes: u64, time: Duration) -> rusqlite::Result<Step> {
        let (since, first) = (Instant::now(), self.pages);
        let mut began_anew = false;
        loop {
            let before = self.pages;
            // SAFETY: the backup is not finished before `drop`; the caller has both
            // connections.
            let (code, left, of) = unsafe {
                let backup = self.backup.as_ptr();
                let code = ffi::sqlite3_backup_step(backup, AT_ONCE);
                let left = ffi::sqlite3_backup_remaining(backup);
                (code, left, ffi::sqlite3_backup_pagecount(backup))
            };
            let state = match code {
                ffi::SQLITE_OK => State::More,
                ffi::SQLITE_DONE => State::Done,
                _ if matches!(code & 0xff, ffi::SQLITE_BUSY | ffi::SQLITE_LOCKED) => State::Busy,
                _ => {
                    return Err(rusqlite::Error::SqliteFailure(
                        ffi::Error::new(code),
                        Some("pages cannot be copied".to_owned()),
                    ));
                }
            };
            if state != State::Busy {
                // What is left may be less than nothing: the database has become
                // smaller than what is copied of it.
                self.pages = u32::try_from(i64::from(of) - i64::from(left)).unwrap_or(0);
                let expected = before.saturating_add(AT_ONCE.unsigned_abs());
                began_anew |= state == State::More && self.pages < expected;
            }
            let step = Step {
                pages: self.pages,
                of: u32::try_from(of).unwrap_or(0),
                page_size: self.page_size,
                began_anew,
                state,
            };
            let copied = u64::from(self.pages.saturating_sub(first)) * u64::from(self.page_size);
            if state != State::More || copied >= bytes || since.elapsed() >= time {
                return Ok(step);
            }
        }
    }
}

impl Drop for PageCopy {
    fn drop(&mut self) {
        // SAFETY: finished once; both connections are open.
        unsafe { ffi::sqlite3_backup_finish(self.backup.as_ptr()) };
    }
}
