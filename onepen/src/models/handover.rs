//! The hand-over of the pen, with as few threads as show each race.
//!
//! Blocked for ever is a failure too: loom and shuttle report a deadlock.

use std::time::Instant;

use super::explore::explore;
use super::fake::{CommitFault, FakeEngine};
use super::{LONG, Rig, limits, settle, write};
use crate::cancel::CancelToken;
use crate::error::{ErrorKind, Outcome};
use crate::pen::job::{Kind, Ticket, unwrap_ran};
use crate::pen::{Limits, WhenFull};
use crate::sync::{Arc, lock, thread};

/// A thread that writes one row and answers for its own outcome.
fn writer_of(rig: &Rig, ticket: Ticket, row: u32) -> thread::JoinHandle<crate::Result<u32>> {
    let (pen, world) = (Arc::clone(&rig.pen), Arc::clone(&rig.world));
    thread::spawn(move || write(&pen, &world, &ticket, row))
}

fn expiring() -> Ticket {
    Ticket {
        patience: Some(LONG),
        ..Ticket::default()
    }
}

fn cancellable() -> (Ticket, CancelToken) {
    let token = CancelToken::new();
    let ticket = Ticket {
        cancel: Some(token.clone()),
        ..Ticket::default()
    };
    (ticket, token)
}

/// A queue with room for one.
fn narrow() -> Limits {
    Limits {
        queue_members: 1,
        when_full: WhenFull::Wait,
        ..limits()
    }
}

#[test]
fn every_write_is_answered_once_and_only_after_its_commit() {
    explore(|| {
        let rig = Rig::new(limits());
        let writer = rig.start_writer();
        let other = writer_of(&rig, Ticket::default(), 1);
        rig.write(2).unwrap();
        assert_eq!(other.join().unwrap().unwrap(), 1);
        assert_eq!(rig.world.committed().len(), 2);
        rig.finish(writer);
    });
}

#[test]
fn three_callers_are_all_served() {
    explore(|| {
        let rig = Rig::new(limits());
        let writer = rig.start_writer();
        let one = writer_of(&rig, Ticket::default(), 1);
        let two = writer_of(&rig, Ticket::default(), 2);
        rig.write(3).unwrap();
        one.join().unwrap().unwrap();
        two.join().unwrap().unwrap();
        assert_eq!(rig.world.committed().len(), 3);
        rig.finish(writer);
    });
}

#[test]
fn whoever_arrives_as_the_queue_runs_empty_is_served() {
    explore(|| {
        let rig = Rig::new(limits());
        let first = rig.queue(1);
        let writer = rig.start_writer();
        // The pen is never free for these: somebody is queued, or the pen is in
        // the writer's hand, or the writer is about to sleep.
        let second = rig.queue(2);
        rig.write(3).unwrap();
        rig.finish(writer);
        assert_eq!(first.answer().unwrap(), 1);
        assert_eq!(second.answer().unwrap(), 2);
    });
}

#[test]
fn a_caller_that_ran_by_itself_hands_over_to_whoever_queued_meanwhile() {
    explore(|| {
        let rig = Rig::new(limits());
        let writer = rig.start_writer();
        let other = writer_of(&rig, Ticket::default(), 1);
        // Nothing else happens that would wake the writer by chance.
        let queued = rig.queue(2);
        let answer = crate::pen::future::block_on(|cx| queued.answer.poll(cx));
        assert_eq!(unwrap_ran(answer).unwrap(), 2);
        assert!(rig.world.has_committed(2));
        other.join().unwrap().unwrap();
        rig.finish(writer);
    });
}

#[test]
fn a_caller_whose_waking_was_left_to_the_second_thread_is_woken() {
    explore(|| {
        let rig = Rig::new(Limits {
            wake_beside: 1,
            ..limits()
        });
        let first = rig.queue(1);
        let writer = rig.start_writer();
        rig.write(2).unwrap();
        rig.write(3).unwrap();
        rig.finish(writer);
        assert_eq!(first.answer().unwrap(), 1);
    });
}

