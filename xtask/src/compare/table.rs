//! What is printed: a table per section with its verdicts under it, and all
//! verdicts once more at the end.

use std::fmt::Write;

use serde_json::Value;

use super::figures::{Measured, Spread, Verdict};
use super::plan::{Goal, GoalKind};

/// From how many cores on the figures are not to be trusted. Below it are the
/// kernel's own threads, which write back what the contenders wrote.
pub const DISTURBED: f64 = 0.15;

/// The line above everything.
pub fn machine(facts: &Value) -> String {
    let text = |key: &str| facts[key].as_str().unwrap_or("?").to_owned();
    let mut line = format!(
        "{} cores ({}), Linux {}, {}, fdatasync {:.0} µs, {}, load {:.2}\n",
        facts["cores"],
        text("cpu"),
        text("kernel"),
        text("file_system"),
        facts["fdatasync_us"].as_f64().unwrap_or(f64::NAN),
        text("rustc"),
        facts["load_before"].as_f64().unwrap_or(f64::NAN),
    );
    if ["tmpfs", "ramfs"].contains(&text("file_system").as_str()) {
        line +=
            "This is memory: FULL costs nothing here, and the figures mean little. See --dir.\n";
    }
    line
}

/// One section.
pub fn section(measured: &Measured) -> String {
    let section = &measured.section;
    let mut rows = vec![header(section.unit)];
    let mut troubles = Vec::new();
    for (at, contender) in section.contenders.iter().enumerate() {
        if let Some(trouble) = measured.trouble(at) {
            troubles.push(format!("{}: {trouble}", contender.label));
        }
        let figure = |key| measured.figure(at, key).map(|spread| number(spread.median));
        let rate = measured.figure(at, "tx_per_s");
        let mut row = vec![
            contender.label.clone(),
            rate.map(|spread| number(spread.median))
                .unwrap_or_else(|| "–".to_owned()),
            rate.map(|s| format!("{} … {}", number(s.least), number(s.most)))
                .unwrap_or_default(),
            measured
                .ratio(at, 0)
                .map(|spread| times(spread.median))
                .unwrap_or_default(),
        ];
        row.extend(["p50_us", "p99_us", "max_us"].map(|key| figure(key).unwrap_or_default()));
        let errors = measured.errors(at);
        row.push(
            errors
                .iter()
                .map(|(class, n)| format!("{class} {n}"))
                .collect::<Vec<_>>()
                .join(", "),
        );
        rows.push(row);
    }

    let mut text = format!("## {}: {}\n", section.key, section.title);
    let plural = if section.rounds == 1 {
        "round"
    } else {
        "rounds"
    };
    let others = match measured.others {
        Some(cores) if cores >= DISTURBED => {
            format!("; DISTURBED: others kept {cores:.2} cores busy")
        }
        Some(cores) => format!("; others kept {cores:.2} cores busy"),
        None => String::new(),
    };
    writeln!(
        text,
        "{} {plural} of {} s after {} s of warm-up, alternating; medians, and least … most{others}",
        section.rounds, section.seconds, section.warmup
    )
    .expect("writing to a string");
    if is_memory(measured) {
        rows = memory(measured);
    }
    text += &aligned(&rows);
    for trouble in troubles {
        text += &format!("  {trouble}\n");
    }
    text += &verdicts(measured, &section.goals);
    text += &wrapped(section.note);
    text
}

fn header(unit: &str) -> Vec<String> {
    [
        "contender",
        unit,
        "least … most",
        "of the first",
        "p50 µs",
        "p99 µs",
        "max µs",
        "errors",
    ]
    .map(str::to_owned)
    .to_vec()
}

fn is_memory(measured: &Measured) -> bool {
    measured.section.key == "memory"
}

/// Memory has other columns: it is no race.
fn memory(measured: &Measured) -> Vec<Vec<String>> {
    let columns = [
        "jobs",
        "bytes_per_job",
        "future_bytes",
        "closure_bytes",
        "bytes_beyond_closure",
        "completed",
    ];
    let mut rows = vec![
        [
            "contender",
            "queued",
            "allocated each",
            "future",
            "closure",
            "beyond the closure",
            "completed",
        ]
        .map(str::to_owned)
        .to_vec(),
    ];
    for (at, contender) in measured.section.contenders.iter().enumerate() {
        let mut row = vec![contender.label.clone()];
        row.extend(columns.map(|key| {
            measured
                .figure(at, key)
                .map(|spread| number(spread.median))
                .unwrap_or_default()
        }));
        rows.push(row);
    }
    rows
}

