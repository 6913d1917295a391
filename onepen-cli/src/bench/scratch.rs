//! Where the databases of a run live: a directory that is gone afterwards.
//!
//! Guarantees: every way of every round begins with a byte-for-byte equal
//! file, already on disk; the user's own database is only ever opened
//! read-only, copied through SQLite's backup interface, and left without a
//! new file beside it.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rusqlite::{Connection, OpenFlags, backup::Backup};

use super::sql::{Fault, Session, Sql};
use super::ways::{Journal, OnConnection, set_journal};
use crate::named::regular;
use crate::words::name;

/// The directory of one run.
pub struct Scratch {
    dir: tempfile::TempDir,
    file_system: String,
}

impl Scratch {
    /// Makes the directory: where the user says, else here, else where
    /// temporary files belong.
    pub fn new(wanted: Option<&Path>) -> Result<Self, String> {
        let make = |parent: &Path| {
            tempfile::Builder::new()
                .prefix(".onepen-scratch-")
                .tempdir_in(std::path::absolute(parent)?)
        };
        let dir = match wanted {
            Some(parent) => make(parent).map_err(|error| {
                format!(
                    "cannot make a scratch directory in {}: {error}; choose another place with --dir",
                    name(parent)
                )
            })?,
            None => {
                let here = Path::new(".");
                let real_here = !is_memory(&file_system(here));
                let first = if real_here {
                    make(here)
                } else {
                    make(&std::env::temp_dir())
                };
                first
                    .or_else(|_| make(&std::env::temp_dir()))
                    .map_err(|error| {
                        format!("cannot make a scratch directory, here or among the temporary files: {error}; choose one with --dir")
                    })?
            }
        };
        let file_system = file_system(dir.path());
        Ok(Self { dir, file_system })
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The kind of file system, as the operating system calls it.
    pub fn file_system(&self) -> &str {
        &self.file_system
    }

    /// Whether nothing here ever reaches a disk, so that a flush is free.
    pub fn is_memory(&self) -> bool {
        is_memory(&self.file_system)
    }

    /// The directory in which it lies.
    pub fn parent(&self) -> PathBuf {
        let parent = self.dir.path().parent().unwrap_or(self.dir.path());
        parent.canonicalize().unwrap_or_else(|_| parent.to_owned())
    }

    fn template(&self) -> PathBuf {
        self.dir.path().join("template.db")
    }

    /// Makes the starting state from statements.
    pub fn build(&self, load: &[Sql]) -> Result<(), Fault> {
        let connection = create(&self.template())?;
        // Nobody needs this file after a crash.
        connection.execute_batch("PRAGMA synchronous = OFF; BEGIN")?;
        for sql in load {
            OnConnection(&connection).execute(sql, &[])?;
        }
        connection.execute_batch("COMMIT; ANALYZE")?;
        Ok(())
    }

    /// Makes the starting state from the user's database.
    pub fn copy_of(&self, original: &Path) -> Result<(), String> {
        regular(original).map_err(|why| format!("cannot copy {why}"))?;
        copy(original, &self.template())
            .map_err(|error| format!("cannot copy {}: {error}", name(original)))
    }

    /// A fresh database in the starting state.
    pub fn fresh(&self, journal: Journal) -> Result<PathBuf, Fault> {
        let path = self.dir.path().join("scratch.db");
        let io = |error: io::Error| {
            Fault::Workload(format!("cannot prepare the scratch database: {error}"))
        };
        for suffix in ["", "-wal", "-shm", "-journal"] {
            let old = self.dir.path().join(format!("scratch.db{suffix}"));
            match fs::remove_file(old) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io(error)),
                _ => {}
            }
        }
        fs::copy(self.template(), &path).map_err(io)?;
        set_journal(&path, journal)?;
        // Else the first commit measured would carry the whole copy to the disk.
        File::open(&path)
            .and_then(|file| file.sync_all())
            .map_err(io)?;
        Ok(path)
    }

    /// Leaves it where it is.
    pub fn keep(self) -> PathBuf {
        self.dir.keep()
    }

    /// Removes it; an error is worth telling, no more.
    pub fn remove(self) -> io::Result<()> {
        self.dir.close()
    }
}

/// Copies a database without writing to it or beside it. A path is a path, never a
/// URI: SQLite is built to take one that begins with `file:` for a URI, and so it is
/// given absolute ones only.
///
/// Opening a WAL database read-only makes its `-wal` and `-shm` files when
/// there are none, and a reader cannot remove them again. When there is no
/// `-wal`, nobody has the file open in WAL mode: then it is read as immutable,
/// and whether that was true all the time is checked afterwards.
fn copy(original: &Path, to: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let mut header = [0; 20];
    let read = File::open(original)?.read(&mut header)?;
    // Bytes 18 and 19 are 2 in WAL mode (https://sqlite.org/fileformat.html).
    let is_wal = read == header.len() && header[18..] == [2, 2];
    if is_wal {
        for _ in 0..3 {
            let Some(before) = at_rest(original)? else {
                break;
            };
            copy_pages(original, to, true)?;
            if at_rest(original)?.as_ref() == Some(&before) {
                return Ok(());
            }
            fs::remove_file(to)?;
        }
    }
    copy_pages(original, to, false)
}

/// What tells whether a file was written; `None` when somebody has it open.
fn at_rest(original: &Path) -> io::Result<Option<(u64, SystemTime)>> {
    let mut wal = original.as_os_str().to_owned();
    wal.push("-wal");
    if fs::exists(wal)? {
        return Ok(None);
    }
    let metadata = fs::metadata(original)?;
    Ok(Some((metadata.len(), metadata.modified()?)))
}

