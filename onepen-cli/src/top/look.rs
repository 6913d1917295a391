//! One look at everything that `top` shows, taken from outside.
//!
//! Guarantees: nothing is opened through SQLite, nothing is locked, nothing is
//! written. The files are opened for reading by a process that has no lock on
//! them.

use std::fs;
use std::io;
use std::path::Path;
use std::time::{Instant, SystemTime};

use onepen_lock::gate::{Counters, Observer, Stand};
use onepen_lock::holders::{self, Process, State, beside};

use crate::files::{Header, Log};
use crate::named::regular;
use crate::words::name;

/// What was seen.
pub struct Raw {
    pub at: Instant,
    pub holds: Vec<Hold>,
    pub members: Vec<Member>,
    pub log: Option<Log>,
    /// The file's size; `None` when there is no log.
    pub log_bytes: Option<u64>,
    pub database_bytes: u64,
    /// Changes with every commit over a rollback journal.
    pub changed: Option<SystemTime>,
    pub unseen: Vec<String>,
}

/// A process that has SQLite's locks.
#[derive(Clone)]
pub struct Hold {
    pub pid: Option<u32>,
    pub started: u64,
    pub command: String,
    pub activity: String,
    pub stopped: bool,
    pub locks: String,
    pub in_wal: bool,
    pub writes: bool,
    pub checkpoints: bool,
    pub reads: bool,
    /// SHARED or more: it is in the middle of something.
    pub shares: bool,
    pub marks: Vec<u8>,
}

/// A process at the gate.
#[derive(Clone)]
pub struct Member {
    pub slot: usize,
    pub pid: u32,
    pub started: u64,
    pub command: String,
    pub activity: String,
    pub stopped: bool,
    pub label: String,
    pub stand: Stand,
    pub counters: Counters,
}

/// Looks once.
///
/// # Errors
/// When there is no database to look at, or this system does not show who holds
/// a lock.
pub fn look(database: &Path) -> Result<Raw, String> {
    let file = regular(database)?;
    if let Err(error) = Header::read(database)
        && error.kind() != io::ErrorKind::PermissionDenied
    {
        return Err(format!("{}: {error}", name(database)));
    }
    let seen = holders::look(database).map_err(|error| error.to_string())?;
    let mut unseen: Vec<String> = seen.unseen.iter().map(ToString::to_string).collect();
    let members = match Observer::open(database).and_then(|gate| match gate {
        Some(gate) => gate.look().map(|view| view.members),
        None => Ok(Vec::new()),
    }) {
        Ok(members) => members,
        Err(error) => {
            unseen.push(format!("could not see who stands in line: {error}"));
            Vec::new()
        }
    };
    let log_bytes = fs::metadata(beside(database, "-wal"))
        .ok()
        .map(|file| file.len());
    let log = match Log::read(database) {
        Ok(log) => log,
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => {
            unseen.push(format!("could not see how far the log is: {error}"));
            None
        }
    };
    Ok(Raw {
        at: Instant::now(),
        holds: seen.holders.iter().map(hold).collect(),
        members: members.iter().map(member).collect(),
        log,
        log_bytes,
        database_bytes: file.len(),
        changed: file.modified().ok(),
        unseen,
    })
}

fn hold(holder: &holders::Holder) -> Hold {
    let process = holder.process.as_ref();
    let held = &holder.held;
    Hold {
        pid: process.map(|process| process.pid),
        started: process.map_or(0, |process| process.started),
        command: process.map_or_else(String::new, |process| process.command.clone()),
        activity: process.map_or_else(String::new, |process| process.activity.to_string()),
        stopped: process.is_some_and(|process| process.activity.is_stopped()),
        locks: held.to_string(),
        in_wal: held.in_wal,
        writes: held.writes(),
        checkpoints: held.checkpoints(),
        reads: held.reads(),
        shares: held.state >= State::Shared,
        marks: held.marks().collect(),
    }
}

fn member(member: &onepen_lock::gate::Member) -> Member {
    let process = Process::look(member.pid)
        .ok()
        // Another container's number, or one in use again, is somebody else.
        .filter(|process| process.started == member.started);
    let (command, activity, stopped) = match &process {
        Some(process) => (
            process.command.clone(),
            process.activity.to_string(),
            process.activity.is_stopped(),
        ),
        None if member.alive => (String::new(), "cannot be seen".to_owned(), false),
        None => (String::new(), "gone".to_owned(), false),
    };
    Member {
        slot: member.slot,
        pid: member.pid,
        started: member.started,
        command,
        activity,
        stopped,
        label: member.label.clone(),
        stand: member.stand.clone(),
        counters: member.counters,
    }
}
