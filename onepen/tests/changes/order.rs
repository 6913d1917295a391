//! When a commit is told: once, in order, after it, and never of what was undone.

use std::time::Duration;

use onepen::{Change, Changes, Error, ErrorKind, Outcome};

use crate::common::{Hold, Scene, block_on, options, quick};

const SCHEMA: &str = "CREATE TABLE a(n INTEGER PRIMARY KEY); CREATE TABLE b(n INTEGER PRIMARY KEY);
    CREATE TABLE c(n INTEGER PRIMARY KEY)";

fn all(changes: &mut Changes) -> Vec<Change> {
    std::iter::from_fn(|| changes.try_next()).collect()
}

#[test]
fn a_group_is_one_change_with_the_tables_of_its_members() {
    let scene = Scene::with(options(), SCHEMA);
    let mut changes = scene.db.changes().unwrap();
    let hold = scene.hold();
    let insert = |sql: &'static str| scene.db.submit(move |tx| tx.execute(sql, ())).unwrap();
    let one = insert("INSERT INTO a VALUES (1)");
    let two = insert("INSERT INTO b VALUES (1)");
    hold.release();
    one.wait().unwrap();
    two.wait().unwrap();
    let told = all(&mut changes);
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(told[0].tables().names().collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(told[0].commit(), scene.db.commits());
}

#[test]
fn nothing_is_told_of_a_member_that_was_rolled_back() {
    for wary in [false, true] {
        let scene = Scene::with(options(), SCHEMA);
        // So that every statement is known already.
        for table in ["a", "b", "c"] {
            let insert = format!("INSERT INTO {table} VALUES (?1)");
            scene.db.execute(&insert, (100,)).unwrap();
        }
        if wary {
            scene.make_wary();
        }
        let mut changes = scene.db.changes().unwrap();
        for round in 0..3 {
            let hold = scene.hold();
            let insert = move |table: &'static str, fails: bool| {
                move |tx: &onepen::WriteTx<'_>| {
                    tx.execute(&format!("INSERT INTO {table} VALUES (?1)"), (round,))?;
                    if fails {
                        return Err(Error::other("on purpose"));
                    }
                    Ok(())
                }
            };
            let first = scene.db.submit(insert("a", false)).unwrap();
            let failing = scene.db.submit(insert("b", true)).unwrap();
            let last = scene.db.submit(insert("c", false)).unwrap();
            hold.release();
            first.wait().unwrap();
            failing.wait().unwrap_err();
            last.wait().unwrap();
            let told = all(&mut changes);
            assert_eq!(told.len(), 1, "wary {wary}: {told:?}");
            let names: Vec<&str> = told[0].tables().names().collect();
            assert_eq!(names, ["a", "c"], "wary {wary}");
        }
        // Alone.
        let failed = scene.db.write(|tx| {
            tx.execute("INSERT INTO b VALUES (9)", ())?;
            Err::<(), _>(Error::other("on purpose"))
        });
        failed.unwrap_err();
        scene.db.read(|_| Ok(())).unwrap();
        assert!(all(&mut changes).is_empty());
    }
}

#[test]
fn a_change_is_told_only_when_everybody_can_read_it_and_in_commit_order() {
    let scene = Scene::with(quick(), "CREATE TABLE a(n INTEGER PRIMARY KEY)");
    let mut changes = scene.db.changes().unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..200 {
                    scene
                        .db
                        .write(|tx| tx.execute("INSERT INTO a DEFAULT VALUES", ()))
                        .unwrap();
                }
            });
        }
        let stranger = scene.stranger();
        let (mut last, mut told, mut seen) = (0, 0, 0);
        while seen < 800 {
            let change = changes.next_within(Duration::from_secs(60)).unwrap();
            assert!(change.commit() > last, "{change:?} after {last}");
            last = change.commit();
            // Each commit has a row at least.
            told += 1 + i64::try_from(change.lagged()).unwrap();
            let count = "SELECT count(*) FROM a";
            let now: i64 = stranger.query_row(count, (), |row| row.get(0)).unwrap();
            assert!(now >= told, "told of {told}, there are {now}");
            seen = now;
        }
    });
}

#[test]
fn a_slow_listener_is_told_how_far_it_lags_and_of_every_table() {
    let scene = Scene::with(quick(), SCHEMA);
    let mut changes = scene.db.changes().unwrap().room(2);
    for (n, table) in ["a", "b", "c", "a"].iter().enumerate() {
        let insert = format!("INSERT INTO {table} VALUES (?1)");
        scene.db.execute(&insert, (n as i64,)).unwrap();
    }
    let told = all(&mut changes);
    assert_eq!(told.len(), 2, "{told:?}");
    assert_eq!(told[0].lagged(), 0);
    assert_eq!(told[1].lagged(), 2);
    assert_eq!(
        told[1].tables().names().collect::<Vec<_>>(),
        ["a", "b", "c"]
    );
    assert_eq!(told[1].commit(), scene.db.commits());
}

