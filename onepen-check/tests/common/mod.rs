//! Histories of an honest database, to plant anomalies in, and checkers that
//! know nothing of the crate's own: they try everything.
#![allow(dead_code, reason = "each test program uses its own part")]

use std::collections::BTreeMap;

use onepen_check::{Entry, History, Mode, Op, Outcome, Transaction};
use proptest::prelude::*;

/// How often a property is tried; `PROPTEST_CASES` says otherwise.
pub fn cases(cases: u32) -> ProptestConfig {
    let default = ProptestConfig::default();
    ProptestConfig {
        cases: match std::env::var_os("PROPTEST_CASES") {
            Some(_) => default.cases,
            None => cases,
        },
        failure_persistence: None,
        ..default
    }
}

/// One transaction of a history in the making.
#[derive(Clone, Debug)]
pub struct Plan {
    /// 0–5: a write; 6–8: a read; 9: a write that fails.
    pub what: u8,
    pub keys: [u64; 2],
    /// How long before and after its moment it began and ended.
    pub around: [u64; 2],
    pub amount: i64,
    /// Whether the answer was lost.
    pub silent: bool,
}

pub fn plans(most: usize) -> impl Strategy<Value = Vec<Plan>> {
    let plan = (
        0_u8..10,
        [0_u64..4, 0_u64..4],
        [1_u64..60, 1_u64..60],
        -9_i64..9,
        prop::bool::weighted(0.1),
    )
        .prop_map(|(what, keys, around, amount, silent)| Plan {
            what,
            keys,
            around,
            amount,
            silent,
        });
    prop::collection::vec(plan, 1..most)
}

/// What a truthful, strictly serializable database makes of the plans.
pub fn honest_serial(plans: &[Plan]) -> History {
    let mut history = History::new(Mode::Serial);
    let mut state: BTreeMap<u64, i64> = BTreeMap::from([(0, 100), (1, 100)]);
    history.start = state.iter().map(|(&key, &value)| (key, value)).collect();
    let mut serial = 0;
    for (id, plan) in (1..).zip(plans) {
        let now = 100 + id * 10;
        let times = (now - plan.around[0], now + plan.around[1]);
        let outcome = if plan.silent {
            Outcome::Unknown
        } else {
            Outcome::Committed
        };
        let mut ops = Vec::new();
        for key in plan.keys {
            let value = state.get(&key).copied();
            ops.push(Op::Read { key, value });
            if plan.what < 6 {
                let value = value.unwrap_or_default() + plan.amount;
                state.insert(key, value);
                ops.push(Op::Write { key, value });
            }
        }
        match plan.what {
            0..6 => {
                serial += 1;
                let told = if plan.silent { &[][..] } else { &ops[..] };
                let mut transaction = Transaction::write(id, id % 3, times.0, times.1, outcome);
                if plan.silent {
                    transaction.returned = Transaction::NEVER;
                } else {
                    transaction = transaction.at(serial);
                }
                history.push(transaction, told);
                history.record(serial, id, &ops);
            }
            6..9 => {
                let read = Transaction::read(id, id % 3, times.0, times.1, outcome);
                history.push(read.at(serial), &ops);
            }
            _ => {
                let failed = Outcome::NotCommitted;
                let write = Op::Write {
                    key: plan.keys[0],
                    value: 1_000 + plan.amount,
                };
                let failed = Transaction::write(id, id % 3, times.0, times.1, failed);
                history.push(failed, &[write]);
            }
        }
    }
    history.end = state.into_iter().collect();
    history
}

