//! A process is killed after each step of the protocol, and stopped there.
//!
//! A step is a store to the shared page, which is all that others can see of it:
//! [`stores`](crate::stores) has every one of them. `gate_model` explores the
//! orders in which the steps of several processes may come; here one stands still
//! or is dead after a step of the real program, and the others are real as well.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use onepen_lock::gate::{Gate, Seat, Stand, Waited};

use crate::actor::Scene;
use crate::stores;

/// Longer than anything here takes on the slowest machine.
const LONG: Duration = Duration::from_secs(30);
const TAKE: &str = "take_within_ms 30000";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Killed,
    /// Until the others have each had a turn.
    Stopped,
}

/// What the process does meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// Leaves the gate.
    Leaves,
    /// Takes a turn that nobody wants, and passes it on.
    TakesAndPasses,
    /// Keeps its turn for the next write, and takes it again.
    KeepsAndTakes,
    /// Passes its turn on to one who waits for it.
    HandsOver,
    /// Stands in line, is given the turn, and passes it on.
    Waits,
    /// Stands in line, and leaves it at its deadline.
    GivesUp,
    /// Takes the turn of one that was killed with it.
    TakesFromTheDead,
}

/// With the steps that the protocol describes: fewer were not seen.
const PARTS: [(Part, u32); 7] = [
    // Bit and ticket.
    (Part::Leaves, 2),
    // free → held → free, and when the slice ends.
    (Part::TakesAndPasses, 3),
    // held → open → held → free.
    (Part::KeepsAndTakes, 3),
    // held → granted, and the wake-up.
    (Part::HandsOver, 2),
    // Ticket drawn, since when, stored, bit; held; bit, ticket; free.
    (Part::Waits, 8),
    // Without the turn.
    (Part::GivesUp, 6),
    (Part::TakesFromTheDead, 3),
];

fn take(seat: &Seat) {
    assert_eq!(seat.take(None, None, &|| false), Waited::Turn);
}

/// Not a test: the process that dies or is stopped.
#[test]
fn one_with_a_fate() {
    let Some(database) = std::env::var_os("ONEPEN_GATE_FATE") else {
        return;
    };
    let var = |name| std::env::var(name).unwrap();
    let named = |part: &&(Part, u32)| format!("{:?}", part.0) == var("ONEPEN_GATE_PART");
    let part = PARTS.iter().find(named).unwrap().0;
    let gate = Gate::join(&PathBuf::from(database), "with a fate").unwrap();
    let seat = gate.seat();
    // What comes before.
    match part {
        Part::KeepsAndTakes => take(&seat),
        Part::HandsOver => {
            take(&seat);
            let since = Instant::now();
            while seat.others_are_waiting() == 0 {
                assert!(since.elapsed() < LONG);
                std::thread::yield_now();
            }
        }
        _ => {}
    }
    let number = |name| var(name).parse().unwrap();
    let signal: i32 = number("ONEPEN_GATE_SIGNAL");
    stores::signal_after(number("ONEPEN_GATE_STEP") as u32, "-gate", signal);
    let pass = || seat.pass_on(1, 1, || false);
    match part {
        Part::Leaves => {
            // The mapping goes with the gate.
            drop((seat, gate));
            return;
        }
        Part::TakesAndPasses | Part::Waits | Part::TakesFromTheDead => {
            take(&seat);
            pass();
        }
        Part::KeepsAndTakes => {
            seat.pass_on(1, 1, || true);
            take(&seat);
            pass();
        }
        Part::HandsOver => pass(),
        Part::GivesUp => {
            let until = Instant::now() + Duration::from_millis(1);
            // Stopped for long enough it may find that its turn has come.
            if seat.take(None, Some(until), &|| false) == Waited::Turn {
                pass();
            }
        }
    }
    stores::end();
}

