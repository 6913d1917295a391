//! Several databases in one transaction (ATTACH): the turns of all of them before the
//! first read, in the order of [`Several`], and what is given back after it.
//!
//! What SQLite hands out of a connection is asked from within a call of SQLite for this
//! connection, so no file of it is opened or closed meanwhile, and its files belong to
//! this thread.

use std::ffi::{c_int, c_void};
use std::ptr::null_mut;
use std::time::Instant;

use super::switches::Promote;
use super::{Open, methods, parts};
use crate::promotion::{Next, Several, Stage, Will};
use crate::sqlite::{self, File};

/// More databases than SQLite ever attaches, `main` and `temp` with them.
const MOST: c_int = 130;

impl Open {
    /// Whether the connection has another database beside `main` and `temp`. Nearly none
    /// has, and to ask costs a few instructions.
    pub(super) fn has_attached(&self) -> bool {
        let db = self.db();
        // SAFETY: the connection is in the middle of using this file.
        !db.is_null() && !unsafe { (self.served.host.db_name)(db, 2) }.is_null()
    }

    /// Calls `with` for the name and file of each database of the connection that is a
    /// file of ours, until it says `true`.
    pub(super) fn files(&self, mut with: impl FnMut(*const std::ffi::c_char, &Open) -> bool) {
        let db = self.db();
        let host = &self.served.host;
        for index in 0..MOST {
            // SAFETY: the connection is in the middle of using this file.
            let name = unsafe { (host.db_name)(db, index) };
            if name.is_null() {
                return;
            }
            let mut file: *mut File = null_mut();
            // SAFETY: this file control stores a pointer to the database's file, or
            // leaves it null.
            unsafe {
                (host.file_control)(
                    db,
                    name,
                    sqlite::FCNTL_FILE_POINTER,
                    (&raw mut file).cast::<c_void>(),
                );
            }
            // SAFETY: a file of the connection; with our methods it is one of ours.
            let ours = unsafe {
                (!file.is_null() && methods::is_ours((*file).methods)).then(|| parts(file))
            };
            if ours.is_some_and(|open| with(name, open)) {
                return;
            }
        }
    }

    /// An explicit transaction begins, or goes on to this database, on a connection that
    /// has several: takes the turns of all, if it is the first read of a kind that may go
    /// on, and is expected to write.
    pub(super) fn begins_with_others(&self, will: Will) {
        self.several.set(None);
        if !self.has_no_other_transaction() {
            // It goes on: whichever was the first gets to know.
            self.files(|_, open| {
                open.went_on.set(true);
                false
            });
            return;
        }
        let kind = self.first_kind.take();
        self.went_on.set(false);
        self.several.set(kind);
        if will == Will::Read || !kind.is_some_and(|kind| kind.may_go_on()) {
            return;
        }
        let mut others: Vec<*const Open> = Vec::new();
        let mut identities = Vec::new();
        self.files(|_, open| {
            if !open.through.get()
                && open.promote.get() != Promote::Off
                && let Some(identity) = open.turns.identity()
            {
                others.push(open);
                identities.push(identity);
            }
            false
        });
        let mut several = Several::new(&identities);
        let since = Instant::now();
        // SAFETY: no file of the connection is closed while it waits for this one: its
        // mutex is this thread's.
        let open = |at: usize| unsafe { &*others[at] };
        loop {
            let told = match several.next() {
                Next::Try(at) => {
                    open(at).turns.try_take() && open(at).reads_first_as(self.known.get())
                }
                Next::Wait(at) => self.wait_for(open(at), sqlite::OK, since),
                Next::GiveBack(at) => {
                    open(at).turns.leave();
                    true
                }
                Next::All | Next::Nothing => return,
            };
            several.told(told);
        }
    }

    /// The transaction has ended on this file. If it was its first, turns of files that
    /// it never came to are given back.
    pub(super) fn ends_with_others(&self) {
        let Some(kind) = self.several.take() else {
            return;
        };
        kind.went_on(self.went_on.take());
        self.files(|_, open| {
            let machine = open.machine.get();
            // In write-ahead mode the database file stays locked between transactions.
            let rests = if open.index.get().is_null() {
                open.lock.get() == sqlite::LOCK_NONE
            } else {
                machine.stage() == Stage::Idle
                    && !machine.expects_checkpoint()
                    && !machine.checkpointing()
            };
            if rests {
                open.turns.leave();
            }
            false
        });
    }
}
