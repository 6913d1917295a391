//! Locks of write-ahead mode (`xShmLock`): drives the machine of [`crate::promotion`],
//! and does what it says at the operating system, the gate and the learnt kinds.
//!
//! Of most calls of a program that is alone nothing follows but that they are passed on.
//! For them there are shorter ways, which do the same as the long one: the test
//! `the_short_way_of_a_lock_is_the_long_one` compares the two for every state. That of
//! a read lock is as short as can be: whether it is open is found out beforehand, by the
//! call before (`settle`).

use std::ffi::c_int;
use std::time::Instant;

use super::Open;
use crate::promotion::{Action, Answer, Call, Machine, Stage, Told, Will};
use crate::sqlite;
use crate::waiting;

/// What SQLite asks for, in all combinations that it knows.
const LOCK_READ: c_int = sqlite::SHM_LOCK | sqlite::SHM_SHARED;
const UNLOCK_READ: c_int = sqlite::SHM_UNLOCK | sqlite::SHM_SHARED;
const LOCK: c_int = sqlite::SHM_LOCK | sqlite::SHM_EXCLUSIVE;
const UNLOCK: c_int = sqlite::SHM_UNLOCK | sqlite::SHM_EXCLUSIVE;

/// None of them: there is no short way.
pub(super) const NEITHER: c_int = 0;

impl Open {
    #[inline(always)]
    pub(super) fn real_shm_lock(&self, offset: c_int, n: c_int, flags: c_int) -> c_int {
        // SAFETY: the file below is open, and has the method, or SQLite would not
        // have found it among ours.
        unsafe {
            match (*(*self.below).methods).shm_lock {
                Some(shm_lock) => shm_lock(self.below, offset, n, flags),
                None => sqlite::IOERR,
            }
        }
    }

    #[inline(always)]
    pub(super) fn real_write(&self, flags: c_int) -> c_int {
        self.real_shm_lock(sqlite::SLOT_WRITE, 1, flags | sqlite::SHM_EXCLUSIVE)
    }

    /// Whether this is the call for a read lock that [`settle`](Self::settle) found to
    /// have the shortest way.
    #[inline(always)]
    pub(super) fn is_short(&self, offset: c_int, flags: c_int) -> bool {
        flags == self.short.get()
            && offset >= sqlite::SLOT_READ
            && !waiting::does_anybody_remember()
            && !self.turns.has_turn()
    }

    /// That way, of which nothing follows but that the call is passed on: the end of a
    /// transaction of which nothing is to be learnt, or the beginning of a single
    /// statement, which reads, or writes and takes the write lock by itself. `None` for
    /// the beginning of another transaction. Nothing in it can panic.
    #[inline(always)]
    pub(super) fn short_shm_lock(&self, offset: c_int, n: c_int, flags: c_int) -> Option<c_int> {
        if flags == UNLOCK_READ {
            self.change(Machine::short_unlock_read);
            self.commits.set(0); // there is no turn to pass on
            self.short.set(LOCK_READ);
            return Some(self.real_shm_lock(offset, n, flags));
        }
        // SAFETY: a field of the B-tree that owns this file, as SQLite told; the
        // connection that it names is in the middle of using this file.
        let alone = unsafe {
            let db = *self.db.get();
            db == self.first_db.get() && (self.served.host.get_autocommit)(db) != 0
        };
        if !alone {
            return None;
        }
        self.kind.set(None);
        let rc = self.real_shm_lock(offset, n, flags);
        self.committed.set(false);
        let granted = rc == sqlite::OK;
        self.change(|machine| machine.short_lock_read(granted));
        if granted {
            self.short.set(UNLOCK_READ);
        }
        Some(rc)
    }

    /// The short ways of the write lock, or the long way.
    #[inline]
    pub(super) fn shm_lock(&self, offset: c_int, n: c_int, flags: c_int) -> c_int {
        let write = offset == sqlite::SLOT_WRITE && n == 1 && !self.through.get();
        if write && self.several.get().is_none() && !waiting::does_anybody_remember() {
            let at_once = match flags {
                LOCK => self.lock_write_at_once(),
                UNLOCK => self.unlock_write_at_once(),
                _ => None,
            };
            if let Some(rc) = at_once {
                return rc;
            }
        }
        self.long_shm_lock(offset, n, flags)
    }

