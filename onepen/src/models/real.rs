//! The pen and the readers with SQLite itself inside the model.
//!
//! SQLite runs in one step between two of ours, so every schedule interleaves
//! whole statements of several connections on one real database in write-ahead
//! mode: our writer, our readers, a checkpointer, and a stranger with a
//! connection of its own. Every schedule's history is then checked exactly: each
//! transaction takes a number from the database itself, so there is one order to
//! replay and no search for it.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use rusqlite::{Connection, TransactionBehavior, params};

use super::explore::{Effort, explore_with};
use super::{LONG, limits};
use crate::connection::{Connector, Role};
use crate::engine::Until;
use crate::error::{ErrorKind, Result};
use crate::options::Options;
use crate::pen::Pen;
use crate::pen::job::{Kind, Ticket};
use crate::readers::Readers;
use crate::sqlite::SqliteEngine;
use crate::sync::{Arc, thread};
use crate::tx::WriteTx;
use crate::wal::WalLevel;

const ACCOUNTS: u32 = 3;
const OPENING: i64 = 100;

/// One committed or observed transaction, as its client saw it.
struct Seen {
    /// The client's clock before it asked and after it knew.
    asked: u64,
    answered: u64,
    /// Its place in the order of all commits; of a read, of the last it saw.
    serial: i64,
    what: What,
}

enum What {
    /// Moved `amount` from one account to another, and read both before.
    Moved {
        from: u32,
        to: u32,
        amount: i64,
        had: (i64, i64),
    },
    Read(Vec<i64>),
    /// A single query, which sees the serial alone.
    Glimpsed,
}

#[derive(Default)]
struct History {
    clock: AtomicU64,
    seen: Mutex<Vec<Seen>>,
}

impl History {
    fn now(&self) -> u64 {
        self.clock.fetch_add(1, SeqCst)
    }

    fn record(&self, asked: u64, serial: i64, what: What) {
        let answered = self.now();
        let mut seen = self.seen.lock().unwrap();
        seen.push(Seen {
            asked,
            answered,
            serial,
            what,
        });
    }

    /// Strict serialisability, exactly: one pass in serial order.
    fn check(&self, end: &[i64], last: i64) {
        let mut seen = self.seen.lock().unwrap();
        seen.sort_by_key(|seen| (seen.serial, !matches!(seen.what, What::Moved { .. })));
        let mut accounts = vec![OPENING; ACCOUNTS as usize];
        let mut writes = 0;
        for seen in seen.iter() {
            match &seen.what {
                What::Moved {
                    from,
                    to,
                    amount,
                    had,
                } => {
                    writes += 1;
                    assert_eq!(seen.serial, writes, "a write is missing, or was made twice");
                    let (from, to) = (*from as usize, *to as usize);
                    assert_eq!(*had, (accounts[from], accounts[to]), "a lost update");
                    accounts[from] -= amount;
                    accounts[to] += amount;
                }
                What::Read(saw) => {
                    assert_eq!(seen.serial, writes, "a read of a state that never was");
                    assert_eq!(saw, &accounts, "a read of half a transaction");
                }
                What::Glimpsed => {
                    assert_eq!(seen.serial, writes, "a read of a state that never was");
                }
            }
        }
        assert_eq!(last, writes, "an unacknowledged write is in the database");
        assert_eq!(end, accounts);
        // Real time: whoever was answered before another asked comes first.
        let mut newest = 0;
        let mut by_answer: Vec<&Seen> = seen.iter().collect();
        by_answer.sort_by_key(|seen| seen.answered);
        let mut by_asking: Vec<&Seen> = seen.iter().collect();
        by_asking.sort_by_key(|seen| seen.asked);
        let mut answered = by_answer.into_iter().peekable();
        for seen in by_asking {
            while let Some(before) = answered.next_if(|before| before.answered < seen.asked) {
                newest = newest.max(before.serial);
            }
            assert!(seen.serial >= newest, "a stale read, or a reordered write");
        }
    }
}

/// A database file of its own, gone with it.
struct Scratch(PathBuf);

