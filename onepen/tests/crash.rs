//! A program that is killed, and started again: `outcome_of` says of every key
//! what is true, no acknowledged write is lost, and a write that is tried again
//! with its key is in the database once.
//!
//! Two ways to die. At a *point*: just before one of the writes and flushes that
//! SQLite asks for, or in the middle of a write, each of them in turn, from the
//! first BEGIN to the last COMMIT (`disk`). And at *any time*: by `kill -9` from
//! outside, under a load of many threads.
#![cfg(all(target_os = "linux", target_env = "gnu"))]

mod common;
#[path = "common/disk.rs"]
mod disk;

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::Stdio;

use onepen::{Database, Error, Once, Outcome, Result, WriteTx};

use common::{Hold, child, in_child, options, wait_for_queue};
use disk::{Call, DIE, Fault};

const TABLE: &str = "CREATE TABLE t(key TEXT NOT NULL);";

/// What a write with a key does: it leaves the key, so that there is a truth.
fn insert(tx: &WriteTx<'_>, key: &str) -> Result<usize> {
    tx.execute("INSERT INTO t VALUES (?1)", (key,))
}

fn write(db: &Database, key: &str) -> Result<Once<usize>> {
    db.with().key(key).write(|tx| insert(tx, key))
}

/// Tells the parent, which knows it however this process ends. On a line of its
/// own: the harness has begun one.
fn say(word: &str, key: &str) {
    let line = format!("\n{word} {key}\n");
    std::io::stdout().lock().write_all(line.as_bytes()).unwrap();
}

/// The keys that the child said with `word`.
fn said(output: &[String], word: &str) -> BTreeSet<String> {
    let lines = output.iter().filter_map(|line| line.split_once(' '));
    let said = lines.filter(|(first, _)| *first == word);
    said.map(|(_, key)| key.to_owned()).collect()
}

/// Opens what the dead program left, and holds every promise against it.
fn check(path: &Path, keys: &BTreeSet<String>, acknowledged: &BTreeSet<String>, context: &str) {
    let db = options().open(path).unwrap();
    let rows = |key: &str| -> i64 {
        let count = "SELECT count(*) FROM t WHERE key = ?1";
        db.query_row(count, (key,), |row| row.get(0)).unwrap()
    };
    for key in keys {
        let there = rows(key);
        assert!(there <= 1, "{context}: {key} is there {there} times");
        let outcome = db.outcome_of(key).unwrap();
        let truth = [Outcome::NotCommitted, Outcome::Committed][usize::from(there == 1)];
        assert_eq!(outcome, truth, "{context}: {key}");
        if acknowledged.contains(key) {
            assert_eq!(outcome, Outcome::Committed, "{context}: {key} was lost");
        }
        let again = write(&db, key).unwrap();
        let expected = [Once::Done(1), Once::AlreadyDone][usize::from(there == 1)];
        assert_eq!(again, expected, "{context}: {key}");
        assert_eq!(rows(key), 1, "{context}: {key}");
    }
    let check: String = db
        .query_row("PRAGMA integrity_check", (), |row| row.get(0))
        .unwrap();
    assert_eq!(check, "ok", "{context}");
}

/// A lone write, a group of three of which one fails, and a lone write.
fn short_life(db: &Database) {
    let acknowledge = |key: &str, answer: Result<Once<usize>>| {
        if answer.is_ok() {
            say("acknowledged", key);
        }
    };
    acknowledge("first", write(db, "first"));
    let hold = Hold::of(db);
    let members = ["left", "failing", "right"].map(|key| {
        let submitted = db.with().key(key).submit(move |tx| {
            let inserted = insert(tx, key)?;
            match key {
                "failing" => Err(Error::other("on purpose")),
                _ => Ok(inserted),
            }
        });
        (key, submitted.unwrap())
    });
    wait_for_queue(db, 3);
    hold.release();
    for (key, member) in members {
        acknowledge(key, member.wait());
    }
    acknowledge("last", write(db, "last"));
}

