//! The machine itself: one step after the other, each named after what is awaited.

use super::{Action, Answer, Call, Stage, Told, Will};

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
    /// Nobody takes the turn away any more: before the first read, or, with the write
    /// lock of a promoted transaction, after it was taken.
    ConfirmingTurn(Will),
    /// It was taken away, and the write lock goes back.
    LostTurn(Will),
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
    ConfirmingNew,
    LostNew,
    TakingUpgrade {
        /// In the turn that it got for its first read.
        in_turn: bool,
    },
    WaitingABit,
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

    /// Whether nothing is kept for what comes next.
    pub fn rests(&self) -> bool {
        !(self.again || self.expects || self.checkpointing)
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
            Step::Remembering(will) if yes => self.go(Step::TakingTurn(will), Action::TryTurn),
            // Whoever had the turn may have lost it with the lock in hand: look.
            Step::WaitingForTurn(Will::Perhaps) if yes => {
                self.go(Step::TakingTurn(Will::Turn), Action::TryTurn)
            }
            Step::WaitingForTurn(will) if yes => self.go(Step::TakingTurn(will), Action::TryTurn),
            Step::TakingTurn(Will::Write) if yes => {
                self.go(Step::TakingWrite(Will::Write), Action::RealLockWrite)
            }
            Step::TakingTurn(will) if yes => {
                self.go(Step::ConfirmingTurn(will), Action::ConfirmTurn)
            }
            Step::ConfirmingTurn(Will::Write) if yes => {
                self.go(Step::Comparing, Action::HeaderIsSame)
            }
            Step::ConfirmingTurn(Will::Turn) if yes => {
                self.go(Step::TakingWrite(Will::Turn), Action::RealLockWrite)
            }
            Step::ConfirmingTurn(_) if yes => self.go(Step::ComparingTurn, Action::HeaderIsSame),
            Step::ConfirmingTurn(Will::Write) => {
                self.go(Step::LostTurn(Will::Write), Action::RealUnlockWrite)
            }
            Step::TakingTurn(will) | Step::ConfirmingTurn(will) | Step::LostTurn(will) => {
                self.go(Step::WaitingForTurn(will), Action::Wait(will))
            }
            Step::TakingWrite(Will::Turn) if yes => {
                self.go(Step::FreedForTurn, Action::RealUnlockWrite)
            }
            Step::FreedForTurn => self.go(Step::ComparingTurn, Action::HeaderIsSame),
            Step::TakingWrite(will) if yes => {
                self.go(Step::ConfirmingTurn(will), Action::ConfirmTurn)
            }
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
            Step::TakingNew if yes => self.go(Step::ConfirmingNew, Action::ConfirmTurn),
            Step::ConfirmingNew if yes => {
                self.stage = Stage::Writing {
                    reading: self.stage == Stage::Reading,
                };
                self.foreseen = false;
                self.answer(Answer::AsReal)
            }
            Step::ConfirmingNew => self.go(Step::LostNew, Action::RealUnlockWrite),
            Step::LostNew => self.answer(Answer::NotYourTurn),
            Step::TakingNew => {
                // Somebody's who does not queue. The turn is kept while the core
                // lets its read lock go and waits.
                self.again = true;
                self.answer(Answer::AsReal)
            }
            Step::TryingUpgrade => {
                let in_turn = yes && self.foreseen;
                self.go(Step::TakingUpgrade { in_turn }, Action::RealLockWrite)
            }
            Step::TakingUpgrade { in_turn: true } if !yes => {
                self.go(Step::WaitingABit, Action::WaitABit)
            }
            Step::WaitingABit => {
                let in_turn = yes;
                self.go(Step::TakingUpgrade { in_turn }, Action::RealLockWrite)
            }
            Step::TakingUpgrade { .. } => {
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

    /// Whether a [`Call::LockWrite`] may be answered at once when both the turn and the
    /// lock are to be had without waiting, to be told by
    /// [`short_lock_write`](Self::short_lock_write). If one of them is not, nothing
    /// has happened, and the long way is gone.
    #[inline]
    pub fn may_write_at_once(&self) -> bool {
        self.stage == Stage::Reading
    }

    /// The turn was there and the lock was granted, both at once.
    #[inline]
    pub fn short_lock_write(&mut self) {
        self.stage = Stage::Writing { reading: true };
        self.foreseen = false;
    }

    /// Whether a [`Call::UnlockWrite`] may be passed on at once, to be told by
    /// [`short_unlock_write`](Self::short_unlock_write).
    #[inline]
    pub fn may_end_write_at_once(&self) -> bool {
        matches!(self.stage, Stage::Writing { .. }) && !self.checkpointing
    }

    /// The write lock was let go at once. `expects` says whether the core will
    /// check-point now; if not, the turn has to be passed on.
    #[inline]
    pub fn short_unlock_write(&mut self, expects: bool) {
        self.stage = match self.stage {
            Stage::Writing { reading: true } => Stage::Reading,
            _ => Stage::Idle,
        };
        self.again = false;
        self.expects = expects;
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
