//! A private directory for the in-memory twin, gone with its owner.
//!
//! SQLite's own `:memory:` is one connection's, and its shared cache has locks
//! of another kind; so the twin is the same code over real files in a file
//! system that lives in memory.
//!
//! Guarantees: nobody but this user can look inside (mode 0700, and a name
//! that cannot be guessed); the owner's end removes it; a dead owner's is
//! removed by whoever makes the next one, and a living owner's never, because
//! it holds a kernel lock on a file inside. A lock, and not a process id in
//! the name: it holds between containers that share the directory, and an id
//! that was given out again proves nothing.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

const PREFIX: &str = "onepen-memory-";
const LOCK: &str = "alive";

/// A home without a lock file is being made or being removed. One that stays
/// so for this long was left by somebody who died in between.
const UNFINISHED: Duration = Duration::from_secs(60 * 60);

/// A smaller `/dev/shm` (a container has 64 MiB unless told otherwise) fills up
/// under an ordinary test, while the directory for temporary files does not.
#[cfg(target_os = "linux")]
const ROOM_ENOUGH: u64 = 256 << 20;

/// A directory that is removed on drop.
#[derive(Debug)]
pub(crate) struct TempHome {
    path: PathBuf,
    alive: Option<File>,
    born: u32,
}

impl TempHome {
    /// Makes one in `/dev/shm` where there is room, else in
    /// [`std::env::temp_dir`].
    pub(crate) fn new() -> io::Result<Self> {
        #[cfg(target_os = "linux")]
        {
            let memory = Path::new("/dev/shm");
            if has_room(memory)
                && let Ok(home) = Self::new_in(memory)
            {
                return Ok(home);
            }
        }
        Self::new_in(&std::env::temp_dir())
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    fn new_in(parent: &Path) -> io::Result<Self> {
        remove_stale(parent);
        loop {
            let path = parent.join(format!("{PREFIX}{:032x}", unguessable()));
            private_directory(&path)?;
            let locked = lock_file(&path, true);
            match locked {
                Ok(Some(alive)) => {
                    return Ok(Self {
                        path,
                        alive: Some(alive),
                        born: crate::fork::born(),
                    });
                }
                // Somebody cleaning up was faster than our lock.
                Ok(None) => {}
                Err(error) => {
                    let _ = fs::remove_dir_all(&path);
                    return Err(error);
                }
            }
        }
    }
}

impl Drop for TempHome {
    fn drop(&mut self) {
        // A forked child has a copy of this value, but the home is its parent's.
        if crate::fork::check(self.born).is_err() {
            return;
        }
        // Windows removes no file that is open.
        if cfg!(windows) {
            self.alive = None;
        }
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// Opens and locks the lock file of a home; `None` when its owner lives, or
/// when it is gone.
fn lock_file(home: &Path, create: bool) -> io::Result<Option<File>> {
    let path = home.join(LOCK);
    let file = match OpenOptions::new().write(true).create(create).open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    match file.try_lock() {
        Ok(()) => {}
        Err(fs::TryLockError::WouldBlock) => return Ok(None),
        Err(fs::TryLockError::Error(error)) => return Err(error),
    }
    // Between the opening and the lock somebody else may have had the lock and
    // removed everything: then this is the lock of a file without a name.
    Ok(path.exists().then_some(file))
}

/// Removes what dead processes of this user left behind. Never fails: it is a
/// service to others.
fn remove_stale(parent: &Path) {
    let Ok(entries) = fs::read_dir(parent) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        if name.to_str().is_some_and(|name| name.starts_with(PREFIX)) && is_ours(&entry.path()) {
            let _ = remove_if_stale(&entry.path());
        }
    }
}

fn remove_if_stale(home: &Path) -> io::Result<()> {
    // The lock is held until everything is gone.
    let held = lock_file(home, false)?;
    if held.is_some() {
        // The lock file goes last: without it the rest would look unfinished.
        for entry in fs::read_dir(home)?.flatten() {
            if entry.file_name() != LOCK {
                fs::remove_file(entry.path())?;
            }
        }
        return fs::remove_dir_all(home);
    }
    let age = SystemTime::now().duration_since(fs::metadata(home)?.modified()?);
    if age.is_ok_and(|age| age > UNFINISHED) && !home.join(LOCK).exists() {
        return fs::remove_dir_all(home);
    }
    Ok(())
}

/// A real directory of this very user's: others may put what they like into a
/// directory that everybody may write to.
#[cfg(unix)]
fn is_ours(path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let user = rustix::process::geteuid().as_raw();
    fs::symlink_metadata(path).is_ok_and(|meta| meta.is_dir() && meta.uid() == user)
}

#[cfg(not(unix))]
fn is_ours(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|meta| meta.is_dir())
}

fn private_directory(path: &Path) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

/// From the seeds that the standard library asks of the system for its maps.
fn unguessable() -> u128 {
    let half = || u128::from(RandomState::new().hash_one(std::process::id()));
    half() << 64 | half()
}

#[cfg(target_os = "linux")]
fn has_room(directory: &Path) -> bool {
    rustix::fs::statvfs(directory).is_ok_and(|stat| {
        stat.f_bavail
            .checked_mul(stat.f_frsize)
            .is_none_or(|bytes| bytes >= ROOM_ENOUGH)
    })
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_home_is_private_and_its_own_and_gone_with_its_owner() {
        let (one, two) = (TempHome::new().unwrap(), TempHome::new().unwrap());
        assert_ne!(one.path(), two.path());
        let mode = fs::metadata(one.path()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        fs::write(one.path().join("a.db"), "x").unwrap();
        let path = one.path().to_owned();
        drop(one);
        assert!(!path.exists());
        assert!(two.path().exists());
    }

    #[test]
    fn a_dead_owners_home_is_removed_and_a_living_owners_never() {
        let parent = TempHome::new().unwrap();
        let living = TempHome::new_in(parent.path()).unwrap();
        fs::write(living.path().join("a.db"), "x").unwrap();
        // What a killed process leaves: the files, and the lock let go.
        let dead = parent.path().join(format!("{PREFIX}dead"));
        private_directory(&dead).unwrap();
        fs::write(dead.join(LOCK), "").unwrap();
        fs::write(dead.join("a.db"), "x").unwrap();
        // What somebody is just making: no lock file yet.
        let newborn = parent.path().join(format!("{PREFIX}newborn"));
        private_directory(&newborn).unwrap();
        // What is none of ours.
        let foreign = parent.path().join("other");
        fs::create_dir(&foreign).unwrap();
        fs::write(foreign.join(LOCK), "").unwrap();

        let next = TempHome::new_in(parent.path()).unwrap();
        assert!(!dead.exists());
        for kept in [living.path(), &newborn, &foreign, next.path()] {
            assert!(kept.exists(), "{}", kept.display());
        }
        assert!(living.path().join("a.db").exists());
    }

    #[test]
    fn a_link_that_looks_like_a_home_is_not_followed() {
        let (parent, victim) = (TempHome::new().unwrap(), TempHome::new().unwrap());
        let precious = victim.path().join("precious");
        fs::create_dir(&precious).unwrap();
        fs::write(precious.join(LOCK), "").unwrap();
        let link = parent.path().join(format!("{PREFIX}link"));
        std::os::unix::fs::symlink(&precious, link).unwrap();
        drop(TempHome::new_in(parent.path()).unwrap());
        assert!(precious.join(LOCK).exists());
    }

    #[test]
    fn many_may_make_and_clean_at_the_same_moment() {
        let parent = TempHome::new().unwrap();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        let home = TempHome::new_in(parent.path()).unwrap();
                        fs::write(home.path().join("a.db"), "x").unwrap();
                        assert!(home.path().join(LOCK).exists());
                    }
                });
            }
        });
        let left: Vec<_> = fs::read_dir(parent.path())
            .unwrap()
            .flatten()
            .map(|entry| entry.file_name())
            .filter(|name| name != LOCK)
            .collect();
        assert!(left.is_empty(), "{left:?}");
    }
}
