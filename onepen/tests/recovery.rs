//! The locks of write-ahead mode in a stranger's hands: somebody who recovers the
//! log (`SQLITE_BUSY_RECOVERY`), and somebody who leaves the shared memory as it
//! must not be and has the lock that would be needed to mend it
//! (`SQLITE_PROTOCOL`, after a hundred tries). Both are waited for like any other
//! lock, and nothing is lost.
//!
//! The stranger is a process that writes into the `-shm` file and locks its bytes
//! as SQLite would (`WAL_WRITE_LOCK` is byte 120, `WAL_RECOVER_LOCK` 122).
#![cfg(all(target_os = "linux", target_env = "gnu"))]

mod common;
#[path = "../../onepen-lock/tests/common/mod.rs"]
mod python;

use std::ffi::c_int;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use onepen::blocks::{Class, Retry, Schedule};
use onepen::{Database, Error, ErrorKind, Outcome};
use rusqlite::ffi;

use common::{Scene, block_on, options, until};
use python::Python;

const TABLE: &str = "CREATE TABLE t(n INTEGER PRIMARY KEY);";
const INSERT: &str = "INSERT INTO t VALUES (?1)";
const COUNT: &str = "SELECT count(*) FROM t";
const SOON: Duration = Duration::from_millis(50);

/// Locks bytes of the shared memory for itself and spoils the first copy of its
/// header, so that whoever comes next has to recover, and cannot.
const SPOILS: &str = "
shm = open(path + '-shm', 'r+b', buffering=0)
fcntl.lockf(shm, fcntl.LOCK_SH, 1, 128) # as everybody has who uses the file
for byte in BYTES: fcntl.lockf(shm, fcntl.LOCK_EX, 1, byte)
shm.write(b'\\xff' * 48)
gate()
sys.exit(0)
";

fn stranger(scene: &Scene, bytes: &str) -> Python {
    Python::at_gate(&scene.path(), &SPOILS.replace("BYTES", bytes))
}

/// How often SQLite slept between two of its own tries.
static SLEPT: AtomicUsize = AtomicUsize::new(0);

/// SQLite's own pauses take ten seconds before it says PROTOCOL; in this program
/// nobody sleeps.
// SAFETY: replaces the C library's function by one of the same type, which
// returns early, as that may after a signal.
#[unsafe(no_mangle)]
extern "C" fn nanosleep(_: *const libc::timespec, _: *mut libc::timespec) -> c_int {
    SLEPT.fetch_add(1, Ordering::Relaxed);
    std::thread::yield_now();
    0
}

fn count(db: &Database) -> onepen::Result<i64> {
    db.with()
        .deadline(SOON)
        .query_row(COUNT, (), |row| row.get(0))
}

/// Everything that has to give up while the stranger is there.
fn refused(db: &Database) -> Vec<(&'static str, Error)> {
    let with = || db.with().deadline(SOON);
    vec![
        ("query_row", count(db).unwrap_err()),
        ("read", with().read(|_| Ok(())).unwrap_err()),
        ("snapshot", with().snapshot().unwrap_err()),
        (
            "read_async",
            block_on(with().read_async(|_| Ok(()))).unwrap_err(),
        ),
        ("execute", with().execute(INSERT, (100,)).unwrap_err()),
        ("write_once", with().write_once(|_| Ok(())).unwrap_err()),
        (
            "execute_async",
            block_on(with().execute_async(INSERT, (100,))).unwrap_err(),
        ),
    ]
}

/// What SQLite said last; but a write that waits in the queue is told by the clock.
fn assert_says(error: &Error, code: i32, what: &str) {
    let said = error.sqlite_code();
    let queued = what == "execute_async" && said.is_none();
    assert!(queued || said == Some(code), "{what}: {error}");
}

#[test]
fn somebody_who_recovers_the_log_is_waited_for_and_named() {
    let scene = Scene::with(options(), TABLE);
    scene.db.execute(INSERT, (1,)).unwrap();
    let mut recovers = stranger(&scene, "(120, 122)");
    for (what, error) in refused(&scene.db) {
        assert_eq!(error.kind(), ErrorKind::DeadlineExceeded, "{what}: {error}");
        assert_eq!(error.outcome(), Outcome::NotCommitted, "{what}");
        assert_says(&error, ffi::SQLITE_BUSY_RECOVERY, what);
        let holder = error.waited().holder.as_ref();
        let holder = holder.unwrap_or_else(|| panic!("{what} names nobody: {error}"));
        assert_eq!(holder.pid, Some(recovers.pid()), "{what}: {error}");
    }
    // Whoever has the time comes through when it is done.
    std::thread::scope(|scope| {
        let read = scope.spawn(|| scene.db.query_row(COUNT, (), |row| row.get::<_, i64>(0)));
        let write = scope.spawn(|| scene.db.execute(INSERT, (2,)));
        recovers.let_go();
        assert!((1..=2).contains(&read.join().unwrap().unwrap()));
        assert_eq!(write.join().unwrap().unwrap(), 1);
    });
    assert_eq!(count(&scene.db).unwrap(), 2, "nothing was lost");
}

