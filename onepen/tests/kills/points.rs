//! Killed before each of its system calls.
//!
//! A program is its system calls to everybody else, but for what it writes to
//! shared memory: the steps of the gate are in `onepen-lock`'s own tests, those of
//! the log's index are SQLite's.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::c_long;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use onepen::Database;

use crate::common::{child, in_child, options};
use crate::deeds::{ACKNOWLEDGED, BEGUN, DEEDS, Deed, ENDED, GO, OLD, TABLES, pair, rows_of};
use crate::traced::{Call, Ended, Traced};

/// Without a directory on a disk a cycle takes a few milliseconds.
pub fn directory() -> tempfile::TempDir {
    let in_memory = tempfile::Builder::new().tempdir_in("/dev/shm");
    in_memory.or_else(|_| tempfile::tempdir()).unwrap()
}

/// Where in its life a program was killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    BeforeTheLock,
    /// It has the write lock: BEGIN IMMEDIATE is done, or nearly.
    Locked,
    InMember(u32),
    BetweenMembers,
    /// All members have run, and nothing of them is in the log.
    BeforeCommit,
    /// Some of it is.
    WithinCommit,
    /// It is flushed, and the lock is still held.
    AfterCommit,
    /// The lock is free, and not all have been told.
    Answering,
    /// While the log is copied back into the database.
    Checkpointing,
}

/// What the tracer has seen of a program.
struct Life {
    place: Place,
    acknowledged: BTreeSet<u32>,
    log: PathBuf,
    shm: PathBuf,
    database: PathBuf,
    ran: BTreeSet<u32>,
}

/// `WAL_WRITE_LOCK`, in the `-shm` file.
const WRITE_LOCK: i64 = 120;

impl Life {
    fn of(path: &Path) -> Self {
        let beside = |ending| PathBuf::from(format!("{}{ending}", path.display()));
        Self {
            place: Place::BeforeTheLock,
            acknowledged: BTreeSet::new(),
            log: beside("-wal"),
            shm: beside("-shm"),
            database: path.to_owned(),
            ran: BTreeSet::new(),
        }
    }

    /// A call is about to be made, or was made.
    fn sees(&mut self, traced: &Traced, call: &Call) {
        if let Some(mark) = call.mark() {
            match mark {
                ACKNOWLEDGED.. => _ = self.acknowledged.insert(mark - ACKNOWLEDGED),
                ENDED.. if mark < ENDED + 50 => {
                    self.ran.insert(mark - ENDED);
                    self.place = match self.ran.len() {
                        3 => Place::BeforeCommit,
                        _ => Place::BetweenMembers,
                    };
                }
                BEGUN.. if mark < ENDED => {
                    self.ran.remove(&(mark - BEGUN));
                    self.place = Place::InMember(mark - BEGUN);
                }
                _ => {}
            }
            return;
        }
        let is = |number: &[c_long]| number.contains(&call.number);
        let written = is(&[libc::SYS_pwrite64]);
        let flushed = is(&[libc::SYS_fdatasync, libc::SYS_fsync]) && call.returned.is_some();
        if !written && !flushed && !is(&[libc::SYS_fcntl]) {
            return;
        }
        let Some(file) = traced.file_of(call) else {
            return;
        };
        if file == self.log && written && self.place == Place::BeforeCommit {
            self.place = Place::WithinCommit;
        } else if file == self.log && flushed && self.place == Place::WithinCommit {
            self.place = Place::AfterCommit;
        } else if file == self.database && written {
            self.place = Place::Checkpointing;
        } else if file == self.shm && is(&[libc::SYS_fcntl]) && call.returned == Some(0) {
            self.lock(traced, call);
        }
    }

    fn lock(&mut self, traced: &Traced, call: &Call) {
        // struct flock: type, whence, four bytes of nothing, start, length.
        let lock: [u8; 24] = traced.peek(call.args[2]);
        let start = i64::from_le_bytes(lock[8..16].try_into().unwrap());
        let kind = i32::from(i16::from_le_bytes([lock[0], lock[1]]));
        let sets = [libc::F_SETLK, libc::F_SETLKW].contains(&(call.args[1] as i32));
        if start != WRITE_LOCK || !sets {
            return;
        }
        self.place = match (kind, self.place) {
            (libc::F_WRLCK, _) => Place::Locked,
            (_, Place::AfterCommit) => Place::Answering,
            _ => Place::BeforeTheLock,
        };
    }
}

