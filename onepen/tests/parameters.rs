//! What `rusqlite` takes as parameters, `execute` and its relatives take, though
//! the statement may run on another thread and again.

mod common;

use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::ThreadId;

use onepen::{ErrorKind, Parameters, Result};
use rusqlite::blob::ZeroBlob;
use rusqlite::types::{ToSqlOutput, Value};
use rusqlite::{ToSql, named_params, params, params_from_iter};

use common::{Scene, block_on, gate, poll_once, quick, wait_for_queue};

const TABLE: &str = "CREATE TABLE t(k INTEGER PRIMARY KEY, a, b);";
const INSERT: &str = "INSERT INTO t(a, b) VALUES (?1, ?2)";
const NAMED: &str = "INSERT INTO t(a, b) VALUES (:a, :b)";

fn rows(scene: &Scene) -> Vec<(Value, Value)> {
    let all = "SELECT a, b FROM t ORDER BY k";
    let row = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?));
    scene.db.read(|tx| tx.query_map(all, (), row)).unwrap()
}

/// The same statement run here, on the writer thread, as one of many, and as a
/// query: with parameters that `make` makes anew each time.
macro_rules! arrives {
    ($sql:expr, $parameters:expr, $a:expr, $b:expr) => {{
        let scene = Scene::with(quick(), TABLE);
        let db = &scene.db;
        assert_eq!(db.execute($sql, $parameters).unwrap(), 1);
        assert_eq!(
            db.execute_many($sql, [$parameters, $parameters]).unwrap(),
            2
        );
        assert_eq!(block_on(db.execute_async($sql, $parameters)).unwrap(), 1);
        let many = db.execute_many_async($sql, [$parameters]);
        assert_eq!(block_on(many).unwrap(), 1);
        let expected: (Value, Value) = ($a.into(), $b.into());
        assert_eq!(rows(&scene), vec![expected.clone(); 5]);
        let query = $sql
            .replace("INSERT INTO t(a, b) VALUES (", "SELECT ")
            .replace(')', "");
        let row = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?));
        let streamed: Vec<(Value, Value)> = db
            .stream(query, $parameters, row)
            .unwrap()
            .map(Result::unwrap)
            .collect();
        assert_eq!(streamed, [expected]);
    }};
}

#[test]
fn every_form_of_parameters_arrives_as_its_values() {
    let text = || "x".to_owned();
    arrives!(INSERT, (1, "x"), 1, text());
    arrives!(INSERT, (1, text()), 1, text());
    arrives!(INSERT, [1, 2], 1, 2);
    arrives!(INSERT, params![1, "x"], 1, text());
    arrives!(INSERT, &[&1, &2], 1, 2);
    arrives!(INSERT, &[&1 as &dyn ToSql, &"x"], 1, text());
    arrives!(INSERT, params_from_iter([1, 2]), 1, 2);
    arrives!(
        NAMED,
        named_params! {":b": vec![7_u8], ":a": None::<i64>},
        Value::Null,
        vec![7_u8]
    );
    arrives!(NAMED, &[(":b", &2), (":a", &1)], 1, 2);

    let scene = Scene::with(quick(), "CREATE TABLE t(k DEFAULT 1);");
    let nothing = "INSERT INTO t DEFAULT VALUES";
    scene.db.execute(nothing, ()).unwrap();
    scene.db.execute(nothing, []).unwrap();
    scene.db.execute(nothing, params![]).unwrap();
    assert_eq!(scene.number("SELECT count(*) FROM t"), 3);
}

/// Neither `Send` nor `Sync`, and it notices who asks for its value.
struct Watched {
    asked: Rc<AtomicUsize>,
    home: ThreadId,
}

impl ToSql for Watched {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        assert_eq!(std::thread::current().id(), self.home);
        self.asked.fetch_add(1, Ordering::Relaxed);
        Ok("watched".into())
    }
}

