//! diesel and onepen on the same file, in the same process, over the same SQLite.
//!
//! To onepen, diesel's connections are strangers: it waits for their locks within
//! its deadline. diesel itself waits for nothing unless told to. With onepen's
//! blocks neither meets the other's lock: here diesel has no busy timeout at all,
//! so that anything it met would end this program.

use std::time::Duration;

use diesel::prelude::*;
use diesel::r2d2::{ConnectionManager, CustomizeConnection, Pool};
use diesel::sql_query;
use diesel::sql_types::BigInt;
use onepen::Database;
use onepen::blocks::{PerThread, WritePermit};

type Failure = Box<dyn std::error::Error>;

const ROWS: i64 = 100;

#[derive(QueryableByName)]
struct Count {
    #[diesel(sql_type = BigInt)]
    n: i64,
}

fn main() -> Result<(), Failure> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("app.db");
    let db = Database::open(&path)?;
    db.execute("CREATE TABLE a(n INTEGER NOT NULL)", ())?;
    let url = path.to_str().ok_or("the path is not UTF-8")?;

    waiting_as_strangers_do(&db, url)?;
    without_the_permit(&db, url)?;
    a_pool_of_r2d2_with_the_permit(&db, url)?;
    a_connection_for_each_thread_with_the_permit(&db, url)?;

    db.close();
    println!("diesel and onepen, SQLite {}", rusqlite::version());
    Ok(())
}

fn rows(db: &Database) -> onepen::Result<i64> {
    db.query_row("SELECT count(*) FROM a", (), |row| row.get(0))
}

fn insert(diesel: &mut SqliteConnection, n: i64) -> QueryResult<usize> {
    diesel.immediate_transaction(|diesel| {
        sql_query("INSERT INTO a VALUES (?)")
            .bind::<BigInt, _>(n)
            .execute(diesel)
    })
}

/// In turns, on one thread, and with a busy timeout.
fn waiting_as_strangers_do(db: &Database, url: &str) -> Result<(), Failure> {
    let mut diesel = SqliteConnection::establish(url)?;
    sql_query("PRAGMA busy_timeout = 5000").execute(&mut diesel)?;
    for n in 0..ROWS {
        db.execute("INSERT INTO a VALUES (?1)", (n,))?;
        insert(&mut diesel, n)?;
    }
    let by_diesel = sql_query("SELECT count(*) AS n FROM a")
        .get_result::<Count>(&mut diesel)?
        .n;
    assert_eq!((by_diesel, rows(db)?), (2 * ROWS, 2 * ROWS));
    Ok(())
}

/// What the permit is for: onepen is writing, diesel wants to.
fn without_the_permit(db: &Database, url: &str) -> Result<(), Failure> {
    let mut diesel = SqliteConnection::establish(url)?;
    let met = db.write_once(|_tx| Ok(insert(&mut diesel, 0)))?;
    let met = met.expect_err("onepen has the write lock").to_string();
    assert!(met.contains("database is locked"), "{met}");
    Ok(())
}

/// diesel's own pool, with its own customiser.
fn a_pool_of_r2d2_with_the_permit(db: &Database, url: &str) -> Result<(), Failure> {
    #[derive(Debug)]
    struct NeverWait;
    impl CustomizeConnection<SqliteConnection, diesel::r2d2::Error> for NeverWait {
        fn on_acquire(&self, diesel: &mut SqliteConnection) -> Result<(), diesel::r2d2::Error> {
            sql_query("PRAGMA busy_timeout = 0")
                .execute(diesel)
                .map(drop)
                .map_err(diesel::r2d2::Error::QueryError)
        }
    }
    let pool = Pool::builder()
        .max_size(4)
        .connection_customizer(Box::new(NeverWait))
        .build(ConnectionManager::<SqliteConnection>::new(url))?;
    let permit = WritePermit::of(url)?;
    let before = rows(db)?;
    beside_each_other(db, |n| {
        let mut diesel = pool.get().map_err(onepen::Error::other)?;
        permit.hold(|| insert(&mut diesel, n).map_err(onepen::Error::other))
    })?;
    assert_eq!(rows(db)?, before + 8 * ROWS);
    Ok(())
}

/// onepen's block around diesel's connections.
fn a_connection_for_each_thread_with_the_permit(db: &Database, url: &str) -> Result<(), Failure> {
    let file = url.to_owned();
    let diesel =
        PerThread::new(move || SqliteConnection::establish(&file).map_err(onepen::Error::other));
    let permit = WritePermit::of(url)?.wait(onepen::blocks::Wait::at_most(Duration::from_secs(60)));
    let before = rows(db)?;
    beside_each_other(db, |n| {
        diesel.with(|diesel| permit.hold(|| insert(diesel, n).map_err(onepen::Error::other)))
    })?;
    assert_eq!(rows(db)?, before + 8 * ROWS);
    assert_eq!(
        (diesel.opened(), diesel.open()),
        (4, 0),
        "closed with their threads"
    );
    Ok(())
}

/// Four threads of diesel's and four of onepen's, all of them writing.
fn beside_each_other(
    db: &Database,
    by_diesel: impl Fn(i64) -> onepen::Result<usize> + Sync,
) -> onepen::Result<()> {
    std::thread::scope(|scope| {
        let mut threads = Vec::new();
        for _ in 0..4 {
            threads.push(scope.spawn(|| (0..ROWS).try_for_each(|n| by_diesel(n).map(drop))));
            threads.push(scope.spawn(|| {
                let insert = "INSERT INTO a VALUES (?1)";
                (0..ROWS).try_for_each(|n| db.execute(insert, (n,)).map(drop))
            }));
        }
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().expect("no panic"))
    })
}
