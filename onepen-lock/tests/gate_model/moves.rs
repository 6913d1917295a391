//! The moves of a process at the gate, as `src/gate/queue.rs` makes them: one atomic
//! operation in each step, and what is shared between the processes.

use super::{Forgotten, Gate};

pub const N: usize = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    Granted,
    Held,
    Open,
}

pub type Owner = Option<(usize, Phase)>;

/// The turn word: every change has a number of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Turn {
    pub serial: u8,
    pub owner: Owner,
}

/// What comes after a hand-over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Then {
    Wait,
    Rest,
}

/// What a process does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    Rest,
    /// Tries to take the turn without waiting.
    ReadTurn,
    ReadLine(Turn),
    Claim(Turn),
    /// Stands in line.
    StoreTicket,
    SetBit,
    /// Looks.
    ReadWord,
    Look(u8),
    Sleep {
        seen: u8,
        alarm: bool,
    },
    ClaimFromLine(Turn),
    ClearBit,
    ClearTicket,
    /// Has the turn.
    Begin,
    /// With SQLite's lock: is it still our turn?
    Confirm,
    Write,
    Release,
    KeepOrPass(bool),
    Free(Turn),
    ReadLineAgain(Turn),
    TellFirst,
    /// Hands the turn over.
    ChooseFirst(Turn, Option<usize>, Then),
    Grant(Turn, Option<usize>, usize, Then),
    Wake(Turn, usize, Then),
    LookAtTicket(Turn, usize, Then),
    LetGo(Turn, Option<usize>, Then),
    FreedLook(Turn, Option<usize>, Then),
    TakeOff(usize, Then),
    /// Lost patience.
    GiveUpBit,
    GiveUpTicket,
    GiveUpLook,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Process {
    pub step: Step,
    pub alive: bool,
    pub stopped: bool,
    /// The turn word as it was claimed.
    pub turn: Turn,
    pub own_ticket: u8,
    pub left: u8,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    pub turn: Turn,
    pub tickets: u8,
    pub ticket: [u8; N],
    pub bit: [bool; N],
    pub word: [u8; N],
    /// SQLite's write lock.
    pub lock: Option<usize>,
    pub processes: Vec<Process>,
    pub kills: u8,
    pub stops: u8,
    pub impatient: u8,
}

impl State {
    pub fn first(&self, but: Option<usize>) -> Option<usize> {
        (0..N)
            .filter(|&slot| self.bit[slot] && self.ticket[slot] != 0 && Some(slot) != but)
            .min_by_key(|&slot| self.ticket[slot])
    }

    pub fn others_wait(&self, me: usize) -> bool {
        (0..N).any(|slot| slot != me && self.bit[slot])
    }

    /// Compare-and-swap.
    pub fn change(&mut self, from: Turn, owner: Owner) -> Option<Turn> {
        if self.turn != from {
            return None;
        }
        self.turn = Turn {
            serial: from.serial + 1,
            owner,
        };
        Some(self.turn)
    }

    pub fn after(then: Then) -> Step {
        match then {
            Then::Wait => Step::ReadWord,
            Then::Rest => Step::Rest,
        }
    }
}

