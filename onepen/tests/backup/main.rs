//! Copies of a database in use: what they are, where they may go, and what is
//! left when they end early.

#[path = "../common/mod.rs"]
mod common;

mod copies;
mod crashes;
mod limits;
mod restores;
mod targets;
mod tasks;
mod through;

use std::path::{Path, PathBuf};

use onepen::{Database, Options};

use common::Scene;

/// Pairs of rows that every transaction keeps equal, and some weight.
const SCHEMA: &str = "
    CREATE TABLE pair(id INTEGER PRIMARY KEY, n INTEGER NOT NULL);
    INSERT INTO pair VALUES (1, 0), (2, 0);
    CREATE TABLE weight(id INTEGER PRIMARY KEY, fill BLOB NOT NULL);
    INSERT INTO weight(fill) WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < 4000)
        SELECT randomblob(1000) FROM c;";

/// A database of some megabytes, so that a copy takes several steps.
fn scene() -> Scene {
    Scene::with(common::quick(), SCHEMA)
}

fn scene_with(options: Options) -> Scene {
    Scene::with(options, SCHEMA)
}

/// Writes to both rows of the pair.
fn write(db: &Database) {
    db.write(|tx| {
        tx.execute("UPDATE pair SET n = n + 1 WHERE id = 1", ())?;
        tx.execute("UPDATE pair SET n = n + 1 WHERE id = 2", ())
    })
    .unwrap();
}

/// The pair in a file, after everything about the file was found right.
fn pair(path: &Path) -> (i64, i64) {
    let found = rusqlite::Connection::open(path).unwrap();
    let fine: String = found
        .query_row("PRAGMA integrity_check", (), |row| row.get(0))
        .unwrap();
    assert_eq!(fine, "ok");
    let weight: i64 = found
        .query_row("SELECT count(*) FROM weight", (), |row| row.get(0))
        .unwrap();
    assert_eq!(weight, 4000);
    let n = |id: i64| {
        found
            .query_row("SELECT n FROM pair WHERE id = ?1", (id,), |row| row.get(0))
            .unwrap()
    };
    (n(1), n(2))
}

/// The names in a directory, without those of the scene's own database.
fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| !name.starts_with("scene.db"))
        .collect();
    names.sort();
    names
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}
