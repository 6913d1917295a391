//! Programs with SQLite linked in, of which less is seen and more inferred.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rusqlite::{Connection, TransactionBehavior};
use serde_json::Value;

use crate::python::home;
use crate::{database, is_behind, row, trace, writer};

/// The program of the tests below: this file, started again.
const ROLE: &str = "ONEPEN_TRACE_TEST_ROLE";

#[test]
fn role() {
    let (Some(role), Some(path)) = (std::env::var_os(ROLE), std::env::var_os("DATABASE")) else {
        return; // only for those tests
    };
    let open = |ms| {
        let connection = Connection::open(&path).unwrap();
        connection.busy_timeout(Duration::from_millis(ms)).unwrap();
        connection
    };
    let insert = "INSERT INTO t VALUES (1)";
    match role.to_str().unwrap() {
        "upgrade" => {
            let mut connection = open(5_000);
            for _ in 0..10 {
                let tx = connection.transaction().unwrap();
                tx.query_row("SELECT n FROM t", [], |_| Ok(())).unwrap();
                tx.execute("UPDATE t SET n = n + 1", []).unwrap_err();
            }
        }
        "snapshot" => {
            let mut connection = open(5_000);
            let tx = connection.transaction().unwrap();
            tx.query_row("SELECT n FROM t", [], |_| Ok(())).unwrap();
            let other = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); \
                         c.execute('INSERT INTO t VALUES (1)'); c.commit()";
            let mut python = Command::new("python3");
            let wrote = python.args(["-c", other]).arg(&path).status().unwrap();
            assert!(wrote.success());
            tx.execute(insert, []).unwrap_err();
        }
        "no-timeout" => {
            // Each on a thread of its own: on one, a try that comes late is a retry.
            for _ in 0..10 {
                let mut connection = open(0);
                let tried = std::thread::spawn(move || {
                    let begun =
                        connection.transaction_with_behavior(TransactionBehavior::Immediate);
                    begun.map(drop)
                });
                tried.join().unwrap().unwrap_err();
            }
        }
        "timeout" => {
            open(300).execute(insert, []).unwrap_err();
        }
        "threads" => {
            let holder = open(0);
            holder.execute_batch("BEGIN IMMEDIATE").unwrap();
            let other = open(300);
            let waits = std::thread::spawn(move || other.execute(insert, []).map(drop));
            waits.join().unwrap().unwrap_err();
        }
        role => panic!("{role}"),
    }
}

fn trace_rust(path: &Path, role: &str) -> Value {
    let (ran, report) = trace(
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "linked_in::role", "--test-threads=1"])
            .env(ROLE, role)
            .env("DATABASE", path),
    );
    assert_eq!(ran.code, 0, "{}{}", ran.stdout, ran.stderr);
    report
}

#[test]
fn in_a_program_with_sqlite_linked_in_it_is_inferred() {
    let (_home, path) = home();
    database(&path, "wal");
    let holder = writer(&path);
    for (role, class, times) in [
        ("upgrade", "deferred-upgrade", 10),
        ("no-timeout", "no-timeout", 10),
        ("timeout", "long-holder", 1),
    ] {
        let report = trace_rust(&path, role);
        let row = row(&report, class);
        assert_eq!(
            (&row["contended"], &row["failed"]),
            (&times.into(), &times.into()),
            "{row:#}"
        );
        assert_eq!(
            (&row["inferred"], &row["statement"]),
            (&true.into(), &Value::Null)
        );
        is_behind(row, &holder);
    }
}

#[test]
fn in_such_a_program_sleeps_tell_of_waits_between_its_threads() {
    let (_home, path) = home();
    database(&path, "wal");
    let report = trace_rust(&path, "threads");
    let row = row(&report, "long-holder");
    assert_eq!(
        (&row["in_process"], &row["inferred"]),
        (&true.into(), &true.into())
    );
    assert!(row["total_ms"].as_f64().unwrap() >= 200.0, "{row:#}");
}

#[test]
fn in_such_a_program_a_write_lock_given_back_at_once_tells_of_an_old_snapshot() {
    let (_home, path) = home();
    database(&path, "wal");
    let report = trace_rust(&path, "snapshot");
    let row = row(&report, "deferred-upgrade");
    assert_eq!(
        (&row["failed"], &row["inferred"]),
        (&1.into(), &true.into())
    );
}

/// Where `better-sqlite3` is, or nothing; `NODE_PATH` has it, or npm gets it.
fn better_sqlite3() -> Option<PathBuf> {
    let has = |modules: &Path| {
        let mut node = Command::new("node");
        node.args(["-e", "new (require('better-sqlite3'))(':memory:')"]);
        node.env("NODE_PATH", modules).stderr(Stdio::null());
        node.status().is_ok_and(|status| status.success())
    };
    let given = std::env::var_os("NODE_PATH").map(PathBuf::from);
    if let Some(modules) = given.filter(|modules| has(modules)) {
        return Some(modules);
    }
    let home = Path::new(env!("CARGO_TARGET_TMPDIR")).join("node");
    let modules = home.join("node_modules");
    if !has(&modules) {
        let npm = Command::new("npm")
            .args(["install", "--no-audit", "--no-fund", "--prefix"])
            .arg(&home)
            .arg("better-sqlite3@12")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        if !npm.is_ok_and(|status| status.success()) || !has(&modules) {
            return None;
        }
    }
    Some(modules)
}

#[test]
fn node_with_better_sqlite3_is_seen() {
    let Some(modules) = better_sqlite3() else {
        eprintln!("skipped: node, npm or better-sqlite3 is missing");
        return;
    };
    let (_home, path) = home();
    database(&path, "wal");
    let holder = writer(&path);
    let program = "
const Database = require('better-sqlite3');
const refused = work => { try { work() } catch (e) { return console.log(e.code) } throw 'not refused' };
const open = timeout => new Database(process.argv[1], { timeout });
const db = open(5000);
const change = db.transaction(() => {
  const { n } = db.prepare('SELECT n FROM t').get();
  db.prepare('UPDATE t SET n = ?').run(n + 1);
});
for (let i = 0; i < 10; i++) refused(change);
refused(() => open(300).exec('INSERT INTO t VALUES (1)'));
refused(() => open(0).exec('INSERT INTO t VALUES (1)'));
";
    let (ran, report) = trace(
        Command::new("node")
            .args(["-e", program])
            .arg(&path)
            .env("NODE_PATH", modules),
    );
    assert_eq!(ran.code, 0, "{}{}", ran.stdout, ran.stderr);
    assert_eq!(ran.stdout, "SQLITE_BUSY\n".repeat(12));
    for (class, times) in [
        ("deferred-upgrade", 10),
        ("no-timeout", 1),
        ("long-holder", 1),
    ] {
        let row = row(&report, class);
        assert_eq!(
            (&row["contended"], &row["failed"]),
            (&times.into(), &times.into()),
            "{report:#}"
        );
        assert_eq!(row["inferred"], true);
        is_behind(row, &holder);
    }
}
