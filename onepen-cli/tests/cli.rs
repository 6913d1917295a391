//! The command as its users call it: arguments, streams, exit codes.

mod common;

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use common::{example, json, onepen, quick};

/// The commands that the help lists.
fn commands() -> Vec<String> {
    let help = onepen(&["--help"]).stdout;
    let (_, list) = help.split_once("Commands:\n").unwrap();
    let (list, _) = list.split_once("\n\n").unwrap();
    let names = list
        .lines()
        .filter_map(|line| line.split_whitespace().next());
    names
        .filter(|name| *name != "help")
        .map(str::to_owned)
        .collect()
}

#[test]
fn help_shows_examples_first_and_says_what_each_exit_status_means() {
    let all = onepen(&["--help"]).stdout;
    assert!(all.find("Examples:").unwrap() < all.find("Usage:").unwrap());
    assert!(commands().len() >= 8);
    for command in commands() {
        assert!(
            all.contains(&format!("\n  onepen {command} ")),
            "no example of {command}"
        );
        let ran = onepen(&[&command, "--help"]);
        assert_eq!(ran.code, 0);
        assert!(ran.stdout.find("Examples:").unwrap() < ran.stdout.find("Usage:").unwrap());
        assert!(ran.stdout.contains("Exit status:"), "{}", ran.stdout);
        assert!(ran.stdout.contains("--json"), "{}", ran.stdout);
    }
}

/// Also when it fails: a script reads one thing.
#[test]
fn json_names_its_form() {
    let dir = tempfile::tempdir().unwrap();
    let (app, copy) = (dir.path().join("app.db"), dir.path().join("copy.db"));
    let made = rusqlite::Connection::open(&app).unwrap();
    made.execute_batch("CREATE TABLE t(n)").unwrap();
    drop(made);
    let (app, copy) = (app.to_str().unwrap(), copy.to_str().unwrap());
    for (arguments, schema) in [
        (&["doctor", app, "--for", "500ms"][..], "onepen-doctor/1"),
        (
            &["top", app, "--once", "--interval", "10ms"],
            "onepen-top/1",
        ),
        (&["backup", app, copy], "onepen-backup/1"),
        (&["backup", app, copy], "onepen-backup/1"), // it is there already
        (&["restore", copy, app, "--force"], "onepen-backup/1"),
        (&["checkpoint", app], "onepen-checkpoint/1"),
        (&["checkpoint", "missing.db"], "onepen-checkpoint/1"),
    ] {
        let ran = onepen(&[arguments, &["--json"]].concat());
        let said = json(&ran);
        assert_eq!(said["schema"], schema, "{arguments:?}");
        let failed = ran.code == 2;
        for field in ["error", "message"] {
            assert_eq!(said[field].is_string(), failed, "{arguments:?}: {said}");
        }
    }
}

#[test]
fn the_list_has_every_way_and_every_workload() {
    let ran = onepen(&["bench", "--list"]);
    assert_eq!(ran.code, 0);
    for name in [
        "naive",
        "timeout",
        "wal+timeout",
        "wal+immediate+retry",
        "mutex",
        "own+mutex",
        "reopen",
        "writer-thread",
        "pool",
        "onepen",
        "onepen-async",
        "one-transaction",
        "postgres",
        "insert",
        "bank",
        "tpcb",
        "ycsb-a",
        "ycsb-b",
        "ycsb-c",
        "ycsb-f",
        "script",
    ] {
        let line = ran
            .stdout
            .lines()
            .find(|line| line.split_whitespace().next() == Some(name))
            .unwrap_or_else(|| panic!("{name} is not listed"));
        assert!(line.len() > 30, "{line}");
    }
}

#[test]
fn wrong_usage_is_2_and_says_what_to_do() {
    for (arguments, part) in [
        (
            &["--ways", "naive,nothing"][..],
            "there is no way nothing; there are naive,",
        ),
        (&["--ways", "mutex,mutex"], "the way mutex is there twice"),
        (&["--ways", "postgres"], "needs --postgres URL"),
        (
            &["--workload", "script"],
            "needs --script FILE and --db FILE",
        ),
        (&["--workload", "nothing"], "possible values: insert, bank"),
        (&["--threads", "0"], "not in 1..=4096"),
        (&["--duration", "1ms"], "between 10ms and a day"),
        (&["--threads", "2", "--sweep", "1,2"], "cannot be used with"),
        (
            &["--script", "nothing.sql", "--db", "nothing.db"],
            "cannot read nothing.sql",
        ),
        (
            &["--html", "/nothing/there.html"],
            "cannot write /nothing/there.html",
        ),
        (
            &["--dir", "/nothing/there"],
            "cannot make a scratch directory in /nothing/there",
        ),
        (
            &["--postgres", "postgres://nobody@127.0.0.1:1/x"],
            "cannot reach PostgreSQL",
        ),
    ] {
        let ran = onepen(&[&["bench"], arguments].concat());
        assert_eq!(ran.code, 2, "{arguments:?}: {}", ran.stderr);
        assert!(ran.stderr.contains(part), "{arguments:?}: {}", ran.stderr);
        assert_eq!(ran.stdout, "", "{arguments:?}");
    }
}

