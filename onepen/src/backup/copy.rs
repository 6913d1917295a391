//! Copying from a connection that only reads: SQLite's own backup, a megabyte at a
//! time.
//!
//! Guarantee: from a connection that is in a read transaction nothing makes it
//! start over. SQLite begins a backup anew when its *source connection* learns of
//! somebody else's commit (`sqlite3BackupRestart`), which a connection does only
//! between transactions. From one that is in none, whoever writes waits for one
//! step at most; when SQLite has begun anew too often, that is an error, or nobody
//! may commit during a last try. A lock that stays is an error too.

use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use rusqlite::backup::{Backup, StepResult};

use super::Phase;
use super::check::private;
use super::openers;
use super::pace::{Halt, Pace};
use super::place::Part;
use crate::connection::{POLL, retry};
use crate::engine::Until;
use crate::error::{Error, ErrorKind, Waited, WaitedFor};

/// How much is copied between two looks around.
pub(super) const STEP: u64 = 1 << 20;

/// How much may lie in the system's cache before it is sent to the disk. A flush
/// of everything at the end would stand in front of the writers' own flushes.
pub(super) const UNFLUSHED: u64 = 8 << 20;

/// How many times SQLite may begin anew because somebody wrote.
pub(super) const MOST_RESTARTS: u32 = 3;

/// What to do about others.
pub(super) struct Others<'a> {
    /// No lock is waited for longer.
    pub(super) patience: Duration,
    /// How many times SQLite may begin anew.
    pub(super) tries: u32,
    /// How long they may be kept from committing after that.
    pub(super) hold: Option<Duration>,
    pub(super) path: &'a Path,
}

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

/// Copies all of `from` into `part`.
pub(super) fn copy(
    from: &Connection,
    part: &Part,
    pace: &mut Pace<'_, '_>,
    others: &Others<'_>,
) -> std::result::Result<Size, Halt> {
    let mut to = target(&part.path)?;
    let page_size: u32 = from.pragma_query_value(None, "page_size", |row| row.get(0))?;
    let pages = i32::try_from(STEP / u64::from(page_size.max(512)))
        .unwrap_or(1)
        .max(1);
    let backup = Backup::new(from, &mut to)?;
    let (mut flushed, mut furthest, mut restarts) = (0, 0, 0);
    let mut busy: Option<Instant> = None;
    let mut held: Option<Instant> = None;
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
        let pause = match (held, others.hold) {
            (Some(since), Some(at_most)) if since.elapsed() > at_most => {
                return Err(too_long(at_most, bytes, of).into());
            }
            (Some(_), _) => Duration::ZERO,
            (None, _) => pace.pause(bytes),
        };
        match step {
            StepResult::Done => break,
            StepResult::More => {
                busy = None;
                pace.rest(pause, bytes, of)?;
            }
            _ => {
                let since = *busy.get_or_insert_with(Instant::now);
                if since.elapsed() > others.patience {
                    return Err(locked(since).into());
                }
                pace.rest(pause.max(POLL), bytes, of)?;
            }
        }
        if step == StepResult::More && bytes <= furthest {
            restarts += 1;
            pace.started_over += 1;
            flushed = 0;
            if restarts > others.tries && held.is_none() {
                if others.hold.is_none() {
                    return Err(too_often(pace.started_over, others.path).into());
                }
                held = Some(hold_writers(from, pace, others)?);
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

/// Nobody but us ever sees the part, and one that is not complete is thrown away:
/// no journal, and flushes at our time.
pub(super) fn target(part: &Path) -> rusqlite::Result<Connection> {
    let to = private(part)?;
    // A page is seldom met twice: a large cache would only drive out of the
    // processor's what writers have there.
    to.execute_batch(
        "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = 64",
    )?;
    Ok(to)
}

pub(super) fn locked(since: Instant) -> Error {
    Error::new(
        ErrorKind::DeadlineExceeded,
        "somebody keeps the database locked; the target is as it was before",
    )
    .with_waited(Waited::new(WaitedFor::WriteLock, since.elapsed()))
}

/// Lets nobody commit until `from` is closed: over a rollback journal a read lock
/// does that.
fn hold_writers(
    from: &Connection,
    pace: &Pace<'_, '_>,
    others: &Others<'_>,
) -> std::result::Result<Instant, Halt> {
    let until = Until {
        deadline: Instant::now().checked_add(others.patience),
        cancel: pace.until.cancel,
    };
    from.execute_batch("BEGIN")?;
    retry(&until, WaitedFor::WriteLock, Instant::now(), || {
        from.query_row("SELECT count(*) FROM sqlite_schema", (), |_| Ok(()))
    })?;
    Ok(Instant::now())
}

fn too_long(at_most: Duration, bytes: u64, of: u64) -> Error {
    Error::new(
        ErrorKind::DeadlineExceeded,
        format!(
            "writers were held for {at_most:?}, and {bytes} of {of} bytes were copied; the target \
             is as it was before"
        ),
    )
}

fn too_often(times: u32, path: &Path) -> Error {
    let own = std::process::id();
    let them: Vec<_> = openers::of(path)
        .into_iter()
        .filter(|&pid| pid != own)
        .collect();
    let who = match &them[..] {
        [] => String::new(),
        pids => {
            let names: Vec<_> = pids.iter().map(|&pid| openers::name(pid)).collect();
            format!(" (others that have it open: {})", names.join(", "))
        }
    };
    Error::new(
        ErrorKind::Refused,
        format!(
            "somebody wrote while it was copied, {times} times, and over a rollback journal each \
             time copying begins anew{who}; the target is as it was before; copy it while less is \
             written, hold writers for a last copy (`--hold-writers` of the command, \
             `Transfer::hold_writers` in Rust), or switch it to a write-ahead log"
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
    part.full(std::io::Error::other(error.to_string()))
}
