//! The black box: lists that transactions append to and read whole.
//!
//! A list says in which order it grew, so reads of lists say who overwrote
//! whom (here: appended after whom), who read from whom, and who missed whose
//! append (Kingsbury and Alvaro, *Elle*, VLDB 2020; the classes are Adya's).
//! With *who had ended before who began* these make a graph, and a history is
//! strictly serializable exactly when nothing is wrong with single reads and
//! the graph has no cycle, provided that every list was read once after its
//! last append.
//!
//! Cycles are looked for in the order of their severity: overwrites alone (G0);
//! with reads (G1c); with exactly one missed append (G-single), with several
//! (G2); then the same with the order in time. The first level that has a cycle
//! is reported, one cycle for each part of the graph that has any.
//!
//! The order in time costs one node and three edges for each transaction: a
//! chain of all ends, into which each transaction leads and out of which each
//! comes at the last end before its beginning. Time is n log n in the number of
//! transactions, plus the elements of all lists read. Only a history that has
//! cycles takes longer: up to [`BUDGET`] steps for each, after which its class
//! is the more general one and the message says so.

use crate::graph::{Edge, Graph, Kind, Kinds, Part};
use crate::history::Map;
use crate::report::name;
use crate::{Class, History, Op, Outcome, Report, Transaction};

/// Steps in search of a shorter or worse cycle.
pub const BUDGET: u64 = 20_000_000;

/// Judges a history of lists.
pub fn check(history: &History) -> Report {
    let mut report = Report::new(history);
    let writers = writers(history, &mut report);
    let lists = Lists::new(history, &writers, &mut report);
    let mut edges = Vec::new();
    edges.extend(lists.edges(history, &writers, &mut report));
    edges.extend(in_time(history, &lists.counted));
    let graph = Graph::new(2 * history.transactions.len(), edges);
    cycles(history, &graph, &mut report);
    report
}

/// Who appended what, and whether it was the last that it appended there.
#[derive(Clone, Copy)]
struct Writer {
    transaction: u32,
    /// Which of its steps it was.
    step: u32,
    is_last: bool,
}

type Writers = Map<(u64, i64), Writer>;

fn writers(history: &History, report: &mut Report) -> Writers {
    let mut writers = Writers::with_capacity_and_hasher(history.ops.len(), Default::default());
    let mut ids = Map::<u64, ()>::default();
    for (number, transaction) in (0..).zip(&history.transactions) {
        if ids.insert(transaction.id, ()).is_some() || transaction.returned < transaction.invoked {
            report.add(Class::Malformed, || {
                let what = format!(
                    "{} is there twice, or ended before it began",
                    name(transaction)
                );
                (what, vec![transaction.id])
            });
        }
        let ops = &history.ops[transaction.ops.clone()];
        for (step, (at, &op)) in (0..).zip(ops.iter().enumerate()) {
            let is_fine = match op {
                Op::Append { key, value } => {
                    let again = |op: &Op| matches!(op, Op::Append { key: k, .. } if *k == key);
                    let writer = Writer {
                        transaction: number,
                        step,
                        is_last: !ops[at + 1..].iter().any(again),
                    };
                    writers.insert((key, value), writer).is_none()
                }
                Op::List { .. } => true,
                Op::Read { .. } | Op::Write { .. } => false,
            };
            if !is_fine {
                report.add(Class::Malformed, || {
                    let what = format!("{} has {op:?}, twice or out of place", name(transaction));
                    (what, vec![transaction.id])
                });
            }
        }
    }
    writers
}

/// One read of a list from outside: without what the reader itself had appended.
struct Look {
    reader: u32,
    key: u64,
    length: usize,
}

/// A list that a transaction used, what it knows of it, and what it put there.
type Own<'a> = (u64, Option<&'a [i64]>, Vec<i64>);

/// What is known of all lists.
struct Lists<'a> {
    /// How each grew: its longest read.
    longest: Map<u64, &'a [i64]>,
    /// When the last read of each began.
    last_look: Map<u64, u64>,
    looks: Vec<Look>,
    /// Which transactions took effect.
    counted: Vec<bool>,
}

