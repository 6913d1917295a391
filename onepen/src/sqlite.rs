//! The engine under the pen: one write connection of real SQLite.
//!
//! Guarantees to the pen: `begin` and `commit` wait for strangers no longer than
//! the caller's patience; between `member_begins` and `member_ends` foreign code
//! can neither end the transaction nor leave anything behind that the next member
//! would notice; a COMMIT that may or may not have reached the disk is reported
//! as [`Outcome::Unknown`], never as a failure.

mod copies;
pub(crate) mod copying;

use std::cell::{Cell, OnceCell, RefCell};
use std::sync::Arc;
use std::time::Instant;

use copies::Copies;
use onepen_lock::gate::{Note, Stamp};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ffi};

use crate::blocks::raw::close;
use crate::blocks::retry::{Class, Stopped, again};
use crate::blocks::transaction::outcome_of_failed_commit;
use crate::capi::{Control, failure};
use crate::changes::Tables;
use crate::changes::hub::Hub;
use crate::changes::recorder::Recorder;
use crate::changes::token::{CommitToken, Tokens};
use crate::connection::{Connector, POLL, Role};
use crate::engine::{CommitError, Engine, Patience, Witness, gave_up};
use crate::error::{Error, ErrorKind, Holder, Outcome, Result, Waited, WaitedFor};
use crate::gate::Others;
use crate::options::Journal;
use crate::raw::{self, Guards};
use crate::readers::Readers;
use crate::readers::mark::CommitMark;
use crate::running::Running;
use crate::trace::event;
use crate::wal::WalLevel;

/// The connection with its control statements. Field order is drop order:
/// statements go before their connection, and the guards, whose address the
/// connection has, go last.
struct Live {
    /// Of this connection, so they end with it.
    copies: Copies,
    /// The open transaction can be undone without a ROLLBACK.
    whole: Cell<bool>,
    begin: Control,
    commit: Control,
    rollback: Control,
    savepoint: Control,
    release: Control,
    rollback_to: Control,
    connection: Sweeping,
    guards: Box<Guards>,
    /// Where commits show, once that was looked for.
    commits: OnceCell<Option<CommitMark>>,
    wal: Arc<WalLevel>,
}

