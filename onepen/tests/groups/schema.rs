//! Schema changes by members, and the statements that others have prepared.

use onepen::{Error, ErrorKind};

use crate::common::{Scene, among_neighbours, fine, refused};

const TABLE: &str = "CREATE TABLE t(n INTEGER PRIMARY KEY); INSERT INTO t VALUES (1);";

#[test]
fn ddl_in_a_member_is_committed_with_its_group() {
    among_neighbours(
        TABLE,
        |tx| {
            tx.execute_batch(
                "ALTER TABLE t ADD COLUMN note TEXT DEFAULT 'x';
                 CREATE TABLE u(n INTEGER PRIMARY KEY);
                 CREATE INDEX by_note ON t(note);
                 CREATE VIEW v AS SELECT note FROM t;
                 CREATE TRIGGER copy AFTER INSERT ON t BEGIN INSERT INTO u VALUES (new.n); END;
                 INSERT INTO t VALUES (2, 'y');",
            )?;
            tx.query_row("SELECT group_concat(note) FROM v", (), |row| {
                row.get::<_, String>(0)
            })
        },
        |answer, scene| {
            assert_eq!(fine(answer), "x,y");
            assert_eq!(scene.numbers("SELECT n FROM u"), [2]);
        },
    );
}

#[test]
fn ddl_in_a_member_is_undone_with_it() {
    among_neighbours(
        TABLE,
        |tx| {
            tx.execute_batch(
                "ALTER TABLE t RENAME COLUMN n TO m;
                 ALTER TABLE t RENAME TO was_t;
                 CREATE TABLE u(n);
                 DROP TABLE neighbours;",
            )?;
            Err::<(), _>(Error::other("on purpose"))
        },
        |answer, scene| {
            assert_eq!(refused(answer).kind(), ErrorKind::Other);
            assert_eq!(scene.numbers("SELECT n FROM t"), [1]);
            assert_eq!(
                scene.number("SELECT count(*) FROM sqlite_schema WHERE name = 'u'"),
                0
            );
            let check: String = scene
                .stranger()
                .query_row("PRAGMA integrity_check", (), |row| row.get(0))
                .unwrap();
            assert_eq!(check, "ok");
        },
    );
}

/// What an ordinary schema change needs inside is not mistaken for what members
/// may not do.
#[test]
fn every_kind_of_schema_change_is_allowed_in_a_member() {
    let scene = Scene::new(TABLE);
    for sql in [
        "CREATE TABLE c(a INTEGER PRIMARY KEY AUTOINCREMENT, b TEXT, c TEXT) STRICT",
        "CREATE TABLE w(a PRIMARY KEY, b) WITHOUT ROWID",
        "CREATE TABLE copy AS SELECT * FROM t",
        "INSERT INTO c(b) VALUES ('x')",
        "ALTER TABLE c ADD COLUMN d INT",
        "CREATE INDEX i ON c(b) WHERE d IS NULL",
        "ALTER TABLE c RENAME COLUMN d TO e",
        "DROP INDEX i",
        "ALTER TABLE c DROP COLUMN e",
        "ALTER TABLE c RENAME TO d",
        "CREATE VIRTUAL TABLE f USING fts5(a)",
        "INSERT INTO f VALUES ('some words')",
        "INSERT INTO f(f) VALUES ('optimize')",
        "INSERT INTO f(f) VALUES ('rebuild')",
        "INSERT INTO f(f) VALUES ('integrity-check')",
        "ALTER TABLE f RENAME TO g",
        "DROP TABLE g",
        "CREATE VIRTUAL TABLE r USING rtree(id, x0, x1)",
        "INSERT INTO r VALUES (1, 2, 3)",
        "DROP TABLE r",
        "CREATE VIRTUAL TABLE f3 USING fts3(a)",
        "INSERT INTO f3 VALUES ('some words')",
        "INSERT INTO f3(f3) VALUES ('optimize')",
        "INSERT INTO f3(f3) VALUES ('rebuild')",
        "DROP TABLE f3",
        "ANALYZE",
        "REINDEX",
        "REINDEX d",
        "DROP TABLE w",
    ] {
        let done = scene.db.write(|tx| tx.execute_batch(sql));
        done.unwrap_or_else(|error| panic!("{sql}: {error}"));
    }
}

#[test]
fn a_schema_change_in_mid_group_re_prepares_cached_statements() {
    for wary in [false, true] {
        let scene = Scene::new("CREATE TABLE t(n INTEGER PRIMARY KEY, was TEXT DEFAULT 'old');");
        let insert = "INSERT INTO t(n) VALUES (?1)";
        let all = "SELECT * FROM t WHERE n = ?1";
        // Prepared, and in the cache, before the schema changes.
        scene
            .db
            .write(|tx| {
                tx.execute(insert, (0,))?;
                let columns = tx.query_row(all, (0,), |row| Ok(row.as_ref().column_count()))?;
                assert_eq!(columns, 2);
                Ok(())
            })
            .unwrap();
        if wary {
            scene.make_wary();
        }
        let hold = scene.hold();
        let mut members = Vec::new();
        for n in 1..=9 {
            members.push(scene.db.submit(move |tx| {
                if n % 3 == 0 {
                    tx.execute_batch(&format!("ALTER TABLE t ADD COLUMN c{n} DEFAULT {n}"))?;
                }
                tx.execute(insert, (n,))?;
                if n == 6 {
                    return Err(Error::other("takes its column with it"));
                }
                tx.query_row(all, (n,), |row| Ok(row.as_ref().column_count()))
            }));
        }
        scene.wait_for_queue(9);
        hold.release();
        let columns: Vec<_> = members
            .into_iter()
            .map(|member| member.unwrap().wait().ok())
            .collect();
        let expected = [2, 2, 3, 3, 3, 0, 3, 3, 4].map(|count| (count > 0).then_some(count));
        assert_eq!(columns, expected);
        scene.largest_group_was(9);
    }
}

#[test]
fn a_schema_change_by_a_stranger_re_prepares_cached_statements() {
    let scene = Scene::new(TABLE);
    let insert = "INSERT INTO t(n) VALUES (?1)";
    scene.db.execute(insert, (2,)).unwrap();
    scene
        .stranger()
        .execute_batch("ALTER TABLE t ADD COLUMN c DEFAULT 7")
        .unwrap();
    scene.db.execute(insert, (3,)).unwrap();
    assert_eq!(scene.numbers("SELECT c FROM t"), [7, 7, 7]);
}