#[test]
fn every_way_runs_every_workload_and_nothing_is_lost() {
    for workload in [
        "insert", "bank", "tpcb", "ycsb-a", "ycsb-b", "ycsb-c", "ycsb-f",
    ] {
        let report = json(&quick(&["--workload", workload, "--readers", "1"]));
        let ways = report["points"][0]["ways"].as_array().unwrap();
        assert_eq!(ways.len(), 11, "{workload}");
        for way in ways {
            assert_eq!(
                way["could_not_run"],
                serde_json::Value::Null,
                "{workload} {way}"
            );
            assert_eq!(way["lost_updates"], 0, "{workload} {way}");
            assert_eq!(way["readers"]["clients"], 1, "{workload} {way}");
        }
    }
}

#[test]
fn the_ceiling_is_one_thread_and_runs_only_when_asked_for() {
    let ran = quick(&["--ways", "one-transaction", "--durability", "normal"]);
    let way = &json(&ran)["points"][0]["ways"][0];
    assert_eq!(way["clients"], 1, "{way}");
    assert_eq!(way["lost_updates"], 0, "{way}");
    assert!(way["committed"].as_u64().unwrap() > 0, "{way}");
}

#[test]
fn processes_share_the_database_and_all_their_clients_are_counted() {
    let ran = quick(&[
        "--processes",
        "2",
        "--ways",
        "wal+immediate+retry,pool,onepen",
        "--durability",
        "normal",
    ]);
    let report = json(&ran);
    for way in report["points"][0]["ways"].as_array().unwrap() {
        assert_eq!(way["clients"], 4, "{way}");
        assert_eq!(way["lost_updates"], 0, "{way}");
        assert!(way["committed"].as_u64().unwrap() > 0, "{way}");
    }
}

#[test]
fn without_a_terminal_nothing_moves_and_nothing_is_coloured() {
    let ran = onepen(&[
        "bench",
        "-d",
        "50ms",
        "--rounds",
        "1",
        "-t",
        "2",
        "--tasks",
        "2",
        "--ways",
        "naive,onepen",
    ]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    for text in [&ran.stdout, &ran.stderr] {
        assert!(!text.contains(['\x1b', '\r']), "{text:?}");
    }
    assert!(
        ran.stdout.contains("tx/s") && ran.stdout.contains("p99.9"),
        "{}",
        ran.stdout
    );
    assert!(
        ran.stderr.contains("Scratch databases in"),
        "{}",
        ran.stderr
    );
}

#[test]
fn the_scratch_directory_is_gone_afterwards() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_str().unwrap();
    assert_eq!(quick(&["--ways", "mutex", "--dir", path]).code, 0);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

/// A run that would take ten minutes, and the first line it says; from that
/// line on, ctrl-C is listened for.
#[cfg(unix)]
fn long_run(dir: &Path, arguments: &[&str]) -> Child {
    let mut child = Command::new(env!("CARGO_BIN_EXE_onepen"))
        .args(["bench", "--json", "-t", "2", "-d", "600s"])
        .args(arguments)
        .arg("--dir")
        .arg(dir)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stderr.as_mut().unwrap())
        .read_line(&mut line)
        .unwrap();
    assert!(line.contains("Scratch databases"), "{line}");
    child
}

#[cfg(unix)]
fn ctrl_c(child: &Child) {
    let kill = Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status();
    assert!(kill.unwrap().success());
}

#[cfg(unix)]
#[test]
fn the_first_ctrl_c_ends_the_run_and_the_report_shows_what_there_is() {
    let dir = tempfile::tempdir().unwrap();
    for processes in ["1", "2"] {
        let mut child = long_run(
            dir.path(),
            &["--ways", "mutex,pool", "--processes", processes],
        );
        ctrl_c(&child);
        let mut stdout = String::new();
        let mut output = child.stdout.take().unwrap();
        output.read_to_string(&mut stdout).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(0));
        let report: serde_json::Value = serde_json::from_str(&stdout).unwrap();
        assert_eq!(report["interrupted"], true);
        // The second way never began.
        assert_eq!(report["points"][0]["ways"][1]["rounds"], 0);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}

