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
//! - **Waiting happens with no lock held**: [`Action::Wait`] only in
//!   [`Stage::Idle`], before the read lock. (A blocking checkpoint waits with the
//!   checkpoint lock, as it does without us.)
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

/// Where within a call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
enum Step {
    #[default]
    Between,
    Foreseeing,
    /// [`Action::NoCheckpointCame`] was asked, then the turn passed on.
    Disappointed,
    DisappointedPassed,
    Remembering(Will),
    TakingTurn(Will),
    WaitingForTurn(Will),
    TakingWrite(Will),
    WaitingForWrite(Will),
    /// Nobody had the lock.
    FreedForTurn,
    Comparing,
    ComparingTurn,
    /// The read lock of a promoted transaction.
    PassingPromoted,
    /// The core will find its header changed: the write lock goes first.
    LettingRetry,
    /// Promotion was given up.
    GivingUp,
    PassingRead,
    /// The read lock was refused with the write lock in hand.
    RefusedPromoted,
    AskingRetries,
    EndingPromoted {
        again: bool,
    },
    EndingPromotedPass {
        again: bool,
    },
    LearningEnd,
    EndingRead,
    LearningWrote,
    AskingNew,
    TryingNew,
    TryingUpgrade,
    TakingNew,
    TakingUpgrade,
    UpgradeLearnt {
        refused: bool,
    },
    PassingUnlockWrite,
    AskingCheckpoint,
    PassingCheckpoint,
    CheckpointRefused,
    PassingUnlockCheckpoint,
    /// Only the read flag changes.
    PassingWithin {
        reads: Option<bool>,
    },
    Recover,
    Demoting,
    ClosingWrite,
    Finishing(Answer),
}

/// The machine of one open file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Machine {
    stage: Stage,
    step: Step,
    checkpointing: bool,
    expects: bool,
    again: bool,
    /// It was foreseen that the transaction may write, and is not known yet.
    foreseen: bool,
}

impl Machine {
    /// What is held between two calls.
    pub fn stage(&self) -> Stage {
        self.stage
    }

    /// Whether the core holds the checkpoint lock.
    pub fn checkpointing(&self) -> bool {
        self.checkpointing
    }

    /// Whether the turn is kept because a checkpoint is to follow.
    pub fn expects_checkpoint(&self) -> bool {
        self.expects
    }

    /// Whether the turn is kept because the core is about to come again: its header
    /// was stale, or the write lock was somebody's who does not queue.
    pub fn again(&self) -> bool {
        self.again
    }

    /// Whether the write lock is held, with the core's knowledge or without.
    pub fn holds_write(&self) -> bool {
        matches!(
            self.stage,
            Stage::Promoted | Stage::Writing { .. } | Stage::Recovering
        )
    }

    /// The core asks for something.
    pub fn ask(&mut self, call: Call) -> Action {
        match call {
            Call::LockRead => self.lock_read(),
            Call::UnlockRead => self.unlock_read(),
            Call::LockWrite => self.lock_write(),
            Call::UnlockWrite => match self.stage {
                // The core never had it.
                Stage::Promoted => self.answer(Answer::Ok),
                Stage::Idle | Stage::Reading => {
                    self.go(Step::PassingWithin { reads: None }, Action::Pass)
                }
                Stage::Writing { .. } | Stage::Recovering => {
                    self.go(Step::PassingUnlockWrite, Action::Pass)
                }
            },
            Call::LockCheckpoint => self.go(Step::PassingCheckpoint, Action::Pass),
            Call::UnlockCheckpoint => self.go(Step::PassingUnlockCheckpoint, Action::Pass),
            Call::Demote if self.stage == Stage::Promoted => {
                self.go(Step::Demoting, Action::RealUnlockWrite)
            }
            Call::Demote => self.answer(Answer::Ok),
            Call::Close => {
                if self.stage == Stage::Promoted {
                    self.go(Step::ClosingWrite, Action::RealUnlockWrite)
                } else {
                    *self = Self::default();
                    self.go(Step::Finishing(Answer::Ok), Action::PassOn)
                }
            }
        }
    }

