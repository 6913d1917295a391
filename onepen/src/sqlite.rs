//! The engine under the pen: one write connection of real SQLite.
//!
//! Guarantees to the pen: `begin` and `commit` wait for strangers no longer than
//! the caller's patience; between `member_begins` and `member_ends` foreign code
//! can neither end the transaction nor leave anything behind that the next member
//! would notice; a COMMIT that may or may not have reached the disk is reported
//! as [`Outcome::Unknown`], never as a failure.
//!
//! | file | subject |
//! |---|---|
//! | [`copying`] | copies that go through it while others write |
//! | [`live`] | the connection, with what was prepared on it |
//! | [`waits`] | what BEGIN and COMMIT wait for |
//! | [`told`] | what listeners are told of commits |

mod copies;
pub(crate) mod copying;
mod live;
mod told;
mod waits;

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::time::Instant;

use onepen_lock::gate::Stamp;
use rusqlite::{Connection, ffi};

use self::live::Live;
use self::waits::first_then;
use crate::blocks::raw::close;
use crate::blocks::retry::Stopped;
use crate::blocks::transaction::outcome_of_failed_commit;
use crate::capi::failure;
use crate::changes::hub::Hub;
use crate::changes::token::{CommitToken, Tokens};
use crate::connection::{Connector, Role};
use crate::engine::{CommitError, Engine, Patience, Witness};
use crate::error::{Error, ErrorKind, Outcome, Result, WaitedFor};
use crate::gate::Others;
use crate::raw;
use crate::readers::Readers;
use crate::running::Running;
use crate::wal::WalLevel;

pub(crate) struct SqliteEngine {
    /// `None` after a failed reopening, the next `begin` tries again; and while
    /// foreign code has the connection to itself.
    live: Option<Live>,
    /// What foreign code has to itself: a connection without hooks or statements
    /// of ours, for it may keep this one and put another in its place.
    lent: Option<Connection>,
    connector: Arc<Connector>,
    wal: Arc<WalLevel>,
    /// Over a rollback journal a COMMIT needs the readers out of the way.
    hold: Option<Arc<Readers>>,
    holding: Cell<bool>,
    /// The connection itself was in foreign hands: its hooks may be gone.
    exposed: Cell<bool>,
    others: Arc<Others>,
    /// Whom to tell of commits.
    hub: Option<Arc<Hub>>,
    tokens: RefCell<Tokens>,
    /// What runs now.
    pub(crate) running: Arc<Running>,
    /// Over a rollback journal: what SQLite called the state of the file when the
    /// pen was last held.
    version: Cell<Option<i64>>,
    /// The state before the open transaction, where somebody wants to know.
    before: Cell<Option<Stamp>>,
    /// What was written before it.
    written: Cell<u64>,
}

impl SqliteEngine {
    pub(crate) fn open(
        connector: Arc<Connector>,
        wal: Arc<WalLevel>,
        hold: Option<Arc<Readers>>,
        patience: &dyn Patience,
    ) -> Result<Self> {
        let live = Live::open(&connector, &wal, patience)?;
        Ok(Self {
            live: Some(live),
            lent: None,
            connector,
            wal,
            hold,
            holding: Cell::new(false),
            exposed: Cell::new(false),
            others: Arc::new(Others::none("nobody was asked")),
            hub: None,
            tokens: RefCell::default(),
            running: Arc::default(),
            version: Cell::new(None),
            before: Cell::new(None),
            written: Cell::new(0),
        })
    }

    /// Whoever else writes to the file.
    pub(crate) fn among(mut self, others: &Arc<Others>) -> Self {
        self.others = Arc::clone(others);
        self
    }

    /// Whom to tell of commits from here on.
    pub(crate) fn tell(&mut self, hub: Arc<Hub>) {
        self.hub = Some(hub);
    }

