//! Shows what was counted: a table as `perf lock contention` has it, then each class
//! with what it is, who met it and one fix; or JSON.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::fmt::Write as _;

use onepen_trace::Timeout;
use serde::Serialize;

use super::Sort;
use super::class::CLASSES;
use super::launch::Ran;
use super::tally::Row;
use crate::words::thousands;

/// The name and version of the form of `--json`.
const SCHEMA: &str = "onepen-trace/1";
/// Rows of the table, and of each class.
const SHOWN: usize = 20;
const EACH: usize = 4;

/// One run.
#[derive(Debug, Serialize)]
pub struct Report {
    schema: &'static str,
    seconds: f64,
    exit: Exit,
    /// Programs that were started with the library.
    programs: u32,
    processes: Vec<ProcessReport>,
    calls: u64,
    contended: u64,
    failed: u64,
    /// Refusals that SQLite goes around by itself.
    around: u64,
    /// Records for which there was no room.
    dropped: u32,
    contentions: Vec<Contention>,
    /// Processes of the program that went on when it had ended.
    left: usize,
    /// Where the library was left for them.
    kept: Option<String>,
}

#[derive(Debug, Serialize)]
struct Exit {
    code: u8,
    signal: Option<i32>,
}

#[derive(Debug, Serialize)]
struct ProcessReport {
    pid: u32,
    command: String,
    /// False of one that was only in the way.
    traced: bool,
    calls: u64,
}

#[derive(Debug, Serialize)]
struct Contention {
    class: &'static str,
    /// Not certain: it is the likeliest that follows from what was seen.
    inferred: bool,
    database: String,
    waiter: String,
    pids: Vec<u32>,
    /// Between connections of one process, not between processes.
    in_process: bool,
    /// Without its literals; only where SQLite's functions could be seen.
    statement: Option<String>,
    contended: u64,
    failed: u64,
    total_ms: f64,
    max_ms: f64,
    avg_ms: f64,
    /// The smallest busy timeout that was seen.
    timeout_ms: Option<u32>,
    own_handler: bool,
    holders: Vec<HolderReport>,
    /// The longest that a holder had had the lock, where that was seen.
    held_ms: Option<f64>,
    /// In which statement it took it.
    held_by: Option<String>,
    more: Option<String>,
    fix: &'static str,
    guide: String,
    #[serde(skip)]
    nanoseconds: (u64, u64),
}

#[derive(Debug, Serialize)]
struct HolderReport {
    who: String,
    times: u64,
}

fn milliseconds(nanoseconds: u64) -> f64 {
    (nanoseconds as f64 / 1000.0).round() / 1000.0
}

impl Contention {
    fn of(row: &Row) -> Self {
        let mut holders: Vec<_> = row.holders.iter().collect();
        holders.sort_by_key(|(_, times)| Reverse(**times));
        Self {
            class: row.class.name,
            inferred: row.inferred,
            database: row.key.database.clone(),
            waiter: row.key.waiter.clone(),
            pids: row.pids.clone(),
            in_process: row.key.in_process,
            statement: row.key.statement.clone(),
            contended: row.contended,
            failed: row.failed,
            total_ms: milliseconds(row.total),
            max_ms: milliseconds(row.longest),
            avg_ms: milliseconds(row.total / row.contended.max(1)),
            timeout_ms: match row.timeout {
                Some(Timeout::Milliseconds(ms)) => Some(ms),
                _ => None,
            },
            own_handler: row.timeout == Some(Timeout::Handler),
            holders: (holders.into_iter())
                .map(|(who, times)| HolderReport {
                    who: who.clone(),
                    times: *times,
                })
                .collect(),
            held_ms: row.held_for.map(milliseconds),
            held_by: row.held_by.clone(),
            more: row.more.clone(),
            fix: row.class.fix,
            guide: format!("docs/guide/trace.md#{}", row.class.name),
            nanoseconds: (row.total, row.longest),
        }
    }

    fn name(&self) -> String {
        let name = self.class.to_owned();
        if self.inferred { name + "*" } else { name }
    }

