//! The gate's protocol, checked in every order of its steps.
//!
//! The model has the moves of `src/gate/queue.rs`, one atomic operation in each
//! step, for three processes; any of them may be killed, stopped or lose patience
//! between any two steps. What is demanded: when nothing can happen any more,
//! everybody who lives has had its turns; and when only a stopped process could
//! still do something, everybody else has, unless that one holds SQLite's lock.
//! Without crashes and stops this has to hold without the looks every 10 ms: no
//! wake-up is lost. And whoever writes has the turn, also one that was stopped between
//! the turn and SQLite's lock, and passed over.
//!
//! That the model can fail is shown too: with one step left out it does.

mod moves;

use stateright::{Checker, Model, Property};

use self::moves::{N, Phase, Process, State, Step, Then, Turn};

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
    /// To confirm the turn with SQLite's lock in hand.
    Confirm,
}

struct Gate {
    turns: [u8; N],
    kills: u8,
    stops: u8,
    impatient: u8,
    keeps: bool,
    /// Whether who has the turn confirms it with SQLite's lock in hand.
    confirms: bool,
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
            confirms: true,
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
            Property::always(IN_THE_END, |gate, state| {
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
            Property::always(WRITES_IN_TURN, |gate: &Self, state: &State| {
                let in_turn = |me: usize| {
                    let turn = state.turn.owner == Some((me, Phase::Held));
                    turn && state.lock == Some(me)
                };
                let mut all = state.processes.iter().zip(0..);
                !gate.confirms
                    || all.all(|(one, me)| one.step != Step::Write || !one.alive || in_turn(me))
            }),
            Property::sometimes("all of it is reached", |gate, state| {
                (0..N).all(|me| gate.is_over(state, me)) && state.turn.serial > 3
            }),
        ]
    }
}

fn passes(gate: Gate) {
    let checker = gate.checker().threads(2).spawn_bfs().join();
    println!("{} states", checker.unique_state_count());
    checker.assert_properties();
}

const IN_THE_END: &str = "everybody has had its turns in the end";
const WRITES_IN_TURN: &str = "whoever writes has the turn";

fn fails(gate: Gate, property: &'static str) {
    let checker = gate.checker().threads(2).spawn_bfs().join();
    let found = checker.discovery(property);
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
    for confirms in [false, true] {
        passes(Gate {
            stops: 1,
            turns: [1, 1, 1],
            keeps: false,
            confirms,
            ..Gate::calm()
        });
    }
}

/// In a model of that, somebody waits for ever, or writes out of turn.
#[test]
fn a_step_that_is_left_out_is_noticed() {
    for (forgotten, kills, stops, impatient, property) in [
        (Forgotten::LookAgain, 0, 0, 0, IN_THE_END),
        (Forgotten::Tell, 0, 0, 0, IN_THE_END),
        (Forgotten::LookForGrant, 0, 0, 1, IN_THE_END),
        (Forgotten::LooksAtTheDead, 1, 0, 0, IN_THE_END),
        (Forgotten::Confirm, 0, 1, 0, WRITES_IN_TURN),
    ] {
        let gate = Gate {
            kills,
            stops,
            impatient,
            forgotten,
            ..Gate::calm()
        };
        fails(gate, property);
    }
}