    /// What came of the last action.
    pub fn told(&mut self, told: Told) -> Action {
        let yes = told == Told::Yes;
        match self.step {
            Step::Between => self.answer(Answer::Ok),
            Step::Finishing(answer) => self.answer(answer),

            Step::Disappointed => self.go(Step::DisappointedPassed, Action::PassOn),
            Step::DisappointedPassed => self.go(Step::Foreseeing, Action::Foresee),
            Step::Foreseeing => match told {
                Told::Foreseen(will @ (Will::Write | Will::Turn | Will::Perhaps)) => {
                    self.foreseen = true;
                    self.go(Step::Remembering(will), Action::RememberHeader)
                }
                _ => self.go(Step::PassingRead, Action::Pass),
            },
            Step::Remembering(will) | Step::WaitingForTurn(will) if yes => {
                self.go(Step::TakingTurn(will), Action::TryTurn)
            }
            Step::TakingTurn(Will::Perhaps) if yes => {
                self.go(Step::ComparingTurn, Action::HeaderIsSame)
            }
            Step::TakingTurn(will) if yes => {
                self.go(Step::TakingWrite(will), Action::RealLockWrite)
            }
            Step::TakingTurn(will) => self.go(Step::WaitingForTurn(will), Action::Wait(will)),
            Step::TakingWrite(Will::Turn) if yes => {
                self.go(Step::FreedForTurn, Action::RealUnlockWrite)
            }
            Step::FreedForTurn => self.go(Step::ComparingTurn, Action::HeaderIsSame),
            Step::TakingWrite(_) if yes => self.go(Step::Comparing, Action::HeaderIsSame),
            Step::TakingWrite(will) => self.go(Step::WaitingForWrite(will), Action::Wait(will)),
            // The turn may have been passed over meanwhile.
            Step::WaitingForWrite(will) if yes => self.go(Step::TakingTurn(will), Action::TryTurn),
            Step::Remembering(_) | Step::WaitingForTurn(_) | Step::WaitingForWrite(_) => {
                self.go(Step::GivingUp, Action::PassOn)
            }
            Step::GivingUp => self.go(Step::PassingRead, Action::Pass),
            Step::Comparing if yes => self.go(Step::PassingPromoted, Action::Pass),
            Step::Comparing => self.go(Step::LettingRetry, Action::RealUnlockWrite),
            Step::ComparingTurn => {
                self.again = !yes;
                self.go(Step::PassingRead, Action::Pass)
            }
            Step::LettingRetry => {
                self.again = true;
                self.go(Step::PassingRead, Action::Pass)
            }
            Step::PassingPromoted if yes => {
                self.stage = Stage::Promoted;
                self.answer(Answer::AsReal)
            }
            Step::PassingPromoted => self.go(Step::RefusedPromoted, Action::RealUnlockWrite),
            Step::RefusedPromoted => {
                // The core comes again at once: somebody has moved its mark.
                self.again = true;
                self.answer(Answer::AsReal)
            }
            Step::PassingRead => {
                if yes {
                    self.stage = Stage::Reading;
                }
                self.answer(Answer::AsReal)
            }

            Step::AskingRetries if yes => {
                if self.stage == Stage::Promoted {
                    self.go(
                        Step::EndingPromoted { again: true },
                        Action::RealUnlockWrite,
                    )
                } else {
                    self.again = true;
                    self.go(Step::EndingRead, Action::Pass)
                }
            }
            Step::AskingRetries => self.go(Step::LearningEnd, Action::Learn(false)),
            Step::LearningEnd => {
                if self.stage == Stage::Promoted {
                    self.go(
                        Step::EndingPromoted { again: false },
                        Action::RealUnlockWrite,
                    )
                } else {
                    self.go(Step::EndingRead, Action::Pass)
                }
            }
            Step::EndingPromoted { again } => {
                self.stage = Stage::Reading;
                self.go(Step::EndingPromotedPass { again }, Action::Pass)
            }
            Step::EndingPromotedPass { again } => {
                self.stage = Stage::Idle;
                self.again = again;
                if again {
                    self.answer(Answer::AsReal)
                } else {
                    self.go(Step::Finishing(Answer::AsReal), Action::PassOn)
                }
            }
            Step::EndingRead => {
                self.stage = Stage::Idle;
                if self.again || self.expects || self.checkpointing {
                    self.answer(Answer::AsReal)
                } else {
                    self.go(Step::Finishing(Answer::AsReal), Action::PassOn)
                }
            }

            Step::LearningWrote => {
                self.foreseen = false;
                self.stage = Stage::Writing { reading: true };
                self.answer(Answer::Ok)
            }
            Step::AskingNew if yes => self.go(Step::TryingNew, Action::TryTurn),
            Step::AskingNew => self.go(Step::TryingUpgrade, Action::TryTurn),
            Step::TryingNew if yes => self.go(Step::TakingNew, Action::RealLockWrite),
            Step::TryingNew => self.answer(Answer::NotYourTurn),
            Step::TakingNew if yes => {
                self.stage = Stage::Writing {
                    reading: self.stage == Stage::Reading,
                };
                self.foreseen = false;
                self.answer(Answer::AsReal)
            }
            Step::TakingNew => {
                // Somebody's who does not queue. The turn is kept while the core
                // lets its read lock go and waits.
                self.again = true;
                self.answer(Answer::AsReal)
            }
            Step::TryingUpgrade => self.go(Step::TakingUpgrade, Action::RealLockWrite),
            Step::TakingUpgrade => {
                if yes {
                    self.stage = Stage::Writing { reading: true };
                }
                self.foreseen = false;
                self.go(Step::UpgradeLearnt { refused: !yes }, Action::Learn(true))
            }
            Step::UpgradeLearnt { refused: false } => self.answer(Answer::AsReal),
            Step::UpgradeLearnt { refused: true } => {
                self.go(Step::Finishing(Answer::AsReal), Action::PassOn)
            }

            Step::PassingUnlockWrite => {
                let recovered = self.stage == Stage::Recovering;
                self.stage = match self.stage {
                    Stage::Writing { reading: true } => Stage::Reading,
                    _ => Stage::Idle,
                };
                self.again = false;
                if recovered || self.checkpointing {
                    self.answer(Answer::AsReal)
                } else {
                    self.go(Step::AskingCheckpoint, Action::ExpectsCheckpoint)
                }
            }
            Step::AskingCheckpoint => {
                self.expects = yes;
                if yes {
                    self.answer(Answer::AsReal)
                } else {
                    self.go(Step::Finishing(Answer::AsReal), Action::PassOn)
                }
            }

            Step::PassingCheckpoint => {
                let expected = std::mem::replace(&mut self.expects, false);
                self.checkpointing = yes;
                if expected && !yes {
                    self.go(Step::CheckpointRefused, Action::PassOn)
                } else {
                    self.answer(Answer::AsReal)
                }
            }
            Step::CheckpointRefused => self.answer(Answer::AsReal),
            Step::PassingUnlockCheckpoint => {
                self.checkpointing = false;
                self.again = false;
                if self.holds_write() {
                    self.answer(Answer::AsReal)
                } else {
                    self.go(Step::Finishing(Answer::AsReal), Action::PassOn)
                }
            }

            Step::PassingWithin { reads } => {
                if let (Some(reading), Stage::Writing { .. }, true) = (reads, self.stage, yes) {
                    self.stage = Stage::Writing { reading };
                }
                self.answer(Answer::AsReal)
            }
            Step::Recover => {
                if yes {
                    self.stage = Stage::Recovering;
                }
                self.answer(Answer::AsReal)
            }
            Step::Demoting => {
                self.stage = Stage::Reading;
                self.go(Step::Finishing(Answer::Ok), Action::PassOn)
            }
            Step::ClosingWrite => {
                *self = Self::default();
                self.go(Step::Finishing(Answer::Ok), Action::PassOn)
            }
        }
    }

