//! SQLite's own log, and its counts. A process has one log, so the tests here
//! listen for lines that only they cause.

use std::sync::{Arc, Mutex};

use onepen::Database;
use onepen::sqlite_log::{self, Severity, arrives, subscribe};
use onepen::status::{Marks, connection_status, database_list, status};
use onepen::threading::MultiThread;

type Lines = Arc<Mutex<Vec<(i32, Severity, String)>>>;

/// The lines that mention `what`.
fn listen(what: &'static str) -> (Lines, sqlite_log::Subscription) {
    let lines = Lines::default();
    let to = Arc::clone(&lines);
    let subscription = subscribe(move |line| {
        if line.message.contains(what) {
            let line = (line.code, line.severity(), line.message.to_owned());
            to.lock().unwrap().push(line);
        }
    });
    (lines, subscription.unwrap())
}

#[test]
fn every_subscriber_hears_a_line_until_its_subscription_ends() {
    let connection = MultiThread::open_in_memory().unwrap();
    let (first, keep) = listen("no_such_table_1");
    let (second, end) = listen("no_such_table_1");
    assert!(connection.prepare("SELECT * FROM no_such_table_1").is_err());
    drop(end);
    assert!(connection.prepare("SELECT * FROM no_such_table_1").is_err());
    let counts = (first.lock().unwrap().len(), second.lock().unwrap().len());
    assert_eq!(counts, (2, 1));
    let (code, severity, _) = first.lock().unwrap()[0].clone();
    assert_eq!(
        (code, severity),
        (rusqlite::ffi::SQLITE_ERROR, Severity::Warning)
    );
    drop(keep);
}

#[test]
fn values_that_were_bound_are_not_in_a_line() {
    let connection = MultiThread::open_in_memory().unwrap();
    connection
        .execute_batch("CREATE TABLE held_once(n UNIQUE)")
        .unwrap();
    let (lines, _keep) = listen("held_once");
    let secret = "a value nobody may read";
    let insert = "INSERT INTO held_once VALUES (?1)";
    connection.execute(insert, (secret,)).unwrap();
    connection.execute(insert, (secret,)).unwrap_err();
    let lines = lines.lock().unwrap();
    assert!(!lines.is_empty());
    assert!(
        lines.iter().all(|(_, _, text)| !text.contains(secret)),
        "{lines:?}"
    );
}

#[test]
fn a_subscriber_that_panics_or_uses_sqlite_harms_nobody() {
    let connection = MultiThread::open_in_memory().unwrap();
    let panics = subscribe(|line| assert!(!line.message.contains("no_such_table_2"))).unwrap();
    let uses = subscribe(|line| {
        if line.message.contains("no_such_table_2") {
            let inner = MultiThread::open_in_memory().unwrap();
            // Its own complaint would come back here without end.
            inner.prepare("SELECT * FROM no_such_table_2").unwrap_err();
        }
    })
    .unwrap();
    let (lines, hears) = listen("no_such_table_2");
    assert!(connection.prepare("SELECT * FROM no_such_table_2").is_err());
    assert_eq!(lines.lock().unwrap().len(), 1);
    drop((panics, uses, hears));
}

#[test]
fn whether_the_log_arrives_is_tried_and_tells_no_subscriber() {
    let (lines, _keep) = listen("onepen asks");
    assert!(arrives().unwrap());
    assert_eq!(lines.lock().unwrap().len(), 0);
}

#[test]
fn a_log_that_was_recovered_is_a_notice() {
    let dir = tempfile::tempdir().unwrap();
    let (path, copy) = (dir.path().join("a.db"), dir.path().join("crashed.db"));
    let connection = MultiThread::open(&path).unwrap();
    connection
        .execute_batch("PRAGMA journal_mode=WAL; CREATE TABLE a(n); INSERT INTO a VALUES (1)")
        .unwrap();
    // What a crash leaves: the file and its log, and nobody who has them open.
    std::fs::copy(&path, &copy).unwrap();
    std::fs::copy(
        dir.path().join("a.db-wal"),
        dir.path().join("crashed.db-wal"),
    )
    .unwrap();
    let (lines, _keep) = listen("crashed.db-wal");
    let after = MultiThread::open(&copy).unwrap();
    assert_eq!(
        after.query_row("SELECT n FROM a", (), |row| row.get(0)),
        Ok(1)
    );
    let lines = lines.lock().unwrap();
    let [(code, severity, text)] = &lines[..] else {
        panic!("{lines:?}");
    };
    assert_eq!(*code, rusqlite::ffi::SQLITE_NOTICE_RECOVER_WAL);
    assert_eq!(*severity, Severity::Notice);
    assert!(text.contains("recovered"), "{text}");
}

#[test]
fn the_process_counts_its_memory_and_the_highest_it_was() {
    let before = status(Marks::Keep).unwrap();
    let connection = MultiThread::open_in_memory().unwrap();
    connection
        .execute_batch("CREATE TABLE a(x); INSERT INTO a VALUES (zeroblob(4000000))")
        .unwrap();
    let during = status(Marks::Keep).unwrap();
    assert!(
        during.memory.now > before.memory.now + 3_000_000,
        "{before:?} {during:?}"
    );
    assert!(during.largest_allocation >= 4096 && during.allocations.now > 0);
    drop(connection);
    let after = status(Marks::Keep).unwrap();
    assert!(after.memory.highest >= during.memory.now);
}

#[test]
fn a_connection_counts_what_it_does_and_counting_can_start_anew() {
    let dir = tempfile::tempdir().unwrap();
    let connection = MultiThread::open(dir.path().join("a.db")).unwrap();
    connection
        .execute_batch("CREATE TABLE a(n); INSERT INTO a VALUES (1)")
        .unwrap();
    let first = connection_status(&connection, Marks::StartAnew).unwrap();
    assert!(
        first.cache > 0 && first.schema > 0 && first.cache_writes > 0,
        "{first:?}"
    );
    assert!(!first.owes_foreign_keys);
    assert_eq!(
        connection_status(&connection, Marks::Keep)
            .unwrap()
            .cache_writes,
        0
    );

    connection
        .execute_batch(
            "PRAGMA foreign_keys = ON;
             CREATE TABLE b(n REFERENCES c(n) DEFERRABLE INITIALLY DEFERRED);
             CREATE TABLE c(n PRIMARY KEY);
             BEGIN; INSERT INTO b VALUES (1)",
        )
        .unwrap();
    assert!(
        connection_status(&connection, Marks::Keep)
            .unwrap()
            .owes_foreign_keys
    );
    connection.execute_batch("ROLLBACK").unwrap();
}

#[test]
fn the_databases_of_a_connection_have_their_names_and_files() {
    let dir = tempfile::tempdir().unwrap();
    let (main, other) = (dir.path().join("a.db"), dir.path().join("b.db"));
    let db = Database::open(&main).unwrap();
    let list = db
        .exclusively(|c| {
            c.execute("ATTACH ?1 AS other", (other.to_str().unwrap(),))?;
            database_list(c)
        })
        .unwrap();
    let names: Vec<_> = list.iter().map(|each| each.name.as_str()).collect();
    assert_eq!(names, ["main", "other"]);
    for (each, path) in list.iter().zip([&main, &other]) {
        let file = each.file.as_ref().unwrap();
        assert_eq!(file.canonicalize().unwrap(), path.canonicalize().unwrap());
    }
}
