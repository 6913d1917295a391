//! The side file, word by word.
//!
//! Every field is an atomic of a fixed size, so any content whatsoever is a valid
//! [`Page`], and a file of zeros is a fresh one: whoever opens it first need not
//! finish anything before the next may use it. Numbers read from it are checked
//! by whoever uses them ([`Turn::unpack`] refuses what names no slot).

use std::sync::atomic::{AtomicU32, AtomicU64};

/// "onepen", and the version of the protocol. Zero means "not yet written".
pub(super) const MAGIC: u64 = u64::from_le_bytes(*b"onepen\0\x01");

/// How many processes can queue at one database. Those that come later write
/// without a place in the queue.
pub(super) const SLOTS: usize = 128;

/// Words of [`Header::waiting`].
pub(super) const WAITING: usize = SLOTS / 64;

/// The byte whose kernel lock proves that the owner of slot 0 lives; the next
/// slots follow. Beyond the end of the file: it is only ever locked.
pub(super) const LIVES_AT: i64 = 1 << 30;

/// Bytes of a label that are kept.
pub(super) const LABEL: usize = 40;

/// The whole file.
#[repr(C, align(4096))]
pub(super) struct Page {
    pub(super) header: Header,
    pub(super) slots: [Slot; SLOTS],
    /// What the last commits changed. Behind all that the first users of this
    /// version of the protocol knew: they map less of the file, and leave no notes.
    pub(super) notes: [NotePlace; NOTES],
}

/// How many commits there are notes of.
pub(super) const NOTES: usize = 128;
/// Words of a note.
pub(super) const NOTE: usize = 64;

/// Where one note is.
#[repr(C, align(512))]
pub(super) struct NotePlace {
    pub(super) words: [AtomicU64; NOTE],
}

/// What all share.
#[repr(C, align(4096))]
pub(super) struct Header {
    pub(super) magic: AtomicU64,
    _unused: [AtomicU64; 7],
    /// Whose turn it is: a packed [`Turn`].
    pub(super) turn: AtomicU64,
    /// When (monotonic, ns) whoever has the turn should pass it on.
    pub(super) slice_ends: AtomicU64,
    _unused_too: [AtomicU64; 6],
    /// Which slots wait: one bit each, set after the slot's ticket.
    pub(super) waiting: [AtomicU64; WAITING],
    /// The last ticket that was drawn.
    pub(super) tickets: AtomicU64,
    _unused_as_well: [AtomicU64; 5],
    /// When (monotonic, ns) programs that do not queue last had a gap left for them.
    pub(super) gap: AtomicU64,
    /// When such a program was last seen to have the database open.
    pub(super) stranger_seen: AtomicU64,
    /// When such a program was last met at the write lock.
    pub(super) stranger_wrote: AtomicU64,
    _unused_at_last: [AtomicU64; 5],
    /// Which slots want notes: one bit each.
    pub(super) listening: [AtomicU64; WAITING],
    /// Why the log is kept; 0: it is not. See `kept`.
    pub(super) log_kept: AtomicU64,
}

/// What one process says of itself. Only its owner writes to it, but for
/// `word`, `ticket` and the bit in the header.
#[repr(C, align(256))]
pub(super) struct Slot {
    /// The owner's waiting thread sleeps on it.
    pub(super) word: AtomicU32,
    /// Counted up by each new owner, so that nothing is taken for the former's.
    pub(super) generation: AtomicU32,
    /// Its number in the queue, 0 when it does not wait.
    pub(super) ticket: AtomicU64,
    /// Since when it waits (monotonic, ns).
    pub(super) waits_since: AtomicU64,
    /// How many of its threads wait.
    pub(super) waiters: AtomicU32,
    _unused: [AtomicU32; 9],

    /// Since when it has the turn (monotonic, ns).
    pub(super) turn_since: AtomicU64,
    /// The thread that has it.
    pub(super) thread: AtomicU32,
    pub(super) purpose_version: AtomicU32,
    /// What the turn is for.
    pub(super) purpose: [AtomicU64; LABEL / 8],
    /// To when (monotonic, ns) its turn is not passed over although it does not hold
    /// SQLite's lock: it reads what it is going to change.
    pub(super) reads_until: AtomicU64,