/// Whether a history with serials is one that an honest database could have
/// made: every pair compared, everything looked up by searching.
pub fn is_honest_serial(history: &History) -> bool {
    let ledger: Vec<&Entry> = {
        let mut ledger: Vec<_> = history.ledger.iter().collect();
        ledger.sort_by_key(|entry| entry.serial);
        ledger
    };
    let all = &history.transactions;
    let ops = |range: &std::ops::Range<usize>| &history.ops[range.clone()];
    let ids_differ = all
        .iter()
        .all(|one| all.iter().filter(|other| other.id == one.id).count() == 1);
    let times_fit = all.iter().all(|one| one.invoked <= one.returned);
    let numbers_fit = (1..).zip(&ledger).all(|(n, entry)| entry.serial == n);
    let answers_fit = all.iter().all(|one| {
        let entries: Vec<_> = ledger.iter().filter(|entry| entry.id == one.id).collect();
        match (one.writes, one.outcome) {
            (true, Outcome::Committed) => {
                entries.len() == 1
                    && one.serial == Some(entries[0].serial)
                    && ops(&one.ops) == ops(&entries[0].ops)
            }
            (true, Outcome::NotCommitted) | (false, _) => entries.is_empty(),
            (true, Outcome::Unknown) => entries.len() <= 1,
        }
    });
    let asked_for = ledger
        .iter()
        .all(|entry| all.iter().any(|one| one.id == entry.id));
    if !(ids_differ && times_fit && numbers_fit && answers_fit && asked_for) {
        return false;
    }
    // Everything in its place: (serial, 0) a write, (serial, 1) a read.
    let mut placed: Vec<((u64, u8), &Transaction, &[Op])> = Vec::new();
    for entry in &ledger {
        let asker = all.iter().find(|one| one.id == entry.id).unwrap();
        placed.push(((entry.serial, 0), asker, ops(&entry.ops)));
    }
    for read in all
        .iter()
        .filter(|one| !one.writes && one.outcome == Outcome::Committed)
    {
        match read.serial {
            Some(serial) if serial <= ledger.len() as u64 => {
                placed.push(((serial, 1), read, ops(&read.ops)));
            }
            _ => return false,
        }
    }
    let in_time = placed.iter().all(|(first, one, _)| {
        placed.iter().all(|(second, other, _)| {
            let is_answered = other.outcome == Outcome::Committed;
            !(first < second && is_answered && other.returned < one.invoked)
        })
    });
    placed.sort_by_key(|&(place, ..)| place);
    let mut state: BTreeMap<u64, i64> = history.start.iter().copied().collect();
    for (_, _, ops) in placed {
        for op in ops {
            match *op {
                Op::Read { key, value } if state.get(&key).copied() == value => {}
                Op::Write { key, value } => {
                    state.insert(key, value);
                }
                _ => return false,
            }
        }
    }
    let end: BTreeMap<u64, i64> = history.end.iter().copied().collect();
    in_time && (end.is_empty() || end == state)
}

/// Whether *some* order explains the history, whatever its serials say: all
/// orders that time allows are tried, with and without each transaction of
/// unknown outcome.
pub fn some_order_explains(history: &History) -> bool {
    let mut state = State {
        registers: history.start.iter().copied().collect(),
        lists: BTreeMap::new(),
    };
    let rest: Vec<&Transaction> = history
        .transactions
        .iter()
        .filter(|one| one.outcome != Outcome::NotCommitted)
        .collect();
    explain(history, &mut state, &rest)
}

#[derive(Clone)]
struct State {
    registers: BTreeMap<u64, i64>,
    lists: BTreeMap<u64, Vec<i64>>,
}

fn explain(history: &History, state: &mut State, rest: &[&Transaction]) -> bool {
    if rest.iter().all(|one| one.outcome == Outcome::Unknown) {
        return true;
    }
    (0..rest.len()).any(|at| {
        let one = rest[at];
        let may_be_first = rest.iter().all(|other| {
            other.id == one.id || other.outcome == Outcome::Unknown || other.returned >= one.invoked
        });
        if !may_be_first {
            return false;
        }
        let mut next = state.clone();
        if !run(history, &mut next, one) {
            return false;
        }
        let mut others = rest.to_vec();
        others.remove(at);
        explain(history, &mut next, &others)
    })
}

fn run(history: &History, state: &mut State, one: &Transaction) -> bool {
    let told = one.outcome == Outcome::Committed;
    // What a transaction of unknown outcome did is in the ledger.
    let ops = history
        .ledger
        .iter()
        .find(|entry| entry.id == one.id)
        .map_or(&one.ops, |entry| &entry.ops);
    history.ops[ops.clone()].iter().all(|op| match *op {
        Op::Read { key, value } => !told || state.registers.get(&key).copied() == value,
        Op::Write { key, value } => {
            state.registers.insert(key, value);
            true
        }
        Op::Append { key, value } => {
            state.lists.entry(key).or_default().push(value);
            true
        }
        Op::List { key, at } => {
            let list = state.lists.get(&key).map_or(&[][..], Vec::as_slice);
            !told || list == history.elements(at)
        }
    })
}
