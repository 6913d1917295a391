//! The report for a terminal: one line per way, then what went wrong by class.

use std::fmt::Write;

use super::{PointReport, Report, WayReport, count, thousands, time};

/// How it may look.
#[derive(Clone, Copy, Debug)]
pub struct Style {
    /// Whether colours are welcome.
    pub color: bool,
    /// Columns of the terminal.
    pub width: usize,
}

const GREEN: &str = "32";
const RED: &str = "31";
const YELLOW: &str = "33";
const BOLD: &str = "1";
const DIM: &str = "2";

impl Style {
    fn paint(self, code: &str, text: &str) -> String {
        if self.color {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }
}

/// The whole report as text.
pub fn print(report: &Report, style: Style) -> String {
    let mut text = String::new();
    for point in &report.points {
        header(report, point, style, &mut text);
        ways(point, style, &mut text);
        wrong(point, style, &mut text);
    }
    if report.interrupted {
        line(
            &mut text,
            &style.paint(YELLOW, "Interrupted: these are the figures until then."),
        );
    }
    text
}

fn line(text: &mut String, line: &str) {
    text.push_str(line.trim_end());
    text.push('\n');
}

fn header(report: &Report, point: &PointReport, style: Style, text: &mut String) {
    let settings = &report.settings;
    let plural = |n: u32, one: &str, many: &str| match n {
        1 => format!("1 {one}"),
        n => format!("{n} {many}"),
    };
    let mut writers = plural(point.threads, "thread", "threads");
    if settings.processes > 1 {
        writers = format!("{} processes × {writers}", settings.processes);
    }
    if settings.readers > 0 {
        write!(
            writers,
            " + {}",
            plural(settings.readers, "reader", "readers")
        )
        .expect("writing to a string cannot fail");
    }
    line(
        text,
        &format!(
            "{}  {}",
            style.paint(BOLD, &format!("{}, {writers}", settings.workload)),
            style.paint(
                DIM,
                &format!(
                    "synchronous {:?} · {} × {} s · SQLite {} · {} cores · {}",
                    settings.durability,
                    settings.rounds,
                    settings.duration_s,
                    report.sqlite,
                    report.machine.cores,
                    report.machine.file_system
                )
            ),
        ),
    );
    text.push('\n');
}

struct Column {
    head: &'static str,
    cell: fn(&WayReport) -> String,
}

fn latency(way: &WayReport, pick: fn(&super::Latency) -> f64) -> String {
    way.latency_us
        .as_ref()
        .map_or_else(dash, |latency| time(pick(latency)))
}

fn dash() -> String {
    "–".to_owned()
}

fn percent(share: f64) -> String {
    match share {
        0.0 => "0".to_owned(),
        share if share < 0.001 => "<0.1%".to_owned(),
        share if share > 0.999 && share < 1.0 => ">99.9%".to_owned(),
        share => format!("{:.1}%", share * 100.0),
    }
}

const COLUMNS: &[Column] = &[
    Column {
        head: "clients",
        cell: |way| thousands(way.clients as u64),
    },
    Column {
        head: "tx/s",
        cell: |way| way.tx_per_s.map_or_else(dash, count),
    },
    Column {
        head: "p50",
        cell: |way| latency(way, |latency| latency.p50),
    },
    Column {
        head: "p99",
        cell: |way| latency(way, |latency| latency.p99),
    },
    Column {
        head: "p99.9",
        cell: |way| latency(way, |latency| latency.p99_9),
    },
    Column {
        head: "max",
        cell: |way| latency(way, |latency| latency.max),
    },
    Column {
        head: "fair",
        cell: |way| {
            way.fairness
                .map_or_else(dash, |share| format!("{share:.2}"))
        },
    },
    Column {
        head: "tx/fsync",
        cell: |way| match (way.fsyncs, way.tx_per_fsync()) {
            (None, _) => "n/a".to_owned(),
            (Some(_), None) => dash(),
            (Some(_), Some(ratio)) if ratio < 0.995 => format!("{ratio:.2}"),
            (Some(_), Some(ratio)) => count(ratio),
        },
    },
    Column {
        head: "failed",
        cell: |way| way.failed_share().map_or_else(dash, percent),
    },
    Column {
        head: "lost",
        cell: |way| way.lost_updates.map_or_else(dash, thousands),
    },
];

const READER_COLUMNS: &[Column] = &[
    Column {
        head: "reads/s",
        cell: |way| {
            let reads = way.readers.as_ref().and_then(|readers| readers.tx_per_s);
            reads.map_or_else(dash, count)
        },
    },
    Column {
        head: "read p99",
        cell: |way| {
            let latency = way.readers.as_ref().and_then(|readers| readers.latency_us);
            latency.map_or_else(dash, |latency| time(latency.p99))
        },
    },
];

const BAR: usize = 12;
const GAP: &str = "  ";

fn ways(point: &PointReport, style: Style, text: &mut String) {
    let with_readers = point.ways.iter().any(|way| way.readers.is_some());
    let width = |text: &str| text.chars().count();
    let names = point
        .ways
        .iter()
        .map(|way| width(&way.title()))
        .max()
        .unwrap_or(0);
    let mut columns: Vec<_> = COLUMNS
        .iter()
        .chain(READER_COLUMNS.iter().filter(|_| with_readers))
        .map(|column| {
            let cells: Vec<_> = point.ways.iter().map(|way| (column.cell)(way)).collect();
            let widest = cells.iter().map(|cell| width(cell)).max().unwrap_or(0);
            (column, cells, widest.max(width(column.head)))
        })
        .collect();
    let total = |columns: &[(&Column, Vec<String>, usize)]| {
        names
            + columns
                .iter()
                .map(|(.., width)| GAP.len() + width)
                .sum::<usize>()
    };
    let bars = total(&columns) + GAP.len() + BAR <= style.width;
    for least_missed in ["p99.9", "clients", "tx/fsync"] {
        if total(&columns) > style.width {
            columns.retain(|(column, ..)| column.head != least_missed);
        }
    }
    let most = point
        .ways
        .iter()
        .filter_map(|way| way.tx_per_s)
        .fold(0.0, f64::max);

    let mut head = " ".repeat(names);
    for (column, _, width) in &columns {
        head.push_str(&format!("{GAP}{:>width$}", column.head));
        if column.head == "tx/s" && bars {
            head.push_str(&format!("{GAP}{:BAR$}", ""));
        }
    }
    line(text, &style.paint(DIM, &head));
    for (row, way) in point.ways.iter().enumerate() {
        let mut painted = format!("{:names$}", way.title());
        if way.way.starts_with("onepen") {
            painted = style.paint(BOLD, &painted);
        }
        if let Some(why) = &way.could_not_run {
            painted.push_str(&format!(
                "{GAP}{}",
                style.paint(RED, &format!("could not run: {why}"))
            ));
            line(text, &painted);
            continue;
        }
        for (column, cells, width) in &columns {
            let padded = format!("{:>width$}", cells[row]);
            let color = color(column.head, way);
            let padded = color.map_or(padded.clone(), |color| style.paint(color, &padded));
            painted.push_str(GAP);
            painted.push_str(&padded);
            if column.head == "tx/s" && bars {
                let bar = bar(way.tx_per_s.unwrap_or(0.0), most);
                painted.push_str(&format!("{GAP}{}", style.paint(GREEN, &bar)));
            }
        }
        line(text, &painted);
    }
    text.push('\n');
}

fn color(column: &str, way: &WayReport) -> Option<&'static str> {
    match column {
        "tx/s" => Some(BOLD),
        "failed" if way.failed > 0 => Some(YELLOW),
        "fair" if way.fairness.is_some_and(|share| share < 0.1) => Some(YELLOW),
        "lost" if way.is_violated() => Some(RED),
        _ => None,
    }
}