    /// Who met it, in what, because of whom.
    fn story(&self) -> String {
        let mut text = self.waiter.clone();
        if let [_, _, ..] = self.pids[..] {
            let more = if self.pids.len() >= 8 {
                " and more"
            } else {
                ""
            };
            let _ = write!(text, " ({} processes{more})", self.pids.len());
        }
        if let Some(statement) = &self.statement {
            let _ = write!(text, " in `{statement}`");
        }
        if let Some(more) = &self.more {
            let _ = write!(text, ": {}", more.trim_end().replace('\n', " and "));
        }
        if let Some(holder) = self.holders.first() {
            let another = if holder.who == self.waiter {
                "another "
            } else {
                ""
            };
            let _ = write!(text, ", behind {another}{}", holder.who);
            let more = self.holders.len() - 1;
            if more > 0 {
                let _ = write!(text, " and {more} more");
            }
        }
        let held = self.held_ms.filter(|_| !self.class.ends_with("upgrade"));
        match (held, &self.held_by) {
            (Some(held), Some(by)) => {
                let _ = write!(
                    text,
                    ", which had the lock for {} since `{by}`",
                    span((held * 1e6) as u64)
                );
            }
            (Some(held), None) if held >= 10.0 => {
                let _ = write!(
                    text,
                    ", which had the lock for {}",
                    span((held * 1e6) as u64)
                );
            }
            _ => {}
        }
        match self.timeout_ms {
            Some(0) => text.push_str("; busy timeout: none"),
            Some(ms) => {
                let _ = write!(text, "; busy timeout: {}", span(u64::from(ms) * 1_000_000));
            }
            None if self.own_handler => text.push_str("; busy handler of its own"),
            None => {}
        }
        text
    }
}

impl Report {
    pub fn new(ran: Ran, sort: Sort) -> Self {
        let mut contentions: Vec<_> = ran.tally.rows().map(Contention::of).collect();
        // What harms the data comes first, whatever is asked for.
        let harms = |it: &Contention| matches!(it.class, "two-libraries" | "locks-dropped");
        contentions.sort_by_key(|it| {
            let (total, longest) = it.nanoseconds;
            let keys = match sort {
                Sort::Total => [total, it.failed, it.contended],
                Sort::Max => [longest, total, it.failed],
                Sort::Contended => [it.contended, total, it.failed],
                Sort::Failed => [it.failed, total, it.contended],
            };
            (!harms(it), Reverse(keys))
        });
        let waits = || contentions.iter().filter(|it| !harms(it));
        let processes = &ran.tally.processes;
        Self {
            schema: SCHEMA,
            seconds: (ran.lasted.as_secs_f64() * 1000.0).round() / 1000.0,
            exit: Exit {
                code: ran.exit.code(),
                signal: ran.exit.signal(),
            },
            programs: ran.tally.loaded,
            calls: processes.iter().map(|it| it.calls).sum(),
            around: processes.iter().map(|it| it.around).sum(),
            contended: waits().map(|it| it.contended).sum(),
            failed: waits().map(|it| it.failed).sum(),
            processes: (processes.iter())
                .map(|it| ProcessReport {
                    pid: it.pid,
                    command: it.command.clone(),
                    traced: it.is_traced,
                    calls: it.calls,
                })
                .collect(),
            dropped: ran.tally.dropped,
            contentions,
            left: ran.left,
            kept: ran.kept.map(|path| path.display().to_string()),
        }
    }

    pub fn json(&self) -> Result<String, String> {
        let text = serde_json::to_string_pretty(self);
        text.map(|text| text + "\n")
            .map_err(|error| error.to_string())
    }

