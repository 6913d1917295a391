//! A database that is a list, an engine with programmable faults, and a timer
//! that fires when told.
//!
//! The fake keeps what the real engine promises to the pen and nothing else:
//! one transaction at a time, savepoints inside it, rows that are there for
//! others only after COMMIT. Where the pen breaks the protocol (a COMMIT
//! without a transaction, a member outside the guards) the [`World`] remembers
//! it, because a panic at that place would be caught by the pen itself.

use std::collections::VecDeque;
use std::sync::Weak;
use std::time::Instant;

use crate::engine::{CommitError, Engine, GiveUp, Patience};
use crate::error::{Error, Outcome, Result, Waited, WaitedFor};
use crate::pen::turn::{Done, WriteLock};
use crate::sync::{Arc, AtomicBool, AtomicU32, Mutex, Ordering, lock, pause};
use crate::timer::{Expires, Timer};

/// What a COMMIT does instead of committing.
#[derive(Clone, Copy, Debug)]
pub(super) enum CommitFault {
    /// Works.
    None,
    /// Disk full: SQLite rolled back, nothing was written.
    NotCommitted,
    /// For something that one of the members met.
    #[cfg_attr(
        any(onepen_loom, onepen_shuttle),
        allow(dead_code, reason = "no threads")
    )]
    Refused,
    /// The sync failed: nothing shows now, a crash may bring it back.
    Unknown,
    /// A bug of ours.
    Panics,
}

#[derive(Default)]
struct Disk {
    committed: Vec<u32>,
    /// Rows whose writers were told that they are not there.
    denied: Vec<u32>,
    begin_faults: VecDeque<bool>,
    /// Of SAVEPOINT, RELEASE and ROLLBACK TO, in the order they come.
    savepoint_faults: VecDeque<bool>,
    commit_faults: VecDeque<CommitFault>,
    violations: Vec<String>,
}

/// The database file and everybody else who has it open.
pub(super) struct World {
    // std's, not the model's: a test that looks at the disk must not hide a
    // missing synchronisation by being one.
    disk: std::sync::Mutex<Disk>,
    /// SQLite's write lock.
    locked: AtomicBool,
    /// The turn is taken, by the pen or by another process. std's: it is looked
    /// at by every scenario and the subject of two.
    turn: std::sync::Mutex<Turns>,
    /// How many transactions were committed with something in them. The model's,
    /// and relaxed: loom only tries to swap steps that touch something in common,
    /// so a COMMIT and a look at what is committed must.
    commits: AtomicU32,
}

