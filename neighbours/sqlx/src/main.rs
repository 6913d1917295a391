//! sqlx and onepen on the same file, in the same process, over the same SQLite.
//!
//! To onepen, sqlx's connections are strangers: it waits for their locks within
//! its deadline and they wait for its own within their busy timeout. With a write
//! permit neither meets the other's lock: the second part gives sqlx no busy
//! timeout at all, so that anything it met would end this program.

use std::path::Path;
use std::time::Duration;

use onepen::Database;
use onepen::blocks::{Shared, WritePermit};
use onepen::threading::{MultiThread, ThreadingMode, effective_mode};
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool};

type Failure = Box<dyn std::error::Error>;

const ROWS: i64 = 100;
const INSERT: &str = "INSERT INTO a VALUES (?1)";

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("app.db");
    let db = Database::open(&path)?;
    db.execute("CREATE TABLE a(n INTEGER NOT NULL)", ())?;

    waiting_as_strangers_do(&db, &path).await?;
    with_the_permit(&db, &path).await?;
    the_blocks_over_the_same_file(&db, &path).await?;

    db.close();
    println!("sqlx and onepen, SQLite {}", rusqlite::version());
    Ok(())
}

async fn rows(db: &Database) -> onepen::Result<i64> {
    db.read_async(|tx| tx.query_row("SELECT count(*) FROM a", (), |row| row.get(0)))
        .await
}

async fn waiting_as_strangers_do(db: &Database, path: &Path) -> Result<(), Failure> {
    let pool = SqlitePool::connect_with(SqliteConnectOptions::new().filename(path)).await?;
    for n in 0..ROWS {
        db.execute_async(INSERT, (n,)).await?;
        sqlx::query(INSERT).bind(n).execute(&pool).await?;
    }
    let by_sqlx: i64 = sqlx::query_scalar("SELECT count(*) FROM a")
        .fetch_one(&pool)
        .await?;
    assert_eq!((by_sqlx, rows(db).await?), (2 * ROWS, 2 * ROWS));
    pool.close().await;
    Ok(())
}

async fn with_the_permit(db: &Database, path: &Path) -> Result<(), Failure> {
    let impatient = SqliteConnectOptions::new()
        .filename(path)
        .busy_timeout(Duration::ZERO);
    let pool = SqlitePool::connect_with(impatient).await?;
    let permit = WritePermit::of(path)?;
    let before = rows(db).await?;

    // What it is for: while somebody has the turn, sqlx without it is locked out.
    let turn = permit.take_async().await?;
    let mut holder = pool.acquire().await?;
    sqlx::query("BEGIN IMMEDIATE").execute(&mut *holder).await?;
    let met = sqlx::query(INSERT)
        .bind(0)
        .execute(&pool)
        .await
        .expect_err("locked");
    assert!(met.to_string().contains("database is locked"), "{met}");
    sqlx::query("ROLLBACK").execute(&mut *holder).await?;
    drop(holder);
    drop(turn);

    let mut tasks = Vec::new();
    for _ in 0..4 {
        let (pool, permit, db) = (pool.clone(), permit.clone(), db.clone());
        tasks.push(tokio::spawn(async move {
            for n in 0..ROWS {
                let _turn = permit
                    .take_async()
                    .await
                    .map_err(|error| error.to_string())?;
                let mut tx = pool.begin().await.map_err(|error| error.to_string())?;
                let done = sqlx::query(INSERT).bind(n).execute(&mut *tx).await;
                done.map_err(|error| error.to_string())?;
                tx.commit().await.map_err(|error| error.to_string())?;
            }
            Ok::<_, String>(())
        }));
        tasks.push(tokio::spawn(async move {
            for n in 0..ROWS {
                let done = db.execute_async(INSERT, (n,)).await;
                done.map_err(|error| error.to_string())?;
            }
            Ok(())
        }));
    }
    for task in tasks {
        task.await??;
    }
    assert_eq!(rows(db).await?, before + 8 * ROWS);
    pool.close().await;
    Ok(())
}

/// A connection that threads share under the same permit, beside all of them.
async fn the_blocks_over_the_same_file(db: &Database, path: &Path) -> Result<(), Failure> {
    let before = rows(db).await?;
    let own = MultiThread::open(path)?;
    assert_eq!(effective_mode(&own), ThreadingMode::MultiThread);
    let shared = Shared::new(own.into_inner()).under(WritePermit::of(path)?);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|n| {
                scope.spawn({
                    let shared = shared.clone();
                    move || shared.write(|tx| tx.execute(INSERT, (n,)))
                })
            })
            .collect();
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().expect("no panic").map(drop))
    })?;
    assert_eq!(rows(db).await?, before + 4);
    Ok(())
}
