//! More threads than loom can count: panics, priorities, abandoned tasks,
//! re-entry.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Mutex;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use super::explore::explore;
use super::fake::{CommitFault, FakeEngine, refused};
use super::{Handle, LONG, Rig, limits, panic_quietly, settle, write};
use crate::cancel::CancelToken;
use crate::error::{ErrorKind, Outcome, Result};
use crate::pen::future::{Write, block_on};
use crate::pen::job::{Kind, Priority, Ticket};
use crate::pen::{Limits, WhenFull};
use crate::sync::{Arc, thread};

/// Runs `each(0..threads)` on threads of their own and joins them.
fn crowd<T: Send + 'static>(
    rig: &Rig,
    threads: u32,
    each: impl Fn(&Ends, u32) -> T + Send + Sync + 'static,
) -> Vec<T> {
    let each = Arc::new(each);
    let threads: Vec<_> = (0..threads)
        .map(|number| {
            let each = Arc::clone(&each);
            let ends = Ends {
                pen: Arc::clone(&rig.pen),
                world: Arc::clone(&rig.world),
            };
            thread::spawn(move || each(&ends, number))
        })
        .collect();
    threads
        .into_iter()
        .map(|thread| thread.join().expect("a caller panicked"))
        .collect()
}

/// What a thread of the crowd has of the rig.
struct Ends {
    pen: Arc<crate::pen::Pen<FakeEngine>>,
    world: Arc<super::World>,
}

impl Ends {
    fn write(&self, row: u32) -> Result<u32> {
        write(&self.pen, &self.world, &Ticket::default(), row)
    }
}

#[test]
fn many_callers_each_get_their_own_answer() {
    explore(|| {
        let rig = Rig::new(limits());
        let writer = rig.start_writer();
        let rows = crowd(&rig, 5, |ends, number| {
            [0, 1, 2].map(|turn| ends.write(number * 10 + turn).unwrap())
        });
        for (number, rows) in (0..).zip(rows) {
            assert_eq!(rows, [0, 1, 2].map(|turn| number * 10 + turn));
        }
        assert_eq!(rig.world.committed().len(), 15);
        rig.finish(writer);
    });
}

#[test]
fn faults_at_any_commit_are_told_to_exactly_those_they_befell() {
    explore(|| {
        let rig = Rig::new(limits());
        rig.world.next_commits([
            CommitFault::None,
            CommitFault::Unknown,
            CommitFault::NotCommitted,
        ]);
        let writer = rig.start_writer();
        let answers = crowd(&rig, 4, |ends, number| {
            [0, 1].map(|turn| ends.write(number * 10 + turn))
        });
        let mut written = 0;
        for answer in answers.into_iter().flatten() {
            match answer {
                Ok(_) => written += 1,
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::CommitFailed);
                    assert_ne!(error.outcome(), Outcome::Committed);
                }
            }
        }
        assert_eq!(rig.world.committed().len(), written);
        rig.finish(writer);
    });
}

/// Every caller's closure misbehaves once in its own way, wherever in a group
/// it happens to stand, and whoever runs it.
#[test]
fn a_panic_or_failure_anywhere_in_a_group_is_its_own_callers_alone() {
    explore(|| {
        let rig = Rig::new(limits());
        let writer = rig.start_writer();
        let before = rig.queue(100);
        crowd(&rig, 6, |ends, number| {
            let pen = &ends.pen;
            let row = number;
            let ran = catch_unwind(AssertUnwindSafe(|| {
                pen.write(
                    &Ticket::default(),
                    Kind::Grouped,
                    |engine: &mut FakeEngine| {
                        engine.insert(row)?;
                        match row {
                            0 => panic_quietly("caller 0"),
                            1 => {
                                engine.loses_its_transaction();
                                Ok(row) // and says nothing
                            }
                            2 => {
                                engine.owes_a_foreign_key();
                                Ok(row)
                            }
                            3 => Err(refused("caller 3")),
                            _ => Ok(row),
                        }
                    },
                )
            }));
            match ran {
                Err(payload) => {
                    assert_eq!(row, 0);
                    assert_eq!(payload.downcast_ref(), Some(&"caller 0"));
                    ends.world.deny(row);
                }
                Ok(answer) => {
                    settle(&ends.world, row, &answer);
                    assert_eq!(answer.is_ok(), row > 3, "caller {row}");
                }
            }
        });
        rig.finish(writer);
        before.answer().unwrap();
    });
}

