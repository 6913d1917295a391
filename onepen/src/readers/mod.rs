//! Reads: many at once, each of one committed state, none waits for a writer.
//!
//! A read runs on its caller's thread, on a connection that was opened for
//! reading only. There are at most `Options::readers` of them, opened when first
//! needed; a thread finds the one it had before ([`slots`]). Outside of that
//! number are the connections of [`Snapshot`]s and of reads inside reads: those
//! must not wait for a slot, since what they would wait for may be themselves.
//!
//! Every transaction has its snapshot from its first moment: BEGIN takes it
//! (see [`raw`]), so everything SQLite may have to wait for (another process
//! recovering or closing the log) is waited for there, within the caller's
//! deadline, and never met inside a closure.

mod cursor;
mod desk;
mod future;
mod raw;
mod slots;
mod snapshot;
mod stream;
mod threads;
mod tx;

use std::sync::atomic::AtomicUsize;
use std::time::{Duration, Instant};

use rusqlite::{Params, Row};

use self::desk::Desks;
use self::slots::{Entry, Slots};
pub use self::snapshot::Snapshot;
pub use self::stream::RowStream;
use self::threads::Threads;
pub use self::tx::{ReadTx, Statement};
use crate::cancel::CancelToken;
use crate::connection::{Connector, Role, is_contention, retry};
use crate::engine::{GiveUp, Patience, Until};
use crate::error::{Result, Waited, WaitedFor};
use crate::pen::job::Ticket;
use crate::pen::{gave_up, patience};
use crate::sync::{Arc, Mutex, Ordering, lock};

/// The readers of one database.
pub(crate) struct Readers {
    slots: Slots,
    desks: Desks<ReadTx>,
    connector: Arc<Connector>,
    /// Connections without a slot that nobody uses now.
    spare: Mutex<Vec<ReadTx>>,
    open: Arc<AtomicUsize>,
    /// How many connections without a slot are in use.
    outside: AtomicUsize,
    snapshots: Mutex<Vec<Instant>>,
    threads: Threads,
}

/// Limits of a call that also hold while its queries run.
struct Limits {
    deadline: Option<Instant>,
    cancel: Option<CancelToken>,
}

impl Patience for Limits {
    fn exhausted(&self) -> Option<GiveUp> {
        let limits = Until {
            deadline: self.deadline,
            cancel: self.cancel.as_ref(),
        };
        limits.exhausted()
    }
}

impl Readers {
    pub(crate) fn new(connector: Arc<Connector>) -> Self {
        let count = connector.options.readers.max(1);
        Self {
            slots: Slots::new(count),
            desks: Desks::new(count),
            connector,
            spare: Mutex::new(Vec::new()),
            open: Arc::default(),
            outside: AtomicUsize::new(0),
            snapshots: Mutex::new(Vec::new()),
            threads: Threads::new(count),
        }
    }

    /// Runs `f` in a read transaction.
    #[inline]
    pub(crate) fn read<T>(
        &self,
        ticket: &Ticket,
        f: impl FnOnce(&ReadTx) -> Result<T>,
    ) -> Result<T> {
        self.read_since(ticket, None, f)
    }

    /// Like `read`, for a call that began at `since`.
    #[inline]
    fn read_since<T>(
        &self,
        ticket: &Ticket,
        since: Option<Instant>,
        f: impl FnOnce(&ReadTx) -> Result<T>,
    ) -> Result<T> {
        let mut access = self.enter(ticket, since)?;
        access.begin(ticket)?;
        let tx = access.tx();
        f(tx).map_err(|error| tx.explained(error))
    }

    /// The first row of a single query, without a transaction around it.
    #[inline]
    pub(crate) fn query_row<T, P: Params>(
        &self,
        ticket: &Ticket,
        sql: &str,
        params: P,
        f: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<T> {
        let access = self.enter(ticket, None)?;
        let tx = access.tx();
        let mut statement = match tx.connection().prepare_cached(sql) {
            Ok(statement) => statement,
            Err(error) => access.again(ticket, error, || tx.connection().prepare_cached(sql))?,
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
        let answer = access.again(ticket, refused, || {
            let mut rows = statement.raw_query();
            let row = rows.next()?;
            Ok(row.and_then(|row| f.take().map(|f| f(row))))
        })?;
        answer
            .unwrap_or(Err(rusqlite::Error::QueryReturnedNoRows))
            .map_err(|error| tx.failed(error))
    }

    /// Lets nobody start to read, and waits at most so long for those who read
    /// now (snapshots aside).
    pub(crate) fn hold(&self, at_most: Duration) -> Hold<'_> {
        Hold(self.slots.hold(at_most))
    }

    /// Like `hold`, until `let_go` on the same thread; says whether all who read
    /// have ended.
    pub(crate) fn hold_back(&self, at_most: Duration) -> bool {
        let held = self.slots.hold(at_most);
        let drained = held.drained();
        std::mem::forget(held);
        drained
    }

    pub(crate) fn let_go(&self) {
        self.slots.let_go_here();
    }

    /// How many connections are in use now, snapshots included.
    pub(crate) fn in_use(&self) -> usize {
        self.slots.in_use() + self.outside.load(Ordering::Relaxed)
    }

    /// How many connections are open.
    pub(crate) fn opened(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Ends: waits for the reads that run, sends away those that wait, closes
    /// the connections. Snapshots live on until they are dropped.
    pub(crate) fn close(&self) {
        let free = self.slots.close();
        self.threads.close();
        for index in free {
            // SAFETY: `Slots::close` says of each slot once that it is free and
            // will not be entered again, so we are its last owner.
            drop(unsafe { self.desks.replace(index, None) });
        }
        lock(&self.spare).clear();
    }

    /// What makes every use of these readers an error.
    #[inline]
    #[expect(
        clippy::unused_self,
        clippy::unnecessary_wraps,
        reason = "the fork check goes here"
    )]
    fn check(&self) -> Result<()> {
        Ok(())
    }

