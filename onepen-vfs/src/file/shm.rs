//! Locks of write-ahead mode (`xShmLock`): drives the machine of [`crate::promotion`],
//! and does what it says at the operating system, the gate and the learnt kinds.
//!
//! Of most calls of a program that is alone nothing follows but that they are passed on.
//! For them there is a short way, which does the same as the long one: the test
//! `the_short_way_of_a_lock_is_the_long_one` compares the two for every state.

use std::ffi::c_int;
use std::time::Instant;

use super::Open;
use crate::promotion::{Action, Answer, Call, Machine, Stage, Told, Will};
use crate::sqlite;
use crate::waiting;

impl Open {
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

    pub(super) fn real_write(&self, flags: c_int) -> c_int {
        self.real_shm_lock(sqlite::SLOT_WRITE, 1, flags | sqlite::SHM_EXCLUSIVE)
    }

    pub(super) fn shm_lock(&self, offset: c_int, n: c_int, flags: c_int) -> c_int {
        waiting::asked(&self.turns);
        let lock = flags & sqlite::SHM_LOCK != 0;
        let exclusive = flags & sqlite::SHM_EXCLUSIVE != 0;
        let call = match (offset, n, exclusive, lock) {
            _ if self.through.get() => None,
            (sqlite::SLOT_READ..sqlite::SLOTS, 1, false, true) => Some(Call::LockRead),
            (sqlite::SLOT_READ..sqlite::SLOTS, 1, false, false) => Some(Call::UnlockRead),
            (sqlite::SLOT_WRITE, 1, true, true) => Some(Call::LockWrite),
            (sqlite::SLOT_WRITE, 1, true, false) => Some(Call::UnlockWrite),
            (sqlite::SLOT_CHECKPOINT, 1, true, true) => Some(Call::LockCheckpoint),
            (sqlite::SLOT_CHECKPOINT, 1, true, false) => Some(Call::UnlockCheckpoint),
            _ => None,
        };
        let pass = || self.real_shm_lock(offset, n, flags);
        let at_once = match call {
            None => return pass(),
            Some(Call::LockRead) => self.lock_read_at_once(pass),
            Some(Call::LockWrite) => self.lock_write_at_once(),
            Some(Call::UnlockWrite) => self.unlock_write_at_once(pass),
            _ => None,
        };
        let rc = match (at_once, call) {
            (Some(rc), _) => rc,
            (None, Some(call)) => self.drive(call, pass),
            (None, None) => pass(),
        };
        let machine = self.machine.get();
        if self.several.get().is_some() && machine.stage() == Stage::Idle && !machine.again() {
            self.ends_with_others();
        }
        rc
    }

    /// A transaction that is not expected to write.
    fn lock_read_at_once(&self, pass: impl Fn() -> c_int) -> Option<c_int> {
        if !self.may_read_at_once() {
            return None;
        }
        let will = self.foresee();
        if will != Will::Read {
            self.foreseen.set(Some(will));
            return None;
        }
        Some(self.read_at_once(pass))
    }

    /// The turn and the lock are there.
    fn lock_write_at_once(&self) -> Option<c_int> {
        if !self.machine.get().may_write_at_once() || !self.turns.try_take() {
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
        self.at_write.set(self.header());
        self.change(Machine::short_lock_write);
        if let Some(kind) = self.kind.take() {
            kind.wrote();
        }
        Some(sqlite::OK)
    }

    fn unlock_write_at_once(&self, pass: impl Fn() -> c_int) -> Option<c_int> {
        if !self.machine.get().may_end_write_at_once() {
            return None;
        }
        let rc = pass();
        let expects = self.expects_checkpoint();
        self.change(|machine| machine.short_unlock_write(expects));
        if !expects {
            self.turns.pass_on(self.commits.take());
        }
        Some(rc)
    }

    /// The same for calls of which nothing follows but that they are passed on, as in
    /// a program that is alone nearly all are; `None` for the others. Nothing in it can
    /// panic.
    #[inline]
    pub(super) fn short_shm_lock(&self, offset: c_int, n: c_int, flags: c_int) -> Option<c_int> {
        if offset < sqlite::SLOT_READ || n != 1 || waiting::does_anybody_remember() {
            return None;
        }
        let pass = || self.real_shm_lock(offset, n, flags);
        if flags & sqlite::SHM_EXCLUSIVE != 0 || self.through.get() {
            return Some(pass()); // a reader's mark
        }
        if flags & sqlite::SHM_LOCK != 0 {
            self.reads_at_once().then(|| self.read_at_once(pass))
        } else {
            let alone = !self.turns.has_turn() && self.several.get().is_none();
            (alone && self.machine.get().may_end_at_once()).then(|| {
                let rc = pass();
                // There is no turn to pass on.
                if self.change(Machine::short_unlock_read) {
                    self.commits.set(0);
                }
                rc
            })
        }
    }

    #[inline]
    fn read_at_once(&self, pass: impl Fn() -> c_int) -> c_int {
        let rc = pass();
        self.committed.set(false);
        self.change(|machine| machine.short_lock_read(rc == sqlite::OK));
        rc
    }

    /// Whether nothing is kept from before, so that a read lock may be passed on unless
    /// its transaction will write.
    #[inline]
    fn may_read_at_once(&self) -> bool {
        // A connection without a place at the gate takes it the long way.
        self.machine.get().may_read_at_once() && self.turns.is_seated() && !self.is_shared()
    }

    /// Whether nothing is to be done for the read lock that is asked for but to pass it
    /// on: a single statement reads, or writes and takes the write lock by itself.
    fn reads_at_once(&self) -> bool {
        if !self.may_read_at_once() {
            return false;
        }
        let db = self.db();
        // SAFETY: the connection is in the middle of using this file.
        let alone = !db.is_null() && unsafe { (self.served.host.get_autocommit)(db) } != 0;
        if alone {
            self.kind.set(None);
        }
        alone
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
                        Call::LockRead => self.reads_first(),
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
                        self.at_write.set(self.header());
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
