//! Signals: a storm of them, a holder that is stopped, and one that dies and
//! leaves a forked child behind.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

use onepen::{Database, ErrorKind, Outcome};

use crate::common::{Scene, block_on, child, in_child, options, until};

const TABLE: &str = "CREATE TABLE IF NOT EXISTS t(n INTEGER)";
const INSERT: &str = "INSERT INTO t VALUES (?1)";
const COUNT: &str = "SELECT count(*) FROM t";

fn count(db: &Database) -> i64 {
    db.query_row(COUNT, (), |row| row.get(0)).unwrap()
}

/// How many calls were interrupted, at most.
static SIGNALS: AtomicU64 = AtomicU64::new(0);

extern "C" fn nothing(_: libc::c_int) {
    SIGNALS.fetch_add(1, SeqCst);
}

/// A signal for every thread of this process, a thousand times a second, without
/// the promise that calls are begun again by themselves.
fn storm(is_over: &AtomicBool) {
    // SAFETY: a handler that only counts; signals to threads of this process,
    // which may have ended, and then nothing happens.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = nothing as *const () as usize;
        libc::sigaction(libc::SIGUSR2, &raw const action, std::ptr::null_mut());
        let own = libc::syscall(libc::SYS_gettid);
        while !is_over.load(SeqCst) {
            for thread in std::fs::read_dir("/proc/self/task").unwrap().flatten() {
                let thread: i64 = thread.file_name().to_str().unwrap().parse().unwrap();
                if thread != own {
                    libc::syscall(libc::SYS_tgkill, libc::getpid(), thread, libc::SIGUSR2);
                }
            }
            libc::usleep(1000);
        }
    }
}

/// In a process of its own, because signals are.
#[test]
fn in_a_storm() {
    let Some(path) = in_child() else {
        return;
    };
    let is_over = AtomicBool::new(false);
    let end = Instant::now() + Duration::from_millis(1200);
    std::thread::scope(|scope| {
        let storm = scope.spawn(|| storm(&is_over));
        let written = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    let hold = Duration::from_millis(1);
                    // Opened and closed again and again, by one of the two at a time.
                    while Instant::now() < end {
                        let db = options().wal_limit(32, hold).open(&path).unwrap();
                        for n in 0..50 {
                            db.execute(INSERT, (n,)).unwrap();
                            let later = db.submit(move |tx| tx.execute(INSERT, (n,))).unwrap();
                            block_on(db.execute_async(INSERT, (n,))).unwrap();
                            later.wait().unwrap();
                            written.fetch_add(3, SeqCst);
                            assert!(count(&db) >= 3);
                            block_on(db.read_async(|_| Ok(()))).unwrap();
                        }
                    }
                });
            }
            scope.spawn(|| {
                let db = options().wal_limit(32, Duration::from_millis(1));
                let db = db.open(&path).unwrap();
                while Instant::now() < end {
                    let copy = tempfile::tempdir().unwrap();
                    db.backup_to(copy.path().join("copy.db")).run().unwrap();
                }
            });
        });
        is_over.store(true, SeqCst);
        storm.join().unwrap();
        let signals = SIGNALS.load(SeqCst);
        let written = written.load(SeqCst);
        println!("\n> {written} writes, {signals} signals");
        assert!(signals > 1000, "{signals} signals are no storm");
        let db = options().open(&path).unwrap();
        assert_eq!(count(&db), i64::try_from(written).unwrap());
    });
}

#[test]
fn a_storm_of_signals_is_nobodys_error() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.db");
    options().open(&path).unwrap().execute(TABLE, ()).unwrap();

    let storm = child("signals::in_a_storm", &path).output().unwrap();
    let said = String::from_utf8_lossy(&storm.stdout);
    let failed = String::from_utf8_lossy(&storm.stderr);
    assert!(storm.status.success(), "{said}{failed}");
    println!("{said}");
}

