//! A process at the gate that does what it is told.

use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use onepen_lock::gate::{Gate, Member, Observer, Seat, Stand, View, Waited};

/// Longer than anything here takes on the slowest machine.
const LONG: Duration = Duration::from_secs(30);

/// A database, as far as the gate is concerned: a file.
pub struct Scene {
    pub dir: tempfile::TempDir,
    pub database: PathBuf,
}

impl Scene {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let database = dir.path().join("app.db");
        std::fs::write(&database, "").unwrap();
        std::fs::write(dir.path().join("app.db-shm"), [0; 200]).unwrap();
        Self { dir, database }
    }

    pub fn actor(&self, label: &str) -> Actor {
        Actor::of(&self.database, label)
    }

    pub fn look(&self) -> View {
        let observer = Observer::open(&self.database).unwrap();
        observer.expect("there is a side file").look().unwrap()
    }

    pub fn of(&self, actor: &Actor) -> Option<Member> {
        let members = self.look().members;
        members.into_iter().find(|it| it.pid == actor.pid())
    }

    /// Waits until the side file shows `what` of the actor.
    pub fn until(&self, actor: &Actor, what: impl Fn(&Stand) -> bool) {
        let since = Instant::now();
        loop {
            let seen = self.of(actor);
            if seen.as_ref().is_some_and(|member| what(&member.stand)) {
                return;
            }
            assert!(since.elapsed() < LONG, "{seen:?} in {:?}", self.look());
            std::thread::yield_now();
        }
    }

    pub fn until_waiting(&self, actor: &Actor) {
        self.until(actor, |stand| matches!(stand, Stand::Waiting { .. }));
    }

    /// Whether the side file shows `what` of a process that is no actor.
    pub fn is(&self, pid: u32, what: impl Fn(&Stand) -> bool) -> bool {
        let members = self.look().members;
        members.iter().any(|it| it.pid == pid && what(&it.stand))
    }

    /// Waits until it does.
    pub fn until_pid(&self, pid: u32, what: impl Fn(&Stand) -> bool) {
        let since = Instant::now();
        while !self.is(pid, &what) {
            assert!(since.elapsed() < LONG, "{:?}", self.look());
            std::thread::yield_now();
        }
    }

    /// Tells it to take the turn, and goes on when it stands in line.
    pub fn line_up(&self, actor: &mut Actor) {
        actor.tell("take");
        self.until_waiting(actor);
    }

    /// One that has the turn, and two that stand in line for it.
    pub fn turn_and_line(&self) -> (Actor, Actor, Actor) {
        let (mut a, mut b, mut c) = (self.actor("a"), self.actor("b"), self.actor("c"));
        assert_eq!(a.ask("take"), "turn");
        self.line_up(&mut b);
        self.line_up(&mut c);
        (a, b, c)
    }
}

pub use crate::lines::Told as Actor;

impl Actor {
    fn of(database: &Path, label: &str) -> Self {
        let mut this = Command::new(std::env::current_exe().unwrap());
        this.args(["--exact", "actor::actor", "--nocapture", "--test-threads=1"])
            .env("ONEPEN_GATE_ACTOR", database)
            .env("ONEPEN_GATE_LABEL", label);
        Self::start(&mut this, "here")
    }

    pub fn signal(&self, signal: i32) {
        // SAFETY: `kill` takes two numbers, and the child is ours and not yet
        // waited for, so the pid is its own.
        assert_eq!(unsafe { libc::kill(self.pid() as i32, signal) }, 0);
    }

    /// Stops it, and goes on when it stands still.
    pub fn stop(&self) {
        self.signal(libc::SIGSTOP);
        let stat = format!("/proc/{}/stat", self.pid());
        let since = Instant::now();
        let stopped = || {
            let stat = std::fs::read_to_string(&stat).unwrap();
            stat.rsplit_once(") ").unwrap().1.starts_with('T')
        };
        while !stopped() {
            assert!(since.elapsed() < LONG);
            std::thread::yield_now();
        }
    }

    pub fn go_on(&self) {
        self.signal(libc::SIGCONT);
    }

