//! What fails of a copy is the copy's: a copy through the pen is written to within the
//! COMMITs of others ([`onepen::backup`]), and they never hear of it.

use std::path::Path;

use onepen::Outcome;
use onepen::backup::Phase;
use rusqlite::Connection;

use crate::common::options;
use crate::disk::{Call, Fault};
use crate::trial::is_long;

/// Of 16 KB each: more than a copy holds in memory, and more than one step copies.
const ROWS: u32 = 100;

/// A copy of which a call fails, and writes beside it. How many calls failed, and how
/// many of them within a write.
fn copy(call: Call, errno: i32, spare: usize, times: usize) -> (usize, usize) {
    let context = format!("{call:?} after {spare}, {times} times");
    let (source, target) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let copy = target.path().join("copy.db");
    let path = source.path().join("a.db");
    let db = options().open(&path).unwrap();
    db.write(|tx| {
        tx.execute_batch("CREATE TABLE t(n INTEGER PRIMARY KEY, b BLOB)")?;
        (0..ROWS).try_for_each(|n| {
            let row = "INSERT INTO t VALUES (?1, randomblob(16000))";
            tx.execute(row, (n,)).map(drop)
        })
    })
    .unwrap();
    let fault = Fault::plan(target.path(), call, errno, spare, times);
    let (mut writes, mut within) = (0, 0);
    let copied = db
        .backup_to(&copy)
        .progress(|done| {
            // After the last step what is written is no longer the copy's.
            if done.phase == Phase::Copying && done.bytes < done.of && writes < 3 {
                let before = fault.fired();
                let every = "UPDATE t SET b = randomblob(16000) WHERE n < 60";
                db.execute(every, ())
                    .unwrap_or_else(|error| panic!("{context}: {error}"));
                writes += 1;
                within += fault.fired() - before;
            }
        })
        .run();
    let fired = fault.fired();
    drop(fault);
    // What only a loss of power could take away is there.
    let is_there = match &copied {
        Ok(_) => true,
        Err(error) => error.outcome() == Outcome::Unknown,
    };
    if is_there {
        assert!(writes > 0, "{context}: one step was all");
        assert!(content(&copy) == content(&path), "{context}");
    } else {
        assert!(!copy.exists(), "{context}");
    }
    assert!(copied.is_ok() || fired > 0, "{context}: {copied:?}");
    db.execute("DELETE FROM t WHERE n = 0", ()).unwrap();
    (fired, within)
}

/// All of it, and whether it is whole.
fn content(path: &Path) -> Vec<(u32, Vec<u8>)> {
    let connection = Connection::open(path).unwrap();
    let check = connection.query_row("PRAGMA integrity_check", (), |row| row.get(0));
    assert_eq!(check, Ok("ok".to_owned()));
    let mut rows = connection.prepare("SELECT n, b FROM t").unwrap();
    let rows = rows.query_map((), |row| Ok((row.get(0)?, row.get(1)?)));
    rows.unwrap().map(|row| row.unwrap()).collect()
}

#[test]
fn whichever_call_of_a_copy_fails_no_write_hears_of_it() {
    let (mut failed, mut within) = (0, 0);
    for (call, errno) in [
        (Call::Write, libc::EIO),
        (Call::ShortWrite, libc::ENOSPC),
        (Call::Read, libc::EIO),
        (Call::Sync, libc::EIO),
        (Call::Truncate, libc::EIO),
    ] {
        // Hundreds of writes, each as good as its neighbours.
        let many = matches!(call, Call::Write | Call::ShortWrite | Call::Read);
        let every = if many && !is_long() { 97 } else { 1 };
        for times in [1, usize::MAX] {
            for spare in (0..).step_by(every) {
                let (fired, meanwhile) = copy(call, errno, spare, times);
                if fired == 0 {
                    break;
                }
                failed += 1;
                within += usize::from(meanwhile > 0);
            }
        }
    }
    println!("\nproof: {failed} calls of a copy failed, {within} of them within a write");
    assert!(within > 0, "none failed within a write");
}
