//! What a member may not do is refused with the reason, and costs only itself.

use onepen::{ErrorKind, Outcome};
use rusqlite::ffi;

use crate::common::{Scene, among_neighbours, fine, refused};

const TABLE: &str = "CREATE TABLE t(n INTEGER PRIMARY KEY); INSERT INTO t VALUES (1);";

/// `sql` is refused in every form, to whoever passes the error on; and whoever
/// swallows it goes on in the transaction he had.
fn is_refused(sql: &'static str) {
    among_neighbours(
        TABLE,
        move |tx| {
            tx.execute("INSERT INTO t VALUES (2)", ())?;
            tx.execute(sql, ())
        },
        |answer, scene| {
            let error = refused(answer);
            assert_eq!(error.kind(), ErrorKind::NotAllowed, "{sql}");
            assert_eq!(error.outcome(), Outcome::NotCommitted, "{sql}");
            assert_eq!(scene.numbers("SELECT n FROM t"), [1], "{sql}");
        },
    );
    let scene = Scene::new(TABLE);
    scene.make_wary();
    for _ in 0..2 {
        scene
            .db
            .write(|tx| {
                for text in [
                    sql.to_owned(),
                    sql.to_lowercase(),
                    format!("\t\n  {sql} ; "),
                    format!("-- a comment\n/* and another */ {sql}"),
                ] {
                    assert_eq!(
                        tx.execute(&text, ()).unwrap_err().kind(),
                        ErrorKind::NotAllowed
                    );
                    assert_eq!(
                        tx.execute_batch(&format!("DELETE FROM t WHERE n = 0; {text}"))
                            .unwrap_err()
                            .kind(),
                        ErrorKind::NotAllowed
                    );
                    assert_eq!(
                        tx.prepare(&text).map(drop).unwrap_err().kind(),
                        ErrorKind::NotAllowed
                    );
                    assert_eq!(
                        tx.connection()
                            .execute_batch(&text)
                            .unwrap_err()
                            .sqlite_error_code(),
                        Some(ffi::ErrorCode::AuthorizationForStatementDenied)
                    );
                }
                tx.execute("INSERT INTO t SELECT max(n) + 1 FROM t", ())
            })
            .unwrap();
    }
    assert_eq!(scene.numbers("SELECT n FROM t"), [1, 2, 3], "{sql}");
}

#[test]
fn begin_inside_a_member_is_refused() {
    is_refused("BEGIN");
    is_refused("BEGIN IMMEDIATE");
}

#[test]
fn commit_inside_a_member_is_refused() {
    is_refused("COMMIT");
}

#[test]
fn end_inside_a_member_is_refused() {
    is_refused("END TRANSACTION");
}

#[test]
fn rollback_inside_a_member_is_refused() {
    is_refused("ROLLBACK");
}

#[test]
fn savepoint_inside_a_member_is_refused() {
    is_refused("SAVEPOINT mine");
}

#[test]
fn release_of_any_savepoint_inside_a_member_is_refused() {
    is_refused("RELEASE onepen_member");
    is_refused("RELEASE SAVEPOINT other");
}

#[test]
fn rollback_to_any_savepoint_inside_a_member_is_refused() {
    is_refused("ROLLBACK TO onepen_member");
    is_refused("ROLLBACK TRANSACTION TO SAVEPOINT other");
}

#[test]
fn a_savepoint_of_the_library_is_no_way_around_the_refusal() {
    among_neighbours(
        TABLE,
        |tx| {
            tx.savepoint(|tx| tx.execute("INSERT INTO t VALUES (2)", ()))?;
            tx.savepoint(|tx| {
                let release = tx.execute("RELEASE onepen_part_0", ()).unwrap_err();
                assert_eq!(release.kind(), ErrorKind::NotAllowed);
                let back = tx.execute("ROLLBACK TO onepen_part_0", ()).unwrap_err();
                assert_eq!(back.kind(), ErrorKind::NotAllowed);
                Ok(())
            })?;
            let again = tx.execute("SAVEPOINT onepen_part_0", ()).unwrap_err();
            assert_eq!(again.kind(), ErrorKind::NotAllowed);
            Ok(())
        },
        |answer, scene| {
            fine(answer);
            assert_eq!(scene.numbers("SELECT n FROM t"), [1, 2]);
        },
    );
}

