//! Who lives: one byte of the side file for each slot, locked by its owner for as
//! long as it does.
//!
//! The locks are those of an *open file description* (`F_OFD_SETLK`): the kernel
//! lets them go when the last descriptor of it is closed, however the process
//! ends. Other descriptors of the same file, in this process too, change nothing
//! (POSIX locks would be gone with the first of them to be closed). A child that
//! was forked keeps its parent's description open, so a dead parent looks alive
//! while such a child lives; the gate then notices that nothing moves.

use std::os::fd::{AsFd, AsRawFd};

use super::layout::{LIVES_AT, SLOTS};

/// Locks the byte of `slot`, unless somebody has it. It is freed with `file`.
pub(super) fn claim(file: impl AsFd, slot: usize) -> std::io::Result<bool> {
    let mut lock = byte(slot);
    match call(file, libc::F_OFD_SETLK, &mut lock) {
        Ok(()) => Ok(true),
        Err(error) if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EACCES)) => {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// Frees the byte of `slot`, for all copies of `file`.
pub(super) fn let_go(file: impl AsFd, slot: usize) {
    let mut lock = byte(slot);
    lock.l_type = libc::F_UNLCK as i16;
    // Refused only for what is no file; then it goes with the process.
    let _ = call(file, libc::F_OFD_SETLK, &mut lock);
}

/// Whether somebody else than the owner of `file` has the byte of `slot`.
pub(super) fn is_claimed(file: impl AsFd, slot: usize) -> bool {
    if slot >= SLOTS {
        return false;
    }
    let mut lock = byte(slot);
    // A kernel that does not answer is no proof of death.
    call(file, libc::F_OFD_GETLK, &mut lock).is_err() || lock.l_type != libc::F_UNLCK as i16
}

fn byte(slot: usize) -> libc::flock {
    // SAFETY: a `flock` is made of integers, for which zeros are valid.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = libc::F_WRLCK as i16;
    lock.l_whence = libc::SEEK_SET as i16;
    lock.l_start = LIVES_AT + slot as i64;
    lock.l_len = 1;
    lock
}

fn call(file: impl AsFd, command: i32, lock: &mut libc::flock) -> std::io::Result<()> {
    let file = file.as_fd();
    // SAFETY: the descriptor is open for as long as it is borrowed, and `lock` is
    // what these commands take and fill in.
    let refused = unsafe { libc::fcntl(file.as_raw_fd(), command, std::ptr::from_mut(lock)) };
    if refused == 0 {
        Ok(())
    } else {
        Err(std::io::Error::last_os_error())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_is_free_as_soon_as_its_owner_is_gone_and_not_before() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let open = || {
            std::fs::File::options()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .open(&path)
                .unwrap()
        };
        let (owner, other) = (open(), open());
        assert!(claim(&owner, 3).unwrap());
        assert!(!claim(&other, 3).unwrap());
        assert!(is_claimed(&other, 3) && !is_claimed(&other, 4));
        drop(open()); // another descriptor's end is no end
        let twin = owner.try_clone().unwrap();
        drop(owner);
        assert!(is_claimed(&other, 3), "a child's copy keeps it");
        drop(twin);
        assert!(!is_claimed(&other, 3));
        assert!(claim(&other, 3).unwrap());
    }
}
