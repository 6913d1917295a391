//! The disk fails under a COMMIT: what each member is told is true, also after a
//! crash that follows.
//!
//! Calls of the C library fail here where a test has asked for it (`disk`).
#![cfg(all(target_os = "linux", target_env = "gnu"))]

mod common;
#[path = "common/disk.rs"]
mod disk;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use onepen::{Durability, Error, ErrorKind, Outcome, Result, WriteTx};
use rusqlite::ffi;

use common::{Scene, among_neighbours, child, in_child, options, refused, until};
use disk::{Call, Fault};

const TABLE: &str = "CREATE TABLE t(n INTEGER PRIMARY KEY);";

fn log(scene: &Scene) -> PathBuf {
    PathBuf::from(format!("{}-wal", scene.path().display()))
}

/// What a crash at this moment would leave, after recovery. Copied by a process
/// of its own: closing a descriptor of the file in this one drops its locks.
fn after_a_crash(scene: &Scene) -> Vec<i64> {
    let image = tempfile::tempdir().unwrap();
    let copy = Command::new("cp")
        .arg(scene.path())
        .arg(log(scene))
        .arg(image.path())
        .status()
        .unwrap();
    assert!(copy.success());
    let connection = rusqlite::Connection::open(image.path().join("scene.db")).unwrap();
    let check: String = connection
        .query_row("PRAGMA integrity_check", (), |row| row.get(0))
        .unwrap();
    assert_eq!(check, "ok");
    let mut statement = connection.prepare("SELECT n FROM t ORDER BY n").unwrap();
    let numbers = statement.query_map((), |row| row.get(0)).unwrap();
    numbers.map(|number| number.unwrap()).collect()
}

/// Three members that share a COMMIT, the second of which fails by itself; how
/// often they ran; and what they were told.
fn a_group(scene: &Scene, fault: impl FnOnce() -> Fault) -> (Vec<Result<usize>>, u32, Fault) {
    let runs = Arc::new(AtomicU32::new(0));
    let hold = scene.hold();
    let members: Vec<_> = (1..=3)
        .map(|n| {
            let runs = Arc::clone(&runs);
            scene.db.submit(move |tx| {
                runs.fetch_add(1, Ordering::SeqCst);
                let inserted = tx.execute("INSERT INTO t VALUES (?1)", (n,))?;
                if n == 2 {
                    Err(Error::other("on purpose"))
                } else {
                    Ok(inserted)
                }
            })
        })
        .collect();
    scene.wait_for_queue(3);
    let fault = fault();
    hold.release();
    let answers = members
        .into_iter()
        .map(|member| member.unwrap().wait())
        .collect();
    (answers, runs.load(Ordering::SeqCst), fault)
}

#[test]
fn a_failed_flush_is_unknown_because_a_crash_may_bring_the_group_back() {
    let scene = Scene::new(TABLE);
    scene.make_wary();
    let (answers, runs, fault) = a_group(&scene, || {
        Fault::plan(&log(&scene), Call::Sync, libc::EIO, 0, 1)
    });
    assert_eq!(fault.fired(), 1);
    assert_eq!(runs, 3, "somebody was run again");
    for (n, answer) in (1..).zip(answers) {
        let error = answer.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::CommitFailed, "{error}");
        assert_eq!(
            error.sqlite_code(),
            Some(ffi::SQLITE_IOERR_FSYNC),
            "{error}"
        );
        // One undid itself before the COMMIT: of that much nothing can come back.
        let outcome = if n == 2 {
            Outcome::NotCommitted
        } else {
            Outcome::Unknown
        };
        assert_eq!(error.outcome(), outcome, "{error}");
    }
    assert_eq!(
        scene.number("SELECT count(*) FROM t"),
        0,
        "somebody sees what failed"
    );
    assert_eq!(
        after_a_crash(&scene),
        [1, 3],
        "the reason for `Unknown` has gone"
    );
    // The next COMMIT decides it.
    scene.db.execute("INSERT INTO t VALUES (4)", ()).unwrap();
    assert_eq!(after_a_crash(&scene), [4]);
    assert_eq!(scene.numbers("SELECT n FROM t"), [4]);
}

#[test]
fn a_failed_flush_of_a_lone_write_is_unknown_and_is_not_retried() {
    let scene = Scene::new(TABLE);
    let runs = AtomicU32::new(0);
    let write = |tx: &WriteTx<'_>| {
        runs.fetch_add(1, Ordering::SeqCst);
        tx.execute("INSERT INTO t VALUES (1)", ())
    };
    for (n, once) in [(1, false), (2, true)] {
        let fault = Fault::plan(&log(&scene), Call::Sync, libc::EIO, 0, 1);
        let answer = if once {
            scene.db.write_once(write)
        } else {
            scene.db.write(write)
        };
        let error = answer.unwrap_err();
        assert_eq!(error.outcome(), Outcome::Unknown, "{error}");
        assert_eq!(runs.load(Ordering::SeqCst), n);
        assert_eq!(fault.fired(), 1);
        assert_eq!(after_a_crash(&scene), [1]);
    }
}

