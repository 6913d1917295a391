//! The owner thread: `tokio-rusqlite`, as its documentation says.
//!
//! What was chosen: one connection, cloned for every task (its own design: a
//! clone is a handle to the same thread), tokio's default runtime, the
//! statement cached in the connection (`prepare_cached`), WAL, `synchronous`
//! as asked, and a busy timeout of five seconds that is never needed.

use peer_harness::{Args, BUSY_TIMEOUT_MS, COUNT, CREATE_TABLE, INSERT, Race, class_of, payload};
use tokio_rusqlite::{Connection, rusqlite};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let args = Args::parse();
    let connection = Connection::open(args.database()).await?;
    let init = format!(
        "PRAGMA busy_timeout={BUSY_TIMEOUT_MS};
         PRAGMA journal_mode=WAL;
         PRAGMA synchronous={};
         {CREATE_TABLE}",
        args.durability.pragma()
    );
    connection.call(move |c| c.execute_batch(&init)).await?;

    let race: &Race = Box::leak(Box::new(Race::new(&args)));
    let mut tasks = Vec::new();
    for client in 0..args.clients {
        let connection = connection.clone();
        tasks.push(tokio::spawn(async move {
            let payload = payload(client);
            let mut lap = race.enter_async().await;
            while let Some(n) = lap.next() {
                let payload = payload.clone();
                let outcome = connection
                    .call(move |c| {
                        c.prepare_cached(INSERT)?
                            .execute((client as i64, n, payload))
                    })
                    .await;
                lap.finished(outcome.map(drop).map_err(class_of));
            }
        }));
    }
    for task in tasks {
        task.await?;
    }

    let report = race.report("tokio-rusqlite");
    let (rows, mode, synchronous): (i64, String, i64) = connection
        .call(|c| -> rusqlite::Result<_> {
            let mode = c.query_row("PRAGMA journal_mode", [], |row| row.get(0))?;
            let synchronous = c.query_row("PRAGMA synchronous", [], |row| row.get(0))?;
            let rows = c.query_row(COUNT, [], |row| row.get(0))?;
            Ok((rows, mode, synchronous))
        })
        .await?;
    report
        .checked(rows, rusqlite::version(), &mode, synchronous)
        .print();
    Ok(())
}
