//! What the queue keeps: of those that gave up, up to its bound, until the end; and who
//! wakes them.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use super::{LONG, Rig, limits};
use crate::cancel::CancelToken;
use crate::error::ErrorKind;
use crate::pen::job::{Header, Kind, Ticket};
use crate::pen::{Limits, WhenFull};
use crate::sync::Arc;
use crate::timer::Expires;

#[test]
fn a_few_cancelled_writes_stay_in_the_queue_and_many_are_let_go() {
    for (waiting, cancelled, let_go) in [
        (10, 64, false),
        (10, 65, true),
        (100, 100, false),
        (100, 101, true),
    ] {
        let rig = Rig::new(limits());
        let neighbours: Vec<_> = (0..waiting).map(|row| rig.queue(row)).collect();
        let token = CancelToken::new();
        let ticket = Ticket {
            cancel: Some(token.clone()),
            ..Ticket::default()
        };
        let handles: Vec<_> = (0..cancelled)
            .map(|_| rig.queue_with(&ticket, Kind::Grouped, |engine| engine.insert(9_999)))
            .collect();
        token.cancel();
        for handle in &handles {
            assert_eq!(handle.answer().unwrap_err().kind(), ErrorKind::Cancelled);
        }
        // Two of ours: the member, and the answer.
        let held = handles
            .iter()
            .filter(|handle| Arc::strong_count(&handle.member) > 2);
        let left = if let_go { 0 } else { cancelled };
        assert_eq!(held.count(), left, "{waiting} {cancelled}");
        rig.serve_here();
        for neighbour in neighbours {
            neighbour.answer().unwrap();
        }
        rig.look();
    }
}

/// What is left lying is not counted twice.
#[test]
fn cancelled_writes_that_are_reached_are_let_go_then() {
    let rig = Rig::new(limits());
    let mut handles = Vec::new();
    for round in 0..3 {
        let token = CancelToken::new();
        let ticket = Ticket {
            cancel: Some(token.clone()),
            ..Ticket::default()
        };
        let cancelled: Vec<_> = (0..40)
            .map(|_| rig.queue_with(&ticket, Kind::Grouped, |engine| engine.insert(9_999)))
            .collect();
        token.cancel();
        // Reaches them, and takes nothing: there is nobody.
        assert_eq!(crate::sync::lock(&rig.pen.state).queue.next_kind(), None);
        for handle in &cancelled {
            assert_eq!(Arc::strong_count(&handle.member), 2, "{round}");
            handle.answer().unwrap_err();
        }
        handles.extend(cancelled);
    }
    rig.pen.close();
    rig.look();
}

/// How many hold on to the pen while four callers are woken, and when all is over.
fn holds_on_the_pen(wake_beside: usize, before: fn()) -> (usize, usize) {
    let rig = Rig::new(Limits {
        wake_beside,
        ..limits()
    });
    let pen = Arc::downgrade(&rig.pen);
    // In nobody's hand, and yet not there: whoever comes queues.
    let engine = crate::sync::lock(&rig.pen.state).engine.take();
    let after = std::thread::scope(|scope| {
        let (shared, world) = (&rig.pen, &rig.world);
        for row in 0..4 {
            scope.spawn(move || super::write(shared, world, &Ticket::default(), row).unwrap());
        }
        while rig.pen.queue_len() < 4 {
            std::thread::yield_now();
        }
        // In the turn after that of the four.
        let after = rig.queue_with(&Ticket::default(), Kind::Alone, move |engine| {
            engine.insert(9)?;
            Ok(pen.strong_count())
        });
        crate::sync::lock(&rig.pen.state).engine = engine;
        before();
        rig.serve_here();
        after.answer().unwrap()
    });
    let left = Arc::strong_count(&rig.pen);
    rig.look();
    (after, left)
}

#[test]
fn as_many_sleepers_as_the_bound_are_woken_by_a_herald_who_is_gone_in_the_end() {
    assert_eq!(holds_on_the_pen(4, || ()), (2, 1));
    assert_eq!(holds_on_the_pen(5, || ()), (1, 1));
}

/// In a process of its own, which has no memory for the stack of another thread.
#[cfg(all(target_os = "linux", not(miri)))]
#[test]
fn where_there_is_no_thread_for_a_herald_everybody_is_woken_all_the_same() {
    const IN_THE_CHILD: &str = "ONEPEN_HAS_NO_THREAD_TO_SPARE";
    if std::env::var_os(IN_THE_CHILD).is_some() {
        assert_eq!(holds_on_the_pen(4, no_more_threads), (1, 1));
        return;
    }
    let child = std::process::Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "models::kept::where_there_is_no_thread_for_a_herald_everybody_is_woken_all_the_same",
        ])
        .env(IN_THE_CHILD, "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&child.stdout);
    assert!(child.status.success(), "{}: {said}", child.status);
}

