//! diesel and onepen on the same file, in the same process, over the same SQLite.
//!
//! To onepen, diesel's connections are strangers: it waits for their locks within
//! its deadline. diesel itself waits for nothing unless told to, hence the pragma.

use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::BigInt;

#[derive(QueryableByName)]
struct Count {
    #[diesel(sql_type = BigInt)]
    n: i64,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("app.db");

    let db = onepen::Database::open(&path)?;
    db.execute("CREATE TABLE a(n INTEGER NOT NULL)", ())?;
    let mut diesel = SqliteConnection::establish(path.to_str().ok_or("path is not UTF-8")?)?;
    sql_query("PRAGMA busy_timeout = 5000").execute(&mut diesel)?;

    for n in 0..100_i64 {
        db.execute("INSERT INTO a VALUES (?1)", (n,))?;
        diesel.immediate_transaction(|diesel| {
            sql_query("INSERT INTO a VALUES (?)").bind::<BigInt, _>(n).execute(diesel)
        })?;
    }
    let by_diesel = sql_query("SELECT count(*) AS n FROM a").get_result::<Count>(&mut diesel)?.n;
    let by_onepen: i64 = db.query_row("SELECT count(*) FROM a", (), |row| row.get(0))?;
    assert_eq!((by_diesel, by_onepen), (200, 200));

    drop(diesel);
    db.close();
    println!("200 rows, half by diesel and half by onepen, SQLite {}", rusqlite::version());
    Ok(())
}
