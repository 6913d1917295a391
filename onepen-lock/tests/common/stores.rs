//! A process that stands still, or dies, after one of its stores to a mapped
//! file: the first, the second, and so on.
//!
//! It needs nothing of the program. The mapping is made read-only behind its back;
//! every store faults, is let through by itself (the processor's trap flag), and
//! is counted. So these are all the stores of the program as it was compiled,
//! a compare-and-swap that fails among them.
//!
//! One thread at a time may store: what another does in the meantime is not seen.

use std::ffi::{c_int, c_void};
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicI32, AtomicU32, AtomicUsize};

static AT: AtomicUsize = AtomicUsize::new(0);
static SIZE: AtomicUsize = AtomicUsize::new(0);
static LEFT: AtomicU32 = AtomicU32::new(0);
static SIGNAL: AtomicI32 = AtomicI32::new(0);

const TRAP_FLAG: libc::greg_t = 0x100;

/// From here on: after the `nth` store to the mapped file whose path ends with
/// `name`, this process sends itself `signal`.
pub fn signal_after(nth: u32, name: &str, signal: c_int) {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let line = maps.lines().find(|line| line.ends_with(name));
    let (from, to) = line
        .unwrap()
        .split_once(' ')
        .unwrap()
        .0
        .split_once('-')
        .unwrap();
    let number = |hex| usize::from_str_radix(hex, 16).unwrap();
    AT.store(number(from), SeqCst);
    SIZE.store(number(to) - number(from), SeqCst);
    LEFT.store(nth, SeqCst);
    SIGNAL.store(signal, SeqCst);
    handle(libc::SIGSEGV, fault as *const () as usize);
    handle(libc::SIGTRAP, stepped as *const () as usize);
    protect(libc::PROT_READ);
}

/// Up to here.
pub fn end() {
    protect(libc::PROT_READ | libc::PROT_WRITE);
}

fn protect(how: c_int) {
    // SAFETY: a mapping of this process. Whoever stores to it while it is
    // read-only ends up in `fault`.
    unsafe { libc::mprotect(AT.load(SeqCst) as *mut c_void, SIZE.load(SeqCst), how) };
}

fn handle(signal: c_int, handler: usize) {
    // SAFETY: the handlers below have the type that SA_SIGINFO asks for, and call
    // only what may be called from a handler.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_flags = libc::SA_SIGINFO;
        action.sa_sigaction = handler;
        assert_eq!(
            libc::sigaction(signal, &raw const action, std::ptr::null_mut()),
            0
        );
    }
}

/// A store: is let through, and only it.
unsafe extern "C" fn fault(_: c_int, info: *mut libc::siginfo_t, context: *mut libc::ucontext_t) {
    // SAFETY: what the kernel passes to a handler; it goes on with these registers.
    unsafe {
        let address = (*info).si_addr() as usize;
        if address.wrapping_sub(AT.load(SeqCst)) >= SIZE.load(SeqCst) {
            libc::_exit(99); // a real one
        }
        protect(libc::PROT_READ | libc::PROT_WRITE);
        (*context).uc_mcontext.gregs[libc::REG_EFL as usize] |= TRAP_FLAG;
    }
}

/// It was made.
unsafe extern "C" fn stepped(_: c_int, _: *mut libc::siginfo_t, context: *mut libc::ucontext_t) {
    // SAFETY: as above; a signal to this very process.
    unsafe {
        (*context).uc_mcontext.gregs[libc::REG_EFL as usize] &= !TRAP_FLAG;
        protect(libc::PROT_READ);
        if LEFT.fetch_sub(1, SeqCst) == 1 {
            libc::kill(libc::getpid(), SIGNAL.load(SeqCst));
        }
    }
}
