//! What a user pastes into a bug report.
//!
//! Guarantees: settings are what SQLite answers on the very connections that are
//! in use, not what was asked for; no value of the database and none that was
//! bound is in it, and no path beyond the database's name, unless
//! [`Report::with_paths`] is asked; making one waits for nobody for longer than a
//! tenth of a second, and what could not be asked says so.

use std::fmt::{self, Write};
use std::time::Duration;

use rusqlite::{Connection, ffi};

use crate::database::Database;
use crate::pen::job::{Kind, Priority, Ticket};
use crate::sqlite::SqliteEngine;
use crate::stats::Histogram;

/// How long the write connection is waited for.
const PATIENCE: Duration = Duration::from_millis(100);

/// What every connection is asked.
const SETTINGS: [&str; 12] = [
    "journal_mode",
    "synchronous",
    "locking_mode",
    "foreign_keys",
    "busy_timeout",
    "cache_size",
    "mmap_size",
    "temp_store",
    "query_only",
    "page_size",
    "encoding",
    "auto_vacuum",
];

/// The state of a database, seen from inside: [`Database::report`].
///
/// Shown by `Display` as text in sections, and by [`to_json`](Self::to_json) for
/// programs.
#[derive(Clone, Debug)]
pub struct Report {
    sections: Vec<(String, Vec<(String, String)>)>,
}

impl Report {
    /// Every section with its entries, in order.
    pub fn sections(&self) -> impl Iterator<Item = (&str, &[(String, String)])> {
        let sections = self.sections.iter();
        sections.map(|(name, entries)| (&**name, &**entries))
    }

    /// One entry.
    pub fn get(&self, section: &str, entry: &str) -> Option<&str> {
        let (_, entries) = self.sections.iter().find(|(name, _)| name == section)?;
        let (_, value) = entries.iter().find(|(name, _)| name == entry)?;
        Some(value)
    }

    /// The same for programs: an object of objects of texts.
    pub fn to_json(&self) -> String {
        let mut json = String::from("{");
        for (place, (section, entries)) in self.sections.iter().enumerate() {
            json.push_str(if place == 0 { "" } else { "," });
            quote(&mut json, section);
            json.push_str(":{");
            for (place, (name, value)) in entries.iter().enumerate() {
                json.push_str(if place == 0 { "" } else { "," });
                quote(&mut json, name);
                json.push(':');
                quote(&mut json, value);
            }
            json.push('}');
        }
        json.push('}');
        json
    }

    /// With the path of the database, which may tell who and where you are.
    #[must_use]
    pub fn with_paths(mut self, database: &Database) -> Self {
        let path = database.shared.connector.path.display().to_string();
        self.section("paths").push(("database".into(), path));
        self
    }

    fn section(&mut self, name: impl Into<String>) -> &mut Vec<(String, String)> {
        self.sections.push((name.into(), Vec::new()));
        let last = self.sections.len() - 1;
        &mut self.sections[last].1
    }
}

fn quote(json: &mut String, text: &str) {
    json.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => {
                json.push('\\');
                json.push(c);
            }
            c if c < ' ' => {
                let _ = write!(json, "\\u{:04x}", u32::from(c)); // a String takes it
            }
            c => json.push(c),
        }
    }
    json.push('"');
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, (section, entries)) in self.sections.iter().enumerate() {
            let blank = if place == 0 { "" } else { "\n" };
            writeln!(f, "{blank}[{section}]")?;
            for (name, value) in entries {
                writeln!(f, "{name}: {value}")?;
            }
        }
        Ok(())
    }
}

impl Database {
    /// The state of this database as it is now: versions, what SQLite says of the
    /// settings of each connection, file system, sizes, queues, how long was waited,
    /// and who holds what now: processes by their locks ([`onepen_lock::holders`], which
    /// opens no file of the database), threads of this one by what they read and write.
    ///
    /// ```
    /// # fn main() -> onepen::Result<()> {
    /// # let db = onepen::Database::open_in_memory()?;
    /// println!("{}", db.report());
    /// # Ok(()) }
    /// ```
    ///
    /// It can be asked for at any time, within a closure as well; a connection
    /// that is in use then is said to be.
    pub fn report(&self) -> Report {
        let mut report = Report {
            sections: Vec::new(),
        };
        versions(report.section("versions"));
        self.file(report.section("file"));
        self.asked_for(report.section("options"));
        let writer = self.writer();
        *report.section("write connection") = writer;
        for (name, settings) in self.shared.readers.each_idle(settings) {
            *report.section(name) = settings;
        }
        self.holders(report.section("holders"));
        self.counted(report.section("statistics"));
        report
    }

    fn file(&self, entries: &mut Vec<(String, String)>) {
        let connector = &self.shared.connector;
        put(entries, "name", &connector.name);
        put(
            entries,
            "file system",
            onepen_lock::systems::name(&connector.path).unwrap_or_else(|| "unknown".into()),
        );
        put(entries, "gone with its last handle", connector.volatile);
        for (what, suffix) in [("database", ""), ("log", "-wal"), ("shared memory", "-shm")] {
            let mut path = connector.path.clone().into_os_string();
            path.push(suffix);
            // A look at the name only: to open it would drop SQLite's locks.
            let size = std::fs::metadata(path).map(|it| it.len());
            let size = size.map_or_else(|_| "not there".into(), |size| format!("{size} bytes"));
            put(entries, what, size);
        }
    }

