//! The copying itself: SQLite's own backup, a megabyte at a time.
//!
//! Guarantee: from a connection that is in a read transaction nothing makes it
//! start over. SQLite begins a backup anew when its *source connection* learns of
//! somebody else's commit (`sqlite3BackupRestart`), which a connection does only
//! between transactions. From one that is in none, whoever writes waits for one
//! step at most; when SQLite has begun anew too often, that is an error, and so is
//! a lock that stays.

use std::time::{Duration, Instant};

use rusqlite::Connection;
use rusqlite::backup::{Backup, StepResult};

use super::Phase;
use super::check::private;
use super::pace::{Halt, Pace};
use super::place::Part;
use crate::connection::POLL;
use crate::error::{Error, ErrorKind, Waited, WaitedFor};

/// How much is copied between two looks around.
const STEP: u64 = 1 << 20;

/// How much may lie in the system's cache before it is sent to the disk. A flush
/// of everything at the end would stand in front of the writers' own flushes.
const UNFLUSHED: u64 = 8 << 20;

/// How many times SQLite may begin anew because somebody wrote.
const MOST_RESTARTS: u32 = 3;

/// What was copied.
pub(super) struct Size {
    pub(super) bytes: u64,
    pub(super) page_size: u32,
}

impl From<Error> for Halt {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

impl From<rusqlite::Error> for Halt {
    fn from(error: rusqlite::Error) -> Self {
        Self::Error(error.into())
    }
}

/// Copies all of `from` into `part`, and waits for no lock longer than `patience`.
pub(super) fn copy(
    from: &Connection,
    part: &Part,
    pace: &mut Pace<'_, '_>,
    patience: Duration,
) -> std::result::Result<Size, Halt> {
    let mut to = private(&part.path)?;
    // Nobody but us ever sees the part, and one that is not complete is thrown
    // away: no journal, and flushes at our time.
    to.execute_batch("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF")?;
    let page_size: u32 = from.pragma_query_value(None, "page_size", |row| row.get(0))?;
    let pages = i32::try_from(STEP / u64::from(page_size.max(512)))
        .unwrap_or(1)
        .max(1);
    let backup = Backup::new(from, &mut to)?;
    let (mut flushed, mut furthest, mut restarts) = (0, 0, 0);
    let mut busy: Option<Instant> = None;
    loop {
        let step = backup
            .step(pages)
            .map_err(|error| written(part, error.into()))?;
        let left = backup.progress();
        let bytes_of = |pages: i32| u64::try_from(pages).unwrap_or(0) * u64::from(page_size);
        let of = bytes_of(left.pagecount);
        let bytes = of.saturating_sub(bytes_of(left.remaining));
        if bytes.saturating_sub(flushed) >= UNFLUSHED {
            part.flush()?;
            flushed = bytes;
        }
        pace.look(Phase::Copying, bytes, of)?;
        let pause = pace.pause(bytes);
        match step {
            StepResult::Done => break,
            StepResult::More => {
                busy = None;
                pace.rest(pause, bytes, of)?;
            }
            _ => {
                let since = *busy.get_or_insert_with(Instant::now);
                if since.elapsed() > patience {
                    return Err(locked(since).into());
                }
                pace.rest(pause.max(POLL), bytes, of)?;
            }
        }
        if step == StepResult::More && bytes <= furthest {
            restarts += 1;
            pace.started_over += 1;
            flushed = 0;
            if restarts > MOST_RESTARTS {
                return Err(too_often(restarts).into());
            }
        }
        furthest = bytes;
    }
    drop(backup);
    to.close().map_err(|(_, error)| error)?;
    Ok(Size {
        bytes: part.length(),
        page_size,
    })
}

fn locked(since: Instant) -> Error {
    Error::new(
        ErrorKind::DeadlineExceeded,
        "somebody keeps the database locked; the target is as it was before",
    )
    .with_waited(Waited::new(WaitedFor::WriteLock, since.elapsed()))
}

fn too_often(times: u32) -> Error {
    Error::new(
        ErrorKind::Refused,
        format!(
            "somebody wrote while it was copied, {times} times, and over a rollback journal each \
             time copying begins anew; the target is as it was before; copy it while less is \
             written, or switch it to a write-ahead log"
        ),
    )
}

/// SQLite's message does not say which of the two files it is about.
pub(super) fn written(part: &Part, error: Error) -> Error {
    use rusqlite::ffi::{SQLITE_FULL, SQLITE_IOERR_WRITE};
    let is_full = |code: i32| code == SQLITE_IOERR_WRITE || code & 0xff == SQLITE_FULL;
    if !error.sqlite_code().is_some_and(is_full) {
        return error;
    }
    Error::io(
        format!(
            "{}: cannot be written, the disk may be full; the target is as it was before",
            part.path.display()
        ),
        std::io::Error::other(error.to_string()),
    )
}
