//! What a user may tune, and what is chosen when nobody does.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::error::Result;
use crate::migrate::Migrations;
use crate::pen::{Limits, WhenFull};

/// What an acknowledged write survives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Durability {
    /// `synchronous=FULL`: an acknowledged write survives a loss of power. One
    /// flush for each *group* of writes.
    #[default]
    Full,
    /// `synchronous=NORMAL`: an acknowledged write survives the death of the
    /// program, but the last ones before a loss of power may be gone. The
    /// database stays consistent (<https://www.sqlite.org/wal.html>). Over a
    /// rollback journal SQLite itself gives this less meaning; onepen uses
    /// [`Full`](Self::Full) there.
    Normal,
    /// `synchronous=EXTRA`: like `Full`; over a rollback journal that journal is
    /// deleted after each COMMIT instead of truncated, and the directory flushed.
    Extra,
}

/// Which journal SQLite keeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Journal {
    /// The write-ahead log: readers and the writer do not wait for each other.
    #[default]
    Wal,
    /// The rollback journal (TRUNCATE, or DELETE with [`Durability::Extra`]), for
    /// where a write-ahead log is impossible. The calls and their guarantees are
    /// the same, save *snapshot reads* in one point: nobody can read beside a
    /// COMMIT, so readers and writers wait for each other.
    ///
    /// - A write waits until nobody of this process reads, from before its
    ///   transaction begins, and readers wait until it has ended. Neither meets
    ///   "database is locked" because of the other; writes still share COMMITs.
    /// - While a [`Snapshot`](crate::Snapshot) or a [`RowStream`](crate::RowStream)
    ///   lives no write starts: it fails at its deadline
    ///   ([`WaitedFor::Readers`](crate::WaitedFor::Readers)).
    /// - A write inside a read closure, and a snapshot, a stream or an
    ///   asynchronous read inside a write closure, would wait for themselves:
    ///   [`ErrorKind::Reentrant`](crate::ErrorKind::Reentrant). A plain read inside
    ///   a write closure works until the closure has changed more than the
    ///   [page cache](Options::page_cache) holds, and is that error from then on.
    /// - Other processes that read keep a COMMIT waiting, until the deadline.
    ///
    /// Switching a file between the two needs to be alone with it. A truncated
    /// journal stays beside the database, empty.
    Rollback,
}

pub(crate) type Init = Arc<dyn Fn(&rusqlite::Connection) -> rusqlite::Result<()> + Send + Sync>;

/// How to open a [`Database`](crate::Database).
///
/// ```
/// # fn main() -> onepen::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// use std::time::Duration;
/// let db = onepen::Options::new()
///     .durability(onepen::Durability::Normal)
///     .readers(8)
///     .wait(Duration::from_secs(2))
///     .label("orders")
///     .open(dir.path().join("app.db"))?;
/// # drop(db); Ok(()) }
/// ```
#[derive(Clone)]
#[must_use = "options do nothing until `open`"]
pub struct Options {
    pub(crate) durability: Durability,
    pub(crate) journal: Journal,
    pub(crate) readers: usize,
    pub(crate) statement_cache: usize,
    pub(crate) page_cache: usize,
    pub(crate) mmap: u64,
    pub(crate) wait: Duration,
    pub(crate) limits: Limits,
    pub(crate) foreign_keys: bool,
    pub(crate) label: Option<Arc<str>>,
    pub(crate) init: Option<Init>,
    pub(crate) read_only: bool,
    pub(crate) any_file_system: bool,
    pub(crate) any_sqlite: bool,
    pub(crate) wal_pages: u32,
    pub(crate) reader_hold: Duration,
    pub(crate) key_lifetime: Duration,
    pub(crate) log_waits: Option<Duration>,
    pub(crate) log_writes: Option<Duration>,
    pub(crate) write_limit: Option<Duration>,
    pub(crate) reader_lease: Option<Duration>,
    pub(crate) lease_grace: Option<Duration>,
    pub(crate) migrations: Option<Migrations>,
    pub(crate) gate: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            durability: Durability::default(),
            journal: Journal::default(),
            readers: 8,
            statement_cache: 64,
            page_cache: 8 << 20,
            mmap: 0,
            wait: Duration::from_secs(10),
            limits: Limits::default(),
            foreign_keys: true,
            label: None,
            init: None,
            read_only: false,
            any_file_system: false,
            any_sqlite: false,
            wal_pages: 4096,
            reader_hold: Duration::from_millis(20),
            key_lifetime: Duration::from_secs(24 * 60 * 60),
            log_waits: Some(Duration::from_secs(1)),
            log_writes: Some(Duration::from_secs(1)),
            write_limit: None,
            reader_lease: Some(Duration::from_secs(10)),
            lease_grace: None,
            migrations: None,
            gate: true,
        }
    }
}

