//! Long reading before a short write.

use std::sync::atomic::{AtomicU32, Ordering};

use onepen::Database;

use crate::common::{Scene, options};

const SCHEMA: &str = "CREATE TABLE read_here(n INTEGER); CREATE TABLE elsewhere(n INTEGER);
    CREATE TABLE result(n INTEGER); CREATE VIEW shown AS SELECT n FROM read_here;
    INSERT INTO read_here VALUES (1);";

/// How often the reading ran when `meanwhile` happened after it; what is written
/// is right in any case.
fn readings(query: &'static str, meanwhile: impl Fn(&Scene) + Sync) -> u32 {
    let scene = Scene::with(options(), SCHEMA);
    let mut most = 0;
    // The second time the statements are in the cache.
    for _ in 0..2 {
        let runs = AtomicU32::new(0);
        scene
            .db
            .prepare_then_write(
                |tx| {
                    let sum = tx.query_row(query, (), |row| row.get::<_, i64>(0))?;
                    if runs.fetch_add(1, Ordering::SeqCst) == 0 {
                        meanwhile(&scene);
                    }
                    Ok(sum)
                },
                |tx, sum| {
                    tx.execute("INSERT INTO result VALUES (?1)", (*sum,))?;
                    Ok(())
                },
            )
            .unwrap();
        let last = "SELECT n FROM result ORDER BY rowid DESC LIMIT 1";
        assert_eq!(scene.number(last), scene.number(query), "{query}");
        most = runs.load(Ordering::SeqCst);
    }
    most
}

fn write(sql: &'static str) -> impl Fn(&Scene) + Sync {
    move |scene| {
        let db: &Database = &scene.db;
        db.execute(sql, ()).unwrap();
    }
}

#[test]
fn the_reading_is_done_again_exactly_when_a_table_it_read_was_changed() {
    for query in ["SELECT sum(n) FROM read_here", "SELECT sum(n) FROM shown"] {
        assert_eq!(readings(query, |_| {}), 1);
        assert_eq!(
            readings(query, write("INSERT INTO elsewhere VALUES (5)")),
            1
        );
        assert_eq!(
            readings(query, write("INSERT INTO read_here VALUES (5)")),
            2
        );
        assert_eq!(
            readings(query, write("DELETE FROM read_here WHERE n = 99")),
            2
        );
        assert_eq!(
            readings(query, write("CREATE TABLE IF NOT EXISTS new(n)")),
            2,
            "the schema"
        );
    }
}

#[test]
fn the_reading_is_done_again_after_any_commit_of_a_stranger() {
    let runs = readings("SELECT sum(n) FROM read_here", |scene| {
        let sql = "INSERT INTO read_here VALUES (7)";
        scene.stranger().execute(sql, ()).unwrap();
    });
    assert_eq!(runs, 2);
}
