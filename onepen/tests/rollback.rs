//! Where a write-ahead log is impossible: the same API over a rollback journal,
//! on which nobody can read beside a COMMIT.

mod common;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use common::{Scene, block_on, crash_beside, gate, until};
use onepen::{
    Database, Durability, Error, ErrorKind, Journal, Options, Outcome, Result, WaitedFor,
};

const TABLE: &str = "CREATE TABLE t(n INTEGER);";
const INSERT: &str = "INSERT INTO t VALUES (1)";
const COUNT: &str = "SELECT count(*) FROM t";
const SOON: Duration = Duration::from_millis(30);

fn rollback() -> Options {
    common::options().journal(Journal::Rollback)
}

fn scene() -> Scene {
    Scene::with(rollback(), TABLE)
}

fn count(db: &Database) -> Result<i64> {
    db.query_row(COUNT, (), |row| row.get(0))
}

#[track_caller]
fn late_because_of_readers(error: &Error) {
    assert_eq!(error.kind(), ErrorKind::DeadlineExceeded, "{error}");
    assert_eq!(error.waited().what, WaitedFor::Readers, "{error}");
    assert_eq!(error.outcome(), Outcome::NotCommitted);
    assert!(error.to_string().contains(", held by "), "{error}");
}

/// On a busy machine the deadline may pass before the writer has come to its COMMIT.
#[track_caller]
fn late_but_not_for_the_pen(call: impl Fn() -> Result<usize>) -> Error {
    let mut late = std::iter::repeat_with(|| call().unwrap_err()).take(1_000);
    let late = late.find(|late| late.waited().what != WaitedFor::Pen);
    late.expect("all waited for the pen")
}

#[track_caller]
fn reentrant<T>(answer: Result<T>, says: &str) {
    let error = answer.map(drop).expect_err("must be refused");
    assert_eq!(error.kind(), ErrorKind::Reentrant, "{error}");
    assert!(error.to_string().contains(says), "{error}");
    assert_eq!(error.waited().what, WaitedFor::Nothing, "{error}");
}

#[test]
fn readers_and_writers_of_every_kind_at_once_meet_no_error() {
    const EACH: i64 = 20;
    let scene = Scene::with(rollback().readers(3), TABLE);
    let db = &scene.db;
    let writing = AtomicBool::new(true);
    std::thread::scope(|scope| {
        let writers = [
            scope.spawn(|| (0..EACH).try_for_each(|_| db.execute(INSERT, ()).map(drop))),
            scope.spawn(|| {
                (0..EACH).try_for_each(|_| db.write_once(|tx| tx.execute(INSERT, ())).map(drop))
            }),
            scope.spawn(|| {
                (0..EACH).try_for_each(|_| block_on(db.execute_async(INSERT, ())).map(drop))
            }),
            scope.spawn(|| {
                (0..EACH).try_for_each(|_| db.exclusively(|c| Ok(c.execute(INSERT, ())?)).map(drop))
            }),
            scope.spawn(|| {
                let submitted: Result<Vec<_>> = (0..EACH)
                    .map(|_| db.submit(|tx| tx.execute(INSERT, ())))
                    .collect();
                submitted?
                    .into_iter()
                    .try_for_each(|write| write.wait().map(drop))
            }),
        ];
        let reading = |read: &dyn Fn() -> Result<i64>| {
            let mut last = 0;
            while writing.load(Ordering::SeqCst) {
                let seen = read().unwrap();
                assert!(seen >= last, "went back from {last} to {seen}");
                last = seen;
            }
        };
        scope.spawn(move || reading(&|| count(db)));
        scope.spawn(move || {
            reading(&|| {
                db.read(|tx| {
                    let first = tx.query_row(COUNT, (), |row| row.get::<_, i64>(0))?;
                    let again = tx.query_row(COUNT, (), |row| row.get::<_, i64>(0))?;
                    assert_eq!(first, again);
                    db.read(|tx| tx.query_row(COUNT, (), |row| row.get(0)))
                })
            });
        });
        scope.spawn(move || {
            reading(&|| {
                let snapshot = db.snapshot()?;
                let first = snapshot.query_row(COUNT, (), |row| row.get(0))?;
                let beside = count(db)?;
                assert_eq!(first, beside, "nobody can write beside a snapshot");
                Ok(first)
            });
        });
        scope.spawn(move || {
            reading(&|| {
                let rows = db.stream("SELECT n FROM t", (), |row| row.get::<_, i64>(0))?;
                rows.sum()
            });
        });
        scope.spawn(move || {
            reading(&|| block_on(db.read_async(|tx| tx.query_row(COUNT, (), |row| row.get(0)))));
        });
        let answers = writers.map(|writer| writer.join().unwrap());
        writing.store(false, Ordering::SeqCst);
        answers.into_iter().for_each(Result::unwrap);
    });
    assert_eq!(scene.number(COUNT), 5 * EACH);
}

