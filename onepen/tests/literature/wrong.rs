//! What many texts say, and what is so instead.

use std::sync::mpsc::channel;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, ffi};

use super::{BUSY, INSERT, Scene, code, number, rows, run};

/// "With a mutex (or in serialized mode) a second thread waits for the first one's
/// transaction."
#[test]
fn a_second_thread_on_a_shared_connection_joins_the_transaction() {
    let scene = Scene::wal();
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_FULL_MUTEX;
    let mut connection = Connection::open_with_flags(scene.path(), flags).unwrap();
    run(&connection, "BEGIN IMMEDIATE; INSERT INTO a VALUES (2)");
    // No wait, no error: it is in the middle of the first one's transaction.
    let connection = std::thread::spawn(move || {
        assert!(!connection.is_autocommit());
        run(&connection, "INSERT INTO a VALUES (3)");
        assert!(
            connection.transaction().is_err(),
            "and cannot begin one of its own"
        );
        run(&connection, "COMMIT");
        connection
    })
    .join()
    .unwrap();
    // And ends it: the first one's ROLLBACK finds nothing to undo.
    assert!(connection.execute_batch("ROLLBACK").is_err());
    assert_eq!(rows(&scene.open()), 3);
}

/// "WAL allows concurrent writers."
#[test]
fn write_ahead_mode_has_one_writer_like_any_other() {
    let scene = Scene::wal();
    let (one, two) = (scene.open(), scene.open());
    run(&one, "BEGIN IMMEDIATE");
    assert_eq!(code(&two, "BEGIN IMMEDIATE"), BUSY);
}

/// "The lock is on the table."
#[test]
fn the_write_lock_is_on_the_file() {
    let scene = Scene::wal();
    let (one, two) = (scene.open(), scene.open());
    run(&one, "CREATE TABLE b(n); BEGIN; INSERT INTO a VALUES (2)");
    assert_eq!(code(&two, "INSERT INTO b VALUES (1)"), BUSY);
}

/// "Set a busy timeout and the error goes away"; "raise it further".
#[test]
fn a_read_that_becomes_a_write_is_not_waited_for() {
    let scene = Scene::wal();
    let (one, two) = (scene.patient(), scene.open());
    run(&one, "BEGIN");
    rows(&one);
    run(&two, "BEGIN IMMEDIATE");
    // An hour of timeout; at once:
    assert_eq!(code(&one, INSERT), BUSY);
    run(&two, "INSERT INTO a VALUES (3); COMMIT");
    assert_eq!(code(&one, INSERT), ffi::SQLITE_BUSY_SNAPSHOT);
}

/// "Retry the statement until it works."
#[test]
fn retrying_the_statement_after_busy_snapshot_never_works() {
    let scene = Scene::wal();
    let (one, two) = (scene.open(), scene.open());
    run(&one, "BEGIN");
    rows(&one);
    run(&two, INSERT);
    for _ in 0..1000 {
        assert_eq!(code(&one, INSERT), ffi::SQLITE_BUSY_SNAPSHOT);
    }
    run(&one, "ROLLBACK; BEGIN");
    rows(&one);
    run(&one, INSERT);
    run(&one, "COMMIT");
}

/// "`SQLITE_BUSY` and `SQLITE_LOCKED` are the same; wait."
#[test]
fn a_lock_of_ones_own_connection_does_not_go_away_by_waiting() {
    let scene = Scene::wal();
    let connection = scene.patient();
    run(&connection, INSERT);
    let mut statement = connection.prepare("SELECT n FROM a").unwrap();
    let mut reading = statement.query(()).unwrap();
    reading.next().unwrap();
    assert_eq!(code(&connection, "DROP TABLE a"), ffi::SQLITE_LOCKED);
    drop(reading);
    drop(statement);
    run(&connection, "DROP TABLE a");
}

/// "BEGIN EXCLUSIVE keeps readers out."
#[test]
fn begin_exclusive_keeps_readers_out_over_a_rollback_journal_only() {
    let scene = Scene::rollback();
    let (writer, reader) = (scene.open(), scene.open());
    run(&writer, "BEGIN EXCLUSIVE");
    assert_eq!(code(&reader, "SELECT n FROM a"), BUSY);

    let scene = Scene::wal();
    let (writer, reader) = (scene.open(), scene.open());
    run(&writer, "BEGIN EXCLUSIVE; INSERT INTO a VALUES (2)");
    assert_eq!(rows(&reader), 1);
}

