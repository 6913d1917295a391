//! What BEGIN and COMMIT wait for: strangers, and over a rollback journal our own
//! readers.
//!
//! Guarantees: no wait is longer than the caller's patience, and an error of one
//! says what was waited for, how long, and who was in the way.

use std::time::Instant;

use rusqlite::ffi;

use super::SqliteEngine;
use crate::blocks::retry::{Class, Stopped, again};
use crate::capi::{Control, failure};
use crate::connection::POLL;
use crate::engine::{Patience, gave_up};
use crate::error::{Holder, Result, Waited, WaitedFor};
use crate::trace::event;

impl SqliteEngine {
    /// Over a rollback journal: nobody of this process reads from here to the
    /// end of the transaction, so that a COMMIT meets no reader of ours.
    pub(super) fn hold_readers(&self, patience: &dyn Patience) -> Result<()> {
        let Some(readers) = &self.hold else {
            return Ok(());
        };
        if self.holding.get() {
            return Ok(());
        }
        let since = Instant::now();
        if let Err(why) = readers.make_way(self.connector.options.reader_hold, patience) {
            let mut waited = Waited::new(WaitedFor::Readers, since.elapsed());
            waited.holder = Some(Holder::own_reads());
            return Err(self.connector.context(crate::pen::gave_up(why, waited)));
        }
        self.holding.set(true);
        Ok(())
    }

    pub(super) fn let_readers_go(&self) {
        if self.holding.take()
            && let Some(readers) = &self.hold
        {
            readers.let_go();
        }
    }

    /// SQLite reads a log only, and says nothing until somebody writes, when it
    /// found no descriptor left at the moment of opening it. The next `begin` gets
    /// a connection that has looked again. (A file that was moved away says
    /// otherwise, and is not opened again by its name.)
    pub(super) fn begun(&mut self, begun: Result<()>) -> Result<()> {
        if let Err(error) = &begun
            && error.sqlite_code() == Some(ffi::SQLITE_READONLY)
        {
            self.live = None;
        }
        begun
    }

    #[cold]
    pub(super) fn begin_slowly(&self, code: i32, patience: &dyn Patience) -> Result<()> {
        event!(
            DEBUG,
            "the write lock is held outside this pen",
            database = &*self.connector.name
        );
        self.others.write_lock.met_a_stranger();
        let live = self.live()?;
        let since = Instant::now();
        let patience = (self.connector.strangers).notice(patience, WaitedFor::WriteLock, since);
        let begun = first_then(code, &live.begin, &patience, |code| {
            Class::of_code(code).is_some_and(Class::is_others_doing)
        });
        begun.map_err(|stopped| match stopped {
            Stopped::Failed(code) => {
                let error = failure(&live.connection, code);
                self.connector.context(error.into())
            }
            Stopped::GaveUp(why, code) => {
                let waited = Waited::new(WaitedFor::WriteLock, since.elapsed());
                let error = failure(&live.connection, code);
                let error = gave_up(why, waited).with_source(error);
                self.connector.blame(self.connector.context(error))
            }
        })?;
        self.connector.strangers.gone();
        Ok(())
    }
}

/// Runs BEGIN or COMMIT again, which has answered `code`, while that is `worth`
/// it and `patience` lasts.
pub(super) fn first_then(
    code: i32,
    statement: &Control,
    patience: &dyn Patience,
    worth: impl Fn(i32) -> bool,
) -> Result<(), Stopped<i32>> {
    let mut first = Some(code);
    let run = || match first.take().unwrap_or_else(|| statement.run()) {
        ffi::SQLITE_OK => Ok(()),
        code => Err(code),
    };
    again(patience, |_| POLL, run, |code, _| worth(*code))
}
