use std::cell::Cell;
use std::thread;
use std::time::Duration;

use onepen::blocks::{Class, Deferred, Immediate, Retry, Schedule, Transactions, Wait};
use onepen::{CancelToken, Error, ErrorKind};
use rusqlite::{Connection, ffi};

use crate::common::until;
use crate::{Home, number};

const INSERT: &str = "INSERT INTO t VALUES (1)";

fn quick() -> Retry {
    Retry::new().schedule(Schedule::constant(Duration::from_millis(1)))
}

#[test]
fn a_statement_is_repeated_until_the_lock_is_free() {
    let home = Home::new();
    let mut other = home.connect();
    let mut held = Some(other.begin::<Immediate>().unwrap());
    let connection = home.connect();
    let mut tries = 0;
    quick()
        .statement(&connection, |c| {
            tries += 1;
            if tries == 4 {
                held = None;
            }
            c.execute(INSERT, ())
        })
        .unwrap();
    assert_eq!(tries, 4);
    assert_eq!(home.count(), 1);
}

#[test]
fn attempts_a_deadline_and_a_token_end_it_with_the_last_refusal() {
    let home = Home::new();
    let mut other = home.connect();
    let _held = other.begin::<Immediate>().unwrap();
    let connection = home.connect();
    let run = |retry: &Retry| {
        let tries = Cell::new(0);
        let refused = retry.statement(&connection, |c| {
            tries.set(tries.get() + 1);
            c.execute(INSERT, ())
        });
        (refused.unwrap_err(), tries.get())
    };
    let (error, tries) = run(&quick().attempts(3));
    assert_eq!((error.kind(), tries), (ErrorKind::Sqlite, 3));
    assert!(
        error.to_string().contains("given up after 3 attempts"),
        "{error}"
    );
    assert_eq!(Class::of_error(&error), Some(Class::Busy));

    let (error, tries) = run(&quick().wait(Wait::at_most(Duration::from_millis(10))));
    assert_eq!(error.kind(), ErrorKind::DeadlineExceeded);
    assert!(
        tries > 1 && error.waited().how_long >= Duration::from_millis(10),
        "{error}"
    );
    assert_eq!(Class::of_error(&error), Some(Class::Busy));

    let (_, tries) = run(&quick().wait(Wait::at_most(Duration::ZERO)));
    assert_eq!(tries, 1);
    let (_, tries) = run(&quick().only(&[Class::Schema]));
    assert_eq!(tries, 1);

    // An hour's pause, ended by the token.
    let token = CancelToken::new();
    let hour = Schedule::constant(Duration::from_secs(3600));
    let retry = Retry::new()
        .schedule(hour)
        .wait(Wait::forever().cancel_with(&token));
    let tries = std::sync::atomic::AtomicU32::new(0);
    let path = home.path();
    thread::scope(|scope| {
        let waits = scope.spawn(|| {
            let connection = crate::connect(&path);
            retry.statement(&connection, |c| {
                tries.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                c.execute(INSERT, ())
            })
        });
        until("it was refused", || {
            tries.load(std::sync::atomic::Ordering::SeqCst) == 1
        });
        token.cancel();
        assert_eq!(
            waits.join().unwrap().unwrap_err().kind(),
            ErrorKind::Cancelled
        );
    });
}

#[test]
fn what_is_in_no_class_is_not_repeated() {
    let home = Home::with("CREATE TABLE t(n UNIQUE); INSERT INTO t VALUES (1)");
    let connection = home.connect();
    let mut tries = 0;
    let error = quick()
        .statement(&connection, |c| {
            tries += 1;
            c.execute(INSERT, ())
        })
        .unwrap_err();
    assert_eq!((tries, error.kind()), (1, ErrorKind::Sqlite));
    // Nor an error of the closure's own.
    let mut connection = connection;
    let mut tries = 0;
    let own = quick().transaction::<Immediate, ()>(&mut connection, |_| {
        tries += 1;
        Err(Error::other("my own"))
    });
    assert_eq!((tries, own.unwrap_err().kind()), (1, ErrorKind::Other));
}

#[test]
fn inside_a_transaction_no_statement_is_repeated_by_itself() {
    let home = Home::new();
    let connection = home.connect();
    connection.execute_batch("BEGIN; SELECT * FROM t").unwrap();
    home.connect().execute_batch(INSERT).unwrap();
    let mut tries = 0;
    let error = quick()
        .statement(&connection, |c| {
            tries += 1;
            c.execute(INSERT, ())
        })
        .unwrap_err();
    assert_eq!(tries, 1);
    assert_eq!(Class::of_error(&error), Some(Class::BusySnapshot));
    assert!(
        error.to_string().contains("the whole transaction"),
        "{error}"
    );
}

/// Repeating what it had read would lose the other's update.
#[test]
fn a_transaction_is_repeated_from_its_beginning_and_reads_again() {
    let home = Home::with("PRAGMA journal_mode = wal; CREATE TABLE t(n); INSERT INTO t VALUES (1)");
    let mut connection = home.connect();
    let mut seen = Vec::new();
    quick()
        .transaction::<Deferred, _>(&mut connection, |tx| {
            let n: i64 = tx.query_row("SELECT n FROM t", (), |row| row.get(0))?;
            seen.push(n);
            if seen.len() == 1 {
                home.connect().execute_batch("UPDATE t SET n = 10").unwrap();
            }
            // What the type refuses, done all the same.
            tx.connection().execute("UPDATE t SET n = ?1", (n + 1,))?;
            Ok(())
        })
        .unwrap();
    assert_eq!(seen, [1, 10]);
    assert_eq!(number(&home.connect(), "SELECT n FROM t"), 11);
}

