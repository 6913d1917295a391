//! `onepen doctor`: every finding is provoked by real processes and files, and a
//! healthy database has none.

#![cfg(target_os = "linux")]

mod common;
#[path = "../../onepen-lock/tests/common/mod.rs"]
mod python;

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use common::{Ran, json, onepen};
use python::Python;
use serde_json::Value;
use tempfile::TempDir;

fn home() -> (TempDir, PathBuf) {
    let home = TempDir::new().expect("a directory");
    let path = home.path().join("app.db");
    (home, path)
}

fn doctor(path: &Path) -> Ran {
    let path = path.to_str().expect("a path of letters");
    onepen(&["doctor", path, "--for", "500ms", "--json"])
}

/// Its one finding of this name.
#[track_caller]
fn finding(ran: &Ran, name: &str) -> Value {
    assert_eq!(ran.code, 1, "{}{}", ran.stdout, ran.stderr);
    let report = json(ran);
    let findings = report["findings"].as_array().unwrap();
    let found: Vec<_> = findings.iter().filter(|it| it["name"] == name).collect();
    assert_eq!(found.len(), 1, "one {name} in {report:#}");
    assert_eq!(
        found[0]["guide"],
        format!("docs/guide/who-holds-the-lock.md#{name}")
    );
    found[0].clone()
}

#[track_caller]
fn says(finding: &Value, parts: &[&str]) {
    let evidence = finding["evidence"].as_str().unwrap();
    for part in parts {
        assert!(evidence.contains(part), "`{part}` is missing: {evidence}");
    }
}

#[track_caller]
fn is_about(finding: &Value, process: &Python) {
    assert_eq!(finding["pids"], serde_json::json!([process.pid()]));
    says(finding, &[&format!("python3 (pid {})", process.pid())]);
}

fn names(ran: &Ran) -> Vec<String> {
    let report = json(ran);
    let findings = report["findings"].as_array().unwrap().iter();
    findings
        .map(|it| it["name"].as_str().unwrap().to_owned())
        .collect()
}

const WAL: &str = "
c = connect()
c.execute('PRAGMA journal_mode=WAL')
c.execute('CREATE TABLE IF NOT EXISTS t(n)')
c.execute('INSERT INTO t VALUES (1)')
";
const ROLLBACK: &str = "
c = connect()
c.execute('CREATE TABLE IF NOT EXISTS t(n)')
c.execute('INSERT INTO t VALUES (1)')
";
const READ: &str = "
c = connect()
c.execute('BEGIN')
c.execute('SELECT * FROM t').fetchall()
gate()
";

#[test]
fn a_healthy_database_at_work_has_no_finding() {
    let (_home, path) = home();
    let db = onepen::Database::open(&path).unwrap();
    db.execute("CREATE TABLE t(n)", ()).unwrap();
    let over = AtomicBool::new(false);
    let ran = std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    db.execute("INSERT INTO t VALUES (1)", ()).unwrap();
                    db.query_row("SELECT n FROM t LIMIT 1", (), |row| row.get::<_, i64>(0))
                        .unwrap();
                }
            });
        }
        let ran = doctor(&path);
        over.store(true, Ordering::Relaxed);
        ran
    });
    assert_eq!(names(&ran), [""; 0], "{}", ran.stdout);
    assert_eq!(ran.code, 0);
    let report = json(&ran);
    assert_eq!(report["schema"], "onepen-doctor/1");
    assert!(report["commits"].as_u64().unwrap() > 0, "{report:#}");
    assert_eq!(report["open_in"], 1);
    // At rest, and closed.
    assert_eq!(doctor(&path).code, 0);
    drop(db);
    let ran = onepen(&["doctor", path.to_str().unwrap(), "--for", "500ms"]);
    assert_eq!(ran.code, 0, "{}", ran.stdout);
    assert!(ran.stdout.contains("nobody has a lock"), "{}", ran.stdout);
    assert!(ran.stdout.ends_with("nothing found\n"), "{}", ran.stdout);
}

