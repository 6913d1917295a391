//! One deed with one fault, and what must be true afterwards.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, Once, PoisonError};
use std::time::{Duration, Instant};

use onepen::{Database, Outcome, Result, WriteTx};
use rusqlite::Connection;

use crate::common::options;
use crate::deeds::{Deed, Told};

pub const TABLE: &str = "CREATE TABLE IF NOT EXISTS t(n INTEGER PRIMARY KEY);
    CREATE TABLE IF NOT EXISTS filler(b BLOB);";

/// The row that is there before, and must be there afterwards.
pub const OLD: i64 = 100;
/// The row that is written when nothing fails any more.
const NEW: i64 = 200;

/// How many faults somebody may meet who gives up when he should.
const MOST: usize = 3000;

/// Whether there is time for every point.
pub fn is_long() -> bool {
    std::env::var_os("ONEPEN_SWEEPS").is_some_and(|how| how == "long")
}

pub struct Stage {
    pub dir: tempfile::TempDir,
    pub db: Option<Database>,
    /// What it answered, where that is no row.
    pub said: Result<(), String>,
}

impl Stage {
    pub fn new() -> Self {
        let memory = Path::new("/dev/shm");
        let builder = tempfile::Builder::new();
        let dir = builder.tempdir_in(memory).or_else(|_| tempfile::tempdir());
        Self {
            dir: dir.unwrap(),
            db: None,
            said: Ok(()),
        }
    }

    pub fn path(&self) -> PathBuf {
        self.dir.path().join("a.db")
    }
}

pub fn insert(tx: &WriteTx<'_>, n: i64) -> Result<usize> {
    tx.execute("INSERT INTO t(n) VALUES (?1)", (n,))
}

pub fn rows_of(db: &Database) -> BTreeSet<i64> {
    db.read(|tx| tx.query_map("SELECT n FROM t", (), |row| row.get(0)))
        .unwrap()
        .into_iter()
        .collect()
}

/// Whoever makes something fail, and stops with it when it is dropped.
pub trait Failing {
    fn fired(&self) -> usize;
}

/// Runs `deed` with what `fault` makes fail; how often it did.
pub fn run<F: Failing>(deed: &Deed, what: &str, fault: impl FnOnce(&Path) -> F) -> usize {
    watch();
    let context = format!("{} with {what}", deed.name);
    let _now = Now::begin(&context);
    let mut stage = Stage::new();
    (deed.prepare)(&mut stage);
    let fault = fault(stage.dir.path());
    let told = (deed.act)(&mut stage);
    let fired = fault.fired();
    let image = after_a_crash(&stage.path());
    drop(fault);
    assert!(
        fired < MOST,
        "{context}: {fired} times, and it went on trying"
    );
    if fired == 0 {
        let refused = told
            .iter()
            .filter(|(n, told)| *n != 2 && *told != Outcome::Committed);
        assert_eq!(stage.said, Ok(()), "{context}: without a fault");
        assert_eq!(refused.count(), 0, "{context}: without a fault");
    }
    if let Some(image) = &image {
        agrees(image, &told, &format!("{context}, after a crash"));
    }
    if let Some(db) = stage.db.take() {
        // The disk is well again, and so is the handle.
        let written = db.write(|tx| {
            tx.execute_batch(TABLE)?;
            insert(tx, NEW)
        });
        written.unwrap_or_else(|error| panic!("{context}: afterwards: {error}"));
        agrees(&rows_of(&db), &told, &format!("{context}, afterwards"));
        nobody_holds_a_lock(&stage.path(), &context);
        db.close();
    }
    let db = options().open(stage.path());
    let db = db.unwrap_or_else(|error| panic!("{context}: opened again: {error}"));
    let check: String = db
        .query_row("PRAGMA integrity_check", (), |row| row.get(0))
        .unwrap();
    assert_eq!(check, "ok", "{context}");
    db.write(|tx| tx.execute_batch(TABLE)).unwrap();
    agrees(&rows_of(&db), &told, &format!("{context}, opened again"));
    drop(db);
    (deed.check)(&stage.path(), &context);
    nothing_is_left(&stage, &context);
    assert_eq!(
        PANICS.load(Ordering::SeqCst),
        0,
        "{context}: a thread panicked"
    );
    fired
}

