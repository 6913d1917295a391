//! SQLite ends the transaction under a member: the others are run again and
//! commit, and the member gets its own error.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use onepen::{ErrorKind, Outcome, Result, WriteTx};
use rusqlite::ffi;

use crate::common::{Scene, among_neighbours, among_neighbours_with, fine, quick, refused};
use crate::raw::{Progress, with_progress};

const TABLE: &str = "CREATE TABLE t(n INTEGER PRIMARY KEY); INSERT INTO t VALUES (1);";
const MANY: &str = "INSERT INTO t WITH RECURSIVE c(n) AS \
    (SELECT 2 UNION ALL SELECT n + 1 FROM c LIMIT 100000) SELECT n FROM c";
const LONG_SELECT: &str = "WITH RECURSIVE c(n) AS \
    (SELECT 1 UNION ALL SELECT n + 1 FROM c LIMIT 1000000) SELECT sum(n) FROM c";

#[test]
fn interrupt_of_a_writing_member_re_runs_its_neighbours() {
    among_neighbours(
        TABLE,
        |tx| {
            with_progress(tx.connection(), Progress::Interrupt, |_| {
                tx.execute(MANY, ())
            })
        },
        |answer, scene| {
            let error = refused(answer);
            assert_eq!(error.sqlite_code(), Some(ffi::SQLITE_INTERRUPT));
            assert_eq!(error.outcome(), Outcome::NotCommitted);
            assert_eq!(scene.numbers("SELECT n FROM t"), [1]);
        },
    );
}

#[test]
fn a_progress_handler_that_stops_a_writing_member_stops_nobody_else() {
    among_neighbours(
        TABLE,
        |tx| with_progress(tx.connection(), Progress::Stop, |_| tx.execute(MANY, ())),
        |answer, scene| {
            assert_eq!(refused(answer).sqlite_code(), Some(ffi::SQLITE_INTERRUPT));
            assert_eq!(scene.numbers("SELECT n FROM t"), [1]);
        },
    );
}

#[test]
fn an_interrupted_select_costs_its_member_only_the_select() {
    among_neighbours(
        TABLE,
        |tx| {
            tx.execute("INSERT INTO t VALUES (2)", ())?;
            let interrupted = with_progress(tx.connection(), Progress::Interrupt, |_| {
                tx.query_row(LONG_SELECT, (), |row| row.get::<_, i64>(0))
            });
            assert_eq!(
                interrupted.unwrap_err().sqlite_code(),
                Some(ffi::SQLITE_INTERRUPT)
            );
            tx.execute("INSERT INTO t VALUES (3)", ())
        },
        |answer, scene| {
            assert_eq!(fine(answer), 1);
            assert_eq!(scene.numbers("SELECT n FROM t"), [1, 2, 3]);
        },
    );
}

#[test]
fn or_rollback_undoes_only_its_own_member() {
    among_neighbours(
        TABLE,
        |tx| {
            tx.execute("INSERT INTO t VALUES (2)", ())?;
            tx.execute("INSERT OR ROLLBACK INTO t VALUES (1)", ())
        },
        |answer, scene| {
            let error = refused(answer);
            assert_eq!(error.kind(), ErrorKind::Sqlite);
            assert_eq!(error.sqlite_code(), Some(ffi::SQLITE_CONSTRAINT_PRIMARYKEY));
            assert_eq!(scene.numbers("SELECT n FROM t"), [1]);
        },
    );
}

#[test]
fn on_conflict_rollback_in_the_schema_undoes_only_its_own_member() {
    among_neighbours(
        "CREATE TABLE t(n INTEGER UNIQUE ON CONFLICT ROLLBACK); INSERT INTO t VALUES (1);",
        |tx| tx.execute("INSERT INTO t VALUES (2), (1)", ()),
        |answer, scene| {
            assert_eq!(
                refused(answer).sqlite_code(),
                Some(ffi::SQLITE_CONSTRAINT_UNIQUE)
            );
            assert_eq!(scene.numbers("SELECT n FROM t"), [1]);
        },
    );
}