    pub fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

/// Not a test: what an actor runs.
#[test]
fn actor() {
    let Some(database) = std::env::var_os("ONEPEN_GATE_ACTOR") else {
        return;
    };
    let database = PathBuf::from(database);
    let label = std::env::var("ONEPEN_GATE_LABEL").unwrap();
    let gate = Gate::join(&database, &label).unwrap();
    let seat = gate.seat();
    // Whoever has the turn for long has to hold SQLite's lock, or is passed over.
    let mut locked = None;
    let lock = |locked: &mut Option<std::fs::File>| *locked = Some(lock_for_writing(&database));
    say("here");
    for line in std::io::stdin().lines() {
        let line = line.unwrap();
        let mut words = line.split_whitespace();
        let word = words.next().unwrap();
        let mut number = || words.next().unwrap().parse::<u64>().unwrap();
        match word {
            "take" => {
                let answer = take(&seat, None);
                lock(&mut locked);
                say(answer);
            }
            "take_only" => say(take(&seat, None)),
            "take_within_ms" => {
                let until = Instant::now() + Duration::from_millis(number());
                say(take(&seat, Some(until)));
            }
            "give_up_at_once" => {
                let waited = seat.take(None, None, &|| true);
                say(&format!("{waited:?}"));
            }
            "try" => {
                let taken = seat.try_take(Some("a try"));
                if taken {
                    lock(&mut locked);
                }
                say(if taken { "yes" } else { "no" });
            }
            "pass" => {
                locked = None;
                seat.pass_on(1, 1, || false);
                say("passed");
            }
            // Keeps the turn for the next write, and says whether it was kept.
            "pass_and_take" => {
                locked = None;
                seat.pass_on(1, 1, || true);
                let kept = seat.try_take(None);
                if kept {
                    lock(&mut locked);
                }
                say(if kept { "kept" } else { "lost" });
            }
            "keep" => {
                locked = None;
                seat.pass_on(1, 1, || true);
                say("kept");
            }
            "reads_first_ms" => {
                let reads = seat.reads_first(Duration::from_millis(number()));
                say(if reads { "reads" } else { "lost" });
            }
            // What it took without SQLite's lock, with it.
            "lock_and_confirm" => {
                lock(&mut locked);
                let confirmed = seat.confirm();
                if !confirmed {
                    locked = None;
                }
                say(if confirmed { "confirmed" } else { "lost" });
            }
            "others" => say(&seat.others_are_waiting().to_string()),
            "fork" => say(&fork(&seat)),
            other => panic!("what is `{other}`?"),
        }
    }
    drop(locked);
}

fn say(what: &str) {
    println!("\n> {what}");
}

fn take(seat: &Seat, until: Option<Instant>) -> &'static str {
    match seat.take(Some("a test"), until, &|| false) {
        Waited::Turn => "turn",
        Waited::TimedOut => "late",
        Waited::GaveUp => "gave up",
    }
}

/// As SQLite's writer does in write-ahead mode; gone with the file.
pub fn lock_for_writing(database: &Path) -> std::fs::File {
    let mut path = database.as_os_str().to_owned();
    path.push("-shm");
    let file = std::fs::File::options()
        .read(true)
        .write(true)
        .open(path)
        .unwrap();
    // SAFETY: zeros are a valid `flock`, and `fcntl` reads it while we have it.
    let refused = unsafe {
        let mut lock: libc::flock = std::mem::zeroed();
        lock.l_type = libc::F_WRLCK as i16;
        lock.l_whence = libc::SEEK_SET as i16;
        lock.l_start = 120;
        lock.l_len = 1;
        libc::fcntl(file.as_raw_fd(), libc::F_SETLKW, &raw mut lock)
    };
    assert_eq!(refused, 0);
    file
}

/// A child that stays, and answers whether its turn was granted at once.
fn fork(seat: &Seat) -> String {
    let mut ends = [0; 2];
    // SAFETY: this process has one thread that takes locks (this one), so the
    // child may run ordinary code; it ends without running destructors.
    unsafe {
        assert_eq!(libc::pipe(ends.as_mut_ptr()), 0);
        match libc::fork() {
            -1 => panic!("fork failed"),
            0 => {
                // The parent is killed with a signal of ours; the child goes with
                // the test program's process group or at its own time.
                let granted = seat.try_take(None);
                seat.pass_on(1, 1, || false);
                let byte = [u8::from(granted)];
                libc::write(ends[1], byte.as_ptr().cast(), 1);
                libc::sleep(20);
                libc::_exit(0)
            }
            child => {
                let mut byte = [0_u8];
                assert_eq!(libc::read(ends[0], byte.as_mut_ptr().cast(), 1), 1);
                format!("{child} {}", byte[0])
            }
        }
    }
}
