//! Why a database must not be opened here, answered before it is.
//!
//! Each of these corrupts a file or answers `SQLITE_LOCKED` in ways no caller
//! deserves, silently, and later. They are refused at opening with
//! [`ErrorKind::Refused`]; here they can be asked for,
//! all together, by whoever opens connections without this crate.
//!
//! | refused | why | who accepts it nevertheless |
//! |---|---|---|
//! | a file with several names | each name has a log of its own | nobody |
//! | what is no regular file | it cannot be locked or resized | nobody |
//! | a file system of the network or a virtual machine | locks or shared memory do not work between all who open it | [`Options::any_file_system`] |
//! | SQLite 3.7.0 to 3.51.2 | a checkpoint may lose a commit of another connection | [`Options::any_sqlite`] |
//! | a second SQLite library in this process that has the file open | the kernel gives locks to processes: each library frees the other's | [`Options::any_sqlite`] |
//! | a SQLite without mutexes | it belongs to one thread | nobody |
//! | a connection with a shared cache | it answers `SQLITE_LOCKED`, which no timeout ends | nobody: ours are opened private |
//!
//! Asking opens nothing, and creates nothing: opening and closing a database file
//! behind SQLite's back would itself drop its locks.

use std::path::Path;

use rusqlite::Connection;

use crate::error::{Error, ErrorKind, Result};
use crate::options::Options;

#[cfg(target_os = "linux")]
mod hidden;
mod library;

pub use library::{Library, second_libraries};

/// What is wrong with opening a database here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// The file has several names (hard links).
    HardLinks,
    /// A directory, a device, a pipe.
    NotAFile,
    /// SQLite's locks or its shared memory do not work on this file system.
    FileSystem,
    /// The linked SQLite has the WAL-reset bug.
    WalResetBug,
    /// Another SQLite library of this process has the file open, or may have.
    SecondLibrary,
    /// SQLite was compiled or started without mutexes.
    SingleThread,
    /// The connection shares its cache with others.
    SharedCache,
}

/// One reason not to open a database, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Refusal {
    /// Which.
    pub reason: Reason,
    /// In words, with the cure.
    pub message: String,
}

impl Refusal {
    fn of(reason: Reason, found: Result<()>) -> Result<Option<Self>> {
        match found {
            Ok(()) => Ok(None),
            Err(error) if error.kind() == ErrorKind::Refused => Ok(Some(Self {
                reason,
                message: error.to_string(),
            })),
            Err(error) => Err(error),
        }
    }
}

/// Every reason why [`Options::open`] would refuse this path, or why it should not
/// have been opened: the answer may change while a database is open, when another
/// library opens it too.
///
/// ```
/// # #[cfg(not(unix))] fn main() {} #[cfg(unix)]
/// # fn main() -> onepen::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// use onepen::refusals::{Reason, check};
/// let path = dir.path().join("app.db");
/// let options = onepen::Options::new();
/// assert!(check(&path, &options)?.is_empty());
///
/// std::fs::write(&path, "").unwrap();
/// std::fs::hard_link(&path, dir.path().join("second-name.db")).unwrap();
/// assert_eq!(check(&path, &options)?[0].reason, Reason::HardLinks);
/// # Ok(()) }
/// ```
///
/// # Errors
/// [`ErrorKind::Io`] when the path cannot be looked at, or leads nowhere.
pub fn check(path: impl AsRef<Path>, options: &Options) -> Result<Vec<Refusal>> {
    let path = path.as_ref();
    let mut found = Vec::new();
    found.extend(Refusal::of(
        Reason::SingleThread,
        crate::threading::refuse_single_thread(),
    )?);
    let place = crate::file::Place::of(path, options.read_only)?;
    found.extend(Refusal::of(Reason::NotAFile, place.regular())?);
    found.extend(Refusal::of(Reason::HardLinks, place.one_name())?);
    if !options.any_file_system {
        found.extend(Refusal::of(Reason::FileSystem, place.fit_file_system())?);
    }
    if !options.any_sqlite {
        let version = rusqlite::version_number();
        let bug = crate::connection::refuse_wal_reset_bug(version);
        found.extend(Refusal::of(Reason::WalResetBug, bug)?);
        let second = library::refuse_beside_others(path);
        found.extend(Refusal::of(Reason::SecondLibrary, second)?);
    }
    Ok(found)
}

/// Refuses a connection that shares its cache with others of the process.
///
/// SQLite tells when another connection shares it now, or when its URI asked for
/// it for a file; one that may share and is alone looks like any other.
///
/// ```
/// # fn main() -> onepen::Result<()> {
/// use onepen::rusqlite::Connection;
/// let uri = "file:both?mode=memory&cache=shared";
/// let (one, _two) = (Connection::open(uri)?, Connection::open(uri)?);
/// one.execute_batch("CREATE TABLE a(n)")?;
/// assert!(onepen::refusals::shared_cache(&one).is_err());
/// assert!(onepen::refusals::shared_cache(&Connection::open_in_memory()?).is_ok());
/// # Ok(()) }
/// ```
///
/// # Errors
/// [`ErrorKind::Refused`], with the cure.
pub fn shared_cache(connection: &Connection) -> Result<()> {
    if !library::shares_its_cache(connection)? {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Refused,
        "the connection shares its cache with others: they lock tables against each other with \
         SQLITE_LOCKED, which no busy timeout ends \
         (https://www.sqlite.org/sharedcache.html#use_of_shared_cache_is_discouraged); open it \
         without `cache=shared`, or with SQLITE_OPEN_PRIVATECACHE",
    ))
}

/// Before this library opens a file it does not know of: another may have it.
pub(crate) fn before_opening(path: &Path, options: &Options) -> Result<()> {
    if options.any_sqlite {
        return Ok(());
    }
    library::refuse_where_others_may_be(path)
}

/// After this library has opened it: now the answer is exact.
pub(crate) fn after_opening(path: &Path, options: &Options) -> Result<()> {
    if options.any_sqlite {
        return Ok(());
    }
    library::refuse_beside_others(path)
}
