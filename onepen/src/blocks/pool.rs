//! A pool of connections.
//!
//! Guarantees: never more connections are out than the pool is large; they are
//! given out in the order they were asked for, to threads and tasks alike;
//! whoever gives up leaves nothing behind; what a user left open or unfinished is
//! undone before the next one has the connection, and reported with where it
//! began; a connection that met a damaged file is not given out again.
//!
//! A checkout asks SQLite nothing. Whether a connection is fit is known from what
//! it met when it was last used, and from a look at the file's name, once a
//! second at most, which is how a file that was replaced is noticed.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::future::Future;
use std::ops::{Deref, DerefMut};
use std::panic::Location;
use std::path::PathBuf;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::thread::ThreadId;
use std::time::{Duration, Instant};

use rusqlite::{Connection, ffi};

use super::line::{Left, Line, Waiting};
use super::tracked::{Leftover, Listener, Tracked, report};
use super::{Wait, raw};
use crate::engine::gave_up;
use crate::error::{Error, Holder, Result, Waited, WaitedFor};
use crate::file::{self, FileId};
use crate::sync::{Arc, Mutex, lock};

/// How often the file's name is looked at, for each connection.
const LOOK_AT_FILE: Duration = Duration::from_secs(1);

/// How many reports are kept.
const REPORTS: usize = 64;

type Open = Box<dyn Fn() -> Result<Connection> + Send + Sync>;
type Place = &'static Location<'static>;

/// What a pool is to be like ([`Pool::new`] has the defaults).
#[derive(Clone)]
#[must_use = "options do nothing until `open_with`"]
pub struct PoolOptions {
    size: usize,
    wait: Wait,
    statement_cache: Option<usize>,
    listener: Option<Listener>,
}

impl PoolOptions {
    /// At most `size` connections (at least 1), waits of at most 10 seconds.
    pub fn new(size: usize) -> Self {
        Self {
            size: size.max(1),
            wait: Wait::default(),
            statement_cache: None,
            listener: None,
        }
    }

    /// How long a checkout waits when all connections are out.
    pub fn wait(mut self, wait: Wait) -> Self {
        self.wait = wait;
        self
    }

    /// How many prepared statements each connection keeps. Default: what rusqlite
    /// gives (16).
    pub fn statement_cache(mut self, statements: usize) -> Self {
        self.statement_cache = Some(statements);
        self
    }

    /// Calls `listener` for everything a user left open or unfinished, on the
    /// thread that gave the connection back. [`Pool::leftovers`] keeps the last
    /// ones in any case.
    pub fn on_leftover(mut self, listener: impl Fn(&Leftover) + Send + Sync + 'static) -> Self {
        self.listener = Some(Arc::new(listener));
        self
    }

    /// The pool. `open` runs when a connection is needed and none is idle.
    pub fn open_with(self, open: impl Fn() -> Result<Connection> + Send + Sync + 'static) -> Pool {
        Pool {
            inner: Arc::new(Inner {
                line: Line::new(self.size),
                born: crate::fork::born(),
                open: Box::new(open),
                desk: Mutex::default(),
                options: self,
            }),
        }
    }
}

impl fmt::Debug for PoolOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PoolOptions")
            .field("size", &self.size)
            .field("wait", &self.wait)
            .field("statement_cache", &self.statement_cache)
            .finish_non_exhaustive()
    }
}

/// Connections to be borrowed. Clones share them.
///
/// ```
/// # fn main() -> onepen::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let path = dir.path().join("app.db");
/// use onepen::blocks::Pool;
/// let pool = Pool::new(4, move || Ok(rusqlite::Connection::open(&path)?));
/// let mut connection = pool.get()?;
/// connection.execute_batch("CREATE TABLE account(n INTEGER)")?;
/// connection.immediate(|tx| tx.execute("INSERT INTO account VALUES (?1)", (100,)))?;
/// drop(connection); // back in the pool
/// assert_eq!(pool.state().idle, 1);
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Pool {
    inner: Arc<Inner>,
}

struct Inner {
    line: Arc<Line>,
    born: u32,
    open: Open,
    desk: Mutex<Desk>,
    options: PoolOptions,
}

