//! The words the other rooms of the benchmark share: a statement in both
//! dialects, a session to run it in, and what a failure was.
//!
//! Guarantees: a workload speaks to every way through [`Session`] alone, so
//! all of them run the same statements; a failure has one class, by SQLite's
//! own extended name where SQLite failed, and never shows a bound value.

use std::borrow::Cow;
use std::fmt;

pub use rusqlite::types::Value;

use super::codes;

/// One statement, as SQLite and as PostgreSQL want to read it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sql {
    /// With parameters `?1`, `?2`, ….
    pub sqlite: Cow<'static, str>,
    /// With parameters `$1`, `$2`, ….
    pub postgres: Cow<'static, str>,
}

impl Sql {
    /// A statement without parameters that both read alike.
    pub const fn plain(text: &'static str) -> Self {
        Self::both(text, text)
    }

    /// The same statement in each dialect.
    pub const fn both(sqlite: &'static str, postgres: &'static str) -> Self {
        Self {
            sqlite: Cow::Borrowed(sqlite),
            postgres: Cow::Borrowed(postgres),
        }
    }
}

/// Where statements run: inside one transaction of one way.
pub trait Session {
    /// Runs a statement that returns no rows; answers how many it changed.
    fn execute(&mut self, sql: &Sql, params: &[Value]) -> Result<usize, Fault>;

    /// Runs a statement to its end and puts the first columns of its first
    /// row into `row`; `false` when there was none.
    fn first(&mut self, sql: &Sql, params: &[Value], row: &mut [Value]) -> Result<bool, Fault>;
}

/// One whole number from a query that always answers one.
pub fn number(session: &mut dyn Session, sql: &Sql, params: &[Value]) -> Result<i64, Fault> {
    let mut row = [Value::Null];
    session.first(sql, params, &mut row)?;
    integer(&row[0])
}

/// A value that must be a whole number.
pub fn integer(value: &Value) -> Result<i64, Fault> {
    match value {
        Value::Integer(n) => Ok(*n),
        other => Err(Fault::Workload(format!(
            "expected a whole number in the row, found {}",
            other.data_type()
        ))),
    }
}

/// Why a transaction failed.
#[derive(Debug)]
pub enum Fault {
    /// SQLite said so.
    Sqlite(rusqlite::Error),
    /// PostgreSQL or the way to it.
    Postgres(postgres::Error),
    /// The pool had no connection in time.
    Pool(r2d2::Error),
    /// The library onepen.
    Onepen(onepen::Error),
    /// A reader saw a state that no transaction ever committed.
    Torn(String),
    /// The workload cannot go on with what it found.
    Workload(String),
}

impl Fault {
    /// The class errors are counted under.
    pub fn class(&self) -> String {
        match self {
            Self::Sqlite(error) => sqlite_class(error),
            Self::Postgres(error) => match error.code() {
                Some(code) => format!("SQLSTATE {}", code.code()),
                None => "PostgreSQL connection".to_owned(),
            },
            Self::Pool(_) => "pool timeout".to_owned(),
            Self::Onepen(error) => match error.sqlite() {
                // What it waited for in vain is only the source of that.
                Some(sqlite) if error.kind() != onepen::ErrorKind::DeadlineExceeded => {
                    sqlite_class(sqlite)
                }
                _ => format!("onepen {:?}", error.kind()),
            },
            Self::Torn(_) => "torn read".to_owned(),
            Self::Workload(_) => "workload".to_owned(),
        }
    }

    /// Whether somebody else was in the way and trying again is right.
    pub fn is_busy(&self) -> bool {
        matches!(
            self,
            Self::Sqlite(error) if matches!(
                error.sqlite_error_code(),
                Some(rusqlite::ErrorCode::DatabaseBusy | rusqlite::ErrorCode::DatabaseLocked)
            )
        )
    }

    /// Whether the transaction may be in the database all the same.
    pub fn is_unknown(&self) -> bool {
        match self {
            // A COMMIT that failed on its way to the disk may come back after a crash.
            Self::Sqlite(error) => {
                error.sqlite_error_code() == Some(rusqlite::ErrorCode::SystemIoFailure)
            }
            // Without an answer of the server nobody knows.
            Self::Postgres(error) => error.code().is_none(),
            Self::Onepen(error) => error.outcome() == onepen::Outcome::Unknown,
            Self::Pool(_) | Self::Torn(_) | Self::Workload(_) => false,
        }
    }
}

fn sqlite_class(error: &rusqlite::Error) -> String {
    match error.sqlite_error() {
        Some(failure) => codes::name(failure.extended_code).into_owned(),
        None => "rusqlite".to_owned(),
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(error) => error.fmt(f),
            // Its own text is only "db error": the server's message is below it.
            Self::Postgres(error) => match error.as_db_error() {
                Some(server) => write!(f, "PostgreSQL: {}", server.message()),
                None => write!(f, "PostgreSQL: {error}"),
            },
            Self::Pool(error) => write!(f, "the pool: {error}"),
            Self::Onepen(error) => error.fmt(f),
            Self::Torn(what) | Self::Workload(what) => f.write_str(what),
        }
    }
}

impl std::error::Error for Fault {}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

impl From<postgres::Error> for Fault {
    fn from(error: postgres::Error) -> Self {
        Self::Postgres(error)
    }
}

impl From<r2d2::Error> for Fault {
    fn from(error: r2d2::Error) -> Self {
        Self::Pool(error)
    }
}

impl From<onepen::Error> for Fault {
    fn from(error: onepen::Error) -> Self {
        Self::Onepen(error)
    }
}