/// A connection that can be closed whatever foreign code forgot on it.
struct Sweeping(Option<Connection>);

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
    fn open(connector: &Connector, wal: &Arc<WalLevel>, patience: &dyn Patience) -> Result<Self> {
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
    fn stamp(&self) -> Option<Stamp> {
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

    fn stamp_if_known(&self) -> Option<Stamp> {
        Some(self.commits.get()?.as_ref()?.stamp())
    }

    fn check(&self, code: i32) -> Result<()> {
        if code == ffi::SQLITE_OK {
            return Ok(());
        }
        Err(failure(&self.connection, code).into())
    }
}

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

/// What listeners are told.
impl SqliteEngine {
    /// A transaction has begun, and with it SQLite's write lock.
    #[inline]
    fn follow(&self) {
        let (Some(hub), Some(live)) = (&self.hub, &self.live) else {
            return;
        };
        let recorder = &live.guards.recorder;
        self.before.set(None);
        self.written.set(self.wal.written());
        if hub.notes().is_some() && live.commits.get().is_none() {
            live.stamp(); // a closure that takes a token may not ask for it
        }
        if hub.is_listening() || hub.others_listen() || recorder.is_on() {
            self.follow_on(hub, live, recorder);
        } else if self.connector.options.journal == Journal::Rollback {
            self.version.set(data_version(live));
        }
    }

    fn follow_on(&self, hub: &Hub, live: &Live, recorder: &Recorder) {
        let (listening, others) = (hub.is_listening(), hub.others_listen());
        let wanted = listening || others;
        if recorder.is_on() != wanted {
            recorder.turn(&live.connection, wanted);
        }
        recorder.forget_transaction();
        self.before.set(live.stamp());
        if listening {
            self.compare(hub, live);
        }
    }

    /// Whether strangers have committed; with their lock in our hands, or with
    /// nothing in it.
    fn compare(&self, hub: &Hub, live: &Live) {
        if self.connector.options.journal == Journal::Rollback {
            let version = data_version(live);
            if self.version.replace(version) != version {
                hub.elsewhere(None);
            }
        } else if let Some(now) = live.stamp() {
            hub.compare(now);
        }
    }

    /// Looks for what strangers have committed, without a transaction.
    pub(crate) fn look_out(&self) {
        let (Some(hub), Some(live)) = (&self.hub, &self.live) else {
            return;
        };
        if !hub.is_listening() {
            return;
        }
        self.compare(hub, live);
    }

    /// COMMIT has succeeded.
    #[inline]
    fn announce(&self, live: &Live) {
        let Some(hub) = &self.hub else {
            return self.tokens.borrow_mut().settle(Outcome::Committed);
        };
        let before = self.before.take();
        if before.is_none() && !hub.is_listening() {
            self.tokens.borrow_mut().settle(Outcome::Committed);
            hub.committed();
            return;
        }
        self.announce_to(hub, live, before);
    }

    fn announce_to(&self, hub: &Hub, live: &Live, before: Option<Stamp>) {
        // Somebody who came after BEGIN: what ran before is not known.
        let tables = if live.guards.recorder.is_on() && before.is_some() {
            live.guards.recorder.take()
        } else {
            Tables::ANY
        };
        self.tell_of(hub, live, before, tables);
    }

    fn tell_of(&self, hub: &Hub, live: &Live, before: Option<Stamp>, tables: Tables) {
        // A COMMIT of nothing is none for SQLite, and what it counts next is
        // somebody else's.
        let wrote = self.wal.written() != self.written.get();
        let now = live.stamp();
        let (tokens, all_tokens) = self.tokens.borrow().ids();
        let wanted = !tokens.is_empty() || !all_tokens || hub.others_listen();
        if let (Some(before), Some(now), true) = (before, now, wrote && wanted)
            && now.commits == before.commits.wrapping_add(1)
        {
            let changed = (!tables.is_any()).then(|| tables.names().map(Into::into).collect());
            hub.note(&Note {
                before,
                after: now,
                changed,
                tokens,
                all_tokens,
            });
        }
        self.tokens.borrow_mut().settle(Outcome::Committed);
        let commit = hub.committed();
        if hub.is_listening() {
            let after = match (before, now) {
                // Somebody else may have committed since, who is to be told as well:
                // no checksum fits 0.
                (Some(before), Some(now)) => wrote.then(|| {
                    let commits = before.commits.wrapping_add(1);
                    let is_ours = now.commits == commits;
                    let checksum = if is_ours { now.checksum } else { 0 };
                    Stamp { commits, checksum }
                }),
                // What is told is "any table", which covers them.
                _ => now,
            };
            hub.tell(commit, tables, after);
        }
    }

    /// Foreign code had a connection to itself, and may have committed anything.
    fn exclusive_was_told(&self) {
        let Some(hub) = &self.hub else { return };
        let commit = hub.committed();
        if self.connector.options.journal == Journal::Rollback {
            self.version.set(self.live.as_ref().and_then(data_version));
        }
        if hub.is_listening() {
            // What others have committed since is told with it.
            let now = self.live.as_ref().and_then(Live::stamp);
            hub.tell(commit, Tables::ANY, now);
        }
    }
}

/// A number that changes when another connection commits.
fn data_version(live: &Live) -> Option<i64> {
    let sql = "PRAGMA data_version";
    live.connection.query_row(sql, (), |row| row.get(0)).ok()
}

impl SqliteEngine {
    /// Over a rollback journal: nobody of this process reads from here to the
    /// end of the transaction, so that a COMMIT meets no reader of ours.
    fn hold_readers(&self, patience: &dyn Patience) -> Result<()> {
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

    fn let_readers_go(&self) {
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
    fn begun(&mut self, begun: Result<()>) -> Result<()> {
        if let Err(error) = &begun
            && error.sqlite_code() == Some(ffi::SQLITE_READONLY)
        {
            self.live = None;
        }
        begun
    }

    #[cold]
    fn begin_slowly(&self, code: i32, patience: &dyn Patience) -> Result<()> {
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
fn first_then(
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
