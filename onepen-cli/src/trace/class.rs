//! Why somebody waited, by name.
//!
//! Guarantees: pure (a record in, a class out). The names are stable: scripts may
//! look for them. What is not certain is in [`is_inferred`].

use onepen_trace::{Kind, Outcome, Record, Timeout, What};
use serde::Serialize;

/// A cause: its name, what it is, and what to do about it.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Class {
    pub name: &'static str,
    #[serde(skip)]
    pub what: &'static str,
    pub fix: &'static str,
}

macro_rules! classes {
    ($($id:ident = $name:literal, $what:literal, $fix:literal;)*) => {
        $(pub const $id: Class = Class { name: $name, what: $what, fix: $fix };)*
        /// All of them, what harms the data first.
        pub const CLASSES: &[Class] = &[$($id),*];
    };
}

classes! {
    LIBRARIES = "two-libraries",
        "two copies of SQLite lock one file from one process, and do not see each other's locks: both may write at once",
        "let one copy open the file in a process: link the other package with the same SQLite, or give it a process of its own";
    DROPPED = "locks-dropped",
        "a descriptor of the database's file was closed beside SQLite while a transaction wrote: its locks are gone, and others may write at once",
        "do not open files of a database by yourself in a process that has it open; copy it with `VACUUM INTO` or the backup interface";
    UPGRADE = "deferred-upgrade",
        "a transaction that had read asked to write: refused at once, because waiting cannot make its snapshot new",
        "begin what is going to write with BEGIN IMMEDIATE (Python: `isolation_level=\"IMMEDIATE\"`; Django: `\"transaction_mode\": \"IMMEDIATE\"`; better-sqlite3: `.immediate()`; rusqlite: `TransactionBehavior::Immediate`), and end cursors before writing";
    JOURNAL_UPGRADE = "journal-upgrade",
        "over a rollback journal a transaction that had read asked to write while another wrote: refused at once, because the two would wait for each other",
        "begin what is going to write with BEGIN IMMEDIATE, and `PRAGMA journal_mode=WAL` once";
    NO_TIMEOUT = "no-timeout",
        "refused, and asked no second time",
        "set a busy timeout on each connection, before anything else: `PRAGMA busy_timeout=5000`";
    OPENING = "opening",
        "somebody opened, closed or switched the journal of the database, which needs it alone for a moment",
        "set the journal mode once, when the database is made, and not on each connection; set the busy timeout first; keep one connection open";
    RECOVERY = "recovery",
        "somebody rebuilt the shared memory of the log, after a crash or at the first opening",
        "set a busy timeout before the first statement; keep one connection open, so that it is rarely needed";
    CHECKPOINT = "checkpoint",
        "who had the write lock was at a checkpoint, which waited for readers meanwhile, or two checkpoints met",
        "checkpoint with PASSIVE; TRUNCATE, RESTART and FULL only when nobody reads, and from one place";
    BEHIND_READERS = "checkpoint-behind-readers",
        "a checkpoint waited for readers, and with the write lock in hand it kept writers out",
        "end read transactions soon; checkpoint with PASSIVE";
    CACHE = "shared-cache",
        "SQLITE_LOCKED_SHAREDCACHE: connections that share a cache lock tables, and no timeout waits for those",
        "open without cache=shared";
    SAME_CONNECTION = "same-connection",
        "SQLITE_LOCKED: another statement of the same connection was in the way, and no timeout waits for that",
        "end the other statement first (close the cursor, finish the loop)";
    HOLDER = "long-holder",
        "one transaction had the write lock for most of the wait",
        "make that transaction shorter: compute, ask and fetch before BEGIN, write in batches";
    JOURNAL = "rollback-journal",
        "over a rollback journal a COMMIT waits until nobody reads, and nobody may begin to read meanwhile",
        "`PRAGMA journal_mode=WAL` once, while nobody else has it open";
    CROWD = "crowd",
        "several had the write lock one after the other; SQLite's waiting has no order, so one of the waiting may be passed over again and again",
        "let one write at a time, in order: a queue in the process, onepen between processes; or fewer, larger transactions";
}

/// A wait from here on has a holder who is to blame, if it is one.
const LONG: u64 = 50_000_000;

/// What else is known of the moment.
#[derive(Clone, Copy, Debug, Default)]
pub struct Around {
    /// How long a transaction of the holder's, seen from within it, had the lock
    /// during the wait.
    pub held_for: Option<u64>,
    /// Whether what the holder does is seen at all.
    pub holder_is_traced: bool,
}

