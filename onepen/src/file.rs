//! Which file a path means, and whether a database may live there.
//!
//! Guarantees: two paths to one file give the same [`FileId`]; a place where
//! SQLite's locks or its shared memory are known not to work is refused by its
//! name before SQLite sees it. Nothing here ever *opens* a database, its log or
//! its shared memory: closing any descriptor of a file drops every POSIX lock
//! this process holds on it, those of SQLite's own connections included
//! (<https://www.sqlite.org/howtocorrupt.html#_posix_advisory_locks_canceled_by_a_separate_thread_doing_close_>).
//! `stat` and `statfs` do not.

use std::fs::{self, Metadata};
use std::io;
use std::path::Path;

use onepen_lock::systems;

use crate::error::{Error, ErrorKind, Result};
use crate::options::Options;

mod home;

pub(crate) use home::TempHome;

/// A file whatever it is called: device and inode.
///
/// Where the standard library tells neither (Windows), the path with all links
/// resolved: there a file with two names is two files, which is no worse than
/// what SQLite itself makes of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct FileId(Identity);

#[cfg(unix)]
type Identity = (u64, u64);
#[cfg(not(unix))]
type Identity = std::path::PathBuf;

#[cfg(unix)]
impl FileId {
    /// The file that this was said of.
    pub(crate) fn of(meta: &Metadata) -> Self {
        use std::os::unix::fs::MetadataExt;
        Self((meta.dev(), meta.ino()))
    }
}

/// Which file `path` leads to now; `None` when there is none.
pub(crate) fn identify(path: &Path) -> io::Result<Option<FileId>> {
    #[cfg(unix)]
    let found = {
        use std::os::unix::fs::MetadataExt;
        fs::metadata(path).map(|meta| (meta.dev(), meta.ino()))
    };
    #[cfg(not(unix))]
    let found = fs::canonicalize(path);
    match found {
        Ok(identity) => Ok(Some(FileId(identity))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether a database may be opened, or made, at `path`.
///
/// # Errors
/// - [`ErrorKind::Io`]: the directory is not there; symbolic links lead in a
///   circle or nowhere; a database to be read only is not there.
/// - [`ErrorKind::Refused`]: not a regular file; a file with several names; a
///   file system of the network or of a virtual machine, unless
///   [`Options::any_file_system`].
pub(crate) fn check(path: &Path, options: &Options) -> Result<()> {
    let place = Place::of(path, options.read_only)?;
    place.regular()?;
    place.one_name()?;
    if options.any_file_system {
        return Ok(());
    }
    place.fit_file_system()
}

/// What a path leads to: a file, or the directory in which one can be made.
pub(crate) struct Place<'a> {
    path: &'a Path,
    meta: Option<Metadata>,
    /// What lies on the file system in question.
    there: &'a Path,
}

impl<'a> Place<'a> {
    /// # Errors
    /// [`ErrorKind::Io`], as [`check`] has it.
    pub(crate) fn of(path: &'a Path, must_exist: bool) -> Result<Self> {
        let (meta, there) = match fs::metadata(path) {
            Ok(meta) => (Some(meta), path),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                not_a_dangling_link(path)?;
                if must_exist {
                    let what = format!("{}: there is no such database to read", path.display());
                    return Err(Error::found(what, error.kind()));
                }
                (None, directory_of(path)?)
            }
            Err(error) => {
                return Err(Error::io(
                    format!("{}: cannot be looked at", path.display()),
                    error,
                ));
            }
        };
        Ok(Self { path, meta, there })
    }

    /// # Errors
    /// [`ErrorKind::Refused`] for what is there and no regular file.
    pub(crate) fn regular(&self) -> Result<()> {
        let what = match &self.meta {
            Some(meta) if meta.is_dir() => "is a directory; name a file in it",
            Some(meta) if !meta.is_file() => {
                "is neither a file nor missing, but a device, a pipe or a socket"
            }
            _ => return Ok(()),
        };
        Err(Error::new(
            ErrorKind::Refused,
            format!("{}: {what}", self.path.display()),
        ))
    }

    /// SQLite names the log after the path. Opened by two of its names a file has
    /// two logs, and is corrupt after the first crash or checkpoint
    /// (<https://www.sqlite.org/howtocorrupt.html#_multiple_links_to_the_same_file>).
    ///
    /// # Errors
    /// [`ErrorKind::Refused`] for a file with several names.
    pub(crate) fn one_name(&self) -> Result<()> {
        let names = match &self.meta {
            Some(meta) if meta.is_file() => names(meta),
            _ => 1,
        };
        if names <= 1 {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Refused,
            format!(
                "{path}: has {names} names (hard links), and opened by two of them it would be \
                 corrupted, because SQLite names the write-ahead log after the path; find the \
                 others with `find -samefile`, then remove all but one, or make this one a file of \
                 its own while nobody has it open",
                path = self.path.display(),
            ),
        ))
    }

    /// # Errors
    /// [`ErrorKind::Refused`] for a file system on which SQLite does not work.
    pub(crate) fn fit_file_system(&self) -> Result<()> {
        match systems::unfit(self.there) {
            Ok(None) => Ok(()),
            Ok(Some(name)) => Err(Error::new(
                ErrorKind::Refused,
                format!(
                    "{}: lies on {name}, where the locks or the shared memory of SQLite do not \
                     work between all who may open it (https://www.sqlite.org/faq.html#q5); move \
                     it to a local disk, or accept the risk with `Options::any_file_system`",
                    self.path.display()
                ),
            )),
            Err(error) => Err(Error::io(
                format!("{}: cannot learn its file system", self.there.display()),
                error,
            )),
        }
    }
}