/// "A COMMIT that fails with SQLITE_BUSY was rolled back."
#[test]
fn a_commit_that_was_busy_is_still_open_and_may_be_tried_again() {
    let scene = Scene::rollback();
    let (writer, reader) = (scene.open(), scene.open());
    run(&reader, "BEGIN");
    rows(&reader);
    run(&writer, "BEGIN; INSERT INTO a VALUES (2)");
    assert_eq!(code(&writer, "COMMIT"), BUSY);
    assert!(!writer.is_autocommit());
    // While it waits, new readers are turned away (the PENDING lock).
    assert_eq!(code(&scene.open(), "SELECT n FROM a"), BUSY);
    run(&reader, "COMMIT");
    run(&writer, "COMMIT");
    assert_eq!(rows(&reader), 2);
}

/// "Any error rolls the transaction back", and "none does".
#[test]
fn some_errors_end_the_transaction_and_most_do_not() {
    let scene = Scene::wal();
    let connection = scene.open();
    run(
        &connection,
        "CREATE UNIQUE INDEX one ON a(n); BEGIN; INSERT INTO a VALUES (2)",
    );
    assert_eq!(code(&connection, INSERT), ffi::SQLITE_CONSTRAINT_UNIQUE);
    assert!(
        !connection.is_autocommit(),
        "an ordinary failure undoes its statement"
    );
    assert!(
        connection
            .execute_batch("INSERT OR ROLLBACK INTO a VALUES (2)")
            .is_err()
    );
    assert!(connection.is_autocommit(), "this one ends the transaction");
    // A program that goes on writes what it meant to be one by one.
    run(&connection, "INSERT INTO a VALUES (3)");
    assert_eq!(rows(&scene.open()), 2);
}

/// "`sqlite3_interrupt` ends a wait."
#[test]
fn an_interrupt_does_not_end_a_wait_for_a_lock() {
    let scene = Scene::wal();
    let (holder, waiter) = (scene.open(), scene.open());
    waiter.busy_timeout(Duration::from_millis(300)).unwrap();
    run(&holder, "BEGIN IMMEDIATE");
    let handle = waiter.get_interrupt_handle();
    let (done, is_done) = channel();
    let interrupting = std::thread::spawn(move || {
        // Again and again, for as long as it waits.
        while is_done.try_recv().is_err() {
            handle.interrupt();
            std::thread::yield_now();
        }
    });
    let since = std::time::Instant::now();
    // BUSY, after all of its timeout, and not INTERRUPT.
    assert_eq!(code(&waiter, "BEGIN IMMEDIATE"), BUSY);
    assert!(
        since.elapsed() >= Duration::from_millis(250),
        "{:?}",
        since.elapsed()
    );
    done.send(()).unwrap();
    interrupting.join().unwrap();
}

/// "PRAGMA read_uncommitted lets readers past a writer."
#[test]
fn read_uncommitted_does_nothing_without_a_shared_cache() {
    let scene = Scene::rollback();
    let (writer, reader) = (scene.open(), scene.open());
    run(&reader, "PRAGMA read_uncommitted=ON");
    run(&writer, "BEGIN EXCLUSIVE; INSERT INTO a VALUES (2)");
    assert_eq!(code(&reader, "SELECT n FROM a"), BUSY);

    let scene = Scene::wal();
    let (writer, reader) = (scene.open(), scene.open());
    run(&reader, "PRAGMA read_uncommitted=ON");
    run(&writer, "BEGIN IMMEDIATE; INSERT INTO a VALUES (2)");
    assert_eq!(rows(&reader), 1);
}

/// "Shared cache mode lets threads work together."
#[test]
fn a_shared_cache_locks_tables_at_once_and_no_timeout_helps() {
    let scene = Scene::wal();
    let open = || {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_SHARED_CACHE;
        let connection = Connection::open_with_flags(scene.path(), flags).unwrap();
        connection.busy_timeout(Duration::from_secs(3600)).unwrap();
        connection
    };
    let (writer, reader) = (open(), open());
    run(&writer, "BEGIN; INSERT INTO a VALUES (2)");
    assert_eq!(
        code(&reader, "SELECT n FROM a"),
        ffi::SQLITE_LOCKED_SHAREDCACHE
    );
    // A connection of its own is not in the way of anybody.
    assert_eq!(rows(&scene.open()), 1);
}