#[cfg(all(target_os = "linux", not(miri)))]
fn no_more_threads() {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = pages.split(' ').next().unwrap().parse().unwrap();
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the call writes to the limit that it is given.
    let refused = unsafe { libc::getrlimit(libc::RLIMIT_AS, &raw mut limit) };
    assert_eq!(refused, 0);
    // Something to work with; a stack has twice that.
    limit.rlim_cur = pages * 4096 + (1 << 20);
    // SAFETY: the call reads the limit that it is given.
    let refused = unsafe { libc::setrlimit(libc::RLIMIT_AS, &raw const limit) };
    assert_eq!(refused, 0);
    assert!(std::thread::Builder::new().spawn(|| ()).is_err());
}

#[test]
fn writes_that_are_queued_are_finished_before_the_engine_is_closed() {
    let rig = Rig::new(limits());
    let waiting = rig.queue(1);
    let world = Arc::clone(&rig.world);
    let committed = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&committed);
    rig.pen
        .retire(move || seen.store(world.committed().len(), Relaxed));
    rig.pen.serve();
    assert_eq!(waiting.answer().unwrap(), 1);
    assert_eq!(committed.load(Relaxed), 1, "it was closed before that");
    assert!(crate::sync::lock(&rig.pen.state).engine.is_none());
}

#[test]
fn who_makes_the_queue_so_long_is_counted_with_it() {
    let rig = Rig::new(limits());
    let waiting: Vec<_> = (0..3).map(|row| rig.queue(row)).collect();
    rig.serve_here();
    let mut stats = crate::Stats::default();
    rig.pen.tally.snapshot(&mut stats);
    let counted = (stats.longest_queue, stats.writes, stats.largest_group);
    assert_eq!(counted, (3, 3, 3));
    for handle in waiting {
        handle.answer().unwrap();
    }
    rig.look();
}

/// However many deadlines there are in a long queue.
#[test]
fn the_queue_is_not_looked_through_again_sooner_than_a_look_takes() {
    let rig = Rig::new(limits());
    let ticket = Ticket {
        patience: Some(LONG),
        ..Ticket::default()
    };
    let mut waiting: Vec<_> = (0..100)
        .map(|row| rig.queue_with(&ticket, Kind::Grouped, move |engine| engine.insert(row)))
        .collect();
    // The first is late, and the second about to be.
    let deadline = |place: usize| waiting[place].member.header().deadline().unwrap();
    let now = deadline(1) - Duration::from_nanos(1);
    assert!(deadline(0) <= now);
    let again = rig.pen.expire(now).expect("somebody waits");
    assert!(again > deadline(1), "by ten times as long as the look took");
    let late = waiting.remove(0).answer().unwrap_err();
    assert_eq!(late.kind(), ErrorKind::DeadlineExceeded);
    rig.serve_here();
    for handle in waiting {
        handle.answer().unwrap();
    }
    rig.look();
}

#[test]
fn who_was_in_the_lobby_is_known_to_have_been_there_however_short_it_was() {
    let ticket = Ticket::default();
    let header = Header::new(&ticket, Kind::Grouped, Instant::now(), 0);
    assert_eq!(header.lobby_left(), None);
    header.enter_lobby();
    header.leave_lobby();
    assert!(header.lobby_left().is_some());
}

#[test]
fn the_queue_is_full_at_its_bound_of_writes_or_bytes_and_not_before() {
    let each = 1_000 + size_of::<u32>();
    for (queue_members, queue_bytes, fit) in [
        (3, 1 << 20, 3),
        (100, 3 * each, 3),
        (100, 3 * each - 1, 2),
        // One that is larger than the bound is let in when nobody else is there.
        (100, 1, 1),
    ] {
        let rig = Rig::new(Limits {
            queue_members,
            queue_bytes,
            when_full: WhenFull::Refuse,
            ..limits()
        });
        let ticket = Ticket {
            bytes: 1_000,
            patience: Some(LONG),
            ..Ticket::default()
        };
        let handles: Vec<_> = (0..5_u32)
            .map(|row| rig.queue_with(&ticket, Kind::Grouped, move |engine| engine.insert(row)))
            .collect();
        assert_eq!(rig.pen.queue_len(), fit);
        rig.serve_here();
        for (place, handle) in handles.iter().enumerate() {
            match handle.answer() {
                Ok(()) => assert!(place < fit),
                Err(error) => {
                    assert!(place >= fit);
                    assert_eq!(error.kind(), ErrorKind::QueueFull);
                }
            }
        }
        rig.look();
    }
}