#[test]
fn reads_that_overlap_for_ever_do_not_keep_a_writer_out() {
    let options = rollback().wal_limit(4096, Duration::from_millis(1));
    let scene = Scene::with(options, TABLE);
    let db = &scene.db;
    let (writing, reads) = (AtomicBool::new(true), std::sync::atomic::AtomicU32::new(0));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while writing.load(Ordering::SeqCst) {
                    let started = reads.load(Ordering::SeqCst);
                    db.read(|tx| {
                        let seen = reads.fetch_add(1, Ordering::SeqCst);
                        // Until another has begun, or is held.
                        let since = std::time::Instant::now();
                        while reads.load(Ordering::SeqCst) == seen + 1
                            && since.elapsed() < Duration::from_millis(20)
                        {
                            std::thread::yield_now();
                        }
                        tx.query_row(COUNT, (), |_| Ok(()))
                    })
                    .unwrap();
                    assert!(reads.load(Ordering::SeqCst) > started);
                }
            });
        }
        until("a read", || reads.load(Ordering::SeqCst) > 2);
        let written = (0..5).try_for_each(|_| db.execute(INSERT, ()).map(drop));
        writing.store(false, Ordering::SeqCst);
        written.unwrap();
    });
}

#[test]
fn a_snapshot_makes_writers_wait_and_then_fail_and_harms_no_later_write() {
    let scene = scene();
    let db = &scene.db;
    for stream in [false, true] {
        let before = count(db).unwrap();
        let snapshot = (!stream).then(|| db.snapshot().unwrap());
        let mut rows = stream.then(|| db.stream("VALUES (1), (2)", (), |_| Ok(())).unwrap());
        if let Some(rows) = &mut rows {
            // The snapshot of a stream is taken with its first row, and this one
            // has more to give than a batch.
            let many = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n, t";
            db.execute(INSERT, ()).unwrap();
            *rows = db.stream(many, (), |_| Ok(())).unwrap();
            assert!(rows.next().is_some());
        }
        let before = if stream { before + 1 } else { before };
        let call = || db.with().deadline(SOON);
        let ways: [&dyn Fn() -> Result<usize>; 6] = [
            &|| call().execute(INSERT, ()),
            &|| call().write_once(|tx| tx.execute(INSERT, ())),
            &|| call().exclusively(|connection| Ok(connection.execute(INSERT, ())?)),
            &|| block_on(call().execute_async(INSERT, ())),
            &|| block_on(call().exclusively_async(|c| Ok(c.execute(INSERT, ())?))),
            &|| call().submit(|tx| tx.execute(INSERT, ()))?.wait(),
        ];
        for way in ways {
            let late = late_but_not_for_the_pen(way);
            late_because_of_readers(&late);
            assert!(late.waited().how_long >= SOON, "{late}");
        }
        // Reading beside it goes on.
        assert_eq!(count(db).unwrap(), before);
        // Two that are patient: the first finds the pen free, the second queues.
        std::thread::scope(|scope| {
            let first = scope.spawn(|| db.execute(INSERT, ()));
            let second = scope.spawn(|| block_on(db.execute_async(INSERT, ())));
            drop((snapshot, rows));
            first.join().unwrap().unwrap();
            second.join().unwrap().unwrap();
        });
        assert_eq!(count(db).unwrap(), before + 2);
    }
}