#[test]
fn a_begin_that_is_refused_is_repeated_and_work_runs_once() {
    let home = Home::new();
    let path = home.path();
    let mut other = home.connect();
    let held = other.begin::<Immediate>().unwrap();
    thread::scope(|scope| {
        let waits = scope.spawn(move || {
            let mut connection = crate::connect(&path);
            let mut runs = 0;
            quick()
                .transaction::<Immediate, _>(&mut connection, |tx| {
                    runs += 1;
                    tx.execute(INSERT, ())
                })
                .map(|_| runs)
        });
        assert!(!waits.is_finished());
        drop(held);
        assert_eq!(waits.join().unwrap().unwrap(), 1);
    });
    assert_eq!(home.count(), 1);
}

#[test]
fn a_table_locked_by_a_statement_of_its_own_is_no_matter_of_waiting() {
    let home = Home::with("CREATE TABLE t(n); INSERT INTO t VALUES (1), (2)");
    let connection = home.connect();
    let mut statement = connection.prepare("SELECT n FROM t").unwrap();
    let mut rows = statement.query(()).unwrap();
    rows.next().unwrap();
    let mut tries = 0;
    let error = quick()
        .statement(&connection, |c| {
            tries += 1;
            c.execute_batch("DROP TABLE t")
        })
        .unwrap_err();
    assert_eq!((tries, Class::of_error(&error)), (1, Some(Class::Locked)));
    drop(rows);
    drop(statement);

    // A transaction that is run again has ended the statement before.
    let mut connection = connection;
    let mut tries = 0;
    quick()
        .transaction::<Immediate, _>(&mut connection, |tx| {
            tries += 1;
            if tries == 1 {
                let mut statement = tx.prepare("SELECT n FROM t")?;
                let mut rows = statement.query(())?;
                rows.next()?;
                std::mem::forget(rows);
                std::mem::forget(statement);
            }
            tx.execute_batch("DROP TABLE t")
        })
        .unwrap();
    assert_eq!(tries, 2);
}

#[test]
fn a_table_locked_in_a_shared_cache_has_a_class_of_its_own() {
    let open = || Connection::open("file:retry-shared?mode=memory&cache=shared").unwrap();
    let (writer, reader) = (open(), open());
    writer
        .execute_batch("CREATE TABLE t(n); BEGIN; INSERT INTO t VALUES (1)")
        .unwrap();
    let mut tries = 0;
    let rows: i64 = quick()
        .statement(&reader, |c| {
            tries += 1;
            let counted = c.query_row("SELECT count(*) FROM t", (), |row| row.get(0));
            if let Err(error) = &counted {
                assert_eq!(Class::of(error), Some(Class::LockedSharedCache));
                writer.execute_batch("COMMIT").unwrap();
            }
            counted
        })
        .unwrap();
    assert_eq!((tries, rows), (2, 1));
}

unsafe extern "C" {
    fn sqlite3_prepare(
        connection: *mut ffi::sqlite3,
        sql: *const std::ffi::c_char,
        length: std::ffi::c_int,
        statement: *mut *mut ffi::sqlite3_stmt,
        rest: *mut *const std::ffi::c_char,
    ) -> std::ffi::c_int;
}

/// SQLite's first interface, which older bindings use, does not prepare a statement
/// again when the schema has changed.
#[test]
fn a_statement_prepared_for_an_older_schema_is_repeated() {
    let home = Home::new();
    let (connection, other) = (home.connect(), home.connect());
    let prepare = || {
        let mut statement = std::ptr::null_mut();
        // SAFETY: a live connection, a text of the length given, a place for the
        // statement, which does not outlive the connection.
        let code = unsafe {
            let (sql, none) = (c"SELECT count(*) FROM t".as_ptr(), std::ptr::null_mut());
            sqlite3_prepare(connection.handle(), sql, -1, &raw mut statement, none)
        };
        assert_eq!(code, ffi::SQLITE_OK);
        statement
    };
    let old = prepare();
    other
        .execute_batch("ALTER TABLE t ADD COLUMN more")
        .unwrap();
    let mut met = Vec::new();
    let found = quick().statement(&connection, |connection| {
        let statement = if met.is_empty() { old } else { prepare() };
        // SAFETY: each statement is stepped once and then finalised, which tells
        // the step's error.
        let (step, code) = unsafe {
            (
                ffi::sqlite3_step(statement),
                ffi::sqlite3_finalize(statement),
            )
        };
        let refused = || rusqlite::Error::SqliteFailure(ffi::Error::new(code), None);
        // As a binding does on such an error, so that the next one is prepared anew.
        connection.query_row("SELECT count(*) FROM t", (), |_| Ok(()))?;
        met.push(Class::of_code(code));
        (step == ffi::SQLITE_ROW).then_some(()).ok_or_else(refused)
    });
    found.unwrap();
    assert_eq!(met, [Some(Class::Schema), None]);
}

#[test]
fn another_bindings_code_is_classified_alike() {
    let mut tries = 0;
    let done = quick().run(
        || {
            tries += 1;
            if tries < 3 {
                return Err(Error::other("code 5"));
            }
            Ok(tries)
        },
        |error| Class::of_code(error.to_string().strip_prefix("code ")?.parse().ok()?),
    );
    assert_eq!(done.unwrap(), 3);
}
