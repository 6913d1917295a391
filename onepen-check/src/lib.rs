//! Was every answer true? A checker for recorded histories of transactions.
//!
//! A [`History`] is what clients of a database asked for and were told, with
//! the times at which they asked and were told. There are two ways to judge
//! one:
//!
//! - [`serial`], the exact one. Each transaction takes a serial number *inside
//!   itself* and leaves its own record in a ledger. Then the order is known,
//!   and one linear pass decides whether the history is strictly serializable,
//!   and whether every acknowledged write is there, every refused one is not,
//!   and none is there twice.
//! - [`append`], the black box. Transactions append unique values to lists and
//!   read whole lists; nobody numbers anything, so nothing is serialised that
//!   the database would not serialise by itself. The order is inferred from the
//!   lists, and cycles in it are anomalies with the names of Adya (G0, G1a,
//!   G1b, G1c, G-single, G2), as Elle does (Kingsbury and Alvaro, VLDB 2020).
//!
//! Both report the anomaly with the transactions that prove it.
//!
//! ```
//! use onepen_check::{Class, History, Mode, Op, Outcome, Transaction};
//!
//! // Two clients each read 0 and wrote 1: one update is lost.
//! let mut history = History::new(Mode::Serial);
//! history.start.push((7, 0));
//! for (id, invoked) in [(1, 10), (2, 11)] {
//!     let ops = [Op::Read { key: 7, value: Some(0) }, Op::Write { key: 7, value: 1 }];
//!     history.push(Transaction::write(id, id, invoked, 20, Outcome::Committed).at(id), &ops);
//!     history.record(id, id, &ops);
//! }
//! let report = history.check();
//! assert_eq!(report.anomalies[0].class, Class::LostUpdate);
//! assert_eq!(report.anomalies[0].transactions, [2, 1]);
//! ```
//!
//! # Guarantees
//!
//! *No false alarm*: what is reported cannot happen in a strictly serializable
//! database that answers truthfully. *Nothing missed*: for [`serial`], every
//! such history is reported; for [`append`], every one in which each list was
//! read after its last append. Both are shown by property tests against
//! independent checkers that try all orders (`tests/`).

pub mod append;
mod graph;
pub mod history;
pub mod report;
pub mod serial;
pub mod text;

pub use history::{Entry, History, Mode, Op, Outcome, Transaction};
pub use report::{Anomaly, Class, Report};