#[test]
fn a_hot_pen_with_nobody_left_still_serves_the_next() {
    explore(|| {
        let rig = Rig::new(limits());
        let queued = [rig.queue(1), rig.queue(2)];
        let writer = rig.start_writer();
        // After the group of two the pen is hot: a lone caller must be served by
        // the writer thread, asleep or not.
        rig.write(3).unwrap();
        rig.write(4).unwrap();
        rig.finish(writer);
        for handle in queued {
            handle.answer().unwrap();
        }
    });
}

/// `outcome` is everybody's who was in the group, and its rows are nobody's.
fn group_commit_fails(fault: CommitFault, outcome: Outcome) {
    let rig = Rig::new(limits());
    rig.world.next_commits([fault]);
    let queued = [rig.queue(1), rig.queue(2)];
    let writer = rig.start_writer();
    let third = rig.write(3);
    rig.world.next_commits([CommitFault::None]);
    let fourth = rig.write(4);
    assert!(
        fourth.is_ok(),
        "the pen must be usable after a failed COMMIT"
    );
    let world = Arc::clone(&rig.world);
    rig.finish(writer);
    let answers = queued.map(|handle| handle.answer());
    for (row, answer) in [1, 2].into_iter().zip(answers) {
        settle(&world, row, &answer);
        let error = answer.expect_err("a value was delivered by a group that did not commit");
        assert_eq!(error.outcome(), outcome);
        assert_eq!(error.kind(), ErrorKind::CommitFailed);
    }
    if let Err(error) = third {
        assert_eq!(error.outcome(), outcome);
    }
}

#[test]
fn a_group_whose_commit_failed_is_told_so_and_gets_no_value() {
    explore(|| group_commit_fails(CommitFault::NotCommitted, Outcome::NotCommitted));
}

#[test]
fn a_group_whose_commit_is_unknown_is_told_so_and_gets_no_value() {
    explore(|| group_commit_fails(CommitFault::Unknown, Outcome::Unknown));
}

#[test]
fn a_cancelled_write_is_either_run_or_refused() {
    explore(|| {
        let rig = Rig::new(limits());
        let (ticket, token) = cancellable();
        let neighbour = rig.queue(1);
        let victim = rig.queue_with(&ticket, Kind::Grouped, |engine: &mut FakeEngine| {
            engine.insert(2)?;
            Ok(2)
        });
        let writer = rig.start_writer();
        token.cancel();
        let world = Arc::clone(&rig.world);
        rig.finish(writer);
        neighbour.answer().unwrap();
        let answer = victim.answer();
        assert_eq!(answer.is_ok(), world.has_committed(2));
        if let Err(error) = answer {
            assert_eq!(error.kind(), ErrorKind::Cancelled);
        }
    });
}

/// Whoever has the connection to itself has no transaction. The next in line, that
/// was behind it when it gave up, must have one.
#[test]
fn a_write_behind_an_exclusive_call_that_gives_up_has_a_transaction() {
    explore(|| {
        let rig = Rig::new(limits());
        let (ticket, token) = cancellable();
        let exclusive = rig.queue_with(&ticket, Kind::Exclusive, |_: &mut FakeEngine| Ok(()));
        let behind = rig.queue(1);
        let canceller = thread::spawn(move || token.cancel());
        let writer = rig.start_writer();
        canceller.join().unwrap();
        let world = Arc::clone(&rig.world);
        rig.finish(writer);
        assert_eq!(behind.answer().unwrap(), 1);
        assert!(world.has_committed(1));
        if let Err(error) = exclusive.answer() {
            assert_eq!(error.kind(), ErrorKind::Cancelled);
        }
    });
}

#[test]
fn a_blocked_caller_that_is_cancelled_returns_once() {
    explore(|| {
        let rig = Rig::new(limits());
        let (ticket, token) = cancellable();
        let first = rig.queue(1);
        let blocked = writer_of(&rig, ticket, 2);
        let writer = rig.start_writer();
        token.cancel();
        let answer = blocked.join().unwrap();
        assert_eq!(answer.is_ok(), rig.world.has_committed(2));
        rig.finish(writer);
        first.answer().unwrap();
    });
}

