//! How large a group becomes, how often its members run, and what others are told of
//! a turn. No threads, as in `groups`: where a bound is reached is counted, on both
//! sides of it.

use std::sync::Weak;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use super::fake::{CommitFault, FakeEngine, refused};
use super::{Handle, LONG, Rig, limits};
use crate::engine::Bystanders;
use crate::error::{ErrorKind, Holder, WaitedFor};
use crate::pen::job::{Job, Kind, Priority, Ticket};
use crate::pen::queue::Queued;
use crate::pen::{Limits, Pen};
use crate::sync::Arc;

/// Queues so many writes and serves them; in how many transactions?
fn transactions_of(writes: u32, ticket: &Ticket, limits: Limits) -> u32 {
    let rig = Rig::new(limits);
    transactions_in(rig, writes, ticket)
}

fn transactions_in(rig: Rig, writes: u32, ticket: &Ticket) -> u32 {
    let handles: Vec<_> = (0..writes)
        .map(|row| rig.queue_with(ticket, Kind::Grouped, move |engine| engine.insert(row)))
        .collect();
    rig.serve_here();
    for handle in handles {
        handle.answer().unwrap();
    }
    let commits = rig.world.commits();
    assert_eq!(rig.world.committed(), (0..writes).collect::<Vec<_>>());
    rig.look();
    commits
}

#[test]
fn a_group_takes_no_more_members_than_its_bound() {
    let bound = |group_members| Limits {
        group_members,
        ..limits()
    };
    for (bound, writes, transactions) in [
        (bound(3), 6, 2),
        (bound(3), 7, 3),
        (bound(40), 40, 1),
        (bound(40), 41, 2),
    ] {
        let counted = transactions_of(writes, &Ticket::default(), bound);
        assert_eq!(counted, transactions, "{writes} of {bound:?}");
    }
}

/// The bound may be passed by the member that reaches it.
#[test]
fn a_group_takes_nobody_after_its_bound_of_bytes() {
    let ticket = Ticket {
        bytes: 1_000,
        ..Ticket::default()
    };
    let each = 1_000 + size_of::<u32>();
    for (group_bytes, transactions) in [
        (2 * each, 3),
        (2 * each + 1, 2),
        (3 * each, 2),
        (6 * each, 1),
    ] {
        let limits = Limits {
            group_bytes,
            ..limits()
        };
        let counted = transactions_of(6, &ticket, limits);
        assert_eq!(counted, transactions, "{group_bytes}");
    }
}

/// Thirty-two are claimed at a time, and those are run.
#[test]
fn a_group_takes_nobody_after_its_time() {
    let limited = Limits {
        group_time: Duration::ZERO,
        ..limits()
    };
    for (writes, transactions) in [(32, 1), (33, 2), (64, 2), (65, 3)] {
        let counted = transactions_of(writes, &Ticket::default(), limited);
        assert_eq!(counted, transactions, "{writes}");
        let counted = transactions_of(writes, &Ticket::default(), limits());
        assert_eq!(counted, 1, "{writes}");
    }
}

#[test]
fn a_group_takes_nobody_when_others_have_waited_long_enough() {
    for (writes, transactions) in [(32, 1), (33, 2), (65, 3)] {
        let rig = Rig::new(limits());
        rig.world.turns_are_short();
        let counted = transactions_in(rig, writes, &Ticket::default());
        assert_eq!(counted, transactions, "{writes}");
    }
}

#[test]
fn at_the_end_of_a_turn_it_is_told_whether_there_is_more_to_write() {
    let rig = Rig::new(Limits {
        group_members: 2,
        ..limits()
    });
    rig.world.ask_for_more();
    let handles: Vec<_> = (0..5).map(|row| rig.queue(row)).collect();
    rig.serve_here();
    for handle in handles {
        handle.answer().unwrap();
    }
    assert_eq!(rig.world.was_there_more(), [true, true, false]);
    rig.look();
}

