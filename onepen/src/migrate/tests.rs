use std::cell::Cell;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::sync::mpsc;
use std::time::Duration;

use super::*;
use crate::connection::{Connector, Role};
use crate::engine::{GiveUp, Until};
use crate::file::TempHome;
use crate::options::{Journal, Options};

/// A database in a directory of its own.
struct File {
    home: TempHome,
}

impl File {
    fn new() -> Self {
        Self {
            home: TempHome::new().expect("a private directory"),
        }
    }

    fn path(&self) -> PathBuf {
        self.home.path().join("a.db")
    }

    fn open(&self) -> Connection {
        open(&self.path(), Options::new())
    }
}

fn open(path: &Path, options: Options) -> Connection {
    Connector::new(path, options, true)
        .and_then(|connector| connector.open(Role::Writer, &patience()))
        .expect("the database opens")
}

fn patience() -> Until<'static> {
    Until {
        deadline: Some(Instant::now() + Duration::from_secs(20)),
        cancel: None,
    }
}

/// Not at all willing to wait.
struct Now;

impl Patience for Now {
    fn exhausted(&self) -> Option<GiveUp> {
        Some(GiveUp::Deadline)
    }
}

fn count(connection: &Connection, table: &str) -> i64 {
    let sql = format!("SELECT count(*) FROM {table}");
    connection.query_one(&sql, (), |row| row.get(0)).unwrap()
}

fn tables(connection: &Connection) -> i64 {
    count(connection, "sqlite_schema WHERE type = 'table'")
}

fn enforced(connection: &Connection) -> bool {
    connection
        .pragma_query_value(None, "foreign_keys", |row| row.get(0))
        .unwrap()
}

#[test]
fn pending_steps_run_in_order_and_only_they() {
    let file = File::new();
    let mut connection = file.open();
    let first = Migrations::new()
        .step("a", "CREATE TABLE a (n); INSERT INTO a VALUES (1)")
        .step("more a", "INSERT INTO a SELECT n + 1 FROM a");
    assert_eq!(first.run(&mut connection, &patience()).unwrap(), 2);
    assert_eq!(count(&connection, "a"), 2);

    let second = first.step_with("one more", |tx| {
        tx.execute("INSERT INTO a SELECT max(n) + 1 FROM a", ())
            .map(drop)
    });
    assert_eq!(second.run(&mut connection, &patience()).unwrap(), 3);
    assert_eq!(second.run(&mut connection, &patience()).unwrap(), 3);
    assert_eq!(count(&connection, "a"), 3);
    assert_eq!(version_of(&connection).unwrap(), 3);
}

#[test]
fn nothing_to_do_needs_no_lock() {
    let file = File::new();
    let migrations = Migrations::new().step("a", "CREATE TABLE a (n)");
    let (mut one, two) = (file.open(), file.open());
    migrations.run(&mut one, &patience()).unwrap();
    two.execute_batch("BEGIN IMMEDIATE").unwrap();
    assert_eq!(migrations.run(&mut one, &Now).unwrap(), 1);
}

#[test]
fn waiting_for_the_lock_ends_with_the_patience_and_changes_nothing() {
    let file = File::new();
    let migrations = Migrations::new().step("a", "CREATE TABLE a (n)");
    let (mut one, two) = (file.open(), file.open());
    two.execute_batch("BEGIN IMMEDIATE").unwrap();
    let error = migrations.run(&mut one, &Now).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DeadlineExceeded);
    assert_eq!(error.waited().what, WaitedFor::WriteLock);
    assert!(enforced(&one), "the setting is back also after a failure");
    two.execute_batch("COMMIT").unwrap();
    assert_eq!(migrations.run(&mut one, &Now).unwrap(), 1);
}