/// Has the write lock until it is killed, or until its input ends.
#[test]
fn holder() {
    let Some(path) = in_child() else {
        return;
    };
    let db = options().label("the holder").open(path).unwrap();
    let forks = std::env::var_os("ONEPEN_TEST_FORKS").is_some();
    let held = db.with().label("a long one").write_once(|tx| {
        tx.execute(INSERT, (1,))?;
        let mut heir = 0;
        if forks {
            // SAFETY: the child waits to be killed, and does nothing else.
            heir = unsafe { libc::fork() };
            if heir == 0 {
                loop {
                    // SAFETY: as above.
                    unsafe { libc::pause() };
                }
            }
        }
        println!("\n> {heir}");
        let _ = std::io::stdin().lines().next();
        Ok(())
    });
    held.unwrap();
    println!("\n> committed");
}

struct Holder {
    process: Child,
    output: BufReader<std::process::ChildStdout>,
    heir: i32,
}

impl Holder {
    fn start(path: &Path, forks: bool) -> Self {
        let mut command = child("signals::holder", path);
        if forks {
            command.env("ONEPEN_TEST_FORKS", "yes");
        }
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn().unwrap();
        let output = BufReader::new(process.stdout.take().unwrap());
        let mut holder = Self {
            process,
            output,
            heir: 0,
        };
        holder.heir = holder.hear().parse().unwrap();
        holder
    }

    fn hear(&mut self) -> String {
        loop {
            let mut line = String::new();
            assert_ne!(self.output.read_line(&mut line).unwrap(), 0, "it is gone");
            if let Some(said) = line.strip_prefix("> ") {
                return said.trim().to_owned();
            }
        }
    }

    fn signal(&self, signal: libc::c_int) {
        // SAFETY: a child of ours that has not been waited for.
        assert_eq!(unsafe { libc::kill(self.process.id() as i32, signal) }, 0);
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        if self.heir > 0 {
            // SAFETY: it lives until this very signal, so the number is its own.
            unsafe { libc::kill(self.heir, libc::SIGKILL) };
        }
    }
}

#[test]
fn a_stopped_holder_is_named_reads_go_on_and_it_loses_nothing() {
    let scene = Scene::new(TABLE);
    let mut holder = Holder::start(&scene.path(), false);
    holder.signal(libc::SIGSTOP);
    let stat = format!("/proc/{}/stat", holder.process.id());
    until("it stands still", || {
        std::fs::read_to_string(&stat).unwrap().contains(") T ")
    });
    let late = scene.db.with().deadline(Duration::from_millis(100));
    let error = late.execute(INSERT, (2,)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DeadlineExceeded, "{error}");
    assert_eq!(error.outcome(), Outcome::NotCommitted);
    let named = error.waited().holder.as_ref().expect("somebody is named");
    assert_eq!(named.pid, Some(holder.process.id()), "{error}");
    assert_eq!(count(&scene.db), 0, "readers do not wait");
    // Who has the time gets its turn when it goes on.
    let next = scene.db.submit(|tx| tx.execute(INSERT, (3,))).unwrap();
    holder.signal(libc::SIGCONT);
    drop(holder.process.stdin.take());
    assert_eq!(holder.hear(), "committed");
    next.wait().unwrap();
    assert_eq!(scene.numbers("SELECT n FROM t ORDER BY n"), [1, 3]);
}

#[test]
fn a_forked_child_keeps_no_lock_of_its_dead_parent() {
    let scene = Scene::new(TABLE);
    let mut holder = Holder::start(&scene.path(), true);
    assert!(holder.heir > 0);
    holder.process.kill().unwrap();
    holder.process.wait().unwrap();
    let next = scene.db.with().deadline(Duration::from_secs(30));
    next.execute(INSERT, (2,)).unwrap();
    assert_eq!(scene.numbers("SELECT n FROM t"), [2]);
    // SAFETY: a number; asks only whether it lives.
    let heir_is_gone = unsafe { libc::kill(holder.heir, 0) };
    assert_eq!(heir_is_gone, 0, "the child has lived so long");
}
