//! What each building block costs, beside the same without it.
//!
//! ```text
//! cargo run --release -p onepen --example blocks_cost
//! ```
//!
//! One thread, nobody in the way: what is paid for each call. The contenders
//! take turns in every round, so that they see the same machine; printed are
//! medians over the rounds, in nanoseconds.

use std::hint::black_box;
use std::time::{Duration, Instant};

use onepen::blocks::{
    BusyHandler, Immediate, PerThread, Pool, Retry, Shared, Tracked, Transaction, WritePermit,
};
use onepen::{Database, Durability, Options};
use rusqlite::{Connection, TransactionBehavior};

const ROUND: Duration = Duration::from_millis(20);
const ROUNDS: usize = 25;
const BATCH: u32 = 64;

type Contender<'a> = (&'static str, Box<dyn FnMut() + 'a>);

fn main() -> onepen::Result<()> {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("cost.db");
    let connect = move || -> onepen::Result<Connection> {
        let connection = Connection::open(&path)?;
        connection.execute_batch(
            "PRAGMA journal_mode = wal; PRAGMA synchronous = off; PRAGMA wal_autocheckpoint = 0;
             CREATE TABLE IF NOT EXISTS t(id INTEGER PRIMARY KEY, n INTEGER);
             INSERT OR REPLACE INTO t VALUES (1, 0);",
        )?;
        Ok(connection)
    };

    // Stays open: the last one to close would take the log away.
    let _keeper = connect()?;

    // Nothing but the block itself.
    let threads = PerThread::new(connect.clone());
    let pool = Pool::new(4, connect.clone());
    let open = connect.clone();
    let permit = WritePermit::of(dir.path().join("cost.db"))?;
    let handled = connect()?;
    report(
        "the block alone",
        vec![
            (
                "opening a connection, and closing it",
                Box::new(|| drop(open().unwrap())),
            ),
            (
                "PerThread::with",
                Box::new(|| {
                    threads
                        .with(|c| Ok(black_box(&*c).is_autocommit()))
                        .map(drop)
                        .unwrap()
                }),
            ),
            (
                "Pool::get, and back",
                Box::new(|| drop(pool.get().unwrap())),
            ),
            (
                "WritePermit::take, and back",
                Box::new(|| drop(permit.take().unwrap())),
            ),
            (
                "BusyHandler::install",
                Box::new(|| {
                    let handler = BusyHandler::timeout(Duration::from_secs(5));
                    handler.install(&handled).unwrap();
                }),
            ),
        ],
    );

    const READ: &str = "SELECT n FROM t WHERE id = 1";
    let (plain, tracked) = (connect()?, Tracked::new(connect()?));
    let shared = Shared::new(connect()?);
    let mut reads = connect()?;
    let policy = Retry::new();
    report(
        "a query by key",
        vec![
            ("plain", Box::new(|| _ = black_box(query(&plain, READ)))),
            (
                "on a Tracked",
                Box::new(|| {
                    let mut statement = tracked.prepare_cached(READ).unwrap();
                    let n: i64 = statement.query_row((), |row| row.get(0)).unwrap();
                    black_box(n);
                }),
            ),
            (
                "with Retry::statement",
                Box::new(|| {
                    let run = |c: &Connection| {
                        c.prepare_cached(READ)?
                            .query_row((), |row| row.get::<_, i64>(0))
                    };
                    black_box(policy.statement(&plain, run).unwrap());
                }),
            ),
            (
                "plain, BEGIN … COMMIT",
                Box::new(|| {
                    let tx = reads.transaction().unwrap();
                    black_box(query(&tx, READ));
                    tx.commit().unwrap();
                }),
            ),
            (
                "Shared::read",
                Box::new(|| {
                    let n = shared.read(|tx| tx.query_row(READ, (), |row| row.get::<_, i64>(0)));
                    black_box(n.unwrap());
                }),
            ),
        ],
    );

    const WRITE: &str = "UPDATE t SET n = n + 1 WHERE id = 1";
    let (mut rusqlites, mut ours, mut retried) = (connect()?, connect()?, connect()?);
    let mut turns = connect()?;
    let update = |connection: &Connection| {
        let mut statement = connection.prepare_cached(WRITE).unwrap();
        statement.execute(()).unwrap()
    };
    report(
        "a write transaction (synchronous = OFF: what is left is SQLite's and ours)",
        vec![
            (
                "rusqlite's Transaction",
                Box::new(|| {
                    let tx = rusqlites
                        .transaction_with_behavior(TransactionBehavior::Immediate)
                        .unwrap();
                    update(&tx);
                    tx.commit().unwrap();
                }),
            ),
            (
                "Transaction::<Immediate>",
                Box::new(|| {
                    let tx = Transaction::<Immediate>::begin(&mut ours).unwrap();
                    update(tx.connection());
                    tx.commit().unwrap();
                }),
            ),
            (
                "the same in a WritePermit",
                Box::new(|| {
                    let _turn = permit.take().unwrap();
                    let tx = Transaction::<Immediate>::begin(&mut turns).unwrap();
                    update(tx.connection());
                    tx.commit().unwrap();
                }),
            ),
            (
                "Retry::transaction",
                Box::new(|| {
                    policy
                        .transaction::<Immediate, _>(&mut retried, |tx| Ok(update(tx.connection())))
                        .unwrap();
                }),
            ),
            (
                "Shared::write",
                Box::new(|| _ = shared.write(|tx| Ok(update(tx.connection()))).unwrap()),
            ),
        ],
    );

    let home = tempfile::tempdir().expect("a temporary directory");
    let db = Options::new()
        .durability(Durability::Normal)
        .open(home.path().join("app.db"))?;
    db.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, n INTEGER)", ())?;
    db.execute("INSERT INTO t VALUES (1, 0)", ())?;
    report(
        "the pen takes the same turns",
        vec![(
            "Database::write, synchronous = NORMAL",
            Box::new(|| _ = black_box(write(&db, WRITE))),
        )],
    );
    Ok(())
}

fn query(connection: &Connection, sql: &str) -> i64 {
    let mut statement = connection.prepare_cached(sql).unwrap();
    statement.query_row((), |row| row.get(0)).unwrap()
}

fn write(db: &Database, sql: &str) -> usize {
    db.write(|tx| tx.execute(sql, ())).unwrap()
}

fn report(title: &str, mut contenders: Vec<Contender<'_>>) {
    let mut times = vec![Vec::with_capacity(ROUNDS); contenders.len()];
    for _ in 0..ROUNDS {
        for ((_, run), times) in contenders.iter_mut().zip(&mut times) {
            let (since, mut calls) = (Instant::now(), 0);
            while since.elapsed() < ROUND {
                for _ in 0..BATCH {
                    run();
                }
                calls += BATCH;
            }
            times.push(since.elapsed().as_nanos() / u128::from(calls));
        }
    }
    println!("{title:60}{:>8}", "ns");
    for ((name, _), times) in contenders.iter().zip(&mut times) {
        times.sort_unstable();
        println!("  {name:58}{:>8}", times[times.len() / 2]);
    }
    println!();
}
