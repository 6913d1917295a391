//! Where a copy is written, and how it takes its place.
//!
//! Guarantees: the target's name never leads to a part of a copy; the file
//! under it is replaced only if that was asked for; a copy that fails removes
//! what it wrote; what a killed one wrote has a name that says so, and is told
//! from one that is being written by a kernel lock, which dies with its owner.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::path::{Path, PathBuf};

use super::alone::Alone;
use crate::error::{Error, ErrorKind, Outcome, Result};
use crate::file;
use crate::options::Options;

/// Between the target's name and what makes the name unique.
const MARK: &str = ".onepen-part-";

/// The files that SQLite keeps beside a database, by their endings. Those whose
/// content it would apply to the database come first.
pub(super) const BESIDE: [&str; 3] = ["-wal", "-journal", "-shm"];
const APPLIED: usize = 2;

/// A target that was found fit.
pub(super) struct Place {
    /// Absolute.
    pub(super) target: PathBuf,
    replace: bool,
}

/// The file that is being written. Removed when dropped, unless it has taken its
/// place.
pub(super) struct Part {
    pub(super) path: PathBuf,
    /// Open for its lock and for the flush.
    file: File,
    placed: bool,
}

impl Place {
    /// # Errors
    /// - [`ErrorKind::Refused`]: it is the source, or a file beside the source; a
    ///   link; not a regular file; there already, and not to be replaced; in use;
    ///   a log of another database lies beside it.
    /// - [`ErrorKind::Io`]: its directory is not there.
    pub(super) fn find(target: &Path, source: &Path, replace: bool) -> Result<Self> {
        let absolute = |path: &Path| {
            std::path::absolute(path)
                .map_err(|error| Error::io(format!("{}: not a usable path", path.display()), error))
        };
        let (target, source) = (absolute(target)?, absolute(source)?);
        let place = Self { target, replace };
        let target = &place.target;
        if target.file_name().is_none() {
            return Err(place.refuse("is not the name of a file"));
        }
        if fs::symlink_metadata(target).is_ok_and(|meta| meta.is_symlink()) {
            return Err(place.refuse(
                "is a symbolic link, and the link would be replaced, not what it leads to; name \
                 the file itself",
            ));
        }
        place.refuse_source(&source)?;
        // What network file systems cannot do with locks does not matter: one
        // process writes, under a name that nobody else opens.
        file::check(target, &Options::new().any_file_system(true))?;
        if target.exists() {
            if !replace {
                return Err(place.refuse(
                    "is there already; choose another name, or say that it is to be replaced",
                ));
            }
            // Before the work, to say it early. It is looked at again at the end.
            drop(Alone::with(target)?);
        } else {
            place.refuse_foreign_log()?;
        }
        Ok(place)
    }

    /// Neither the source nor what SQLite keeps beside it, by whatever name, nor
    /// a name for which the source would be what SQLite keeps beside.
    fn refuse_source(&self, source: &Path) -> Result<()> {
        let real = |path: &Path| {
            let (parent, name) = (path.parent()?, path.file_name()?);
            Some(fs::canonicalize(parent).ok()?.join(name))
        };
        let source = fs::canonicalize(source).unwrap_or_else(|_| source.to_owned());
        let target = real(&self.target).unwrap_or_else(|| self.target.clone());
        let identity = |path: &Path| file::identify(path).ok().flatten();
        let same = |one: &Path, two: &Path| {
            one == two || matches!((identity(one), identity(two)), (Some(a), Some(b)) if a == b)
        };
        if same(&source, &target) {
            return Err(self.refuse("is the database that is to be copied"));
        }
        for ending in BESIDE {
            if same(&beside(&source, ending), &target) || same(&source, &beside(&target, ending)) {
                return Err(self.refuse(
                    "is one of the files that SQLite keeps beside the database that is to be copied",
                ));
            }
        }
        Ok(())
    }

