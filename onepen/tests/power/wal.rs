//! The write-ahead log with `synchronous=FULL`: the defaults.

use std::time::Duration;

use onepen::{Database, Error, Options};

use crate::campaign::{Campaign, Check, Found, scratch};
use crate::common::{self, Hold, wait_for_queue};
use crate::ledger::{self, FAILING, Member, NAME, VOLATILE};
use crate::random::Random;
use crate::recorder::{Log, Recording};
use crate::told::Word;

pub fn options() -> Options {
    common::options().wal_limit(24, Duration::from_millis(5))
}

/// One write, and what its caller was told.
pub fn write(db: &Database, recording: &Recording, member: Member) {
    let answer = db.write(|tx| {
        member.run(tx.connection())?;
        if member.op >= FAILING {
            return Err(Error::other("on purpose"));
        }
        Ok(())
    });
    tell(recording, member, answer);
}

pub fn tell(recording: &Recording, member: Member, answer: onepen::Result<()>) {
    recording.say(match answer {
        Ok(()) => Word::Acknowledged(member.op),
        Err(error) => match error.outcome() {
            onepen::Outcome::Unknown => Word::Unknown(member.op),
            _ => Word::Refused(member.op),
        },
    });
}

/// Threads that write, of which one in ten writes fails, and one that reads.
pub fn threads(db: &Database, recording: &Recording, seed: u64, writes: i64) {
    let writers: i64 = 4;
    std::thread::scope(|scope| {
        let working: Vec<_> = (0..writers)
            .map(|thread| {
                scope.spawn(move || {
                    let mut random = Random::of(&[seed, thread.cast_unsigned()]);
                    for number in 0..writes / writers {
                        let op = 1 + thread + writers * number;
                        let failing = if random.percent(10) { FAILING } else { 0 };
                        write(db, recording, Member::alone(op + failing));
                    }
                })
            })
            .collect();
        while working.iter().any(|thread| !thread.is_finished()) {
            let seen = db.query_row("SELECT n FROM clock", (), |row| row.get(0));
            recording.say(Word::Seen(seen.unwrap()));
        }
    });
}

/// One database, and all that was told about it.
pub const LEDGER: Check = Check {
    name: "ledger",
    recover: |directory| {
        let database = ledger::recover(directory, NAME)?;
        Ok(Found {
            database,
            copy: None,
        })
    },
    judge: |found, told| ledger::judge(found.database.as_ref(), told),
};

const THREADS: Campaign = Campaign {
    name: "wal_full",
    percent: 26,
    check: LEDGER,
    volatile: &VOLATILE,
    per_recording: 20_000,
    options,
};

fn record_threads(seed: u64) -> Log {
    let home = scratch();
    ledger::set_up(home.path(), "PRAGMA journal_mode = WAL");
    let recording = Recording::with_volatile(home.path());
    let db = options().open(home.path().join(NAME)).unwrap();
    recording.say(Word::Done(0));
    threads(&db, &recording, seed, 120);
    db.close();
    recording.finish()
}

#[test]
fn power_wal_full_acked_survive() {
    let findings = THREADS.run(record_threads);
    findings.assert_clean();
}

/// Groups of three that are answered together, in some of which one fails.
pub const GROUPS: Campaign = Campaign {
    name: "groups",
    percent: 5,
    ..THREADS
};

/// A holder has the pen until all three wait, so that they share a COMMIT.
pub fn record_groups(seed: u64) -> Log {
    let home = scratch();
    ledger::set_up(home.path(), "PRAGMA journal_mode = WAL");
    let recording = Recording::with_volatile(home.path());
    let db = options().open(home.path().join(NAME)).unwrap();
    recording.say(Word::Done(0));
    let mut random = Random::of(&[seed]);
    for team in 0..20 {
        let failing = random.percent(40).then(|| random.below(3));
        let hold = Hold::of(&db);
        let members: Vec<_> = (0..3)
            .map(|place| {
                let op = 1 + team * 3 + place as i64;
                let fails = failing == Some(place);
                let member = Member {
                    op: if fails { op + FAILING } else { op },
                    team,
                    size: if failing.is_some() { 2 } else { 3 },
                };
                let answer = db.submit(move |tx| {
                    member.run(tx.connection())?;
                    if fails {
                        return Err(Error::other("on purpose"));
                    }
                    Ok(())
                });
                (member, answer.unwrap())
            })
            .collect();
        wait_for_queue(&db, 3);
        hold.release();
        for (member, answer) in members {
            tell(&recording, member, answer.wait());
        }
    }
    db.close();
    recording.finish()
}

#[test]
fn power_group_members_independent() {
    GROUPS.run(record_groups).assert_clean();
}

/// The copying back and the resets of the log, beside writers and a reader that
/// pins it; then one that gives the log's room back, and the last close.
const CHECKPOINT: Campaign = Campaign {
    name: "checkpoint",
    percent: 7,
    ..THREADS
};

fn record_checkpoint(_seed: u64) -> Log {
    let home = scratch();
    ledger::set_up(home.path(), "PRAGMA journal_mode = WAL");
    let recording = Recording::with_volatile(home.path());
    let db = options().open(home.path().join(NAME)).unwrap();
    recording.say(Word::Done(0));
    let write = |range: std::ops::Range<i64>| {
        for op in range {
            write(&db, &recording, Member::alone(op));
        }
    };
    write(1..10);
    let pinned = db.snapshot().unwrap();
    write(10..20);
    let resets = db.stats().wal_resets;
    drop(pinned);
    let mut op = 20;
    // The checkpoint thread notices in its own time; each write is a nudge.
    while db.stats().wal_resets == resets && op < 400 {
        write(op..op + 1);
        op += 1;
    }
    assert!(db.stats().wal_resets > resets, "the log was not reset");
    for mode in ["PASSIVE", "FULL", "RESTART", "TRUNCATE"] {
        write(op..op + 3);
        op += 3;
        let stranger = rusqlite::Connection::open(home.path().join(NAME)).unwrap();
        stranger.busy_timeout(Duration::from_secs(60)).unwrap();
        let pragma = format!("PRAGMA wal_checkpoint({mode})");
        stranger.query_row(&pragma, (), |_| Ok(())).unwrap();
    }
    write(op..op + 3);
    db.close();
    recording.finish()
}

#[test]
fn power_during_checkpoint() {
    CHECKPOINT.run(record_checkpoint).assert_clean();
}
