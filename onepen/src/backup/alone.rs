//! Being alone with a database file, to put another in its place.
//!
//! Guarantees while an [`Alone`] lives: nobody has the file open, as far as can be
//! seen, nobody begins a transaction on it, and there is no log and no journal
//! beside it with anything in it. Nothing that was committed is lost by becoming
//! alone: what is in its log is moved into it, by SQLite.
//!
//! The lock is taken over the whole file, by its descriptor: so it does not need
//! SQLite to understand the file, and a damaged database can be replaced too. A
//! process loses its POSIX locks on a file with any descriptor of it that it
//! closes, so this is done only after it was seen that this process does not have
//! it open.

use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::time::Duration;

use onepen_lock::holders;
use rusqlite::{Connection, OpenFlags, ffi};

use super::openers;
use super::place::{BESIDE, beside, flush_directory, length};
use crate::error::{Error, ErrorKind, Result};

/// What a process that opened the file just before it was replaced finds in it:
/// no database, instead of one that has another one's log beside it.
#[cfg(unix)]
const NOTE: &[u8; 100] = b"This database was replaced by another one of the same name. Open it \
again by its name. (onepen)\n\0\0\0\0";

pub(super) struct Alone {
    path: PathBuf,
    /// Locked as a whole.
    file: File,
}

impl Alone {
    /// # Errors
    /// [`ErrorKind::Refused`], with who is in the way where that is known.
    pub(super) fn with(path: &Path) -> Result<Self> {
        refuse_if_open(path)?;
        if has_log(path) {
            fold_in_log(path)?;
            refuse_if_open(path)?;
        }
        let io = |error| Error::io(format!("{}: cannot be replaced", path.display()), error);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(path)
            .map_err(io)?;
        let this = Self {
            path: path.to_owned(),
            file,
        };
        this.lock()?;
        // All of it again, now that nobody can begin.
        if !this.is_still_there().map_err(io)? || has_log(path) {
            return Err(in_use(path, ""));
        }
        Ok(this)
    }

    /// The name still leads to the file that is locked.
    #[cfg(unix)]
    fn is_still_there(&self) -> std::io::Result<bool> {
        let locked = crate::file::FileId::of(&self.file.metadata()?);
        Ok(crate::file::identify(&self.path)? == Some(locked))
    }

    /// Nobody can rename a file that is open.
    #[cfg(not(unix))]
    fn is_still_there(&self) -> std::io::Result<bool> {
        Ok(true)
    }

    /// There the system replaces no file that somebody has open.
    #[cfg(not(unix))]
    fn lock(&self) -> Result<()> {
        Ok(())
    }

    #[cfg(unix)]
    fn lock(&self) -> Result<()> {
        use std::os::fd::AsFd as _;

        use rustix::fs::{FlockOperation, fcntl_lock};
        match fcntl_lock(self.file.as_fd(), FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(()),
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::ACCESS) => {
                Err(in_use(&self.path, &who(&self.path)))
            }
            Err(error) => Err(Error::io(
                format!("{}: cannot be locked", self.path.display()),
                error.into(),
            )),
        }
    }

    /// Puts the file `new` in its place. Until the rename nothing has changed.
    pub(super) fn replace_with(self, new: &Path) -> Result<()> {
        // Empty, all of them: see `with`.
        for ending in BESIDE {
            let path = beside(&self.path, ending);
            match fs::remove_file(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(Error::io(
                        format!("{}: cannot be removed", path.display()),
                        error,
                    ));
                }
                _ => {}
            }
        }
        // The disk may take the new name before it lets go of the old log, which may
        // have its old length again too, and would be applied to the new database.
        flush_directory(&self.path).map_err(|error| {
            Error::io(
                format!(
                    "{}: cannot be replaced, its directory could not be flushed",
                    self.path.display()
                ),
                error,
            )
        })?;
        fs::rename(new, &self.path).map_err(|error| {
            Error::io(
                format!("{}: cannot be replaced", self.path.display()),
                error,
            )
        })?;
        // Not before the new one has the name on the disk too: after a loss of power
        // the name may lead to the old file again, which has to be whole then. That
        // the flush fails is said by who flushes last.
        if flush_directory(&self.path).is_ok() {
            self.leave_a_note();
        }
        Ok(())
    }

    /// Somebody may have opened the file between our look and the rename, and
    /// waits for the lock. With it he would have the old file with the new one's
    /// log, and spoil both.
    fn leave_a_note(&self) {
        #[cfg(unix)]
        {
            use std::os::unix::fs::{FileExt, MetadataExt};
            // A file with another name still is somebody's.
            if self.file.metadata().is_ok_and(|meta| meta.nlink() == 0) {
                let _ = self.file.write_all_at(NOTE, 0);
            }
        }
    }
}

