use onepen_lock::gate::Stand;

use crate::actor::Scene;

#[test]
fn turns_pass_in_the_order_in_which_they_were_asked_for() {
    let scene = Scene::new();
    let mut first = scene.actor("first");
    assert_eq!(first.ask("take"), "turn");
    let mut line: Vec<_> = ["b", "c", "d", "e"].map(|name| scene.actor(name)).into();
    // Not in the order in which they joined.
    line.swap(0, 3);
    for actor in &mut line {
        scene.line_up(actor);
    }
    let seen = scene.look().members;
    let pids: Vec<_> = seen.iter().map(|member| member.pid).collect();
    let wanted: Vec<_> = std::iter::once(first.pid())
        .chain(line.iter().map(|actor| actor.pid()))
        .collect();
    assert_eq!(pids, wanted);
    for (place, member) in seen[1..].iter().enumerate() {
        assert!(matches!(member.stand, Stand::Waiting { before, .. } if before == place));
    }
    assert_eq!(first.ask("others"), "4");
    assert_eq!(first.ask("pass"), "passed");
    for (index, actor) in line.iter_mut().enumerate() {
        assert_eq!(actor.hear(), "turn");
        assert_eq!(actor.ask("others"), (3 - index).to_string());
        assert_eq!(actor.ask("pass"), "passed");
    }
    assert_eq!(first.ask("try"), "yes");
}

#[test]
fn nobody_gets_the_turn_before_those_who_wait() {
    let scene = Scene::new();
    let (mut a, mut b, mut c) = (scene.actor("a"), scene.actor("b"), scene.actor("c"));
    assert_eq!(a.ask("take"), "turn");
    scene.line_up(&mut b);
    assert_eq!(c.ask("try"), "no");
    assert_eq!(a.ask("pass"), "passed");
    // Whether or not the next one is awake already.
    assert_eq!(a.ask("try"), "no");
    assert_eq!(b.hear(), "turn");
    // Who had it stands at the end.
    assert_eq!(a.ask("try"), "no");
    scene.line_up(&mut c);
    scene.line_up(&mut a);
    assert_eq!(b.ask("pass"), "passed");
    assert_eq!(c.hear(), "turn");
    assert_eq!(c.ask("pass"), "passed");
    assert_eq!(a.hear(), "turn");
}

#[test]
fn within_its_slice_a_process_writes_again_and_at_its_end_the_next_does() {
    let scene = Scene::new();
    let (mut a, mut b) = (scene.actor("a"), scene.actor("b"));
    let mut kept = 0;
    for _ in 0..50 {
        assert_eq!(a.ask("take"), "turn");
        scene.line_up(&mut b);
        // The slice may be over already: processes are not fast when told what to
        // do over pipes. Whichever it is, the other gets the turn after it.
        let answer = a.ask("pass_and_take");
        if answer == "kept" {
            kept += 1;
            assert_eq!(a.ask("pass"), "passed");
        }
        assert_eq!(b.hear(), "turn");
        assert_eq!(b.ask("pass"), "passed");
    }
    let seen = scene.of(&a).unwrap();
    assert_eq!(seen.counters.turns, 50 + kept);
    assert_eq!(seen.counters.commits, 50 + kept);
}

#[test]
fn a_turn_that_is_kept_and_not_used_ends_with_its_slice() {
    let scene = Scene::new();
    let (mut a, mut b) = (scene.actor("a"), scene.actor("b"));
    for _ in 0..50 {
        assert_eq!(a.ask("take"), "turn");
        scene.line_up(&mut b);
        assert_eq!(a.ask("keep"), "kept");
        assert_eq!(b.hear(), "turn");
        assert_eq!(b.ask("pass"), "passed");
    }
    // No look after 10 ms was needed for it, as the counters show: nobody was
    // passed over, and that is what ends a turn that stands still.
    assert_eq!(scene.of(&a).unwrap().counters.passed_over, 0);
}

#[test]
fn a_wait_ends_at_its_deadline_and_leaves_the_line() {
    let scene = Scene::new();
    let (mut a, mut b, mut c) = (scene.actor("a"), scene.actor("b"), scene.actor("c"));
    assert_eq!(a.ask("take"), "turn");
    assert_eq!(b.ask("take_within_ms 20"), "late");
    assert_eq!(scene.of(&b).unwrap().stand, Stand::Idle);
    scene.line_up(&mut c);
    assert_eq!(a.ask("pass"), "passed");
    assert_eq!(c.hear(), "turn");
    assert_eq!(c.ask("pass"), "passed");
    assert_eq!(b.ask("try"), "yes");
}

#[test]
fn a_wait_that_nobody_wants_any_more_leaves_the_line() {
    let scene = Scene::new();
    let (mut a, mut b) = (scene.actor("a"), scene.actor("b"));
    assert_eq!(a.ask("take"), "turn");
    assert_eq!(b.ask("give_up_at_once"), "GaveUp");
    assert_eq!(scene.of(&b).unwrap().stand, Stand::Idle);
    assert_eq!(a.ask("others"), "0");
    // A turn that comes at once is not given up.
    assert_eq!(a.ask("pass"), "passed");
    assert_eq!(b.ask("give_up_at_once"), "Turn");
}

#[test]
fn whoever_looks_sees_who_has_the_turn_and_for_what() {
    let scene = Scene::new();
    let mut a = scene.actor("orders \x1b[2J");
    assert_eq!(scene.of(&a).unwrap().stand, Stand::Idle);
    assert_eq!(a.ask("take"), "turn");
    let member = scene.of(&a).unwrap();
    assert!(member.alive);
    assert_eq!(member.label, "orders \u{fffd}[2J");
    let Stand::Turn {
        thread,
        purpose,
        claimed,
        ..
    } = member.stand
    else {
        panic!("{member:?}");
    };
    assert_eq!(purpose.as_deref(), Some("a test"));
    assert!(claimed);
    let task = format!("/proc/{}/task/{thread}", a.pid());
    assert!(std::path::Path::new(&task).exists(), "{task}");
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", a.pid())).unwrap();
    let fields = stat.rsplit_once(')').unwrap().1;
    let started = fields.split_whitespace().nth(19).unwrap();
    assert_eq!(member.started.to_string(), started);
}
