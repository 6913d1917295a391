//! Counts records: alike waits are one row.
//!
//! Guarantees: memory is bounded by the rows and names it keeps, whatever the
//! program does; what is beyond is counted in the last row.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::mem;

use onepen_lock::holders::Process;
use onepen_trace::{Events, Kind, Outcome, Record, Timeout};

use super::class::{self, Around, Class};
use super::launch::is_alive;
use super::statement;

/// Rows that are kept apart.
const ROWS: usize = 1_000;
/// Names in one row.
const NAMES: usize = 8;
/// Transactions of each process that are remembered.
const HOLDS: usize = 64;

/// What is alike.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    pub database: String,
    pub class: &'static str,
    pub waiter: String,
    pub in_process: bool,
    pub statement: Option<String>,
}

/// Alike waits.
#[derive(Clone, Debug)]
pub struct Row {
    pub key: Key,
    pub class: &'static Class,
    pub contended: u64,
    pub failed: u64,
    /// In nanoseconds, as all times here.
    pub total: u64,
    pub longest: u64,
    pub inferred: bool,
    /// The smallest timeout that was seen.
    pub timeout: Option<Timeout>,
    /// Who was in the way, and how often.
    pub holders: BTreeMap<String, u64>,
    /// The longest time that one of them had had the lock.
    pub held_for: Option<u64>,
    /// What that had executed when it took the lock.
    pub held_by: Option<String>,
    /// What else there is to say: which libraries.
    pub more: Option<String>,
    /// Threads and processes that waited.
    pub pids: Vec<u32>,
}

/// A transaction that had the write lock.
#[derive(Clone, Debug)]
struct Hold {
    from: u64,
    until: u64,
    statement: Option<String>,
}

/// What a process was.
#[derive(Clone, Debug)]
pub struct Traced {
    pub pid: u32,
    pub command: String,
    pub is_traced: bool,
    pub calls: u64,
    pub around: u64,
}

/// All that was counted.
#[derive(Debug, Default)]
pub struct Tally {
    rows: BTreeMap<Key, Row>,
    holds: HashMap<(u32, u32), Vec<Hold>>,
    names: HashMap<u32, (String, bool)>,
    databases: HashMap<u32, String>,
    pub processes: Vec<Traced>,
    /// Programs that were started with the library.
    pub loaded: u32,
    /// Records for which there was no room.
    pub dropped: u32,
}

impl Tally {
    /// Takes what was noted since the last time.
    pub fn add(&mut self, records: &mut Vec<Record>, events: &Events) -> io::Result<()> {
        if records.is_empty() {
            return Ok(());
        }
        // A hold is told when it ends, and explains waits that began before.
        records.sort_by_key(|record| (record.kind != Kind::Held, record.first));
        for record in mem::take(records) {
            match record.kind {
                Kind::Held => self.hold(&record),
                _ => self.count(&record, events)?,
            }
        }
        Ok(())
    }

    fn hold(&mut self, record: &Record) {
        let holds = self.holds.entry((record.database, record.pid)).or_default();
        if holds.len() == HOLDS {
            holds.remove(0);
        }
        holds.push(Hold {
            from: record.first,
            until: record.last,
            statement: record.text.as_deref().map(statement::shown),
        });
    }

