//! One recording of several processes.
//!
//! Guarantees: what processes that take part do to the files, and what they were
//! told, stands in one order, and it is the order in which it happened: a recorded
//! call is made, and its line written, while the journal's lock is held, which only
//! one process has at a time. A process that is killed has written what it did; if
//! it is killed between a call and its line the recording does not fit the files
//! when it ends (`Recording::finish`).
//!
//! It is a file somewhere else than the recorded ones. Every process reads what the
//! others have added before it adds anything.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use crate::recorder::{Event, Name};
use crate::told::Word;

pub struct Journal {
    file: File,
    /// Up to here this process knows it.
    read: u64,
}

impl Journal {
    /// The journal at `path`, made if there is none.
    pub fn open(path: &Path) -> io::Result<Self> {
        let mut options = File::options();
        let file = (options.read(true).write(true).create(true).truncate(false)).open(path)?;
        Ok(Self { file, read: 0 })
    }

    /// Has it for this process alone, and what others have added.
    pub fn lock(&mut self) -> io::Result<Vec<Event>> {
        self.file.lock()?;
        let length = self.file.metadata()?.len();
        let mut bytes = vec![0; (length - self.read) as usize];
        self.file.read_exact_at(&mut bytes, self.read)?;
        let mut rest = &*bytes;
        let mut added = Vec::new();
        // A line that is not whole is of somebody who was killed, and is written over.
        while let Some((event, used)) = whole(rest) {
            added.push(event?);
            self.read += used as u64;
            rest = &rest[used..];
        }
        Ok(added)
    }

    /// Adds what this process did, and lets the others go on.
    pub fn unlock(&mut self, new: &[Event]) -> io::Result<()> {
        let mut bytes = Vec::new();
        for event in new {
            let mut line = Vec::new();
            write(event, &mut line);
            bytes.extend_from_slice(&(line.len() as u64).to_le_bytes());
            bytes.append(&mut line);
        }
        self.file.write_all_at(&bytes, self.read)?;
        self.read += bytes.len() as u64;
        self.file.unlock()
    }
}

/// The first event, if it is whole, and how long it is.
fn whole(bytes: &[u8]) -> Option<(io::Result<Event>, usize)> {
    let (length, rest) = bytes.split_first_chunk::<8>()?;
    let length = u64::from_le_bytes(*length) as usize;
    Some((read(&mut rest.get(..length)?), length + 8))
}

fn write(event: &Event, to: &mut Vec<u8>) {
    let mut words = |kind: u8, words: &[u64], name: &str, bytes: &[u8]| {
        to.push(kind);
        for word in words {
            to.extend_from_slice(&word.to_le_bytes());
        }
        to.extend_from_slice(&(name.len() as u64).to_le_bytes());
        to.extend_from_slice(name.as_bytes());
        to.extend_from_slice(bytes);
    };
    match event {
        Event::Named(name, inode) => words(0, &[*inode], name, &[]),
        Event::Unnamed(name, inode) => words(1, &[*inode], name, &[]),
        Event::Renamed { from, to, inode } => words(2, &[*inode], from, to.as_bytes()),
        Event::Write { inode, at, bytes } => words(3, &[*inode, *at], "", bytes),
        Event::Truncate { inode, length } => words(4, &[*inode, *length], "", &[]),
        Event::Sync(inode) => words(5, &[*inode], "", &[]),
        Event::FailedSync(inode) => words(6, &[*inode], "", &[]),
        Event::SyncDirectory => words(7, &[], "", &[]),
        Event::Said(word) => {
            let (kind, number) = match word {
                Word::Acknowledged(op) => (0, op),
                Word::Refused(op) => (1, op),
                Word::Unknown(op) => (2, op),
                Word::Seen(serial) => (3, serial),
                Word::Done(step) => (4, step),
            };
            words(8, &[kind, number.cast_unsigned()], "", &[]);
        }
        Event::Volatile(name, bytes) => words(9, &[], name, bytes),
    }
}

