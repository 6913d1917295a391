//! What a member leaves behind is not there for the next one.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use onepen::{Error, ErrorKind};
use rusqlite::ffi;

use crate::common::{Scene, among_neighbours, fine, refused};

const TABLE: &str = "CREATE TABLE t(n INTEGER PRIMARY KEY); INSERT INTO t VALUES (1);";

#[test]
fn a_forgotten_returning_cursor_does_not_wedge_the_group() {
    among_neighbours(
        TABLE,
        |tx| {
            let mut statement = tx.prepare("INSERT INTO t VALUES (2), (3), (4) RETURNING n")?;
            let mut rows = statement.query(())?;
            let first = rows.next()?.unwrap().get::<_, i64>(0)?;
            std::mem::forget(rows);
            Ok(first)
        },
        |answer, scene| {
            assert_eq!(fine(answer), 2);
            assert_eq!(scene.numbers("SELECT n FROM t"), [1, 2, 3, 4]);
        },
    );
}

#[test]
fn a_forgotten_returning_cursor_of_a_failing_member_is_undone_with_it() {
    among_neighbours(
        TABLE,
        |tx| {
            let mut statement = tx.prepare("INSERT INTO t VALUES (2), (3) RETURNING n")?;
            let mut rows = statement.query(())?;
            rows.next()?.unwrap();
            std::mem::forget(rows);
            std::mem::forget(statement);
            Err::<(), _>(Error::other("on purpose"))
        },
        |answer, scene| {
            assert_eq!(refused(answer).kind(), ErrorKind::Other);
            assert_eq!(scene.numbers("SELECT n FROM t"), [1]);
        },
    );
}

#[test]
fn a_forgotten_select_does_not_pin_the_wal() {
    among_neighbours(
        "CREATE TABLE t(n INTEGER PRIMARY KEY); INSERT INTO t VALUES (1), (2), (3);",
        |tx| {
            let mut statement = tx.prepare("SELECT n FROM t")?;
            let mut rows = statement.query(())?;
            rows.next()?.unwrap();
            std::mem::forget(rows);
            Ok(())
        },
        |answer, scene| {
            fine(answer);
            let (busy, log, copied): (i64, i64, i64) = scene
                .stranger()
                .query_row("PRAGMA wal_checkpoint(RESTART)", (), |row| {
                    Ok((row.get(0)?, row.get(1)?, row.get(2)?))
                })
                .unwrap();
            assert_eq!(busy, 0, "somebody still reads the log");
            assert_eq!(log, copied);
        },
    );
}

#[test]
fn a_forgotten_blob_handle_does_not_wedge_the_group() {
    among_neighbours(
        "CREATE TABLE t(n INTEGER PRIMARY KEY, b BLOB); INSERT INTO t VALUES (1, zeroblob(10));",
        |tx| {
            crate::raw::forget_a_blob(tx.connection());
            tx.execute("INSERT INTO t VALUES (2, NULL)", ())
        },
        |answer, scene| {
            assert_eq!(fine(answer), 1);
            assert_eq!(scene.numbers("SELECT n FROM t"), [1, 2]);
        },
    );
}

