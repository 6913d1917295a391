//! What was asked for and what was told.
//!
//! A history lies in four flat vectors, so that a million transactions are a
//! handful of allocations.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::ops::Range;

use crate::Report;

/// Which checker a history is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Registers, serial numbers and a ledger: [`serial`](crate::serial).
    Serial,
    /// Lists that are appended to: [`append`](crate::append).
    Append,
}

/// What a client was told about its transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is committed (a write), or this is what was there (a read).
    Committed,
    /// Nothing of it is there and never will be.
    NotCommitted,
    /// Nobody knows: an answer that said so, or no answer at all.
    Unknown,
}

/// One step of a transaction, in the order it was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// A register was read; `None`: it is not there.
    Read {
        /// Which.
        key: u64,
        /// What was found.
        value: Option<i64>,
    },
    /// A register was given a value.
    Write {
        /// Which.
        key: u64,
        /// The value.
        value: i64,
    },
    /// A value, unique in the history, was put at a list's end.
    Append {
        /// Which list.
        key: u64,
        /// The value.
        value: i64,
    },
    /// A whole list was read; made by [`History::list`].
    List {
        /// Which list.
        key: u64,
        /// Where its elements are in [`History::values`].
        at: (u32, u32),
    },
}

impl Op {
    /// The register or list.
    pub fn key(self) -> u64 {
        match self {
            Self::Read { key, .. }
            | Self::Write { key, .. }
            | Self::Append { key, .. }
            | Self::List { key, .. } => key,
        }
    }
}

/// One transaction as its client saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transaction {
    /// Unique in the history.
    pub id: u64,
    /// Who asked. Only for messages: the order within a client is in the times.
    pub client: u64,
    /// Before it was asked for, in nanoseconds of one monotonic clock.
    pub invoked: u64,
    /// After it was answered; [`Transaction::NEVER`] without an answer.
    pub returned: u64,
    /// What it was told.
    pub outcome: Outcome,
    /// Whether it meant to write.
    pub writes: bool,
    /// The serial number it was told: its own (a write), or that of the state
    /// it saw (a read).
    pub serial: Option<u64>,
    /// Where its steps are in [`History::ops`]. Without an answer, or after a
    /// failure, what it asked for as far as that is known.
    pub ops: Range<usize>,
}

impl Transaction {
    /// The time of an answer that never came.
    pub const NEVER: u64 = u64::MAX;

    /// One that meant to write.
    pub fn write(id: u64, client: u64, invoked: u64, returned: u64, outcome: Outcome) -> Self {
        Self {
            id,
            client,
            invoked,
            returned,
            outcome,
            writes: true,
            serial: None,
            ops: 0..0,
        }
    }

    /// One that only read.
    pub fn read(id: u64, client: u64, invoked: u64, returned: u64, outcome: Outcome) -> Self {
        Self {
            writes: false,
            ..Self::write(id, client, invoked, returned, outcome)
        }
    }

    /// With the serial number it was told.
    pub fn at(mut self, serial: u64) -> Self {
        self.serial = Some(serial);
        self
    }
}

/// What a committed write left in the database's own ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The number it took: the first write has 1.
    pub serial: u64,
    /// The transaction.
    pub id: u64,
    /// Where its steps are in [`History::ops`].
    pub ops: Range<usize>,
}

/// Everything that was recorded of a run.
#[derive(Clone, Debug)]
pub struct History {
    /// Which checker it is for.
    pub mode: Mode,
    /// Words for people: where it comes from. Kept in files, not judged.
    pub about: String,
    /// What clients asked for and were told, in any order.
    pub transactions: Vec<Transaction>,
    /// The steps of all of them, and of the ledger.
    pub ops: Vec<Op>,
    /// The elements of all lists that were read.
    pub values: Vec<i64>,
    /// What was in the registers before the first transaction.
    pub start: Vec<(u64, i64)>,
    /// The ledger, as it was found in the database at the end.
    pub ledger: Vec<Entry>,
    /// What was in the registers at the end; empty when nobody looked.
    pub end: Vec<(u64, i64)>,
}

impl History {
    /// One in which nothing has happened.
    pub fn new(mode: Mode) -> Self {
        Self {
            mode,
            about: String::new(),
            transactions: Vec::new(),
            ops: Vec::new(),
            values: Vec::new(),
            start: Vec::new(),
            ledger: Vec::new(),
            end: Vec::new(),
        }
    }

    /// Adds a transaction with its steps.
    pub fn push(&mut self, mut transaction: Transaction, ops: &[Op]) {
        transaction.ops = self.store(ops);
        self.transactions.push(transaction);
    }

    /// Adds a line of the ledger.
    pub fn record(&mut self, serial: u64, id: u64, ops: &[Op]) {
        let ops = self.store(ops);
        self.ledger.push(Entry { serial, id, ops });
    }

    /// The step that read a whole list.
    ///
    /// # Panics
    /// With more than four thousand million elements in the history.
    pub fn list(&mut self, key: u64, values: &[i64]) -> Op {
        let place = |n: usize| u32::try_from(n).expect("at most 2^32 elements were read");
        let from = place(self.values.len());
        self.values.extend_from_slice(values);
        Op::List {
            key,
            at: (from, place(self.values.len())),
        }
    }

    /// The elements of a list that was read.
    pub fn elements(&self, (from, to): (u32, u32)) -> &[i64] {
        &self.values[from as usize..to as usize]
    }

    /// Judges it.
    pub fn check(&self) -> Report {
        match self.mode {
            Mode::Serial => crate::serial::check(self),
            Mode::Append => crate::append::check(self),
        }
    }

    fn store(&mut self, ops: &[Op]) -> Range<usize> {
        let from = self.ops.len();
        self.ops.extend_from_slice(ops);
        from..self.ops.len()
    }
}

/// Maps from numbers that nobody chose to collide.
pub(crate) type Map<K, V> = HashMap<K, V, BuildHasherDefault<Mixed>>;

/// The finaliser of splitmix64.
#[derive(Default)]
pub(crate) struct Mixed(u64);

impl Hasher for Mixed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(u64::from(byte));
        }
    }

    fn write_u64(&mut self, n: u64) {
        let n = (self.0.rotate_left(29) ^ n).wrapping_add(0x9e37_79b9_7f4a_7c15);
        let n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        self.0 = n ^ (n >> 31);
    }

    fn write_i64(&mut self, n: i64) {
        self.write_u64(n.cast_unsigned());
    }
}
