//! One pen per file: which databases are open in this process.
//!
//! Two handles to one file that each had a pen of their own would be strangers
//! to each other, and SQLite's polling would decide between them. So a file,
//! known by device and inode whatever path leads to it, is opened once, and
//! everybody after that shares it.

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use rusqlite::{Connection, OpenFlags};

use crate::blocks::permit::Turns;
use crate::connection::Connector;
use crate::database::Shared;
use crate::error::{Error, ErrorKind, Result};
use crate::file::{self, FileId};
use crate::options::Options;

/// A file's place. Its lock is held while the file is being opened, so that two
/// threads that open it together get the same thing, and so that opening one
/// file, which may wait for other processes, does not delay opening another.
struct Place {
    seat: Mutex<Seat>,
    /// The process it belongs to ([`crate::fork`]).
    born: u32,
}

#[derive(Default)]
struct Seat {
    shared: Weak<Shared>,
    /// Lives as long as any connection to the file does: snapshots outlive
    /// their handles, and a forked child closes nothing.
    connector: Weak<Connector>,
}

impl Default for Place {
    fn default() -> Self {
        Self {
            seat: Mutex::default(),
            born: crate::fork::born(),
        }
    }
}

impl Place {
    fn is_in_use(&self) -> bool {
        self.seat
            .try_lock()
            .map_or(true, |seat| seat.connector.strong_count() > 0)
    }
}

fn places() -> MutexGuard<'static, HashMap<FileId, Arc<Place>>> {
    static PLACES: OnceLock<Mutex<HashMap<FileId, Arc<Place>>>> = OnceLock::new();
    PLACES
        .get_or_init(Mutex::default)
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
}

/// The database at `path`: the one that is open, or what `open` makes of it.
pub(crate) fn find_or_open(
    path: &Path,
    options: Options,
    open: impl FnOnce(Options, Arc<Turns>) -> Result<Arc<Shared>>,
) -> Result<Arc<Shared>> {
    file::check(path, &options)?;
    // Keeps a new file there until the real connections are.
    let mut made = None;
    let id = match identify(path)? {
        Some(id) => id,
        None if options.read_only => return Err(not_there(path)),
        None => {
            made = Some(Made::new(path)?);
            identify(path)?.ok_or_else(|| not_there(path))?
        }
    };
    let turns = Turns::of(&id);
    let place = {
        let mut places = places();
        places.retain(|_, place| Arc::strong_count(place) > 1 || place.is_in_use());
        let place = places.entry(id).or_default();
        if crate::fork::check(place.born).is_err() {
            if place.is_in_use() {
                return Err(inherited(path));
            }
            *place = Arc::default();
        }
        Arc::clone(place)
    };
    let mut seat = place.seat.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(shared) = seat.shared.upgrade().filter(|shared| !shared.is_closed()) {
        share(&shared, options)?;
        return Ok(shared);
    }
    // A file that is in use here may have any number of descriptors, and one that
    // is being made has some; any other should have none.
    if seat.connector.strong_count() == 0 && made.is_none() && Made::none() {
        crate::refusals::before_opening(path, &options)?;
    }
    let opened = open(options, turns)?;
    crate::refusals::after_opening(path, &opened.connector.options)?;
    *seat = Seat {
        shared: Arc::downgrade(&opened),
        connector: Arc::downgrade(&opened.connector),
    };
    drop(made);
    Ok(opened)
}

/// Whether this process has the file at `path` open, by a snapshot or a stream
/// that outlived its handle too.
pub(crate) fn is_open(path: &Path) -> bool {
    let Ok(Some(id)) = file::identify(path) else {
        return false;
    };
    let Some(place) = places().get(&id).map(Arc::clone) else {
        return false;
    };
    let Ok(seat) = place.seat.try_lock() else {
        return true; // it is being opened
    };
    let (shared, others) = (seat.shared.upgrade(), seat.connector.strong_count() > 0);
    drop(seat);
    match shared {
        Some(shared) => !shared.is_closed() || shared.readers.opened() > 0,
        None => others,
    }
}

/// SQLite knows by device and inode which locks this process has on a file, and
/// in a child that knowledge is the parent's: a new connection believes that it
/// has locks which the kernel gave to the parent alone. It does not lock, others
/// do not see it, and remove the log under it.
fn inherited(path: &Path) -> Error {
    Error::new(
        ErrorKind::Forked,
        format!(
            "{}: was open when this process was forked, and cannot be opened safely in the child: \
             SQLite would take the parent's locks for its own; drop every handle to it before \
             the fork and open it after, or let the child exec",
            path.display()
        ),
    )
}

fn share(shared: &Shared, mut options: Options) -> Result<()> {
    let migrations = options.migrations.take();
    let differences = shared.connector.options.differences(&options);
    if !differences.is_empty() {
        return Err(Error::new(
            ErrorKind::SettingsDiffer,
            format!(
                "the file is already open in this process with other settings: {}; clone that \
                 handle, or open with the same options",
                differences.join(", ")
            ),
        )
        .with_database(&shared.connector.name));
    }
    match migrations {
        Some(migrations) => shared.migrate(&migrations),
        None => Ok(()),
    }
}

fn identify(path: &Path) -> Result<Option<FileId>> {
    file::identify(path).map_err(|error| Error::io(format!("{}", path.display()), error))
}

/// A new file, while its first real connection is being opened.
struct Made {
    connection: Option<Connection>,
}

static BEING_MADE: AtomicUsize = AtomicUsize::new(0);

impl Made {
    /// Lets SQLite create the file: with its permissions, and never through a
    /// descriptor of ours, whose closing would drop locks.
    fn new(path: &Path) -> Result<Self> {
        let path = std::path::absolute(path)
            .map_err(|error| Error::io(format!("{}: not a usable path", path.display()), error))?;
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_CREATE
            | OpenFlags::SQLITE_OPEN_PRIVATE_CACHE
            | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        // Counted before there is a descriptor to be seen.
        BEING_MADE.fetch_add(1, Ordering::SeqCst);
        match Connection::open_with_flags(&path, flags) {
            Ok(connection) => Ok(Self {
                connection: Some(connection),
            }),
            Err(error) => {
                BEING_MADE.fetch_sub(1, Ordering::SeqCst);
                Err(Error::from(error).with_database(&crate::error::shown(&path)))
            }
        }
    }

    fn none() -> bool {
        BEING_MADE.load(Ordering::SeqCst) == 0
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        self.connection = None;
        // Counted until there is no descriptor to be seen.
        BEING_MADE.fetch_sub(1, Ordering::SeqCst);
    }
}

fn not_there(path: &Path) -> Error {
    Error::found(
        format!("{}: there is no such database", path.display()),
        std::io::ErrorKind::NotFound,
    )
}
