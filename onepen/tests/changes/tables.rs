//! Which tables a commit is said to have changed.

use std::collections::BTreeMap;

use onepen::{Change, Changes, Database, Error, Origin, Result};

use crate::common::{Scene, options, quick};

/// Every way SQLite has of changing a table that it does not tell of.
const SCHEMA: &str = "
    CREATE TABLE plain(id INTEGER PRIMARY KEY, n INTEGER);
    CREATE TABLE keyed(k TEXT PRIMARY KEY, n INTEGER) WITHOUT ROWID;
    CREATE TABLE strict_one(id INTEGER PRIMARY KEY, n INTEGER UNIQUE) STRICT;
    CREATE TABLE counted(id INTEGER PRIMARY KEY AUTOINCREMENT, n INTEGER);
    CREATE TABLE parent(id INTEGER PRIMARY KEY);
    CREATE TABLE child(id INTEGER PRIMARY KEY,
        parent_id INTEGER REFERENCES parent(id) ON DELETE CASCADE ON UPDATE CASCADE);
    CREATE TABLE grandchild(id INTEGER PRIMARY KEY,
        child_id INTEGER REFERENCES child(id) ON DELETE SET NULL);
    CREATE TABLE logged(id INTEGER PRIMARY KEY, n INTEGER);
    CREATE TABLE log(what TEXT);
    CREATE TABLE log_of_log(n INTEGER);
    CREATE TRIGGER on_logged AFTER UPDATE ON logged BEGIN
        INSERT INTO log VALUES ('update'); END;
    CREATE TRIGGER on_log AFTER INSERT ON log BEGIN
        INSERT INTO log_of_log VALUES (1); END;
    CREATE VIEW both AS SELECT plain.id, plain.n FROM plain;
    CREATE TRIGGER on_both INSTEAD OF INSERT ON both BEGIN
        INSERT INTO plain(n) VALUES (new.n);
        INSERT OR REPLACE INTO keyed VALUES ('view', new.n); END;
    CREATE VIRTUAL TABLE words USING fts5(word);
    INSERT INTO plain VALUES (1, 1), (2, 2), (3, 3);
    INSERT INTO keyed VALUES ('a', 1), ('b', 2);
    INSERT INTO parent VALUES (1), (2), (3), (4), (5), (6);
    INSERT INTO child VALUES (1, 1), (2, 2), (3, 3), (4, 4);
    INSERT INTO grandchild VALUES (1, 1), (2, 2), (3, 3);
    INSERT INTO logged VALUES (1, 1), (2, 2);
    INSERT INTO strict_one VALUES (1, 1), (2, 2);";

/// Each changes something at some time, and nothing at others.
const STATEMENTS: &[&str] = &[
    "INSERT INTO plain(n) VALUES (7)",
    "UPDATE plain SET n = n + 1 WHERE id % 2 = 0",
    "DELETE FROM plain",
    "INSERT OR REPLACE INTO keyed VALUES ('a', random())",
    "DELETE FROM keyed WHERE k = 'b'",
    "INSERT OR IGNORE INTO keyed VALUES ('b', 2)",
    "DELETE FROM keyed",
    "REPLACE INTO strict_one VALUES (1, 2)",
    "INSERT INTO strict_one(n) SELECT max(n) + 1 FROM strict_one",
    "INSERT INTO counted(n) VALUES (1)",
    "DELETE FROM counted",
    "DELETE FROM parent WHERE id = (SELECT min(id) FROM parent)",
    "UPDATE parent SET id = id + 100 WHERE id = (SELECT max(id) FROM parent WHERE id < 100)",
    "INSERT INTO parent SELECT coalesce(max(id), 0) + 1 FROM parent",
    "INSERT INTO child(parent_id) SELECT max(id) FROM parent",
    "INSERT INTO grandchild(child_id) SELECT max(id) FROM child",
    "REPLACE INTO parent SELECT min(id) FROM parent",
    "DELETE FROM child",
    "UPDATE logged SET n = n + 1",
    "INSERT INTO both VALUES (1, random())",
    "INSERT INTO words VALUES ('one two')",
    "DELETE FROM words",
    "INSERT INTO words(words) VALUES ('optimize')",
    "WITH old AS (SELECT min(id) AS it FROM plain) UPDATE plain SET n = 0 FROM old WHERE id = it",
    "INSERT INTO plain VALUES (1, 1) ON CONFLICT(id) DO UPDATE SET n = n + 1",
    "INSERT INTO keyed VALUES ('c', 1) ON CONFLICT DO NOTHING RETURNING k",
    "SELECT * FROM plain JOIN keyed",
    "CREATE TABLE IF NOT EXISTS late(n)",
    "DROP TABLE IF EXISTS late",
    "CREATE TRIGGER IF NOT EXISTS more AFTER INSERT ON plain BEGIN INSERT INTO log VALUES ('m'); END",
    "DROP TRIGGER IF EXISTS more",
    "ALTER TABLE log_of_log ADD COLUMN extra",
    "ANALYZE",
];

