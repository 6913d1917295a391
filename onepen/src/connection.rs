//! Opens connections that all look alike, and waits while the file is busy.
//!
//! No connection of ours has a busy timeout. Where SQLite would wait blindly
//! and unstoppably, we ask again ourselves, every millisecond, and look at the
//! caller's deadline and cancel token in between.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, ffi};

use crate::blocks::retry::{Class, Stopped, again};
use crate::engine::{Patience, Witness, gave_up};
use crate::error::{Error, ErrorKind, Result, Waited, WaitedFor};
use crate::file::{self, FileId};
use crate::options::{Durability, Journal, Options};
use crate::strangers::Strangers;

/// The first SQLite without the WAL-reset bug.
const FIXED_WAL_RESET: i32 = 3_051_003;

/// How long to sleep between two tries at a lock somebody else holds.
pub(crate) const POLL: Duration = crate::engine::LOOK;

/// Everything needed to open one more connection to the file.
pub(crate) struct Connector {
    pub(crate) path: PathBuf,
    /// How errors and threads call it.
    pub(crate) name: Arc<str>,
    pub(crate) options: Options,
    /// Who is in the way outside this process's pen.
    pub(crate) strangers: Arc<Strangers>,
    /// Flushing is pointless for a database that dies with the process.
    pub(crate) volatile: bool,
    /// The file that was opened first: the path may lead to another one later.
    file: OnceLock<FileId>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Writer,
    Reader,
    Checkpointer,
}

impl Connector {
    /// # Errors
    /// When the path cannot be made absolute.
    pub(crate) fn new(path: &Path, options: Options, volatile: bool) -> Result<Self> {
        // Absolute, so that it never starts with `file:`: a SQLite built with
        // SQLITE_USE_URI would take that for a URI, with options in it that
        // switch off locking.
        let path = std::path::absolute(path)
            .map_err(|error| Error::io(format!("{}: not a usable path", path.display()), error))?;
        let name = match &options.label {
            Some(label) => Arc::clone(label),
            None => match path.file_name() {
                Some(name) => name.to_string_lossy().into(),
                None => crate::error::shown(&path),
            },
        };
        if !options.any_sqlite {
            refuse_wal_reset_bug(rusqlite::version_number())?;
        }
        Ok(Self {
            strangers: Arc::new(Strangers::new(&path, &name, options.log_waits)),
            path,
            name,
            options,
            volatile,
            file: OnceLock::new(),
        })
    }

    /// Opens a connection and puts every setting in place.
    ///
    /// # Errors
    /// Also when the path leads to another file than before: what it has is not what
    /// this database had, and its log is another one.
    pub(crate) fn open(&self, role: Role, patience: &dyn Patience) -> Result<Connection> {
        let read_only = self.options.read_only;
        let access = match role {
            Role::Reader => OpenFlags::SQLITE_OPEN_READ_ONLY,
            _ if read_only => OpenFlags::SQLITE_OPEN_READ_ONLY,
            _ => OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE,
        };
        // A private cache, whatever another library of this process made the
        // default: shared ones answer LOCKED, which no timeout ends.
        let flags = access
            | OpenFlags::SQLITE_OPEN_NO_MUTEX
            | OpenFlags::SQLITE_OPEN_PRIVATE_CACHE
            | OpenFlags::SQLITE_OPEN_EXRESCODE;
        let since = Instant::now();
        let what = match role {
            Role::Reader => self.reads_wait_for(),
            Role::Writer | Role::Checkpointer => WaitedFor::Opening,
        };
        let patience = &self.strangers.notice(patience, what, since);
        if self.file.get().is_some() {
            self.is_the_same()?; // or an empty one would be made (ATTACH needs CREATE)
        }
        let connection = retry(patience, what, since, || {
            Connection::open_with_flags(&self.path, flags)
        })
        .map_err(|error| self.not_opened(error))?;
        self.is_the_same()?;
        if access.contains(OpenFlags::SQLITE_OPEN_READ_WRITE) {
            refuse_read_only(&connection).map_err(|error| self.not_opened(error.into()))?;
        }
        retry(patience, what, since, || self.configure(&connection, role))
            .map_err(|error| self.not_opened(error))?;
        Ok(connection)
    }

    /// Whether the path leads to the file that was opened first, which may be now.
    fn is_the_same(&self) -> Result<()> {
        let now = file::identify(&self.path)
            .map_err(|error| self.context(Error::io("the file cannot be looked at", error)))?;
        let first = match (self.file.get(), &now) {
            (None, Some(now)) => self.file.get_or_init(|| now.clone()),
            (None, None) => return Ok(()),
            (Some(first), _) => first,
        };
        if now.as_ref() == Some(first) {
            return Ok(());
        }
        Err(self.context(Error::new(
            ErrorKind::Refused,
            "the database file was moved away or replaced while it was open: its name leads to \
             another file, or to none; close the database and open it again",
        )))
    }

