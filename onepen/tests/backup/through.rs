//! A copy that is made through the pen, while this process writes.

use std::time::Duration;

use onepen::backup::{Phase, WhenLogFull};
use onepen::{CancelToken, Error, ErrorKind, Journal, Outcome, Result};

use super::common::{gate, quick, until};
use super::{names, pair, scene, scene_with, write};

const JOURNALS: [Journal; 2] = [Journal::Wal, Journal::Rollback];

#[test]
fn a_copy_is_the_state_of_the_moment_it_ended_whatever_is_written_meanwhile() {
    for journal in JOURNALS {
        let scene = scene_with(quick().journal(journal));
        write(&scene.db);
        let target = scene.dir().join("copy.db");
        let mut steps = 0;
        let copied = scene
            .db
            .backup_to(&target)
            .progress(|done| {
                if done.phase == Phase::Copying {
                    steps += 1;
                    write(&scene.db); // between every two steps, and after the last
                }
            })
            .run()
            .unwrap();
        assert!(steps > 3, "{steps} steps");
        assert_eq!(copied.started_over, 0);
        assert_eq!(pair(&target), (steps, steps), "all but the last write");
        assert_eq!(copied.bytes, std::fs::metadata(&target).unwrap().len());
        assert_eq!(names(scene.dir()), ["copy.db"]);
    }
}

#[test]
fn rows_that_are_changed_added_and_removed_meanwhile_are_so_in_the_copy() {
    for journal in JOURNALS {
        let scene = scene_with(quick().journal(journal));
        let target = scene.dir().join("copy.db");
        let mut step = 0;
        scene
            .db
            .backup_to(&target)
            .progress(|done| {
                // Nothing after the last step: then the two are to be equal.
                if done.phase == Phase::Copying && done.bytes < done.of {
                    step += 1;
                    // Pages that are copied, pages that are not, new ones, free ones.
                    let change = scene.db.write(|tx| {
                        let random = "UPDATE weight SET fill = randomblob(990) WHERE id % 7 = ?1 % 7";
                        tx.execute(random, (step,))?;
                        tx.execute("DELETE FROM weight WHERE id % 11 = ?1 % 11", (step,))?;
                        let more = "INSERT INTO weight(fill) SELECT randomblob(1200) FROM weight LIMIT 200";
                        tx.execute(more, ())
                    });
                    change.unwrap();
                }
            })
            .run()
            .unwrap();
        assert!(step > 2, "{step} steps");
        let copy = rusqlite::Connection::open(&target).unwrap();
        let fine: String = copy
            .query_row("PRAGMA integrity_check", (), |row| row.get(0))
            .unwrap();
        assert_eq!(fine, "ok");
        assert!(rows(&copy) == rows(&scene.stranger()), "they differ");
    }
}

fn rows(of: &rusqlite::Connection) -> Vec<(i64, Vec<u8>)> {
    let mut rows = of
        .prepare("SELECT id, fill FROM weight ORDER BY id")
        .unwrap();
    let rows = rows.query_map((), |row| Ok((row.get(0)?, row.get(1)?)));
    rows.unwrap().map(|row| row.unwrap()).collect()
}

#[test]
fn the_log_is_reset_while_a_copy_is_made_and_its_limit_is_of_no_account() {
    let scene = scene();
    let copied = scene
        .db
        .backup_to(scene.dir().join("copy.db"))
        .log_limit(1, WhenLogFull::Stop)
        .progress(|done| {
            if done.phase == Phase::Copying {
                let resets = scene.db.stats().wal_resets;
                until("the log is reset", || {
                    scene
                        .db
                        .execute("UPDATE weight SET fill = randomblob(1000)", ())
                        .unwrap();
                    scene.db.stats().wal_resets > resets
                });
            }
        })
        .run()
        .unwrap();
    assert_eq!(copied.started_over, 0);
}

