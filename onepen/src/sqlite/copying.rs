//! What the write connection does for the copies that are made from it.
//!
//! Guarantee: over a write-ahead log a transaction that is undone does not make a
//! copy begin anew. SQLite's ROLLBACK would, whenever a page was changed; a
//! savepoint around all of it, rolled back and followed by a COMMIT of what is as it
//! was before, does not. Only while copies are made, and not after a COMMIT that
//! failed: what became of its pages is not known, and they may not be built upon.

use std::time::Duration;

use rusqlite::{Connection, ffi};

pub(crate) use super::copies::{State, Step, Wanted};
use super::{Live, SqliteEngine};
use crate::changes::Tables;
use crate::error::Result;
use crate::options::Journal;

const BEGIN: &str = "SAVEPOINT onepen_whole";
const UNDO: &str = "ROLLBACK TO onepen_whole";

impl SqliteEngine {
    /// Begins to copy the database into `to`. In the pen's turn, outside of a
    /// transaction, like all of these.
    pub(crate) fn copy_into(&mut self, to: Connection) -> Result<Wanted> {
        if self.live.is_none() {
            self.live = Some(Live::open(&self.connector, &self.wal, &self.patience())?);
        }
        let live = self.live.as_mut().ok_or_else(super::not_open)?;
        // SAFETY: the two lie in one `Live`, of which `copies` is dropped first, and
        // neither is ever taken out.
        let wanted = unsafe { live.copies.begin(&live.connection, to) };
        Ok(wanted?)
    }

    /// Copies at most so many bytes, and no longer than about `time`. `None`: the
    /// connection of which it was a copy is closed, and the copy ended.
    pub(crate) fn copy_on(
        &mut self,
        copy: &Wanted,
        bytes: u64,
        time: Duration,
    ) -> Option<rusqlite::Result<Step>> {
        self.live.as_mut()?.copies.step(copy, bytes, time)
    }

    /// Ends the copies that nobody wants any more.
    pub(crate) fn forget_unwanted_copies(&mut self) {
        if let Some(live) = &mut self.live {
            live.copies.forget_unwanted();
        }
    }

    /// Whether somebody makes a copy through this connection.
    pub(crate) fn is_copied(&self) -> bool {
        self.live
            .as_ref()
            .is_some_and(|live| !live.copies.is_empty())
    }

    /// A transaction has begun.
    #[inline]
    pub(super) fn mind_copies(&mut self) {
        if self.is_copied() {
            self.begin_whole();
        }
    }

    #[cold]
    fn begin_whole(&mut self) {
        let Some(live) = &mut self.live else { return };
        live.copies.forget_unwanted();
        let has_log = self.connector.options.journal == Journal::Wal;
        let whole = has_log && !live.copies.is_empty();
        // Without it the copy may begin anew, and that is all.
        let begun = whole && live.connection.execute_batch(BEGIN).is_ok();
        live.whole.set(begun);
    }

    /// Undoes the open transaction without a ROLLBACK. `false`: it is still open.
    pub(super) fn undo_whole(&self, live: &Live) -> bool {
        if !live.whole.take() || live.connection.execute_batch(UNDO).is_err() {
            return false;
        }
        let committed = live.commit.run() == ffi::SQLITE_OK;
        if committed {
            // Of nothing; but SQLite may have counted it, and whoever counts with it
            // has to be told that it was nobody else's.
            self.announce_nothing(live);
        }
        committed
    }

    fn announce_nothing(&self, live: &Live) {
        let before = self.before.take();
        if let (Some(hub), Some(before)) = (&self.hub, before) {
            self.tell_of(hub, live, Some(before), Tables::of([]));
        }
    }
}
