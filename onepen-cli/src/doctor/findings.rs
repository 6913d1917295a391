//! What is wrong, by name.
//!
//! Guarantees: pure (what was seen in, findings out). A finding is a fact with
//! its evidence; what is inferred says so. The names are stable: scripts may
//! look for them.

use std::time::Duration;

use onepen_lock::holders::{Process, State};
use serde::Serialize;

use super::programs::{Programs, User};
use super::sample::{Samples, Steady};
use crate::files::{Facts, Files};
use crate::words::thousands;

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub name: &'static str,
    /// The processes it is about.
    pub pids: Vec<u32>,
    pub evidence: String,
    pub fix: &'static str,
    pub guide: String,
}

/// A kind of finding: its name and what to do about it.
pub struct Kind {
    pub name: &'static str,
    fix: &'static str,
}

macro_rules! kinds {
    ($($id:ident = $name:literal, $fix:literal;)*) => {
        $(const $id: Kind = Kind { name: $name, fix: $fix };)*
        /// All of them, the most urgent first.
        pub const KINDS: &[Kind] = &[$($id),*];
    };
}

kinds! {
    STOPPED = "stopped-holder",
        "let it go on (`kill -CONT`), or end it; nothing else frees the lock";
    IDLE = "idle-in-transaction",
        "COMMIT before waiting for anything: input, the network, another lock";
    LEAKED = "leaked-transaction",
        "find the path that ends neither in COMMIT nor ROLLBACK, or the cursor that is never closed; restart the process to be rid of this one";
    LONG = "long-transaction",
        "write in smaller transactions, or compute before BEGIN";
    PINNED = "reader-pins-wal",
        "end the read transaction, or give it a limit; until then no checkpoint can reset the log";
    STARVED = "checkpoint-starved",
        "leave automatic checkpoints on, or run `PRAGMA wal_checkpoint(TRUNCATE)` when nobody reads; give readers gaps";
    LARGE = "wal-too-large",
        "run `PRAGMA wal_checkpoint(TRUNCATE)` at a moment when nobody reads; reads slow down with the log's length";
    DELETED = "deleted-in-use",
        "restart the process: what it writes now nobody else sees, and is lost when it ends; never delete -wal or -shm while a database is open";
    LIBRARIES = "two-sqlite-libraries",
        "let one copy of SQLite open the file in a process, and no connection cross a fork: either copy's close drops the other's locks";
    LOST = "locks-lost",
        "restart the process: what it does to the database is not protected any more, and may corrupt it";
    BUG = "wal-reset-bug",
        "use SQLite 3.51.3 or newer (or your distribution's patch of it) in these processes";
    CACHE = "shared-cache",
        "open without cache=shared: its table locks answer SQLITE_LOCKED, which no timeout waits for";
    SYSTEM = "file-system",
        "move the database to a local disk";
    LINKS = "hard-links",
        "keep one name (`find -samefile` shows the others): SQLite names the log after the path, and two logs corrupt";
    PERMISSIONS = "permissions",
        "give the files of the database one owner and one mode, and let who writes also write to the directory";
    JOURNAL = "leftover-journal",
        "open the database once as somebody who may write to it and its directory: that rolls the unfinished transaction back; do not delete the journal";
    ROLLBACK = "journal-mode",
        "`PRAGMA journal_mode=WAL` once, while nobody else has it open: then readers and writers do not wait for each other";
}

impl Kind {
    fn found(&self, pids: impl IntoIterator<Item = u32>, evidence: String) -> Finding {
        Finding {
            name: self.name,
            pids: pids.into_iter().collect(),
            evidence,
            fix: self.fix,
            guide: format!("docs/guide/who-holds-the-lock.md#{}", self.name),
        }
    }
}

/// The log is larger than it should be from here on: ten times what SQLite's
/// automatic checkpoint aims at, and more than twice what onepen's does.
const LARGE_LOG: u32 = 10_000;
/// So many frames wait to be copied when checkpoints are starved.
const BEHIND: u32 = 5_000;
/// A process that used less of one processor slept.
const ASLEEP: f64 = 0.02;

