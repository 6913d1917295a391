//! SQLite's core in write-ahead mode, as far as it takes locks; and its programs.
//!
//! Not modelled: recovery of a log after a crash (the torn header that leads to it
//! is), `locking_mode = EXCLUSIVE`, snapshots opened by hand.

use onepen_vfs::promotion::{Call, Stage};

use super::shared::{Header, SLOTS};
use super::world::{Broken, Kind, Known, Promotion, Seen, State};

/// Where the core stands; a name ending in a call's is where its answer is awaited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum At {
    /// Between transactions.
    Rest,
    /// `walIndexReadHdr`.
    ReadHeader,
    TornLock,
    TornRead,
    TornUnlock,
    /// `walTryBeginRead`, after the header.
    Pick {
        in_write: bool,
    },
    Mark {
        slot: usize,
        in_write: bool,
    },
    SetMark {
        slot: usize,
        in_write: bool,
    },
    LockSlot {
        slot: usize,
        mark: u8,
        in_write: bool,
    },
    CheckSlot {
        slot: usize,
        mark: u8,
        in_write: bool,
    },
    Retry {
        in_write: bool,
    },
    /// A read lock is had; the program reads, and decides.
    Snapshot,
    /// `sqlite3WalBeginWriteTransaction`.
    LockWrite,
    CheckWrite,
    StaleUnlockWrite,
    /// The first frame: `walRestartLog`.
    Restart,
    SetRestart,
    RestartUnlockRead,
    Commit,
    EndWrite,
    EndRead,
    /// Busy handler.
    Sleep,
    Ended,
    /// A checkpoint.
    LockCheckpoint,
    CheckpointLockWrite,
    CheckpointHeader,
    Backfill,
    CopyBack {
        safe: u8,
    },
    Truncate,
    CheckpointUnlockWrite,
    UnlockCheckpoint,
}

/// What a connection's core knows.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Core {
    pub at: At,
    /// `pWal->hdr`.
    header: Header,
    /// The slot that a call is about.
    pub wanted: usize,
    /// `pWal->readLock`.
    slot: Option<usize>,
    /// `pWal->writeLock`.
    pub writes: bool,
    /// `sqlite3_txn_state` is not NONE.
    pub is_open: bool,
    /// BUSY at the start of a transaction: sleep, and begin again.
    is_busy: bool,
    pub committed: bool,
}

impl Core {
    pub fn new(header: Header) -> Self {
        Self {
            at: At::Rest,
            header,
            wanted: 0,
            slot: None,
            writes: false,
            is_open: false,
            is_busy: false,
            committed: false,
        }
    }
}

impl Core {
    /// It has a read lock other than 0.
    pub fn is_on_log(&self) -> bool {
        self.slot != Some(0)
    }
}

