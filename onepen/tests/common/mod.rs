//! Scenes for tests of the pen: a database in a directory of its own, the pen
//! held until a group has gathered behind it, and gates instead of sleeps.
#![allow(dead_code, reason = "each test program uses its own part")]

use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{JoinHandle, Thread};
use std::time::{Duration, Instant};

use onepen::{Database, Durability, Error, Options, Result, WriteTx};

/// No gate in these tests takes longer, however slow the machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A database of its own, gone with the scene.
pub struct Scene {
    pub db: Database,
    dir: tempfile::TempDir,
}

impl Scene {
    pub fn new(schema: &str) -> Self {
        Self::with(options(), schema)
    }

    pub fn with(options: Options, schema: &str) -> Self {
        Self::over(|_| {}, options, schema)
    }

    pub fn over(prepare: impl Fn(&Path), options: Options, schema: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        prepare(&dir.path().join("scene.db"));
        let db = options.open(dir.path().join("scene.db")).unwrap();
        if !schema.is_empty() {
            db.write(|tx| tx.execute_batch(schema)).unwrap();
        }
        Self { db, dir }
    }

    pub fn path(&self) -> PathBuf {
        self.dir.path().join("scene.db")
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A connection that knows nothing of onepen, like any stranger's.
    pub fn stranger(&self) -> rusqlite::Connection {
        rusqlite::Connection::open(self.path()).unwrap()
    }

    /// The first column of a query, as everybody else sees it.
    pub fn numbers(&self, sql: &str) -> Vec<i64> {
        let connection = self.stranger();
        let mut statement = connection.prepare(sql).unwrap();
        let rows = statement.query_map((), |row| row.get(0)).unwrap();
        rows.map(Result::<i64, rusqlite::Error>::unwrap).collect()
    }

    pub fn number(&self, sql: &str) -> i64 {
        let numbers = self.numbers(sql);
        assert_eq!(numbers.len(), 1, "{sql}");
        numbers[0]
    }

    pub fn hold(&self) -> Hold {
        Hold::of(&self.db)
    }

    pub fn wait_for_queue(&self, length: usize) {
        wait_for_queue(&self.db, length);
    }

    /// So many writes really shared a turn. The last to be answered may be told
    /// before the turn is counted.
    pub fn largest_group_was(&self, members: u64) {
        until(&format!("a group of {members}"), || {
            self.db.stats().largest_group >= members
        });
        assert_eq!(self.db.stats().largest_group, members);
    }

    /// Makes the next groups run with a savepoint around each member: a group
    /// in which one failed came before them.
    pub fn make_wary(&self) {
        let hold = self.hold();
        let fine = self.db.submit(|_| Ok(())).unwrap();
        let failing = self
            .db
            .submit(|_| -> Result<()> { Err(Error::other("on purpose")) });
        hold.release();
        fine.wait().unwrap();
        failing.unwrap().wait().unwrap_err();
    }
}

/// Bounds that no test meets by being slow: time ends no group.
pub fn options() -> Options {
    Options::new()
        .group(4096, 16 << 20, Duration::from_secs(600))
        .wait(PATIENCE)
}

/// The same without a flush for each COMMIT: what members do to each other has
/// nothing to do with the disk.
pub fn quick() -> Options {
    options().durability(Durability::Normal)
}

/// Waits for `condition`, which something under way will make true.
pub fn until(what: &str, condition: impl Fn() -> bool) {
    let since = Instant::now();
    while !condition() {
        assert!(since.elapsed() < PATIENCE, "it never happened: {what}");
        std::thread::yield_now();
    }
}

pub fn wait_for_queue(db: &Database, length: usize) {
    until(&format!("{length} writes in the queue"), || {
        db.stats().queue_length == length
    });
}

/// Somebody who has the pen until told to let go.
pub struct Hold {
    go: Sender<()>,
    holder: JoinHandle<()>,
}

impl Hold {
    pub fn of(db: &Database) -> Self {
        Self::labelled(db, "holder")
    }

    pub fn labelled(db: &Database, label: &str) -> Self {
        let (entered, has_it) = channel();
        let (go, wait) = channel::<()>();
        let (db, label) = (db.clone(), label.to_owned());
        let holder = std::thread::spawn(move || {
            let held = db.with().label(label).write_once(move |_| {
                entered.send(()).unwrap();
                // Also ends when the sender is dropped by a test that failed.
                let _ = wait.recv();
                Ok(())
            });
            drop(db);
            held.unwrap();
        });
        has_it.recv_timeout(PATIENCE).unwrap();
        Self { go, holder }
    }

