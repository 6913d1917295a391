//! Copies of a database that is in use, and back: [`Database::backup_to`] and
//! [`restore`].
//!
//! # Guarantees
//!
//! - The copy is **one committed state**, whatever is written meanwhile, by this
//!   process or by others.
//! - A database that is open for writing here is copied **through its pen**, a
//!   millisecond at a time. Between two steps nothing is held: the log is reset as
//!   ever, a writer waits for one step at most, and over a
//!   [rollback journal](crate::Journal::Rollback) everybody can commit. SQLite puts
//!   what the write connection commits into the copy, so nothing that is written
//!   here makes it start over, and the copy is the state of the moment of its last
//!   step.
//! - What others commit meanwhile (another process, another library, somebody who
//!   had the database [to himself](crate::Database::exclusively)) makes SQLite begin
//!   anew. After three times it is copied otherwise:
//! - In write-ahead mode **from a snapshot**, as it is in any case when that was
//!   [asked for](Transfer::snapshot), and of a file that is not open for writing
//!   here. It is the state of the moment it began, no writer waits for it, and
//!   nothing makes it start over. The price is the log, which cannot be reset while
//!   it is read. It may grow to a [limit](Transfer::log_limit), and what happens
//!   then is the caller's choice ([`WhenLogFull`]).
//! - Over a rollback journal nobody can commit beside a reader. There it is
//!   [refused](crate::ErrorKind::Refused) then, or, when that was
//!   [asked for](Transfer::hold_writers), writers are held for a last copy.
//! - The target is **there complete or not at all**. It is written under another
//!   name in the same directory, checked, flushed, and renamed; the directory is
//!   flushed. A crash in the middle leaves what was there before, and a file
//!   whose name says what it is ([`Copied::leftovers`]).
//! - **Nothing is replaced unasked** ([`Transfer::replace`]), and never a file that
//!   somebody has open, that is a link, or that is the source itself. No log or
//!   journal of another database is left beside the target: SQLite would apply it
//!   (<https://www.sqlite.org/howtocorrupt.html#_unlinking_or_renaming_a_database_file_while_in_use>).
//! - It can be watched, slowed down, ended by a deadline and cancelled; for a task
//!   there is a [future](Transfer::run_async).
//! - A copy that fails, because its disk is full say, fails alone: no write hears
//!   of it.

mod alone;
mod aside;
mod check;
mod copy;
mod future;
mod openers;
mod pace;
mod place;
mod source;
mod through;
mod transfer;

use std::path::{Path, PathBuf};
use std::time::Duration;

pub use check::Check;
pub use transfer::Transfer;

use crate::database::Database;

impl Database {
    /// A copy of this database at `target`, made when it is [run](Transfer::run):
    /// see [`backup`](crate::backup) for what is guaranteed.
    ///
    /// ```
    /// # fn main() -> onepen::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// let db = onepen::Database::open(dir.path().join("app.db"))?;
    /// # db.execute("CREATE TABLE a(n)", ())?;
    /// let copied = db
    ///     .backup_to(dir.path().join("copy.db"))
    ///     .progress(|done| println!("{} of {} bytes", done.bytes, done.of))
    ///     .run()?;
    /// println!("{} bytes in {:?}", copied.bytes, copied.took);
    /// # Ok(()) }
    /// ```
    pub fn backup_to<'a>(&self, target: impl AsRef<Path>) -> Transfer<'a> {
        Transfer::of_database(self, target.as_ref())
    }
}

/// Puts the database in `backup` at `target`, when it is [run](Transfer::run).
///
/// Like a backup, in the other direction: `target` is replaced as a whole, if
/// that was [asked for](Transfer::replace) and nobody has it open, this process
/// included. Transactions that the replaced database has in its log belong to it
/// and go with it; a log never stays beside the restored database.
///
/// ```
/// # fn main() -> onepen::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let (app, copy) = (dir.path().join("app.db"), dir.path().join("copy.db"));
/// # let db = onepen::Database::open(&app)?;
/// # db.execute("CREATE TABLE a(n)", ())?;
/// # db.backup_to(&copy).run()?;
/// db.close();
/// onepen::backup::restore(&copy, &app).replace(true).run()?;
/// # Ok(()) }
/// ```
pub fn restore<'a>(backup: impl AsRef<Path>, target: impl AsRef<Path>) -> Transfer<'a> {
    Transfer::of_file(backup.as_ref(), target.as_ref())
}

/// What to do when the log has grown to its limit while a copy is being made
/// ([`Transfer::log_limit`]).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum WhenLogFull {
    /// Give up: [`ErrorKind::LogLimit`](crate::ErrorKind::LogLimit). The log is
    /// short again soon after.
    #[default]
    Stop,
    /// Go on; the disk is the limit.
    GoOn,
    /// Go on without the pause of [`Transfer::share`] and
    /// [`Transfer::rate`], as fast as possible.
    Hurry,
    /// Let the log be reset, and copy anew, the state of that moment: at most so
    /// many times, then [`Stop`](Self::Stop).
    StartOver(u32),
}

/// What a copy is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Phase {
    /// Pages are copied.
    Copying,
    /// The copy is read and checked ([`Check`]).
    Checking,
    /// It is flushed and takes its place.
    Finishing,
}

/// How far a copy has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// What is being done now.
    pub phase: Phase,
    /// Bytes copied.
    pub bytes: u64,
    /// Bytes there are to copy. 0 while that is not known.
    pub of: u64,
    /// The length of the write-ahead log's file now, in bytes.
    pub log: u64,
    /// How many times it was begun anew.
    pub started_over: u32,
    /// Since it was begun.
    pub elapsed: Duration,
}

/// What a copy became.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Copied {
    /// The size of the copy in bytes.
    pub bytes: u64,
    /// The size of one of its pages in bytes.
    pub page_size: u32,
    /// How long all of it took.
    pub took: Duration,
    /// How long copying took, pauses included.
    pub copying: Duration,
    /// How long the check of the copy took.
    pub checking: Duration,
    /// How the copy was checked.
    pub check: Check,
    /// The longest the file of the source's log was meanwhile, in bytes.
    pub log_max: u64,
    /// How many times it was begun anew.
    pub started_over: u32,
    /// What copies that ended early (a crash, a `kill -9`) left beside the target;
    /// nobody is writing them. They can be removed.
    pub leftovers: Vec<PathBuf>,
}
