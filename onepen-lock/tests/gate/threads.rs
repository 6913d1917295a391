use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use onepen_lock::gate::{Gate, Waited};

use crate::actor::Scene;

fn never() -> bool {
    false
}

#[test]
fn the_threads_of_a_process_take_part_as_one() {
    let scene = Scene::new();
    let gate = Gate::join(&scene.database, "threads").unwrap();
    let again = Gate::join(&scene.database, "the same").unwrap();
    assert_eq!(scene.look().members.len(), 1, "one process, one place");
    let (one, two) = (gate.seat(), again.seat());
    assert!(one.try_take(None));
    assert!(!two.try_take(None));
    let (said, heard) = mpsc::channel();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            assert_eq!(two.take(None, None, &never), Waited::Turn);
            said.send(()).unwrap();
        });
        one.pass_on(1, 1, never);
        heard.recv().unwrap();
    });
    assert!(!one.try_take(None));
    drop(two); // with its turn
    assert!(one.try_take(None));
}

#[test]
fn many_threads_and_processes_each_get_their_turn_and_never_two_at_once() {
    let scene = Scene::new();
    let gate = Gate::join(&scene.database, "threads").unwrap();
    let inside = AtomicU64::new(0);
    let mut actor = scene.actor("the other process");
    std::thread::scope(|scope| {
        for _ in 0..4 {
            let (seat, inside) = (gate.seat(), &inside);
            scope.spawn(move || {
                for _ in 0..200 {
                    assert_eq!(seat.take(None, None, &never), Waited::Turn);
                    assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                    std::thread::yield_now();
                    inside.fetch_sub(1, Ordering::SeqCst);
                    seat.pass_on(1, 1, never);
                }
            });
        }
        for _ in 0..50 {
            assert_eq!(actor.ask("take"), "turn");
            assert_eq!(actor.ask("pass"), "passed");
        }
    });
    let threads = scene.look().members;
    let own = threads.iter().find(|it| it.pid == std::process::id());
    assert_eq!(own.unwrap().counters.commits, 800);
}

#[test]
fn a_seat_that_polls_keeps_its_place_and_one_that_left_without_a_word_is_forgotten() {
    let scene = Scene::new();
    let gate = Gate::join(&scene.database, "polls").unwrap();
    let (poller, other) = (gate.seat(), gate.seat());
    let mut actor = scene.actor("has the turn");
    assert_eq!(actor.ask("take"), "turn");
    // As SQLite's busy handler does: asks, sleeps at the gate, asks.
    assert!(!poller.try_take(None));
    let soon = || Some(Instant::now() + Duration::from_millis(1));
    assert_eq!(poller.wait(None, soon(), &never), Waited::TimedOut);
    assert_eq!(poller.position(), Some(0), "still in line");
    assert_eq!(actor.ask("pass"), "passed");
    // It does not come back; a neighbour of it is served all the same.
    assert_eq!(other.take(None, None, &never), Waited::Turn);
}

#[test]
fn a_deadline_that_has_passed_takes_a_free_turn_and_waits_for_no_other() {
    let scene = Scene::new();
    let gate = Gate::join(&scene.database, "late").unwrap();
    let (one, two) = (gate.seat(), gate.seat());
    let past = Some(Instant::now());
    assert_eq!(one.take(None, past, &never), Waited::Turn);
    assert_eq!(two.take(None, past, &never), Waited::TimedOut);
    one.pass_on(1, 1, never);
    assert_eq!(two.take(None, past, &never), Waited::Turn);
}

#[test]
fn a_seat_that_was_given_the_turn_and_does_nothing_is_passed_over_by_its_neighbours() {
    let scene = Scene::new();
    let gate = Gate::join(&scene.database, "threads").unwrap();
    let (idle, next) = (gate.seat(), gate.seat());
    assert!(idle.try_take(None));
    assert!(idle.has_the_turn() && !idle.is_somebody_waiting());
    let until = Instant::now() + Duration::from_secs(30);
    assert_eq!(next.take(None, Some(until), &never), Waited::Turn);
    assert!(next.has_the_turn() && !idle.has_the_turn());
    idle.pass_on(1, 1, never); // of a turn that it has not: nothing happens
    assert!(next.has_the_turn() && !idle.try_take(None));
    next.pass_on(1, 1, never);
    assert!(idle.try_take(None));
}

#[test]
fn a_seat_that_holds_sqlites_lock_is_waited_for_by_its_neighbours() {
    let scene = Scene::new();
    let gate = Gate::join(&scene.database, "threads").unwrap();
    let (writer, next) = (gate.seat(), gate.seat());
    assert!(writer.try_take(None));
    let lock = crate::actor::lock_for_writing(&scene.database);
    assert!(writer.lock_is_held());
    let until = Instant::now() + Duration::from_millis(400);
    assert_eq!(next.take(None, Some(until), &never), Waited::TimedOut);
    assert!(writer.has_the_turn());
    drop(lock);
}