/// Whether nobody can tell if the call was made: to be killed before it is to be
/// killed before the next one. (To find out who has a file open one looks at
/// thousands of names.)
fn leaves_no_trace(traced: &Traced, call: &Call) -> bool {
    let in_proc = |path: &[u8]| path == b"/proc";
    match call.number {
        libc::SYS_readlink
        | libc::SYS_readlinkat
        | libc::SYS_stat
        | libc::SYS_fstat
        | libc::SYS_newfstatat
        | libc::SYS_statx
        | libc::SYS_getdents64
        | libc::SYS_read
        | libc::SYS_pread64
        | libc::SYS_lseek
        | libc::SYS_brk
        | libc::SYS_mprotect
        | libc::SYS_madvise
        | libc::SYS_getrandom
        | libc::SYS_sched_yield
        | libc::SYS_rt_sigprocmask => true,
        libc::SYS_openat => in_proc(&traced.peek::<5>(call.args[1])),
        libc::SYS_close => {
            let file = traced.file_of(call);
            call.mark().is_none() && file.is_none_or(|file| file.starts_with("/proc"))
        }
        _ => false,
    }
}

/// The program of a deed.
#[test]
fn program() {
    let Some(path) = in_child() else {
        return;
    };
    let name = std::env::var("ONEPEN_TEST_DEED").unwrap();
    let deed = DEEDS.iter().find(|deed| deed.name == name).unwrap();
    (deed.act)(&path);
}

/// A process that has the database open, and waits for its turn whenever it is
/// told to: this one, on a thread that traces nobody.
struct Neighbour(Database);

#[derive(Clone, Copy, Debug)]
enum When {
    /// Before the call of this number.
    Call(usize),
    /// Before the call of this number in this place.
    In(Place, usize),
}

/// Kills the program of `deed`. Where that was; `None` when it never came there.
fn kill(deed: &Deed, when: When) -> Option<Place> {
    let dir = directory();
    let path = dir.path().join("a.db");
    (deed.prepare)(&path);
    let neighbour = deed
        .beside
        .then(|| Neighbour(options().open(&path).unwrap()));
    let mut command = child("points::program", &path);
    command
        .env("ONEPEN_TEST_DEED", deed.name)
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    let mut traced = Traced::start(&mut command);
    let mut life = Life::of(&path);
    let mut calls = 0;
    let mut going = false;
    let reached = loop {
        let Some(call) = traced.run_to_call() else {
            assert_eq!(traced.ended(), Some(Ended::Exited(0)), "{}", deed.name);
            break false;
        };
        life.sees(&traced, &call);
        going |= call.mark() == Some(GO);
        if going && call.returned.is_none() && !leaves_no_trace(&traced, &call) {
            let (counts, nth) = match when {
                When::Call(nth) => (true, nth),
                When::In(place, nth) => (life.place == place, nth),
            };
            if counts && calls == nth {
                break true;
            }
            calls += usize::from(counts);
        }
    };
    let context = format!("{}, killed at {when:?}: {:?}", deed.name, life.place);
    // Somebody wants to write, and waits behind the one that dies.
    let next = neighbour.as_ref().map(|neighbour| {
        let next = neighbour.0.submit(|tx| pair(tx, 400)).unwrap();
        std::thread::yield_now();
        next
    });
    let reached = reached && traced.kill();
    if let (Some(next), Some(Neighbour(db))) = (next, neighbour) {
        let (done, is_done) = channel();
        std::thread::spawn(move || done.send(next.wait()));
        let answer = is_done.recv_timeout(Duration::from_secs(60));
        let answer = answer.unwrap_or_else(|_| panic!("{context}: nobody else gets a turn"));
        answer.unwrap_or_else(|error| panic!("{context}: {error}"));
        let rows = rows_of(&db, &context);
        assert!(rows.contains(&400), "{context}: the neighbour's write");
        db.close();
    }
    check(deed, &path, &life, &context);
    reached.then_some(life.place)
}

