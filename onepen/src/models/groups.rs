//! What a group makes of a member that fails, and of a COMMIT that does.
//!
//! No threads: the jobs are queued first and then served here, so every run is
//! the same. What threads make of it is the subject of `handover` and `crowd`.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Wake, Waker};
use std::time::{Duration, Instant};

use super::fake::{CommitFault, FakeEngine, refused};
use super::{Handle, LONG, Rig, limits, panic_quietly, settle};
use crate::cancel::CancelToken;
use crate::error::{ErrorKind, Outcome, Result};
use crate::pen::Limits;
use crate::pen::job::{Kind, Ticket};
use crate::sync::Arc;

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

/// A waker that counts, and panics if it is told to.
struct Woken {
    times: AtomicUsize,
    panics: bool,
}

impl Woken {
    fn new(panics: bool) -> (Arc<Self>, Waker) {
        let woken = Arc::new(Self {
            times: AtomicUsize::new(0),
            panics,
        });
        let waker = Waker::from(Arc::clone(&woken));
        (woken, waker)
    }
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.times.fetch_add(1, Relaxed);
        if self.panics {
            panic_quietly("a waker");
        }
    }
}

#[test]
fn a_panicking_waker_harms_nobody() {
    let rig = Rig::new(Limits {
        queue_members: 2,
        ..limits()
    });
    let handles = [rig.queue(1), rig.queue(2), rig.queue(3), rig.queue(4)];
    let (done, waker) = Woken::new(true);
    let polled = handles[0].answer.poll(&mut Context::from_waker(&waker));
    assert!(polled.is_pending());
    let (admitted, waker) = Woken::new(true);
    assert!(!rig.pen.poll_admitted(&handles[3].member, &waker));
    rig.serve_here();
    assert_eq!(done.times.load(Relaxed), 1);
    assert_eq!(admitted.times.load(Relaxed), 1);
    for handle in handles {
        handle.answer().unwrap();
    }
    rig.look();
}

#[test]
fn a_task_whose_write_ends_in_the_lobby_is_woken() {
    let end_it: [fn(&Rig, &CancelToken); 2] = [
        |_, token| token.cancel(),
        |rig, _| rig.timer.fire(Instant::now() + LONG * 2),
    ];
    for end_it in end_it {
        let rig = Rig::new(Limits {
            queue_members: 1,
            ..limits()
        });
        let token = CancelToken::new();
        let ticket = Ticket {
            cancel: Some(token.clone()),
            patience: Some(LONG),
            ..Ticket::default()
        };
        let first = rig.queue(1);
        let victim = rig.queue_with(&ticket, Kind::Grouped, |engine: &mut FakeEngine| {
            engine.insert(2)
        });
        let (woken, waker) = Woken::new(false);
        assert!(!rig.pen.poll_admitted(&victim.member, &waker));
        end_it(&rig, &token);
        assert_eq!(woken.times.load(Relaxed), 1, "it would sleep for ever");
        assert!(rig.pen.poll_admitted(&victim.member, &waker));
        victim.answer().unwrap_err();
        rig.serve_here();
        first.answer().unwrap();
        rig.look();
    }
}

#[test]
fn a_task_that_asks_often_for_admission_is_remembered_once() {
    let rig = Rig::new(Limits {
        queue_members: 1,
        ..limits()
    });
    let handles = [rig.queue(1), rig.queue(2)];
    let (woken, waker) = Woken::new(false);
    for _ in 0..100 {
        assert!(!rig.pen.poll_admitted(&handles[1].member, &waker));
    }
    rig.serve_here();
    assert_eq!(woken.times.load(Relaxed), 1);
    for handle in handles {
        handle.answer().unwrap();
    }
    rig.look();
}

/// Does something when it is dropped, as whatever a closure owns may.
struct OnDrop<F: FnMut()>(F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

/// Queues a write nobody waits for, whose closure owns `owned`.
fn forgotten<O: Send + 'static>(rig: &Rig, row: u32, owned: O) {
    drop(
        rig.queue_with(&Ticket::default(), Kind::Grouped, move |engine| {
            let _owned = &owned;
            engine.insert(row)
        }),
    );
}

#[test]
fn a_destructor_that_panics_harms_no_neighbour() {
    for place in 0..3 {
        let rig = Rig::new(limits());
        let mut handles = Vec::new();
        for row in 0..3 {
            if row == place {
                forgotten(&rig, row, OnDrop(|| panic_quietly("a destructor")));
            } else {
                handles.push(rig.queue(row));
            }
        }
        rig.serve_here();
        for handle in handles {
            handle.answer().unwrap();
        }
        assert_eq!(rig.world.committed().len(), 3);
        rig.look();
    }
}

#[test]
fn a_destructor_that_writes_on_the_writer_thread_is_refused() {
    let rig = Rig::new(limits());
    let (said, hear) = std::sync::mpsc::channel();
    let pen = Arc::downgrade(&rig.pen);
    forgotten(
        &rig,
        1,
        OnDrop(move || {
            let pen = pen.upgrade().expect("the rig outlives its jobs");
            let refused = pen
                .write(&Ticket::default(), Kind::Grouped, |engine| engine.insert(2))
                .unwrap_err();
            said.send(refused.kind()).unwrap();
        }),
    );
    let neighbour = rig.queue(3);
    // Not `serve_here`: a closed pen would refuse it anyway.
    let writer = rig.start_writer();
    assert_eq!(hear.recv(), Ok(ErrorKind::Reentrant));
    let world = Arc::clone(&rig.world);
    rig.finish(writer);
    neighbour.answer().unwrap();
    assert_eq!(world.committed(), [1, 3]);
}