/// Whether the rows there are those that were told.
fn agrees(rows: &BTreeSet<i64>, told: &Told, context: &str) {
    for &(n, told) in told {
        let there = rows.contains(&n);
        match told {
            Outcome::Committed => assert!(there, "{context}: {n} was told Committed, of {rows:?}"),
            Outcome::NotCommitted => {
                assert!(!there, "{context}: {n} was told NotCommitted, of {rows:?}");
            }
            Outcome::Unknown => {}
        }
    }
    let known = |n: &i64| [OLD, NEW].contains(n) || told.iter().any(|(of, _)| of == n);
    assert!(rows.iter().all(known), "{context}: {rows:?} of {told:?}");
}

/// The rows that a crash at this moment would leave, and whether it is whole.
/// Copied by a process of its own: to close the file in this one drops its locks.
fn after_a_crash(path: &Path) -> Option<BTreeSet<i64>> {
    let image = tempfile::tempdir_in(path.parent()?.parent()?).unwrap();
    let log = PathBuf::from(format!("{}-wal", path.display()));
    let files = [path, &log].into_iter().filter(|file| file.exists());
    Command::new("cp")
        .args(files)
        .arg(image.path())
        .output()
        .ok()?;
    let copy = image.path().join("a.db");
    copy.exists().then(|| {
        let connection = Connection::open(copy).unwrap();
        let check = connection.query_row("PRAGMA integrity_check", (), |row| row.get(0));
        assert_eq!(check, Ok("ok".to_owned()));
        let there = "SELECT count(*) FROM sqlite_schema WHERE name = 't'";
        if connection.query_row(there, (), |row| row.get(0)) == Ok(0) {
            return BTreeSet::new();
        }
        let mut rows = connection.prepare("SELECT n FROM t").unwrap();
        let rows = rows.query_map((), |row| row.get(0)).unwrap();
        rows.map(|n| n.unwrap()).collect()
    })
}

fn nobody_holds_a_lock(path: &Path, context: &str) {
    let stranger = Connection::open(path).unwrap();
    let begun = stranger.execute_batch("BEGIN IMMEDIATE; ROLLBACK");
    assert_eq!(begun, Ok(()), "{context}: somebody holds the lock");
}

/// The database, its side file, and what the deed was to make. A part of a copy
/// stays where its removal was what failed, and says by its name what it is.
fn nothing_is_left(stage: &Stage, context: &str) {
    for entry in std::fs::read_dir(stage.dir.path()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let known = ["a.db", "a.db-gate", "copy.db", "copy.db-gate"].contains(&&*name);
        assert!(
            known || name.contains(".onepen-part-"),
            "{context}: {name} is left"
        );
    }
}

static PANICS: AtomicUsize = AtomicUsize::new(0);
static NOW: Mutex<Vec<(Instant, String)>> = Mutex::new(Vec::new());

/// What is being tried, for whoever watches.
struct Now(String);

impl Now {
    fn begin(context: &str) -> Self {
        NOW.lock()
            .unwrap()
            .push((Instant::now(), context.to_owned()));
        Self(context.to_owned())
    }
}

impl Drop for Now {
    fn drop(&mut self) {
        let mut now = NOW.lock().unwrap_or_else(PoisonError::into_inner);
        now.retain(|(_, context)| *context != self.0);
    }
}

/// Ends the program when something hangs, and counts the panics of the
/// library's own threads.
fn watch() {
    static STARTED: Once = Once::new();
    STARTED.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let name = std::thread::current().name().unwrap_or_default().to_owned();
            if name.starts_with("onepen") {
                PANICS.fetch_add(1, Ordering::SeqCst);
            }
            before(info);
        }));
        std::thread::spawn(|| {
            loop {
                std::thread::sleep(Duration::from_millis(500));
                for (since, context) in &*NOW.lock().unwrap_or_else(PoisonError::into_inner) {
                    if since.elapsed() > Duration::from_secs(90) {
                        eprintln!("it hangs: {context}");
                        std::process::abort();
                    }
                }
            }
        });
    });
}