#[test]
fn a_failing_step_is_named_and_leaves_the_version_there_was() {
    let file = File::new();
    let mut connection = file.open();
    let good = Migrations::new().step("a", "CREATE TABLE a (n)");
    good.run(&mut connection, &patience()).unwrap();

    let bad = good.clone().step("b", "CREATE TABLE b (n)").step(
        "broken",
        "CREATE TABLE c (n); INSERT INTO missing VALUES (1)",
    );
    let error = bad.run(&mut connection, &patience()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Sqlite);
    let text = error.to_string();
    assert!(text.contains("migration to version 3 (`broken`)"), "{text}");
    assert!(text.contains("missing"), "{text}");
    assert_eq!(version_of(&connection).unwrap(), 1);
    assert_eq!(tables(&connection), 1, "b is undone with c");

    let fixed = good
        .step("b", "CREATE TABLE b (n)")
        .step("c", "CREATE TABLE c (n)");
    assert_eq!(fixed.run(&mut connection, &patience()).unwrap(), 3);
}

#[test]
fn an_error_of_the_programs_own_comes_back_as_it_was() {
    let file = File::new();
    let mut connection = file.open();
    let migrations = Migrations::new().step_with("mine", |tx| {
        tx.execute_batch("CREATE TABLE a (n)")?;
        Err(Error::other(std::fmt::Error))
    });
    let error = migrations.run(&mut connection, &patience()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Other);
    assert!(error.downcast_ref::<std::fmt::Error>().is_some());
    assert!(error.to_string().contains("`mine`"), "{error}");
    assert_eq!(tables(&connection), 0);
}

#[test]
fn a_panicking_step_changes_nothing_and_leaves_the_connection_usable() {
    let file = File::new();
    let mut connection = file.open();
    let migrations = Migrations::new().step_with("panics", |tx| -> rusqlite::Result<()> {
        tx.execute_batch("CREATE TABLE a (n)")?;
        panic!("in a step")
    });
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        migrations.run(&mut connection, &patience())
    }));
    assert!(caught.is_err());
    assert!(connection.is_autocommit());
    assert!(enforced(&connection));
    assert_eq!(tables(&connection), 0);
}

#[test]
fn a_newer_database_is_an_error_of_its_own_with_both_versions() {
    let file = File::new();
    let mut connection = file.open();
    let old = Migrations::new().step("a", "CREATE TABLE a (n)");
    let new = old
        .clone()
        .step("b", "CREATE TABLE b (n)")
        .step("c", "CREATE TABLE c (n)");
    new.run(&mut connection, &patience()).unwrap();
    let error = old.run(&mut connection, &patience()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NewerDatabase);
    assert!(error.to_string().contains("version 3"), "{error}");
    assert!(error.to_string().contains("up to 1"), "{error}");
    assert_eq!(tables(&connection), 3);
}

#[test]
fn a_version_that_no_migration_made_is_refused() {
    let file = File::new();
    let mut connection = file.open();
    connection.pragma_update(None, "user_version", -7).unwrap();
    let migrations = Migrations::new().step("a", "CREATE TABLE a (n)");
    let error = migrations.run(&mut connection, &patience()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert!(error.to_string().contains("-7"), "{error}");
}

#[test]
fn reading_only_works_when_up_to_date_and_says_what_is_missing_otherwise() {
    let file = File::new();
    let one = Migrations::new().step("a", "CREATE TABLE a (n)");
    one.run(&mut file.open(), &patience()).unwrap();
    let mut reader = open(&file.path(), Options::new().read_only(true));
    assert_eq!(one.run(&mut reader, &patience()).unwrap(), 1);
    let two = one.step("b", "CREATE TABLE b (n)");
    let error = two.run(&mut reader, &patience()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert!(error.to_string().contains("at version 1"), "{error}");
    assert!(error.to_string().contains("needs 2"), "{error}");
}

#[test]
fn a_step_may_not_begin_or_end_a_transaction() {
    let file = File::new();
    let mut connection = file.open();
    for control in [
        "BEGIN",
        "commit",
        "END TRANSACTION",
        "ROLLBACK",
        "/* now */ -- really\n COMMIT",
    ] {
        let sql = format!("CREATE TABLE a (n); {control}; CREATE TABLE b (n)");
        let error = Migrations::new()
            .step("sneaky", sql)
            .run(&mut connection, &patience())
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotAllowed, "{control}");
        assert!(error.to_string().contains("`sneaky`"), "{error}");
        assert_eq!(tables(&connection), 0, "{control}");
    }
    // Code can, but it does not pass for a success.
    for control in ["COMMIT", "ROLLBACK"] {
        let error = Migrations::new()
            .step_with("sneaky", move |tx| tx.execute_batch(control))
            .run(&mut connection, &patience())
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TransactionLost);
        assert!(enforced(&connection));
    }
}