    /// Whether the next call may go the short way.
    fn settle(&self) {
        let alone = !self.through.get() && self.several.get().is_none() && self.turns.is_seated();
        self.short.set(if !alone {
            NEITHER
        } else if self.ask(|machine| machine.may_end_at_once() && machine.rests()) {
            UNLOCK_READ
        } else if self.ask(Machine::may_read_at_once) && !self.db().is_null() && !self.is_shared() {
            LOCK_READ
        } else {
            NEITHER
        });
    }

    #[inline(never)]
    fn long_shm_lock(&self, offset: c_int, n: c_int, flags: c_int) -> c_int {
        waiting::asked(&self.turns);
        let pass = || self.real_shm_lock(offset, n, flags);
        let call = match (offset, n, flags) {
            _ if self.through.get() => return pass(),
            (sqlite::SLOT_READ..sqlite::SLOTS, 1, LOCK_READ) => Call::LockRead,
            (sqlite::SLOT_READ..sqlite::SLOTS, 1, UNLOCK_READ) => Call::UnlockRead,
            (sqlite::SLOT_WRITE, 1, LOCK) => Call::LockWrite,
            (sqlite::SLOT_WRITE, 1, UNLOCK) => Call::UnlockWrite,
            (sqlite::SLOT_CHECKPOINT, 1, LOCK) => Call::LockCheckpoint,
            (sqlite::SLOT_CHECKPOINT, 1, UNLOCK) => Call::UnlockCheckpoint,
            _ => return pass(),
        };
        let at_once = match call {
            Call::LockRead => self.lock_read_at_once(pass),
            Call::LockWrite => self.lock_write_at_once(),
            Call::UnlockWrite => self.unlock_write_at_once(),
            _ => None,
        };
        let rc = at_once.unwrap_or_else(|| self.drive(call, pass));
        if self.several.get().is_some()
            && self.ask(|machine| machine.stage() == Stage::Idle && !machine.again())
        {
            self.ends_with_others();
        }
        self.settle();
        rc
    }

    /// A transaction that is not expected to write, when nothing is kept from before.
    fn lock_read_at_once(&self, pass: impl Fn() -> c_int) -> Option<c_int> {
        // A connection without a place at the gate takes it the long way.
        if !self.ask(Machine::may_read_at_once) || !self.turns.is_seated() || self.is_shared() {
            return None;
        }
        let will = self.foresee();
        if will != Will::Read {
            self.foreseen.set(Some(will));
            return None;
        }
        let rc = pass();
        self.committed.set(false);
        self.change(|machine| machine.short_lock_read(rc == sqlite::OK));
        Some(rc)
    }

    /// The turn and the lock are there.
    #[inline]
    fn lock_write_at_once(&self) -> Option<c_int> {
        if !self.ask(Machine::may_write_at_once) {
            return None;
        }
        // Who has had its turn since its first read is asked below whether it still is.
        if !self.turns.has_turn() && !self.turns.try_take() {
            return None;
        }
        if self.real_write(sqlite::SHM_LOCK) != sqlite::OK {
            return None;
        }
        if !self.turns.confirm() {
            self.real_write(sqlite::SHM_UNLOCK);
            return None;
        }
        self.turns.locked();
        self.at_write.set(self.changes());
        self.change(Machine::short_lock_write);
        self.short.set(NEITHER);
        if let Some(kind) = self.kind.take() {
            kind.wrote();
        }
        Some(sqlite::OK)
    }

    #[inline]
    fn unlock_write_at_once(&self) -> Option<c_int> {
        if !self.ask(Machine::may_end_write_at_once) {
            return None;
        }
        let rc = self.real_write(sqlite::SHM_UNLOCK);
        let expects = self.expects_checkpoint();
        self.change(|machine| machine.short_unlock_write(expects));
        if !expects {
            self.turns.pass_on(self.commits.take());
        }
        self.settle();
        Some(rc)
    }