    /// What keeps a connection from reading, where nothing rarer does.
    pub(crate) fn reads_wait_for(&self) -> WaitedFor {
        match self.options.journal {
            Journal::Wal => WaitedFor::Opening,
            Journal::Rollback => WaitedFor::WriteLock,
        }
    }

    fn not_opened(&self, error: Error) -> Error {
        let code = error.sqlite_code().unwrap_or(ffi::SQLITE_OK);
        let told_better = [ffi::SQLITE_READONLY_ROLLBACK, ffi::SQLITE_READONLY_DBMOVED];
        let why = match code & 0xff {
            ffi::SQLITE_CANTOPEN if !file::may_read(&self.path) => {
                Some("this user may not read the database file")
            }
            ffi::SQLITE_CANTOPEN | ffi::SQLITE_READONLY
                if !self.options.read_only
                    && !told_better.contains(&code)
                    && !file::may_make_files_beside(&self.path) =>
            {
                Some(
                    "this user may not make files in the directory of the database, and SQLite \
                     keeps its log there",
                )
            }
            // So says SQLite when it cannot make the files of the log.
            ffi::SQLITE_CANTOPEN if self.options.read_only => {
                why_unreadable(ffi::SQLITE_READONLY_CANTINIT)
            }
            _ => why_unreadable(code),
        };
        let kind = error.kind();
        self.blame(self.context(match why {
            Some(why) => error.restated(kind, why),
            None => error,
        }))
    }

    fn configure(&self, connection: &Connection, role: Role) -> rusqlite::Result<()> {
        let options = &self.options;
        connection.busy_timeout(Duration::ZERO)?;
        connection.set_prepared_statement_cache_capacity(options.statement_cache);
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DQS_DDL, false)?;
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DQS_DML, false)?;
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_FKEY, options.foreign_keys)?;
        // Whoever closes last would checkpoint; only ours, at our time, may.
        connection.set_db_config(
            DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE,
            role != Role::Writer,
        )?;
        connection.pragma_update(None, "cache_size", -kibibytes(options.page_cache))?;
        let mmap = i64::try_from(options.mmap).unwrap_or(i64::MAX);
        connection.pragma_update(None, "mmap_size", mmap)?;
        connection.pragma_update(None, "temp_store", "MEMORY")?;
        if role != Role::Reader && !options.read_only {
            self.set_journal(connection)?;
        }
        connection.pragma_update(None, "synchronous", self.synchronous())?;
        connection.pragma_update(None, "wal_autocheckpoint", 0)?;
        if role == Role::Reader {
            connection.pragma_update(None, "query_only", true)?;
        }
        if let Some(init) = &options.init {
            init(connection)?;
        }
        Ok(())
    }

    fn synchronous(&self) -> &'static str {
        match (self.volatile, self.options.durability, self.options.journal) {
            (true, ..) => "OFF",
            (_, Durability::Extra, _) => "EXTRA",
            // NORMAL over a rollback journal may corrupt on a loss of power.
            (_, Durability::Full, _) | (_, Durability::Normal, Journal::Rollback) => "FULL",
            (_, Durability::Normal, Journal::Wal) => "NORMAL",
        }
    }

    /// TRUNCATE flushes the length of the journal, so under FULL nothing can bring
    /// it back. EXTRA is about the directory entry of a deleted one
    /// (<https://www.sqlite.org/pragma.html#pragma_synchronous>).
    fn journal_mode(&self) -> &'static str {
        match (self.options.journal, self.options.durability) {
            (Journal::Wal, _) => "wal",
            (Journal::Rollback, Durability::Extra) => "delete",
            (Journal::Rollback, _) => "truncate",
        }
    }

    /// Ends the transaction of somebody who crashed, if nobody else does.
    pub(crate) fn roll_back(&self, patience: &dyn Patience) -> Result<()> {
        let connection = self.open(Role::Writer, patience)?;
        retry(patience, WaitedFor::Opening, Instant::now(), || {
            connection.query_row("PRAGMA schema_version", (), |_| Ok(()))
        })
        .map_err(|error| self.blame(self.context(error)))
    }

    /// Switches the journal, once per file: asking first costs a read, while
    /// setting wants locks that others hold.
    fn set_journal(&self, connection: &Connection) -> rusqlite::Result<()> {
        let wanted = self.journal_mode();
        let is: String = connection.pragma_query_value(None, "journal_mode", |row| row.get(0))?;
        if is.eq_ignore_ascii_case(wanted) {
            return Ok(());
        }
        let got: String = connection
            .pragma_update_and_check(None, "journal_mode", wanted, |row| row.get(0))
            .map_err(|error| match error {
                rusqlite::Error::SqliteFailure(code, _) if is_contention(&error) => {
                    rusqlite::Error::SqliteFailure(
                        code,
                        Some(format!(
                            "the journal can be changed from `{is}` to `{wanted}` only while \
                             nobody else has the database open"
                        )),
                    )
                }
                other => other,
            })?;
        if got.eq_ignore_ascii_case(wanted) {
            return Ok(());
        }
        // SQLite answers with the mode it stayed in: while a pager is busy that
        // is worth another try, and a file system without shared memory will
        // answer so for ever, until the caller's patience ends.
        Err(rusqlite::Error::SqliteFailure(
            ffi::Error::new(ffi::SQLITE_BUSY),
            Some(format!(
                "the journal mode stays `{got}`, `{wanted}` was asked for"
            )),
        ))
    }

    /// Names whoever was in the way of a wait that was too long.
    pub(crate) fn blame(&self, error: Error) -> Error {
        error.blaming(|what| self.strangers.who(what))
    }

    /// Names the database in an error.
    pub(crate) fn context(&self, error: Error) -> Error {
        error.with_database(&self.name)
    }
}