fn start(database: &Path, part: Part, step: u32, fate: Fate) -> Child {
    let signal = match fate {
        Fate::Killed => libc::SIGKILL,
        Fate::Stopped => libc::SIGSTOP,
    };
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "steps::one_with_a_fate", "--test-threads=1"])
        .env("ONEPEN_GATE_FATE", database)
        .env("ONEPEN_GATE_PART", format!("{part:?}"))
        .env("ONEPEN_GATE_STEP", step.to_string())
        .env("ONEPEN_GATE_SIGNAL", signal.to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

/// Waits until the process has ended or was stopped, and calls `meanwhile` until
/// then.
fn status(child: &Child, mut meanwhile: impl FnMut()) -> libc::c_int {
    let since = Instant::now();
    loop {
        let mut status = 0;
        let flags = libc::WUNTRACED | libc::WNOHANG;
        // SAFETY: a child of ours; the kernel writes one number.
        if unsafe { libc::waitpid(child.id() as i32, &raw mut status, flags) } != 0 {
            return status;
        }
        if since.elapsed() > LONG {
            // SAFETY: numbers; the child has not been waited for.
            unsafe { libc::kill(child.id() as i32, libc::SIGKILL) };
            panic!("it hangs");
        }
        meanwhile();
        std::thread::yield_now();
    }
}

fn ended_well(status: libc::c_int) -> bool {
    libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0
}

/// Goes through one part, once for each of its steps; says how many there were,
/// and how long at most somebody had to wait for the next turn.
#[expect(
    clippy::zombie_processes,
    reason = "`status` waits, by the system call"
)]
fn through(part: Part, fate: Fate) -> (u32, Duration) {
    let scene = Scene::new();
    let (mut a, mut b) = (scene.actor("a"), scene.actor("b"));
    let mut longest = Duration::ZERO;
    for step in 1.. {
        let context = format!("{part:?}, {fate:?} after step {step}");
        let mut a_has_it = matches!(part, Part::Waits | Part::GivesUp);
        if a_has_it {
            assert_eq!(a.ask(TAKE), "turn", "{context}");
        }
        if part == Part::TakesFromTheDead {
            let mut dying = scene.actor("dying");
            assert_eq!(dying.ask("take_only"), "turn", "{context}");
            dying.kill();
        }
        let child = start(&scene.database, part, step, fate);
        let pid = child.id();
        if part == Part::HandsOver {
            let has_it = |stand: &Stand| matches!(stand, Stand::Turn { .. });
            scene.until_pid(pid, has_it);
            a.tell(TAKE);
        }
        let status = status(&child, || {
            let in_line = |stand: &Stand| matches!(stand, Stand::Waiting { .. });
            if part == Part::Waits && a_has_it && scene.is(pid, in_line) {
                assert_eq!(a.ask("pass"), "passed", "{context}");
                a_has_it = false;
            }
        });
        let reached = !libc::WIFEXITED(status);
        assert!(reached || ended_well(status), "{context}: {status:#x}");
        let since = Instant::now();
        if part == Part::HandsOver {
            assert_eq!(a.hear(), "turn", "{context}");
            a_has_it = true;
            longest = longest.max(since.elapsed());
        }
        if a_has_it {
            assert_eq!(a.ask("pass"), "passed", "{context}");
        }
        // The others go on, and so does whoever gets its place.
        let mut next = scene.actor("next");
        for actor in [&mut b, &mut next, &mut a] {
            let since = Instant::now();
            assert_eq!(actor.ask(TAKE), "turn", "{context}");
            longest = longest.max(since.elapsed());
            assert_eq!(actor.ask("pass"), "passed", "{context}");
        }
        if libc::WIFSTOPPED(status) {
            // SAFETY: a child of ours that is not yet waited for.
            unsafe { libc::kill(pid as i32, libc::SIGCONT) };
            let end = self::status(&child, || {});
            assert!(ended_well(end), "{context}, when it went on: {end:#x}");
        }
        assert_eq!(a.ask(TAKE), "turn", "{context}");
        assert_eq!(a.ask("others"), "0", "{context}");
        assert_eq!(a.ask("pass"), "passed", "{context}");
        if !reached {
            return (step - 1, longest);
        }
    }
    unreachable!("it ends by itself")
}

fn through_all(fate: Fate) {
    for (part, least) in PARTS {
        let (steps, longest) = through(part, fate);
        println!("\n{part:?}: {longest:.1?} at most to the next turn");
        println!("proof: {steps} steps after which a process was {fate:?}");
        assert!(steps >= least, "{part:?} had only {steps} steps");
    }
}

#[test]
fn one_that_is_killed_after_any_step_keeps_nobody_waiting() {
    through_all(Fate::Killed);
}

#[test]
fn one_that_is_stopped_after_any_step_keeps_nobody_waiting_and_goes_on() {
    through_all(Fate::Stopped);
}
