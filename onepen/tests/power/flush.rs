//! A flush fails, the program goes on, and then the power goes.
//!
//! After a failed flush Linux takes what it was about for written: it may be lost
//! though a later flush succeeds (<https://lwn.net/Articles/752063/>). `disk` does
//! the same.

use std::time::Duration;

use crate::campaign::{Campaign, Check, scratch};
use crate::common::{self, Hold, wait_for_queue};
use crate::ledger::{self, Kind, Member, NAME, VOLATILE, violation};
use crate::random::Random;
use crate::recorder::{Log, Recording};
use crate::told::Word;
use crate::wal::{LEDGER, options, tell, write};

/// The step after which the fate of a member of unknown outcome is decided.
const DECIDED: i64 = 1;

pub const AT_COMMIT_CHECK: Check = Check {
    name: "failed commit",
    judge: |found, told| {
        ledger::judge(found.database.as_ref(), told)?;
        let members = found.database.as_ref().map(|ledger| &ledger.members);
        match members.and_then(|members| told.unknown.intersection(members).next()) {
            Some(op) if told.is_done(DECIDED) => violation(
                Kind::Refused,
                format!("member {op}, whose flush failed, after another was committed"),
            ),
            _ => Ok(()),
        }
    },
    ..LEDGER
};

const AT_COMMIT: Campaign = Campaign {
    name: "failed commit",
    percent: 3,
    check: AT_COMMIT_CHECK,
    volatile: &VOLATILE,
    per_recording: 200,
    options,
};

/// A group whose COMMIT fails to be flushed, and a write after it. Nobody knows of
/// the group's members until the write is there; then they are not.
fn record_failed_commit(seed: u64) -> Log {
    let home = scratch();
    ledger::set_up(home.path(), "PRAGMA journal_mode = WAL");
    let recording = Recording::with_volatile(home.path());
    // Without checkpoints, which flush the log too.
    let db = common::options().open(home.path().join(NAME)).unwrap();
    recording.say(Word::Done(0));
    let mut random = Random::of(&[seed]);
    for op in 1..=4 {
        write(&db, &recording, Member::alone(op));
    }
    let hold = Hold::of(&db);
    let size = 1 + random.below(4);
    let members: Vec<_> = (0..size as i64)
        .map(|place| {
            let (op, team, size) = (10 + place, 10, size as i64);
            let member = Member { op, team, size };
            let answer = db.submit(move |tx| Ok(member.run(tx.connection()).map(drop)?));
            (member, answer.unwrap())
        })
        .collect();
    wait_for_queue(&db, size);
    recording.fail_sync("-wal", 0, 1);
    hold.release();
    for (member, answer) in members {
        let error = answer.wait().unwrap_err();
        assert_eq!(error.outcome(), onepen::Outcome::Unknown, "{error}");
        tell(&recording, member, Err(error));
    }
    assert_eq!(recording.failed(), 1);
    write(&db, &recording, Member::alone(20));
    recording.say(Word::Done(DECIDED));
    write(&db, &recording, Member::alone(21));
    db.close();
    recording.finish()
}

#[test]
fn power_after_fsync_error() {
    AT_COMMIT.run(record_failed_commit).assert_clean();
}

/// Both ends of "unknown" are seen, or it would not have been worth the word.
#[test]
fn power_after_fsync_error_may_bring_the_group_back_or_not() {
    let log = record_failed_commit(1);
    let with_it = Campaign {
        name: "brought back",
        check: Check {
            judge: |found, told| {
                let found = found.database.as_ref().map(|ledger| &ledger.members);
                let back = found.is_some_and(|members| members.contains(&10));
                match (told.unknown.contains(&10), back) {
                    // Two kinds, to count both.
                    (true, true) => violation(Kind::Refused, "is there"),
                    (true, false) if !told.is_done(DECIDED) => violation(Kind::Lost, "is not"),
                    _ => Ok(()),
                }
            },
            ..LEDGER
        },
        ..AT_COMMIT
    };
    let findings = with_it.examine(&log, 1000, 1);
    assert!(findings.count(Kind::Refused) > 0, "it never came back");
    assert!(findings.count(Kind::Lost) > 0, "it always came back");
}

const OF_DATABASE: Campaign = Campaign {
    name: "failed checkpoint",
    percent: 4,
    check: LEDGER,
    volatile: &VOLATILE,
    per_recording: 200,
    options,
};

/// What was copied back from the log fails to be flushed; then everything works
/// again, and much is written.
fn record_failed_checkpoint(seed: u64) -> Log {
    let home = scratch();
    ledger::set_up(home.path(), "PRAGMA journal_mode = WAL");
    let recording = Recording::with_volatile(home.path());
    // Long enough that pages are copied which nobody writes again.
    let options = options().wal_limit(200, Duration::from_millis(5));
    let db = options.open(home.path().join(NAME)).unwrap();
    recording.say(Word::Done(0));
    let mut random = Random::of(&[seed]);
    let mut op = 0;
    let mut write_some = |most: i64, enough: &dyn Fn() -> bool| {
        let end = op + most;
        while op < end && !enough() {
            op += 1;
            write(&db, &recording, Member::alone(op));
        }
    };
    // Half of the time a reader makes SQLite copy a part of the log; a part is not
    // flushed by SQLite but by the checkpoint thread.
    write_some(12 + random.below(8) as i64, &|| false);
    let pinned = random.percent(50).then(|| db.snapshot().unwrap());
    recording.fail_sync(NAME, random.below(2), 1);
    write_some(400, &|| recording.failed() > 0);
    drop(pinned);
    assert_eq!(recording.failed(), 1, "nothing was ever copied back");
    let resets = db.stats().wal_resets;
    write_some(80, &|| db.stats().wal_resets > resets);
    write_some(3, &|| false);
    db.close();
    recording.finish()
}

#[test]
fn power_after_a_checkpoint_that_could_not_be_flushed() {
    OF_DATABASE.run(record_failed_checkpoint).assert_clean();
}
