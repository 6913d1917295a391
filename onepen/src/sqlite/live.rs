//! The write connection, with what was prepared on it.
//!
//! Guarantees: it has the guards from before its first statement to after its
//! last; it can be closed whatever foreign code forgot on it; and closing it does
//! not remove a log that is to be kept.

use std::cell::{Cell, OnceCell};
use std::sync::Arc;

use onepen_lock::gate::Stamp;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ffi};

use super::copies::Copies;
use crate::blocks::raw::close;
use crate::capi::{Control, failure};
use crate::connection::{Connector, Role};
use crate::engine::Patience;
use crate::error::Result;
use crate::raw::{self, Guards};
use crate::readers::mark::CommitMark;
use crate::wal::WalLevel;

/// The connection with its control statements. Field order is drop order:
/// statements go before their connection, and the guards, whose address the
/// connection has, go last.
pub(super) struct Live {
    /// Of this connection, so they end with it.
    pub(super) copies: Copies,
    /// The open transaction can be undone without a ROLLBACK.
    pub(super) whole: Cell<bool>,
    pub(super) begin: Control,
    pub(super) commit: Control,
    pub(super) rollback: Control,
    pub(super) savepoint: Control,
    pub(super) release: Control,
    pub(super) rollback_to: Control,
    pub(super) connection: Sweeping,
    pub(super) guards: Box<Guards>,
    /// Where commits show, once that was looked for.
    pub(super) commits: OnceCell<Option<CommitMark>>,
    wal: Arc<WalLevel>,
}

/// A connection that can be closed whatever foreign code forgot on it.
pub(super) struct Sweeping(Option<Connection>);

impl std::ops::Deref for Sweeping {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        self.0.as_ref().expect("only `drop` takes it")
    }
}

impl Drop for Sweeping {
    fn drop(&mut self) {
        if let Some(connection) = self.0.take() {
            close(connection);
        }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        if self.wal.is_kept() {
            // Or the last to close would copy back what it thinks is left, and
            // remove the log. It cannot fail: it sets a bit.
            let _ = self
                .connection
                .set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true);
        }
    }
}

impl Live {
    pub(super) fn open(
        connector: &Connector,
        wal: &Arc<WalLevel>,
        patience: &dyn Patience,
    ) -> Result<Self> {
        let connection = connector.open(Role::Writer, patience)?;
        let guards = Guards::new(Arc::clone(wal));
        raw::install(&connection, &guards);
        Ok(Self {
            copies: Copies::default(),
            whole: Cell::new(false),
            begin: Control::prepare(&connection, c"BEGIN IMMEDIATE")?,
            commit: Control::prepare(&connection, c"COMMIT")?,
            rollback: Control::prepare(&connection, c"ROLLBACK")?,
            savepoint: Control::prepare(&connection, c"SAVEPOINT onepen_member")?,
            release: Control::prepare(&connection, c"RELEASE onepen_member")?,
            rollback_to: Control::prepare(&connection, c"ROLLBACK TO onepen_member")?,
            connection: Sweeping(Some(connection)),
            guards,
            commits: OnceCell::new(),
            wal: Arc::clone(wal),
        })
    }

    /// SQLite's count of commits, by whomever.
    pub(super) fn stamp(&self) -> Option<Stamp> {
        if self.commits.get().is_none() {
            // In a transaction SQLite has its shared memory at hand.
            let begins = self.connection.is_autocommit();
            if begins {
                let begin = "BEGIN; SELECT count(*) FROM sqlite_schema";
                self.connection.execute_batch(begin).ok()?;
            }
            let _ = self.commits.set(CommitMark::of(&self.connection));
            if begins {
                self.connection.execute_batch("COMMIT").ok()?;
            }
        }
        Some(self.commits.get()?.as_ref()?.stamp())
    }

    /// The same, where it is at hand.
    pub(super) fn stamp_if_known(&self) -> Option<Stamp> {
        Some(self.commits.get()?.as_ref()?.stamp())
    }

    /// SQLite's answer as a result, in its own words.
    pub(super) fn check(&self, code: i32) -> Result<()> {
        if code == ffi::SQLITE_OK {
            return Ok(());
        }
        Err(failure(&self.connection, code).into())
    }
}