#[test]
fn a_failed_flush_of_a_plain_connections_transaction_is_unknown_and_is_not_retried() {
    use onepen::blocks::{Immediate, Retry};
    let scene = Scene::new(TABLE);
    let mut connection = scene.stranger();
    let mut runs = 0;
    let fault = Fault::plan(&log(&scene), Call::Sync, libc::EIO, 0, 1);
    let error = Retry::new()
        .transaction::<Immediate, _>(&mut connection, |tx| {
            runs += 1;
            tx.execute("INSERT INTO t VALUES (1)", ())
        })
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::CommitFailed);
    assert_eq!(error.outcome(), Outcome::Unknown, "{error}");
    assert_eq!((runs, fault.fired()), (1, 1));
    assert!(connection.is_autocommit());
    assert_eq!(after_a_crash(&scene), [1]);
}

#[test]
fn a_full_disk_at_commit_is_not_committed() {
    let scene = Scene::new(TABLE);
    scene.make_wary();
    for call in [Call::Write, Call::ShortWrite] {
        let (answers, runs, fault) = a_group(&scene, || {
            Fault::plan(&log(&scene), call, libc::ENOSPC, 0, usize::MAX)
        });
        assert!(fault.fired() > 0);
        assert_eq!(runs, 3, "a full disk is nobody's own doing");
        for error in answers.into_iter().map(Result::unwrap_err) {
            assert_eq!(error.kind(), ErrorKind::CommitFailed, "{error}");
            assert_eq!(error.sqlite_code(), Some(ffi::SQLITE_FULL), "{error}");
            assert_eq!(error.outcome(), Outcome::NotCommitted, "{error}");
        }
        assert_eq!(after_a_crash(&scene), Vec::<i64>::new());
        drop(fault);
    }
    scene.db.execute("INSERT INTO t VALUES (4)", ()).unwrap();
    assert_eq!(after_a_crash(&scene), [4]);
}

/// SQLite's own method: the first call fails, then the second, until there is
/// none left to fail.
#[test]
fn whichever_call_fails_everybody_is_told_the_truth() {
    for call in [Call::Write, Call::ShortWrite, Call::Sync] {
        for errno in [libc::EIO, libc::ENOSPC, libc::EDQUOT] {
            for spare in 0.. {
                let scene = Scene::new(TABLE);
                scene.make_wary();
                let (answers, _, fault) =
                    a_group(&scene, || Fault::plan(&log(&scene), call, errno, spare, 1));
                let image = after_a_crash(&scene);
                for (n, answer) in (1..).zip(answers) {
                    let told = match &answer {
                        Ok(_) => Outcome::Committed,
                        Err(error) => error.outcome(),
                    };
                    let context = format!("{call:?} {errno} {spare}: {n} was told {answer:?}");
                    match told {
                        Outcome::Committed => assert!(image.contains(&n), "{context}"),
                        Outcome::NotCommitted => assert!(!image.contains(&n), "{context}"),
                        Outcome::Unknown => {}
                    }
                }
                let fired = fault.fired();
                drop(fault);
                scene.db.execute("INSERT INTO t VALUES (9)", ()).unwrap();
                assert_eq!(after_a_crash(&scene).last(), Some(&9));
                if fired == 0 {
                    assert_eq!(image, [1, 3]);
                    assert!(spare > 0, "no {call:?} was ever made");
                    break;
                }
            }
        }
    }
}

/// A transaction larger than the page cache is written before its COMMIT, and a
/// failure there ends it under whoever is writing.
#[test]
fn a_write_that_fails_in_the_middle_of_a_member_is_nobody_elses_failure() {
    let schema = "CREATE TABLE t(n INTEGER PRIMARY KEY); CREATE TABLE large(b BLOB);";
    for wary in [false, true] {
        let scene = Scene::with(options().page_cache(64 << 10), schema);
        if wary {
            scene.make_wary();
        }
        let hold = scene.hold();
        let insert = |n: i64| {
            scene
                .db
                .submit(move |tx| tx.execute("INSERT INTO t VALUES (?1)", (n,)))
                .unwrap()
        };
        let before = insert(1);
        let runs = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&runs);
        let large = scene.db.submit(move |tx| {
            counted.fetch_add(1, Ordering::SeqCst);
            tx.execute("INSERT INTO large VALUES (randomblob(2000000))", ())
        });
        let after = insert(2);
        scene.wait_for_queue(3);
        let fault = Fault::plan(&log(&scene), Call::Write, libc::EIO, 0, 1);
        hold.release();
        assert_eq!(before.wait().unwrap(), 1);
        assert_eq!(after.wait().unwrap(), 1);
        // It was run again, alone, and the disk had recovered.
        assert_eq!(large.unwrap().wait().unwrap(), 1);
        assert_eq!(fault.fired(), 1);
        assert_eq!(runs.load(Ordering::SeqCst), 2);
        assert_eq!(after_a_crash(&scene), [1, 2]);
    }
}