#[test]
fn a_log_that_has_grown_long_is_reset_without_making_it_start_over() {
    // Many times its limit, so that otherwise it would be given back to the disk.
    let scene = scene_with(quick().wal_limit(16, Duration::from_millis(20)));
    let change = "UPDATE weight SET fill = randomblob(1000)";
    let mut pinned = Some(scene.db.snapshot().unwrap());
    let copied = scene
        .db
        .backup_to(scene.dir().join("copy.db"))
        .progress(|done| {
            if done.phase == Phase::Copying
                && let Some(snapshot) = pinned.take()
            {
                scene.db.execute(change, ()).unwrap();
                let resets = scene.db.stats().wal_resets;
                drop(snapshot);
                until("the log is reset", || {
                    write(&scene.db);
                    scene.db.stats().wal_resets > resets
                });
            }
        })
        .run()
        .unwrap();
    assert_eq!(copied.started_over, 0);
}

/// Changes more than SQLite keeps in memory, and fails.
fn fail(tx: &onepen::WriteTx<'_>) -> Result<()> {
    tx.execute("UPDATE pair SET n = n + 1000", ())?;
    tx.execute("UPDATE weight SET fill = zeroblob(1000)", ())?;
    Err(Error::other("on purpose"))
}

#[test]
fn writes_that_fail_neither_make_it_start_over_nor_come_into_it() {
    for journal in JOURNALS {
        let scene = scene_with(quick().journal(journal));
        let target = scene.dir().join("copy.db");
        let mut changes = scene.db.changes().unwrap();
        let mut tokens = Vec::new();
        let copied = scene
            .db
            .backup_to(&target)
            .progress(|done| {
                if done.phase == Phase::Copying {
                    scene.db.write(fail).unwrap_err(); // alone
                    let hold = scene.hold();
                    let fine = scene.db.submit(|tx| {
                        tx.execute("UPDATE pair SET n = n + 1", ())?;
                        Ok(tx.commit_token())
                    });
                    let failing = scene.db.submit(|tx| fail(tx).map(|()| tx.commit_token()));
                    hold.release();
                    tokens.push(fine.unwrap().wait().unwrap());
                    failing.unwrap().wait().unwrap_err();
                }
            })
            .run()
            .unwrap();
        assert_eq!(copied.started_over, 0, "{journal:?}");
        let steps = i64::try_from(tokens.len()).unwrap();
        assert_eq!(pair(&target), (steps - 1, steps - 1));
        let copy = rusqlite::Connection::open(&target).unwrap();
        let zero: i64 = copy.query_row(ZEROS, (), |row| row.get(0)).unwrap();
        assert_eq!(zero, 0);
        for token in tokens {
            assert_eq!(token.outcome(), Some(Outcome::Committed));
        }
        // Nobody is told of what was undone, as if somebody else had written.
        let mut told = 0;
        while let Some(change) = changes.try_next() {
            assert!(change.tables().contains("pair"), "{change:?}");
            told += 1;
            // Over a rollback journal it is not known which, or whether any.
            let any = journal == Journal::Rollback;
            assert_eq!(change.tables().is_any(), any, "{change:?}");
        }
        assert!(told == steps || journal == Journal::Rollback, "{told}");
    }
}

#[test]
fn somebody_who_has_the_database_to_himself_makes_it_start_over() {
    let scene = scene();
    let target = scene.dir().join("copy.db");
    let mut times = 0;
    let mut copy = |most| {
        times = 0;
        scene
            .db
            .backup_to(&target)
            .replace(true)
            .progress(|done| {
                if done.phase == Phase::Copying && done.bytes > 2 << 20 && times < most {
                    times += 1;
                    scene
                        .db
                        .exclusively(|connection| {
                            connection.execute_batch("UPDATE pair SET n = n + 1; VACUUM")?;
                            Ok(())
                        })
                        .unwrap();
                }
            })
            .run()
            .unwrap()
    };
    assert_eq!(copy(2).started_over, 2);
    assert_eq!(pair(&target), (2, 2));
    // And in the end it is a snapshot that is copied.
    let copied = copy(u32::MAX);
    assert_eq!(copied.started_over, 4);
    let (one, two) = pair(&target);
    assert_eq!(one, two);
}

/// The files of this process that were parts of copies and have no name any more.
fn open_parts() -> usize {
    std::fs::read_dir("/proc/self/fd")
        .unwrap()
        .flatten()
        .filter_map(|entry| std::fs::read_link(entry.path()).ok())
        .filter(|to| to.to_string_lossy().contains("given-up.db.onepen-part-"))
        .count()
}

