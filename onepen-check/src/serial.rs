//! The exact checker: one pass over a history whose order is known.
//!
//! What it needs of those who record: every writing transaction raises a
//! counter in the database and notes what it read, what it wrote and the number
//! it got in a ledger, all inside itself; every reading one also reads the
//! counter. SQLite has one writer, so the counter costs no concurrency that
//! there would be without it.
//!
//! It then follows for each history whether
//! 1. the ledger has exactly the writes it must have: all that were
//!    acknowledged, none that was refused, none twice, none that nobody asked
//!    for, numbered 1, 2, 3 … (durable, atomic, exactly once; a write without an
//!    answer may be there or not, and the ledger says which);
//! 2. every client was told what its transaction did;
//! 3. run one after the other in the order of their numbers, every read, those
//!    within writes included, finds what it found (serializable);
//! 4. no transaction stands before one that had ended before it began (strict);
//! 5. the registers hold at the end what that leaves in them.
//!
//! That is all there is: a history that passes *is* its serial execution. Time
//! and memory are linear in the history's size (`examples/speed.rs`).

use crate::history::Map;
use crate::report::name;
use crate::{Class, Entry, History, Op, Outcome, Report, Transaction};

/// Judges a history of registers with a ledger.
pub fn check(history: &History) -> Report {
    let mut report = Report::new(history);
    let order = Order::new(history, &mut report);
    replay(history, &order, &mut report);
    real_time(&order, &mut report);
    report
}

/// The order that the ledger and the readers' numbers claim.
struct Order<'a> {
    /// The ledger by serial; the place in it plus one is a write's *position*.
    entries: Vec<&'a Entry>,
    /// Who asked for each of them.
    askers: Vec<Option<&'a Transaction>>,
    /// The answered reads by the position of the state they saw.
    readers: Buckets<'a>,
}

/// Reads, sorted by counting.
struct Buckets<'a> {
    starts: Vec<usize>,
    sorted: Vec<&'a Transaction>,
}

