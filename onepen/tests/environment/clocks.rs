//! A wall clock that jumps by a day, forward and back, at every look.
//!
//! In this program the C library's clocks of the day say so while a test wants
//! it; the monotonic one tells the time.

use std::ffi::{c_int, c_void};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering::SeqCst};
use std::time::{Duration, Instant};

use onepen::{ErrorKind, Once, Outcome};

use crate::common::{Scene, options};

const DAY: i64 = 24 * 60 * 60;

static JUMPS: AtomicBool = AtomicBool::new(false);
static LOOKS: AtomicI64 = AtomicI64::new(0);

/// Seconds to add: a day more or less, and the other way the next time.
fn jump() -> i64 {
    if !JUMPS.load(SeqCst) {
        return 0;
    }
    let looks = LOOKS.fetch_add(1, SeqCst);
    if looks % 2 == 0 { DAY } else { -DAY }
}

// SAFETY (of the names): each replaces the function of that name with one of the
// same type that does the same, but for the time it tells.

#[unsafe(no_mangle)]
unsafe extern "C" fn clock_gettime(clock: libc::clockid_t, to: *mut libc::timespec) -> c_int {
    // SAFETY: the system call itself, with what the caller passed.
    unsafe {
        let code = libc::syscall(libc::SYS_clock_gettime, clock, to) as c_int;
        if code == 0 && (clock == libc::CLOCK_REALTIME || clock == libc::CLOCK_REALTIME_COARSE) {
            (*to).tv_sec += jump();
        }
        code
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn gettimeofday(to: *mut libc::timeval, zone: *mut c_void) -> c_int {
    // SAFETY: as above.
    unsafe {
        let code = libc::syscall(libc::SYS_gettimeofday, to, zone) as c_int;
        if code == 0 && !to.is_null() {
            (*to).tv_sec += jump();
        }
        code
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn time(to: *mut libc::time_t) -> libc::time_t {
    let mut now = libc::timeval {
        tv_sec: 0,
        tv_usec: 0,
    };
    // SAFETY: a value of our own, and the caller's, which may be null.
    unsafe {
        gettimeofday(&raw mut now, std::ptr::null_mut());
        if !to.is_null() {
            *to = now.tv_sec;
        }
    }
    now.tv_sec
}

struct Jumping;

impl Jumping {
    fn begin() -> Self {
        JUMPS.store(true, SeqCst);
        Self
    }
}

impl Drop for Jumping {
    fn drop(&mut self) {
        JUMPS.store(false, SeqCst);
    }
}

#[test]
fn a_clock_that_jumps_neither_shortens_a_deadline_nor_makes_anybody_wait_for_ever() {
    let _jumping = Jumping::begin();
    let before = LOOKS.load(SeqCst);
    let day = std::time::SystemTime::now();
    let other = std::time::SystemTime::now();
    let jumped = other
        .duration_since(day)
        .unwrap_or_else(|error| error.duration());
    assert!(
        jumped > Duration::from_secs(3600),
        "the clock does not jump"
    );
    let limit = Duration::from_millis(5);
    let scene = Scene::with(options().wal_limit(16, limit), "CREATE TABLE t(n, b)");
    let insert = "INSERT INTO t VALUES (?1, randomblob(5000))";
    for n in 0..100 {
        scene.db.execute(insert, (n,)).unwrap();
        let query = "SELECT count(*) FROM t";
        let rows: i64 = scene.db.query_row(query, (), |row| row.get(0)).unwrap();
        assert_eq!(rows, n + 1);
    }
    // A deadline that is met, and one that is not.
    let stranger = scene.stranger();
    stranger.execute_batch("BEGIN IMMEDIATE").unwrap();
    let wait = Duration::from_millis(200);
    let since = Instant::now();
    let error = scene
        .db
        .with()
        .deadline(wait)
        .execute(insert, (0,))
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DeadlineExceeded, "{error}");
    assert_eq!(error.outcome(), Outcome::NotCommitted);
    assert!(since.elapsed() >= wait, "after {:?}", since.elapsed());
    let next = scene.db.submit(move |tx| tx.execute(insert, (0,))).unwrap();
    stranger.execute_batch("ROLLBACK").unwrap();
    next.wait().unwrap();
    // Keys outlive the process, so theirs is the clock of the day; they live for
    // longer than it jumps.
    let keyed = || scene.db.with().key("k").execute(insert, (0,)).unwrap();
    assert_eq!(keyed(), Once::Done(1));
    for _ in 0..10 {
        assert_eq!(keyed(), Once::AlreadyDone);
    }
    assert!(
        LOOKS.load(SeqCst) > before + 2,
        "nobody looked at the clock of the day"
    );
}

/// Where the clock of the day is asked at all.
#[test]
fn only_what_outlives_the_machines_start_is_measured_by_the_clock_of_the_day() {
    // The age of directories that a dead process left; that of keys (SQL).
    const KNOWN: [(&str, &str); 2] = [("file/home.rs", "SystemTime"), ("keys.rs", "unixepoch")];
    let mut found = Vec::new();
    for source in ["src", "../onepen-lock/src"] {
        look(
            &std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(source),
            &mut found,
        );
    }
    assert!(found.len() >= KNOWN.len(), "{found:?}");
    for (file, word) in found {
        let known = KNOWN
            .iter()
            .any(|&(of, what)| file.ends_with(of) && word == what);
        assert!(known, "{file} asks for the time of day: {word}");
    }
}

fn look(directory: &std::path::Path, found: &mut Vec<(String, &'static str)>) {
    let words = [
        "SystemTime",
        "unixepoch",
        "julianday",
        "strftime",
        "datetime(",
        "Realtime",
    ];
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            look(&path, found);
        } else {
            let text = std::fs::read_to_string(&path).unwrap();
            let said = words.into_iter().filter(|word| text.contains(word));
            found.extend(said.map(|word| (path.display().to_string(), word)));
        }
    }
}
