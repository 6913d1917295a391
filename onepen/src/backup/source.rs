//! What is copied: a database of this process, or a file.
//!
//! Guarantee: where a log is kept, what [`Source::open`] gives sees one committed
//! state for as long as it lives, and nobody who writes waits for it. Over a
//! rollback journal nobody could commit beside that; there it holds no lock
//! between two steps, and SQLite begins anew when somebody has written.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use onepen_lock::holders;
use rusqlite::{Connection, OpenFlags};

use super::check::still;
use super::place::{BESIDE, beside, length};
use crate::connection::{Role, retry};
use crate::database::Database;
use crate::engine::{Patience, Until};
use crate::error::{Error, ErrorKind, Result, WaitedFor};
use crate::options::Journal;
use crate::pen::job::Ticket;
use crate::readers::Snapshot;

pub(super) enum Source {
    Database(Database),
    File(PathBuf),
}

/// One state of it, or what comes closest.
pub(super) enum State {
    Snapshot(Box<Snapshot>),
    /// In a read transaction.
    Held(Connection),
    /// In none.
    Loose(Connection),
}

impl State {
    pub(super) fn connection(&self) -> &Connection {
        match self {
            Self::Snapshot(snapshot) => snapshot.connection(),
            Self::Held(connection) | Self::Loose(connection) => connection,
        }
    }
}

impl Source {
    pub(super) fn path(&self) -> &Path {
        match self {
            Self::Database(database) => &database.shared.connector.path,
            Self::File(path) => path,
        }
    }

    /// Names it in an error.
    pub(super) fn context(&self, error: Error) -> Error {
        match self {
            Self::Database(database) => database.shared.connector.context(error),
            Self::File(path) => error.with_database(&crate::error::shown(path)),
        }
    }

    /// How long to wait for others when the caller does not say.
    pub(super) fn patience(&self) -> Duration {
        match self {
            Self::Database(database) => database.shared.connector.options.wait,
            Self::File(_) => crate::Options::new().wait,
        }
    }

    /// Its state now.
    pub(super) fn open(&self, until: &Until<'_>) -> Result<State> {
        match self {
            Self::Database(database) => {
                let left = until
                    .deadline
                    .map(|at| at.saturating_duration_since(Instant::now()));
                let ticket = Ticket {
                    patience: left,
                    cancel: until.cancel.cloned(),
                    label: Some("backup".into()),
                    ..Ticket::default()
                };
                let snapshot = database.shared.readers()?.snapshot(&ticket)?;
                let snapshot = snapshot.without_lease();
                if is_in_wal(snapshot.connection())? {
                    return Ok(State::Snapshot(Box::new(snapshot)));
                }
                drop(snapshot);
                self.connection(until).map(State::Loose)
            }
            Self::File(path) => {
                let (connection, still) = open_file(path, until)?;
                retry(until, WaitedFor::Opening, Instant::now(), || {
                    if connection.is_autocommit() {
                        connection.execute_batch("BEGIN")?;
                    }
                    connection.query_row("SELECT count(*) FROM sqlite_schema", (), |_| Ok(()))
                })?;
                if still || is_in_wal(&connection)? {
                    return Ok(State::Held(connection));
                }
                connection.execute_batch("COMMIT")?;
                Ok(State::Loose(connection))
            }
        }
    }

    /// A connection in no transaction, for a statement that brings its own.
    pub(super) fn connection(&self, until: &dyn Patience) -> Result<Connection> {
        match self {
            Self::Database(database) => {
                database.shared.readers()?;
                let connection = database.shared.connector.open(Role::Reader, until)?;
                // The file is open for reading only; what is written is another one.
                connection.pragma_update(None, "query_only", false)?;
                Ok(connection)
            }
            Self::File(path) => open_file(path, until).map(|(connection, _)| connection),
        }
    }

    /// Lets the log be reset, after no state is held any more; waits for that, but
    /// not for long.
    pub(super) fn let_log_be_reset(&self, until: &dyn Patience) {
        const LONGEST: Duration = Duration::from_secs(2);
        let since = Instant::now();
        let (resets, at_least) = match self {
            Self::Database(database) if keeps_log(database) => (
                Some((database, database.stats().wal_resets)),
                Duration::ZERO,
            ),
            // Who writes does it, and nobody tells us.
            _ => (None, LONGEST / 4),
        };
        while since.elapsed() < LONGEST && until.exhausted().is_none() {
            let done = match resets {
                Some((database, before)) => database.stats().wal_resets > before,
                None => since.elapsed() >= at_least,
            };
            if done {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Whether the log is reset by this process.
fn keeps_log(database: &Database) -> bool {
    let options = &database.shared.connector.options;
    options.journal == Journal::Wal && !options.read_only
}

fn is_in_wal(connection: &Connection) -> Result<bool> {
    let journal: String = connection.pragma_query_value(None, "journal_mode", |row| row.get(0))?;
    Ok(journal == "wal")
}

/// Opens it; says whether it is still, so that no lock is needed.
fn open_file(path: &Path, until: &dyn Patience) -> Result<(Connection, bool)> {
    if !path.exists() {
        return Err(Error::io(
            "there is no such database",
            std::io::ErrorKind::NotFound.into(),
        ));
    }
    if is_still(path) {
        return Ok((still(path)?, true));
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY
        | OpenFlags::SQLITE_OPEN_NO_MUTEX
        | OpenFlags::SQLITE_OPEN_PRIVATE_CACHE
        | OpenFlags::SQLITE_OPEN_EXRESCODE;
    retry(until, WaitedFor::Opening, Instant::now(), || {
        let connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(Duration::ZERO)?;
        Ok((connection, false))
    })
    .map_err(|error| {
        let why = error
            .sqlite_code()
            .and_then(crate::connection::why_unreadable);
        match why {
            Some(why) => error.restated(ErrorKind::Sqlite, why),
            None => error,
        }
    })
}

/// A file that nobody has open and to which no log or journal belongs. It need
/// not be locked then, nor does SQLite make a log beside it.
fn is_still(path: &Path) -> bool {
    let alone = BESIDE
        .iter()
        .all(|ending| length(&beside(path, ending)) == 0);
    alone && holders::look(path).is_ok_and(|look| look.holders.is_empty() && look.unseen.is_empty())
}
