//! The black box passes what an honest database makes, notices every kind of
//! anomaly that is planted, and agrees with a checker that tries all orders.

mod common;

use std::collections::BTreeMap;

use common::some_order_explains;
use onepen_check::{Class, History, Mode, Op, Outcome, Transaction};
use proptest::prelude::*;

/// One transaction of a database that may be sloppy.
#[derive(Clone, Debug)]
struct Plan {
    /// For each step: the list, whether it appends, and how sloppy it is.
    steps: Vec<(u64, bool, u8)>,
    around: [u64; 2],
    /// 0–7 committed, 8 not committed, 9 unknown.
    outcome: u8,
    /// Whether what was not committed, or unknown, took effect.
    took_effect: bool,
}

fn plans(most: usize, sloppy: u8) -> impl Strategy<Value = Vec<Plan>> {
    let step = (0_u64..2, any::<bool>(), 0..=sloppy);
    let plan = (
        prop::collection::vec(step, 1..4),
        [1_u64..40, 1_u64..40],
        0_u8..10,
        any::<bool>(),
    )
        .prop_map(|(steps, around, outcome, took_effect)| Plan {
            steps,
            around,
            outcome,
            took_effect,
        });
    prop::collection::vec(plan, 1..most)
}

/// Runs the plans one after the other, and at the end reads all lists. A step
/// with sloppiness 1 misses the last append, with 2 sees a list of before the
/// transaction, with 3 appends before the last element, with 4 appends twice.
fn run(plans: &[Plan]) -> History {
    let mut history = History::new(Mode::Append);
    let mut lists: BTreeMap<u64, Vec<i64>> = BTreeMap::new();
    let mut value = 0;
    for (id, plan) in (1..).zip(plans) {
        let outcome = match plan.outcome {
            0..8 => Outcome::Committed,
            8 => Outcome::NotCommitted,
            _ => Outcome::Unknown,
        };
        let before = lists.clone();
        let mut ops = Vec::new();
        for &(key, appends, sloppiness) in &plan.steps {
            let list = lists.entry(key).or_default();
            if appends {
                value += 1;
                let place = match sloppiness {
                    3 => list.len().saturating_sub(1),
                    _ => list.len(),
                };
                list.insert(place, value);
                if sloppiness == 4 {
                    list.push(value);
                }
                ops.push(Op::Append { key, value });
            } else {
                let seen = match sloppiness {
                    1 => &list[..list.len().saturating_sub(1)],
                    2 => before.get(&key).map_or(&[][..], Vec::as_slice),
                    _ => list,
                };
                let seen = seen.to_vec();
                ops.push(history.list(key, &seen));
            }
        }
        if outcome == Outcome::NotCommitted && !(plan.took_effect && plan.steps[0].2 == 5)
            || outcome == Outcome::Unknown && !plan.took_effect
        {
            lists = before;
        }
        let now = 100 + id * 10;
        let mut one =
            Transaction::write(id, id, now - plan.around[0], now + plan.around[1], outcome);
        if outcome == Outcome::Unknown {
            one.returned = Transaction::NEVER;
            ops.retain(|op| matches!(op, Op::Append { .. }));
        }
        history.push(one, &ops);
    }
    let last: Vec<_> = (0..2)
        .map(|key| {
            let list = lists.get(&key).cloned().unwrap_or_default();
            history.list(key, &list)
        })
        .collect();
    let read = Transaction::read(9_999, 9_999, 1_000_000, 1_000_001, Outcome::Committed);
    history.push(read, &last);
    history
}

proptest! {
    #![proptest_config(common::cases(512))]

    #[test]
    fn an_honest_history_of_lists_is_clean(plans in plans(60, 0)) {
        let report = run(&plans).check();
        prop_assert!(report.is_clean(), "{report:?}");
    }

    /// Sloppy in every way, so that about half of the histories are wrong: the
    /// two must agree on each of them.
    #[test]
    fn its_verdict_is_that_of_a_checker_that_tries_all_orders(plans in plans(6, 5)) {
        let history = run(&plans);
        let report = history.check();
        prop_assert_eq!(
            report.is_clean(),
            some_order_explains(&history),
            "{:?}\n{:?}", report, history
        );
    }

    #[test]
    fn lists_that_are_written_as_text_are_read_as_the_same(plans in plans(20, 5)) {
        let history = run(&plans);
        let mut text = Vec::new();
        history.write_to(&mut text).unwrap();
        let again = History::read_from(&text[..]).unwrap();
        let mut text_again = Vec::new();
        again.write_to(&mut text_again).unwrap();
        prop_assert_eq!(&text, &text_again);
        prop_assert_eq!(again.check(), history.check());
    }
}