#[test]
fn whoever_waits_behind_a_write_that_waits_for_readers_is_told_so() {
    let scene = scene();
    let db = &scene.db;
    let snapshot = db.snapshot().unwrap();
    std::thread::scope(|scope| {
        let first = scope.spawn(|| db.execute(INSERT, ()));
        // Until the first has come to its COMMIT, they wait for the pen.
        late_because_of_readers(&late_but_not_for_the_pen(|| {
            let behind = db.with().deadline(SOON);
            behind.submit(|tx| tx.execute(INSERT, ()))?.wait()
        }));
        drop(snapshot);
        first.join().unwrap().unwrap();
    });
    assert_eq!(count(db).unwrap(), 1);
}

#[test]
fn a_cancelled_write_stops_waiting_for_readers() {
    let scene = scene();
    let db = &scene.db;
    let _snapshot = db.snapshot().unwrap();
    let token = onepen::CancelToken::new();
    std::thread::scope(|scope| {
        let write = scope.spawn(|| db.with().cancel_with(&token).execute(INSERT, ()));
        std::thread::yield_now();
        token.cancel();
        let error = write.join().unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Cancelled, "{error}");
    });
}

#[test]
fn a_write_inside_a_read_is_an_error_at_once() {
    let scene = scene();
    let db = &scene.db;
    let says = "inside a read closure";
    let submitted = db
        .read(|_| {
            reentrant(db.execute(INSERT, ()), says);
            reentrant(db.write(|_| Ok(())), says);
            reentrant(db.write_once(|_| Ok(())), says);
            reentrant(db.execute_many(INSERT, [()]), says);
            reentrant(db.exclusively(|_| Ok(())), says);
            reentrant(db.with().key("k").execute(INSERT, ()), says);
            reentrant(db.outcome_of("k"), says);
            reentrant(block_on(db.execute_async(INSERT, ())), says);
            reentrant(block_on(db.write_once_async(|_| Ok(()))), says);
            reentrant(block_on(db.exclusively_async(|_| Ok(()))), says);
            reentrant(db.submit(|_| Ok(()))?.wait(), says);
            reentrant(block_on(db.submit(|_| Ok(()))?), says);
            // A read in it is no way round.
            db.read(|_| {
                reentrant(db.execute(INSERT, ()), says);
                Ok(())
            })?;
            db.submit(|tx| tx.execute(INSERT, ()))
        })
        .unwrap();
    assert_eq!(submitted.wait().unwrap(), 1, "it runs after the read");
    // On a reading thread too.
    let handle = db.clone();
    block_on(db.read_async(move |_| {
        reentrant(handle.execute(INSERT, ()), says);
        Ok(())
    }))
    .unwrap();
    // Another database is no concern of it.
    let other = self::scene();
    db.read(|_| other.db.execute(INSERT, ())).unwrap();
    assert_eq!((count(db).unwrap(), count(&other.db).unwrap()), (1, 1));
}

#[test]
fn submitting_inside_a_read_does_not_wait_for_space_in_the_queue() {
    let options = rollback().queue(1, usize::MAX, onepen::WhenFull::Wait);
    let scene = Scene::with(options, TABLE);
    let db = &scene.db;
    let submitted = db
        .read(|_| {
            (0..4)
                .map(|_| db.submit(|tx| tx.execute(INSERT, ())))
                .collect::<Result<Vec<_>>>()
        })
        .unwrap();
    for write in submitted {
        write.wait().unwrap();
    }
    assert_eq!(count(db).unwrap(), 4);
}