#[test]
fn raise_rollback_in_a_trigger_undoes_only_its_own_member() {
    among_neighbours(
        "CREATE TABLE t(n INTEGER PRIMARY KEY); INSERT INTO t VALUES (1);
         CREATE TRIGGER no_nines BEFORE INSERT ON t WHEN new.n = 9
         BEGIN SELECT RAISE(ROLLBACK, 'no nines'); END;",
        |tx| {
            tx.execute("INSERT INTO t VALUES (2)", ())?;
            tx.execute("INSERT INTO t VALUES (9)", ())
        },
        |answer, scene| {
            let error = refused(answer);
            assert_eq!(error.sqlite_code(), Some(ffi::SQLITE_CONSTRAINT_TRIGGER));
            assert!(error.to_string().contains("no nines"), "{error}");
            assert_eq!(scene.numbers("SELECT n FROM t"), [1]);
        },
    );
}

/// Loses its transaction, says nothing about it, and goes on writing.
fn swallow_the_rollback(tx: &WriteTx<'_>) -> Result<()> {
    let _ = tx.execute("INSERT OR ROLLBACK INTO t VALUES (1)", ());
    let _ = tx.execute("INSERT INTO t VALUES (7)", ());
    let _ = tx.execute_batch("CREATE TABLE stowaway(n); INSERT INTO t VALUES (8)");
    let _ = tx.savepoint(|tx| tx.execute("INSERT INTO t VALUES (9)", ()));
    Ok(())
}

#[test]
fn a_member_that_swallows_an_automatic_rollback_cannot_write_in_autocommit() {
    among_neighbours(TABLE, swallow_the_rollback, |answer, scene| {
        let error = refused(answer);
        assert_eq!(error.kind(), ErrorKind::TransactionLost);
        assert_eq!(error.outcome(), Outcome::NotCommitted);
        assert_eq!(scene.numbers("SELECT n FROM t"), [1]);
        assert_eq!(
            scene.number("SELECT count(*) FROM sqlite_schema WHERE name = 'stowaway'"),
            0
        );
    });
}

/// A savepoint in autocommit mode would begin a transaction that looks like the
/// one that was lost.
#[test]
fn a_member_that_swallows_an_automatic_rollback_cannot_begin_again_with_a_savepoint() {
    among_neighbours(
        TABLE,
        |tx| {
            // Its text is known to the connection from here on.
            tx.savepoint(|tx| tx.execute("INSERT INTO t VALUES (2)", ()))?;
            let _ = tx.execute("INSERT OR ROLLBACK INTO t VALUES (1)", ());
            let _ = tx.execute("SAVEPOINT onepen_part_0", ());
            let _ = tx.execute("INSERT INTO t VALUES (7)", ());
            Ok(())
        },
        |answer, scene| {
            assert_eq!(refused(answer).kind(), ErrorKind::TransactionLost);
            assert_eq!(scene.numbers("SELECT n FROM t"), [1]);
        },
    );
}

#[test]
fn a_lone_write_that_swallows_an_automatic_rollback_is_told_so() {
    let scene = crate::common::Scene::new(TABLE);
    for _ in 0..2 {
        let error = scene.db.write(swallow_the_rollback).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TransactionLost);
        let error = scene.db.write_once(swallow_the_rollback).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TransactionLost);
    }
    assert_eq!(scene.numbers("SELECT n FROM t"), [1]);
}

fn sixteen_pages_more() -> onepen::Options {
    quick()
        .on_connect(|connection| connection.query_row("PRAGMA max_page_count = 16", (), |_| Ok(())))
}

