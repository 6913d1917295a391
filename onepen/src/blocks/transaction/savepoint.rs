//! Parts of a transaction that can be undone by themselves: as a guard, and as a
//! closure.
//!
//! Guarantees: savepoints nest; a part that is not kept, fails or panics is undone
//! alone; and when SQLite has ended the whole transaction meanwhile, that is said,
//! and nothing begins one that looks like it.

use std::cell::Cell;

use super::{Behavior, Transaction, lost};
use crate::error::Result;

const NAME: &str = "onepen_part_";

/// A part of a transaction that can be undone by itself. While it lives the
/// transaction is used through it.
#[must_use = "a savepoint that is dropped undoes what came after it"]
#[derive(Debug)]
pub struct Savepoint<'t, 'c, B: Behavior> {
    transaction: &'t mut Transaction<'c, B>,
    depth: u32,
}

impl<'t, 'c, B: Behavior> Savepoint<'t, 'c, B> {
    pub(super) fn begin(transaction: &'t mut Transaction<'c, B>) -> Result<Self> {
        let connection = transaction.connection;
        if connection.is_autocommit() {
            return Err(lost());
        }
        let depth = transaction.depth.get();
        connection.execute_batch(&format!("SAVEPOINT {NAME}{depth}"))?;
        transaction.depth.set(depth + 1);
        Ok(Self { transaction, depth })
    }

    /// Keeps what was done since, as part of the transaction.
    ///
    /// # Errors
    /// [`TransactionLost`](crate::ErrorKind::TransactionLost) when SQLite rolled the whole transaction
    /// back; SQLite's own.
    pub fn keep(self) -> Result<()> {
        if self.connection.is_autocommit() {
            return Err(lost());
        }
        let kept = self
            .connection
            .execute_batch(&format!("RELEASE {NAME}{}", self.depth));
        if kept.is_ok() {
            self.transaction.depth.set(self.depth);
            std::mem::forget(self);
        }
        Ok(kept?)
    }
}

impl<B: Behavior> Drop for Savepoint<'_, '_, B> {
    fn drop(&mut self) {
        let depth = self.depth;
        self.transaction.depth.set(depth);
        if !self.connection.is_autocommit() {
            let undo = format!("ROLLBACK TO {NAME}{depth}; RELEASE {NAME}{depth}");
            let _ = self.connection.execute_batch(&undo);
        }
    }
}

impl<'c, B: Behavior> std::ops::Deref for Savepoint<'_, 'c, B> {
    type Target = Transaction<'c, B>;

    fn deref(&self) -> &Self::Target {
        self.transaction
    }
}

impl<B: Behavior> std::ops::DerefMut for Savepoint<'_, '_, B> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        self.transaction
    }
}

/// Runs `part` inside a savepoint: for every kind of transaction of this crate.
pub(crate) fn part_of<T>(
    depth: &Cell<u32>,
    is_autocommit: impl Fn() -> bool,
    control: impl Fn(&str) -> Result<()>,
    part: impl FnOnce() -> Result<T>,
) -> Result<T> {
    /// A part that panicked: undone, as far as SQLite still lets us.
    struct Open<'a, C: Fn(&str) -> Result<()>>(&'a Cell<u32>, u32, &'a C);

    impl<C: Fn(&str) -> Result<()>> Drop for Open<'_, C> {
        fn drop(&mut self) {
            let Self(depth, this, control) = self;
            depth.set(*this);
            // It is unwinding, so all of it is undone in any case.
            let _ = control(&format!("ROLLBACK TO {NAME}{this}"));
            let _ = control(&format!("RELEASE {NAME}{this}"));
        }
    }

    if is_autocommit() {
        // SAVEPOINT would begin a transaction here that looks like the lost one.
        return Err(lost());
    }
    let this = depth.get();
    control(&format!("SAVEPOINT {NAME}{this}"))?;
    depth.set(this + 1);
    let open = Open(depth, this, &control);
    let result = part();
    std::mem::forget(open);
    depth.set(this);
    if is_autocommit() {
        // SQLite ended the transaction in there, and the savepoint with it.
        return result.and_then(|_| Err(lost()));
    }
    if result.is_err() {
        control(&format!("ROLLBACK TO {NAME}{this}"))?;
    }
    control(&format!("RELEASE {NAME}{this}"))?;
    result
}
