//! The C library's calls, some of which fail.
//!
//! No virtual file system stands between SQLite and the disk. A program with this
//! module defines `pwrite`, `fsync` and their relatives itself, hands every call
//! on, and fails those that a test has asked for, on the files of that test alone.
//! Reading, mapping, opening and the like: `calls`.
#![allow(dead_code, reason = "each test program uses its own part")]

use std::ffi::{c_int, c_void};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    Write,
    /// Half of it is written first.
    ShortWrite,
    Sync,
    /// A write or a flush.
    Any,
    /// Either; half of a write is written first.
    ShortAny,
    Truncate,
    Map,
    Open,
    Read,
    Lock,
    /// A name that is removed, or given to another file.
    Name,
}

/// What a program is about to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doing {
    Writing,
    Syncing,
    Truncating,
    Mapping,
    Opening,
    Reading,
    Locking,
    Naming,
}

/// In place of an error: the process ends there, as if by `kill -9`.
pub const DIE: c_int = -1;

/// Fails calls on a file, or on all within a directory, until it is dropped.
pub struct Fault {
    id: usize,
}

impl Call {
    fn meets(self, doing: Doing) -> bool {
        match self {
            Self::Write | Self::ShortWrite => doing == Doing::Writing,
            Self::Sync => doing == Doing::Syncing,
            Self::Any | Self::ShortAny => matches!(doing, Doing::Writing | Doing::Syncing),
            Self::Truncate => doing == Doing::Truncating,
            Self::Map => doing == Doing::Mapping,
            Self::Open => doing == Doing::Opening,
            Self::Read => doing == Doing::Reading,
            Self::Lock => doing == Doing::Locking,
            Self::Name => doing == Doing::Naming,
        }
    }
}

struct Planned {
    id: usize,
    file: PathBuf,
    call: Call,
    errno: c_int,
    /// How many calls succeed first.
    spare: usize,
    /// How many fail after that.
    left: usize,
    fired: usize,
}

static PLANNED: Mutex<Vec<Planned>> = Mutex::new(Vec::new());
/// How many are planned: the calls of everybody else take no lock.
static ARMED: AtomicUsize = AtomicUsize::new(0);

fn planned() -> std::sync::MutexGuard<'static, Vec<Planned>> {
    PLANNED
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl Fault {
    /// The call after `spare` others fails, and `times - 1` after it.
    pub fn plan(file: &Path, call: Call, errno: c_int, spare: usize, times: usize) -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let id = NEXT.fetch_add(1, Ordering::SeqCst);
        let file = file.to_owned();
        let mut planned = planned();
        planned.push(Planned {
            id,
            file,
            call,
            errno,
            spare,
            left: times,
            fired: 0,
        });
        ARMED.store(planned.len(), Ordering::SeqCst);
        Self { id }
    }

    /// How many calls have failed.
    pub fn fired(&self) -> usize {
        planned()
            .iter()
            .find(|planned| planned.id == self.id)
            .map_or(0, |found| found.fired)
    }
}

impl Drop for Fault {
    fn drop(&mut self) {
        let mut planned = planned();
        planned.retain(|planned| planned.id != self.id);
        ARMED.store(planned.len(), Ordering::SeqCst);
    }
}

/// The error that a call on this descriptor is to fail with.
pub fn verdict(descriptor: c_int, doing: Doing) -> Option<(Call, c_int)> {
    if ARMED.load(Ordering::SeqCst) == 0 {
        return None;
    }
    let file = std::fs::read_link(format!("/proc/self/fd/{descriptor}")).ok()?;
    verdict_on(&file, doing)
}

/// The error that a call on this file is to fail with.
pub fn verdict_on(file: &Path, doing: Doing) -> Option<(Call, c_int)> {
    if ARMED.load(Ordering::SeqCst) == 0 {
        return None;
    }
    let mut planned = planned();
    let found = planned.iter_mut().find(|planned| {
        planned.call.meets(doing) && planned.left > 0 && file.starts_with(&planned.file)
    })?;
    if found.spare > 0 {
        found.spare -= 1;
        return None;
    }
    found.left -= 1;
    found.fired += 1;
    Some((found.call, found.errno))
}

pub fn fail(errno: c_int) -> c_int {
    if errno == DIE {
        // SAFETY: a signal to this very process, which does not return from it.
        unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
    }
    // SAFETY: the address of this thread's own `errno`.
    unsafe { *libc::__errno_location() = errno };
    -1
}

/// The next definition of a symbol: the C library's.
macro_rules! next {
    ($name:literal as $type:ty) => {{
        static FOUND: std::sync::OnceLock<usize> = std::sync::OnceLock::new();
        let address = *FOUND.get_or_init(|| {
            // SAFETY: the name ends with NUL; the C library has the symbol.
            unsafe { libc::dlsym(libc::RTLD_NEXT, $name.as_ptr()) as usize }
        });
        assert_ne!(address, 0);
        // SAFETY: the address of a function that has this type in C.
        unsafe { std::mem::transmute::<usize, $type>(address) }
    }};
}

#[allow(
    unused_imports,
    reason = "not every test that has a disk replaces more"
)]
pub(crate) use next;

type Sync = unsafe extern "C" fn(c_int) -> c_int;
type Write = unsafe extern "C" fn(c_int, *const c_void, usize, i64) -> isize;

// SAFETY (of the names): each replaces the function of that name with one of
// the same type, which does the same or fails as that function may.
#[unsafe(no_mangle)]
unsafe extern "C" fn fsync(descriptor: c_int) -> c_int {
    match verdict(descriptor, Doing::Syncing) {
        Some((_, errno)) => fail(errno),
        None => {
            let real = next!(c"fsync" as Sync);
            // SAFETY: handed on as it came.
            unsafe { real(descriptor) }
        }
    }
}

// SAFETY: as for `fsync`.
#[unsafe(no_mangle)]
unsafe extern "C" fn fdatasync(descriptor: c_int) -> c_int {
    match verdict(descriptor, Doing::Syncing) {
        Some((_, errno)) => fail(errno),
        None => {
            let real = next!(c"fdatasync" as Sync);
            // SAFETY: handed on as it came.
            unsafe { real(descriptor) }
        }
    }
}

// SAFETY: as for `fsync`.
#[unsafe(no_mangle)]
unsafe extern "C" fn pwrite(
    descriptor: c_int,
    bytes: *const c_void,
    count: usize,
    at: i64,
) -> isize {
    let real = next!(c"pwrite" as Write);
    // SAFETY: handed on as it came, or less of it.
    unsafe { write(real, descriptor, bytes, count, at) }
}

// SAFETY: as for `fsync`.
#[unsafe(no_mangle)]
unsafe extern "C" fn pwrite64(
    descriptor: c_int,
    bytes: *const c_void,
    count: usize,
    at: i64,
) -> isize {
    let real = next!(c"pwrite64" as Write);
    // SAFETY: handed on as it came, or less of it.
    unsafe { write(real, descriptor, bytes, count, at) }
}

unsafe fn write(
    real: Write,
    descriptor: c_int,
    bytes: *const c_void,
    count: usize,
    at: i64,
) -> isize {
    match verdict(descriptor, Doing::Writing) {
        Some((Call::ShortWrite | Call::ShortAny, errno)) if count > 1 => {
            // What a full disk does; SQLite asks for the rest, and is told.
            // SAFETY: by the caller; less than it offered.
            unsafe { real(descriptor, bytes, count / 2, at) };
            fail(errno) as isize
        }
        Some((_, errno)) => fail(errno) as isize,
        // SAFETY: by the caller.
        None => unsafe { real(descriptor, bytes, count, at) },
    }
}
