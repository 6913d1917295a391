//! Which rows are shown, and in which order.

use std::cmp::{Ordering, Reverse};

use clap::ValueEnum;

use super::picture::Row;

/// What rows are sorted by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Sort {
    /// The writer, then those in line, then those who read, the oldest first.
    #[default]
    Line,
    /// The process's number.
    Pid,
    /// Transactions each second, the most first.
    Tx,
    /// The longest wait, the longest first.
    Wait,
    /// The snapshot that holds the log back most.
    Pins,
}

impl Sort {
    pub fn word(self) -> &'static str {
        match self {
            Self::Line => "line",
            Self::Pid => "pid",
            Self::Tx => "tx/s",
            Self::Wait => "longest wait",
            Self::Pins => "pins",
        }
    }

    pub fn next(self) -> Self {
        match self {
            Self::Line => Self::Pid,
            Self::Pid => Self::Tx,
            Self::Tx => Self::Wait,
            Self::Wait => Self::Pins,
            Self::Pins => Self::Line,
        }
    }

    fn compare(self, a: &Row, b: &Row) -> Ordering {
        let in_line = |row: &Row| {
            (
                row.does,
                row.before,
                Reverse(Order(row.for_s.unwrap_or(0.0))),
            )
        };
        let most = |of: fn(&Row) -> Option<f64>| {
            let of = |row| Order(of(row).unwrap_or(-1.0));
            of(b).cmp(&of(a))
        };
        let first = match self {
            Self::Line => in_line(a).cmp(&in_line(b)),
            Self::Pid => Ordering::Equal,
            Self::Tx => most(|row| row.transactions_per_s),
            Self::Wait => most(|row| row.longest_wait_s),
            Self::Pins => most(|row| {
                row.pins
                    .map(|pins| f64::from(pins.behind) + pins.for_s / 1e6)
            }),
        };
        first.then(a.pid.cmp(&b.pid))
    }
}

struct Order(f64);

impl PartialEq for Order {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}
impl Eq for Order {}
impl PartialOrd for Order {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Order {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.total_cmp(&other.0)
    }
}

/// Sorts, and leaves out what does not have `filter` in its number, its label, its
/// command or in what it does.
pub fn arrange(rows: &mut Vec<Row>, sort: Sort, reverse: bool, filter: &str) {
    let filter = filter.to_lowercase();
    if !filter.is_empty() {
        rows.retain(|row| {
            let pid = row.pid.map(|pid| pid.to_string()).unwrap_or_default();
            let label = row.label.as_deref().unwrap_or_default();
            [
                pid.as_str(),
                label,
                &row.command,
                row.does.word(),
                row.is.word(),
                &row.activity,
            ]
            .iter()
            .any(|text| text.to_lowercase().contains(&filter))
        });
    }
    rows.sort_by(|a, b| sort.compare(a, b));
    if reverse {
        rows.reverse();
    }
}