/// The small histories of the last property are of both kinds: else it would
/// have shown nothing.
#[test]
fn sloppy_histories_are_wrong_about_half_of_the_time() {
    use proptest::strategy::ValueTree;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let wrong = (0..400)
        .filter(|_| {
            let plans = plans(6, 5).new_tree(&mut runner).unwrap().current();
            !run(&plans).check().is_clean()
        })
        .count();
    assert!((100..300).contains(&wrong), "{wrong} of 400");
}

/// `a1=5` appends, `g1=4,5` reads; each line is a transaction, with the times at
/// which it began and ended, and its outcome.
fn history(lines: &[&str]) -> History {
    let mut history = History::new(Mode::Append);
    let text: String = (1..)
        .zip(lines)
        .map(|(id, line)| {
            let words: Vec<_> = line.splitn(4, ' ').collect();
            let [from, to, outcome, steps] = words[..] else {
                panic!("{line}")
            };
            format!("t {id} {id} {from} {to} {outcome} w - {steps}\n")
        })
        .collect();
    history.add_log(text.as_bytes()).unwrap();
    history
}

#[test]
fn every_planted_anomaly_of_lists_is_reported_by_its_name() {
    // All of them at the same time (0 to 9), so that only the lists order them.
    let plants: &[(Class, &[&str], &[u64])] = &[
        (
            Class::G0,
            &["0 9 c a1=1 a2=1", "0 9 c a1=2 a2=2", "0 9 c g1=1,2 g2=2,1"],
            &[1, 2],
        ),
        (Class::AbortedRead, &["0 9 n a1=1", "0 9 c g1=1"], &[1, 2]),
        (
            Class::IntermediateRead,
            &["0 9 c a1=1 a1=2", "0 9 c g1=1", "0 9 c g1=1,2"],
            &[1, 2],
        ),
        (Class::G1c, &["0 9 c a1=1 g2=2", "0 9 c a2=2 g1=1"], &[1, 2]),
        (
            Class::GSingle,
            &["0 9 c a1=1 a2=2", "0 9 c g1= g2=2", "0 9 c g1=1"],
            &[1, 2],
        ),
        (
            Class::GSingle,
            &["0 9 c g1= a1=1", "0 9 c g1= a1=2", "0 9 c g1=1,2"],
            &[1, 2],
        ),
        (
            Class::G2,
            &["0 9 c g1= a2=2", "0 9 c g2= a1=1", "0 9 c g1=1 g2=2"],
            &[1, 2],
        ),
        (
            Class::G0RealTime,
            &["0 1 c a1=1", "3 4 c a1=2", "5 6 c g1=2,1"],
            &[1, 2],
        ),
        (Class::G1cRealTime, &["0 1 c g1=1", "3 4 c a1=1"], &[1, 2]),
        (
            Class::GSingleRealTime,
            &["0 1 c a1=1", "3 4 c g1=", "5 6 c g1=1"],
            &[1, 2],
        ),
        (
            // Two readers see two appends in different orders (a long fork).
            Class::G2,
            &[
                "0 9 c a1=1",
                "0 9 c a2=2",
                "0 9 c g1=1 g2=",
                "0 9 c g1= g2=2",
            ],
            &[1, 2, 3, 4],
        ),
        (
            // The third missed the first, the second the third, and the first had
            // ended before the second began.
            Class::G2RealTime,
            &[
                "0 1 c a2=2",
                "3 4 c g1=",
                "0 9 c a1=1 g2=",
                "10 11 c g1=1 g2=2",
            ],
            &[1, 2, 3],
        ),
        (Class::LostWrite, &["0 1 c a1=1", "3 4 c g1="], &[1]),
        (Class::AppliedTwice, &["0 9 c a1=1", "0 9 c g1=1,1"], &[1]),
        (Class::GarbageRead, &["0 9 c a1=1", "0 9 c g1=1,7"], &[2]),
        (Class::Internal, &["0 9 c a1=1 g1=", "0 9 c g1=1"], &[1]),
        (Class::Internal, &["0 9 c g1= g1=1", "0 9 c a1=1"], &[1]),
        (Class::Internal, &["0 9 c g1=1 a1=1"], &[1]),
        (Class::Internal, &["0 9 c a1=1 a1=2", "0 9 c g1=2,1"], &[1]),
        (
            Class::IncompatibleOrder,
            &["0 9 c a1=1", "0 9 c a1=2", "0 9 c g1=1,2", "0 9 c g1=2"],
            &[4],
        ),
        (Class::Malformed, &["0 9 c a1=1", "0 9 c a1=1"], &[2]),
    ];
    for (class, lines, proof) in plants {
        let report = history(lines).check();
        let anomaly = report
            .of(*class)
            .unwrap_or_else(|| panic!("{class}: {report:?}"));
        for id in *proof {
            assert!(anomaly.transactions.contains(id), "{class}: {anomaly:?}");
        }
    }
}
