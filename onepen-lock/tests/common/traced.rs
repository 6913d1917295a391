//! A process that is stopped before each of its system calls, or after each of
//! its instructions, and can be killed there.
//!
//! That is what debuggers do (`ptrace`), and it needs nothing of the program: no
//! switch, no failpoint in its source. A test that kills at the first stop, then
//! at the second, and so on until the program ends by itself, has killed it at
//! every place that anybody else can tell apart.
//!
//! The program says where it is by [`mark`]s. All that is asked of the system is
//! that it lets a process trace its own children, which every Linux does unless
//! it was locked down (`kernel.yama.ptrace_scope = 3`, or a container's filter of
//! system calls).
#![allow(dead_code, reason = "each test program uses its own part")]

use std::collections::HashMap;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use libc::{c_int, c_long, pid_t};

/// Below every descriptor that a program closes by mistake.
const MARKS: c_long = -1_000_000;

/// Tells whoever traces this process that it is at `point`. To anybody else it
/// is a descriptor that cannot be closed because there is none.
pub fn mark(point: u32) {
    // SAFETY: a negative number is no descriptor.
    unsafe { libc::syscall(libc::SYS_close, MARKS - c_long::from(point)) };
}

/// As [`mark`], for who runs until then without being stopped: see
/// [`Traced::run_to_signal`].
pub fn signal() {
    // SAFETY: a signal to this thread; its tracer takes it away.
    unsafe { libc::raise(libc::SIGUSR1) };
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    Exited(c_int),
    Killed(c_int),
}

/// A system call, about to be made or just made.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    pub thread: pid_t,
    pub number: c_long,
    pub args: [u64; 6],
    /// What it returned: not yet, or negative for an error.
    pub returned: Option<i64>,
}

impl Call {
    /// The point that the process says it is at, if it is that and no call.
    pub fn mark(&self) -> Option<u32> {
        let closed = self.args[0] as c_long;
        let is_mark = self.number == libc::SYS_close && closed <= MARKS && closed > 2 * MARKS;
        (is_mark && self.returned.is_none()).then(|| (MARKS - closed) as u32)
    }
}

/// A process of this thread, and stopped.
pub struct Traced {
    pid: pid_t,
    /// The thread that stands still and has not been told to go on.
    stopped: Option<pid_t>,
    /// Its threads, and the system call that each of them is within.
    threads: HashMap<pid_t, Option<Call>>,
    ended: Option<Ended>,
}

