//! Queries that are run again.

use std::pin::Pin;
use std::time::Duration;

use futures_core::Stream;
use onepen::{Result, Watch};

use crate::common::{Scene, block_on, quick};

const SCHEMA: &str = "CREATE TABLE a(n INTEGER); CREATE TABLE b(n INTEGER);
    CREATE VIEW shown AS SELECT n FROM a;
    CREATE TABLE source(n INTEGER);
    CREATE TRIGGER copy AFTER INSERT ON source BEGIN INSERT INTO a VALUES (new.n); END";
const LONG: Duration = Duration::from_secs(60);

fn watch(scene: &Scene, sql: &str) -> Watch<i64> {
    scene.db.watch(sql, (), |row| row.get(0)).unwrap()
}

fn rows(next: Option<Result<Vec<i64>>>) -> Vec<i64> {
    next.expect("there is a change").unwrap()
}

#[test]
fn a_query_is_run_at_first_and_when_a_table_of_it_changes() {
    let scene = Scene::with(quick(), SCHEMA);
    for sql in ["SELECT n FROM a", "SELECT n FROM shown"] {
        scene.db.execute("DELETE FROM a", ()).unwrap();
        let mut watch = watch(&scene, sql);
        assert_eq!(rows(watch.next()), []);
        scene.db.execute("INSERT INTO b VALUES (1)", ()).unwrap();
        assert!(
            watch.next_within(Duration::ZERO).is_none(),
            "of b it reads nothing"
        );
        scene
            .db
            .execute("INSERT INTO source VALUES (7)", ())
            .unwrap();
        assert_eq!(rows(watch.next_within(LONG)), [7]);
    }
}

#[test]
fn many_commits_are_one_reason_to_run_again() {
    let scene = Scene::with(quick(), SCHEMA);
    let mut watch = watch(&scene, "SELECT count(*) FROM a");
    assert_eq!(rows(watch.next()), [0]);
    for _ in 0..50 {
        scene.db.execute("INSERT INTO a VALUES (1)", ()).unwrap();
    }
    assert_eq!(rows(watch.next_within(LONG)), [50]);
    assert!(watch.next_within(Duration::ZERO).is_none());
}

#[test]
fn a_view_that_reads_another_table_from_now_on_is_followed() {
    let scene = Scene::with(quick(), SCHEMA);
    let mut watch = watch(&scene, "SELECT count(*) FROM shown");
    assert_eq!(rows(watch.next()), [0]);
    scene
        .db
        .write(|tx| tx.execute_batch("DROP VIEW shown; CREATE VIEW shown AS SELECT n FROM b"))
        .unwrap();
    assert_eq!(rows(watch.next_within(LONG)), [0]);
    scene.db.execute("INSERT INTO b VALUES (1)", ()).unwrap();
    assert_eq!(rows(watch.next_within(LONG)), [1]);
    scene.db.execute("INSERT INTO a VALUES (1)", ()).unwrap();
    assert!(watch.next_within(Duration::ZERO).is_none());
}

#[test]
fn a_query_over_a_virtual_table_follows_the_tables_behind_it() {
    let scene = Scene::with(
        quick(),
        "CREATE TABLE doc(id INTEGER PRIMARY KEY, body INTEGER);
         CREATE VIRTUAL TABLE found USING fts5(body, content = doc, content_rowid = id);
         INSERT INTO doc VALUES (1, 5); INSERT INTO found(rowid, body) VALUES (1, 5)",
    );
    let mut watch = watch(&scene, "SELECT body FROM found WHERE found MATCH '5'");
    assert_eq!(rows(watch.next()), [5]);
    scene.db.execute("UPDATE doc SET body = 6", ()).unwrap();
    assert_eq!(rows(watch.next_within(LONG)), [6]);
}

#[test]
fn an_error_is_an_item_and_the_next_change_is_another_try() {
    let scene = Scene::with(quick(), SCHEMA);
    let mut watch = watch(&scene, "SELECT n FROM missing");
    watch.next().unwrap().unwrap_err();
    scene
        .db
        .write(|tx| tx.execute_batch("CREATE TABLE missing(n); INSERT INTO missing VALUES (3)"))
        .unwrap();
    assert_eq!(rows(watch.next_within(LONG)), [3]);
}

#[test]
fn a_task_is_woken_and_a_closed_database_ends_it() {
    let scene = Scene::with(quick(), SCHEMA);
    let mut watch = watch(&scene, "SELECT count(*) FROM a");
    let (send, seen) = std::sync::mpsc::channel();
    let task = std::thread::spawn(move || {
        block_on(std::future::poll_fn(|cx| {
            loop {
                match std::task::ready!(Pin::new(&mut watch).poll_next(cx)) {
                    Some(rows) => send.send(rows.unwrap()[0]).unwrap(),
                    None => return std::task::Poll::Ready(()),
                }
            }
        }));
    });
    assert_eq!(seen.recv_timeout(LONG).unwrap(), 0);
    scene.db.execute("INSERT INTO a VALUES (1)", ()).unwrap();
    assert_eq!(seen.recv_timeout(LONG).unwrap(), 1);
    scene.db.close();
    task.join().unwrap();
}
