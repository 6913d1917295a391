//! Keeps the write-ahead log short.
//!
//! Automatic checkpoints are off on every connection; this thread does them all.
//! What it guarantees: copying back to the database file happens in the
//! background and makes no writer wait; the log is reset to its beginning when
//! it reaches its limit, under constant writers *and* overlapping readers; and
//! when a reader that does not end makes that impossible, nobody is stalled for
//! it: it is tried again later, and shown in the statistics.
//!
//! SQLite resets a log only when a writer starts, everything is copied back and
//! no reader uses the log at that moment. Under load there is no such moment,
//! so one is made: after a PASSIVE checkpoint, new readers of this process are
//! held back until the running ones have ended, for a few milliseconds, while
//! writers go on; then the rest is copied and the log is reset inside the pen's
//! turn. When the running reads last longer, readers are let go and it is tried
//! again later, with a longer hold each time.
//!
//! What a writer waits for is that last copy, and above all its two flushes (of
//! the log before it, of the database after it). SQLite flushes the database only
//! when nothing was written during a checkpoint, so under a constant writer the
//! last one would flush all that the others have written. Therefore each copy is
//! flushed here, and what was written during one is copied by another; what is
//! left for the pen's turn is about as much as comes in during one flush. When such
//! a flush fails, the log is not reset any more (`flush`).
//!
//! In `cargo run --release -p onepen --example log_growth` (medians of three runs,
//! others building beside it) that took the longest write from 7.3, 8.1 and 9.6 ms
//! to 2.2, 3.5 and 4.4 ms, where SQLite's own checkpoints take 4.6, 4.5 and 11.3.

use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rusqlite::Connection;

use crate::capi::{self, File};
use crate::connection::{Connector, Role};
use crate::engine::{Engine, Until};
use crate::error::{Error, Result};
use crate::pen::Pen;
use crate::pen::job::{Kind, Priority, Ticket};
use crate::readers::Readers;
use crate::sqlite::SqliteEngine;
use crate::sync::{AtomicBool, Ordering};
use crate::trace::event;
use crate::wal::WalLevel;

/// The pauses before the next try at a pinned log. Each is twice as long as the
/// one before, and ends early when the log has grown by its limit meanwhile.
#[derive(Clone, Copy)]
struct Pauses {
    first: Duration,
    longest: Duration,
}

impl Pauses {
    const USUAL: Self = Self {
        first: Duration::from_millis(50),
        longest: Duration::from_secs(5),
    };

    fn after(self, last: Option<Duration>) -> Duration {
        last.map_or(self.first, |last| (last * 2).min(self.longest))
    }
}

/// How long a reset waits for the pen while readers are held.
const PEN_WAIT: Duration = Duration::from_millis(50);

/// How many times the usual hold readers may be held for in the end.
const MOST_HOLD: u32 = 32;

/// The limit a database starts with. A short log is overwritten in place, which
/// a disk flushes faster than a file that grows.
const FIRST_LIMIT: u32 = 1000;

/// The share of time that resets may take from writers before the log is allowed
/// to grow, up to its limit, so that they become rarer.
const RESET_SHARE: u32 = 200;

/// So many frames are left for the pen's turn: their flush takes longer than
/// their copy.
const FEW: u32 = 64;

/// A log file this many times over its limit is given back to the file system.
const TRUNCATE_OVER: u32 = 8;

pub(crate) struct Checkpointer {
    pen: Arc<Pen<SqliteEngine>>,
    readers: Arc<Readers>,
    connector: Arc<Connector>,
    wal: Arc<WalLevel>,
    pauses: Pauses,
    stop: AtomicBool,
    pinned_since: Mutex<Option<Instant>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// What one checkpoint did (<https://www.sqlite.org/pragma.html#pragma_wal_checkpoint>).
struct Progress {
    /// Somebody was in the way.
    busy: bool,
    /// Frames in the log now, if it could be looked at.
    log: Option<u32>,
    /// How many of them are in the database file.
    copied: u32,
}

/// What became of a try to reset the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tried {
    /// It starts over. So long the pen was kept for it.
    Reset(Duration),
    /// Reads of this process went on for longer than they were waited for.
    Reading,
    /// Somebody who cannot be waited for reads it: a snapshot, or another
    /// process.
    Pinned,
    /// Another process is copying it back, or resetting it.
    Elsewhere,
}

