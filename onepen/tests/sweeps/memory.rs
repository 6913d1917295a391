//! Allocations of SQLite's: the first, the second, the third fails, in a process
//! whose SQLite allocates through a counter. What is allocated is counted as well:
//! whatever failed, all of it is given back.

use std::ffi::{c_int, c_void};
use std::path::Path;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize};

use rusqlite::ffi;

use crate::common::{child, in_child};
use crate::deeds::DEEDS;
use crate::trial::{self, Failing, is_long};

static ARMED: AtomicBool = AtomicBool::new(false);
static FOR_GOOD: AtomicBool = AtomicBool::new(false);
static LEFT: AtomicI64 = AtomicI64::new(0);
static FIRED: AtomicUsize = AtomicUsize::new(0);
static IN_USE: AtomicI64 = AtomicI64::new(0);

/// In front of each piece: its size. Sixteen bytes, as whatever follows is aligned.
const HEAD: usize = 16;

fn fails() -> bool {
    if !ARMED.load(SeqCst) {
        return false;
    }
    let left = LEFT.fetch_sub(1, SeqCst);
    let fails = left == 0 || (left < 0 && FOR_GOOD.load(SeqCst));
    if fails {
        FIRED.fetch_add(1, SeqCst);
    }
    fails
}

// SAFETY (of the functions here): SQLite calls them as it would call its own, with
// pieces that came from them. `malloc` gives pieces aligned to 16 bytes.

unsafe extern "C" fn allocate(size: c_int) -> *mut c_void {
    // SAFETY: see above.
    unsafe { resize(std::ptr::null_mut(), size) }
}

unsafe extern "C" fn free(piece: *mut c_void) {
    if !piece.is_null() {
        // SAFETY: see above.
        unsafe {
            IN_USE.fetch_sub(i64::from(size(piece)), SeqCst);
            libc::free(piece.byte_sub(HEAD));
        }
    }
}

unsafe extern "C" fn resize(piece: *mut c_void, to: c_int) -> *mut c_void {
    if fails() {
        return std::ptr::null_mut();
    }
    // SAFETY: see above.
    unsafe {
        let (old, was) = match piece.is_null() {
            true => (piece, 0),
            false => (piece.byte_sub(HEAD), size(piece)),
        };
        let new = libc::realloc(old, HEAD + to as usize);
        if new.is_null() {
            return new;
        }
        IN_USE.fetch_add(i64::from(to) - i64::from(was), SeqCst);
        new.cast::<c_int>().write(to);
        new.byte_add(HEAD)
    }
}

unsafe extern "C" fn size(piece: *mut c_void) -> c_int {
    // SAFETY: see above.
    unsafe { piece.byte_sub(HEAD).cast::<c_int>().read() }
}

unsafe extern "C" fn round_up(size: c_int) -> c_int {
    (size + 7) & !7
}

unsafe extern "C" fn start(_: *mut c_void) -> c_int {
    ffi::SQLITE_OK
}

unsafe extern "C" fn stop(_: *mut c_void) {}

fn install() {
    let methods = ffi::sqlite3_mem_methods {
        xMalloc: Some(allocate),
        xFree: Some(free),
        xRealloc: Some(resize),
        xSize: Some(size),
        xRoundup: Some(round_up),
        xInit: Some(start),
        xShutdown: Some(stop),
        pAppData: std::ptr::null_mut(),
    };
    // SAFETY: before SQLite is first used; it copies the methods. Without the small
    // pieces that each connection has in stock nearly all memory is asked for here.
    let codes = unsafe {
        [
            ffi::sqlite3_config(ffi::SQLITE_CONFIG_MALLOC, &raw const methods),
            ffi::sqlite3_config(ffi::SQLITE_CONFIG_LOOKASIDE, 0, 0),
        ]
    };
    assert_eq!(codes, [ffi::SQLITE_OK; 2], "SQLite has been used already");
}

struct Starved;

impl Starved {
    fn after(spare: i64, for_good: bool) -> Self {
        LEFT.store(spare, SeqCst);
        FOR_GOOD.store(for_good, SeqCst);
        FIRED.store(0, SeqCst);
        ARMED.store(true, SeqCst);
        Self
    }
}

impl Failing for Starved {
    fn fired(&self) -> usize {
        // What looks at the outcome is not starved.
        ARMED.store(false, SeqCst);
        FIRED.load(SeqCst)
    }
}

/// The point after this one. Nearby allocations are those of one purpose, so a
/// short run takes some of all of them: every one of the first, then fewer.
fn next(spare: i64) -> i64 {
    if is_long() {
        spare + 1
    } else {
        spare + 1 + spare / 4
    }
}

#[test]
fn starved() {
    if in_child().is_none() {
        return;
    }
    install();
    let nothing = |_: &Path| Starved::after(i64::MAX, false);
    for deed in &DEEDS {
        // What stays for the whole process, such as what SQLite knows of the
        // system, is there after the first time.
        trial::run(deed, "enough memory", nothing);
        let usual = IN_USE.load(SeqCst);
        let mut points = 0;
        for for_good in [false, true] {
            let mut spare = 0;
            loop {
                let often = if for_good { "for good" } else { "once" };
                let what = format!("no memory after {spare} allocations, {often}");
                let fired = trial::run(deed, &what, |_| Starved::after(spare, for_good));
                let in_use = IN_USE.load(SeqCst);
                assert_eq!(in_use, usual, "{} with {what}: bytes in use", deed.name);
                if fired == 0 {
                    break;
                }
                points += 1;
                spare = next(spare);
            }
        }
        println!("\nproof: {points} allocations failed");
    }
}

#[test]
fn whichever_allocation_fails_what_was_told_is_true_and_nothing_is_lost() {
    let output = child("memory::starved", Path::new("yes")).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    println!("{said}");
    let failed = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}{failed}");
    assert!(said.matches("allocations failed").count() == DEEDS.len());
}
