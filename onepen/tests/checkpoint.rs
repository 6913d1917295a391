//! The write-ahead log stays short, whoever reads and writes, and nobody is
//! stalled for it.
//!
//! These are rules of liveness ("sooner or later it is reset"), so they loop
//! until it happened, with a limit that only a failure ever reaches. Sleeps are
//! the load, never the order of things.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use onepen::{Database, Durability, Options, Stats};
use rusqlite::Connection;
use rusqlite::config::DbConfig;

const LIMIT: Duration = Duration::from_secs(30);
const INSERT: &str = "INSERT INTO t (v) VALUES (zeroblob(1000))";

fn open(path: &Path) -> Database {
    let db = Options::new()
        .durability(Durability::Normal)
        .wal_limit(64, Duration::from_millis(20))
        .open(path)
        .unwrap();
    db.execute(
        "CREATE TABLE IF NOT EXISTS t (k INTEGER PRIMARY KEY, v)",
        (),
    )
    .unwrap();
    db
}

fn log_of(path: &Path) -> PathBuf {
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    log.into()
}

/// Does `step` again and again until the statistics are as they should be.
fn until(db: &Database, what: &str, step: impl Fn(), reached: impl Fn(&Stats) -> bool) {
    let started = Instant::now();
    loop {
        step();
        let stats = db.stats();
        if reached(&stats) {
            return;
        }
        assert!(started.elapsed() < LIMIT, "not reached: {what}; {stats:?}");
    }
}

/// Runs `load` on so many threads for as long as `body` takes.
fn beside(threads: usize, load: impl Fn() + Sync, body: impl FnOnce()) {
    struct Stop<'a>(&'a AtomicBool);
    impl Drop for Stop<'_> {
        fn drop(&mut self) {
            self.0.store(true, Relaxed); // also when `body` panics
        }
    }
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while !stop.load(Relaxed) {
                    load();
                }
            });
        }
        let _stop = Stop(&stop);
        body();
    });
}

fn insert(db: &Database) {
    db.execute(INSERT, ()).unwrap();
}

fn count(db: &Database) -> i64 {
    db.query_row("SELECT count(*) FROM t", (), |row| row.get(0))
        .unwrap()
}

#[test]
fn the_log_is_reset_under_a_constant_writer_and_overlapping_readers() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(&dir.path().join("a.db"));
    let read = || {
        db.read(|tx| {
            let _: i64 = tx.query_row("SELECT count(*) FROM t", (), |row| row.get(0))?;
            std::thread::sleep(Duration::from_millis(3)); // what it reads for
            Ok(())
        })
        .unwrap();
    };
    beside(3, read, || {
        until(
            &db,
            "ten resets",
            || insert(&db),
            |stats| stats.wal_resets >= 10,
        );
    });
    assert_eq!(db.stats().wal_pinned_for, None);
}

#[test]
fn reads_that_take_longer_than_the_hold_do_not_keep_the_log_for_ever() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.db");
    let db = Options::new()
        .durability(Durability::Normal)
        .wal_limit(64, Duration::from_millis(1))
        .open(&path)
        .unwrap();
    db.execute("CREATE TABLE t (k INTEGER PRIMARY KEY, v)", ())
        .unwrap();
    let read = || {
        db.read(|_tx| {
            std::thread::sleep(Duration::from_millis(10)); // longer than the hold
            Ok(())
        })
        .unwrap();
    };
    beside(3, read, || {
        until(
            &db,
            "a reset",
            || insert(&db),
            |stats| stats.wal_resets >= 2,
        );
    });
}