#[test]
fn an_idle_writer_is_found_over_a_log_and_over_a_journal() {
    for mode in [WAL, ROLLBACK] {
        let (_home, path) = home();
        let program = format!("{mode}\nc.execute('BEGIN IMMEDIATE'); gate()");
        let holder = Python::at_gate(&path, &program);
        let found = finding(&doctor(&path), "idle-in-transaction");
        is_about(&found, &holder);
        says(
            &found,
            &["wrote nothing and slept", "nobody else can write"],
        );
    }
}

/// Whoever waits for the doctor is not to wait for a name.
#[test]
fn the_holder_is_named_before_the_looking_is_over() {
    let (_home, path) = home();
    let holder = Python::at_gate(
        &path,
        &format!("{WAL}\nc.execute('BEGIN IMMEDIATE'); gate()"),
    );
    let mut looking = Command::new(env!("CARGO_BIN_EXE_onepen"))
        .args(["doctor", "--for", "60s"])
        .arg(&path)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(looking.stdout.take().unwrap()).lines();
    let named = format!("python3 (pid {}, sleeping) has WRITER", holder.pid());
    assert!(
        lines
            .map_while(Result::ok)
            .any(|line| line.contains(&named))
    );
    assert!(looking.try_wait().unwrap().is_none(), "it still looks");
    looking.kill().unwrap();
    looking.wait().unwrap();
}

/// A process with onepen is the test itself: it has the turn, a label, and
/// SQLite's lock.
#[test]
fn a_holder_with_onepen_says_what_it_writes_for() {
    let (_home, path) = home();
    fs::write(&path, "").unwrap();
    let gate = onepen_lock::gate::Gate::join(&path, "orders").unwrap();
    let seat = gate.seat();
    assert!(seat.try_take(Some("nightly import")));
    let connection = rusqlite::Connection::open(&path).unwrap();
    connection.execute_batch("BEGIN IMMEDIATE").unwrap();
    let ran = onepen(&["doctor", path.to_str().unwrap(), "--for", "500ms"]);
    assert!(
        ran.stdout
            .contains("has RESERVED (`nightly import` on thread "),
        "{}",
        ran.stdout
    );
    let holders = json(&doctor(&path))["holders"].clone();
    let purpose = holders[0]["purpose"].as_str().unwrap().to_owned();
    assert!(
        purpose.starts_with("`nightly import` on thread "),
        "{purpose}"
    );
}

#[test]
fn a_stopped_holder_is_found_whether_it_writes_or_reads() {
    for (begin, effect) in [
        ("BEGIN IMMEDIATE", "nobody else can write"),
        ("BEGIN; SELECT * FROM t", "the log cannot be reset"),
    ] {
        let (_home, path) = home();
        let steps: String = begin
            .split("; ")
            .map(|step| format!("c.execute('{step}').fetchall()\n"))
            .collect();
        let holder = Python::at_gate(&path, &format!("{WAL}{steps}gate()"));
        holder.signal("STOP");
        let found = finding(&doctor(&path), "stopped-holder");
        is_about(&found, &holder);
        says(&found, &["is stopped", effect]);
    }
}

#[test]
fn a_read_transaction_left_open_is_leaked() {
    for (mode, effect) in [
        (WAL, "the log cannot be reset"),
        (ROLLBACK, "nobody can commit"),
    ] {
        let (_home, path) = home();
        let _open = Python::at_gate(&path, &format!("{mode}\ngate()"));
        let reader = Python::at_gate(&path, READ);
        let found = finding(&doctor(&path), "leaked-transaction");
        is_about(&found, &reader);
        says(&found, &["slept", "read transaction left open", effect]);
    }
}

#[test]
fn a_write_transaction_beside_which_the_process_goes_on_is_leaked() {
    let (_home, path) = home();
    let program = format!(
        "{WAL}
def others():
    while True:
        until = time.process_time() + 0.01
        while time.process_time() < until: pass
        time.sleep(0.03)
threading.Thread(target=others, daemon=True).start()
c.execute('BEGIN IMMEDIATE'); gate()"
    );
    let holder = Python::at_gate(&path, &program);
    let found = finding(&doctor(&path), "leaked-transaction");
    is_about(&found, &holder);
    says(&found, &["while it did other things"]);
}