#[test]
fn a_read_inside_a_write_works_and_what_would_wait_for_itself_is_an_error() {
    let scene = scene();
    let reads = |db: &Database| {
        assert_eq!(count(db).unwrap(), 0);
        let closure = db.read(|tx| tx.query_row(COUNT, (), |row| row.get::<_, i64>(0)));
        assert_eq!(closure.unwrap(), 0);
        let says = "write closure";
        reentrant(db.snapshot(), says);
        reentrant(db.read(|_| db.snapshot().map(drop)), says);
        reentrant(block_on(db.read_async(|_| Ok(()))), says);
        let mut rows = db.stream(COUNT, (), |_| Ok(())).unwrap();
        reentrant(rows.next().unwrap(), says);
        let mut rows = db.stream(COUNT, (), |_| Ok(())).unwrap();
        let first = std::future::poll_fn(|cx| {
            futures_core::Stream::poll_next(std::pin::Pin::new(&mut rows), cx)
        });
        reentrant(block_on(first).unwrap(), says);
    };
    let db = &scene.db;
    db.write(|tx| {
        tx.execute(INSERT, ())?;
        reads(db);
        tx.execute("DELETE FROM t", ())
    })
    .unwrap();
    let handle = db.clone();
    block_on(db.write_async(move |_| {
        reads(&handle);
        Ok(())
    }))
    .unwrap();
    db.exclusively(|_| {
        reads(db);
        Ok(())
    })
    .unwrap();
    assert_eq!(db.stats().readers_in_use, 0);
}

#[test]
fn a_read_inside_a_write_that_outgrew_its_cache_is_an_error_at_once() {
    let scene = Scene::with(rollback().page_cache(16 << 10), TABLE);
    let db = &scene.db;
    db.write(|tx| {
        let fill = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000)
                    INSERT INTO t SELECT i FROM n";
        tx.execute(fill, ())?;
        reentrant(count(db), "page cache");
        reentrant(db.read(|_| Ok(())), "page cache");
        Ok(())
    })
    .unwrap();
    assert_eq!(count(db).unwrap(), 20_000);
}

#[test]
fn a_stranger_who_reads_makes_a_commit_wait_and_then_fail_honestly() {
    let scene = scene();
    let db = &scene.db;
    let stranger = scene.stranger();
    stranger
        .execute_batch("BEGIN; SELECT count(*) FROM t")
        .unwrap();
    let call = || db.with().deadline(SOON);
    for late in [
        call().execute(INSERT, ()),
        block_on(call().execute_async(INSERT, ())),
    ] {
        late_because_of_readers(&late.unwrap_err());
    }
    // Nothing of it is left in the way of the others.
    assert_eq!(count(db).unwrap(), 0);
    let (arrive, at_commit) = gate();
    std::thread::scope(|scope| {
        let write = scope.spawn(move || {
            db.write_once(move |tx| {
                let inserted = tx.execute(INSERT, ());
                arrive.stop();
                inserted
            })
        });
        at_commit.wait_for_arrival();
        at_commit.open();
        stranger.execute_batch("COMMIT").unwrap();
        write.join().unwrap().unwrap();
    });
    assert_eq!(count(db).unwrap(), 1);
}

#[test]
fn a_stranger_who_writes_is_waited_for_by_readers_and_writers() {
    let scene = scene();
    let db = &scene.db;
    let stranger = scene.stranger();
    stranger
        .execute_batch("BEGIN EXCLUSIVE; INSERT INTO t VALUES (1)")
        .unwrap();
    let call = || db.with().deadline(SOON);
    let late = [
        call().execute(INSERT, ()).map(drop),
        block_on(call().execute_async(INSERT, ())).map(drop),
        call().query_row(COUNT, (), |_| Ok(())),
        call().read(|_| Ok(())),
        call().snapshot().map(drop),
        block_on(call().read_async(|_| Ok(()))),
    ];
    for late in late {
        let late = late.unwrap_err();
        assert_eq!(late.kind(), ErrorKind::DeadlineExceeded, "{late}");
        assert_eq!(late.waited().what, WaitedFor::WriteLock, "{late}");
    }
    std::thread::scope(|scope| {
        let write = scope.spawn(|| db.execute(INSERT, ()));
        let alone = scope.spawn(|| db.exclusively(|c| Ok(c.execute(INSERT, ())?)));
        let read = scope.spawn(|| count(db));
        stranger.execute_batch("COMMIT").unwrap();
        write.join().unwrap().unwrap();
        alone.join().unwrap().unwrap();
        assert!(read.join().unwrap().unwrap() >= 1);
    });
    assert_eq!(count(db).unwrap(), 3);
}

