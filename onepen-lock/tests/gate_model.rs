//! The gate's protocol, checked in every order of its steps.
//!
//! The model has the moves of `src/gate/queue.rs`, one atomic operation in each
//! step, for three processes; any of them may be killed, stopped or lose patience
//! between any two steps. What is demanded: when nothing can happen any more,
//! everybody who lives has had its turns; and when only a stopped process could
//! still do something, everybody else has, unless that one holds SQLite's lock.
//! Without crashes and stops this has to hold without the looks every 10 ms: no
//! wake-up is lost.
//!
//! That the model can fail is shown too: with one step left out it does.

use stateright::{Checker, Model, Property};

const N: usize = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Phase {
    Granted,
    Held,
    Open,
}

type Owner = Option<(usize, Phase)>;

/// The turn word: every change has a number of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Turn {
    serial: u8,
    owner: Owner,
}

/// What comes after a hand-over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Then {
    Wait,
    Rest,
}

/// What a process does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Step {
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
struct Process {
    step: Step,
    alive: bool,
    stopped: bool,
    /// The turn word as it was claimed.
    turn: Turn,
    own_ticket: u8,
    left: u8,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct State {
    turn: Turn,
    tickets: u8,
    ticket: [u8; N],
    bit: [bool; N],
    word: [u8; N],
    /// SQLite's write lock.
    lock: Option<usize>,
    processes: Vec<Process>,
    kills: u8,
    stops: u8,
    impatient: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Action {
    Go(usize),
    /// After a write, the turn is kept for the next.
    Keep(usize),
    /// A sleeper's time is up: its alarm, or the next look.
    TimeIsUp(usize),
    Kill(usize),
    Stop(usize),
    Continue(usize),
    LosePatience(usize),
}

/// A step that is left out, to see the model fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Forgotten {
    Nothing,
    /// The second look at the line after the turn was freed.
    LookAgain,
    /// To tell the first in line that the turn is kept.
    Tell,
    /// To look for a grant after leaving the line, and the granter's look at the
    /// ticket.
    LookForGrant,
    /// To look whether the owner of the turn lives.
    LooksAtTheDead,
}

struct Gate {
    turns: [u8; N],
    kills: u8,
    stops: u8,
    impatient: u8,
    keeps: bool,
    forgotten: Forgotten,
}

impl Gate {
    fn calm() -> Self {
        Self {
            turns: [2, 1, 0],
            kills: 0,
            stops: 0,
            impatient: 0,
            keeps: true,
            forgotten: Forgotten::Nothing,
        }
    }

    /// Whether looking again after a while would find something to do.
    fn look_is_useful(&self, state: &State, me: usize, alarm: bool) -> bool {
        let disturbed = self.kills + self.stops > 0;
        match state.turn.owner {
            Some((_, Phase::Open)) => alarm || disturbed,
            None => disturbed,
            Some((owner, phase)) => {
                let process = &state.processes[owner];
                disturbed
                    && self.forgotten != Forgotten::LooksAtTheDead
                    && (owner == me
                        || !process.alive
                        || process.stopped && (phase == Phase::Granted || state.lock.is_none())
                        // Granted to one that left meanwhile: nothing moves.
                        || phase == Phase::Granted && state.ticket[owner] == 0)
            }
        }
    }

    fn is_over(&self, state: &State, me: usize) -> bool {
        let process = &state.processes[me];
        !process.alive || process.step == Step::Rest && process.left == 0
    }
}

impl State {
    fn first(&self, but: Option<usize>) -> Option<usize> {
        (0..N)
            .filter(|&slot| self.bit[slot] && self.ticket[slot] != 0 && Some(slot) != but)
            .min_by_key(|&slot| self.ticket[slot])
    }

    fn others_wait(&self, me: usize) -> bool {
        (0..N).any(|slot| slot != me && self.bit[slot])
    }

    /// Compare-and-swap.
    fn change(&mut self, from: Turn, owner: Owner) -> Option<Turn> {
        if self.turn != from {
            return None;
        }
        self.turn = Turn {
            serial: from.serial + 1,
            owner,
        };
        Some(self.turn)
    }