fn copy_pages(from: &Path, to: &Path, immutable: bool) -> Result<(), Box<dyn std::error::Error>> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let from = from.canonicalize()?;
    let source = if immutable {
        Connection::open_with_flags(
            format!("file:{}?immutable=1", percent_encoded(&from)),
            flags | OpenFlags::SQLITE_OPEN_URI,
        )?
    } else {
        Connection::open_with_flags(&from, flags)?
    };
    source.busy_timeout(Duration::from_secs(5))?;
    let mut target = create(to)?;
    Backup::new(&source, &mut target)?.run_to_completion(1_024, Duration::ZERO, None)?;
    Ok(())
}

/// A new database.
fn create(path: &Path) -> rusqlite::Result<Connection> {
    Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_CREATE
            | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )
}

fn percent_encoded(path: &Path) -> String {
    path.as_os_str()
        .as_encoded_bytes()
        .iter()
        .map(|&byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'_' | b'-' => {
                char::from(byte).to_string()
            }
            other => format!("%{other:02X}"),
        })
        .collect()
}

fn is_memory(file_system: &str) -> bool {
    matches!(file_system, "tmpfs" | "ramfs")
}

/// The type of the file system a path is on.
#[cfg(target_os = "linux")]
fn file_system(path: &Path) -> String {
    let found = path.canonicalize().and_then(|path| {
        let mounts = fs::read_to_string("/proc/self/mountinfo")?;
        Ok(innermost_mount(&mounts, &path))
    });
    found.ok().flatten().unwrap_or_else(|| "unknown".to_owned())
}

#[cfg(not(target_os = "linux"))]
fn file_system(_path: &Path) -> String {
    "unknown".to_owned()
}

/// The type of the last mount that has the longest matching mount point
/// (proc_pid_mountinfo(5): the point is field 5, the type follows ` - `).
#[cfg(target_os = "linux")]
fn innermost_mount(mounts: &str, path: &Path) -> Option<String> {
    mounts
        .lines()
        .filter_map(|line| {
            let point = line.split(' ').nth(4)?.replace("\\040", " ");
            let kind = line.split_once(" - ")?.1.split(' ').next()?;
            path.starts_with(&point).then_some((point.len(), kind))
        })
        .max_by_key(|&(length, _)| length)
        .map(|(_, kind)| kind.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    fn wal_database(dir: &Path) -> PathBuf {
        let path = dir.join("a b?.db");
        Connection::open(&path)
            .unwrap()
            .execute_batch(
                "PRAGMA journal_mode = WAL; CREATE TABLE t (n); INSERT INTO t VALUES (1)",
            )
            .unwrap();
        path
    }

    fn rows(path: &Path) -> i64 {
        let connection = Connection::open(path).unwrap();
        connection
            .query_row("SELECT count(*) FROM t", (), |row| row.get(0))
            .unwrap()
    }

    #[test]
    fn a_copy_leaves_the_original_as_it_was_and_nothing_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let original = wal_database(dir.path());
        let bytes = fs::read(&original).unwrap();
        let scratch = Scratch::new(Some(&std::env::temp_dir())).unwrap();
        scratch.copy_of(&original).unwrap();
        assert_eq!(fs::read(&original).unwrap(), bytes);
        assert_eq!(names(dir.path()), ["a b?.db"]);
        assert_eq!(rows(&scratch.fresh(Journal::Rollback).unwrap()), 1);
    }

    #[test]
    fn a_copy_has_what_is_only_in_the_wal() {
        let dir = tempfile::tempdir().unwrap();
        let original = wal_database(dir.path());
        let writer = Connection::open(&original).unwrap();
        writer.execute("INSERT INTO t VALUES (2)", ()).unwrap();
        let scratch = Scratch::new(Some(&std::env::temp_dir())).unwrap();
        scratch.copy_of(&original).unwrap();
        assert_eq!(rows(&scratch.fresh(Journal::Wal).unwrap()), 2);
    }

    #[test]
    fn every_round_begins_with_the_same_file() {
        let scratch = Scratch::new(None).unwrap();
        scratch
            .build(&[
                Sql::plain("CREATE TABLE t (n)"),
                Sql::plain("INSERT INTO t VALUES (1)"),
            ])
            .unwrap();
        for journal in [Journal::Wal, Journal::Rollback, Journal::Wal] {
            let path = scratch.fresh(journal).unwrap();
            assert_eq!(rows(&path), 1);
            let connection = Connection::open(&path).unwrap();
            connection.execute("INSERT INTO t VALUES (2)", ()).unwrap();
            // As a process that was killed: the journal stays behind.
            std::mem::forget(connection);
        }
    }

    #[test]
    fn the_scratch_directory_is_gone_afterwards() {
        let scratch = Scratch::new(None).unwrap();
        let path = scratch.dir.path().to_owned();
        assert!(path.exists());
        scratch.remove().unwrap();
        assert!(!path.exists());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_file_system_is_that_of_the_innermost_mount() {
        let mounts = "22 1 254:0 / / rw - ext4 /dev/vda rw\n\
                      30 22 0:26 / /dev/shm rw shared:4 - tmpfs tmpfs rw\n\
                      31 22 0:27 / /mnt/my\\040disk rw - xfs /dev/vdb rw\n";
        let of = |path: &str| innermost_mount(mounts, Path::new(path)).unwrap();
        assert_eq!(of("/home/x"), "ext4");
        assert_eq!(of("/dev/shm/x"), "tmpfs");
        assert_eq!(of("/mnt/my disk/x"), "xfs");
        assert!(is_memory("tmpfs") && !is_memory("ext4"));
    }
}