    pub(super) turns: AtomicU64,
    pub(super) commits: AtomicU64,
    pub(super) writes: AtomicU64,
    pub(super) waits: AtomicU64,
    pub(super) waited: AtomicU64,
    pub(super) longest_wait: AtomicU64,
    /// How often its turn was passed over because it did not move.
    pub(super) passed_over: AtomicU64,
    _unused_as_well: [AtomicU64; 1],

    pub(super) pid: AtomicU32,
    pub(super) label_version: AtomicU32,
    /// When the process started (clock ticks after boot, as in `/proc/PID/stat`).
    pub(super) started: AtomicU64,
    pub(super) label: [AtomicU64; LABEL / 8],
}

const _: () = assert!(size_of::<Header>() == 4096 && size_of::<Slot>() == 256);

/// Bytes of the side file.
pub(super) const SIZE: usize = size_of::<Page>();

/// What the owner of the turn is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Phase {
    /// It was given the turn while it slept, and has not moved yet.
    Granted,
    /// It writes, or is about to.
    Held,
    /// It is between two writes and keeps the turn to the end of its slice.
    Open,
}

/// The turn word. `serial` grows by one with every change, so that a
/// compare-and-swap succeeds only on the very state that was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Turn {
    /// As it was found, which may make no sense.
    pub(super) word: u64,
    pub(super) serial: u32,
    /// `None`: it is nobody's.
    pub(super) owner: Option<Owner>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Owner {
    pub(super) slot: usize,
    /// The low bits of the slot's generation.
    pub(super) generation: u16,
    pub(super) phase: Phase,
}

impl Turn {
    fn new(serial: u32, owner: Option<Owner>) -> Self {
        let word = owner.map_or(0, |owner| {
            let phase = match owner.phase {
                Phase::Granted => 1,
                Phase::Held => 2,
                Phase::Open => 3,
            };
            u64::from(owner.generation) << 16 | phase << 8 | (owner.slot as u64 + 1)
        });
        Self {
            word: u64::from(serial) << 32 | word,
            serial,
            owner,
        }
    }

    /// Reads a turn word, whoever wrote it: what makes no sense is nobody's turn.
    pub(super) fn unpack(word: u64) -> Self {
        let slot = (word & 0xff) as usize;
        let phase = match word >> 8 & 0xff {
            1 => Some(Phase::Granted),
            2 => Some(Phase::Held),
            3 => Some(Phase::Open),
            _ => None,
        };
        let owner = match (slot, phase) {
            (1..=SLOTS, Some(phase)) => Some(Owner {
                slot: slot - 1,
                generation: (word >> 16) as u16,
                phase,
            }),
            _ => None,
        };
        Self {
            word,
            serial: (word >> 32) as u32,
            owner,
        }
    }

    /// The next state of the word.
    pub(super) fn next(self, owner: Option<Owner>) -> Self {
        Self::new(self.serial.wrapping_add(1), owner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_word_is_read_as_it_was_written() {
        for phase in [Phase::Granted, Phase::Held, Phase::Open] {
            for slot in [0, 1, SLOTS - 1] {
                let owner = Owner {
                    slot,
                    generation: 0xabcd,
                    phase,
                };
                let turn = Turn::new(u32::MAX, Some(owner));
                assert_eq!(Turn::unpack(turn.word), turn);
                assert_eq!(turn.next(None).serial, 0);
            }
        }
        let free = Turn::new(7, None);
        assert_eq!(Turn::unpack(free.word), free);
    }

    #[test]
    fn a_turn_word_that_names_no_slot_is_nobodys_and_can_be_changed() {
        for word in [u64::MAX, 0xff, 0x1_ff, 0x3_00, 0x9_01, 0x1_00 | 129] {
            let turn = Turn::unpack(word);
            assert_eq!(turn.owner, None, "{word:x}");
            assert_eq!(turn.word, word);
        }
    }
}