#[test]
fn outcome_of_is_true_for_a_program_that_died_at_any_point() {
    const NAME: &str = "outcome_of_is_true_for_a_program_that_died_at_any_point";
    if let Some(path) = in_child() {
        let (spare, short) = point();
        let db = options().open(&path).unwrap();
        let mut log = path.into_os_string();
        log.push("-wal");
        let call = if short { Call::ShortAny } else { Call::Any };
        let _death = Fault::plan(log.as_ref(), call, DIE, spare, 1);
        short_life(&db);
        say("survived", "everything");
        return;
    }
    let keys = ["first", "left", "failing", "right", "last"].map(str::to_owned);
    let keys = BTreeSet::from(keys);
    for short in [false, true] {
        let mut died = 0;
        let mut acknowledged_by_the_dead = BTreeSet::new();
        for spare in 0.. {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("a.db");
            options()
                .open(&path)
                .unwrap()
                .write(|tx| tx.execute_batch(TABLE))
                .unwrap();
            let mut child = child(NAME, &path);
            child.env("ONEPEN_TEST_POINT", format!("{spare} {short}"));
            let ended = child.stderr(Stdio::null()).output().unwrap();
            let output = String::from_utf8_lossy(&ended.stdout);
            let output: Vec<_> = output.lines().map(str::to_owned).collect();
            let acknowledged = said(&output, "acknowledged");
            let context = format!("died before call {spare}, short: {short}");
            check(&path, &keys, &acknowledged, &context);
            if ended.status.success() {
                assert!(output.iter().any(|line| line.starts_with("survived")));
                let all = keys
                    .iter()
                    .filter(|key| *key != "failing")
                    .cloned()
                    .collect();
                assert_eq!(acknowledged, all, "{context}");
                break;
            }
            died += 1;
            acknowledged_by_the_dead.extend(acknowledged);
        }
        assert!(died > 20, "only {died} points");
        // Some died early, some after they had told the outcome of the group.
        assert!(acknowledged_by_the_dead.contains("right"));
    }
}

fn point() -> (usize, bool) {
    let point = std::env::var("ONEPEN_TEST_POINT").unwrap();
    let (spare, short) = point.split_once(' ').unwrap();
    (spare.parse().unwrap(), short.parse().unwrap())
}

#[test]
fn outcome_of_is_true_for_a_program_that_was_killed_under_load() {
    const NAME: &str = "outcome_of_is_true_for_a_program_that_was_killed_under_load";
    if let Some(path) = in_child() {
        let db = options().open(&path).unwrap();
        std::thread::scope(|scope| {
            for thread in 0..8 {
                let db = &db;
                scope.spawn(move || {
                    for number in 0.. {
                        let key = format!("{thread}/{number}");
                        say("began", &key);
                        write(db, &key).unwrap();
                        say("acknowledged", &key);
                    }
                });
            }
        });
    }
    for round in 0..8 {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.db");
        options()
            .open(&path)
            .unwrap()
            .write(|tx| tx.execute_batch(TABLE))
            .unwrap();
        let mut victim = child(NAME, &path);
        let mut victim = victim
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(victim.stdout.take().unwrap()).lines();
        let mut output = Vec::new();
        // Wherever it is when so many were acknowledged.
        while said(&output, "acknowledged").len() < 1 + round * 7 {
            output.push(lines.next().expect("it goes on").unwrap());
        }
        victim.kill().unwrap();
        victim.wait().unwrap();
        // What was said and not yet heard; the last line may be half of one.
        output.extend(lines.map_while(std::io::Result::ok));
        let acknowledged = said(&output, "acknowledged");
        let mut keys = said(&output, "began");
        keys.extend(acknowledged.iter().cloned());
        check(&path, &keys, &acknowledged, &format!("round {round}"));
    }
}
