//! Which transaction begins: whether it is the first of its connection on this file,
//! and whether it will write, by the statement that runs.
//!
//! Everything here asks SQLite, from within a call of SQLite: the connection's mutex is
//! this thread's, and no statement comes or goes meanwhile.

use std::ffi::{CStr, c_int};
use std::ptr::{null, null_mut};
use std::time::{Duration, Instant};

use super::Open;
use super::switches::Promote;
use crate::kinds::Kind;
use crate::promotion::Will;
use crate::sqlite;
use crate::waiting;

/// So long a transaction waits for its turn of which it is not known that it writes.
const PERHAPS_WAITS: Duration = Duration::from_secs(1);

/// How often it is looked for writers that do not queue by who met none lately.
const LOOKS_EVERY: Duration = Duration::from_millis(5);

/// So long a transaction may take from its first read to its first write in its turn
/// before others go on: if it is known to write, and if not.
const READS: Duration = Duration::from_secs(1);
const PERHAPS_READS: Duration = Duration::from_millis(200);

/// How often who has to have the write lock looks whether it is free.
const A_BIT: Duration = Duration::from_micros(200);

impl Open {
    /// Whether the transaction that begins to read will write.
    pub(super) fn foresee(&self) -> Will {
        let db = self.db();
        if self.promote.get() == Promote::Off || db.is_null() {
            return Will::Read;
        }
        // SAFETY: the connection is in the middle of using this file.
        if unsafe { (self.served.host.get_autocommit)(db) } != 0 {
            self.kind.set(None);
            return Will::Read; // a single statement takes the write lock at once
        }
        let will = self.foresee_by_statement();
        if self.has_attached() {
            self.begins_with_others(will);
        }
        match will {
            Will::Write if self.kind.get().is_none() => Will::Read, // so does its first one
            Will::Write if self.promote.get() == Promote::Lock => Will::Write,
            Will::Read => Will::Read,
            _ if self.looks_for_strangers() => Will::Turn,
            // The turn alone. If it is known, for as long as need be.
            _ => Will::Perhaps,
        }
    }

    /// Whether it is time to look, before the first read in a turn, that nobody writes
    /// who does not queue. That takes two system calls; who is met is looked for every
    /// time, for a while.
    fn looks_for_strangers(&self) -> bool {
        let now = Instant::now();
        self.foreseen_at.set(Some(now));
        let due = self.look_at.get().is_none_or(|at| now >= at);
        if due || self.turns.met_a_stranger_lately(now) {
            self.look_at.set(Some(now + LOOKS_EVERY));
            return true;
        }
        false
    }

    /// What is known of the transaction by the statement that runs.
    pub(super) fn foresee_by_statement(&self) -> Will {
        let mut kind = None;
        let mut writes = false;
        // Of several the first: which of them is asking cannot be known.
        self.running(|statement| {
            // SAFETY: a statement of this connection, which is inside of SQLite.
            writes = unsafe { (self.served.host.stmt_readonly)(statement) } == 0;
            kind = Some(self.kind_of(statement));
            true
        });
        let will = match kind {
            _ if writes => Will::Write,
            Some(kind) => kind.will(),
            None => Will::Read, // SQLite reads the schema
        };
        self.kind.set(kind.filter(|_| !writes));
        self.first_kind.set(kind);
        self.known.set(will == Will::Write);
        self.reads_since.set(None);
        self.foreseen_at.set(None);
        will
    }

    /// The transaction that was foreseen wrote, or ended without.
    pub(super) fn learn(&self, wrote: bool) {
        let Some(kind) = self.kind.take() else {
            return;
        };
        if wrote {
            kind.wrote();
        } else {
            // Who had no turn waited for it in vain.
            let since = self.reads_since.take();
            kind.only_read(since.map_or(PERHAPS_WAITS, |since| since.elapsed()));
        }
    }

    /// The turn is taken for a transaction that reads first, after it `waited` or at once.
    /// `false`: it is lost already.
    pub(super) fn reads_first(&self, waited: bool) -> bool {
        let foreseen = self.foreseen_at.take().filter(|_| !waited);
        self.reads_since
            .set(Some(foreseen.unwrap_or_else(Instant::now)));
        self.reads_first_as(self.known.get())
    }

    /// The same for a transaction that is `known` to write, or not.
    pub(super) fn reads_first_as(&self, known: bool) -> bool {
        self.turns.reads_first(time_to_read(known))
    }

    /// After its first read, in its turn, somebody else has the write lock: whether it is
    /// worth trying again. Waits a bit if so.
    pub(super) fn waits_a_bit(&self) -> bool {
        let time = time_to_read(self.known.get());
        let waits = self.busy.get().is_some()
            && self.header() == self.remembered.get()
            && self
                .reads_since
                .get()
                .is_some_and(|since| since.elapsed() < time);
        if waits {
            std::thread::sleep(A_BIT);
        }
        waits
    }

