//! Which of SQLite's locks are taken when: the rules of this VFS in write-ahead
//! mode, as a machine that a model can drive. Pure: no pointers, no clock, no system.
//!
//! SQLite's core asks for one lock at a time ([`Call`]). The machine answers with
//! one [`Action`] after the other, each of which whoever drives it carries out and
//! reports ([`Told`]), until the action is an [`Action::Answer`]. Between any two
//! actions other processes may do anything.
//!
//! # What it guarantees
//!
//! - **The core's locks are real.** When the core is told that it has a lock, this
//!   connection holds it at the operating system. In particular, from the answer
//!   OK to [`Call::LockWrite`] to the next [`Call::UnlockWrite`] the write lock is
//!   held without a gap, whatever happens to read locks in between.
//! - **A promoted lock is tied to a read lock.** While this VFS holds the write
//!   lock and the core does not know it ([`Stage::Promoted`]), the core holds a
//!   read lock, and has to let it go at the end of its transaction: no path leads
//!   to a write lock that nobody remembers.
//! - **A promoted transaction cannot be stale.** The write lock was held when its
//!   snapshot was taken, so nobody can commit between its first read and its
//!   first write.
//! - **A turn is not a lock.** With [`Will::Perhaps`] only the turn at the gate is
//!   taken at the first read, and no lock that the core does not know of. Others of
//!   the queue keep away, and whoever does not queue may come in between: then the
//!   upgrade is refused, as it would have been.
//! - **Whoever writes has the turn**, and while it is a reader's who may write, nobody
//!   else of the queue writes, however slowly one or the other is scheduled: a turn that
//!   was taken is confirmed ([`Action::ConfirmTurn`]) before anything is read in it, and
//!   once more with the write lock in hand. (Exempt are upgrades that were not promoted.)
//! - **Waiting happens with no lock held**: [`Action::Wait`] only in
//!   [`Stage::Idle`], before the read lock. (A blocking checkpoint waits with the
//!   checkpoint lock, as it does without us; and with its read lock and for no longer than
//!   its time a promoted transaction waits for those who do not write,
//!   [`Action::WaitABit`]: they wait for nobody.)
//! - **An upgrade that was not promoted is SQLite's own business**: the real lock
//!   is asked at once, whoever's turn it is, and its answer is the answer.
//!
//! # States and calls
//!
//! | stage | what the core has | what is held | `LockRead` | `UnlockRead` | `LockWrite` | `UnlockWrite` |
//! |---|---|---|---|---|---|---|
//! | `Idle` | nothing | nothing | the start of a transaction: `Reading` or `Promoted` | – | a checkpoint's: in turn, `Writing`; else recovery's: passed on, `Recovering` | – |
//! | `Reading` | a read lock | the same | passed on | end: `Idle`, the turn is passed on | new: in turn, `Writing`; upgrade: passed on | – |
//! | `Promoted` | a read lock | the same, and the write lock | passed on | end: write lock freed, then `Idle` | **OK, already held**: `Writing` | – |
//! | `Writing` | the write lock | the same | passed on | passed on, **nothing else** | – | freed: `Reading` or `Idle` |
//! | `Recovering` | the write lock, no snapshot | the same | passed on | passed on | – | freed: `Idle` |
//!
//! Two rows are there because earlier attempts were wrong without them:
//!
//! - `walRestartLog` of SQLite lets read lock 0 go and takes another *in the middle
//!   of a write transaction*. That is `Writing` × `UnlockRead`: it is not the end
//!   of the transaction, and must free nothing. Only the core itself knows when it
//!   has finished writing, and says it with `UnlockWrite`.
//! - `walTryBeginRead` lets a read lock go and tries again when somebody committed
//!   between its look at the wal-index and the lock. Whoever waits for its turn in
//!   between always comes to that. In `Promoted` it looks like the end of a
//!   transaction. So the header of the wal-index is compared *with the write lock
//!   held*: if it is not as it was when the core asked, the write lock is freed
//!   again, the core is let run into its retry, and only the turn is kept
//!   ([`Machine::again`]), which is an order and not a lock.

mod machine;
mod several;

pub use machine::Machine;
pub use several::{Identity, Next, Several};

/// What the core asks of `xShmLock`. Everything else it may ask (marks of readers,
/// which are exclusive; recovery's ranges; shared looks) is none of the machine's
/// business and is passed on without it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Call {
    /// A shared lock on one of the five read slots.
    LockRead,
    /// Gives it back.
    UnlockRead,
    /// The exclusive lock on the write slot.
    LockWrite,
    /// Gives it back.
    UnlockWrite,
    /// The exclusive lock on the checkpoint slot.
    LockCheckpoint,
    /// Gives it back.
    UnlockCheckpoint,
    /// Not the core's: the program does not want its transactions promoted any more.
    /// This one goes on as one that was not.
    Demote,
    /// The shared memory is let go, or the file is closed: nothing may be left.
    Close,
}

