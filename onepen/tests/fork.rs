//! What a forked child may do with its parent's databases: nothing that could
//! harm them.
#![cfg(unix)]

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use onepen::{Database, Error, ErrorKind};

/// Forks one at a time: no other test must be inside the library just then, or
/// the child finds a lock that nobody will ever let go.
static FORKS: Mutex<()> = Mutex::new(());

/// Whether `question` is answered with yes by a forked child.
fn in_a_child(question: impl FnOnce() -> bool) -> bool {
    // SAFETY: between here and `_exit` the child allocates, locks and starts
    // threads, which the C libraries we run on allow although POSIX does not
    // promise it; it ends without running anything of the parent's.
    unsafe {
        match libc::fork() {
            -1 => panic!("fork failed"),
            0 => {
                let answer = std::panic::catch_unwind(std::panic::AssertUnwindSafe(question));
                libc::_exit(i32::from(!answer.unwrap_or(false)))
            }
            child => {
                let mut status = 0;
                assert_eq!(libc::waitpid(child, &raw mut status, 0), child);
                libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0
            }
        }
    }
}

fn open(path: &Path) -> Database {
    let db = Database::open(path).unwrap();
    db.execute("CREATE TABLE IF NOT EXISTS t (n)", ()).unwrap();
    db
}

fn insert(db: &Database) -> onepen::Result<usize> {
    db.execute("INSERT INTO t VALUES (1)", ())
}

fn count(db: &Database) -> onepen::Result<i64> {
    db.query_row("SELECT count(*) FROM t", (), |row| row.get(0))
}

fn is_forked<T>(result: Result<T, Error>) -> bool {
    result.is_err_and(|error| error.kind() == ErrorKind::Forked)
}

#[test]
fn a_child_cannot_use_its_parents_handle_and_does_no_harm_by_dropping_it() {
    let _one = FORKS.lock().unwrap_or_else(PoisonError::into_inner);
    let dir = tempfile::tempdir().unwrap();
    let db = open(&dir.path().join("a.db"));
    insert(&db).unwrap();
    assert_eq!(count(&db).unwrap(), 1);
    let log = std::fs::metadata(dir.path().join("a.db-wal"))
        .unwrap()
        .len();

    let inherited = db.clone();
    assert!(in_a_child(move || {
        let refused = is_forked(insert(&inherited))
            && is_forked(count(&inherited))
            && is_forked(inherited.read(|_| Ok(())))
            && is_forked(inherited.snapshot())
            && is_forked(
                inherited
                    .submit(|tx| tx.execute("DELETE FROM t", ()))
                    .map(drop),
            )
            && is_forked(inherited.exclusively(|_| Ok(())));
        inherited.close();
        drop(inherited);
        refused
    }));
    let after = std::fs::metadata(dir.path().join("a.db-wal"))
        .unwrap()
        .len();
    assert_eq!(after, log, "the log is there and whole");
    insert(&db).unwrap();
    assert_eq!(count(&db).unwrap(), 2);
}

#[test]
fn a_child_cannot_open_a_file_that_was_open_when_it_was_forked() {
    let _one = FORKS.lock().unwrap_or_else(PoisonError::into_inner);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.db");
    let db = open(&path);
    let inherited = db.clone();
    let original = Mutex::new(Some(db));
    assert!(in_a_child(|| {
        let before = is_forked(Database::open(&path));
        drop(inherited);
        drop(original.lock().unwrap().take());
        before && is_forked(Database::open(&path))
    }));
}

#[test]
fn a_child_may_open_what_was_not_open() {
    let _one = FORKS.lock().unwrap_or_else(PoisonError::into_inner);
    let dir = tempfile::tempdir().unwrap();
    let db = open(&dir.path().join("a.db"));
    let closed = dir.path().join("closed.db");
    drop(open(&closed));
    let other = dir.path().join("other.db");
    assert!(in_a_child(|| {
        [&closed, &other].into_iter().all(|path| {
            let db = open(path);
            insert(&db).is_ok() && count(&db).is_ok_and(|rows| rows == 1)
        }) && Database::open_in_memory().is_ok()
    }));
    for path in [&closed, &other] {
        assert_eq!(count(&open(path)).unwrap(), 1, "{}", path.display());
    }
    assert_eq!(count(&db).unwrap(), 0);
}

#[test]
fn a_child_leaves_its_parents_database_in_memory_there() {
    let _one = FORKS.lock().unwrap_or_else(PoisonError::into_inner);
    let db = Database::open_in_memory().unwrap();
    db.execute("CREATE TABLE t (n)", ()).unwrap();
    let inherited = db.clone();
    assert!(in_a_child(move || {
        drop(inherited);
        true
    }));
    insert(&db).unwrap();
    assert_eq!(count(&db).unwrap(), 1);
}

