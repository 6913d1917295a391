//! The one line of JSON a contender prints, and the words for its errors.

use serde_json::{Map, Value};

use crate::Args;

/// What a contender says at the end.
pub struct Report(Map<String, Value>);

impl Report {
    /// A report that so far says who ran, and how it was asked to.
    pub fn new(name: &str, args: &Args) -> Self {
        Self(Map::new())
            .with("name", name)
            .with("clients", args.clients)
            .with("clients_are", if args.tasks { "tasks" } else { "threads" })
            .with("durability", args.durability.pragma())
    }

    /// Adds one figure.
    pub fn with(mut self, key: &str, value: impl serde::Serialize) -> Self {
        let value = serde_json::to_value(value).expect("a figure can be written as JSON");
        self.0.insert(key.to_owned(), value);
        self
    }

    /// Adds what the contender's own connection says at the end: the rows in
    /// the file, the version of SQLite, the journal mode and the synchronous
    /// setting that were really in force.
    pub fn checked(self, rows: i64, sqlite: &str, journal_mode: &str, synchronous: i64) -> Self {
        self.with("rows", rows)
            .with("sqlite", sqlite)
            .with("journal_mode", journal_mode)
            .with("synchronous", synchronous)
    }

    /// The line.
    pub fn print(self) {
        println!("{}", self.into_value());
    }

    /// The same, as a value.
    pub fn into_value(self) -> Value {
        Value::Object(self.0)
    }
}

/// The class of an error: one word for what users meet, else its own text.
pub fn class_of(error: impl std::fmt::Display) -> String {
    let text = error.to_string();
    if text.contains("database is locked") {
        "locked".to_owned()
    } else if text.contains("timed out") {
        "pool timeout".to_owned()
    } else {
        text
    }
}