#[test]
fn a_write_by_itself_shares_its_transaction_with_nobody_before_or_after_it() {
    use Kind::{Alone, Exclusive, Grouped};
    for (kinds, transactions) in [
        (&[Alone, Grouped, Grouped][..], 2),
        (&[Grouped, Alone, Grouped], 3),
        (&[Grouped, Grouped, Alone], 2),
        (&[Alone, Alone], 2),
        (&[Grouped, Exclusive, Grouped], 2),
    ] {
        let rig = Rig::new(limits());
        let handles: Vec<_> =
            (0..)
                .zip(kinds)
                .map(|(row, &kind)| {
                    rig.queue_with(&Ticket::default(), kind, move |engine: &mut FakeEngine| {
                        match kind {
                            Exclusive => Ok(()),
                            _ => engine.insert(row),
                        }
                    })
                })
                .collect();
        rig.serve_here();
        for handle in handles {
            handle.answer().unwrap();
        }
        assert_eq!(rig.world.commits(), transactions, "{kinds:?}");
        rig.look();
    }
}

#[test]
fn whoever_is_passed_on_the_turn_is_told_how_many_writes_were_made_in_it() {
    let rig = Rig::new(limits());
    let mut handles: Vec<_> = (0..5).map(|row| rig.queue(row)).collect();
    let ticket = Ticket::default();
    handles.push(rig.queue_with(&ticket, Kind::Alone, |engine| {
        engine.insert(5)?;
        Ok(5)
    }));
    handles.push(rig.queue_with(&ticket, Kind::Exclusive, |_| Ok(6)));
    handles.push(rig.queue_with(&ticket, Kind::Maintenance, |_| Ok(7)));
    rig.serve_here();
    handles.iter().for_each(|handle| drop(handle.answer()));
    let told = rig.world.passed_on();
    assert_eq!(told, [(1, 5), (1, 1), (1, 1), (0, 0)]);
    rig.look();
    // The same of callers that find the pen free.
    let rig = Rig::new(limits());
    rig.write(1).unwrap();
    rig.pen.write(&ticket, Kind::Exclusive, |_| Ok(())).unwrap();
    rig.pen
        .write(&ticket, Kind::Maintenance, |_| Ok(()))
        .unwrap();
    assert_eq!(rig.world.passed_on(), [(1, 1), (1, 1), (0, 0)]);
    rig.look();
}

/// Hot: its callers were all woken together, and will be back together.
#[test]
fn the_pen_is_hot_after_a_group_that_was_refused_as_a_whole() {
    for (writes, hot) in [(2, true), (1, false)] {
        let rig = Rig::new(limits());
        rig.world.next_begins([true]);
        let handles: Vec<_> = (0..writes).map(|row| rig.queue(row)).collect();
        rig.serve_here();
        assert_eq!(rig.pen.is_hot(), hot);
        for handle in handles {
            assert_eq!(handle.answer().unwrap_err().kind(), ErrorKind::Sqlite);
        }
        rig.look();
    }
}

/// Five writes, of which one does `what`, and how often each of them ran.
fn runs_when(
    place: u32,
    faults: &[bool],
    what: fn(&mut FakeEngine) -> crate::Result<()>,
) -> Vec<usize> {
    let rig = Rig::new(limits());
    rig.world.next_savepoints(faults.iter().copied());
    let runs: Arc<Vec<AtomicUsize>> = Arc::new((0..5).map(|_| AtomicUsize::new(0)).collect());
    let handles: Vec<Handle<()>> = (0..5_u32)
        .map(|row| {
            let runs = Arc::clone(&runs);
            rig.queue_with(&Ticket::default(), Kind::Grouped, move |engine| {
                runs[row as usize].fetch_add(1, Relaxed);
                engine.insert(row)?;
                if row == place { what(engine) } else { Ok(()) }
            })
        })
        .collect();
    rig.serve_here();
    for (row, handle) in (0..).zip(handles) {
        assert_eq!(handle.answer().is_ok(), row != place, "{row}");
    }
    assert_eq!(rig.world.committed().len(), 4);
    rig.look();
    runs.iter().map(|runs| runs.load(Relaxed)).collect()
}

