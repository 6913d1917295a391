//! What a careful user writes by hand around rusqlite, for one thread alone:
//! BEGIN IMMEDIATE, INSERT, COMMIT, all three cached (`prepare_cached`). With
//! several threads each has such a connection of its own.

use peer_harness::{Args, INSERT, Race, class_of, payload};
use peer_onepen::{Failure, checked, create_table, raw_writer};
use rusqlite::{Connection, Result};

fn main() -> Result<(), Failure> {
    let args = Args::parse();
    let first = raw_writer(&args)?;
    create_table(&first)?;

    let race = Race::new(&args);
    let mut clients = Vec::new();
    for _ in 0..args.clients {
        clients.push(raw_writer(&args)?);
    }
    std::thread::scope(|scope| {
        for (client, connection) in clients.into_iter().enumerate() {
            let race = &race;
            scope.spawn(move || {
                let payload = payload(client);
                let mut lap = race.enter();
                while let Some(n) = lap.next() {
                    lap.finished(insert(&connection, client, n, &payload).map_err(class_of));
                }
            });
        }
    });
    checked(race.report("raw"), &first)?.print();
    Ok(())
}

fn insert(connection: &Connection, client: usize, n: i64, payload: &str) -> Result<()> {
    connection.prepare_cached("BEGIN IMMEDIATE")?.execute(())?;
    let written = connection
        .prepare_cached(INSERT)
        .and_then(|mut statement| statement.execute((client as i64, n, payload)))
        .and_then(|_| connection.prepare_cached("COMMIT")?.execute(()));
    if let Err(error) = written {
        connection.execute_batch("ROLLBACK")?;
        return Err(error);
    }
    Ok(())
}
