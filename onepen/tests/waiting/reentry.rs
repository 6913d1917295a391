//! A write within a write would wait for itself: it is an error, in every form.

use onepen::{ErrorKind, Result};

use crate::common::{Scene, block_on};

const TABLE: &str = "CREATE TABLE t(n INTEGER PRIMARY KEY);";
const SQL: &str = "INSERT INTO t VALUES (1)";

/// Runs `inner` in a closure on the caller's thread, on the writer thread, and
/// in an exclusive one.
fn within(inner: impl Fn(&onepen::Database) + Clone + Send + Sync + 'static) {
    let scene = Scene::new(TABLE);
    let db = &scene.db;
    db.write(|_| {
        inner(db);
        Ok(())
    })
    .unwrap();
    db.exclusively(|_| {
        inner(db);
        Ok(())
    })
    .unwrap();
    let (on_the_writer, handle) = (inner.clone(), db.clone());
    block_on(db.write_async(move |_| {
        on_the_writer(&handle);
        Ok(())
    }))
    .unwrap();
    assert_eq!(scene.number("SELECT count(*) FROM t"), 0);
    db.execute(SQL, ()).unwrap();
}

fn is_reentrant<T: std::fmt::Debug>(answer: Result<T>) {
    let error = answer.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Reentrant, "{error}");
}

#[test]
fn a_blocking_write_within_a_write_is_an_error() {
    within(|db| {
        is_reentrant(db.write(|tx| tx.execute(SQL, ())));
        is_reentrant(db.write_once(|tx| tx.execute(SQL, ())));
        is_reentrant(db.execute(SQL, ()));
        is_reentrant(db.execute_many(SQL, [()]));
        is_reentrant(db.exclusively(|connection| Ok(connection.execute(SQL, ())?)));
    });
}

#[test]
fn waiting_for_an_asynchronous_write_within_a_write_is_an_error() {
    within(|db| {
        is_reentrant(block_on(db.execute_async(SQL, ())));
        is_reentrant(block_on(db.write_once_async(|tx| tx.execute(SQL, ()))));
        is_reentrant(block_on(
            db.exclusively_async(|connection| Ok(connection.execute(SQL, ())?)),
        ));
    });
}

#[test]
fn waiting_for_a_submitted_write_within_a_write_is_an_error() {
    let scene = Scene::new(TABLE);
    let db = &scene.db;
    db.write(|_| {
        is_reentrant(
            db.submit(|tx| tx.execute("INSERT INTO t VALUES (1)", ()))
                .unwrap()
                .wait(),
        );
        is_reentrant(block_on(
            db.submit(|tx| tx.execute("INSERT INTO t VALUES (2)", ()))
                .unwrap(),
        ));
        Ok(())
    })
    .unwrap();
    // They were submitted, so they run, after the closure that could not wait.
    db.execute("INSERT INTO t VALUES (3)", ()).unwrap();
    assert_eq!(scene.numbers("SELECT n FROM t"), [1, 2, 3]);
}

#[test]
fn submit_within_a_write_runs_after_it() {
    let scene = Scene::new(TABLE);
    let db = &scene.db;
    let later = db
        .write(|tx| {
            let later = db.submit(|tx| {
                tx.query_row("SELECT count(*) FROM t", (), |row| row.get::<_, i64>(0))
            })?;
            tx.execute(SQL, ())?;
            assert!(!later.is_done());
            Ok(later)
        })
        .unwrap();
    assert_eq!(later.wait().unwrap(), 1);
}

/// Nobody could make room while it waits.
#[test]
fn submit_within_a_write_does_not_wait_for_space_in_the_queue() {
    let options = crate::common::options().queue(1, usize::MAX, onepen::WhenFull::Wait);
    let scene = Scene::with(options, TABLE);
    let db = &scene.db;
    let (first, second) = db
        .write(|_| {
            let insert =
                |n: i64| db.submit(move |tx| tx.execute("INSERT INTO t VALUES (?1)", (n,)));
            Ok((insert(1)?, insert(2)?))
        })
        .unwrap();
    assert_eq!(first.wait().unwrap(), 1);
    assert_eq!(second.wait().unwrap(), 1);
    assert_eq!(scene.numbers("SELECT n FROM t"), [1, 2]);
}

#[test]
fn a_write_to_another_database_within_a_write_is_fine() {
    let (one, other) = (Scene::new(TABLE), Scene::new(TABLE));
    one.db
        .write(|tx| {
            other.db.execute(SQL, ())?;
            is_reentrant(other.db.write(|_| one.db.execute(SQL, ())));
            tx.execute(SQL, ())
        })
        .unwrap();
    assert_eq!(one.number("SELECT count(*) FROM t"), 1);
    assert_eq!(other.number("SELECT count(*) FROM t"), 1);
}

/// The mark is taken off however a closure ends.
#[test]
fn after_a_panic_the_thread_may_write_again() {
    let scene = Scene::new(TABLE);
    let db = &scene.db;
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        db.write(|_| -> Result<()> { std::panic::resume_unwind(Box::new(())) })
    }))
    .unwrap_err();
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        db.exclusively(|_| -> Result<()> { std::panic::resume_unwind(Box::new(())) })
    }))
    .unwrap_err();
    db.execute(SQL, ()).unwrap();
    assert_eq!(scene.numbers("SELECT n FROM t"), [1]);
}