#[test]
fn a_long_write_transaction_is_found_computing_or_writing() {
    for work in [
        "print('here', flush=True)\nwhile True: pass",
        "c.execute('PRAGMA cache_size=1'); c.execute('BEGIN IMMEDIATE')
print('here', flush=True)
while True: c.execute('INSERT INTO t VALUES (zeroblob(100000))'); time.sleep(0.01)",
    ] {
        let (_home, path) = home();
        let begin = if work.contains("BEGIN") {
            ""
        } else {
            "c.execute('BEGIN IMMEDIATE')"
        };
        let holder = Python::at_gate(&path, &format!("{WAL}{begin}\n{work}"));
        let found = finding(&doctor(&path), "long-transaction");
        is_about(&found, &holder);
        says(&found, &["nobody else can write meanwhile"]);
    }
}

#[test]
fn a_reader_behind_newer_commits_pins_the_log() {
    let (_home, path) = home();
    let mut writer = Python::at_gate(
        &path,
        &format!(
            "{WAL}\ngate()\nfor n in range(20): c.execute('INSERT INTO t VALUES (2)')\ngate()"
        ),
    );
    let reader = Python::at_gate(&path, READ);
    writer.go_on();
    let ran = doctor(&path);
    let found = finding(&ran, "reader-pins-wal");
    is_about(&found, &reader);
    says(
        &found,
        &["it reads at frame 3 of 23, so 20 frames cannot be copied back"],
    );
    assert!(
        !names(&ran).contains(&"leaked-transaction".to_owned()),
        "once is enough"
    );
}

#[test]
fn a_log_of_too_many_frames_is_found_open_and_left_behind() {
    let (_home, path) = home();
    let writer = Python::at_gate(
        &path,
        "
c = connect()
c.execute('PRAGMA page_size=512')
c.execute('PRAGMA journal_mode=WAL'); c.execute('PRAGMA synchronous=OFF')
c.execute('PRAGMA wal_autocheckpoint=0')
c.execute('CREATE TABLE t(n)')
c.execute('INSERT INTO t VALUES (zeroblob(512 * 11000))')
gate()
",
    );
    let found = finding(&doctor(&path), "wal-too-large");
    says(&found, &["frames (", "0 of them copied back"]);
    writer.kill();
    let found = finding(&doctor(&path), "wal-too-large");
    says(&found, &["left behind and nobody has the database open"]);
}

#[test]
fn a_log_that_grows_while_nothing_is_copied_back_is_starved() {
    let (_home, path) = home();
    let _writer = Python::at_gate(
        &path,
        "
c = connect()
c.execute('PRAGMA page_size=512')
c.execute('PRAGMA journal_mode=WAL'); c.execute('PRAGMA synchronous=OFF')
c.execute('PRAGMA wal_autocheckpoint=0')
c.execute('CREATE TABLE t(n)')
c.execute('INSERT INTO t VALUES (zeroblob(512 * 6000))')
print('here', flush=True)
while True: c.execute('INSERT INTO t VALUES (1)'); time.sleep(0.01)
",
    );
    let found = finding(&doctor(&path), "checkpoint-starved");
    says(&found, &["the log grew from", "not one was copied back"]);
}

#[test]
fn files_deleted_under_a_running_process_are_found() {
    let (_home, path) = home();
    let user = Python::at_gate(&path, &format!("{WAL}\ngate()"));
    let log = path.with_extension("db-wal");
    fs::remove_file(&log).unwrap();
    let found = finding(&doctor(&path), "deleted-in-use");
    is_about(&found, &user);
    says(&found, &[log.to_str().unwrap(), "was deleted"]);
}

/// Loads a second copy of the library Python has, and opens the file with it.
const SECOND_LIBRARY: &str = "
import ctypes, shutil
one = next(l.split()[-1] for l in open('/proc/self/maps') if 'libsqlite3' in l)
two = os.path.join(os.path.dirname(path), 'another.so')
shutil.copy(one, two)
lib, db = ctypes.CDLL(two), ctypes.c_void_p()
lib.sqlite3_open(path.encode(), ctypes.byref(db))
lib.sqlite3_exec(db, b'SELECT count(*) FROM t', None, None, None)
gate()
";

