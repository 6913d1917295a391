//! The exact checker passes what an honest database makes, notices every kind
//! of anomaly that is planted in it, and says the same as a checker that
//! compares every pair.

mod common;

use common::{honest_serial, is_honest_serial, plans, some_order_explains};
use onepen_check::{Class, History, Op, Outcome, Transaction};
use proptest::prelude::*;

const COMMITTED: Outcome = Outcome::Committed;

/// Adds transactions behind an honest history, each at a moment of its own, on
/// registers that it did not use: 100 and 101 hold 5, 102 is not there.
struct Tail<'a> {
    history: &'a mut History,
    serial: u64,
    now: u64,
    id: u64,
}

impl<'a> Tail<'a> {
    fn new(history: &'a mut History) -> Self {
        for key in [100, 101] {
            history.start.push((key, 5));
        }
        history.end.clear();
        let now = 1_000_000;
        Self {
            serial: history.ledger.len() as u64,
            id: 1_000,
            now,
            history,
        }
    }

    fn next(&mut self) -> (u64, u64) {
        self.id += 1;
        self.now += 10;
        (self.id, self.now)
    }

    fn write(&mut self, ops: &[Op]) -> u64 {
        let (id, now) = self.next();
        self.serial += 1;
        let write = Transaction::write(id, 9, now, now + 5, COMMITTED).at(self.serial);
        self.history.push(write, ops);
        self.history.record(self.serial, id, ops);
        id
    }

    fn read(&mut self, ops: &[Op]) -> u64 {
        let (id, now) = self.next();
        let read = Transaction::read(id, 9, now, now + 5, COMMITTED).at(self.serial);
        self.history.push(read, ops);
        id
    }

    fn failed(&mut self, ops: &[Op]) -> u64 {
        let (id, now) = self.next();
        let failed = Transaction::write(id, 9, now, now + 5, Outcome::NotCommitted);
        self.history.push(failed, ops);
        id
    }
}

fn r(key: u64, value: i64) -> Op {
    Op::Read {
        key,
        value: Some(value),
    }
}

fn w(key: u64, value: i64) -> Op {
    Op::Write { key, value }
}

