//! The power goes while a copy is made, or while it takes another's place, or
//! while the database itself is written anew.

use onepen::backup::restore;

use crate::campaign::{Campaign, Check, Found, scratch};
use crate::ledger::{self, Kind, Ledger, Member, NAME, VOLATILE, Verdict, violation};
use crate::recorder::{Log, Recording};
use crate::told::{Told, Word};
use crate::wal::{LEDGER, options, write};

pub const COPY: &str = "copy.db";

/// The copy that was made first has so many writes; the second, so many more.
pub const FIRST: i64 = 8;
const SECOND: i64 = 16;

/// There is no copy, or one of those that were made, whole; and none that was
/// finished is gone.
fn judge_copy(copy: Option<&Ledger>, told: &Told) -> Verdict {
    match copy.map(|copy| copy.clock) {
        None if told.is_done(1) => violation(Kind::Lost, "the copy"),
        Some(FIRST) if told.is_done(2) => violation(Kind::Lost, "the second copy"),
        None | Some(FIRST | SECOND) => Ok(()),
        Some(other) => violation(Kind::Torn, format!("a copy of state {other}")),
    }
}

pub const BACKUP_CHECK: Check = Check {
    name: "backup",
    recover: |directory| {
        Ok(Found {
            database: ledger::recover(directory, NAME)?,
            copy: recover_copy(directory)?,
        })
    },
    judge: |found, told| {
        ledger::judge(found.database.as_ref(), told)?;
        judge_copy(found.copy.as_ref(), told)
    },
};

/// A copy that is there is a database: an empty file would be none.
fn recover_copy(directory: &std::path::Path) -> Result<Option<Ledger>, ledger::Violation> {
    let copy = ledger::recover(directory, COPY)?;
    if copy.is_none() && directory.join(COPY).exists() {
        violation(Kind::Torn, "the copy has nothing in it")?;
    }
    Ok(copy)
}

const BACKUP: Campaign = Campaign {
    name: "backup",
    percent: 4,
    check: BACKUP_CHECK,
    volatile: &VOLATILE,
    per_recording: 20_000,
    options,
};

fn record_backup(compact: bool) -> Log {
    let home = scratch();
    ledger::set_up(home.path(), "PRAGMA journal_mode = WAL");
    let target = home.path().join(COPY);
    let recording = Recording::start(home.path());
    recording.say(Word::Done(0));
    let db = options().open(home.path().join(NAME)).unwrap();
    let copy = |step| {
        let copy = db.backup_to(&target).share(1.0).compact(compact);
        copy.replace(step > 1).run().unwrap();
        recording.say(Word::Done(step));
    };
    for op in 1..=FIRST {
        write(&db, &recording, Member::alone(op));
    }
    copy(1);
    for op in FIRST + 1..=SECOND {
        write(&db, &recording, Member::alone(op));
    }
    copy(2);
    db.close();
    recording.finish()
}

#[test]
fn power_during_backup() {
    BACKUP.run(|_| record_backup(false)).assert_clean();
    let compact = Campaign {
        name: "backup compact",
        percent: 2,
        ..BACKUP
    };
    compact.run(|_| record_backup(true)).assert_clean();
}

pub const RESTORE_CHECK: Check = Check {
    name: "restore",
    judge: |found, told| {
        if found.copy.is_none() {
            return violation(Kind::Lost, "the copy");
        }
        match found.database.as_ref().map(|database| database.clock) {
            Some(SECOND) if !told.is_done(2) => Ok(()),
            Some(FIRST) => Ok(()),
            other => violation(Kind::Torn, format!("{other:?} where {FIRST} was put")),
        }
    },
    ..BACKUP_CHECK
};

/// The copy is put over a database that has a log with more in it: that goes, as a
/// whole, and never onto the copy.
const RESTORE: Campaign = Campaign {
    name: "restore",
    percent: 3,
    check: RESTORE_CHECK,
    volatile: &VOLATILE,
    per_recording: 20_000,
    options,
};

fn record_restore(_seed: u64) -> Log {
    let home = scratch();
    let path = home.path().join(NAME);
    ledger::set_up(home.path(), "PRAGMA journal_mode = WAL");
    let fill = |path: &std::path::Path, from: i64, to: i64| {
        let connection = rusqlite::Connection::open(path).unwrap();
        for op in from..=to {
            Member::alone(op).run(&connection).unwrap();
        }
        connection.close().unwrap();
    };
    fill(&path, 1, FIRST);
    std::fs::copy(&path, home.path().join(COPY)).unwrap();
    fill(&path, FIRST + 1, SECOND - 2);
    // Somebody who was killed has left a log with two more in it.
    let connection = rusqlite::Connection::open(&path).unwrap();
    for op in SECOND - 1..=SECOND {
        Member::alone(op).run(&connection).unwrap();
    }
    let other = scratch();
    for ending in ["", "-wal"] {
        let name = format!("{NAME}{ending}");
        let copied = std::process::Command::new("cp")
            .arg(home.path().join(&name))
            .arg(other.path().join(&name))
            .status();
        assert!(copied.unwrap().success());
    }
    drop(connection);
    std::fs::copy(home.path().join(COPY), other.path().join(COPY)).unwrap();
    let path = other.path().join(NAME);
    let recording = Recording::start(other.path());
    let copy = other.path().join(COPY);
    restore(&copy, &path)
        .replace(true)
        .share(1.0)
        .run()
        .unwrap();
    recording.say(Word::Done(2));
    recording.finish()
}

#[test]
fn power_during_restore() {
    RESTORE.run(record_restore).assert_clean();
}

/// All pages are written anew.
const VACUUM: Campaign = Campaign {
    name: "vacuum",
    percent: 3,
    check: LEDGER,
    volatile: &VOLATILE,
    per_recording: 20_000,
    options,
};

fn record_vacuum(_seed: u64) -> Log {
    let home = scratch();
    ledger::set_up(home.path(), "PRAGMA journal_mode = WAL");
    let recording = Recording::with_volatile(home.path());
    recording.say(Word::Done(0));
    let db = options().open(home.path().join(NAME)).unwrap();
    for op in 1..=10 {
        write(&db, &recording, Member::alone(op));
        if op % 4 == 0 {
            db.exclusively(|connection| Ok(connection.execute_batch("VACUUM")?))
                .unwrap();
        }
    }
    db.close();
    recording.finish()
}

#[test]
fn power_during_vacuum() {
    VACUUM.run(record_vacuum).assert_clean();
}