#[test]
fn two_copies_of_sqlite_in_one_process_are_found() {
    for (mode, file) in [(WAL, "its -shm file"), (ROLLBACK, "the database")] {
        let (_home, path) = home();
        let user = Python::at_gate(&path, &format!("{mode}{SECOND_LIBRARY}"));
        let found = finding(&doctor(&path), "two-sqlite-libraries");
        is_about(&found, &user);
        says(
            &found,
            &[file, "open 2 times", "inferred", "libsqlite3", "another.so"],
        );
    }
}

#[test]
fn a_second_connection_of_the_same_library_is_no_second_copy() {
    let (_home, path) = home();
    let _user = Python::at_gate(
        &path,
        &format!("{WAL}\nd = connect(); d.execute('SELECT * FROM t').fetchall(); gate()"),
    );
    let found = names(&doctor(&path));
    assert!(
        !found.contains(&"two-sqlite-libraries".to_owned()),
        "{found:?}"
    );
}

#[test]
fn a_connection_carried_across_a_fork_has_lost_its_locks() {
    let (_home, path) = home();
    let mut parent = Python::at_gate(
        &path,
        &format!(
            "{WAL}
pipe = fork(lambda: c.execute('SELECT * FROM t').fetchall())
gate()"
        ),
    );
    parent.hears(); // both of them said so
    let found = finding(&doctor(&path), "locks-lost");
    says(&found, &["-shm file open and no lock on it"]);
    assert_ne!(found["pids"], serde_json::json!([parent.pid()]));
    assert_eq!(found["pids"].as_array().unwrap().len(), 1);
}

#[test]
fn a_sqlite_with_the_wal_reset_bug_is_found_and_a_newer_one_not() {
    let (_home, path) = home();
    let version = Command::new("python3")
        .args(["-c", "import sqlite3; print(sqlite3.sqlite_version)"])
        .output()
        .unwrap();
    let version = String::from_utf8(version.stdout).unwrap();
    let parts: Vec<u32> = version
        .trim()
        .split('.')
        .map(|it| it.parse().unwrap())
        .collect();
    let user = Python::at_gate(&path, &format!("{WAL}\ngate()"));
    let ran = doctor(&path);
    if parts < vec![3, 51, 3] {
        let found = finding(&ran, "wal-reset-bug");
        is_about(&found, &user);
        says(
            &found,
            &[&format!("SQLite {} (", version.trim()), "libsqlite3"],
        );
    } else {
        assert_eq!(names(&ran), [""; 0]);
    }
}

#[test]
fn a_shared_cache_is_found_where_the_arguments_ask_for_it() {
    let (_home, path) = home();
    let user = Python::at_gate(
        &path,
        "c = sqlite3.connect('file:' + path + '?cache=shared', uri=True)
c.execute('CREATE TABLE t(n)'); gate()",
    );
    let found = finding(&doctor(&path), "shared-cache");
    is_about(&found, &user);
    let secret = json(&doctor(&path)).to_string();
    assert!(
        !secret.contains("CREATE TABLE"),
        "arguments are not shown: {secret}"
    );
}

#[test]
fn a_rollback_journal_is_a_finding_and_an_empty_file_is_none() {
    let (_home, path) = home();
    fs::write(&path, "").unwrap();
    assert_eq!(doctor(&path).code, 0);
    let _user = Python::at_gate(&path, &format!("{ROLLBACK}\ngate()"));
    let ran = doctor(&path);
    finding(&ran, "journal-mode");
    assert_eq!(names(&ran), ["journal-mode"]);
}

#[test]
fn a_journal_left_by_a_crash_is_found_and_not_while_its_writer_lives() {
    let (_home, path) = home();
    let writer = Python::at_gate(
        &path,
        &format!(
            "{ROLLBACK}
c.execute('INSERT INTO t VALUES (zeroblob(1000000))')
c.execute('PRAGMA cache_size=1'); c.execute('BEGIN')
c.execute('UPDATE t SET n = zeroblob(1000001)'); gate()"
        ),
    );
    assert!(!names(&doctor(&path)).contains(&"leftover-journal".to_owned()));
    writer.kill();
    let found = finding(&doctor(&path), "leftover-journal");
    says(&found, &["unfinished transaction", "nobody who writes"]);
}

