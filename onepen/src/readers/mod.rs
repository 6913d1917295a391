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
//! deadline, and never met inside a closure. As long as nothing is committed a
//! read goes on in the transaction of the one before it ([`pool`]): that is what
//! makes a read by key cost less than on a connection of one's own.
//!
//! | file | subject |
//! |---|---|
//! | [`slots`] | who may use which connection, and who is next |
//! | [`access`] | one use of a connection, from its begin to its end |
//! | [`desk`] | what the owner of a slot finds there |
//! | [`pool`], [`mark`] | transactions that stay open from one read to the next |
//! | [`raw`] | SQLite's own interface: BEGIN and COMMIT, limits, what is refused |
//! | [`tx`], [`snapshot`] | what a caller has in hand |
//! | [`lease`] | who reads for too long, and how that is ended |
//! | [`stream`], [`cursor`] | large results, a few rows at a time |
//! | [`future`], [`threads`] | reads for tasks |

mod access;
mod cursor;
mod desk;
mod future;
pub(crate) mod lease;
pub(crate) mod mark;
mod pool;
mod raw;
pub(crate) mod slots;
mod snapshot;
mod stream;
#[cfg(all(test, not(any(onepen_loom, onepen_shuttle))))]
mod tests;
mod threads;
mod tx;

use std::panic::Location;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::time::{Duration, Instant};

use rusqlite::{Params, Row};

use self::access::Access;
use self::lease::Leases;
pub use self::lease::{ReadBy, Reading};
use self::pool::Pool;
use self::slots::Entry;
pub use self::snapshot::Snapshot;
pub use self::stream::RowStream;
use self::threads::Threads;
pub use self::tx::{ReadTx, Statement};
use crate::cancel::CancelToken;
use crate::connection::{Connector, POLL, Role, is_hot_journal, retry};
use crate::engine::{Bystanders, GiveUp, Patience, Until};
use crate::error::{Error, ErrorKind, Result};
use crate::options::Journal;
use crate::pen::job::Ticket;
use crate::pen::patience;
use crate::sync::{Arc, Mutex, Ordering, lock, pause};

/// How long the holder of the pen waits for readers between two looks at its
/// caller's patience.
const SLICE: Duration = Duration::from_millis(5);

