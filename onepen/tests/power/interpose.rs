//! The C library's calls that change files, on their way to it.
//!
//! A program with this module defines `open`, `pwrite`, `fsync` and their
//! relatives itself. Each tells the recorder (`recorder`) and hands the call on
//! as it came. So no virtual file system stands between SQLite and the disk: what
//! is recorded is what SQLite's own `unix` VFS does, and what onepen does with
//! `std::fs`.
//!
//! Why not `sqlite3_vfs.xSetSystemCall`, which is made for such things: its table
//! has no `fsync` and no `fdatasync` (`full_fsync` calls them by name), and nothing
//! of onepen goes through it (a backup's flush, its rename, the flush of the
//! directory).
//!
//! What does not come by here: system calls that a crate makes without the C
//! library (`rustix` renames so), and memory that is mapped. Names are therefore
//! looked up, not listened to, and a recording is compared with the files
//! themselves when it ends (`Recording::finish`).

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};

use crate::recorder::{self, Change};

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

type Open = unsafe extern "C" fn(*const c_char, c_int, c_uint) -> c_int;
type OpenAt = unsafe extern "C" fn(c_int, *const c_char, c_int, c_uint) -> c_int;
type Write = unsafe extern "C" fn(c_int, *const c_void, usize) -> isize;
type WriteAt = unsafe extern "C" fn(c_int, *const c_void, usize, i64) -> isize;
type Vector = unsafe extern "C" fn(c_int, *const libc::iovec, c_int) -> isize;
type VectorAt = unsafe extern "C" fn(c_int, *const libc::iovec, c_int, i64) -> isize;
type Truncate = unsafe extern "C" fn(c_int, i64) -> c_int;
type Allocate = unsafe extern "C" fn(c_int, c_int, i64, i64) -> c_int;
type AllocatePosix = unsafe extern "C" fn(c_int, i64, i64) -> c_int;
type Sync = unsafe extern "C" fn(c_int) -> c_int;
type One = unsafe extern "C" fn(*const c_char) -> c_int;
type OneAt = unsafe extern "C" fn(c_int, *const c_char, c_int) -> c_int;
type Two = unsafe extern "C" fn(*const c_char, *const c_char) -> c_int;
type TwoAt = unsafe extern "C" fn(c_int, *const c_char, c_int, *const c_char) -> c_int;
type TwoAtFlags = unsafe extern "C" fn(c_int, *const c_char, c_int, *const c_char, c_uint) -> c_int;

fn path<'a>(name: *const c_char) -> &'a [u8] {
    if name.is_null() {
        return &[];
    }
    // SAFETY: the caller of a function of the C library gave it a C string, which
    // outlives the call.
    unsafe { CStr::from_ptr(name) }.to_bytes()
}

/// A call about names. SQLite and onepen name files by their whole paths, so one
/// that says where it is is enough; others are seen at the next call.
fn about_names(names: &[&[u8]], call: impl FnOnce() -> c_int) -> c_int {
    recorder::names(names, call)
}

/// `open` takes its third argument only sometimes. Where arguments travel in
/// registers (the two architectures of `main`'s first line) reading one that was
/// not given is harmless, and the C library does not look at it either.
fn opened(name: &[u8], flags: c_int, call: impl FnOnce() -> c_int) -> c_int {
    recorder::names(&[name], || {
        let descriptor = call();
        if descriptor >= 0 && flags & libc::O_TRUNC != 0 {
            recorder::truncated_by_open(descriptor);
        }
        descriptor
    })
}

macro_rules! opens {
    ($($name:ident $text:literal),*) => {$(
        // SAFETY (of the name): does what the C library's does.
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $name(name: *const c_char, flags: c_int, mode: c_uint) -> c_int {
            let real = next!($text as Open);
            // SAFETY: handed on as it came.
            opened(path(name), flags, || unsafe { real(name, flags, mode) })
        }
    )*};
}
opens!(open c"open", open64 c"open64");

macro_rules! opens_at {
    ($($name:ident $text:literal),*) => {$(
        // SAFETY (of the name): does what the C library's does.
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $name(
            at: c_int, name: *const c_char, flags: c_int, mode: c_uint,
        ) -> c_int {
            let real = next!($text as OpenAt);
            // SAFETY: handed on as it came.
            opened(path(name), flags, || unsafe { real(at, name, flags, mode) })
        }
    )*};
}
opens_at!(openat c"openat", openat64 c"openat64");

