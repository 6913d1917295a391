//! One row by key on a raw connection per thread: in autocommit (`--way one`),
//! or in a read transaction (`--way closure`: BEGIN, the statement, COMMIT),
//! everything cached. These are the statements that onepen's reads run, too.
//!
//! What to expect: a read takes and gives back a shared lock of the WAL index,
//! and while no other connection of the process holds the same lock that is
//! two system calls under one mutex per file (`unixShmLock` in SQLite's
//! os_unix.c). Two threads meet at that mutex and sleep there, so that two raw
//! readers bring 1.2 to 1.5 times what one brings.

use peer_harness::{Args, Race, class_of};
use peer_onepen::{Failure, Keys, SELECT, checked, fill, judge, raw_writer};
use rusqlite::{Connection, OpenFlags, Result};

fn main() -> Result<(), Failure> {
    let args = Args::parse();
    let read: fn(&Connection, i64) -> Result<i64> = match args.way.as_deref() {
        Some("one") => one,
        Some("closure") => in_a_transaction,
        other => return Err(format!("--way one|closure, not {other:?}").into()),
    };
    fill(&args)?;

    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let race = Race::new(&args);
    let mut clients = Vec::new();
    for _ in 0..args.clients {
        clients.push(Connection::open_with_flags(args.database(), flags)?);
    }
    std::thread::scope(|scope| {
        for (client, connection) in clients.into_iter().enumerate() {
            let race = &race;
            scope.spawn(move || {
                let mut keys = Keys::new(client);
                let mut lap = race.enter();
                while lap.next().is_some() {
                    let id = keys.draw();
                    lap.finished(judge(id, read(&connection, id).map_err(class_of)));
                }
            });
        }
    });
    let report = race.report("raw").with("way", &args.way);
    checked(report, &raw_writer(&args)?)?.print();
    Ok(())
}

fn one(connection: &Connection, id: i64) -> Result<i64> {
    connection
        .prepare_cached(SELECT)?
        .query_row((id,), |row| row.get(0))
}

fn in_a_transaction(connection: &Connection, id: i64) -> Result<i64> {
    connection.prepare_cached("BEGIN")?.execute(())?;
    let value = one(connection, id);
    connection.prepare_cached("COMMIT")?.execute(())?;
    value
}