#[derive(Default)]
struct Desk {
    /// The last one given back is the last.
    idle: Vec<Kept>,
    /// Where those that are out were taken, and since when.
    out: HashMap<u64, (Place, Instant)>,
    checkouts: u64,
    opened: u64,
    discarded: u64,
    left: u64,
    reports: VecDeque<Leftover>,
}

struct Kept {
    connection: Tracked,
    /// Whose statements are in its cache.
    user: ThreadId,
    file: Option<FileSeen>,
}

/// The file when the connection was opened.
struct FileSeen {
    path: PathBuf,
    id: FileId,
    looked: Instant,
}

impl FileSeen {
    fn of(connection: &Connection) -> Option<Self> {
        let path = PathBuf::from(connection.path().filter(|path| !path.is_empty())?);
        Some(Self {
            id: file::identify(&path).ok()??,
            path,
            looked: Instant::now(),
        })
    }

    /// Whether its name leads somewhere else by now, or nowhere.
    fn is_gone(&mut self) -> bool {
        if self.looked.elapsed() < LOOK_AT_FILE {
            return false;
        }
        self.looked = Instant::now();
        !matches!(file::identify(&self.path), Ok(Some(id)) if id == self.id)
    }
}

/// How a pool is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PoolState {
    /// Connections that nobody uses.
    pub idle: usize,
    /// Connections that are out.
    pub in_use: usize,
    /// Callers that wait for one.
    pub waiting: usize,
    /// How many were ever opened.
    pub opened: u64,
    /// How many were closed because they were not fit any more.
    pub discarded: u64,
    /// How often something was left open or unfinished.
    pub leftovers: u64,
}

impl Pool {
    /// A pool of at most `size` connections that `open` makes when they are
    /// needed; waits of at most 10 seconds. [`PoolOptions`] for more.
    pub fn new(size: usize, open: impl Fn() -> Result<Connection> + Send + Sync + 'static) -> Self {
        PoolOptions::new(size).open_with(open)
    }

    /// Takes a connection: the one this thread had before if that is idle, whose
    /// cache has the statements it prepared; else the one used last; else a new
    /// one. Waits in order when all are out.
    ///
    /// # Errors
    /// - [`ErrorKind::DeadlineExceeded`](crate::ErrorKind::DeadlineExceeded),
    ///   [`ErrorKind::Cancelled`](crate::ErrorKind::Cancelled): with where those
    ///   that are out were taken. A thread that holds all of them waits for
    ///   itself, and learns it here.
    /// - Those of opening.
    /// - [`ErrorKind::Forked`](crate::ErrorKind::Forked),
    ///   [`ErrorKind::Closed`](crate::ErrorKind::Closed).
    #[track_caller]
    pub fn get(&self) -> Result<Pooled> {
        self.get_with(&self.inner.options.wait)
    }

    /// As [`get`](Self::get), with a wait of its own.
    ///
    /// # Errors
    /// As there.
    #[track_caller]
    pub fn get_with(&self, wait: &Wait) -> Result<Pooled> {
        let place = Location::caller();
        crate::fork::check(self.inner.born)?;
        let since = Instant::now();
        self.inner
            .line
            .take(&wait.patience(since))
            .map_err(|left| self.in_vain(left, since))?;
        self.hand_out(place)
    }

    /// The same for a task, which is not blocked while it waits. A connection
    /// that has to be opened is opened by the poll that has its turn
    /// ([`fill`](Self::fill) opens all of them before).
    ///
    /// Cancel safe: a future that is dropped leaves the line, and passes on what
    /// it was given a moment before.
    #[track_caller]
    pub fn get_async(&self) -> Get {
        let since = Instant::now();
        let wait = &self.inner.options.wait;
        let waiting = self
            .inner
            .line
            .wait(wait.deadline(since), wait.token().cloned());
        Get {
            pool: self.clone(),
            place: Location::caller(),
            since,
            waiting: Some(waiting),
        }
    }

    /// Opens all connections that are not open yet.
    ///
    /// # Errors
    /// Those of opening.
    pub fn fill(&self) -> Result<()> {
        let mut taken = Vec::new();
        let since = Instant::now();
        while !self.is_full() {
            match self
                .inner
                .line
                .take(&Wait::at_most(Duration::ZERO).patience(since))
            {
                Ok(()) => {}
                Err(Left::GaveUp(_)) => break, // the rest is out: it is open
                Err(Left::Closed) => return Err(super::closed()),
            }
            let permit = Permit(self);
            let kept = self.inner.open()?;
            permit.keep();
            taken.push(self.pooled(kept, Location::caller()));
        }
        Ok(())
    }

