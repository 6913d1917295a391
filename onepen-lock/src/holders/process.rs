//! What the system says about a process.
//!
//! Guarantees: what is shown of a command line is its program and, for an
//! interpreter, its script: no other argument, because arguments hold
//! passwords; and nothing that moves a terminal's cursor. Parsing is pure and
//! takes anything.

use std::fmt;
use std::io;

use crate::text::in_one_line;

/// What a process is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Activity {
    /// On a processor, or in line for one.
    Running,
    /// Waits for something: input, a timer, a lock, another process.
    Sleeping,
    /// In the middle of a system call that cannot be interrupted, most often one
    /// to a disk.
    InDisk,
    /// Stopped by a signal (ctrl-Z, `kill -STOP`): it goes on after `kill -CONT`.
    Stopped,
    /// Stopped by a debugger.
    Traced,
    /// Has ended, and its parent has not asked yet.
    Zombie,
    /// Not known.
    Unknown,
}

impl Activity {
    fn of(letter: char) -> Self {
        match letter {
            'R' => Self::Running,
            'S' | 'I' => Self::Sleeping,
            'D' => Self::InDisk,
            'T' => Self::Stopped,
            't' => Self::Traced,
            'Z' | 'X' | 'x' => Self::Zombie,
            _ => Self::Unknown,
        }
    }

    /// Whether it does nothing until somebody outside lets it go on.
    pub fn is_stopped(self) -> bool {
        matches!(self, Self::Stopped | Self::Traced)
    }
}

impl fmt::Display for Activity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Running => "running",
            Self::Sleeping => "sleeping",
            Self::InDisk => "waiting for a disk",
            Self::Stopped => "stopped",
            Self::Traced => "stopped by a debugger",
            Self::Zombie => "ended, not yet reaped",
            Self::Unknown => "state unknown",
        })
    }
}

/// A process, as it was at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Process {
    /// Its number, as this process sees it.
    pub pid: u32,
    /// Its program and, if it looks like one, its script: `python3 app.py`. Empty
    /// when it could not be seen.
    pub command: String,
    /// What it was doing.
    pub activity: Activity,
    /// When it was started, in clock ticks after the system was: with `pid` it
    /// names this process and no later one.
    pub started: u64,
    /// Processor time it has used, in clock ticks (most often 10 ms each), its
    /// threads included.
    pub ticks: u64,
}

impl Process {
    /// All that is known of a process that cannot be looked at.
    pub(super) fn unseen(pid: u32) -> Self {
        Self {
            pid,
            command: String::new(),
            activity: Activity::Unknown,
            started: 0,
            ticks: 0,
        }
    }

    /// What [`command`](Self::command) would be of these arguments, each ended by a
    /// zero byte (`/proc/PID/cmdline`), for a process that may have gone.
    pub fn command_of(arguments: &[u8]) -> Option<String> {
        command_of(arguments)
    }

    /// Looks at a process now.
    ///
    /// # Errors
    /// When it is gone, or hidden (`hidepid`).
    #[cfg(target_os = "linux")]
    pub fn look(pid: u32) -> io::Result<Self> {
        let stat = std::fs::read(format!("/proc/{pid}/stat"))?;
        let mut process = Self::parse_stat(pid, &String::from_utf8_lossy(&stat))
            .ok_or(io::ErrorKind::InvalidData)?;
        // What it is called stands in for a command line it does not have (the
        // kernel's own) or does not show.
        if let Ok(arguments) = std::fs::read(format!("/proc/{pid}/cmdline"))
            && let Some(command) = command_of(&arguments)
        {
            process.command = command;
        }
        Ok(process)
    }

    /// Looks at a process now.
    ///
    /// # Errors
    /// Always, here: only Linux shows processes as files.
    #[cfg(not(target_os = "linux"))]
    pub fn look(_pid: u32) -> io::Result<Self> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Reads `/proc/PID/stat` (`man 5 proc_pid_stat`). The name is in
    /// parentheses and may itself contain parentheses, spaces and line ends.
    fn parse_stat(pid: u32, stat: &str) -> Option<Self> {
        let (before, rest) = stat.rsplit_once(')')?;
        let (_, name) = before.split_once('(')?;
        let mut fields = rest.split_ascii_whitespace();
        let activity = Activity::of(fields.next()?.chars().next()?);
        let mut number = |skip: usize| fields.nth(skip)?.parse::<u64>().ok();
        // Fields 14 and 15 of the manual, then 22; the state is field 3.
        let (user, system) = (number(10)?, number(0)?);
        let started = number(6)?;
        Some(Self {
            pid,
            command: shown(name),
            activity,
            started,
            ticks: user.saturating_add(system),
        })
    }
}

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.command.as_str() {
            "" => write!(f, "process {}", self.pid),
            command => write!(f, "{command} (pid {}, {})", self.pid, self.activity),
        }
    }
}

/// The most of a name that is shown.
const LONGEST: usize = 60;

