//! onepen's writers: `--threads` that block, or `--tasks` on tokio's default
//! runtime; `--way write` with a closure, `--way execute` with one statement.
//!
//! What was chosen: onepen's defaults, one handle shared by all clients. A
//! task hands its text over as an `Arc<str>`: like the raw contender, it does
//! not make a new text for every row.

use std::sync::Arc;

use onepen::Database;
use peer_harness::{Args, CREATE_TABLE, INSERT, Race, class_of, payload};
use peer_onepen::{Failure, close_onepen, open_onepen};

#[derive(Clone, Copy)]
enum Way {
    Write,
    Execute,
}

fn main() -> Result<(), Failure> {
    let args = Args::parse();
    let way = match args.way.as_deref() {
        Some("write") => Way::Write,
        Some("execute") => Way::Execute,
        other => return Err(format!("--way write|execute, not {other:?}").into()),
    };
    let database = open_onepen(&args)?;
    database.execute(CREATE_TABLE, ())?;

    let race = Arc::new(Race::new(&args));
    if args.tasks {
        tasks(&args, way, &database, &race)?;
    } else {
        threads(&args, way, &database, &race);
    }
    let report = race.report("onepen");
    close_onepen(report, &database, &args)?.print();
    Ok(())
}

fn threads(args: &Args, way: Way, database: &Database, race: &Race) {
    std::thread::scope(|scope| {
        for client in 0..args.clients {
            scope.spawn(move || {
                let payload = payload(client);
                let payload = payload.as_str();
                let client = client as i64;
                let mut lap = race.enter();
                while let Some(n) = lap.next() {
                    let outcome = match way {
                        Way::Write => database.write(|tx| tx.execute(INSERT, (client, n, payload))),
                        Way::Execute => database.execute(INSERT, (client, n, payload)),
                    };
                    lap.finished(outcome.map(drop).map_err(class_of));
                }
            });
        }
    });
}

fn tasks(args: &Args, way: Way, database: &Database, race: &Arc<Race>) -> Result<(), Failure> {
    // Tokio's default, as `#[tokio::main]` would make it.
    let runtime = tokio::runtime::Builder::new_multi_thread().build()?;
    runtime.block_on(async {
        let mut tasks = Vec::new();
        for client in 0..args.clients {
            let (database, race) = (database.clone(), Arc::clone(race));
            tasks.push(tokio::spawn(async move {
                let payload: Arc<str> = payload(client).into();
                let client = client as i64;
                let mut lap = race.enter_async().await;
                while let Some(n) = lap.next() {
                    let payload = Arc::clone(&payload);
                    let outcome = match way {
                        Way::Write => {
                            let insert = move |tx: &onepen::WriteTx<'_>| {
                                tx.execute(INSERT, (client, n, &payload))
                            };
                            database.write_async(insert).await
                        }
                        Way::Execute => database.execute_async(INSERT, (client, n, payload)).await,
                    };
                    lap.finished(outcome.map(drop).map_err(class_of));
                }
            }));
        }
        for task in tasks {
            task.await?;
        }
        Ok(())
    })
}