impl Tried {
    #[cfg_attr(not(feature = "tracing"), expect(dead_code, reason = "only told"))]
    fn held(self) -> Duration {
        match self {
            Self::Reset(held) => held,
            Self::Reading | Self::Pinned | Self::Elsewhere => Duration::ZERO,
        }
    }
}

impl Checkpointer {
    pub(crate) fn start(
        pen: Arc<Pen<SqliteEngine>>,
        readers: Arc<Readers>,
        connector: Arc<Connector>,
        wal: Arc<WalLevel>,
    ) -> Result<Arc<Self>> {
        Self::start_with(Pauses::USUAL, pen, readers, connector, wal)
    }

    fn start_with(
        pauses: Pauses,
        pen: Arc<Pen<SqliteEngine>>,
        readers: Arc<Readers>,
        connector: Arc<Connector>,
        wal: Arc<WalLevel>,
    ) -> Result<Arc<Self>> {
        let this = Arc::new(Self {
            pen,
            readers,
            connector,
            wal,
            pauses,
            stop: AtomicBool::new(false),
            pinned_since: Mutex::new(None),
            thread: Mutex::new(None),
        });
        let thread = {
            let this = Arc::clone(&this);
            std::thread::Builder::new()
                .name(format!("onepen-checkpoint {}", this.connector.name))
                .spawn(move || this.run())
                .map_err(|error| Error::io("the checkpoint thread could not be started", error))?
        };
        *this.thread() = Some(thread);
        Ok(this)
    }

    fn thread(&self) -> std::sync::MutexGuard<'_, Option<JoinHandle<()>>> {
        self.thread
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn pinned(&self) -> std::sync::MutexGuard<'_, Option<Instant>> {
        self.pinned_since
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// How long the log could not be reset because somebody was reading it.
    pub(crate) fn pinned_for(&self) -> Option<Duration> {
        self.pinned().map(|since| since.elapsed())
    }

    /// Ends the thread, before the pen is closed. From within a write closure it
    /// is only told to end, for it may be waiting for that very closure; the
    /// caller gets it to wait for before the write connection is closed, which
    /// has to be the last one.
    #[must_use]
    pub(crate) fn stop(&self) -> Option<JoinHandle<()>> {
        self.stop.store(true, Ordering::SeqCst);
        self.wal.bell().advance();
        let thread = self.thread().take()?;
        if self.pen.is_inside() {
            return Some(thread);
        }
        let _ = thread.join();
        None
    }

