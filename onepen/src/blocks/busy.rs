//! What a connection does while somebody else has the lock it needs.
//!
//! Guarantees: a handler waits no longer than its timeout says (plus the try
//! that was under way); cancelling its token ends the wait at once, which
//! `sqlite3_interrupt` does not; it belongs to the connection and goes with it,
//! whoever owns that.
//!
//! SQLite asks a busy handler while it waits for a lock of a file, and only
//! there. It does not ask where waiting could only end in a deadlock (a
//! transaction that has read wants to write: BUSY at once), nor about locks
//! within a shared cache (LOCKED).

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::Connection;

use super::Schedule;
use super::raw_busy;
use crate::cancel::CancelToken;
use crate::engine::{GiveUp, Patience, Until, Witness, gave_up};
use crate::error::{Error, Holder, Result, Waited, WaitedFor};
use crate::strangers::Strangers;
use crate::sync::{Arc, Mutex, lock};

/// A wait that is going on, as a handler sees it.
#[non_exhaustive]
pub struct BusyWait<'a> {
    /// How often the handler was asked before in this wait: 0 the first time.
    pub attempt: u32,
    /// Since the lock was refused for the first time.
    pub waited: Duration,
    /// The file of the connection's main database; `None` for one without a
    /// file. With ATTACH there are several, and SQLite does not say which of
    /// them is locked.
    pub database: Option<&'a Path>,
    strangers: Option<&'a Strangers>,
}

impl BusyWait<'_> {
    /// Who has the write lock, if that can be seen (Linux). Looked up at each
    /// call, in the list of locks of the operating system
    /// ([`onepen_lock::holders`]): it takes its time, so not at every attempt.
    pub fn holder(&self) -> Option<Holder> {
        self.strangers?.who(WaitedFor::WriteLock)
    }
}

impl std::fmt::Debug for BusyWait<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BusyWait")
            .field("attempt", &self.attempt)
            .field("waited", &self.waited)
            .field("database", &self.database)
            .finish_non_exhaustive()
    }
}

/// What a handler answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Busy {
    /// Pause so long, then try again. The pause ends early when the token is
    /// cancelled.
    TryAgainAfter(Duration),
    /// Let the statement fail with BUSY.
    GiveUp,
}