/// What is in every table, as a stranger sees it.
fn contents(scene: &Scene) -> BTreeMap<String, Vec<String>> {
    let connection = scene.stranger();
    let tables = "SELECT name FROM sqlite_schema WHERE rootpage > 0 AND type = 'table'";
    let mut tables = connection.prepare(tables).unwrap();
    let names = tables.query_map((), |row| row.get::<_, String>(0)).unwrap();
    let names = names.map(Result::<String, rusqlite::Error>::unwrap);
    let rows = |name: String| {
        let sql = format!("SELECT * FROM \"{name}\"");
        let mut statement = connection.prepare(&sql).unwrap();
        let columns = statement.column_count();
        let mut rows: Vec<String> = statement
            .query_map((), |row| {
                let values = (0..columns).map(|at| Ok(format!("{:?}", row.get_ref(at)?)));
                Ok(values.collect::<rusqlite::Result<Vec<_>>>()?.join("|"))
            })
            .unwrap()
            .map(Result::<String, rusqlite::Error>::unwrap)
            .collect();
        rows.sort();
        (name, rows)
    };
    names.map(rows).collect()
}

/// Small and the same everywhere.
struct Dice(u64);

impl Dice {
    fn up_to(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 11).unwrap() % bound
    }
}

fn all(changes: &mut Changes) -> Vec<Change> {
    std::iter::from_fn(|| changes.try_next()).collect()
}

/// Runs statements at random in closures of a few and checks what is told
/// against what is different in the file.
fn nothing_is_missed(seed: u64, statements: &[&str], run: impl Fn(&Database, &[&str])) {
    let scene = Scene::with(quick(), SCHEMA);
    let mut changes = scene.db.changes().unwrap();
    let mut dice = Dice(seed);
    let mut before = contents(&scene);
    let mut told_exactly = 0;
    for round in 0..250 {
        let picked: Vec<&str> = (0..1 + dice.up_to(3))
            .map(|_| statements[dice.up_to(statements.len())])
            .collect();
        run(&scene.db, &picked);
        let told = all(&mut changes);
        let after = contents(&scene);
        let names = before.keys().chain(after.keys());
        for name in names.filter(|name| before.get(*name) != after.get(*name)) {
            assert!(
                told.iter().any(|change| change.tables().contains(name)),
                "seed {seed}, round {round}: `{name}` changed by {picked:?}, told: {told:?}"
            );
        }
        told_exactly += usize::from(told.iter().any(|change| !change.tables().is_any()));
        before = after;
    }
    assert!(told_exactly > 50, "any table is no answer: {told_exactly}");
}

#[test]
fn whatever_changes_a_table_it_is_named() {
    for seed in 1..=4 {
        nothing_is_missed(seed, STATEMENTS, |db, picked| {
            let _ = db.write(|tx| {
                for sql in picked {
                    // A failure of one statement leaves what it had done before.
                    let _ = tx.execute_batch(sql);
                }
                Ok(())
            });
        });
    }
}

#[test]
fn whatever_changes_a_table_it_is_named_among_members_that_fail() {
    for seed in 11..=14 {
        nothing_is_missed(seed, STATEMENTS, |db, picked| {
            let hold = crate::common::Hold::of(db);
            let submitted: Vec<_> = picked
                .iter()
                .enumerate()
                .flat_map(|(place, sql)| {
                    let sql = (*sql).to_owned();
                    let fails = sql.clone();
                    let fine = db.submit(move |tx| tx.execute_batch(&sql)).unwrap();
                    let failing = db.submit(move |tx| {
                        tx.execute_batch(&fails)?;
                        if place % 2 == 0 {
                            return Err(Error::other("on purpose"));
                        }
                        Ok(())
                    });
                    [fine, failing.unwrap()]
                })
                .collect();
            hold.release();
            for submitted in submitted {
                let _ = submitted.wait();
            }
        });
    }
}

/// The one change that `run` makes.
fn told(scene: &Scene, run: impl Fn(&Database)) -> Change {
    let mut changes = scene.db.changes().unwrap();
    run(&scene.db);
    let mut told = all(&mut changes);
    assert_eq!(told.len(), 1, "{told:?}");
    told.remove(0)
}

#[test]
fn exactly_the_tables_that_a_statement_may_write_are_named() {
    let scene = Scene::with(quick(), SCHEMA);
    let cases: &[(&str, &[&str])] = &[
        ("INSERT INTO plain(n) VALUES (1)", &["plain"]),
        ("DELETE FROM plain", &["plain"]),
        (
            "INSERT INTO keyed VALUES (hex(randomblob(9)), 1)",
            &["keyed"],
        ),
        ("DELETE FROM keyed", &["keyed"]),
        (
            "INSERT INTO counted(n) VALUES (1)",
            &["counted", "sqlite_sequence"],
        ),
        ("UPDATE logged SET n = 5", &["log", "log_of_log", "logged"]),
        (
            "DELETE FROM parent WHERE id = 6",
            &["child", "grandchild", "parent"],
        ),
        (
            "INSERT INTO both VALUES (1, 2)",
            &["both", "keyed", "plain"],
        ),
        (
            "INSERT INTO words VALUES ('x')",
            &[
                "words",
                "words_config",
                "words_content",
                "words_data",
                "words_docsize",
                "words_idx",
            ],
        ),
    ];
    for (sql, expected) in cases {
        for _ in 0..2 {
            let change = told(&scene, |db| {
                db.execute(sql, ()).unwrap();
                db.write(|tx| tx.query_row("SELECT count(*) FROM plain", (), |_| Ok(())))
                    .unwrap();
            });
            let names: Vec<&str> = change.tables().names().collect();
            assert_eq!(names, *expected, "{sql}");
            assert!(!change.tables().is_any());
            assert_eq!(change.origin(), Origin::Here);
        }
    }
}