    fn run(&self) {
        let most = self.connector.options.wal_pages;
        let mut limit = most.min(FIRST_LIMIT);
        let mut connection = None;
        let mut pause: Option<Duration> = None;
        let mut last = Instant::now();
        let mut hold = self.connector.options.reader_hold;
        // Nobody may ever write, and reads are slower the longer the log is.
        let mut left_behind = self.log_is_longer_than(limit);
        loop {
            let seen = self.wal.bell().current();
            if self.stop.load(Ordering::SeqCst) {
                return;
            }
            if self.wal.is_kept() {
                self.pinned().get_or_insert_with(Instant::now);
                self.wal.bell().wait(seen, None);
                continue;
            }
            if self.wal.frames() < limit && pause.is_none() && !left_behind {
                self.wal.ring_at(limit);
                // A commit between the look and the bell would not be heard.
                if self.wal.frames() < limit {
                    self.wal.bell().wait(seen, None);
                }
                continue;
            }
            left_behind = false;
            let usual = self.connector.options.reader_hold;
            let longer = || self.pauses.after(pause);
            pause = match self.reset(&mut connection, limit, hold) {
                Ok(Tried::Reset(held)) => {
                    if held * RESET_SHARE > last.elapsed() {
                        limit = limit.saturating_mul(2).min(most);
                    }
                    last = Instant::now();
                    hold = usual;
                    None
                }
                // Reads that overlap and each take longer than the hold would keep
                // the log for ever, so the hold grows with every try.
                Ok(Tried::Reading) => {
                    hold = hold.saturating_mul(2).min(usual.saturating_mul(MOST_HOLD));
                    Some(longer())
                }
                // To hold readers for longer would not help against those.
                Ok(Tried::Pinned) => Some(longer()),
                // A later try may not meet it, and meets it less with another
                // connection: one that found no descriptor for the log when it
                // looked at it first would only read it for ever.
                Err(_) => {
                    connection = None;
                    Some(longer())
                }
                // They are soon done.
                Ok(Tried::Elsewhere) => Some(self.pauses.first),
            };
            if let Some(pause) = pause {
                // Sooner, when meanwhile the log has grown by as much again.
                let grown = self.wal.frames().saturating_add(limit);
                self.wal.ring_at(grown);
                // A commit between the look and the bell would not be heard.
                if self.wal.frames() < grown {
                    let end = Instant::now().checked_add(pause);
                    self.wal.bell().wait(seen, end);
                }
            }
        }
    }

    /// Whether there is a long log at the start, before any commit of ours tells
    /// its length: a crashed program's, or another process's. By its file, and by
    /// the usual size of pages; it is only about looking into it.
    fn log_is_longer_than(&self, pages: u32) -> bool {
        let mut log = self.connector.path.clone().into_os_string();
        log.push("-wal");
        std::fs::metadata(log).is_ok_and(|log| log.len() > u64::from(pages) * 4096)
    }

    /// Copies back and resets.
    fn reset(
        &self,
        connection: &mut Option<Connection>,
        limit: u32,
        hold_readers: Duration,
    ) -> Result<Tried> {
        let connection = match connection {
            Some(connection) => connection,
            none => {
                let patience = Until {
                    deadline: Instant::now().checked_add(self.connector.options.wait),
                    cancel: None,
                };
                none.insert(self.connector.open(Role::Checkpointer, &patience)?)
            }
        };
        self.readers.rest();
        let progress = self.copy(connection, "PASSIVE")?;
        match progress.log {
            None => return Ok(Tried::Elsewhere),
            // Another process has reset it since our last commit.
            Some(log) if log < limit => {
                self.wal.found(log);
                *self.pinned() = None;
                return Ok(Tried::Reset(Duration::ZERO));
            }
            Some(_) => {}
        }
        self.flush(connection, File::Database)?;
        let copied = self.catch_up(connection, progress.copied)?;
        // First the readers, while writers go on; only then, for the moment that
        // the reset itself takes, the pen.
        let hold = self.readers.hold(hold_readers);
        let tried = if hold.drained() {
            self.catch_up(connection, copied)?;
            self.flush(connection, File::Log)?;
            self.restart(connection)?
        } else {
            Tried::Reading
        };
        drop(hold);
        event!(
            DEBUG,
            "checkpoint",
            database = &*self.connector.name,
            reset = matches!(tried, Tried::Reset(_)),
            held_us = tried.held().as_micros() as u64
        );
        let mut pinned = self.pinned();
        match tried {
            Tried::Reset(_) => *pinned = None,
            Tried::Reading | Tried::Pinned => {
                pinned.get_or_insert_with(Instant::now);
            }
            Tried::Elsewhere => {}
        }
        Ok(tried)
    }

    /// Copies back what was written since `copied` frames were, and flushes it.
    /// Says how many are copied now.
    fn catch_up(&self, connection: &Connection, copied: u32) -> Result<u32> {
        if self.wal.frames().saturating_sub(copied) <= FEW {
            return Ok(copied);
        }
        self.readers.rest();
        let progress = self.copy(connection, "PASSIVE")?;
        self.flush(connection, File::Database)?;
        Ok(progress.copied)
    }