/// SQLite refuses to close a connection that has statements.
#[test]
fn a_forgotten_statement_does_not_keep_the_file_open() {
    let scene = Scene::new(TABLE);
    scene
        .db
        .write(|tx| {
            std::mem::forget(tx.prepare("INSERT INTO t VALUES (2) RETURNING n")?);
            let mut select = tx.prepare("SELECT n FROM t")?;
            std::mem::forget(select.query(())?);
            std::mem::forget(select);
            Ok(())
        })
        .unwrap();
    scene.db.close();
    let left: Vec<_> = std::fs::read_dir(scene.dir())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .filter(|name| name.to_string_lossy().ends_with("-wal"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_statement_cached_by_one_member_has_no_parameters_of_it_for_the_next() {
    let scene = Scene::new("CREATE TABLE t(n);");
    let hold = scene.hold();
    let first = scene
        .db
        .submit(|tx| tx.execute("INSERT INTO t VALUES (?1)", (7,)))
        .unwrap();
    let second = scene
        .db
        .submit(|tx| {
            tx.prepare("INSERT INTO t VALUES (?1)")?
                .raw_execute()
                .map_err(Into::into)
        })
        .unwrap();
    scene.wait_for_queue(2);
    hold.release();
    first.wait().unwrap();
    second.wait().unwrap();
    scene.largest_group_was(2);
    assert_eq!(scene.number("SELECT count(*) FROM t WHERE n IS NULL"), 1);
}

#[test]
fn last_insert_rowid_is_not_inherited() {
    among_neighbours(
        TABLE,
        |tx| {
            assert_eq!(tx.last_insert_rowid(), 0);
            tx.execute("INSERT INTO t VALUES (77)", ())?;
            Ok(tx.last_insert_rowid())
        },
        |answer, scene| {
            assert_eq!(fine(answer), 77);
            // Nor from a member that was undone, nor by a write of its own.
            scene
                .db
                .write(|tx| {
                    tx.execute("INSERT INTO t VALUES (78)", ())?;
                    Err::<(), _>(Error::other("on purpose"))
                })
                .unwrap_err();
            assert_eq!(scene.db.write(|tx| Ok(tx.last_insert_rowid())).unwrap(), 0);
            let in_sql = "SELECT last_insert_rowid()";
            let in_sql = scene
                .db
                .write(|tx| tx.query_row(in_sql, (), |row| row.get::<_, i64>(0)));
            assert_eq!(in_sql.unwrap(), 0);
        },
    );
}

#[test]
fn changes_are_not_inherited() {
    among_neighbours(
        TABLE,
        |tx| {
            assert_eq!(tx.changes(), 0);
            tx.execute("INSERT INTO t VALUES (2), (3), (4)", ())?;
            assert_eq!(tx.changes(), 3);
            tx.execute("DELETE FROM t WHERE n = 99", ())?;
            assert_eq!(tx.changes(), 0);
            tx.execute("DELETE FROM t WHERE n > 2", ())?;
            Ok(tx.changes())
        },
        |answer, scene| {
            assert_eq!(fine(answer), 2);
            assert_eq!(scene.db.write(|tx| Ok(tx.changes())).unwrap(), 0);
        },
    );
}

#[test]
fn a_member_that_only_reads_shares_the_group() {
    among_neighbours(
        TABLE,
        |tx| tx.query_row("SELECT n FROM t", (), |row| row.get::<_, i64>(0)),
        |answer, _| assert_eq!(fine(answer), 1),
    );
}

#[test]
fn or_fail_keeps_nothing_when_execute_returns_err() {
    among_neighbours(
        TABLE,
        |tx| tx.execute("INSERT OR FAIL INTO t VALUES (2), (3), (1), (4)", ()),
        |answer, scene| {
            assert_eq!(
                refused(answer).sqlite_code(),
                Some(ffi::SQLITE_CONSTRAINT_PRIMARYKEY)
            );
            assert_eq!(scene.numbers("SELECT n FROM t"), [1]);
        },
    );
}

/// What SQLite keeps of a failed statement is the closure's decision.
#[test]
fn an_ignored_error_keeps_what_sqlite_keeps() {
    among_neighbours(
        TABLE,
        |tx| {
            tx.execute("INSERT OR FAIL INTO t VALUES (2), (3), (1), (4)", ())
                .unwrap_err();
            tx.execute("INSERT INTO t VALUES (5), (1)", ()).unwrap_err();
            tx.execute("INSERT INTO t VALUES (6)", ())
        },
        |answer, scene| {
            assert_eq!(fine(answer), 1);
            assert_eq!(scene.numbers("SELECT n FROM t"), [1, 2, 3, 6]);
        },
    );
}

#[test]
fn raise_fail_in_a_trigger_keeps_nothing_when_execute_returns_err() {
    among_neighbours(
        "CREATE TABLE t(n INTEGER PRIMARY KEY); INSERT INTO t VALUES (1);
         CREATE TRIGGER no_nines BEFORE INSERT ON t WHEN new.n = 9
         BEGIN SELECT RAISE(FAIL, 'no nines'); END;",
        |tx| tx.execute("INSERT INTO t VALUES (8), (9)", ()),
        |answer, scene| {
            assert_eq!(
                refused(answer).sqlite_code(),
                Some(ffi::SQLITE_CONSTRAINT_TRIGGER)
            );
            assert_eq!(scene.numbers("SELECT n FROM t"), [1]);
        },
    );
}

#[test]
fn a_part_that_fails_is_undone_and_the_rest_stays() {
    among_neighbours(
        TABLE,
        |tx| {
            tx.execute("INSERT INTO t VALUES (2)", ())?;
            tx.savepoint(|tx| {
                tx.execute("INSERT INTO t VALUES (3)", ())?;
                tx.savepoint(|tx| tx.execute("INSERT INTO t VALUES (4)", ()))?;
                Err::<(), _>(Error::other("on purpose"))
            })
            .unwrap_err();
            tx.savepoint(|tx| {
                tx.savepoint(|tx| tx.execute("INSERT INTO t VALUES (1)", ()))
                    .unwrap_err();
                tx.execute("INSERT INTO t VALUES (5)", ())
            })
        },
        |answer, scene| {
            assert_eq!(fine(answer), 1);
            assert_eq!(scene.numbers("SELECT n FROM t"), [1, 2, 5]);
        },
    );
}

#[test]
fn a_part_that_panics_and_is_caught_is_undone_and_the_rest_stays() {
    among_neighbours(
        TABLE,
        |tx| {
            tx.execute("INSERT INTO t VALUES (2)", ())?;
            let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                tx.savepoint(|tx| {
                    tx.savepoint(|tx| -> onepen::Result<()> {
                        tx.execute("INSERT INTO t VALUES (3)", ())?;
                        std::panic::resume_unwind(Box::new("part"))
                    })
                })
            }));
            assert_eq!(caught.unwrap_err().downcast_ref::<&str>(), Some(&"part"));
            tx.savepoint(|tx| tx.execute("INSERT INTO t VALUES (4)", ()))
        },
        |answer, scene| {
            assert_eq!(fine(answer), 1);
            assert_eq!(scene.numbers("SELECT n FROM t"), [1, 2, 4]);
        },
    );
}

