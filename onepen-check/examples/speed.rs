//! How fast the checkers are, on histories of an honest database:
//!
//! ```sh
//! cargo run --release -p onepen-check --example speed -- 1000000
//! ```

use std::time::Instant;

use onepen_check::{History, Mode, Op, Outcome, Transaction};

fn main() {
    let transactions = std::env::args().nth(1).map_or(1_000_000, |text| {
        text.parse().expect("a number of transactions")
    });
    for (what, history) in [
        ("exact (transfers of a bank)", bank(transactions)),
        ("black box (lists)", lists(transactions)),
    ] {
        let began = Instant::now();
        let report = history.check();
        let took = began.elapsed().as_secs_f64();
        assert!(report.is_clean(), "{report:?}");
        println!(
            "{what}: {} transactions, {} operations in {:.0} ms: {:.2} million transactions/s, {:.2} million operations/s",
            report.transactions,
            report.operations,
            took * 1e3,
            report.transactions as f64 / took / 1e6,
            report.operations as f64 / took / 1e6,
        );
    }
}

/// Numbers that look random.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// 16 clients: every transaction overlaps about as many others.
fn times(id: u64, numbers: &mut Numbers) -> (u64, u64) {
    let now = 1_000 + id * 100;
    (now - numbers.below(800), now + numbers.below(800))
}

fn bank(transactions: u64) -> History {
    let mut history = History::new(Mode::Serial);
    let mut numbers = Numbers(1);
    let mut accounts = vec![100; 1_000];
    history.start = (0..).zip(accounts.iter().copied()).collect();
    let mut serial = 0;
    for id in 1..=transactions {
        let (invoked, returned) = times(id, &mut numbers);
        let [from, to] = [numbers.below(1_000), numbers.below(1_000)];
        let look = |accounts: &[i64], key: u64| Op::Read {
            key,
            value: Some(accounts[key as usize]),
        };
        if id % 4 == 0 {
            let ops = [look(&accounts, from), look(&accounts, to)];
            let read = Transaction::read(id, id % 16, invoked, returned, Outcome::Committed);
            history.push(read.at(serial), &ops);
            continue;
        }
        let mut ops = Vec::new();
        for (key, amount) in [(from, -1), (to, 1)] {
            ops.push(look(&accounts, key));
            accounts[key as usize] += amount;
            let value = accounts[key as usize];
            ops.push(Op::Write { key, value });
        }
        serial += 1;
        let write = Transaction::write(id, id % 16, invoked, returned, Outcome::Committed);
        history.push(write.at(serial), &ops);
        history.record(serial, id, &ops);
    }
    history
}

fn lists(transactions: u64) -> History {
    let mut history = History::new(Mode::Append);
    let mut numbers = Numbers(1);
    let mut lists = vec![Vec::new(); 8];
    for id in 1..=transactions {
        let (invoked, returned) = times(id, &mut numbers);
        // New lists from time to time, or reading them would be all there is.
        let round = id / 500;
        if id % 500 == 0 {
            lists.iter_mut().for_each(Vec::clear);
        }
        let [one, two] = [numbers.below(8), numbers.below(8)];
        let value = id.cast_signed();
        let seen = history.list(round * 8 + one, &lists[one as usize]);
        lists[two as usize].push(value);
        let append = Op::Append {
            key: round * 8 + two,
            value,
        };
        let write = Transaction::write(id, id % 16, invoked, returned, Outcome::Committed);
        history.push(write, &[seen, append]);
    }
    history
}
