//! sqlx and onepen on the same file, in the same process, over the same SQLite.
//!
//! To onepen, sqlx's connections are strangers: it waits for their locks within
//! its deadline and they wait for its own within their busy timeout.

use sqlx::sqlite::{SqliteConnectOptions, SqlitePool};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("app.db");

    let db = onepen::Database::open(&path)?;
    db.execute("CREATE TABLE a(n INTEGER NOT NULL)", ())?;
    let pool = SqlitePool::connect_with(SqliteConnectOptions::new().filename(&path)).await?;

    for n in 0..100 {
        db.execute_async("INSERT INTO a VALUES (?1)", (n,)).await?;
        sqlx::query("INSERT INTO a VALUES (?1)").bind(n).execute(&pool).await?;
    }
    let by_sqlx: i64 = sqlx::query_scalar("SELECT count(*) FROM a").fetch_one(&pool).await?;
    let by_onepen: i64 = db.query_row("SELECT count(*) FROM a", (), |row| row.get(0))?;
    assert_eq!((by_sqlx, by_onepen), (200, 200));

    pool.close().await;
    db.close();
    println!("200 rows, half by sqlx and half by onepen, SQLite {}", rusqlite::version());
    Ok(())
}
