//! What the last commits changed, for the processes that listen.
//!
//! Nothing in it is needed for the gate, and nothing in it is trusted: a note is a
//! hint of what one commit changed, written *after* that commit by whoever made it.
//! Whoever reads knows from SQLite itself how many commits there were, and takes
//! notes for the whole of them only if they form an unbroken chain: each begins at
//! the [`Stamp`] at which the one before ended, the first at the stamp the reader
//! knew, the last at the present one. A commit without a note breaks the chain,
//! for whatever reason there is none: its writer was killed between the commit and
//! the note, is no member, is of an older version, did not know that somebody
//! listens, or the note was overwritten since. Then anything may have changed.
//!
//! A stamp has SQLite's count of commits and its checksum over the log, which begins
//! with random numbers; so an old note is not taken for a later commit of the same
//! number. Each note carries a checksum of itself, so that a half-written one, or
//! one that two wrote at once, is none.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};

use super::layout::{NOTE, NOTES, Page, SLOTS};

/// Words before the text.
const HEAD: usize = 13;
/// Tokens that a note has room for.
pub(super) const TOKENS: usize = HEAD - 5;
/// What was changed is not in the note.
const ANYTHING: u64 = 1;
/// There were more tokens than it has room for.
const MORE_TOKENS: u64 = 2;

/// A state of the database between two commits, as SQLite's shared memory tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stamp {
    /// How many commits there were.
    pub commits: u32,
    /// The checksum over the log up to the last.
    pub checksum: u64,
}

/// What one commit did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Note {
    /// Before it.
    pub before: Stamp,
    /// After it.
    pub after: Stamp,
    /// What it may have changed; `None`: anything.
    pub changed: Option<Vec<String>>,
    /// Numbers given to parts of it, at random, which are in it.
    pub tokens: Vec<u64>,
    /// `tokens` is all of them.
    pub all_tokens: bool,
}

type Words = [u64; NOTE];

fn check(words: &Words) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for word in &words[1..] {
        hash = (hash ^ word).wrapping_mul(0x0100_0000_01b3).rotate_left(23);
    }
    hash | 1 // never that of a fresh page
}

impl Note {
    fn pack(&self) -> Words {
        let mut words = [0; NOTE];
        words[1] = u64::from(self.before.commits) << 32 | u64::from(self.after.commits);
        words[2] = self.before.checksum;
        words[3] = self.after.checksum;
        let mut flags = 0;
        let kept = self.tokens.len().min(TOKENS);
        if !self.all_tokens || kept < self.tokens.len() {
            flags |= MORE_TOKENS;
        }
        words[5..5 + kept].copy_from_slice(&self.tokens[..kept]);
        let text = self.changed.as_ref().map(|names| names.join("\0"));
        let room = (NOTE - HEAD) * 8;
        let text = text.filter(|text| text.len() <= room && !text.is_empty());
        match &text {
            None => flags |= ANYTHING,
            Some(text) => {
                for (word, chunk) in words[HEAD..].iter_mut().zip(text.as_bytes().chunks(8)) {
                    let mut bytes = [0; 8];
                    bytes[..chunk.len()].copy_from_slice(chunk);
                    *word = u64::from_le_bytes(bytes);
                }
            }
        }
        let length = text.map_or(0, |text| text.len());
        words[4] = flags << 32 | (kept as u64) << 16 | length as u64;
        words[0] = check(&words);
        words
    }

    fn unpack(words: &Words) -> Option<Self> {
        if words[0] != check(words) {
            return None;
        }
        let flags = words[4] >> 32;
        let kept = (words[4] >> 16 & 0xffff) as usize;
        let length = (words[4] & 0xffff) as usize;
        let tokens = words.get(5..5 + kept.min(TOKENS))?.to_vec();
        let changed = if flags & ANYTHING == 0 {
            let bytes: Vec<u8> = words[HEAD..]
                .iter()
                .flat_map(|it| it.to_le_bytes())
                .collect();
            let text = std::str::from_utf8(bytes.get(..length)?).ok()?;
            Some(text.split('\0').map(str::to_owned).collect())
        } else {
            None
        };
        Some(Self {
            before: Stamp {
                commits: (words[1] >> 32) as u32,
                checksum: words[2],
            },
            after: Stamp {
                commits: words[1] as u32,
                checksum: words[3],
            },
            changed,
            tokens,
            all_tokens: flags & MORE_TOKENS == 0,
        })
    }
}

fn place(page: &Page, commits: u32) -> &[AtomicU64; NOTE] {
    &page.notes[commits as usize % NOTES].words
}

/// Writes a note, over that of an earlier commit.
pub(super) fn write(page: &Page, note: &Note) {
    let words = note.pack();
    let place = place(page, note.after.commits);
    place[0].store(0, SeqCst);
    for (at, word) in place.iter().zip(words).skip(1) {
        at.store(word, Relaxed);
    }
    place[0].store(words[0], Release);
}

/// The note of the commit with this number, if there is one; it may be of another
/// time with the same numbers.
pub(super) fn read(page: &Page, commits: u32) -> Option<Note> {
    let place = place(page, commits);
    let mut words = [0; NOTE];
    words[0] = place[0].load(Acquire);
    for (at, word) in place.iter().zip(&mut words).skip(1) {
        *word = at.load(Relaxed);
    }
    Note::unpack(&words).filter(|note| note.after.commits == commits)
}