#[test]
fn attach_is_refused() {
    is_refused("ATTACH ':memory:' AS other");
    is_refused("DETACH main");
}

#[test]
fn vacuum_is_refused() {
    for sql in ["VACUUM", "VACUUM INTO 'copy.db'"] {
        among_neighbours(
            TABLE,
            move |tx| tx.execute(sql, ()),
            |answer, _| assert!(refused(answer).sqlite().is_some() || sql == "VACUUM"),
        );
    }
    assert!(!std::path::Path::new("copy.db").exists());
}

#[test]
fn temp_table_is_refused() {
    is_refused("CREATE TEMP TABLE mine(n)");
    is_refused("CREATE TABLE temp.mine(n)");
    is_refused("CREATE VIEW temp.mine AS SELECT 1");
    is_refused("CREATE VIRTUAL TABLE temp.mine USING fts5(x)");
    is_refused("CREATE TEMP TABLE mine AS SELECT 1");
}

#[test]
fn temp_view_and_temp_trigger_are_refused() {
    is_refused("CREATE TEMP VIEW mine AS SELECT 1");
    is_refused("CREATE TEMP TRIGGER mine AFTER INSERT ON t BEGIN SELECT 1; END");
}

#[test]
fn defer_foreign_keys_pragma_is_refused() {
    is_refused("PRAGMA defer_foreign_keys = ON");
}

/// Each of these takes effect at once, is not taken back by a rollback, and
/// would be the next member's setting.
#[test]
fn pragmas_that_outlast_a_member_are_refused() {
    for pragma in [
        "analysis_limit = 100",
        "automatic_index = OFF",
        "busy_timeout = 1",
        "cache_size = 10",
        "cache_spill = OFF",
        "case_sensitive_like = ON",
        "cell_size_check = ON",
        "checkpoint_fullfsync = ON",
        "count_changes = ON",
        "foreign_keys = OFF",
        "fullfsync = ON",
        "hard_heap_limit = 1",
        "ignore_check_constraints = ON",
        "journal_mode = DELETE",
        "journal_mode(DELETE)",
        "journal_size_limit = 1",
        "legacy_alter_table = ON",
        "locking_mode = EXCLUSIVE",
        "max_page_count = 1",
        "mmap_size = 1000000",
        "page_size = 512",
        "query_only = ON",
        "main.query_only(1)",
        "read_uncommitted = ON",
        "recursive_triggers = ON",
        "reverse_unordered_selects = ON",
        "schema_version = 7",
        "secure_delete = ON",
        "short_column_names = ON",
        "shrink_memory",
        "soft_heap_limit = 1",
        "synchronous = OFF",
        "temp_store = FILE",
        "threads = 4",
        "trusted_schema = ON",
        "wal_autocheckpoint = 1",
        "wal_checkpoint(TRUNCATE)",
        "writable_schema = ON",
    ] {
        let scene = Scene::new(TABLE);
        let sql = format!("PRAGMA {pragma}");
        let error = scene.db.write(|tx| tx.execute(&sql, ())).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotAllowed, "{sql}");
        let error = scene.db.write(|tx| tx.execute_batch(&sql)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotAllowed, "{sql}");
    }
    is_refused("PRAGMA query_only = ON");
    is_refused("PRAGMA recursive_triggers = ON");
}

