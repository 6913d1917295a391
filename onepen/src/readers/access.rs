//! One use of a reader's connection: its transaction, its limits, and what is left
//! for the next.
//!
//! Guarantees: whoever has an [`Access`] is alone on its connection; dropping it
//! ends the transaction, or leaves it open for the next read if nothing went wrong
//! in it, and gives the connection back, also when the caller's code panicked.

use std::panic::Location;
use std::time::{Duration, Instant};

use rusqlite::{Params, Row};

use super::slots::{Entry, Slots};
use super::{ReadBy, ReadTx, Readers, limits};
use crate::connection::{is_contention, is_hot_journal};
use crate::engine::Patience;
use crate::error::{ErrorKind, Result, Waited, WaitedFor};
use crate::pen::gave_up;
use crate::pen::job::Ticket;
use crate::sync::Ordering;

const OUTGROWN: &str = "a read was started inside a write closure of the same database that has \
     changed more than its page cache holds; over a rollback journal nobody can read beside that, \
     so it would wait for itself: read through the transaction the closure was given";

/// A connection in use by this thread. Dropping it ends the transaction and
/// gives the connection to the next.
pub(super) struct Access<'a> {
    readers: &'a Readers,
    entry: Entry,
    /// The connection of a read inside a read.
    outside: Option<ReadTx>,
    since: Option<Instant>,
    /// A transaction is open.
    began: bool,
    /// It was not open before.
    fresh: bool,
    /// Nothing panicked in it.
    fine: bool,
    /// The connection is not to be used again.
    unfit: bool,
    watched: bool,
    /// Those who look after leases know of it.
    known: bool,
}

impl<'a> Access<'a> {
    #[inline]
    pub(super) fn new(readers: &'a Readers, entry: Entry, since: Option<Instant>) -> Self {
        Self {
            readers,
            entry,
            outside: None,
            since,
            began: false,
            fresh: false,
            fine: false,
            unfit: false,
            watched: false,
            known: false,
        }
    }

    /// Its transaction may stay open for the next.
    #[inline]
    pub(super) fn nothing_panicked(&mut self) {
        self.fine = true;
    }

    #[inline]
    pub(super) fn kept(&self) -> Option<&ReadTx> {
        match self.entry {
            // SAFETY: we own the slot until `drop` leaves it, and change its
            // content only through `&mut self`.
            Entry::Slot { index, .. } => unsafe { self.readers.pool.desks.get(index).as_ref() },
            Entry::Outside => self.outside.as_ref(),
        }
    }

    #[inline]
    pub(super) fn tx(&self) -> &ReadTx {
        self.kept().expect("`enter` opens a connection")
    }

    fn keep(&mut self, content: Option<ReadTx>) -> Option<ReadTx> {
        match self.entry {
            // SAFETY: as in `kept`; `&mut self` says that nobody looks at it.
            Entry::Slot { index, .. } => unsafe { self.readers.pool.desks.replace(index, content) },
            Entry::Outside => std::mem::replace(&mut self.outside, content),
        }
    }

    #[cold]
    pub(super) fn open(&mut self, ticket: &Ticket) -> Result<()> {
        let since = self.since.unwrap_or_else(Instant::now);
        let inside_a_write =
            self.entry == Entry::Outside && self.readers.refuse_inside_a_write(OUTGROWN).is_err();
        let tx = if inside_a_write {
            // Nobody but this thread itself can be in the way.
            let at_once = Ticket {
                patience: Some(Duration::ZERO),
                ..Ticket::default()
            };
            match self.readers.connection(&at_once, since) {
                Err(error) if error.kind() == ErrorKind::DeadlineExceeded => {
                    return self.readers.refuse_inside_a_write(OUTGROWN);
                }
                other => other?,
            }
        } else {
            self.readers.connection(ticket, since)?
        };
        if self.entry == Entry::Outside {
            self.readers.outside.fetch_add(1, Ordering::Relaxed);
        }
        self.keep(Some(tx));
        Ok(())
    }

    /// From now on it is seen who reads.
    #[inline]
    pub(super) fn begin_use(&mut self, at: &'static Location<'static>, ticket: &Ticket) {
        let token = match self.entry {
            Entry::Slot { token, .. } => token,
            Entry::Outside => Slots::here(),
        };
        let label = ticket.label.as_ref();
        let tenure = self.tx().tenure();
        tenure.begin(ReadBy::Closure, token, at, label);
        self.known = true;
    }

    /// Leaves nothing in the slot.
    #[cold]
    fn put_away(&mut self) {
        let tx = self.keep(None);
        if self.entry == Entry::Outside
            && let Some(tx) = tx
        {
            self.readers.outside.fetch_sub(1, Ordering::Release);
            if !self.unfit {
                self.readers.put_away(tx);
            }
        }
    }