    /// SQLite would apply what lies there to the new database.
    fn refuse_foreign_log(&self) -> Result<()> {
        for ending in &BESIDE[..APPLIED] {
            let path = beside(&self.target, ending);
            if length(&path) > 0 {
                return Err(Error::new(
                    ErrorKind::Refused,
                    format!(
                        "{}: belongs to another database, which is not there, and SQLite would \
                         apply it to the one that is to be put beside it; move it away, or choose \
                         another name",
                        path.display()
                    ),
                ));
            }
        }
        Ok(())
    }

    /// Begins the file that the copy is written to: for the same people as the
    /// one that it replaces, else as `source`.
    pub(super) fn begin(&self, source: &Path) -> Result<Part> {
        let model = fs::metadata(&self.target)
            .or_else(|_| fs::metadata(source))
            .ok();
        loop {
            let path = self.part_name(&format!("{:016x}", unguessable()));
            let mut options = OpenOptions::new();
            options.read(true).write(true).create_new(true);
            #[cfg(unix)]
            std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
            let file = match options.open(&path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                opened => opened.map_err(|error| {
                    Error::io(format!("{}: cannot be created", path.display()), error)
                })?,
            };
            let part = Part {
                path,
                file,
                placed: false,
            };
            // Where the file system has no such locks, a part is never taken for
            // a leftover of the dead, and that is all.
            let _ = part.file.try_lock();
            if let Some(model) = model {
                part.look_like(&model).map_err(|error| part.io(error))?;
            }
            return Ok(part);
        }
    }

    fn part_name(&self, unique: &str) -> PathBuf {
        let mut name = self.target.as_os_str().to_owned();
        name.push(MARK);
        name.push(unique);
        name.into()
    }

    /// What copies to this target that were killed have left.
    pub(super) fn leftovers(&self) -> Vec<PathBuf> {
        let (Some(directory), Some(name)) = (self.target.parent(), self.target.file_name()) else {
            return Vec::new();
        };
        let mut start = OsString::from(name);
        start.push(MARK);
        let starts_so = |name: &OsStr| {
            name.as_encoded_bytes()
                .starts_with(start.as_encoded_bytes())
        };
        let mut found: Vec<_> = fs::read_dir(directory)
            .into_iter()
            .flatten()
            .flatten()
            .filter(|entry| {
                starts_so(&entry.file_name()) && entry.file_type().is_ok_and(|kind| kind.is_file())
            })
            .map(|entry| entry.path())
            .filter(|path| File::open(path).is_ok_and(|file| file.try_lock().is_ok()))
            .collect();
        found.sort();
        found
    }

    /// Lets `part` take its place. When this returns Ok a loss of power does not
    /// undo it.
    pub(super) fn fill(&self, mut part: Part) -> Result<()> {
        part.file.sync_all().map_err(|error| part.io(error))?;
        if self.target.exists() && self.replace {
            Alone::with(&self.target)?.replace_with(&part.path)?;
        } else {
            self.refuse_foreign_log()?;
            rename_to_nothing(&part.path, &self.target).map_err(|error| {
                if error.kind() == io::ErrorKind::AlreadyExists {
                    self.refuse("was made by somebody else meanwhile; it was left as it is")
                } else {
                    Error::io(
                        format!("{}: the copy cannot be put there", self.target.display()),
                        error,
                    )
                }
            })?;
        }
        part.placed = true;
        flush_directory(&self.target).map_err(|error| {
            Error::io(
                format!(
                    "{}: the copy is there, but a loss of power now may take it away, because its \
                     directory could not be flushed",
                    self.target.display()
                ),
                error,
            )
            .with_outcome(Outcome::Unknown)
        })
    }

    fn refuse(&self, why: &str) -> Error {
        Error::new(
            ErrorKind::Refused,
            format!("{}: {why}", self.target.display()),
        )
    }
}

impl Part {
    pub(super) fn length(&self) -> u64 {
        self.file.metadata().map_or(0, |meta| meta.len())
    }