/// The first, a middle and the last member of one group, and alone.
#[test]
fn a_panic_in_member_n_comes_back_to_its_caller_and_harms_no_neighbour() {
    explore(|| {
        for place in 0..4 {
            let rig = Rig::new(limits());
            let handles: Vec<Handle<u32>> = (0..3)
                .map(|row| {
                    rig.queue_with(&Ticket::default(), Kind::Grouped, move |engine| {
                        engine.insert(row)?;
                        if row == place {
                            panic_quietly("a member");
                        }
                        Ok(row)
                    })
                })
                .collect();
            let writer = rig.start_writer();
            let other = rig.write(9);
            rig.finish(writer);
            other.unwrap();
            for (row, handle) in (0..).zip(handles) {
                let ran = catch_unwind(AssertUnwindSafe(|| handle.answer()));
                if row == place {
                    assert!(ran.is_err(), "the panic was lost");
                } else {
                    assert_eq!(ran.unwrap().unwrap(), row);
                }
            }
        }
    });
}

#[test]
fn a_write_inside_a_write_is_refused_wherever_it_runs() {
    explore(|| {
        let rig = Rig::new(limits());
        let writer = rig.start_writer();
        let inner = Arc::clone(&rig.pen);
        let queued = rig.queue_with(&Ticket::default(), Kind::Grouped, move |engine| {
            engine.insert(1)?;
            let again = inner.write(&Ticket::default(), Kind::Grouped, |engine| engine.insert(2));
            Ok(again.unwrap_err().kind())
        });
        let pen = Arc::clone(&rig.pen);
        let own = rig
            .pen
            .write(
                &Ticket::default(),
                Kind::Grouped,
                |engine: &mut FakeEngine| {
                    engine.insert(3)?;
                    let again =
                        pen.write(&Ticket::default(), Kind::Grouped, |engine| engine.insert(4));
                    Ok(again.unwrap_err().kind())
                },
            )
            .unwrap();
        assert_eq!(own, ErrorKind::Reentrant);
        // The mark goes with the closure.
        rig.write(5).unwrap();
        rig.finish(writer);
        assert_eq!(queued.answer().unwrap(), ErrorKind::Reentrant);
    });
}

/// The future of an asynchronous write.
fn write_of(ends: &Ends, row: u32) -> impl Future<Output = Result<u32>> + Unpin + use<> {
    Write::New {
        pen: Ok(Arc::clone(&ends.pen)),
        ticket: Arc::default(),
        kind: Kind::Grouped,
        call: move |engine: &mut FakeEngine| {
            engine.insert(row)?;
            Ok(row)
        },
    }
}

/// A task that polls until the answer is there, or is dropped after so many
/// polls, which cancels what has not started.
fn task(ends: &Ends, row: u32, polls: u32) -> Option<Result<u32>> {
    let mut write = write_of(ends, row);
    for _ in 0..polls {
        let mut cx = Context::from_waker(Waker::noop());
        match Pin::new(&mut write).poll(&mut cx) {
            Poll::Ready(answer) => return Some(answer),
            Poll::Pending => thread::yield_now(),
        }
    }
    None
}

#[test]
fn a_task_dropped_at_any_moment_was_run_or_never_runs() {
    explore(|| {
        let rig = Rig::new(limits());
        let ends = Ends {
            pen: Arc::clone(&rig.pen),
            world: Arc::clone(&rig.world),
        };
        // Nobody serves yet: these two are dropped in the queue.
        assert!(task(&ends, 90, 1).is_none());
        assert!(task(&ends, 91, 2).is_none());
        let writer = rig.start_writer();
        let never = crowd(&rig, 4, |ends, number| {
            match task(ends, number, number) {
                Some(answer) => settle(&ends.world, number, &answer),
                None => thread::yield_now(),
            }
            // It would have had its turn before this one.
            ends.write(100 + number).unwrap();
            !ends.world.has_committed(number)
        });
        let world = Arc::clone(&rig.world);
        rig.finish(writer);
        for (row, never) in (0..).zip(never) {
            assert!(
                !(never && world.has_committed(row)),
                "row {row} was written after its task was gone"
            );
        }
        for row in [0, 90, 91] {
            assert!(!world.has_committed(row), "row {row} was never to be");
        }
    });
}

#[test]
fn tasks_are_woken_when_their_answers_are_there() {
    explore(|| {
        let rig = Rig::new(limits());
        let writer = rig.start_writer();
        crowd(&rig, 3, |ends, number| {
            let mut write = write_of(ends, number);
            let answer = block_on(|cx| Pin::new(&mut write).poll(cx));
            settle(&ends.world, number, &answer);
            assert_eq!(answer.unwrap(), number);
        });
        rig.finish(writer);
    });
}

/// A task may be polled with another waker each time: the last one counts.
#[test]
fn a_task_that_moved_is_woken_where_it_is_now() {
    explore(|| {
        let rig = Rig::new(limits());
        let ends = Ends {
            pen: Arc::clone(&rig.pen),
            world: Arc::clone(&rig.world),
        };
        let mut write = write_of(&ends, 1);
        let first = Pin::new(&mut write).poll(&mut Context::from_waker(Waker::noop()));
        assert!(first.is_pending());
        let writer = rig.start_writer();
        let moved = thread::spawn(move || block_on(|cx| Pin::new(&mut write).poll(cx)));
        assert_eq!(moved.join().unwrap().unwrap(), 1);
        rig.finish(writer);
    });
}

