//! What a disk may hold when the power goes.
//!
//! A [`Disk`] follows a recording, event by event. Of each file it knows what is
//! on the disk for certain, because a flush of that file said so, and what was
//! done since: of that, anything may be there. An [`Image`] is one choice.
//!
//! The model is what SQLite itself assumes
//! (<https://www.sqlite.org/atomiccommit.html>), no kinder:
//! - Writes since the last flush of their file reach the disk in any order, or
//!   not, each 512-byte sector by itself; in the strongest style a sector that was
//!   being written may hold rubbish in the bytes that the write was about. Bytes
//!   beside them are safe (`SQLITE_IOCAP_POWERSAFE_OVERWRITE`, the default).
//! - A file may have its new length and not the data: zeros, or what somebody else
//!   had there.
//! - Truncations since the last flush are there up to one of them.
//! - Names: see [`Names`]. A rename is one step, or none.
//! - What a *failed* flush was about may be there or not, and a later flush that
//!   succeeds says nothing about it: Linux takes such pages for written
//!   (<https://lwn.net/Articles/752063/>).

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use crate::random::Random;
use crate::recorder::{Event, Inode, Name};
use crate::told::Told;

/// In a file in mapped memory that is all wrong.
static RUBBISH: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut rubbish = vec![0; 32 << 10];
    Random::of(&[0]).fill(&mut rubbish);
    rubbish
});

/// Disks write so much at once.
const SECTOR: u64 = 512;

/// What may be missing of the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// All that was not flushed.
    Synced,
    /// Nothing.
    All,
    /// Some of the writes.
    Subset,
    /// Some of the sectors.
    Torn,
}

impl Style {
    pub const EACH: [Self; 4] = [Self::Synced, Self::All, Self::Subset, Self::Torn];
}

/// When a name is on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Names {
    /// When its directory was flushed, as POSIX says. Until then each name by
    /// itself.
    Strict,
    /// When anything was flushed, and in the order in which it was done: a file
    /// system with a journal for names, like ext4.
    Journaled,
}

impl Names {
    pub const EACH: [Self; 2] = [Self::Strict, Self::Journaled];
}

/// Something that was done to a file and not flushed.
#[derive(Clone, Debug)]
struct Pending {
    /// Counts all that was done to any file.
    serial: u64,
    /// A flush of it has failed.
    doubtful: bool,
    what: What,
}

#[derive(Clone, Debug)]
enum What {
    Write { at: u64, bytes: Arc<[u8]> },
    Truncate(u64),
}

#[derive(Clone, Debug, Default)]
struct File {
    on_disk: Vec<u8>,
    /// Says how that came about.
    key: Key,
    pending: Vec<Pending>,
}

/// Says which choices were made. Images with the same key are the same, so that
/// they need not be compared, or even made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Key(u64);

impl Key {
    fn mix(&mut self, words: &[u64]) {
        for word in words {
            self.0 = (self.0.rotate_left(23) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            self.0 ^= self.0 >> 29;
        }
    }
}

/// Something that was done to names and not flushed.
#[derive(Clone, Debug)]
enum Renaming {
    Named(Name, Inode),
    Unnamed(Name, Inode),
    Renamed(Name, Name, Inode),
}

type Directory = BTreeMap<Name, Inode>;

#[derive(Clone, Debug, Default)]
struct Namespace {
    on_disk: Directory,
    pending: Vec<Renaming>,
}

/// The state of a directory of files after some events.
#[derive(Clone, Debug, Default)]
pub struct Disk {
    files: BTreeMap<Inode, File>,
    strict: Namespace,
    journaled: Namespace,
    pub told: Told,
    serial: u64,
    /// What files in mapped memory held at times.
    volatile: Vec<(Name, Arc<[u8]>)>,
}

/// The files after a loss of power.
#[derive(Clone, Debug, Default)]
pub struct Image {
    pub files: Vec<(Name, Vec<u8>)>,
    pub key: Key,
}

impl Disk {
    pub fn apply(&mut self, event: &Event) {
        match event {
            Event::Named(name, inode) => {
                self.files.entry(*inode).or_default();
                self.rename(Renaming::Named(name.clone(), *inode));
            }
            Event::Unnamed(name, inode) => self.rename(Renaming::Unnamed(name.clone(), *inode)),
            Event::Renamed { from, to, inode } => {
                self.rename(Renaming::Renamed(from.clone(), to.clone(), *inode));
            }
            Event::Write { inode, at, bytes } => {
                let (at, bytes) = (*at, Arc::clone(bytes));
                self.pend(*inode, What::Write { at, bytes });
            }
            Event::Truncate { inode, length } => self.pend(*inode, What::Truncate(*length)),
            Event::Sync(inode) => {
                self.files.entry(*inode).or_default().sync();
                self.journaled.sync();
            }
            Event::FailedSync(inode) => self.files.entry(*inode).or_default().fail(),
            Event::SyncDirectory => {
                self.strict.sync();
                self.journaled.sync();
            }
            Event::Said(word) => self.told.hear(*word),
            Event::Volatile(name, bytes) => {
                self.volatile.push((name.clone(), Arc::clone(bytes)));
            }
        }
    }