#[test]
fn the_crash_of_a_stranger_is_cleaned_up_by_whoever_comes_first() {
    type Use = fn(&Database) -> Result<i64>;
    let uses: [Use; 6] = [
        count,
        |db| db.read(|tx| tx.query_row(COUNT, (), |row| row.get(0))),
        |db| db.snapshot()?.query_row(COUNT, (), |row| row.get(0)),
        |db| block_on(db.read_async(|tx| tx.query_row(COUNT, (), |row| row.get(0)))),
        |db| db.write(|tx| tx.query_row(COUNT, (), |row| row.get(0))),
        |db| db.exclusively(|c| Ok(c.query_row(COUNT, (), |row| row.get(0))?)),
    ];
    for warm in [false, true] {
        for first in uses {
            let scene = scene();
            scene.db.execute(INSERT, ()).unwrap();
            if warm {
                assert_eq!(count(&scene.db).unwrap(), 1);
                drop(scene.db.snapshot().unwrap());
            }
            crash_beside(&scene.path());
            assert_eq!(first(&scene.db).unwrap(), 1);
            assert_eq!(scene.number("SELECT n FROM t"), 1);
        }
    }
}

#[test]
fn each_durability_has_the_journal_and_the_flushes_that_it_needs() {
    for (durability, journal, synchronous) in [
        (Durability::Normal, "truncate", 2),
        (Durability::Full, "truncate", 2),
        (Durability::Extra, "delete", 3),
    ] {
        let scene = Scene::with(rollback().durability(durability), TABLE);
        let db = &scene.db;
        let ask = |c: &rusqlite::Connection| -> rusqlite::Result<(String, i64)> {
            Ok((
                c.pragma_query_value(None, "journal_mode", |row| row.get(0))?,
                c.pragma_query_value(None, "synchronous", |row| row.get(0))?,
            ))
        };
        let expected = (journal.to_owned(), synchronous);
        let of_pen = db.write(|tx| {
            Ok((
                tx.query_row("PRAGMA journal_mode", (), |row| row.get(0))?,
                tx.query_row("PRAGMA synchronous", (), |row| row.get(0))?,
            ))
        });
        assert_eq!(of_pen.unwrap(), expected, "{durability:?}");
        assert_eq!(db.exclusively(|c| Ok(ask(c)?)).unwrap(), expected);
        // And again: the one that comes after an exclusive call.
        let of_pen: i64 = db
            .write(|tx| tx.query_row("PRAGMA synchronous", (), |row| row.get(0)))
            .unwrap();
        assert_eq!(of_pen, synchronous);
        assert!(!scene.dir().join("scene.db-wal").exists());
        let left = scene.dir().join("scene.db-journal").metadata();
        match journal {
            "delete" => assert!(left.is_err()),
            _ => assert_eq!(left.unwrap().len(), 0),
        }
    }
}

