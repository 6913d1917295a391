//! What a copy is.

use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use onepen::backup::{Check, Phase};
use onepen::{ErrorKind, Journal};

use super::common::{quick, until};
use super::{names, pair, scene, scene_with, write};

#[test]
fn a_copy_of_a_snapshot_is_the_state_of_the_moment_it_began() {
    let scene = scene();
    write(&scene.db);
    let target = scene.dir().join("copy.db");
    let mut steps = 0;
    let copied = scene
        .db
        .backup_to(&target)
        .snapshot(true)
        .progress(|done| {
            if done.phase == Phase::Copying {
                steps += 1;
                write(&scene.db); // between every two steps
            }
        })
        .run()
        .unwrap();
    assert!(steps > 3, "{steps} steps");
    assert_eq!(copied.started_over, 0);
    assert_eq!(pair(&target), (1, 1), "not what was written later");
    assert_eq!(
        scene.number("SELECT n FROM pair WHERE id = 1"),
        1 + steps,
        "no writer had to wait for the copy"
    );
    assert_eq!(copied.bytes, std::fs::metadata(&target).unwrap().len());
    assert_eq!(names(scene.dir()), ["copy.db"]);
}

#[test]
fn whatever_another_process_writes_a_copy_is_made() {
    for snapshot in [true, false] {
        let started_over = copy_beside_a_stranger(snapshot);
        // Of a snapshot, nothing makes it start over; and when it was in vain
        // through the pen, a snapshot is what it becomes.
        let most = if snapshot { 0 } else { 4 };
        assert!(started_over <= most, "{started_over} times");
    }
}

/// Says how many times it started over.
fn copy_beside_a_stranger(snapshot: bool) -> u32 {
    let scene = scene();
    let script = "import sqlite3, sys
c = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=60)
while True:
    c.execute('BEGIN IMMEDIATE')
    c.execute('UPDATE pair SET n = n + 1')
    c.execute('COMMIT')";
    let mut stranger = Command::new("python3")
        .args(["-c", script])
        .arg(scene.path())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let written = || scene.number("SELECT n FROM pair WHERE id = 1");
    until("the stranger writes", || written() > 0);
    let target = scene.dir().join("copy.db");
    let copied = scene
        .db
        .backup_to(&target)
        .snapshot(snapshot)
        .progress(|done| {
            // Not before it has written again.
            let now = written();
            if done.phase == Phase::Copying {
                until("the stranger goes on", || written() > now);
            }
        })
        .run();
    stranger.kill().unwrap();
    stranger.wait().unwrap();
    let (one, two) = pair(&target);
    assert_eq!(one, two);
    copied.unwrap().started_over
}

#[test]
fn a_compact_copy_has_the_same_content_and_no_free_pages() {
    let scene = scene();
    scene
        .db
        .execute("DELETE FROM pair WHERE id > 2", ())
        .unwrap();
    scene
        .db
        .write(|tx| tx.execute_batch("CREATE TABLE gone AS SELECT * FROM weight; DROP TABLE gone"))
        .unwrap();
    let (plain, compact) = (scene.dir().join("plain.db"), scene.dir().join("compact.db"));
    let plain_size = scene.db.backup_to(&plain).run().unwrap().bytes;
    let compact_size = scene
        .db
        .backup_to(&compact)
        .compact(true)
        .run()
        .unwrap()
        .bytes;
    assert!(
        compact_size < plain_size * 3 / 4,
        "{compact_size} {plain_size}"
    );
    assert_eq!(pair(&plain), pair(&compact));
}

#[test]
fn over_a_rollback_journal_a_strangers_writes_make_it_start_over() {
    let scene = scene_with(quick().journal(Journal::Rollback));
    let target = scene.dir().join("copy.db");
    let write = || {
        let stranger = scene.stranger();
        stranger.execute("UPDATE pair SET n = n + 1", ()).unwrap();
    };
    let copied = scene
        .db
        .backup_to(&target)
        .progress(|done| {
            if done.phase == Phase::Copying && done.started_over < 2 && done.bytes > 2 << 20 {
                write();
            }
        })
        .run()
        .unwrap();
    assert_eq!(copied.started_over, 2, "each of the two writes");
    assert_eq!(pair(&target), (2, 2));

    let refused = scene
        .db
        .backup_to(scene.dir().join("never.db"))
        .progress(|done| {
            if done.phase == Phase::Copying {
                write();
            }
        })
        .run()
        .unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Refused);
    let said = refused.to_string();
    for part in [
        "somebody wrote",
        "`--hold-writers`",
        "`Transfer::hold_writers`",
    ] {
        assert!(said.contains(part), "{said}");
    }
    assert_eq!(names(scene.dir()), ["copy.db"]);
}

