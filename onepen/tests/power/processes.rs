//! Several processes write, by turns, and then the power goes for all of them.
//!
//! Each says in the one recording what its callers were told (`journal`), so that
//! an image is held against the acknowledgements of every process.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::time::Duration;

use onepen::{Database, Options};
use rusqlite::Connection;

use crate::campaign::{Campaign, scratch};
use crate::common::{child, in_child};
use crate::ledger::{self, FAILING, Kind, Member, NAME, VOLATILE};
use crate::random::Random;
use crate::recorder::{Log, Recording};
use crate::told::Word;
use crate::wal::{LEDGER, options, write};

/// Members of the process with this number begin here.
fn first_of(process: u64) -> i64 {
    process.cast_signed() * 10_000
}

/// Another process that takes part in a recording.
struct Other {
    process: Child,
    /// Without it there is nothing more to do.
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Other {
    fn start(number: u64, home: &Path, journal: &Path) -> Self {
        let mut process = child("processes::other", home)
            .env("ONEPEN_POWER_JOURNAL", journal)
            .env("ONEPEN_POWER_PROCESS", number.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let input = process.stdin.take();
        let output = BufReader::new(process.stdout.take().unwrap());
        Self {
            process,
            input,
            output,
        }
    }

    fn tell(&mut self, what: &str) {
        writeln!(self.input.as_ref().unwrap(), "{what}").unwrap();
    }

    /// The answer to the oldest question that has none.
    fn hear(&mut self) -> String {
        loop {
            let mut line = String::new();
            assert_ne!(self.output.read_line(&mut line).unwrap(), 0, "it is gone");
            if let Some((_, answer)) = line.split_once("> ") {
                return answer.trim().to_owned();
            }
        }
    }

    fn ask(&mut self, what: &str) -> String {
        self.tell(what);
        self.hear()
    }

    fn number(&mut self, what: &str) -> u64 {
        self.ask(what).parse().unwrap()
    }

    /// After what it was told last.
    fn ends(mut self) {
        self.input = None;
        let ended = self.process.wait().unwrap();
        assert!(ended.success(), "{ended}");
    }

    fn was_killed(mut self) {
        use std::os::unix::process::ExitStatusExt;
        let ended = self.process.wait().unwrap();
        assert_eq!(ended.signal(), Some(libc::SIGKILL), "{ended}");
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Not a test: what the other processes run.
#[test]
fn other() {
    let Some(home) = in_child() else { return };
    let variable = |name: &str| std::env::var(name).unwrap();
    let journal = variable("ONEPEN_POWER_JOURNAL");
    let number: u64 = variable("ONEPEN_POWER_PROCESS").parse().unwrap();
    let recording = Recording::join(&home, Path::new(&journal));
    let path = home.join(NAME);
    let mut next = first_of(number);
    let mut db: Option<Database> = None;
    for line in std::io::stdin().lock().lines() {
        let line = line.unwrap();
        let (what, count) = line.split_once(' ').unwrap_or((&line, "0"));
        let members = next..next + count.parse::<i64>().unwrap();
        next = members.end;
        match (what, &db) {
            // With the log's limit.
            ("open" | "careless", _) => {
                let careful = with_limit(count.parse().unwrap());
                let options = match what {
                    "open" => careful,
                    _ => careful.durability(onepen::Durability::Normal),
                };
                db = Some(options.open(&path).unwrap());
                next = members.start;
                println!("> open");
            }
            ("write", Some(db)) => {
                crowd(db, &recording, members);
                println!("> written");
            }
            ("strange", _) => {
                strange(&path, &recording, members);
                println!("> written");
            }
            ("resets", Some(db)) => println!("> {}", db.stats().wal_resets),
            ("pinned", Some(db)) => {
                println!("> {}", u8::from(db.stats().wal_pinned_for.is_some()));
            }
            // In the middle of a transaction that is larger than what was written
            // so far.
            ("die", Some(db)) => {
                let member = Member::alone(next);
                let _ = db.write(|tx| -> onepen::Result<()> {
                    member.run(tx.connection())?;
                    tx.connection().cache_flush()?;
                    recording.die()
                });
            }
            ("close", Some(_)) => db.take().unwrap().close(),
            _ => panic!("not understood: {line}"),
        }
    }
    drop(db);
    recording.leave();
}

fn with_limit(pages: u32) -> Options {
    options().wal_limit(pages, Duration::from_millis(5))
}

/// Two threads write them, so that some share a COMMIT; one in ten fails.
fn crowd(db: &Database, recording: &Recording, members: std::ops::Range<i64>) {
    std::thread::scope(|scope| {
        for thread in 0..2 {
            let members = members.clone().filter(move |op| op % 2 == thread);
            scope.spawn(move || {
                for op in members {
                    let fails = if op % 10 == 7 { FAILING } else { 0 };
                    write(db, recording, Member::alone(op + fails));
                }
            });
        }
    });
}

/// As a program does that knows nothing of us, automatic checkpoints included.
fn strange(path: &Path, recording: &Recording, members: std::ops::Range<i64>) {
    let connection = Connection::open(path).unwrap();
    connection.busy_timeout(Duration::from_secs(60)).unwrap();
    let pragmas = "PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 40";
    connection.execute_batch(pragmas).unwrap();
    for op in members {
        connection.execute_batch("BEGIN IMMEDIATE").unwrap();
        Member::alone(op).run(&connection).unwrap();
        connection.execute_batch("COMMIT").unwrap();
        recording.say(Word::Acknowledged(op));
    }
}

const BY_TURNS: Campaign = Campaign {
    name: "processes",
    percent: 5,
    check: LEDGER,
    volatile: &VOLATILE,
    per_recording: 500,
    options,
};

/// This process, two others and a stranger, all at once. One of the others is killed
/// in the middle of a transaction.
fn record_by_turns(opened: &str) -> Log {
    let (home, elsewhere) = (scratch(), scratch());
    let journal = elsewhere.path().join("journal");
    ledger::set_up(home.path(), "PRAGMA journal_mode = WAL");
    let recording = Recording::with_others(home.path(), &journal);
    let start = |number| Other::start(number, home.path(), &journal);
    let (mut one, mut dying, mut stranger) = (start(1), start(2), start(3));
    let db = options().open(home.path().join(NAME)).unwrap();
    recording.say(Word::Done(0));
    for other in [&mut one, &mut dying] {
        assert_eq!(other.ask(opened), "open");
        other.tell("write 12");
    }
    stranger.tell("strange 10");
    crowd(&db, &recording, 1..12);
    for other in [&mut one, &mut dying, &mut stranger] {
        assert_eq!(other.hear(), "written");
    }
    dying.tell("die");
    one.tell("write 8");
    crowd(&db, &recording, 12..20);
    assert_eq!(one.hear(), "written");
    dying.was_killed();
    one.tell("close");
    one.ends();
    crowd(&db, &recording, 20..26);
    stranger.ends();
    db.close();
    recording.finish()
}

#[test]
fn power_processes_by_turns_each_keeps_what_it_acknowledged() {
    BY_TURNS.run(|_| record_by_turns("open 24")).assert_clean();
}

#[test]
fn a_process_that_acknowledges_before_it_flushes_is_found_out_among_others() {
    let log = record_by_turns("careless 24");
    let findings = BY_TURNS.examine(&log, 1000, crate::campaign::seed());
    assert!(findings.count(Kind::Lost) > 0, "{:?}", findings.violations);
}

const FLUSH: Campaign = Campaign {
    name: "failed checkpoint elsewhere",
    percent: 1,
    per_recording: 200,
    ..BY_TURNS
};

/// What this process has copied from the log fails to be flushed. Another, whose
/// own flushes succeed, goes on, or comes later; and closes last. The log is all
/// that there is of what was copied, so it must not begin anew; until somebody has
/// read it from its beginning.
fn record_failed_flush(seed: u64, comes_later: bool) -> Log {
    let (home, elsewhere) = (scratch(), scratch());
    let journal = elsewhere.path().join("journal");
    let mut random = Random::of(&[seed]);
    ledger::set_up(home.path(), "PRAGMA journal_mode = WAL");
    let recording = Recording::with_others(home.path(), &journal);
    let mut other = Other::start(1, home.path(), &journal);
    let path = home.path().join(NAME);
    let open = with_limit(60);
    let db = open.clone().open(&path).unwrap();
    recording.say(Word::Done(0));
    if !comes_later {
        assert_eq!(other.ask("open 60"), "open");
        assert_eq!(other.ask("write 2"), "written");
    }
    let mut op = 0;
    let mut write_some = |db: &Database, most: i64, enough: &dyn Fn() -> bool| {
        let end = op + most;
        while op < end && !enough() {
            op += 1;
            write(db, &recording, Member::alone(op));
        }
    };
    // A reader makes SQLite copy a part of the log, which it does not flush.
    write_some(&db, 3 + random.below(4) as i64, &|| false);
    let pinned = db.snapshot().unwrap();
    recording.fail_sync(NAME, 0, 1);
    write_some(&db, 400, &|| recording.failed() > 0);
    assert_eq!(recording.failed(), 1, "nothing was ever copied back");
    crate::common::until("the log is kept", || db.stats().wal_pinned_for.is_some());
    drop(pinned);
    if comes_later {
        assert_eq!(other.ask("open 60"), "open");
    }
    // More than the limit of either.
    assert_eq!(other.ask("write 14"), "written");
    write_some(&db, 6, &|| false);
    if !comes_later || random.percent(50) {
        while other.number("pinned") == 0 {
            assert_eq!(other.number("resets"), 0, "the only copy was overwritten");
            std::thread::yield_now();
        }
    }
    assert_eq!(db.stats().wal_resets, 0);
    assert_eq!(other.number("resets"), 0, "the only copy was overwritten");
    db.close();
    drop(db);
    assert_eq!(other.ask("write 4"), "written");
    assert_eq!(other.number("resets"), 0, "the only copy was overwritten");
    other.tell("close");
    other.ends();
    let db = open.open(&path).unwrap();
    write_some(&db, 400, &|| db.stats().wal_resets > 0);
    assert!(db.stats().wal_resets > 0, "the log is kept for ever");
    db.close();
    recording.finish()
}

#[test]
fn power_after_another_process_could_not_flush_what_it_copied() {
    FLUSH
        .run(|seed| record_failed_flush(seed, false))
        .assert_clean();
}

/// To whom the operating system tells nothing of the failure.
#[test]
fn power_after_a_process_that_is_gone_could_not_flush_what_it_copied() {
    FLUSH
        .run(|seed| record_failed_flush(seed, true))
        .assert_clean();
}
