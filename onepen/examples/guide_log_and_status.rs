//! A crash that nobody is told of, and a full page cache that nobody sees: without
//! SQLite's log and counts, and with them.
//!
//! ```text
//! cargo run -p onepen --example guide_log_and_status
//! ```

use std::path::Path;
use std::sync::{Arc, Mutex};

use onepen::sqlite_log;
use onepen::status::{Marks, connection_status, database_list, status};
use rusqlite::Connection;

pub(crate) fn main() -> onepen::Result<()> {
    let dir = tempfile::tempdir().map_err(onepen::Error::other)?;
    let (app, crashed) = (dir.path().join("app.db"), dir.path().join("crashed.db"));
    let connection = Connection::open(&app)?;
    connection.execute_batch("PRAGMA journal_mode=WAL; CREATE TABLE a(x)")?;

    leave_a_crash(&app, &crashed);
    let rows = open_and_count(&crashed)?;
    println!("without: opened after a crash, {rows} rows, and not a word");

    leave_a_crash(&app, &crashed);
    let lines = Arc::new(Mutex::new(Vec::new()));
    let to = Arc::clone(&lines);
    let directory = format!("{}/", dir.path().display());
    let hearing = sqlite_log::subscribe(move |line| {
        let text = line.message.replace(&directory, "");
        to.lock()
            .unwrap()
            .push(format!("{:?} {}: {text}", line.severity(), line.code));
    })?;
    open_and_count(&crashed)?;
    drop(hearing);
    let lines = std::mem::take(&mut *lines.lock().unwrap());
    println!("with:    {}\n", lines.join("\n         "));
    assert!(lines.iter().any(|line| line.contains("recovered")));

    // A transaction that is larger than its page cache writes in the middle.
    connection.execute_batch("PRAGMA cache_size=-200; BEGIN")?;
    for _ in 0..100 {
        connection.execute("INSERT INTO a VALUES (zeroblob(8000))", ())?;
    }
    connection.execute_batch("COMMIT")?;
    let used = connection_status(&connection, Marks::Keep)?;
    println!(
        "the cache was too small, {} times; it has {} bytes",
        used.cache_spills, used.cache
    );
    assert!(used.cache_spills > 0);
    let process = status(Marks::Keep)?;
    println!(
        "SQLite has {} bytes, had {}",
        process.memory.now, process.memory.highest
    );
    for each in database_list(&connection)? {
        println!(
            "{}: {:?}",
            each.name,
            each.file
                .and_then(|file| Some(file.file_name()?.to_owned()))
        );
    }
    Ok(())
}

/// What a crash leaves: the file, and its log with nobody who has it open.
fn leave_a_crash(app: &Path, crashed: &Path) {
    for ending in ["", "-wal"] {
        let with = |path: &Path| format!("{}{ending}", path.display());
        std::fs::copy(with(app), with(crashed)).unwrap();
    }
}

fn open_and_count(path: &Path) -> onepen::Result<i64> {
    let connection = Connection::open(path)?;
    Ok(connection.query_row("SELECT count(*) FROM a", (), |row| row.get(0))?)
}
