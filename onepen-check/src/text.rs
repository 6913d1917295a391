//! Histories as text, one line for each thing that happened.
//!
//! The lines may come in any order, so the logs of several processes are a
//! history when they are put one after the other. A process that is killed
//! leaves a last line without its end; such a line is as if it had not been
//! written.
//!
//! ```text
//! onepen-history 1 serial bank, seed 7    what it is, and words for people
//! s 3=100                                 register 3 held 100 at the start
//! i 17 4 1000 w3                          transaction 17 of client 4 was asked for at 1000 ns
//! t 17 4 1000 2000 c w 5 r3=100 w3=90     … was answered at 2000: committed, serial 5, and did this
//! l 5 17 r3=100 w3=90                     the ledger has it at serial 5
//! e 3=90                                  register 3 holds 90 at the end
//! ```
//!
//! Outcomes are `c` (committed), `n` (not committed), `u` (unknown); then `w` or
//! `r` for what it meant to do, and the serial or `-`. Steps are `r3=100`,
//! `r3=-` (not there), `w3=90`, `a3=17` (append), `g3=` or `g3=17,18` (a whole
//! list). A `t` line takes the place of the `i` line of the same id; an `i` line
//! alone is a transaction of unknown outcome.

use std::collections::HashMap;
use std::fmt::{self, Write as _};
use std::io::{BufRead, Write};

use crate::{History, Mode, Op, Outcome, Transaction};

/// Why a text is no history.
#[derive(Debug)]
pub enum Error {
    /// It could not be read.
    Io(std::io::Error),
    /// This line (from 1) is wrong.
    Line(usize, String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => error.fmt(f),
            Self::Line(0, why) => f.write_str(why),
            Self::Line(line, why) => write!(f, "line {line}: {why}"),
        }
    }
}

impl std::error::Error for Error {}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        Self::Io(error)
    }
}

const MAGIC: &str = "onepen-history 1 ";

/// The first line of a file.
pub fn header(mode: Mode, about: &str) -> String {
    let mode = match mode {
        Mode::Serial => "serial",
        Mode::Append => "append",
    };
    format!("{MAGIC}{mode} {}\n", about.replace(['\n', '\r'], " "))
}

/// The line for a transaction that is about to be asked for, with what it will
/// append, if that is known.
pub fn invoked(transaction: &Transaction, history: &History) -> String {
    let Transaction {
        id,
        client,
        invoked,
        writes,
        ..
    } = transaction;
    let mut line = format!("i {id} {client} {invoked} {}", kind(*writes));
    steps(&mut line, transaction, history);
    line
}

/// The line for a transaction that was answered.
pub fn answered(transaction: &Transaction, history: &History) -> String {
    let Transaction {
        id,
        client,
        invoked,
        returned,
        ..
    } = transaction;
    let outcome = match transaction.outcome {
        Outcome::Committed => 'c',
        Outcome::NotCommitted => 'n',
        Outcome::Unknown => 'u',
    };
    let mut line = format!("t {id} {client} {invoked} ");
    match *returned {
        Transaction::NEVER => line.push('-'),
        _ => line += &returned.to_string(),
    }
    let _ = write!(line, " {outcome} {} ", kind(transaction.writes));
    match transaction.serial {
        Some(serial) => line += &serial.to_string(),
        None => line.push('-'),
    }
    steps(&mut line, transaction, history);
    line
}

fn kind(writes: bool) -> char {
    if writes { 'w' } else { 'r' }
}

fn steps(line: &mut String, transaction: &Transaction, history: &History) {
    put_ops(line, &history.ops[transaction.ops.clone()], history);
    line.push('\n');
}

fn put_ops(line: &mut String, ops: &[Op], history: &History) {
    for op in ops {
        // A String takes everything.
        let _ = match *op {
            Op::Read {
                key,
                value: Some(value),
            } => write!(line, " r{key}={value}"),
            Op::Read { key, value: None } => write!(line, " r{key}=-"),
            Op::Write { key, value } => write!(line, " w{key}={value}"),
            Op::Append { key, value } => write!(line, " a{key}={value}"),
            Op::List { key, at } => {
                let elements: Vec<_> = history.elements(at).iter().map(i64::to_string).collect();
                write!(line, " g{key}={}", elements.join(","))
            }
        };
    }
}

/// Steps as text: what a transaction leaves in the ledger.
pub fn steps_of(ops: &[Op], history: &History) -> String {
    let mut text = String::new();
    put_ops(&mut text, ops, history);
    text
}

impl History {
    /// Writes it as text.
    ///
    /// # Errors
    /// Those of `to`.
    pub fn write_to(&self, mut to: impl Write) -> std::io::Result<()> {
        to.write_all(header(self.mode, &self.about).as_bytes())?;
        for (key, value) in &self.start {
            writeln!(to, "s {key}={value}")?;
        }
        for transaction in &self.transactions {
            to.write_all(answered(transaction, self).as_bytes())?;
        }
        for entry in &self.ledger {
            let steps = steps_of(&self.ops[entry.ops.clone()], self);
            writeln!(to, "l {} {}{steps}", entry.serial, entry.id)?;
        }
        for (key, value) in &self.end {
            writeln!(to, "e {key}={value}")?;
        }
        Ok(())
    }