#[test]
fn nobody_runs_more_often_than_a_neighbours_failure_makes_necessary() {
    // The first is rolled back before anybody else ran.
    assert_eq!(runs_when(0, &[], |_| Err(refused("no"))), [1, 1, 1, 1, 1]);
    // Once bare, once between savepoints.
    assert_eq!(runs_when(2, &[], |_| Err(refused("no"))), [2, 2, 2, 1, 1]);
    // Who takes the transaction with it is run again by itself, and known.
    let loses = |engine: &mut FakeEngine| {
        engine.loses_its_transaction();
        Ok(())
    };
    assert_eq!(runs_when(2, &[], loses), [2, 2, 2, 1, 1]);
    assert_eq!(runs_when(4, &[], loses), [2, 2, 2, 2, 2]);
}

/// Eight writes pass a waiting one of lower priority, wherever they begin to count.
#[test]
fn a_write_of_lower_priority_is_passed_eight_times_and_then_served() {
    use Priority::{High, Low, Normal};
    let rig = Rig::new(limits());
    let queue = |priority: Priority, writes: u32| {
        let ticket = Ticket {
            priority,
            bytes: 100,
            ..Ticket::default()
        };
        let insert = |row: u32| move |engine: &mut FakeEngine| engine.insert(row);
        let queued = |row| rig.queue_with(&ticket, Kind::Grouped, insert(row));
        (0..writes).map(queued).collect::<Vec<_>>()
    };
    let claim = || {
        let claimed = crate::sync::lock(&rig.pen.state).queue.claim();
        claimed.expect("somebody waits").header().priority
    };
    let _kept = [queue(Normal, 2), queue(Low, 1)];
    assert_eq!(claim(), Normal);
    let _kept_too = queue(High, 20);
    // The low one has been passed once already.
    let mut served: Vec<_> = (0..7).map(|_| High).collect();
    served.extend([Low, High, Normal]);
    served.extend((0..12).map(|_| High));
    let claimed: Vec<_> = served.iter().map(|_| claim()).collect();
    assert_eq!(claimed, served);
    let queue = &crate::sync::lock(&rig.pen.state).queue;
    assert_eq!((queue.len(), queue.bytes()), (0, 0));
}

/// What a write has waited for that is late while the holder of the pen waits for a
/// stranger, or is said to wait for readers.
fn late(readers: bool) -> crate::error::Waited {
    struct Readers;
    impl Bystanders for Readers {
        fn are_here(&self) -> bool {
            false
        }
        fn are_awaited(&self) -> bool {
            true
        }
    }
    let rig = Rig::new(limits());
    if readers {
        rig.pen.mind(Arc::new(Readers));
    }
    assert!(rig.world.stranger_locks());
    let ticket = Ticket {
        patience: Some(LONG),
        ..Ticket::default()
    };
    let late = rig.queue_with(&ticket, Kind::Grouped, |engine| engine.insert(1));
    std::thread::scope(|scope| {
        scope.spawn(|| rig.pen.serve());
        while !rig.pen.at_write_lock.load(crate::sync::Ordering::Relaxed) {
            std::thread::yield_now();
        }
        rig.timer.fire(Instant::now() + 2 * LONG);
        rig.pen.close();
    });
    let waited = late.answer().unwrap_err().waited().clone();
    rig.world.stranger_unlocks();
    rig.look();
    waited
}

#[test]
fn a_wait_for_others_tells_for_whom_and_how_much_of_it_was_for_the_pen() {
    for (readers, what, holder) in [
        (false, WaitedFor::WriteLock, None),
        (true, WaitedFor::Readers, Some(Holder::own_reads())),
    ] {
        let waited = late(readers);
        assert_eq!(waited.what, what);
        let parts: Vec<_> = waited.parts.iter().map(|part| part.what).collect();
        assert_eq!(parts, [WaitedFor::Pen, what]);
        assert_eq!(waited.holder, holder);
    }
}