#[test]
fn only_the_tables_a_listener_wants_wake_it() {
    let scene = Scene::with(quick(), SCHEMA);
    let mut changes = scene.db.changes().unwrap().only(["B"]);
    scene.db.execute("INSERT INTO a VALUES (1)", ()).unwrap();
    scene.db.execute("INSERT INTO b VALUES (1)", ()).unwrap();
    let told = all(&mut changes);
    assert_eq!(told.len(), 1);
    assert!(told[0].tables().contains("b"));
}

#[test]
fn closing_the_database_ends_every_listener_after_what_is_left() {
    let scene = Scene::with(quick(), SCHEMA);
    let mut changes = scene.db.changes().unwrap();
    let mut stream = scene.db.changes().unwrap();
    scene.db.execute("INSERT INTO a VALUES (1)", ()).unwrap();
    let task = std::thread::spawn(move || {
        use futures_core::Stream;
        let mut next = || {
            block_on(std::future::poll_fn(|cx| {
                std::pin::Pin::new(&mut stream).poll_next(cx)
            }))
        };
        (next().is_some(), next().is_some())
    });
    scene.db.close();
    assert!(changes.next().is_some());
    assert!(changes.next().is_none());
    assert!(changes.is_closed());
    assert_eq!(task.join().unwrap(), (true, false));
    assert!(scene.db.changes().unwrap().next().is_none());
}

#[test]
fn a_listener_may_be_dropped_while_others_write() {
    let scene = Scene::with(quick(), "CREATE TABLE a(n INTEGER PRIMARY KEY)");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..500 {
                let insert = "INSERT INTO a DEFAULT VALUES";
                scene.db.execute(insert, ()).unwrap();
            }
        });
        for _ in 0..50 {
            let mut changes = scene.db.changes().unwrap();
            let _ = changes.next_within(Duration::from_micros(100));
        }
    });
    assert_eq!(scene.number("SELECT count(*) FROM a"), 500);
}

#[test]
fn a_token_tells_another_thread_what_became_of_a_run() {
    let scene = Scene::with(options(), SCHEMA);
    let (send, tokens) = std::sync::mpsc::channel();
    let hold = Hold::of(&scene.db);
    let taking = |name: &'static str, fails: bool| {
        let send = send.clone();
        move |tx: &onepen::WriteTx<'_>| {
            send.send((name, tx.commit_token())).unwrap();
            if fails {
                return Err(Error::other("on purpose"));
            }
            Ok(())
        }
    };
    let fine = scene.db.submit(taking("fine", false)).unwrap();
    let failing = scene.db.submit(taking("failing", true)).unwrap();
    hold.release();
    fine.wait().unwrap();
    assert_eq!(failing.wait().unwrap_err().kind(), ErrorKind::Other);
    drop(send);
    let patience = Duration::from_secs(60);
    let outcomes: Vec<_> = tokens
        .iter()
        .map(|(name, token)| (name, token.wait(patience).unwrap()))
        .collect();
    // Both ran bare, were undone together, and ran again.
    assert_eq!(
        outcomes,
        [
            ("fine", Outcome::NotCommitted),
            ("failing", Outcome::NotCommitted),
            ("fine", Outcome::Committed),
            ("failing", Outcome::NotCommitted),
        ]
    );
}

#[test]
fn a_token_is_not_settled_before_its_commit() {
    let scene = Scene::with(options(), SCHEMA);
    let (arrive, gate) = crate::common::gate();
    let (send, tokens) = std::sync::mpsc::channel();
    let db = scene.db.clone();
    let writer = std::thread::spawn(move || {
        db.write_once(move |tx| {
            send.send(tx.commit_token()).unwrap();
            arrive.stop();
            tx.execute("INSERT INTO a VALUES (1)", ())
        })
    });
    gate.wait_for_arrival();
    let token = tokens.recv().unwrap();
    assert_eq!(token.outcome(), None);
    assert_eq!(token.wait(Duration::ZERO), None);
    gate.open();
    assert_eq!(
        token.wait(Duration::from_secs(60)),
        Some(Outcome::Committed)
    );
    let there: i64 = scene
        .db
        .query_row("SELECT count(*) FROM a", (), |row| row.get(0))
        .unwrap();
    assert_eq!(there, 1);
    writer.join().unwrap().unwrap();
}
