//! `exclusively`: what cannot live in a group, and nothing of it stays.

use onepen::{Error, ErrorKind, Outcome, Result};

use crate::common::{Scene, block_on};

const TABLE: &str = "CREATE TABLE t(n INTEGER PRIMARY KEY); INSERT INTO t VALUES (1);";

#[test]
fn vacuum_attach_and_pragmas_are_allowed() {
    let scene = Scene::new(TABLE);
    let copy = scene.dir().join("copy.db");
    scene
        .db
        .exclusively(|connection| {
            connection.execute_batch("VACUUM")?;
            connection.execute("VACUUM INTO ?1", [copy.to_str()])?;
            connection.execute("ATTACH ?1 AS copy", [copy.to_str()])?;
            connection.execute_batch("INSERT INTO copy.t VALUES (2); DETACH copy")?;
            connection.execute_batch("BEGIN; INSERT INTO t VALUES (3); COMMIT")?;
            connection.pragma_update(None, "user_version", 5)?;
            Ok(())
        })
        .unwrap();
    assert_eq!(scene.numbers("SELECT n FROM t"), [1, 3]);
    assert_eq!(scene.number("PRAGMA user_version"), 5);
    let copied = rusqlite::Connection::open(&copy).unwrap();
    let sum: i64 = copied
        .query_row("SELECT sum(n) FROM t", (), |row| row.get(0))
        .unwrap();
    assert_eq!(sum, 3);
}

#[test]
fn settings_are_back_afterwards() {
    let scene = Scene::new(TABLE);
    let read = |pragma: &'static str| {
        let sql = format!("PRAGMA {pragma}");
        scene
            .db
            .write(|tx| tx.query_row(&sql, (), |row| row.get::<_, i64>(0)))
            .unwrap()
    };
    let settings = [
        "foreign_keys",
        "cache_size",
        "recursive_triggers",
        "synchronous",
        "query_only",
    ];
    let before = settings.map(read);
    scene
        .db
        .exclusively(|connection| {
            connection.execute_batch(
                "CREATE TEMP TABLE mine(n); ATTACH ':memory:' AS other; CREATE TABLE other.u(n)",
            )?;
            for setting in settings {
                connection.pragma_update(
                    None,
                    setting,
                    1 - i64::from(setting == "foreign_keys"),
                )?;
            }
            Ok(())
        })
        .unwrap();
    assert_eq!(settings.map(read), before);
    for gone in ["mine", "other.u", "temp.mine"] {
        let sql = format!("SELECT count(*) FROM {gone}");
        scene
            .db
            .write(|tx| tx.query_row(&sql, (), |_| Ok(())))
            .unwrap_err();
    }
    scene.db.execute("INSERT INTO t VALUES (2)", ()).unwrap();
}

#[test]
fn a_transaction_left_open_is_rolled_back_and_reported() {
    let scene = Scene::new(TABLE);
    let leave_open = |connection: &mut rusqlite::Connection| -> Result<()> {
        Ok(connection.execute_batch("BEGIN IMMEDIATE; INSERT INTO t VALUES (2)")?)
    };
    let forget = |connection: &mut rusqlite::Connection| -> Result<()> {
        let transaction = connection.transaction()?;
        transaction.execute("INSERT INTO t VALUES (3)", ())?;
        let mut returning = transaction.prepare("INSERT INTO t VALUES (4), (5) RETURNING n")?;
        let mut rows = returning.query(())?;
        rows.next()?.unwrap();
        std::mem::forget(rows);
        std::mem::forget(returning);
        std::mem::forget(transaction);
        Ok(())
    };
    for error in [
        scene.db.exclusively(leave_open).unwrap_err(),
        scene.db.exclusively(forget).unwrap_err(),
        block_on(scene.db.exclusively_async(leave_open)).unwrap_err(),
        block_on(scene.db.exclusively_async(forget)).unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::TransactionLost, "{error}");
        assert_eq!(error.outcome(), Outcome::NotCommitted, "{error}");
        assert!(error.to_string().contains("open"), "{error}");
        // Its lock is not left either.
        scene
            .stranger()
            .execute_batch("BEGIN IMMEDIATE; ROLLBACK")
            .unwrap();
        scene.db.execute("DELETE FROM t WHERE n > 1", ()).unwrap();
    }
    assert_eq!(scene.numbers("SELECT n FROM t"), [1]);
}

