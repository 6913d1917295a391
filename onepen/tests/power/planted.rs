//! Libraries that break a promise, each of which has to be found out.
//!
//! Each is written here, over SQLite itself: no switch in the product makes it do
//! wrong. That `synchronous=NORMAL` is found out when `FULL` was promised is in
//! `modes`.

use std::path::Path;

use rusqlite::Connection;
use rusqlite::backup::Backup;

use crate::campaign::{self, Campaign, Findings, scratch};
use crate::copies::{BACKUP_CHECK, COPY, FIRST};
use crate::kept;
use crate::ledger::{self, FAILING, Kind, Member, NAME, VOLATILE};
use crate::recorder::{Log, Recording};
use crate::told::Word;
use crate::wal::{LEDGER, options};

const PLANTED: Campaign = Campaign {
    name: "planted",
    percent: 0,
    check: LEDGER,
    volatile: &VOLATILE,
    per_recording: 1000,
    options,
};

/// Records what `library` does with a database that is set up.
fn record(library: impl FnOnce(&Path, &Connection, &Recording)) -> Log {
    let home = scratch();
    ledger::set_up(home.path(), "PRAGMA journal_mode = WAL");
    let recording = Recording::start(home.path());
    let connection = Connection::open(home.path().join(NAME)).unwrap();
    connection
        .execute_batch("PRAGMA synchronous = FULL")
        .unwrap();
    recording.say(Word::Done(0));
    library(home.path(), &connection, &recording);
    connection.close().unwrap();
    recording.finish()
}

fn run(connection: &Connection, sql: &str) {
    connection.execute_batch(sql).unwrap();
}

/// As it should be done.
fn commit(connection: &Connection, member: Member) {
    run(connection, "BEGIN IMMEDIATE");
    member.run(connection).unwrap();
    run(connection, "COMMIT");
}

/// Or nothing that is found below says anything.
#[test]
fn a_library_that_keeps_its_promises_is_not_accused() {
    let log = record(|_, connection, recording| {
        for op in 1..=10 {
            commit(connection, Member::alone(op));
            recording.say(Word::Acknowledged(op));
            recording.say(Word::Seen(op));
        }
    });
    examine(&log).assert_clean();
}

fn examine(log: &Log) -> Findings {
    PLANTED.examine(log, PLANTED.per_recording, campaign::seed())
}

#[test]
fn a_library_that_acknowledges_before_it_commits_is_found_out() {
    let log = record(|_, connection, recording| {
        for op in 1..=10 {
            run(connection, "BEGIN IMMEDIATE");
            Member::alone(op).run(connection).unwrap();
            recording.say(Word::Acknowledged(op));
            run(connection, "COMMIT");
        }
    });
    assert!(examine(&log).count(Kind::Lost) > 0);
}

#[test]
fn a_library_that_tells_readers_of_a_commit_before_it_is_flushed_is_found_out() {
    let log = record(|_, connection, recording| {
        run(connection, "PRAGMA synchronous = NORMAL");
        for op in 1..=10 {
            commit(connection, Member::alone(op));
            recording.say(Word::Seen(op));
        }
    });
    assert!(examine(&log).count(Kind::Lost) > 0);
}

#[test]
fn a_library_that_commits_a_group_in_two_parts_is_found_out() {
    let log = record(|_, connection, _| {
        for team in 0..10 {
            run(connection, "BEGIN IMMEDIATE");
            for place in 0..3 {
                let (op, size) = (team * 3 + place, 3);
                Member { op, team, size }.run(connection).unwrap();
                if place == 1 {
                    run(connection, "COMMIT; BEGIN IMMEDIATE");
                }
            }
            run(connection, "COMMIT");
        }
    });
    assert!(examine(&log).count(Kind::Torn) > 0);
}

#[test]
fn a_library_that_commits_a_member_in_two_parts_is_found_out() {
    let log = record(|_, connection, _| {
        for op in 1..=10 {
            let member = Member::alone(op);
            run(connection, "BEGIN IMMEDIATE");
            member.first_half(connection).unwrap();
            run(connection, "COMMIT; BEGIN IMMEDIATE");
            member.second_half(connection).unwrap();
            run(connection, "COMMIT");
        }
    });
    assert!(examine(&log).count(Kind::Torn) > 0);
}

