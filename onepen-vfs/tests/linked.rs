//! The VFS in a Rust program, over the SQLite that rusqlite brought.
#![cfg(target_os = "linux")]

use rusqlite::{Connection, TransactionBehavior};

#[test]
fn rusqlites_connections_take_part_once_it_is_registered() {
    onepen_vfs::register_linked!().unwrap();
    onepen_vfs::register_linked!().unwrap(); // again is nothing new
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("app.db");
    let first = Connection::open(&path).unwrap();
    first.pragma_update(None, "journal_mode", "wal").unwrap();
    first
        .execute_batch("CREATE TABLE t(v); INSERT INTO t VALUES(0)")
        .unwrap();
    let on: String = first
        .pragma_query_value(None, "onepen", |row| row.get(0))
        .unwrap();
    assert_eq!(on, "on");
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut connection = Connection::open(&path).unwrap();
                for _ in 0..200 {
                    let tx = connection
                        .transaction_with_behavior(TransactionBehavior::Deferred)
                        .unwrap();
                    let v: i64 = tx
                        .query_row("SELECT v FROM t", [], |row| row.get(0))
                        .unwrap();
                    tx.execute("UPDATE t SET v = ?", [v + 1]).unwrap();
                    tx.commit().unwrap();
                }
            });
        }
    });
    let v: i64 = first
        .query_row("SELECT v FROM t", [], |row| row.get(0))
        .unwrap();
    assert_eq!(v, 800);
}
