//! The VFS and `onepen` in one program, over one SQLite and the same database.
#![cfg(target_os = "linux")]

use std::time::Duration;

use onepen::Database;
use rusqlite::{Connection, TransactionBehavior};

const TIMES: i64 = 100;

/// The pen has its turn at the gate already when its connection asks the VFS for one,
/// and stands in line beside connections that have theirs from the VFS.
#[test]
fn onepen_and_connections_of_the_vfs_write_the_same_database_and_lose_nothing() {
    onepen_vfs::register_linked!().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("app.db");
    let db = Database::open(&path).unwrap();
    db.execute("CREATE TABLE t(v)", ()).unwrap();
    db.execute("INSERT INTO t VALUES (0)", ()).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut connection = Connection::open(&path).unwrap();
                connection.busy_timeout(Duration::from_secs(60)).unwrap();
                let on: String = connection
                    .pragma_query_value(None, "onepen", |row| row.get(0))
                    .unwrap();
                assert_eq!(on, "on");
                for _ in 0..TIMES {
                    // Not refused in the middle: the others queue.
                    let tx = connection
                        .transaction_with_behavior(TransactionBehavior::Deferred)
                        .unwrap();
                    let v: i64 = tx
                        .query_row("SELECT v FROM t", (), |row| row.get(0))
                        .unwrap();
                    tx.execute("UPDATE t SET v = ?", [v + 1]).unwrap();
                    tx.commit().unwrap();
                }
            });
            scope.spawn(|| {
                for _ in 0..TIMES {
                    db.write(|tx| {
                        let v: i64 = tx.query_row("SELECT v FROM t", (), |row| row.get(0))?;
                        tx.execute("UPDATE t SET v = ?", [v + 1])
                    })
                    .unwrap();
                }
            });
        }
    });
    let v: i64 = db
        .query_row("SELECT v FROM t", (), |row| row.get(0))
        .unwrap();
    assert_eq!(v, 4 * TIMES);
    // Neither has let go a lock of the other's: who closes a file of a database loses
    // all of its process's locks on it.
    let holder = Connection::open(&path).unwrap();
    holder.execute_batch("BEGIN IMMEDIATE").unwrap();
    Connection::open(&path)
        .unwrap()
        .query_row("SELECT v FROM t", (), |_| Ok(()))
        .unwrap();
    drop(db);
    drop(Database::open(&path).unwrap());
    let stranger = std::process::Command::new("python3")
        .args([
            "-c",
            "import sqlite3, sys; sqlite3.connect(sys.argv[1], timeout=0).execute('BEGIN IMMEDIATE')",
        ])
        .arg(&path)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&stranger.stderr);
    assert!(said.contains("database is locked"), "{said}");
    holder.execute_batch("COMMIT").unwrap();
}
