//! Locks on the database file itself (`xLock`): those of a rollback journal's readers
//! and writers. Nothing is ever locked here that the core did not ask for.

use std::ffi::c_int;
use std::time::Instant;

use super::Open;
use super::switches::Promote;
use crate::promotion::Will;
use crate::sqlite;
use crate::waiting;

impl Open {
    /// A lock on the database file itself: those of a rollback journal's readers and
    /// writers. Nothing is ever locked here that the core did not ask for: a lock of
    /// our own would hide a hot journal from it (`hasHotJournal`).
    pub(super) fn lock(&self, level: c_int) -> c_int {
        waiting::asked(&self.turns);
        let from = self.lock.get();
        let begins = from == sqlite::LOCK_NONE && level == sqlite::LOCK_SHARED;
        let reserves = from == sqlite::LOCK_SHARED && level == sqlite::LOCK_RESERVED;
        if self.through.get() || !(begins || reserves) {
            return self.real_lock(level);
        }
        let mut writes = reserves;
        let mut confirms = false;
        if begins {
            self.again.set(false);
            if self.is_shared() {
                self.through.set(true);
                return self.real_lock(level);
            }
            writes = self.take_turn_to_begin();
        } else if !self.begins() {
            self.turns.try_take_by_the_way();
        } else if !self.turns.try_take_or_poll() {
            waiting::refused(&self.turns);
            return sqlite::BUSY;
        } else {
            confirms = true;
        }
        let mut rc = self.real_lock(level);
        if rc == sqlite::OK && confirms && !self.turns.confirm() {
            // Somebody else may read what he is going to change.
            self.real_unlock(from);
            rc = sqlite::BUSY;
        }
        if rc == sqlite::OK {
            if reserves {
                self.turns.locked();
            }
        } else if writes {
            // Whoever writes waits in line, also for a reader's lock.
            self.again.set(true);
            waiting::refused(&self.turns);
        }
        rc
    }

    /// Before a transaction's first lock on the database file: waits for the turn if
    /// it will write. Says whether it will.
    pub(super) fn take_turn_to_begin(&self) -> bool {
        let db = self.db();
        if db.is_null() {
            return false;
        }
        // SAFETY: the connection is in the middle of using this file.
        let alone = unsafe { (self.served.host.get_autocommit)(db) } != 0;
        let will = self.foresee_by_statement();
        if alone || self.promote.get() == Promote::Off {
            // What it will do later does not matter, only what it does now.
            let reads = self.kind.take().is_some();
            if reads || will == Will::Read {
                return false;
            }
        } else if will == Will::Read {
            return false;
        }
        if !alone && self.has_attached() {
            self.begins_with_others(will);
        }
        self.turns.seat();
        let since = Instant::now();
        while !self.turns.try_take_or_poll() || !self.reads_first(true) {
            if !self.wait(sqlite::OK, since) {
                return self.known.get();
            }
        }
        true
    }

    pub(super) fn real_lock(&self, level: c_int) -> c_int {
        // SAFETY: the file below is open.
        let rc = unsafe {
            match (*(*self.below).methods).lock {
                Some(lock) => lock(self.below, level),
                None => sqlite::OK,
            }
        };
        if rc == sqlite::OK {
            self.lock.set(self.lock.get().max(level));
        }
        rc
    }

    fn real_unlock(&self, level: c_int) -> c_int {
        // SAFETY: the file below is open.
        let rc = unsafe {
            match (*(*self.below).methods).unlock {
                Some(unlock) => unlock(self.below, level),
                None => sqlite::OK,
            }
        };
        self.lock.set(level.min(self.lock.get()));
        rc
    }

    pub(super) fn unlock(&self, level: c_int) -> c_int {
        let from = self.lock.get();
        let rc = self.real_unlock(level);
        let wrote = from >= sqlite::LOCK_RESERVED && level < sqlite::LOCK_RESERVED;
        let ends = from > sqlite::LOCK_NONE && level == sqlite::LOCK_NONE;
        if wrote || ends {
            self.learn(wrote);
        }
        if wrote || ends && !self.again.get() {
            self.turns.pass_on(u64::from(wrote));
        }
        if ends && !self.again.get() {
            self.ends_with_others();
        }
        rc
    }
}
