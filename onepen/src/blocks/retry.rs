//! Trying again: when it helps, what has to be repeated, and for how long.
//!
//! Guarantees: only what [`Class`] names is repeated, told by SQLite's extended
//! result code and never by a text; nothing is repeated after an outcome that
//! is unknown; a statement inside a transaction is never repeated by itself; a
//! wait between two tries ends at the deadline and when the token is
//! cancelled.

use std::ffi::c_int;
use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

use rusqlite::{Connection, ffi};

use super::transaction::{Behavior, Transaction};
use super::{Schedule, Wait};
use crate::engine::{GiveUp, Patience, gave_up};
use crate::error::{Error, Outcome, Result, Waited, WaitedFor};

/// Why SQLite refused, where trying again may help.
///
/// | class | what happened | what may be repeated |
/// |---|---|---|
/// | [`Busy`](Self::Busy) | another connection has a lock | the statement; inside a transaction all of it |
/// | [`BusySnapshot`](Self::BusySnapshot) | a transaction that has read wants to write, and somebody wrote since | the transaction: what it read is out of date, for ever |
/// | [`BusyRecovery`](Self::BusyRecovery) | another connection recovers the log after a crash | the statement |
/// | [`BusyTimeout`](Self::BusyTimeout) | a blocking lock of the operating system was not granted in time | the statement |
/// | [`Locked`](Self::Locked) | a statement of *this* connection is in the way | the transaction: ending it ends the statement too. Waiting alone never helps |
/// | [`LockedSharedCache`](Self::LockedSharedCache) | another connection to the same shared cache has the table | the transaction: with locks in hand two could wait for each other |
/// | [`Protocol`](Self::Protocol) | the race for a place among the log's readers was lost too often | the statement |
/// | [`Schema`](Self::Schema) | the schema changed too often while the statement was being prepared | the statement, prepared again |
///
/// The meaning of each is in <https://www.sqlite.org/rescode.html>.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Class {
    /// `SQLITE_BUSY`.
    Busy,
    /// `SQLITE_BUSY_SNAPSHOT`.
    BusySnapshot,
    /// `SQLITE_BUSY_RECOVERY`.
    BusyRecovery,
    /// `SQLITE_BUSY_TIMEOUT`. From a SQLite built with `SQLITE_ENABLE_SETLK_TIMEOUT`
    /// over a VFS that waits in the kernel; SQLite's own turns it into `SQLITE_BUSY`.
    BusyTimeout,
    /// `SQLITE_LOCKED`, and `SQLITE_LOCKED_VTAB`.
    Locked,
    /// `SQLITE_LOCKED_SHAREDCACHE`.
    LockedSharedCache,
    /// `SQLITE_PROTOCOL`.
    Protocol,
    /// `SQLITE_SCHEMA`.
    Schema,
}

/// The least that may be repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Repeat {
    /// The statement that was refused, when it is not part of a transaction (or
    /// is the BEGIN of one).
    Statement,
    /// Everything from BEGIN on.
    Transaction,
}

impl Class {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Busy,
        Self::BusySnapshot,
        Self::BusyRecovery,
        Self::BusyTimeout,
        Self::Locked,
        Self::LockedSharedCache,
        Self::Protocol,
        Self::Schema,
    ];

    /// The class of an extended result code, from whatever binding; `None` for
    /// what trying again does not cure.
    pub fn of_code(extended: c_int) -> Option<Self> {
        match extended {
            ffi::SQLITE_BUSY_SNAPSHOT => Some(Self::BusySnapshot),
            ffi::SQLITE_BUSY_RECOVERY => Some(Self::BusyRecovery),
            ffi::SQLITE_BUSY_TIMEOUT => Some(Self::BusyTimeout),
            ffi::SQLITE_LOCKED_SHAREDCACHE => Some(Self::LockedSharedCache),
            other => match other & 0xff {
                ffi::SQLITE_BUSY => Some(Self::Busy),
                ffi::SQLITE_LOCKED => Some(Self::Locked),
                ffi::SQLITE_PROTOCOL => Some(Self::Protocol),
                ffi::SQLITE_SCHEMA => Some(Self::Schema),
                _ => None,
            },
        }
    }

    /// The class of an error of rusqlite.
    pub fn of(error: &rusqlite::Error) -> Option<Self> {
        Self::of_code(error.sqlite_error()?.extended_code)
    }

    /// The class of an error of this crate; `None` whenever its outcome is not
    /// [`Outcome::NotCommitted`].
    pub fn of_error(error: &Error) -> Option<Self> {
        match error.outcome() {
            Outcome::NotCommitted => Self::of(error.sqlite()?),
            Outcome::Committed | Outcome::Unknown => None,
        }
    }

    /// The least that may be repeated. Inside a transaction it is the
    /// transaction, whatever the class.
    pub fn repeat(self) -> Repeat {
        match self {
            Self::Busy | Self::BusyRecovery | Self::BusyTimeout | Self::Protocol | Self::Schema => {
                Repeat::Statement
            }
            Self::BusySnapshot | Self::Locked | Self::LockedSharedCache => Repeat::Transaction,
        }
    }

    /// Whether it is over as soon as others have finished, so that BEGIN, COMMIT
    /// and opening are simply asked for again.
    pub(crate) fn is_others_doing(self) -> bool {
        match self {
            Self::Busy
            | Self::BusySnapshot
            | Self::BusyRecovery
            | Self::BusyTimeout
            | Self::Protocol => true,
            Self::Locked | Self::LockedSharedCache | Self::Schema => false,
        }
    }
}