impl Scratch {
    /// A copy of a database that was prepared once.
    fn new() -> Self {
        static PREPARED: OnceLock<Vec<u8>> = OnceLock::new();
        let bytes = PREPARED.get_or_init(|| {
            let fresh = Self::path();
            let connection = Connection::open(&fresh.0).unwrap();
            connection
                .execute_batch(
                    "PRAGMA journal_mode = WAL;
                     CREATE TABLE account(id INTEGER PRIMARY KEY, n INTEGER NOT NULL CHECK (n >= 0));
                     CREATE TABLE serial(last INTEGER NOT NULL);
                     INSERT INTO serial VALUES (0);",
                )
                .unwrap();
            for id in 0..ACCOUNTS {
                connection
                    .execute("INSERT INTO account VALUES (?1, ?2)", params![id, OPENING])
                    .unwrap();
            }
            drop(connection); // checkpoints
            std::fs::read(&fresh.0).unwrap()
        });
        let copy = Self::path();
        std::fs::write(&copy.0, bytes).unwrap();
        copy
    }

    fn path() -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let memory = PathBuf::from("/dev/shm");
        let dir = if memory.is_dir() {
            memory
        } else {
            std::env::temp_dir()
        };
        let name = format!(
            "onepen-model-{}-{}.db",
            std::process::id(),
            NEXT.fetch_add(1, SeqCst)
        );
        Self(dir.join(name))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        for suffix in ["", "-wal", "-shm"] {
            let mut file = self.0.clone().into_os_string();
            file.push(suffix);
            let _ = std::fs::remove_file(file);
        }
    }
}

/// Everything of a `Database` but its own threads.
struct Real {
    pen: Arc<Pen<SqliteEngine>>,
    readers: Arc<Readers>,
    connector: Arc<Connector>,
    history: History,
    _scratch: Scratch,
}

impl Real {
    fn open() -> Arc<Self> {
        let scratch = Scratch::new();
        let options = Options::new().readers(2).wait(LONG);
        let connector = Arc::new(Connector::new(&scratch.0, options, true).unwrap());
        let wal = Arc::new(WalLevel::new(u32::MAX));
        let patience = Until {
            deadline: None,
            cancel: None,
        };
        let engine = SqliteEngine::open(Arc::clone(&connector), wal, None, &patience).unwrap();
        let pen = Pen::new(
            engine,
            limits(),
            crate::timer::shared(),
            Arc::new(crate::pen::turn::Alone),
        );
        pen.stand_in_line(crate::blocks::permit::Turns::new());
        Arc::new(Self {
            pen,
            readers: Arc::new(Readers::new(Arc::clone(&connector))),
            connector,
            history: History::default(),
            _scratch: scratch,
        })
    }

    fn spawn(self: &Arc<Self>, run: impl FnOnce(&Self) + Send + 'static) -> thread::JoinHandle<()> {
        let this = Arc::clone(self);
        thread::spawn(move || run(&this))
    }

    /// Moves money between two accounts, the way an application would.
    fn transfer(&self, from: u32, to: u32, amount: i64) {
        let asked = self.history.now();
        let moved = self.pen.write(&Ticket::default(), Kind::Grouped, |engine| {
            let tx = WriteTx::new(engine)?;
            transfer(tx.connection(), from, to, amount).map_err(Into::into)
        });
        match moved {
            Ok((serial, had)) => {
                let what = What::Moved {
                    from,
                    to,
                    amount,
                    had,
                };
                self.history.record(asked, serial, what);
            }
            // Overdrawn: a CHECK refuses it after the serial was taken.
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Sqlite, "{error}");
                assert!(amount > OPENING, "{error}");
            }
        }
    }

    fn read(&self) {
        let asked = self.history.now();
        let (serial, accounts) = self
            .readers
            .read(&Ticket::default(), |tx| {
                let accounts =
                    tx.query_map("SELECT n FROM account ORDER BY id", (), |row| row.get(0))?;
                thread::yield_now();
                let serial = tx.query_row("SELECT last FROM serial", (), |row| row.get(0))?;
                Ok((serial, accounts))
            })
            .expect("a read waits for nobody");
        self.history.record(asked, serial, What::Read(accounts));
    }

    fn glimpse(&self) {
        let asked = self.history.now();
        let serial = self
            .readers
            .query_row(&Ticket::default(), "SELECT last FROM serial", (), |row| {
                row.get(0)
            })
            .expect("a read waits for nobody");
        self.history.record(asked, serial, What::Glimpsed);
    }

    /// Another program: waits for the lock by asking again.
    fn stranger(&self, from: u32, to: u32, amount: i64) {
        let mut connection = Connection::open(&self.connector.path).unwrap();
        connection.busy_timeout(Duration::ZERO).unwrap();
        let asked = self.history.now();
        let (serial, had) = loop {
            match connection.transaction_with_behavior(TransactionBehavior::Immediate) {
                Ok(tx) => {
                    let moved = transfer(&tx, from, to, amount).unwrap();
                    tx.commit().unwrap();
                    break moved;
                }
                Err(busy) => assert!(crate::connection::is_contention(&busy), "{busy}"),
            }
            thread::yield_now();
        };
        let what = What::Moved {
            from,
            to,
            amount,
            had,
        };
        self.history.record(asked, serial, what);
    }

    fn checkpoint(&self) {
        let patience = Until {
            deadline: None,
            cancel: None,
        };
        let connection = self
            .connector
            .open(Role::Checkpointer, &patience)
            .expect("opening waits for nobody");
        for _ in 0..2 {
            connection
                .query_row("PRAGMA wal_checkpoint(PASSIVE)", (), |_| Ok(()))
                .expect("a passive checkpoint waits for nobody");
            thread::yield_now();
        }
    }

    fn finish(self: Arc<Self>, writer: thread::JoinHandle<()>) {
        self.pen.close();
        writer.join().unwrap();
        self.readers.close();
        self.pen.retire(|| {});
        let connection = Connection::open(&self.connector.path).unwrap();
        let last = connection
            .query_row("SELECT last FROM serial", (), |row| row.get(0))
            .unwrap();
        let mut rows = connection
            .prepare("SELECT n FROM account ORDER BY id")
            .unwrap();
        let accounts: Result<Vec<i64>, _> = rows.query_map((), |row| row.get(0)).unwrap().collect();
        self.history.check(&accounts.unwrap(), last);
        let fine: String = connection
            .query_row("PRAGMA integrity_check", (), |row| row.get(0))
            .unwrap();
        assert_eq!(fine, "ok");
    }
}

