//! What was found, as text and as JSON.

use std::fmt::Write as _;
use std::time::Duration;

use onepen_lock::holders::Holder;
use serde::Serialize;

use super::findings::Finding;
use super::programs::Programs;
use super::sample::{Sample, Samples};
use crate::files::Files;
use crate::words::thousands;

/// The name and version of the form of `--json`.
const SCHEMA: &str = "onepen-doctor/1";

/// One visit.
#[derive(Debug, Serialize)]
pub struct Report {
    schema: &'static str,
    database: String,
    pub findings: Vec<Finding>,
    /// At the last look.
    holders: Vec<HolderReport>,
    /// Processes that have it open.
    open_in: usize,
    looks: usize,
    seconds: f64,
    journal: &'static str,
    page_size: u32,
    log: Option<LogReport>,
    commits: Option<u32>,
    /// Processes with onepen that wait for their turn.
    waiting: usize,
    could_not_see: Vec<String>,
}

#[derive(Debug, Serialize)]
struct HolderReport {
    pid: Option<u32>,
    command: Option<String>,
    activity: Option<String>,
    state: String,
    locks: Vec<String>,
    writes: bool,
    reads: bool,
    /// What a process with onepen says it writes for.
    purpose: Option<String>,
}

#[derive(Debug, Serialize)]
struct LogReport {
    frames: u32,
    copied: u32,
    bytes: u64,
}

impl Report {
    pub fn new(
        files: &Files,
        samples: &Samples,
        programs: &Programs,
        findings: Vec<Finding>,
    ) -> Self {
        let last = samples.last();
        let unseen = last.look.unseen.iter().map(ToString::to_string);
        let mut could_not_see: Vec<String> = (files.unseen.iter())
            .chain(&samples.unseen)
            .chain(&programs.unseen)
            .cloned()
            .chain(unseen)
            .collect();
        could_not_see.dedup();
        let open_in = programs
            .users
            .iter()
            .filter(|user| user.descriptors + user.of_shared_memory > 0);
        Self {
            schema: SCHEMA,
            database: files.path.display().to_string(),
            findings,
            holders: (last.look.holders.iter())
                .map(|holder| HolderReport::of(holder, last))
                .collect(),
            open_in: open_in.count().max(last.look.holders.len()),
            looks: samples.all.len(),
            seconds: (samples.lasted().as_secs_f64() * 1000.0).round() / 1000.0,
            journal: match (files.header.page_size, files.header.wal) {
                (0, _) => "none yet",
                (_, true) => "write-ahead log",
                (_, false) => "rollback journal",
            },
            page_size: files.header.page_size,
            log: last.log.map(|log| LogReport {
                frames: log.frames,
                copied: log.copied,
                bytes: last.wal_bytes,
            }),
            commits: samples.commits(),
            waiting: last.waiting(),
            could_not_see,
        }
    }

    /// What comes after [`now`].
    pub fn text(&self) -> String {
        let mut text = String::new();
        let mut put = |name: &str, line: &str| {
            let _ = writeln!(text, "{name:<14} {line}");
        };
        if let Some(log) = &self.log {
            put(
                "log",
                &format!(
                    "{} frames, {} of them copied back; the file has {} KiB",
                    thousands(log.frames.into()),
                    thousands(log.copied.into()),
                    thousands(log.bytes / 1024)
                ),
            );
        }
        let commits = match self.commits {
            Some(commits) => format!("{} commits", thousands(commits.into())),
            None => "commits were not counted".to_owned(),
        };
        put(
            "counted",
            &format!(
                "{} looks in {:.1} s; {commits}; open in {}; {}",
                self.looks,
                self.seconds,
                match self.open_in {
                    1 => "1 process".to_owned(),
                    n => format!("{n} processes"),
                },
                self.journal
            ),
        );
        for unseen in &self.could_not_see {
            let unseen = unseen.strip_prefix("could not see ").unwrap_or(unseen);
            put("could not see", unseen);
        }
        text.push('\n');
        for finding in &self.findings {
            text.push_str(&lines(finding));
        }
        match self.findings.len() {
            0 => text.push_str("nothing found\n"),
            1 => text.push_str("1 finding\n"),
            n => {
                let _ = writeln!(text, "{n} findings");
            }
        }
        text
    }

    /// # Errors
    /// When the system's words are not Unicode, which serde_json cannot be told.
    pub fn json(&self, pretty: bool) -> Result<String, String> {
        let text = match pretty {
            true => serde_json::to_string_pretty(self),
            false => serde_json::to_string(self),
        };
        text.map(|text| text + "\n")
            .map_err(|error| error.to_string())
    }
}

impl HolderReport {
    fn of(holder: &Holder, sample: &Sample) -> Self {
        let process = holder.process.as_ref();
        Self {
            pid: process.map(|it| it.pid),
            command: process.map(|it| it.command.clone()),
            activity: process.map(|it| it.activity.to_string()),
            state: holder.held.state.to_string(),
            locks: holder.held.locks.iter().map(ToString::to_string).collect(),
            writes: holder.held.writes(),
            reads: holder.held.reads(),
            purpose: process.and_then(|it| sample.purpose(it)),
        }
    }
}

/// The first words, before anything was waited for.
pub fn now(sample: &Sample) -> String {
    let look = &sample.look;
    /// As many as one looks at.
    const SHOWN: usize = 12;
    let mut text = String::new();
    let busy = look.holders.iter().filter(|holder| !holder.held.is_idle());
    let busy: Vec<_> = busy.collect();
    let mut name = "now";
    for holder in busy.iter().take(SHOWN) {
        let purpose = holder.process.as_ref().and_then(|it| sample.purpose(it));
        let purpose = purpose.map_or_else(String::new, |said| format!(" ({said})"));
        let _ = writeln!(text, "{name:<14} {holder}{purpose}");
        name = "";
    }
    let idle = look.holders.len() - busy.len();
    let more = busy.len().saturating_sub(SHOWN);
    let rest = match (busy.len(), idle, more) {
        (0, 0, _) => Some("nobody has a lock".to_owned()),
        (0, idle, _) => Some(format!("{idle} have it open, nobody is in a transaction")),
        (_, 0, 0) => None,
        (_, idle, 0) => Some(format!("{idle} more have it open")),
        (_, idle, more) => Some(format!("{more} more have locks, {idle} have it open")),
    };
    if let Some(rest) = rest {
        let _ = writeln!(text, "{name:<14} {rest}");
    }
    match sample.waiting() {
        0 => {}
        n => {
            let _ = writeln!(text, "{:<14} {n} with onepen wait for their turn", "");
        }
    }
    text
}

/// A finding in three lines.
pub fn lines(finding: &Finding) -> String {
    format!(
        "{}\n    {}\n    fix: {}\n    see: {}\n\n",
        finding.name, finding.evidence, finding.fix, finding.guide
    )
}

/// What is new and what has gone since the last visit, for `--watch`.
pub fn changes(before: &[Finding], now: &[Finding], since: Duration) -> String {
    let key = |finding: &Finding| (finding.name, finding.pids.clone());
    let is_in = |finding: &Finding, others: &[Finding]| {
        others.iter().any(|other| key(other) == key(finding))
    };
    let mut text = String::new();
    for finding in now.iter().filter(|finding| !is_in(finding, before)) {
        let _ = write!(text, "{:.1} s  + {}", since.as_secs_f64(), lines(finding));
    }
    for finding in before.iter().filter(|finding| !is_in(finding, now)) {
        let _ = writeln!(
            text,
            "{:.1} s  - {} is over ({})",
            since.as_secs_f64(),
            finding.name,
            finding.evidence
        );
    }
    text
}
