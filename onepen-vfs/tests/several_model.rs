//! Transactions over two databases, taken in opposite orders, in every order of steps.
//!
//! The order of turns is the real one (`onepen_vfs::promotion::Several`). Each program
//! reads both databases and then writes both, in an order of its own; SQLite is reduced
//! to a number for each database, which a commit raises, and a write lock: a write of
//! what was committed since it was read, or of what somebody else writes, is refused.
//!
//! Demanded: nobody is refused, and from every state all can finish. That the model can
//! fail is shown by two mistakes: turns in the program's own order, and each turn only
//! when its database is read.

use std::collections::{HashMap, HashSet};

use onepen_vfs::promotion::{Identity, Next, Several};

const DATABASES: usize = 2;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Way {
    /// As the VFS does.
    Real,
    /// The turns of all, in the order in which the program names them.
    OwnOrder,
    /// Each when it comes to it, waiting only with nothing else in hand.
    OneByOne,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum At {
    Turns(Several),
    Read(usize),
    Write(usize),
    Commit(usize),
    Done,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Program {
    order: [usize; DATABASES],
    at: At,
    read: [Option<u8>; DATABASES],
    left: u8,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct State {
    programs: Vec<Program>,
    turns: [Option<usize>; DATABASES],
    locks: [Option<usize>; DATABASES],
    values: [u8; DATABASES],
    impatient: u8,
    refused: bool,
}

/// The identities of the databases in the list that a program's connection has.
fn list(way: Way, order: [usize; DATABASES]) -> Vec<Identity> {
    (0..DATABASES)
        .map(|at| match way {
            Way::OwnOrder => (0, at as u64),
            _ => (7, order[at] as u64),
        })
        .collect()
}

fn begin(way: Way, order: [usize; DATABASES]) -> At {
    match way {
        Way::OneByOne => At::Read(0),
        _ => At::Turns(Several::new(&list(way, order))),
    }
}

impl State {
    fn new(way: Way, orders: &[[usize; DATABASES]], transactions: u8, impatient: u8) -> Self {
        let program = |&order: &[usize; DATABASES]| Program {
            order,
            at: begin(way, order),
            read: [None; DATABASES],
            left: transactions,
        };
        Self {
            programs: orders.iter().map(program).collect(),
            turns: [None; DATABASES],
            locks: [None; DATABASES],
            values: [0; DATABASES],
            impatient,
            refused: false,
        }
    }

    fn is_free(&self, me: usize, database: usize) -> bool {
        self.turns[database].is_none_or(|owner| owner == me)
    }

    fn is_done(&self) -> bool {
        self.programs.iter().all(|program| program.at == At::Done)
    }

    fn over(&mut self, way: Way, me: usize) {
        for words in [&mut self.turns, &mut self.locks] {
            for word in words.iter_mut() {
                *word = word.filter(|&owner| owner != me);
            }
        }
        let program = &mut self.programs[me];
        program.read = [None; DATABASES];
        program.left -= 1;
        program.at = if program.left == 0 {
            At::Done
        } else {
            begin(way, program.order)
        };
    }

    /// What may come next: whether it is a way on, and the state after it.
    fn next(&self, way: Way) -> Vec<(bool, Self)> {
        let mut all = Vec::new();
        for me in 0..self.programs.len() {
            let mut state = self.clone();
            let program = &mut state.programs[me];
            let order = program.order;
            match program.at.clone() {
                At::Done => continue,
                At::Turns(mut several) => match several.next() {
                    Next::Try(at) => {
                        let free = self.is_free(me, order[at]);
                        if free {
                            state.turns[order[at]] = Some(me);
                        }
                        several.told(free);
                        program.at = At::Turns(several);
                    }
                    Next::Wait(at) => {
                        if self.impatient > 0 {
                            let mut given_up = self.clone();
                            given_up.impatient -= 1;
                            let mut several = several.clone();
                            several.told(false);
                            given_up.programs[me].at = At::Turns(several);
                            all.push((false, given_up));
                        }
                        if !self.is_free(me, order[at]) {
                            continue;
                        }
                        several.told(true);
                        program.at = At::Turns(several);
                    }
                    Next::GiveBack(at) => {
                        state.turns[order[at]] = None;
                        several.told(true);
                        program.at = At::Turns(several);
                    }
                    Next::All | Next::Nothing => program.at = At::Read(0),
                },
                At::Read(at) => {
                    let database = order[at];
                    if way == Way::OneByOne {
                        if self.is_free(me, database) {
                            state.turns[database] = Some(me);
                        } else if at == 0 {
                            continue;
                        }
                    }
                    let program = &mut state.programs[me];
                    program.read[database] = Some(self.values[database]);
                    program.at = if at + 1 < DATABASES {
                        At::Read(at + 1)
                    } else {
                        At::Write(0)
                    };
                }
                At::Write(at) => {
                    let database = order[at];
                    let stale = program.read[database] != Some(self.values[database]);
                    if stale || self.locks[database].is_some_and(|owner| owner != me) {
                        state.refused = true;
                        state.over(way, me);
                    } else {
                        program.at = if at + 1 < DATABASES {
                            At::Write(at + 1)
                        } else {
                            At::Commit(0)
                        };
                        state.locks[database] = Some(me);
                    }
                }
                At::Commit(at) => {
                    state.values[order[at]] += 1;
                    state.locks[order[at]] = None;
                    if at + 1 < DATABASES {
                        program.at = At::Commit(at + 1);
                    } else {
                        state.over(way, me);
                    }
                }
            }
            all.push((true, state));
        }
        all
    }
}

/// Whether somebody is refused, and whether from some state not all can finish.
fn look(way: Way, orders: &[[usize; DATABASES]], transactions: u8, impatient: u8) -> (bool, bool) {
    let first = State::new(way, orders, transactions, impatient);
    let mut numbers = HashMap::from([(first.clone(), 0)]);
    let mut states = vec![first];
    let mut before: Vec<Vec<usize>> = vec![Vec::new()];
    let mut refused = false;
    let mut at = 0;
    while at < states.len() {
        refused |= states[at].refused;
        for (is_way_on, next) in states[at].next(way) {
            let number = *numbers.entry(next.clone()).or_insert_with(|| {
                states.push(next);
                before.push(Vec::new());
                states.len() - 1
            });
            if is_way_on && number != at {
                before[number].push(at);
            }
        }
        at += 1;
    }
    let mut found: Vec<usize> = (0..states.len())
        .filter(|&at| states[at].is_done())
        .collect();
    let mut can_finish: HashSet<usize> = found.iter().copied().collect();
    while let Some(at) = found.pop() {
        found.extend(before[at].iter().filter(|&&at| can_finish.insert(at)));
    }
    println!("{way:?}: {} states", states.len());
    (refused, can_finish.len() < states.len())
}

const OPPOSITE: [[usize; DATABASES]; 2] = [[0, 1], [1, 0]];
const THREE: [[usize; DATABASES]; 3] = [[0, 1], [1, 0], [1, 0]];

#[test]
fn two_databases_in_opposite_orders_are_refused_to_nobody() {
    assert_eq!(look(Way::Real, &OPPOSITE, 2, 0), (false, false));
    assert_eq!(look(Way::Real, &THREE, 1, 0), (false, false));
}

#[test]
fn who_loses_patience_on_the_way_keeps_nobody_waiting() {
    let (_, stuck) = look(Way::Real, &THREE, 1, 1);
    assert!(!stuck);
}

#[test]
fn another_order_or_no_order_is_noticed() {
    let (_, stuck) = look(Way::OwnOrder, &OPPOSITE, 1, 0);
    assert!(stuck, "each waits for the other");
    let (refused, _) = look(Way::OneByOne, &OPPOSITE, 1, 0);
    assert!(refused, "the second database was read without its turn");
}

#[test]
fn a_database_that_is_there_twice_has_one_turn() {
    let mut several = Several::new(&[(1, 5), (1, 2), (1, 5)]);
    let mut order = Vec::new();
    while let Next::Try(at) = several.next() {
        order.push(at);
        several.told(true);
    }
    assert_eq!(several.next(), Next::All);
    assert_eq!(order, [1, 0]);
}
