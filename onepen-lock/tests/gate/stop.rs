use std::time::{Duration, Instant};

use crate::actor::Scene;

#[test]
fn a_stopped_waiter_is_skipped_and_is_next_when_it_goes_on() {
    let scene = Scene::new();
    let (mut a, mut b, mut c) = scene.turn_and_line();
    b.stop();
    assert_eq!(a.ask("pass"), "passed");
    assert_eq!(c.hear(), "turn");
    assert_eq!(scene.of(&b).unwrap().counters.passed_over, 1);
    // It costs its few milliseconds once, not at every turn.
    scene.line_up(&mut a);
    assert_eq!(c.ask("pass"), "passed");
    assert_eq!(a.hear(), "turn");
    scene.line_up(&mut c);
    assert_eq!(scene.of(&b).unwrap().counters.passed_over, 1);
    b.go_on();
    scene.until_waiting(&b);
    assert_eq!(a.ask("pass"), "passed");
    assert_eq!(b.hear(), "turn", "its place in line is the old one");
    assert_eq!(b.ask("pass"), "passed");
    assert_eq!(c.hear(), "turn");
}

#[test]
fn a_stopped_owner_is_passed_over_while_sqlites_lock_is_free() {
    let scene = Scene::new();
    let (mut a, mut b) = (scene.actor("a"), scene.actor("b"));
    assert_eq!(a.ask("take_only"), "turn");
    a.stop();
    assert_eq!(b.ask("take"), "turn");
    assert_eq!(scene.of(&a).unwrap().counters.passed_over, 1);
    a.go_on();
    // It finds that it has lost it, and harms nobody.
    assert_eq!(a.ask("pass"), "passed");
    assert_eq!(a.ask("try"), "no");
    scene.line_up(&mut a);
    assert_eq!(b.ask("pass"), "passed");
    assert_eq!(a.hear(), "turn");
}

#[test]
fn a_stopped_owner_that_holds_sqlites_lock_is_waited_for() {
    let scene = Scene::new();
    let (mut a, mut b) = (scene.actor("a"), scene.actor("b"));
    assert_eq!(a.ask("take"), "turn");
    a.stop();
    scene.line_up(&mut b);
    // Many times as long as a turn may stand still.
    std::thread::sleep(Duration::from_millis(300));
    scene.until_waiting(&b);
    assert_eq!(scene.of(&a).unwrap().counters.passed_over, 0);
    a.go_on();
    assert_eq!(a.ask("pass"), "passed");
    assert_eq!(b.hear(), "turn");
}

#[test]
fn who_was_stopped_between_the_turn_and_the_lock_gets_to_know_that_it_was_passed_over() {
    let scene = Scene::new();
    let (mut a, mut b) = (scene.actor("a"), scene.actor("b"));
    assert_eq!(a.ask("take_only"), "turn");
    a.stop();
    scene.line_up(&mut b);
    assert_eq!(b.hear(), "turn");
    assert_eq!(b.ask("pass"), "passed");
    a.go_on();
    assert_eq!(a.ask("lock_and_confirm"), "lost");
    // And who was not is not passed over any more.
    assert_eq!(a.ask("take_only"), "turn");
    assert_eq!(a.ask("lock_and_confirm"), "confirmed");
    a.stop();
    scene.line_up(&mut b);
    std::thread::sleep(Duration::from_millis(100)); // many times as long as a turn may stand still
    scene.until_waiting(&b);
    a.go_on();
    assert_eq!(a.ask("pass"), "passed");
    assert_eq!(b.hear(), "turn");
}

#[test]
fn who_reads_first_is_waited_for_to_the_time_it_gave_and_no_longer() {
    let scene = Scene::new();
    let (mut a, mut b) = (scene.actor("a"), scene.actor("b"));
    assert_eq!(a.ask("take_only"), "turn");
    let since = Instant::now();
    assert_eq!(a.ask("reads_first_ms 300"), "reads");
    assert_eq!(b.ask("take"), "turn");
    assert!(since.elapsed() >= Duration::from_millis(300));
    assert_eq!(scene.of(&a).unwrap().counters.passed_over, 1);
}

#[test]
fn who_reads_first_and_dies_is_not_waited_for() {
    let scene = Scene::new();
    let (mut a, mut b) = (scene.actor("a"), scene.actor("b"));
    assert_eq!(a.ask("take_only"), "turn");
    assert_eq!(a.ask("reads_first_ms 1000"), "reads");
    a.kill();
    assert_eq!(b.ask("take"), "turn");
    assert_eq!(b.ask("pass"), "passed");
}