type Decide = Box<dyn FnMut(&BusyWait<'_>) -> Busy + Send>;

/// A busy handler for a connection, in the making.
///
/// ```
/// # fn main() -> onepen::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let path = dir.path().join("app.db");
/// use std::time::Duration;
/// use onepen::blocks::{BusyHandler, Schedule, effective_timeout, EffectiveTimeout};
/// let connection = rusqlite::Connection::open(path)?;
/// BusyHandler::timeout(Duration::from_secs(5))
///     .schedule(Schedule::constant(Duration::from_millis(2)))
///     .install(&connection)?;
/// let effective = effective_timeout(&connection)?;
/// assert_eq!(effective, EffectiveTimeout::AtMost(Duration::from_secs(5)));
/// # Ok(()) }
/// ```
///
/// A closure of your own decides what it likes:
///
/// ```
/// # fn main() -> onepen::Result<()> {
/// # let connection = rusqlite::Connection::open_in_memory()?;
/// use std::time::Duration;
/// use onepen::blocks::{Busy, BusyHandler};
/// BusyHandler::closure(|wait| {
///     if wait.attempt == 0 {
///         eprintln!("{:?} is locked by {:?}", wait.database, wait.holder());
///     }
///     if wait.waited < Duration::from_secs(1) {
///         Busy::TryAgainAfter(Duration::from_millis(1))
///     } else {
///         Busy::GiveUp
///     }
/// })
/// .install(&connection)?;
/// # Ok(()) }
/// ```
#[must_use = "it does nothing until it is installed"]
pub struct BusyHandler {
    timeout: EffectiveTimeout,
    decide: Decide,
    cancel: Option<CancelToken>,
}

impl BusyHandler {
    /// Tries every millisecond for so long. SQLite's own timeout pauses longer
    /// and longer, so that whoever waited longest asks least.
    pub fn timeout(timeout: Duration) -> Self {
        Self::following(Schedule::default(), Some(timeout))
    }

    /// Tries until it succeeds or is cancelled.
    pub fn forever() -> Self {
        Self::following(Schedule::default(), None)
    }

    /// Asks `decide`. It must not use the connection that waits; a panic in it
    /// ends the wait.
    pub fn closure(decide: impl FnMut(&BusyWait<'_>) -> Busy + Send + 'static) -> Self {
        Self {
            timeout: EffectiveTimeout::UpToClosure,
            decide: Box::new(decide),
            cancel: None,
        }
    }

    fn following(schedule: Schedule, timeout: Option<Duration>) -> Self {
        let decide = move |wait: &BusyWait<'_>| {
            let pause = schedule.pause(wait.attempt);
            match timeout {
                Some(timeout) if wait.waited >= timeout => Busy::GiveUp,
                // One last try at the very end, not beyond it.
                Some(timeout) => Busy::TryAgainAfter(pause.min(timeout - wait.waited)),
                None => Busy::TryAgainAfter(pause),
            }
        };
        Self {
            timeout: timeout.map_or(EffectiveTimeout::Forever, EffectiveTimeout::AtMost),
            ..Self::closure(decide)
        }
    }

    /// Pauses between two tries, for [`timeout`](Self::timeout) and
    /// [`forever`](Self::forever). A closure says its pauses itself; on one of
    /// those this has no effect.
    pub fn schedule(self, schedule: Schedule) -> Self {
        let timeout = match self.timeout {
            EffectiveTimeout::AtMost(timeout) => Some(timeout),
            EffectiveTimeout::Forever => None,
            EffectiveTimeout::AtOnce | EffectiveTimeout::UpToClosure => return self,
        };
        Self {
            cancel: self.cancel,
            ..Self::following(schedule, timeout)
        }
    }

    /// Ends waits when `token` is cancelled, the one that is going on and all
    /// later ones: they fail with BUSY ([`BusyControl::explain`] tells why).
    pub fn cancel_with(mut self, token: &CancelToken) -> Self {
        self.cancel = Some(token.clone());
        self
    }

    /// Makes this the connection's busy handler, in place of the one or the
    /// timeout before. It stays until it is replaced, or the connection closes.
    ///
    /// Puts an SQL function `onepen_busy_timeout()` on the connection, which
    /// answers with the effective timeout in milliseconds: -1 is for ever, NULL
    /// when a closure decides.
    ///
    /// # Errors
    /// SQLite's: BUSY when there is such a handler already and a statement of
    /// the connection is running.
    pub fn install(self, connection: &Connection) -> Result<BusyControl> {
        let database = connection
            .path()
            .filter(|path| !path.is_empty())
            .map(PathBuf::from);
        let shared = Arc::new(Shared {
            cancel: Mutex::new(self.cancel),
            last: Mutex::new(None),
            strangers: database.as_deref().map(|path| {
                let name = crate::error::shown(path);
                Strangers::new(path, &name, None)
            }),
            database,
        });
        let waiting = Waiting {
            shared: Arc::clone(&shared),
            decide: Mutex::new((self.decide, Instant::now())),
            timeout: self.timeout,
        };
        raw_busy::install(connection, Box::new(waiting))?;
        Ok(BusyControl { shared })
    }

    /// Takes any busy handler and timeout away: who meets a lock fails at once.
    ///
    /// # Errors
    /// As [`install`](Self::install).
    pub fn remove(connection: &Connection) -> Result<()> {
        Ok(raw_busy::remove(connection)?)
    }
}

impl std::fmt::Debug for BusyHandler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BusyHandler")
            .field("timeout", &self.timeout)
            .field("cancel", &self.cancel)
            .finish_non_exhaustive()
    }
}

/// How long a connection waits for a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EffectiveTimeout {
    /// Not at all.
    AtOnce,
    /// So long: by a [`BusyHandler`], or by SQLite's own `busy_timeout`.
    AtMost(Duration),
    /// Until it succeeds, or its token is cancelled.
    Forever,
    /// A closure decides ([`BusyHandler::closure`]).
    UpToClosure,
}