#[test]
fn what_cannot_leave_its_thread_is_evaluated_on_it_and_once() {
    let scene = Scene::with(quick(), TABLE);
    let asked = Rc::new(AtomicUsize::new(0));
    let watched = Watched {
        asked: Rc::clone(&asked),
        home: std::thread::current().id(),
    };
    // A group in which a neighbour fails is run again, with the same values.
    let hold = scene.hold();
    let mut write = Box::pin(scene.db.execute_async(INSERT, params![watched, 1]));
    assert!(poll_once(&mut write).is_pending());
    let failing = scene
        .db
        .submit(|_| -> Result<()> { Err(onepen::Error::other("on purpose")) });
    scene.wait_for_queue(2);
    hold.release();
    assert_eq!(block_on(write).unwrap(), 1);
    failing.unwrap().wait().unwrap_err();
    scene.largest_group_was(2);
    assert_eq!(asked.load(Ordering::Relaxed), 1);
    assert_eq!(rows(&scene), [("watched".to_owned().into(), 1.into())]);
}

struct Unspeakable;

impl ToSql for Unspeakable {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Err(rusqlite::Error::ToSqlConversionFailure("a secret".into()))
    }
}

#[test]
fn a_parameter_without_a_value_is_refused_before_anything_is_queued() {
    let scene = Scene::with(quick(), TABLE);
    // The pen is taken: whatever was queued would wait for it.
    let hold = scene.hold();
    let failed = scene
        .db
        .execute(INSERT, params![Unspeakable, 1])
        .unwrap_err();
    assert!(matches!(
        failed.sqlite(),
        Some(rusqlite::Error::ToSqlConversionFailure(_))
    ));
    let write = scene.db.execute_async(INSERT, params![1, Unspeakable]);
    assert_eq!(block_on(write).unwrap_err().kind(), failed.kind());
    let rows = [params![1, 2], params![1, Unspeakable]];
    assert_eq!(
        scene.db.execute_many(INSERT, rows).unwrap_err().kind(),
        failed.kind()
    );
    let zeroes = ZeroBlob(3);
    let no_value = scene.db.execute(INSERT, params![zeroes, 1]).unwrap_err();
    assert_eq!(no_value.kind(), ErrorKind::NotAllowed);
    assert!(
        no_value.to_string().contains("WriteTx::execute"),
        "{no_value}"
    );
    wait_for_queue(&scene.db, 0);
    hold.release();
    // As that says.
    scene
        .db
        .write(|tx| tx.execute(INSERT, params![ZeroBlob(3), 1]))
        .unwrap();
    assert_eq!(scene.number("SELECT length(a) FROM t"), 3);
}

#[test]
fn a_statement_with_other_parameters_than_it_has_is_refused_alone() {
    let scene = Scene::with(quick(), TABLE);
    for failed in [
        scene.db.execute(INSERT, (1,)),
        scene.db.execute(INSERT, params![1, 2, 3]),
        scene.db.execute(INSERT, named_params! {":nobody": 1}),
    ] {
        failed.unwrap_err();
    }
    assert_eq!(scene.number("SELECT count(*) FROM t"), 0);
    scene.db.execute(INSERT, params![1, 2]).unwrap();
}

#[test]
fn a_blocking_call_borrows_what_a_tuple_borrows() {
    let scene = Scene::with(quick(), TABLE);
    let (name, bytes) = (String::from("Ada"), vec![1_u8, 2]);
    let (at_gate, gate) = gate();
    std::thread::scope(|scope| {
        // Also when it waits behind somebody and runs on the writer thread.
        scope.spawn(|| {
            let held = scene.db.write_once(|_| {
                at_gate.stop();
                Ok(())
            });
            held.unwrap();
        });
        gate.wait_for_arrival();
        let write = scope.spawn(|| scene.db.execute(INSERT, (&name, bytes.as_slice())));
        scene.wait_for_queue(1);
        gate.open();
        assert_eq!(write.join().unwrap().unwrap(), 1);
    });
    assert_eq!(rows(&scene), [(name.into(), bytes.into())]);
}

#[test]
fn parameters_can_be_made_by_hand_and_sent_later() {
    let scene = Scene::with(quick(), TABLE);
    struct User(String, u8);
    impl Parameters for User {
        type Sent = <(String, u8) as Parameters>::Sent;
        fn send(self) -> Result<Self::Sent> {
            (self.0, self.1).send()
        }
    }
    scene.db.execute(INSERT, User("Ada".into(), 36)).unwrap();
    assert_eq!(rows(&scene), [("Ada".to_owned().into(), 36.into())]);
}
