//! `onepen stress` as its users call it.
#![cfg(unix)]

mod common;

use std::fs;
use std::path::Path;

use common::{Ran, json, onepen};

/// A run that is over soon, with its scratch files in a directory of its own.
fn stress(dir: &Path, arguments: &[&str]) -> Ran {
    let short = [
        "stress",
        "--json",
        "--dir",
        dir.to_str().unwrap(),
        "--threads",
        "2",
        "--tasks",
        "3",
    ];
    onepen(&[&short, arguments].concat())
}

fn is_empty(dir: &Path) -> bool {
    fs::read_dir(dir).unwrap().next().is_none()
}

#[test]
fn every_workload_runs_and_nothing_is_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let ran = stress(dir.path(), &["--duration", "300ms", "--seed", "1"]);
    assert_eq!(ran.code, 0, "{}{}", ran.stdout, ran.stderr);
    let report = json(&ran);
    assert_eq!(report["schema"], "onepen-stress/1");
    assert_eq!(report["seed"], 1);
    assert_eq!(report["is_clean"], true);
    let runs = report["runs"].as_array().unwrap();
    assert_eq!(runs.len(), 8);
    for run in runs {
        assert!(run["committed"].as_u64().unwrap() > 20, "{run}");
        assert_eq!(run["found"], 0, "{run}");
    }
    assert!(is_empty(dir.path()), "something was left");
}

#[test]
fn killed_and_stopped_processes_and_strangers_are_no_excuse() {
    let dir = tempfile::tempdir().unwrap();
    let chaos = ["--kill", "--stop", "--strangers", "1", "--duration", "2s"];
    let which = ["--workload", "counter,list-append", "--seed", "2"];
    let ran = stress(dir.path(), &[&chaos[..], &which].concat());
    assert_eq!(ran.code, 0, "{}{}", ran.stdout, ran.stderr);
    let report = json(&ran);
    for run in report["runs"].as_array().unwrap() {
        assert!(run["kills"].as_u64().unwrap() > 0, "{run}");
        assert!(run["stops"].as_u64().unwrap() > 0, "{run}");
        // Whoever was killed left questions open.
        assert!(run["unknown"].as_u64().unwrap() > 0, "{run}");
    }
    assert!(is_empty(dir.path()), "something was left");
}

#[test]
fn a_failing_disk_is_told_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let which = ["--faults", "--workload", "bank", "--duration", "1s"];
    let ran = stress(dir.path(), &which);
    assert_eq!(ran.code, 0, "{}{}", ran.stdout, ran.stderr);
    let run = &json(&ran)["runs"][0];
    assert!(run["faults"].as_u64().unwrap() > 0, "{run}");
    assert!(run["committed"].as_u64().unwrap() > 0, "{run}");
    let errors = run["errors"].as_object().unwrap();
    let is_disk = |class: &String| class.contains("IOERR") || class.contains("FULL");
    assert!(errors.keys().any(is_disk), "{run}");
}