    fn is_full(&self) -> bool {
        let desk = lock(&self.inner.desk);
        desk.idle.len() + desk.out.len() >= self.inner.options.size
    }

    /// What was left open or unfinished, the last 64 of them, oldest first.
    pub fn leftovers(&self) -> Vec<Leftover> {
        lock(&self.inner.desk).reports.iter().cloned().collect()
    }

    /// How it is doing.
    pub fn state(&self) -> PoolState {
        let desk = lock(&self.inner.desk);
        PoolState {
            idle: desk.idle.len(),
            in_use: desk.out.len(),
            waiting: self.inner.line.waiting(),
            opened: desk.opened,
            discarded: desk.discarded,
            leftovers: desk.left,
        }
    }

    /// Closes idle connections now and the others when they come back. Whoever
    /// waits, or asks from now on, fails with
    /// [`ErrorKind::Closed`](crate::ErrorKind::Closed).
    pub fn close(&self) {
        self.inner.line.close();
        let idle = std::mem::take(&mut lock(&self.inner.desk).idle);
        self.inner.discard(idle);
    }

    fn hand_out(&self, place: Place) -> Result<Pooled> {
        let permit = Permit(self);
        let kept = loop {
            let Some(mut kept) = self.inner.take_idle() else {
                break self.inner.open()?;
            };
            if !kept.file.as_mut().is_some_and(FileSeen::is_gone) {
                break kept;
            }
            lock(&self.inner.desk).discarded += 1;
        };
        permit.keep();
        Ok(self.pooled(kept, place))
    }

    fn pooled(&self, kept: Kept, place: Place) -> Pooled {
        let mut desk = lock(&self.inner.desk);
        desk.checkouts += 1;
        let checkout = desk.checkouts;
        desk.out.insert(checkout, (place, Instant::now()));
        drop(desk);
        kept.connection.taken_at(place);
        Pooled {
            pool: self.clone(),
            kept: Some(kept),
            checkout,
        }
    }

    fn in_vain(&self, left: Left, since: Instant) -> Error {
        let Left::GaveUp(why) = left else {
            return super::closed();
        };
        let mut waited = Waited::new(WaitedFor::Connection, since.elapsed());
        waited.holder = self.inner.holders();
        gave_up(why, waited)
    }
}

/// A place in the pool that is not used yet: given back when opening fails.
struct Permit<'a>(&'a Pool);

impl Permit<'_> {
    fn keep(self) {
        std::mem::forget(self);
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        self.0.inner.line.give_back();
    }
}

impl Inner {
    fn open(&self) -> Result<Kept> {
        let connection = (self.open)()?;
        if let Some(statements) = self.options.statement_cache {
            connection.set_prepared_statement_cache_capacity(statements);
        }
        lock(&self.desk).opened += 1;
        Ok(Kept {
            file: FileSeen::of(&connection),
            connection: Tracked::new(connection),
            user: std::thread::current().id(),
        })
    }

    fn take_idle(&self) -> Option<Kept> {
        let me = std::thread::current().id();
        let mut desk = lock(&self.desk);
        let mine = desk.idle.iter().rposition(|kept| kept.user == me);
        match mine {
            Some(mine) => Some(desk.idle.remove(mine)),
            None => desk.idle.pop(),
        }
    }

    /// Who has the connections.
    fn holders(&self) -> Option<Holder> {
        let desk = lock(&self.desk);
        let mut places: HashMap<Place, (u32, Duration)> = HashMap::new();
        for (place, since) in desk.out.values() {
            let (count, longest) = places.entry(place).or_default();
            *count += 1;
            *longest = (*longest).max(since.elapsed());
        }
        drop(desk);
        let mut places: Vec<_> = places.into_iter().collect();
        places.sort_by_key(|(_, (_, longest))| std::cmp::Reverse(*longest));
        let words: Vec<_> = places
            .iter()
            .map(|(place, (count, longest))| {
                format!("{count} taken at {place} since {longest:.1?}")
            })
            .collect();
        (!words.is_empty()).then(|| Holder::here(words.join(", "), None))
    }