/// One row: SQLite ends the whole transaction.
#[test]
fn a_full_database_fails_its_member_only() {
    among_neighbours_with(
        sixteen_pages_more,
        "CREATE TABLE t(b BLOB);",
        |tx| tx.execute("INSERT INTO t VALUES (zeroblob(100000))", ()),
        |answer, scene| {
            assert_eq!(refused(answer).sqlite_code(), Some(ffi::SQLITE_FULL));
            assert_eq!(scene.number("SELECT count(*) FROM t"), 0);
        },
    );
}

/// Several rows: SQLite undoes the statement and the transaction goes on.
#[test]
fn a_full_database_fails_its_member_only_also_when_many_rows_filled_it() {
    among_neighbours_with(
        sixteen_pages_more,
        "CREATE TABLE t(b BLOB UNIQUE);",
        |tx| {
            tx.execute(
                "INSERT INTO t WITH RECURSIVE c(n) AS \
                 (SELECT 1 UNION ALL SELECT n + 1 FROM c LIMIT 100) SELECT randomblob(4000) FROM c",
                (),
            )
        },
        |answer, scene| {
            assert_eq!(refused(answer).sqlite_code(), Some(ffi::SQLITE_FULL));
            assert_eq!(scene.number("SELECT count(*) FROM t"), 0);
        },
    );
}

#[test]
fn a_deferred_foreign_key_violation_fails_only_its_member() {
    among_neighbours(
        "CREATE TABLE parent(id INTEGER PRIMARY KEY);
         CREATE TABLE t(n INTEGER REFERENCES parent(id) DEFERRABLE INITIALLY DEFERRED);",
        |tx| tx.execute("INSERT INTO t VALUES (5)", ()),
        |answer, scene| {
            let error = refused(answer);
            assert_eq!(error.kind(), ErrorKind::Sqlite);
            assert_eq!(error.sqlite_code(), Some(ffi::SQLITE_CONSTRAINT_FOREIGNKEY));
            assert_eq!(error.outcome(), Outcome::NotCommitted);
            assert_eq!(scene.number("SELECT count(*) FROM t"), 0);
        },
    );
}

#[test]
fn a_deferred_foreign_key_debt_paid_by_its_member_is_no_debt() {
    among_neighbours(
        "CREATE TABLE parent(id INTEGER PRIMARY KEY);
         CREATE TABLE t(n INTEGER REFERENCES parent(id) DEFERRABLE INITIALLY DEFERRED);",
        |tx| {
            tx.execute("INSERT INTO t VALUES (5)", ())?;
            tx.execute("INSERT INTO parent VALUES (5)", ())
        },
        |answer, scene| {
            assert_eq!(fine(answer), 1);
            assert_eq!(scene.numbers("SELECT n FROM t"), [5]);
        },
    );
}

/// It is found before the COMMIT, so only those before it may run twice.
#[test]
fn a_deferred_foreign_key_violation_re_runs_nobody_behind_it() {
    for (wary, expected) in [(false, [2, 1]), (true, [1, 1])] {
        let scene = crate::common::Scene::with(
            quick(),
            "CREATE TABLE parent(id INTEGER PRIMARY KEY);
             CREATE TABLE t(n INTEGER REFERENCES parent(id) DEFERRABLE INITIALLY DEFERRED);",
        );
        if wary {
            scene.make_wary();
        }
        let hold = scene.hold();
        let runs = [0, 1].map(|_| Arc::new(AtomicU32::new(0)));
        let count = |n: usize| {
            let runs = Arc::clone(&runs[n]);
            scene
                .db
                .submit(move |_| Ok(runs.fetch_add(1, Ordering::SeqCst)))
                .unwrap()
        };
        let before = count(0);
        let orphan = scene
            .db
            .submit(|tx| tx.execute("INSERT INTO t VALUES (5)", ()))
            .unwrap();
        let behind = count(1);
        scene.wait_for_queue(3);
        hold.release();
        orphan.wait().unwrap_err();
        before.wait().unwrap();
        behind.wait().unwrap();
        assert_eq!(runs.map(|runs| runs.load(Ordering::SeqCst)), expected);
    }
}