    /// When a flush fails, systems take what it was about for written, and a later
    /// one succeeds without having written it (<https://lwn.net/Articles/752063/>).
    /// SQLite, which counts what it copied, would not copy it again, and the log
    /// would be reset over the only copy. So it is kept until everybody has closed
    /// the database; whoever opens it then has SQLite copy all of it anew.
    fn flush(&self, connection: &Connection, file: File) -> rusqlite::Result<()> {
        if self.connector.volatile {
            return Ok(());
        }
        let flushed = capi::flush(connection, file);
        if flushed.is_err() {
            self.keep();
        }
        flushed
    }

    fn keep(&self) {
        self.wal.keep();
        self.pinned().get_or_insert_with(Instant::now);
        event!(
            ERROR,
            "a flush failed; the log is kept until everybody has closed the database",
            database = &*self.connector.name
        );
    }

    /// A checkpoint of SQLite's, which flushes as well: and what it fails to flush may
    /// be what another process has copied.
    fn copy(&self, connection: &Connection, mode: &str) -> rusqlite::Result<Progress> {
        let copied = checkpoint(connection, mode);
        let code = copied.as_ref().err().and_then(|error| error.sqlite_error());
        if code.is_some_and(|error| error.extended_code == rusqlite::ffi::SQLITE_IOERR_FSYNC) {
            self.keep();
        }
        copied
    }

    /// Copies back the rest and resets, in the pen's turn.
    fn restart(&self, connection: &mut Connection) -> Result<Tried> {
        let ticket = Ticket {
            priority: Priority::High,
            label: Some("checkpoint".into()),
            // Readers are held meanwhile; and somebody who has the pen may be
            // waiting to read.
            patience: Some(PEN_WAIT),
            ..Ticket::default()
        };
        let far_over = self.wal.frames() / TRUNCATE_OVER >= self.connector.options.wal_pages;
        self.pen.write(&ticket, Kind::Maintenance, move |engine| {
            let started = Instant::now();
            // Of a log that was truncated SQLite cannot say whether it is the same
            // one, and a copy would begin anew.
            let mode = match far_over && !engine.is_copied() {
                true => "TRUNCATE",
                false => "RESTART",
            };
            // Under SQLite's write lock no process adds to the log, so that all
            // of it is copied, and whoever writes next, here or elsewhere, finds
            // it so and starts over. Without the lock a reset beside a busy
            // writer of another process is a matter of luck.
            engine.begin(&Until {
                deadline: started.checked_add(PEN_WAIT),
                cancel: None,
            })?;
            let is_kept = self.wal.is_kept();
            let copied = (!is_kept).then(|| self.copy(connection, "PASSIVE"));
            engine.rollback();
            // Another process has said so meanwhile.
            let Some(copied) = copied else {
                return Ok(Tried::Pinned);
            };
            let Some(before) = copied?.log else {
                return Ok(Tried::Elsewhere);
            };
            let after = self.copy(connection, mode)?;
            // It is also a reset if another process wrote first.
            if !after.busy || after.log.is_some_and(|log| log < before) {
                self.wal.restarted();
                return Ok(Tried::Reset(started.elapsed()));
            }
            Ok(Tried::Pinned)
        })
    }
}

fn checkpoint(connection: &Connection, mode: &str) -> rusqlite::Result<Progress> {
    connection.query_row(&format!("PRAGMA wal_checkpoint({mode})"), (), |row| {
        Ok(Progress {
            busy: row.get::<_, i64>(0)? != 0,
            // −1 when another checkpoint runs.
            log: u32::try_from(row.get::<_, i64>(1)?).ok(),
            copied: u32::try_from(row.get::<_, i64>(2)?).unwrap_or(0),
        })
    })
}

#[cfg(all(test, not(any(onepen_loom, onepen_shuttle))))]
mod tests;