#[test]
fn a_copy_that_ended_early_is_ended_in_the_pens_turn_and_keeps_no_file() {
    let scene = scene();
    let token = CancelToken::new();
    let mut open = 0;
    let mut hold = None;
    let cancelled = scene
        .db
        .backup_to(scene.dir().join("given-up.db"))
        .cancel_with(&token)
        .progress(|done| {
            if done.phase == Phase::Copying && hold.is_none() {
                open = open_parts();
                // The pen is not free when it ends.
                hold = Some(scene.hold());
                token.cancel();
            }
        })
        .run()
        .unwrap_err();
    assert_eq!(cancelled.kind(), ErrorKind::Cancelled);
    assert_eq!(open, 2, "one of SQLite's, one of ours");
    assert_eq!(names(scene.dir()), [""; 0]);
    hold.unwrap().release();
    until("it is closed", || open_parts() == 0);
    write(&scene.db);
}

#[test]
fn the_database_may_be_closed_meanwhile() {
    for journal in JOURNALS {
        let scene = scene_with(quick().journal(journal));
        let closed = scene
            .db
            .backup_to(scene.dir().join("copy.db"))
            .progress(|_| scene.db.close())
            .run()
            .unwrap_err();
        assert_eq!(closed.kind(), ErrorKind::Closed, "{closed}");
        assert_eq!(names(scene.dir()), [""; 0]);
        assert!(
            !super::beside(&scene.path(), "-wal").exists(),
            "closed well"
        );
    }
}

#[test]
fn a_pen_that_is_held_for_long_does_not_stop_it() {
    let scene = scene_with(quick().wait(Duration::from_millis(50)));
    let target = scene.dir().join("copy.db");
    let hold = scene.hold();
    scene.db.backup_to(&target).run().unwrap();
    assert_eq!(pair(&target), (0, 0));
    hold.release();
    // Nor does whoever makes it inside a write of his own.
    scene
        .db
        .write(|tx| {
            tx.execute("UPDATE pair SET n = 7", ())?;
            scene.db.backup_to(&target).replace(true).run().map(drop)
        })
        .unwrap();
    assert_eq!(pair(&target), (0, 0), "what was committed");
}

#[test]
fn whoever_has_the_pen_when_it_is_given_up_writes_to_no_other_copy() {
    let scene = scene_with(quick().wait(Duration::from_millis(50)));
    let target = scene.dir().join("copy.db");
    let (arrive, at) = gate();
    let (mut arrive, mut at) = (Some(arrive), Some(at));
    let mut holder = None;
    scene
        .db
        .backup_to(&target)
        .progress(|done| {
            if done.bytes < 3 << 20 {
                // Not much would be written to what is given up.
            } else if let Some(arrive) = arrive.take() {
                let db = scene.db.clone();
                holder = Some(std::thread::spawn(move || {
                    db.write_once(|tx| {
                        arrive.stop();
                        tx.execute("UPDATE weight SET fill = zeroblob(1000)", ())
                    })
                }));
                at.as_ref().unwrap().wait_for_arrival();
            } else if done.bytes == done.of
                && let Some(at) = at.take()
            {
                // A snapshot is copied, and not closed yet.
                at.open();
                holder.take().unwrap().join().unwrap().unwrap();
            }
        })
        .run()
        .unwrap();
    assert_eq!(scene.number(ZEROS), 4000);
    assert_eq!(pair(&target), (0, 0));
    let copy = rusqlite::Connection::open(&target).unwrap();
    let zeros: i64 = copy.query_row(ZEROS, (), |row| row.get(0)).unwrap();
    assert_eq!(zeros, 0);
}

const ZEROS: &str = "SELECT count(*) FROM weight WHERE fill = zeroblob(1000)";

#[test]
fn two_copies_may_be_made_at_a_time() {
    let scene = scene();
    let (one, two) = (scene.dir().join("one.db"), scene.dir().join("two.db"));
    let mut second = None;
    scene
        .db
        .backup_to(&one)
        .progress(|_| {
            write(&scene.db);
            if second.is_none() {
                let made = scene
                    .db
                    .backup_to(&two)
                    .progress(|_| write(&scene.db))
                    .run();
                second = Some(made.unwrap().started_over);
            }
        })
        .run()
        .unwrap();
    assert_eq!(second, Some(0));
    for copy in [one, two] {
        let (one, two) = pair(&copy);
        assert_eq!(one, two);
        assert!(one > 0);
    }
}
