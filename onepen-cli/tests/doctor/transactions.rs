//! Transactions that last too long, and what they keep from happening.

use std::path::Path;

use crate::python::{Python, READ, ROLLBACK, WAL, home};
use crate::{doctor, finding, is_about, names, says};

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
        time.sleep(0.03) # as most programs: now and then something
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
while True: c.execute('INSERT INTO t VALUES (zeroblob(100000))'); time.sleep(0.01) # its work",
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

/// Somebody who has written so many frames and copies nothing back.
fn writer_of_a_log(path: &Path, frames: u32, then: &str) -> Python {
    let program = format!(
        "
c = connect()
c.execute('PRAGMA page_size=512')
c.execute('PRAGMA journal_mode=WAL'); c.execute('PRAGMA synchronous=OFF')
c.execute('PRAGMA wal_autocheckpoint=0')
c.execute('CREATE TABLE t(n)')
c.execute('INSERT INTO t VALUES (zeroblob(512 * {frames}))')
{then}
"
    );
    Python::at_gate(path, &program)
}

#[test]
fn a_log_of_too_many_frames_is_found_open_and_left_behind() {
    let (_home, path) = home();
    let writer = writer_of_a_log(&path, 11_000, "gate()");
    let found = finding(&doctor(&path), "wal-too-large");
    says(&found, &["frames (", "0 of them copied back"]);
    writer.kill();
    let found = finding(&doctor(&path), "wal-too-large");
    says(&found, &["left behind and nobody has the database open"]);
}

#[test]
fn a_log_that_grows_while_nothing_is_copied_back_is_starved() {
    let (_home, path) = home();
    // Sleeps, because it writes now and then: that is its work.
    let more = "print('here', flush=True)
while True: c.execute('INSERT INTO t VALUES (1)'); time.sleep(0.01)";
    let _writer = writer_of_a_log(&path, 6_000, more);
    let found = finding(&doctor(&path), "checkpoint-starved");
    says(&found, &["the log grew from", "not one was copied back"]);
}