impl World {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            disk: std::sync::Mutex::default(),
            locked: AtomicBool::new(false),
            turn: std::sync::Mutex::default(),
            commits: AtomicU32::new(0),
        })
    }

    fn disk(&self) -> std::sync::MutexGuard<'_, Disk> {
        self.disk
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    pub(super) fn committed(&self) -> Vec<u32> {
        self.disk().committed.clone()
    }

    pub(super) fn has_committed(&self, row: u32) -> bool {
        self.commits();
        self.disk().committed.contains(&row)
    }

    pub(super) fn commits(&self) -> u32 {
        self.commits.load(Ordering::Relaxed)
    }

    /// Somebody was told that `row` is not there and never will be.
    pub(super) fn deny(&self, row: u32) {
        self.disk().denied.push(row);
    }

    fn next_about_savepoints(&self) -> Result<()> {
        match self.disk().savepoint_faults.pop_front() {
            Some(true) => Err(sqlite(rusqlite::ffi::SQLITE_NOMEM).into()),
            _ => Ok(()),
        }
    }

    /// The next BEGINs: `true` is refused.
    pub(super) fn next_begins(&self, refused: impl IntoIterator<Item = bool>) {
        self.disk().begin_faults.extend(refused);
    }

    /// The next statements about savepoints: `true` is refused.
    pub(super) fn next_savepoints(&self, refused: impl IntoIterator<Item = bool>) {
        self.disk().savepoint_faults.extend(refused);
    }

    pub(super) fn next_commits(&self, faults: impl IntoIterator<Item = CommitFault>) {
        self.disk().commit_faults.extend(faults);
    }

    /// Another process takes the write lock, if it can.
    pub(super) fn stranger_locks(&self) -> bool {
        self.locked
            .compare_exchange(false, true, Ordering::SeqCst, Ordering::SeqCst)
            .is_ok()
    }

    pub(super) fn stranger_unlocks(&self) {
        self.locked.store(false, Ordering::SeqCst);
    }

    fn turns(&self) -> std::sync::MutexGuard<'_, Turns> {
        self.turn
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// It is another process's turn, or no longer.
    pub(super) fn stranger_has_turn(&self, has: bool) {
        self.turns().theirs = has;
    }

    /// Each of our turns has lasted long enough, whenever that is asked.
    #[cfg(not(any(onepen_loom, onepen_shuttle)))]
    pub(super) fn turns_are_short(&self) {
        self.turns().ends = true;
    }

    /// Asks at the end of each turn whether there is more to write.
    #[cfg(not(any(onepen_loom, onepen_shuttle)))]
    pub(super) fn ask_for_more(&self) {
        self.turns().more = Some(Vec::new());
    }

    /// The answers.
    #[cfg(not(any(onepen_loom, onepen_shuttle)))]
    pub(super) fn was_there_more(&self) -> Vec<bool> {
        self.turns().more.take().unwrap_or_default()
    }

    /// What was said to be done in each turn: commits and writes.
    #[cfg(not(any(onepen_loom, onepen_shuttle)))]
    pub(super) fn passed_on(&self) -> Vec<(u64, u64)> {
        let turns = self.turns();
        let done = turns.passed_on.iter();
        done.map(|done| (done.commits, done.writes)).collect()
    }

    fn violated(&self, what: impl Into<String>) {
        self.disk().violations.push(what.into());
    }

    /// What must be true of every database in the end.
    pub(super) fn check(&self, engine: &FakeEngine) {
        assert!(engine.open.is_none(), "a transaction was left open");
        assert!(!engine.guarded, "the guards were left up");
        assert!(!self.turns().ours, "a turn was not passed on");
        let disk = self.disk();
        assert!(disk.violations.is_empty(), "{:?}", disk.violations);
        for row in &disk.denied {
            assert!(
                !disk.committed.contains(row),
                "row {row} is there although its writer was told that it is not"
            );
        }
        let mut rows = disk.committed.clone();
        rows.sort_unstable();
        rows.dedup();
        assert_eq!(
            rows.len(),
            disk.committed.len(),
            "a write was applied twice"
        );
    }
}

#[derive(Default)]
struct Turns {
    ours: bool,
    theirs: bool,
    /// Ours has lasted long enough.
    ends: bool,
    passed_on: Vec<Done>,
    /// Whether there was more to write, each time; if it is asked.
    more: Option<Vec<bool>>,
}

/// The queue between processes, with one other process in it.
pub(super) struct FakeWriteLock(pub(super) Arc<World>);

impl WriteLock for FakeWriteLock {
    fn take(&self, patience: &dyn Patience, _: Option<&str>) -> std::result::Result<(), GiveUp> {
        while self.0.turns().theirs {
            if let Some(why) = patience.exhausted() {
                return Err(why);
            }
            pause(std::time::Duration::from_micros(50));
        }
        if std::mem::replace(&mut self.0.turns().ours, true) {
            self.0.violated("a turn was taken twice");
        }
        Ok(())
    }

    fn pass_on(&self, done: Done, more: &mut dyn FnMut() -> bool) {
        let asks = self.0.turns().more.is_some();
        let more = asks.then(more);
        let mut turns = self.0.turns();
        turns.passed_on.push(done);
        if let Some(told) = &mut turns.more {
            told.extend(more);
        }
        drop(turns);
        if !std::mem::replace(&mut self.0.turns().ours, false) {
            self.0.violated("a turn was passed on that was not taken");
        }
    }