#[test]
fn a_trigger_that_is_made_later_is_seen_through_by_statements_prepared_before() {
    let scene = Scene::with(quick(), SCHEMA);
    let insert = "INSERT INTO plain(n) VALUES (1)";
    let mut changes = scene.db.changes().unwrap();
    scene.db.execute(insert, ()).unwrap();
    assert!(!changes.next().unwrap().tables().contains("log"));
    scene
        .stranger()
        .execute_batch(
            "CREATE TRIGGER later AFTER INSERT ON plain BEGIN INSERT INTO log VALUES ('x'); END",
        )
        .unwrap();
    for _ in 0..2 {
        scene.db.execute(insert, ()).unwrap();
        scene.db.write(|_| Ok(())).unwrap();
    }
    let told = all(&mut changes);
    let here: Vec<_> = told
        .iter()
        .filter(|change| change.origin() == Origin::Here)
        .collect();
    assert_eq!(here.len(), 2, "{told:?}");
    for change in here {
        assert!(!change.tables().is_any(), "{told:?}");
        assert!(change.tables().contains("log"), "{told:?}");
    }
}

#[test]
fn what_cannot_be_known_is_any_table() {
    let scene = Scene::with(quick(), SCHEMA);
    let whatever: &[fn(&Database)] = &[
        |db| drop(db.execute("CREATE TABLE made(n)", ())),
        |db| drop(db.execute("ALTER TABLE made RENAME TO renamed", ())),
        |db| drop(db.execute("DROP TABLE renamed", ())),
        |db| {
            // The one way to write that no statement shows.
            db.write(|tx| {
                let connection = tx.connection();
                connection.execute("INSERT INTO log VALUES (zeroblob(4))", ())?;
                let row = connection.last_insert_rowid();
                let mut blob = connection.blob_open("main", "log", "what", row, false)?;
                blob.write_at(b"text", 0)?;
                Ok(())
            })
            .unwrap();
        },
        |db| {
            db.exclusively(|connection| Ok(connection.execute_batch("DELETE FROM plain")?))
                .unwrap();
        },
    ];
    for (place, run) in whatever.iter().enumerate() {
        let change = told(&scene, run);
        assert!(change.tables().is_any(), "{place}: {change:?}");
    }
}

#[test]
fn a_closure_of_ten_thousand_different_statements_may_have_changed_any_table() {
    let scene = Scene::with(quick(), SCHEMA);
    let change = told(&scene, |db| {
        let all: String = (0..10_000)
            .map(|n| format!("INSERT INTO plain(n) VALUES ({n});"))
            .collect();
        db.write(|tx| tx.execute_batch(&all)).unwrap();
    });
    assert!(change.tables().is_any());
    // And the next is known again.
    let change = told(&scene, |db| {
        db.execute("DELETE FROM plain", ()).unwrap();
    });
    assert_eq!(change.tables().names().collect::<Vec<_>>(), ["plain"]);
}

/// Each in a transaction of its own: more than are remembered.
#[test]
fn of_ever_new_statements_each_is_known() {
    let scene = Scene::with(quick(), SCHEMA);
    let mut changes = scene.db.changes().unwrap();
    for n in 0..4_200 {
        scene
            .db
            .execute(&format!("INSERT INTO plain(n) VALUES ({n})"), ())
            .unwrap();
        let change = changes.try_next().unwrap();
        assert_eq!(
            change.tables().names().collect::<Vec<_>>(),
            ["plain"],
            "{n}"
        );
    }
}

#[test]
fn a_listener_that_comes_while_a_closure_runs_is_told_of_its_commit() {
    let scene = Scene::with(options(), SCHEMA);
    let (arrive, gate) = crate::common::gate();
    let db = scene.db.clone();
    let writer = std::thread::spawn(move || {
        db.write_once(move |tx| {
            tx.execute("DELETE FROM plain", ())?;
            arrive.stop();
            Ok(())
        })
        .unwrap();
    });
    gate.wait_for_arrival();
    let mut changes = scene.db.changes().unwrap();
    assert!(changes.try_next().is_none(), "before it is committed");
    gate.open();
    writer.join().unwrap();
    assert!(changes.next().unwrap().tables().contains("plain"));
}