#[test]
fn a_deadline_ends_a_waiting_write_and_no_other() {
    explore(|| {
        let rig = Rig::new(limits());
        let first = rig.queue(1);
        let blocked = writer_of(&rig, expiring(), 2);
        let writer = rig.start_writer();
        rig.timer.fire(Instant::now() + LONG * 2);
        let answer = blocked.join().unwrap();
        assert_eq!(answer.is_ok(), rig.world.has_committed(2));
        if let Err(error) = answer {
            assert_eq!(error.kind(), ErrorKind::DeadlineExceeded);
        }
        rig.finish(writer);
        first.answer().unwrap();
    });
}

#[test]
fn a_deadline_and_a_cancellation_together_answer_once() {
    explore(|| {
        let rig = Rig::new(limits());
        let (mut ticket, token) = cancellable();
        ticket.patience = Some(LONG);
        let victim = rig.queue_with(&ticket, Kind::Grouped, |engine: &mut FakeEngine| {
            engine.insert(1)
        });
        let timer = Arc::clone(&rig.timer);
        let time = thread::spawn(move || timer.fire(Instant::now() + LONG * 2));
        let writer = rig.start_writer();
        token.cancel();
        time.join().unwrap();
        let world = Arc::clone(&rig.world);
        rig.finish(writer);
        assert_eq!(victim.answer().is_ok(), world.has_committed(1));
    });
}

#[test]
fn closing_finishes_what_is_queued_and_refuses_the_rest() {
    explore(|| {
        let rig = Rig::new(limits());
        let queued = rig.queue(1);
        let late = writer_of(&rig, Ticket::default(), 2);
        let writer = rig.start_writer();
        rig.pen.close();
        let late = late.join().unwrap();
        assert_eq!(late.is_ok(), rig.world.has_committed(2));
        if let Err(error) = late {
            assert_eq!(error.kind(), ErrorKind::Closed);
        }
        assert_eq!(rig.write(3).unwrap_err().kind(), ErrorKind::Closed);
        rig.finish(writer);
        queued.answer().unwrap();
    });
}

#[test]
fn the_writer_ends_only_when_the_pen_was_given_back() {
    explore(|| {
        let rig = Rig::new(limits());
        let late = writer_of(&rig, Ticket::default(), 1);
        let writer = rig.start_writer();
        rig.pen.close();
        // Whoever closes takes the connection next: nobody may still be using it.
        writer.join().unwrap();
        let engine = lock(&rig.pen.state).engine.take();
        rig.world.check(&engine.expect("the pen is still in use"));
        let late = late.join().unwrap();
        assert_eq!(late.is_ok(), rig.world.has_committed(1));
    });
}

#[test]
fn a_pen_that_is_closed_inside_its_own_closure_ends_afterwards() {
    explore(|| {
        let rig = Rig::new(limits());
        let queued = rig.queue(1);
        let writer = rig.start_writer();
        let pen = Arc::clone(&rig.pen);
        let closing = rig.pen.write(&Ticket::default(), Kind::Grouped, |_| {
            pen.close();
            pen.retire(|| {});
            Ok(())
        });
        writer.join().unwrap(); // it would be left behind, asleep
        closing.unwrap();
        queued.answer().unwrap();
        let engine = lock(&rig.pen.state).engine.take();
        assert!(engine.is_none(), "the connection was left open");
    });
}

#[test]
fn a_write_in_the_lobby_is_admitted_and_its_submitter_woken() {
    explore(|| {
        let rig = Rig::new(narrow());
        let queued = [rig.queue(1), rig.queue(2)];
        let writer = rig.start_writer();
        rig.pen.wait_until_admitted(&queued[1].member);
        rig.finish(writer);
        for handle in queued {
            handle.answer().unwrap();
        }
    });
}

#[test]
fn callers_in_the_lobby_are_all_served() {
    explore(|| {
        let rig = Rig::new(narrow());
        let queued = [rig.queue(1), rig.queue(2)];
        let writer = rig.start_writer();
        rig.write(3).unwrap();
        rig.finish(writer);
        for handle in queued {
            handle.answer().unwrap();
        }
    });
}

