//! The kernel's list of file locks, line by line.
//!
//! Guarantees: a line that is not understood is no lock and no panic, whatever it
//! says; a lock that is held all the time a list is read is in it. The format is that of
//! `lock_get_status` in the kernel's `fs/locks.c`, used by `/proc/locks` and by
//! the `lock:` lines of `/proc/PID/fdinfo/FD` (`man 5 proc_locks`).

#[cfg(target_os = "linux")]
use std::io::{self, Read};

use super::bytes::Bytes;

/// Whose a lock is, as far as the list tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    /// A process: a lock of the POSIX kind.
    Process(u32),
    /// An open file description (OFD), which may belong to several processes.
    Description,
}

/// A lock, or a request for one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) owner: Owner,
    /// Not granted: it waits behind the line before it.
    pub(crate) waits: bool,
    /// Major and minor number of the device, and the inode.
    pub(crate) device: (u32, u32),
    pub(crate) inode: u64,
    pub(crate) bytes: Bytes,
}

impl Line {
    /// Whether the two cannot be granted at the same time.
    pub(crate) fn excludes(&self, other: &Self) -> bool {
        (self.device, self.inode) == (other.device, other.inode)
            && self.owner != other.owner
            && (self.bytes.exclusive || other.bytes.exclusive)
            && self.bytes.first <= other.bytes.last
            && other.bytes.first <= self.bytes.last
    }

    /// Reads one line, with or without `lock:` before it. `None` for locks of
    /// other kinds (`flock`, leases), which SQLite does not use by itself.
    pub(crate) fn parse(line: &str) -> Option<Self> {
        let line = line.strip_prefix("lock:").unwrap_or(line);
        let mut words = line.split_ascii_whitespace();
        words.next()?.strip_suffix(':')?;
        let mut class = words.next()?;
        let waits = class == "->";
        if waits {
            class = words.next()?;
        }
        let _advisory = words.next()?;
        let exclusive = match words.next()? {
            "WRITE" => true,
            "READ" => false,
            _ => return None,
        };
        let pid = words.next()?.parse::<i64>().ok()?;
        let owner = match class {
            "POSIX" => Owner::Process(u32::try_from(pid).ok()?),
            "OFDLCK" => Owner::Description,
            _ => return None,
        };
        let mut place = words.next()?.splitn(3, ':');
        let mut hex = || u32::from_str_radix(place.next()?, 16).ok();
        let device = (hex()?, hex()?);
        let inode = place.next()?.parse().ok()?;
        let first = words.next()?.parse().ok()?;
        let last = match words.next()? {
            "EOF" => u64::MAX,
            end => end.parse().ok()?,
        };
        Some(Self {
            owner,
            waits,
            device,
            inode,
            bytes: Bytes {
                exclusive,
                first,
                last,
            },
        })
    }

    /// Every lock in the text of `/proc/locks` or of a file in `fdinfo`.
    pub(crate) fn all(text: &str) -> impl Iterator<Item = Self> {
        text.lines().filter_map(Self::parse)
    }
}

/// The kernel hands its list out in pieces of a page, and what is let go between
/// two pieces makes it pass over another lock.
#[cfg(target_os = "linux")]
const PIECE: usize = 4096;
/// How often a list of several pieces is read at most.
#[cfg(target_os = "linux")]
const READS: usize = 4;