impl Traced {
    /// Starts `command`, which stands before its first instruction. The thread
    /// that calls this is the only one that may use what it returns, and may have
    /// no other children that it waits for.
    pub fn start(command: &mut Command) -> Self {
        #[expect(clippy::zombie_processes, reason = "`wait` does, for all its threads")]
        // SAFETY: one system call without memory, between fork and exec.
        let child = unsafe {
            command.pre_exec(|| match libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            })
        }
        .spawn()
        .expect("this system lets a process trace its children");
        let pid = child.id() as pid_t;
        let mut traced = Self {
            pid,
            stopped: None,
            threads: HashMap::from([(pid, None)]),
            ended: None,
        };
        let (who, status) = traced.wait_for_any();
        assert!(who == pid && libc::WIFSTOPPED(status), "{status:#x}");
        let options =
            libc::PTRACE_O_TRACESYSGOOD | libc::PTRACE_O_TRACECLONE | libc::PTRACE_O_EXITKILL;
        // SAFETY: a child of this thread that has stopped; numbers only.
        let set = unsafe { libc::ptrace(libc::PTRACE_SETOPTIONS, pid, 0, options) };
        assert_eq!(set, 0, "{}", std::io::Error::last_os_error());
        traced.stopped = Some(pid);
        traced
    }

    pub fn pid(&self) -> u32 {
        self.pid as u32
    }

    /// How it ended, once a call has said that it did.
    pub fn ended(&self) -> Option<Ended> {
        self.ended
    }

    /// Lets it run to the next system call of any of its threads, either about to
    /// be made or just made; `None` when it has ended.
    pub fn run_to_call(&mut self) -> Option<Call> {
        loop {
            if let Some(thread) = self.stopped.take() {
                resume(libc::PTRACE_SYSCALL, thread, 0);
            }
            let (thread, status) = self.wait()?;
            if libc::WSTOPSIG(status) != libc::SIGTRAP | 0x80 {
                self.stop_of_another_kind(libc::PTRACE_SYSCALL, thread, status);
                continue;
            }
            self.stopped = Some(thread);
            return Some(self.look_at_call(thread));
        }
    }

    /// Lets it run, without a stop, until one of its threads [signals](signal).
    /// That thread is the one that [`step`](Self::step) steps.
    pub fn run_to_signal(&mut self) -> Option<()> {
        if let Some(thread) = self.stopped.take() {
            resume(libc::PTRACE_CONT, thread, 0);
        }
        loop {
            let (thread, status) = self.wait()?;
            if libc::WSTOPSIG(status) == libc::SIGUSR1 {
                self.stopped = Some(thread);
                return Some(());
            }
            self.stop_of_another_kind(libc::PTRACE_CONT, thread, status);
        }
    }

    /// Runs one instruction of the thread that signalled; the others run freely.
    pub fn step(&mut self) -> Stepped {
        let stepping = self.stopped.take().expect("it has signalled");
        resume(libc::PTRACE_SINGLESTEP, stepping, 0);
        while let Some((thread, status)) = self.wait() {
            let signal = libc::WSTOPSIG(status);
            if thread != stepping {
                self.stop_of_another_kind(libc::PTRACE_CONT, thread, status);
            } else if signal == libc::SIGTRAP && status >> 16 == 0 {
                self.stopped = Some(stepping);
                return Stepped::Once;
            } else if signal == libc::SIGUSR1 {
                self.stopped = Some(stepping);
                return Stepped::Signalled;
            } else {
                self.stop_of_another_kind(libc::PTRACE_SINGLESTEP, thread, status);
            }
        }
        Stepped::Ended
    }

    /// Lets it run to its end, without a stop.
    pub fn run_to_end(&mut self) -> Ended {
        while self.run_to_signal().is_some() {}
        self.ended.expect("it has ended")
    }

    /// `kill -9`, where it stands. A system call that it is about to make is not
    /// made. Whether that was its end: another of its threads may have been let into
    /// `exit_group` before.
    pub fn kill(mut self) -> bool {
        let leaves = self.threads.iter().any(|(thread, call)| {
            let within = call.is_some_and(|call| call.number == libc::SYS_exit_group);
            within && self.stopped != Some(*thread)
        });
        self.end();
        let killed = self.ended == Some(Ended::Killed(libc::SIGKILL));
        assert!(killed || leaves, "it ended by itself: {:?}", self.ended);
        killed
    }

    fn end(&mut self) {
        if self.ended.is_some() {
            return;
        }
        // SAFETY: numbers; the process is ours and has not been waited for.
        unsafe { libc::kill(self.pid, libc::SIGKILL) };
        while self.wait().is_some() {}
    }

    /// The file that a call is about, by its first argument.
    pub fn file_of(&self, call: &Call) -> Option<PathBuf> {
        let descriptor = call.args[0] as c_int;
        std::fs::read_link(format!("/proc/{}/fd/{descriptor}", self.pid)).ok()
    }

    /// Bytes of its memory.
    pub fn peek<const N: usize>(&self, address: u64) -> [u8; N] {
        use std::os::unix::fs::FileExt;
        let memory = std::fs::File::open(format!("/proc/{}/mem", self.pid)).unwrap();
        let mut bytes = [0; N];
        memory.read_exact_at(&mut bytes, address).unwrap();
        bytes
    }

    /// Somebody stopped, for a reason that is nobody's business: a new thread, a
    /// signal.
    fn stop_of_another_kind(&mut self, how: libc::c_uint, thread: pid_t, status: c_int) {
        let signal = libc::WSTOPSIG(status);
        let is_new = self.threads.insert(thread, None).is_none();
        let is_event = signal == libc::SIGTRAP && status >> 16 != 0;
        let deliver = if is_event || (is_new && signal == libc::SIGSTOP) || signal == libc::SIGTRAP
        {
            0
        } else {
            signal
        };
        resume(how, thread, deliver);
    }

    fn look_at_call(&mut self, thread: pid_t) -> Call {
        // SAFETY: zeros are a valid value, and the kernel writes no more than the
        // size it is told.
        let info = unsafe {
            let mut info: libc::ptrace_syscall_info = std::mem::zeroed();
            let size = size_of_val(&info);
            let got = libc::ptrace(libc::PTRACE_GET_SYSCALL_INFO, thread, size, &raw mut info);
            assert!(got > 0, "{}", std::io::Error::last_os_error());
            info
        };
        // SAFETY: the part of the union that `op` says.
        unsafe {
            if info.op == libc::PTRACE_SYSCALL_INFO_ENTRY {
                let call = Call {
                    thread,
                    number: info.u.entry.nr as c_long,
                    args: info.u.entry.args,
                    returned: None,
                };
                self.threads.insert(thread, Some(call));
                call
            } else {
                let made = self.threads.insert(thread, None).flatten();
                Call {
                    returned: Some(info.u.exit.sval),
                    // None: it was in it when it was first seen.
                    ..made.unwrap_or(Call {
                        thread,
                        number: -1,
                        args: [0; 6],
                        returned: None,
                    })
                }
            }
        }
    }

    fn wait_for_any(&mut self) -> (pid_t, c_int) {
        let mut status = 0;
        loop {
            // SAFETY: the kernel writes one number. Children of this thread only.
            let who =
                unsafe { libc::waitpid(-1, &raw mut status, libc::__WALL | libc::__WNOTHREAD) };
            if who > 0 {
                return (who, status);
            }
            let error = std::io::Error::last_os_error();
            assert_eq!(error.raw_os_error(), Some(libc::EINTR), "{error}");
        }
    }

    /// The next thread that stops; `None` when the process has ended.
    fn wait(&mut self) -> Option<(pid_t, c_int)> {
        while self.ended.is_none() {
            let (who, status) = self.wait_for_any();
            if let Some(stop) = self.is_stop(who, status) {
                return Some(stop);
            }
        }
        None
    }

    fn is_stop(&mut self, who: pid_t, status: c_int) -> Option<(pid_t, c_int)> {
        if libc::WIFSTOPPED(status) {
            return Some((who, status));
        }
        self.threads.remove(&who);
        if who == self.pid {
            self.ended = Some(if libc::WIFEXITED(status) {
                Ended::Exited(libc::WEXITSTATUS(status))
            } else {
                Ended::Killed(libc::WTERMSIG(status))
            });
        }
        None
    }
}

impl Drop for Traced {
    fn drop(&mut self) {
        self.end();
    }
}

/// What became of one step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stepped {
    Once,
    Signalled,
    Ended,
}

/// Keeps this thread, and the processes it starts from now on, on the processor
/// it is on: they take turns anyway, and so they do it several times as fast.
pub fn on_one_processor() {
    // SAFETY: a set of bits on the stack; sets what this thread runs on.
    unsafe {
        let mut here: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(libc::sched_getcpu() as usize, &mut here);
        libc::sched_setaffinity(0, size_of_val(&here), &raw const here);
    }
}

fn resume(how: libc::c_uint, thread: pid_t, signal: c_int) {
    // SAFETY: a traced thread that has stopped; numbers only. It may have been
    // killed meanwhile, which the next wait will say.
    unsafe { libc::ptrace(how, thread, 0, signal) };
}