    /// A connection for this thread, with the limits of its call on it.
    #[inline]
    fn enter(&self, ticket: &Ticket, since: Option<Instant>) -> Result<Access<'_>> {
        self.check()?;
        let limited = ticket.deadline_is_own || ticket.cancel.is_some();
        let since = if limited {
            Some(since.unwrap_or_else(Instant::now))
        } else {
            since
        };
        let entry = match self.slots.own() {
            Some(entry) => entry,
            None => self.enter_slowly(ticket, since)?,
        };
        let mut access = Access {
            readers: self,
            entry,
            outside: None,
            since,
            began: false,
            watched: false,
        };
        if access.kept().is_none() {
            access.open(ticket)?;
        }
        if limited {
            access.watch(ticket)?;
        }
        Ok(access)
    }

    #[cold]
    fn enter_slowly(&self, ticket: &Ticket, since: Option<Instant>) -> Result<Entry> {
        self.slots
            .any(ticket, since, |index| self.desks.is_filled(index))
            .map_err(|error| self.connector.context(error))
    }

    /// A connection that is not in use, or a new one.
    fn connection(&self, ticket: &Ticket, since: Instant) -> Result<ReadTx> {
        if let Some(spare) = lock(&self.spare).pop() {
            return Ok(spare);
        }
        let connection = self
            .connector
            .open(Role::Reader, &patience(ticket, since))?;
        ReadTx::new(connection, &self.connector.name, &self.open)
            .map_err(|error| self.connector.context(error.into()))
    }

    /// Keeps a connection for later, if it is fit and there is a later.
    fn put_away(&self, tx: ReadTx) {
        let mut spare = lock(&self.spare);
        if !self.slots.is_closed() && spare.len() < self.connector.options.readers {
            spare.push(tx);
        }
    }
}

impl std::fmt::Debug for Readers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Readers")
            .field("opened", &self.opened())
            .field("in_use", &self.in_use())
            .finish_non_exhaustive()
    }
}

/// A connection in use by this thread. Dropping it ends the transaction and
/// gives the connection to the next.
struct Access<'a> {
    readers: &'a Readers,
    entry: Entry,
    /// The connection of a read inside a read.
    outside: Option<ReadTx>,
    since: Option<Instant>,
    began: bool,
    watched: bool,
}

impl Access<'_> {
    #[inline]
    fn kept(&self) -> Option<&ReadTx> {
        match self.entry {
            // SAFETY: we own the slot until `drop` leaves it, and change its
            // content only through `&mut self`.
            Entry::Slot { index, .. } => unsafe { self.readers.desks.get(index).as_ref() },
            Entry::Outside => self.outside.as_ref(),
        }
    }

    #[inline]
    fn tx(&self) -> &ReadTx {
        self.kept().expect("`enter` opens a connection")
    }

    fn keep(&mut self, content: Option<ReadTx>) -> Option<ReadTx> {
        match self.entry {
            // SAFETY: as in `kept`; `&mut self` says that nobody looks at it.
            Entry::Slot { index, .. } => unsafe { self.readers.desks.replace(index, content) },
            Entry::Outside => std::mem::replace(&mut self.outside, content),
        }
    }

    #[cold]
    fn open(&mut self, ticket: &Ticket) -> Result<()> {
        let since = self.since.unwrap_or_else(Instant::now);
        let tx = self.readers.connection(ticket, since)?;
        if self.entry == Entry::Outside {
            self.readers.outside.fetch_add(1, Ordering::Relaxed);
        }
        self.keep(Some(tx));
        Ok(())
    }

    #[cold]
    fn watch(&mut self, ticket: &Ticket) -> Result<()> {
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

    #[inline]
    fn begin(&mut self, ticket: &Ticket) -> Result<()> {
        let tx = self.tx();
        if let Err(error) = tx.raw().begin() {
            self.again(ticket, error, || tx.raw().begin())?;
        }
        self.began = true;
        Ok(())
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
        if !is_contention(&refused) {
            return Err(self.tx().failed(refused));
        }
        let since = self.since.unwrap_or_else(Instant::now);
        retry(&patience(ticket, since), WaitedFor::Opening, since, attempt)
            .map_err(|error| self.tx().explained(error))
    }
}

impl Drop for Access<'_> {
    #[inline]
    fn drop(&mut self) {
        let mut fit = true;
        if self.watched {
            self.tx().raw().unwatch();
        }
        if self.began {
            fit = self.tx().raw().end();
        }
        if !fit || self.entry == Entry::Outside || self.readers.slots.is_closed() {
            let tx = self.keep(None);
            if self.entry == Entry::Outside && tx.is_some() {
                self.readers.outside.fetch_sub(1, Ordering::Relaxed);
                if let (true, Some(tx)) = (fit, tx) {
                    self.readers.put_away(tx);
                }
            }
        }
        self.readers.slots.leave(self.entry);
    }
}

/// The limits a call brought with it.
fn limits(ticket: &Ticket, since: Instant) -> Limits {
    let own = ticket.patience.filter(|_| ticket.deadline_is_own);
    Limits {
        deadline: own.and_then(|patience| since.checked_add(patience)),
        cancel: ticket.cancel.clone(),
    }
}

/// While it lives nobody starts to read.
pub(crate) struct Hold<'a>(slots::Held<'a>);

impl Hold<'_> {
    /// Whether nobody reads now (snapshots aside).
    pub(crate) fn drained(&self) -> bool {
        self.0.drained()
    }
}
