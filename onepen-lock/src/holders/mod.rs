//! Who holds which of SQLite's locks, read from the operating system.
//!
//! [`look`] names the processes that hold a lock on a database, and which lock in
//! SQLite's words: a Python script and a shell as well as a program of ours,
//! without their help. It guarantees:
//!
//! * **No file of the database is opened.** Closing any descriptor of one would
//!   drop every POSIX lock this process has on it, those of SQLite's own
//!   connections included
//!   (<https://www.sqlite.org/howtocorrupt.html#_posix_advisory_locks_canceled_by_a_separate_thread_doing_close_>).
//!   So it may be called in a process that has the database open.
//! * It takes no lock and changes nothing.
//! * What could not be seen is said ([`Look::unseen`]), never guessed.
//!
//! POSIX locks, which SQLite takes, and locks of open file descriptions (OFD),
//! which some other VFSs take, are both seen. A POSIX lock belongs to a process,
//! so which of its connections or threads has it the system does not know, nor
//! since when. A look is a moment, not a history: a list of locks is read in
//! pieces, and somebody may have let go by the time it is returned.
//!
//! Not seen: locks of processes in another namespace of processes (a container
//! beside this one), of other machines, and of the VFSs `unix-dotfile` and
//! `unix-flock`. Only Linux is supported; elsewhere [`look`] says so
//! ([`Cannot::NotSupported`]).
//!
//! ```no_run
//! # fn main() -> Result<(), onepen_lock::holders::Cannot> {
//! let look = onepen_lock::holders::look("app.db".as_ref())?;
//! if let Some(writer) = look.writer() {
//!     println!("{writer}"); // python3 app.py (pid 4242, sleeping) has WRITER, READ1
//! }
//! # Ok(()) }
//! ```

mod bytes;
#[cfg(target_os = "linux")]
mod linux;
mod process;
pub(crate) mod table;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

pub use bytes::{
    Lock, PENDING_BYTE, RESERVED_BYTE, SHARED_BYTES, State, WAL_CHECKPOINT_BYTE, WAL_OPEN_BYTE,
    WAL_READ_BYTES, WAL_RECOVER_BYTE, WAL_WRITE_BYTE,
};
pub use process::{Activity, Process};

/// Looks once at who holds which lock of the database at `path`, following
/// symbolic links. Costs some system calls: a fraction of a millisecond, and
/// some milliseconds where somebody uses OFD locks, because then the descriptors
/// of all processes have to be looked through.
///
/// # Errors
/// See [`Cannot`].
pub fn look(path: &Path) -> Result<Look, Cannot> {
    #[cfg(target_os = "linux")]
    return linux::look(path);
    #[cfg(not(target_os = "linux"))]
    {
        let _ = path;
        Err(Cannot::NotSupported)
    }
}

/// Every process this one can see, in no order. Empty where that is not
/// supported.
pub fn processes() -> impl Iterator<Item = u32> {
    #[cfg(target_os = "linux")]
    return linux::processes();
    #[cfg(not(target_os = "linux"))]
    std::iter::empty()
}

/// Who held locks at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Look {
    /// One for each process that had a lock, writers first.
    pub holders: Vec<Holder>,
    /// What could not be seen.
    pub unseen: Vec<Unseen>,
}

impl Look {
    /// Whoever keeps others from writing.
    pub fn writer(&self) -> Option<&Holder> {
        self.holders.iter().find(|holder| holder.held.writes())
    }

    /// Everybody who is in the middle of reading, the writer too if it reads.
    pub fn readers(&self) -> impl Iterator<Item = &Holder> {
        self.holders.iter().filter(|holder| holder.held.reads())
    }
}

/// A process and the locks it has on the database.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Holder {
    /// `None`: the locks belong to an open file description of a process that
    /// could not be found.
    pub process: Option<Process>,
    /// Its locks.
    pub held: Held,
}

impl Holder {
    /// Whether this is the calling process.
    pub fn is_this_process(&self) -> bool {
        let here = std::process::id();
        self.process
            .as_ref()
            .is_some_and(|process| process.pid == here)
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.process {
            Some(process) => write!(f, "{process} has {}", self.held),
            None => write!(f, "a process that cannot be seen has {}", self.held),
        }
    }
}

/// The locks of one process on one database.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Held {
    /// Over a rollback journal: how far it has come. In write-ahead mode
    /// [`State::Shared`] means that it has the database open, and
    /// [`State::Exclusive`] that nobody else may.
    pub state: State,
    /// Its locks in the write-ahead log's shared memory, in order.
    pub locks: Vec<Lock>,
    /// It has the database open in write-ahead mode.
    pub in_wal: bool,
    /// At least one of the locks belongs to an open file description (OFD), not
    /// to the process.
    pub by_description: bool,
}

impl Held {
    /// It keeps everybody else from writing.
    pub fn writes(&self) -> bool {
        self.state >= State::Reserved
            || self
                .locks
                .iter()
                .any(|lock| matches!(lock, Lock::Writer | Lock::Recovery))
    }

