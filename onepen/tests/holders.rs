//! A wait that was too long for its deadline says who was in the way, of real
//! processes with Python's SQLite.

#![cfg(target_os = "linux")]

mod common;
#[path = "../../onepen-lock/tests/common/mod.rs"]
mod python;

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::Duration;

use common::{Scene, block_on, child, in_child, options, until};
use onepen::{Activity, Contention, Error, ErrorKind, Journal, Part, WaitedFor};
use python::Python;

const TABLE: &str = "CREATE TABLE t(n INTEGER PRIMARY KEY);";
const SOON: Duration = Duration::from_millis(50);
const WRITER: &str = "c = connect(); c.execute('BEGIN IMMEDIATE'); gate(); c.execute('ROLLBACK')";

fn assert_named(error: &Error, process: &Python, what: WaitedFor, locks: &str) {
    assert_eq!(error.kind(), ErrorKind::DeadlineExceeded, "{error}");
    let waited = error.waited();
    assert_eq!(waited.what, what, "{error}");
    assert_eq!(waited.contention(), Contention::OtherProcess, "{error}");
    let holder = waited.holder.as_ref().expect("somebody is named");
    assert_eq!(holder.pid, Some(process.pid()), "{error}");
    assert_eq!(holder.activity, Some(Activity::Sleeping), "{error}");
    assert!(holder.locks.as_deref().unwrap().contains(locks), "{error}");
    let text = error.to_string();
    let named = format!("held by python3 (pid {}, sleeping) with ", process.pid());
    assert!(text.contains(&named), "{text}");
}

#[test]
fn a_stranger_with_the_write_lock_is_named_whatever_kind_of_write_waited() {
    let scene = Scene::new(TABLE);
    let stranger = Python::at_gate(&scene.path(), WRITER);
    let sql = "INSERT INTO t VALUES (?1)";
    let with = || scene.db.with().deadline(SOON).label("checkout");
    for error in [
        with().execute(sql, (31337,)).unwrap_err(),
        with()
            .write_once(|tx| tx.execute(sql, (31337,)))
            .unwrap_err(),
        with()
            .submit(move |tx| tx.execute(sql, (31337,)))
            .unwrap()
            .wait()
            .unwrap_err(),
        block_on(with().execute_async(sql, (31337,))).unwrap_err(),
    ] {
        assert_named(&error, &stranger, WaitedFor::WriteLock, "WRITER");
        let text = error.to_string();
        assert!(text.contains("checkout: scene.db: "), "{text}");
        assert!(!text.contains("31337"), "no value: {text}");
    }
}

#[test]
fn a_report_names_the_processes_and_reads_that_hold_something() {
    let scene = Scene::new(TABLE);
    let stranger = Python::at_gate(&scene.path(), WRITER);
    let _snapshot = scene.db.with().label("export").snapshot().unwrap();
    let report = scene.db.report();
    let pid = format!("process {}", stranger.pid());
    let told = report.get("holders", &pid).expect("it has the write lock");
    assert!(
        told.contains("WRITER") && told.contains("python3"),
        "{told}"
    );
    let own = format!("this process, {}", std::process::id());
    assert!(report.get("holders", &own).is_some(), "{report}");
    assert_eq!(report.get("holders", "the pen"), Some("nobody"));
    let read = report.get("holders", "read 1").expect("the snapshot");
    assert!(read.starts_with("`export`, a snapshot of "), "{read}");
    assert!(
        read.contains("begun at holders.rs:"),
        "no directory: {read}"
    );
    let text = report.to_string();
    assert!(text.contains("[holders]") && text.contains(&pid), "{text}");
    // Asked again at once, whoever asked has locks still: no file was closed.
    drop(stranger);
    let again = scene.db.report();
    assert_eq!(again.get("holders", &pid), None, "{again}");
    assert!(again.get("holders", &own).is_some(), "{again}");
}

#[test]
fn a_stranger_that_stays_is_said_to_have_been_there_before() {
    let scene = Scene::new(TABLE);
    let _stranger = Python::at_gate(&scene.path(), WRITER);
    let since = || {
        let error = scene.db.with().deadline(SOON).execute("DELETE FROM t", ());
        error.unwrap_err().waited().holder.clone().unwrap().since
    };
    // Nothing, or as long as the same wait has looked at it before.
    let first = since().unwrap_or_default();
    let again = since().expect("seen again");
    assert!(again >= first + SOON / 2, "{first:?}, then {again:?}");
}

#[test]
fn another_connection_of_this_process_is_told_from_another_process() {
    let scene = Scene::new(TABLE);
    let other = scene.stranger();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let late = scene.db.with().deadline(SOON).execute("DELETE FROM t", ());
    let late = late.unwrap_err();
    assert_eq!(
        late.waited().contention(),
        Contention::OtherLibrary,
        "{late}"
    );
    let text = late.to_string();
    assert!(
        text.contains("another connection of this process"),
        "{text}"
    );
    // Looking has dropped no lock: it is still in the way.
    let late = scene.db.with().deadline(SOON).execute("DELETE FROM t", ());
    assert_eq!(late.unwrap_err().kind(), ErrorKind::DeadlineExceeded);
    other.execute_batch("COMMIT").unwrap();
}

