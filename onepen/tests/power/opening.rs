//! The power goes while a database is made, or switched to a write-ahead log, or
//! given its schema.

use onepen::{Migrations, Options};

use crate::campaign::{Campaign, Check, scratch};
use crate::ledger::{self, Kind, Member, NAME, VOLATILE, violation};
use crate::recorder::{Log, Recording};
use crate::told::Word;
use crate::wal::{LEDGER, options, write};

const CREATION: Campaign = Campaign {
    name: "first open",
    percent: 5,
    check: LEDGER,
    volatile: &VOLATILE,
    per_recording: 20_000,
    options,
};

/// From nothing: the file, the log, the schema, some writes, the end.
fn record_creation(_seed: u64) -> Log {
    let home = scratch();
    let recording = Recording::with_volatile(home.path());
    let db = options().open(home.path().join(NAME)).unwrap();
    db.write(|tx| tx.execute_batch(ledger::SCHEMA)).unwrap();
    recording.say(Word::Done(0));
    for op in 1..=10 {
        write(&db, &recording, Member::alone(op));
    }
    db.close();
    recording.finish()
}

/// A file that was kept with a rollback journal until now.
fn record_conversion(_seed: u64) -> Log {
    let home = scratch();
    ledger::set_up(home.path(), "PRAGMA journal_mode = DELETE");
    let recording = Recording::with_volatile(home.path());
    recording.say(Word::Done(0));
    let db = options().open(home.path().join(NAME)).unwrap();
    for op in 1..=10 {
        write(&db, &recording, Member::alone(op));
    }
    db.close();
    recording.finish()
}

#[test]
fn power_first_open_and_wal_conversion() {
    CREATION.run(record_creation).assert_clean();
    let conversion = Campaign {
        name: "wal conversion",
        percent: 3,
        ..CREATION
    };
    conversion.run(record_conversion).assert_clean();
}

/// Three steps: the version and what they made go together.
pub const MIGRATION_CHECK: Check = Check {
    name: "migration",
    judge: |found, told| {
        ledger::judge(found.database.as_ref(), told)?;
        let ledger = found.database.clone().unwrap_or_default();
        match (ledger.version, ledger.more) {
            (0, 0) if told.is_done(1) => violation(Kind::Lost, "a schema that the program saw"),
            (0, 0) | (3, 2) => Ok(()),
            (version, more) => {
                let what = format!("version {version} with {more} of what it has");
                violation(Kind::Torn, what)
            }
        }
    },
    ..LEDGER
};

const MIGRATION: Campaign = Campaign {
    name: "migration",
    percent: 4,
    check: MIGRATION_CHECK,
    ..CREATION
};

fn record_migration(_seed: u64) -> Log {
    let migrations = Migrations::new()
        .step(
            "a table",
            "CREATE TABLE more(n); INSERT INTO more VALUES (7)",
        )
        .step("a column", "ALTER TABLE account ADD COLUMN more INTEGER")
        .step_with("another order", |tx| {
            tx.execute_batch(
                "CREATE TABLE new(op INTEGER NOT NULL, part INTEGER NOT NULL, filler TEXT NOT NULL);
                 INSERT INTO new SELECT * FROM half ORDER BY op DESC;
                 DROP TABLE half;
                 ALTER TABLE new RENAME TO half;
                 CREATE INDEX half_op ON half(op);",
            )
        });
    let home = scratch();
    ledger::set_up(home.path(), "PRAGMA journal_mode = WAL");
    let path = home.path().join(NAME);
    let recording = Recording::with_volatile(home.path());
    recording.say(Word::Done(0));
    let db = options().open(&path).unwrap();
    for op in 1..=10 {
        write(&db, &recording, Member::alone(op));
    }
    db.close();
    drop(db);
    let db = Options::migrations(options(), migrations)
        .open(&path)
        .unwrap();
    recording.say(Word::Done(1));
    for op in 11..=15 {
        write(&db, &recording, Member::alone(op));
    }
    db.close();
    recording.finish()
}

#[test]
fn power_during_migration() {
    MIGRATION.run(record_migration).assert_clean();
}