/// Those lines of the kernel's list that are `wanted`.
#[cfg(target_os = "linux")]
pub(crate) fn read(wanted: impl Fn(&Line) -> bool) -> io::Result<Vec<Line>> {
    let once = || -> io::Result<(Vec<Line>, bool)> {
        // In as few pieces as the kernel gives. (`fs::read` asks for 32 bytes first.)
        let mut file = std::fs::File::open("/proc/locks")?;
        let mut text = vec![0; 16 * PIECE];
        let first = file.read(&mut text)?;
        text.truncate(first);
        // A lock and all who wait for it are never parted, so more may follow
        // however short a piece is; and after a full one nothing may follow because
        // the list has become shorter meanwhile.
        let whole = file.read_to_end(&mut text)? == 0 && first < PIECE / 2;
        let text = String::from_utf8_lossy(&text);
        Ok((Line::all(&text).filter(&wanted).collect(), whole))
    };
    let (mut lines, mut whole) = once()?;
    // One read may miss a lock, and the next the same one; so what was there at
    // any of a few counts, unless somebody else has it by now.
    for _ in 1..READS {
        if whole {
            break;
        }
        let before = std::mem::take(&mut lines);
        (lines, whole) = once()?;
        if !whole {
            let missed = |line: &Line| !lines.iter().any(|now| now == line || now.excludes(line));
            let missed: Vec<_> = before.into_iter().filter(missed).collect();
            lines.extend(missed);
        }
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From a machine with a Python writer and a reader in write-ahead mode, an
    /// OFD lock, a waiter, and what else there is.
    const LOCKS: &str = "\
1: POSIX  ADVISORY  WRITE 12328 fe:00:10010934 120 120
2: POSIX  ADVISORY  READ 12328 fe:00:10010934 124 124
3: POSIX  ADVISORY  READ 12328 fe:00:10010932 1073741826 1073742335
3:  -> POSIX  ADVISORY  WRITE 77 fe:00:10010932 1073741824 1073741824
4: OFDLCK ADVISORY  WRITE -1 fe:00:10010934 120 120
5: FLOCK  ADVISORY  WRITE 12271 fe:00:5948459 0 EOF
6: LEASE  ACTIVE    READ 99 fe:00:5948459 0 EOF
7: POSIX  *NOINODE* READ 99 <none>:0 0 EOF
8: POSIX  ADVISORY  WRITE 5 103:0a:18446744073709551615 0 EOF
";

    #[test]
    fn locks_waiters_and_kinds_are_told_apart() {
        let lines: Vec<Line> = Line::all(LOCKS).collect();
        assert_eq!(lines.len(), 6, "no flock, no lease, nothing without a file");
        assert_eq!(
            lines[0],
            Line {
                owner: Owner::Process(12328),
                waits: false,
                device: (0xfe, 0),
                inode: 10_010_934,
                bytes: Bytes {
                    exclusive: true,
                    first: 120,
                    last: 120
                },
            }
        );
        assert!(!lines[1].bytes.exclusive);
        assert!(lines[3].waits && lines[3].owner == Owner::Process(77));
        assert_eq!(lines[4].owner, Owner::Description);
        assert_eq!(lines[5].device, (0x103, 10));
        assert_eq!(lines[5].inode, u64::MAX);
        assert_eq!((lines[5].bytes.first, lines[5].bytes.last), (0, u64::MAX));
    }

    #[test]
    fn the_lines_of_a_descriptor_are_read_too() {
        let fdinfo = "pos:\t0\nflags:\t02500002\nmnt_id:\t27\nino:\t10010932\n\
                      lock:\t1: POSIX  ADVISORY  READ 12328 fe:00:10010932 1073741826 1073742335\n";
        assert_eq!(Line::all(fdinfo).count(), 1);
    }

    #[test]
    fn what_is_no_lock_is_none_and_nothing_panics() {
        for line in [
            "",
            ":",
            "1:",
            "1: ->",
            "1: -> -> POSIX ADVISORY WRITE 1 0:0:1 0 EOF",
            "POSIX ADVISORY WRITE 1 0:0:1 0 EOF",
            "1: POSIX ADVISORY WRITE one 0:0:1 0 EOF",
            "1: POSIX ADVISORY WRITE -7 0:0:1 0 EOF",
            "1: POSIX ADVISORY WRITE 99999999999999999999 0:0:1 0 EOF",
            "1: POSIX ADVISORY WRITE 1 0:1 0 EOF",
            "1: POSIX ADVISORY WRITE 1 zz:0:1 0 EOF",
            "1: POSIX ADVISORY WRITE 1 0:0:-1 0 EOF",
            "1: POSIX ADVISORY WRITE 1 0:0:1 -5 EOF",
            "1: POSIX ADVISORY WRITE 1 0:0:1 0 99999999999999999999",
            "1: POSIX ADVISORY UNLCK 1 0:0:1 0 EOF",
            "1: POSIX ADVISORY WRITE 1 0:0:1 0",
        ] {
            assert_eq!(Line::parse(line), None, "{line}");
        }
        // Cut anywhere, or with any byte replaced: an answer, not a panic.
        for end in (0..LOCKS.len()).filter(|end| LOCKS.is_char_boundary(*end)) {
            let _ = Line::all(&LOCKS[..end]).count();
            for odd in ['\0', '-', ':', '\u{1F512}'] {
                let spoiled = format!("{}{odd}{}", &LOCKS[..end], &LOCKS[end..]);
                let _ = Line::all(&spoiled).count();
            }
        }
    }
}
