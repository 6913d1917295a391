//! A fair queue between processes for SQLite's write lock.
//!
//! SQLite's own lock is safe and not fair: who waits for it polls, and a newcomer
//! may be lucky for ever while another starves. The gate makes an order *before*
//! that lock. It is advisory: it may be wrong, missing or ignored, and then only
//! fairness suffers; who may write is SQLite's lock to say, always.
//!
//! # What it guarantees
//!
//! - Turns pass in the order in which processes came to stand in line. A turn is a
//!   slice of time ([`SLICE`]): who has it may write several times in it, and the
//!   last write that began in it is finished.
//! - Who waits sleeps, and is woken when its turn comes.
//! - A process that dies, at whatever moment, keeps nobody waiting for longer than
//!   the next look ([*who looks*](#when-somebody-dies-or-stops)); nor does one that
//!   is stopped while it waits. One that is stopped while it holds SQLite's lock
//!   stalls all writers, as it does without the gate, for nobody may take that
//!   lock from it.
//! - The threads of a process take part as one ([`Seat`]).
//!
//! # The side file
//!
//! `app.db-gate`, beside the database, mapped by every process that takes part. It
//! is made once and stays. Nothing in it is trusted: there are no addresses in it,
//! every number is checked before it is used, and the worst that a wrong one can
//! do is to make somebody wait as he would have waited without the gate. Who has it
//! mapped when it is shortened goes on without the others
//! (a handler of SIGBUS sees to that, for faults in this file alone).
//!
//! It has a *turn word* and up to 128 *slots*, one for each process. A slot belongs
//! to whoever holds the kernel's lock on its byte, and the kernel takes that lock
//! away when the owner is gone, however it went.
//!
//! # The protocol
//!
//! The turn word says whose turn it is, in which phase, and how often it was
//! changed; it is changed by compare-and-swap only, on exactly the state that was
//! looked at:
//!
//! ```text
//!              take, nobody waits                    pass on, nobody waits
//!   free ──────────────────────────▶ held(A) ──────────────────────────▶ free
//!                                     ▲  │ ▲
//!              the next write of A    │  │ │ B wakes and claims it
//!                                     │  ▼ └───────────────────────────┐
//!                                   open(A) ─────────────────────▶ granted(B)
//!                             slice not over    pass on, B is first in line
//! ```
//!
//! - **To take**: when the turn is free and nobody waits, `free → held`. Otherwise
//!   draw a ticket, store it in the slot, *then* set the slot's bit among those that
//!   wait, *then* look at the turn word, and sleep on the slot's word if it is
//!   another's.
//! - **To pass on**: when somebody waits, `held → granted(first)` and wake him;
//!   otherwise `held → free`, *then* look again whether somebody waits, and if so
//!   `free → granted(first)`. Either the one that waits sees the free turn, or the
//!   one that freed it sees the bit (both are sequentially consistent), so no
//!   wake-up is lost. First is the oldest ticket whose slot lives.
//! - **To keep** the turn between two writes of a slice, `held → open`. The first
//!   in line is woken once in a slice and sets an alarm to its end; when it rings
//!   and the turn is still open, it hands it on (to itself: it is first).
//! - **To confirm** ([`Seat::confirm`]): with SQLite's lock in hand, `held → held` under
//!   a new number. Either it was passed over before, and knows it now and lets the lock
//!   go; or whoever was about to pass it over fails, looks again and finds the lock held.
//! - **To give up waiting**: clear bit and ticket, then look whether the turn was
//!   granted meanwhile, and if so hand it on. Who grants looks at the ticket again
//!   afterwards. One of the two sees the other.
//!
//! # When somebody dies or stops
//!
//! Whoever waits looks again every 10 ms when it is first in line, 10 ms later for
//! each place behind; and everybody looks when it comes. In every state:
//!
//! | who | when | what follows |
//! |---|---|---|
//! | owner dies | turn `held`, `granted` or `open` | its byte is free: the next to look hands the turn on. SQLite's lock, if it had that, is gone too: the kernel's work |
//! | owner dies | between `held → free` and the second look | the turn is free: the first in line takes it at its next look |
//! | who passes on dies | between `→ granted` and the wake-up | the other finds it at its next look |
//! | waiter dies | between ticket and bit | it is not in line, nobody ever looks for it |
//! | waiter dies | in line | its byte is free: it is taken off the line by whoever would grant it the turn |
//! | waiter dies | after `→ granted`, before it claimed | its byte is free, as an owner's |
//! | owner is stopped | `granted` | passed over after 5 ms, and off the line; when it goes on it stands in line again with its old ticket |
//! | owner is stopped | `open` | the slice ends |
//! | owner is stopped | `held` | after 10 ms without any change, and if SQLite's write lock is free at two looks 4 ms apart, it is passed over; when it goes on its next change fails and it knows. If SQLite's lock is held, everybody waits for that |
//! | owner reads what it will change ([`Seat::reads_first`]) | `held` | as above, but not before the time that it gave, a second at most |
//! | a new process gets a dead one's slot | any | it counts the slot's generation up before anything else, so that no turn or ticket of the dead is taken for its own |
//! | a process forks | any | the child has no seat. It keeps the parent's byte locked while it lives; if the parent dies first, its turn stands still, and is passed over as that of a stopped one |
//!
//! What the kernel guarantees, and nothing else is relied on: a lock on a byte is
//! freed when its open file description is closed for the last time, which a
//! process cannot escape by dying; a mapping of a file shows the same memory to
//! all; a futex on it wakes across processes.
//!
//! # Those that do not take part
//!
//! A program that does not know the gate (a shell, another library) polls for
//! SQLite's lock as always. While one has the database open, whoever has the turn
//! leaves a gap of a millisecond now and then in which nobody holds that lock:
//! rarely at first, more often once such a program was met writing
//! ([`Seat::met_a_stranger`]). It is waited for with SQLite's lock, by the one that
//! has the turn.
//!
//! # Notes of what was changed
//!
//! Behind the slots lie notes of the last 128 commits, for members that listen
//! ([`Gate::listen`]): which tables each changed. They are hints that have to prove
//! themselves against what SQLite tells of its commits ([`Gate::notes`]).
//!
//! # A log that has to be kept
//!
//! A process that failed to flush what it copied from the write-ahead log says so
//! in the header ([`Gate::keep_log`]): the log may be the only place where that is,
//! and no other process can know.
//!
//! # Where it works
//!
//! Linux. Elsewhere [`Gate::join`] answers [`NotJoined::Unsupported`]. Databases
//! that are read only, private to the process or on a read-only file system need
//! no gate; over a rollback journal it orders the writers as well, while readers
//! can delay a COMMIT within its turn.

