//! What is wrong with a history, and which transactions prove it.

use std::fmt;

use crate::{History, Transaction};

/// What kind of thing went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Class {
    /// The history itself is not one: an id or a value was used twice, a step
    /// does not belong there. Nothing is said about the database.
    Malformed,
    /// Acknowledged, and not in the database.
    LostWrite,
    /// Refused or failed, and in the database all the same.
    Resurrected,
    /// In the database more than once.
    AppliedTwice,
    /// In the database, and nobody asked for it.
    Unasked,
    /// Serial numbers in the ledger have a gap.
    SerialGap,
    /// Two transactions took the same serial number.
    SerialTwice,
    /// What the client was told is not what the transaction did.
    WrongAnswer,
    /// A value of a transaction that did not commit was seen (G1a).
    AbortedRead,
    /// A value was seen that its own transaction overwrote or went on from (G1b).
    IntermediateRead,
    /// A value was seen that nobody wrote.
    GarbageRead,
    /// A transaction did not see its own writes, or the same thing twice.
    Internal,
    /// A write was computed from a value that was no longer there.
    LostUpdate,
    /// A transaction wrote one thing because of another that had changed.
    WriteSkew,
    /// A read saw parts of different states.
    ReadSkew,
    /// A read saw a state that was over.
    StaleRead,
    /// A read saw what was written later.
    FutureRead,
    /// Writes took effect in another order than time allows.
    OrderInverted,
    /// The database at the end is not what its transactions made.
    EndState,
    /// Two reads of a list do not agree in which order it grew.
    IncompatibleOrder,
    /// A cycle of overwrites alone.
    G0,
    /// A cycle of overwrites and reads of what was overwritten.
    G1c,
    /// A cycle with exactly one missed update: read skew, lost update.
    GSingle,
    /// A cycle with several missed updates: write skew.
    G2,
    /// [`G0`](Self::G0) when the order in time is counted.
    G0RealTime,
    /// [`G1c`](Self::G1c) when the order in time is counted.
    G1cRealTime,
    /// [`GSingle`](Self::GSingle) when the order in time is counted: a stale read.
    GSingleRealTime,
    /// [`G2`](Self::G2) when the order in time is counted.
    G2RealTime,
}

impl Class {
    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Malformed => "malformed history",
            Self::LostWrite => "lost write",
            Self::Resurrected => "refused write present",
            Self::AppliedTwice => "applied twice",
            Self::Unasked => "unasked write",
            Self::SerialGap => "serial gap",
            Self::SerialTwice => "serial twice",
            Self::WrongAnswer => "wrong answer",
            Self::AbortedRead => "G1a aborted read",
            Self::IntermediateRead => "G1b intermediate read",
            Self::GarbageRead => "garbage read",
            Self::Internal => "internal inconsistency",
            Self::LostUpdate => "lost update",
            Self::WriteSkew => "write skew",
            Self::ReadSkew => "read skew",
            Self::StaleRead => "stale read",
            Self::FutureRead => "future read",
            Self::OrderInverted => "order inverted",
            Self::EndState => "end state",
            Self::IncompatibleOrder => "incompatible order",
            Self::G0 => "G0",
            Self::G1c => "G1c",
            Self::GSingle => "G-single",
            Self::G2 => "G2",
            Self::G0RealTime => "G0-realtime",
            Self::G1cRealTime => "G1c-realtime",
            Self::GSingleRealTime => "G-single-realtime",
            Self::G2RealTime => "G2-realtime",
        }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One thing that went wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Anomaly {
    /// What kind.
    pub class: Class,
    /// What happened, in words.
    pub what: String,
    /// The ids of the transactions that prove it: the minimal history.
    pub transactions: Vec<u64>,
}

/// The verdict on a history.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Transactions that clients asked for.
    pub transactions: usize,
    /// Of those, committed or answered (reads).
    pub committed: usize,
    /// Of those, refused or failed.
    pub not_committed: usize,
    /// Of those, with an outcome that the client was not told.
    pub unknown: usize,
    /// Of the unknown writes, found in the database.
    pub unknown_found: usize,
    /// Steps of those transactions.
    pub operations: usize,
    /// What is wrong, the first of each class; see [`found`](Self::found).
    pub anomalies: Vec<Anomaly>,
    /// How many there are of all classes together. The black box stops counting
    /// at the first level of cycles.
    pub found: usize,
}

impl Report {
    /// Nothing is wrong.
    pub fn is_clean(&self) -> bool {
        self.found == 0
    }

    /// The anomaly of this class, if there is one.
    pub fn of(&self, class: Class) -> Option<&Anomaly> {
        self.anomalies.iter().find(|anomaly| anomaly.class == class)
    }

    pub(crate) fn new(history: &History) -> Self {
        use crate::Outcome::{Committed, NotCommitted, Unknown};
        let mut report = Self {
            transactions: history.transactions.len(),
            ..Self::default()
        };
        for transaction in &history.transactions {
            report.operations += transaction.ops.len();
            match transaction.outcome {
                Committed => report.committed += 1,
                NotCommitted => report.not_committed += 1,
                Unknown => report.unknown += 1,
            }
        }
        report
    }

    /// Counts an anomaly; the words are made for the first of a class only.
    pub(crate) fn add(&mut self, class: Class, say: impl FnOnce() -> (String, Vec<u64>)) {
        self.found += 1;
        if self.of(class).is_none() {
            let (what, transactions) = say();
            self.anomalies.push(Anomaly {
                class,
                what,
                transactions,
            });
        }
    }
}

/// A transaction in a message.
pub(crate) fn name(transaction: &Transaction) -> String {
    format!("T{}", transaction.id)
}