impl<'a> Buckets<'a> {
    fn new(positions: usize, reads: &[(usize, &'a Transaction)]) -> Self {
        let mut starts = vec![0; positions + 2];
        for &(position, _) in reads {
            starts[position + 1] += 1;
        }
        for at in 1..starts.len() {
            starts[at] += starts[at - 1];
        }
        let mut next = starts.clone();
        let mut places = vec![0; reads.len()];
        for (at, &(position, _)) in reads.iter().enumerate() {
            places[next[position]] = at;
            next[position] += 1;
        }
        Self {
            starts,
            sorted: places.into_iter().map(|at| reads[at].1).collect(),
        }
    }

    fn at(&self, position: usize) -> &[&'a Transaction] {
        &self.sorted[self.starts[position]..self.starts[position + 1]]
    }
}

impl<'a> Order<'a> {
    fn new(history: &'a History, report: &mut Report) -> Self {
        let by_id = by_id(history, report);
        let mut entries: Vec<&Entry> = history.ledger.iter().collect();
        if !entries.is_sorted_by_key(|entry| entry.serial) {
            entries.sort_by_key(|entry| entry.serial);
        }
        numbers(&entries, report);
        let mut seen = vec![false; history.transactions.len()];
        let askers: Vec<_> = entries
            .iter()
            .map(|entry| {
                let Some(&at) = by_id.get(&entry.id) else {
                    report.add(Class::Unasked, || {
                        let what = format!(
                            "the ledger has T{} at serial {}, which nobody asked for",
                            entry.id, entry.serial
                        );
                        (what, vec![entry.id])
                    });
                    return None;
                };
                let asker = &history.transactions[at as usize];
                let again = std::mem::replace(&mut seen[at as usize], true);
                answer(history, entry, asker, again, report);
                Some(asker)
            })
            .collect();
        for (transaction, _) in
            history
                .transactions
                .iter()
                .zip(&seen)
                .filter(|(transaction, seen)| {
                    !**seen && transaction.writes && transaction.outcome == Outcome::Committed
                })
        {
            report.add(Class::LostWrite, || {
                let what = format!(
                    "{} was acknowledged{} and is not in the database",
                    name(transaction),
                    transaction
                        .serial
                        .map_or(String::new(), |serial| format!(" with serial {serial}")),
                );
                (what, vec![transaction.id])
            });
        }
        let mut reads = Vec::new();
        for read in &history.transactions {
            if read.writes || read.outcome != Outcome::Committed {
                continue;
            }
            match read.serial.map(|serial| position(&entries, serial)) {
                Some(Some(position)) => reads.push((position, read)),
                Some(None) => report.add(Class::FutureRead, || {
                    let what = format!(
                        "{} saw serial {}, and the last that was committed is {}",
                        name(read),
                        read.serial.unwrap_or_default(),
                        entries.last().map_or(0, |entry| entry.serial),
                    );
                    (what, vec![read.id])
                }),
                None => report.add(Class::Malformed, || {
                    let what = format!("{} is an answered read without a serial", name(read));
                    (what, vec![read.id])
                }),
            }
        }
        let readers = Buckets::new(entries.len(), &reads);
        Self {
            entries,
            askers,
            readers,
        }
    }
}

fn by_id(history: &History, report: &mut Report) -> Map<u64, u32> {
    let mut by_id = Map::with_capacity_and_hasher(history.transactions.len(), Default::default());
    for (at, transaction) in (0_u32..).zip(&history.transactions) {
        if by_id.insert(transaction.id, at).is_some() {
            report.add(Class::Malformed, || {
                let what = format!("two transactions have the id {}", transaction.id);
                (what, vec![transaction.id])
            });
        }
        if transaction.returned < transaction.invoked {
            report.add(Class::Malformed, || {
                let what = format!("{} was answered before it was asked for", name(transaction));
                (what, vec![transaction.id])
            });
        }
    }
    by_id
}

/// How many writes there are up to a serial; `None` for one beyond the last.
fn position(entries: &[&Entry], serial: u64) -> Option<usize> {
    let at = usize::try_from(serial).ok()?;
    // Where there is no gap a number is its own place.
    let is_own_place =
        |at: usize| at == 0 || entries.get(at - 1).is_some_and(|e| e.serial == serial);
    if is_own_place(at) && entries.get(at).is_none_or(|next| next.serial > serial) {
        return Some(at);
    }
    (serial <= entries.last()?.serial)
        .then(|| entries.partition_point(|entry| entry.serial <= serial))
}

/// The numbers must be 1, 2, 3 ….
fn numbers(entries: &[&Entry], report: &mut Report) {
    let mut last = 0;
    let mut last_id = None;
    for entry in entries {
        let proof = || last_id.into_iter().chain([entry.id]).collect();
        if entry.serial == last {
            report.add(Class::SerialTwice, || {
                (format!("serial {last} was taken twice"), proof())
            });
        } else if entry.serial != last + 1 {
            report.add(Class::SerialGap, || {
                let what = format!("no transaction in the ledger has serial {}", last + 1);
                (what, proof())
            });
        }
        last = entry.serial;
        last_id = Some(entry.id);
    }
}

/// Compares what somebody was told with what is in the ledger.
fn answer(history: &History, entry: &Entry, asker: &Transaction, again: bool, report: &mut Report) {
    if again {
        report.add(Class::AppliedTwice, || {
            let what = format!("{} is in the database more than once", name(asker));
            (what, vec![asker.id])
        });
    }
    if !asker.writes {
        report.add(Class::Unasked, || {
            let what = format!("{} asked only to read, and is in the ledger", name(asker));
            (what, vec![asker.id])
        });
    }
    match asker.outcome {
        Outcome::NotCommitted => report.add(Class::Resurrected, || {
            let what = format!(
                "{} was told that nothing of it is there, and it is, at serial {}",
                name(asker),
                entry.serial
            );
            (what, vec![asker.id])
        }),
        Outcome::Unknown => report.unknown_found += 1,
        Outcome::Committed => {
            let told = &history.ops[asker.ops.clone()];
            let done = &history.ops[entry.ops.clone()];
            if asker.serial != Some(entry.serial) || told != done {
                report.add(Class::WrongAnswer, || {
                    let what = format!(
                        "{} was told serial {:?} and {told:?}; in the ledger are serial {} and {done:?}",
                        name(asker),
                        asker.serial,
                        entry.serial
                    );
                    (what, vec![asker.id])
                });
            }
        }
    }
}

/// Runs everything again, one after the other.
fn replay(history: &History, order: &Order<'_>, report: &mut Report) {
    let mut state: Map<u64, i64> = history.start.iter().copied().collect();
    let mut judge = Judge {
        history,
        order,
        writes: None,
        judged: 0,
    };
    for position in 0..=order.entries.len() {
        if position > 0 {
            let entry = order.entries[position - 1];
            let ops = &history.ops[entry.ops.clone()];
            for (at, &op) in ops.iter().enumerate() {
                match op {
                    Op::Write { key, value } => {
                        state.insert(key, value);
                    }
                    _ => look(
                        &state,
                        op,
                        report,
                        &mut judge,
                        (entry.id, ops, at, position, true),
                    ),
                }
            }
        }
        for reader in order.readers.at(position) {
            let ops = &history.ops[reader.ops.clone()];
            for (at, &op) in ops.iter().enumerate() {
                look(
                    &state,
                    op,
                    report,
                    &mut judge,
                    (reader.id, ops, at, position, false),
                );
            }
        }
    }
    if !history.end.is_empty() {
        end(history, &state, report);
    }
}

/// A step: whose, among which, which of them, where in the order, in a write?
type Step<'a> = (u64, &'a [Op], usize, usize, bool);

#[inline]
fn look(state: &Map<u64, i64>, op: Op, report: &mut Report, judge: &mut Judge<'_>, step: Step<'_>) {
    match op {
        Op::Read { key, value } if state.get(&key).copied() == value => {}
        Op::Read { key, value } => judge.wrong(step, key, value, state.get(&key).copied(), report),
        Op::Write { .. } | Op::Append { .. } | Op::List { .. } => {
            report.add(Class::Malformed, || {
                (format!("T{} has a step {op:?}", step.0), vec![step.0])
            });
        }
    }
}

fn end(history: &History, state: &Map<u64, i64>, report: &mut Report) {
    let found: Map<u64, i64> = history.end.iter().copied().collect();
    let keys = found
        .keys()
        .chain(state.keys().filter(|key| !found.contains_key(key)));
    for key in keys {
        let (is, must) = (found.get(key), state.get(key));
        if is != must {
            report.add(Class::EndState, || {
                let what = format!(
                    "register {key} is {} at the end, and its transactions left {} in it",
                    shown(is.copied()),
                    shown(must.copied())
                );
                (what, Vec::new())
            });
        }
    }
}

fn shown(value: Option<i64>) -> String {
    value.map_or_else(|| "absent".to_owned(), |value| value.to_string())
}

/// Says of a wrong read which kind of wrong it is. Only here because reports
/// are for people; whether a history is clean does not depend on it.
struct Judge<'a> {
    history: &'a History,
    order: &'a Order<'a>,
    /// Every value of every register, in order; made when first needed.
    writes: Option<Map<u64, Vec<Written>>>,
    judged: u32,
}

