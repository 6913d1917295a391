//! A read transaction that outlives a closure.

use std::fmt;
use std::ops::Deref;
use std::panic::Location;
use std::time::{Duration, Instant};

use super::slots::{Entry, Slots};
use super::{ReadBy, ReadTx, Readers, limits};
use crate::engine::Patience;
use crate::error::{Result, WaitedFor};
use crate::pen::{gave_up, job::Ticket};
use crate::sync::Arc;

/// One committed state of the database, for as long as you keep it.
///
/// It has a connection of its own and everything a [`ReadTx`] has. It can move
/// to another thread, but not be used by two at once:
///
/// ```compile_fail,E0277
/// fn shared<T: Sync>() {}
/// shared::<onepen::Snapshot>();
/// ```
///
/// While it lives the write-ahead log cannot be reset, so the log grows with
/// every write: [`Stats::wal_pinned_for`](crate::Stats::wal_pinned_for) shows it.
/// Dropping it ends it, and so may its [lease](crate::Options::reader_lease): then
/// every later use says so ([`ErrorKind::LeaseEnded`](crate::ErrorKind::LeaseEnded)).
pub struct Snapshot {
    tx: Option<ReadTx>,
    since: Instant,
    readers: Arc<Readers>,
}

impl Readers {
    /// Takes a snapshot now.
    #[track_caller]
    pub(crate) fn snapshot(self: &Arc<Self>, ticket: &Ticket) -> Result<Snapshot> {
        let since = Instant::now();
        self.snapshot_since(ticket, since, Location::caller())
    }

    pub(super) fn snapshot_since(
        self: &Arc<Self>,
        ticket: &Ticket,
        since: Instant,
        at: &'static Location<'static>,
    ) -> Result<Snapshot> {
        self.check()?;
        // A turn among the readers, only for the moment in which it begins: so
        // that it waits while readers are held back and after they are closed.
        let entry = match self.pool.slots.own() {
            Some(entry) => entry,
            None => self.enter_slowly(ticket, Some(since))?,
        };
        let begun = if entry == Entry::Outside && !self.pool.slots.is_mine() {
            self.refuse_inside_a_write(
                "a snapshot or a stream was started inside a write closure of the same database; \
                 over a rollback journal it would keep that very write from committing: read \
                 through the transaction the closure was given",
            )
        } else {
            Ok(())
        };
        let begun = begun.and_then(|()| self.begin_outside(ticket, since, at));
        self.pool.slots.leave(entry);
        begun
    }

    fn begin_outside(
        self: &Arc<Self>,
        ticket: &Ticket,
        since: Instant,
        at: &'static Location<'static>,
    ) -> Result<Snapshot> {
        if let Some(why) = limits(ticket, since).exhausted() {
            let waited = crate::error::Waited::new(WaitedFor::Reader, since.elapsed());
            return Err(self.connector.context(gave_up(why, waited)));
        }
        let tx = self.connection(ticket, since)?;
        let tenure = tx.tenure();
        tenure.begin(ReadBy::Snapshot, Slots::here(), at, ticket.label.as_ref());
        self.retry(ticket, since, || tx.raw().begin_lease(0))
            .map_err(|error| self.connector.context(error))?;
        let begun = Instant::now();
        tenure.counts();
        tx.pins();
        tx.lend();
        Ok(Snapshot {
            tx: Some(tx),
            since: begun,
            readers: Arc::clone(self),
        })
    }

    /// How long the oldest snapshot has been pinning the log.
    pub(crate) fn oldest_snapshot(&self) -> Option<Duration> {
        let reading = self.leases.reading(Instant::now());
        let mut snapshots = reading.iter().filter(|it| it.by != ReadBy::Closure);
        snapshots.next().map(|oldest| oldest.since)
    }
}

impl Snapshot {
    /// How long ago it was taken.
    pub fn age(&self) -> Duration {
        self.since.elapsed()
    }

    /// It is a backup's, which has limits of its own.
    pub(crate) fn without_lease(self) -> Self {
        self.tenure().is_of_a_backup();
        self
    }
}

impl Deref for Snapshot {
    type Target = ReadTx;

    fn deref(&self) -> &ReadTx {
        self.tx.as_ref().expect("only `drop` takes it")
    }
}

impl Drop for Snapshot {
    fn drop(&mut self) {
        let Some(tx) = self.tx.take() else { return };
        if self.readers.check().is_err() {
            // The connection is the parent's: a child must not close it.
            std::mem::forget(tx);
            return;
        }
        tx.take_back();
        tx.raw().unwatch();
        let fit = tx.raw().end();
        tx.tenure().counts_no_more();
        tx.tenure().finish();
        if fit {
            self.readers.put_away(tx);
        }
    }
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot")
            .field("age", &self.age())
            .finish_non_exhaustive()
    }
}
