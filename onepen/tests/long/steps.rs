//! A big job in slices.

use std::cell::Cell;
use std::time::Duration;

use onepen::Error;

use crate::common::{Scene, options, quick};

const TABLE: &str = "CREATE TABLE a(n INTEGER)";
const ALL: &str = "SELECT count(*) FROM a";

fn insert(tx: &onepen::WriteTx<'_>, n: &i64) -> onepen::Result<()> {
    tx.execute("INSERT INTO a VALUES (?1)", (n,))?;
    Ok(())
}

#[test]
fn every_item_is_done_once_and_in_order() {
    let scene = Scene::with(quick(), TABLE);
    let slices = Cell::new(0);
    let stepped = scene
        .db
        .with()
        .in_steps()
        .slice(Duration::from_micros(500))
        .pause(Duration::ZERO)
        .progress(|so_far| {
            assert_eq!(so_far.slices, slices.get() + 1);
            slices.set(so_far.slices);
            // What is said to be done is committed.
            let there = scene.number(ALL);
            assert_eq!(there.cast_unsigned(), so_far.done);
        })
        .run(0..5000_i64, insert)
        .unwrap();
    assert_eq!((stepped.done, stepped.before), (5000, 0));
    assert_eq!(stepped.slices, slices.get());
    assert!(stepped.slices > 10, "{stepped:?}");
    let expected: Vec<i64> = (0..5000).collect();
    assert_eq!(scene.numbers("SELECT n FROM a ORDER BY rowid"), expected);
}

#[test]
fn whoever_waits_gets_the_pen_before_the_next_slice() {
    let scene = Scene::with(options(), TABLE);
    scene
        .db
        .write(|tx| tx.execute_batch("CREATE TABLE other(seen INTEGER)"))
        .unwrap();
    let waiting = Cell::new(None);
    let done = Cell::new(0);
    scene
        .db
        .with()
        .in_steps()
        .slice(Duration::ZERO) // an item each
        .pause(Duration::ZERO)
        .progress(|so_far| {
            if let Some(other) = waiting.take() {
                let other: onepen::Submitted<i64> = other;
                assert!(other.is_done(), "it waited for a second slice");
                assert_eq!(other.wait().unwrap(), done.get());
            }
            done.set(i64::try_from(so_far.done).unwrap());
            let count = |tx: &onepen::WriteTx<'_>| tx.query_row(ALL, (), |row| row.get(0));
            waiting.set(Some(scene.db.submit(count).unwrap()));
        })
        .run(0..50_i64, insert)
        .unwrap();
}

#[test]
fn an_error_undoes_its_slice_and_a_name_goes_on_after_the_last_committed_one() {
    let scene = Scene::with(quick(), TABLE);
    let job = |fails_at: i64| {
        scene
            .db
            .with()
            .in_steps()
            .named("import")
            .slice(Duration::from_micros(100))
            .run(0..3000_i64, |tx, n| {
                insert(tx, n)?;
                if *n == fails_at {
                    return Err(Error::other("on purpose"));
                }
                Ok(())
            })
    };
    job(2000).unwrap_err();
    let there = scene.number(ALL);
    assert!((1..=2000).contains(&there), "{there}");
    let rest = job(-1).unwrap();
    assert_eq!(rest.before, there.cast_unsigned());
    assert_eq!(rest.done, 3000);
    let expected: Vec<i64> = (0..3000).collect();
    assert_eq!(scene.numbers("SELECT n FROM a ORDER BY rowid"), expected);
    let nothing = job(-1).unwrap();
    assert_eq!((nothing.before, nothing.slices), (3000, 0));
}

#[test]
fn a_job_that_is_killed_goes_on_where_its_last_commit_was() {
    if let Some(path) = crate::common::in_child() {
        let db = quick().open(path).unwrap();
        let stepped = db
            .with()
            .in_steps()
            .named("import")
            .slice(Duration::ZERO)
            .progress(|so_far| {
                if so_far.done == 20 {
                    std::process::abort();
                }
            })
            .run(0..100_i64, insert);
        unreachable!("{stepped:?}");
    }
    let scene = Scene::with(quick(), TABLE);
    scene.db.close();
    let name = "steps::a_job_that_is_killed_goes_on_where_its_last_commit_was";
    let killed = crate::common::child(name, &scene.path()).output().unwrap();
    assert!(!killed.status.success());
    let db = quick().open(scene.path()).unwrap();
    let steps = db.with().in_steps().named("import");
    let stepped = steps.run(0..100_i64, insert).unwrap();
    assert_eq!((stepped.before, stepped.done), (20, 100));
    let expected: Vec<i64> = (0..100).collect();
    assert_eq!(scene.numbers("SELECT n FROM a ORDER BY rowid"), expected);
}