/// None can tell that it was grouped: the error is of the same kind.
#[test]
fn a_deferred_foreign_key_violation_looks_the_same_alone_and_in_a_group() {
    let scene = crate::common::Scene::new(
        "CREATE TABLE parent(id INTEGER PRIMARY KEY);
         CREATE TABLE t(n INTEGER REFERENCES parent(id) DEFERRABLE INITIALLY DEFERRED);",
    );
    let insert = |tx: &WriteTx<'_>| tx.execute("INSERT INTO t VALUES (5)", ());
    for alone in [scene.db.write(insert), scene.db.write_once(insert)] {
        let alone = alone.unwrap_err();
        assert_eq!(alone.kind(), ErrorKind::Sqlite);
        assert_eq!(alone.sqlite_code(), Some(ffi::SQLITE_CONSTRAINT_FOREIGNKEY));
    }
    let hold = scene.hold();
    let queued = std::thread::scope(|scope| {
        let queued = scope.spawn(|| scene.db.write_once(insert));
        scene.wait_for_queue(1);
        hold.release();
        queued.join().unwrap()
    });
    let queued = queued.unwrap_err();
    assert_eq!(queued.kind(), ErrorKind::Sqlite);
    assert_eq!(
        queued.sqlite_code(),
        Some(ffi::SQLITE_CONSTRAINT_FOREIGNKEY)
    );
}

#[test]
fn corruption_met_by_one_member_is_not_its_neighbours_failure() {
    crate::common::Trial {
        options: quick(),
        prepare: |path| {
            let connection = rusqlite::Connection::open(path).unwrap();
            connection
                .execute_batch(
                    "CREATE TABLE t(b BLOB);
                     INSERT INTO t WITH RECURSIVE c(n) AS
                     (SELECT 1 UNION ALL SELECT n + 1 FROM c LIMIT 64) SELECT zeroblob(4000) FROM c;",
                )
                .unwrap();
            let page: u32 = connection
                .query_row("SELECT rootpage FROM sqlite_schema WHERE name = 't'", (), |row| row.get(0))
                .unwrap();
            connection.close().unwrap();
            let mut bytes = std::fs::read(path).unwrap();
            bytes[(page as usize - 1) * 4096..][..4096].fill(0xee);
            std::fs::write(path, bytes).unwrap();
        },
        schema: "",
    }
    .run(
        |tx| {
            tx.execute("INSERT INTO neighbours VALUES (50, 100)", ())?;
            tx.query_row("SELECT count(*) FROM t", (), |row| row.get::<_, i64>(0))
        },
        |answer, _| {
            let error = refused(answer);
            assert_eq!(error.sqlite_code().map(|code| code & 0xff), Some(ffi::SQLITE_CORRUPT));
            assert_eq!(error.outcome(), Outcome::NotCommitted);
        },
    );
}

/// After the rollback the closure runs on outside of any transaction, and a
/// stranger may have the lock by then: that is not what went wrong.
#[test]
fn a_closure_that_runs_on_after_a_rollback_is_not_told_of_a_lock() {
    let scene = Scene::new("CREATE TABLE t(n INTEGER PRIMARY KEY); INSERT INTO t VALUES (1);");
    for locked in [true, false] {
        let path = scene.path();
        let answer = scene.db.write(move |tx| {
            let _ = tx.execute("INSERT OR ROLLBACK INTO t VALUES (1)", ());
            let stranger = rusqlite::Connection::open(&path)?;
            if locked {
                stranger.execute_batch("BEGIN IMMEDIATE")?;
            }
            tx.execute("INSERT INTO t VALUES (2)", ())
        });
        let error = answer.unwrap_err();
        assert_eq!(
            error.kind(),
            ErrorKind::TransactionLost,
            "{locked}: {error}"
        );
        assert_eq!(error.outcome(), Outcome::NotCommitted);
    }
    assert_eq!(scene.numbers("SELECT n FROM t"), [1]);
}
