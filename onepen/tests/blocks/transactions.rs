use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;
use std::time::Duration;

use onepen::blocks::{Class, Exclusive, Holds, Immediate, Savepoint, Transaction, Transactions};
use onepen::{Error, ErrorKind, Outcome};
use rusqlite::Connection;

use crate::{Home, number};

type Writing<'c> = Transaction<'c, Immediate>;

fn insert(tx: &Writing<'_>, n: i64) -> onepen::Result<usize> {
    tx.execute("INSERT INTO t VALUES (?1)", (n,))
}

#[test]
fn the_state_of_a_connection_is_said_and_not_guessed() {
    let home = Home::new();
    let mut connection = home.connect();
    let state = connection.state();
    assert!(state.autocommit);
    assert_eq!(state.holds, Holds::Nothing);
    connection
        .deferred(|tx| {
            assert!(!tx.connection().state().autocommit);
            assert_eq!(tx.connection().state().holds, Holds::Nothing);
            tx.query_map("SELECT n FROM t", (), |_| Ok(()))?;
            assert_eq!(tx.connection().state().holds, Holds::Snapshot);
            Ok(())
        })
        .unwrap();
    connection
        .immediate(|tx| {
            assert_eq!(tx.connection().state().holds, Holds::WriteLock);
            Ok(())
        })
        .unwrap();
    let state = connection.state();
    assert!(state.autocommit);
    assert_eq!(state.holds, Holds::Nothing);
}

#[test]
fn a_closure_that_succeeds_is_committed_and_any_other_leaves_nothing() {
    let home = Home::new();
    let mut connection = home.connect();
    connection.immediate(|tx| insert(tx, 1)).unwrap();
    assert_eq!(home.count(), 1);

    let refused = connection.immediate(|tx| {
        insert(tx, 2)?;
        Err::<(), _>(Error::other("changed my mind"))
    });
    assert_eq!(refused.unwrap_err().to_string(), "changed my mind");
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        connection.immediate(|tx| -> onepen::Result<()> {
            insert(tx, 3)?;
            panic!("on purpose")
        })
    }));
    assert!(panicked.is_err());
    assert!(connection.state().autocommit);
    assert_eq!(home.count(), 1);
}

#[test]
fn a_guard_that_is_dropped_is_rolled_back() {
    let home = Home::new();
    let mut connection = home.connect();
    let tx = connection.begin::<Immediate>().unwrap();
    insert(&tx, 1).unwrap();
    drop(tx);
    let tx = connection.begin::<Immediate>().unwrap();
    insert(&tx, 2).unwrap();
    tx.rollback().unwrap();
    let tx = connection.begin::<Immediate>().unwrap();
    insert(&tx, 3).unwrap();
    tx.commit().unwrap();
    assert_eq!(number(&connection, "SELECT sum(n) FROM t"), 3);
}

#[test]
fn a_deferred_transaction_refuses_sql_that_writes() {
    let home = Home::new();
    let mut connection = home.connect();
    let refused = connection.deferred(|tx| {
        tx.query_row("INSERT INTO t VALUES (1) RETURNING n", (), |row| {
            row.get::<_, i64>(0)
        })
    });
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::NotAllowed);
    let refused = connection.deferred(|tx| tx.prepare("DELETE FROM t").map(drop));
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::NotAllowed);
    assert_eq!(home.count(), 0);
}

#[test]
fn no_read_modify_write_is_lost_between_threads() {
    const THREADS: i64 = 4;
    const EACH: i64 = 50;
    let home = Home::with(
        "PRAGMA journal_mode = wal; CREATE TABLE t(id INTEGER PRIMARY KEY, n); INSERT INTO t VALUES (1, 0)",
    );
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                let mut connection = home.connect();
                connection.busy_timeout(Duration::from_secs(60)).unwrap();
                for _ in 0..EACH {
                    let written = connection.immediate(|tx| {
                        tx.modify(
                            "SELECT n FROM t WHERE id = ?1",
                            "UPDATE t SET n = ?2 WHERE id = ?1",
                            1,
                            |n: i64| n + 1,
                        )
                    });
                    assert_eq!(written.unwrap(), 1);
                }
            });
        }
    });
    assert_eq!(number(&home.connect(), "SELECT n FROM t"), THREADS * EACH);
}

#[test]
fn an_exclusive_transaction_keeps_readers_out_over_a_rollback_journal() {
    let home = Home::with("CREATE TABLE t(n)");
    let mut connection = home.connect();
    let reads = |home: &Home| home.connect().query_row("SELECT 1 FROM t", (), |_| Ok(()));
    let none = Err(rusqlite::Error::QueryReturnedNoRows);
    connection
        .immediate(|_| {
            assert_eq!(reads(&home), none);
            Ok(())
        })
        .unwrap();
    connection
        .exclusive(|_| {
            assert_eq!(Class::of(&reads(&home).unwrap_err()), Some(Class::Busy));
            Ok(())
        })
        .unwrap();
    let tx = Transaction::<Exclusive>::begin(&mut connection).unwrap();
    tx.commit().unwrap();
}

#[test]
fn a_savepoint_that_fails_undoes_its_part_alone() {
    let home = Home::new();
    let mut connection = home.connect();
    connection
        .immediate(|tx| {
            insert(tx, 1)?;
            let part = tx.savepoint(|tx| {
                insert(tx, 2)?;
                tx.savepoint(|tx| insert(tx, 4))?;
                Err::<(), _>(Error::other("not this part"))
            });
            assert!(part.is_err());
            tx.savepoint(|tx| insert(tx, 8))
        })
        .unwrap();
    assert_eq!(number(&connection, "SELECT sum(n) FROM t"), 9);
}