/// What was written, as far as the call said that it was.
fn bytes<'a>(from: *const c_void, written: isize) -> &'a [u8] {
    match usize::try_from(written) {
        // SAFETY: the caller offered at least so many bytes, and they are only
        // looked at before its call returns.
        Ok(count) if count > 0 => unsafe { std::slice::from_raw_parts(from.cast(), count) },
        _ => &[],
    }
}

/// The same of several pieces.
fn joined(pieces: *const libc::iovec, count: c_int, written: isize) -> Vec<u8> {
    let mut left = usize::try_from(written).unwrap_or(0);
    let mut all = Vec::with_capacity(left);
    for index in 0..usize::try_from(count).unwrap_or(0) {
        // SAFETY: the caller gave so many pieces; see `bytes`.
        let piece = unsafe { *pieces.add(index) };
        let length = piece.iov_len.min(left);
        all.extend_from_slice(bytes(piece.iov_base, length as isize));
        left -= length;
    }
    all
}

fn position(descriptor: c_int) -> u64 {
    // SAFETY: a question about a descriptor; nothing moves.
    let at = unsafe { libc::lseek(descriptor, 0, libc::SEEK_CUR) };
    u64::try_from(at).unwrap_or(0)
}

/// Where a plain write ended; where it began, less so many bytes.
fn began(descriptor: c_int, written: isize) -> u64 {
    position(descriptor).saturating_sub(u64::try_from(written).unwrap_or(0))
}

// SAFETY (of the name): does what the C library's does.
#[unsafe(no_mangle)]
unsafe extern "C" fn write(descriptor: c_int, from: *const c_void, count: usize) -> isize {
    let real = next!(c"write" as Write);
    recorder::change(
        descriptor,
        // SAFETY: handed on as it came.
        || unsafe { real(descriptor, from, count) },
        |written| Change::write(began(descriptor, written), bytes(from, written)),
    )
}

macro_rules! writes_at {
    ($($name:ident $text:literal),*) => {$(
        // SAFETY (of the name): does what the C library's does.
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $name(
            descriptor: c_int, from: *const c_void, count: usize, at: i64,
        ) -> isize {
            let real = next!($text as WriteAt);
            recorder::change(
                descriptor,
                // SAFETY: handed on as it came.
                || unsafe { real(descriptor, from, count, at) },
                |written| Change::write(at.cast_unsigned(), bytes(from, written)),
            )
        }
    )*};
}
writes_at!(pwrite c"pwrite", pwrite64 c"pwrite64");

// SAFETY (of the name): does what the C library's does.
#[unsafe(no_mangle)]
unsafe extern "C" fn writev(descriptor: c_int, from: *const libc::iovec, count: c_int) -> isize {
    let real = next!(c"writev" as Vector);
    recorder::change(
        descriptor,
        // SAFETY: handed on as it came.
        || unsafe { real(descriptor, from, count) },
        |written| Change::write(began(descriptor, written), &joined(from, count, written)),
    )
}

macro_rules! vectors_at {
    ($($name:ident $text:literal),*) => {$(
        // SAFETY (of the name): does what the C library's does.
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $name(
            descriptor: c_int, from: *const libc::iovec, count: c_int, at: i64,
        ) -> isize {
            let real = next!($text as VectorAt);
            recorder::change(
                descriptor,
                // SAFETY: handed on as it came.
                || unsafe { real(descriptor, from, count, at) },
                |written| Change::write(at.cast_unsigned(), &joined(from, count, written)),
            )
        }
    )*};
}
vectors_at!(pwritev c"pwritev", pwritev64 c"pwritev64");

macro_rules! truncates {
    ($($name:ident $text:literal),*) => {$(
        // SAFETY (of the name): does what the C library's does.
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $name(descriptor: c_int, length: i64) -> c_int {
            let real = next!($text as Truncate);
            recorder::change(
                descriptor,
                // SAFETY: handed on as it came.
                || unsafe { real(descriptor, length) } as isize,
                |_| Change::Truncate(length.cast_unsigned()),
            ) as c_int
        }
    )*};
}
truncates!(ftruncate c"ftruncate", ftruncate64 c"ftruncate64");

