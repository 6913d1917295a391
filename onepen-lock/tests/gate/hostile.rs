//! The side file changed by somebody while others use it: whatever he does, each of
//! them gets its turn and none of them ends.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use onepen_lock::gate::{Gate, Member, Stand, Waited};

use crate::actor::Scene;

/// Longer than it takes: no test hangs.
const LONG: Duration = Duration::from_secs(20);
const TAKE: &str = "take_within_ms 20000";

fn side(scene: &Scene) -> PathBuf {
    scene.dir.path().canonicalize().unwrap().join("app.db-gate")
}

fn opened(scene: &Scene) -> File {
    let mut options = File::options();
    options.read(true).write(true).open(side(scene)).unwrap()
}

#[test]
fn a_side_file_that_is_shortened_ends_none_of_its_users() {
    for length in [0, 100, 4096, 40_000] {
        let scene = Scene::new();
        // Only the first takes SQLite's lock: who is next is not said from then on.
        let [mut a, mut b, mut c] = ["a", "b", "c"].map(|label| scene.actor(label));
        assert_eq!(a.ask("take"), "turn");
        for actor in [&mut b, &mut c] {
            actor.tell(TAKE);
            scene.until_waiting(actor);
        }
        let file = opened(&scene);
        let size = file.metadata().unwrap().len();
        file.set_len(length).unwrap();
        assert_eq!(a.ask("pass"), "passed");
        assert_eq!(b.hear(), "turn");
        assert_eq!(b.ask("pass"), "passed");
        assert_eq!(c.hear(), "turn");
        assert_eq!(c.ask("pass"), "passed");
        // Who comes now makes room again, and the others go on as well.
        let mut d = scene.actor("d");
        assert_eq!(file.metadata().unwrap().len(), size);
        assert_eq!(d.ask("take"), "turn");
        assert_eq!(d.ask("pass"), "passed");
        for actor in [&mut a, &mut b, &mut c] {
            assert_eq!(actor.ask(TAKE), "turn");
            assert_eq!(actor.ask("others"), "0");
            assert_eq!(actor.ask("pass"), "passed");
        }
    }
}

#[test]
fn who_lost_its_side_file_stands_in_line_again_when_it_joins_anew() {
    let scene = Scene::new();
    let lost = Gate::join(&scene.database, "here").unwrap();
    let seat = lost.seat();
    opened(&scene).set_len(0).unwrap();
    assert!(seat.try_take(None)); // and notices
    seat.pass_on(1, 1, || false);
    let gate = Gate::join(&scene.database, "here").unwrap();
    let mut other = scene.actor("other");
    assert_eq!(other.ask("take"), "turn");
    let anew = gate.seat();
    assert!(!anew.try_take(None));
    assert_eq!(other.ask("pass"), "passed");
    assert_eq!(anew.take(None, None, &|| false), Waited::Turn);
    anew.pass_on(1, 1, || false);
    assert!(seat.try_take(None), "alone, and not refused");
}

#[test]
fn whatever_is_written_over_the_side_file_once_the_turns_go_on() {
    let scene = Scene::new();
    let mut random = File::open("/dev/urandom").unwrap();
    let file = opened_by_somebody(&scene);
    let size = file.metadata().unwrap().len() as usize;
    let (mut a, mut b) = (scene.actor("a"), scene.actor("b"));
    for round in 0..60 {
        // With SQLite's lock, so that it is not passed over.
        assert_eq!(a.ask("take"), "turn");
        b.tell(TAKE);
        // Not by its number, which may be nonsense by now.
        let since = Instant::now();
        while !scene.look().members.iter().any(waits) {
            assert!(since.elapsed() < LONG, "{:?}", scene.look());
            std::thread::yield_now();
        }
        let mut bytes = vec![0; size - 64];
        match round % 4 {
            0 => random.read_exact(&mut bytes).unwrap(),
            1 => bytes.fill(0xff),
            2 => bytes.fill(0),
            _ => bytes.fill(1),
        }
        file.write_all_at(&bytes, 64).unwrap();
        assert_eq!(a.ask("pass"), "passed");
        assert_eq!(b.hear(), "turn");
        assert_eq!(b.ask("pass"), "passed");
    }
}

fn waits(member: &Member) -> bool {
    matches!(member.stand, Stand::Waiting { .. })
}

fn opened_by_somebody(scene: &Scene) -> File {
    drop(Gate::join(&scene.database, "x").unwrap());
    opened(scene)
}

#[test]
fn who_writes_nonsense_all_the_time_takes_nobodys_turn_for_ever() {
    let scene = Scene::new();
    let file = opened_by_somebody(&scene);
    let size = file.metadata().unwrap().len() as usize;
    let actors = [scene.actor("a"), scene.actor("b")];
    let ends = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // All of it at random, and the turn word alone as fast as can be.
        scope.spawn(|| {
            let mut random = File::open("/dev/urandom").unwrap();
            let mut bytes = vec![0; size];
            while !ends.load(Relaxed) {
                random.read_exact(&mut bytes).unwrap();
                file.write_all_at(&bytes, 0).unwrap();
                for word in 0..500_u64 {
                    file.write_all_at(&word.to_le_bytes(), 64).unwrap();
                }
            }
        });
        let all = actors.map(|mut actor| {
            scope.spawn(move || {
                for _ in 0..200 {
                    assert_eq!(actor.ask(TAKE), "turn");
                    assert_eq!(actor.ask("pass"), "passed");
                }
            })
        });
        let ended = all.map(std::thread::ScopedJoinHandle::join);
        ends.store(true, Relaxed);
        for it in ended {
            it.unwrap();
        }
    });
}
