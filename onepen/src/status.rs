//! What SQLite counts about itself, as typed values with their high-water marks.
//!
//! For the process (`sqlite3_status64`), for one connection (`sqlite3_db_status`),
//! and the databases a connection has open (`PRAGMA database_list`). Asking
//! changes nothing, unless the marks are asked to start anew.
//!
//! Sources: <https://www.sqlite.org/c3ref/c_status_malloc_count.html>,
//! <https://www.sqlite.org/c3ref/c_dbstatus_options.html>.

use std::ffi::c_int;
use std::path::PathBuf;

use rusqlite::{Connection, ffi};

use crate::error::{Error, Result};

/// A number that rises and falls, and the highest it has been.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Level {
    /// Now.
    pub now: u64,
    /// At its highest, since the process started or [`Marks::StartAnew`].
    pub highest: u64,
}

/// What to do with the high-water marks, and with the counts of a connection,
/// after reading them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Marks {
    /// Leave them.
    Keep,
    /// Set marks to the present value and counts to zero. It is SQLite's one set
    /// of marks: everybody who reads them sees it.
    StartAnew,
}

/// What SQLite uses in the whole process, all its connections together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Status {
    /// Bytes that SQLite has allocated.
    pub memory: Level,
    /// Allocations that are live.
    pub allocations: Level,
    /// Bytes of the largest allocation ever asked for.
    pub largest_allocation: u64,
    /// Pages in use of a page cache given by `SQLITE_CONFIG_PAGECACHE`; 0 without.
    pub page_cache_pages: Level,
    /// Bytes of page cache that came from the heap, because there is no other or it
    /// was full.
    pub page_cache_overflow: Level,
    /// Bytes of the largest page cache allocation asked for.
    pub largest_page: u64,
    /// The parser's stack at its deepest; 0 unless SQLite was compiled to count.
    pub parser_depth: u64,
}

/// What one connection uses and did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConnectionStatus {
    /// Bytes of page cache, of all its databases.
    pub cache: u64,
    /// The same, shared caches divided among those who share.
    pub cache_shared: u64,
    /// Bytes for the schemas.
    pub schema: u64,
    /// Bytes for prepared statements.
    pub statements: u64,
    /// Slots of the lookaside allocator in use.
    pub lookaside: Level,
    /// Allocations that lookaside served.
    pub lookaside_hits: u64,
    /// Allocations too large for it.
    pub lookaside_too_large: u64,
    /// Allocations that found it full.
    pub lookaside_full: u64,
    /// Pages found in the cache.
    pub cache_hits: u64,
    /// Pages that had to be read.
    pub cache_misses: u64,
    /// Pages written.
    pub cache_writes: u64,
    /// Dirty pages that were written in the middle of a transaction, because the
    /// cache was full.
    pub cache_spills: u64,
    /// Whether deferred foreign keys are violated now: COMMIT would fail.
    pub owes_foreign_keys: bool,
}

/// A database that a connection has open.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AttachedDatabase {
    /// `main`, `temp`, or the name it was attached under.
    pub name: String,
    /// Its file; `None` in memory, and for `temp`.
    pub file: Option<PathBuf>,
}

/// What SQLite uses in this process.
///
/// ```
/// # fn main() -> onepen::Result<()> {
/// use onepen::status::{Marks, status};
/// let db = onepen::Database::open_in_memory()?;
/// db.execute("CREATE TABLE a(n)", ())?;
/// let used = status(Marks::Keep)?;
/// assert!(used.memory.now > 0 && used.memory.highest >= used.memory.now);
/// # Ok(()) }
/// ```
///
/// # Errors
/// [`ErrorKind::Refused`](crate::ErrorKind::Refused) in single-thread mode, on a
/// thread that does not own SQLite.
pub fn status(marks: Marks) -> Result<Status> {
    crate::threading::may_call_sqlite()?;
    let level = |what| process_level(what, marks);
    Ok(Status {
        memory: level(ffi::SQLITE_STATUS_MEMORY_USED)?,
        allocations: level(ffi::SQLITE_STATUS_MALLOC_COUNT)?,
        largest_allocation: level(ffi::SQLITE_STATUS_MALLOC_SIZE)?.highest,
        page_cache_pages: level(ffi::SQLITE_STATUS_PAGECACHE_USED)?,
        page_cache_overflow: level(ffi::SQLITE_STATUS_PAGECACHE_OVERFLOW)?,
        largest_page: level(ffi::SQLITE_STATUS_PAGECACHE_SIZE)?.highest,
        parser_depth: level(ffi::SQLITE_STATUS_PARSER_STACK)?.highest,
    })
}