/// Why a loop of tries ended without success, and the last refusal.
pub(crate) enum Stopped<E> {
    /// Trying again would not help.
    Failed(E),
    GaveUp(GiveUp, E),
}

/// Does `attempt` until it succeeds, fails in a way not `worth` another try, or
/// `patience` ends. The one loop of its kind: opening, BEGIN and COMMIT of
/// [`Database`](crate::Database) and [`Retry`] all wait in it.
pub(crate) fn again<T, E>(
    patience: &dyn Patience,
    pause: impl Fn(u32) -> Duration,
    mut attempt: impl FnMut() -> Result<T, E>,
    worth: impl Fn(&E, u32) -> bool,
) -> Result<T, Stopped<E>> {
    let mut tries = 0;
    loop {
        let refused = match attempt() {
            Ok(value) => return Ok(value),
            Err(refused) => refused,
        };
        if !worth(&refused, tries) {
            return Err(Stopped::Failed(refused));
        }
        if let Some(why) = patience.exhausted() {
            return Err(Stopped::GaveUp(why, refused));
        }
        patience.rest(pause(tries));
        tries += 1;
    }
}

/// A policy: what to repeat, how often, with which pauses, until when.
///
/// By default everything in [`Class::ALL`], any number of times, with pauses
/// from 1 to 64 ms that double and vary, for at most 10 seconds.
///
/// ```
/// # fn main() -> onepen::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let path = dir.path().join("app.db");
/// use onepen::blocks::{Immediate, Retry};
/// let mut connection = rusqlite::Connection::open(path)?;
/// let retry = Retry::new().attempts(5);
/// retry.statement(&connection, |c| c.execute("CREATE TABLE account(n)", ()))?;
/// // All of it is run again, from BEGIN on, if need be.
/// retry.transaction::<Immediate, _>(&mut connection, |tx| {
///     tx.execute("INSERT INTO account VALUES (?1)", (100,))?;
///     tx.execute("UPDATE account SET n = n + ?1", (1,))
/// })?;
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
#[must_use = "a policy does nothing by itself"]
pub struct Retry {
    attempts: u32,
    schedule: Schedule,
    jitter: bool,
    wait: Wait,
    only: Vec<Class>,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            attempts: u32::MAX,
            schedule: Schedule::exponential(Duration::from_millis(1), Duration::from_millis(64)),
            jitter: true,
            wait: Wait::default(),
            only: Class::ALL.to_vec(),
        }
    }
}

impl Retry {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// At most so many tries, the first one included (at least 1).
    pub fn attempts(mut self, attempts: u32) -> Self {
        self.attempts = attempts.max(1);
        self
    }

    /// The pauses between two tries.
    pub fn schedule(mut self, schedule: Schedule) -> Self {
        self.schedule = schedule;
        self
    }

    /// Whether a pause is shortened at random, to somewhere between half of it
    /// and all of it, so that those who were refused together do not come back
    /// together. Default: yes.
    pub fn jitter(mut self, jitter: bool) -> Self {
        self.jitter = jitter;
        self
    }

    /// When to give up. A try that has begun is not ended by it, but no other
    /// begins after it.
    pub fn wait(mut self, wait: Wait) -> Self {
        self.wait = wait;
        self
    }

    /// Repeats after these classes of error alone.
    pub fn only(mut self, classes: &[Class]) -> Self {
        self.only = classes.to_vec();
        self
    }

