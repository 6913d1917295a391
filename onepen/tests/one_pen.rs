//! One pen per file: whatever path leads to a file, everybody in the process who
//! opens it shares one database, or is told why not.
#![cfg(unix)]

mod common;

use std::path::{Path, PathBuf};
use std::sync::Barrier;
use std::time::Duration;

use common::{block_on, options};
use onepen::{Database, Durability, Error, ErrorKind, Journal, Options, Result, WhenFull};

const TABLE: &str = "CREATE TABLE IF NOT EXISTS t(n INTEGER)";
const INSERT: &str = "INSERT INTO t VALUES (1)";

fn count(db: &Database) -> Result<i64> {
    db.query_row("SELECT count(*) FROM t", (), |row| row.get(0))
}

fn differ(path: &Path, options: Options) -> Error {
    let error = options.open(path).expect_err("must be refused");
    assert_eq!(error.kind(), ErrorKind::SettingsDiffer, "{error}");
    error
}

/// A path to `path` that starts where the process is.
fn relative(path: &Path) -> PathBuf {
    let here = std::env::current_dir().unwrap().canonicalize().unwrap();
    let mut up: PathBuf = here.components().skip(1).map(|_| "..").collect();
    up.push(path.canonicalize().unwrap().strip_prefix("/").unwrap());
    up
}

#[test]
fn all_paths_to_a_file_share_its_pen() {
    let dir = tempfile::tempdir().unwrap();
    let real = dir.path().join("real");
    std::fs::create_dir(&real).unwrap();
    std::os::unix::fs::symlink(&real, dir.path().join("link")).unwrap();
    let path = real.join("a.db");
    let first = Database::open(&path).unwrap();
    first.write(|tx| tx.execute_batch(TABLE)).unwrap();
    std::os::unix::fs::symlink(&path, dir.path().join("link.db")).unwrap();
    for other in [
        path.clone(),
        relative(&path),
        real.join("./../real/./a.db"),
        dir.path().join("link/a.db"),
        dir.path().join("link.db"),
    ] {
        let context = other.display();
        let second = Database::open(&other).unwrap();
        let before = first.stats().writes;
        second.execute(INSERT, ()).unwrap();
        assert_eq!(first.stats().writes, before + 1, "{context}");
        let inside = first.write(|_| second.execute(INSERT, ()));
        assert_eq!(
            inside.unwrap_err().kind(),
            ErrorKind::Reentrant,
            "{context}"
        );
        let inside = block_on(second.write_async({
            let first = first.clone();
            move |_| first.execute(INSERT, ())
        }));
        assert_eq!(
            inside.unwrap_err().kind(),
            ErrorKind::Reentrant,
            "{context}"
        );
        assert_eq!(count(&first).unwrap(), count(&second).unwrap());
    }
    assert_eq!(count(&first).unwrap(), 5);
}

#[test]
fn two_files_are_strangers_to_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let open = |name: &str| {
        let db = Database::open(dir.path().join(name)).unwrap();
        db.write(|tx| tx.execute_batch(TABLE)).unwrap();
        db
    };
    let (one, other) = (open("one.db"), open("other.db"));
    one.write(|_| other.execute(INSERT, ())).unwrap();
    assert_eq!((count(&one).unwrap(), count(&other).unwrap()), (0, 1));
}

#[test]
fn other_settings_are_refused_and_each_difference_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.db");
    let db = options().open(&path).unwrap();
    let same = options().open(&path).unwrap();
    let limits = |o: Options| o.group(7, 16 << 20, Duration::from_secs(600));
    for (name, other) in [
        ("durability", options().durability(Durability::Normal)),
        ("journal", options().journal(Journal::Rollback)),
        ("readers", options().readers(3)),
        ("statement_cache", options().statement_cache(7)),
        ("page_cache", options().page_cache(1 << 20)),
        ("mmap", options().mmap(1 << 20)),
        ("wait", options().wait(Duration::from_secs(1))),
        ("queue or group", options().queue(9, 9, WhenFull::Refuse)),
        ("queue or group", limits(options())),
        ("foreign_keys", options().foreign_keys(false)),
        ("label", options().label("other")),
        ("on_connect", options().on_connect(|_| Ok(()))),
        ("read_only", options().read_only(true)),
        ("wal_limit", options().wal_limit(99, Duration::from_secs(1))),
        (
            "key_lifetime",
            options().key_lifetime(Duration::from_secs(1)),
        ),
    ] {
        let error = differ(&path, other);
        let named = format!("with other settings: {name}; clone");
        assert!(error.to_string().contains(&named), "{error}");
    }
    let error = differ(
        &path,
        options().readers(3).label("other").foreign_keys(false),
    );
    let named = "with other settings: readers, foreign_keys, label; clone";
    assert!(error.to_string().contains(named), "{error}");
    // Nobody was hurt by the refusals.
    db.write(|tx| tx.execute_batch(TABLE)).unwrap();
    assert_eq!(count(&same).unwrap(), 0);
    // The same hook is the same setting.
    drop((db, same));
    let hooked = options().on_connect(|_| Ok(()));
    let _db = hooked.clone().open(&path).unwrap();
    hooked.open(&path).unwrap();
}