    /// Whether a [`Call::LockRead`] of a transaction that only reads ([`Will::Read`])
    /// may be passed on at once, to be told by [`short_lock_read`](Self::short_lock_read):
    /// nothing is kept from before. The same as the long way, for the sake of programs
    /// that are alone and read one row at a time.
    #[inline]
    pub fn may_read_at_once(&self) -> bool {
        self.stage == Stage::Idle && !self.checkpointing && !self.expects
    }

    /// The read lock was `granted` at once, or refused.
    #[inline]
    pub fn short_lock_read(&mut self, granted: bool) {
        self.again = false;
        self.foreseen = false;
        if granted {
            self.stage = Stage::Reading;
        }
    }

    /// Whether a [`Call::UnlockRead`] may be passed on at once, to be told by
    /// [`short_unlock_read`](Self::short_unlock_read): it is the end of a transaction
    /// of which nothing is to be learnt.
    #[inline]
    pub fn may_end_at_once(&self) -> bool {
        self.stage == Stage::Reading && (self.again || !self.foreseen)
    }

    /// The read lock was let go at once. Says whether to pass the turn on, if there
    /// is one.
    #[inline]
    pub fn short_unlock_read(&mut self) -> bool {
        self.stage = Stage::Idle;
        !(self.again || self.expects || self.checkpointing)
    }

