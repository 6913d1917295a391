//! `onepen trace`: real programs, unmodified, and what it says of them.
//!
//! Strangers that have a lock are Python programs of the test; the traced program
//! is Python (a shared SQLite), Node (`better-sqlite3`, SQLite linked in and
//! hidden) or this very file's (rusqlite, SQLite linked in).

#![cfg(target_os = "linux")]

mod common;
#[path = "../../onepen-lock/tests/common/mod.rs"]
mod python;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use common::Ran;
use python::Python;
use rusqlite::{Connection, TransactionBehavior};
use serde_json::Value;
use tempfile::TempDir;

fn home() -> (TempDir, PathBuf) {
    let home = TempDir::new().expect("a directory");
    let path = home.path().join("app.db");
    (home, path)
}

fn database(path: &Path, mode: &str) {
    let connection = Connection::open(path).unwrap();
    let set = format!("PRAGMA journal_mode={mode}");
    connection.query_row(&set, [], |_| Ok(())).unwrap();
    connection
        .execute_batch("CREATE TABLE t(n); INSERT INTO t VALUES (0)")
        .unwrap();
}

/// Traces a program; its report is JSON.
fn trace(command: &mut Command) -> (Ran, Value) {
    let program = command.get_program().to_owned();
    let arguments: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
    let mut traced = Command::new(env!("CARGO_BIN_EXE_onepen"));
    for (name, value) in command.get_envs() {
        traced.env(name, value.expect("set"));
    }
    let home = TempDir::new().unwrap();
    let report = home.path().join("report.json");
    let output = traced
        .args(["trace", "--json", "--output"])
        .arg(&report)
        .arg("--")
        .arg(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let ran = Ran {
        code: output.status.code().unwrap(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    };
    let json = std::fs::read_to_string(&report).unwrap_or_default();
    let json = serde_json::from_str(&json).unwrap_or(Value::Null);
    (ran, json)
}

const START: &str = "
import os, signal, sqlite3, sys, threading, time
path = sys.argv[1]
def connect(timeout, **more):
    return sqlite3.connect(path, isolation_level=None, timeout=timeout, **more)
def refused(c, sql):
    try: c.execute(sql).fetchall()
    except sqlite3.OperationalError as e: print(e, flush=True)
    else: raise SystemExit('it was not refused: ' + sql)
";

fn trace_python(path: &Path, program: &str) -> (Ran, Value) {
    let (ran, report) = trace(
        Command::new("python3")
            .args(["-c", &format!("{START}{program}")])
            .arg(path),
    );
    assert_eq!(ran.code, 0, "{}{}", ran.stdout, ran.stderr);
    assert_eq!(report["schema"], "onepen-trace/1");
    assert_eq!(report["dropped"], 0);
    (ran, report)
}

/// Its one row of this class.
#[track_caller]
fn row<'a>(report: &'a Value, class: &str) -> &'a Value {
    let rows = report["contentions"].as_array().expect("rows");
    let found: Vec<_> = rows.iter().filter(|it| it["class"] == class).collect();
    assert_eq!(found.len(), 1, "one {class} in {report:#}");
    assert_eq!(found[0]["guide"], format!("docs/guide/trace.md#{class}"));
    found[0]
}

/// Somebody untraced who has the write lock.
fn writer(path: &Path) -> Python {
    Python::at_gate(path, "c = connect(); c.execute('BEGIN IMMEDIATE'); gate()")
}

#[track_caller]
fn is_behind(row: &Value, holder: &Python) {
    let who = row["holders"][0]["who"].as_str().unwrap();
    assert!(
        who.contains(&format!("(pid {}, not traced)", holder.pid())),
        "{row:#}"
    );
}

