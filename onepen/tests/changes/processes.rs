//! What processes with onepen tell each other of their commits.

#![cfg(target_os = "linux")]

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::time::Duration;

use onepen::{Change, Changes, CommitAddress, Database, Origin, Outcome};

use crate::common::{Scene, child, in_child, quick};
use crate::lines::Told;

const SCHEMA: &str =
    "CREATE TABLE a(n INTEGER); CREATE TABLE b(n INTEGER); CREATE TABLE c(n INTEGER)";
const LONG: Duration = Duration::from_secs(60);

/// Another process with the database.
fn other_with(database: &Path) -> Told {
    Told::start(&mut child("processes::other", database), "open")
}

/// Not a test: what the other process runs.
#[test]
fn other() {
    let Some(path) = in_child() else { return };
    let db = quick().open(path).unwrap();
    println!("> open");
    for line in std::io::stdin().lock().lines() {
        obey(&db, &line.unwrap());
    }
}

fn insert(db: &Database, table: &str) {
    db.execute(&format!("INSERT INTO {table} VALUES (1)"), ())
        .unwrap();
}

fn obey(db: &Database, order: &str) {
    match order.split_once(' ').unwrap_or((order, "")) {
        ("insert", tables) => {
            db.write(|tx| {
                for table in tables.split(' ') {
                    tx.execute(&format!("INSERT INTO {table} VALUES (1)"), ())?;
                }
                Ok(())
            })
            .unwrap();
            println!("> done");
        }
        ("create", table) => {
            db.execute(&format!("CREATE TABLE {table}(n)"), ()).unwrap();
            println!("> done");
        }
        // Says the address while it writes, and commits or not when told to.
        ("announce", _) => {
            let answer = db.write_once(|tx| {
                tx.execute("INSERT INTO a VALUES (1)", ())?;
                println!("> {}", tx.commit_token().address().expect("a gate"));
                let mut order = String::new();
                // The lock of the line is this very thread's.
                std::fs::File::open("/dev/stdin")
                    .and_then(|stdin| BufReader::with_capacity(1, stdin).read_line(&mut order))
                    .unwrap();
                if order.trim() == "commit" {
                    Ok(())
                } else {
                    Err(onepen::Error::other("told not to"))
                }
            });
            println!("> {}", answer.is_ok());
        }
        ("for ever", _) | ("for", _) => loop {
            insert(db, "b");
            println!("> written");
        },
        _ => panic!("{order}"),
    }
}

fn next(changes: &mut Changes) -> Change {
    changes.next_within(LONG).expect("a change")
}

fn names(change: &Change) -> Vec<&str> {
    change.tables().names().collect()
}

#[test]
fn a_commit_of_another_process_is_told_with_its_tables_in_commit_order() {
    let scene = Scene::with(quick(), SCHEMA);
    let mut other = other_with(&scene.path());
    let mut changes = scene.db.changes().unwrap();
    // It has not been told that somebody listens when it began; from now on it is.
    for tables in ["a", "b c", "a b c"] {
        assert_eq!(other.ask(&format!("insert {tables}")), "done");
        let change = next(&mut changes);
        assert_eq!(change.origin(), Origin::Elsewhere);
        assert_eq!(names(&change), tables.split(' ').collect::<Vec<_>>());
        insert(&scene.db, "c");
        let ours = next(&mut changes);
        assert_eq!((ours.origin(), names(&ours)), (Origin::Here, vec!["c"]));
    }
    // Several, before anybody looks: one each, and before ours.
    for table in ["a", "b", "a"] {
        other.ask(&format!("insert {table}"));
    }
    insert(&scene.db, "c");
    let told: Vec<_> = (0..4).map(|_| next(&mut changes)).collect();
    let told: Vec<_> = told.iter().map(|it| (it.origin(), names(it))).collect();
    assert_eq!(
        told,
        [
            (Origin::Elsewhere, vec!["a"]),
            (Origin::Elsewhere, vec!["b"]),
            (Origin::Elsewhere, vec!["a"]),
            (Origin::Here, vec!["c"]),
        ]
    );
    assert_eq!(other.ask("create d"), "done");
    assert!(next(&mut changes).tables().is_any(), "the schema changed");
}

#[test]
fn a_stranger_between_two_members_makes_it_any_table() {
    let scene = Scene::with(quick(), SCHEMA);
    let mut other = other_with(&scene.path());
    // One table is enough to be told, whichever of them it was.
    let mut changes = scene.db.changes().unwrap().only(["c"]);
    let stranger = scene.stranger();
    stranger.busy_timeout(LONG).unwrap();
    for round in 0..20 {
        other.ask("insert a");
        stranger.execute("INSERT INTO c VALUES (1)", ()).unwrap();
        other.ask("insert b");
        let change = next(&mut changes);
        assert!(change.tables().contains("c"), "round {round}: {change:?}");
        // The next round begins with nothing left to be told.
        while changes.next_within(Duration::from_millis(30)).is_some() {}
    }
}