/// Readers are held back first, and only then is the pen taken.
#[test]
fn a_write_does_not_wait_while_a_checkpoint_waits_for_a_read() {
    let dir = tempfile::tempdir().unwrap();
    let db = Options::new()
        .wal_limit(16, LIMIT * 4)
        .open(dir.path().join("a.db"))
        .unwrap();
    db.execute("CREATE TABLE t (k INTEGER PRIMARY KEY, v)", ())
        .unwrap();
    std::thread::scope(|scope| {
        let (reads, is_reading) = std::sync::mpsc::channel();
        let (end, ended) = std::sync::mpsc::channel::<()>();
        let (db, of_reader) = (&db, db.clone());
        scope.spawn(move || {
            of_reader.read(|_| {
                reads.send(()).unwrap();
                let _ = ended.recv(); // also when the test fails
                Ok(())
            })
        });
        is_reading.recv().unwrap();
        (0..100).for_each(|_| insert(db));
        // Held back is who comes now.
        let wait = Duration::from_millis(5);
        let read = || db.with().deadline(wait).read(|_| Ok(()));
        let since = Instant::now();
        while read().is_ok() {
            assert!(since.elapsed() < LIMIT, "nothing was copied back");
        }
        db.with().deadline(LIMIT).execute(INSERT, ()).unwrap();
        drop(end);
    });
}

#[test]
fn a_snapshot_pins_the_log_and_shows_and_nothing_else_waits_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(&dir.path().join("a.db"));
    insert(&db);
    let snapshot = db.snapshot().unwrap();
    until(
        &db,
        "the pinned log shows",
        || insert(&db),
        |stats| stats.wal_pinned_for.is_some(),
    );
    let resets = db.stats().wal_resets;
    for _ in 0..300 {
        insert(&db);
        assert!(count(&db) > 1);
    }
    let seen: i64 = snapshot
        .query_row("SELECT count(*) FROM t", (), |row| row.get(0))
        .unwrap();
    assert_eq!(seen, 1, "the snapshot sees what it saw");
    assert_eq!(db.stats().wal_resets, resets, "it pins");
    drop(snapshot);
    until(
        &db,
        "a reset after it has ended",
        || insert(&db),
        |stats| stats.wal_resets > resets && stats.wal_pinned_for.is_none(),
    );
}

#[test]
fn a_stranger_who_writes_all_the_time_does_not_keep_the_log_from_being_reset() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.db");
    let db = open(&path);
    let strange = || {
        let stranger = Connection::open(&path).unwrap();
        stranger
            .execute_batch("PRAGMA synchronous = OFF; PRAGMA wal_autocheckpoint = 0")
            .unwrap();
        for _ in 0..500 {
            stranger.execute(INSERT, ()).unwrap();
        }
        // Ours alone checkpoint.
        stranger
            .set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)
            .unwrap();
    };
    beside(1, strange, || {
        until(
            &db,
            "five resets",
            || insert(&db),
            |stats| stats.wal_resets >= 5,
        );
    });
}

#[test]
fn a_long_log_left_behind_is_copied_back_though_nobody_writes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.db");
    {
        let crashed = Connection::open(&path).unwrap();
        crashed
            .set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)
            .unwrap();
        crashed
            .execute_batch(
                "PRAGMA journal_mode = WAL; PRAGMA wal_autocheckpoint = 0;
                 CREATE TABLE t (k INTEGER PRIMARY KEY, v);",
            )
            .unwrap();
        for _ in 0..300 {
            crashed.execute(INSERT, ()).unwrap();
        }
    }
    let left = std::fs::metadata(log_of(&path)).unwrap().len();
    assert!(left > 64 * 4096, "{left}");
    let before = std::fs::metadata(&path).unwrap().len();
    let db = Options::new()
        .wal_limit(64, Duration::from_millis(20))
        .open(&path)
        .unwrap();
    let look = || std::thread::sleep(Duration::from_millis(1));
    until(&db, "a reset", look, |stats| stats.wal_resets >= 1);
    assert!(std::fs::metadata(&path).unwrap().len() > before);
    assert_eq!(count(&db), 300);
}

#[test]
fn closing_leaves_the_database_file_and_its_gate_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.db");
    let db = open(&path);
    until(
        &db,
        "a reset",
        || insert(&db),
        |stats| stats.wal_resets >= 1,
    );
    let rows = count(&db);
    assert!(log_of(&path).exists());
    db.close();
    let mut left: Vec<_> = std::fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    left.sort();
    if cfg!(target_os = "linux") {
        assert_eq!(left, ["a.db", "a.db-gate"]);
    } else {
        assert_eq!(left, ["a.db"]);
    }
    assert_eq!(count(&open(&path)), rows);
}
