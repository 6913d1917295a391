//! Looking: `stat` of the files, the kernel's list of locks, the processes in it.
//!
//! Guarantees: no file of the database is opened; nothing outside `/proc` is
//! read; a part that could not be read is in [`Look::unseen`].

use std::collections::BTreeMap;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::process::Process;
use super::table::{self, Line, Owner};
use super::{Cannot, Held, Holder, Look, Unseen};

/// A file of the database, as the kernel's list calls it.
struct Place {
    device: (u32, u32),
    inode: u64,
    /// The device of the file system itself. Of files on btrfs and some overlays
    /// `stat` tells another one, and the list of locks this one.
    mount: Option<(u32, u32)>,
}

impl Place {
    fn of(path: &Path, meta: &Metadata) -> Self {
        Self {
            device: (rustix::fs::major(meta.dev()), rustix::fs::minor(meta.dev())),
            inode: meta.ino(),
            mount: mount_device(path),
        }
    }

    fn is(&self, line: &Line) -> bool {
        line.inode == self.inode && (line.device == self.device || Some(line.device) == self.mount)
    }
}

/// The files whose locks matter. A missing `-shm` is nobody in write-ahead mode.
pub(super) struct Places {
    database: Place,
    shared_memory: Option<Place>,
}

impl Places {
    pub(super) fn of(path: &Path) -> Result<Self, Cannot> {
        // SQLite follows symbolic links too, and names the other files after
        // where they lead (`unixFullPathname`).
        let cannot = |error| Cannot::Database(path.to_owned(), error);
        let path = fs::canonicalize(path).map_err(cannot)?;
        let meta = fs::metadata(&path).map_err(cannot)?;
        if !meta.is_file() {
            return Err(cannot(io::Error::other("not a regular file")));
        }
        let beside = super::beside(&path, "-shm");
        let shared_memory = match fs::metadata(&beside) {
            Ok(meta) => Some(Place::of(&beside, &meta)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(Cannot::Database(beside, error)),
        };
        Ok(Self {
            database: Place::of(&path, &meta),
            shared_memory,
        })
    }

    /// Adds what `line` says to what its owner holds. `false` when it is about
    /// another file.
    fn tell(&self, line: &Line, held: &mut Held) -> bool {
        if self.database.is(line) {
            held.state = held.state.max(line.bytes.of_database());
        } else if self.shared_memory.as_ref().is_some_and(|it| it.is(line)) {
            held.in_wal |= line.bytes.is_open_in_wal();
            held.locks.extend(line.bytes.of_shared_memory());
        } else {
            return false;
        }
        true
    }

    fn is_about(&self, line: &Line) -> bool {
        self.tell(line, &mut Held::default())
    }
}

/// Looks once.
pub(super) fn look(path: &Path) -> Result<Look, Cannot> {
    let places = Places::of(path)?;
    let table = table::read(|line| !line.waits && places.is_about(line)).map_err(Cannot::Locks)?;
    let mut by_process: BTreeMap<u32, Held> = BTreeMap::new();
    let mut descriptions = Vec::new();
    for line in table {
        match line.owner {
            // The kernel's word for somebody in another namespace of processes.
            Owner::Process(0) => descriptions.push(line),
            Owner::Process(pid) => {
                places.tell(&line, by_process.entry(pid).or_default());
            }
            Owner::Description => descriptions.push(line),
        }
    }
    let mut unseen = Vec::new();
    let mut holders = Vec::new();
    if !descriptions.is_empty() {
        owners_of_descriptions(&places, &mut descriptions, &mut by_process, &mut unseen);
        let mut nobodys = Held::default();
        for line in &descriptions {
            places.tell(line, &mut nobodys);
        }
        if !descriptions.is_empty() {
            holders.push(Holder {
                process: None,
                held: nobodys.tidy(),
            });
        }
    }
    for (pid, held) in by_process {
        let process = Process::look(pid).unwrap_or_else(|error| {
            unseen.push(Unseen::Process {
                pid,
                why: error.kind(),
            });
            Process::unseen(pid)
        });
        holders.push(Holder {
            process: Some(process),
            held: held.tidy(),
        });
    }
    // Writers first, then readers, then who merely has it open.
    holders.sort_by_key(|holder| std::cmp::Reverse(holder.held.weight()));
    Ok(Look { holders, unseen })
}

/// Finds the processes that have the descriptors with these locks, and takes
/// the locks whose owners were found off the list.
fn owners_of_descriptions(
    places: &Places,
    lines: &mut Vec<Line>,
    by_process: &mut BTreeMap<u32, Held>,
    unseen: &mut Vec<Unseen>,
) {
    let mut refused = 0;
    for pid in processes() {
        match locks_of(pid) {
            Ok(found) => {
                for line in found {
                    let ours = matches!(line.owner, Owner::Description | Owner::Process(0));
                    if ours && places.is_about(&line) {
                        let held = by_process.entry(pid).or_default();
                        held.by_description = true;
                        places.tell(&line, held);
                        lines
                            .retain(|other| (other.inode, other.bytes) != (line.inode, line.bytes));
                    }
                }
            }
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => refused += 1,
            Err(_) => {} // it has ended
        }
    }
    if refused > 0 && !lines.is_empty() {
        unseen.push(Unseen::Descriptors { processes: refused });
    }
}

/// Every process this one can see.
pub(super) fn processes() -> impl Iterator<Item = u32> {
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

/// The locks that were taken through a process's descriptors.
fn locks_of(pid: u32) -> io::Result<Vec<Line>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fdinfo"))? {
        let path: PathBuf = entry?.path();
        match fs::read(&path) {
            Ok(text) => found.extend(Line::all(&String::from_utf8_lossy(&text))),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Err(error),
            Err(_) => {} // closed meanwhile
        }
    }
    Ok(found)
}