#[test]
fn savepoints_and_triggers_are_no_transaction_control() {
    let file = File::new();
    let mut connection = file.open();
    Migrations::new()
        .step(
            "all of it",
            "CREATE TABLE a (n); ; -- a comment
             CREATE TRIGGER t AFTER INSERT ON a BEGIN UPDATE a SET n = 7; END;
             SAVEPOINT one; INSERT INTO a VALUES (1);
             ROLLBACK TRANSACTION TO SAVEPOINT one; ROLLBACK TO one; RELEASE one;
             INSERT INTO a VALUES (2); SELECT n FROM a; PRAGMA table_info(a); -- the end",
        )
        .run(&mut connection, &patience())
        .unwrap();
    assert_eq!(count(&connection, "a WHERE n = 7"), 1);
}

#[test]
fn a_table_is_rebuilt_without_losing_the_rows_that_refer_to_it() {
    let file = File::new();
    let mut connection = file.open();
    let first = Migrations::new().step(
        "tables",
        "CREATE TABLE parent (id INTEGER PRIMARY KEY, n);
         CREATE TABLE child (p REFERENCES parent (id) ON DELETE CASCADE);
         INSERT INTO parent VALUES (1, 'x'); INSERT INTO child VALUES (1);",
    );
    first.run(&mut connection, &patience()).unwrap();
    let second = first.step(
        "rebuild",
        "CREATE TABLE new (id INTEGER PRIMARY KEY, n NOT NULL);
         INSERT INTO new SELECT * FROM parent;
         DROP TABLE parent; ALTER TABLE new RENAME TO parent;",
    );
    second.run(&mut connection, &patience()).unwrap();
    assert_eq!(count(&connection, "child"), 1, "DROP TABLE cascades not");
    assert!(enforced(&connection));
    assert!(
        connection
            .execute("INSERT INTO child VALUES (2)", ())
            .is_err()
    );
}

#[test]
fn broken_references_fail_before_commit_and_are_named() {
    let file = File::new();
    let migrations = Migrations::new().step(
        "broken",
        "CREATE TABLE parent (id INTEGER PRIMARY KEY);
         CREATE TABLE child (p REFERENCES parent (id));
         INSERT INTO child VALUES (1), (2);",
    );
    let mut connection = file.open();
    let error = migrations.run(&mut connection, &patience()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotAllowed);
    assert!(
        error.to_string().contains("2 in `child` to `parent`"),
        "{error}"
    );
    assert_eq!(tables(&connection), 0);

    // Whoever does not enforce them is not checked, and stays so.
    let mut lenient = open(&file.path(), Options::new().foreign_keys(false));
    migrations.run(&mut lenient, &patience()).unwrap();
    assert!(!enforced(&lenient));
}

#[test]
fn migrations_work_over_a_rollback_journal() {
    let file = File::new();
    let options = || Options::new().journal(Journal::Rollback);
    let (mut one, two) = (open(&file.path(), options()), open(&file.path(), options()));
    two.execute_batch("CREATE TABLE old (n); INSERT INTO old VALUES (1)")
        .unwrap();
    let migrations = Migrations::new().step("a", "CREATE TABLE a (n)");

    // A reader stands in the way of the COMMIT, which must not roll back but
    // wait for it.
    struct UntilAsked<'a>(&'a Connection, Cell<u32>);
    impl Patience for UntilAsked<'_> {
        fn exhausted(&self) -> Option<GiveUp> {
            self.1.set(self.1.get() + 1);
            self.0.execute_batch("COMMIT").unwrap();
            None
        }
    }
    two.execute_batch("BEGIN").unwrap();
    assert_eq!(count(&two, "old"), 1);
    let patience = UntilAsked(&two, Cell::new(0));
    assert_eq!(migrations.run(&mut one, &patience).unwrap(), 1);
    assert_eq!(patience.1.get(), 1, "the reader was met");
    assert_eq!(tables(&two), 2);
}

