//! pgbench's script language, as far as it makes sense over one SQLite file:
//! SQL statements that end in `;`, `\set` with arithmetic and random numbers,
//! `\gset`, comments, `:variables`.
//!
//! Guarantees: variables are bound as parameters, never pasted into the text
//! (so a statement is prepared once); BEGIN and COMMIT only mark what belongs
//! together, and every way begins and ends that in its own manner; what cannot
//! be measured fairly (ROLLBACK, PRAGMA, ATTACH, …) is refused with its line,
//! before anything runs.

mod compile;
mod expression;
mod parse;

pub use compile::{Script, Step};
pub use expression::Expression;

use std::fmt;

/// What is wrong with a script, and in which line.
#[derive(Debug, PartialEq, Eq)]
pub struct ScriptError {
    /// Counted from 1.
    pub line: usize,
    /// What, and what to do about it.
    pub message: String,
}

impl ScriptError {
    fn new(line: usize, message: impl Into<String>) -> Self {
        Self {
            line,
            message: message.into(),
        }
    }
}

impl fmt::Display for ScriptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.message)
    }
}

impl std::error::Error for ScriptError {}