    pub fn release(self) {
        self.go.send(()).unwrap();
        self.holder.join().unwrap();
    }
}

/// A gate that a closure can stop at: it says that it is there, and waits.
pub fn gate() -> (Arrive, Gate) {
    let (arrived, at_gate) = channel();
    let (open, opened) = channel();
    let arrive = Arrive {
        arrived,
        opened: std::sync::Mutex::new(opened),
    };
    (arrive, Gate { at_gate, open })
}

pub struct Arrive {
    arrived: Sender<()>,
    opened: std::sync::Mutex<Receiver<()>>,
}

impl Arrive {
    pub fn stop(&self) {
        let _ = self.arrived.send(());
        let _ = self.opened.lock().unwrap().recv();
    }
}

pub struct Gate {
    at_gate: Receiver<()>,
    open: Sender<()>,
}

impl Gate {
    pub fn wait_for_arrival(&self) {
        self.at_gate.recv_timeout(PATIENCE).unwrap();
    }

    pub fn open(self) {
        let _ = self.open.send(());
    }
}

/// How a group was run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Nothing around its members, until one fails.
    Bare,
    /// A savepoint around each of them from the start.
    Savepoints,
}

/// Where in its group a member stood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    First,
    Middle,
    Last,
}

const NEIGHBOURS: &str = "CREATE TABLE neighbours(k INTEGER PRIMARY KEY, twice INTEGER NOT NULL);";

/// Runs `member` in a group with two others, as its first, middle and last
/// member, in every way a group can be run; checks that the neighbours noticed
/// nothing; and hands what the member answered to `check`.
pub fn among_neighbours<T, M>(
    schema: &str,
    member: M,
    check: impl Fn(std::thread::Result<Result<T>>, &Scene),
) where
    T: Send + 'static,
    M: Fn(&WriteTx<'_>) -> Result<T> + Clone + Send + 'static,
{
    among_neighbours_with(quick, schema, member, check);
}

pub fn among_neighbours_with<T, M>(
    options: impl Fn() -> Options,
    schema: &str,
    member: M,
    check: impl Fn(std::thread::Result<Result<T>>, &Scene),
) where
    T: Send + 'static,
    M: Fn(&WriteTx<'_>) -> Result<T> + Clone + Send + 'static,
{
    Trial {
        options: options(),
        prepare: |_| {},
        schema,
    }
    .run(member, check);
}

/// What [`among_neighbours`] starts from.
pub struct Trial<'a> {
    pub options: Options,
    /// Makes the file before it is opened.
    pub prepare: fn(&Path),
    pub schema: &'a str,
}

impl Trial<'_> {
    pub fn run<T, M>(&self, member: M, check: impl Fn(std::thread::Result<Result<T>>, &Scene))
    where
        T: Send + 'static,
        M: Fn(&WriteTx<'_>) -> Result<T> + Clone + Send + 'static,
    {
        for way in [Way::Bare, Way::Savepoints] {
            for place in [Place::First, Place::Middle, Place::Last] {
                let schema = format!("{NEIGHBOURS}{}", self.schema);
                let scene = Scene::over(self.prepare, self.options.clone(), &schema);
                if way == Way::Savepoints {
                    scene.make_wary();
                }
                let member = member.clone();
                let hold = scene.hold();
                let mut neighbours = Vec::new();
                let mut answer = None;
                for (index, here) in [Place::First, Place::Middle, Place::Last]
                    .into_iter()
                    .enumerate()
                {
                    if here == place {
                        answer = Some(scene.db.submit(member.clone()).unwrap());
                    } else {
                        let k = i64::try_from(index).unwrap();
                        neighbours.push((k, scene.db.submit(move |tx| neighbour(tx, k)).unwrap()));
                    }
                }
                scene.wait_for_queue(3);
                hold.release();
                let answer = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                    answer.take().unwrap().wait()
                }));
                let context = format!("{way:?}, {place:?}");
                for (k, neighbour) in neighbours {
                    assert_eq!(neighbour.wait().unwrap(), (k, 2 * k), "{context}");
                }
                scene.largest_group_was(3);
                let expected: Vec<i64> = (0..3).filter(|&k| k != place as i64).collect();
                assert_eq!(
                    scene.numbers("SELECT k FROM neighbours ORDER BY k"),
                    expected,
                    "{context}"
                );
                check(answer, &scene);
                // Nothing of it is left for those who come later, alone or grouped.
                scene.db.write(|tx| neighbour(tx, 100)).unwrap();
                scene.make_wary();
                scene.db.write(|tx| neighbour(tx, 101)).unwrap();
                assert_eq!(
                    scene.number("SELECT count(*) FROM neighbours"),
                    4,
                    "{context}"
                );
            }
        }
    }
}

