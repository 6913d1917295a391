//! What a group makes of a member that fails, and of a COMMIT that does.
//!
//! No threads: the jobs are queued first and then served here, so every run is
//! the same. What threads make of it is the subject of `handover` and `crowd`.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use super::fake::{CommitFault, FakeEngine, refused};
use super::{Handle, LONG, Rig, limits, settle};
use crate::error::{ErrorKind, Outcome, Result};
use crate::pen::Limits;
use crate::pen::job::{Kind, Ticket};

/// Five members; the one at `place` does `what` after its insert.
fn five(place: u32, what: fn(&mut FakeEngine) -> Result<()>) -> (Rig, Vec<Handle<u32>>) {
    let rig = Rig::new(limits());
    let handles = (0..5)
        .map(|row| {
            rig.queue_with(&Ticket::default(), Kind::Grouped, move |engine| {
                engine.insert(row)?;
                if row == place {
                    what(engine)?;
                }
                Ok(row)
            })
        })
        .collect();
    (rig, handles)
}

/// Whatever member `place` does, it alone is undone.
fn only_its_own_is_undone(what: fn(&mut FakeEngine) -> Result<()>, kind: ErrorKind) {
    for place in 0..5 {
        let (rig, handles) = five(place, what);
        rig.serve_here();
        for (row, handle) in (0..5).zip(&handles) {
            let answer = handle.answer();
            settle(&rig.world, row, &answer);
            if row == place {
                let error = answer.unwrap_err();
                assert_eq!(error.kind(), kind, "{error}");
                assert_eq!(error.outcome(), Outcome::NotCommitted);
            } else {
                assert_eq!(answer.unwrap(), row, "a neighbour was harmed");
            }
        }
        assert_eq!(rig.world.committed().len(), 4);
        rig.look();
    }
}

#[test]
fn members_that_wait_together_share_one_commit() {
    let (rig, handles) = five(9, |_| Ok(()));
    rig.serve_here();
    assert_eq!(rig.world.commits(), 1);
    assert_eq!(rig.world.committed(), [0, 1, 2, 3, 4], "arrival order");
    for handle in handles {
        handle.answer().unwrap();
    }
    rig.look();
}

#[test]
fn a_failing_member_does_not_undo_its_neighbours() {
    only_its_own_is_undone(|_| Err(refused("no")), ErrorKind::Other);
}

#[test]
fn a_member_that_loses_the_transaction_loses_only_its_own() {
    only_its_own_is_undone(
        |engine| {
            engine.loses_its_transaction();
            Err(refused("constraint"))
        },
        ErrorKind::Other,
    );
}

#[test]
fn a_member_that_hides_the_loss_of_the_transaction_is_told() {
    only_its_own_is_undone(
        |engine| {
            engine.loses_its_transaction();
            Ok(())
        },
        ErrorKind::TransactionLost,
    );
}

#[test]
fn a_member_that_goes_on_after_the_loss_writes_nothing_by_itself() {
    only_its_own_is_undone(
        |engine| {
            engine.loses_its_transaction();
            let _ = engine.insert(99);
            Ok(())
        },
        ErrorKind::TransactionLost,
    );
}

#[test]
fn a_member_that_owes_a_foreign_key_is_refused_and_nobody_else() {
    only_its_own_is_undone(
        |engine| {
            engine.owes_a_foreign_key();
            Ok(())
        },
        ErrorKind::Sqlite,
    );
}

#[test]
fn a_deferred_foreign_key_reads_the_same_alone_and_in_a_group() {
    let owes = |engine: &mut FakeEngine| {
        engine.owes_a_foreign_key();
        Ok(())
    };
    let rig = Rig::new(limits());
    let by_itself = rig.pen.write(&Ticket::default(), Kind::Grouped, owes);
    let once = rig.queue_with(&Ticket::default(), Kind::Alone, owes);
    rig.serve_here();
    let error = by_itself.unwrap_err();
    for error in [error, once.answer().unwrap_err()] {
        assert_eq!(error.kind(), ErrorKind::Sqlite, "{error}");
        assert_eq!(
            error.sqlite_code(),
            Some(rusqlite::ffi::SQLITE_CONSTRAINT_FOREIGNKEY)
        );
    }
    rig.look();
}