    #[cold]
    pub(super) fn watch(&mut self, ticket: &Ticket) -> Result<()> {
        let since = self.since.unwrap_or_else(Instant::now);
        let limits = limits(ticket, since);
        if let Some(why) = limits.exhausted() {
            let waited = Waited::new(WaitedFor::Reader, since.elapsed());
            return Err(self.readers.connector.context(gave_up(why, waited)));
        }
        self.tx().raw().watch(Box::new(limits), since);
        self.watched = true;
        Ok(())
    }

    /// Starts a transaction of the present state, or goes on in one.
    #[inline]
    pub(super) fn begin(&mut self, ticket: &Ticket) -> Result<()> {
        if self.resume() {
            return Ok(());
        }
        self.begin_anew(ticket)
    }

    /// The same for a single query, unless the query is likely to be the only
    /// one of its state: then SQLite's own transaction is cheaper.
    #[inline]
    pub(super) fn begin_if_worth_it(&mut self, ticket: &Ticket) -> Result<()> {
        if self.resume() {
            return Ok(());
        }
        if self.entry == Entry::Outside || !self.tx().raw().is_quiet() {
            self.tx().tenure().pins_nothing();
            return Ok(());
        }
        self.begin_anew(ticket)
    }

    #[inline]
    fn resume(&mut self) -> bool {
        let round = self.readers.pool.round();
        self.began = self.tx().raw().resume(round);
        self.began
    }

    #[inline(never)]
    fn begin_anew(&mut self, ticket: &Ticket) -> Result<()> {
        let round = self.readers.pool.round();
        let raw = self.tx().raw();
        if let Err(error) = raw.begin_lease(round)
            && let Err(error) = self.again(ticket, error, || raw.begin_lease(round))
        {
            self.unfit = true;
            return Err(error);
        }
        self.tx().pins();
        self.began = true;
        self.fresh = true;
        Ok(())
    }

    #[inline]
    pub(super) fn query_row<T, P: Params>(
        &self,
        ticket: &Ticket,
        sql: &str,
        params: P,
        f: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<T> {
        let tx = self.tx();
        let connection = tx.raw().connection();
        let mut statement = match connection.prepare_cached(sql) {
            Ok(statement) => statement,
            Err(error) => self.again(ticket, error, || connection.prepare_cached(sql))?,
        };
        let mut rows = statement.query(params).map_err(|error| tx.failed(error))?;
        let refused = match rows.next() {
            Ok(Some(row)) => return f(row).map_err(|error| tx.failed(error)),
            Ok(None) => return Err(tx.failed(rusqlite::Error::QueryReturnedNoRows)),
            Err(error) => error,
        };
        drop(rows);
        // The parameters stay bound, so the statement can be asked again.
        let mut f = Some(f);
        let answer = self.again(ticket, refused, || {
            let mut rows = statement.raw_query();
            let row = rows.next()?;
            Ok(row.and_then(|row| f.take().map(|f| f(row))))
        })?;
        answer
            .unwrap_or(Err(rusqlite::Error::QueryReturnedNoRows))
            .map_err(|error| tx.failed(error))
    }

    /// Does `attempt` again, if what refused it is a lock of somebody else,
    /// until that is gone or the caller's patience is.
    #[cold]
    fn again<T>(
        &self,
        ticket: &Ticket,
        refused: rusqlite::Error,
        attempt: impl FnMut() -> rusqlite::Result<T>,
    ) -> Result<T> {
        if !is_contention(&refused) && !is_hot_journal(&refused) {
            return Err(self.tx().failed(refused));
        }
        // The one whose lock is in the way is this thread itself.
        if self.entry == Entry::Outside {
            self.readers.refuse_inside_a_write(OUTGROWN)?;
        }
        let since = self.since.unwrap_or_else(Instant::now);
        self.readers
            .retry(ticket, since, attempt)
            .map_err(|error| self.tx().explained(error))
    }
}

impl Drop for Access<'_> {
    #[inline]
    fn drop(&mut self) {
        if self.known {
            self.tx().take_back(); // also after a panic
        }
        if self.watched {
            self.tx().raw().unwatch();
        }
        let in_slot = self.entry != Entry::Outside;
        if self.began {
            if in_slot && self.fine && self.tx().raw().leave_open() {
                if self.fresh {
                    self.readers.pool.expect_caretaker();
                }
            } else {
                self.unfit |= !self.tx().raw().end();
            }
        }
        if self.known {
            self.tx().tenure().finish();
        }
        if !in_slot || self.unfit || self.readers.pool.slots.is_closed_for(self.entry) {
            self.put_away();
        }
        self.readers.pool.slots.leave(self.entry);
    }
}