#[test]
fn over_a_rollback_journal_writers_can_be_held_for_a_last_copy() {
    let scene = scene_with(quick().journal(Journal::Rollback));
    let target = scene.dir().join("copy.db");
    let write = || {
        let stranger = scene.stranger();
        stranger.busy_timeout(Duration::ZERO).unwrap();
        stranger.execute("UPDATE pair SET n = n + 1", ())
    };
    let (mut wrote, mut held) = (0, 0);
    let mut copy = |at_most| {
        scene
            .db
            .backup_to(&target)
            .replace(true)
            .hold_writers(at_most)
            .progress(|done| {
                if done.phase == Phase::Copying {
                    match write() {
                        Ok(_) => wrote += 1,
                        Err(_) => held += 1,
                    }
                }
            })
            .run()
    };
    copy(Duration::from_secs(60)).unwrap();
    let late = copy(Duration::ZERO).unwrap_err();
    assert_eq!(late.kind(), ErrorKind::DeadlineExceeded, "{late}");
    assert!(late.to_string().contains("writers were held"), "{late}");
    assert!(wrote > 3, "{wrote}");
    assert!(held > 1, "{held}");
    let (one, two) = pair(&target);
    assert_eq!(one, two);
    write().unwrap();
}

#[test]
fn a_database_in_memory_and_an_empty_one_can_be_copied() {
    let dir = tempfile::tempdir().unwrap();
    let memory = onepen::Database::open_in_memory().unwrap();
    memory.backup_to(dir.path().join("empty.db")).run().unwrap();
    memory.execute("CREATE TABLE a(n)", ()).unwrap();
    memory.execute("INSERT INTO a VALUES (5)", ()).unwrap();
    memory.backup_to(dir.path().join("five.db")).run().unwrap();
    let copy = rusqlite::Connection::open(dir.path().join("five.db")).unwrap();
    let n: i64 = copy
        .query_row("SELECT n FROM a", (), |row| row.get(0))
        .unwrap();
    assert_eq!(n, 5);
}

#[test]
fn a_copy_is_for_the_same_people_as_its_source() {
    let scene = scene();
    std::fs::set_permissions(scene.path(), PermissionsExt::from_mode(0o640)).unwrap();
    let target = scene.dir().join("copy.db");
    scene.db.backup_to(&target).run().unwrap();
    let mode = std::fs::metadata(&target).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o640);
    // And one that replaces a file as that file.
    std::fs::set_permissions(&target, PermissionsExt::from_mode(0o600)).unwrap();
    scene.db.backup_to(&target).replace(true).run().unwrap();
    let mode = std::fs::metadata(&target).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn damage_is_found_before_the_copy_takes_its_place() {
    let scene = scene();
    let target = scene.dir().join("copy.db");
    scene.db.backup_to(&target).run().unwrap();
    let path = scene.path();
    scene.db.close();
    // A page in the middle, as a disk would spoil it.
    use std::os::unix::fs::FileExt;
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.write_all_at(&[0xa5; 4096], 100 * 4096).unwrap();
    drop(file);
    for compact in [false, true] {
        let error = onepen::backup::restore(&path, &target)
            .replace(true)
            .compact(compact)
            .run()
            .unwrap_err();
        let known = [ErrorKind::Damaged, ErrorKind::Sqlite]; // VACUUM notices by itself
        assert!(
            known[..=usize::from(compact)].contains(&error.kind()),
            "{error:?}"
        );
        assert_eq!(pair(&target), (0, 0), "the old one is still there");
        assert_eq!(names(scene.dir()), ["copy.db"]);
    }
    // Who does not want it checked gets it as it is.
    let unchecked = onepen::backup::restore(&path, scene.dir().join("bad.db"))
        .check(Check::None)
        .run()
        .unwrap();
    assert_eq!(unchecked.check, Check::None);
    let again = onepen::backup::restore(&path, scene.dir().join("worse.db"))
        .check(Check::Quick)
        .run()
        .unwrap_err();
    assert_eq!(again.kind(), ErrorKind::Damaged);
}

#[test]
fn a_copy_takes_no_more_than_its_rate() {
    let scene = scene();
    let target = scene.dir().join("copy.db");
    let bytes = AtomicU64::new(0);
    let copied = scene
        .db
        .backup_to(&target)
        .rate(40 << 20)
        .progress(|done| {
            if done.phase == Phase::Copying {
                // What was copied is never ahead of what was due by more than a step.
                let due = done.elapsed.as_secs_f64() * f64::from(40 << 20);
                assert!(done.bytes as f64 <= due + f64::from(2 << 20), "{done:?}");
                bytes.store(done.bytes, Ordering::Relaxed);
            }
        })
        .run()
        .unwrap();
    assert_eq!(bytes.into_inner(), copied.bytes);
    assert!(copied.copying > Duration::from_millis(70), "{copied:?}");
}