#[test]
fn a_part_in_which_sqlite_rolled_back_says_its_own_error() {
    among_neighbours(
        TABLE,
        |tx| tx.savepoint(|tx| tx.execute("INSERT OR ROLLBACK INTO t VALUES (1)", ())),
        |answer, scene| {
            assert_eq!(
                refused(answer).sqlite_code(),
                Some(ffi::SQLITE_CONSTRAINT_PRIMARYKEY)
            );
            assert_eq!(scene.numbers("SELECT n FROM t"), [1]);
        },
    );
    among_neighbours(
        TABLE,
        |tx| {
            tx.savepoint(|tx| {
                let _ = tx.execute("INSERT OR ROLLBACK INTO t VALUES (1)", ());
                Ok(())
            })
        },
        |answer, _| assert_eq!(refused(answer).kind(), ErrorKind::TransactionLost),
    );
}

/// `on_connect` is the place for settings: whatever happens, they are there.
#[test]
fn on_connect_ran_on_the_write_connection_once() {
    let runs = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&runs);
    let scene = Scene::with(
        crate::common::options().on_connect(move |connection| {
            counted.fetch_add(1, Ordering::Relaxed);
            connection.pragma_update(None, "recursive_triggers", true)
        }),
        TABLE,
    );
    for _ in 0..3 {
        let on = scene
            .db
            .write(|tx| tx.query_row("PRAGMA recursive_triggers", (), |row| row.get::<_, i64>(0)));
        assert_eq!(on.unwrap(), 1);
    }
    assert_eq!(runs.load(Ordering::Relaxed), 1);
}

/// Virtual tables have statements of their own on the connection, which they
/// finalise themselves.
#[test]
fn closing_over_a_virtual_table_that_was_used_leaves_the_memory_whole() {
    for _ in 0..20 {
        let scene = Scene::new("CREATE VIRTUAL TABLE word USING fts5(it)");
        for _ in 0..3 {
            let insert = "INSERT INTO word VALUES ('one two')";
            scene.db.execute(insert, ()).unwrap();
        }
        let count: i64 = scene
            .db
            .exclusively(|connection| {
                let matching = "SELECT count(*) FROM word WHERE it MATCH 'two'";
                Ok(connection.query_row(matching, (), |row| row.get(0))?)
            })
            .unwrap();
        assert_eq!(count, 3);
        scene.db.execute("DELETE FROM word", ()).unwrap();
        scene.db.close();
    }
}