#[test]
fn a_file_changes_its_journal_when_it_is_opened_alone_and_only_then() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.db");
    let wal = || common::options().wait(Duration::from_millis(100));
    let truncate = || wal().journal(Journal::Rollback);
    let db = wal().open(&path).unwrap();
    db.write(|tx| tx.execute_batch(TABLE)).unwrap();
    let differs = truncate().open(&path).unwrap_err();
    assert_eq!(differs.kind(), ErrorKind::SettingsDiffer);
    assert!(differs.to_string().contains("journal;"), "{differs}");
    drop(db);

    let stranger = rusqlite::Connection::open(&path).unwrap();
    stranger.query_row(COUNT, (), |_| Ok(())).unwrap();
    let refused = truncate().open(&path).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::DeadlineExceeded, "{refused}");
    assert!(
        refused.to_string().contains("while nobody else has"),
        "{refused}"
    );
    drop(stranger);

    let mode = |path: &std::path::Path| -> String {
        let stranger = rusqlite::Connection::open(path).unwrap();
        stranger
            .pragma_query_value(None, "journal_mode", |row| row.get(0))
            .unwrap()
    };
    let db = truncate().open(&path).unwrap();
    db.execute(INSERT, ()).unwrap();
    assert_eq!(mode(&path), "delete");
    assert!(!dir.path().join("a.db-wal").exists());

    // In the other direction a reader is enough to be in the way.
    let snapshot = db.snapshot().unwrap();
    drop(db);
    let refused = wal().open(&path).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::DeadlineExceeded, "{refused}");
    drop(snapshot);
    let db = wal().open(&path).unwrap();
    db.execute(INSERT, ()).unwrap();
    assert_eq!(mode(&path), "wal");
    assert_eq!(count(&db).unwrap(), 2);
}

#[test]
fn an_exclusive_call_waits_for_readers_and_they_for_it() {
    let scene = scene();
    let db = &scene.db;
    let (reader, reading) = gate();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            db.read(|tx| {
                reader.stop();
                tx.query_row(COUNT, (), |_| Ok(()))
            })
            .unwrap();
        });
        reading.wait_for_arrival();
        let late = db.with().deadline(SOON).exclusively(|_| Ok(()));
        late_because_of_readers(&late.unwrap_err());
        let (vacuum, vacuuming) = gate();
        let alone = scope.spawn(move || {
            db.exclusively(|connection| {
                connection.execute_batch(INSERT)?;
                vacuum.stop();
                Ok(connection.execute_batch("VACUUM")?)
            })
        });
        reading.open();
        vacuuming.wait_for_arrival();
        let read = scope.spawn(|| count(db));
        vacuuming.open();
        alone.join().unwrap().unwrap();
        assert_eq!(read.join().unwrap().unwrap(), 1);
    });
}

#[test]
fn close_inside_a_read_does_not_wait_for_writes_that_wait_for_the_read() {
    let scene = scene();
    let db = &scene.db;
    let submitted = db
        .read(|_| {
            let submitted = db.submit(|tx| tx.execute(INSERT, ()))?;
            db.close();
            Ok(submitted)
        })
        .unwrap();
    assert_eq!(submitted.wait().unwrap(), 1, "submitted before the close");
    assert_eq!(count(db).unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(scene.number(COUNT), 1);
}

#[test]
fn a_panic_on_either_side_leaves_nobody_waiting() {
    let scene = scene();
    let db = &scene.db;
    let quietly = |run: &dyn Fn()| {
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).unwrap_err();
    };
    quietly(&|| drop(db.read(|_| -> Result<()> { std::panic::resume_unwind(Box::new(())) })));
    quietly(&|| drop(db.write(|_| -> Result<()> { std::panic::resume_unwind(Box::new(())) })));
    quietly(&|| {
        drop(db.exclusively(|_| -> Result<()> { std::panic::resume_unwind(Box::new(())) }))
    });
    quietly(&|| {
        drop(block_on(db.write_async(|_| -> Result<()> {
            std::panic::resume_unwind(Box::new(()))
        })));
    });
    db.execute(INSERT, ()).unwrap();
    let elsewhere = std::thread::scope(|scope| scope.spawn(|| count(db)).join().unwrap());
    assert_eq!(elsewhere.unwrap(), 1);
    block_on(db.execute_async(INSERT, ())).unwrap();
    assert_eq!(count(db).unwrap(), 2);
}
