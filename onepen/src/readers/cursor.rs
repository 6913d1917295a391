//! A query that is asked for a few rows now and for more later, from any
//! thread.
//!
//! rusqlite's rows borrow from a statement, which borrows from a connection; a
//! cursor owns all three. That, and moving them together between threads, is
//! what this file needs `unsafe` for.

use std::ptr::NonNull;

use rusqlite::{Row, Rows};

use super::{Snapshot, Statement};
use crate::error::Result;
use crate::params::Sent;

/// A running query in a snapshot of its own.
pub(super) struct Cursor {
    // In the order in which they have to go. Both pointers come from
    // `Box::into_raw`, and not boxes, because a box may not be moved while
    // something points into it.
    rows: Option<Rows<'static>>,
    statement: NonNull<Statement<'static>>,
    snapshot: NonNull<Snapshot>,
}

// SAFETY: a `Snapshot` may move between threads. What keeps the statement and
// the rows from doing so on their own is that they refer to its connection;
// here they move together with it, and are reached through `&mut self` only.
unsafe impl Send for Cursor {}

impl Cursor {
    pub(super) fn new(snapshot: Snapshot, sql: &str, params: impl Sent) -> Result<Self> {
        let snapshot = NonNull::from(Box::leak(Box::new(snapshot)));
        // SAFETY: just made from a box; freed in `drop`, which runs after
        // everything that borrows from it is gone, or below.
        let lent: &'static Snapshot = unsafe { snapshot.as_ref() };
        match lent.prepare(sql) {
            Ok(statement) => {
                let statement = NonNull::from(Box::leak(Box::new(statement)));
                let mut cursor = Self {
                    rows: None,
                    statement,
                    snapshot,
                };
                // SAFETY: just made from a box, freed in `drop` after `rows`;
                // nobody else has a reference to it.
                let rows = params.query(unsafe { &mut *statement.as_ptr() });
                cursor.rows = Some(rows.map_err(|error| lent.failed(error))?);
                Ok(cursor)
            }
            Err(error) => {
                // SAFETY: made from a box above; the statement that would borrow
                // from it was not made.
                drop(unsafe { Box::from_raw(snapshot.as_ptr()) });
                Err(error)
            }
        }
    }

    /// The next row as `map` sees it, `None` after the last.
    pub(super) fn next<T>(
        &mut self,
        map: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Option<T>> {
        let Some(rows) = &mut self.rows else {
            return Ok(None);
        };
        let next = rows.next().and_then(|row| row.map(map).transpose());
        // SAFETY: the snapshot lives until `drop`.
        next.map_err(|error| unsafe { self.snapshot.as_ref() }.failed(error))
    }
}

impl Cursor {
    /// The error of a query whose lease is over.
    pub(super) fn lease_ended(&self) -> crate::error::Error {
        // SAFETY: the snapshot lives until `drop`.
        unsafe { self.snapshot.as_ref() }.lease_ended()
    }
}

impl Drop for Cursor {
    fn drop(&mut self) {
        self.rows = None;
        // SAFETY: both were made from boxes in `new` and are freed only here, the
        // borrower before what it borrows from.
        unsafe {
            drop(Box::from_raw(self.statement.as_ptr()));
            drop(Box::from_raw(self.snapshot.as_ptr()));
        }
    }
}
