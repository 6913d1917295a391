//! Who waits for a queued write, what its closure owns, and what it leaves behind
//! when it is cancelled.
//!
//! No threads of its own, as in `groups`: the jobs are queued first and then served
//! here, so every run is the same.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Wake, Waker};
use std::time::Instant;

use super::fake::FakeEngine;
use super::{LONG, Rig, limits, panic_quietly};
use crate::cancel::CancelToken;
use crate::error::{ErrorKind, Result};
use crate::pen::Limits;
use crate::pen::job::{Kind, Ticket};
use crate::sync::Arc;

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