#[test]
fn cancels_deadlines_and_the_lobby_together_lose_nobody() {
    explore(|| {
        let rig = Rig::new(Limits {
            queue_members: 1,
            when_full: WhenFull::Wait,
            ..limits()
        });
        let token = CancelToken::new();
        let timer = Arc::clone(&rig.timer);
        let writer = rig.start_writer();
        let cancelled = token.clone();
        let ended = crowd(&rig, 5, move |ends, number| {
            let ticket = Ticket {
                cancel: (number % 2 == 0).then(|| cancelled.clone()),
                patience: Some(LONG),
                ..Ticket::default()
            };
            match number {
                3 => {
                    cancelled.cancel();
                    None
                }
                4 => {
                    timer.fire(Instant::now() + LONG * 2);
                    None
                }
                row => Some(write(&ends.pen, &ends.world, &ticket, row)),
            }
        });
        for answer in ended.into_iter().flatten() {
            if let Err(error) = answer {
                assert!(
                    matches!(
                        error.kind(),
                        ErrorKind::Cancelled | ErrorKind::DeadlineExceeded
                    ),
                    "{error}"
                );
            }
        }
        rig.finish(writer);
    });
}

#[test]
fn the_queue_never_holds_more_than_its_bound_and_refuses_when_told_to() {
    explore(|| {
        let rig = Rig::new(Limits {
            queue_members: 2,
            when_full: WhenFull::Refuse,
            ..limits()
        });
        let writer = rig.start_writer();
        let written = crowd(&rig, 5, |ends, number| {
            let answer = ends.write(number);
            assert!(ends.pen.queue_len() <= 2, "the bound was exceeded");
            match answer {
                Ok(_) => 1,
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::QueueFull);
                    0
                }
            }
        });
        assert_eq!(
            rig.world.committed().len(),
            written.into_iter().sum::<usize>()
        );
        rig.finish(writer);
    });
}

/// Runs the queue while high-priority writes keep coming, and looks at the
/// order of the rows.
#[test]
fn no_waiting_write_is_passed_by_more_than_eight_for_each_before_it() {
    explore(|| {
        let rig = Rig::new(Limits {
            group_members: 3,
            ..limits()
        });
        // How many were claimed when each of the low ones was.
        let ran = Arc::new(Mutex::new(Vec::new()));
        let queue = |rig: &Rig, priority, row: u32| {
            let ran = Arc::clone(&ran);
            let ticket = Ticket {
                priority,
                ..Ticket::default()
            };
            rig.queue_with(&ticket, Kind::Grouped, move |engine| {
                ran.lock().unwrap().push(row);
                engine.insert(row)
            })
        };
        let mut handles = Vec::new();
        for row in 0..20 {
            handles.push(queue(&rig, Priority::High, row));
        }
        for row in 100..103 {
            handles.push(queue(&rig, Priority::Normal, row));
        }
        for row in 200..203 {
            handles.push(queue(&rig, Priority::Low, row));
        }
        let writer = rig.start_writer();
        for row in 20..30 {
            handles.push(queue(&rig, Priority::High, row));
        }
        rig.finish(writer);
        for handle in handles {
            handle.answer().unwrap();
        }
        let ran = ran.lock().unwrap();
        for lane in [0..100, 100..200, 200..300] {
            let own: Vec<_> = ran.iter().filter(|row| lane.contains(*row)).collect();
            assert!(own.is_sorted(), "first come, first served: {ran:?}");
        }
        for first in [100, 200] {
            for nth in 0..3 {
                let at = ran.iter().position(|&row| row == first + nth).unwrap();
                let passed = ran[..at].iter().filter(|&&row| row < first).count();
                // One more for each lane above: both may be due at once.
                let bound = (8 + 1) * (nth as usize + 1);
                assert!(passed <= bound, "row {first}+{nth} was passed: {ran:?}");
            }
        }
    });
}

#[cfg(all(onepen_shuttle, not(onepen_loom)))]
#[test]
fn the_model_itself_is_deterministic() {
    use shuttle::scheduler::{RandomScheduler, UncontrolledNondeterminismCheckScheduler};

    let since = Instant::now();
    let random = RandomScheduler::new_from_seed(1, 500);
    let checked = UncontrolledNondeterminismCheckScheduler::new(random);
    let ran = shuttle::Runner::new(checked, super::explore::config()).run(|| {
        let rig = Rig::new(limits());
        rig.world
            .next_commits([CommitFault::None, CommitFault::Unknown]);
        let writer = rig.start_writer();
        crowd(&rig, 4, |ends, number| ends.write(number).is_ok());
        rig.finish(writer);
    });
    super::explore::report(ran, since);
}