#[test]
fn a_disk_that_goes_on_failing_goes_on_being_reported() {
    let scene = Scene::new(TABLE);
    let fault = Fault::plan(&log(&scene), Call::Sync, libc::EIO, 0, usize::MAX);
    for n in 0..20 {
        let error = scene
            .db
            .execute("INSERT INTO t VALUES (?1)", (n,))
            .unwrap_err();
        assert_eq!(error.outcome(), Outcome::Unknown, "{error}");
    }
    assert_eq!(fault.fired(), 20);
    drop(fault);
    scene.db.execute("INSERT INTO t VALUES (50)", ()).unwrap();
    assert_eq!(scene.numbers("SELECT n FROM t"), [50]);
}

/// SQLite flushes the database only when a checkpoint has copied the whole log,
/// which it never has while somebody writes or reads. What it left to be flushed
/// would be flushed in the pen's turn, while every writer waits.
#[test]
fn what_was_copied_back_is_flushed_though_the_log_cannot_be_reset_yet() {
    let scene = Scene::with(
        options()
            .durability(Durability::Normal)
            .wal_limit(64, Duration::from_millis(5)),
        "CREATE TABLE t(n INTEGER PRIMARY KEY, b BLOB);",
    );
    let write = || {
        scene
            .db
            .execute("INSERT INTO t(b) VALUES (randomblob(9000))", ())
            .unwrap()
    };
    for _ in 0..8 {
        write();
    }
    let pinned = scene.db.snapshot().unwrap();
    let fault = Fault::plan(&scene.path(), Call::Sync, libc::EIO, 0, 1);
    until("a flush beside a snapshot", || {
        write();
        fault.fired() > 0
    });
    // It failed, and nobody knows what of it is on the disk, whatever a later flush
    // says: the log stays, to be copied anew when somebody opens it.
    drop(fault);
    drop(pinned);
    until("a log that would have been reset many times", || {
        write();
        scene.db.stats().wal_frames > 64 * 16
    });
    assert_eq!(scene.db.stats().wal_resets, 0);
    assert!(scene.db.stats().wal_pinned_for.is_some());
    let rows = scene.number("SELECT count(*) FROM t");
    scene.db.close();
    assert!(log(&scene).metadata().unwrap().len() > 64 * 16 * 4096);
    let reopened = options().open(scene.path()).unwrap();
    reopened.close();
    assert!(!log(&scene).exists(), "it is not copied back any more");
    assert_eq!(scene.number("SELECT count(*) FROM t"), rows);
}

/// Copying the log back fails; the log is kept, and nobody who writes notices.
#[test]
fn a_failing_checkpoint_fails_no_write_and_is_tried_again() {
    let scene = Scene::with(
        options()
            .durability(Durability::Normal)
            .wal_limit(32, Duration::from_millis(5)),
        "CREATE TABLE t(n INTEGER PRIMARY KEY, b BLOB);",
    );
    let fault = Fault::plan(&scene.path(), Call::Write, libc::EIO, 0, usize::MAX);
    let write = || {
        scene
            .db
            .execute("INSERT INTO t(b) VALUES (randomblob(9000))", ())
            .unwrap()
    };
    until("a checkpoint was tried", || {
        write();
        fault.fired() > 0
    });
    let resets = scene.db.stats().wal_resets;
    for _ in 0..20 {
        write();
    }
    assert_eq!(scene.db.stats().wal_resets, resets);
    drop(fault);
    until("the log is reset", || scene.db.stats().wal_resets > resets);
    let rows = scene.number("SELECT count(*) FROM t");
    scene.db.close();
    assert_eq!(scene.number("SELECT count(*) FROM t"), rows);
}

/// The child of the next test; SQLite's limit of memory is the whole process's.
#[test]
fn out_of_memory() {
    if in_child().is_none() {
        return;
    }
    among_neighbours(
        TABLE,
        |tx| {
            tx.execute("INSERT INTO t VALUES (1)", ())?;
            // SAFETY: plain numbers; the limit is taken off again below.
            unsafe { ffi::sqlite3_hard_heap_limit64(ffi::sqlite3_memory_used() + 200_000) };
            let large = "INSERT INTO t SELECT length(randomblob(50000000))";
            let answer = tx.execute(large, ());
            // SAFETY: as above.
            unsafe { ffi::sqlite3_hard_heap_limit64(0) };
            answer
        },
        |answer, scene| {
            assert_eq!(refused(answer).sqlite_code(), Some(ffi::SQLITE_NOMEM));
            assert_eq!(scene.number("SELECT count(*) FROM t"), 0);
        },
    );
}

#[test]
fn a_member_that_runs_out_of_memory_fails_alone() {
    let output = child("out_of_memory", Path::new("yes")).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
}
