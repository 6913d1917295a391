//! A file whose name leads somewhere else while a program has it open.

use std::fs;

use onepen::{Database, ErrorKind};

use crate::common::options;

fn with_rows(path: &std::path::Path, rows: &[i64]) -> Database {
    let db = options().open(path).unwrap();
    db.execute("CREATE TABLE t(n)", ()).unwrap();
    for row in rows {
        db.execute("INSERT INTO t VALUES (?1)", (*row,)).unwrap();
    }
    db
}

#[test]
fn a_file_that_was_replaced_while_open_is_refused_and_the_other_one_not_touched() {
    let dir = tempfile::tempdir().unwrap();
    let (path, other) = (dir.path().join("a.db"), dir.path().join("b.db"));
    let db = with_rows(&path, &[1, 2]);
    with_rows(&other, &[100]).close();
    fs::rename(&path, dir.path().join("moved.db")).unwrap();

    // Nothing is there: nothing is made.
    let snapshot = db.snapshot().map(drop).unwrap_err();
    assert_eq!(snapshot.kind(), ErrorKind::Refused, "{snapshot}");
    assert!(
        snapshot.to_string().contains("moved away or replaced"),
        "{snapshot}"
    );
    assert!(!path.exists());

    // Another one is there: its rows are nobody's answer, and it is not written to.
    let before = fs::read(&other).unwrap();
    fs::rename(&other, &path).unwrap();
    for _ in 0..3 {
        let again = db.snapshot().map(drop).unwrap_err();
        assert_eq!(again.kind(), ErrorKind::Refused, "{again}");
        let sum = db.query_row("SELECT sum(n) FROM t", (), |row| row.get::<_, i64>(0));
        match sum {
            Ok(sum) => assert_eq!(sum, 3),
            Err(error) => assert_eq!(error.kind(), ErrorKind::Refused, "{error}"),
        }
    }
    drop(db.execute("INSERT INTO t VALUES (3)", ()));
    db.close();
    assert_eq!(fs::read(&path).unwrap(), before);
}