/// Everything that is wrong, the most urgent first.
pub fn all(files: &Files, samples: &Samples, programs: &Programs) -> Vec<Finding> {
    let mut found = Vec::new();
    for steady in samples.steady() {
        found.extend(of_holder(&steady, samples));
    }
    found.extend(of_log(files, samples));
    for user in &programs.users {
        found.extend(of_user(user, files));
        found.extend(lost(user, samples));
    }
    found.extend(bug(files, programs));
    found.extend(of_files(files, samples));
    let urgency = |finding: &Finding| KINDS.iter().position(|kind| kind.name == finding.name);
    found.sort_by_key(urgency);
    found
}

fn who(process: &Process) -> String {
    match process.command.as_str() {
        "" => format!("process {}", process.pid),
        command => format!("{command} (pid {})", process.pid),
    }
}

fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}

/// What is wrong with a transaction that was there at every look.
fn of_holder(steady: &Steady, samples: &Samples) -> Option<Finding> {
    let looks = samples.all.len();
    let process = &steady.process;
    let lasted = samples.lasted();
    let share = steady.worked.as_secs_f64() / lasted.as_secs_f64().max(0.001);
    let asleep = share < ASLEEP;
    let held = &steady.held;
    let purpose = samples.last().purpose(process);
    let purpose = purpose.map_or_else(String::new, |said| format!(" ({said})"));
    let throughout = format!(
        "{}{purpose} had {held} at all {looks} looks in {}",
        who(process),
        seconds(lasted)
    );
    let pid = [process.pid];
    if process.activity.is_stopped() {
        let effect = match held.writes() {
            true => "nobody else can write",
            false if held.in_wal => "the log cannot be reset",
            false => "nobody can commit",
        };
        let evidence = format!("{throughout} and is {}: {effect}", process.activity);
        return Some(STOPPED.found(pid, evidence));
    }
    let worked = format!("used {} ms of processor time", steady.worked.as_millis());
    if held.writes() {
        if steady.committed {
            return None; // one transaction after the other
        }
        if steady.wrote || steady.ran {
            let evidence = format!("{throughout} and {worked}: nobody else can write meanwhile");
            return Some(LONG.found(pid, evidence));
        }
        return Some(if asleep {
            IDLE.found(
                pid,
                format!("{throughout}, wrote nothing and slept ({worked}): nobody else can write"),
            )
        } else {
            LEAKED.found(
                pid,
                format!(
                    "{throughout} and wrote nothing, while it did other things ({worked}): nobody \
                     else can write"
                ),
            )
        });
    }
    if held.in_wal {
        let log = samples.last().log?;
        let first = samples.first().log?;
        let end = |log: &crate::files::Log| held.marks().map(|mark| log.ends(mark)).min();
        let (end, before) = (end(&log)?, end(&first)?);
        if end < log.frames && before < first.frames {
            let doing = if asleep { "slept" } else { "worked" };
            return Some(PINNED.found(
                pid,
                format!(
                    "{throughout} and {doing} ({worked}); it reads at frame {} of {}, so {} frames \
                     cannot be copied back",
                    thousands(end.into()),
                    thousands(log.frames.into()),
                    thousands((log.frames - end).into())
                ),
            ));
        }
    }
    let effect = match held.in_wal {
        true => "the log cannot be reset",
        false => "nobody can commit",
    };
    asleep.then(|| {
        LEAKED.found(
            pid,
            format!("{throughout} and slept ({worked}), its read transaction left open: {effect}"),
        )
    })
}

