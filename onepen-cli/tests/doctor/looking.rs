//! How it looks: what it says meanwhile, what it changes (nothing), whom it waits
//! for (nobody), and what it says when it cannot.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::Value;

use crate::common::{Ran, json, onepen};
use crate::python::{Python, ROLLBACK, WAL, home};
use crate::{doctor, finding, is_about, may, names};

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
    // A program that another test starts has the copy open for writing until it runs.
    let ran = loop {
        let output = Command::new(nobody[0])
            .args(&nobody[1..])
            .arg(&tool)
            .args(["doctor", "--for", "500ms", "--json"])
            .arg(&path)
            .output()
            .unwrap();
        let ran = Ran::from(output);
        if !ran.stderr.contains("Text file busy") {
            break ran;
        }
        std::thread::yield_now();
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
