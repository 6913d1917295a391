//! What the pen needs from a database, and nothing more.
//!
//! The pen never sees SQL. [`crate::sqlite::SqliteEngine`] is the real thing;
//! the models and the tests of the hand-over run the same pen over a fake.

use std::time::{Duration, Instant};

use crate::error::{Error, ErrorKind, Holder, Outcome, Result, Waited, WaitedFor};
use crate::sync::Arc;

/// Whoever holds an `&mut Engine` holds the pen.
pub(crate) trait Engine: Send + 'static {
    /// Starts a write transaction with SQLite's write lock, waiting for
    /// strangers as long as `patience` lasts.
    fn begin(&mut self, patience: &dyn Patience) -> Result<()>;
    /// Marks the start of a member inside a group.
    fn savepoint(&mut self) -> Result<()>;
    /// The member is done and stays.
    fn release(&mut self) -> Result<()>;
    /// The member is undone and its savepoint gone.
    fn rollback_to(&mut self) -> Result<()>;
    /// Commits. Only a plain `Ok` may be acknowledged to anybody.
    fn commit(&mut self, patience: &dyn Patience) -> std::result::Result<(), CommitError>;
    /// Ends the transaction, if there still is one, without a trace.
    fn rollback(&mut self);
    /// Whether the transaction is gone (SQLite may roll back on its own).
    fn is_autocommit(&self) -> bool;
    /// Whether deferred foreign keys are violated right now.
    fn owes_foreign_keys(&self) -> bool;
    /// Puts up the guards around foreign code.
    fn member_begins(&mut self);
    /// Takes the guards down and removes what the foreign code left lying
    /// about: unfinished statements above all.
    fn member_ends(&mut self);
    /// Foreign code is about to have the connection to itself. After an error it
    /// does not get it.
    fn exclusive_begins(&mut self, patience: &dyn Patience) -> Result<()>;
    /// It has had it; puts every setting back.
    fn exclusive_ends(&mut self) -> Result<()>;
}

/// A failed COMMIT: the same answer for every member of the group.
#[derive(Debug)]
pub(crate) struct CommitError {
    pub(crate) error: Arc<rusqlite::Error>,
    pub(crate) outcome: Outcome,
    /// Who kept it from being made, if a wait for others ended in vain.
    pub(crate) holder: Option<Holder>,
}

/// Those who must be out of the way before the holder of the pen can commit:
/// over a rollback journal, the readers of this process.
pub(crate) trait Bystanders: Send + Sync {
    /// This thread is one of them: a write that it waited for would wait for it.
    fn are_here(&self) -> bool;
    /// The holder of the pen waits for them now.
    fn are_awaited(&self) -> bool;
}

/// Somebody who can say who is in the way, outside this pen. Asked only after a
/// wait that was too long: it takes its time.
pub(crate) trait Witness: Send + Sync {
    fn who(&self, what: WaitedFor) -> Option<Holder>;
    /// Whether a wait of this length is worth telling.
    fn is_long(&self, wait: Duration) -> bool;
}

/// How long somebody is willing to wait for a lock that others hold.
pub(crate) trait Patience {
    /// `None`: go on waiting.
    fn exhausted(&self) -> Option<GiveUp>;
    /// When it ends, if that is known.
    fn deadline(&self) -> Option<Instant> {
        None
    }
}

/// Why a wait ended without what was waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GiveUp {
    Deadline,
    Cancelled,
    /// Everybody for whom the wait was made has gone.
    NobodyWaits,
}

/// Patience of a single caller.
pub(crate) struct Until<'a> {
    pub(crate) deadline: Option<Instant>,
    pub(crate) cancel: Option<&'a crate::cancel::CancelToken>,
}

impl Patience for Until<'_> {
    fn exhausted(&self) -> Option<GiveUp> {
        if self
            .cancel
            .is_some_and(crate::cancel::CancelToken::is_cancelled)
        {
            return Some(GiveUp::Cancelled);
        }
        self.deadline
            .is_some_and(|at| Instant::now() >= at)
            .then_some(GiveUp::Deadline)
    }

    fn deadline(&self) -> Option<Instant> {
        self.deadline
    }
}

impl CommitError {
    /// Whether COMMIT was refused for what somebody did in the transaction, so
    /// that the others may commit without him. A full disk is everybody's.
    pub(crate) fn may_be_one_members_doing(&self) -> bool {
        use rusqlite::ffi::{SQLITE_CONSTRAINT, SQLITE_CORRUPT, SQLITE_ERROR, SQLITE_INTERRUPT};
        self.outcome == Outcome::NotCommitted
            && self.error.sqlite_error().is_some_and(|error| {
                matches!(
                    error.extended_code & 0xff,
                    SQLITE_CONSTRAINT | SQLITE_CORRUPT | SQLITE_ERROR | SQLITE_INTERRUPT
                )
            })
    }

    /// What it means to somebody who has been waiting `since` then, and no
    /// longer than `patience` lasted.
    pub(crate) fn to_error(&self, since: Instant, patience: &dyn Patience) -> Error {
        let failed = Error::commit(&self.error, self.outcome);
        let busy =
            |error: &rusqlite::ffi::Error| error.extended_code & 0xff == rusqlite::ffi::SQLITE_BUSY;
        if !self.error.sqlite_error().is_some_and(busy) {
            return failed;
        }
        let kind = match patience.exhausted() {
            Some(GiveUp::Cancelled) => ErrorKind::Cancelled,
            _ => ErrorKind::DeadlineExceeded,
        };
        let mut waited = Waited::new(WaitedFor::Readers, since.elapsed());
        waited.holder.clone_from(&self.holder);
        failed
            .restated(
                kind,
                "its COMMIT waited for readers to finish, in vain; nothing was written",
            )
            .with_waited(waited)
    }

    /// The same for somebody of whom nothing was to be committed.
    pub(crate) fn without_trace(&self) -> Error {
        Error::commit(&self.error, Outcome::NotCommitted)
    }
}