    /// Runs a statement outside of any transaction, again and again if need be.
    /// Classes for which a statement alone is not enough
    /// ([`Class::repeat`]) are repeated all the same: outside of a transaction
    /// the statement is all there is. [`Class::Locked`] is not: nothing that
    /// happens here would end the statement that is in the way.
    ///
    /// # Errors
    /// - Inside a transaction: the first refusal, unrepeated. Only the whole
    ///   transaction may be run again ([`transaction`](Self::transaction)).
    /// - [`ErrorKind::DeadlineExceeded`](crate::ErrorKind::DeadlineExceeded),
    ///   [`ErrorKind::Cancelled`](crate::ErrorKind::Cancelled): with the last
    ///   refusal ([`Error::sqlite`]).
    /// - What `statement` returned, when that is in no class, or the attempts
    ///   are used up.
    pub fn statement<T>(
        &self,
        connection: &Connection,
        mut statement: impl FnMut(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T> {
        let alone = connection.is_autocommit();
        self.run(
            || statement(connection).map_err(Error::from),
            |error| {
                let class = Class::of_error(error)?;
                (alone && class != Class::Locked).then_some(class)
            },
        )
        .map_err(|error| {
            if alone || Class::of_error(&error).is_none() {
                return error;
            }
            let kind = error.kind();
            error.restated(
                kind,
                "refused inside a transaction, where no statement may be repeated by itself: \
                 roll back, and run the whole transaction again",
            )
        })
    }

    /// Runs `work` in a transaction, from BEGIN to COMMIT, again and again if
    /// need be. Nothing of a try that failed stays.
    ///
    /// # Errors
    /// As [`statement`](Self::statement). An error with
    /// [`Outcome::Unknown`] ends it at once, whatever its class.
    pub fn transaction<B: Behavior, T>(
        &self,
        connection: &mut Connection,
        mut work: impl FnMut(&Transaction<'_, B>) -> Result<T>,
    ) -> Result<T> {
        if !connection.is_autocommit() {
            // Every try would fail, and the first says why.
            return Transaction::<B>::run(connection, work);
        }
        self.run(
            || Transaction::<B>::run(connection, &mut work),
            Class::of_error,
        )
    }

    /// Runs anything: for other bindings, and for work that is more than one
    /// transaction. `class` says whether an error is worth another try; for
    /// errors of this crate that is [`Class::of_error`], for the extended
    /// result code of another binding [`Class::of_code`].
    ///
    /// # Errors
    /// As [`statement`](Self::statement).
    pub fn run<T>(
        &self,
        work: impl FnMut() -> Result<T>,
        class: impl Fn(&Error) -> Option<Class>,
    ) -> Result<T> {
        let since = Instant::now();
        let tries = std::cell::Cell::new(1_u32);
        let worth = |error: &Error, before: u32| {
            tries.set(before + 1);
            error.outcome() == Outcome::NotCommitted
                && before + 1 < self.attempts
                && class(error).is_some_and(|class| self.only.contains(&class))
        };
        let patience = self.wait.patience(since);
        again(&patience, |tries| self.pause(tries), work, worth).map_err(|stopped| match stopped {
            Stopped::Failed(error) if tries.get() > 1 && class(&error).is_some() => {
                let message = format!("given up after {} attempts", tries.get());
                let kind = error.kind();
                error
                    .restated(kind, message)
                    .with_waited(Waited::new(WaitedFor::WriteLock, since.elapsed()))
            }
            Stopped::Failed(error) => error,
            Stopped::GaveUp(why, error) => {
                gave_up(why, Waited::new(WaitedFor::WriteLock, since.elapsed())).caused_as(error)
            }
        })
    }

    fn pause(&self, tries: u32) -> Duration {
        let pause = self.schedule.pause(tries);
        if !self.jitter {
            return pause;
        }
        // Every `RandomState` has keys of its own.
        let random = RandomState::new().hash_one(tries);
        let half = pause / 2;
        half + half.mul_f64(random as f64 / u64::MAX as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_class_is_known_by_its_code() {
        let known = [
            (ffi::SQLITE_BUSY, Class::Busy, Repeat::Statement),
            (
                ffi::SQLITE_BUSY_SNAPSHOT,
                Class::BusySnapshot,
                Repeat::Transaction,
            ),
            (
                ffi::SQLITE_BUSY_RECOVERY,
                Class::BusyRecovery,
                Repeat::Statement,
            ),
            (
                ffi::SQLITE_BUSY_TIMEOUT,
                Class::BusyTimeout,
                Repeat::Statement,
            ),
            (ffi::SQLITE_LOCKED, Class::Locked, Repeat::Transaction),
            (
                ffi::SQLITE_LOCKED_SHAREDCACHE,
                Class::LockedSharedCache,
                Repeat::Transaction,
            ),
            (ffi::SQLITE_PROTOCOL, Class::Protocol, Repeat::Statement),
            (ffi::SQLITE_SCHEMA, Class::Schema, Repeat::Statement),
        ];
        for (code, class, repeat) in known {
            assert_eq!(Class::of_code(code), Some(class), "{code}");
            assert_eq!(class.repeat(), repeat, "{class:?}");
            assert!(Class::ALL.contains(&class));
        }
        assert_eq!(known.len(), Class::ALL.len());
        // A code that SQLite may add one day is still its primary code.
        assert_eq!(
            Class::of_code(ffi::SQLITE_BUSY | 77 << 8),
            Some(Class::Busy)
        );
    }

    #[test]
    fn begin_is_asked_for_again_only_while_others_are_in_the_way() {
        let own = Class::ALL.map(|class| (class, class.is_others_doing()));
        let own: Vec<_> = own.iter().filter(|(_, others)| !others).collect();
        let classes: Vec<_> = own.iter().map(|(class, _)| *class).collect();
        assert_eq!(
            classes,
            [Class::Locked, Class::LockedSharedCache, Class::Schema]
        );
    }

    #[test]
    fn what_trying_again_does_not_cure_is_in_no_class() {
        for code in [
            ffi::SQLITE_OK,
            ffi::SQLITE_ERROR,
            ffi::SQLITE_CONSTRAINT_UNIQUE,
            ffi::SQLITE_IOERR_FSYNC,
            ffi::SQLITE_FULL,
            ffi::SQLITE_CORRUPT,
            ffi::SQLITE_INTERRUPT,
            ffi::SQLITE_READONLY,
        ] {
            assert_eq!(Class::of_code(code), None, "{code}");
        }
    }

    #[test]
    fn an_unknown_outcome_has_no_class_and_is_never_repeated() {
        let busy = || {
            let code = ffi::Error::new(ffi::SQLITE_BUSY);
            Error::from(rusqlite::Error::SqliteFailure(code, None))
        };
        assert_eq!(Class::of_error(&busy()), Some(Class::Busy));
        let unknown = || busy().with_outcome(Outcome::Unknown);
        assert_eq!(Class::of_error(&unknown()), None);
        // Not even when whoever asks is wrong about it.
        let mut tries = 0;
        let error = Retry::new()
            .run::<()>(
                || {
                    tries += 1;
                    Err(unknown())
                },
                |_| Some(Class::Busy),
            )
            .unwrap_err();
        assert_eq!((tries, error.outcome()), (1, Outcome::Unknown));
    }

    #[test]
    fn an_error_speaks_of_attempts_when_there_were_several_and_they_were_used_up() {
        let fails = |code| {
            let code = ffi::Error::new(code);
            Error::from(rusqlite::Error::SqliteFailure(code, None))
        };
        for (attempts, codes, told) in [
            (1, &[ffi::SQLITE_BUSY][..], false),
            (2, &[ffi::SQLITE_BUSY, ffi::SQLITE_BUSY], true),
            // What it says of itself is what is wrong.
            (9, &[ffi::SQLITE_BUSY, ffi::SQLITE_CONSTRAINT], false),
            (9, &[ffi::SQLITE_CONSTRAINT], false),
        ] {
            let mut left = codes.iter();
            let retry = Retry::new().attempts(attempts);
            let error = retry
                .run::<()>(|| Err(fails(*left.next().unwrap())), Class::of_error)
                .unwrap_err();
            assert_eq!(left.len(), 0, "{codes:?}");
            assert_eq!(
                error.to_string().contains("given up after"),
                told,
                "{error}"
            );
        }
    }

    #[test]
    fn jitter_shortens_a_pause_by_half_at_most() {
        let ms = Duration::from_millis;
        let retry = Retry::new().schedule(Schedule::constant(ms(10)));
        let pauses: Vec<_> = (0..64).map(|tries| retry.pause(tries)).collect();
        assert!(pauses.iter().all(|pause| (ms(5)..=ms(10)).contains(pause)));
        assert!(pauses.iter().any(|pause| *pause != pauses[0]), "{pauses:?}");
        assert_eq!(retry.jitter(false).pause(9), ms(10));
    }
}
