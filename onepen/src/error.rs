//! What can go wrong, what it means for the data, and how long was waited.
//!
//! Every error answers three questions: *what* ([`Error::kind`]), *is my write
//! in the database* ([`Error::outcome`]), and *what was waited for and how
//! long* ([`Error::waited`]). Values bound to statements never appear in what it
//! prints. Its [source](std::error::Error::source) is the error of rusqlite as it
//! came, whose own text may have a value in it: whoever prints whole chains of errors
//! prints that too.

use std::borrow::Cow;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

mod waited;

pub use waited::{Activity, Contention, Holder, Part, Waited, WaitedFor};

/// The result of everything in this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

type Boxed = Box<dyn std::error::Error + Send + Sync>;

/// Whether a write is in the database. There is no fourth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The transaction is committed; under [`Durability::Full`](crate::Durability::Full)
    /// it also survives a loss of power.
    Committed,
    /// Nothing of the write is in the database, and nothing ever will be.
    NotCommitted,
    /// COMMIT failed in a way that leaves both possible: the frames may have
    /// reached the disk although SQLite was told otherwise, and a crash now
    /// may bring them back. Nothing retries such a write. Give the write a
    /// [key](crate::Call::key) and ask [`Database::outcome_of`](crate::Database::outcome_of).
    Unknown,
}

/// What kind of thing went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// SQLite refused a statement; [`Error::sqlite`] has its answer.
    Sqlite,
    /// The closure returned an error of its own ([`Error::other`]).
    Other,
    /// The deadline passed before the call had its turn, or, over a rollback
    /// journal, before those who read let it commit.
    DeadlineExceeded,
    /// The call was cancelled before it had its turn.
    Cancelled,
    /// The write queue was at its bound and the caller chose not to wait.
    QueueFull,
    /// The database handle was closed.
    Closed,
    /// A call was made from within a closure of the same database that it would
    /// have to wait for: a write within a write; over a rollback journal also a
    /// write within a read, and a snapshot within a write.
    Reentrant,
    /// The handle was made before `fork` and used in the child.
    Forked,
    /// A write closure tried what a member of a group may not do.
    NotAllowed,
    /// The transaction was ended by SQLite under the closure, which went on: what
    /// it wrote is gone, what it read after that was of another state.
    TransactionLost,
    /// A write closure held the pen for longer than
    /// [its limit](crate::Call::limit), and was undone.
    LimitExceeded,
    /// COMMIT failed.
    CommitFailed,
    /// The file is open in this process with other settings.
    SettingsDiffer,
    /// The database was made by a newer version of the program.
    NewerDatabase,
    /// Opening was refused: the reason is in the message.
    Refused,
    /// The write-ahead log reached the limit that a
    /// [backup](crate::backup::Transfer::log_limit) was given.
    LogLimit,
    /// A copy did not pass its [check](crate::backup::Transfer::check).
    Damaged,
    /// A read kept the log from being reset for longer than
    /// [its lease](crate::Options::reader_lease), and was ended
    /// ([`Options::lease_grace`](crate::Options::lease_grace)). Nothing is wrong with
    /// the database: begin another.
    LeaseEnded,
    /// The operating system refused something.
    Io,
}

enum Source {
    None,
    Sqlite(rusqlite::Error),
    // One failed COMMIT is the answer to every member of its group.
    Shared(Arc<rusqlite::Error>),
    // One refused BEGIN likewise.
    Same(Arc<Error>),
    Other(Boxed),
}

struct Inner {
    kind: ErrorKind,
    outcome: Outcome,
    message: Cow<'static, str>,
    waited: Waited,
    label: Option<Arc<str>>,
    database: Option<Arc<str>>,
    source: Source,
}

/// An error of this crate. One pointer wide.
pub struct Error(Box<Inner>);

impl Error {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> Self {
        Self(Box::new(Inner {
            kind,
            outcome: Outcome::NotCommitted,
            message: message.into(),
            waited: Waited::NOT,
            label: None,
            database: None,
            source: Source::None,
        }))
    }