#[test]
fn a_deferred_upgrade_is_told_with_its_statement_and_without_literals() {
    for mode in ["wal", "delete"] {
        let (_home, path) = home();
        database(&path, mode);
        let holder = writer(&path);
        let (ran, report) = trace_python(
            &path,
            "
c = connect(30)
c.execute('BEGIN'); c.execute('SELECT n FROM t').fetchall()
refused(c, \"UPDATE t SET n = 4711 WHERE n = 'hush'\")
",
        );
        assert_eq!(ran.stdout, "database is locked\n");
        let class = if mode == "wal" {
            "deferred-upgrade"
        } else {
            "journal-upgrade"
        };
        let row = row(&report, class);
        assert_eq!(row["statement"], "UPDATE t SET n = ? WHERE n = ?");
        assert_eq!((&row["contended"], &row["failed"]), (&1.into(), &1.into()));
        assert_eq!(
            (&row["timeout_ms"], &row["inferred"]),
            (&30_000.into(), &false.into())
        );
        is_behind(row, &holder);
        assert!(!report.to_string().contains("hush"), "no literal is told");
    }
}

#[test]
fn a_snapshot_that_is_too_old_to_write_is_a_deferred_upgrade() {
    let (_home, path) = home();
    database(&path, "wal");
    let (_, report) = trace_python(
        &path,
        "
c, d = connect(5), connect(5)
c.execute('BEGIN'); c.execute('SELECT n FROM t').fetchall()
d.execute('INSERT INTO t VALUES (1)')
refused(c, 'INSERT INTO t VALUES (2)')
",
    );
    let row = row(&report, "deferred-upgrade");
    assert_eq!(
        (&row["failed"], &row["in_process"]),
        (&1.into(), &true.into())
    );
}

#[test]
fn who_has_no_timeout_is_told_so() {
    let (_home, path) = home();
    database(&path, "wal");
    let holder = writer(&path);
    let (_, report) = trace_python(&path, "refused(connect(0), 'INSERT INTO t VALUES (1)')");
    let row = row(&report, "no-timeout");
    assert_eq!(
        (&row["timeout_ms"], &row["inferred"]),
        (&0.into(), &false.into())
    );
    is_behind(row, &holder);
}

#[test]
fn one_who_holds_it_for_long_is_named_and_the_wait_is_measured() {
    let (_home, path) = home();
    database(&path, "wal");
    let holder = writer(&path);
    let (_, report) = trace_python(&path, "refused(connect(0.3), 'INSERT INTO t VALUES (1)')");
    let row = row(&report, "long-holder");
    assert_eq!(
        (&row["failed"], &row["timeout_ms"]),
        (&1.into(), &300.into())
    );
    assert!(row["total_ms"].as_f64().unwrap() >= 250.0, "{row:#}");
    is_behind(row, &holder);
}

#[test]
fn between_connections_of_one_process_too_where_sqlite_is_shared() {
    let (_home, path) = home();
    database(&path, "wal");
    let (_, report) = trace_python(
        &path,
        "
c = connect(5); c.execute('BEGIN IMMEDIATE')
refused(connect(0.2), 'INSERT INTO t VALUES (1)')
",
    );
    let row = row(&report, "long-holder");
    assert_eq!(
        (&row["in_process"], &row["failed"]),
        (&true.into(), &1.into())
    );
    assert!(row["held_ms"].as_f64().unwrap() >= 100.0, "{row:#}");
}

#[test]
fn a_wait_that_ends_well_is_told_as_well() {
    let (_home, path) = home();
    database(&path, "wal");
    let (_, report) = trace_python(
        &path,
        "
parent, child = os.pipe()
if os.fork() == 0:
    c = connect(5); c.execute('BEGIN IMMEDIATE'); os.write(child, b'x')
    time.sleep(0.3); c.execute('COMMIT'); os._exit(0)
os.read(parent, 1)
connect(5).execute('INSERT INTO t VALUES (1)'); os.wait()
",
    );
    let row = row(&report, "long-holder");
    assert_eq!((&row["contended"], &row["failed"]), (&1.into(), &0.into()));
    assert_eq!(
        (&row["held_by"], &row["inferred"]),
        (&"BEGIN IMMEDIATE".into(), &false.into())
    );
    assert!(row["held_ms"].as_f64().unwrap() >= 200.0, "{row:#}");
    assert_eq!(
        report["processes"].as_array().unwrap().len(),
        2,
        "{report:#}"
    );
}

#[test]
fn switching_the_journal_while_others_read_is_told() {
    let (_home, path) = home();
    database(&path, "delete");
    let _reader = Python::at_gate(
        &path,
        "c = connect(); c.execute('BEGIN'); c.execute('SELECT * FROM t').fetchall(); gate()",
    );
    let (_, report) = trace_python(&path, "refused(connect(0.1), 'PRAGMA journal_mode=WAL')");
    let row = row(&report, "opening");
    assert_eq!(row["statement"], "PRAGMA journal_mode=WAL");
    assert_eq!(row["inferred"], false);
}

#[test]
fn a_commit_behind_readers_over_a_rollback_journal_is_told() {
    let (_home, path) = home();
    database(&path, "delete");
    let _reader = Python::at_gate(
        &path,
        "c = connect(); c.execute('BEGIN'); c.execute('SELECT * FROM t').fetchall(); gate()",
    );
    let (_, report) = trace_python(&path, "refused(connect(0.1), 'INSERT INTO t VALUES (1)')");
    row(&report, "rollback-journal");
}

#[test]
fn a_checkpoint_and_readers_are_told_apart_by_who_waits() {
    let (_home, path) = home();
    database(&path, "wal");
    let reader =
        "c = connect(); c.execute('BEGIN'); c.execute('SELECT * FROM t').fetchall(); gate()";
    let _reader = Python::at_gate(&path, reader);
    let checkpoint = "
c = connect(0.2); c.execute('INSERT INTO t VALUES (1)')
print(c.execute('PRAGMA wal_checkpoint(TRUNCATE)').fetchone()[0])
";
    let (ran, report) = trace_python(&path, checkpoint);
    assert_eq!(ran.stdout, "1\n", "SQLite says that it was busy");
    let behind = row(&report, "checkpoint-behind-readers");
    is_behind(behind, &_reader);
    assert!(behind["total_ms"].as_f64().unwrap() >= 100.0, "{behind:#}");

    // Now another is at the checkpoint, with the write lock in hand.
    let _checkpointer = Python::at_gate(
        &path,
        "
c = sqlite3.connect(path, isolation_level=None, timeout=60, check_same_thread=False)
threading.Thread(target=lambda: c.execute('PRAGMA wal_checkpoint(TRUNCATE)'), daemon=True).start()
while True:
    f = open('/proc/locks').read()
    ino = ':%d ' % os.stat(path + '-shm').st_ino
    if any(ino in l and ' %d ' % os.getpid() in l and l.split()[6:8] == ['120', '121'] for l in f.splitlines()): break
gate()
",
    );
    let (_, report) = trace_python(&path, "refused(connect(0.1), 'INSERT INTO t VALUES (1)')");
    row(&report, "checkpoint");
}

#[test]
fn a_shared_cache_is_known_by_its_answer() {
    let (_home, path) = home();
    database(&path, "wal");
    let (_, report) = trace_python(
        &path,
        "
uri = 'file:' + path + '?cache=shared'
c, d = [sqlite3.connect(uri, uri=True, isolation_level=None) for _ in range(2)]
c.execute('BEGIN IMMEDIATE'); c.execute('INSERT INTO t VALUES (1)')
refused(d, 'SELECT * FROM t')
",
    );
    assert_eq!(row(&report, "shared-cache")["failed"], 1);
}

/// As many copies as there are: the loader takes a copy of the file for another.
#[test]
fn a_second_library_that_locks_the_same_file_is_named() {
    let (home, path) = home();
    database(&path, "wal");
    let (ran, report) = trace_python(
        &path,
        &format!(
            "
import _sqlite3, ctypes, shutil
c = connect(5); c.execute('INSERT INTO t VALUES (1)')
mine = [l.split()[-1] for l in open('/proc/self/maps') if 'libsqlite3' in l]
if not mine: print('no shared SQLite'); raise SystemExit
copy = {:?}; shutil.copy(mine[0], copy)
other = ctypes.CDLL(copy); db = ctypes.c_void_p()
assert other.sqlite3_open(path.encode(), ctypes.byref(db)) == 0
other.sqlite3_exec(db, b'INSERT INTO t VALUES (2)', None, None, None)
",
            home.path().join("libother.so")
        ),
    );
    if ran.stdout.contains("no shared SQLite") {
        eprintln!("skipped: this Python has its SQLite linked in");
        return;
    }
    let more = row(&report, "two-libraries")["more"].as_str().unwrap();
    assert!(
        more.contains("libother.so") && more.contains("libsqlite3"),
        "{more}"
    );
}

#[test]
fn locks_that_a_descriptor_takes_with_it_are_told() {
    let (_home, path) = home();
    database(&path, "delete");
    let (_, report) = trace_python(
        &path,
        "
c = connect(5); c.execute('BEGIN IMMEDIATE'); c.execute('INSERT INTO t VALUES (1)')
os.close(os.open(path, os.O_RDONLY))
os._exit(0)
",
    );
    assert_eq!(row(&report, "locks-dropped")["contended"], 1);
}

#[test]
fn a_killed_process_leaves_what_it_had_noted() {
    let (_home, path) = home();
    database(&path, "wal");
    let _holder = writer(&path);
    let program = format!(
        "{START}
c = connect(0); refused(c, 'INSERT INTO t VALUES (1)')
signal.setitimer(signal.ITIMER_REAL, 0.3); signal.signal(signal.SIGALRM, signal.SIG_DFL)
connect(60).execute('INSERT INTO t VALUES (2)')
"
    );
    let (ran, report) = trace(Command::new("python3").args(["-c", &program]).arg(&path));
    assert_eq!(ran.code, 128 + 14, "{}", ran.stderr);
    assert_eq!(
        report["exit"],
        serde_json::json!({"code": 142, "signal": 14})
    );
    assert_eq!(row(&report, "no-timeout")["failed"], 1);
    let row = row(&report, "long-holder");
    assert_eq!(row["contended"], 1);
    assert!(row["total_ms"].as_f64().unwrap() > 50.0, "{row:#}");
}

#[test]
fn the_programs_output_and_status_are_its_own() {
    let (ran, report) = trace(Command::new("sh").args(["-c", "echo out; echo err >&2; exit 7"]));
    assert_eq!(
        (ran.code, &*ran.stdout, &*ran.stderr),
        (7, "out\n", "err\n")
    );
    assert_eq!(
        (&report["calls"], &report["programs"]),
        (&0.into(), &1.into())
    );
    let (ran, _) = trace(Command::new("sh").args(["-c", "kill -9 $$"]));
    assert_eq!(ran.code, 137);
    let (ran, _) = trace(&mut Command::new("no-such-program"));
    assert_eq!(ran.code, 127, "{}", ran.stderr);
    let (_home, path) = home();
    std::fs::write(&path, "text").unwrap();
    let (ran, _) = trace(&mut Command::new(&path));
    assert_eq!(ran.code, 126, "{}", ran.stderr);
}

#[test]
fn a_static_program_is_recognised_and_not_run() {
    use std::os::unix::fs::PermissionsExt as _;
    let (_home, path) = home();
    // A header and one program header, which loads: as a program, nothing.
    let mut bytes = vec![0; 64 + 56];
    bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
    (bytes[32], bytes[54], bytes[56], bytes[64]) = (64, 56, 1, 1);
    std::fs::write(&path, bytes).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    let (ran, _) = trace(&mut Command::new(&path));
    assert_eq!(ran.code, 125);
    assert!(ran.stderr.contains("linked statically"), "{}", ran.stderr);
}

/// errno, the result, and an LD_PRELOAD of the program's own are left alone.
#[test]
fn a_refused_lock_is_refused_as_it_would_be() {
    let (_home, path) = home();
    let shm = path.with_extension("db-shm");
    std::fs::write(&shm, [0; 200]).unwrap();
    let _holder = Python::at_gate(
        &shm,
        "f = open(path, 'r+'); fcntl.lockf(f, fcntl.LOCK_EX, 9, 120); gate()",
    );
    let program = "
import errno, fcntl, os, sys
f = open(sys.argv[1], 'r+')
for _ in range(100):
    try: fcntl.lockf(f, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 120)
    except OSError as e: assert e.errno in (errno.EAGAIN, errno.EACCES), e
    else: raise SystemExit('it was had')
fcntl.lockf(f, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 1000); fcntl.lockf(f, fcntl.LOCK_UN, 1, 1000)
print(os.environ['LD_PRELOAD'].split(':')[1])
";
    let (ran, report) = trace(
        Command::new("python3")
            .args(["-c", program])
            .arg(&shm)
            .env("LD_PRELOAD", "libc.so.6"),
    );
    assert_eq!(
        (ran.code, &*ran.stdout),
        (0, "libc.so.6\n"),
        "{}",
        ran.stderr
    );
    assert_eq!(report["failed"], 100, "{report:#}");
}

#[test]
fn the_text_has_a_table_a_fix_and_a_page() {
    let (_home, path) = home();
    database(&path, "wal");
    let _holder = writer(&path);
    let program = format!("{START}refused(connect(0), 'INSERT INTO t VALUES (1)')");
    let path = path.to_str().unwrap();
    let ran = common::onepen(&["trace", "--", "python3", "-c", &program, path]);
    assert_eq!((ran.code, &*ran.stdout), (0, "database is locked\n"));
    for part in [
        "1 contended, 1 failed",
        "contended   failed  total wait   max wait   avg wait  class",
        "no-timeout                python3",
        "in `INSERT INTO t VALUES (?)`, behind python3",
        "fix: set a busy timeout",
        "see: docs/guide/trace.md#no-timeout",
    ] {
        assert!(
            ran.stderr.contains(part),
            "`{part}` is missing: {}",
            ran.stderr
        );
    }
}

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
            let mut connection = open(0);
            for _ in 0..10 {
                let begun = connection.transaction_with_behavior(TransactionBehavior::Immediate);
                begun.map(drop).unwrap_err();
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
            .args(["--exact", "role", "--test-threads=1"])
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
refused(() => open(0).exec('INSERT INTO t VALUES (1)'));
refused(() => open(300).exec('INSERT INTO t VALUES (1)'));
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