    fn asked_for(&self, entries: &mut Vec<(String, String)>) {
        let options = &self.shared.connector.options;
        put(entries, "durability", format!("{:?}", options.durability));
        put(entries, "journal", format!("{:?}", options.journal));
        put(entries, "readers", options.readers);
        put(entries, "wait", format!("{:?}", options.wait));
        put(entries, "limits", format!("{:?}", options.limits));
        put(entries, "read only", options.read_only);
        put(entries, "wal limit", format!("{} pages", options.wal_pages));
        put(entries, "on_connect", options.init.is_some());
        put(entries, "reader lease", limit(options.reader_lease));
        put(entries, "grace after it", limit(options.lease_grace));
        put(entries, "write limit", limit(options.write_limit));
        put(entries, "gate", options.gate);
    }

    fn writer(&self) -> Vec<(String, String)> {
        let Ok(pen) = self.shared.pen() else {
            return vec![("state".into(), "there is none".into())];
        };
        let ticket = Ticket {
            priority: Priority::High,
            label: Some("report".into()),
            patience: Some(PATIENCE),
            ..Ticket::default()
        };
        let asked = pen.write(&ticket, Kind::Maintenance, |engine: &mut SqliteEngine| {
            Ok(settings(engine.connection()?))
        });
        asked.unwrap_or_else(|error| vec![("state".into(), format!("in use: {error}"))])
    }

    /// Who has what now: processes as the system shows their locks, and in this one
    /// whoever writes and everybody who reads.
    fn holders(&self, entries: &mut Vec<(String, String)>) {
        let pen = self.shared.pen().ok().and_then(|pen| pen.holder());
        let pen = pen.map_or_else(|| "nobody".into(), |holder| holder.to_string());
        put(entries, "the pen", pen);
        for (place, reading) in self.reading().iter().enumerate() {
            put(
                entries,
                &format!("read {}", place + 1),
                reading.without_path(),
            );
        }
        entries.extend(self.shared.connector.strangers.everybody());
    }

    fn counted(&self, entries: &mut Vec<(String, String)>) {
        let stats = self.stats();
        put(entries, "commits", self.commits());
        put(entries, "writes", stats.writes);
        put(entries, "times the pen was held", stats.groups);
        put(entries, "largest group", stats.largest_group);
        put(entries, "queue now", stats.queue_length);
        put(entries, "longest queue", stats.longest_queue);
        put(entries, "waits for the pen", histogram(&stats.waits));
        put(entries, "times held", histogram(&stats.holds));
        put(entries, "reader connections", stats.readers);
        put(entries, "readers in use", stats.readers_in_use);
        put(entries, "oldest snapshot", since(stats.oldest_snapshot));
        put(entries, "log now", format!("{} frames", stats.wal_frames));
        put(
            entries,
            "longest log",
            format!("{} frames", stats.wal_frames_max),
        );
        put(entries, "log resets", stats.wal_resets);
        put(entries, "log pinned for", since(stats.wal_pinned_for));
        put(entries, "reads past their lease", stats.overdue.len());
        put(entries, "reads ended for it", stats.leases_ended);
        put(entries, "processes that wait", stats.processes_waiting);
        let alone = stats.alone_because.as_deref().unwrap_or("no");
        put(entries, "alone at the gate", alone);
    }
}

fn put(entries: &mut Vec<(String, String)>, name: &str, value: impl ToString) {
    entries.push((name.into(), value.to_string()));
}

fn since(duration: Option<Duration>) -> String {
    duration.map_or_else(|| "none".into(), |it| format!("{it:.1?}"))
}

fn limit(duration: Option<Duration>) -> String {
    duration.map_or_else(|| "none".into(), |it| format!("{it:?}"))
}

fn histogram(of: &Histogram) -> String {
    format!(
        "{} (median {:.1?}, p99 {:.1?}, longest {:.1?})",
        of.count(),
        of.quantile(0.5),
        of.quantile(0.99),
        of.longest()
    )
}

fn versions(entries: &mut Vec<(String, String)>) {
    put(entries, "onepen", env!("CARGO_PKG_VERSION"));
    put(entries, "SQLite", rusqlite::version());
    // SAFETY: returns a constant.
    let mode = match unsafe { ffi::sqlite3_threadsafe() } {
        0 => "single-thread",
        1 => "serialized",
        _ => "multi-thread",
    };
    put(entries, "threading", mode);
    put(entries, "system", std::env::consts::OS);
    put(entries, "architecture", std::env::consts::ARCH);
    let cores = std::thread::available_parallelism();
    put(entries, "cores", cores.map_or(0, std::num::NonZero::get));
    put(
        entries,
        "build",
        if cfg!(debug_assertions) {
            "debug"
        } else {
            "release"
        },
    );
}

/// What SQLite says of a connection's settings.
fn settings(connection: &Connection) -> Vec<(String, String)> {
    let ask = |name: &&str| {
        let value = connection.pragma_query_value(None, name, |row| {
            let value = row.get_ref(0)?;
            Ok(match value {
                rusqlite::types::ValueRef::Integer(number) => number.to_string(),
                rusqlite::types::ValueRef::Text(text) => String::from_utf8_lossy(text).into(),
                other => format!("{:?}", other.data_type()),
            })
        });
        let value = value.unwrap_or_else(|error| format!("not told: {error}"));
        ((*name).to_owned(), value)
    };
    SETTINGS.iter().map(ask).collect()
}
