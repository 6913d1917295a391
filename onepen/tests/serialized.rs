//! One connection and many threads: sections are whole, and nothing that belongs
//! to a thread leaves it. And the types that say so.

use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

use onepen::threading::{MultiThread, Serialized, SingleThread, ThreadingMode};
use onepen::{Error, ErrorKind, WaitedFor};

/// Whether a type implements a trait, found out by the compiler: an inherent
/// constant, which is there only if it does, goes before a trait's.
macro_rules! implements {
    ($type:ty: $bound:path) => {{
        #[allow(dead_code)]
        trait Otherwise {
            const ANSWER: bool = false;
        }
        impl<T: ?Sized> Otherwise for T {}
        #[allow(dead_code)]
        struct Ask<T: ?Sized>(std::marker::PhantomData<T>);
        #[allow(dead_code)]
        impl<T: ?Sized + $bound> Ask<T> {
            const ANSWER: bool = true;
        }
        <Ask<$type>>::ANSWER
    }};
}

#[test]
fn the_types_say_which_threads_may_have_what() {
    // The question itself can answer both ways.
    assert!(implements!(u8: Send) && !implements!(std::rc::Rc<u8>: Send));

    assert!(implements!(MultiThread: Send) && !implements!(MultiThread: Sync));
    assert!(implements!(Serialized: Send) && implements!(Serialized: Sync));
    assert!(!implements!(SingleThread: Send) && !implements!(SingleThread: Sync));

    assert!(!implements!(rusqlite::Statement<'static>: Send));
    assert!(!implements!(rusqlite::Rows<'static>: Send));
    assert!(!implements!(rusqlite::Row<'static>: Send));
    assert!(!implements!(rusqlite::Transaction<'static>: Send));
    assert!(!implements!(rusqlite::CachedStatement<'static>: Send));
    // What a section is lent does not leave its thread either.
    assert!(!implements!(&'static rusqlite::Connection: Send));
}

fn table() -> Serialized {
    let shared = Serialized::open_in_memory().unwrap();
    shared
        .with(|c| Ok(c.execute_batch("CREATE TABLE a(id INTEGER PRIMARY KEY, n UNIQUE)")?))
        .unwrap();
    shared
}

#[test]
fn counts_ids_and_messages_belong_to_the_section_that_asks() {
    let shared = table();
    assert_eq!(shared.effective_mode(), ThreadingMode::Serialized);
    std::thread::scope(|scope| {
        for thread in 0..4_i64 {
            let shared = &shared;
            scope.spawn(move || {
                for round in 0..200_i64 {
                    let n = thread * 1000 + round;
                    shared
                        .with(|c| {
                            c.execute("INSERT INTO a(n) VALUES (?1)", (n,))?;
                            let id = c.last_insert_rowid();
                            let found: i64 =
                                c.query_row("SELECT id FROM a WHERE n = ?1", (n,), |r| r.get(0))?;
                            assert_eq!(id, found);
                            c.execute("UPDATE a SET n = n WHERE n / 1000 = ?1", (thread,))?;
                            assert_eq!(c.changes().cast_signed(), round + 1);
                            let wrong = format!("SELECT column_of_thread_{thread}");
                            let text = c.execute(&wrong, ()).unwrap_err().to_string();
                            assert!(
                                text.contains(&format!("column_of_thread_{thread}")),
                                "{text}"
                            );
                            Ok(())
                        })
                        .unwrap();
                }
            });
        }
    });
}

#[test]
fn a_section_keeps_everybody_else_out_until_it_ends() {
    let shared = Arc::new(table());
    let (entered, is_inside) = channel();
    let (end, may_end) = channel::<()>();
    let holder = {
        let shared = Arc::clone(&shared);
        std::thread::spawn(move || {
            shared.with(|_| {
                entered.send(()).unwrap();
                may_end.recv().unwrap();
                Ok(())
            })
        })
    };
    is_inside.recv().unwrap();
    let error = shared.with_within(Duration::ZERO, |_| Ok(())).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DeadlineExceeded);
    assert_eq!(error.waited().what, WaitedFor::Connection);
    let error = shared
        .with_within(Duration::from_millis(5), |_| Ok(()))
        .unwrap_err();
    assert!(
        error.waited().how_long >= Duration::from_millis(5),
        "{error}"
    );
    // Asking for the mode waits for nobody.
    assert_eq!(shared.effective_mode(), ThreadingMode::Serialized);
    end.send(()).unwrap();
    holder.join().unwrap().unwrap();
    shared
        .with_within(Duration::from_secs(60), |_| Ok(()))
        .unwrap();
}

#[test]
fn a_section_within_a_section_is_refused() {
    let shared = Arc::new(table());
    let error = shared.with(|_| shared.with(|_| Ok(()))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Reentrant);
    // Another connection on the same thread is another matter.
    let other = table();
    shared.with(|_| other.with(|_| Ok(()))).unwrap();
    // The refusal leaves the section as it was.
    shared.with(|c| Ok(c.execute_batch("SELECT 1")?)).unwrap();
}

#[test]
fn a_transaction_left_open_is_rolled_back_and_reported() {
    let shared = table();
    let error = shared
        .with(|c| Ok(c.execute_batch("BEGIN; INSERT INTO a(n) VALUES (1)")?))
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TransactionLost);
    shared
        .with(|c| {
            assert!(c.is_autocommit());
            assert_eq!(
                c.query_row("SELECT count(*) FROM a", (), |r| r.get::<_, i64>(0))?,
                0
            );
            Ok(())
        })
        .unwrap();
    // An error of the section's own is what comes back.
    let error = shared
        .with(|c| {
            c.execute_batch("BEGIN; INSERT INTO a(n) VALUES (1)")?;
            Err::<(), _>(Error::other("changed my mind"))
        })
        .unwrap_err();
    assert_eq!(error.to_string(), "changed my mind");
    assert!(shared.with(|c| Ok(c.is_autocommit())).unwrap());
}

#[test]
fn a_section_that_panics_lets_go_and_leaves_nothing_open() {
    let shared = table();
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        shared.with(|c| -> onepen::Result<()> {
            c.execute_batch("BEGIN; INSERT INTO a(n) VALUES (1)")?;
            panic!("on purpose");
        })
    }));
    assert!(panicked.is_err());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let rows = shared.with_within(Duration::from_secs(60), |c| {
                assert!(c.is_autocommit());
                Ok(c.query_row("SELECT count(*) FROM a", (), |r| r.get::<_, i64>(0))?)
            });
            assert_eq!(rows.unwrap(), 0);
        });
    });
}

#[test]
fn a_forgotten_statement_does_not_outlast_its_section() {
    let shared = table();
    shared
        .with(|c| {
            c.execute("INSERT INTO a(n) VALUES (1), (2)", ())?;
            let mut statement = c.prepare("SELECT n FROM a")?;
            let mut rows = statement.query(())?;
            rows.next()?;
            std::mem::forget(rows);
            std::mem::forget(statement);
            assert!(c.is_busy());
            Ok(())
        })
        .unwrap();
    shared
        .with(|c| {
            assert!(!c.is_busy());
            Ok(())
        })
        .unwrap();
}

/// SQLite refuses to close a connection that has statements.
#[test]
fn a_forgotten_statement_does_not_keep_the_file_open() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("app.db");
    let shared = Serialized::open(&path).unwrap();
    shared
        .with(|c| {
            c.pragma_update(None, "journal_mode", "wal")?;
            c.execute_batch("CREATE TABLE a(n)")?;
            std::mem::forget(c.prepare("SELECT n FROM a")?);
            Ok(())
        })
        .unwrap();
    let log = dir.path().join("app.db-wal");
    assert!(log.exists());
    drop(shared);
    // The last to close takes it away.
    assert!(!log.exists());
}

#[test]
fn any_thread_may_interrupt_a_section() {
    let shared = Arc::new(table());
    let (entered, is_inside) = channel();
    let endless = {
        let shared = Arc::clone(&shared);
        std::thread::spawn(move || {
            shared.with(|c| {
                let mut statement = c.prepare(
                    "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t) \
                     SELECT n FROM t",
                )?;
                let mut rows = statement.query(())?;
                rows.next()?;
                entered.send(()).unwrap();
                while rows.next()?.is_some() {}
                Ok(())
            })
        })
    };
    is_inside.recv().unwrap();
    shared.interrupt().unwrap();
    let error = endless.join().unwrap().unwrap_err();
    assert_eq!(error.sqlite_code(), Some(rusqlite::ffi::SQLITE_INTERRUPT));
    shared.with(|_| Ok(())).unwrap();
}