/// The device number of the mount `path` lies on.
fn mount_device(path: &Path) -> Option<(u32, u32)> {
    use rustix::fs::{AtFlags, CWD, StatxFlags, statx};
    let found = statx(CWD, path, AtFlags::empty(), StatxFlags::MNT_ID).ok()?;
    if found.stx_mask & StatxFlags::MNT_ID.bits() == 0 {
        return None; // before Linux 5.8
    }
    let mounts = fs::read("/proc/self/mountinfo").ok()?;
    device_of_mount(&String::from_utf8_lossy(&mounts), found.stx_mnt_id)
}

/// Its line in `/proc/self/mountinfo` (`man 5 proc_pid_mountinfo`).
fn device_of_mount(mountinfo: &str, id: u64) -> Option<(u32, u32)> {
    mountinfo.lines().find_map(|line| {
        let mut words = line.split(' ');
        if words.next()?.parse() != Ok(id) {
            return None;
        }
        let (major, minor) = words.nth(1)?.split_once(':')?;
        Some((major.parse().ok()?, minor.parse().ok()?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_is_found_by_its_number() {
        let mounts = "22 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw\n\
                      220 22 0:51 /sub /mnt rw - btrfs /dev/vdb rw\n9 9\n\n7 1 x:y / /odd\n";
        assert_eq!(device_of_mount(mounts, 22), Some((254, 1)));
        assert_eq!(device_of_mount(mounts, 220), Some((0, 51)));
        for none in [2, 7, 9] {
            assert_eq!(device_of_mount(mounts, none), None);
        }
    }

    #[test]
    fn a_lock_is_known_by_its_file_on_either_device() {
        let line = |text| Line::parse(text).unwrap();
        let place = Place {
            device: (0, 40),
            inode: 7,
            mount: Some((0, 39)),
        };
        assert!(place.is(&line("1: POSIX ADVISORY WRITE 5 00:28:7 120 120")));
        assert!(place.is(&line("1: POSIX ADVISORY WRITE 5 00:27:7 120 120")));
        assert!(!place.is(&line("1: POSIX ADVISORY WRITE 5 00:29:7 120 120")));
        assert!(!place.is(&line("1: POSIX ADVISORY WRITE 5 00:28:8 120 120")));
    }
}
