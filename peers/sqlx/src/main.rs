//! The async SQL toolkit: `sqlx` with its SQLite driver, as its documentation
//! says.
//!
//! What was chosen: `SqlitePool` with its own defaults (10 connections, 30 s
//! to wait for one), tokio's default runtime, WAL and `synchronous` through
//! the connect options, a busy timeout of five seconds (its default), and
//! `sqlx::query` with binds, which prepares once per connection and caches. A
//! single INSERT outside of BEGIN takes the write lock at its first step, so
//! there is no lock upgrade that `begin_with("BEGIN IMMEDIATE")` would avoid,
//! and it is one round trip to the connection's thread instead of three.

use std::time::Duration;

use peer_harness::{
    Args, BUSY_TIMEOUT_MS, COUNT, CREATE_TABLE, Durability, INSERT, Race, class_of, payload,
};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let args = Args::parse();
    let options = SqliteConnectOptions::new()
        .filename(args.database())
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(match args.durability {
            Durability::Full => SqliteSynchronous::Full,
            Durability::Normal => SqliteSynchronous::Normal,
        })
        .busy_timeout(Duration::from_millis(BUSY_TIMEOUT_MS.into()));
    let pool = SqlitePoolOptions::new().connect_with(options).await?;
    sqlx::query(CREATE_TABLE).execute(&pool).await?;

    let race: &Race = Box::leak(Box::new(Race::new(&args)));
    let mut tasks = Vec::new();
    for client in 0..args.clients {
        let pool = pool.clone();
        tasks.push(tokio::spawn(async move {
            let payload = payload(client);
            let mut lap = race.enter_async().await;
            while let Some(n) = lap.next() {
                let outcome = sqlx::query(INSERT)
                    .bind(client as i64)
                    .bind(n)
                    .bind(payload.as_str())
                    .execute(&pool)
                    .await;
                lap.finished(outcome.map(drop).map_err(class_of));
            }
        }));
    }
    for task in tasks {
        task.await?;
    }

    let report = race.report("sqlx");
    let rows: i64 = sqlx::query_scalar(COUNT).fetch_one(&pool).await?;
    let version: String = sqlx::query_scalar("SELECT sqlite_version()")
        .fetch_one(&pool)
        .await?;
    let mode: String = sqlx::query_scalar("PRAGMA journal_mode")
        .fetch_one(&pool)
        .await?;
    let synchronous: i64 = sqlx::query_scalar("PRAGMA synchronous")
        .fetch_one(&pool)
        .await?;
    report.checked(rows, &version, &mode, synchronous).print();
    pool.close().await;
    Ok(())
}