#[test]
fn hard_links_are_found() {
    let (home, path) = home();
    drop(Python::at_gate(&path, &format!("{WAL}\ngate()")));
    fs::hard_link(&path, home.path().join("other.db")).unwrap();
    says(&finding(&doctor(&path), "hard-links"), &["2 names"]);
}

#[test]
fn permissions_that_keep_somebody_out_are_found() {
    let (_home, path) = home();
    let _user = Python::at_gate(&path, &format!("{WAL}\ngate()"));
    let mode = |file: &Path, mode| {
        fs::set_permissions(file, fs::Permissions::from_mode(mode)).unwrap();
    };
    mode(&path, 0o664);
    mode(&path.with_extension("db-shm"), 0o664);
    mode(&path.with_extension("db-wal"), 0o600);
    let found = finding(&doctor(&path), "permissions");
    says(&found, &["-wal has mode 600, the database 664"]);
    mode(&path.with_extension("db-wal"), 0o664);
    assert!(!names(&doctor(&path)).contains(&"permissions".to_owned()));
    mode(&path, 0o666);
    says(
        &finding(&doctor(&path), "permissions"),
        &["everybody may write"],
    );
}

fn may(command: &str) -> bool {
    let tried = Command::new("sh").args(["-c", command]).output().unwrap();
    if !tried.status.success() {
        eprintln!("this system does not allow `{command}`: not tested here");
    }
    tried.status.success()
}

#[test]
fn an_overlay_is_found() {
    let mount = "mount -t overlay overlay -o lowerdir=l,upperdir=u,workdir=w m";
    let (home, path) = home();
    let tmpfs = format!(
        "mount -t tmpfs tmpfs {0} && cd {0} && mkdir l u w m",
        home.path().display()
    );
    if !may(&format!("unshare -m sh -c '{tmpfs} && {mount}'")) {
        return;
    }
    let home = home.path().display();
    let tool = env!("CARGO_BIN_EXE_onepen");
    let inside = format!(
        "{tmpfs} && {mount} && touch m/app.db && {tool} doctor m/app.db --for 500ms --json"
    );
    let output = Command::new("unshare")
        .args(["-m", "sh", "-c", &inside])
        .output()
        .unwrap();
    let ran = Ran {
        code: output.status.code().unwrap(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    };
    says(&finding(&ran, "file-system"), &["overlay"]);
    assert!(!path.exists(), "{home}: it was mounted for them alone");
}

#[test]
fn another_user_is_told_what_it_could_not_see() {
    let nobody = [
        "setpriv",
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
    ];
    if !may(&format!("{} true", nobody.join(" "))) {
        return;
    }
    let (home, path) = home();
    fs::set_permissions(home.path(), fs::Permissions::from_mode(0o755)).unwrap();
    // Where everybody may run it.
    let tool = home.path().join("onepen");
    fs::copy(env!("CARGO_BIN_EXE_onepen"), &tool).unwrap();
    let holder = Python::at_gate(
        &path,
        &format!("{WAL}\nc.execute('BEGIN IMMEDIATE'); gate()"),
    );
    fs::set_permissions(
        path.with_extension("db-shm"),
        fs::Permissions::from_mode(0o600),
    )
    .unwrap();
    let output = Command::new(nobody[0])
        .args(&nobody[1..])
        .arg(&tool)
        .args(["doctor", "--for", "500ms", "--json"])
        .arg(&path)
        .output()
        .unwrap();
    let ran = Ran {
        code: output.status.code().unwrap(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    };
    is_about(&finding(&ran, "idle-in-transaction"), &holder);
    let unseen = json(&ran)["could_not_see"].to_string();
    for part in [
        "-shm cannot be read",
        "of other users have open",
        "which SQLite is in python3",
    ] {
        assert!(unseen.contains(part), "`{part}` is missing: {unseen}");
    }
}

#[test]
fn it_could_not_look_is_another_answer_than_nothing_found() {
    let (home, path) = home();
    for (file, text) in [
        ("gone.db", None),
        ("text.db", Some("not a database, but long enough")),
    ] {
        let file = home.path().join(file);
        if let Some(text) = text {
            fs::write(&file, text).unwrap();
        }
        let ran = doctor(&file);
        assert_eq!(ran.code, 2, "{}", ran.stdout);
        assert!(ran.stderr.starts_with("onepen doctor: "), "{}", ran.stderr);
        assert_eq!(ran.stdout, "");
    }
    assert_eq!(doctor(home.path()).code, 2);
    assert_eq!(onepen(&["doctor"]).code, 2);
    assert_eq!(
        onepen(&["doctor", path.to_str().unwrap(), "--for", "1ms"]).code,
        2
    );
}

/// Who may write to the directory must not be able to hold up a doctor who is root.
#[test]
fn a_pipe_in_the_place_of_a_file_is_not_waited_for() {
    let (_home, path) = home();
    drop(Python::at_gate(&path, &format!("{WAL}\ngate()")));
    for ending in ["db-shm", "db-journal"] {
        let pipe = path.with_extension(ending);
        let _ = fs::remove_file(&pipe);
        let made = Command::new("mkfifo").arg(&pipe).status().unwrap();
        assert!(made.success());
    }
    let ran = doctor(&path);
    let unseen = json(&ran)["could_not_see"].to_string();
    assert!(
        unseen.contains("-shm cannot be read (no regular file)"),
        "{unseen}"
    );
}

/// Names, times and contents of everything in a directory.
fn state(directory: &Path) -> Vec<(PathBuf, i64, i64, Vec<u8>)> {
    let mut state: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            let meta = fs::metadata(&path).unwrap();
            let bytes = fs::read(&path).unwrap();
            (path, meta.mtime(), meta.mtime_nsec(), bytes)
        })
        .collect();
    state.sort();
    state
}