#[test]
fn somebody_who_recovers_the_log_is_waited_for_at_opening() {
    let scene = Scene::with(options(), TABLE);
    scene.db.execute(INSERT, (1,)).unwrap();
    // A program that was killed: its log is there, and it is not.
    let image = tempfile::tempdir().unwrap();
    let path = image.path().join("image.db");
    for part in ["", "-wal", "-shm"] {
        let from = format!("{}{part}", scene.path().display());
        let to = format!("{}{part}", path.display());
        // By another process: closing a file drops the locks of this one on it.
        let copied = std::process::Command::new("cp").args([from, to]).status();
        assert!(copied.unwrap().success());
    }
    let mut recovers = Python::at_gate(&path, &SPOILS.replace("BYTES", "(120, 122)"));
    let late = options().wait(SOON).open(&path).unwrap_err();
    assert_eq!(late.kind(), ErrorKind::DeadlineExceeded, "{late}");
    assert_eq!(
        late.sqlite_code(),
        Some(ffi::SQLITE_BUSY_RECOVERY),
        "{late}"
    );
    std::thread::scope(|scope| {
        let opening = scope.spawn(|| options().open(&path));
        recovers.let_go();
        let db = opening.join().unwrap().unwrap();
        assert_eq!(count(&db).unwrap(), 1);
    });
}

#[test]
fn protocol_after_a_hundred_tries_is_waited_for_like_a_lock() {
    let scene = Scene::with(options(), TABLE);
    scene.db.execute(INSERT, (1,)).unwrap();
    // It has the lock to mend the header with, and does not say that it mends.
    let mut rogue = stranger(&scene, "(120,)");
    let slept = SLEPT.load(Ordering::Relaxed);
    for (what, error) in refused(&scene.db) {
        assert_eq!(error.kind(), ErrorKind::DeadlineExceeded, "{what}: {error}");
        assert_eq!(error.outcome(), Outcome::NotCommitted, "{what}");
        assert_says(&error, ffi::SQLITE_PROTOCOL, what);
    }
    assert!(
        SLEPT.load(Ordering::Relaxed) > slept + 90,
        "SQLite tried again"
    );
    std::thread::scope(|scope| {
        // Both have met PROTOCOL before the other one goes: they have slept, or
        // what was in their way was gone and there is nothing to show.
        let slept = SLEPT.load(Ordering::Relaxed);
        let read = scope.spawn(|| scene.db.query_row(COUNT, (), |row| row.get::<_, i64>(0)));
        let write = scope.spawn(|| scene.db.execute(INSERT, (2,)));
        until("both tried in vain more than once", || {
            SLEPT.load(Ordering::Relaxed) > slept + 500
        });
        rogue.let_go();
        assert!((1..=2).contains(&read.join().unwrap().unwrap()));
        assert_eq!(write.join().unwrap().unwrap(), 1);
    });
    assert_eq!(count(&scene.db).unwrap(), 2, "nothing was lost");
}

#[test]
fn a_statement_refused_by_either_is_repeated_on_a_connection_of_ones_own() {
    let scene = Scene::with(options(), TABLE);
    scene.db.execute(INSERT, (1,)).unwrap();
    let (recovery, protocol) = (
        ("(120, 122)", Class::BusyRecovery),
        ("(120,)", Class::Protocol),
    );
    for (bytes, expected) in [recovery, protocol] {
        let mut in_the_way = stranger(&scene, bytes);
        let connection = rusqlite::Connection::open(scene.path()).unwrap();
        connection.busy_timeout(Duration::ZERO).unwrap();
        let mut met = Vec::new();
        let retry = Retry::new().schedule(Schedule::constant(Duration::from_millis(1)));
        let found = retry.statement(&connection, |connection| {
            let found = connection.query_row(COUNT, (), |row| row.get::<_, i64>(0));
            if let Err(error) = &found {
                met.push(Class::of(error));
                if met.len() == 3 {
                    in_the_way.let_go();
                }
            }
            found
        });
        assert_eq!(found.unwrap(), 1, "{expected:?}");
        assert!(met.len() >= 3, "{met:?}");
        assert!(met.iter().all(|class| *class == Some(expected)), "{met:?}");
    }
}
