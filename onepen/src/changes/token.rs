//! Waiting for the COMMIT of somebody else.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::str::FromStr;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use onepen_lock::gate::{Gate, Stamp};

use crate::error::{Error, ErrorKind, Outcome};

/// What will become of a write that is running: taken inside its closure
/// ([`WriteTx::commit_token`](crate::WriteTx::commit_token)), and given to
/// whoever has to wait until his reads include it.
///
/// A token is of one *run* of a closure. When the closure is run again, the token
/// of the run that was undone says [`Outcome::NotCommitted`].
#[derive(Clone)]
pub struct CommitToken(Arc<Fate>);

struct Fate {
    address: Option<CommitAddress>,
    outcome: Mutex<Option<Outcome>>,
    known: Condvar,
}

impl Fate {
    fn outcome(&self) -> MutexGuard<'_, Option<Outcome>> {
        self.outcome.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl CommitToken {
    pub(crate) fn new(address: Option<CommitAddress>) -> Self {
        Self(Arc::new(Fate {
            address,
            outcome: Mutex::default(),
            known: Condvar::new(),
        }))
    }

    /// The same for another process, as a text: see [`CommitAddress`]. `None` where
    /// this process has no place at the gate
    /// ([`Stats::alone_because`](crate::Stats::alone_because)), and over a rollback
    /// journal.
    pub fn address(&self) -> Option<CommitAddress> {
        self.0.address
    }

    pub(crate) fn settle(&self, outcome: Outcome) {
        self.0.outcome().get_or_insert(outcome);
        self.0.known.notify_all();
    }

    /// What became of it, if that is known. After [`Outcome::Committed`] every
    /// read that begins includes it, in this process and in every other.
    pub fn outcome(&self) -> Option<Outcome> {
        *self.0.outcome()
    }

    /// Waits for the outcome, at most so long; `None` when it is not known by
    /// then. Waiting within the very closure it is of would be in vain.
    pub fn wait(&self, at_most: Duration) -> Option<Outcome> {
        let deadline = Instant::now().checked_add(at_most);
        let mut outcome = self.0.outcome();
        loop {
            if outcome.is_some() {
                return *outcome;
            }
            outcome = match deadline {
                None => self.0.known.wait(outcome),
                Some(at) => {
                    let left = at.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return None;
                    }
                    let waited = self.0.known.wait_timeout(outcome, left);
                    Ok(waited.unwrap_or_else(PoisonError::into_inner).0)
                }
            }
            .unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl fmt::Debug for CommitToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("CommitToken").field(&self.outcome()).finish()
    }
}

/// The tokens that were taken in the open transaction, in order.
#[derive(Default)]
pub(crate) struct Tokens {
    taken: Vec<CommitToken>,
    mark: usize,
}

impl Tokens {
    /// A token of the transaction that begins in the state `before`, if others can
    /// be told of it.
    pub(crate) fn take(&mut self, before: Option<Stamp>) -> CommitToken {
        let address = before.map(|before| CommitAddress {
            before,
            id: RandomState::new().hash_one(self.taken.len()),
        });
        let token = CommitToken::new(address);
        self.taken.push(token.clone());
        token
    }

    /// The numbers of those that have an address, and whether that is all of them.
    pub(crate) fn ids(&self) -> (Vec<u64>, bool) {
        let addresses = self.taken.iter().filter_map(CommitToken::address);
        (addresses.map(|address| address.id).collect(), true)
    }

    pub(crate) fn savepoint(&mut self) {
        self.mark = self.taken.len();
    }

    pub(crate) fn rollback_to(&mut self) {
        let mark = self.mark.min(self.taken.len());
        for token in self.taken.drain(mark..) {
            token.settle(Outcome::NotCommitted);
        }
    }

    #[inline]
    pub(crate) fn settle(&mut self, outcome: Outcome) {
        self.mark = 0;
        for token in self.taken.drain(..) {
            token.settle(outcome);
        }
    }
}

impl Drop for Tokens {
    fn drop(&mut self) {
        self.settle(Outcome::NotCommitted);
    }
}

/// A [`CommitToken`] for another process: a short text (`Display`, `FromStr`) that can
/// be sent there while the write still runs, and is given to
/// [`Database::wait_for`](crate::Database::wait_for).
///
/// It names the state of the database before the write, by SQLite's count of commits
/// and its checksum over the log, and one number drawn at random. What became of it is
/// told by the note that the writer leaves in the gate's side file after its COMMIT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommitAddress {
    before: Stamp,
    id: u64,
}

impl fmt::Display for CommitAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Stamp { commits, checksum } = self.before;
        write!(f, "{commits:x}-{checksum:x}-{:x}", self.id)
    }
}

impl FromStr for CommitAddress {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let mut parts = text.trim().split('-');
        let mut number = || u64::from_str_radix(parts.next()?, 16).ok();
        let read = || {
            let commits = number()?.try_into().ok()?;
            let (checksum, id) = (number()?, number()?);
            let before = Stamp { commits, checksum };
            Some(Self { before, id })
        };
        let read = { read }();
        read.filter(|_| parts.next().is_none()).ok_or_else(|| {
            Error::new(
                ErrorKind::Other,
                "this is not the address of a commit (`CommitToken::address`): three numbers in \
                 hexadecimal digits with `-` between them",
            )
        })
    }
}

/// What is known of it.
pub(crate) enum Known {
    /// It is not committed yet, if ever.
    NotYet,
    /// Its number is reached, and there is no note of it.
    NoNote,
    Outcome(Outcome),
    /// It will never be known here.
    Never,
}

impl CommitAddress {
    /// What is known when the database is at `now`.
    pub(crate) fn look(&self, gate: &Gate, now: Stamp) -> Known {
        let commits = self.before.commits;
        match now.commits.wrapping_sub(commits).cast_signed() {
            0 if now == self.before => Known::NotYet,
            ..=0 => Known::Never, // the log was made anew, or it is of another database
            _ => match gate.note_of(commits.wrapping_add(1)) {
                Some(note) if note.before == self.before => {
                    if note.tokens.contains(&self.id) {
                        Known::Outcome(Outcome::Committed)
                    } else if note.all_tokens {
                        Known::Outcome(Outcome::NotCommitted)
                    } else {
                        Known::Never
                    }
                }
                _ => Known::NoNote,
            },
        }
    }
}
