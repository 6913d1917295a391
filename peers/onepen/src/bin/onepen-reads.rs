//! One row by key through onepen: a single statement (`--way one`), or a
//! closure over one snapshot (`--way closure`). Defaults, one handle shared by
//! all clients.

use onepen::Database;
use peer_harness::{Args, Race, class_of};
use peer_onepen::{Failure, Keys, SELECT, close_onepen, fill, judge, open_onepen};

fn main() -> Result<(), Failure> {
    let args = Args::parse();
    let read: fn(&Database, i64) -> onepen::Result<i64> = match args.way.as_deref() {
        Some("one") => one,
        Some("closure") => closure,
        other => return Err(format!("--way one|closure, not {other:?}").into()),
    };
    fill(&args)?;

    let database = open_onepen(&args)?;
    let race = Race::new(&args);
    std::thread::scope(|scope| {
        for client in 0..args.clients {
            let (race, database) = (&race, &database);
            scope.spawn(move || {
                let mut keys = Keys::new(client);
                let mut lap = race.enter();
                while lap.next().is_some() {
                    let id = keys.draw();
                    lap.finished(judge(id, read(database, id).map_err(class_of)));
                }
            });
        }
    });
    let report = race.report("onepen").with("way", &args.way);
    close_onepen(report, &database, &args)?.print();
    Ok(())
}

fn one(database: &Database, id: i64) -> onepen::Result<i64> {
    database.query_row(SELECT, (id,), |row| row.get(0))
}

fn closure(database: &Database, id: i64) -> onepen::Result<i64> {
    database.read(|tx| tx.query_row(SELECT, (id,), |row| row.get(0)))
}