    pub(super) fn text(&self, statement: *mut sqlite::Stmt) -> &[u8] {
        // SAFETY: a statement of this connection.
        let text = unsafe { (self.served.host.sql)(statement) };
        if text.is_null() {
            return b"";
        }
        // SAFETY: SQLite's string lives as long as the statement, which is running.
        unsafe { CStr::from_ptr(text) }.to_bytes()
    }

    pub(super) fn kind_of(&self, statement: *mut sqlite::Stmt) -> Kind {
        let mut kinds = self.kinds.get();
        let kind = kinds.kind_of(self.text(statement));
        self.kinds.set(kinds);
        kind
    }

    /// Calls `with` for each running statement until it says `true`.
    pub(super) fn running(&self, mut with: impl FnMut(*mut sqlite::Stmt) -> bool) {
        let db = self.db();
        let host = &self.served.host;
        let mut statement = null_mut();
        loop {
            // SAFETY: the connection's mutex is this thread's while SQLite calls us,
            // so no statement comes or goes.
            unsafe {
                statement = (host.next_stmt)(db, statement);
                if statement.is_null() {
                    return;
                }
                if (host.stmt_busy)(statement) == 0 {
                    continue;
                }
            }
            if with(statement) {
                return;
            }
        }
    }

    /// Whether the transaction whose read lock is let go only begins again.
    pub(super) fn retries(&self) -> bool {
        let db = self.db();
        // SAFETY: as in `foresee`.
        if db.is_null() || unsafe { (self.served.host.get_autocommit)(db) } != 0 {
            return false;
        }
        let Some(kind) = self.kind.get() else {
            return false;
        };
        let mut same = false;
        let mut ends = false;
        self.running(|statement| {
            let text = self.text(statement).trim_ascii_start();
            let word = &text[..text.len().min(8)];
            ends |= word.eq_ignore_ascii_case(b"rollback") || !begins_with_read(word);
            same |= self.kind_of(statement) == kind;
            false
        });
        same && !ends
    }

    /// Whether the checkpoint is a statement of the program, and does not follow a commit
    /// by itself: the next commit is not followed by one.
    pub(super) fn is_checkpoint_by_hand(&self) -> bool {
        let mut found = false;
        self.running(|statement| {
            let text = self.text(statement).trim_ascii_start();
            found = text.len() >= 6 && text[..6].eq_ignore_ascii_case(b"pragma");
            found
        });
        found
    }

    /// Whether no transaction is open on this file yet.
    pub(super) fn begins(&self) -> bool {
        let db = self.db();
        if db.is_null() {
            return true;
        }
        let host = &self.served.host;
        // SAFETY: the connection is in the middle of using this file.
        if unsafe { (host.txn_state)(db, null()) } == sqlite::TXN_NONE {
            return true;
        }
        // One is open somewhere. Here?
        let mut here = false;
        self.files(|name, open| {
            if std::ptr::eq(open, self) {
                // SAFETY: as above; the name is SQLite's.
                here = unsafe { (host.txn_state)(db, name) } != sqlite::TXN_NONE;
                return true;
            }
            false
        });
        !here
    }

    /// Calls the connection's busy handler, as SQLite does when a lock is refused.
    pub(super) fn wait(&self, rc: c_int, since: Instant) -> bool {
        self.wait_for(self, rc, since)
    }

    /// The same for the turn of another file of the connection.
    pub(super) fn wait_for(&self, open: &Self, rc: c_int, since: Instant) -> bool {
        let patient = matches!(rc & 0xff, sqlite::OK | sqlite::BUSY)
            && (self.known.get() || since.elapsed() < PERHAPS_WAITS)
            && self.has_no_other_transaction();
        let again = patient
            && self.busy.get().is_some_and(|busy| {
                waiting::refused(&open.turns);
                // SAFETY: SQLite said that this may be called so.
                unsafe { (busy.handler)(busy.argument) != 0 }
            });
        if !again {
            open.turns.leave();
            waiting::over();
        }
        again
    }

    /// Who has another database's lock must not stand in line for this one's: the
    /// next could do it the other way round.
    pub(super) fn has_no_other_transaction(&self) -> bool {
        let db = self.db();
        // SAFETY: as in `begins`.
        !db.is_null() && unsafe { (self.served.host.txn_state)(db, null()) } == sqlite::TXN_NONE
    }
}

fn time_to_read(known: bool) -> Duration {
    if known { READS } else { PERHAPS_READS }
}

/// Whether the text may be a statement that reads: not one that ends a transaction.
fn begins_with_read(word: &[u8]) -> bool {
    let is =
        |start: &[u8]| word.len() >= start.len() && word[..start.len()].eq_ignore_ascii_case(start);
    !is(b"commit") && !is(b"end") && !is(b"release")
}
