//! Files beside the database that somebody left or put there.

use std::collections::BTreeSet;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use onepen::{Database, Options};
use rusqlite::Connection;

fn beside(path: &Path, ending: &str) -> PathBuf {
    PathBuf::from(format!("{}{ending}", path.display()))
}

/// Rows 1 to 3, of which the third is in the log only, and the log.
fn make(dir: &Path) -> (Vec<u8>, Vec<u8>) {
    let path = dir.join("alive.db");
    let connection = Connection::open(&path).unwrap();
    connection
        .execute_batch(
            "PRAGMA journal_mode = WAL; CREATE TABLE t(n INTEGER PRIMARY KEY);
             INSERT INTO t VALUES (1), (2); PRAGMA wal_checkpoint(TRUNCATE);
             INSERT INTO t VALUES (3);",
        )
        .unwrap();
    let read = |part| std::fs::read(beside(&path, part)).unwrap();
    (read(""), read("-wal"))
}

fn rows(db: &Database) -> BTreeSet<i64> {
    let rows = db.read(|tx| tx.query_map("SELECT n FROM t", (), |row| row.get(0)));
    rows.unwrap().into_iter().collect()
}

#[test]
fn whatever_is_left_beside_a_database_nothing_committed_is_lost_and_nothing_invented() {
    let dir = tempfile::tempdir().unwrap();
    let (database, log) = make(dir.path());
    let noise: Vec<u8> = (0..5000_u32).map(|n| (n * 197 % 251) as u8).collect();
    let stale = {
        // Of another database, with another salt: SQLite's own check must refuse it.
        let mut stale = log.clone();
        stale[16] ^= 0x55;
        stale
    };
    let logs: [(&str, Option<&[u8]>); 6] = [
        ("its own", Some(&log)),
        ("none", None),
        ("empty", Some(&[])),
        ("noise", Some(&noise)),
        ("stale", Some(&stale)),
        ("cut", Some(&log[..log.len() - 100])),
    ];
    let others: [(&str, Option<&[u8]>); 4] = [
        ("none", None),
        ("empty", Some(&[])),
        ("noise", Some(&noise)),
        ("zeros", Some(&[0; 40000])),
    ];
    let mut tried = 0;
    for (log_is, log) in logs {
        for (shm_is, shm) in others {
            for (journal_is, journal) in others {
                for (gate_is, gate) in others {
                    let home = tempfile::tempdir_in(dir.path()).unwrap();
                    let path = home.path().join("a.db");
                    let put = |ending, bytes: Option<&[u8]>| {
                        if let Some(bytes) = bytes {
                            std::fs::write(beside(&path, ending), bytes).unwrap();
                        }
                    };
                    put("", Some(&database));
                    put("-wal", log);
                    put("-shm", shm);
                    put("-journal", journal);
                    put("-gate", gate);
                    let context = format!(
                        "log: {log_is}, shm: {shm_is}, journal: {journal_is}, gate: {gate_is}"
                    );
                    let db = Options::new().open(&path);
                    let db = db.unwrap_or_else(|error| panic!("{context}: {error}"));
                    let wanted = if log_is == "its own" { 3 } else { 2 };
                    assert_eq!(rows(&db), (1..=wanted).collect(), "{context}");
                    db.execute("INSERT INTO t VALUES (9)", ()).unwrap();
                    assert!(rows(&db).contains(&9), "{context}");
                    drop(db);
                    let again = Options::new().open(&path).unwrap();
                    assert!(rows(&again).contains(&9), "{context}");
                    if gate_is == "noise" {
                        let left = std::fs::read(beside(&path, "-gate")).unwrap();
                        assert_eq!(left, noise, "what is not ours was changed");
                    }
                    tried += 1;
                }
            }
        }
    }
    println!("{tried} combinations");
}

/// Whoever may write to the directory, and not to a file elsewhere, must not get
/// us to write to it for him.
#[test]
fn a_planted_link_is_not_followed() {
    for ending in ["-wal", "-shm", "-journal", "-gate"] {
        for there in [false, true] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("a.db");
            let target = dir.path().join("somebody's own");
            if there {
                std::fs::write(&target, "somebody's own").unwrap();
            }
            symlink(&target, beside(&path, ending)).unwrap();
            let options = Options::new().wait(std::time::Duration::from_millis(200));
            if let Ok(db) = options.open(&path) {
                let _ = db.execute("CREATE TABLE t(n)", ());
                let _ = db.execute("INSERT INTO t VALUES (1)", ());
                db.close();
            }
            let context = format!("{ending}, there: {there}");
            assert_eq!(target.exists(), there, "{context}: it was made");
            if there {
                let now = std::fs::read_to_string(&target).unwrap();
                assert_eq!(now, "somebody's own", "{context}: it was written to");
            }
        }
    }
}
