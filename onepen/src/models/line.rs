//! The line of the building blocks: never too many at once, nobody forgotten,
//! and nothing left behind by those who give up.
//!
//! Blocked for ever is a failure too: loom and shuttle report a deadlock.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use super::LONG;
use super::explore::explore;
use crate::blocks::line::{Left, Line, Waiting};
use crate::cancel::CancelToken;
use crate::engine::{GiveUp, Until};
use crate::sync::{Arc, AtomicU32, Ordering, thread};
use crate::timer::Expires;

/// A line with one permit, and how many have it.
struct Rig {
    line: Arc<Line>,
    inside: AtomicU32,
}

impl Rig {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            line: Line::new(1),
            inside: AtomicU32::new(0),
        })
    }

    fn take(&self, cancel: Option<&CancelToken>) -> Result<(), Left> {
        self.line.take(&Until {
            deadline: None,
            cancel,
        })?;
        self.enter();
        Ok(())
    }

    // Relaxed on purpose: the line itself has to order what its owners do.
    fn enter(&self) {
        assert_eq!(
            self.inside.load(Ordering::Relaxed),
            0,
            "two have the permit"
        );
        self.inside.store(1, Ordering::Relaxed);
    }

    fn give_back(&self) {
        self.inside.store(0, Ordering::Relaxed);
        self.line.give_back();
    }

    fn turns(&self, times: usize) -> Result<(), Left> {
        for _ in 0..times {
            self.take(None)?;
            self.give_back();
        }
        Ok(())
    }

    fn thread(self: &Arc<Self>, times: usize) -> thread::JoinHandle<Result<(), Left>> {
        let rig = Arc::clone(self);
        thread::spawn(move || rig.turns(times))
    }

    /// All of it is free again.
    fn nothing_is_left(&self) {
        assert_eq!(self.line.waiting(), 0);
        self.turns(1).unwrap();
    }
}

fn poll(waiting: &mut Waiting) -> Poll<Result<(), Left>> {
    Pin::new(waiting).poll(&mut Context::from_waker(Waker::noop()))
}

#[test]
fn one_at_a_time_has_the_permit_and_whoever_waits_gets_it() {
    explore(|| {
        let rig = Rig::new();
        let others = [rig.thread(1), rig.thread(1)];
        rig.turns(1).unwrap();
        for other in others {
            other.join().unwrap().unwrap();
        }
        rig.nothing_is_left();
    });
}

#[test]
fn a_waiter_that_is_cancelled_leaves_nothing_in_the_line() {
    explore(|| {
        let rig = Rig::new();
        rig.take(None).unwrap();
        let token = CancelToken::new();
        let cancelled = {
            let (rig, token) = (Arc::clone(&rig), token.clone());
            thread::spawn(move || match rig.take(Some(&token)) {
                Ok(()) => rig.give_back(),
                Err(left) => assert_eq!(left, Left::GaveUp(GiveUp::Cancelled)),
            })
        };
        let other = rig.thread(1);
        token.cancel();
        rig.give_back();
        cancelled.join().unwrap();
        other.join().unwrap().unwrap();
        rig.nothing_is_left();
    });
}

#[test]
fn a_task_that_is_dropped_at_any_moment_passes_its_permit_on() {
    explore(|| {
        let rig = Rig::new();
        rig.take(None).unwrap();
        let mut task = rig.line.wait(None, None);
        assert!(poll(&mut task).is_pending());
        let other = rig.thread(1);
        let dropper = thread::spawn(move || drop(task));
        rig.give_back();
        dropper.join().unwrap();
        other.join().unwrap().unwrap();
        rig.nothing_is_left();
    });
}

#[test]
fn a_task_is_woken_for_its_permit() {
    explore(|| {
        let rig = Rig::new();
        rig.take(None).unwrap();
        let task = {
            let rig = Arc::clone(&rig);
            thread::spawn(move || {
                let mut waiting = rig.line.wait(None, None);
                crate::pen::future::block_on(|cx| Pin::new(&mut waiting).poll(cx)).unwrap();
                rig.enter();
                rig.give_back();
            })
        };
        rig.give_back();
        task.join().unwrap();
        rig.nothing_is_left();
    });
}

#[test]
fn closing_sends_everybody_away_who_waits() {
    explore(|| {
        let rig = Rig::new();
        rig.take(None).unwrap();
        let waits = rig.thread(1);
        let mut task = rig.line.wait(None, None);
        assert!(poll(&mut task).is_pending());
        rig.line.close();
        assert_eq!(waits.join().unwrap(), Err(Left::Closed));
        assert_eq!(poll(&mut task), Poll::Ready(Err(Left::Closed)));
        assert_eq!(rig.take(None), Err(Left::Closed));
    });
}

#[test]
fn permits_are_had_in_the_order_they_were_asked_for() {
    explore(|| {
        let rig = Rig::new();
        rig.take(None).unwrap();
        let had = Arc::new(AtomicU32::new(0));
        let [mut first, mut second] = [rig.line.wait(None, None), rig.line.wait(None, None)];
        assert!(poll(&mut first).is_pending());
        assert!(poll(&mut second).is_pending());
        let users = [(0, first), (1, second)].map(|(nth, mut waiting)| {
            let (rig, had) = (Arc::clone(&rig), Arc::clone(&had));
            thread::spawn(move || {
                crate::pen::future::block_on(|cx| Pin::new(&mut waiting).poll(cx)).unwrap();
                rig.enter();
                assert_eq!(had.fetch_add(1, Ordering::Relaxed), nth, "out of turn");
                rig.give_back();
            })
        });
        rig.give_back();
        for user in users {
            user.join().unwrap();
        }
        rig.nothing_is_left();
    });
}

#[test]
fn a_deadline_and_a_permit_that_comes_back_end_a_wait_in_one_way() {
    explore(|| {
        let rig = Rig::new();
        rig.take(None).unwrap();
        let deadline = Instant::now() + LONG;
        let mut task = rig.line.wait(Some(deadline), None);
        assert!(poll(&mut task).is_pending());
        let timer = {
            let line = Arc::clone(&rig.line);
            thread::spawn(move || line.expire(deadline))
        };
        let waits = {
            let rig = Arc::clone(&rig);
            thread::spawn(move || {
                match crate::pen::future::block_on(|cx| Pin::new(&mut task).poll(cx)) {
                    Ok(()) => {
                        rig.enter();
                        rig.give_back();
                    }
                    Err(left) => assert_eq!(left, Left::GaveUp(GiveUp::Deadline)),
                }
            })
        };
        rig.give_back();
        waits.join().unwrap();
        assert_eq!(timer.join().unwrap(), None, "a look for nobody");
        rig.nothing_is_left();
    });
}
