//! What a program does until it is killed, and what must be true then.
//!
//! A write leaves two rows, one in each of two tables: a torn one would have left
//! one of them. What it is told it [marks](mark), so that who traces it knows.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use onepen::backup::restore;
use onepen::{Database, Error, Migrations, Options, Result, WriteTx};

use crate::common::{Hold, options, wait_for_queue, while_programs_start};
use crate::traced::mark;

pub const TABLES: &str = "CREATE TABLE IF NOT EXISTS a(n INTEGER PRIMARY KEY);
    CREATE TABLE IF NOT EXISTS b(n INTEGER PRIMARY KEY);
    CREATE TABLE IF NOT EXISTS filler(b BLOB);";

/// From here on the program may be killed.
pub const GO: u32 = 1;
/// A member of the group has begun; the next one, has ended.
pub const BEGUN: u32 = 100;
pub const ENDED: u32 = 200;
/// It has written half of what it writes.
pub const HALF: u32 = 300;
/// The write of this number was acknowledged.
pub const ACKNOWLEDGED: u32 = 1000;

/// The row that is there before.
pub const OLD: u32 = 500;

pub fn pair(tx: &WriteTx<'_>, n: u32) -> Result<usize> {
    tx.execute("INSERT INTO a VALUES (?1)", (n,))?;
    tx.execute("INSERT INTO b VALUES (?1)", (n,))
}

fn acknowledge<T>(n: u32, answer: &Result<T>) {
    if answer.is_ok() {
        mark(ACKNOWLEDGED + n);
    }
}

#[derive(Clone, Copy)]
pub struct Deed {
    pub name: &'static str,
    /// Before the program starts, in another process.
    pub prepare: fn(&Path),
    /// Another process has the database open all the time.
    pub beside: bool,
    /// In the program.
    pub act: fn(&Path),
    /// What only this deed can have changed.
    pub check: fn(&Path, &str),
}

pub const DEEDS: [Deed; 10] = [
    Deed::new("a write", act_write).beside(),
    Deed::new("a group of members", act_group).beside(),
    Deed::new("a group of tasks", act_tasks).beside(),
    Deed::new("a checkpoint", act_checkpoint).beside(),
    Deed::new("the last to close", act_close),
    Deed::new("opening a new file", act_open).after(|_| {}),
    Deed::new("opening with a log left behind", act_open).after(leave_a_log),
    Deed::new("a migration", act_migrate).checked(all_steps_or_none),
    Deed::new("a backup", act_backup).checked(a_copy_is_whole),
    Deed::new("a restore", act_restore)
        .after(make_two)
        .checked(old_or_restored),
];

impl Deed {
    const fn new(name: &'static str, act: fn(&Path)) -> Self {
        Self {
            name,
            prepare: make,
            beside: false,
            act,
            check: |_, _| {},
        }
    }
    const fn beside(mut self) -> Self {
        self.beside = true;
        self
    }
    const fn after(mut self, prepare: fn(&Path)) -> Self {
        self.prepare = prepare;
        self
    }
    const fn checked(mut self, check: fn(&Path, &str)) -> Self {
        self.check = check;
        self
    }
}

pub fn make(path: &Path) {
    let db = options().open(path).unwrap();
    let made = db.write(|tx| {
        tx.execute_batch(TABLES)?;
        pair(tx, OLD)
    });
    made.unwrap();
}

fn leave_a_log(path: &Path) {
    let alive = path.with_file_name("alive.db");
    let connection = rusqlite::Connection::open(&alive).unwrap();
    let rows = format!("INSERT INTO a VALUES ({OLD}); INSERT INTO b VALUES ({OLD});");
    let schema = format!("PRAGMA journal_mode = WAL; {TABLES} {rows}");
    connection.execute_batch(&schema).unwrap();
    for part in ["", "-wal"] {
        let to = format!("{}{part}", path.display());
        std::fs::copy(format!("{}{part}", alive.display()), to).unwrap();
    }
    drop(connection);
    std::fs::remove_file(alive).unwrap();
}

fn open(path: &Path) -> Database {
    let db = options().open(path).unwrap();
    mark(GO);
    db
}

fn act_write(path: &Path) {
    let db = open(path);
    for n in [1, 2] {
        acknowledge(n, &db.write(|tx| pair(tx, n)));
    }
    let keyed = db.with().key("three").write(|tx| pair(tx, 3));
    acknowledge(3, &keyed);
}

fn member(n: u32, tx: &WriteTx<'_>) -> Result<usize> {
    mark(BEGUN + n);
    tx.execute("INSERT INTO a VALUES (?1)", (n,))?;
    mark(HALF + n);
    let written = tx.execute("INSERT INTO b VALUES (?1)", (n,))?;
    mark(ENDED + n);
    match n {
        2 => Err(Error::other("on purpose")),
        _ => Ok(written),
    }
}

/// Three that wait together, of which the second fails.
fn act_group(path: &Path) {
    let db = open(path);
    let hold = Hold::of(&db);
    let members = [1, 2, 3].map(|n| (n, db.submit(move |tx| member(n, tx)).unwrap()));
    wait_for_queue(&db, 3);
    hold.release();
    for (n, member) in members {
        acknowledge(n, &member.wait());
    }
}

