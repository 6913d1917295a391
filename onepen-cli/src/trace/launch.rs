//! Runs a program with the library in it, and reads what that notes meanwhile.
//!
//! Guarantees: the program has its own input, output and signals; ctrl-C is its
//! business (the terminal tells it too), and what it does about it decides when the
//! report comes. The directory with the library is this user's alone, and gone
//! afterwards unless processes are left that need it.

use std::env;
use std::ffi::OsString;
use std::io::{ErrorKind, IsTerminal as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use onepen_trace::Events;
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use tempfile::TempDir;

use super::program;
use super::tally::Tally;

/// How often what was noted is read: the slots are enough for 400,000 in a second.
const LOOK: Duration = Duration::from_millis(20);

/// Why a program did not run, and the exit status that says so.
pub struct Failure {
    pub code: u8,
    pub why: String,
}

fn cannot(why: String) -> Failure {
    Failure { code: 125, why }
}

/// How the program ended.
#[derive(Clone, Copy, Debug)]
pub struct Exit(ExitStatus);

impl Exit {
    /// What is passed on: its own, or as a shell says it of a signal.
    pub fn code(self) -> u8 {
        let code = self
            .0
            .code()
            .or_else(|| self.signal().map(|signal| 128 + signal));
        u8::try_from(code.unwrap_or(255)).unwrap_or(255)
    }

    /// The signal that ended it.
    pub fn signal(self) -> Option<i32> {
        self.0.signal()
    }
}

/// What came of it.
pub struct Ran {
    pub exit: Exit,
    pub lasted: Duration,
    pub tally: Tally,
    /// Processes of it that go on.
    pub left: usize,
    /// Where the library was left for them.
    pub kept: Option<PathBuf>,
}

/// Runs it to its end.
pub fn run(command: &[OsString]) -> Result<Ran, Failure> {
    let name = &command[0];
    let shown = Path::new(name).display();
    let path = program::find(name).ok_or_else(|| Failure {
        code: 127,
        why: format!("{shown}: not found"),
    })?;
    if onepen_trace::LIBRARY.is_empty() {
        return Err(cannot(
            "programs are traced on Linux with 64 bits only".to_owned(),
        ));
    }
    if let Some(why) = program::why_not(&path) {
        return Err(cannot(why));
    }
    let (home, mut events) = home()?;

    let started = Instant::now();
    let mut child = Command::new(name)
        .args(&command[1..])
        .env("LD_PRELOAD", preload(events.library()))
        .spawn()
        .map_err(|error| Failure {
            code: if error.kind() == ErrorKind::NotFound {
                127
            } else {
                126
            },
            why: format!("{shown}: {error}"),
        })?;
    let pid = child.id();
    pass_signals(pid)?;
    let (tell, ended) = mpsc::channel();
    thread::spawn(move || tell.send(child.wait()));
    let mut tally = Tally::default();
    let mut all = Vec::new();
    let status = loop {
        let over = match ended.recv_timeout(LOOK) {
            Ok(status) => Some(status),
            Err(mpsc::RecvTimeoutError::Timeout) => None,
            Err(mpsc::RecvTimeoutError::Disconnected) => Some(Err(ErrorKind::Other.into())),
        };
        let read = match &over {
            None => events
                .collect(is_alive, |record| all.push(record))
                .map(drop),
            Some(_) => events.finish(|record| all.push(record)),
        };
        read.and_then(|()| tally.add(&mut all, &events))
            .map_err(|error| cannot(format!("what it noted cannot be read: {error}")))?;
        if let Some(status) = over {
            break status;
        }
    };
    let lasted = started.elapsed();
    let status = status.map_err(|error| cannot(format!("{shown}: {error}")))?;
    let noted = tally.finish(&events);
    noted.map_err(|error| cannot(format!("what it noted cannot be read: {error}")))?;
    let left = tally
        .traced()
        .filter(|it| *it != pid && is_alive(*it))
        .count();
    let kept = (left > 0).then(|| home.keep());
    Ok(Ran {
        exit: Exit(status),
        lasted,
        tally,
        left,
        kept,
    })
}

/// Whether a process is there.
pub fn is_alive(pid: u32) -> bool {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    pid.is_some_and(|pid| test_kill_process(pid) != Err(rustix::io::Errno::SRCH))
}

/// A directory from which programs may be mapped, whose name the loader takes, and
/// where there is room; the library and the file of events are in it.
fn home() -> Result<(TempDir, Events), Failure> {
    let said = |name| env::var_os(name).map(PathBuf::from);
    let places = [
        Some(env::temp_dir()),
        said("XDG_RUNTIME_DIR"),
        Some("/dev/shm".into()),
        Some("/var/tmp".into()),
        said("XDG_CACHE_HOME"),
    ];
    let mut why = String::new();
    for place in places.into_iter().flatten() {
        let tried = tempfile::Builder::new()
            .prefix("onepen-trace-")
            .tempdir_in(&place);
        let trouble = match tried {
            Ok(home) => match (unfit(home.path()), Events::create(home.path())) {
                (None, Ok(events)) => return Ok((home, events)),
                (Some(trouble), _) => trouble.to_owned(),
                (_, Err(error)) => error.to_string(),
            },
            Err(error) => error.to_string(),
        };
        why.push_str(&format!("{}: {trouble}; ", place.display()));
    }
    Err(cannot(format!(
        "{why}set TMPDIR to a directory where there is room (4 MB) and libraries may lie"
    )))
}

fn unfit(path: &Path) -> Option<&'static str> {
    use rustix::fs::{StatVfsMountFlags, statvfs};
    if path
        .as_os_str()
        .as_bytes()
        .iter()
        .any(|byte| b" :\t\n".contains(byte))
    {
        return Some("the loader ends a name at a space or a colon");
    }
    let is = statvfs(path).ok()?;
    let noexec = is.f_flag.contains(StatVfsMountFlags::NOEXEC);
    noexec.then_some("mounted noexec: no library can be loaded from it")
}

/// Ours first; what was there stays.
fn preload(library: &Path) -> OsString {
    let mut all = library.as_os_str().to_owned();
    if let Some(others) = env::var_os("LD_PRELOAD").filter(|others| !others.is_empty()) {
        all.push(":");
        all.push(others);
    }
    all
}

/// Of a terminal's ctrl-C the program hears by itself; a signal to this process
/// alone, or a second one, is passed on as a request to end.
fn pass_signals(child: u32) -> Result<(), Failure> {
    let heard = Arc::new(AtomicU32::new(u32::from(!std::io::stdin().is_terminal())));
    let child = i32::try_from(child).ok().and_then(Pid::from_raw);
    ctrlc::set_handler(move || {
        if heard.fetch_add(1, Ordering::Relaxed) > 0
            && let Some(child) = child
        {
            let _ = kill_process(child, Signal::TERM);
        }
    })
    .map_err(|error| cannot(format!("signals cannot be heard: {error}")))
}