    /// Wraps an error of your own, so that a closure can return it and its
    /// write is undone: a text, a type that implements `std::error::Error`, an
    /// `anyhow::Error`. [`Error::downcast_ref`] and [`Error::into_other`] give it
    /// back.
    ///
    /// ```
    /// # fn main() -> onepen::Result<()> {
    /// # let db = onepen::Database::open_in_memory()?;
    /// let refused = db
    ///     .write(|_tx| -> onepen::Result<()> { Err(onepen::Error::other("not enough money")) })
    ///     .unwrap_err();
    /// assert_eq!(refused.to_string(), "not enough money");
    /// assert_eq!(refused.outcome(), onepen::Outcome::NotCommitted);
    /// # Ok(()) }
    /// ```
    pub fn other(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        let mut wrapped = Self::new(ErrorKind::Other, "");
        wrapped.0.source = Source::Other(error.into());
        wrapped
    }

    pub(crate) fn sqlite_error(error: rusqlite::Error) -> Self {
        let mut wrapped = Self::new(ErrorKind::Sqlite, "");
        wrapped.0.source = Source::Sqlite(error);
        wrapped
    }

    pub(crate) fn commit(error: &Arc<rusqlite::Error>, outcome: Outcome) -> Self {
        let mut wrapped = Self::new(
            ErrorKind::CommitFailed,
            match outcome {
                Outcome::Unknown => {
                    "COMMIT failed on the way to the disk; whether it is committed is unknown"
                }
                _ => "COMMIT failed; nothing was written",
            },
        );
        wrapped.0.outcome = outcome;
        wrapped.0.source = Source::Shared(Arc::clone(error));
        wrapped
    }

    /// The same failure, for another of those it befell.
    pub(crate) fn same_as(error: &Arc<Self>) -> Self {
        let mut same = Self::new(error.kind(), "");
        same.0.outcome = error.outcome();
        same.0.waited = error.waited().clone();
        same.0.source = Source::Same(Arc::clone(error));
        same
    }

    pub(crate) fn io(doing: impl Into<Cow<'static, str>>, error: std::io::Error) -> Self {
        let mut wrapped = Self::new(ErrorKind::Io, doing);
        wrapped.0.source = Source::Other(error.into());
        wrapped
    }

    /// As [`io`](Self::io), for what we found ourselves: there is no more to say.
    pub(crate) fn found(what: impl Into<String>, kind: std::io::ErrorKind) -> Self {
        let mut wrapped = Self::new(ErrorKind::Io, "");
        wrapped.0.source = Source::Other(std::io::Error::new(kind, what.into()).into());
        wrapped
    }

    pub(crate) fn with_outcome(mut self, outcome: Outcome) -> Self {
        self.0.outcome = outcome;
        self
    }

    pub(crate) fn with_waited(mut self, waited: Waited) -> Self {
        self.0.waited = waited;
        self
    }

    /// A wait that ended in vain is as long as its caller waited, not as the last
    /// of those it was handed to did.
    pub(crate) fn waited_since(mut self, since: std::time::Instant) -> Self {
        let in_vain = matches!(
            self.0.kind,
            ErrorKind::DeadlineExceeded | ErrorKind::Cancelled
        );
        if in_vain && self.0.waited.what != WaitedFor::Nothing {
            self.0.waited.lasted(since.elapsed());
        }
        self
    }

    /// Puts a name to whoever was in the way, found by `who` when it is asked:
    /// after a wait that was too long for its deadline, and only then.
    pub(crate) fn blaming(mut self, who: impl FnOnce(WaitedFor) -> Option<Holder>) -> Self {
        let waited = &mut self.0.waited;
        if self.0.kind == ErrorKind::DeadlineExceeded && waited.holder.is_none() {
            waited.holder = who(waited.what);
        }
        self
    }

    pub(crate) fn with_label(mut self, label: Option<Arc<str>>) -> Self {
        if self.0.label.is_none() {
            self.0.label = label;
        }
        self
    }

    pub(crate) fn with_database(mut self, database: &Arc<str>) -> Self {
        if self.0.database.is_none() && self.0.kind != ErrorKind::Other {
            self.0.database = Some(Arc::clone(database));
        }
        self
    }

    /// The same failure under a better name, for callers who do not know
    /// SQLite's.
    pub(crate) fn restated(
        mut self,
        kind: ErrorKind,
        message: impl Into<Cow<'static, str>>,
    ) -> Self {
        self.0.kind = kind;
        self.0.message = message.into();
        self
    }

