//! The files of a database, read as bytes.
//!
//! Guarantees: files are opened for reading only and never through SQLite, whose
//! last connection to close would checkpoint and remove the log. This process
//! has no lock on them that closing could drop. Parsing is pure and takes
//! anything.

use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use onepen_lock::holders::beside;

use crate::named::regular;
use crate::words::name;

/// What `stat` tells of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    pub device: u64,
    pub inode: u64,
    pub len: u64,
    /// Permission bits.
    pub mode: u32,
    pub owner: u32,
    pub group: u32,
    pub names: u64,
}

impl Facts {
    fn of(meta: &Metadata) -> Self {
        Self {
            device: meta.dev(),
            inode: meta.ino(),
            len: meta.len(),
            mode: meta.mode() & 0o7777,
            owner: meta.uid(),
            group: meta.gid(),
            names: meta.nlink(),
        }
    }
}

/// The database and what SQLite keeps beside it.
#[derive(Clone, Debug)]
pub struct Files {
    /// Where all links lead.
    pub path: PathBuf,
    pub database: Facts,
    pub directory: Facts,
    pub header: Header,
    pub wal: Option<Facts>,
    pub shared_memory: Option<Facts>,
    pub journal: Option<Facts>,
    /// The journal has a transaction in it that was not finished.
    pub journal_is_hot: bool,
    /// A file system on which it must not lie.
    pub unfit: Option<String>,
    pub overlay: bool,
    /// What could not be looked at.
    pub unseen: Vec<String>,
}

impl Files {
    /// # Errors
    /// When there is no database to look at.
    pub fn look(path: &Path) -> Result<Self, String> {
        let cannot = |error: io::Error| format!("{}: {error}", name(path));
        let meta = regular(path)?;
        let path = fs::canonicalize(path).map_err(cannot)?;
        let mut unseen = Vec::new();
        let header = match read_first::<100>(&path) {
            Ok(bytes) => {
                Header::parse(&bytes).map_err(|what| format!("{}: {what}", name(&path)))?
            }
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                unseen.push(format!("what is in the database file ({error})"));
                Header::default()
            }
            Err(error) => return Err(cannot(error)),
        };
        let directory = path.parent().unwrap_or(Path::new("/"));
        let directory = fs::metadata(directory).map_err(cannot)?;
        let mut look = |ending: &str| match fs::symlink_metadata(beside(&path, ending)) {
            Ok(meta) => Some(Facts::of(&meta)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                unseen.push(format!("the file {ending} ({error})"));
                None
            }
        };
        let (wal, shared_memory, journal) = (look("-wal"), look("-shm"), look("-journal"));
        let journal_is_hot = match journal {
            Some(facts) if facts.len > 0 => match read_first::<8>(&beside(&path, "-journal")) {
                Ok(bytes) => bytes == JOURNAL_MAGIC,
                Err(error) => {
                    unseen.push(format!("what is in the file -journal ({error})"));
                    false
                }
            },
            _ => false,
        };
        let unfit = onepen_lock::systems::unfit(&path).unwrap_or_else(|error| {
            unseen.push(format!("the file system ({error})"));
            None
        });
        let overlay = onepen_lock::systems::is_overlay(&path).unwrap_or(false);
        Ok(Self {
            database: Facts::of(&meta),
            directory: Facts::of(&directory),
            header,
            wal,
            shared_memory,
            journal,
            journal_is_hot,
            unfit,
            overlay,
            unseen,
            path,
        })
    }
}

/// <https://www.sqlite.org/fileformat.html#the_rollback_journal>
const JOURNAL_MAGIC: [u8; 8] = [0xd9, 0xd5, 0x05, 0xf9, 0x20, 0xa1, 0x63, 0xd7];

/// Opens a regular file for reading. Whoever may write to the directory could put
/// a pipe or a link in its place, and a pipe would be waited for.
///
/// # Errors
/// Also when it is a link, or no regular file.
pub fn open(path: &Path) -> io::Result<File> {
    let file = File::options()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOFOLLOW)
        .open(path)?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::other("no regular file")),
    }
}

/// The first bytes of a file, zeros where it is shorter.
fn read_first<const N: usize>(path: &Path) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    let mut file = open(path)?.take(N as u64);
    let mut filled = 0;
    loop {
        match file.read(&mut bytes[filled..])? {
            0 => return Ok(bytes),
            more => filled += more,
        }
    }
}

/// What the beginning of the database file says
/// (<https://www.sqlite.org/fileformat.html#the_database_header>).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// 0: the file is empty, or could not be read.
    pub page_size: u32,
    pub wal: bool,
    /// Counts transactions, over a rollback journal.
    pub changes: u32,
}

impl Header {
    /// Reads it again.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn read(database: &Path) -> io::Result<Self> {
        let bytes = read_first::<100>(database)?;
        Self::parse(&bytes).map_err(io::Error::other)
    }

    fn parse(bytes: &[u8; 100]) -> Result<Self, &'static str> {
        if bytes.iter().all(|byte| *byte == 0) {
            return Ok(Self::default()); // SQLite makes an empty file at open
        }
        if !bytes.starts_with(b"SQLite format 3\0") {
            return Err("is not a SQLite database, or it is encrypted");
        }
        Ok(Self {
            page_size: page_size(u16::from_be_bytes([bytes[16], bytes[17]])),
            wal: bytes[18] == 2,
            changes: u32::from_be_bytes([bytes[24], bytes[25], bytes[26], bytes[27]]),
        })
    }
}