    /// Throws away what was written.
    pub(super) fn clear(&self) -> Result<()> {
        self.file.set_len(0).map_err(|error| self.io(error))
    }

    /// Writes zeros where the next pages will go. A system that finds them in its
    /// cache takes a page in half the time; and the time is the pen's then.
    pub(super) fn make_room(&self, from: u64, to: u64) -> Result<()> {
        static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
        let mut at = from;
        while at < to {
            let length = usize::try_from(to - at).unwrap_or(usize::MAX);
            match self.write_at(&ZEROS[..length.min(ZEROS.len())], at) {
                Ok(0) => return Err(self.full(io::ErrorKind::WriteZero.into())),
                Ok(written) => at += written as u64,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.full(error)),
            }
        }
        Ok(())
    }

    #[cfg(unix)]
    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<usize> {
        std::os::unix::fs::FileExt::write_at(&self.file, bytes, at)
    }

    #[cfg(not(unix))]
    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<usize> {
        use std::io::{Seek, SeekFrom, Write};
        let mut file = &self.file;
        file.seek(SeekFrom::Start(at))?;
        file.write(bytes)
    }

    /// Takes away the room that was not needed.
    pub(super) fn end_at(&self, length: u64) -> Result<()> {
        self.file.set_len(length).map_err(|error| self.io(error))
    }

    /// Of a write that failed.
    pub(super) fn full(&self, error: io::Error) -> Error {
        Error::io(
            format!(
                "{}: cannot be written, the disk may be full; the target is as it was before",
                self.path.display()
            ),
            error,
        )
    }

    /// Sends what was written so far to the disk.
    pub(super) fn flush(&self) -> Result<()> {
        self.file.sync_data().map_err(|error| self.io(error))
    }

    #[cfg(unix)]
    fn look_like(&self, model: &fs::Metadata) -> io::Result<()> {
        use std::os::unix::fs::MetadataExt;
        let own = self.file.metadata()?;
        if (own.uid(), own.gid()) != (model.uid(), model.gid()) {
            // Only root may. SQLite does the same with its own files.
            let _ = std::os::unix::fs::fchown(&self.file, Some(model.uid()), Some(model.gid()));
        }
        self.file.set_permissions(model.permissions())
    }

    #[cfg(not(unix))]
    fn look_like(&self, _model: &fs::Metadata) -> io::Result<()> {
        Ok(())
    }

    fn io(&self, error: io::Error) -> Error {
        Error::io(format!("{}: cannot be written", self.path.display()), error)
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if !self.placed {
            let _ = fs::remove_file(&self.path);
            for ending in BESIDE {
                let _ = fs::remove_file(beside(&self.path, ending));
            }
        }
    }
}

/// The file that SQLite keeps beside `database` under this ending.
pub(super) fn beside(database: &Path, ending: &str) -> PathBuf {
    onepen_lock::holders::beside(database, ending)
}

/// 0 where there is none.
pub(super) fn length(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |meta| meta.len())
}

/// Renames, and fails if there is a file of that name.
fn rename_to_nothing(from: &Path, to: &Path) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    {
        use rustix::fs::{CWD, RenameFlags, renameat_with};
        match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => {}
            done => return Ok(done?),
        }
    }
    // A second name, and the first taken away: where there are such.
    match fs::hard_link(from, to) {
        Ok(()) => fs::remove_file(from),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(error),
        Err(_) if to.exists() => Err(io::ErrorKind::AlreadyExists.into()),
        Err(_) => fs::rename(from, to),
    }
}

#[cfg(unix)]
pub(super) fn flush_directory(of: &Path) -> io::Result<()> {
    match of.parent() {
        Some(directory) => File::open(directory)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(not(unix))]
pub(super) fn flush_directory(_of: &Path) -> io::Result<()> {
    Ok(())
}

fn unguessable() -> u64 {
    RandomState::new().hash_one(std::process::id())
}