#[test]
fn pragmas_that_only_read_are_allowed() {
    let scene = Scene::new(TABLE);
    let read = |sql: &'static str| {
        scene
            .db
            .write(move |tx| {
                tx.prepare(sql)?
                    .query_map((), |_| Ok(()))
                    .and_then(Iterator::collect::<rusqlite::Result<Vec<()>>>)
                    .map_err(Into::into)
            })
            .unwrap_or_else(|error| panic!("{sql}: {error}"))
            .len()
    };
    assert_eq!(read("PRAGMA table_info(t)"), 1);
    assert_eq!(read("SELECT * FROM pragma_table_info('t')"), 1);
    assert_eq!(read("PRAGMA foreign_key_check"), 0);
    assert_eq!(read("PRAGMA integrity_check"), 1);
    assert_eq!(read("PRAGMA page_count"), 1);
    assert_eq!(read("PRAGMA foreign_keys"), 1);
}

#[test]
fn the_user_version_is_undone_with_its_member() {
    among_neighbours(
        TABLE,
        |tx| {
            tx.execute_batch("PRAGMA user_version = 9")?;
            Err::<(), _>(onepen::Error::other("on purpose"))
        },
        |answer, scene| {
            assert_eq!(refused(answer).kind(), ErrorKind::Other);
            assert_eq!(scene.number("PRAGMA user_version"), 0);
        },
    );
    among_neighbours(
        TABLE,
        |tx| tx.execute_batch("PRAGMA user_version = 9"),
        |answer, scene| {
            fine(answer);
            assert_eq!(scene.number("PRAGMA user_version"), 9);
        },
    );
}

/// A reason belongs to the statement it was given for.
#[test]
fn a_swallowed_refusal_does_not_explain_another_failure() {
    let scene = Scene::new(TABLE);
    scene
        .db
        .write(|tx| {
            tx.connection().execute_batch("COMMIT").unwrap_err();
            let error = tx.execute("INSERT INTO t VALUES (1)", ()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Sqlite);
            assert_eq!(error.sqlite_code(), Some(ffi::SQLITE_CONSTRAINT_PRIMARYKEY));
            tx.connection().execute_batch("COMMIT").unwrap_err();
            Ok(())
        })
        .unwrap();
    let error = scene
        .db
        .write(|tx| tx.execute("INSERT INTO t VALUES (1)", ()))
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Sqlite);
}

/// A library that was given the connection may take the guards down; the next
/// member has them again.
#[test]
fn guards_that_a_member_removed_are_back_for_the_next_one() {
    for wary in [false, true] {
        let scene = Scene::new(TABLE);
        if wary {
            scene.make_wary();
        }
        let hold = scene.hold();
        let rude = scene.db.submit(|tx| {
            crate::raw::remove_guards(tx.connection());
            tx.execute("INSERT INTO t VALUES (2)", ())
        });
        let next = scene.db.submit(|tx| {
            tx.execute("INSERT INTO t VALUES (3)", ())?;
            // The authorizer, before the statement runs …
            let commit = tx.execute("COMMIT", ()).unwrap_err();
            assert_eq!(commit.kind(), ErrorKind::NotAllowed);
            Ok(())
        });
        // … and the commit hook, for what no authorizer sees.
        let after = scene.db.submit(|tx| {
            let _ = tx.execute("INSERT OR ROLLBACK INTO t VALUES (1)", ());
            let autocommit = tx.execute("INSERT INTO t VALUES (4)", ()).unwrap_err();
            assert_eq!(
                autocommit.sqlite_code(),
                Some(ffi::SQLITE_CONSTRAINT_COMMITHOOK)
            );
            Err::<(), _>(autocommit)
        });
        scene.wait_for_queue(3);
        hold.release();
        assert_eq!(rude.unwrap().wait().unwrap(), 1);
        next.unwrap().wait().unwrap();
        after.unwrap().wait().unwrap_err();
        assert_eq!(scene.numbers("SELECT n FROM t"), [1, 2, 3]);
        let frames = scene.db.stats().wal_frames;
        scene.db.execute("INSERT INTO t VALUES (5)", ()).unwrap();
        assert!(
            scene.db.stats().wal_frames > frames,
            "the log's hook is back as well"
        );
    }
}
