//! The file of events, from the side that reads it.
//!
//! Guarantees: what it reads was written by other programs and is taken as such
//! (any bytes may stand there); a record that is being written is left until it is
//! done, or until its process has gone. The protocol: `preload/records.h`.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{Ordering, fence};

use crate::LIBRARY;
use crate::record::{Record, SIZE};

const MAGIC: &[u8; 16] = b"onepen-trace/2\0\0";
const HEADER: u64 = 4096;
const PROCESSES: u64 = 2048;
const PROCESS: u64 = 256;
const DATABASES: u64 = 256;
const DATABASE: u64 = 1024;
const SLOTS: u64 = 8192;

const FREE: u32 = 0;
const TAKEN: u32 = 1;
const DONE: u32 = 2;

/// Looks at a slot that was asked for and is still free: its writer was
/// interrupted before it took it, or found it taken.
const PATIENCE: u8 = 50;

/// A process that asked for locks, or had one that was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its number.
    pub pid: u32,
    /// Whether it is one of those that were traced.
    pub is_traced: bool,
    /// When it was first noted, on the monotonic clock.
    pub since: u64,
    /// Its calls for SQLite's locks.
    pub calls: u64,
    /// Refusals that SQLite goes around by itself: a read mark in use, a
    /// checkpoint that somebody else is at.
    pub around: u64,
    /// The beginning of its command line: arguments, each ended by a zero byte.
    /// Arguments hold passwords; show what
    /// `onepen_lock::holders::Process::command_of` leaves of it.
    pub arguments: Vec<u8>,
}

/// The library and the file of events, in a directory.
#[derive(Debug)]
pub struct Events {
    file: File,
    library: PathBuf,
    /// Claims that were looked at.
    seen: u32,
    /// Slots to look at again, and how often they were free.
    open: BTreeMap<u64, u8>,
}

impl Events {
    /// Writes both into a directory, which should be nobody else's.
    ///
    /// # Errors
    /// When they cannot be written; all the room that the file of events will ever
    /// need is written now, so that no traced program can fill the disk.
    pub fn create(home: &Path) -> io::Result<Self> {
        let new = |name: &str, mode| {
            let path = home.join(name);
            let mut options = OpenOptions::new();
            options.read(true).write(true).create_new(true).mode(mode);
            options.open(&path).map(|file| (file, path))
        };
        let (mut so, library) = new("libonepen_trace.so", 0o500)?;
        so.write_all(LIBRARY)?;
        let (mut file, _) = new("events", 0o600)?;
        let size = HEADER + PROCESSES * PROCESS + DATABASES * DATABASE + SLOTS * SIZE as u64;
        let mut all = vec![0; usize::try_from(size).map_err(io::Error::other)?];
        all[..MAGIC.len()].copy_from_slice(MAGIC);
        file.write_all(&all)?;
        Ok(Self {
            file,
            library,
            seen: 0,
            open: BTreeMap::new(),
        })
    }

    /// The file to be preloaded.
    pub fn library(&self) -> &Path {
        &self.library
    }

    /// Removes both files; who has mapped them goes on.
    ///
    /// # Errors
    /// When they cannot be removed.
    pub fn remove(&self) -> io::Result<()> {
        fs::remove_file(&self.library)?;
        fs::remove_file(self.library.with_file_name("events"))
    }