#[cfg(unix)]
fn names(meta: &Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::nlink(meta)
}

#[cfg(not(unix))]
fn names(_meta: &Metadata) -> u64 {
    1
}

/// Whether this user may read a file that is there. It is not opened: to close it
/// again would take away the locks that this process has on it.
pub(crate) fn may_read(path: &Path) -> bool {
    may(path, Use::Read)
}

/// Whether this user may make files in the directory of this one.
pub(crate) fn may_make_files_beside(path: &Path) -> bool {
    path.parent()
        .is_none_or(|directory| may(directory, Use::MakeFilesIn))
}

#[derive(Clone, Copy)]
enum Use {
    Read,
    MakeFilesIn,
}

/// `true` also where nobody knows.
#[cfg(unix)]
fn may(path: &Path, what: Use) -> bool {
    use rustix::fs::{Access, access};
    let wanted = match what {
        Use::Read => Access::READ_OK,
        Use::MakeFilesIn => Access::WRITE_OK | Access::EXEC_OK,
    };
    access(path, wanted) != Err(rustix::io::Errno::ACCESS)
}

#[cfg(not(unix))]
fn may(_path: &Path, _what: Use) -> bool {
    true
}

/// SQLite would create the target. A link to nowhere is far more often a disk
/// that is not mounted, and a new empty database is a bad answer to that.
fn not_a_dangling_link(path: &Path) -> Result<()> {
    let Ok(target) = fs::read_link(path) else {
        return Ok(());
    };
    Err(Error::found(
        format!(
            "{}: is a symbolic link to {}, which is not there; create that file or its disk's \
             mount, or remove the link",
            path.display(),
            target.display()
        ),
        io::ErrorKind::NotFound,
    ))
}