#[test]
fn more_commits_than_there_are_notes_are_told_as_any_table() {
    let scene = Scene::with(quick(), SCHEMA);
    let mut other = other_with(&scene.path());
    let mut changes = scene.db.changes().unwrap();
    // Nobody looks while the pen is held.
    let hold = scene.hold();
    drop(hold);
    for _ in 0..300 {
        other.tell("insert b");
    }
    for _ in 0..300 {
        other.hear();
    }
    insert(&scene.db, "a");
    let mut told = Vec::new();
    while !told.contains(&Origin::Here) {
        let change = next(&mut changes);
        told.push(change.origin());
        if change.origin() == Origin::Elsewhere {
            assert!(change.tables().contains("b"));
        }
    }
}

#[test]
fn a_writer_that_is_killed_takes_no_change_with_it() {
    let scene = Scene::with(quick(), SCHEMA);
    let mut changes = scene.db.changes().unwrap();
    for round in 0..10 {
        let mut other = other_with(&scene.path());
        other.tell("for ever");
        for _ in 0..=round {
            assert_eq!(other.hear(), "written");
        }
        drop(other);
        // Whatever it committed last has been told, or will be before ours.
        let count = || scene.number("SELECT count(*) FROM b");
        let there = count();
        insert(&scene.db, "a");
        let mut told = Vec::new();
        loop {
            let change = next(&mut changes);
            if change.origin() == Origin::Here {
                break;
            }
            told.push(change);
        }
        assert!(there > 0 && count() == there);
        let any = told.iter().any(|it| it.tables().is_any());
        let of_b = told.iter().filter(|it| it.tables().contains("b")).count();
        let before = there - scene.number("SELECT count(*) FROM c");
        assert!(any || of_b as i64 == before, "{before} commits: {told:?}");
        scene
            .db
            .execute(
                "INSERT INTO c SELECT n FROM b LIMIT -1 OFFSET (SELECT count(*) FROM c)",
                (),
            )
            .unwrap();
        while changes.next_within(Duration::from_millis(30)).is_some() {}
    }
}

#[test]
fn nobody_pays_for_notes_when_nobody_listens_any_more() {
    let scene = Scene::with(quick(), SCHEMA);
    let mut other = other_with(&scene.path());
    let gate = || onepen_lock::gate::Gate::join(&scene.path(), "").unwrap();
    assert!(!gate().others_listen());
    let changes = scene.db.changes().unwrap();
    other.ask("insert a");
    let noted = (0..200).filter_map(|it| gate().note_of(it)).count();
    assert_eq!(noted, 1);
    drop(changes);
    other.ask("insert a");
    other.ask("insert a");
    let noted = (0..200).filter_map(|it| gate().note_of(it)).count();
    assert_eq!(noted, 1);
}

#[test]
fn another_process_waits_for_a_commit_whose_address_it_was_given() {
    let scene = Scene::with(quick(), SCHEMA);
    // Who took the number of a commit that never was is in a note, and notes are
    // left while somebody listens: perhaps not yet the thread that waits.
    let _listens = scene.db.changes().unwrap();
    let mut other = other_with(&scene.path());
    let soon = Duration::from_millis(20);
    for (order, outcome) in [
        ("commit", Outcome::Committed),
        ("roll back", Outcome::NotCommitted),
    ] {
        let before = scene.number("SELECT count(*) FROM a");
        let address: CommitAddress = other.ask("announce").parse().unwrap();
        assert_eq!(scene.db.wait_for(&address, soon).unwrap(), None, "it runs");
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| scene.db.wait_for(&address, LONG).unwrap());
            other.tell(order);
            assert_eq!(other.hear(), (outcome == Outcome::Committed).to_string());
            if outcome == Outcome::NotCommitted {
                // Known when its number is somebody else's.
                other.ask("insert a");
            }
            assert_eq!(waits.join().unwrap(), Some(outcome));
        });
        // Read your writes, in another process.
        assert_eq!(scene.number("SELECT count(*) FROM a"), before + 1);
    }
}

#[test]
fn an_address_of_another_time_or_place_is_never_taken_for_a_commit_here() {
    let scene = Scene::with(quick(), SCHEMA);
    let mut addresses = Vec::new();
    for _ in 0..200 {
        let token = scene.db.write(|tx| {
            tx.execute("INSERT INTO a VALUES (1)", ())?;
            Ok(tx.commit_token())
        });
        addresses.push(token.unwrap().address().expect("a gate"));
    }
    let known = |db: &Database, address| db.wait_for(address, Duration::ZERO).unwrap();
    let last = addresses.last().unwrap();
    assert_eq!(known(&scene.db, last), Some(Outcome::Committed));
    assert_eq!(known(&scene.db, &addresses[0]), None, "128 came after it");
    let other = Scene::with(quick(), SCHEMA);
    assert_eq!(known(&other.db, last), None, "another database");
    // The log is made anew when all have closed it; SQLite counts from the start.
    scene.db.close();
    let again = quick().open(scene.path()).unwrap();
    for _ in 0..300 {
        insert(&again, "b");
        // Perhaps its own note is there still.
        assert_ne!(known(&again, last), Some(Outcome::NotCommitted));
    }
    for nonsense in ["", "1", "1-2", "x-y-z", "1-2-3-4", "100000000-2-3"] {
        assert!(nonsense.parse::<CommitAddress>().is_err(), "{nonsense}");
    }
    assert_eq!(last.to_string().parse::<CommitAddress>().unwrap(), *last);
}