    fn give_back(&self, mut kept: Kept, checkout: u64) {
        // Before `tidy`, whose own statements would hide it.
        let damaged = is_damage(raw::last_code(&kept.connection));
        let left = kept.connection.tidy();
        raw::forget_rowid(&kept.connection);
        kept.user = std::thread::current().id();
        let fit = !damaged && kept.connection.is_autocommit() && !self.line.is_closed();
        for leftover in &left {
            report(self.options.listener.as_ref(), leftover);
        }
        let mut desk = lock(&self.desk);
        desk.out.remove(&checkout);
        desk.left += left.len() as u64;
        desk.reports.extend(left);
        while desk.reports.len() > REPORTS {
            desk.reports.pop_front();
        }
        let unfit = if fit {
            desk.idle.push(kept);
            None
        } else {
            desk.discarded += u64::from(!self.line.is_closed());
            Some(kept)
        };
        drop(desk);
        drop(unfit); // closing takes a while
        self.line.give_back();
        // Somebody may have closed the pool since we looked.
        if self.line.is_closed() {
            let idle = std::mem::take(&mut lock(&self.desk).idle);
            self.discard(idle);
        }
    }

    fn discard(&self, connections: Vec<Kept>) {
        if crate::fork::check(self.born).is_ok() {
            drop(connections);
        } else {
            // The parent's: closing them here would drop its locks, or worse.
            std::mem::forget(connections);
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let idle = std::mem::take(&mut lock(&self.desk).idle);
        self.discard(idle);
    }
}

/// What a connection meets once, it will meet again.
fn is_damage(code: i32) -> bool {
    matches!(
        code & 0xff,
        ffi::SQLITE_IOERR | ffi::SQLITE_CORRUPT | ffi::SQLITE_NOTADB | ffi::SQLITE_CANTOPEN
    ) || code == ffi::SQLITE_READONLY_DBMOVED
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("options", &self.inner.options)
            .field("state", &self.state())
            .finish()
    }
}

/// A connection out of a [`Pool`]; back in it when dropped. A [`Tracked`] in
/// every other respect.
///
/// It may be sent to another thread, not shared with one:
///
/// ```compile_fail,E0277
/// let pool = onepen::blocks::Pool::new(1, || Ok(rusqlite::Connection::open_in_memory()?));
/// let connection = pool.get().unwrap();
/// std::thread::scope(|scope| { scope.spawn(|| connection.is_autocommit()); });
/// ```
pub struct Pooled {
    pool: Pool,
    kept: Option<Kept>,
    checkout: u64,
}

impl Deref for Pooled {
    type Target = Tracked;

    fn deref(&self) -> &Tracked {
        match &self.kept {
            Some(kept) => &kept.connection,
            None => unreachable!("it is taken out when this is dropped"),
        }
    }
}

impl DerefMut for Pooled {
    fn deref_mut(&mut self) -> &mut Tracked {
        match &mut self.kept {
            Some(kept) => &mut kept.connection,
            None => unreachable!("it is taken out when this is dropped"),
        }
    }
}

impl Drop for Pooled {
    fn drop(&mut self) {
        let Some(kept) = self.kept.take() else {
            return;
        };
        if crate::fork::check(self.pool.inner.born).is_err() {
            std::mem::forget(kept); // the parent's
            return;
        }
        self.pool.inner.give_back(kept, self.checkout);
    }
}

impl fmt::Debug for Pooled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pooled")
            .field("pool", &self.pool)
            .finish_non_exhaustive()
    }
}

/// A task's wait for a connection ([`Pool::get_async`]).
#[must_use = "futures do nothing unless polled"]
pub struct Get {
    pool: Pool,
    place: Place,
    since: Instant,
    waiting: Option<Waiting>,
}

impl Future for Get {
    type Output = Result<Pooled>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        crate::fork::check(this.pool.inner.born)?;
        let Some(waiting) = &mut this.waiting else {
            return Poll::Ready(Err(super::polled_again()));
        };
        let taken = ready!(Pin::new(waiting).poll(cx));
        this.waiting = None;
        Poll::Ready(match taken {
            Ok(()) => this.pool.hand_out(this.place),
            Err(left) => Err(this.pool.in_vain(left, this.since)),
        })
    }
}

impl fmt::Debug for Get {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Get")
            .field("pool", &self.pool)
            .finish_non_exhaustive()
    }
}