/// Plants one anomaly; the ids that must be in its proof.
type Plant = fn(&mut Tail<'_>) -> Vec<u64>;

const PLANTS: &[(Class, &str, Plant)] = &[
    (
        Class::LostWrite,
        "an acknowledged write is not in the ledger",
        |tail| {
            let id = tail.write(&[w(100, 6)]);
            tail.history.ledger.pop();
            vec![id]
        },
    ),
    (
        Class::Resurrected,
        "a refused write is in the ledger",
        |tail| {
            let id = tail.failed(&[w(100, 6)]);
            tail.serial += 1;
            tail.history.record(tail.serial, id, &[w(100, 6)]);
            vec![id]
        },
    ),
    (Class::AppliedTwice, "a write was applied again", |tail| {
        let id = tail.write(&[r(100, 5), w(100, 6)]);
        tail.serial += 1;
        tail.history
            .record(tail.serial, id, &[r(100, 6), w(100, 7)]);
        vec![id]
    }),
    (Class::Unasked, "a write came from nowhere", |tail| {
        tail.serial += 1;
        tail.history.record(tail.serial, 77_777, &[w(100, 6)]);
        vec![77_777]
    }),
    (Class::SerialGap, "a number is missing", |tail| {
        tail.write(&[w(100, 6)]);
        tail.serial += 1;
        vec![tail.write(&[w(100, 7)])]
    }),
    (
        Class::SerialTwice,
        "two writes saw the same counter",
        |tail| {
            let first = tail.write(&[w(100, 6)]);
            tail.serial -= 1;
            vec![first, tail.write(&[w(101, 7)])]
        },
    ),
    (
        Class::WrongAnswer,
        "the answer is of a run that did not count",
        |tail| {
            let id = tail.write(&[r(100, 5), w(100, 6)]);
            let told = tail.history.transactions.last().unwrap().ops.start;
            tail.history.ops[told] = r(100, 4);
            vec![id]
        },
    ),
    (
        Class::WrongAnswer,
        "the serial is of a run that did not count",
        |tail| {
            let id = tail.write(&[w(100, 6)]);
            tail.history.transactions.last_mut().unwrap().serial = Some(1_000_000);
            vec![id]
        },
    ),
    (
        Class::AbortedRead,
        "a read saw what was rolled back",
        |tail| {
            let failed = tail.failed(&[w(100, 66)]);
            vec![tail.read(&[r(100, 66)]), failed]
        },
    ),
    (
        Class::IntermediateRead,
        "a read saw the middle of a write",
        |tail| {
            let write = tail.write(&[w(100, 66), w(100, 67)]);
            vec![tail.read(&[r(100, 66)]), write]
        },
    ),
    (Class::GarbageRead, "a read saw what nobody wrote", |tail| {
        vec![tail.read(&[r(100, 66)])]
    }),
    (Class::Internal, "a write did not see its own", |tail| {
        vec![tail.write(&[w(100, 6), r(100, 5)])]
    }),
    (
        Class::Internal,
        "a read saw two values of one register",
        |tail| {
            tail.write(&[w(100, 6)]);
            vec![tail.read(&[r(100, 6), r(100, 5)])]
        },
    ),
    (
        Class::LostUpdate,
        "two writes went on from the same value",
        |tail| {
            let first = tail.write(&[r(100, 5), w(100, 6)]);
            vec![tail.write(&[r(100, 5), w(100, 7)]), first]
        },
    ),
    (
        Class::WriteSkew,
        "two writes each saw the other's register before",
        |tail| {
            let first = tail.write(&[r(100, 5), r(101, 5), w(100, 0)]);
            vec![tail.write(&[r(100, 5), r(101, 5), w(101, 0)]), first]
        },
    ),
    (Class::ReadSkew, "a read saw half a write", |tail| {
        let write = tail.write(&[w(100, 6), w(101, 4)]);
        vec![tail.read(&[r(100, 6), r(101, 5)]), write]
    }),
    (
        Class::StaleRead,
        "a read saw an older state than it says",
        |tail| {
            let write = tail.write(&[w(100, 6), w(101, 4)]);
            vec![tail.read(&[r(100, 5), r(101, 5)]), write]
        },
    ),
    (
        Class::StaleRead,
        "a read began after a write was acknowledged, and missed it",
        |tail| {
            let write = tail.write(&[w(100, 6)]);
            let read = tail.read(&[r(100, 5)]);
            let serial = tail.serial - 1;
            tail.history.transactions.last_mut().unwrap().serial = Some(serial);
            vec![read, write]
        },
    ),
    (
        Class::StaleRead,
        "a later read saw less than an earlier one",
        |tail| {
            let write = tail.write(&[w(100, 6)]);
            let last = tail.history.transactions.len() - 1;
            tail.history.transactions[last].returned = u64::MAX - 1;
            let first = tail.read(&[r(100, 6)]);
            let second = tail.read(&[r(100, 5)]);
            let serial = tail.serial - 1;
            tail.history.transactions.last_mut().unwrap().serial = Some(serial);
            let _ = write;
            vec![second, first]
        },
    ),
    (
        Class::FutureRead,
        "a read saw a number that nobody committed",
        |tail| {
            let id = tail.read(&[r(100, 5)]);
            tail.history.transactions.last_mut().unwrap().serial = Some(1_000_000);
            vec![id]
        },
    ),
    (
        Class::FutureRead,
        "a read was answered before the write it saw was asked for",
        |tail| {
            let read = tail.read(&[r(100, 6)]);
            let write = tail.write(&[w(100, 6)]);
            let at = tail.history.transactions.len() - 2;
            tail.history.transactions[at].serial = Some(tail.serial);
            vec![read, write]
        },
    ),
    (
        Class::OrderInverted,
        "a write went before one that had ended",
        |tail| {
            let first = tail.write(&[w(100, 6)]);
            let second = tail.write(&[w(100, 7)]);
            let at = tail.history.transactions.len() - 2;
            let [one, two] = &mut tail.history.transactions[at..] else {
                unreachable!("two were added")
            };
            (one.invoked, two.invoked) = (two.invoked, one.invoked);
            (one.returned, two.returned) = (two.returned, one.returned);
            vec![first, second]
        },
    ),
    (
        Class::EndState,
        "the end is not what the writes made",
        |tail| {
            tail.write(&[w(100, 6)]);
            tail.history.end = vec![(100, 5)];
            vec![]
        },
    ),
    (Class::Malformed, "an id is there twice", |tail| {
        let id = tail.read(&[]);
        tail.id -= 1;
        tail.read(&[]);
        vec![id]
    }),
];

proptest! {
    #![proptest_config(common::cases(128))]

    #[test]
    fn an_honest_history_is_clean(plans in plans(60)) {
        let history = honest_serial(&plans);
        let report = history.check();
        prop_assert!(report.is_clean(), "{report:?}");
        prop_assert_eq!(report.transactions, plans.len());
    }

    #[test]
    fn every_planted_anomaly_is_reported_by_its_name(plans in plans(30)) {
        for (class, what, plant) in PLANTS {
            let mut history = honest_serial(&plans);
            Tail::new(&mut history);
            prop_assert!(history.check().is_clean());
            let mut history = honest_serial(&plans);
            let proof = plant(&mut Tail::new(&mut history));
            let report = history.check();
            let Some(anomaly) = report.of(*class) else {
                return Err(TestCaseError::fail(format!("{what}: {report:?}")));
            };
            for id in proof {
                prop_assert!(anomaly.transactions.contains(&id), "{what}: T{id}: {anomaly:?}");
            }
        }
    }

    /// One number anywhere is another: whatever that does to the history, both
    /// must say the same of it; and what passes has an order without its serials.
    #[test]
    fn its_verdict_is_that_of_a_checker_that_compares_every_pair(
        plans in plans(7),
        changes in prop::collection::vec((0_u8..9, any::<prop::sample::Index>(), 0_u64..200), 0..3),
    ) {
        let mut history = honest_serial(&plans);
        for (what, at, to) in changes {
            change(&mut history, what, at, to);
        }
        let is_clean = history.check().is_clean();
        prop_assert_eq!(is_clean, is_honest_serial(&history), "{:?}", history);
        if is_clean {
            prop_assert!(some_order_explains(&history), "{:?}", history);
        }
    }

    #[test]
    fn what_is_written_as_text_is_read_as_the_same(plans in plans(30)) {
        let history = honest_serial(&plans);
        let mut text = Vec::new();
        history.write_to(&mut text).unwrap();
        let again = History::read_from(&text[..]).unwrap();
        let mut text_again = Vec::new();
        again.write_to(&mut text_again).unwrap();
        prop_assert_eq!(&text, &text_again);
        prop_assert_eq!(again.transactions.len(), history.transactions.len());
        prop_assert_eq!(again.check(), history.check());
    }

    /// A file is somebody's input: no text makes the reader or the checkers panic.
    #[test]
    fn no_text_makes_it_panic(lines in prop::collection::vec("[sitlex] ?[0-9 rwagcnu=,-]{0,24}", 0..8)) {
        for mode in ["serial", "append"] {
            let text = format!("onepen-history 1 {mode}\n{}\n", lines.join("\n"));
            if let Ok(history) = History::read_from(text.as_bytes()) {
                history.check();
            }
        }
    }
}

fn change(history: &mut History, what: u8, at: prop::sample::Index, to: u64) {
    let signed = i64::try_from(to).unwrap();
    if what < 5 {
        let all = &mut history.transactions;
        let place = at.index(all.len());
        let one = &mut all[place];
        match what {
            0 => one.invoked = to,
            1 => one.returned = to,
            2 => one.serial = Some(to % 8),
            3 => {
                one.outcome = [Outcome::Committed, Outcome::NotCommitted, Outcome::Unknown]
                    [usize::try_from(to % 3).unwrap()];
            }
            _ => one.id = 1 + to % 8,
        }
    } else if what == 5 && !history.ops.is_empty() {
        let place = at.index(history.ops.len());
        match &mut history.ops[place] {
            Op::Read { value, .. } => *value = Some(signed),
            Op::Write { value, .. } => *value = signed,
            _ => {}
        }
    } else if !history.ledger.is_empty() {
        let place = at.index(history.ledger.len());
        match what {
            6 => history.ledger[place].serial = to % 8,
            7 => history.ledger[place].id = to % 8,
            _ => {
                history.ledger.remove(place);
            }
        }
    }
}

#[test]
fn a_line_that_has_no_end_is_as_if_it_had_not_been_written() {
    let text = "onepen-history 1 serial killed\ni 1 1 10 w\nt 1 1 10 20 c w 1 w3=4";
    let history = History::read_from(text.as_bytes()).unwrap();
    assert_eq!(history.transactions.len(), 1);
    assert_eq!(history.transactions[0].outcome, Outcome::Unknown);
}

#[test]
fn a_wrong_line_is_named_by_its_number() {
    let text = "onepen-history 1 serial\ns 1=2\nt 1 1 10 x\n";
    let error = History::read_from(text.as_bytes()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "line 3: no line of a history: \"t 1 1 10 x\""
    );
    let error = History::read_from(&b"{}\n"[..]).unwrap_err();
    assert!(error.to_string().starts_with("line 1: expected"), "{error}");
}
