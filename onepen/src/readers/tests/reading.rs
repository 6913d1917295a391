//! What a read sees, and that it can change nothing.

use super::*;

#[test]
fn a_read_sees_one_state_from_its_first_moment() {
    let db = Fixture::new(1);
    for _ in 0..3 {
        let before = db.count();
        let read = db.readers.read(&patient(), |tx| {
            db.write();
            let first = count_in(tx);
            db.write();
            Ok((first, count_in(tx)))
        });
        assert_eq!(read.expect("a read"), (before, before));
    }
}

#[test]
fn a_read_sees_every_write_that_returned_before_it_began() {
    let db = Fixture::new(2);
    for written in 1..200 {
        db.write();
        assert_eq!(db.count(), written);
        let read = |tx: &ReadTx| Ok(count_in(tx));
        assert_eq!(db.readers.read(&patient(), read).ok(), Some(written));
        assert_eq!(db.count(), written);
        let elsewhere = std::thread::scope(|scope| {
            let elsewhere = scope.spawn(|| count(&db.readers));
            elsewhere.join().expect("a count")
        });
        assert_eq!(elsewhere, written);
    }
}

#[test]
fn readers_on_many_threads_never_go_back_and_never_miss_a_write() {
    use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
    /// Readers end with the writer, also when it fails.
    struct Ended<'a>(&'a AtomicBool);
    impl Drop for Ended<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::SeqCst);
        }
    }
    let db = Fixture::new(3);
    // A reader that finds the log's header half written takes the write lock for a
    // moment, to look at it alone (`walIndexReadHdr`).
    db.writer.busy_timeout(LONG).expect("a patient writer");
    let returned = AtomicI64::new(0);
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                loop {
                    let ended = ended.load(Ordering::SeqCst);
                    let before = returned.load(Ordering::SeqCst);
                    let seen = count(&db.readers);
                    assert!(seen >= before, "{seen} of {before}");
                    if ended {
                        break;
                    }
                }
            });
        }
        let _ended = Ended(&ended);
        for _ in 0..500 {
            db.write();
            returned.fetch_add(1, Ordering::SeqCst);
        }
    });
}

#[test]
fn nothing_that_a_read_runs_can_write_or_leave_a_trace() {
    let db = Fixture::new(1);
    db.write();
    for sql in [
        "INSERT INTO t VALUES (2)",
        "WITH gone AS (SELECT 1) DELETE FROM t",
        "UPDATE t SET v = 3 RETURNING v",
        "CREATE TABLE u (v)",
        "CREATE TEMP TABLE u (v)",
        "DROP TABLE t",
        "BEGIN",
        "COMMIT",
        "ROLLBACK",
        "SAVEPOINT s",
        "ATTACH 'other.db' AS other",
        "PRAGMA user_version = 7",
        "PRAGMA cache_size = 7",
        "PRAGMA query_only = 0",
        "PRAGMA wal_checkpoint",
    ] {
        let refused = [
            db.readers.query_row(&patient(), sql, (), |_| Ok(())),
            db.readers
                .read(&patient(), |tx| tx.query_row(sql, (), |_| Ok(()))),
        ];
        for refused in refused {
            let error = refused.expect_err(sql);
            assert_eq!(error.kind(), ErrorKind::NotAllowed, "{sql}: {error}");
        }
    }
    let version: i64 = db
        .readers
        .query_row(&patient(), "PRAGMA user_version", (), |row| row.get(0))
        .expect("asking is allowed");
    assert_eq!((db.count(), version), (1, 0));
}

#[test]
fn temporary_tables_of_the_hook_do_not_keep_reads_from_starting() {
    let hook = |connection: &Connection| {
        connection.pragma_update(None, "query_only", false)?;
        connection.execute_batch("CREATE TEMP TABLE mine AS SELECT 7 AS v")
    };
    let db = Fixture::with(Options::new().readers(1).on_connect(hook));
    let seven = |tx: &ReadTx| tx.query_row("SELECT v FROM mine", (), |row| row.get::<_, i64>(0));
    assert_eq!(db.readers.read(&patient(), seven).ok(), Some(7));
    let refused = db.readers.read(&patient(), |tx| {
        tx.query_row("DELETE FROM mine", (), |_| Ok(()))
    });
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::NotAllowed);
}

#[test]
fn forgotten_rows_neither_pin_the_log_nor_disturb_the_next() {
    let db = Fixture::new(1);
    db.write();
    db.write();
    let ticket = patient();
    for _ in 0..3 {
        let read = db.readers.read(&ticket, |tx| {
            let mut statement = tx.prepare("SELECT v FROM t")?;
            let mut rows = statement.query(())?;
            assert!(rows.next()?.is_some());
            std::mem::forget(rows);
            Ok(())
        });
        read.expect("a read");
        db.write();
        assert!(db.can_restart_log(), "a statement was left running");
    }
    let values = |tx: &ReadTx| tx.query_map("SELECT v FROM t", (), |row| row.get::<_, i64>(0));
    let values = db.readers.read(&ticket, values).expect("a read");
    assert_eq!(values.len(), 5);
}

#[test]
fn a_panic_passes_and_gives_the_reader_back() {
    let db = Fixture::new(1);
    let read =
        |tx: &ReadTx| -> Result<()> { tx.query_each("SELECT 1", (), |_| panic!("of the caller")) };
    let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        db.readers.read(&patient(), read)
    }));
    assert_eq!(panic.unwrap_err().downcast_ref(), Some(&"of the caller"));
    assert_eq!(db.readers.in_use(), 0);
    assert!(db.can_restart_log());
    assert_eq!(db.count(), 0);
}

#[test]
fn an_error_of_the_caller_comes_back_as_it_was() {
    let db = Fixture::new(1);
    let read: Result<()> = db
        .readers
        .read(&patient(), |_| Err(Error::other("not today")));
    assert_eq!(read.unwrap_err().to_string(), "not today");
    let none = db
        .readers
        .query_row(&patient(), "SELECT v FROM t", (), |_| Ok(()));
    let none = none.unwrap_err();
    assert!(matches!(
        none.sqlite(),
        Some(rusqlite::Error::QueryReturnedNoRows)
    ));
}

#[test]
fn over_a_rollback_journal_a_read_leaves_no_lock_and_waits_for_a_writers_end() {
    let db = Fixture::with(Options::new().readers(2).journal(Journal::Rollback));
    db.count();
    let read = |tx: &ReadTx| Ok(count_in(tx));
    assert_eq!(db.readers.read(&patient(), read).ok(), Some(0));
    let stranger = db.stranger();
    stranger
        .execute_batch("BEGIN EXCLUSIVE; INSERT INTO t VALUES (1)")
        .expect("nobody reads");
    for late in [
        db.readers.read(&within(Duration::from_millis(5)), read),
        db.readers
            .query_row(&within(Duration::from_millis(5)), COUNT, (), |row| {
                row.get(0)
            }),
    ] {
        let late = late.unwrap_err();
        assert_eq!(late.kind(), ErrorKind::DeadlineExceeded, "{late}");
    }
    let readers = &db.readers;
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| readers.read(&patient(), read));
        let too = scope.spawn(|| count(readers));
        until(|| db.readers.in_use() == 2);
        stranger.execute_batch("COMMIT").expect("a commit");
        assert_eq!(waits.join().expect("no panic").ok(), Some(1));
        assert_eq!(too.join().expect("no panic"), 1);
    });
}