mod view;

#[cfg(target_os = "linux")]
mod alive;
#[cfg(target_os = "linux")]
mod clock;
#[cfg(not(target_os = "linux"))]
mod elsewhere;
#[cfg(target_os = "linux")]
mod file;
#[cfg(target_os = "linux")]
mod kept;
#[cfg(target_os = "linux")]
mod layout;
#[cfg(target_os = "linux")]
mod lock_table;
#[cfg(target_os = "linux")]
mod map;
#[cfg(target_os = "linux")]
mod member;
#[cfg(target_os = "linux")]
mod notes;
#[cfg(target_os = "linux")]
mod observer;
#[cfg(target_os = "linux")]
mod queue;
#[cfg(target_os = "linux")]
mod seat;
#[cfg(target_os = "linux")]
mod shortened;
#[cfg(target_os = "linux")]
mod text;
#[cfg(all(test, target_os = "linux"))]
mod together;

#[cfg(not(target_os = "linux"))]
pub use elsewhere::{Gate, Left, Note, Observer, Seat, Stamp};
#[cfg(target_os = "linux")]
pub use kept::Left;
#[cfg(target_os = "linux")]
pub use member::Gate;
#[cfg(target_os = "linux")]
pub use notes::{Note, Stamp};
#[cfg(target_os = "linux")]
pub use observer::Observer;
#[cfg(target_os = "linux")]
pub use seat::Seat;
pub use view::{Counters, Member, Stand, View};

use std::fmt;
use std::io;
use std::time::Duration;

/// How long a process may keep the turn when others wait for it. Shorter is a
/// shorter wait and more changes of turn, each of which costs a wake-up.
pub const SLICE: Duration = Duration::from_millis(1);

/// Why a process has no place at the gate. It may write all the same: SQLite's
/// lock decides, without an order.
#[derive(Debug)]
#[non_exhaustive]
pub enum NotJoined {
    /// This operating system lacks what the gate needs.
    Unsupported,
    /// The side file has another version of the protocol.
    OtherVersion,
    /// The side file cannot be trusted; the text says why. It was not touched.
    Untrusted(&'static str),
    /// All 128 places are taken.
    Full,
    /// The side file could not be made, opened or grown: no permission, a read-only
    /// file system, a full disk.
    Io(io::Error),
}

impl fmt::Display for NotJoined {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unsupported => f.write_str("this operating system has no gate"),
            Self::OtherVersion => {
                f.write_str("the side file `-gate` is of another version of onepen")
            }
            Self::Untrusted(why) => write!(f, "the side file `-gate` cannot be used: {why}"),
            Self::Full => f.write_str("all 128 places of the side file `-gate` are taken"),
            Self::Io(error) => write!(f, "the side file `-gate` cannot be used: {error}"),
        }
    }
}

impl std::error::Error for NotJoined {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io(error) => Some(error),
            _ => None,
        }
    }
}

impl From<io::Error> for NotJoined {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// How a wait for the turn ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Waited {
    /// It is our turn. [`Seat::pass_on`] has to follow.
    Turn,
    /// The time was up. The seat keeps its place in line until
    /// [`Seat::leave`].
    TimedOut,
    /// Whoever was asked said that nobody wants the turn any more. The seat has
    /// left the line.
    GaveUp,
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::error::Error;

    #[test]
    fn why_there_is_no_place_is_said_in_words_that_name_the_file() {
        for why in [
            NotJoined::OtherVersion,
            NotJoined::Untrusted("it is a pipe"),
            NotJoined::Full,
            NotJoined::Io(io::ErrorKind::StorageFull.into()),
        ] {
            let text = why.to_string();
            assert!(text.contains("`-gate`"), "{text}");
            assert_eq!(why.source().is_some(), matches!(why, NotJoined::Io(_)));
        }
        assert!(NotJoined::Unsupported.to_string().contains("system"));
    }
}