/// The child of the test below: an onepen process that has the turn, and the lock.
#[test]
fn another_onepen() {
    let Some(path) = in_child() else { return };
    let gate = onepen_lock::gate::Gate::join(&path, "orders").unwrap();
    let seat = gate.seat();
    assert!(
        seat.try_take(Some("nightly import")),
        "nobody else takes turns"
    );
    let connection = rusqlite::Connection::open(path).unwrap();
    connection.execute_batch("BEGIN IMMEDIATE").unwrap();
    println!("locked");
    let _ = std::io::stdin().lock().read_line(&mut String::new());
}

#[test]
fn of_another_onepen_the_label_the_thread_and_since_when_are_known() {
    let scene = Scene::new(TABLE);
    let mut other = child("another_onepen", &scene.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(other.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("locked")));
    let late = scene.db.with().deadline(SOON).execute("DELETE FROM t", ());
    let late = late.unwrap_err();
    let holder = late.waited().holder.as_ref().expect("somebody is named");
    assert_eq!(holder.pid, Some(other.id()), "{late}");
    assert_eq!(holder.label.as_deref(), Some("nightly import"), "{late}");
    assert!(holder.since.expect("it said so") >= SOON, "{late}");
    assert!(
        late.to_string()
            .contains("held by `nightly import` on thread "),
        "{late}"
    );
    drop(other.stdin.take());
    other.wait().unwrap();
}

#[test]
fn who_has_gone_is_not_named() {
    let scene = Scene::new(TABLE);
    let stranger = Python::at_gate(&scene.path(), WRITER);
    let late = scene.db.with().deadline(SOON).execute("DELETE FROM t", ());
    assert_named(
        &late.unwrap_err(),
        &stranger,
        WaitedFor::WriteLock,
        "WRITER",
    );
    stranger.kill();
    until("the lock is free", || {
        scene.db.execute("DELETE FROM t", ()).is_ok()
    });
    let next = Python::at_gate(&scene.path(), WRITER);
    let late = scene.db.with().deadline(SOON).execute("DELETE FROM t", ());
    let late = late.unwrap_err();
    assert_named(&late, &next, WaitedFor::WriteLock, "WRITER");
    assert_eq!(late.waited().holder.as_ref().unwrap().since, None, "{late}");
}

#[test]
fn each_part_of_a_wait_has_its_length() {
    let scene = Scene::with(options().queue(1, 1 << 20, onepen::WhenFull::Wait), TABLE);
    // Has the pen and not the write lock.
    let (arrive, gate) = common::gate();
    let db = scene.db.clone();
    let first = std::thread::spawn(move || {
        db.exclusively(move |_| {
            arrive.stop();
            Ok(())
        })
    });
    gate.wait_for_arrival();
    let mut stranger = Python::at_gate(&scene.path(), WRITER);
    // One fills the queue, the other waits for space in it.
    let filling = scene
        .db
        .with()
        .deadline(4 * SOON)
        .submit(|_| Ok(()))
        .unwrap();
    let db = scene.db.clone();
    let late = std::thread::spawn(move || {
        let with = db.with().deadline(SOON * 20);
        with.execute("INSERT INTO t VALUES (1)", ()).unwrap_err()
    });
    scene.wait_for_queue(2);
    filling.wait().unwrap_err();
    scene.wait_for_queue(1);
    gate.open();
    first.join().unwrap().unwrap();
    let late = late.join().unwrap();
    assert_named(&late, &stranger, WaitedFor::WriteLock, "WRITER");
    let waited = late.waited();
    let what: Vec<_> = waited.parts.iter().map(|part| part.what).collect();
    let in_turn = [WaitedFor::QueueSpace, WaitedFor::Pen, WaitedFor::WriteLock];
    // It may be let in by the very turn that goes on to the write lock.
    let at_once = [WaitedFor::QueueSpace, WaitedFor::WriteLock];
    assert!(what == in_turn || what == at_once, "{what:?}: {late}");
    assert_eq!(waited.position, Some(1), "{late}");
    let sum: Duration = waited
        .parts
        .iter()
        .map(|Part { how_long, .. }| how_long)
        .sum();
    assert_eq!(sum, waited.how_long, "{late}");
    stranger.let_go();
}

#[test]
fn a_reader_that_a_commit_waits_for_is_named() {
    let scene = Scene::with(options().journal(Journal::Rollback), TABLE);
    let reader = Python::at_gate(
        &scene.path(),
        "c = connect(); c.execute('BEGIN'); c.execute('SELECT * FROM t').fetchall(); gate()",
    );
    let with = || scene.db.with().deadline(SOON);
    for late in [
        with().execute("INSERT INTO t VALUES (1)", ()).unwrap_err(),
        with()
            .submit(|tx| tx.execute("INSERT INTO t VALUES (1)", ()))
            .unwrap()
            .wait()
            .unwrap_err(),
    ] {
        assert_named(&late, &reader, WaitedFor::Readers, "SHARED");
    }
}

#[test]
fn who_keeps_a_database_from_opening_is_named() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("scene.db");
    let holder = Python::at_gate(
        &path,
        "c = connect(); c.execute('CREATE TABLE t(n)'); c.execute('BEGIN EXCLUSIVE'); gate()",
    );
    let late = options().wait(SOON).open(&path).unwrap_err();
    assert_named(&late, &holder, WaitedFor::Opening, "EXCLUSIVE");
}