/// There is a word in memory for each.
const MOST_READERS: usize = 4096;

impl Options {
    /// The defaults: write-ahead log, `synchronous=FULL`, foreign keys on, 8
    /// readers, waits of at most 10 seconds.
    pub fn new() -> Self {
        Self::default()
    }

    /// What an acknowledged write survives. Default: [`Durability::Full`].
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// Which journal to keep. Default: [`Journal::Wal`].
    pub fn journal(mut self, journal: Journal) -> Self {
        self.journal = journal;
        self
    }

    /// The most reader connections, and so the most reads at the same moment (1 to
    /// 4,096; what is beyond counts as that). They are opened when first needed.
    /// Default: 8.
    pub fn readers(mut self, readers: usize) -> Self {
        self.readers = readers.clamp(1, MOST_READERS);
        self
    }

    /// How many prepared statements each connection keeps. Default: 64.
    pub fn statement_cache(mut self, statements: usize) -> Self {
        self.statement_cache = statements;
        self
    }

    /// Bytes of page cache for each connection. Default: 8 MiB.
    pub fn page_cache(mut self, bytes: usize) -> Self {
        self.page_cache = bytes;
        self
    }

    /// Bytes of the file each connection may map into memory. Default: 0,
    /// because a file truncated by somebody else under a mapping is a SIGBUS.
    pub fn mmap(mut self, bytes: u64) -> Self {
        self.mmap = bytes;
        self
    }

    /// The longest any call waits for its turn, unless it brings a
    /// [deadline of its own](crate::Call::deadline). Nothing that has started is
    /// ended by it, a long query neither. Default: 10 seconds.
    pub fn wait(mut self, wait: Duration) -> Self {
        self.wait = wait;
        self
    }

    /// The bounds of the write queue: how many writes and how many bytes of
    /// them may be queued, and what happens to a caller beyond that. Default:
    /// 131,072 writes, 64 MiB, [`WhenFull::Wait`].
    pub fn queue(mut self, writes: usize, bytes: usize, when_full: WhenFull) -> Self {
        self.limits.queue_members = writes.max(1);
        self.limits.queue_bytes = bytes;
        self.limits.when_full = when_full;
        self
    }

    /// The bounds of a group: how many writes, how many bytes, and how long the
    /// write lock is held before COMMIT. Default: 4,096 writes, 16 MiB, 5 ms.
    pub fn group(mut self, writes: usize, bytes: usize, held: Duration) -> Self {
        self.limits.group_members = writes.max(1);
        self.limits.group_bytes = bytes;
        self.limits.group_time = held;
        self
    }

    /// Whether foreign keys are enforced. Default: yes.
    pub fn foreign_keys(mut self, enforced: bool) -> Self {
        self.foreign_keys = enforced;
        self
    }

    /// A name for this database in errors, spans and thread names. Default: the
    /// file's name.
    pub fn label(mut self, label: impl Into<Arc<str>>) -> Self {
        self.label = Some(label.into());
        self
    }

    /// Runs on every connection right after it was opened: the place for
    /// functions, collations and pragmas of your own. May run many times, on
    /// any thread. An authorizer, a commit hook or a log hook set here does not
    /// stay: onepen needs those places for its own guards; nor, while somebody
    /// listens to [changes](crate::Database::changes), a statement trace.
    ///
    /// Two closures are never taken for the same, so a second opening of the file
    /// in this process needs a clone of these options, or of the handle.
    pub fn on_connect<F>(mut self, init: F) -> Self
    where
        F: Fn(&rusqlite::Connection) -> rusqlite::Result<()> + Send + Sync + 'static,
    {
        self.init = Some(Arc::new(init));
        self
    }

    /// Opens for reading only: no pen, every write is refused. The last to close
    /// a file in write-ahead mode leaves the `-wal` and `-shm` files there if it
    /// was open for reading only. Default: no.
    pub fn read_only(mut self, read_only: bool) -> Self {
        self.read_only = read_only;
        self
    }