/// What this connection uses and did. Numbers beyond 2^31 - 1 are given as that.
///
/// ```
/// # fn main() -> onepen::Result<()> {
/// use onepen::status::{Marks, connection_status};
/// let connection = onepen::threading::MultiThread::open_in_memory()?;
/// connection.execute_batch("CREATE TABLE a(n); INSERT INTO a VALUES (1)")?;
/// assert!(connection_status(&connection, Marks::Keep)?.cache > 0);
/// # Ok(()) }
/// ```
///
/// # Errors
/// [`ErrorKind::Sqlite`](crate::ErrorKind::Sqlite) when SQLite does not know one
/// of the counts.
pub fn connection_status(connection: &Connection, marks: Marks) -> Result<ConnectionStatus> {
    let level = |what| connection_level(connection, what, marks);
    // Counts stand where others have their mark.
    let now = |what| level(what).map(|level| level.now);
    let count = |what| level(what).map(|level| level.highest);
    Ok(ConnectionStatus {
        cache: now(ffi::SQLITE_DBSTATUS_CACHE_USED)?,
        cache_shared: now(ffi::SQLITE_DBSTATUS_CACHE_USED_SHARED)?,
        schema: now(ffi::SQLITE_DBSTATUS_SCHEMA_USED)?,
        statements: now(ffi::SQLITE_DBSTATUS_STMT_USED)?,
        lookaside: level(ffi::SQLITE_DBSTATUS_LOOKASIDE_USED)?,
        lookaside_hits: count(ffi::SQLITE_DBSTATUS_LOOKASIDE_HIT)?,
        lookaside_too_large: count(ffi::SQLITE_DBSTATUS_LOOKASIDE_MISS_SIZE)?,
        lookaside_full: count(ffi::SQLITE_DBSTATUS_LOOKASIDE_MISS_FULL)?,
        cache_hits: now(ffi::SQLITE_DBSTATUS_CACHE_HIT)?,
        cache_misses: now(ffi::SQLITE_DBSTATUS_CACHE_MISS)?,
        cache_writes: now(ffi::SQLITE_DBSTATUS_CACHE_WRITE)?,
        cache_spills: now(ffi::SQLITE_DBSTATUS_CACHE_SPILL)?,
        owes_foreign_keys: now(ffi::SQLITE_DBSTATUS_DEFERRED_FKS)? != 0,
    })
}

/// The databases that this connection has open, `main` first.
///
/// ```
/// # fn main() -> onepen::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// let connection = onepen::threading::MultiThread::open(dir.path().join("app.db"))?;
/// connection.execute_batch("ATTACH ':memory:' AS scratch")?;
/// let open = onepen::status::database_list(&connection)?;
/// assert_eq!((open[0].name.as_str(), open[1].name.as_str()), ("main", "scratch"));
/// assert!(open[0].file.is_some() && open[1].file.is_none());
/// # Ok(()) }
/// ```
///
/// # Errors
/// [`ErrorKind::Sqlite`](crate::ErrorKind::Sqlite) when the statement fails.
pub fn database_list(connection: &Connection) -> Result<Vec<AttachedDatabase>> {
    let mut statement = connection.prepare("PRAGMA database_list")?;
    let rows = statement.query_map((), |row| {
        let file: Option<String> = row.get(2)?;
        Ok(AttachedDatabase {
            name: row.get(1)?,
            file: file.filter(|file| !file.is_empty()).map(PathBuf::from),
        })
    })?;
    Ok(rows.collect::<Result<_, rusqlite::Error>>()?)
}

fn process_level(what: c_int, marks: Marks) -> Result<Level> {
    let (mut now, mut highest) = (0, 0);
    let reset = c_int::from(marks == Marks::StartAnew);
    // SAFETY: both places are ours; SQLite takes its own locks, and in
    // single-thread mode the caller is its owner.
    let code = unsafe { ffi::sqlite3_status64(what, &raw mut now, &raw mut highest, reset) };
    known(code)?;
    Ok(Level {
        now: u64::try_from(now).unwrap_or(0),
        highest: u64::try_from(highest).unwrap_or(0),
    })
}

fn connection_level(connection: &Connection, what: c_int, marks: Marks) -> Result<Level> {
    let (mut now, mut highest) = (0, 0);
    let reset = c_int::from(marks == Marks::StartAnew);
    // SAFETY: the handle is open and its connection is in this thread's hands;
    // both places are ours.
    let code = unsafe {
        let handle = connection.handle();
        ffi::sqlite3_db_status(handle, what, &raw mut now, &raw mut highest, reset)
    };
    known(code)?;
    Ok(Level {
        now: u64::try_from(now).unwrap_or(0),
        highest: u64::try_from(highest).unwrap_or(0),
    })
}

fn known(code: c_int) -> Result<()> {
    match code {
        ffi::SQLITE_OK => Ok(()),
        code => Err(Error::from(rusqlite::Error::SqliteFailure(
            ffi::Error::new(code),
            Some("this SQLite does not count that".to_owned()),
        ))),
    }
}