    /// Does what the machine says, until it has an answer.
    pub(super) fn drive(&self, call: Call, pass: impl Fn() -> c_int) -> c_int {
        let mut machine = self.machine.get();
        if call == Call::LockRead && machine.stage() == Stage::Idle && self.is_shared() {
            self.turns.leave();
            self.through.set(true);
            return pass();
        }
        let mut action = machine.ask(call);
        let mut rc = sqlite::OK;
        let mut waits = None;
        let mut upgrades = false;
        loop {
            let told = match action {
                Action::Answer(answer) => {
                    self.machine.set(machine);
                    return match answer {
                        Answer::Ok => sqlite::OK,
                        Answer::AsReal => rc,
                        Answer::NotYourTurn => {
                            waiting::refused(&self.turns);
                            sqlite::BUSY
                        }
                    };
                }
                Action::Foresee => {
                    // A place at the gate also says that this process is no stranger.
                    self.turns.seat();
                    let foreseen = self.foreseen.take();
                    Told::Foreseen(foreseen.unwrap_or_else(|| self.foresee()))
                }
                Action::RememberHeader => {
                    self.remembered.set(self.header());
                    Told::Yes
                }
                Action::HeaderIsSame => (self.header() == self.remembered.get()).into(),
                Action::TryTurn => {
                    let yes = if upgrades {
                        self.turns.try_take()
                    } else if machine.checkpointing() {
                        self.turns.try_take_or_go_on_polling()
                    } else {
                        self.turns.try_take_or_poll()
                    };
                    yes.into()
                }
                Action::ConfirmTurn => {
                    let yes = match call {
                        Call::LockRead => self.reads_first(waits.is_some()),
                        _ => self.turns.confirm(),
                    };
                    yes.into()
                }
                Action::WaitABit => self.waits_a_bit().into(),
                Action::Wait(_) => {
                    let since = *waits.get_or_insert_with(Instant::now);
                    self.machine.set(machine);
                    self.wait(rc, since).into()
                }
                Action::BeginsTransaction => {
                    let begins = self.begins();
                    upgrades = !begins;
                    begins.into()
                }
                Action::Retries => self.retries().into(),
                Action::Pass => {
                    rc = pass();
                    self.passed(call, rc);
                    (rc == sqlite::OK).into()
                }
                Action::RealLockWrite => {
                    rc = self.real_write(sqlite::SHM_LOCK);
                    if rc == sqlite::OK {
                        self.turns.locked();
                        self.at_write.set(self.changes());
                    } else {
                        self.turns.met_a_stranger();
                        waiting::refused(&self.turns);
                    }
                    (rc == sqlite::OK).into()
                }
                Action::RealUnlockWrite => {
                    self.real_write(sqlite::SHM_UNLOCK);
                    Told::Yes
                }
                Action::ExpectsCheckpoint => self.expects_checkpoint().into(),
                Action::NoCheckpointCame => {
                    self.checkpoint_at.set(u32::MAX);
                    Told::Yes
                }
                Action::Learn(wrote) => {
                    self.learn(wrote);
                    Told::Yes
                }
                Action::PassOn => {
                    self.turns.pass_on(self.commits.take());
                    Told::Yes
                }
            };
            action = machine.told(told);
        }
    }

    /// What a call that was passed on says beside its answer.
    pub(super) fn passed(&self, call: Call, rc: c_int) {
        match call {
            Call::LockCheckpoint if rc == sqlite::OK => {
                // It comes at less than expected, or was not expected any more.
                if self.committed.take()
                    && let Some(frames) = self.frames()
                    && !self.is_checkpoint_by_hand()
                {
                    self.checkpoint_at.set(self.checkpoint_at.get().min(frames));
                }
            }
            Call::LockRead => self.committed.set(false),
            _ => {}
        }
    }
}