#[test]
fn it_changes_nothing_not_even_what_a_crash_left() {
    for mode in [WAL, ROLLBACK] {
        let (home, path) = home();
        let program =
            format!("{mode}\nc.execute('BEGIN'); c.execute('INSERT INTO t VALUES (2)'); gate()");
        Python::at_gate(&path, &program).kill();
        let before = state(home.path());
        assert!(before.len() > 1, "the crash left something");
        doctor(&path);
        assert!(state(home.path()) == before);
    }
}

#[test]
fn watching_tells_what_is_new_and_what_is_over() {
    let (_home, path) = home();
    let mut holder = Python::at_gate(
        &path,
        &format!("{WAL}\nc.execute('BEGIN IMMEDIATE'); gate(); c.execute('COMMIT'); gate()"),
    );
    let mut watching = Command::new(env!("CARGO_BIN_EXE_onepen"))
        .args(["doctor", "--watch", "--json", "--for", "500ms"])
        .arg(&path)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(watching.stdout.take().unwrap()).lines();
    let mut until = |idle: bool| {
        let name = "idle-in-transaction";
        lines.find_map(|line| {
            let report: Value = serde_json::from_str(&line.unwrap()).unwrap();
            let findings = report["findings"].as_array().unwrap().clone();
            (findings.iter().any(|it| it["name"] == name) == idle).then_some(findings)
        })
    };
    until(true).expect("it is found");
    holder.go_on();
    let rest = until(false).expect("it is over");
    let stopped = Command::new("kill")
        .args(["-INT", &watching.id().to_string()])
        .status();
    assert!(stopped.unwrap().success());
    let code = watching.wait().unwrap().code();
    assert_eq!(code, Some(i32::from(!rest.is_empty())));
}

#[test]
fn every_finding_has_its_place_in_the_guide() {
    let guide = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../docs/guide/who-holds-the-lock.md"
    );
    let guide = fs::read_to_string(guide).unwrap();
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/src/doctor/findings.rs");
    let source = fs::read_to_string(source).unwrap();
    let kinds = source
        .split("kinds! {")
        .nth(1)
        .unwrap()
        .split("\n}")
        .next()
        .unwrap();
    let kinds: Vec<_> = kinds
        .lines()
        .filter_map(|line| line.split(" = \"").nth(1)?.split('"').next())
        .collect();
    assert!(kinds.len() >= 15, "{kinds:?}");
    for name in kinds {
        assert!(
            guide.contains(&format!("\n### {name}\n")),
            "no heading `{name}`"
        );
    }
}