#[test]
fn savepoint_guards_nest_and_are_undone_unless_kept() {
    let home = Home::new();
    let mut connection = home.connect();
    let mut tx = connection.begin::<Immediate>().unwrap();
    insert(&tx, 1).unwrap();
    {
        let mut outer: Savepoint<'_, '_, Immediate> = tx.begin_savepoint().unwrap();
        insert(&outer, 2).unwrap();
        {
            let inner = outer.begin_savepoint().unwrap();
            insert(&inner, 4).unwrap();
        }
        let inner = outer.begin_savepoint().unwrap();
        insert(&inner, 8).unwrap();
        inner.keep().unwrap();
        outer.keep().unwrap();
    }
    {
        let undone = tx.begin_savepoint().unwrap();
        insert(&undone, 16).unwrap();
    }
    tx.commit().unwrap();
    assert_eq!(number(&connection, "SELECT sum(n) FROM t"), 11);
}

#[test]
fn a_savepoint_that_panics_leaves_the_transaction_usable() {
    let home = Home::new();
    let mut connection = home.connect();
    connection
        .immediate(|tx| {
            insert(tx, 1)?;
            let panicked = catch_unwind(AssertUnwindSafe(|| {
                tx.savepoint(|tx| -> onepen::Result<()> {
                    insert(tx, 2)?;
                    panic!("on purpose")
                })
            }));
            assert!(panicked.is_err());
            tx.savepoint(|tx| insert(tx, 4))
        })
        .unwrap();
    assert_eq!(number(&connection, "SELECT sum(n) FROM t"), 5);
}

#[test]
fn a_transaction_that_sqlite_rolled_back_is_not_committed_as_if_nothing_were() {
    let home = Home::with("CREATE TABLE t(n INTEGER PRIMARY KEY); INSERT INTO t VALUES (1)");
    let mut connection = home.connect();
    let lost = connection.immediate(|tx| {
        insert(tx, 2)?;
        let _ = tx.execute("INSERT OR ROLLBACK INTO t VALUES (1)", ());
        Ok(())
    });
    let lost = lost.unwrap_err();
    assert_eq!(lost.kind(), ErrorKind::TransactionLost);
    assert_eq!(lost.outcome(), Outcome::NotCommitted);
    let ended = connection.immediate(|tx| Ok(tx.connection().execute_batch("COMMIT")?));
    assert_eq!(ended.unwrap_err().kind(), ErrorKind::TransactionLost);
    assert_eq!(home.count(), 1);
}

#[test]
fn a_refused_commit_is_rolled_back_and_said() {
    let home = Home::with(
        "CREATE TABLE p(id INTEGER PRIMARY KEY);
         CREATE TABLE t(n INTEGER REFERENCES p DEFERRABLE INITIALLY DEFERRED)",
    );
    let mut connection = home.connect();
    connection
        .pragma_update(None, "foreign_keys", true)
        .unwrap();
    let refused = connection.immediate(|tx| insert(tx, 7)).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::CommitFailed);
    assert_eq!(refused.outcome(), Outcome::NotCommitted);
    assert!(connection.state().autocommit);
    assert_eq!(home.count(), 0);
}

#[test]
fn a_forgotten_statement_neither_keeps_a_commit_nor_the_snapshot() {
    fn forget(tx: &Writing<'_>, sql: &str) {
        let mut statement = tx.prepare(sql).unwrap();
        let mut rows = statement.query(()).unwrap();
        rows.next().unwrap();
        std::mem::forget(rows);
        std::mem::forget(statement);
    }
    let home = Home::with("CREATE TABLE t(n); INSERT INTO t VALUES (1), (2)");
    let mut connection = home.connect();
    connection
        .immediate(|tx| {
            forget(tx, "SELECT n FROM t");
            insert(tx, 3)?;
            forget(tx, "INSERT INTO t VALUES (4), (5) RETURNING n");
            Ok(())
        })
        .unwrap();
    let state = connection.state();
    assert!(state.autocommit);
    assert_eq!(state.holds, Holds::Nothing);
    assert_eq!(number(&connection, "SELECT count(*) FROM t"), 5);
    // One that only reads does not keep COMMIT from being done.
    connection
        .immediate(|tx| {
            forget(tx, "SELECT n FROM t");
            insert(tx, 6)
        })
        .unwrap();
    assert_eq!(connection.state().holds, Holds::Nothing);
}

#[test]
fn a_begin_that_waited_in_vain_says_how_long() {
    let home = Home::new();
    let mut other = home.connect();
    let held = other.begin::<Immediate>().unwrap();
    let mut connection = home.connect();
    connection.busy_timeout(Duration::from_millis(20)).unwrap();
    let error = connection.begin::<Immediate>().map(drop).unwrap_err();
    assert_eq!(Class::of_error(&error), Some(Class::Busy));
    assert!(
        error.waited().how_long >= Duration::from_millis(20),
        "{error}"
    );
    drop(held);
    connection.begin::<Immediate>().unwrap().commit().unwrap();
}

/// What the type of a deferred transaction keeps people from.
#[test]
fn sqlite_itself_refuses_an_upgrade_at_once_whatever_the_timeout() {
    let home = Home::new();
    let connection: Connection = home.connect();
    connection.busy_timeout(Duration::from_secs(3600)).unwrap();
    connection.execute_batch("BEGIN; SELECT * FROM t").unwrap();
    home.connect()
        .execute_batch("INSERT INTO t VALUES (1)")
        .unwrap();
    let error = connection
        .execute("INSERT INTO t VALUES (2)", ())
        .unwrap_err();
    assert_eq!(Class::of(&error), Some(Class::BusySnapshot));
}