/// Whether a transaction that begins to read is going to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Will {
    /// Leave it alone: it only reads, or takes the write lock at once by itself.
    Read,
    /// It will write, and the lock is to be taken for it.
    Write,
    /// It will write, but the lock is not to be taken for it: the turn, as for
    /// [`Will::Perhaps`], but not before the lock is free. Who writes out of turn (a
    /// transaction that was not foreseen, somebody who does not queue) would refuse it
    /// later, when it cannot wait any more.
    Turn,
    /// It may write, but the lock is not to be taken for it: it gets the turn for its
    /// whole length. Others of the queue keep away while it moves on, and nobody has
    /// to wait for long if it only reads and takes its time.
    Perhaps,
}

/// What has to be done next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Say whether the transaction that begins will write → [`Told::Foreseen`].
    Foresee,
    /// Remember the wal-index header as it is now → [`Told::Yes`].
    RememberHeader,
    /// Is the header as it was remembered? → [`Told::Yes`], [`Told::No`].
    HeaderIsSame,
    /// Take the turn at the gate, if that needs no waiting → [`Told::Yes`],
    /// [`Told::No`]. Without a gate: yes.
    TryTurn,
    /// Is it still our turn? → [`Told::Yes`], [`Told::No`]. Who was not scheduled for a
    /// while may have been passed over without knowing it. From a Yes on, nobody takes
    /// the turn away as long as the write lock is held, or, without it, as the
    /// transaction may read.
    ConfirmTurn,
    /// Somebody has the write lock in our turn, after the transaction has read. If he has
    /// written there is nothing to be saved. If not, he got it while he was no longer, or
    /// not yet, able to know whose turn it is (a reader with a torn header, or one that
    /// was passed over), and lets it go at once: wait for that → [`Told::Yes`], or, when
    /// the time for reading is over, [`Told::No`].
    WaitABit,
    /// Wait until it is worth trying again → [`Told::Yes`], or, when the
    /// connection's patience is at its end, [`Told::No`].
    Wait(Will),
    /// Is no transaction open on this file yet? → [`Told::Yes`], [`Told::No`].
    BeginsTransaction,
    /// The core lets its read lock go only to read the header again, and the same
    /// transaction goes on? → [`Told::Yes`], [`Told::No`]. In doubt, no.
    Retries,
    /// Do what the core asked → [`Told::Yes`] when that was granted. Its result is
    /// what [`Answer::AsReal`] answers.
    Pass,
    /// Take the real write lock, without waiting → [`Told::Yes`], [`Told::No`].
    RealLockWrite,
    /// Free the real write lock → [`Told::Yes`].
    RealUnlockWrite,
    /// Will the core check-point now? Asked after a commit → [`Told::Yes`],
    /// [`Told::No`].
    ExpectsCheckpoint,
    /// The expected checkpoint did not come → [`Told::Yes`].
    NoCheckpointCame,
    /// A transaction of this kind wrote, or ended without → [`Told::Yes`].
    Learn(bool),
    /// Pass the turn on, if there is one, and leave the line → [`Told::Yes`].
    PassOn,
    /// The call is over.
    Answer(Answer),
}

/// What the core is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Answer {
    /// `SQLITE_OK`, without asking anybody.
    Ok,
    /// `SQLITE_BUSY`: it is not this connection's turn. The core lets its read lock
    /// go and calls its busy handler, which is where the wait is.
    NotYourTurn,
    /// The result of the last [`Action::Pass`] or, where there was none, of the last
    /// [`Action::RealLockWrite`].
    AsReal,
}

/// What came of an action.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Told {
    /// Done, granted, so it is.
    Yes,
    /// Refused, not so.
    No,
    /// To [`Action::Foresee`].
    Foreseen(Will),
}

impl From<bool> for Told {
    fn from(yes: bool) -> Self {
        if yes { Self::Yes } else { Self::No }
    }
}

/// What is held between two calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Stage {
    /// Nothing.
    #[default]
    Idle,
    /// The core has a read lock.
    Reading,
    /// The core has a read lock, and we the write lock.
    Promoted,
    /// The core has the write lock, and beside it a read lock or not.
    Writing {
        /// It has a read lock now.
        reading: bool,
    },
    /// The core has the write lock without a snapshot, to build the wal-index.
    Recovering,
}
