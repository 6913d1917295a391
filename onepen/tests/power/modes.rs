//! Each journal mode keeps what it promises, and no more.
//!
//! Where SQLite promises less than "what was acknowledged is there", that loss has
//! to be found: an instrument that finds nothing in `synchronous=NORMAL` is blind.

use onepen::{Durability, Journal, Options};
use rusqlite::Connection;

use crate::campaign::{Campaign, Findings, scratch};
use crate::ledger::{self, Kind, Member, NAME, VOLATILE};
use crate::recorder::{Log, Recording};
use crate::told::Word;
use crate::wal::{LEDGER, options, write};

fn of(name: &'static str, options: fn() -> Options) -> Campaign {
    Campaign {
        name,
        percent: 2,
        check: LEDGER,
        volatile: &VOLATILE,
        per_recording: 20_000,
        options,
    }
}

/// Writes one after the other through onepen.
fn onepen(options: fn() -> Options) -> impl Fn(u64) -> Log {
    move |_| {
        let home = scratch();
        let path = home.path().join(NAME);
        let db = options().open(&path).unwrap();
        db.write(|tx| tx.execute_batch(ledger::SCHEMA)).unwrap();
        db.close();
        drop(db);
        let recording = Recording::with_volatile(home.path());
        let db = options().open(&path).unwrap();
        for op in 1..=30 {
            write(&db, &recording, Member::alone(op));
            if op % 7 == 0 {
                write(&db, &recording, Member::alone(ledger::FAILING + op));
            }
        }
        db.close();
        recording.finish()
    }
}

/// The same with a plain connection, set up so.
fn plain(pragmas: &'static str) -> impl Fn(u64) -> Log {
    move |_| {
        let home = scratch();
        ledger::set_up(home.path(), pragmas);
        let recording = Recording::start(home.path());
        let mut connection = Connection::open(home.path().join(NAME)).unwrap();
        connection.execute_batch(pragmas).unwrap();
        for op in 1..=30 {
            let transaction = connection.transaction().unwrap();
            Member::alone(op).run(&transaction).unwrap();
            transaction.commit().unwrap();
            recording.say(Word::Acknowledged(op));
        }
        connection.close().unwrap();
        recording.finish()
    }
}

/// Acknowledged writes are lost, and nothing worse.
fn assert_loses(findings: &Findings) {
    assert!(findings.count(Kind::Lost) > 0, "no loss was seen");
    assert_eq!(findings.violations.len(), 1, "{:#?}", findings.first);
}

#[test]
fn power_wal_full_loses_nothing() {
    of("mode wal full", options)
        .run(onepen(options))
        .assert_clean();
}

fn normal() -> Options {
    options().durability(Durability::Normal)
}

#[test]
fn power_wal_normal_loses_what_it_acknowledged_last() {
    assert_loses(&of("mode wal normal", normal).run(onepen(normal)));
}

pub fn truncate() -> Options {
    options().journal(Journal::Rollback)
}

#[test]
fn power_truncated_journal_full_loses_nothing() {
    of("mode truncate full", truncate)
        .run(onepen(truncate))
        .assert_clean();
}

/// A recording over a rollback journal.
pub fn record_truncate(seed: u64) -> Log {
    onepen(truncate)(seed)
}

/// What is documented at `Durability::Normal`: over a rollback journal it is `Full`.
#[test]
fn power_truncated_journal_normal_loses_nothing() {
    fn options() -> Options {
        truncate().durability(Durability::Normal)
    }
    of("mode truncate normal", options)
        .run(onepen(options))
        .assert_clean();
}

#[test]
fn power_deleted_journal_extra_loses_nothing() {
    fn options() -> Options {
        truncate().durability(Durability::Extra)
    }
    of("mode delete extra", options)
        .run(onepen(options))
        .assert_clean();
}

/// The directory is not flushed after the journal was removed, so that it comes
/// back and is rolled back (<https://www.sqlite.org/pragma.html#pragma_synchronous>):
/// why onepen never uses this mode.
#[test]
fn power_deleted_journal_full_loses_what_it_acknowledged_last() {
    let record = plain("PRAGMA journal_mode = DELETE; PRAGMA synchronous = FULL");
    assert_loses(&of("mode delete full", truncate).run(record));
}

#[test]
fn power_kept_journal_full_loses_nothing() {
    let record = plain("PRAGMA journal_mode = PERSIST; PRAGMA synchronous = FULL");
    of("mode persist full", truncate).run(record).assert_clean();
}

/// Nothing is flushed at all: damage, not only loss.
#[test]
fn power_synchronous_off_spoils_the_database() {
    let record = plain("PRAGMA journal_mode = DELETE; PRAGMA synchronous = OFF");
    let findings = of("mode delete off", truncate).run(record);
    assert!(findings.count(Kind::Lost) > 0, "no loss was seen");
    assert!(findings.violations.len() > 1, "no damage was seen");
}