    /// A token of what becomes of the member that runs.
    pub(crate) fn commit_token(&self) -> CommitToken {
        let at_gate = self.hub.as_ref().is_some_and(|hub| hub.notes().is_some());
        let before = || self.live.as_ref().and_then(Live::stamp_if_known);
        let before = self.before.get().or_else(|| at_gate.then(before).flatten());
        if at_gate {
            self.before.set(before); // so that a note is left
        }
        self.tokens.borrow_mut().take(before.filter(|_| at_gate))
    }

    /// The connection, which is there whenever foreign code runs.
    pub(crate) fn connection(&self) -> Result<&Connection> {
        Ok(&self.live()?.connection)
    }

    /// The connection while foreign code has it to itself.
    pub(crate) fn connection_mut(&mut self) -> Result<&mut Connection> {
        if self.lent.is_none() {
            let patience = self.patience();
            let connection = self.connector.open(Role::Writer, &patience)?;
            // Whoever has it to himself does not poll as we do: SQLite waits for
            // strangers.
            connection.busy_timeout(self.connector.options.wait)?;
            self.lent = Some(connection);
        }
        self.lent.as_mut().ok_or_else(not_open)
    }

    fn patience(&self) -> crate::engine::Until<'static> {
        crate::engine::Until {
            deadline: Instant::now().checked_add(self.connector.options.wait),
            cancel: None,
        }
    }

    fn live(&self) -> Result<&Live> {
        self.live.as_ref().ok_or_else(not_open)
    }

    /// The hooks are to be put back after this member.
    pub(crate) fn expose(&self) {
        self.exposed.set(true);
        if let Some(live) = &self.live {
            // It can be written to in ways that no statement shows.
            live.guards.recorder.any();
        }
    }

    /// Runs statements of ours in the middle of a member.
    pub(crate) fn with_savepoints<T>(&self, run: impl FnOnce(&Connection) -> T) -> Result<T> {
        let live = self.live()?;
        live.guards.allow_savepoints(true);
        let result = run(&live.connection);
        live.guards.allow_savepoints(false);
        Ok(result)
    }

    /// How many others wait to write.
    pub(crate) fn others_are_waiting(&self) -> usize {
        self.others.how_many()
    }

    /// Whatever runs in this member is ended at `until`, from here on.
    pub(crate) fn limit(&self, until: Option<Instant>) {
        if let Some(live) = &self.live {
            raw::limit(&live.connection, &live.guards, until);
        }
    }

    pub(crate) fn take_refusal(&self) -> Option<&'static str> {
        self.live.as_ref()?.guards.take_refusal()
    }
}

fn not_open() -> Error {
    Error::new(
        ErrorKind::Closed,
        "the write connection could not be opened again",
    )
}

impl Engine for SqliteEngine {
    fn begin(&mut self, patience: &dyn Patience) -> Result<()> {
        if self.live.is_none() {
            self.live = Some(Live::open(&self.connector, &self.wal, patience)?);
        }
        self.hold_readers(patience)?;
        let code = self.live()?.begin.run();
        if code != ffi::SQLITE_OK {
            let begun = self.begin_slowly(code, patience);
            if begun.is_err() {
                self.let_readers_go();
            }
            self.begun(begun)?;
        }
        self.mind_copies();
        self.follow();
        Ok(())
    }

    fn savepoint(&mut self) -> Result<()> {
        self.tokens.get_mut().savepoint();
        let live = self.live()?;
        if live.guards.recorder.is_on() {
            live.guards.recorder.savepoint();
        }
        live.check(live.savepoint.run())
    }

    fn release(&mut self) -> Result<()> {
        let live = self.live()?;
        live.check(live.release.run())
    }

    fn rollback_to(&mut self) -> Result<()> {
        self.tokens.get_mut().rollback_to();
        let live = self.live()?;
        if live.guards.recorder.is_on() {
            live.guards.recorder.rollback_to();
        }
        live.check(live.rollback_to.run())?;
        live.check(live.release.run())
    }