/// What was committed after `from` up to `to`, in order; `None` when that is not
/// known of every one.
pub(super) fn chain(page: &Page, from: Stamp, to: Stamp) -> Option<Vec<Note>> {
    let count = to.commits.wrapping_sub(from.commits);
    if count as usize > NOTES {
        return None;
    }
    let mut at = from;
    let mut notes = Vec::with_capacity(count as usize);
    while at.commits != to.commits {
        let note = read(page, at.commits.wrapping_add(1))?;
        if note.before != at {
            return None;
        }
        at = note.after;
        notes.push(note);
    }
    (at == to).then_some(notes)
}

/// Says whether the owner of `slot` wants notes from now on.
pub(super) fn listen(page: &Page, slot: usize, listens: bool) {
    let (word, bit) = (&page.header.listening[slot / 64], 1 << (slot % 64));
    if listens {
        word.fetch_or(bit, SeqCst);
    } else {
        word.fetch_and(!bit, SeqCst);
    }
}

/// Whether anybody but the owner of `slot` wants notes.
#[inline]
pub(super) fn others_listen(page: &Page, slot: usize) -> bool {
    let words = page.header.listening.iter().enumerate();
    words.fold(false, |found, (place, word)| {
        let own = if slot / 64 == place {
            1 << (slot % 64)
        } else {
            0
        };
        found | (word.load(Relaxed) & !own != 0)
    })
}

/// The slots that want notes.
pub(super) fn listeners(page: &Page) -> impl Iterator<Item = usize> {
    (0..SLOTS).filter(|slot| page.header.listening[slot / 64].load(SeqCst) & 1 << (slot % 64) != 0)
}

#[cfg(test)]
mod tests {
    use super::super::map::blank;
    use super::*;

    fn stamp(commits: u32) -> Stamp {
        Stamp {
            commits,
            checksum: u64::from(commits).wrapping_mul(0x9e37_79b9_7f4a_7c15),
        }
    }

    fn note(commits: u32, changed: &[&str]) -> Note {
        Note {
            before: stamp(commits.wrapping_sub(1)),
            after: stamp(commits),
            changed: Some(changed.iter().map(|&it| it.to_owned()).collect()),
            tokens: vec![7, 8],
            all_tokens: true,
        }
    }

    #[test]
    fn a_note_is_read_as_it_was_written_and_what_has_no_room_says_so() {
        let page = blank();
        for commits in [1, u32::MAX, 0] {
            let note = note(commits, &["account", "größe", "x"]);
            write(&page, &note);
            assert_eq!(read(&page, commits), Some(note));
        }
        let long = "n".repeat(401);
        let mut crowded = note(5, &[&long, "another"]);
        crowded.tokens = (0..9).collect();
        write(&page, &crowded);
        let found = read(&page, 5).unwrap();
        assert_eq!((found.changed, found.all_tokens), (None, false));
        assert_eq!(found.tokens, (0..8).collect::<Vec<_>>());
        assert_eq!(read(&page, 6), None);
    }

    #[test]
    fn commits_are_known_only_by_an_unbroken_chain_from_the_one_stamp_to_the_other() {
        let page = blank();
        for commits in [u32::MAX, 0, 1, 2] {
            write(&page, &note(commits, &["t"]));
        }
        let known = chain(&page, stamp(u32::MAX - 1), stamp(2)).unwrap();
        let commits: Vec<u32> = known.iter().map(|it| it.after.commits).collect();
        assert_eq!(commits, [u32::MAX, 0, 1, 2]);
        assert_eq!(chain(&page, stamp(2), stamp(2)), Some(Vec::new()));
        // Somebody committed and left no note; or has not yet.
        assert_eq!(chain(&page, stamp(1), stamp(3)), None);
        // The same number of another time.
        let other = Stamp {
            checksum: 1,
            ..stamp(2)
        };
        assert_eq!(chain(&page, stamp(0), other), None);
        assert_eq!(
            chain(
                &page,
                Stamp {
                    checksum: 1,
                    ..stamp(0)
                },
                stamp(2)
            ),
            None
        );
        assert_eq!(
            chain(
                &page,
                stamp(1),
                Stamp {
                    commits: 0,
                    checksum: 1
                }
            ),
            None
        );
        // A stranger's in the middle, whose number a member's note had before.
        let mut after = note(2, &["t"]);
        after.before.checksum = 99;
        write(&page, &after);
        assert_eq!(chain(&page, stamp(0), stamp(2)), None);
        assert!(chain(&page, stamp(0), stamp(1)).is_some());
        // Overwritten.
        write(&page, &note(1 + NOTES as u32, &["u"]));
        assert_eq!(chain(&page, stamp(0), stamp(1)), None);
    }

    #[test]
    fn a_note_with_any_bit_changed_is_none() {
        let page = blank();
        write(&page, &note(3, &["t"]));
        for word in 0..NOTE {
            for bit in [0, 17, 63] {
                let at = &place(&page, 3)[word];
                at.fetch_xor(1 << bit, SeqCst);
                assert_eq!(read(&page, 3), None, "word {word}, bit {bit}");
                at.fetch_xor(1 << bit, SeqCst);
            }
        }
        assert!(read(&page, 3).is_some());
    }

    #[test]
    fn who_listens_is_seen_by_all_but_itself() {
        let page = blank();
        assert!(!others_listen(&page, 70));
        listen(&page, 70, true);
        assert!(!others_listen(&page, 70) && others_listen(&page, 6));
        listen(&page, 3, true);
        assert!(others_listen(&page, 70));
        assert_eq!(listeners(&page).collect::<Vec<_>>(), [3, 70]);
        listen(&page, 3, false);
        listen(&page, 70, false);
        assert!(!others_listen(&page, 6));
    }
}