    pub fn text(&self) -> String {
        let mut text = self.head();
        if self.contentions.is_empty() {
            return text;
        }
        text.push_str(&self.table());
        for class in CLASSES {
            let of_class: Vec<_> = self
                .contentions
                .iter()
                .filter(|it| it.class == class.name)
                .collect();
            let Some(first) = of_class.first() else {
                continue;
            };
            let _ = writeln!(text, "\n{}\n    {}", class.name, class.what);
            for it in of_class.iter().take(EACH) {
                let _ = writeln!(text, "    {}×  {}", thousands(it.contended), it.story());
            }
            if of_class.len() > EACH {
                let _ = writeln!(
                    text,
                    "    and {} more (--json has them)",
                    of_class.len() - EACH
                );
            }
            let _ = writeln!(text, "    fix: {}\n    see: {}", class.fix, first.guide);
        }
        if self.contentions.iter().any(|it| it.inferred) {
            text.push_str(
                "\n* inferred: the likeliest by the order and the moments of locks and sleeps; what would prove \
                 it (SQLite's own functions, or the holder from within) could not be seen\n",
            );
        }
        text
    }

    fn head(&self) -> String {
        let traced = self.processes.iter().filter(|it| it.traced);
        let pids: BTreeSet<u32> = traced.map(|it| it.pid).collect();
        let mut text = format!(
            "onepen trace: {} with SQLite, {} calls for its locks in {:.1} s; {} contended, {} failed\n",
            match pids.len() {
                1 => "1 process".to_owned(),
                n => format!("{n} processes"),
            },
            thousands(self.calls),
            self.seconds,
            thousands(self.contended),
            thousands(self.failed),
        );
        if self.programs == 0 {
            text.push_str(
                "the program did not load the library: it was started in a way that drops LD_PRELOAD (sudo, \
                 env -i), or only static programs ran\n",
            );
        } else if self.calls == 0 {
            text.push_str("nobody asked for a lock of SQLite's\n");
        }
        if self.dropped > 0 {
            let _ = writeln!(
                text,
                "{} more were not counted: there was no room",
                thousands(self.dropped.into())
            );
        }
        if let Some(kept) = &self.kept {
            let _ = writeln!(
                text,
                "{} of its processes did not end with it and {} not counted any more; {kept} is left \
                 for their libraries, remove it when they have ended",
                self.left,
                if self.left == 1 { "is" } else { "are" }
            );
        }
        text
    }

    fn table(&self) -> String {
        let mut text = format!(
            "\n{:>9}  {:>7}  {:>10}  {:>9}  {:>9}  {:<24}  who, where\n",
            "contended", "failed", "total wait", "max wait", "avg wait", "class"
        );
        for it in self.contentions.iter().take(SHOWN) {
            let (total, longest) = it.nanoseconds;
            let place = it.database.rsplit('/').next().unwrap_or_default();
            let where_ = if it.in_process { "in the process" } else { "" };
            let line = format!(
                "{:>9}  {:>7}  {:>10}  {:>9}  {:>9}  {:<24}  {}, {place} {where_}",
                thousands(it.contended),
                thousands(it.failed),
                span(total),
                span(longest),
                span(total / it.contended.max(1)),
                it.name(),
                it.waiter,
            );
            let _ = writeln!(text, "{}", line.trim_end());
        }
        if self.contentions.len() > SHOWN {
            let _ = writeln!(
                text,
                "and {} more rows (--json has them)",
                self.contentions.len() - SHOWN
            );
        }
        text
    }
}

/// A time with three digits.
fn span(nanoseconds: u64) -> String {
    let n = nanoseconds as f64;
    let (value, unit) = match nanoseconds {
        0 => return "0".to_owned(),
        1..1_000 => (n, "ns"),
        1_000..1_000_000 => (n / 1e3, "µs"),
        1_000_000..1_000_000_000 => (n / 1e6, "ms"),
        _ => (n / 1e9, "s"),
    };
    match value {
        v if v < 10.0 => format!("{v:.1} {unit}"),
        v => format!("{v:.0} {unit}"),
    }
}

#[cfg(test)]
mod tests {
    use super::span;

    #[test]
    fn times_have_a_unit() {
        for (time, is) in [
            (0, "0"),
            (999, "999 ns"),
            (1_500, "1.5 µs"),
            (12_300_000, "12 ms"),
            (2_340_000_000, "2.3 s"),
            (61_000_000_000, "61 s"),
        ] {
            assert_eq!(span(time), is);
        }
    }
}
