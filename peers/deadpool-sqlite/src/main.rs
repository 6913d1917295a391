//! The async pool: `deadpool-sqlite` on tokio, as its README says.
//!
//! What was chosen: the pool's own defaults (two connections per core, no
//! timeout for waiting for one), tokio's default runtime, pragmas in a
//! `post_create` hook, the statement cached in the connection
//! (`prepare_cached`), WAL switched on once before the pool exists,
//! `synchronous` as asked, and a busy timeout of five seconds. A single INSERT
//! outside of BEGIN takes the write lock at its first step, so there is no
//! lock upgrade that IMMEDIATE would avoid.

use deadpool_sqlite::rusqlite::{self, Connection};
use deadpool_sqlite::{Config, Hook, HookError, Pool, Runtime};
use peer_harness::{Args, BUSY_TIMEOUT_MS, COUNT, CREATE_TABLE, INSERT, Race, class_of, payload};

type Failure = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let args = Args::parse();
    let first = Connection::open(args.database())?;
    first.execute_batch("PRAGMA journal_mode=WAL")?;
    first.execute_batch(CREATE_TABLE)?;
    drop(first);

    let init = format!(
        "PRAGMA busy_timeout={BUSY_TIMEOUT_MS}; PRAGMA synchronous={};",
        args.durability.pragma()
    );
    let pool = Config::new(args.database())
        .builder(Runtime::Tokio1)?
        .post_create(Hook::async_fn(move |connection, _| {
            let init = init.clone();
            Box::pin(async move {
                connection
                    .interact(move |c| c.execute_batch(&init))
                    .await
                    .map_err(|error| HookError::message(error.to_string()))?
                    .map_err(HookError::Backend)
            })
        }))
        .build()?;

    let race: &Race = Box::leak(Box::new(Race::new(&args)));
    let mut tasks = Vec::new();
    for client in 0..args.clients {
        let pool = pool.clone();
        tasks.push(tokio::spawn(async move {
            let payload = payload(client);
            let mut lap = race.enter_async().await;
            while let Some(n) = lap.next() {
                lap.finished(insert(&pool, client, n, &payload).await.map_err(class_of));
            }
        }));
    }
    for task in tasks {
        task.await?;
    }

    let report = race.report("deadpool-sqlite");
    let (rows, mode, synchronous): (i64, String, i64) = pool
        .get()
        .await?
        .interact(|c| -> rusqlite::Result<_> {
            let mode = c.query_row("PRAGMA journal_mode", [], |row| row.get(0))?;
            let synchronous = c.query_row("PRAGMA synchronous", [], |row| row.get(0))?;
            let rows = c.query_row(COUNT, [], |row| row.get(0))?;
            Ok((rows, mode, synchronous))
        })
        .await
        .map_err(|error| error.to_string())??;
    report
        .checked(rows, rusqlite::version(), &mode, synchronous)
        .print();
    Ok(())
}

async fn insert(pool: &Pool, client: usize, n: i64, payload: &str) -> Result<(), Failure> {
    let connection = pool.get().await?;
    let payload = payload.to_owned();
    connection
        .interact(move |c| {
            c.prepare_cached(INSERT)?
                .execute((client as i64, n, payload))
        })
        .await
        .map_err(|error| error.to_string())??;
    Ok(())
}