#[test]
fn cancelling_in_the_lobby_wakes_its_submitter_and_lets_the_next_move_up() {
    explore(|| {
        let rig = Rig::new(narrow());
        let (ticket, token) = cancellable();
        let first = rig.queue(1);
        let victim = rig.queue_with(&ticket, Kind::Grouped, |engine: &mut FakeEngine| {
            engine.insert(2)
        });
        let third = rig.queue(3);
        let submitter = {
            let (pen, member) = (Arc::clone(&rig.pen), Arc::clone(&victim.member));
            thread::spawn(move || pen.wait_until_admitted(&member))
        };
        // No writer yet: nothing but the cancellation can wake the submitter.
        token.cancel();
        submitter.join().unwrap();
        assert_eq!(victim.answer().unwrap_err().kind(), ErrorKind::Cancelled);
        rig.serve_here();
        first.answer().unwrap();
        third.answer().unwrap();
        rig.look();
    });
}

#[test]
fn cancelling_the_queued_admits_whoever_is_in_the_lobby() {
    explore(|| {
        let rig = Rig::new(narrow());
        let (ticket, token) = cancellable();
        let victim = rig.queue_with(&ticket, Kind::Grouped, |engine: &mut FakeEngine| {
            engine.insert(1)
        });
        let second = rig.queue(2);
        let submitter = {
            let (pen, member) = (Arc::clone(&rig.pen), Arc::clone(&second.member));
            thread::spawn(move || pen.wait_until_admitted(&member))
        };
        token.cancel();
        submitter.join().unwrap();
        assert_eq!(victim.answer().unwrap_err().kind(), ErrorKind::Cancelled);
        rig.serve_here();
        second.answer().unwrap();
        rig.look();
    });
}

#[test]
fn a_stranger_with_the_write_lock_is_waited_for() {
    explore(|| {
        let rig = Rig::new(limits());
        assert!(rig.world.stranger_locks());
        let queued = rig.queue(1);
        let writer = rig.start_writer();
        rig.world.stranger_unlocks();
        rig.finish(writer);
        queued.answer().unwrap();
    });
}

#[test]
fn a_deadline_passes_also_while_a_stranger_has_the_write_lock() {
    explore(|| {
        let rig = Rig::new(limits());
        assert!(rig.world.stranger_locks());
        let queued = rig.queue_with(&expiring(), Kind::Grouped, |engine: &mut FakeEngine| {
            engine.insert(1)
        });
        let writer = rig.start_writer();
        rig.timer.fire(Instant::now() + LONG * 2);
        // The stranger never lets go; the writer must come back all the same.
        rig.pen.close();
        writer.join().unwrap();
        let error = queued.answer().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::DeadlineExceeded);
        rig.look();
    });
}

#[test]
fn nobody_writes_while_it_is_another_processes_turn() {
    explore(|| {
        let rig = Rig::new(limits());
        let writer = rig.start_writer();
        rig.world.stranger_has_turn(true);
        let world = Arc::clone(&rig.world);
        let stranger = thread::spawn(move || {
            let seen = world.commits();
            world.stranger_has_turn(false);
            seen
        });
        rig.write(1).unwrap();
        assert_eq!(stranger.join().unwrap(), 0, "a write went before its turn");
        rig.finish(writer);
    });
}

#[test]
fn those_who_wait_for_a_turn_can_give_up() {
    explore(|| {
        let rig = Rig::new(limits());
        let writer = rig.start_writer();
        rig.world.stranger_has_turn(true);
        let (ticket, token) = cancellable();
        let canceller = thread::spawn(move || token.cancel());
        let answer = write(&rig.pen, &rig.world, &ticket, 1);
        assert_eq!(answer.unwrap_err().kind(), ErrorKind::Cancelled);
        canceller.join().unwrap();
        rig.world.stranger_has_turn(false);
        rig.write(2).unwrap();
        rig.finish(writer);
    });
}