impl Gate {
    pub fn go(&self, state: &mut State, me: usize) {
        let step = state.processes[me].step;
        let next = match step {
            Step::Rest => Step::ReadTurn,
            Step::ReadTurn => match state.turn.owner {
                None => Step::ReadLine(state.turn),
                Some((owner, _)) if owner == me => Step::Claim(state.turn),
                Some((owner, _)) if !state.processes[owner].alive => {
                    Step::ChooseFirst(state.turn, Some(owner), Then::Wait)
                }
                Some(_) => Step::StoreTicket,
            },
            Step::ReadLine(_) if state.others_wait(me) => Step::StoreTicket,
            Step::ReadLine(turn) => Step::Claim(turn),
            Step::Claim(turn) => match state.change(turn, Some((me, Phase::Held))) {
                Some(mine) => {
                    state.processes[me].turn = mine;
                    Step::Begin
                }
                None => Step::ReadTurn,
            },
            Step::StoreTicket => {
                state.tickets += 1;
                state.processes[me].own_ticket = state.tickets;
                state.ticket[me] = state.tickets;
                Step::SetBit
            }
            Step::SetBit => {
                state.bit[me] = true;
                Step::ReadWord
            }
            Step::ReadWord if state.processes[me].own_ticket == 0 => Step::StoreTicket,
            Step::ReadWord => {
                // Back to the old place, if it was taken off the line.
                state.ticket[me] = state.processes[me].own_ticket;
                state.bit[me] = true;
                Step::Look(state.word[me])
            }
            Step::Look(seen) => match state.turn.owner {
                None => Step::ChooseFirst(state.turn, None, Then::Wait),
                Some((owner, _)) if owner == me => Step::ClaimFromLine(state.turn),
                Some((owner, phase)) => {
                    let process = &state.processes[owner];
                    let is_dead = !process.alive && self.forgotten != Forgotten::LooksAtTheDead;
                    let stands_still = self.stops > 0
                        && process.stopped
                        && (phase == Phase::Granted || state.lock.is_none());
                    if is_dead || stands_still {
                        Step::ChooseFirst(state.turn, Some(owner), Then::Wait)
                    } else if phase == Phase::Open {
                        Step::Sleep { seen, alarm: true }
                    } else {
                        Step::Sleep { seen, alarm: false }
                    }
                }
            },
            Step::Sleep { .. } => Step::ReadWord,
            Step::ClaimFromLine(turn) => match state.change(turn, Some((me, Phase::Held))) {
                Some(mine) => {
                    state.processes[me].turn = mine;
                    Step::ClearBit
                }
                None => Step::ReadWord,
            },
            Step::ClearBit => {
                state.bit[me] = false;
                Step::ClearTicket
            }
            Step::ClearTicket => {
                state.ticket[me] = 0;
                state.processes[me].own_ticket = 0;
                Step::Begin
            }
            Step::Begin => {
                state.lock = Some(me);
                Step::Confirm
            }
            Step::Confirm if self.forgotten == Forgotten::Confirm => Step::Write,
            Step::Confirm if !self.confirms => Step::Write,
            Step::Confirm => {
                let turn = state.processes[me].turn;
                match state.change(turn, Some((me, Phase::Held))) {
                    Some(mine) => {
                        state.processes[me].turn = mine;
                        Step::Write
                    }
                    None => {
                        state.lock = None;
                        Step::ReadTurn
                    }
                }
            }
            Step::Write => {
                state.lock = None;
                Step::Release
            }
            Step::Release => Step::KeepOrPass(false),
            Step::KeepOrPass(true) => {
                state.processes[me].left -= 1;
                let turn = state.processes[me].turn;
                match state.change(turn, Some((me, Phase::Open))) {
                    Some(_) if self.forgotten != Forgotten::Tell => Step::TellFirst,
                    _ => Step::Rest,
                }
            }
            Step::KeepOrPass(false) => {
                state.processes[me].left -= 1;
                let turn = state.processes[me].turn;
                if state.others_wait(me) {
                    Step::ChooseFirst(turn, None, Then::Rest)
                } else {
                    Step::Free(turn)
                }
            }
            Step::Free(turn) => match state.change(turn, None) {
                Some(free) if self.forgotten != Forgotten::LookAgain => Step::ReadLineAgain(free),
                _ => Step::Rest,
            },
            Step::ReadLineAgain(free) if state.others_wait(me) => {
                Step::ChooseFirst(free, None, Then::Rest)
            }
            Step::ReadLineAgain(_) => Step::Rest,
            Step::TellFirst => {
                if let Some(first) = state.first(Some(me)) {
                    state.word[first] += 1;
                }
                Step::Rest
            }
            Step::ChooseFirst(turn, but, then) => match state.first(but) {
                Some(first) if !state.processes[first].alive => {
                    state.bit[first] = false;
                    state.ticket[first] = 0;
                    step
                }
                Some(first) => Step::Grant(turn, but, first, then),
                None => Step::LetGo(turn, but, then),
            },
            Step::LetGo(turn, but, then) => match state.change(turn, None) {
                Some(free) => Step::FreedLook(free, but, then),
                None => State::after(then),
            },
            Step::FreedLook(free, but, then) if state.first(but).is_some() => {
                Step::ChooseFirst(free, but, then)
            }
            Step::FreedLook(_, but, then) => match but {
                Some(slot) => Step::TakeOff(slot, then),
                None => State::after(then),
            },
            Step::Grant(turn, but, first, then) => {
                match state.change(turn, Some((first, Phase::Granted))) {
                    Some(given) => {
                        if let Some(slot) = but {
                            // Off the line, or it would be given every next turn.
                            state.bit[slot] = false;
                            state.ticket[slot] = 0;
                        }
                        Step::Wake(given, first, then)
                    }
                    None => State::after(then),
                }
            }
            Step::Wake(given, first, then) => {
                if first != me {
                    state.word[first] += 1;
                }
                if self.forgotten == Forgotten::LookForGrant || first == me {
                    State::after(then)
                } else {
                    Step::LookAtTicket(given, first, then)
                }
            }
            Step::LookAtTicket(_, first, then) if state.ticket[first] != 0 => State::after(then),
            Step::LookAtTicket(given, _, then) => Step::ChooseFirst(given, None, then),
            Step::TakeOff(slot, then) => {
                state.bit[slot] = false;
                state.ticket[slot] = 0;
                State::after(then)
            }
            Step::GiveUpBit => {
                state.bit[me] = false;
                Step::GiveUpTicket
            }
            Step::GiveUpTicket => {
                state.ticket[me] = 0;
                state.processes[me].own_ticket = 0;
                state.processes[me].left = 0;
                if self.forgotten == Forgotten::LookForGrant {
                    Step::Rest
                } else {
                    Step::GiveUpLook
                }
            }
            Step::GiveUpLook => match state.turn.owner {
                Some((owner, _)) if owner == me => Step::ChooseFirst(state.turn, None, Then::Rest),
                _ => Step::TellFirst,
            },
        };
        state.processes[me].step = next;
    }
}