#[test]
fn an_error_of_the_closure_comes_before_the_transaction_it_left_open() {
    let scene = Scene::new(TABLE);
    let fail = |connection: &mut rusqlite::Connection| {
        connection.execute_batch("BEGIN; INSERT INTO t VALUES (2)")?;
        Err::<(), _>(Error::other("mine"))
    };
    assert_eq!(
        scene.db.exclusively(fail).unwrap_err().kind(),
        ErrorKind::Other
    );
    let queued = block_on(scene.db.exclusively_async(fail)).unwrap_err();
    assert_eq!(queued.kind(), ErrorKind::Other);
    assert_eq!(scene.numbers("SELECT n FROM t"), [1]);
}

/// It is lent by `&mut`, so it can be taken away.
#[test]
fn the_lent_connection_may_be_kept_and_another_put_in_its_place() {
    let scene = Scene::new(TABLE);
    let kept = scene
        .db
        .exclusively(|connection| {
            Ok(std::mem::replace(
                connection,
                rusqlite::Connection::open_in_memory()?,
            ))
        })
        .unwrap();
    scene.db.execute("INSERT INTO t VALUES (2)", ()).unwrap();
    kept.execute("INSERT INTO t VALUES (3)", ()).unwrap();
    let beyond: i64 = kept
        .query_row("SELECT count(*) FROM t", (), |row| row.get(0))
        .unwrap();
    assert_eq!(beyond, 3);
    drop(kept);
    scene.db.execute("INSERT INTO t VALUES (4)", ()).unwrap();
    assert_eq!(scene.numbers("SELECT n FROM t"), [1, 2, 3, 4]);
}

#[test]
fn another_journal_mode_does_not_outlast_the_call() {
    let scene = Scene::new(TABLE);
    scene
        .db
        .exclusively(|connection| {
            let mode: String =
                connection.query_row("PRAGMA journal_mode = DELETE", (), |row| row.get(0))?;
            assert_eq!(mode, "delete");
            Ok(())
        })
        .unwrap();
    scene.db.execute("INSERT INTO t VALUES (2)", ()).unwrap();
    let mode: String = scene
        .stranger()
        .query_row("PRAGMA journal_mode", (), |row| row.get(0))
        .unwrap();
    assert_eq!(mode, "wal");
}

#[test]
fn it_has_the_pen_alone_between_the_groups_before_and_after() {
    let scene = Scene::new(TABLE);
    let hold = scene.hold();
    let insert = |n: i64| {
        scene
            .db
            .submit(move |tx| tx.execute("INSERT INTO t VALUES (?1)", (n,)))
            .unwrap()
    };
    let before = [insert(10), insert(11)];
    std::thread::scope(|scope| {
        let alone = scope.spawn(|| {
            scene.db.exclusively(|connection| {
                assert!(connection.is_autocommit());
                Ok(connection.query_row("SELECT max(n) FROM t", (), |row| row.get::<_, i64>(0))?)
            })
        });
        scene.wait_for_queue(3);
        let after = [insert(12), insert(13)];
        hold.release();
        assert_eq!(alone.join().unwrap().unwrap(), 11);
        for write in before.into_iter().chain(after) {
            assert_eq!(write.wait().unwrap(), 1);
        }
    });
    scene.largest_group_was(2);
}

#[test]
fn it_runs_once() {
    let scene = Scene::new(TABLE);
    let mut runs = 0;
    scene
        .db
        .exclusively(|_| {
            runs += 1;
            Err::<(), _>(Error::other("on purpose"))
        })
        .unwrap_err();
    assert_eq!(runs, 1);
}