/// Every target beside its figure, for the end.
pub fn summary(all: &[Measured]) -> String {
    let mut text = String::from("## Must reach\n");
    for measured in all
        .iter()
        .filter(|measured| !measured.section.goals.is_empty())
    {
        let disturbed = measured.others.is_some_and(|cores| cores >= DISTURBED);
        let remark = if disturbed { " (DISTURBED)" } else { "" };
        writeln!(text, "{}{remark}", measured.section.title).expect("writing to a string");
        text += &verdicts(measured, &measured.section.goals);
    }
    text
}

fn verdicts(measured: &Measured, goals: &[Goal]) -> String {
    let rows: Vec<Vec<String>> = goals
        .iter()
        .map(|goal| {
            let show = |spread: Spread| match goal.kind {
                GoalKind::Ratio { .. } => {
                    format!(
                        "{} ({} … {})",
                        times(spread.median),
                        times(spread.least),
                        times(spread.most)
                    )
                }
                GoalKind::AtMost { unit, .. } => format!("{} {unit}", number(spread.median)),
            };
            let (word, value) = match measured.verdict(goal) {
                Verdict::Reached(spread) => ("reached", show(spread)),
                Verdict::Missed(spread) => ("MISSED", show(spread)),
                Verdict::NotMeasured(why) => ("not measured", why),
            };
            vec![format!("→ {goal}"), word.to_owned(), value]
        })
        .collect();
    aligned_left(&rows)
}

/// A figure that is read, not computed with: three digits are enough below a
/// thousand, and thousands are set apart above.
pub fn number(value: f64) -> String {
    if value.abs() < 100.0 && value.fract() != 0.0 {
        return format!("{value:.1}");
    }
    let digits = format!("{:.0}", value.abs());
    let mut grouped = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at) % 3 == 0 {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    if value < 0.0 {
        format!("-{grouped}")
    } else {
        grouped
    }
}

/// A ratio, read in the same way.
pub fn times(ratio: f64) -> String {
    if ratio >= 10.0 {
        format!("{ratio:.1} ×")
    } else {
        format!("{ratio:.3} ×")
    }
}

/// The first column to the left, figures to the right.
fn aligned(rows: &[Vec<String>]) -> String {
    layout(rows, |column, columns| {
        column == 0 || column + 1 == columns && columns == 8
    })
}

fn aligned_left(rows: &[Vec<String>]) -> String {
    layout(rows, |_, _| true)
}

fn layout(rows: &[Vec<String>], left: fn(usize, usize) -> bool) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::from(" ");
        for (column, cell) in row.iter().enumerate() {
            let width = widths[column];
            line += &match left(column, columns) {
                true => format!(" {cell:<width$} "),
                false => format!(" {cell:>width$} "),
            };
        }
        text += line.trim_end();
        text.push('\n');
    }
    text
}

fn wrapped(note: &str) -> String {
    let mut text = String::new();
    let mut line = String::new();
    for word in note.split_whitespace() {
        if line.chars().count() + word.chars().count() > 96 {
            text += &format!("  {}\n", line.trim_end());
            line.clear();
        }
        line += word;
        line.push(' ');
    }
    if !line.is_empty() {
        text += &format!("  {}\n", line.trim_end());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_set_apart() {
        assert_eq!(number(1_234_567.4), "1,234,567");
        assert_eq!(number(999.6), "1,000");
        assert_eq!(number(12.34), "12.3");
        assert_eq!(number(100_000.0), "100,000");
        assert_eq!(number(-1234.0), "-1,234");
        assert_eq!(number(0.0), "0");
    }

    #[test]
    fn columns_stand_under_each_other() {
        let rows = vec![
            vec!["a".to_owned(), "10".to_owned()],
            vec!["bcd".to_owned(), "1".to_owned()],
        ];
        assert_eq!(
            layout(&rows, |column, _| column == 0),
            "  a    10\n  bcd   1\n"
        );
    }
}
