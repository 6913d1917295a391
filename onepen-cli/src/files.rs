//! The files of a database, read as bytes.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use onepen_lock::holders::beside;

fn read_first<const N: usize>(path: &Path) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    let mut file = File::open(path)?.take(N as u64);
    let mut filled = 0;
    loop {
        match file.read(&mut bytes[filled..])? {
            0 => return Ok(bytes),
            more => filled += more,
        }
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
