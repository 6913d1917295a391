//! What a report says, and what it keeps to itself.

#[path = "common/mod.rs"]
mod common;

use common::{Hold, Scene, options, quick};
use onepen::Durability;

const TABLE: &str = "CREATE TABLE secret_table(n TEXT); INSERT INTO secret_table VALUES ('x')";

#[test]
fn settings_are_what_sqlite_answers_and_not_what_was_asked_for() {
    let scene = Scene::with(
        options()
            .durability(Durability::Full)
            .page_cache(1 << 20)
            // Not through our options.
            .on_connect(|connection| connection.pragma_update(None, "cache_size", -777)),
        TABLE,
    );
    scene.db.query_row("SELECT 1", (), |_| Ok(())).unwrap();
    let report = scene.db.report();
    for connection in ["write connection", "read connection 1"] {
        let setting = |name| report.get(connection, name);
        assert_eq!(setting("cache_size"), Some("-777"), "{report}");
        assert_eq!(setting("synchronous"), Some("2"), "{report}");
        assert_eq!(setting("journal_mode"), Some("wal"), "{report}");
        assert_eq!(setting("foreign_keys"), Some("1"), "{report}");
    }
    assert_eq!(report.get("versions", "SQLite"), Some(rusqlite::version()));
    assert_eq!(report.get("statistics", "commits"), Some("1"));
    let size = scene.path().metadata().unwrap().len();
    assert_eq!(
        report.get("file", "database"),
        Some(&*format!("{size} bytes"))
    );
}

#[test]
fn no_path_no_value_and_no_name_of_a_table_is_in_it() {
    let scene = Scene::with(quick(), TABLE);
    let insert = "INSERT INTO secret_table VALUES (?1)";
    scene.db.execute(insert, ("hunter2",)).unwrap();
    let report = scene.db.report();
    let directory = scene.dir().to_str().unwrap();
    for text in [report.to_string(), report.to_json()] {
        assert!(text.contains("scene.db"), "{text}");
        for kept in [directory, "hunter2", "secret_table", "INSERT"] {
            assert!(!text.contains(kept), "`{kept}` is in it: {text}");
        }
    }
    let asked = report.with_paths(&scene.db).to_string();
    assert!(asked.contains(directory), "{asked}");
}

#[test]
fn a_report_can_be_had_while_the_pen_is_held_and_within_closures() {
    let scene = Scene::with(quick(), TABLE);
    let hold = Hold::labelled(&scene.db, "import");
    let held = scene.db.report();
    let state = held.get("write connection", "state").unwrap();
    assert!(
        state.contains("in use") && state.contains("import"),
        "{state}"
    );
    hold.release();
    let db = &scene.db;
    let within = db.write(|_| Ok(db.report())).unwrap();
    assert!(within.get("write connection", "state").is_some());
    let within = db.read(|_| Ok(db.report())).unwrap();
    assert_eq!(within.get("read connection 1", "state"), Some("in use"));
    db.close();
    assert!(db.report().get("write connection", "state").is_some());
}

#[test]
fn the_machine_readable_form_is_json() {
    let scene = Scene::with(quick().label("a \"quoted\" \\ name\n"), TABLE);
    let json = scene.db.report().to_json();
    // SQLite knows JSON when it sees it.
    let name: String = scene
        .db
        .query_row("SELECT ?1 ->> '$.file.name'", (json,), |row| row.get(0))
        .unwrap();
    assert_eq!(name, "a \"quoted\" \\ name\n");
}
