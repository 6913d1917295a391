//! A picture in words: what the screen and `--once` have in common.

use super::picture::{Does, Is, Journal, Picture, Row};
use crate::words::thousands;

/// The columns, with their widths; the second takes what is left.
pub const COLUMNS: [(&str, u16); 8] = [
    ("PID", 7),
    ("PROGRAM", 12),
    ("IS", 8),
    ("DOES", 16),
    ("TX/S", 7),
    ("WAITS/S", 7),
    ("LONGEST", 7),
    ("PINS", 9),
];

/// What stands in each column.
pub fn cells(row: &Row) -> [String; 8] {
    let rate = |rate: Option<f64>| match rate {
        Some(rate) => thousands(rate.round() as u64),
        None => "-".to_owned(),
    };
    [
        row.pid
            .map_or_else(|| "?".to_owned(), |pid| pid.to_string()),
        row.name().to_owned(),
        row.is.word().to_owned(),
        does(row),
        rate(row.transactions_per_s),
        rate(row.waits_per_s),
        row.longest_wait_s.map_or_else(|| "-".to_owned(), time),
        row.pins.map_or_else(
            || "-".to_owned(),
            |pins| format!("{} {}", thousands(pins.frame.into()), time(pins.for_s)),
        ),
    ]
}

fn does(row: &Row) -> String {
    let mut text = match (row.does, row.before) {
        (Does::Waits, Some(before)) => format!("waits #{}", before + 1),
        (does, _) => does.word().to_owned(),
    };
    if let Some(seconds) = row.for_s.filter(|seconds| *seconds > 0.0) {
        text = format!("{text} {}", time(seconds));
    }
    if row.stopped {
        text = format!("STOPPED, {text}");
    }
    text
}

/// What is said above the table.
pub fn heading(picture: &Picture) -> Vec<String> {
    let mut first = picture.database.clone();
    match picture.journal {
        Some(Journal::Wal) => first += "  write-ahead",
        Some(Journal::Rollback) => first += "  rollback journal",
        None => first += "  nobody has it open",
    }
    first += &format!("  {}", bytes(picture.database_bytes));
    if let Some(log) = &picture.log {
        first += &format!("  log {}", bytes(log.bytes));
        if let (Some(frames), Some(copied)) = (log.frames, log.copied_back) {
            first += &format!(
                ", {} frames, {} copied back",
                thousands(frames.into()),
                share(copied, frames)
            );
        }
    }
    let totals = &picture.totals;
    let rate = |rate: Option<f64>| {
        rate.map_or_else(|| "-".to_owned(), |rate| thousands(rate.round() as u64))
    };
    vec![
        first,
        writer(picture),
        format!(
            "{} onepen, {} strangers; {} waiting; {} commits/s, {} tx/s and {} writes/s of onepen",
            totals.onepen,
            totals.strangers,
            totals.waiting,
            rate(totals.commits_per_s),
            rate(totals.transactions_per_s),
            rate(totals.writes_per_s),
        ),
    ]
}

/// Who keeps the others from writing now.
fn writer(picture: &Picture) -> String {
    let writer = picture.rows.iter().find(|row| row.does == Does::Writes);
    let Some(row) = writer else {
        return "nobody writes at this moment".to_owned();
    };
    let mut text = format!("writer: {}", row.name());
    if let Some(purpose) = &row.purpose {
        text += &format!(" `{purpose}`");
    }
    text += &match row.pid {
        Some(pid) => format!(" (pid {pid}, {})", row.activity),
        None => " (its process cannot be seen)".to_owned(),
    };
    if let Some(locks) = &row.locks {
        text += &format!(" has {locks}");
    }
    if let Some(seconds) = row.for_s.filter(|seconds| *seconds > 0.0) {
        let at_least = if row.is == Is::Stranger {
            "at least "
        } else {
            ""
        };
        text += &format!(", for {at_least}{}", time(seconds));
    }
    text
}

/// The whole picture for a file or a pipe.
pub fn plain(picture: &Picture) -> String {
    let mut text = heading(picture).join("\n");
    text += "\n\n";
    let rows: Vec<_> = picture.rows.iter().map(cells).collect();
    let widths: [usize; 8] = std::array::from_fn(|at| {
        let longest = rows.iter().map(|row| row[at].chars().count()).max();
        longest.unwrap_or(0).max(COLUMNS[at].0.len())
    });
    let mut line = |cells: [&str; 8]| {
        let mut line = String::new();
        for (at, cell) in cells.iter().enumerate() {
            let width = widths[at];
            line += &if is_number(at) {
                format!("{cell:>width$}  ")
            } else {
                format!("{cell:width$}  ")
            };
        }
        text += line.trim_end();
        text.push('\n');
    };
    line(COLUMNS.map(|(name, _)| name));
    for row in &rows {
        line(std::array::from_fn(|at| row[at].as_str()));
    }
    for unseen in &picture.unseen {
        text += &format!("\n{unseen}");
    }
    if !picture.unseen.is_empty() {
        text.push('\n');
    }
    text
}

/// Whether a column is flush right.
pub fn is_number(column: usize) -> bool {
    matches!(column, 0 | 4..=6)
}

fn share(part: u32, of: u32) -> String {
    match of {
        0 => "all".to_owned(),
        _ if part == of => "all".to_owned(),
        _ => format!("{} %", u64::from(part) * 100 / u64::from(of)),
    }
}

/// A time in at most six characters.
pub fn time(seconds: f64) -> String {
    match seconds {
        s if s <= 0.0 => "0".to_owned(),
        s if s < 0.0001 => format!("{:.0}µs", s * 1e6),
        s if s < 0.01 => format!("{:.1}ms", s * 1e3),
        s if s < 1.0 => format!("{:.0}ms", s * 1e3),
        s if s < 10.0 => format!("{s:.1}s"),
        s if s < 120.0 => format!("{s:.0}s"),
        s if s < 7200.0 => format!("{:.0}min", s / 60.0),
        s => format!("{:.0}h", s / 3600.0),
    }
}

fn bytes(bytes: u64) -> String {
    let number = bytes as f64;
    match number {
        n if n < 1e3 => format!("{n:.0} B"),
        n if n < 1e6 => format!("{:.1} kB", n / 1e3),
        n if n < 1e9 => format!("{:.1} MB", n / 1e6),
        n => format!("{:.1} GB", n / 1e9),
    }
}
