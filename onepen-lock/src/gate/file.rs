//! The side file on disk: where it is, and whether it may be used.
//!
//! `app.db` has its gate in `app.db-gate`, in the directory of the file that
//! symbolic links lead to, as SQLite names the log. It is made exclusively, with
//! the mode and, by root, the owner of the database, and it stays: to remove it
//! while somebody uses it would split the queue in two.
//!
//! What is found there is used only if it is a regular file with one name, owned
//! by somebody who may write the database, no more writable than that, and either
//! empty or begun by this protocol. Nothing else is ever written to. Making it
//! needs no lock: a file of zeros is a fresh one, and growing it to its size and
//! writing the first word may be done by several at once.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::SeqCst;

use rustix::fs::{FallocateFlags, Gid, Mode, OFlags, Uid};

use super::NotJoined;
use super::layout::{MAGIC, SIZE};
use super::map::Map;

/// The side file of the database at `database`, which has to be there.
pub(super) fn path_of(database: &Path) -> io::Result<PathBuf> {
    let mut path = database.canonicalize()?.into_os_string();
    path.push("-gate");
    Ok(path.into())
}

/// Opens the side file to take part, making it if need be.
pub(super) fn open(database: &Path) -> Result<(File, Map, PathBuf), NotJoined> {
    let path = path_of(database)?;
    let model = database.metadata()?;
    let file = match create(&path, &model) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            existing(&path, OFlags::RDWR)?
        }
        Err(error) => return Err(error.into()),
    };
    check(&file, &model)?;
    make_room(&file)?;
    let map = Map::new(&file)?;
    // From zero to the one value that everybody of this version writes; whoever
    // comes second finds it done.
    match map.header.magic.compare_exchange(0, MAGIC, SeqCst, SeqCst) {
        Ok(_) | Err(MAGIC) => Ok((file, map, path)),
        Err(_) => Err(NotJoined::OtherVersion),
    }
}

/// Opens the side file to look at it; `None` when there is none.
pub(super) fn open_to_read(database: &Path) -> io::Result<Option<File>> {
    match existing(&path_of(database)?, OFlags::RDONLY) {
        Ok(file) if file.metadata()?.is_file() => Ok(Some(file)),
        Ok(_) => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn create(path: &Path, model: &Metadata) -> io::Result<File> {
    let mode = model.mode() & 0o777;
    let file = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(mode)
        .custom_flags(libc::O_NOFOLLOW)
        .open(path)?;
    if rustix::process::geteuid().is_root() {
        let (owner, group) = (Uid::from_raw(model.uid()), Gid::from_raw(model.gid()));
        rustix::fs::fchown(&file, Some(owner), Some(group))?;
    } else {
        // In a directory without the set-group-ID bit it would be the wrong one.
        // Whoever is not in the group cannot give it, and goes on without.
        let _ = rustix::fs::fchown(&file, None, Some(Gid::from_raw(model.gid())));
    }
    // Whatever the umask took away: all who may write the database queue here.
    rustix::fs::fchmod(&file, Mode::from_raw_mode(mode))?;
    Ok(file)
}

fn existing(path: &Path, access: OFlags) -> io::Result<File> {
    // Not blocking: a pipe in its place must not hang whoever opens it.
    let flags = access | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
    Ok(rustix::fs::open(path, flags, Mode::empty())?.into())
}

fn check(file: &File, model: &Metadata) -> Result<(), NotJoined> {
    let found = file.metadata()?;
    let me = rustix::process::geteuid();
    if !found.is_file() || found.nlink() != 1 {
        return Err(NotJoined::Untrusted(
            "it is not a regular file with one name",
        ));
    }
    // Whoever may write the database may have made it.
    let shared = model.mode() & 0o022 != 0;
    if !shared && ![model.uid(), me.as_raw(), 0].contains(&found.uid()) {
        return Err(NotJoined::Untrusted(
            "it belongs to somebody who may not write the database",
        ));
    }
    if found.len() >= 8 || found.len() == 0 {
        let mut first = [0; 8];
        if found.len() > 0 {
            file.read_exact_at(&mut first, 0)?;
        }
        match u64::from_le_bytes(first) {
            0 | MAGIC => {}
            other if other << 8 == MAGIC << 8 => return Err(NotJoined::OtherVersion),
            _ => return Err(NotJoined::Untrusted("it was not made by onepen")),
        }
    } else {
        return Err(NotJoined::Untrusted("it was not made by onepen"));
    }
    let (mode, wanted) = (found.mode() & 0o777, model.mode() & 0o777);
    if mode != wanted && (found.uid() == me.as_raw() || me.is_root()) {
        rustix::fs::fchmod(file, Mode::from_raw_mode(wanted)).map_err(io::Error::from)?;
    } else if mode & !wanted & 0o022 != 0 {
        return Err(NotJoined::Untrusted(
            "more users may write to it than to the database",
        ));
    }
    Ok(())
}

/// Grows the file to its size, on disk: a write through the mapping has no way
/// to report that the disk is full.
fn make_room(file: &File) -> io::Result<()> {
    if file.metadata()?.len() >= SIZE as u64 {
        return Ok(());
    }
    match rustix::fs::fallocate(file, FallocateFlags::empty(), 0, SIZE as u64) {
        Ok(()) => Ok(()),
        // Not on this file system. Growing leaves what is there as it is.
        Err(rustix::io::Errno::OPNOTSUPP) => file.set_len(SIZE as u64),
        Err(error) => Err(error.into()),
    }
}