#[test]
fn a_closed_file_can_be_opened_again_with_other_settings() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.db");
    let db = Database::open(&path).unwrap();
    db.write(|tx| tx.execute_batch(TABLE)).unwrap();
    let still_held = db.clone();
    db.close();
    let again = Options::new().readers(2).open(&path).unwrap();
    again.execute(INSERT, ()).unwrap();
    assert_eq!(count(&still_held).unwrap_err().kind(), ErrorKind::Closed);
    drop((db, still_held));
    assert_eq!(
        count(&again).unwrap(),
        1,
        "the old handles are no concern of it"
    );
    drop(again);
    assert_eq!(count(&Database::open(&path).unwrap()).unwrap(), 1);
    assert!(!dir.path().join("a.db-wal").exists());
}

#[test]
fn opening_while_others_close_never_fails_and_loses_nothing() {
    const THREADS: usize = 4;
    const ROUNDS: usize = 12;
    for journal in [Journal::Wal, Journal::Rollback] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.db");
        let open = || {
            options()
                .journal(journal)
                .durability(Durability::Normal)
                .open(&path)
        };
        open().unwrap().write(|tx| tx.execute_batch(TABLE)).unwrap();
        std::thread::scope(|scope| {
            for thread in 0..THREADS {
                let open = &open;
                scope.spawn(move || {
                    for round in 0..ROUNDS {
                        let db = open().unwrap();
                        // Another thread may close the handle that we share.
                        loop {
                            match db.execute(INSERT, ()) {
                                Ok(_) => break,
                                Err(error) => {
                                    assert_eq!(error.kind(), ErrorKind::Closed, "{error}");
                                    let again = open().unwrap();
                                    if again.execute(INSERT, ()).is_ok() {
                                        break;
                                    }
                                }
                            }
                        }
                        if (thread + round) % 2 == 0 {
                            db.close();
                        }
                    }
                });
            }
        });
        let written = i64::try_from(THREADS * ROUNDS).unwrap();
        assert_eq!(count(&open().unwrap()).unwrap(), written);
    }
}

#[test]
fn threads_that_open_a_new_file_together_get_the_same() {
    for journal in [Journal::Wal, Journal::Rollback] {
        for _ in 0..5 {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("a.db");
            let start = Barrier::new(4);
            let opened: Vec<Database> = std::thread::scope(|scope| {
                let threads: Vec<_> = (0..4)
                    .map(|_| {
                        scope.spawn(|| {
                            start.wait();
                            options().journal(journal).open(&path).unwrap()
                        })
                    })
                    .collect();
                threads
                    .into_iter()
                    .map(|thread| thread.join().unwrap())
                    .collect()
            });
            opened[0].write(|tx| tx.execute_batch(TABLE)).unwrap();
            for db in &opened {
                db.execute(INSERT, ()).unwrap();
            }
            let writes = opened[0].stats().writes;
            assert_eq!(writes, 5);
            assert!(opened.iter().all(|db| db.stats().writes == writes));
        }
    }
}

#[test]
fn a_file_with_two_names_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.db");
    drop(Database::open(&path).unwrap());
    std::fs::hard_link(&path, dir.path().join("b.db")).unwrap();
    for name in ["a.db", "b.db"] {
        let error = Database::open(dir.path().join(name)).expect_err("two names");
        assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
    }
}

#[test]
fn another_file_in_the_place_of_a_closed_one_is_another_database() {
    let dir = tempfile::tempdir().unwrap();
    let (path, other) = (dir.path().join("a.db"), dir.path().join("b.db"));
    for path in [&path, &other] {
        let db = Database::open(path).unwrap();
        db.write(|tx| tx.execute_batch(TABLE)).unwrap();
    }
    Database::open(&other).unwrap().execute(INSERT, ()).unwrap();
    let old = Database::open(&path).unwrap();
    assert_eq!(count(&old).unwrap(), 0);
    drop(old);
    std::fs::rename(&other, &path).unwrap();
    let new = Database::open(&path).unwrap();
    assert_eq!(count(&new).unwrap(), 1);
}

/// The directory of a database in memory.
fn home(db: &Database) -> PathBuf {
    let file: String = db
        .query_row("SELECT file FROM pragma_database_list", (), |row| {
            row.get(0)
        })
        .unwrap();
    Path::new(&file).parent().unwrap().to_owned()
}

#[test]
fn a_database_in_memory_is_private_and_gone_with_its_last_handle() {
    for journal in [Journal::Wal, Journal::Rollback] {
        let open = || options().journal(journal).open_in_memory().unwrap();
        let (db, other) = (open(), open());
        let home = home(&db);
        assert!(home.exists());
        db.write(|tx| tx.execute_batch(TABLE)).unwrap();
        assert!(count(&other).is_err(), "private");
        let snapshot = (journal == Journal::Wal).then(|| db.snapshot().unwrap());
        std::thread::scope(|scope| {
            for _ in 0..3 {
                let write = |_| db.execute(INSERT, ()).map(drop);
                scope.spawn(move || (0..50).try_for_each(write).unwrap());
            }
            scope.spawn(|| (0..50).try_for_each(|_| count(&db).map(drop)).unwrap());
        });
        assert_eq!(count(&db).unwrap(), 150);
        let last = db.clone();
        drop(db);
        assert_eq!(count(&last).unwrap(), 150);
        drop(last);
        assert!(!home.exists(), "{}", home.display());
        if let Some(snapshot) = snapshot {
            // A snapshot needs no name to go on.
            let before: Result<i64> =
                snapshot.query_row("SELECT count(*) FROM t", (), |row| row.get(0));
            assert_eq!(before.unwrap(), 0);
            drop(snapshot);
            assert!(!home.exists());
        }
    }
}
