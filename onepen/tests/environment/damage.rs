//! A database whose bytes have changed: an answer or an error, never a panic, a
//! hang, or a file that was deleted or cut short by us.

use std::path::Path;
use std::time::Duration;

use onepen::{Options, Result};
use rusqlite::Connection;

const ROWS: i64 = 200;

fn make(path: &Path, log: bool) {
    let alive = path.with_file_name("alive.db");
    let connection = Connection::open(&alive).unwrap();
    connection
        .execute_batch(
            "PRAGMA page_size = 1024; PRAGMA journal_mode = WAL;
             CREATE TABLE t(n INTEGER PRIMARY KEY, word TEXT); CREATE INDEX i ON t(word);",
        )
        .unwrap();
    let fill = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1)
        INSERT INTO t SELECT i, printf('word %d', i * 7919) FROM n";
    connection.execute(fill, (ROWS,)).unwrap();
    if !log {
        let truncate = "PRAGMA wal_checkpoint(TRUNCATE)";
        connection.query_row(truncate, (), |_| Ok(())).unwrap();
    }
    for part in ["", "-wal"] {
        let from = format!("{}{part}", alive.display());
        std::fs::copy(from, format!("{}{part}", path.display())).unwrap();
    }
}

/// Everything a program does; what it is answered is the caller's to judge.
fn use_it(path: &Path) -> Result<i64> {
    let wait = Duration::from_secs(5);
    let db = Options::new().wait(wait).open(path)?;
    let count = db.query_row("SELECT count(*) FROM t WHERE word > 'word 1'", (), |row| {
        row.get(0)
    });
    let sum = db.read(|tx| tx.query_row("SELECT sum(n) FROM t", (), |row| row.get::<_, i64>(0)));
    let _ = db.execute("UPDATE t SET word = 'another' WHERE n % 10 = 3", ());
    let _ = db.execute("INSERT INTO t(word) VALUES ('one more')", ());
    let later = db.submit(|tx| tx.execute("DELETE FROM t WHERE n = 5", ()));
    let _ = later.and_then(onepen::Submitted::wait);
    db.close();
    sum.and(count)
}

#[test]
fn a_changed_byte_is_an_error_or_no_matter_and_no_file_is_deleted_or_cut() {
    let dir = tempfile::tempdir().unwrap();
    let original = dir.path().join("original.db");
    make(&original, false);
    let bytes = std::fs::read(&original).unwrap();
    // Every byte of the header, and then with a stride that meets all parts of pages.
    let places = (0..100).chain((100..bytes.len()).step_by(211));
    let (mut errors, mut tried) = (0, 0);
    for (place, flip) in places.zip([0x01, 0x80, 0xff].into_iter().cycle()) {
        let path = dir.path().join(format!("{place}.db"));
        let mut changed = bytes.clone();
        changed[place] ^= flip;
        std::fs::write(&path, &changed).unwrap();
        errors += u32::from(use_it(&path).is_err());
        tried += 1;
        let left = std::fs::metadata(&path).expect("it was deleted").len();
        // Closing gives back free pages of nobody: there are none.
        assert!(
            left >= bytes.len() as u64,
            "byte {place}: {left} bytes are left"
        );
        for part in ["", "-wal", "-shm", "-gate"] {
            let _ = std::fs::remove_file(format!("{}{part}", path.display()));
        }
    }
    println!("{errors} errors in {tried} damaged files");
    assert!(errors > 10 && errors < tried, "{errors} of {tried}");
}

/// What SQLite promises of a log: it ends where its checksums no longer agree.
#[test]
fn a_changed_byte_of_the_log_ends_it_there_and_what_it_held_is_whole() {
    let dir = tempfile::tempdir().unwrap();
    let original = dir.path().join("original.db");
    make(&original, true);
    let log = std::fs::read(dir.path().join("original.db-wal")).unwrap();
    for place in (0..log.len()).step_by(499) {
        let path = dir.path().join(format!("{place}.db"));
        std::fs::copy(&original, &path).unwrap();
        let mut changed = log.clone();
        changed[place] ^= 0x10;
        std::fs::write(format!("{}-wal", path.display()), changed).unwrap();
        let db = Options::new().open(&path).unwrap();
        let check: String = db
            .query_row("PRAGMA integrity_check", (), |row| row.get(0))
            .unwrap();
        assert_eq!(check, "ok", "byte {place} of the log");
        // All of the transaction that filled it, or nothing.
        let rows = db.query_row("SELECT count(*) FROM t", (), |row| row.get::<_, i64>(0));
        assert!(
            matches!(rows, Ok(0 | ROWS) | Err(_)),
            "byte {place}: {rows:?}"
        );
    }
}