    /// Accepts network and virtual-machine file systems, on which SQLite's locks
    /// or shared memory are known not to work
    /// (<https://www.sqlite.org/faq.html#q5>). Default: refuse them by name.
    pub fn any_file_system(mut self, accepted: bool) -> Self {
        self.any_file_system = accepted;
        self
    }

    /// Accepts a SQLite older than 3.51.3, which can corrupt a database in
    /// write-ahead mode when two connections write and checkpoint at the same
    /// moment (<https://www.sqlite.org/wal.html#walresetbug>); and a second SQLite
    /// library in this process that has the file open, or may have
    /// ([`refusals`](crate::refusals)). Default: refuse both.
    pub fn any_sqlite(mut self, accepted: bool) -> Self {
        self.any_sqlite = accepted;
        self
    }

    /// How many pages the write-ahead log may hold before it is reset, and how
    /// long new readers are held back for that at first; when running reads
    /// outlast this, the next try holds twice as long, up to 32 times. Writers
    /// are not stopped while the log is being copied back, so what they write
    /// meanwhile comes on top; otherwise it grows beyond the limit only while
    /// readers keep it from being reset.
    /// Default: 4,096 pages, 20 ms.
    pub fn wal_limit(mut self, pages: u32, hold_readers: Duration) -> Self {
        self.wal_pages = pages.max(16);
        self.reader_hold = hold_readers;
        self
    }

    /// How long an idempotency key is remembered
    /// ([`Call::key`](crate::Call::key)). Default: 24 hours.
    pub fn key_lifetime(mut self, lifetime: Duration) -> Self {
        self.key_lifetime = lifetime;
        self
    }

    /// After how long a wait is said in a `tracing` event (level WARN, target
    /// `onepen`): for somebody outside the pen while it goes on, with the name
    /// of who is in the way; for the pen when it is over. `None`: never. Needs
    /// the feature `tracing`. Default: 1 second.
    pub fn log_waits(mut self, after: impl Into<Option<Duration>>) -> Self {
        self.log_waits = after.into();
        self
    }

    /// Whether to stand in line with the other processes that write to the file
    /// through onepen: in a queue that passes turns in the order they were asked
    /// for (Linux; see [`onepen_lock::gate`]). It needs a small file beside the
    /// database, `app.db-gate`, which stays there. Where that cannot be made or
    /// used, and for a database [in memory](Self::open_in_memory), writes go on
    /// without it, and [`Stats::alone_because`](crate::Stats::alone_because) says
    /// why. Default: yes.
    pub fn gate(mut self, gate: bool) -> Self {
        self.gate = gate;
        self
    }

    /// After how long a write closure that holds the pen is named in a `tracing`
    /// event (level WARN, target `onepen`), while it still does: its label, its
    /// thread, where it was submitted, since when, and the statement it ran last,
    /// with `?` for every value. `None`: never. Needs the feature `tracing`.
    /// Default: 1 second.
    pub fn log_writes(mut self, after: impl Into<Option<Duration>>) -> Self {
        self.log_writes = after.into();
        self
    }

    /// The longest a write closure may hold the pen, unless it brings
    /// [a limit of its own](crate::Call::limit). Default: none.
    pub fn write_limit(mut self, limit: impl Into<Option<Duration>>) -> Self {
        self.write_limit = limit.into();
        self
    }

    /// How long a reader (a closure, a [`Snapshot`](crate::Snapshot), a
    /// [`RowStream`](crate::RowStream), for tasks as well) may keep its state while
    /// others commit, and so keep the write-ahead log from being reset. One that
    /// keeps it for longer is named in a `tracing` event (level WARN, target
    /// `onepen`; feature `tracing`) while it still does, and in
    /// [`Stats::overdue`](crate::Stats::overdue): label, thread, where it was begun,
    /// since when, and at which frame of the log. Looked at four times within the
    /// lease. `None`: never. Default: 10 seconds.
    ///
    /// A [backup](crate::backup) has limits of its own instead. Over a rollback
    /// journal, where a reader keeps every writer from committing, it is the same.
    pub fn reader_lease(mut self, lease: impl Into<Option<Duration>>) -> Self {
        self.reader_lease = lease.into();
        self
    }