    fn pend(&mut self, inode: Inode, what: What) {
        self.serial += 1;
        self.files.entry(inode).or_default().pending.push(Pending {
            serial: self.serial,
            doubtful: false,
            what,
        });
    }

    fn rename(&mut self, renaming: Renaming) {
        self.strict.pending.push(renaming.clone());
        self.journaled.pending.push(renaming);
    }

    /// What a program sees now: nothing is missing.
    pub fn cached(&self) -> Image {
        self.image(Names::Strict, Style::All, &mut Random::of(&[]))
    }

    /// A legal image. Without files in mapped memory: see [`Disk::volatile`].
    pub fn image(&self, names: Names, style: Style, random: &mut Random) -> Image {
        let space = match names {
            Names::Strict => &self.strict,
            Names::Journaled => &self.journaled,
        };
        let directory = space.choose(names, style, random);
        let mut image = Image::default();
        for (name, inode) in directory {
            for byte in name.bytes() {
                image.key.mix(&[byte.into()]);
            }
            image.key.mix(&[inode]);
            let bytes = match self.files.get(&inode) {
                Some(file) => file.choose(style, random, &mut image.key),
                None => Vec::new(),
            };
            image.files.push((name, bytes));
        }
        image
    }

    /// Adds what files in mapped memory may hold: nothing (they are not there), what
    /// they held at some moment before, or rubbish. `named` says which there are.
    pub fn add_volatile(&self, image: &mut Image, named: &[&str], random: &mut Random) {
        for name in named {
            let old: Vec<_> = self
                .volatile
                .iter()
                .filter(|(held, _)| **held == **name)
                .collect();
            let bytes = match random.below(4) {
                0 | 1 => continue,
                2 if !old.is_empty() => {
                    let which = random.below(old.len());
                    image.key.mix(&[name.len() as u64, which as u64]);
                    old[which].1.to_vec()
                }
                _ => {
                    image.key.mix(&[name.len() as u64, u64::MAX]);
                    RUBBISH.to_vec()
                }
            };
            image.files.push((Name::from(*name), bytes));
        }
    }
}

impl File {
    /// All that was done is on the disk, but what has failed before.
    fn sync(&mut self) {
        let mut left: Vec<Pending> = Vec::new();
        for pending in std::mem::take(&mut self.pending) {
            let (from, to) = pending.range();
            match &pending.what {
                What::Write { .. } if pending.doubtful => {
                    left.push(pending);
                    continue;
                }
                What::Write { at, bytes } => write(&mut self.on_disk, *at, bytes),
                What::Truncate(length) => self.on_disk.resize(*length as usize, 0),
            }
            self.key.mix(&[pending.serial, from, to]);
            // Doubts about what is under it do not matter any more.
            let over = left.iter().flat_map(|doubtful| doubtful.without(from, to));
            left = over.collect();
        }
        self.pending = left;
    }

    fn fail(&mut self) {
        for pending in &mut self.pending {
            // Lengths are the file system's own affair, and in its journal.
            pending.doubtful |= matches!(pending.what, What::Write { .. });
        }
    }

