//! One member of a group, or of a transaction of its own: runs it between the
//! guards, and looks at what it has done to the transaction.
//!
//! Guarantees: a member that succeeded is [`Fate::Stays`] only if the transaction
//! is still open and owes no foreign key; whoever hid the loss of the
//! transaction, or left a debt, is failed with that.

use super::{Claimed, Group, commit};
use crate::engine::Engine;
use crate::error::{Error, ErrorKind};
use crate::pen::job::Member;

pub(super) enum Fate {
    /// The member is done, or was undone by itself alone.
    Stays,
    /// It has to be undone, and only undoing everybody does that.
    Failed { gone: bool },
}

pub(super) fn run_bare<E: Engine>(engine: &mut E, job: &dyn Member<E>) -> Fate {
    let fine = member(engine, |engine| job.run(engine));
    if engine.is_autocommit() {
        return Fate::Failed { gone: true };
    }
    if fine && !engine.owes_foreign_keys() {
        return Fate::Stays;
    }
    if fine {
        job.fail(foreign_keys());
    }
    Fate::Failed { gone: false }
}

pub(super) fn run_with_savepoint<E: Engine>(engine: &mut E, job: &dyn Member<E>) -> Fate {
    if let Err(error) = engine.savepoint() {
        job.fail(error);
        return Fate::Failed {
            gone: engine.is_autocommit(),
        };
    }
    let fine = member(engine, |engine| job.run(engine));
    if engine.is_autocommit() {
        return Fate::Failed { gone: true };
    }
    let owes = engine.owes_foreign_keys();
    if fine && owes {
        job.fail(foreign_keys());
    }
    let ended = if fine && !owes {
        engine.release()
    } else {
        engine.rollback_to()
    };
    match ended {
        Ok(()) => Fate::Stays,
        // The savepoint is in an unknown state: the transaction has to go.
        Err(error) => {
            job.fail(error);
            Fate::Failed { gone: true }
        }
    }
}

/// The next job, in the transaction that was just begun, by itself.
pub(super) fn run_begun_alone<E: Engine>(engine: &mut E, group: &mut Group<E>) {
    let Some(Claimed { job, .. }) = group.claimed.pop_front() else {
        return;
    };
    let fine = member(engine, |engine| job.run(engine));
    if engine.is_autocommit() {
        fail_if_ok(&*job);
        engine.rollback();
        group.last_size += 1;
        group.answer(job);
    } else if fine && !engine.owes_foreign_keys() {
        group.members.push(job);
        commit(engine, group);
    } else {
        if fine {
            job.fail(foreign_keys());
        }
        engine.rollback();
        group.last_size += 1;
        group.answer(job);
    }
}

/// Runs foreign code between the guards.
pub(super) fn member<E: Engine, R>(engine: &mut E, call: impl FnOnce(&mut E) -> R) -> R {
    engine.member_begins();
    let ran = call(engine);
    engine.member_ends();
    ran
}

/// A closure that swallowed the loss of its transaction and returned `Ok`.
pub(super) fn fail_if_ok<E>(job: &dyn Member<E>) {
    if job.answered_ok() {
        job.fail(lost());
    }
}

pub(super) fn lost() -> Error {
    Error::new(
        ErrorKind::TransactionLost,
        "SQLite rolled the transaction back while the closure ran, and the closure returned Ok; \
         nothing was written",
    )
}

pub(super) fn foreign_keys() -> Error {
    Error::sqlite_error(rusqlite::Error::SqliteFailure(
        rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CONSTRAINT_FOREIGNKEY),
        Some("FOREIGN KEY constraint failed".into()),
    ))
}