    fn count(&mut self, record: &Record, events: &Events) -> io::Result<()> {
        let (waiter, _) = self.name(record.pid, events)?;
        let most = record.holders.iter().max_by_key(|(_, times)| *times);
        let holder = most
            .and_then(|(pid, _)| u32::try_from(*pid).ok())
            .filter(|pid| *pid > 0);
        let in_the_way = if record.is_in_process() {
            Some(record.pid)
        } else {
            holder
        };
        let mut around = Around::default();
        let mut held_by = None;
        if let Some(pid) = in_the_way {
            around.holder_is_traced = self.name(pid, events)?.1 && is_there(pid);
            let holds = self.holds.get(&(record.database, pid));
            let met = holds
                .into_iter()
                .flatten()
                .filter(|hold| hold.from < record.last && hold.until > record.first);
            if let Some(longest) = met.max_by_key(|hold| hold.until - hold.from) {
                around.held_for = Some(longest.until - longest.from);
                held_by.clone_from(&longest.statement);
            }
        }
        let Some(class) = class::of(record, around) else {
            return Ok(());
        };
        let waited = match record.outcome {
            // One refusal and no sleep: nobody waited, it was looked at.
            Outcome::Refused | Outcome::Open if record.refusals <= 1 && record.sleeps == 0 => 0,
            _ => record.lasted(),
        };
        let mut holders = Vec::new();
        for (pid, times) in &record.holders {
            holders.push((self.holder(*pid, events)?, u64::from(*times)));
        }
        if record.other_holders > 0 {
            holders.push(("others".to_owned(), record.other_holders.into()));
        }
        if record.is_in_process() {
            holders.push((format!("another connection of {waiter}"), 1));
        }
        let is_text = matches!(record.kind, Kind::Waited);
        let mut key = Key {
            database: self.database(record.database, events)?,
            class: class.name,
            waiter,
            in_process: record.is_in_process(),
            statement: record
                .text
                .as_deref()
                .filter(|_| is_text)
                .map(statement::shown),
        };
        if self.rows.len() >= ROWS && !self.rows.contains_key(&key) {
            key.statement = None;
            key.waiter = "others".to_owned();
        }
        let row = self.rows.entry(key.clone()).or_insert_with(|| Row {
            key,
            class,
            contended: 0,
            failed: 0,
            total: 0,
            longest: 0,
            inferred: false,
            timeout: None,
            holders: BTreeMap::new(),
            held_for: None,
            held_by: None,
            more: None,
            pids: Vec::new(),
        });
        row.contended += 1;
        row.failed += u64::from(record.outcome != Outcome::Got);
        row.total += waited;
        row.longest = row.longest.max(waited);
        row.inferred |= class::is_inferred(record, class, around);
        row.timeout = smaller(row.timeout, record.timeout);
        let held_for = record.held_for.max(around.held_for);
        if held_for > row.held_for {
            row.held_for = held_for;
            row.held_by = held_by.or(row.held_by.take());
        }
        for (name, times) in holders {
            if row.holders.len() < NAMES || row.holders.contains_key(&name) {
                *row.holders.entry(name).or_default() += times;
            }
        }
        if !is_text {
            row.more.clone_from(&record.text);
        }
        if row.pids.len() < NAMES && !row.pids.contains(&record.pid) {
            row.pids.push(record.pid);
        }
        Ok(())
    }

    /// What a process was called, and whether it is traced.
    fn name(&mut self, pid: u32, events: &Events) -> io::Result<(String, bool)> {
        if let Some(known) = self.names.get(&pid) {
            return Ok(known.clone());
        }
        // The later entry of a number that was used twice.
        for process in events.processes()? {
            let command = Process::command_of(&process.arguments)
                .unwrap_or_else(|| format!("process {}", process.pid));
            self.names.insert(process.pid, (command, process.is_traced));
        }
        let known = self.names.entry(pid).or_insert_with(|| {
            let command = Process::look(pid).map(|process| process.command);
            let command = command.ok().filter(|command| !command.is_empty());
            (command.unwrap_or_else(|| format!("process {pid}")), false)
        });
        Ok(known.clone())
    }

    fn holder(&mut self, pid: i32, events: &Events) -> io::Result<String> {
        Ok(match u32::try_from(pid) {
            Ok(0) => "somebody who was gone when asked for".to_owned(),
            Ok(pid) => {
                let (name, traced) = self.name(pid, events)?;
                // A stranger is one process to look at; of ours there may be many.
                if traced {
                    name
                } else {
                    format!("{name} (pid {pid}, not traced)")
                }
            }
            Err(_) => "a lock of an open file description, which has no process".to_owned(),
        })
    }

    fn database(&mut self, number: u32, events: &Events) -> io::Result<String> {
        if let Some(path) = self.databases.get(&number) {
            return Ok(path.clone());
        }
        let path = events.database(number)?;
        let path = path.map_or_else(|| "?".to_owned(), |path| path.display().to_string());
        self.databases.insert(number, path.clone());
        Ok(path)
    }

    /// When nothing more will come.
    pub fn finish(&mut self, events: &Events) -> io::Result<()> {
        self.loaded = events.loaded()?;
        self.dropped = events.dropped()?;
        let processes = events.processes()?.into_iter();
        self.processes = processes
            .map(|process| Traced {
                pid: process.pid,
                command: Process::command_of(&process.arguments).unwrap_or_default(),
                is_traced: process.is_traced,
                calls: process.calls,
                around: process.around,
            })
            .collect();
        Ok(())
    }

    /// The processes that were traced.
    pub fn traced(&self) -> impl Iterator<Item = u32> {
        self.processes
            .iter()
            .filter(|it| it.is_traced)
            .map(|it| it.pid)
    }

    /// The rows, in no order of use.
    pub fn rows(&self) -> impl Iterator<Item = &Row> {
        self.rows.values()
    }
}

/// Runs, and is not stopped: what it does is seen.
fn is_there(pid: u32) -> bool {
    is_alive(pid) && !Process::look(pid).is_ok_and(|process| process.activity.is_stopped())
}

fn smaller(one: Option<Timeout>, other: Timeout) -> Option<Timeout> {
    match (one, other) {
        (known, Timeout::Unknown) => known,
        (Some(Timeout::Milliseconds(a)), Timeout::Milliseconds(b)) => {
            Some(Timeout::Milliseconds(a.min(b)))
        }
        (Some(Timeout::Handler), _) => Some(Timeout::Handler),
        _ => Some(other),
    }
}