    fn choose(&self, style: Style, random: &mut Random, key: &mut Key) -> Vec<u8> {
        let mut bytes = self.on_disk.clone();
        key.mix(&[self.key.0]);
        if self.pending.is_empty() || style == Style::Synced {
            return bytes;
        }
        let is_truncation = |pending: &&Pending| matches!(pending.what, What::Truncate(_));
        let truncations = self.pending.iter().filter(is_truncation).count();
        let mut kept = match style {
            Style::All => truncations,
            _ => random.below(truncations + 1),
        };
        // How much of it gets there is another question for each image, so that
        // "nearly everything" and "next to nothing" come up too.
        let share = [5, 50, 95][random.below(3)];
        let longer = random.percent(50);
        let rubbish = random.percent(50);
        let spoiled = style == Style::Torn && random.percent(33);
        let size = match style {
            Style::Torn => SECTOR,
            _ => u64::MAX,
        };
        for pending in &self.pending {
            match &pending.what {
                What::Truncate(length) => {
                    if kept > 0 {
                        key.mix(&[pending.serial]);
                        bytes.resize(*length as usize, 0);
                        kept -= 1;
                    }
                }
                What::Write { at, bytes: data } => {
                    for (at, piece) in pieces(*at, data, size) {
                        let end = at + piece.len() as u64;
                        if style == Style::All || random.percent(share) {
                            key.mix(&[pending.serial, at, end]);
                            write(&mut bytes, at, piece);
                        } else if spoiled && random.percent(10) {
                            key.mix(&[random.next()]);
                            let mut rubbish = piece.to_vec();
                            random.fill(&mut rubbish);
                            write(&mut bytes, at, &rubbish);
                        } else if longer && (bytes.len() as u64) < end {
                            let was = bytes.len();
                            key.mix(&[pending.serial, end]);
                            bytes.resize(end as usize, 0);
                            if rubbish {
                                key.mix(&[random.next()]);
                                random.fill(&mut bytes[was..]);
                            }
                        }
                    }
                }
            }
        }
        bytes
    }
}

impl Pending {
    /// The bytes that it decides about.
    fn range(&self) -> (u64, u64) {
        match &self.what {
            What::Write { at, bytes } => (*at, *at + bytes.len() as u64),
            What::Truncate(length) => (*length, u64::MAX),
        }
    }

    /// What is left of it outside of these bytes.
    fn without(&self, from: u64, to: u64) -> Vec<Self> {
        let What::Write { at, bytes } = &self.what else {
            return vec![self.clone()];
        };
        let end = at + bytes.len() as u64;
        if to <= *at || end <= from {
            return vec![self.clone()];
        }
        let part = |from: u64, to: u64| {
            (from < to).then(|| Self {
                what: What::Write {
                    at: from,
                    bytes: bytes[(from - at) as usize..(to - at) as usize].into(),
                },
                ..*self
            })
        };
        let parts = [part(*at, from), part(to, end)];
        parts.into_iter().flatten().collect()
    }
}

/// The write in pieces that do not cross a multiple of `size`.
fn pieces(at: u64, bytes: &[u8], size: u64) -> impl Iterator<Item = (u64, &[u8])> {
    let (mut at, mut bytes) = (at, bytes);
    std::iter::from_fn(move || {
        if bytes.is_empty() {
            return None;
        }
        let room = (size - at % size).min(bytes.len() as u64);
        let (piece, rest) = bytes.split_at(room as usize);
        let here = at;
        (at, bytes) = (at + room, rest);
        Some((here, piece))
    })
}

fn write(file: &mut Vec<u8>, at: u64, bytes: &[u8]) {
    let (at, end) = (at as usize, at as usize + bytes.len());
    if file.len() < end {
        file.resize(end, 0);
    }
    file[at..end].copy_from_slice(bytes);
}

impl Namespace {
    fn sync(&mut self) {
        for renaming in self.pending.drain(..) {
            renaming.apply(&mut self.on_disk);
        }
    }

    fn choose(&self, names: Names, style: Style, random: &mut Random) -> Directory {
        let mut directory = self.on_disk.clone();
        let any = names == Names::Strict && random.percent(50);
        let first = random.below(self.pending.len() + 1);
        for (index, renaming) in self.pending.iter().enumerate() {
            let is_there = match style {
                Style::Synced => false,
                Style::All => true,
                _ if any => random.percent(50),
                _ => index < first,
            };
            if is_there {
                renaming.apply(&mut directory);
            }
        }
        directory
    }
}

impl Renaming {
    fn apply(&self, directory: &mut Directory) {
        match self {
            Self::Named(name, inode) => drop(directory.insert(name.clone(), *inode)),
            Self::Unnamed(name, inode) => {
                if directory.get(name) == Some(inode) {
                    directory.remove(name);
                }
            }
            Self::Renamed(from, to, inode) => {
                if directory.get(from) == Some(inode) {
                    directory.remove(from);
                }
                directory.insert(to.clone(), *inode);
            }
        }
    }
}