impl Promotion {
    /// A step of the core between two calls.
    pub(super) fn step(&self, state: &mut State, me: usize, yes: bool) {
        let connection = &mut state.connections[me];
        let kind = connection.to_do.last().copied();
        let core = &mut connection.core;
        let shared = &mut state.shared;
        match core.at {
            At::Rest => match kind {
                Some(Kind::Passive | Kind::Truncate) => {
                    core.at = At::LockCheckpoint;
                    self.call(state, me, Call::LockCheckpoint);
                }
                _ => core.at = At::ReadHeader,
            },
            At::ReadHeader => {
                core.header = shared.header;
                core.at = At::Pick { in_write: false };
            }
            At::TornRead => {
                core.header = shared.header;
                core.at = At::TornUnlock;
                core.writes = false;
                self.call(state, me, Call::UnlockWrite);
            }
            At::Pick { in_write } => {
                let best = shared.best_slot(core.header.frames);
                if !in_write && shared.backfilled == core.header.frames {
                    self.lock_slot(state, me, 0, 0, in_write);
                } else if let Some((slot, mark)) = best
                    && mark == core.header.frames
                {
                    self.lock_slot(state, me, slot, mark, in_write);
                } else {
                    core.at = At::Mark { slot: 1, in_write };
                }
            }
            At::Mark { slot, in_write } => {
                if shared.lock_slot(me, slot) {
                    core.at = At::SetMark { slot, in_write };
                } else if slot + 1 < SLOTS {
                    let slot = slot + 1;
                    core.at = At::Mark { slot, in_write };
                } else if let Some((slot, mark)) = shared.best_slot(core.header.frames) {
                    self.lock_slot(state, me, slot, mark, in_write);
                } else {
                    core.at = begin_again(in_write);
                }
            }
            At::SetMark { slot, in_write } => {
                let mark = core.header.frames;
                shared.slots[slot].mark = Some(mark);
                shared.unlock_slots(me);
                self.lock_slot(state, me, slot, mark, in_write);
            }
            At::CheckSlot {
                slot,
                mark,
                in_write,
            } => {
                let same_mark = slot == 0 || shared.slots[slot].mark == Some(mark);
                if same_mark && shared.header == core.header {
                    core.slot = Some(slot);
                    core.at = if in_write { At::Commit } else { At::Snapshot };
                    if connection.machine.stage() == Stage::Promoted {
                        connection.promoted = true;
                    }
                } else {
                    core.at = At::Retry { in_write };
                    core.wanted = slot;
                    self.call(state, me, Call::UnlockRead);
                }
            }
            At::Snapshot => {
                let writes = match kind {
                    Some(Kind::ReadWrite | Kind::Immediate) => true,
                    Some(Kind::Perhaps) => yes,
                    _ => false,
                };
                if writes {
                    // Only BEGIN IMMEDIATE asks before the transaction is open.
                    core.is_open = kind != Some(Kind::Immediate);
                    core.at = At::LockWrite;
                    self.call(state, me, Call::LockWrite);
                } else {
                    self.end_read(state, me);
                }
            }
            At::CheckWrite => {
                if shared.header == core.header {
                    core.is_open = true;
                    core.at = At::Restart;
                } else {
                    if connection.promoted {
                        state.broken = Some(Broken::Stale);
                    }
                    Seen::mark(&self.seen.stale_upgrade);
                    core.is_busy = !core.is_open;
                    core.writes = false;
                    core.at = At::StaleUnlockWrite;
                    self.call(state, me, Call::UnlockWrite);
                }
            }
            At::Restart if core.slot == Some(0) => {
                if shared.backfilled > 0 && shared.lock_marks(me) {
                    core.at = At::SetRestart;
                } else {
                    self.swap_slots(state, me);
                }
            }
            At::Restart => core.at = At::Commit,
            At::SetRestart => {
                shared.restart();
                core.header = shared.header;
                shared.unlock_slots(me);
                self.swap_slots(state, me);
            }
            At::Commit => {
                if yes {
                    shared.header = Header {
                        frames: core.header.frames + 1,
                        value: core.header.value + 1,
                        ..core.header
                    };
                    core.header = shared.header;
                    state.commits += 1;
                    core.committed = true;
                }
                core.writes = false;
                core.at = At::EndWrite;
                self.call(state, me, Call::UnlockWrite);
            }
            At::Sleep => {
                state.try_turn(me);
                state.connections[me].core.at = At::ReadHeader;
            }
            At::Ended => {
                core.is_open = false;
                if core.committed && !yes {
                    core.committed = false;
                    state.checkpoints -= 1;
                    core.at = At::LockCheckpoint;
                    self.call(state, me, Call::LockCheckpoint);
                } else {
                    self.ended(state, me);
                }
            }
            At::CheckpointHeader => {
                core.header = shared.header;
                core.at = At::Backfill;
            }
            At::Backfill => {
                let safe = shared.safe_frames(core.header.frames);
                core.at = if shared.backfilled < safe && shared.lock_slot(me, 0) {
                    At::CopyBack { safe }
                } else {
                    At::Truncate
                };
            }
            At::CopyBack { safe } => {
                if shared.header.salt == core.header.salt {
                    shared.backfilled = safe;
                }
                shared.unlock_slots(me);
                core.at = At::Truncate;
            }
            At::Truncate => {
                let all = shared.backfilled == core.header.frames;
                if core.writes && all && shared.lock_marks(me) {
                    shared.restart();
                    shared.unlock_slots(me);
                }
                if core.writes {
                    core.writes = false;
                    core.at = At::CheckpointUnlockWrite;
                    self.call(state, me, Call::UnlockWrite);
                } else {
                    core.at = At::UnlockCheckpoint;
                    self.call(state, me, Call::UnlockCheckpoint);
                }
            }
            // The others await an answer.
            _ => state.broken = Some(Broken::Nonsense),
        }
    }