/// What a neighbour writes, and what it learns from the database on the way.
fn neighbour(tx: &WriteTx<'_>, k: i64) -> Result<(i64, i64)> {
    assert_eq!(tx.last_insert_rowid(), 0, "a row id was inherited");
    assert_eq!(tx.changes(), 0, "a count of changes was inherited");
    tx.execute("INSERT INTO neighbours VALUES (?1, ?2)", (k, 2 * k))?;
    tx.query_row(
        "SELECT k, twice FROM neighbours WHERE k = ?1",
        (k,),
        |row| Ok((row.get(0)?, row.get(1)?)),
    )
}

/// The error a member answered with; the test fails if it panicked or was fine.
pub fn refused<T>(answer: std::thread::Result<Result<T>>) -> Error {
    match answer {
        Ok(Err(error)) => error,
        Ok(Ok(_)) => panic!("the member was told Ok"),
        Err(payload) => std::panic::resume_unwind(payload),
    }
}

/// The value a member answered with.
pub fn fine<T>(answer: std::thread::Result<Result<T>>) -> T {
    match answer {
        Ok(answer) => answer.unwrap(),
        Err(payload) => std::panic::resume_unwind(payload),
    }
}

/// Runs a future on this thread, and fails when nobody ever wakes it.
pub fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let since = Instant::now();
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(value) => return value,
            Poll::Pending => std::thread::park_timeout(PATIENCE.saturating_sub(since.elapsed())),
        }
        assert!(since.elapsed() < PATIENCE, "nobody woke the task");
    }
}

/// Polls a future once, without being told when to poll again.
pub fn poll_once<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    std::pin::Pin::new(future).poll(&mut Context::from_waker(Waker::noop()))
}

/// Starts this test program again, to run only the test `name` there; that test
/// sees `ONEPEN_TEST_CHILD` and its argument in it.
pub fn child(name: &str, argument: &Path) -> std::process::Command {
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", name, "--nocapture", "--test-threads=1"]);
    command.env("ONEPEN_TEST_CHILD", argument);
    command
}

/// Restores again while that is refused because somebody has the file open: a
/// program that another test starts has all our files for a moment, until it runs.
pub fn while_programs_start<T>(restore: impl Fn() -> Result<T>) -> Result<T> {
    let since = Instant::now();
    loop {
        match restore() {
            Err(error)
                if error.kind() == onepen::ErrorKind::Refused
                    && since.elapsed() < Duration::from_secs(5) =>
            {
                std::thread::yield_now();
            }
            answer => return answer,
        }
    }
}

/// The argument, in a process that [`child`] started.
pub fn in_child() -> Option<PathBuf> {
    std::env::var_os("ONEPEN_TEST_CHILD").map(PathBuf::from)
}

/// Leaves a hot journal beside the database, as a program does that is killed
/// in the middle of a transaction larger than its cache.
pub fn crash_beside(path: &Path) {
    let script = "import os, sqlite3, sys
c = sqlite3.connect(sys.argv[1], isolation_level=None)
c.execute('PRAGMA cache_size=1')
c.execute('BEGIN IMMEDIATE')
c.execute('UPDATE t SET n = -1')
c.execute('INSERT INTO t WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000) SELECT i FROM n')
os._exit(0)";
    let crashed = std::process::Command::new("python3")
        .args(["-c", script])
        .arg(path)
        .stdin(std::process::Stdio::null())
        .status();
    assert!(crashed.expect("python3 is there").success());
    let journal = path.with_extension("db-journal");
    assert!(
        journal.metadata().is_ok_and(|journal| journal.len() > 512),
        "no hot journal"
    );
}