fn read(line: &mut &[u8]) -> io::Result<Event> {
    let mut kind = [0];
    line.read_exact(&mut kind)?;
    let event = match kind[0] {
        0 => {
            let inode = word(line)?;
            Event::Named(name(line)?, inode)
        }
        1 => {
            let inode = word(line)?;
            Event::Unnamed(name(line)?, inode)
        }
        2 => {
            let inode = word(line)?;
            let from = name(line)?;
            let to = Name::from(&*String::from_utf8_lossy(rest(line)));
            Event::Renamed { from, to, inode }
        }
        3 => {
            let (inode, at) = (word(line)?, word(line)?);
            name(line)?;
            let bytes = Arc::from(rest(line));
            Event::Write { inode, at, bytes }
        }
        4 => Event::Truncate {
            inode: word(line)?,
            length: word(line)?,
        },
        5 => Event::Sync(word(line)?),
        6 => Event::FailedSync(word(line)?),
        7 => Event::SyncDirectory,
        8 => {
            let (kind, number) = (word(line)?, word(line)?.cast_signed());
            Event::Said(match kind {
                0 => Word::Acknowledged(number),
                1 => Word::Refused(number),
                2 => Word::Unknown(number),
                3 => Word::Seen(number),
                4 => Word::Done(number),
                _ => return Err(io::ErrorKind::InvalidData.into()),
            })
        }
        9 => {
            let name = name(line)?;
            Event::Volatile(name, Arc::from(rest(line)))
        }
        _ => return Err(io::ErrorKind::InvalidData.into()),
    };
    Ok(event)
}

fn word(line: &mut &[u8]) -> io::Result<u64> {
    let mut bytes = [0; 8];
    line.read_exact(&mut bytes)?;
    Ok(u64::from_le_bytes(bytes))
}

fn name(line: &mut &[u8]) -> io::Result<Name> {
    let mut bytes = vec![0; word(line)? as usize];
    line.read_exact(&mut bytes)?;
    Ok(Name::from(&*String::from_utf8_lossy(&bytes)))
}

fn rest<'a>(line: &mut &'a [u8]) -> &'a [u8] {
    std::mem::take(line)
}

#[test]
fn what_one_process_writes_down_another_reads() {
    let events = [
        Event::Named("a.db".into(), 7),
        Event::Unnamed("a.db".into(), 7),
        Event::Renamed {
            from: "a".into(),
            to: "b".into(),
            inode: u64::MAX,
        },
        Event::Write {
            inode: 1,
            at: 4096,
            bytes: [1, 2, 3].as_slice().into(),
        },
        Event::Truncate {
            inode: 1,
            length: 5,
        },
        Event::Sync(3),
        Event::FailedSync(4),
        Event::SyncDirectory,
        Event::Said(Word::Acknowledged(1)),
        Event::Said(Word::Refused(2)),
        Event::Said(Word::Unknown(3)),
        Event::Said(Word::Seen(4)),
        Event::Said(Word::Done(-5)),
        Event::Volatile("a.db-shm".into(), [9; 9].as_slice().into()),
    ];
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("journal");
    let (mut one, mut other) = (Journal::open(&path).unwrap(), Journal::open(&path).unwrap());
    assert!(one.lock().unwrap().is_empty());
    one.unlock(&events).unwrap();
    assert_eq!(
        format!("{:?}", other.lock().unwrap()),
        format!("{events:?}")
    );
    // Killed in the middle of a line.
    let whole = path.metadata().unwrap().len();
    other
        .file
        .write_all_at(&[20, 0, 0, 0, 0, 0, 0, 0, 3], whole)
        .unwrap();
    other.file.unlock().unwrap();
    assert!(one.lock().unwrap().is_empty());
    one.unlock(&events[..1]).unwrap();
    assert_eq!(other.lock().unwrap().len(), 1);
}