#[test]
fn several_failing_members_are_all_undone_and_the_rest_stay() {
    let rig = Rig::new(limits());
    let handles: Vec<_> = (0..40_u32)
        .map(|row| {
            rig.queue_with(&Ticket::default(), Kind::Grouped, move |engine| {
                engine.insert(row)?;
                match row % 5 {
                    1 => Err(refused("no")),
                    2 => {
                        engine.loses_its_transaction();
                        Ok(row)
                    }
                    3 => {
                        engine.owes_a_foreign_key();
                        Ok(row)
                    }
                    _ => Ok(row),
                }
            })
        })
        .collect();
    rig.serve_here();
    for (row, handle) in (0..).zip(handles) {
        let answer = handle.answer();
        settle(&rig.world, row, &answer);
        assert_eq!(answer.is_ok(), row % 5 == 0 || row % 5 == 4, "row {row}");
    }
    rig.look();
}

#[test]
fn no_answer_of_an_undone_run_is_delivered() {
    let rig = Rig::new(limits());
    // Fails after the second has seen its row; the second must not say so.
    let first = rig.queue_with(&Ticket::default(), Kind::Grouped, |engine| engine.insert(1));
    let second = rig.queue_with(
        &Ticket::default(),
        Kind::Grouped,
        |engine: &mut FakeEngine| Ok(engine.sees(3)),
    );
    let third = rig.queue_with(&Ticket::default(), Kind::Grouped, |engine| {
        engine.insert(3)?;
        Err::<(), _>(refused("no"))
    });
    let fourth = rig.queue_with(
        &Ticket::default(),
        Kind::Grouped,
        |engine: &mut FakeEngine| Ok(engine.sees(3)),
    );
    rig.serve_here();
    first.answer().unwrap();
    assert!(!second.answer().unwrap());
    third.answer().unwrap_err();
    assert!(
        !fourth.answer().unwrap(),
        "a value from a world that was undone"
    );
    assert_eq!(rig.world.committed(), [1]);
    rig.look();
}

#[test]
fn after_any_failed_commit_everybody_in_it_gets_the_same_outcome() {
    for (fault, outcome) in [
        (CommitFault::NotCommitted, Outcome::NotCommitted),
        (CommitFault::Unknown, Outcome::Unknown),
    ] {
        let (rig, handles) = five(9, |_| Ok(()));
        rig.world.next_commits([fault]);
        rig.serve_here();
        for (row, handle) in (0..).zip(handles) {
            let answer = handle.answer();
            settle(&rig.world, row, &answer);
            let error = answer.unwrap_err();
            assert_eq!(error.outcome(), outcome);
            assert_eq!(error.kind(), ErrorKind::CommitFailed);
        }
        assert_eq!(rig.world.commits(), 0, "nothing retries a COMMIT");
        rig.look();
    }
}

#[test]
fn a_commit_that_fails_is_not_tried_again_for_a_lone_caller_either() {
    for fault in [CommitFault::NotCommitted, CommitFault::Unknown] {
        let rig = Rig::new(limits());
        rig.world.next_commits([fault]);
        let error = rig.write(1).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::CommitFailed);
        assert!(rig.world.committed().is_empty());
        assert_eq!(
            rig.write(2).unwrap(),
            2,
            "the pen must be usable afterwards"
        );
        rig.pen.close();
        rig.look();
    }
}

#[test]
fn a_refused_begin_is_everybodys_answer_and_the_pen_stays_usable() {
    let (rig, handles) = five(9, |_| Ok(()));
    rig.world.next_begins([true]);
    rig.serve_here();
    for handle in handles {
        let error = handle.answer().unwrap_err();
        assert_eq!(error.sqlite_code(), Some(rusqlite::ffi::SQLITE_IOERR));
        assert_eq!(error.outcome(), Outcome::NotCommitted);
    }
    rig.look();
}

#[test]
fn a_begin_refused_before_a_second_run_is_the_answer_of_all_who_had_run() {
    let (rig, handles) = five(2, |_| Err(refused("no")));
    rig.world.next_begins([false, true]);
    rig.serve_here();
    for handle in handles {
        let error = handle.answer().unwrap_err();
        assert_eq!(error.sqlite_code(), Some(rusqlite::ffi::SQLITE_IOERR));
    }
    assert!(rig.world.committed().is_empty());
    rig.look();
}

