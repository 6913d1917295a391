//! A side file that somebody shortens while it is mapped.
//!
//! The kernel then takes the pages away, and ends whoever touches them with SIGBUS;
//! so it does when a page cannot be read from a failing disk. A look at the length
//! before each use would always come too early. So that a side file costs its users
//! fairness and never the process, there is a handler for that signal.
//!
//! Guarantees: a fault in a mapping that is [`Guarded`] puts empty memory in the
//! place of the whole mapping, and the process goes on, in a line of its own from
//! then on; [`Guarded::is_lost`] says so. Every other SIGBUS goes where it went
//! before: to the handler that was there, with its mask and its flags, or it ends
//! the process. The handler is installed with the first mapping of the process, once;
//! who installs another one later has the signal, and may pass it on. A thread that
//! blocks SIGBUS is ended by it, as everywhere.
//!
//! The handler uses nothing but atomics, `mmap`, `sigaction` and `raise`.

use std::cell::UnsafeCell;
use std::ffi::{c_int, c_void};
use std::mem::MaybeUninit;
use std::ptr::{null, null_mut};
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU8, AtomicUsize};

use super::layout::SIZE;

/// One mapping, or room for one.
struct Entry {
    /// 0: for who comes next.
    address: AtomicUsize,
    lost: AtomicBool,
    next: *const Entry,
}

/// All that there ever were. None is freed, because the handler may come by at any
/// moment; there are as many as there were mappings at a time.
static ENTRIES: AtomicPtr<Entry> = AtomicPtr::new(null_mut());

/// A mapping of [`SIZE`] bytes that may lose its file.
pub(super) struct Guarded(&'static Entry);

// SAFETY: of an entry only atomics change; `next` is written before it is shared.
unsafe impl Send for Guarded {}
// SAFETY: as above.
unsafe impl Sync for Guarded {}

impl Guarded {
    /// From now on the mapping at this address outlives its file, until this is
    /// dropped, which has to be before it is unmapped.
    pub(super) fn new(address: *const c_void) -> Self {
        install();
        let address = address.addr();
        let entry = entries()
            .find(|entry| {
                // Only who has it in its hands may say that nothing is lost.
                let taken = entry.address.compare_exchange(0, 1, SeqCst, SeqCst);
                taken.is_ok()
            })
            .unwrap_or_else(another);
        entry.lost.store(false, SeqCst);
        entry.address.store(address, SeqCst);
        Self(entry)
    }

    /// Whether the file is gone from under it.
    pub(super) fn is_lost(&self) -> bool {
        self.0.lost.load(SeqCst)
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        self.0.address.store(0, SeqCst);
    }
}

fn entries() -> impl Iterator<Item = &'static Entry> {
    let mut at: *const Entry = ENTRIES.load(Acquire);
    std::iter::from_fn(move || {
        // SAFETY: null, or an entry that is never freed and was written before it
        // came into the list.
        let entry = unsafe { at.as_ref() }?;
        at = entry.next;
        Some(entry)
    })
}

/// One that nobody else has.
fn another() -> &'static Entry {
    let entry = Box::leak(Box::new(Entry {
        address: AtomicUsize::new(1),
        lost: AtomicBool::new(false),
        next: null(),
    }));
    let mut first = ENTRIES.load(Relaxed);
    loop {
        entry.next = first;
        match ENTRIES.compare_exchange_weak(first, entry, Release, Relaxed) {
            Ok(_) => return entry,
            Err(other) => first = other,
        }
    }
}

/// What was done with the signal before.
struct Before(UnsafeCell<MaybeUninit<libc::sigaction>>);

// SAFETY: written once, before `INSTALLED` says so; read only afterwards.
unsafe impl Sync for Before {}

static BEFORE: Before = Before(UnsafeCell::new(MaybeUninit::uninit()));

/// 0: not yet; 1: somebody is about to; 2: it is.
static INSTALLED: AtomicU8 = AtomicU8::new(0);

/// No lock and no `Once` here: a fork in the middle of it would leave them taken in
/// the child for ever. Who comes while another is about to does not wait for it.
fn install() {
    if INSTALLED.compare_exchange(0, 1, SeqCst, SeqCst).is_err() {
        return;
    }
    // SAFETY: a `sigaction` is made of integers and pointers that may be null, and
    // both calls are given ones of ours. `BEFORE` is nobody else's before the store.
    unsafe {
        let mut before: libc::sigaction = std::mem::zeroed();
        if libc::sigaction(libc::SIGBUS, null(), &raw mut before) != 0 {
            return;
        }
        (*BEFORE.0.get()).write(before);
        INSTALLED.store(2, SeqCst);
        let mut ours: libc::sigaction = std::mem::zeroed();
        ours.sa_sigaction = on_fault as *const () as usize;
        // As its own, so that it is called as it would have been.
        ours.sa_mask = before.sa_mask;
        let kept = before.sa_flags & (libc::SA_RESTART | libc::SA_NODEFER);
        ours.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | kept;
        libc::sigaction(libc::SIGBUS, &raw const ours, null_mut());
    }
}

extern "C" fn on_fault(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: with `SA_SIGINFO` the kernel gives what it says.
    let (code, address) = unsafe { ((*info).si_code, (*info).si_addr().addr()) };
    // Only what the kernel says of an access: others fill in no address.
    if code == libc::BUS_ADRERR
        && let Some(entry) = entries().find(|entry| has(entry, address))
        && put_memory_in_its_place(entry)
    {
        return;
    }
    pass_on(signal, info, context);
}

fn has(entry: &Entry, address: usize) -> bool {
    let start = entry.address.load(SeqCst);
    start > 1 && (start..start + SIZE).contains(&address)
}

/// Two threads at once may do it twice: any content is a side file's.
fn put_memory_in_its_place(entry: &Entry) -> bool {
    let start = entry.address.load(SeqCst);
    entry.lost.store(true, SeqCst);
    // SAFETY: the mapping is ours as long as it is in the list, and of this size;
    // whoever borrows it reads atomics, for which every content is valid.
    unsafe {
        let errno = libc::__errno_location();
        let before = *errno;
        let new = libc::mmap(
            start as *mut c_void,
            SIZE,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_FIXED | libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        );
        *errno = before;
        new != libc::MAP_FAILED
    }
}

/// Does what would have been done without us.
fn pass_on(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: whoever gets here was sent by the handler, which is installed after
    // `BEFORE` was written. What stands there is the handler of whoever had the
    // signal before, and is called as its flags say.
    unsafe {
        let before = (*BEFORE.0.get()).assume_init_ref();
        let (handler, flags) = (before.sa_sigaction, before.sa_flags);
        let is_sent = (*info).si_code <= 0;
        if handler == libc::SIG_IGN && is_sent {
            return;
        }
        if handler == libc::SIG_DFL || handler == libc::SIG_IGN {
            // The access is made again, and ends the process.
            default();
            if is_sent {
                libc::raise(signal);
            }
            return;
        }
        if flags & libc::SA_RESETHAND != 0 {
            default();
        }
        if flags & libc::SA_SIGINFO != 0 {
            type Handler = extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void);
            std::mem::transmute::<usize, Handler>(handler)(signal, info, context);
        } else {
            std::mem::transmute::<usize, extern "C" fn(c_int)>(handler)(signal);
        }
    }
}

fn default() {
    // SAFETY: zeros are the default action, and the call reads them while we have them.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = libc::SIG_DFL;
        libc::sigaction(libc::SIGBUS, &raw const action, null_mut());
    }
}