    /// Gives `take` every record that is done, or whose process is gone, and frees
    /// its slot. Says whether there was any.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn collect(
        &mut self,
        is_alive: impl Fn(u32) -> bool,
        mut take: impl FnMut(Record),
    ) -> io::Result<bool> {
        let claims = self.number(16)?;
        let new = claims.wrapping_sub(self.seen);
        for n in 0..u64::from(new).min(SLOTS) {
            // From the last: after more than a round the first are the same.
            let claim = u64::from(claims.wrapping_sub(1)).wrapping_sub(n);
            self.open.entry(claim % SLOTS).or_insert(0);
        }
        self.seen = claims;
        let mut any = false;
        let mut over = Vec::new();
        for (&slot, free) in &mut self.open {
            match Self::look(&self.file, slot, &is_alive)? {
                Look::Record(record) => {
                    any = true;
                    take(*record);
                    over.push(slot);
                }
                Look::Free if *free >= PATIENCE => over.push(slot),
                Look::Free => *free += 1,
                Look::Busy => *free = 0,
            }
        }
        for slot in over {
            self.open.remove(&slot);
        }
        Ok(any)
    }

    /// The same of all slots, done or not, when nobody is expected to write.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn finish(&mut self, mut take: impl FnMut(Record)) -> io::Result<()> {
        for slot in 0..SLOTS {
            if let Look::Record(record) = Self::look(&self.file, slot, &|_| false)? {
                take(*record);
            }
        }
        Ok(())
    }

    fn look(file: &File, slot: u64, is_alive: &impl Fn(u32) -> bool) -> io::Result<Look> {
        let at = HEADER + PROCESSES * PROCESS + DATABASES * DATABASE + slot * SIZE as u64;
        let mut start = [0; 8];
        file.read_exact_at(&mut start, at)?;
        let state = u32::from_ne_bytes(start[..4].try_into().expect("four"));
        let pid = u32::from_ne_bytes(start[4..].try_into().expect("four"));
        match state {
            DONE => {}
            TAKEN if pid != 0 && !is_alive(pid) => {}
            TAKEN => return Ok(Look::Busy),
            _ => return Ok(Look::Free),
        }
        // What was written before the state is read after it.
        fence(Ordering::SeqCst);
        let mut bytes = [0; SIZE];
        file.read_exact_at(&mut bytes, at)?;
        file.write_all_at(&FREE.to_ne_bytes(), at)?;
        Ok(Look::Record(Box::new(Record::parse(&bytes))))
    }

    /// Records for which there was no room.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn dropped(&self) -> io::Result<u32> {
        self.number(20)
    }

    /// Programs that were started with the library in them.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn loaded(&self) -> io::Result<u32> {
        self.number(24)
    }

    /// Who asked for locks, and whom of the others they met.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn processes(&self) -> io::Result<Vec<Process>> {
        let mut all = vec![0; (PROCESSES * PROCESS) as usize];
        self.file.read_exact_at(&mut all, HEADER)?;
        let entries = all.chunks_exact(PROCESS as usize);
        Ok(entries.filter_map(process_of).collect())
    }

    /// The path of a database; nothing when its table was full.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn database(&self, number: u32) -> io::Result<Option<PathBuf>> {
        use std::os::unix::ffi::OsStringExt as _;
        let number = u64::from(number);
        if number >= DATABASES {
            return Ok(None);
        }
        let mut entry = vec![0; DATABASE as usize];
        let at = HEADER + PROCESSES * PROCESS + number * DATABASE;
        self.file.read_exact_at(&mut entry, at)?;
        let len = u32::from_ne_bytes(entry[4..8].try_into().expect("four")) as usize;
        let path = entry.get(8..8 + len).unwrap_or_default().to_vec();
        Ok(Some(path)
            .filter(|path| !path.is_empty())
            .map(|path| std::ffi::OsString::from_vec(path).into()))
    }

    fn number(&self, at: u64) -> io::Result<u32> {
        let mut bytes = [0; 4];
        self.file.read_exact_at(&mut bytes, at)?;
        Ok(u32::from_ne_bytes(bytes))
    }
}

enum Look {
    Free,
    Busy,
    Record(Box<Record>),
}

fn process_of(entry: &[u8]) -> Option<Process> {
    let u32_at = |at: usize| u32::from_ne_bytes(entry[at..at + 4].try_into().expect("four"));
    let u64_at = |at: usize| u64::from_ne_bytes(entry[at..at + 8].try_into().expect("eight"));
    (u32_at(0) == DONE).then(|| Process {
        pid: u32_at(4),
        is_traced: u32_at(8) == 1,
        since: u64_at(16),
        calls: u64_at(24),
        around: u64_at(32),
        arguments: entry[56..]
            .iter()
            .take(u32_at(12) as usize)
            .copied()
            .collect(),
    })
}
