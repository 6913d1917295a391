//! Counts the flushes to disk of this process.
//!
//! SQLite counts its system calls nowhere one could read them, and `fsync` is
//! not in the table of calls its VFS lets one replace. But SQLite is linked
//! into this very program, so a function of that name defined here is the one
//! it calls. It counts and asks the kernel.
//!
//! Guarantee: every `fsync` and `fdatasync` of SQLite in this process is
//! counted once and carried out unchanged, `errno` included. Only on Linux;
//! elsewhere [`count`] answers `None`.

#[cfg(target_os = "linux")]
mod counted {
    use std::sync::atomic::{AtomicU64, Ordering};

    pub(super) static COUNT: AtomicU64 = AtomicU64::new(0);

    // SAFETY: the signature is that of POSIX, and the symbol is defined in the
    // executable, which the dynamic linker searches before the C library; the
    // C library's own functions do not call each other through these names.
    #[unsafe(no_mangle)]
    extern "C" fn fsync(descriptor: libc::c_int) -> libc::c_int {
        COUNT.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the system call takes one descriptor and touches no memory
        // of ours; `syscall` sets errno as `fsync` of the C library would.
        unsafe { libc::syscall(libc::SYS_fsync, descriptor) as libc::c_int }
    }

    // SAFETY: as above.
    #[unsafe(no_mangle)]
    extern "C" fn fdatasync(descriptor: libc::c_int) -> libc::c_int {
        COUNT.fetch_add(1, Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { libc::syscall(libc::SYS_fdatasync, descriptor) as libc::c_int }
    }
}

/// Flushes of this process so far, where they can be counted.
pub fn count() -> Option<u64> {
    #[cfg(target_os = "linux")]
    {
        Some(counted::COUNT.load(std::sync::atomic::Ordering::Relaxed))
    }
    #[cfg(not(target_os = "linux"))]
    {
        None
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_commit_under_full_is_a_flush_and_one_under_off_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let connection = rusqlite::Connection::open(dir.path().join("t.db")).unwrap();
        connection
            .execute_batch(
                "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; CREATE TABLE t (n)",
            )
            .unwrap();
        let before = count().unwrap();
        for _ in 0..10 {
            connection.execute("INSERT INTO t VALUES (1)", ()).unwrap();
        }
        // Other tests of this process may flush too: never fewer.
        assert!(count().unwrap() - before >= 10);
    }

    #[test]
    fn a_flush_that_fails_still_says_why() {
        // SAFETY: no descriptor has this number; nothing is touched.
        let answer = unsafe { libc::fsync(-1) };
        assert_eq!(answer, -1);
        let error = std::io::Error::last_os_error();
        assert_eq!(error.raw_os_error(), Some(libc::EBADF));
    }
}