    /// With the cause of another error as its own.
    pub(crate) fn caused_as(mut self, other: Self) -> Self {
        self.0.source = other.0.source;
        self
    }

    pub(crate) fn with_source(mut self, error: rusqlite::Error) -> Self {
        self.0.source = Source::Sqlite(error);
        self
    }

    /// What kind of thing went wrong.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Whether the write is in the database. For reads this is always
    /// [`Outcome::NotCommitted`].
    pub fn outcome(&self) -> Outcome {
        self.0.outcome
    }

    /// What was waited for and how long.
    pub fn waited(&self) -> &Waited {
        &self.0.waited
    }

    /// The label the call was given ([`Call::label`](crate::Call::label)).
    pub fn label(&self) -> Option<&str> {
        self.0.label.as_deref()
    }

    /// SQLite's own error, when there is one.
    pub fn sqlite(&self) -> Option<&rusqlite::Error> {
        match &self.0.source {
            Source::Sqlite(error) => Some(error),
            Source::Shared(error) => Some(error),
            Source::Same(error) => error.sqlite(),
            Source::None | Source::Other(_) => None,
        }
    }

    /// SQLite's extended result code, when there is one
    /// (<https://www.sqlite.org/rescode.html>).
    pub fn sqlite_code(&self) -> Option<i32> {
        self.sqlite()?
            .sqlite_error()
            .map(|error| error.extended_code)
    }

    /// The error that a closure returned through [`Error::other`], if it is an `E`.
    pub fn downcast_ref<E: std::error::Error + 'static>(&self) -> Option<&E> {
        match &self.0.source {
            Source::Other(error) => error.downcast_ref(),
            Source::Same(error) => error.downcast_ref(),
            _ => None,
        }
    }

    /// Takes back what was given to [`Error::other`].
    ///
    /// # Errors
    /// Gives the error back unchanged when it is not of kind [`ErrorKind::Other`].
    pub fn into_other(mut self) -> Result<Box<dyn std::error::Error + Send + Sync>, Self> {
        if self.0.kind != ErrorKind::Other {
            return Err(self);
        }
        match std::mem::replace(&mut self.0.source, Source::None) {
            Source::Other(error) => Ok(error),
            _ => Err(self),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = &*self.0;
        if let Some(label) = &inner.label {
            write!(f, "{label}: ")?;
        }
        if let Some(database) = &inner.database {
            write!(f, "{database}: ")?;
        }
        f.write_str(&inner.message)?;
        let separator = if inner.message.is_empty() { "" } else { ": " };
        match &inner.source {
            Source::None => {}
            Source::Sqlite(error) => write!(f, "{separator}{}", Redacted(error))?,
            Source::Shared(error) => write!(f, "{separator}{}", Redacted(error))?,
            Source::Same(error) => return write!(f, "{error}"),
            Source::Other(error) => write!(f, "{separator}{error}")?,
        }
        if inner.waited.what != WaitedFor::Nothing {
            write!(f, " ({})", inner.waited)?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Error({:?}, {:?}: {self})", self.0.kind, self.0.outcome)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.0.source {
            Source::None => None,
            Source::Sqlite(error) => Some(error),
            Source::Shared(error) => Some(&**error),
            Source::Same(error) => error.source(),
            Source::Other(error) => Some(&**error),
        }
    }
}

impl From<rusqlite::Error> for Error {
    fn from(error: rusqlite::Error) -> Self {
        Self::sqlite_error(error)
    }
}

/// rusqlite's message, save where it would print a value that came from a row
/// or from a parameter.
struct Redacted<'a>(&'a rusqlite::Error);

impl fmt::Display for Redacted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use rusqlite::Error as E;
        match self.0 {
            E::IntegralValueOutOfRange(column, _) => {
                write!(f, "integer in column {column} is out of range")
            }
            E::FromSqlConversionFailure(column, kind, _) => {
                write!(f, "column {column} of type {kind} does not convert")
            }
            E::ToSqlConversionFailure(_) => f.write_str("a parameter does not convert"),
            error => write!(f, "{error}"),
        }
    }
}

/// The path of a database as errors show it.
pub(crate) fn shown(path: &std::path::Path) -> Arc<str> {
    PathBuf::from(path).display().to_string().into()
}