/// Takes the next serial, reads both accounts, changes both: with room for
/// others between the statements.
fn transfer(
    connection: &Connection,
    from: u32,
    to: u32,
    amount: i64,
) -> rusqlite::Result<(i64, (i64, i64))> {
    let value = |sql: &str, id: u32| -> rusqlite::Result<i64> {
        connection
            .prepare_cached(sql)?
            .query_row([id], |row| row.get(0))
    };
    let balance = "SELECT n FROM account WHERE id = ?1";
    let had = (value(balance, from)?, value(balance, to)?);
    thread::yield_now();
    let serial = connection
        .prepare_cached("UPDATE serial SET last = last + 1 RETURNING last")?
        .query_row((), |row| row.get(0))?;
    let mut change = connection.prepare_cached("UPDATE account SET n = n + ?2 WHERE id = ?1")?;
    change.execute(params![from, -amount])?;
    thread::yield_now();
    change.execute(params![to, amount])?;
    Ok((serial, had))
}

#[test]
fn every_schedule_on_real_sqlite_is_strictly_serialisable() {
    explore_with(EFFORT, || {
        let real = Real::open();
        let serving = Arc::clone(&real.pen);
        let writer = thread::spawn(move || serving.serve());
        let threads = [
            real.spawn(|real| real.transfer(0, 1, 10)),
            real.spawn(|real| {
                real.transfer(1, 2, 20);
                real.read(); // its own write is there
            }),
            real.spawn(|real| {
                real.transfer(2, 0, OPENING * 50); // refused
                real.transfer(2, 0, 30);
            }),
            real.spawn(|real| {
                real.read();
                real.transfer(0, 2, 5);
            }),
            real.spawn(|real| {
                real.glimpse();
                real.read();
                real.glimpse();
                real.read();
            }),
        ];
        for thread in threads {
            thread.join().unwrap();
        }
        real.finish(writer);
    });
}

#[test]
fn strangers_and_checkpoints_change_nothing_about_it() {
    explore_with(EFFORT, || {
        let real = Real::open();
        let serving = Arc::clone(&real.pen);
        let writer = thread::spawn(move || serving.serve());
        let threads = [
            real.spawn(|real| {
                real.transfer(0, 1, 10);
                real.read();
            }),
            real.spawn(|real| real.transfer(1, 2, 20)),
            real.spawn(|real| real.stranger(2, 0, 5)),
            real.spawn(|real| real.checkpoint()),
            real.spawn(|real| {
                real.read();
                real.transfer(2, 1, OPENING * 50); // refused
                real.glimpse();
                real.read();
            }),
        ];
        for thread in threads {
            thread.join().unwrap();
        }
        real.finish(writer);
    });
}

/// A schedule costs a few files and connections here.
const EFFORT: Effort = Effort {
    preemptions: 0,
    schedules: 200,
};