fn page_size(field: u16) -> u32 {
    match field {
        1 => 65_536,
        other => other.into(),
    }
}

/// How far the log is, from the beginning of the `-shm` file
/// (<https://www.sqlite.org/walformat.html#the_wal_index_file_format>).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Log {
    /// Counts transactions.
    pub changes: u32,
    pub page_size: u32,
    /// Frames in the log.
    pub frames: u32,
    /// How many of them have been copied into the database.
    pub copied: u32,
    /// Where each snapshot ends, by read mark.
    pub marks: [u32; 5],
    /// Changes when the log begins anew.
    pub salt: [u32; 2],
}

impl Log {
    /// Reads it while others write to it; `None` when it says nothing.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn read(database: &Path) -> io::Result<Option<Self>> {
        let path = beside(database, "-shm");
        // Two copies, written one after the other: equal when nobody was between.
        for _ in 0..8 {
            if let Some(log) = Self::parse(&read_first::<136>(&path)?) {
                return Ok(Some(log));
            }
        }
        Ok(None)
    }

    fn parse(bytes: &[u8; 136]) -> Option<Self> {
        let word = |at: usize| {
            let word = [bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]];
            u32::from_ne_bytes(word)
        };
        let initialised = bytes[12] == 1;
        if bytes[..48] != bytes[48..96] || word(0) != 3_007_000 || !initialised {
            return None;
        }
        Some(Self {
            changes: word(8),
            page_size: page_size(u16::from_ne_bytes([bytes[14], bytes[15]])),
            frames: word(16),
            copied: word(96).min(word(16)),
            marks: std::array::from_fn(|mark| word(100 + 4 * mark)),
            salt: [word(32), word(36)],
        })
    }

    /// Where the snapshot of whoever shares this mark ends.
    pub fn ends(&self, mark: u8) -> u32 {
        match self.marks.get(usize::from(mark)) {
            // Mark 0 reads the database alone, and is not used otherwise.
            Some(_) if mark == 0 => 0,
            Some(frame) => (*frame).min(self.frames),
            None => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index() -> [u8; 136] {
        let mut bytes = [0; 136];
        let mut put = |at: usize, word: u32| {
            bytes[at..at + 4].copy_from_slice(&word.to_ne_bytes());
        };
        for copy in [0, 48] {
            put(copy, 3_007_000);
            put(copy + 8, 7);
            put(copy + 16, 100);
            put(copy + 32, 1);
            put(copy + 36, 2);
        }
        put(96, 60);
        for (mark, frame) in [0, 100, 40, u32::MAX, u32::MAX].into_iter().enumerate() {
            put(100 + 4 * mark, frame);
        }
        for copy in [0, 48] {
            bytes[copy + 12] = 1;
            bytes[copy + 14..copy + 16].copy_from_slice(&4096u16.to_ne_bytes());
        }
        bytes
    }

    #[test]
    fn the_log_is_read_from_the_shared_memory() {
        let log = Log::parse(&index()).unwrap();
        assert_eq!((log.frames, log.copied, log.changes), (100, 60, 7));
        assert_eq!(log.page_size, 4096);
        assert_eq!((log.ends(0), log.ends(1), log.ends(2)), (0, 100, 40));
        assert_eq!(log.ends(3), 100, "a mark that is not used");
        assert_eq!(log.ends(200), 0);
    }

    #[test]
    fn a_log_that_is_being_written_or_is_none_says_nothing() {
        for at in [0, 12, 16, 50, 95] {
            let mut torn = index();
            torn[at] ^= 0xff;
            assert_eq!(Log::parse(&torn), None, "{at}");
        }
        assert_eq!(Log::parse(&[0; 136]), None);
        assert_eq!(Log::parse(&[0xff; 136]), None);
        // More copied than there is: what a restart leaves for an instant.
        let mut odd = index();
        odd[96..100].copy_from_slice(&u32::MAX.to_ne_bytes());
        assert_eq!(Log::parse(&odd).unwrap().copied, 100);
    }

    #[test]
    fn a_header_says_the_page_size_and_the_journal() {
        let mut bytes = [0; 100];
        assert_eq!(Header::parse(&bytes), Ok(Header::default()));
        bytes[..16].copy_from_slice(b"SQLite format 3\0");
        bytes[16..20].copy_from_slice(&[0x10, 0, 2, 2]);
        bytes[27] = 9;
        let header = Header::parse(&bytes).unwrap();
        assert_eq!(
            (header.page_size, header.wal, header.changes),
            (4096, true, 9)
        );
        bytes[16..20].copy_from_slice(&[0, 1, 1, 1]);
        let header = Header::parse(&bytes).unwrap();
        assert_eq!((header.page_size, header.wal), (65_536, false));
        assert!(Header::parse(&[1; 100]).is_err());
    }
}