#[test]
fn the_users_database_is_not_touched() {
    let dir = tempfile::tempdir().unwrap();
    let db = dir.path().join("app.db");
    rusqlite::Connection::open(&db)
        .unwrap()
        .execute_batch(
            "PRAGMA journal_mode = WAL; CREATE TABLE mine (n); INSERT INTO mine VALUES (1)",
        )
        .unwrap();
    let before = fs::read(&db).unwrap();
    // Its scratch files lie beside it, where its disk is.
    let ran = onepen(&[
        "stress",
        db.to_str().unwrap(),
        "--workload",
        "counter",
        "--duration",
        "200ms",
    ]);
    assert_eq!(ran.code, 0, "{}{}", ran.stdout, ran.stderr);
    assert!(ran.stdout.contains("No anomaly in"), "{}", ran.stdout);
    assert_eq!(fs::read(&db).unwrap(), before);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn a_kept_history_is_checked_again_and_a_planted_anomaly_in_it_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let kept = dir.path().join("kept");
    let which = ["--workload", "counter,list-append", "--duration", "300ms"];
    let keep = ["--history", kept.to_str().unwrap()];
    let ran = stress(dir.path(), &[&which[..], &keep].concat());
    assert_eq!(ran.code, 0, "{}{}", ran.stdout, ran.stderr);
    let check = |path: &Path| onepen(&["stress", "--check", path.to_str().unwrap()]);
    for name in ["counter", "list-append"] {
        let again = check(&kept.join(format!("{name}.history")));
        assert_eq!(again.code, 0, "{}{}", again.stdout, again.stderr);
    }
    // One line of the ledger is gone: an acknowledged write that is not there.
    let counter = kept.join("counter.history");
    let text = fs::read_to_string(&counter).unwrap();
    let last = text.lines().rfind(|line| line.starts_with("l ")).unwrap();
    fs::write(&counter, text.replace(&format!("{last}\n"), "")).unwrap();
    let again = check(&counter);
    assert_eq!(again.code, 1, "{}{}", again.stdout, again.stderr);
    assert!(again.stdout.contains("lost write"), "{}", again.stdout);
    // And its minimal history is shown.
    let id = last.split(' ').nth(2).unwrap();
    assert!(
        again.stdout.contains(&format!("\n    t {id} ")),
        "{}",
        again.stdout
    );
    // One list has an element less than its later reads say.
    let lists = kept.join("list-append.history");
    let text = fs::read_to_string(&lists).unwrap();
    let last = text.lines().rfind(|line| line.starts_with("t 1 ")).unwrap();
    let cut: Vec<_> = last
        .split(' ')
        .map(|word| word.split_once(',').map_or(word, |(first, _)| first))
        .collect();
    fs::write(&lists, text.replace(last, &cut.join(" "))).unwrap();
    let again = check(&lists);
    assert_eq!(again.code, 1, "{}{}", again.stdout, again.stderr);
}

#[test]
fn wrong_usage_of_stress_is_2_and_says_why() {
    for (arguments, part) in [
        (&["--threads", "0", "--tasks", "0"][..], "has nothing to do"),
        (&["--workload", "nothing"], "possible values: bank"),
        (&["nothing.db"], "cannot copy nothing.db"),
        (&["--check", "nothing"], "cannot read nothing"),
        (&["--check", "Cargo.toml"], "line 1: expected"),
        (&["--check", "x", "--seed", "1"], "cannot be used with"),
        (&["--dir", "/nothing/there"], "in /nothing/there"),
        (&["--processes", "0"], "not in 1..=64"),
    ] {
        let ran = onepen(&[&["stress"], arguments].concat());
        assert_eq!(ran.code, 2, "{arguments:?}: {}", ran.stderr);
        assert!(ran.stderr.contains(part), "{arguments:?}: {}", ran.stderr);
        assert_eq!(ran.stdout, "", "{arguments:?}");
    }
}

#[test]
fn the_first_ctrl_c_ends_the_run_and_the_report_says_what_did_not_run() {
    use std::io::{BufRead, BufReader, Read};
    use std::process::{Command, Stdio};

    let dir = tempfile::tempdir().unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_onepen"))
        .args(["stress", "--duration", "1min", "--workload", "bank,counter"])
        .arg("--dir")
        .arg(dir.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let mut errors = BufReader::new(child.stderr.take().unwrap());
    errors.read_line(&mut line).unwrap();
    assert!(line.contains("Scratch database"), "{line}");
    let pid = child.id().to_string();
    let interrupted = Command::new("kill").args(["-INT", &pid]).status();
    assert!(interrupted.unwrap().success());
    let mut said = String::new();
    let mut output = child.stdout.take().unwrap();
    output.read_to_string(&mut said).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0), "{said}");
    assert!(said.contains("Interrupted"), "{said}");
    assert!(said.contains("Not begun: counter."), "{said}");
    assert!(is_empty(dir.path()), "{said}");
}
