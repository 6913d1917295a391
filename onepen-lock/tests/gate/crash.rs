use crate::actor::Scene;

#[test]
fn a_killed_owner_of_the_turn_keeps_nobody_waiting() {
    let scene = Scene::new();
    let (mut a, mut b, mut c) = scene.turn_and_line();
    a.kill();
    assert_eq!(b.hear(), "turn");
    b.kill();
    assert_eq!(c.hear(), "turn");
}

#[test]
fn a_turn_left_behind_is_free_to_the_next_who_comes() {
    let scene = Scene::new();
    let (mut a, mut b) = (scene.actor("a"), scene.actor("b"));
    assert_eq!(a.ask("take"), "turn");
    a.kill();
    assert_eq!(b.ask("try"), "yes");
}

#[test]
fn a_killed_waiter_is_passed_by() {
    let scene = Scene::new();
    let (mut a, mut b, mut c) = scene.turn_and_line();
    b.kill();
    assert_eq!(a.ask("pass"), "passed");
    assert_eq!(c.hear(), "turn");
    assert_eq!(c.ask("others"), "0");
}

#[test]
fn one_that_dies_with_the_turn_it_has_not_claimed_is_passed_by() {
    let scene = Scene::new();
    let (mut a, mut b, mut c) = scene.turn_and_line();
    b.stop();
    assert_eq!(a.ask("pass"), "passed");
    b.kill();
    assert_eq!(c.hear(), "turn");
}

#[test]
fn what_a_dead_process_left_is_not_taken_for_that_of_the_next_in_its_place() {
    let scene = Scene::new();
    let (mut a, mut b) = (scene.actor("a"), scene.actor("b"));
    // Dead with the turn, and in line.
    assert_eq!(a.ask("take"), "turn");
    scene.line_up(&mut b);
    let (a_slot, b_slot) = (scene.of(&a).unwrap().slot, scene.of(&b).unwrap().slot);
    b.kill();
    a.kill();
    let (mut c, mut d) = (scene.actor("c"), scene.actor("d"));
    assert_eq!(scene.of(&c).unwrap().slot, a_slot);
    assert_eq!(scene.of(&d).unwrap().slot, b_slot);
    assert_eq!(d.ask("try"), "yes");
    assert_eq!(c.ask("others"), "0");
    assert_eq!(d.ask("others"), "0");
    scene.line_up(&mut c);
    assert_eq!(d.ask("pass"), "passed");
    assert_eq!(c.hear(), "turn");
}

#[test]
fn a_child_left_behind_by_a_dead_parent_stalls_nobody() {
    let scene = Scene::new();
    let (mut a, mut b) = (scene.actor("a"), scene.actor("b"));
    assert_eq!(a.ask("take"), "turn");
    let answer = a.ask("fork");
    let (child, granted) = answer.split_once(' ').unwrap();
    assert_eq!(granted, "1", "in the child the gate lets everybody through");
    scene.line_up(&mut b);
    let member = scene.of(&a).unwrap();
    assert_eq!(
        member.counters.commits, 0,
        "the child wrote in its parent's slot"
    );
    a.kill();
    assert!(scene.of(&a).unwrap().alive, "its child keeps the byte");
    assert_eq!(b.hear(), "turn");
    assert!(
        scene.of(&a).unwrap().alive,
        "the turn came when the child ended"
    );
    // SAFETY: the child sleeps for longer than this test, so the pid is its own.
    unsafe { libc::kill(child.parse().unwrap(), libc::SIGKILL) };
}