impl<'a> Lists<'a> {
    fn new(history: &'a History, writers: &Writers, report: &mut Report) -> Self {
        let mut lists = Self {
            longest: Map::default(),
            last_look: Map::default(),
            looks: Vec::new(),
            counted: Vec::with_capacity(history.transactions.len()),
        };
        for transaction in &history.transactions {
            let committed = transaction.outcome == Outcome::Committed;
            lists.counted.push(committed);
            if !committed {
                continue;
            }
            for &op in &history.ops[transaction.ops.clone()] {
                if let Op::List { key, at } = op {
                    let elements = history.elements(at);
                    let longest = lists.longest.entry(key).or_default();
                    if elements.len() > longest.len() {
                        *longest = elements;
                    }
                    let last = lists.last_look.entry(key).or_default();
                    *last = transaction.invoked.max(*last);
                }
            }
        }
        for (&key, elements) in &lists.longest {
            lists.counted = look_at(history, writers, key, elements, lists.counted, report);
        }
        for (number, transaction) in (0..).zip(&history.transactions) {
            let is_found = lists.counted[number as usize];
            if transaction.outcome == Outcome::Unknown && is_found {
                report.unknown_found += 1;
            }
            if transaction.outcome == Outcome::Committed {
                lists.read(history, writers, number, report);
            }
        }
        lists
    }

    /// Checks what one transaction read, and notes it.
    fn read(&mut self, history: &'a History, writers: &Writers, number: u32, report: &mut Report) {
        let reader = &history.transactions[number as usize];
        let mut own: Vec<Own<'_>> = Vec::new();
        for &op in &history.ops[reader.ops.clone()] {
            let place = own.iter().position(|(key, ..)| *key == op.key());
            let place = place.unwrap_or_else(|| {
                own.push((op.key(), None, Vec::new()));
                own.len() - 1
            });
            let (key, known, appended) = &mut own[place];
            let at = match op {
                Op::Append { value, .. } => {
                    appended.push(value);
                    continue;
                }
                Op::List { at, .. } => at,
                Op::Read { .. } | Op::Write { .. } => continue,
            };
            let elements = history.elements(at);
            let Some(outside) = elements.strip_suffix(&appended[..]) else {
                report.add(Class::Internal, || {
                    let what = format!(
                        "{} appended {appended:?} to list {key} and then read {elements:?}",
                        name(reader)
                    );
                    (what, vec![reader.id])
                });
                continue;
            };
            if known.is_some_and(|known| known != outside) {
                report.add(Class::Internal, || {
                    let what = format!(
                        "{} read {known:?} and then {outside:?} from list {key}",
                        name(reader)
                    );
                    (what, vec![reader.id])
                });
            }
            *known = Some(outside);
            if !self.longest[key].starts_with(elements) {
                // Whatever is in it must be looked at here: it is in no other.
                let counted = std::mem::take(&mut self.counted);
                self.counted = look_at(history, writers, *key, elements, counted, report);
                report.add(Class::IncompatibleOrder, || {
                    let what = format!(
                        "{} read {elements:?} from list {key}, which grew as {:?}",
                        name(reader),
                        self.longest[key]
                    );
                    (what, vec![reader.id])
                });
                continue;
            }
            self.looks.push(Look {
                reader: number,
                key: *key,
                length: outside.len(),
            });
            let source = outside.last().and_then(|&last| writers.get(&(*key, last)));
            let Some(source) = source else { continue };
            let writer = &history.transactions[source.transaction as usize];
            if source.transaction == number {
                report.add(Class::Internal, || {
                    let what =
                        format!("{} read in list {key} what it appended later", name(reader));
                    (what, vec![reader.id])
                });
            } else if !source.is_last {
                report.add(Class::IntermediateRead, || {
                    let what = format!(
                        "{} read {} at the end of list {key}, and {} went on to append to it",
                        name(reader),
                        outside[outside.len() - 1],
                        name(writer)
                    );
                    (what, vec![reader.id, writer.id])
                });
            }
        }
    }

    /// Who stands before whom because of what lists say.
    fn edges(&self, history: &History, writers: &Writers, report: &mut Report) -> Vec<Edge> {
        let mut edges = Vec::new();
        let mut add = |from: u32, to: u32, kind| {
            if from != to {
                edges.push(Edge { from, to, kind });
            }
        };
        let writer = |key, value| writers.get(&(key, value)).map(|writer| writer.transaction);
        for (&key, elements) in &self.longest {
            for pair in elements.windows(2) {
                let writer = |value| writers.get(&(key, value));
                let (Some(first), Some(second)) = (writer(pair[0]), writer(pair[1])) else {
                    continue;
                };
                add(first.transaction, second.transaction, Kind::Overwrote);
                if first.transaction == second.transaction && first.step > second.step {
                    report.add(Class::Internal, || {
                        let transaction = &history.transactions[first.transaction as usize];
                        let what = format!(
                            "{} appended {} to list {key} before {}, and there they are the other way round",
                            name(transaction), pair[1], pair[0]
                        );
                        (what, vec![transaction.id])
                    });
                }
            }
        }
        let tails = self.tails(history, report);
        for (key, tail) in &tails {
            let elements = self.longest.get(key).copied().unwrap_or_default();
            if let Some(last) = elements.last().and_then(|&last| writer(*key, last)) {
                for &unseen in tail {
                    add(last, unseen, Kind::Overwrote);
                }
            }
        }
        for look in &self.looks {
            let elements = self.longest[&look.key];
            if let Some(source) = look
                .length
                .checked_sub(1)
                .and_then(|last| writer(look.key, elements[last]))
            {
                add(source, look.reader, Kind::WasReadBy);
            }
            match elements.get(look.length) {
                Some(&next) => {
                    if let Some(next) = writer(look.key, next) {
                        add(look.reader, next, Kind::Missed);
                    }
                }
                None => {
                    for &unseen in tails.get(&look.key).into_iter().flatten() {
                        add(look.reader, unseen, Kind::Missed);
                    }
                }
            }
        }
        edges
    }