    /// Reads a text.
    ///
    /// # Errors
    /// When it cannot be read, or is no history.
    pub fn read_from(from: impl BufRead) -> Result<Self, Error> {
        let mut lines = Lines::new(from);
        let first = lines.next()?.map(|(_, line)| line.to_owned());
        let no_history = || Error::Line(1, format!("expected {MAGIC:?} and serial or append"));
        let (mode, about) = first
            .as_deref()
            .and_then(|line| line.strip_prefix(MAGIC))
            .map(|rest| rest.split_once(' ').unwrap_or((rest, "")))
            .ok_or_else(no_history)?;
        let mut history = match mode {
            "serial" => Self::new(Mode::Serial),
            "append" => Self::new(Mode::Append),
            _ => return Err(no_history()),
        };
        about.clone_into(&mut history.about);
        history.read_more(lines)?;
        Ok(history)
    }

    /// Adds the lines of a log without a first line: what one process wrote.
    /// An `i` line and its `t` line must be in the same text.
    ///
    /// # Errors
    /// As [`read_from`](Self::read_from).
    pub fn add_log(&mut self, from: impl BufRead) -> Result<(), Error> {
        self.read_more(Lines::new(from))
    }

    fn read_more(&mut self, mut lines: Lines<impl BufRead>) -> Result<(), Error> {
        let mut open: HashMap<u64, usize> = HashMap::new();
        while let Some((number, line)) = lines.next()? {
            self.line(line, &mut open).ok_or_else(|| {
                let line: String = line.chars().take(60).collect();
                Error::Line(number, format!("no line of a history: {line:?}"))
            })?;
        }
        Ok(())
    }

    /// One line; `None` when it is none.
    fn line(&mut self, line: &str, open: &mut HashMap<u64, usize>) -> Option<()> {
        let (what, rest) = line.split_once(' ')?;
        let mut words = rest.split(' ');
        let mut next = || words.next();
        match what {
            "s" | "e" => {
                let (key, value) = rest.split_once('=')?;
                let pair = (key.parse().ok()?, value.parse().ok()?);
                match what {
                    "s" => self.start.push(pair),
                    _ => self.end.push(pair),
                }
            }
            "l" => {
                let (serial, id) = (next()?.parse().ok()?, next()?.parse().ok()?);
                let from = self.ops.len();
                self.read_ops(words)?;
                let ops = from..self.ops.len();
                self.ledger.push(crate::Entry { serial, id, ops });
            }
            "i" | "t" => {
                let (id, client) = (next()?.parse().ok()?, next()?.parse().ok()?);
                let invoked = next()?.parse().ok()?;
                let mut transaction =
                    Transaction::write(id, client, invoked, Transaction::NEVER, Outcome::Unknown);
                if what == "t" {
                    transaction.returned = match next()? {
                        "-" => Transaction::NEVER,
                        returned => returned.parse().ok()?,
                    };
                    transaction.outcome = match next()? {
                        "c" => Outcome::Committed,
                        "n" => Outcome::NotCommitted,
                        "u" => Outcome::Unknown,
                        _ => return None,
                    };
                }
                transaction.writes = match next()? {
                    "w" => true,
                    "r" => false,
                    _ => return None,
                };
                if what == "t" {
                    transaction.serial = match next()? {
                        "-" => None,
                        serial => Some(serial.parse().ok()?),
                    };
                }
                let from = self.ops.len();
                self.read_ops(words)?;
                transaction.ops = from..self.ops.len();
                if what == "i" {
                    open.insert(id, self.transactions.len());
                    self.transactions.push(transaction);
                } else if let Some(at) = open.remove(&id) {
                    self.transactions[at] = transaction;
                } else {
                    self.transactions.push(transaction);
                }
            }
            _ => return None,
        }
        Some(())
    }

    /// Adds steps that are written as text; `None` when one is none.
    pub fn read_ops<'a>(&mut self, words: impl IntoIterator<Item = &'a str>) -> Option<()> {
        for word in words {
            if word.is_empty() {
                continue;
            }
            let (key, value) = word.get(1..)?.split_once('=')?;
            let key = key.parse().ok()?;
            let op = match (&word[..1], value) {
                ("r", "-") => Op::Read { key, value: None },
                ("r", value) => Op::Read {
                    key,
                    value: Some(value.parse().ok()?),
                },
                ("w", value) => Op::Write {
                    key,
                    value: value.parse().ok()?,
                },
                ("a", value) => Op::Append {
                    key,
                    value: value.parse().ok()?,
                },
                ("g", "") => self.list(key, &[]),
                ("g", values) => {
                    let from = u32::try_from(self.values.len()).ok()?;
                    for value in values.split(',') {
                        self.values.push(value.parse().ok()?);
                    }
                    let to = u32::try_from(self.values.len()).ok()?;
                    Op::List {
                        key,
                        at: (from, to),
                    }
                }
                _ => return None,
            };
            self.ops.push(op);
        }
        Some(())
    }
}

/// Lines that have an end.
struct Lines<R> {
    from: R,
    line: Vec<u8>,
    number: usize,
}

impl<R: BufRead> Lines<R> {
    fn new(from: R) -> Self {
        Self {
            from,
            line: Vec::new(),
            number: 0,
        }
    }

    fn next(&mut self) -> Result<Option<(usize, &str)>, Error> {
        self.line.clear();
        self.number += 1;
        self.from.read_until(b'\n', &mut self.line)?;
        if self.line.pop() != Some(b'\n') {
            return Ok(None);
        }
        match std::str::from_utf8(&self.line) {
            Ok(line) => Ok(Some((self.number, line))),
            Err(_) => Err(Error::Line(self.number, "not text".to_owned())),
        }
    }
}