/// A bar of whole and eighth blocks, always [`BAR`] columns wide.
fn bar(value: f64, most: f64) -> String {
    const EIGHTHS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    let eighths = if most > 0.0 {
        (value / most * (BAR * 8) as f64).round() as usize
    } else {
        0
    };
    // Something is never nothing.
    let eighths = eighths.max(usize::from(value > 0.0));
    let bar = format!("{}{}", "█".repeat(eighths / 8), EIGHTHS[eighths % 8]);
    format!("{bar:BAR$}")
}

fn wrong(point: &PointReport, style: Style, text: &mut String) {
    let names = point
        .ways
        .iter()
        .map(|way| way.title().chars().count())
        .max()
        .unwrap_or(0);
    let mut said = false;
    let mut say = |way: &str, what: &str| {
        line(text, &format!("{way:names$}{GAP}{what}"));
        said = true;
    };
    for way in &point.ways {
        if let Some(lost) = way.lost_updates.filter(|&lost| lost > 0) {
            let what = format!("{} acknowledged updates are lost", thousands(lost));
            say(&way.title(), &style.paint(RED, &what));
        }
        for violation in &way.violations {
            say(&way.title(), &style.paint(RED, violation));
        }
        for (class, &errors) in &way.errors {
            let mut what = format!("{} × {class}", thousands(errors));
            // The names of SQLite's codes say it already.
            if !class.starts_with("SQLITE_BUSY")
                && let Some(example) = way.error_examples.get(class)
            {
                what.push_str(&format!(": {example}"));
            }
            say(&way.title(), &style.paint(YELLOW, &what));
        }
        if let Some(readers) = &way.readers {
            for (class, &errors) in &readers.errors {
                let what = format!("{} × {class} (readers)", thousands(errors));
                say(&way.title(), &style.paint(YELLOW, &what));
            }
        }
        if let Some(note) = way.note {
            say(&way.title(), &style.paint(DIM, note));
        }
    }
    if said {
        text.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_as_long_as_its_share_and_never_empty_for_something() {
        assert_eq!(bar(1.0, 1.0), "█".repeat(BAR));
        assert_eq!(bar(0.5, 1.0).trim_end(), "█".repeat(BAR / 2));
        assert_eq!(bar(0.0001, 1.0).trim_end(), "▏");
        assert_eq!(bar(0.0, 1.0).trim_end(), "");
        assert_eq!(bar(0.0, 0.0).chars().count(), BAR);
    }

    #[test]
    fn a_share_of_failures_is_never_rounded_to_none_or_all() {
        assert_eq!(percent(0.0), "0");
        assert_eq!(percent(0.000_01), "<0.1%");
        assert_eq!(percent(0.999_95), ">99.9%");
        assert_eq!(percent(1.0), "100.0%");
    }
}