    /// Acknowledged appends that nobody saw: they come after all that was seen,
    /// unless somebody looked after they were acknowledged.
    fn tails(&self, history: &History, report: &mut Report) -> Map<u64, Vec<u32>> {
        let seen: Map<(u64, i64), ()> = self
            .longest
            .iter()
            .flat_map(|(&key, elements)| elements.iter().map(move |&value| ((key, value), ())))
            .collect();
        let mut tails: Map<u64, Vec<u32>> = Map::default();
        for (number, transaction) in (0_u32..).zip(&history.transactions) {
            if !self.counted[number as usize] {
                continue;
            }
            for op in &history.ops[transaction.ops.clone()] {
                let Op::Append { key, value } = *op else {
                    continue;
                };
                if seen.contains_key(&(key, value)) {
                    continue;
                }
                let looked = self.last_look.get(&key).copied().unwrap_or_default();
                let is_answered = transaction.outcome == Outcome::Committed;
                if is_answered && looked > transaction.returned {
                    report.add(Class::LostWrite, || {
                        let what = format!(
                            "{} appended {value} to list {key} and was told so; no later read has it",
                            name(transaction)
                        );
                        (what, vec![transaction.id])
                    });
                } else {
                    tails.entry(key).or_default().push(number);
                }
            }
        }
        tails
    }
}

/// Looks at each element of a list: is it there once, did somebody append it,
/// and did that take effect? An append of unknown outcome that is seen did.
fn look_at(
    history: &History,
    writers: &Writers,
    key: u64,
    elements: &[i64],
    mut counted: Vec<bool>,
    report: &mut Report,
) -> Vec<bool> {
    let mut seen = Map::<i64, ()>::default();
    for &value in elements {
        let Some(writer) = writers.get(&(key, value)) else {
            report.add(Class::GarbageRead, || {
                let what = format!("list {key} has {value}, which nobody appended");
                (what, readers_of(history, key, value))
            });
            continue;
        };
        let transaction = &history.transactions[writer.transaction as usize];
        if seen.insert(value, ()).is_some() {
            report.add(Class::AppliedTwice, || {
                let what = format!("list {key} has {value} of {} twice", name(transaction));
                (what, vec![transaction.id])
            });
        }
        match transaction.outcome {
            Outcome::Committed => {}
            Outcome::Unknown => counted[writer.transaction as usize] = true,
            Outcome::NotCommitted => report.add(Class::AbortedRead, || {
                let what = format!(
                    "list {key} was read with {value} of {}, which was told that nothing of it is there",
                    name(transaction)
                );
                let proof = [transaction.id]
                    .into_iter()
                    .chain(readers_of(history, key, value));
                (what, proof.collect())
            }),
        }
    }
    counted
}

/// The first that read this.
fn readers_of(history: &History, key: u64, value: i64) -> Vec<u64> {
    let reads = |transaction: &&Transaction| {
        transaction.outcome == Outcome::Committed
            && history.ops[transaction.ops.clone()].iter().any(|op| {
                matches!(*op, Op::List { key: k, at }
                    if k == key && history.elements(at).contains(&value))
            })
    };
    let first = history.transactions.iter().find(reads);
    first
        .map(|transaction| transaction.id)
        .into_iter()
        .collect()
}

/// Who had ended before who began, through a chain of all ends: node
/// `transactions + i` is the i-th end.
fn in_time(history: &History, counted: &[bool]) -> Vec<Edge> {
    let node = |at: usize| u32::try_from(at).expect("fewer than 2^31 transactions");
    let before = |from: usize, to: usize| Edge {
        from: node(from),
        to: node(to),
        kind: Kind::Before,
    };
    let transactions = &history.transactions;
    let mut ends: Vec<(u64, usize)> = (0..transactions.len())
        // Only an answer fixes a moment at which it had taken effect.
        .filter(|&at| counted[at] && transactions[at].outcome == Outcome::Committed)
        .map(|at| (transactions[at].returned, at))
        .collect();
    ends.sort_unstable();
    let mut edges = Vec::with_capacity(3 * transactions.len());
    for (place, &(_, at)) in ends.iter().enumerate() {
        edges.push(before(at, transactions.len() + place));
        if place > 0 {
            edges.push(before(
                transactions.len() + place - 1,
                transactions.len() + place,
            ));
        }
    }
    for (at, transaction) in transactions.iter().enumerate() {
        let ended = ends.partition_point(|&(returned, _)| returned < transaction.invoked);
        if counted[at] && ended > 0 {
            edges.push(before(transactions.len() + ended - 1, at));
        }
    }
    edges
}