#[derive(Clone, Copy)]
struct Written {
    position: usize,
    value: i64,
    id: Option<u64>,
    /// Its transaction did not write another value after it.
    is_last: bool,
}

/// After so many wrong reads the rest is only counted.
const ENOUGH: u32 = 1_000;

impl Judge<'_> {
    #[cold]
    fn wrong(
        &mut self,
        step: Step<'_>,
        key: u64,
        found: Option<i64>,
        must: Option<i64>,
        report: &mut Report,
    ) {
        self.judged += 1;
        if self.judged > ENOUGH {
            report.found += 1;
            return;
        }
        let (class, source) = self.classify(step, key, found);
        let (id, _, _, position, is_write) = step;
        report.add(class, || {
            // A write finds the state before its own.
            let position = position - usize::from(is_write);
            let writes = self.writes();
            let last = writes.get(&key).and_then(|all| {
                all.iter()
                    .rev()
                    .find(|written| written.position <= position && written.is_last)
            });
            let of = |source: Option<u64>| source.map_or(String::new(), |id| format!(" of T{id}"));
            let what = format!(
                "T{id}, which saw serial {position}, read {}{} from register {key}; there it held {}{}",
                shown(found),
                of(source),
                shown(must),
                of(last.and_then(|last| last.id)),
            );
            let mut proof = vec![id];
            for other in [source, last.and_then(|last| last.id)].into_iter().flatten() {
                if !proof.contains(&other) {
                    proof.push(other);
                }
            }
            (what, proof)
        });
    }

    fn classify(
        &mut self,
        (_, ops, at, position, writes): Step<'_>,
        key: u64,
        found: Option<i64>,
    ) -> (Class, Option<u64>) {
        let before = ops[..at].iter().rev().find(|op| op.key() == key);
        match before {
            Some(Op::Write { .. }) => return (Class::Internal, None),
            Some(Op::Read { value, .. }) if *value != found => return (Class::Internal, None),
            _ => {}
        }
        let history = self.history;
        let Some(value) = found else {
            let was_absent = !history.start.iter().any(|&(start, _)| start == key);
            return (
                if was_absent {
                    Class::StaleRead
                } else {
                    Class::GarbageRead
                },
                None,
            );
        };
        let all = self.writes().get(&key).map_or(&[][..], Vec::as_slice);
        let with_value = || all.iter().filter(|written| written.value == value);
        let stale = with_value()
            .rev()
            .find(|written| written.position < position.max(1) && written.is_last);
        if let Some(stale) = stale {
            // The last state in which that was so.
            let over = all
                .iter()
                .find(|written| written.is_last && written.position > stale.position)
                .map_or(position, |next| next.position - 1);
            let id = stale.id;
            let class = if writes {
                let updates = |op: &Op| matches!(op, Op::Write { key: k, .. } if *k == key);
                if ops.iter().any(updates) {
                    Class::LostUpdate
                } else {
                    Class::WriteSkew
                }
            } else if self.all_were_so(ops, over) {
                Class::StaleRead
            } else {
                Class::ReadSkew
            };
            return (class, id);
        }
        if let Some(between) = with_value().find(|written| !written.is_last) {
            return (Class::IntermediateRead, between.id);
        }
        if let Some(later) = with_value().find(|written| written.position > position) {
            return (Class::FutureRead, later.id);
        }
        let aborted = history.transactions.iter().find(|transaction| {
            transaction.outcome != Outcome::Committed
                && history.ops[transaction.ops.clone()].contains(&Op::Write { key, value })
        });
        match aborted {
            Some(aborted) => (Class::AbortedRead, Some(aborted.id)),
            None => (Class::GarbageRead, None),
        }
    }

    /// Whether all these reads were right at one earlier position.
    fn all_were_so(&mut self, ops: &[Op], position: usize) -> bool {
        let writes = self.writes();
        ops.iter().all(|op| match op {
            Op::Read { key, value } => {
                let all = writes.get(key).map_or(&[][..], Vec::as_slice);
                let then = all
                    .iter()
                    .rev()
                    .find(|written| written.is_last && written.position <= position);
                then.map(|written| written.value) == *value
            }
            _ => true,
        })
    }

    fn writes(&mut self) -> &Map<u64, Vec<Written>> {
        let (history, order) = (self.history, self.order);
        self.writes.get_or_insert_with(|| {
            let mut writes: Map<u64, Vec<Written>> = Map::default();
            let mut put = |key, value, position, id, is_last| {
                writes.entry(key).or_default().push(Written {
                    position,
                    value,
                    id,
                    is_last,
                });
            };
            for &(key, value) in &history.start {
                put(key, value, 0, None, true);
            }
            for (position, entry) in (1..).zip(&order.entries) {
                let ops = &history.ops[entry.ops.clone()];
                for (at, op) in ops.iter().enumerate() {
                    if let Op::Write { key, value } = *op {
                        let again = |op: &Op| matches!(op, Op::Write { key: k, .. } if *k == key);
                        let is_last = !ops[at + 1..].iter().any(again);
                        put(key, value, position, Some(entry.id), is_last);
                    }
                }
            }
            writes
        })
    }
}