/// SQLite falls back to reading only, and says nothing, when the file cannot be
/// opened for writing: for want of rights, or of a free descriptor at that moment.
/// A connection that will never write again is no writer's.
fn refuse_read_only(connection: &Connection) -> rusqlite::Result<()> {
    if !connection.is_readonly(rusqlite::MAIN_DB)? {
        return Ok(());
    }
    Err(rusqlite::Error::SqliteFailure(
        ffi::Error::new(ffi::SQLITE_READONLY),
        Some(
            "the file could be opened for reading only: this user may not write to it, or there \
             was no descriptor left; a program that only reads says so with `Options::read_only`"
                .to_owned(),
        ),
    ))
}

fn kibibytes(bytes: usize) -> i64 {
    const MOST: i64 = i32::MAX as i64;
    // SQLite keeps it as 32 bits, and takes more for nothing.
    i64::try_from(bytes / 1024).map_or(MOST, |kibibytes| kibibytes.clamp(1, MOST))
}

pub(crate) fn refuse_wal_reset_bug(version: i32) -> Result<()> {
    if version >= FIXED_WAL_RESET {
        return Ok(());
    }
    let (major, minor, patch) = (version / 1_000_000, version / 1000 % 1000, version % 1000);
    Err(Error::new(
        ErrorKind::Refused,
        format!(
            "SQLite {major}.{minor}.{patch} can corrupt a database when one connection checkpoints \
             while another writes (fixed in 3.51.3, see https://www.sqlite.org/wal.html#walresetbug); \
             use the `bundled` feature or `Options::any_sqlite`"
        ),
    ))
}

/// Whether trying again, without changing anything, may help: somebody else
/// has a lock, is recovering, closing, or changing the journal.
pub(crate) fn is_contention(error: &rusqlite::Error) -> bool {
    Class::of(error).is_some_and(Class::is_others_doing)
}

/// Whether a crashed transaction must be rolled back first, by somebody who may
/// write.
pub(crate) fn is_hot_journal(error: &rusqlite::Error) -> bool {
    error
        .sqlite_error()
        .is_some_and(|error| error.extended_code == ffi::SQLITE_READONLY_ROLLBACK)
}

/// What SQLite's terse refusals to read mean, and what to do about them.
pub(crate) fn why_unreadable(code: i32) -> Option<&'static str> {
    match code {
        ffi::SQLITE_READONLY_ROLLBACK => Some(
            "a crash left a transaction in the rollback journal, and only who may write can take \
             it back; open the database once for writing, or copy it together with its journal to \
             where it can be written",
        ),
        ffi::SQLITE_READONLY_RECOVERY
        | ffi::SQLITE_READONLY_CANTLOCK
        | ffi::SQLITE_READONLY_CANTINIT
        | ffi::SQLITE_READONLY_DIRECTORY => Some(
            "the database is in write-ahead mode, and reading it needs its `-wal` and `-shm` files, \
             which are not there or cannot be used, and cannot be made here; read it where they \
             can, or switch it to a rollback journal before it is put on read-only media",
        ),
        ffi::SQLITE_READONLY_DBMOVED => {
            Some("the database file was moved or removed while it was open")
        }
        _ => None,
    }
}

/// Does `attempt` until it is not refused for contention, or `patience` ends.
pub(crate) fn retry<T>(
    patience: &dyn Patience,
    what: WaitedFor,
    since: Instant,
    attempt: impl FnMut() -> rusqlite::Result<T>,
) -> Result<T> {
    let worth = |error: &rusqlite::Error, _| is_contention(error);
    again(patience, |_| POLL, attempt, worth).map_err(|stopped| match stopped {
        Stopped::Failed(error) => error.into(),
        Stopped::GaveUp(why, refused) => {
            gave_up(why, Waited::new(what, since.elapsed())).with_source(refused)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sqlite_with_the_wal_reset_bug_is_refused_by_its_version() {
        for version in [3_007_000, 3_046_001, 3_051_002] {
            let error = refuse_wal_reset_bug(version).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Refused, "{version}");
        }
        let text = refuse_wal_reset_bug(3_046_001).unwrap_err().to_string();
        assert!(text.contains("3.46.1"), "{text}");
        for version in [3_051_003, 3_053_000, rusqlite::version_number()] {
            refuse_wal_reset_bug(version).unwrap();
        }
    }
}