/// "Every connection must switch to WAL"; "set the timeout once".
#[test]
fn the_journal_is_the_files_and_timeouts_and_foreign_keys_are_the_connections() {
    let scene = Scene::wal();
    let one = scene.open();
    run(&one, "PRAGMA foreign_keys=OFF; PRAGMA busy_timeout=7");
    let two = Connection::open(scene.path()).unwrap();
    let journal: String = two
        .query_row("PRAGMA journal_mode", (), |row| row.get(0))
        .unwrap();
    assert_eq!(journal, "wal");
    assert_eq!(number(&one, "PRAGMA busy_timeout"), 7);
    assert_ne!(number(&two, "PRAGMA busy_timeout"), 7);
    assert_eq!(number(&one, "PRAGMA foreign_keys"), 0);
    assert_eq!(number(&two, "PRAGMA foreign_keys"), 1);
}

/// "Setting WAL is harmless: it waits like everything else."
#[test]
fn switching_to_write_ahead_mode_beside_a_writer_is_not_waited_for() {
    let scene = Scene::rollback();
    let (writer, starting) = (scene.open(), scene.patient());
    run(&writer, "BEGIN IMMEDIATE");
    assert_eq!(code(&starting, "PRAGMA journal_mode=WAL"), BUSY);
}

/// "A SELECT holds no lock once it has returned its row."
#[test]
fn a_select_that_was_not_read_to_its_end_pins_its_snapshot() {
    let scene = Scene::wal();
    let (reader, writer) = (scene.open(), scene.open());
    run(&writer, INSERT);
    let mut statement = reader.prepare("SELECT n FROM a").unwrap();
    let mut reading = statement.query(()).unwrap();
    reading.next().unwrap();
    run(&writer, "INSERT INTO a VALUES (3)");
    // (busy, frames in the log, frames copied back): the last one waits for it.
    let truncate = "PRAGMA wal_checkpoint(TRUNCATE)";
    let busy = |c: &Connection| {
        c.query_row(truncate, (), |row| row.get::<_, i64>(0))
            .unwrap()
    };
    assert_eq!(busy(&writer), 1);
    drop(reading);
    assert_eq!(busy(&writer), 0);
}

/// "PRAGMA lock_status shows who holds the lock."
#[test]
fn lock_status_says_nothing_in_any_build_that_is_shipped() {
    let scene = Scene::wal();
    let (holder, asker) = (scene.open(), scene.open());
    run(&holder, "BEGIN IMMEDIATE");
    let mut statement = asker.prepare("PRAGMA lock_status").unwrap();
    assert!(statement.query(()).unwrap().next().unwrap().is_none());
}

/// "An in-memory database can be used from many connections."
#[test]
fn every_connection_to_memory_has_a_database_of_its_own() {
    let (one, two) = (
        Connection::open_in_memory().unwrap(),
        Connection::open_in_memory().unwrap(),
    );
    run(&one, "CREATE TABLE a(n)");
    assert!(two.prepare("SELECT * FROM a").is_err());
}

/// "Locks: unlocked, shared, reserved, pending, exclusive", which is right, and of
/// the rollback journal alone.
#[test]
fn the_five_lock_states_are_those_of_the_rollback_journal() {
    let scene = Scene::rollback();
    let (reader, writer) = (scene.open(), scene.open());
    let newcomer = || {
        scene
            .open()
            .query_row("SELECT n FROM a", (), |_| Ok(()))
            .is_ok()
    };
    // SHARED: any number.
    run(&reader, "BEGIN");
    rows(&reader);
    assert!(newcomer());
    // RESERVED: one, beside readers.
    run(&writer, "BEGIN IMMEDIATE; INSERT INTO a VALUES (2)");
    assert!(newcomer());
    assert_eq!(code(&scene.open(), "BEGIN IMMEDIATE"), BUSY);
    // PENDING: readers finish, none begin.
    assert_eq!(code(&writer, "COMMIT"), BUSY);
    assert_eq!(rows(&reader), 1);
    assert!(!newcomer());
    // EXCLUSIVE: alone, to write; and UNLOCKED after.
    run(&reader, "COMMIT");
    run(&writer, "COMMIT; BEGIN EXCLUSIVE");
    assert!(!newcomer());
    run(&writer, "COMMIT");
    assert!(newcomer());

    // In write-ahead mode a commit turns no reader away.
    let scene = Scene::wal();
    let (reader, writer) = (scene.open(), scene.open());
    run(&reader, "BEGIN");
    rows(&reader);
    run(&writer, "BEGIN IMMEDIATE; INSERT INTO a VALUES (2); COMMIT");
    assert_eq!(rows(&scene.open()), 2);
}