#[test]
fn a_library_that_keeps_what_a_failed_member_wrote_is_found_out() {
    let log = record(|_, connection, recording| {
        for op in 1..=10 {
            run(connection, "BEGIN IMMEDIATE");
            Member::alone(op).run(connection).unwrap();
            Member::alone(FAILING + op).run(connection).unwrap();
            run(connection, "COMMIT");
            recording.say(Word::Acknowledged(op));
        }
    });
    assert!(examine(&log).count(Kind::Refused) > 0);
}

/// What a copy does last, in an order of its own.
#[derive(Clone, Copy, PartialEq)]
enum Last {
    Flush,
    FlushDirectory,
    Rename,
}

fn copied(order: &[Last]) -> Findings {
    let log = record(|home, connection, recording| {
        for op in 1..=FIRST {
            commit(connection, Member::alone(op));
            recording.say(Word::Acknowledged(op));
        }
        let part = home.join("part");
        let mut to = Connection::open(&part).unwrap();
        run(&to, "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF");
        let backup = Backup::new(connection, &mut to).unwrap();
        while backup.step(100).unwrap() == rusqlite::backup::StepResult::More {}
        drop(backup);
        to.close().unwrap();
        let file = std::fs::File::open(&part).unwrap();
        for step in order {
            match step {
                Last::Flush => file.sync_all().unwrap(),
                Last::Rename => std::fs::rename(&part, home.join(COPY)).unwrap(),
                Last::FlushDirectory => std::fs::File::open(home).unwrap().sync_all().unwrap(),
            }
        }
        recording.say(Word::Done(1));
    });
    let campaign = Campaign {
        check: BACKUP_CHECK,
        ..PLANTED
    };
    // It goes wrong in one moment of some two hundred.
    campaign.examine(&log, 5 * PLANTED.per_recording, campaign::seed())
}

#[test]
fn a_backup_that_is_renamed_before_it_is_flushed_is_found_out() {
    use Last::{Flush, FlushDirectory, Rename};
    copied(&[Flush, Rename, FlushDirectory]).assert_clean();
    let found = copied(&[Rename, Flush, FlushDirectory]);
    assert!(found.count(Kind::Torn) + found.count(Kind::Damaged) > 0);
    assert!(copied(&[Flush, Rename]).count(Kind::Lost) > 0);
}

/// An image that breaks a promise can be looked at again, and says the same.
#[test]
fn a_kept_image_is_judged_again() {
    let checks = crate::checks();
    if let Some(home) = std::env::var_os("ONEPEN_POWER_REPLAY") {
        let verdict = kept::replay(Path::new(&home), &checks);
        panic!("{}: {verdict:?}", Path::new(&home).display());
    }
    let log = record(|_, connection, recording| {
        commit(connection, Member::alone(1));
        recording.say(Word::Acknowledged(1));
        recording.say(Word::Acknowledged(2));
    });
    let campaign = Campaign {
        name: "replayed",
        ..PLANTED
    };
    let findings = campaign.examine(&log, 100, 1);
    let said = &findings.first[&Kind::Lost];
    let (what, home) = said.split_once("; kept in ").unwrap();
    let again = kept::replay(Path::new(home), &checks).unwrap_err();
    assert_eq!(again.kind, Kind::Lost);
    assert!(what.starts_with(&again.what), "{said}, and then {again:?}");
}

/// What goes round the C library is not recorded, and that is noticed.
#[test]
#[should_panic(expected = "changed in a way that was not recorded")]
fn a_write_that_is_not_recorded_is_noticed() {
    let home = scratch();
    let recording = Recording::start(home.path());
    let file = std::fs::File::create(home.path().join("a")).unwrap();
    rustix::fs::ftruncate(&file, 10).unwrap();
    recording.finish();
}

/// And a name that is given so is seen.
#[test]
fn a_rename_by_a_system_call_is_recorded() {
    use crate::recorder::Event;
    let home = scratch();
    std::fs::write(home.path().join("a"), "x").unwrap();
    let recording = Recording::start(home.path());
    rustix::fs::rename(home.path().join("a"), home.path().join("b")).unwrap();
    std::fs::File::open(home.path())
        .unwrap()
        .sync_all()
        .unwrap();
    let log = recording.finish();
    let [Event::Renamed { from, to, .. }, Event::SyncDirectory] = &log.events[log.began..] else {
        panic!("{:?}", &log.events[log.began..]);
    };
    assert_eq!((&**from, &**to), ("a", "b"));
}