#[test]
fn a_child_can_use_none_of_its_parents_blocks_and_closes_nothing_of_theirs() {
    use onepen::blocks::{
        Busy, BusyHandler, BusyWait, PerThread, PoolOptions, Shared, WritePermit,
    };
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};
    let _one = FORKS.lock().unwrap_or_else(PoisonError::into_inner);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.db");
    /// Notices that the connection is closed that owns it.
    struct Closes(Arc<AtomicU32>);
    impl Drop for Closes {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
    let closed = Arc::new(AtomicU32::new(0));
    let count_closed = Arc::clone(&closed);
    let connect = move || {
        let connection = rusqlite::Connection::open(&path)?;
        let closes = Closes(Arc::clone(&count_closed));
        let give_up = move |_: &BusyWait<'_>| {
            let _ = &closes;
            Busy::GiveUp
        };
        BusyHandler::closure(give_up).install(&connection)?;
        Ok(connection)
    };
    let tidied = Arc::new(AtomicU32::new(0));
    let count_tidied = Arc::clone(&tidied);
    let pool = PoolOptions::new(2)
        .on_leftover(move |_| _ = count_tidied.fetch_add(1, Ordering::SeqCst))
        .open_with(connect.clone());
    let schema = "PRAGMA journal_mode = wal; CREATE TABLE t (n)";
    pool.get().unwrap().execute_batch(schema).unwrap();
    let shared = Shared::new(connect().unwrap());
    shared
        .alone(|c| Ok(c.execute_batch("PRAGMA journal_mode")?))
        .unwrap();
    let threads = PerThread::new(connect);
    threads
        .with(|c| Ok(c.execute_batch("PRAGMA journal_mode")?))
        .unwrap();
    let permit = WritePermit::of(dir.path().join("a.db")).unwrap();
    let turn = permit.take().unwrap();
    pool.fill().unwrap(); // one of them stays idle
    let out = pool.get().unwrap();
    out.execute_batch("BEGIN IMMEDIATE; INSERT INTO t VALUES (1)")
        .unwrap();

    let theirs = Mutex::new(Some((pool, shared, threads, permit, turn, out)));
    assert!(in_a_child(|| {
        let Some((pool, shared, threads, permit, turn, out)) = theirs.lock().unwrap().take() else {
            return false;
        };
        let refused = is_forked(pool.get().map(drop))
            && is_forked(shared.read(|_| Ok(())))
            && is_forked(threads.with(|_| Ok(())))
            && is_forked(permit.take().map(drop));
        // None of it closes a connection, or ends the transaction.
        drop((out, turn, permit, threads, shared, pool));
        refused && closed.load(Ordering::SeqCst) == 0 && tidied.load(Ordering::SeqCst) == 0
    }));
    assert_eq!(closed.load(Ordering::SeqCst), 0);
    let (pool, shared, threads, permit, turn, out) = theirs.into_inner().unwrap().unwrap();
    out.execute_batch("COMMIT").unwrap();
    drop((turn, out));
    drop(permit.take().unwrap());
    let count = "SELECT count(*) FROM t";
    let rows = shared.read(|tx| tx.query_row(count, (), |row| row.get::<_, i64>(0)));
    assert_eq!(rows.unwrap(), 1);
    let rows = threads.with(|c| Ok(c.query_row(count, (), |row| row.get::<_, i64>(0))?));
    assert_eq!(rows.unwrap(), 1);
    assert_eq!(pool.leftovers(), []);
    assert!(
        dir.path().join("a.db-wal").exists(),
        "the child has removed the log"
    );
}

/// What SQLite lets happen: nothing on a connection knows that it was forked.
#[test]
fn without_a_guard_a_forked_child_commits_what_its_parent_rolls_back() {
    let _one = FORKS.lock().unwrap_or_else(PoisonError::into_inner);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.db");
    let plain = rusqlite::Connection::open(&path).unwrap();
    plain
        .execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE t(n); BEGIN IMMEDIATE; INSERT INTO t VALUES (1)")
        .unwrap();
    assert!(in_a_child(|| plain.execute_batch("COMMIT").is_ok()));
    plain.execute_batch("ROLLBACK").unwrap();
    let rows: i64 = plain
        .query_row("SELECT count(*) FROM t", (), |row| row.get(0))
        .unwrap();
    assert_eq!(rows, 1, "rolled back, and there");
}
