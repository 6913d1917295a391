//! The side file in memory. The unsafe code of the gate that is about memory.

use std::os::fd::AsFd;
use std::ptr::NonNull;

use rustix::mm::{MapFlags, ProtFlags};

use super::layout::{Page, SIZE};
use super::shortened::Guarded;

/// The side file, shared with every process that has mapped it.
pub(super) struct Map {
    page: NonNull<Page>,
    /// `None` at the end alone.
    guarded: Option<Guarded>,
}

// SAFETY: a `Page` is made of atomics; the mapping belongs to the process, not
// to a thread.
unsafe impl Send for Map {}
// SAFETY: as above.
unsafe impl Sync for Map {}

impl Map {
    /// Maps a file of at least [`SIZE`] bytes. Where it is shortened later, or was
    /// meanwhile, empty memory takes its place ([`is_lost`](Self::is_lost)).
    pub(super) fn new(file: impl AsFd) -> std::io::Result<Self> {
        // SAFETY: a new mapping at an address of the kernel's choice touches no
        // memory of ours.
        let address = unsafe {
            rustix::mm::mmap(
                std::ptr::null_mut(),
                SIZE,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                file,
                0,
            )
        }?;
        let page = NonNull::new(address.cast())
            .ok_or_else(|| std::io::Error::from(std::io::ErrorKind::AddrNotAvailable))?;
        let guarded = Some(Guarded::new(address));
        Ok(Self { page, guarded })
    }

    /// Whether this is nobody else's any more: the file was shortened.
    pub(super) fn is_lost(&self) -> bool {
        self.guarded.as_ref().is_some_and(Guarded::is_lost)
    }
}

impl std::ops::Deref for Map {
    type Target = Page;

    fn deref(&self) -> &Page {
        // SAFETY: the address is the start of a mapping of `SIZE` bytes, aligned
        // to a page, which lives as long as `self`. Every bit pattern is a valid
        // `Page`, and all of its fields that anybody reads are atomics, so that
        // other processes may write to them at any time.
        unsafe { self.page.as_ref() }
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        // First: what is mapped there next is nothing of ours.
        self.guarded = None;
        // SAFETY: the mapping was made by `new` with this size, and nobody
        // borrows it any more.
        let _ = unsafe { rustix::mm::munmap(self.page.as_ptr().cast(), SIZE) };
    }
}

/// A copy of the side file, taken with `read`: nothing that happens to the file
/// can harm whoever looks at it.
pub(super) fn copy(bytes: &[u8]) -> Option<Box<Page>> {
    let bytes = bytes.get(..SIZE)?;
    let mut page = Box::<Page>::new_uninit();
    // SAFETY: source and target are `SIZE` bytes, which is the size of a `Page`,
    // and the target is a new allocation.
    unsafe {
        std::ptr::copy_nonoverlapping(bytes.as_ptr(), page.as_mut_ptr().cast::<u8>(), SIZE);
    }
    // SAFETY: all of its bytes were just written, and any content is a valid `Page`.
    Some(unsafe { page.assume_init() })
}

/// A side file of its own, in memory.
#[cfg(test)]
pub(super) fn blank() -> Box<Page> {
    copy(&vec![0; SIZE]).expect("it has the size")
}