    /// The answer to a call.
    pub(super) fn answered(&self, state: &mut State, me: usize, call: Call, ok: bool) {
        let connection = &mut state.connections[me];
        let kind = connection.to_do.last().copied();
        let core = &mut connection.core;
        match core.at {
            At::TornLock if ok => {
                core.writes = true;
                core.at = At::TornRead;
            }
            At::TornLock => core.at = At::ReadHeader,
            At::TornUnlock => core.at = At::Pick { in_write: false },
            At::LockSlot {
                slot,
                mark,
                in_write,
            } => {
                core.at = if ok {
                    At::CheckSlot {
                        slot,
                        mark,
                        in_write,
                    }
                } else {
                    begin_again(in_write)
                };
            }
            At::Retry { in_write } => core.at = begin_again(in_write),
            At::LockWrite if ok => {
                core.writes = true;
                core.at = At::CheckWrite;
            }
            At::LockWrite => {
                if connection.promised {
                    state.broken = Some(Broken::Refused);
                }
                core.is_busy = !core.is_open;
                self.end_read(state, me);
            }
            At::StaleUnlockWrite => {
                if connection.promised {
                    state.broken = Some(Broken::Refused);
                }
                self.end_read(state, me);
            }
            At::RestartUnlockRead => core.at = At::Pick { in_write: true },
            At::EndWrite => self.end_read(state, me),
            At::EndRead => {
                connection.promoted = false;
                connection.promised = false;
                if core.is_busy {
                    core.is_busy = false;
                    core.at = At::Sleep;
                } else {
                    core.at = At::Ended;
                }
                // Who sleeps stands in line.
                let sleeps = core.at == At::Sleep;
                if sleeps
                    && connection.has_vfs
                    && state.turn != Some(me)
                    && !state.line.contains(&me)
                {
                    state.line.push(me);
                }
            }
            At::LockCheckpoint if !ok => core.at = At::Ended,
            At::LockCheckpoint if kind == Some(Kind::Truncate) => {
                core.at = At::CheckpointLockWrite;
                self.call(state, me, Call::LockWrite);
            }
            At::LockCheckpoint => core.at = At::CheckpointHeader,
            At::CheckpointLockWrite => {
                // Refused, it goes on as a passive one.
                core.writes = ok;
                core.at = At::CheckpointHeader;
            }
            At::CheckpointUnlockWrite => {
                core.at = At::UnlockCheckpoint;
                self.call(state, me, Call::UnlockCheckpoint);
            }
            At::UnlockCheckpoint => core.at = At::Ended,
            _ => {
                let _ = call;
                state.broken = Some(Broken::Nonsense);
            }
        }
    }

    fn lock_slot(&self, state: &mut State, me: usize, slot: usize, mark: u8, in_write: bool) {
        let core = &mut state.connections[me].core;
        core.wanted = slot;
        core.at = At::LockSlot {
            slot,
            mark,
            in_write,
        };
        self.call(state, me, Call::LockRead);
    }

    /// The end of `walRestartLog`: read lock 0 is let go in the middle of a write.
    fn swap_slots(&self, state: &mut State, me: usize) {
        if state.connections[me].promoted {
            Seen::mark(&self.seen.restart_while_promoted);
        }
        let core = &mut state.connections[me].core;
        core.slot = None;
        core.wanted = 0;
        core.at = At::RestartUnlockRead;
        self.call(state, me, Call::UnlockRead);
    }

    fn end_read(&self, state: &mut State, me: usize) {
        let core = &mut state.connections[me].core;
        core.wanted = core.slot.take().unwrap_or(0);
        core.at = At::EndRead;
        self.call(state, me, Call::UnlockRead);
    }

    fn ended(&self, state: &mut State, me: usize) {
        let connection = &mut state.connections[me];
        // What it remembers makes no difference any more: fewer states.
        let start = Header {
            salt: 0,
            frames: 0,
            value: 0,
        };
        connection.core = Core::new(start);
        connection.remembered = start;
        connection.real = false;
        connection.to_do.pop();
        if connection.to_do.is_empty() && connection.known == Known::Nothing {
            // Nothing more to learn: fewer states.
            connection.known = Known::Reads;
        }
    }
}

fn begin_again(in_write: bool) -> At {
    if in_write {
        At::Pick { in_write }
    } else {
        At::ReadHeader
    }
}