fn check(deed: &Deed, path: &Path, life: &Life, context: &str) {
    let db = options().open(path);
    let db = db.unwrap_or_else(|error| panic!("{context}: {error}"));
    let whole: String = db
        .query_row("PRAGMA integrity_check", (), |row| row.get(0))
        .unwrap();
    assert_eq!(whole, "ok", "{context}");
    let made = "SELECT count(*) FROM sqlite_schema WHERE name = 'b'";
    let made: i64 = db.query_row(made, (), |row| row.get(0)).unwrap();
    // Opening a new file is the one deed before which there is nothing.
    if made == 0 {
        assert!(life.acknowledged.is_empty(), "{context}");
        db.write(|tx| tx.execute_batch(TABLES)).unwrap();
        return;
    }
    let rows = rows_of(&db, context);
    let is_backup = deed.name == "a backup";
    for n in &life.acknowledged {
        let there = rows.contains(n) || (is_backup && *n == 2);
        assert!(there, "{context}: {n} was acknowledged, of {rows:?}");
    }
    let new_file = deed.name == "opening a new file";
    assert!(new_file || rows.contains(&OLD), "{context}: {rows:?}");
    assert!(
        is_backup || deed.name == "a checkpoint" || deed.name == "a write" || !rows.contains(&2),
        "{context}: the failing member is there"
    );
    if deed.name == "a group of members" {
        assert_eq!(
            rows.contains(&1),
            rows.contains(&3),
            "{context}: half a group"
        );
    }
    drop(db);
    (deed.check)(path, context);
}

/// Kills `deed` before every `stride`-th call.
fn through(deed: &Deed, stride: usize, places: &mut BTreeMap<Place, u32>) -> usize {
    let since = Instant::now();
    let mut kills = 0;
    let mut nth = 0;
    while let Some(place) = kill(deed, When::Call(nth)) {
        *places.entry(place).or_default() += 1;
        kills += 1;
        nth += stride;
    }
    println!("\n{}: {:.1?}", deed.name, since.elapsed());
    println!("proof: {kills} kills before a system call");
    kills
}

/// All that a group goes through, one by one.
#[test]
fn killed_at_each_point_of_a_group_a_program_loses_nothing_and_stalls_nobody() {
    let points = [
        Place::BeforeTheLock,
        Place::Locked,
        Place::InMember(1),
        Place::InMember(2),
        Place::InMember(3),
        Place::BetweenMembers,
        Place::BeforeCommit,
        Place::WithinCommit,
        Place::AfterCommit,
        Place::Answering,
    ];
    for name in ["a group of members", "a group of tasks"] {
        let deed = DEEDS.iter().find(|deed| deed.name == name).unwrap();
        for point in points {
            let reached = kill(deed, When::In(point, 0));
            assert_eq!(reached, Some(point), "{name}: never {point:?}");
            let _ = kill(deed, When::In(point, 1));
        }
    }
    let checkpoint = DEEDS.iter().find(|deed| deed.name == "a checkpoint");
    for nth in [0, 1] {
        let copying = Place::Checkpointing;
        let reached = kill(checkpoint.unwrap(), When::In(copying, nth));
        assert_eq!(reached, Some(copying), "nothing was copied back");
    }
}

/// A group before each of its calls, and everything else before some of them:
/// `ONEPEN_KILL_STRIDE=1`, as `cargo xtask proof kills` has it, is all of them.
#[test]
fn killed_before_any_system_call_a_program_loses_nothing_and_stalls_nobody() {
    let stride = std::env::var("ONEPEN_KILL_STRIDE").map_or(11, |s| s.parse().unwrap());
    let only = std::env::var("ONEPEN_KILL_DEED").unwrap_or_default();
    for deed in DEEDS.iter().filter(|deed| deed.name.contains(&only)) {
        let is_group = deed.name == "a group of members";
        let stride = if is_group { 1 } else { stride };
        let mut places = BTreeMap::new();
        let kills = through(deed, stride, &mut places);
        println!("    {places:?}");
        assert!(
            kills >= 40 / stride,
            "{} was killed {kills} times",
            deed.name
        );
    }
}