    /// It is in a transaction that reads: over a rollback journal nobody can
    /// commit meanwhile, in write-ahead mode the log cannot be reset.
    pub fn reads(&self) -> bool {
        match self.in_wal {
            true => self.marks().next().is_some(),
            false => self.state == State::Shared,
        }
    }

    /// It copies the log back.
    pub fn checkpoints(&self) -> bool {
        self.locks.contains(&Lock::Checkpointer)
    }

    /// The read marks it shares, each the end of a snapshot that it reads.
    pub fn marks(&self) -> impl Iterator<Item = u8> {
        self.locks.iter().filter_map(|lock| match lock {
            Lock::Read(mark) => Some(*mark),
            _ => None,
        })
    }

    /// It has the database open and is in the middle of nothing.
    pub fn is_idle(&self) -> bool {
        !self.writes() && !self.reads() && self.locks.is_empty()
    }

    #[cfg(target_os = "linux")]
    fn weight(&self) -> (bool, bool, bool) {
        (self.writes(), self.checkpoints(), self.reads())
    }

    #[cfg(target_os = "linux")]
    fn tidy(mut self) -> Self {
        self.locks.sort_unstable();
        self.locks.dedup();
        self
    }
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // In write-ahead mode everybody has SHARED, so it says nothing.
        let hidden = self.in_wal && self.state <= State::Shared;
        if self.locks.is_empty() && hidden {
            return f.write_str("it open, no transaction");
        }
        let mut separator = "";
        if !hidden {
            write!(f, "{}", self.state)?;
            separator = ", ";
        }
        for lock in &self.locks {
            write!(f, "{separator}{lock}")?;
            separator = ", ";
        }
        Ok(())
    }
}

/// A part of the truth that a [`Look`] did not get to see.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Unseen {
    /// A process has a lock, and that is all that is known of it: it has just
    /// ended, or is hidden (`hidepid`).
    Process {
        /// Its number.
        pid: u32,
        /// What the system said.
        why: io::ErrorKind,
    },
    /// Locks belong to open file descriptions (OFD), and the descriptors of so
    /// many processes of other users may not be looked at.
    Descriptors {
        /// How many refused.
        processes: usize,
    },
}

impl fmt::Display for Unseen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Process { pid, why } => {
                write!(f, "could not see what process {pid} is ({why})")
            }
            Self::Descriptors { processes } => write!(
                f,
                "could not see whose some locks are: the descriptors of {processes} processes of \
                 other users may not be looked at"
            ),
        }
    }
}

/// Why a look was not possible at all.
#[derive(Debug)]
#[non_exhaustive]
pub enum Cannot {
    /// Only Linux shows the locks of other processes.
    NotSupported,
    /// The database, or its `-shm` file, could not be looked at: not there, not
    /// a file, or in a directory that may not be entered.
    Database(PathBuf, io::Error),
    /// The kernel's list of locks, `/proc/locks`, could not be read.
    Locks(io::Error),
}

impl fmt::Display for Cannot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotSupported => f.write_str(
                "who holds a lock can be seen on Linux only; this system does not show it",
            ),
            Self::Database(path, error) => {
                write!(f, "{}: cannot be looked at: {error}", path.display())
            }
            Self::Locks(error) => write!(
                f,
                "/proc/locks: the list of locks cannot be read: {error}; is /proc mounted?"
            ),
        }
    }
}

impl std::error::Error for Cannot {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::NotSupported => None,
            Self::Database(_, error) | Self::Locks(error) => Some(error),
        }
    }
}

/// The file that SQLite keeps beside `database` under this ending.
pub fn beside(database: &Path, ending: &str) -> PathBuf {
    let mut name = database.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::error::Error;

    #[test]
    fn what_was_not_seen_is_said_with_what_to_do_about_it() {
        let holder = Holder {
            process: None,
            held: Held::default(),
        };
        assert!(!holder.is_this_process());
        assert!(
            holder.to_string().starts_with("a process that cannot be"),
            "{holder}"
        );
        let unseen = Unseen::Process {
            pid: 42,
            why: io::ErrorKind::NotFound,
        };
        assert!(unseen.to_string().contains("process 42"), "{unseen}");
        let unseen = Unseen::Descriptors { processes: 3 };
        assert!(unseen.to_string().contains("of 3 processes"), "{unseen}");
        let denied = || io::Error::from(io::ErrorKind::PermissionDenied);
        let cannot = Cannot::Database("far/app.db".into(), denied());
        assert!(cannot.to_string().starts_with("far/app.db: "), "{cannot}");
        assert!(cannot.source().is_some());
        let cannot = Cannot::Locks(denied());
        assert!(cannot.to_string().contains("is /proc mounted?"), "{cannot}");
        assert!(cannot.source().is_some());
        assert!(Cannot::NotSupported.to_string().contains("Linux only"));
        assert!(Cannot::NotSupported.source().is_none());
    }
}
