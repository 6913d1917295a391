//! For each remedy of the literature a program that fails when it is left out.

use std::sync::Mutex;

use onepen::Database;
use onepen::status::{Marks, connection_status};
use onepen::threading::Serialized;
use rusqlite::ffi;

use super::{BUSY, INSERT, Scene, code, number, rows, run};

#[test]
fn without_a_busy_timeout_the_second_writer_fails_at_once() {
    let scene = Scene::wal();
    let (one, two) = (scene.open(), scene.open());
    run(&one, "BEGIN IMMEDIATE");
    assert_eq!(code(&two, INSERT), BUSY);
    run(&one, "COMMIT");
    run(&two, INSERT);
}

#[test]
fn without_begin_immediate_a_read_modify_write_fails_whatever_the_timeout() {
    let scene = Scene::wal();
    let (one, two) = (scene.patient(), scene.open());
    run(&one, "BEGIN");
    let n = number(&one, "SELECT n FROM a");
    run(&two, "UPDATE a SET n = n + 10");
    assert_eq!(
        code(&one, &format!("UPDATE a SET n = {}", n + 1)),
        ffi::SQLITE_BUSY_SNAPSHOT
    );
    run(&one, "ROLLBACK; BEGIN IMMEDIATE");
    let n = number(&one, "SELECT n FROM a");
    assert_eq!(code(&two, "UPDATE a SET n = 0"), BUSY);
    run(&one, &format!("UPDATE a SET n = {}; COMMIT", n + 1));
    assert_eq!(number(&two, "SELECT n FROM a"), 12);
}

#[test]
fn without_a_transaction_a_read_modify_write_loses_an_update_and_says_nothing() {
    let scene = Scene::wal();
    let (one, two) = (scene.open(), scene.open());
    let n = number(&one, "SELECT n FROM a");
    run(&two, "UPDATE a SET n = n + 10");
    run(&one, &format!("UPDATE a SET n = {}", n + 1));
    assert_eq!(number(&two, "SELECT n FROM a"), 2, "ten are gone");
}

#[test]
fn without_write_ahead_mode_a_reader_keeps_a_writer_from_committing() {
    let scene = Scene::rollback();
    let (reader, writer) = (scene.open(), scene.open());
    run(&reader, "BEGIN");
    rows(&reader);
    run(&writer, "BEGIN IMMEDIATE; INSERT INTO a VALUES (2)");
    assert_eq!(code(&writer, "COMMIT"), BUSY);

    let scene = Scene::wal();
    let (reader, writer) = (scene.open(), scene.open());
    run(&reader, "BEGIN");
    assert_eq!(rows(&reader), 1);
    run(&writer, INSERT);
    assert_eq!(rows(&reader), 1, "its snapshot");
}

#[test]
fn without_a_connection_for_each_thread_the_second_joins_the_firsts_transaction() {
    // One connection under a lock for each statement, as in many a tutorial.
    let scene = Scene::wal();
    let shared = Mutex::new(scene.open());
    run(&shared.lock().unwrap(), "BEGIN");
    run(&shared.lock().unwrap(), "INSERT INTO a VALUES (2)");
    std::thread::scope(|scope| {
        // Thread two saves something important, and is told that it worked.
        scope.spawn(|| run(&shared.lock().unwrap(), "INSERT INTO a VALUES (3)"));
    });
    // Thread one changes its mind.
    run(&shared.lock().unwrap(), "ROLLBACK");
    assert_eq!(rows(&scene.open()), 1, "what thread two saved is gone");
}

#[test]
fn without_sections_a_serialized_connection_answers_about_another_threads_work() {
    let shared = Serialized::open_in_memory().unwrap();
    let insert = |text: &str| {
        shared
            .with(|c| Ok(c.execute("INSERT INTO a(text) VALUES (?1)", (text,))?))
            .unwrap();
    };
    let last = || shared.with(|c| Ok(c.last_insert_rowid())).unwrap();
    shared
        .with(|c| Ok(c.execute_batch("CREATE TABLE a(id INTEGER PRIMARY KEY, text)")?))
        .unwrap();
    // Each call by itself, which is all that serialized mode makes whole.
    insert("mine");
    std::thread::scope(|scope| {
        scope.spawn(|| insert("yours"));
    });
    assert_eq!(last(), 2, "not the row that this thread inserted");
    // Both calls in one section.
    let id = shared.with(|c| {
        c.execute("INSERT INTO a(text) VALUES ('mine again')", ())?;
        Ok(c.last_insert_rowid())
    });
    let id = id.unwrap();
    let text = shared.with(|c| {
        Ok(
            c.query_row("SELECT text FROM a WHERE id = ?1", (id,), |row| {
                row.get::<_, String>(0)
            })?,
        )
    });
    assert_eq!(text.unwrap(), "mine again");
}

#[test]
fn without_a_rollback_at_the_return_a_pool_hands_out_somebody_elses_transaction() {
    // A pool in its smallest form: a stack.
    let scene = Scene::wal();
    let pool = Mutex::new(vec![scene.open()]);
    let get = || pool.lock().unwrap().pop().unwrap();
    let give_back = |connection| pool.lock().unwrap().push(connection);

    let connection = get();
    run(&connection, "BEGIN IMMEDIATE; INSERT INTO a VALUES (2)");
    give_back(connection); // an early return, an error, a forgotten COMMIT

    let connection = get();
    run(&connection, "INSERT INTO a VALUES (3)"); // "succeeds"
    assert!(!connection.is_autocommit());
    give_back(connection);
    assert_eq!(rows(&scene.open()), 1, "nobody sees it");
    assert_eq!(
        code(&scene.open(), INSERT),
        BUSY,
        "and nobody else can write"
    );
}

