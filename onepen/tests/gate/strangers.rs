//! Programs that know of no turns, beside processes that take them.

use std::process::{Command, Stdio};

use onepen::rusqlite::Connection;

use crate::worker::Worker;

/// Python's own module, with its own timeout of five seconds.
const STRANGER: &str = "
import sqlite3, sys
c = sqlite3.connect(sys.argv[1], isolation_level=None)
for n in range(20):
    c.execute('BEGIN IMMEDIATE')
    c.execute('INSERT INTO t(process, n) VALUES (99, ?)', (n,))
    c.execute('COMMIT')
";

#[test]
fn a_stranger_and_we_both_go_on_and_neither_sees_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.db");
    let mut workers: Vec<_> = (0..3).map(|number| Worker::of(&path, number)).collect();
    for worker in &mut workers {
        assert_eq!(worker.ask("write_until_told"), "begun");
    }
    let stranger = Command::new("python3")
        .args(["-c", STRANGER])
        .arg(&path)
        .stdin(Stdio::null())
        .output()
        .expect("python3 is there");
    assert!(stranger.status.success(), "{stranger:?}");
    let written: Vec<u32> = workers
        .iter_mut()
        .map(|worker| worker.ask("end").parse().unwrap())
        .collect();
    let connection = Connection::open(&path).unwrap();
    let count = |process: u32| -> u32 {
        let sql = "SELECT count(*) FROM t WHERE process = ?1";
        connection
            .query_row(sql, (process,), |row| row.get(0))
            .unwrap()
    };
    assert_eq!(count(99), 20);
    for (process, written) in (0..).zip(written) {
        assert!(written > 0);
        assert_eq!(count(process), written);
    }
}