#[test]
fn what_a_cancelled_closure_owns_is_dropped_outside_the_pens_lock() {
    let rig = Rig::new(limits());
    let token = CancelToken::new();
    let ticket = Ticket {
        cancel: Some(token.clone()),
        ..Ticket::default()
    };
    let pen = Arc::downgrade(&rig.pen);
    let owned = OnDrop(move || {
        if let Some(pen) = pen.upgrade() {
            pen.queue_len(); // takes the lock
        }
    });
    drop(rig.queue_with(&ticket, Kind::Grouped, move |engine| {
        let _owned = &owned;
        engine.insert(1)
    }));
    let neighbour = rig.queue(2);
    token.cancel();
    rig.serve_here();
    neighbour.answer().unwrap();
    assert_eq!(rig.world.committed(), [2]);
    rig.look();
}

#[test]
fn a_cancelled_exclusive_call_does_not_run_even_when_the_pen_is_free() {
    let rig = Rig::new(limits());
    let token = CancelToken::new();
    token.cancel();
    let ticket = Ticket {
        cancel: Some(token),
        ..Ticket::default()
    };
    for kind in [Kind::Grouped, Kind::Alone, Kind::Exclusive] {
        let answer = rig.pen.write(&ticket, kind, |_| -> Result<()> {
            panic!("a cancelled call ran")
        });
        assert_eq!(answer.unwrap_err().kind(), ErrorKind::Cancelled);
    }
    rig.pen.close();
    rig.look();
}

#[test]
fn requests_to_the_timer_do_not_pile_up() {
    let rig = Rig::new(limits());
    let mut now = Instant::now();
    // A write that waits long keeps the queue's deadlines alive, while writes
    // of ever less patience come and expire before it.
    let patient = Ticket {
        patience: Some(LONG * 1000),
        ..Ticket::default()
    };
    let long = rig.queue_with(&patient, Kind::Grouped, |engine| engine.insert(0));
    let mut impatient = Vec::new();
    for row in 1..20 {
        let ticket = Ticket {
            patience: Some(LONG * row),
            ..Ticket::default()
        };
        impatient.push(rig.queue_with(&ticket, Kind::Grouped, move |engine| engine.insert(row)));
        now += LONG;
        rig.timer.fire(now + LONG * row);
    }
    assert!(
        rig.timer.len() <= 2,
        "{} requests for one queue",
        rig.timer.len()
    );
    for handle in impatient {
        assert_eq!(
            handle.answer().unwrap_err().kind(),
            ErrorKind::DeadlineExceeded
        );
    }
    rig.serve_here();
    long.answer().unwrap();
    rig.look();
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

/// For a program that gives one token to everything it does.
#[test]
fn a_token_of_many_writes_cancels_all_that_wait_and_forgets_those_that_ended() {
    let token = CancelToken::new();
    let ticket = Ticket {
        cancel: Some(token.clone()),
        ..Ticket::default()
    };
    let queue =
        |rig: &Rig, row| rig.queue_with(&ticket, Kind::Grouped, move |engine| engine.insert(row));
    let rig = Rig::new(limits());
    let ended: Vec<_> = (0..200).map(|row| queue(&rig, row)).collect();
    rig.serve_here();
    for handle in ended {
        handle.answer().unwrap();
    }
    rig.look();

    let rig = Rig::new(limits());
    let waiting: Vec<_> = (0..100).map(|row| queue(&rig, row)).collect();
    let watchers = token.watchers();
    assert!((100..200).contains(&watchers), "{watchers}");
    token.cancel();
    rig.serve_here();
    for handle in waiting {
        assert_eq!(handle.answer().unwrap_err().kind(), ErrorKind::Cancelled);
    }
    assert!(rig.world.committed().is_empty());
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

/// More of them than are left lying in the queue.
#[test]
fn writes_that_are_cancelled_give_their_room_in_the_queue_back() {
    let rig = Rig::new(Limits {
        queue_members: 90,
        queue_bytes: 100_000,
        when_full: crate::pen::WhenFull::Refuse,
        ..limits()
    });
    let neighbour = rig.queue(1);
    for _ in 0..3 {
        let token = CancelToken::new();
        let ticket = Ticket {
            cancel: Some(token.clone()),
            bytes: 1_000,
            ..Ticket::default()
        };
        let waiting: Vec<_> = (0..89)
            .map(|row| rig.queue_with(&ticket, Kind::Grouped, move |engine| engine.insert(row)))
            .collect();
        assert_eq!(rig.pen.queue_len(), 90);
        token.cancel();
        assert_eq!(rig.pen.queue_len(), 1);
        for handle in waiting {
            assert_eq!(handle.answer().unwrap_err().kind(), ErrorKind::Cancelled);
        }
    }
    rig.serve_here();
    neighbour.answer().unwrap();
    assert_eq!(rig.world.committed(), [1]);
    rig.look();
}