/// The class of a record; nothing where it is about something else.
pub fn of(record: &Record, around: Around) -> Option<&'static Class> {
    let class = match record.kind {
        Kind::TwoLibraries => &LIBRARIES,
        Kind::DroppedLocks => &DROPPED,
        Kind::Waited => of_wait(record, around),
        _ => return None,
    };
    Some(class)
}

fn of_wait(record: &Record, around: Around) -> &'static Class {
    const SHARED_CACHE: i32 = 262;
    const BUSY_RECOVERY: i32 = 261;
    match record.code {
        Some(SHARED_CACHE) => return &CACHE,
        Some(code) if code & 0xff == 6 => return &SAME_CONNECTION,
        Some(BUSY_RECOVERY) => return &RECOVERY,
        _ => {}
    }
    match record.what {
        What::Recovery => return &RECOVERY,
        What::Opening => return &OPENING,
        What::Checkpointer | What::Read => return &CHECKPOINT,
        What::Mark => return &BEHIND_READERS,
        _ if record.is_snapshot() => return &UPGRADE,
        _ => {}
    }
    let is_database = !matches!(record.what, What::Writer);
    if is_database && (record.has_log() || switches(record)) {
        return &OPENING;
    }
    let writes = matches!(record.what, What::Writer | What::Reserved);
    let at_once = record.outcome != Outcome::Got && record.sleeps == 0 && !record.is_own_retry();
    if at_once && writes && had_read(record) {
        return if is_database {
            &JOURNAL_UPGRADE
        } else {
            &UPGRADE
        };
    }
    if record.is_beside_checkpoint() {
        return &CHECKPOINT;
    }
    if at_once {
        return &NO_TIMEOUT;
    }
    if is_database && record.what != What::Reserved {
        return &JOURNAL;
    }
    if has_one_holder(record, around) {
        &HOLDER
    } else {
        &CROWD
    }
}

/// Whether the statement needs the database alone.
fn switches(record: &Record) -> bool {
    let text = record
        .text
        .as_deref()
        .unwrap_or_default()
        .to_ascii_lowercase();
    text.contains("pragma")
        && ["journal_mode", "auto_vacuum", "locking_mode"]
            .iter()
            .any(|it| text.contains(it))
}

/// Whether its connection was in a read transaction before.
fn had_read(record: &Record) -> bool {
    if record.is_transaction_known() {
        record.is_in_read()
    } else if record.is_by_api() {
        // A SQLite before 3.34 does not say. It does not ask its timeout in a
        // transaction that has read, and else it does.
        record.had_read() && !matches!(record.timeout, Timeout::Milliseconds(0))
    } else {
        record.is_stack_known() && !record.is_one_activation()
    }
}

fn has_one_holder(record: &Record, around: Around) -> bool {
    let lasted = record.lasted();
    if lasted < LONG {
        return false;
    }
    if let Some(held) = record.held_for.max(around.held_for) {
        return held.saturating_mul(2) >= lasted;
    }
    let all: u64 = record
        .holders
        .iter()
        .map(|(_, times)| u64::from(*times))
        .sum();
    let most = record
        .holders
        .iter()
        .map(|(_, times)| u64::from(*times))
        .max();
    // Of a stranger it is not known whether it was one transaction or many.
    !around.holder_is_traced
        && most.unwrap_or(0) * 5 >= (all + u64::from(record.other_holders)) * 4
        && all > 0
}

/// Whether the class follows from what was seen, or is the likeliest.
pub fn is_inferred(record: &Record, class: &Class, around: Around) -> bool {
    if record.is_inferred() {
        return true;
    }
    match class.name {
        "deferred-upgrade" | "journal-upgrade" => !record.is_transaction_known(),
        "no-timeout" => !record.is_by_api(),
        "opening" => !switches(record) && record.what != What::Opening,
        "long-holder" => record.held_for.max(around.held_for).is_none(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_words_and_each_has_a_place_in_the_guide() {
        let guide = include_str!("../../../docs/guide/trace.md");
        for class in CLASSES {
            assert!(
                class
                    .name
                    .chars()
                    .all(|c| c.is_ascii_lowercase() || c == '-')
            );
            assert!(
                guide.contains(&format!("\n### {}\n", class.name)),
                "{}",
                class.name
            );
        }
    }
}