macro_rules! allocates {
    ($($name:ident $text:literal),*) => {$(
        // SAFETY (of the name): does what the C library's does.
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $name(
            descriptor: c_int, mode: c_int, at: i64, count: i64,
        ) -> c_int {
            let real = next!($text as Allocate);
            recorder::change(
                descriptor,
                // SAFETY: handed on as it came.
                || unsafe { real(descriptor, mode, at, count) } as isize,
                |_| match mode {
                    0 => Change::Extend((at + count).cast_unsigned()),
                    other => Change::Unknown(format!("fallocate with mode {other}")),
                },
            ) as c_int
        }
    )*};
}
allocates!(fallocate c"fallocate", fallocate64 c"fallocate64");

macro_rules! allocates_posix {
    ($($name:ident $text:literal),*) => {$(
        // SAFETY (of the name): does what the C library's does.
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $name(descriptor: c_int, at: i64, count: i64) -> c_int {
            let real = next!($text as AllocatePosix);
            // It answers with 0 or the number of an error.
            let answer = recorder::change(
                descriptor,
                // SAFETY: handed on as it came.
                || -(unsafe { real(descriptor, at, count) } as isize),
                |_| Change::Extend((at + count).cast_unsigned()),
            );
            -answer as c_int
        }
    )*};
}
allocates_posix!(posix_fallocate c"posix_fallocate", posix_fallocate64 c"posix_fallocate64");

macro_rules! syncs {
    ($($name:ident $text:literal),*) => {$(
        // SAFETY (of the name): does what the C library's does, or fails as it may.
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $name(descriptor: c_int) -> c_int {
            let real = next!($text as Sync);
            if recorder::fails(descriptor) {
                // SAFETY: the address of this thread's own `errno`.
                unsafe { *libc::__errno_location() = libc::EIO };
                return -1;
            }
            recorder::change(
                descriptor,
                // SAFETY: handed on as it came.
                || unsafe { real(descriptor) } as isize,
                |_| Change::Sync,
            ) as c_int
        }
    )*};
}
syncs!(fsync c"fsync", fdatasync c"fdatasync");

// SAFETY (of the name): does what the C library's does.
#[unsafe(no_mangle)]
unsafe extern "C" fn unlink(name: *const c_char) -> c_int {
    let real = next!(c"unlink" as One);
    // SAFETY: handed on as it came.
    about_names(&[path(name)], || unsafe { real(name) })
}

// SAFETY (of the name): does what the C library's does.
#[unsafe(no_mangle)]
unsafe extern "C" fn unlinkat(at: c_int, name: *const c_char, flags: c_int) -> c_int {
    let real = next!(c"unlinkat" as OneAt);
    // SAFETY: handed on as it came.
    about_names(&[path(name)], || unsafe { real(at, name, flags) })
}

macro_rules! two_names {
    ($($name:ident $text:literal),*) => {$(
        // SAFETY (of the name): does what the C library's does.
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $name(from: *const c_char, to: *const c_char) -> c_int {
            let real = next!($text as Two);
            // SAFETY: handed on as it came.
            about_names(&[path(from), path(to)], || unsafe { real(from, to) })
        }
    )*};
}
two_names!(rename c"rename", link c"link");

// SAFETY (of the name): does what the C library's does.
#[unsafe(no_mangle)]
unsafe extern "C" fn renameat(
    at: c_int,
    from: *const c_char,
    other: c_int,
    to: *const c_char,
) -> c_int {
    let real = next!(c"renameat" as TwoAt);
    // SAFETY: handed on as it came.
    about_names(&[path(from), path(to)], || unsafe {
        real(at, from, other, to)
    })
}

macro_rules! two_names_at {
    ($($name:ident $text:literal),*) => {$(
        // SAFETY (of the name): does what the C library's does.
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $name(
            at: c_int, from: *const c_char, other: c_int, to: *const c_char, flags: c_uint,
        ) -> c_int {
            let real = next!($text as TwoAtFlags);
            // SAFETY: handed on as it came.
            about_names(&[path(from), path(to)], || unsafe { real(at, from, other, to, flags) })
        }
    )*};
}
two_names_at!(renameat2 c"renameat2", linkat c"linkat");
