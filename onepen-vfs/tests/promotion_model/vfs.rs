//! What the VFS does for the machine, one action in each step.

use onepen_vfs::promotion::{Action, Answer, Call, Stage, Told, Will};

use super::sqlite::At;
use super::world::{Kind, Known, PassesOver, Planted, Promotion, Seen, State};

impl Promotion {
    /// The next step of one connection.
    pub fn go(&self, state: &mut State, me: usize, yes: bool) {
        match state.connections[me].call {
            Some((call, action)) => {
                let told = self.carry_out(state, me, call, action, yes);
                self.told(state, me, told);
            }
            None => self.step(state, me, yes),
        }
        // What nobody else can see needs no step of its own.
        while state.connections[me].call.is_none() && self.is_private(state, me) {
            self.step(state, me, true);
        }
    }

    /// Whether the core's next step touches nothing that is shared, and is the only
    /// one that is possible.
    pub fn is_private(&self, state: &State, me: usize) -> bool {
        let connection = &state.connections[me];
        let core = &connection.core;
        match core.at {
            At::Rest => !connection.to_do.is_empty() && state.torn == 0,
            At::Snapshot => state.demotions == 0 && connection.to_do.last() != Some(&Kind::Perhaps),
            At::Restart => core.is_on_log(),
            At::Ended => !core.committed || state.checkpoints == 0,
            _ => false,
        }
    }

    /// The core asks; its connection stands at where the answer is expected.
    pub fn call(&self, state: &mut State, me: usize, call: Call) {
        let connection = &mut state.connections[me];
        let action = if connection.has_vfs {
            connection.machine.ask(call)
        } else {
            Action::Pass
        };
        self.follow(state, me, call, action);
    }

    pub fn told(&self, state: &mut State, me: usize, told: Told) {
        let connection = &mut state.connections[me];
        let Some((call, _)) = connection.call else {
            return;
        };
        let action = if connection.has_vfs {
            connection.machine.told(told)
        } else {
            Action::Answer(Answer::AsReal)
        };
        self.follow(state, me, call, action);
    }

    pub fn upgrade_waits(&self, call: Call) -> bool {
        self.planted == Planted::UpgradeWaits && call == Call::LockWrite
    }

    /// Goes on until something shared is to be done, or to the answer.
    pub fn follow(&self, state: &mut State, me: usize, call: Call, mut action: Action) {
        loop {
            match action {
                Action::Answer(answer) => {
                    state.connections[me].call = None;
                    let ok = match answer {
                        Answer::Ok => true,
                        Answer::NotYourTurn => false,
                        Answer::AsReal => state.connections[me].real,
                    };
                    if call != Call::Demote {
                        self.answered(state, me, call, ok);
                    }
                    return;
                }
                Action::Foresee | Action::BeginsTransaction | Action::Learn(_) => {
                    let told = self.carry_out(state, me, call, action, true);
                    action = state.connections[me].machine.told(told);
                }
                action => {
                    let connection = &mut state.connections[me];
                    connection.call = Some((call, action));
                    connection.is_waiting = match action {
                        Action::Wait(will) => Some(will),
                        Action::TryTurn if self.upgrade_waits(call) => Some(Will::Write),
                        _ => None,
                    };
                    return;
                }
            }
        }
    }

    /// What the VFS does for the machine.
    pub fn carry_out(
        &self,
        state: &mut State,
        me: usize,
        call: Call,
        action: Action,
        yes: bool,
    ) -> Told {
        let planted = self.planted;
        let connection = &mut state.connections[me];
        match action {
            Action::Foresee => {
                let writes = if self.locks { Will::Write } else { Will::Turn };
                let will = match (connection.to_do.last(), connection.known) {
                    (Some(Kind::ReadWrite | Kind::Read | Kind::Perhaps), _)
                        if planted == Planted::Everybody =>
                    {
                        Will::Write
                    }
                    (Some(Kind::ReadWrite | Kind::Read | Kind::Perhaps), Known::Writes) => writes,
                    (Some(Kind::ReadWrite | Kind::Read | Kind::Perhaps), Known::Nothing) => {
                        Will::Perhaps
                    }
                    _ => Will::Read,
                };
                // A turn is no promise where any turn may be passed over.
                let keeps = self.passes_over != PassesOver::Anybody;
                connection.promised = will == Will::Write || will == Will::Turn && keeps;
                let explicit = matches!(
                    connection.to_do.last(),
                    Some(Kind::ReadWrite | Kind::Read | Kind::Perhaps)
                );
                connection.promised |= self.patient && explicit && keeps;
                return Told::Foreseen(will);
            }
            Action::RememberHeader => connection.remembered = state.shared.header,
            Action::HeaderIsSame => {
                return (connection.remembered == state.shared.header).into();
            }
            Action::TryTurn => return state.try_turn(me).into(),
            Action::ConfirmTurn => {
                let reads = call == Call::LockRead;
                let ours = planted == Planted::NotConfirmed || state.confirm(me, reads);
                return ours.into();
            }
            Action::WaitABit => {
                let in_vain = connection.remembered != state.shared.header;
                return (!in_vain && planted != Planted::WaitsNotABit).into();
            }
            Action::Wait(_) => {}
            Action::BeginsTransaction => return (!connection.core.is_open).into(),
            Action::Retries => {
                let retries = matches!(connection.core.at, At::Retry { .. });
                if retries && connection.machine.stage() == Stage::Promoted {
                    Seen::mark(&self.seen.retry_while_promoted);
                }
                return (retries && yes).into();
            }
            Action::Pass => {
                let slot = connection.core.wanted;
                let real = match call {
                    Call::LockRead => state.shared.lock_read(me, slot),
                    Call::LockWrite => state.shared.lock_write(me),
                    Call::LockCheckpoint => state.shared.lock_checkpoint(me),
                    Call::UnlockRead => {
                        state.shared.unlock_read(me, slot);
                        if planted == Planted::FreedAtReadUnlock
                            && connection.promoted
                            && state.shared.write == Some(me)
                        {
                            state.shared.write = None;
                        }
                        true
                    }
                    Call::UnlockWrite => state.shared.unlock_write(me),
                    Call::UnlockCheckpoint => {
                        state.shared.checkpoint = None;
                        true
                    }
                    Call::Demote | Call::Close => true,
                };
                state.connections[me].real = real;
                return real.into();
            }
            Action::RealLockWrite => {
                let real = state.shared.lock_write(me);
                state.connections[me].real = real;
                return real.into();
            }
            Action::RealUnlockWrite => {
                if planted != Planted::NotGivenBack {
                    state.shared.unlock_write(me);
                }
            }
            Action::ExpectsCheckpoint => return (!yes).into(),
            Action::NoCheckpointCame => {}
            Action::Learn(true) => connection.known = Known::Writes,
            Action::Learn(false) => {
                let patient = self.patient && planted != Planted::LearnsAtOnce;
                if connection.known == Known::Nothing && !patient {
                    connection.known = Known::Reads;
                }
            }
            Action::PassOn => state.leave(me),
            Action::Answer(_) => {}
        }
        Told::Yes
    }
}