#[test]
fn without_members_of_their_own_one_bad_row_undoes_a_writer_threads_whole_batch() {
    let scene = Scene::wal();
    let writer = scene.open();
    run(&writer, "CREATE UNIQUE INDEX one ON a(n)");
    // The queue's batch: three callers' statements in one transaction.
    run(&writer, "BEGIN");
    let batch: [&'static str; 3] = [
        "INSERT INTO a VALUES (2)",
        "INSERT INTO a VALUES (1)",
        "INSERT INTO a VALUES (3)",
    ];
    let done: Result<(), _> = batch.iter().try_for_each(|sql| writer.execute_batch(sql));
    assert!(done.is_err());
    run(&writer, "ROLLBACK");
    assert_eq!(rows(&writer), 1, "two callers pay for the third");
    drop(writer);

    let db = Database::open(scene.path()).unwrap();
    let waits: Vec<_> = batch
        .into_iter()
        .map(|sql| db.submit(move |tx| tx.execute(sql, ())).unwrap())
        .collect();
    let answers: Vec<_> = waits.into_iter().map(|wait| wait.wait().is_ok()).collect();
    assert_eq!(answers, [true, false, true]);
}

#[test]
fn without_a_batch_every_row_writes_its_page_again() {
    let scene = Scene::wal();
    let pages_written = |before: &str, after: &str| {
        let connection = scene.open();
        run(&connection, before);
        for _ in 0..100 {
            run(&connection, INSERT);
        }
        run(&connection, after);
        connection_status(&connection, Marks::Keep)
            .unwrap()
            .cache_writes
    };
    let one_by_one = pages_written("", "");
    let together = pages_written("BEGIN", "COMMIT");
    assert!(
        one_by_one >= 100 && together <= 3,
        "{one_by_one} against {together}"
    );
}

#[test]
fn without_an_end_to_reading_the_log_cannot_be_reset_and_grows() {
    let scene = Scene::wal();
    let (reader, writer) = (scene.open(), scene.open());
    let log = || std::fs::metadata(scene.beside("a.db-wal")).unwrap().len();
    let write_much = || {
        run(
            &writer,
            "DELETE FROM a; INSERT INTO a VALUES (zeroblob(1000000))",
        );
        // Asks for a reset at once; SQLite's own, at 1000 pages, does no more.
        writer
            .query_row("PRAGMA wal_checkpoint(PASSIVE)", (), |_| Ok(()))
            .unwrap();
    };
    write_much();
    run(&reader, "BEGIN");
    rows(&reader);
    let before = log();
    for _ in 0..5 {
        write_much();
    }
    let pinned = log();
    assert!(pinned > before + 4_000_000, "{before} {pinned}");
    run(&reader, "COMMIT");
    for _ in 0..5 {
        write_much();
    }
    assert!(log() < pinned + 2_000_000, "{pinned} {}", log());
}

#[test]
fn without_the_log_a_copy_of_the_file_lacks_what_was_committed() {
    let scene = Scene::wal();
    let connection = scene.open();
    run(
        &connection,
        "PRAGMA wal_checkpoint(TRUNCATE); INSERT INTO a VALUES (2), (3)",
    );
    let copy = scene.beside("copy.db");
    std::fs::copy(scene.path(), &copy).unwrap();
    let copied = rusqlite::Connection::open(&copy).unwrap();
    assert_eq!((rows(&connection), rows(&copied)), (3, 1));
    // A backup that asks SQLite.
    let backup = scene.beside("backup.db");
    connection
        .execute("VACUUM INTO ?1", (backup.to_str().unwrap(),))
        .unwrap();
    assert_eq!(rows(&rusqlite::Connection::open(&backup).unwrap()), 3);
}

#[test]
fn without_sqlites_log_a_recovery_after_a_crash_is_told_to_nobody() {
    let scene = Scene::wal();
    let connection = scene.open();
    run(&connection, INSERT);
    for ending in ["", "-wal"] {
        let from = scene.beside(&format!("a.db{ending}"));
        std::fs::copy(from, scene.beside(&format!("after.db{ending}"))).unwrap();
    }
    let heard = std::sync::Arc::new(Mutex::new(Vec::new()));
    let to = std::sync::Arc::clone(&heard);
    let hearing = onepen::sqlite_log::subscribe(move |line| {
        if line.message.contains("after.db") {
            to.lock().unwrap().push(line.code);
        }
    });
    // No error, no return value: the program itself learns nothing.
    assert_eq!(
        rows(&rusqlite::Connection::open(scene.beside("after.db")).unwrap()),
        2
    );
    assert_eq!(*heard.lock().unwrap(), [ffi::SQLITE_NOTICE_RECOVER_WAL]);
    drop(hearing);
}

#[test]
fn without_help_a_locked_database_names_nobody() {
    let scene = Scene::wal();
    let (one, two) = (scene.open(), scene.open());
    run(&one, "BEGIN IMMEDIATE");
    let refused = two.execute_batch(INSERT).unwrap_err();
    assert_eq!(refused.to_string(), "database is locked");
}