/// The same, told to tasks: on the writer's own thread, one after the other.
fn act_tasks(path: &Path) {
    struct Tells(u32);
    impl Wake for Tells {
        fn wake(self: Arc<Self>) {
            mark(ENDED + 50 + self.0);
        }
    }
    let db = open(path);
    let hold = Hold::of(&db);
    let mut tasks = [1, 2, 3].map(|n| Box::pin(db.write_async(move |tx| member(n, tx))));
    for (n, task) in (1..).zip(&mut tasks) {
        let waker = Waker::from(Arc::new(Tells(n)));
        let mut context = Context::from_waker(&waker);
        assert!(task.as_mut().poll(&mut context).is_pending());
    }
    wait_for_queue(&db, 3);
    hold.release();
    for (n, mut task) in (1..).zip(tasks) {
        let mut context = Context::from_waker(Waker::noop());
        loop {
            if let Poll::Ready(answer) = task.as_mut().poll(&mut context) {
                acknowledge(n, &answer);
                break;
            }
            std::thread::yield_now();
        }
    }
}

/// The log reaches its limit, and is copied back and reset by its own thread.
fn act_checkpoint(path: &Path) {
    let limit = std::time::Duration::from_millis(5);
    let db = options().wal_limit(16, limit).open(path).unwrap();
    mark(GO);
    for n in 1..200 {
        let written = db.write(|tx| {
            tx.execute("INSERT INTO filler VALUES (randomblob(9000))", ())?;
            pair(tx, n)
        });
        acknowledge(n, &written);
        if db.stats().wal_resets > 0 {
            return;
        }
        // Time for the log to reach its limit: it is one of time as well.
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
}

fn act_close(path: &Path) {
    let db = open(path);
    acknowledge(1, &db.write(|tx| pair(tx, 1)));
    db.close();
}

fn act_open(path: &Path) {
    mark(GO);
    let db = options().open(path).unwrap();
    let written = db.write(|tx| {
        tx.execute_batch(TABLES)?;
        pair(tx, 1)
    });
    acknowledge(1, &written);
}

fn migrated() -> Options {
    let steps = Migrations::new()
        .step("one", "CREATE TABLE u(n INTEGER)")
        .step("two", "INSERT INTO u VALUES (1); CREATE INDEX i ON u(n)");
    options().migrations(steps)
}

fn act_migrate(path: &Path) {
    mark(GO);
    let db = migrated().open(path).unwrap();
    acknowledge(1, &db.write(|tx| pair(tx, 1)));
}

fn all_steps_or_none(path: &Path, context: &str) {
    let db = options().open(path).unwrap();
    let number = |sql: &str| db.query_row(sql, (), |row| row.get::<_, i64>(0)).unwrap();
    let version = number("PRAGMA user_version");
    let made = number("SELECT count(*) FROM sqlite_schema WHERE tbl_name = 'u'");
    assert!(
        (version, made) == (0, 0) || (version, made) == (2, 2),
        "{context}: {version} {made}"
    );
    drop(db);
    migrated().open(path).unwrap();
}

fn copy_of(path: &Path) -> PathBuf {
    path.with_file_name("copy.db")
}

fn act_backup(path: &Path) {
    let db = open(path);
    acknowledge(1, &db.write(|tx| pair(tx, 1)));
    acknowledge(2, &db.backup_to(copy_of(path)).run());
    acknowledge(3, &db.write(|tx| pair(tx, 3)));
}

fn a_copy_is_whole(path: &Path, context: &str) {
    let copy = copy_of(path);
    if copy.exists() {
        let rows = rows_of(&Database::open(copy).unwrap(), context);
        assert_eq!(rows, BTreeSet::from([OLD, 1]), "{context}");
    }
}

/// What only the copy has.
const RESTORED: u32 = 7;

fn make_two(path: &Path) {
    make(path);
    let db = Database::open(path).unwrap();
    db.write(|tx| pair(tx, RESTORED)).unwrap();
    db.backup_to(copy_of(path)).run().unwrap();
    db.execute("DELETE FROM a WHERE n = ?1", (RESTORED,))
        .unwrap();
    db.execute("DELETE FROM b WHERE n = ?1", (RESTORED,))
        .unwrap();
}

fn act_restore(path: &Path) {
    mark(GO);
    let done = restore(copy_of(path), path).replace(true).run();
    acknowledge(RESTORED, &done);
}

fn old_or_restored(path: &Path, context: &str) {
    // And it can be done again.
    while_programs_start(|| restore(copy_of(path), path).replace(true).run()).unwrap();
    let rows = rows_of(&Database::open(path).unwrap(), context);
    assert_eq!(rows, BTreeSet::from([OLD, RESTORED]), "{context}");
}

/// The pairs that are there, and there is no half of one.
pub fn rows_of(db: &Database, context: &str) -> BTreeSet<u32> {
    let [a, b] = ["SELECT n FROM a", "SELECT n FROM b"].map(|sql| {
        let rows = db.read(|tx| tx.query_map(sql, (), |row| row.get(0)));
        BTreeSet::from_iter(rows.unwrap())
    });
    assert_eq!(a, b, "{context}: half of a write is there");
    a
}