fn of_log(files: &Files, samples: &Samples) -> Vec<Finding> {
    let mut found = Vec::new();
    let mebibytes = |frames: u32, page: u32| f64::from(frames) * f64::from(page) / 1_048_576.0;
    let (first, last) = (samples.first(), samples.last());
    let left_behind = last.look.holders.is_empty();
    if let Some(log) = last.log
        && !left_behind
    {
        if log.frames >= LARGE_LOG {
            found.push(LARGE.found(
                [],
                format!(
                    "{} frames ({:.0} MiB) in the log that was not reset, {} of them copied back; \
                     SQLite's automatic checkpoint aims at 1,000, onepen's at 4,096",
                    thousands(log.frames.into()),
                    mebibytes(log.frames, log.page_size),
                    thousands(log.copied.into())
                ),
            ));
        }
        if let Some(before) = first.log
            && before.salt == log.salt
            && log.frames > before.frames
            && log.copied <= before.copied
            && log.frames - log.copied >= BEHIND
        {
            found.push(STARVED.found(
                [],
                format!(
                    "the log grew from {} to {} frames in {} and not one was copied back: {} wait",
                    thousands(before.frames.into()),
                    thousands(log.frames.into()),
                    seconds(samples.lasted()),
                    thousands((log.frames - log.copied).into())
                ),
            ));
        }
    } else if let Some(wal) = files.wal
        && files.header.page_size > 0
        && wal.len / u64::from(files.header.page_size + 24) >= u64::from(LARGE_LOG)
        && left_behind
    {
        found.push(LARGE.found(
            [],
            format!(
                "a log of {} MiB was left behind and nobody has the database open; who opens it \
                 next has to read all of it",
                thousands(wal.len / 1_048_576)
            ),
        ));
    }
    found
}

fn of_user(user: &User, files: &Files) -> Vec<Finding> {
    let mut found = Vec::new();
    let pid = [user.process.pid];
    let name = who(&user.process);
    if !user.deleted.is_empty() {
        found.push(DELETED.found(
            pid,
            format!(
                "{name} has {} open, which was deleted",
                user.deleted.join(" and ")
            ),
        ));
    }
    let libraries = user.libraries.as_deref().unwrap_or_default();
    // One library opens the -shm file once for all of its connections
    // (`unixOpenSharedMemory`), so two descriptors are two of them. Of the
    // database itself there is one for each connection.
    if user.of_shared_memory > 1 || libraries.len() > 1 && !files.header.wal && user.descriptors > 1
    {
        let copies: Vec<String> = libraries
            .iter()
            .map(super::programs::Library::name)
            .collect();
        let which = match copies.len() {
            0 | 1 => "two copies in one file, or descriptors inherited from a parent that had the \
                 database open"
                .to_owned(),
            _ => copies.join(" and "),
        };
        let file = if user.of_shared_memory > 1 {
            "its -shm file"
        } else {
            "the database"
        };
        let count = user.of_shared_memory.max(user.descriptors.min(2));
        found.push(LIBRARIES.found(
            pid,
            format!("{name} has {file} open {count} times (inferred: {which})"),
        ));
    }
    if user.shared_cache {
        found.push(CACHE.found(
            pid,
            format!("`cache=shared` stands in the arguments or the environment of {name}"),
        ));
    }
    found
}

/// Whoever uses a log shares a byte of the `-shm` file for as long as it has that
/// open ([`WAL_OPEN_BYTE`](onepen_lock::holders::WAL_OPEN_BYTE)).
fn lost(user: &User, samples: &Samples) -> Option<Finding> {
    let pid = user.process.pid;
    let has_locks = samples
        .all
        .iter()
        .flat_map(|sample| &sample.look.holders)
        // Locks of nobody who could be seen may be its.
        .any(|holder| holder.process.as_ref().is_none_or(|it| it.pid == pid));
    (user.of_shared_memory > 0 && !has_locks).then(|| {
        LOST.found(
            [pid],
            format!(
                "{} has the -shm file open and no lock on it: inherited through fork, or dropped \
                 when another descriptor of the file was closed in the process",
                who(&user.process)
            ),
        )
    })
}

