//! `onepen backup`, `restore` and `checkpoint` as their users call them, beside
//! programs that know nothing of onepen.

mod common;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};

use common::{json, onepen};

/// A program that does what the script says, prints `ready`, and waits.
struct Stranger {
    child: Child,
    stdin: Option<ChildStdin>,
}

impl Stranger {
    fn new(path: &Path, script: &str) -> Self {
        let script = format!(
            "import sqlite3, sys
c = sqlite3.connect(sys.argv[1], isolation_level=None)
{script}
print('ready', flush=True)
sys.stdin.read()"
        );
        let mut child = Command::new("python3")
            .args(["-c", &script])
            .arg(path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap())
            .read_line(&mut line)
            .unwrap();
        assert_eq!(line, "ready\n");
        let stdin = child.stdin.take();
        Self { child, stdin }
    }

    fn pid(&self) -> String {
        format!("pid {}", self.child.id())
    }

    fn end(mut self) {
        drop(self.stdin.take());
        self.child.wait().unwrap();
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn make(path: &Path, journal: &str) {
    let made = rusqlite::Connection::open(path).unwrap();
    made.execute_batch(&format!(
        "PRAGMA journal_mode = {journal}; CREATE TABLE t(n); INSERT INTO t VALUES (1)"
    ))
    .unwrap();
}

fn sum(path: &Path) -> i64 {
    rusqlite::Connection::open(path)
        .unwrap()
        .query_row("SELECT sum(n) FROM t", (), |row| row.get(0))
        .unwrap()
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn a_backup_and_back() {
    for journal in ["wal", "delete"] {
        let dir = tempfile::tempdir().unwrap();
        let (app, copy) = (dir.path().join("app.db"), dir.path().join("copy.db"));
        make(&app, journal);
        let ran = onepen(&["backup", text(&app), text(&copy)]);
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        assert!(
            ran.stdout.contains("checked (integrity_check)"),
            "{}",
            ran.stdout
        );
        assert_eq!(ran.stderr, "");
        assert_eq!(
            names(dir.path()),
            ["app.db", "copy.db"],
            "nothing else is left"
        );

        let again = onepen(&["backup", text(&app), text(&copy)]);
        assert_eq!(again.code, 2);
        assert!(again.stderr.contains("--force"), "{}", again.stderr);
        assert_eq!(again.stdout, "");

        let quiet = onepen(&["backup", text(&app), text(&copy), "--force", "-q"]);
        assert_eq!((quiet.code, quiet.stdout.as_str()), (0, ""));

        let ran = onepen(&[
            "restore",
            text(&copy),
            text(&app),
            "--force",
            "--json",
            "--verify=quick",
        ]);
        let report = json(&ran);
        assert_eq!(report["check"], "quick");
        assert_eq!(report["bytes"], std::fs::metadata(&app).unwrap().len());
        assert_eq!(report["to"], text(&app));
        assert_eq!(sum(&app), 1);
        assert_eq!(names(dir.path()), ["app.db", "copy.db"]);
    }
}

#[test]
fn what_a_backup_cannot_do_it_says_and_its_exit_code_too() {
    let dir = tempfile::tempdir().unwrap();
    let (app, copy) = (dir.path().join("app.db"), dir.path().join("copy.db"));
    let nowhere = dir.path().join("nowhere").join("copy.db");
    make(&app, "wal");
    for (arguments, code, part) in [
        (&["backup", "missing.db", "copy.db"][..], 2, "missing.db"),
        (
            &["backup", text(&app), text(&app), "--force"],
            2,
            "that is to be copied",
        ),
        (
            &["backup", text(&app), text(&copy), "--rate", "fast"],
            2,
            "units are K, M and G",
        ),
        (
            &["backup", text(&app), text(&copy), "--share", "2"],
            2,
            "between 0.01 and 1",
        ),
        (
            &["restore", "missing.db", text(&copy)],
            2,
            "no such database",
        ),
        (
            &["backup", text(&app), text(&nowhere)],
            2,
            "create it first",
        ),
        (
            &["backup", text(&app), text(&copy), "--deadline", "0s"],
            1,
            "deadline",
        ),
    ] {
        let ran = onepen(arguments);
        assert_eq!(ran.code, code, "{arguments:?}: {}", ran.stderr);
        assert!(ran.stderr.contains(part), "{arguments:?}: {}", ran.stderr);
        assert!(!copy.exists());
    }
    let failed = onepen(&["backup", text(&app), text(&app), "--json"]);
    assert_eq!(json(&failed)["error"], "Refused");
}

#[test]
fn over_a_rollback_journal_who_writes_all_the_time_is_named_or_held() {
    let dir = tempfile::tempdir().unwrap();
    let (app, copy) = (dir.path().join("app.db"), dir.path().join("copy.db"));
    make(&app, "delete");
    rusqlite::Connection::open(&app)
        .unwrap()
        .execute_batch("CREATE TABLE weight(b); INSERT INTO weight VALUES (zeroblob(6000000))")
        .unwrap();
    let writer = Stranger::new(
        &app,
        "
import threading
def write():
    own = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=60)
    while True: own.execute('UPDATE t SET n = n + 1')
threading.Thread(target=write, daemon=True).start()",
    );
    // It rests most of the time, so that somebody has written before each step.
    let backup = ["backup", text(&app), text(&copy), "--share", "0.05"];
    let refused = onepen(&backup);
    assert_eq!(refused.code, 2, "{}", refused.stderr);
    assert!(
        refused.stderr.contains("somebody wrote"),
        "{}",
        refused.stderr
    );
    assert!(refused.stderr.contains(&writer.pid()), "{}", refused.stderr);
    assert!(!copy.exists());
    let held = onepen(&[&backup[..], &["--hold-writers", "60s"]].concat());
    assert_eq!(held.code, 0, "{}", held.stderr);
    assert!(sum(&copy) > 0);
    writer.end();
}

#[test]
fn a_restore_names_who_has_the_database_open() {
    let dir = tempfile::tempdir().unwrap();
    let (app, copy) = (dir.path().join("app.db"), dir.path().join("copy.db"));
    make(&app, "wal");
    assert_eq!(onepen(&["backup", text(&app), text(&copy)]).code, 0);
    let user = Stranger::new(&app, "c.execute('UPDATE t SET n = 2')");
    let refused = onepen(&["restore", text(&copy), text(&app), "--force"]);
    assert_eq!(refused.code, 2);
    assert!(refused.stderr.contains(&user.pid()), "{}", refused.stderr);
    // A copy of what it wrote can be made meanwhile.
    let ran = onepen(&["backup", text(&app), text(&copy), "--force"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert_eq!(sum(&copy), 2);
    user.end();
    assert_eq!(onepen(&["restore", text(&copy), text(&app), "-f"]).code, 0);
}

#[test]
fn a_checkpoint_tells_the_outcomes_apart_and_who_is_in_the_way() {
    let dir = tempfile::tempdir().unwrap();
    let app = dir.path().join("app.db");
    make(&app, "wal");
    let write = |n: i64| {
        rusqlite::Connection::open(&app)
            .unwrap()
            .execute("INSERT INTO t VALUES (?1)", (n,))
            .unwrap();
    };
    // Keeps the log there, and does nothing.
    let idle = Stranger::new(&app, "c.execute('SELECT * FROM t').fetchall()");
    let ask = |more: &[&str]| {
        let ran = onepen(&[&["checkpoint", text(&app), "--json"], more].concat());
        (ran.code, json(&ran))
    };

    write(1);
    let (code, all) = ask(&[]);
    assert_eq!((code, all["outcome"].as_str()), (0, Some("reset")), "{all}");

    write(2);
    let reads = "c.execute('BEGIN'); c.execute('SELECT * FROM t').fetchall()";
    let reader = Stranger::new(&app, reads);
    let (code, pinned) = ask(&[]);
    assert_eq!(
        (code, pinned["outcome"].as_str()),
        (1, Some("pinned")),
        "{pinned}"
    );
    assert_eq!(pinned["moved"], pinned["frames"]);
    assert!(
        pinned["holders"].to_string().contains(&reader.pid()),
        "{pinned}"
    );
    assert!(
        !pinned["holders"].to_string().contains(&idle.pid()),
        "{pinned}"
    );

    // With the reader at the state before, what is newer cannot be moved.
    reader.end();
    write(3);
    let reader = Stranger::new(&app, reads);
    write(4);
    let (code, partly) = ask(&["--wait", "20ms"]);
    assert_eq!(
        (code, partly["outcome"].as_str()),
        (1, Some("partly")),
        "{partly}"
    );
    assert!(
        partly["moved"].as_i64() < partly["frames"].as_i64(),
        "{partly}"
    );
    assert!(
        partly["holders"].to_string().contains(&reader.pid()),
        "{partly}"
    );
    let said = onepen(&["checkpoint", text(&app)]);
    assert!(
        said.stdout
            .contains("pages of the log are moved; the others"),
        "{}",
        said.stdout
    );
    reader.end();

    let (code, truncated) = ask(&["--truncate"]);
    assert_eq!((code, truncated["outcome"].as_str()), (0, Some("reset")));
    let log = std::fs::metadata(dir.path().join("app.db-wal")).unwrap();
    assert_eq!(log.len(), 0);
    idle.end();
}

#[test]
fn a_checkpoint_of_what_has_no_log_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let app = dir.path().join("app.db");
    make(&app, "delete");
    let ran = onepen(&["checkpoint", text(&app)]);
    assert_eq!(ran.code, 0);
    assert!(ran.stdout.contains("no write-ahead log"), "{}", ran.stdout);
    assert_eq!(onepen(&["checkpoint", text(&app), "-q"]).stdout, "");
    let missing = onepen(&["checkpoint", "missing.db"]);
    assert_eq!(missing.code, 2);
    assert!(
        missing.stderr.contains("no such database"),
        "{}",
        missing.stderr
    );
}
