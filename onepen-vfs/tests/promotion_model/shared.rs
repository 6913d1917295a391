//! The wal-index that all connections share, and the operating system's locks on it.
//!
//! Three read slots instead of five: 0, which ignores the log, and two with marks.

pub const SLOTS: usize = 3;

/// The wal-index header, and with it the state of the database: its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Header {
    pub salt: u8,
    pub frames: u8,
    pub value: u8,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Slot {
    /// One bit for each connection.
    pub shared: u8,
    pub exclusive: Option<u8>,
    /// `None` is `READMARK_NOT_USED`.
    pub mark: Option<u8>,
}

/// The shared memory, and the operating system's locks on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Shared {
    pub header: Header,
    pub backfilled: u8,
    pub slots: [Slot; SLOTS],
    pub write: Option<usize>,
    pub checkpoint: Option<usize>,
}

impl Shared {
    pub fn new(copied_back: bool) -> Self {
        let frames = u8::from(copied_back);
        let mut slots = [Slot::default(); SLOTS];
        slots[0].mark = Some(0);
        slots[1].mark = Some(0);
        Self {
            header: Header {
                salt: 0,
                frames,
                value: 0,
            },
            backfilled: frames,
            slots,
            write: None,
            checkpoint: None,
        }
    }

    pub fn lock_read(&mut self, me: usize, slot: usize) -> bool {
        let granted = self.slots[slot].exclusive.is_none();
        if granted {
            self.slots[slot].shared |= 1 << me;
        }
        granted
    }

    pub fn unlock_read(&mut self, me: usize, slot: usize) {
        self.slots[slot].shared &= !(1 << me);
    }

    pub fn lock_slot(&mut self, me: usize, slot: usize) -> bool {
        let granted = self.slots[slot].shared == 0 && self.slots[slot].exclusive.is_none();
        if granted {
            self.slots[slot].exclusive = Some(me as u8);
        }
        granted
    }

    /// The exclusive lock on all slots with marks, or none.
    pub fn lock_marks(&mut self, me: usize) -> bool {
        let is_free = |slot: &Slot| slot.shared == 0 && slot.exclusive.is_none();
        let granted = self.slots[1..].iter().all(is_free);
        if granted {
            for slot in &mut self.slots[1..] {
                slot.exclusive = Some(me as u8);
            }
        }
        granted
    }

    pub fn unlock_slots(&mut self, me: usize) {
        for slot in &mut self.slots {
            if slot.exclusive == Some(me as u8) {
                slot.exclusive = None;
            }
        }
    }

    pub fn lock_write(&mut self, me: usize) -> bool {
        let granted = self.write.is_none();
        if granted {
            self.write = Some(me);
        }
        granted
    }

    pub fn unlock_write(&mut self, me: usize) -> bool {
        if self.write == Some(me) {
            self.write = None;
        }
        true
    }

    pub fn lock_checkpoint(&mut self, me: usize) -> bool {
        let granted = self.checkpoint.is_none();
        if granted {
            self.checkpoint = Some(me);
        }
        granted
    }

    /// The kernel's work when a process ends.
    pub fn forget(&mut self, me: usize) {
        self.unlock_slots(me);
        for slot in 0..SLOTS {
            self.unlock_read(me, slot);
        }
        self.unlock_write(me);
        if self.checkpoint == Some(me) {
            self.checkpoint = None;
        }
    }

    pub fn is_held_by(&self, me: usize) -> bool {
        let by_me = |slot: &Slot| slot.shared & 1 << me != 0 || slot.exclusive == Some(me as u8);
        self.write == Some(me) || self.checkpoint == Some(me) || self.slots.iter().any(by_me)
    }

    /// `walRestartHdr`.
    pub fn restart(&mut self) {
        self.header.salt += 1;
        self.header.frames = 0;
        self.backfilled = 0;
        for (slot, at) in self.slots.iter_mut().zip(0..) {
            slot.mark = if at < 2 { Some(0) } else { None };
        }
    }

    /// The slot with the highest mark that is not above.
    pub fn best_slot(&self, frames: u8) -> Option<(usize, u8)> {
        (1..SLOTS)
            .filter_map(|slot| Some((slot, self.slots[slot].mark?)))
            .filter(|&(_, mark)| mark <= frames)
            .max_by_key(|&(_, mark)| mark)
    }

    /// As far as may be copied back; `walCheckpoint` moves marks nobody uses on.
    pub fn safe_frames(&mut self, frames: u8) -> u8 {
        let mut safe = frames;
        for slot in 1..SLOTS {
            let Some(mark) = self.slots[slot].mark else {
                continue;
            };
            if safe > mark {
                if self.slots[slot].shared == 0 && self.slots[slot].exclusive.is_none() {
                    self.slots[slot].mark = (slot == 1).then_some(safe);
                } else {
                    safe = mark;
                }
            }
        }
        safe
    }
}