    fn commit(&mut self, patience: &dyn Patience) -> Result<(), CommitError> {
        let Some(live) = &self.live else {
            return Err(CommitError {
                error: Arc::new(rusqlite::Error::InvalidQuery),
                outcome: Outcome::NotCommitted,
                holder: None,
            });
        };
        live.whole.set(false);
        let code = live.commit.run();
        if code == ffi::SQLITE_OK {
            self.let_readers_go();
            self.announce(live);
            return Ok(());
        }
        // BUSY, over a rollback journal: a stranger still reads (ours are held
        // back). The transaction stays open, SQLite keeps new readers out
        // meanwhile, and COMMIT may be tried again.
        let strangers = &self.connector.strangers;
        let patience = strangers.notice(patience, WaitedFor::Readers, Instant::now());
        let committed = first_then(code, &live.commit, &patience, |code| {
            code & 0xff == ffi::SQLITE_BUSY
        });
        match committed {
            Ok(()) => {
                self.let_readers_go();
                self.announce(live);
                Ok(())
            }
            Err(Stopped::Failed(code) | Stopped::GaveUp(_, code)) => Err(CommitError {
                error: Arc::new(failure(&live.connection, code)),
                outcome: {
                    let outcome = outcome_of_failed_commit(code);
                    self.tokens.borrow_mut().settle(outcome);
                    outcome
                },
                holder: match code & 0xff {
                    ffi::SQLITE_BUSY => strangers.who(WaitedFor::Readers),
                    _ => None,
                },
            }),
        }
    }

    fn rollback(&mut self) {
        self.tokens.get_mut().settle(Outcome::NotCommitted);
        if let Some(live) = &self.live {
            live.guards.recorder.forget_transaction();
            if live.connection.is_autocommit() {
                live.whole.set(false);
            } else if !self.undo_whole(live) {
                live.rollback.run();
            }
            // For want of memory ROLLBACK itself may fail. To close the connection
            // does not, and ends the transaction as well; `begin` opens another.
            if !live.connection.is_autocommit() {
                self.live = None;
            }
        }
        self.let_readers_go();
    }

    fn is_autocommit(&self) -> bool {
        self.live
            .as_ref()
            .is_none_or(|live| live.connection.is_autocommit())
    }

    fn owes_foreign_keys(&self) -> bool {
        self.live
            .as_ref()
            .is_some_and(|live| raw::owes_foreign_keys(&live.connection))
    }

    fn member_begins(&mut self) {
        if let Some(live) = &self.live {
            live.guards.set_inside(true);
        }
    }

    fn member_ends(&mut self) {
        let exposed = self.exposed.take();
        if let Some(live) = &self.live {
            raw::clean_up(&live.connection);
            live.guards.set_inside(false);
            if exposed {
                raw::install(&live.connection, &live.guards);
                live.guards.recorder.again(&live.connection);
            }
            live.guards.recorder.settle(&live.connection);
        }
    }

    fn exclusive_begins(&mut self, patience: &dyn Patience) -> Result<()> {
        self.hold_readers(patience)?;
        self.live = None;
        Ok(())
    }

    fn exclusive_ends(&mut self) -> Result<()> {
        let left_open = match self.lent.take() {
            Some(connection) => {
                let left_open = !connection.is_autocommit();
                // What it forgot would keep the connection open, and with it the
                // transaction.
                close(connection);
                left_open
            }
            None => false,
        };
        self.let_readers_go();
        // A new connection is the one way to be sure that no setting, temporary
        // table, attached database or function outlives the call. Should it not
        // open, that is no failure of the call: `begin` tries again.
        self.live = Live::open(&self.connector, &self.wal, &self.patience()).ok();
        self.exclusive_was_told();
        if left_open {
            return Err(Error::new(
                ErrorKind::TransactionLost,
                "the closure left a transaction open; it was rolled back",
            ));
        }
        Ok(())
    }
}