/// The interleaving that makes others migrate twice, written out: both see
/// version 0, one migrates, and then the other gets the lock.
#[test]
fn the_version_is_read_again_under_the_lock() {
    static RUNS: AtomicU32 = AtomicU32::new(0);

    /// Tells that the lock was refused.
    struct Telling(mpsc::Sender<()>);
    impl Patience for Telling {
        fn exhausted(&self) -> Option<GiveUp> {
            let _ = self.0.send(());
            patience().exhausted()
        }
    }

    let file = File::new();
    let (told, refused) = mpsc::channel();
    let (holding, held) = mpsc::channel();
    let refused = std::sync::Mutex::new(refused);
    let fast = Migrations::new().step_with("once", move |tx| {
        RUNS.fetch_add(1, SeqCst);
        holding.send(()).unwrap();
        // Goes on when the slow one has seen version 0 and met our lock.
        refused.lock().unwrap().recv().unwrap();
        tx.execute_batch("CREATE TABLE a (n)")
    });
    let slow = Migrations::new().step_with("once", |tx| {
        RUNS.fetch_add(1, SeqCst);
        tx.execute_batch("CREATE TABLE a (n)")
    });
    let (mut one, mut two) = (file.open(), file.open());
    std::thread::scope(|scope| {
        let fast = scope.spawn(move || fast.run(&mut one, &patience()));
        held.recv().unwrap();
        assert_eq!(slow.run(&mut two, &Telling(told)).unwrap(), 1);
        assert_eq!(fast.join().unwrap().unwrap(), 1);
    });
    assert_eq!(RUNS.load(SeqCst), 1);
}

const CHILD: &str = "ONEPEN_TEST_MIGRATE";

/// Not a rule but the other side of the next test: started by it as a process.
#[test]
fn child_process_that_opens_and_migrates() {
    let Some(path) = std::env::var_os(CHILD) else {
        return;
    };
    let migrations = (0..5).fold(Migrations::new(), |migrations, step| {
        let name = format!("step {step}");
        migrations.step_with(name, move |tx| {
            tx.execute_batch("CREATE TABLE IF NOT EXISTS ran (step, pid)")?;
            tx.execute(
                "INSERT INTO ran VALUES (?1, ?2)",
                (step, std::process::id()),
            )
            .map(drop)
        })
    });
    println!("\nready");
    // The starting gate: the parent closes our input.
    std::io::copy(&mut std::io::stdin(), &mut std::io::sink()).unwrap();
    let mut connection = open(Path::new(&path), Options::new());
    let version = migrations.run(&mut connection, &patience()).unwrap();
    assert_eq!(version, 5);
}

#[test]
fn many_processes_starting_at_once_migrate_once() {
    let file = File::new();
    let test = "migrate::tests::child_process_that_opens_and_migrates";
    let mut children: Vec<_> = (0..8)
        .map(|_| {
            Command::new(std::env::current_exe().unwrap())
                .args([test, "--exact", "--nocapture", "--test-threads=1"])
                .env(CHILD, file.path())
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap()
        })
        .collect();
    let mut outputs: Vec<_> = children
        .iter_mut()
        .map(|child| BufReader::new(child.stdout.take().unwrap()).lines())
        .collect();
    for output in &mut outputs {
        assert!(
            output.any(|line| line.unwrap() == "ready"),
            "a child did not get as far as the starting gate"
        );
    }
    for child in &mut children {
        drop(child.stdin.take());
    }
    for (child, output) in children.iter_mut().zip(outputs) {
        let said: Vec<_> = output.map_while(std::io::Result::ok).collect();
        assert!(child.wait().unwrap().success(), "{said:#?}");
    }
    let connection = file.open();
    assert_eq!(version_of(&connection).unwrap(), 5);
    assert_eq!(count(&connection, "ran"), 5, "each step ran once");
    assert_eq!(count(&connection, "(SELECT DISTINCT pid FROM ran)"), 1);
}
