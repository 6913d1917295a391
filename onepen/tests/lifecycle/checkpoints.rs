//! The log stays short, whoever writes and reads, and says so when it cannot.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use onepen::Durability;

use crate::common::{Scene, until};

const TABLE: &str = "CREATE TABLE t(n INTEGER PRIMARY KEY, b BLOB);";
const LIMIT: u32 = 200;

fn scene() -> Scene {
    let options = crate::common::options()
        .durability(Durability::Normal)
        .wal_limit(LIMIT, Duration::from_millis(20));
    Scene::with(options, TABLE)
}

/// About ten frames.
fn write(scene: &Scene) {
    let sql = "INSERT INTO t(b) VALUES (randomblob(30000))";
    scene.db.execute(sql, ()).unwrap();
}

#[test]
fn the_log_is_reset_at_its_limit() {
    let scene = scene();
    until("the log was reset three times", || {
        write(&scene);
        scene.db.stats().wal_resets >= 3
    });
    let stats = scene.db.stats();
    assert!(stats.wal_frames_max >= LIMIT, "{stats:?}");
    assert_eq!(stats.wal_pinned_for, None);
}

#[test]
fn the_log_stays_bounded_under_constant_writers_and_overlapping_readers() {
    let scene = scene();
    let over = AtomicBool::new(false);
    let written = AtomicU32::new(0);
    std::thread::scope(|scope| {
        // At every moment one of them is in the middle of a read.
        for _ in 0..2 {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    let count = "SELECT count(*), max(n) FROM t";
                    scene
                        .db
                        .read(|tx| tx.query_row(count, (), |_| Ok(())))
                        .unwrap();
                }
            });
        }
        for _ in 0..2 {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    write(&scene);
                    written.fetch_add(10, Ordering::Relaxed);
                }
            });
        }
        until("the log was reset ten times", || {
            scene.db.stats().wal_resets >= 10
        });
        over.store(true, Ordering::Relaxed);
    });
    // How short it was kept is a matter of time, and not of this test; that it
    // never held everything is not.
    let stats = scene.db.stats();
    let written = written.load(Ordering::Relaxed);
    assert!(
        stats.wal_frames_max < written,
        "{} of {written}",
        stats.wal_frames_max
    );
}

#[test]
fn a_reader_that_pins_the_log_is_shown_and_the_log_is_reset_when_it_ends() {
    let scene = scene();
    write(&scene);
    let snapshot = scene.db.snapshot().unwrap();
    let seen = |snapshot: &onepen::Snapshot| -> i64 {
        snapshot
            .query_row("SELECT count(*) FROM t", (), |row| row.get(0))
            .unwrap()
    };
    assert_eq!(seen(&snapshot), 1);
    until("the reader shows", || {
        write(&scene);
        scene.db.stats().wal_pinned_for.is_some()
    });
    let resets = scene.db.stats().wal_resets;
    // Nobody is stalled by it, and it sees what it saw.
    for _ in 0..50 {
        write(&scene);
    }
    assert_eq!(seen(&snapshot), 1);
    assert_eq!(scene.db.stats().wal_resets, resets);
    assert!(scene.db.stats().wal_frames > LIMIT);
    drop(snapshot);
    until("the log is reset", || scene.db.stats().wal_resets > resets);
    until("the reader is no longer shown", || {
        scene.db.stats().wal_pinned_for.is_none()
    });
}

/// A stranger's reader pins it as well, and a stranger's checkpoint is no harm.
#[test]
fn a_strangers_reader_pins_the_log_and_a_strangers_checkpoint_is_no_harm() {
    let scene = scene();
    write(&scene);
    let stranger = scene.stranger();
    stranger.execute_batch("BEGIN").unwrap();
    let begun: i64 = stranger
        .query_row("SELECT count(*) FROM t", (), |row| row.get(0))
        .unwrap();
    assert_eq!(begun, 1);
    until("the stranger shows", || {
        write(&scene);
        scene.db.stats().wal_pinned_for.is_some()
    });
    let resets = scene.db.stats().wal_resets;
    stranger.execute_batch("COMMIT").unwrap();
    for mode in ["PASSIVE", "FULL", "RESTART", "TRUNCATE"] {
        let sql = format!("PRAGMA wal_checkpoint({mode})");
        stranger.query_row(&sql, (), |_| Ok(())).unwrap();
        write(&scene);
    }
    until("the log is reset", || {
        write(&scene);
        scene.db.stats().wal_resets > resets
    });
    let check: String = stranger
        .query_row("PRAGMA integrity_check", (), |row| row.get(0))
        .unwrap();
    assert_eq!(check, "ok");
}