/// Whether a client has committed its sign into the scratch database.
#[cfg(unix)]
fn has_started(scratch: &Path) -> bool {
    let sign = || -> Option<i64> {
        let run = fs::read_dir(scratch).ok()?.next()?.ok()?;
        let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
        let db =
            rusqlite::Connection::open_with_flags(run.path().join("scratch.db"), flags).ok()?;
        db.query_row("SELECT count(*) FROM started", (), |row| row.get(0))
            .ok()
    };
    sign().is_some_and(|rows| rows > 0)
}

#[cfg(unix)]
#[test]
fn the_second_ctrl_c_ends_the_program_and_leaves_no_scratch_directory() {
    let dir = tempfile::tempdir().unwrap();
    let (db, script) = (dir.path().join("app.db"), dir.path().join("slow.sql"));
    rusqlite::Connection::open(&db)
        .unwrap()
        .execute_batch("CREATE TABLE started (n)")
        .unwrap();
    // One statement that takes longer than anybody waits, after a sign that it began.
    let slow = "INSERT INTO started VALUES (1);
                WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 1000000000000)
                SELECT max(i) FROM n;";
    fs::write(&script, slow).unwrap();
    let scratch = dir.path().join("scratch");
    fs::create_dir(&scratch).unwrap();
    let (db, script) = (db.to_str().unwrap(), script.to_str().unwrap());
    let mut child = long_run(
        &scratch,
        &["--ways", "mutex", "--script", script, "--db", db],
    );
    while !has_started(&scratch) {
        assert_eq!(child.try_wait().unwrap(), None);
        std::thread::yield_now();
    }
    // The first one cannot end it: the statement runs on. Signals of the same
    // kind may melt into one, so ask until it has gone.
    while child.try_wait().unwrap().is_none() {
        ctrl_c(&child);
    }
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert_eq!(fs::read_dir(&scratch).unwrap().count(), 0);
}

#[test]
fn the_chinook_example_runs_in_every_way_and_leaves_the_original_alone() {
    let db = example("data/chinook.sqlite");
    let original = fs::read(&db).unwrap();
    let invariant = "SELECT count(*) FROM Invoice WHERE abs(Total - (SELECT sum(UnitPrice * Quantity) \
                     FROM InvoiceLine AS l WHERE l.InvoiceId = Invoice.InvoiceId)) > 0.001";
    let report = json(&quick(&[
        "--script",
        &example("chinook-invoice.sql"),
        "--db",
        &db,
        "--read-script",
        &example("chinook-look.sql"),
        "--readers",
        "1",
        "--invariant",
        invariant,
    ]));
    assert_eq!(report["settings"]["workload"], "script");
    let ways = report["points"][0]["ways"].as_array().unwrap();
    assert_eq!(ways.len(), 11);
    for way in ways {
        assert_eq!(way["violations"], serde_json::json!([]), "{way}");
        assert_eq!(way["could_not_run"], serde_json::Value::Null, "{way}");
        let only_busy = way["errors"]
            .as_object()
            .unwrap()
            .keys()
            .all(|class| class.starts_with("SQLITE_BUSY"));
        assert!(only_busy, "{way}");
    }
    assert!(
        ways.iter()
            .any(|way| way["committed"].as_u64().unwrap() > 0)
    );
    assert_eq!(fs::read(&db).unwrap(), original);
    assert!(!fs::exists(format!("{db}-wal")).unwrap() && !fs::exists(format!("{db}-shm")).unwrap());
}

#[test]
fn a_broken_invariant_is_exit_code_1_and_says_which_way() {
    let ran = quick(&[
        "--script",
        &example("chinook-invoice.sql"),
        "--db",
        &example("data/chinook.sqlite"),
        // Not one: every invoice adds to it.
        "--invariant",
        "SELECT count(*) FROM Invoice",
        "--durability",
        "normal",
        "--ways",
        "mutex",
    ]);
    assert_eq!(ran.code, 1, "{}", ran.stderr);
    assert_eq!(
        json(&ran)["points"][0]["ways"][0]["violations"][0],
        "the invariant's query answers another value than before the run"
    );
}

#[test]
fn a_mistake_in_a_script_is_said_once_with_its_line() {
    let dir = tempfile::tempdir().unwrap();
    let script = dir.path().join("wrong.sql");
    fs::write(&script, "SELECT 1;\nUPDATE Missing SET a = 1;\n").unwrap();
    let ran = quick(&[
        "--script",
        script.to_str().unwrap(),
        "--db",
        &example("data/chinook.sqlite"),
    ]);
    assert_eq!(ran.code, 2);
    assert!(
        ran.stderr
            .contains("the script, line 2: no such table: Missing"),
        "{}",
        ran.stderr
    );
    assert_eq!(
        ran.stderr.matches("no such table").count(),
        1,
        "{}",
        ran.stderr
    );
}