/// The processes with the bug are one finding together: there may be many.
fn bug(files: &Files, programs: &Programs) -> Option<Finding> {
    if !files.header.wal {
        return None;
    }
    let mut pids = Vec::new();
    let mut evidence = Vec::new();
    for user in &programs.users {
        // With several it is not known which of them has the file open.
        let mut libraries = user.libraries.iter().flatten();
        if let Some(library) = libraries.find(|library| library.has_wal_reset_bug()) {
            pids.push(user.process.pid);
            evidence.push(format!("{} uses {}", who(&user.process), library.name()));
        }
    }
    const SHOWN: usize = 3;
    let more = evidence.len().saturating_sub(SHOWN);
    evidence.truncate(SHOWN);
    let mut evidence = evidence.join("; ");
    if more > 0 {
        evidence.push_str(&format!("; and {more} more"));
    }
    (!pids.is_empty()).then(|| {
        BUG.found(
            pids,
            format!(
                "{evidence}: when two connections write and checkpoint at the same moment it can \
                 corrupt the database"
            ),
        )
    })
}

fn of_files(files: &Files, samples: &Samples) -> Vec<Finding> {
    let mut found = Vec::new();
    if let Some(system) = &files.unfit {
        found.push(SYSTEM.found(
            [],
            format!("it lies on {system}, where locks or shared memory do not work between all who may open it"),
        ));
    } else if files.overlay {
        found.push(SYSTEM.found(
            [],
            "it lies on an overlay (a container's own layer): it is gone with the container, and \
             who opens it from outside sees other locks"
                .to_owned(),
        ));
    }
    if files.database.names > 1 {
        found.push(LINKS.found([], format!("the file has {} names", files.database.names)));
    }
    let odd = permissions(files);
    if !odd.is_empty() {
        found.push(PERMISSIONS.found([], odd.join("; ")));
    }
    let writing = samples
        .all
        .iter()
        .flat_map(|sample| &sample.look.holders)
        .any(|holder| holder.held.state >= State::Reserved);
    if files.journal_is_hot && !writing && samples.last().journal_bytes > 0 {
        found.push(JOURNAL.found(
            [],
            format!(
                "a journal of {} bytes with an unfinished transaction, and nobody who writes",
                thousands(samples.last().journal_bytes)
            ),
        ));
    }
    if !files.header.wal && files.header.page_size > 0 {
        found.push(ROLLBACK.found(
            [],
            "it keeps a rollback journal: who reads makes who commits wait, and the other way round"
                .to_owned(),
        ));
    }
    found
}

fn permissions(files: &Files) -> Vec<String> {
    let database = files.database;
    let mut odd = Vec::new();
    let beside: [(&str, Option<Facts>); 3] = [
        ("-wal", files.wal),
        ("-shm", files.shared_memory),
        ("-journal", files.journal),
    ];
    for (ending, facts) in beside {
        let Some(facts) = facts else { continue };
        if (facts.owner, facts.group) != (database.owner, database.group) {
            odd.push(format!(
                "{ending} belongs to {}:{}, the database to {}:{}",
                facts.owner, facts.group, database.owner, database.group
            ));
        }
        if facts.mode != database.mode {
            odd.push(format!(
                "{ending} has mode {:03o}, the database {:03o}",
                facts.mode, database.mode
            ));
        }
    }
    // Who may write to the database must be able to make a log or a journal.
    let directory = files.directory;
    let writes = |facts: Facts, bit: u32| facts.mode & bit != 0;
    let owner_can = match directory.owner == database.owner {
        true => writes(directory, 0o200),
        false if directory.group == database.group => writes(directory, 0o020),
        false => writes(directory, 0o002),
    };
    if writes(database, 0o200) && !owner_can && database.owner != 0 {
        odd.push(format!(
            "user {} may write to the database and not to its directory, where the log or the \
             journal has to be made",
            database.owner
        ));
    }
    if writes(database, 0o002) {
        odd.push("everybody may write to the database".to_owned());
    }
    odd
}