fn cycles(history: &History, graph: &Graph, report: &mut Report) {
    use Kind::{Before, Missed, Overwrote, WasReadBy};
    let levels = [
        (Kinds::of(&[Overwrote]), Overwrote, Class::G0),
        (Kinds::of(&[Overwrote, WasReadBy]), WasReadBy, Class::G1c),
        (
            Kinds::of(&[Overwrote, WasReadBy, Missed]),
            Missed,
            Class::GSingle,
        ),
        (
            Kinds::of(&[Overwrote, Before]),
            Overwrote,
            Class::G0RealTime,
        ),
        (
            Kinds::of(&[Overwrote, WasReadBy, Before]),
            WasReadBy,
            Class::G1cRealTime,
        ),
        (
            Kinds::of(&[Overwrote, WasReadBy, Missed, Before]),
            Missed,
            Class::GSingleRealTime,
        ),
    ];
    for (at, &(kinds, needed, class)) in levels.iter().enumerate() {
        let parts = graph.parts(kinds);
        if parts.is_empty() {
            continue;
        }
        // What the level below allows has no cycle, so each cycle here has one
        // of the needed kind.
        let gentler = (needed == Missed).then(|| levels[at - 1].0);
        for part in parts {
            let part = Part::new(part);
            let (class, cycle, note) = cycle(graph, &part, kinds, gentler, needed, class);
            report.add(class, || tell(history, &cycle, note));
        }
        return;
    }
}

/// The cycle that is shown of a part, and its class.
fn cycle(
    graph: &Graph,
    part: &Part,
    kinds: Kinds,
    gentler: Option<Kinds>,
    needed: Kind,
    class: Class,
) -> (Class, Vec<Edge>, &'static str) {
    let mut tired = false;
    if let Some(gentler) = gentler {
        let (cycle, is_over) = shortest(graph, part, needed, gentler);
        if let Some(cycle) = cycle {
            return (class, cycle, "");
        }
        tired = is_over;
    }
    let class = match (gentler, class) {
        (Some(_), Class::GSingle) => Class::G2,
        (Some(_), _) => Class::G2RealTime,
        (None, class) => class,
    };
    let (best, _) = shortest(graph, part, needed, kinds);
    let note = if tired {
        " (there are too many cycles to say whether one misses only one append)"
    } else {
        ""
    };
    (class, best.unwrap_or_default(), note)
}

/// The shortest cycle with an edge of one kind and else only these, and whether
/// the budget ended the search.
fn shortest(graph: &Graph, part: &Part, first: Kind, then: Kinds) -> (Option<Vec<Edge>>, bool) {
    let mut budget = BUDGET;
    let mut best: Option<Vec<Edge>> = None;
    for edge in graph.within(part, first) {
        if let Some(back) = graph.path(edge.to, edge.from, then, part, &mut budget)
            && best.as_ref().is_none_or(|best| back.len() + 1 < best.len())
        {
            best = Some([vec![edge], back].concat());
        }
        if budget == 0 || best.as_ref().is_some_and(|best| best.len() == 2) {
            break;
        }
    }
    (best, budget == 0)
}

/// A cycle in words; the chain of ends is left out of it.
fn tell(history: &History, cycle: &[Edge], note: &str) -> (String, Vec<u64>) {
    let transaction = |node: u32| history.transactions.get(node as usize);
    // Begin where a transaction is left, so that the chain is never cut.
    let start = cycle
        .iter()
        .position(|edge| transaction(edge.from).is_some())
        .unwrap_or(0);
    let mut text = String::new();
    let mut proof: Vec<u64> = Vec::new();
    for edge in cycle[start..].iter().chain(&cycle[..start]) {
        if let Some(from) = transaction(edge.from) {
            if !proof.contains(&from.id) {
                proof.push(from.id);
            }
            text += &name(from);
            text += match edge.kind {
                Kind::Overwrote => " -appended before-> ",
                Kind::WasReadBy => " -was read by-> ",
                Kind::Missed => " -did not see the append of-> ",
                Kind::Before => " -had ended before the start of-> ",
            };
        }
    }
    if let Some(first) = cycle.get(start).and_then(|edge| transaction(edge.from)) {
        text += &name(first);
    }
    (text + note, proof)
}