/// How long this connection really waits for a lock, whoever said so last:
/// `busy_timeout`, the PRAGMA, or a [`BusyHandler`].
///
/// SQLite tells its own timeout only. A handler that was put there through the C
/// interface (or rusqlite's `busy_handler`) is not seen: take ours away with
/// [`BusyHandler::remove`] before, or this goes on telling of ours. The same
/// holds for a later timeout of zero.
///
/// # Errors
/// SQLite's.
pub fn effective_timeout(connection: &Connection) -> Result<EffectiveTimeout> {
    let own: i64 = connection.pragma_query_value(None, "busy_timeout", |row| row.get(0))?;
    if let Some(own) = u64::try_from(own).ok().filter(|own| *own > 0) {
        return Ok(EffectiveTimeout::AtMost(Duration::from_millis(own)));
    }
    // Set through SQLite, and so in place of ours, is what the PRAGMA tells.
    Ok(raw_busy::timeout_of(connection)?)
}

/// A handler after it was installed: to give it a token for the next statements,
/// and to ask why the last wait ended.
#[derive(Clone)]
pub struct BusyControl {
    shared: Arc<Shared>,
}

impl BusyControl {
    /// From the next wait on, `token` ends waits (or nothing does): for a
    /// connection that serves one request after the other.
    pub fn cancel_with(&self, token: Option<&CancelToken>) {
        *lock(&self.shared.cancel) = token.cloned();
    }

    /// What `error` means, when it is the BUSY of a wait that ended in vain:
    /// [`ErrorKind::Cancelled`](crate::ErrorKind::Cancelled) or
    /// [`ErrorKind::DeadlineExceeded`](crate::ErrorKind::DeadlineExceeded), with
    /// how long was waited and, if that can be found out, for whom. Any other
    /// error is given back as it is.
    pub fn explain(&self, error: rusqlite::Error) -> Error {
        let busy = super::Class::of(&error).is_some_and(super::Class::is_others_doing);
        let ended = lock(&self.shared.last).take();
        let Some((why, how_long, holder)) = ended.filter(|_| busy) else {
            return error.into();
        };
        let mut waited = Waited::new(WaitedFor::WriteLock, how_long);
        waited.holder = holder;
        gave_up(why, waited).with_source(error)
    }
}

impl std::fmt::Debug for BusyControl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BusyControl")
            .field("database", &self.shared.database)
            .finish_non_exhaustive()
    }
}

struct Shared {
    cancel: Mutex<Option<CancelToken>>,
    /// How the last wait in vain ended.
    last: Mutex<Option<(GiveUp, Duration, Option<Holder>)>>,
    database: Option<PathBuf>,
    strangers: Option<Strangers>,
}

/// What SQLite has a pointer to.
pub(super) struct Waiting {
    shared: Arc<Shared>,
    /// The closure, and when the present wait began.
    decide: Mutex<(Decide, Instant)>,
    pub(super) timeout: EffectiveTimeout,
}

impl Waiting {
    /// SQLite asks for the `attempt`-th time: whether to try again.
    pub(super) fn ask(&self, attempt: u32) -> bool {
        // Taken only by the closure itself, if it uses the waiting connection.
        let Ok(mut decide) = self.decide.try_lock() else {
            return false;
        };
        let (decide, since) = &mut *decide;
        if attempt == 0 {
            *since = Instant::now();
        }
        let wait = BusyWait {
            attempt,
            waited: if attempt == 0 {
                Duration::ZERO
            } else {
                since.elapsed()
            },
            database: self.shared.database.as_deref(),
            strangers: self.shared.strangers.as_ref(),
        };
        let token = lock(&self.shared.cancel).clone();
        let patience = Until {
            deadline: None,
            cancel: token.as_ref(),
        };
        let why = if patience.exhausted().is_some() {
            GiveUp::Cancelled
        } else {
            match decide(&wait) {
                Busy::TryAgainAfter(pause) => {
                    patience.rest(pause);
                    if patience.exhausted().is_none() {
                        return true;
                    }
                    GiveUp::Cancelled
                }
                Busy::GiveUp => GiveUp::Deadline,
            }
        };
        let holder = wait.holder();
        *lock(&self.shared.last) = Some((why, since.elapsed(), holder));
        false
    }
}