    fn after(then: Then) -> Step {
        match then {
            Then::Wait => Step::ReadWord,
            Then::Rest => Step::Rest,
        }
    }
}

impl Model for Gate {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let turn = Turn {
            serial: 0,
            owner: None,
        };
        let process = |left| Process {
            step: Step::Rest,
            alive: true,
            stopped: false,
            turn,
            own_ticket: 0,
            left,
        };
        vec![State {
            turn,
            tickets: 0,
            ticket: [0; N],
            bit: [false; N],
            word: [0; N],
            lock: None,
            processes: self.turns.map(process).to_vec(),
            kills: self.kills,
            stops: self.stops,
            impatient: self.impatient,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        for (me, process) in state.processes.iter().enumerate() {
            if !process.alive {
                continue;
            }
            if process.stopped {
                actions.push(Action::Continue(me));
                continue;
            }
            match process.step {
                Step::Rest if process.left == 0 => continue,
                Step::Sleep { seen, alarm } => {
                    if state.word[me] != seen {
                        actions.push(Action::Go(me));
                    } else if self.look_is_useful(state, me, alarm) {
                        actions.push(Action::TimeIsUp(me));
                    }
                    if state.impatient > 0 {
                        actions.push(Action::LosePatience(me));
                    }
                }
                Step::Begin if state.lock.is_some() => {}
                Step::Release => {
                    actions.push(Action::Go(me));
                    if self.keeps {
                        actions.push(Action::Keep(me));
                    }
                }
                _ => actions.push(Action::Go(me)),
            }
            if state.kills > 0 {
                actions.push(Action::Kill(me));
            }
            if state.stops > 0 {
                actions.push(Action::Stop(me));
            }
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Go(me) => self.go(&mut state, me),
            Action::Keep(me) => state.processes[me].step = Step::KeepOrPass(true),
            Action::TimeIsUp(me) => {
                state.processes[me].step = match state.turn.owner {
                    // The slice is over, whether its owner comes back or not.
                    Some((_, Phase::Open)) => Step::ChooseFirst(state.turn, None, Then::Wait),
                    _ => Step::ReadWord,
                };
            }
            Action::LosePatience(me) => {
                state.impatient -= 1;
                state.processes[me].left = 1;
                state.processes[me].step = Step::GiveUpBit;
            }
            Action::Kill(me) => {
                state.kills -= 1;
                state.processes[me].alive = false;
                if state.lock == Some(me) {
                    state.lock = None; // the kernel's work
                }
            }
            Action::Stop(me) => {
                state.stops -= 1;
                state.processes[me].stopped = true;
            }
            Action::Continue(me) => state.processes[me].stopped = false,
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("everybody has had its turns in the end", |gate, state| {
                let mut actions = Vec::new();
                gate.actions(state, &mut actions);
                !actions.is_empty() || (0..N).all(|me| gate.is_over(state, me))
            }),
            Property::always(
                "a stopped one holds up nobody without the lock",
                |gate, state| {
                    let mut actions = Vec::new();
                    gate.actions(state, &mut actions);
                    let stuck = |action: &Action| {
                        matches!(
                            action,
                            Action::Continue(_) | Action::Kill(_) | Action::Stop(_)
                        )
                    };
                    let holds = |me: usize| state.lock == Some(me) && state.processes[me].stopped;
                    !actions.iter().all(stuck)
                        || (0..N).any(holds)
                        || (0..N).all(|me| state.processes[me].stopped || gate.is_over(state, me))
                },
            ),
            Property::sometimes("all of it is reached", |gate, state| {
                (0..N).all(|me| gate.is_over(state, me)) && state.turn.serial > 3
            }),
        ]
    }
}

impl Gate {
    fn go(&self, state: &mut State, me: usize) {
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
                Step::Write
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

fn passes(gate: Gate) {
    let checker = gate.checker().threads(2).spawn_bfs().join();
    println!("{} states", checker.unique_state_count());
    checker.assert_properties();
}

fn fails(gate: Gate) {
    let checker = gate.checker().threads(2).spawn_bfs().join();
    let found = checker.discovery("everybody has had its turns in the end");
    assert!(
        found.is_some(),
        "{:?} is not noticed",
        checker.model().forgotten
    );
}

#[test]
fn no_wake_up_is_lost() {
    passes(Gate {
        turns: [1, 1, 1],
        ..Gate::calm()
    });
    passes(Gate::calm());
}

#[test]
fn who_loses_patience_takes_no_turn_along() {
    passes(Gate {
        impatient: 1,
        turns: [1, 1, 1],
        ..Gate::calm()
    });
}

#[test]
fn a_process_may_be_killed_between_any_two_steps() {
    passes(Gate {
        kills: 1,
        turns: [2, 1, 0],
        ..Gate::calm()
    });
    passes(Gate {
        kills: 1,
        turns: [1, 1, 1],
        keeps: false,
        ..Gate::calm()
    });
}

#[test]
fn a_process_may_be_stopped_between_any_two_steps() {
    passes(Gate {
        stops: 1,
        turns: [1, 1, 1],
        keeps: false,
        ..Gate::calm()
    });
}

/// In a model of that, somebody waits for ever.
#[test]
fn a_step_that_is_left_out_is_noticed() {
    for (forgotten, kills, impatient) in [
        (Forgotten::LookAgain, 0, 0),
        (Forgotten::Tell, 0, 0),
        (Forgotten::LookForGrant, 0, 1),
        (Forgotten::LooksAtTheDead, 1, 0),
    ] {
        fails(Gate {
            kills,
            impatient,
            forgotten,
            ..Gate::calm()
        });
    }
}