/// The directory a new database would be made in.
fn directory_of(path: &Path) -> Result<&Path> {
    let directory = match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => path,
    };
    match fs::metadata(directory) {
        Ok(meta) if meta.is_dir() => Ok(directory),
        Ok(_) => Err(Error::found(
            format!(
                "{}: cannot be created, {} is not a directory",
                path.display(),
                directory.display()
            ),
            io::ErrorKind::NotADirectory,
        )),
        Err(error) => Err(Error::io(
            format!(
                "{}: cannot be created, its directory {} cannot be used (create it first)",
                path.display(),
                directory.display()
            ),
            error,
        )),
    }
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn home() -> TempHome {
        TempHome::new().expect("a private directory")
    }

    fn refusal(path: &Path) -> Error {
        check(path, &Options::new()).expect_err("must be refused")
    }

    #[test]
    fn one_file_is_the_same_by_every_path_and_two_files_are_not() {
        let home = home();
        let (file, other, link) = (
            home.path().join("a.db"),
            home.path().join("b.db"),
            home.path().join("link.db"),
        );
        fs::write(&file, "").unwrap();
        fs::write(&other, "").unwrap();
        symlink(&file, &link).unwrap();
        let id = identify(&file).unwrap();
        assert!(id.is_some());
        assert_eq!(identify(&link).unwrap(), id);
        assert_eq!(identify(&home.path().join("./a.db")).unwrap(), id);
        assert_ne!(identify(&other).unwrap(), id);
        // The name does not matter, the file does.
        fs::rename(&file, home.path().join("moved.db")).unwrap();
        assert_eq!(identify(&home.path().join("moved.db")).unwrap(), id);
        assert_eq!(identify(&file).unwrap(), None);
    }

    #[test]
    fn a_file_that_is_there_or_can_be_made_is_accepted() {
        let home = home();
        let file = home.path().join("a.db");
        check(&file, &Options::new()).unwrap();
        assert!(!file.exists(), "looking must not create");
        fs::write(&file, "").unwrap();
        check(&file, &Options::new()).unwrap();
        let link = home.path().join("link.db");
        symlink(&file, &link).unwrap();
        check(&link, &Options::new()).unwrap();
    }

    #[test]
    fn a_file_with_two_names_is_refused_with_the_cure() {
        let home = home();
        let (one, two) = (home.path().join("one.db"), home.path().join("two.db"));
        fs::write(&one, "").unwrap();
        fs::hard_link(&one, &two).unwrap();
        for path in [&one, &two] {
            let error = refusal(path);
            assert_eq!(error.kind(), ErrorKind::Refused);
            assert!(
                error.to_string().contains("2 names (hard links)"),
                "{error}"
            );
            assert!(error.to_string().contains("find -samefile"), "{error}");
        }
        // It is no question of the file system.
        let lenient = Options::new().any_file_system(true);
        assert!(check(&one, &lenient).is_err());
        fs::remove_file(&two).unwrap();
        check(&one, &Options::new()).unwrap();
    }

    #[test]
    fn what_is_no_regular_file_is_refused() {
        let home = home();
        let error = refusal(home.path());
        assert_eq!(error.kind(), ErrorKind::Refused);
        assert!(error.to_string().contains("is a directory"), "{error}");
        let error = refusal(Path::new("/dev/null"));
        assert_eq!(error.kind(), ErrorKind::Refused);
        assert!(error.to_string().contains("a device"), "{error}");
    }

    #[test]
    fn links_that_lead_nowhere_or_in_a_circle_are_refused() {
        let home = home();
        let (gone, link) = (home.path().join("gone.db"), home.path().join("link.db"));
        symlink(&gone, &link).unwrap();
        let error = refusal(&link);
        assert_eq!(error.kind(), ErrorKind::Io);
        assert!(error.to_string().contains("gone.db, which is not there"));
        assert!(!gone.exists());

        let (here, there) = (home.path().join("here"), home.path().join("there"));
        symlink(&here, &there).unwrap();
        symlink(&there, &here).unwrap();
        let error = refusal(&here);
        assert_eq!(error.kind(), ErrorKind::Io);
        assert!(error.to_string().contains("here"), "{error}");
        assert!(identify(&here).is_err(), "a circle is no missing file");
    }

    #[test]
    fn a_missing_directory_is_named() {
        let home = home();
        let error = refusal(&home.path().join("missing/a.db"));
        assert_eq!(error.kind(), ErrorKind::Io);
        assert!(error.to_string().contains("create it first"), "{error}");
        fs::write(home.path().join("file"), "").unwrap();
        let error = refusal(&home.path().join("file/a.db"));
        assert_eq!(error.kind(), ErrorKind::Io);
    }

    #[test]
    fn a_database_to_be_only_read_must_be_there() {
        let home = home();
        let path = home.path().join("a.db");
        let reading = Options::new().read_only(true);
        assert_eq!(check(&path, &reading).unwrap_err().kind(), ErrorKind::Io);
        fs::write(&path, "").unwrap();
        check(&path, &reading).unwrap();
    }

    #[test]
    fn a_relative_name_is_looked_for_in_the_current_directory() {
        check(Path::new("surely-not-there.db"), &Options::new()).unwrap();
    }
}