    fn should_end(&self) -> bool {
        self.0.turns().ends
    }
}

/// The transaction that is open.
#[derive(Default)]
struct Open {
    rows: Vec<u32>,
    /// Where the member that is running began, and what it owed then.
    savepoint: Option<(usize, usize)>,
    /// Violated deferred foreign keys.
    debts: usize,
}

pub(super) struct FakeEngine {
    world: Arc<World>,
    open: Option<Open>,
    guarded: bool,
}

impl FakeEngine {
    pub(super) fn new(world: Arc<World>) -> Self {
        Self {
            world,
            open: None,
            guarded: false,
        }
    }

    /// What a closure does: changes the database.
    pub(super) fn insert(&mut self, row: u32) -> Result<()> {
        if !self.guarded {
            self.world.violated("a member ran outside the guards");
        }
        let Some(open) = &mut self.open else {
            // The commit hook of the real engine: nothing in autocommit.
            return Err(refused("this write would have been committed by itself"));
        };
        if open.rows.contains(&row) {
            self.world
                .violated(format!("row {row} was written twice in one transaction"));
        }
        open.rows.push(row);
        Ok(())
    }

    /// What a closure sees: what is committed and its own transaction.
    pub(super) fn sees(&self, row: u32) -> bool {
        let own = self
            .open
            .as_ref()
            .is_some_and(|open| open.rows.contains(&row));
        own || self.world.has_committed(row)
    }

    /// `INSERT OR ROLLBACK`, an interrupt, an I/O error: all gone.
    pub(super) fn loses_its_transaction(&mut self) {
        self.open = None;
        self.world.locked.store(false, Ordering::SeqCst);
    }

    /// A row that refers to nothing, in a deferred constraint.
    pub(super) fn owes_a_foreign_key(&mut self) {
        if let Some(open) = &mut self.open {
            open.debts += 1;
        }
    }

    fn ends(&mut self) {
        self.open = None;
        self.world.locked.store(false, Ordering::SeqCst);
    }
}

pub(super) fn refused(why: &'static str) -> Error {
    Error::other(why)
}

fn sqlite(code: i32) -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(code), None)
}

impl Engine for FakeEngine {
    fn begin(&mut self, patience: &dyn Patience) -> Result<()> {
        if self.open.is_some() {
            self.world.violated("BEGIN inside a transaction");
            return Err(refused("BEGIN inside a transaction"));
        }
        if !self.world.turns().ours {
            self.world.violated("BEGIN outside our turn");
        }
        if self.world.disk().begin_faults.pop_front() == Some(true) {
            return Err(sqlite(rusqlite::ffi::SQLITE_IOERR).into());
        }
        while !self.world.stranger_locks() {
            if let Some(why) = patience.exhausted() {
                let waited = Waited::new(WaitedFor::WriteLock, std::time::Duration::ZERO);
                return Err(crate::pen::gave_up(why, waited));
            }
            pause(std::time::Duration::from_micros(50));
        }
        self.open = Some(Open::default());
        Ok(())
    }

    fn savepoint(&mut self) -> Result<()> {
        self.world.next_about_savepoints()?;
        let Some(open) = &mut self.open else {
            self.world.violated("SAVEPOINT outside a transaction");
            return Err(refused("SAVEPOINT outside a transaction"));
        };
        if open.savepoint.is_some() {
            self.world.violated("a savepoint was left open");
        }
        open.savepoint = Some((open.rows.len(), open.debts));
        Ok(())
    }

    fn release(&mut self) -> Result<()> {
        self.world.next_about_savepoints()?;
        let mark = self.open.as_mut().and_then(|open| open.savepoint.take());
        if mark.is_none() {
            self.world.violated("RELEASE without a savepoint");
        }
        Ok(())
    }