/// There is something beside it that SQLite would apply.
fn has_log(path: &Path) -> bool {
    BESIDE[..2]
        .iter()
        .any(|ending| length(&beside(path, ending)) > 0)
}

fn refuse_if_open(path: &Path) -> Result<()> {
    const OURSELVES: &str = "by this very program; close it first";
    if crate::registry::is_open(path) {
        return Err(in_use(path, OURSELVES));
    }
    if let Ok(look) = holders::look(path)
        && let Some(holder) = look.holders.first()
    {
        return Err(if holder.is_this_process() {
            in_use(path, OURSELVES)
        } else {
            in_use(path, &holder.to_string())
        });
    }
    let opened = [path.to_owned(), beside(path, "-wal"), beside(path, "-shm")];
    match opened.iter().flat_map(|path| openers::of(path)).next() {
        None => Ok(()),
        Some(pid) if pid == std::process::id() => Err(in_use(path, OURSELVES)),
        Some(pid) => Err(in_use(path, &openers::name(pid))),
    }
}

fn who(path: &Path) -> String {
    holders::look(path)
        .ok()
        .and_then(|look| look.holders.first().map(ToString::to_string))
        .unwrap_or_default()
}

fn in_use(path: &Path, who: &str) -> Error {
    let who = if who.is_empty() {
        "by somebody who could not be seen"
    } else {
        who
    };
    Error::new(
        ErrorKind::Refused,
        format!(
            "{}: cannot be replaced, because it is open: {who}",
            path.display()
        ),
    )
}

/// Lets SQLite move what is in the log into the database, or roll a journal back:
/// it is the database's, and must not be met by another one.
fn fold_in_log(path: &Path) -> Result<()> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX
        | OpenFlags::SQLITE_OPEN_PRIVATE_CACHE;
    let folded = Connection::open_with_flags(path, flags).and_then(|connection| {
        connection.busy_timeout(Duration::ZERO)?;
        // The first look rolls back a journal that a crash left.
        connection.query_row("PRAGMA schema_version", (), |_| Ok(()))?;
        connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", (), |row| {
            row.get::<_, i64>(0)
        })
    });
    let code = folded
        .as_ref()
        .err()
        .and_then(|error| error.sqlite_error())
        .map(|error| error.extended_code & 0xff);
    match (folded, code) {
        (Ok(0), _) if !has_log(path) => Ok(()),
        (Ok(_), _) | (_, Some(ffi::SQLITE_BUSY | ffi::SQLITE_LOCKED | ffi::SQLITE_PROTOCOL)) => {
            Err(in_use(path, &who(path)))
        }
        // A journal in which there was nothing, SQLite removes.
        (Err(_), _) if !has_log(path) => Ok(()),
        (Err(error), _) => Err(Error::new(
            ErrorKind::Refused,
            format!(
                "{path}: is damaged, and has a log or a journal that can be moved into it no \
                 more; nothing was changed; move {path}, {path}-wal and {path}-journal away \
                 together, and try again",
                path = path.display()
            ),
        )
        .with_source(error)),
    }
}