    /// How long after its [lease](Self::reader_lease) a reader that still keeps the
    /// log from being reset is ended: what it does next fails with
    /// [`ErrorKind::LeaseEnded`](crate::ErrorKind::LeaseEnded). `None`: never; it is
    /// only named. Default: `None`.
    ///
    /// A query that runs is interrupted, also in the middle of a statement. Between
    /// two queries the state is let go at once, without waiting for the reader's next
    /// step: also of a snapshot that somebody forgot, or a stream whose consumer is
    /// slow. The exception is a reader with a prepared [`Statement`](crate::Statement) or
    /// [the connection itself](crate::ReadTx::connection) in its hands: its state is
    /// let go when it next uses or drops that.
    pub fn lease_grace(mut self, grace: impl Into<Option<Duration>>) -> Self {
        self.lease_grace = grace.into();
        self
    }

    /// Brings the schema up to date at open ([`Migrations`]).
    pub fn migrations(mut self, migrations: Migrations) -> Self {
        self.migrations = Some(migrations);
        self
    }

    /// Opens the database at `path`, creating it if it is not there. `path` is
    /// a path, never a URI.
    ///
    /// A file that is open in this process already shares its pen, its readers
    /// and its settings with the new handle.
    ///
    /// # Errors
    /// - [`ErrorKind::SettingsDiffer`](crate::ErrorKind::SettingsDiffer): the
    ///   file is open in this process with other options; they are named.
    /// - [`ErrorKind::Refused`](crate::ErrorKind::Refused): a network file
    ///   system, a hard-linked file, a SQLite with the WAL-reset bug.
    /// - [`ErrorKind::DeadlineExceeded`](crate::ErrorKind::DeadlineExceeded):
    ///   other processes kept the database locked for longer than
    ///   [`wait`](Self::wait).
    /// - [`ErrorKind::NewerDatabase`](crate::ErrorKind::NewerDatabase): see
    ///   [`Migrations`].
    pub fn open(self, path: impl AsRef<Path>) -> Result<crate::Database> {
        crate::Database::open_with(path.as_ref(), self)
    }

    /// Opens a private database that is gone with its last handle: the same
    /// code over the same engine, for tests. It lives in memory where the
    /// system has a file system for that (`/dev/shm` on Linux), else in the
    /// directory for temporary files, and is never flushed.
    ///
    /// # Errors
    /// As [`open`](Self::open), and when no temporary directory can be made.
    pub fn open_in_memory(self) -> Result<crate::Database> {
        crate::Database::open_in_memory_with(self)
    }

    /// Names the settings in which two opens of the same file disagree.
    pub(crate) fn differences(&self, other: &Self) -> Vec<&'static str> {
        let same_init = match (&self.init, &other.init) {
            (None, None) => true,
            (Some(one), Some(two)) => Arc::ptr_eq(one, two),
            _ => false,
        };
        [
            ("durability", self.durability == other.durability),
            ("journal", self.journal == other.journal),
            ("readers", self.readers == other.readers),
            (
                "statement_cache",
                self.statement_cache == other.statement_cache,
            ),
            ("page_cache", self.page_cache == other.page_cache),
            ("mmap", self.mmap == other.mmap),
            ("wait", self.wait == other.wait),
            ("queue or group", self.limits == other.limits),
            ("foreign_keys", self.foreign_keys == other.foreign_keys),
            ("label", self.label == other.label),
            ("on_connect", same_init),
            ("read_only", self.read_only == other.read_only),
            (
                "wal_limit",
                (self.wal_pages, self.reader_hold) == (other.wal_pages, other.reader_hold),
            ),
            ("key_lifetime", self.key_lifetime == other.key_lifetime),
            ("log_waits", self.log_waits == other.log_waits),
            (
                "reader_lease or lease_grace",
                (self.reader_lease, self.lease_grace) == (other.reader_lease, other.lease_grace),
            ),
            ("gate", self.gate == other.gate),
            ("log_writes", self.log_writes == other.log_writes),
            ("write_limit", self.write_limit == other.write_limit),
        ]
        .into_iter()
        .filter_map(|(name, same)| (!same).then_some(name))
        .collect()
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("durability", &self.durability)
            .field("journal", &self.journal)
            .field("readers", &self.readers)
            .field("wait", &self.wait)
            .field("limits", &self.limits)
            .field("foreign_keys", &self.foreign_keys)
            .field("label", &self.label)
            .field("read_only", &self.read_only)
            .finish_non_exhaustive()
    }
}