    fn lock_read(&mut self) -> Action {
        match self.stage {
            Stage::Idle if self.checkpointing => self.go(Step::PassingRead, Action::Pass),
            Stage::Idle => {
                self.again = false;
                self.foreseen = false;
                if std::mem::replace(&mut self.expects, false) {
                    self.go(Step::Disappointed, Action::NoCheckpointCame)
                } else {
                    self.go(Step::Foreseeing, Action::Foresee)
                }
            }
            Stage::Writing { .. } => {
                let reads = Some(true);
                self.go(Step::PassingWithin { reads }, Action::Pass)
            }
            Stage::Reading | Stage::Promoted | Stage::Recovering => {
                self.go(Step::PassingWithin { reads: None }, Action::Pass)
            }
        }
    }

    fn unlock_read(&mut self) -> Action {
        match self.stage {
            Stage::Promoted => self.go(Step::AskingRetries, Action::Retries),
            Stage::Reading if self.foreseen && !self.again => {
                self.go(Step::AskingRetries, Action::Retries)
            }
            Stage::Reading => self.go(Step::EndingRead, Action::Pass),
            Stage::Writing { .. } => {
                let reads = Some(false);
                self.go(Step::PassingWithin { reads }, Action::Pass)
            }
            Stage::Idle | Stage::Recovering => {
                self.go(Step::PassingWithin { reads: None }, Action::Pass)
            }
        }
    }

    fn lock_write(&mut self) -> Action {
        match self.stage {
            Stage::Promoted => self.go(Step::LearningWrote, Action::Learn(true)),
            Stage::Reading => self.go(Step::AskingNew, Action::BeginsTransaction),
            Stage::Idle if self.checkpointing => self.go(Step::TryingNew, Action::TryTurn),
            Stage::Idle => self.go(Step::Recover, Action::Pass),
            Stage::Writing { .. } | Stage::Recovering => {
                self.go(Step::PassingWithin { reads: None }, Action::Pass)
            }
        }
    }

    fn go(&mut self, step: Step, action: Action) -> Action {
        self.step = step;
        action
    }

    fn answer(&mut self, answer: Answer) -> Action {
        self.step = Step::Between;
        Action::Answer(answer)
    }
}
