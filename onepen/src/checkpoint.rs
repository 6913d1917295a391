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
//! so one is made: inside the pen's turn (no writer), after a PASSIVE checkpoint
//! (little is left to copy), while new readers of this process are held back
//! until the running ones have ended, for a few milliseconds at most.

use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rusqlite::Connection;

use crate::connection::{Connector, Role};
use crate::engine::Until;
use crate::error::{Error, Result};
use crate::pen::Pen;
use crate::pen::job::{Kind, Priority, Ticket};
use crate::readers::Readers;
use crate::sqlite::SqliteEngine;
use crate::sync::{AtomicBool, Ordering};
use crate::wal::WalLevel;

/// The first and the longest pause before the next try at a pinned log.
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_LONGEST: Duration = Duration::from_secs(5);

/// The limit a database starts with. A short log is overwritten in place, which
/// a disk flushes faster than a file that grows.
const FIRST_LIMIT: u32 = 1000;

/// The share of time that resets may take from writers before the log is allowed
/// to grow, up to its limit, so that they become rarer.
const RESET_SHARE: u32 = 200;

/// A log file this many times over its limit is given back to the file system.
const TRUNCATE_OVER: u32 = 8;

pub(crate) struct Checkpointer {
    pen: Arc<Pen<SqliteEngine>>,
    readers: Arc<Readers>,
    connector: Arc<Connector>,
    wal: Arc<WalLevel>,
    stop: AtomicBool,
    pinned_since: Mutex<Option<Instant>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// What one checkpoint did (<https://www.sqlite.org/pragma.html#pragma_wal_checkpoint>).
struct Progress {
    /// Somebody was in the way of the reset.
    busy: bool,
    held: Duration,
}

impl Checkpointer {
    pub(crate) fn start(
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
    /// is only told to end: it may be waiting for that very closure.
    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::SeqCst);
        self.wal.bell().advance();
        let thread = self.thread().take();
        if let Some(thread) = thread
            && !self.pen.is_inside()
        {
            let _ = thread.join();
        }
    }

    fn run(&self) {
        let most = self.connector.options.wal_pages;
        let mut limit = most.min(FIRST_LIMIT);
        let mut connection = None;
        let mut pause: Option<Duration> = None;
        let mut last = Instant::now();
        loop {
            let seen = self.wal.bell().current();
            if self.stop.load(Ordering::SeqCst) {
                return;
            }
            if self.wal.frames() < limit && pause.is_none() {
                self.wal.ring_at(limit);
                // A commit between the look and the bell would not be heard.
                if self.wal.frames() < limit {
                    self.wal.bell().wait(seen, None);
                }
                continue;
            }
            pause = match self.reset(&mut connection) {
                Ok(Some(held)) => {
                    if held * RESET_SHARE > last.elapsed() {
                        limit = limit.saturating_mul(2).min(most);
                    }
                    last = Instant::now();
                    None
                }
                // Pinned, or an error that a later try may not meet.
                Ok(None) | Err(_) => {
                    Some(pause.map_or(RETRY_FIRST, |pause| (pause * 2).min(RETRY_LONGEST)))
                }
            };
            if let Some(pause) = pause {
                self.wal
                    .bell()
                    .wait(seen, Instant::now().checked_add(pause));
            }
        }
    }

    /// Copies back and resets. If the log now starts over, says for how long
    /// that kept the pen.
    fn reset(&self, connection: &mut Option<Connection>) -> Result<Option<Duration>> {
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
        checkpoint(connection, "PASSIVE")?;
        let ticket = Ticket {
            priority: Priority::High,
            label: Some("checkpoint".into()),
            patience: Some(self.connector.options.wait),
            ..Ticket::default()
        };
        let progress = self.pen.write(&ticket, Kind::Maintenance, move |_engine| {
            let started = Instant::now();
            let _hold = self.readers.hold(self.connector.options.reader_hold);
            let limit = self.connector.options.wal_pages;
            let far_over = self.wal.frames() / TRUNCATE_OVER >= limit;
            let progress = checkpoint(connection, if far_over { "TRUNCATE" } else { "RESTART" })?;
            if !progress.busy {
                self.wal.restarted();
            }
            Ok(Progress {
                held: started.elapsed(),
                ..progress
            })
        })?;
        let mut pinned = self.pinned();
        *pinned = if progress.busy {
            pinned.or_else(|| Some(Instant::now()))
        } else {
            None
        };
        Ok((!progress.busy).then_some(progress.held))
    }
}

fn checkpoint(connection: &Connection, mode: &str) -> rusqlite::Result<Progress> {
    connection.query_row(&format!("PRAGMA wal_checkpoint({mode})"), (), |row| {
        Ok(Progress {
            busy: row.get::<_, i64>(0)? != 0,
            held: Duration::ZERO,
        })
    })
}