/// The part of a command line that says which program it is.
fn command_of(arguments: &[u8]) -> Option<String> {
    let mut words = arguments
        .split(|byte| *byte == 0)
        .filter(|word| !word.is_empty());
    let program = last_part(words.next()?);
    let command = match words.next() {
        // `python3 /srv/app.py`, `node server.js`: what an interpreter runs.
        // Anything else may be a secret, or as good as one.
        Some(word) if runs_scripts(&program) && looks_like_a_script(word) => {
            format!("{program} {}", last_part(word))
        }
        _ => program,
    };
    Some(command).filter(|command| !command.is_empty())
}

fn last_part(path: &[u8]) -> String {
    let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or(path);
    shown(&String::from_utf8_lossy(name))
}

fn runs_scripts(program: &str) -> bool {
    const INTERPRETERS: [&str; 12] = [
        "python", "pypy", "node", "deno", "bun", "ruby", "perl", "php", "bash", "sh", "java", "uv",
    ];
    let name = program.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.');
    INTERPRETERS.contains(&name)
}

fn looks_like_a_script(word: &[u8]) -> bool {
    let name = word.rsplit(|byte| *byte == b'/').next().unwrap_or(word);
    !name.is_empty()
        && !word.starts_with(b"-")
        && !word.windows(3).any(|part| part == b"://")
        && name
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(byte))
}

/// A name that is safe to print: a process chooses its own.
fn shown(name: &str) -> String {
    match name.char_indices().nth(LONGEST) {
        Some((end, _)) => in_one_line(&name[..end]) + "…",
        None => in_one_line(name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str = "12328 (python3) S 12321 12321 32537 0 -1 4194304 3017 6520 1 0 31 12 4 0 \
                        20 0 1 0 1241388 18845696 3848 18446744073709551615 94231159779328 0 0 0";

    /// The letters of `/proc/PID/stat`, as the kernel's `fs/proc/array.c` has them.
    #[test]
    fn every_state_that_the_kernel_tells_has_its_words() {
        let told = |letter| Activity::of(letter).to_string();
        for (letters, words) in [
            ("R", "running"),
            ("SI", "sleeping"),
            ("D", "waiting for a disk"),
            ("T", "stopped"),
            ("t", "stopped by a debugger"),
            ("ZXx", "ended, not yet reaped"),
            ("Pq", "state unknown"),
        ] {
            for letter in letters.chars() {
                assert_eq!(told(letter), words, "{letter}");
                assert_eq!(
                    Activity::of(letter).is_stopped(),
                    letters.eq_ignore_ascii_case("t")
                );
            }
        }
        let unseen = Process::unseen(7);
        assert_eq!((unseen.pid, unseen.activity), (7, Activity::Unknown));
        assert_eq!(unseen.command, "");
    }

    #[test]
    fn a_process_is_read_from_its_stat() {
        let process = Process::parse_stat(12328, STAT).unwrap();
        assert_eq!(process.command, "python3");
        assert_eq!(process.activity, Activity::Sleeping);
        assert_eq!((process.ticks, process.started), (43, 1_241_388));
        assert_eq!(process.to_string(), "python3 (pid 12328, sleeping)");
        let stopped = STAT.replacen(" S ", " T ", 1);
        let process = Process::parse_stat(1, &stopped).unwrap();
        assert!(process.activity.is_stopped());
    }

    #[test]
    fn a_name_may_hold_anything_and_is_shown_harmless() {
        let odd = STAT.replacen("(python3)", "(a) R 1 (\u{1b}[2J\n)", 1);
        let process = Process::parse_stat(12328, &odd).unwrap();
        assert_eq!(process.command, "a) R 1 (?[2J?");
        assert_eq!(process.activity, Activity::Sleeping);
        assert_eq!(shown("a\u{202e}b\u{7f}"), "a?b?");
        assert_eq!(shown(&"x".repeat(100)).chars().count(), LONGEST + 1);
    }

    #[test]
    fn what_is_no_stat_is_none() {
        for end in 0..STAT.len() {
            let _ = Process::parse_stat(1, &STAT[..end]);
        }
        for text in ["", ")", "(", ")(", "1 (a)", "1 (a) S", "1 (a) S x x x"] {
            assert_eq!(Process::parse_stat(1, text), None, "{text}");
        }
    }

    #[test]
    fn of_a_command_line_the_program_is_shown_and_no_argument() {
        for (arguments, command) in [
            (
                &b"/usr/bin/python3\0/srv/app.py\0--password=x\0"[..],
                "python3 app.py",
            ),
            (b"python3.11\0-c\0import secrets\0", "python3.11"),
            (b"sqlite3\0app.db\0", "sqlite3"),
            (b"node\0https://me:secret@host/\0", "node"),
            (b"bash\0a b\0", "bash"),
            (b"/opt/tool\0--token\0abc\0", "tool"),
            (b"ruby\0bin/rails\0", "ruby rails"),
        ] {
            assert_eq!(command_of(arguments).as_deref(), Some(command));
        }
        for nothing in [&b""[..], b"\0\0", b"/"] {
            assert_eq!(command_of(nothing), None);
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_is_seen_running_or_sleeping() {
        let this = Process::look(std::process::id()).unwrap();
        assert!(!this.command.is_empty());
        assert!(this.started > 0);
        assert_ne!(this.activity, Activity::Unknown);
        assert!(Process::look(u32::MAX).is_err());
    }
}
