//! A serialized connection and two threads: call by call, and in sections; and
//! what SQLite says of its threading mode at each of the three moments.
//!
//! ```text
//! cargo run -p onepen --example guide_threading_modes
//! ```

use std::thread;

use onepen::Options;
use onepen::threading::{self, Mutexes, Opened, Serialized, SingleThread};
use rusqlite::Connection;

pub(crate) fn main() -> onepen::Result<()> {
    println!("compiled: {}", threading::compiled());
    println!("started:  {}", threading::default_mode()?);
    let dir = tempfile::tempdir().map_err(onepen::Error::other)?;
    for mutexes in [Mutexes::MultiThread, Mutexes::Serialized, Mutexes::Inherit] {
        let opened = threading::open(dir.path().join("app.db"), &Options::new(), mutexes)?;
        println!("opened {mutexes:?}: {}", opened.effective_mode());
        assert!(!matches!(opened, Opened::SingleThread(_)));
    }
    let refused = SingleThread::open_in_memory().unwrap_err();
    println!("opened SingleThread: {refused}\n");

    let (mine, told) = call_by_call()?;
    println!("call by call: my row has the id {mine}, and SQLite told me {told}");
    assert_ne!(mine, told);
    let (mine, told) = in_sections()?;
    println!("in sections:  my row has the id {mine}, and SQLite told me {told}");
    assert_eq!(mine, told);
    Ok(())
}

const TABLE: &str = "CREATE TABLE a(id INTEGER PRIMARY KEY, text)";
const MINE: &str = "INSERT INTO a(text) VALUES ('mine')";
const YOURS: &str = "INSERT INTO a(text) VALUES ('yours')";
const WHICH: &str = "SELECT id FROM a WHERE text = 'mine'";

/// What a C program does with a connection in serialized mode. Each call is safe.
fn call_by_call() -> onepen::Result<(i64, i64)> {
    struct Shared(Connection);
    // SAFETY: the threads below take turns, so that rusqlite, which has no lock
    // of its own, is not harmed. SQLite would not mind if they did not.
    unsafe impl Sync for Shared {}

    let connection = Connection::open_in_memory_with_flags(Serialized::flags())?;
    connection.execute_batch(TABLE)?;
    let shared = Shared(connection);
    let shared = &shared;
    shared.0.execute(MINE, ())?;
    thread::scope(|scope| scope.spawn(|| shared.0.execute(YOURS, ())).join().unwrap())?;
    let told = shared.0.last_insert_rowid();
    Ok((shared.0.query_row(WHICH, (), |row| row.get(0))?, told))
}

/// Both calls with the connection's own mutex held.
fn in_sections() -> onepen::Result<(i64, i64)> {
    let shared = Serialized::open_in_memory()?;
    shared.with(|c| Ok(c.execute_batch(TABLE)?))?;
    thread::scope(|scope| {
        let told = shared.with(|c| {
            c.execute(MINE, ())?;
            // It starts now, and has to wait until this section ends.
            scope.spawn(|| shared.with(|c| Ok(c.execute(YOURS, ())?)));
            Ok(c.last_insert_rowid())
        })?;
        let mine = shared.with(|c| Ok(c.query_row(WHICH, (), |row| row.get(0))?))?;
        Ok((mine, told))
    })
}