/// The order must be one that time allows: from the end to the start, nobody
/// may have begun after the earliest end of those who stand behind it.
fn real_time(order: &Order<'_>, report: &mut Report) {
    let mut earliest: Option<&Transaction> = None;
    for position in (0..=order.entries.len()).rev() {
        let readers = order.readers.at(position);
        for reader in readers {
            if let Some(later) = earliest.filter(|later| later.returned < reader.invoked) {
                report.add(Class::StaleRead, || inverted(reader, later));
            }
        }
        for &reader in readers {
            if earliest.is_none_or(|later| reader.returned < later.returned) {
                earliest = Some(reader);
            }
        }
        let Some(writer) = position.checked_sub(1).and_then(|at| order.askers[at]) else {
            continue;
        };
        if let Some(later) = earliest.filter(|later| later.returned < writer.invoked) {
            let class = if later.writes {
                Class::OrderInverted
            } else {
                Class::FutureRead
            };
            report.add(class, || inverted(writer, later));
        }
        // Only an answer fixes a moment at which it had taken effect.
        if writer.outcome == Outcome::Committed
            && earliest.is_none_or(|later| writer.returned < later.returned)
        {
            earliest = Some(writer);
        }
    }
}

fn inverted(first: &Transaction, second: &Transaction) -> (String, Vec<u64>) {
    let serial = |transaction: &Transaction| {
        transaction
            .serial
            .map_or(String::new(), |serial| format!(" (serial {serial})"))
    };
    let what = format!(
        "{}{} stands before {}{} and was asked for {} ns after that had been answered",
        name(first),
        serial(first),
        name(second),
        serial(second),
        first.invoked - second.returned,
    );
    (what, vec![first.id, second.id])
}