#[test]
fn a_group_is_called_by_the_label_of_its_first() {
    let rig = Rig::new(limits());
    let handles = ["first", "second", "third"].map(|label| {
        let ticket = Ticket {
            label: Some(label.into()),
            ..Ticket::default()
        };
        let pen = Arc::downgrade(&rig.pen);
        rig.queue_with(&ticket, Kind::Grouped, move |_: &mut FakeEngine| {
            let pen = pen.upgrade().expect("it is being served");
            let state = crate::sync::lock(&pen.state);
            Ok(state.holder.label.clone())
        })
    });
    rig.serve_here();
    for handle in handles {
        assert_eq!(handle.answer().unwrap().as_deref(), Some("first"));
    }
    rig.look();
}

/// Each queues the next while it runs: in how many transactions?
fn transactions_of_a_chain(writes: u32) -> u32 {
    fn write(row: u32, last: u32, pen: Weak<Pen<FakeEngine>>) -> Queued<FakeEngine> {
        let call = move |engine: &mut FakeEngine| {
            let pen = Weak::upgrade(&pen).expect("it is being served");
            if row < last {
                let next = write(row + 1, last, Arc::downgrade(&pen));
                pen.enqueue(&Ticket::default(), &next)?;
            } else {
                pen.close();
            }
            engine.insert(row)
        };
        Arc::new(Job::new(
            &Ticket::default(),
            Kind::Grouped,
            Instant::now(),
            call,
        ))
    }
    let rig = Rig::new(limits());
    let first = write(1, writes, Arc::downgrade(&rig.pen));
    rig.pen.enqueue(&Ticket::default(), &first).unwrap();
    rig.pen.serve();
    assert_eq!(rig.world.committed(), (1..=writes).collect::<Vec<_>>());
    let transactions = rig.world.commits();
    rig.look();
    transactions
}

#[test]
fn who_comes_while_a_group_runs_joins_it_and_whoever_comes_after_that_does_not() {
    assert_eq!(transactions_of_a_chain(2), 1);
    assert_eq!(transactions_of_a_chain(3), 2);
    assert_eq!(transactions_of_a_chain(4), 2);
}

#[test]
fn who_is_alone_when_its_commit_is_refused_is_not_run_again() {
    for (writes, kind, runs_each) in [
        (1, Kind::Grouped, 1),
        (1, Kind::Alone, 1),
        // Whose doing it is shows when each is by itself.
        (3, Kind::Grouped, 2),
    ] {
        let rig = Rig::new(limits());
        rig.world.next_commits([CommitFault::Refused]);
        let runs = Arc::new(AtomicUsize::new(0));
        let handles: Vec<_> = (0..writes)
            .map(|row| {
                let runs = Arc::clone(&runs);
                rig.queue_with(&Ticket::default(), kind, move |engine| {
                    runs.fetch_add(1, Relaxed);
                    engine.insert(row)
                })
            })
            .collect();
        rig.serve_here();
        for handle in handles {
            assert_eq!(handle.answer().is_ok(), writes > 1);
        }
        assert_eq!(runs.load(Relaxed), writes as usize * runs_each);
        rig.look();
    }
}

#[test]
fn a_file_that_nobody_else_writes_to_has_turns_without_end() {
    use crate::pen::turn::{Alone, WriteLock};
    assert!(Alone.take_now(None));
    assert!(!Alone.should_end());
    assert_eq!(Alone.others_are_waiting(), 0);
    assert!(matches!(Alone.holder(), (None, None)));
}

#[test]
fn a_lock_that_knows_nobody_names_nobody() {
    let rig = Rig::new(limits());
    rig.world.stranger_has_turn(true);
    let ticket = Ticket {
        patience: Some(Duration::ZERO),
        ..Ticket::default()
    };
    let error = super::write(&rig.pen, &rig.world, &ticket, 1).unwrap_err();
    let waited = error.waited();
    assert_eq!(waited.what, WaitedFor::Turn);
    assert_eq!((waited.position, waited.holder.is_none()), (None, true));
    rig.world.stranger_has_turn(false);
    rig.look();
}
