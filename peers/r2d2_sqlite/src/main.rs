//! The pool way: `r2d2` with `r2d2_sqlite`, as its documentation says.
//!
//! What was chosen: the pool's own defaults (10 connections, 30 s to wait for
//! one), a connection checked out per transaction, the statement cached in the
//! connection (`prepare_cached`), WAL switched on once before the pool exists
//! (its three opening threads would race for it), `synchronous` as asked, and
//! a busy timeout of five seconds. A single INSERT outside of BEGIN takes the
//! write lock at its first step, so there is no lock upgrade that IMMEDIATE
//! would avoid, and it is one statement instead of three.
//!
//! `--way N` asks for a pool of N connections. With one for every client the
//! rate is a little higher and the answer very uneven: whoever has just
//! released SQLite's lock takes it again while all others sleep in the busy
//! handler, some of them for seconds. Both are shown beside each other.

use peer_harness::{Args, BUSY_TIMEOUT_MS, COUNT, CREATE_TABLE, INSERT, Race, class_of, payload};
use r2d2_sqlite::SqliteConnectionManager;
use r2d2_sqlite::rusqlite::{self, Connection};

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let args = Args::parse();
    let init = format!(
        "PRAGMA busy_timeout={BUSY_TIMEOUT_MS}; PRAGMA synchronous={};",
        args.durability.pragma()
    );
    let first = Connection::open(args.database())?;
    first.execute_batch("PRAGMA journal_mode=WAL")?;
    first.execute_batch(CREATE_TABLE)?;
    drop(first);

    let manager =
        SqliteConnectionManager::file(args.database()).with_init(move |c| c.execute_batch(&init));
    let pool = match args.way.as_deref() {
        None => r2d2::Pool::new(manager)?,
        Some(size) => r2d2::Pool::builder()
            .max_size(size.parse()?)
            .build(manager)?,
    };

    let race = Race::new(&args);
    std::thread::scope(|scope| {
        for client in 0..args.clients {
            let (race, pool) = (&race, &pool);
            scope.spawn(move || {
                let payload = payload(client);
                let mut lap = race.enter();
                while let Some(n) = lap.next() {
                    lap.finished(insert(pool, client, n, &payload).map_err(class_of));
                }
            });
        }
    });

    let report = race.report("r2d2_sqlite");
    let connection = pool.get()?;
    let ask = |sql: &str| connection.query_row(sql, [], |row| row.get(0));
    let mode: String = connection.query_row("PRAGMA journal_mode", [], |row| row.get(0))?;
    report
        .with("connections", pool.max_size())
        .checked(
            ask(COUNT)?,
            rusqlite::version(),
            &mode,
            ask("PRAGMA synchronous")?,
        )
        .print();
    Ok(())
}

fn insert(
    pool: &r2d2::Pool<SqliteConnectionManager>,
    client: usize,
    n: i64,
    payload: &str,
) -> Result<(), Failure> {
    let connection = pool.get()?;
    connection
        .prepare_cached(INSERT)?
        .execute((client as i64, n, payload))?;
    Ok(())
}