/// A group in which member 1 fails is run again with savepoints: SAVEPOINT and
/// RELEASE of member 0, SAVEPOINT and ROLLBACK TO of member 1, and so on.
#[test]
fn a_statement_about_savepoints_that_is_refused_costs_nobody_else_the_write() {
    for refused_one in 0..10 {
        let (rig, handles) = five(1, |_| Err(refused("no")));
        rig.world
            .next_savepoints((0..10).map(|nth| nth == refused_one));
        rig.serve_here();
        for (row, handle) in (0..5).zip(&handles) {
            let answer = handle.answer();
            settle(&rig.world, row, &answer);
            match answer {
                Ok(_) => assert_ne!(row, 1),
                // Alone it runs without savepoints; the first has nobody before it,
                // and so its answer was final.
                Err(error) if row == refused_one / 2 && row == 0 => {
                    assert_eq!(error.sqlite_code(), Some(rusqlite::ffi::SQLITE_NOMEM));
                }
                Err(error) => assert_eq!(row, 1, "{refused_one}: {error}"),
            }
        }
        rig.look();
    }
}

#[test]
fn a_write_once_runs_once_whatever_happens_around_it() {
    static RUNS: AtomicUsize = AtomicUsize::new(0);
    let rig = Rig::new(limits());
    let before = rig.queue_with(&Ticket::default(), Kind::Grouped, |engine| {
        engine.insert(1)?;
        Err::<(), _>(refused("no"))
    });
    let once = rig.queue_with(&Ticket::default(), Kind::Alone, |engine| {
        RUNS.fetch_add(1, Relaxed);
        engine.insert(2)
    });
    let after = rig.queue_with(&Ticket::default(), Kind::Grouped, |engine| {
        engine.insert(3)?;
        engine.loses_its_transaction();
        Err::<(), _>(refused("no"))
    });
    rig.serve_here();
    before.answer().unwrap_err();
    once.answer().unwrap();
    after.answer().unwrap_err();
    assert_eq!(RUNS.load(Relaxed), 1);
    assert_eq!(rig.world.committed(), [2]);
    rig.look();
}

#[test]
fn an_exclusive_call_runs_outside_any_transaction_and_in_its_place() {
    let rig = Rig::new(limits());
    let before = rig.queue(1);
    let exclusive = rig.queue_with(
        &Ticket::default(),
        Kind::Exclusive,
        |engine: &mut FakeEngine| Ok((engine.sees(1), engine.sees(2))),
    );
    let after = rig.queue(2);
    rig.serve_here();
    before.answer().unwrap();
    assert_eq!(exclusive.answer().unwrap(), (true, false));
    after.answer().unwrap();
    rig.look();
}

#[test]
fn bounds_of_nothing_still_let_one_write_through_at_a_time() {
    for (group_bytes, group_time) in [
        (0, LONG),
        (1 << 20, Duration::ZERO),
        (1 << 20, Duration::MAX),
    ] {
        let rig = Rig::new(Limits {
            group_bytes,
            group_time,
            ..limits()
        });
        let handles = [rig.queue(1), rig.queue(2)];
        rig.serve_here();
        for handle in handles {
            handle.answer().unwrap();
        }
        rig.look();
    }
}

#[test]
fn a_bug_of_ours_strands_nobody_and_leaves_no_transaction_behind() {
    let (rig, handles) = five(9, |_| Ok(()));
    rig.world.next_commits([CommitFault::Panics]);
    rig.serve_here();
    for handle in handles {
        assert_eq!(handle.answer().unwrap_err().outcome(), Outcome::Unknown);
    }
    rig.look();

    let rig = Rig::new(limits());
    rig.world.next_commits([CommitFault::Panics]);
    let ran = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| rig.write(1)));
    assert!(ran.is_err());
    assert_eq!(rig.write(2).unwrap(), 2);
    rig.pen.close();
    rig.look();
}

/// Hot: whoever comes queues, because those who were just woken will be back.
#[test]
fn the_pen_is_hot_after_a_group_of_several_and_cold_after_four_of_one() {
    let (rig, _handles) = five(9, |_| Ok(()));
    rig.serve_here();
    assert!(rig.pen.is_hot());
    for (alone, hot) in [(3, true), (4, false)] {
        let rig = Rig::new(limits());
        let mut handles: Vec<_> = (0..2).map(|row| rig.queue(row)).collect();
        // Each is a group of its own, after the first.
        handles.extend((0..alone).map(|row| {
            rig.queue_with(&Ticket::default(), Kind::Alone, move |engine| {
                engine.insert(10 + row)?;
                Ok(row)
            })
        }));
        rig.serve_here();
        assert_eq!(rig.pen.is_hot(), hot, "{alone}");
        handles.iter().for_each(|handle| drop(handle.answer()));
        rig.look();
    }
}