/// The readers of one database.
pub(crate) struct Readers {
    pool: Arc<Pool>,
    connector: Arc<Connector>,
    /// Connections without a slot that nobody uses now.
    spare: Mutex<Vec<ReadTx>>,
    open: Arc<AtomicUsize>,
    /// How many connections without a slot are in use.
    outside: Arc<AtomicUsize>,
    /// The holder of the pen waits until nobody reads.
    awaited: AtomicBool,
    pub(crate) leases: Arc<Leases>,
    threads: Threads,
    /// In which process, as [`crate::fork`] counts.
    born: u32,
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
        let outside = Arc::new(AtomicUsize::new(0));
        let leases = Leases::new(
            &connector.name,
            connector.options.reader_lease,
            connector.options.lease_grace,
            pool::timer(),
            &outside,
        );
        Self {
            pool: Arc::new(Pool::new(count)),
            connector,
            spare: Mutex::new(Vec::new()),
            open: Arc::default(),
            outside,
            awaited: AtomicBool::new(false),
            leases,
            threads: Threads::new(count),
            born: crate::fork::born(),
        }
    }

    /// Runs `f` in a read transaction.
    #[inline]
    #[track_caller]
    pub(crate) fn read<T>(
        &self,
        ticket: &Ticket,
        f: impl FnOnce(&ReadTx) -> Result<T>,
    ) -> Result<T> {
        self.read_since(ticket, None, Location::caller(), f)
    }

    /// Like `read`, for a call that was made at `at` and began at `since`.
    #[inline]
    fn read_since<T>(
        &self,
        ticket: &Ticket,
        since: Option<Instant>,
        at: &'static Location<'static>,
        f: impl FnOnce(&ReadTx) -> Result<T>,
    ) -> Result<T> {
        let mut access = self.enter(ticket, since, at)?;
        access.begin(ticket)?;
        let tx = access.tx();
        tx.lend();
        let answer = f(tx);
        tx.take_back();
        let answer = tx.whole(answer.map_err(|error| tx.explained(error)));
        access.nothing_panicked();
        answer
    }

    /// The first row of a single query, in a transaction of its own.
    #[inline]
    #[track_caller]
    pub(crate) fn query_row<T, P: Params>(
        &self,
        ticket: &Ticket,
        sql: &str,
        params: P,
        f: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<T> {
        let mut access = self.enter(ticket, None, Location::caller())?;
        access.begin_if_worth_it(ticket)?;
        let answer = access.query_row(ticket, sql, params, f);
        access.nothing_panicked();
        answer
    }

    /// Ends the transactions that are open between reads only to serve the next
    /// one, so that they do not keep the log from being copied back.
    pub(crate) fn rest(&self) {
        self.pool.rest();
    }

    /// Lets nobody start to read, and waits at most so long for those who read
    /// now (snapshots aside).
    pub(crate) fn hold(&self, at_most: Duration) -> Hold<'_> {
        Hold(self.pool.hold(at_most))
    }

    /// Over a rollback journal: returns when nobody reads, and lets nobody start
    /// to until `let_go` on the same thread.
    ///
    /// Reads that overlap would keep a writer out for ever, so new ones are held
    /// while the running ones end; for longer with every try, and let go in
    /// between, because one that runs may be waiting for one that is held. Who
    /// has a snapshot is the likeliest to read beside it, and need not drop it
    /// soon: for its sake readers are held for half of the time, and a little
    /// while each.
    pub(crate) fn make_way(&self, hold: Duration, patience: &dyn Patience) -> Result<(), GiveUp> {
        self.awaited.store(true, Ordering::Relaxed);
        let gone = self.wait_until_nobody_reads(hold, patience);
        self.awaited.store(false, Ordering::Relaxed);
        gone
    }

    fn wait_until_nobody_reads(
        &self,
        first: Duration,
        patience: &dyn Patience,
    ) -> Result<(), GiveUp> {
        let (mut for_reads, mut for_snapshots) = (first, POLL);
        loop {
            let among_snapshots = self.outside() > 0;
            let hold = if among_snapshots {
                for_snapshots
            } else {
                for_reads
            };
            if self.hold_for(hold, patience)? {
                return Ok(());
            }
            if !among_snapshots {
                for_reads = for_reads.saturating_mul(2);
                continue;
            }
            let since = Instant::now();
            while self.outside() > 0 && since.elapsed() < hold {
                if let Some(why) = patience.exhausted() {
                    return Err(why);
                }
                pause(POLL);
            }
            for_snapshots = (for_snapshots * 2).min(first);
        }
    }

    /// One try: whether nobody reads, and readers are still held.
    fn hold_for(&self, at_most: Duration, patience: &dyn Patience) -> Result<bool, GiveUp> {
        let since = Instant::now();
        let mut drained = self.hold_back(SLICE.min(at_most));
        loop {
            if drained && self.outside() == 0 {
                return Ok(true);
            }
            let left = at_most.saturating_sub(since.elapsed());
            let gave_up = patience.exhausted();
            if gave_up.is_some() || left.is_zero() {
                self.let_go();
                return gave_up.map_or(Ok(false), Err);
            }
            if drained {
                pause(POLL.min(left)); // for a snapshot
            } else {
                // Once more before the last hold ends: nobody slips in between.
                drained = self.hold_back(SLICE.min(left));
                self.let_go();
            }
        }
    }

    /// Connections without a slot that read now. A snapshot is counted before its
    /// owner leaves the slot it began in, and until its locks are given back.
    fn outside(&self) -> usize {
        self.outside.load(Ordering::Acquire)
    }

    /// Refuses what would keep the write closure that this thread runs from
    /// committing, or would wait for it.
    fn refuse_inside_a_write(&self, what: &'static str) -> Result<()> {
        if self.connector.options.journal == Journal::Rollback && self.pool.slots.is_held_here() {
            return Err(self
                .connector
                .context(Error::new(ErrorKind::Reentrant, what)));
        }
        Ok(())
    }

    /// Like `hold`, until `let_go` on the same thread; says whether all who read
    /// have ended.
    fn hold_back(&self, at_most: Duration) -> bool {
        let held = self.pool.hold(at_most);
        let drained = held.drained();
        std::mem::forget(held);
        drained
    }

    pub(crate) fn let_go(&self) {
        self.pool.slots.let_go_here();
    }

    /// How many connections are in use now, snapshots included.
    pub(crate) fn in_use(&self) -> usize {
        self.pool.slots.in_use() + self.outside()
    }

    /// What `ask` says of each connection that has a slot, and its name.
    pub(crate) fn each_idle(
        &self,
        ask: impl Fn(&rusqlite::Connection) -> Vec<(String, String)>,
    ) -> impl Iterator<Item = (String, Vec<(String, String)>)> {
        let count = self.connector.options.readers.max(1);
        let idle = self.pool.each_idle(count, |tx| ask(tx.raw().connection()));
        idle.into_iter().enumerate().map(|(place, told)| {
            let in_use = || vec![("state".into(), "in use".into())];
            (
                format!("read connection {}", place + 1),
                told.unwrap_or_else(in_use),
            )
        })
    }

    /// How many connections are open.
    pub(crate) fn opened(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Ends: waits for the reads that run, sends away those that wait, closes
    /// the connections. Snapshots live on until they are dropped.
    pub(crate) fn close(&self) {
        let free = self.pool.slots.close();
        self.threads.close();
        for index in free {
            // SAFETY: `Slots::close` says of each slot once that it is free and
            // will not be entered again, so we are its last owner.
            drop(unsafe { self.pool.desks.replace(index, None) });
        }
        lock(&self.spare).clear();
    }

    /// What makes every use of these readers an error.
    #[inline]
    fn check(&self) -> Result<()> {
        crate::fork::check(self.born)
    }

    /// A connection for this thread, with the limits of its call on it.
    #[inline]
    fn enter(
        &self,
        ticket: &Ticket,
        since: Option<Instant>,
        at: &'static Location<'static>,
    ) -> Result<Access<'_>> {
        self.check()?;
        let limited = ticket.deadline_is_own || ticket.cancel.is_some();
        let since = if limited {
            Some(since.unwrap_or_else(Instant::now))
        } else {
            since
        };
        let entry = match self.pool.slots.own() {
            Some(entry) => entry,
            None => self.enter_slowly(ticket, since)?,
        };
        let mut access = Access::new(self, entry, since);
        if access.kept().is_none() {
            access.open(ticket)?;
        }
        access.begin_use(at, ticket);
        if limited {
            access.watch(ticket)?;
        }
        Ok(access)
    }

    #[cold]
    fn enter_slowly(&self, ticket: &Ticket, since: Option<Instant>) -> Result<Entry> {
        self.pool
            .slots
            .any(ticket, since, |index| self.pool.desks.is_filled(index))
            .map_err(|error| self.connector.context(error))
    }

    /// Does `attempt` until no stranger is in its way, or `ticket` gives up. What
    /// a stranger's crash left behind is cleaned up, if this handle may write: a
    /// connection that only reads cannot.
    fn retry<T>(
        &self,
        ticket: &Ticket,
        since: Instant,
        mut attempt: impl FnMut() -> rusqlite::Result<T>,
    ) -> Result<T> {
        let patience = patience(ticket, since);
        let what = self.connector.reads_wait_for();
        let noticing = self.connector.strangers.notice(&patience, what, since);
        let done = retry(&noticing, what, since, || match attempt() {
            Err(error) if is_hot_journal(&error) && self.may_write() => {
                // Whatever this meets, the second attempt tells.
                let _ = self.connector.roll_back(&patience);
                attempt()
            }
            other => other,
        });
        done.map_err(|error| self.connector.blame(error))
    }

    fn may_write(&self) -> bool {
        !self.connector.options.read_only
    }

    /// A connection that is not in use, or a new one.
    fn connection(&self, ticket: &Ticket, since: Instant) -> Result<ReadTx> {
        if let Some(spare) = lock(&self.spare).pop() {
            return Ok(spare);
        }
        let patience = patience(ticket, since);
        let connection = match self.connector.open(Role::Reader, &patience) {
            Err(error) if error.sqlite().is_some_and(is_hot_journal) && self.may_write() => {
                self.connector.roll_back(&patience)?;
                self.connector.open(Role::Reader, &patience)?
            }
            other => other?,
        };
        ReadTx::new(connection, &self.connector.name, &self.open, &self.leases)
            .map_err(|error| self.connector.context(error.into()))
    }

    /// Keeps a connection for later, if it is fit and there is a later.
    fn put_away(&self, tx: ReadTx) {
        let mut spare = lock(&self.spare);
        if !self.pool.slots.is_closed() && spare.len() < self.connector.options.readers {
            spare.push(tx);
        }
    }
}

impl Bystanders for Readers {
    fn are_here(&self) -> bool {
        self.pool.slots.is_mine()
    }

    fn are_awaited(&self) -> bool {
        self.awaited.load(Ordering::Relaxed)
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

/// The limits a call brought with it.
fn limits(ticket: &Ticket, since: Instant) -> Limits {
    let own = ticket.patience.filter(|_| ticket.deadline_is_own);
    Limits {
        deadline: own.and_then(|patience| since.checked_add(patience)),
        cancel: ticket.cancel.clone(),
    }
}

/// The limits of a wait for a turn that began at `since`.
fn wait_limits(ticket: &Ticket, since: Instant) -> Limits {
    Limits {
        deadline: ticket
            .patience
            .and_then(|patience| since.checked_add(patience)),
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