    fn rollback_to(&mut self) -> Result<()> {
        self.world.next_about_savepoints()?;
        let Some(open) = &mut self.open else {
            self.world.violated("ROLLBACK TO outside a transaction");
            return Ok(());
        };
        match open.savepoint.take() {
            Some((rows, debts)) => {
                open.rows.truncate(rows);
                open.debts = debts;
            }
            None => self.world.violated("ROLLBACK TO without a savepoint"),
        }
        Ok(())
    }

    fn commit(&mut self, _: &dyn Patience) -> Result<(), CommitError> {
        let Some(open) = &self.open else {
            self.world.violated("COMMIT outside a transaction");
            return Ok(());
        };
        if self.guarded {
            self.world.violated("COMMIT while a member runs");
        }
        if open.debts > 0 {
            // SQLite leaves the transaction open after this one.
            return Err(CommitError {
                error: Arc::new(sqlite(rusqlite::ffi::SQLITE_CONSTRAINT_FOREIGNKEY)),
                outcome: Outcome::NotCommitted,
                holder: None,
            });
        }
        let fault = self.world.disk().commit_faults.pop_front();
        match fault.unwrap_or(CommitFault::None) {
            CommitFault::Panics => super::panic_quietly("a bug in the engine"),
            CommitFault::None => {
                let rows = self.open.take().map_or_else(Vec::new, |open| open.rows);
                if !rows.is_empty() {
                    self.world.commits.fetch_add(1, Ordering::Relaxed);
                }
                self.world.disk().committed.extend(rows);
                self.ends();
                Ok(())
            }
            CommitFault::NotCommitted | CommitFault::Refused => {
                self.ends();
                let code = match fault {
                    Some(CommitFault::Refused) => rusqlite::ffi::SQLITE_CORRUPT,
                    _ => rusqlite::ffi::SQLITE_FULL,
                };
                Err(CommitError {
                    error: Arc::new(sqlite(code)),
                    outcome: Outcome::NotCommitted,
                    holder: None,
                })
            }
            CommitFault::Unknown => {
                self.ends();
                Err(CommitError {
                    error: Arc::new(sqlite(rusqlite::ffi::SQLITE_IOERR_FSYNC)),
                    outcome: Outcome::Unknown,
                    holder: None,
                })
            }
        }
    }

    fn rollback(&mut self) {
        if self.open.is_some() {
            self.ends();
        }
    }

    fn is_autocommit(&self) -> bool {
        self.open.is_none()
    }

    fn owes_foreign_keys(&self) -> bool {
        self.open.as_ref().is_some_and(|open| open.debts > 0)
    }

    fn member_begins(&mut self) {
        if self.guarded {
            self.world.violated("two members at once");
        }
        self.guarded = true;
    }

    fn member_ends(&mut self) {
        self.guarded = false;
    }

    fn exclusive_begins(&mut self, _: &dyn Patience) -> Result<()> {
        if self.open.is_some() {
            self.world
                .violated("an exclusive call inside a transaction");
        }
        Ok(())
    }

    fn exclusive_ends(&mut self) -> Result<()> {
        Ok(())
    }
}

type Requests = Vec<(Instant, Weak<dyn Expires>)>;

/// Remembers who wants to be looked at, and when.
#[derive(Default)]
pub(super) struct HandTimer {
    requests: Mutex<Requests>,
}

impl Timer for HandTimer {
    fn wake_at(&self, at: Instant, target: &Arc<dyn Expires>) {
        lock(&self.requests).push((at, Arc::downgrade(target)));
    }
}

impl HandTimer {
    /// Lets time jump to `now`, as the real timer would see it pass.
    pub(super) fn fire(&self, now: Instant) {
        let mut requests = std::mem::take(&mut *lock(&self.requests));
        requests.sort_by_key(|(at, _)| *at);
        for (at, target) in requests {
            let Some(alive) = target.upgrade() else {
                continue;
            };
            let again = if at <= now {
                alive.expire(now)
            } else {
                Some(at)
            };
            if let Some(again) = again {
                self.wake_at(again, &alive);
            }
        }
    }

    /// How many requests there are.
    pub(super) fn len(&self) -> usize {
        lock(&self.requests).len()
    }
}
