//! The yardstick of the asynchronous writers: one prepared INSERT repeated by
//! one thread in one single transaction. Nobody who writes rows one by one
//! through this SQLite can be faster; the commit is included.
//!
//! How long the transaction is matters: in a short one the commit weighs more,
//! and a long one writes hundreds of megabytes into the WAL before it may
//! commit. It was fastest at about one second, so that is the longest it runs:
//! the yardstick shall not be short.

use std::time::{Duration, Instant};

use peer_harness::{Args, INSERT, Report, payload};
use peer_onepen::{Failure, checked, create_table, raw_writer};

fn main() -> Result<(), Failure> {
    let args = Args::parse();
    let connection = raw_writer(&args)?;
    create_table(&connection)?;

    let time = args.time.min(Duration::from_secs(1));
    let payload = payload(0);
    let start = Instant::now();
    connection.execute_batch("BEGIN IMMEDIATE")?;
    let mut statement = connection.prepare(INSERT)?;
    let mut rows = 0_i64;
    while start.elapsed() < time {
        for _ in 0..1_000 {
            statement.execute((0_i64, rows, payload.as_str()))?;
            rows += 1;
        }
    }
    drop(statement);
    connection.execute_batch("COMMIT")?;
    let took = start.elapsed();

    let report = Report::new("raw-single-tx", &args)
        .with("tx_per_s", rows as f64 / took.as_secs_f64())
        .with("errors", serde_json::Map::new())
        .with("transactions", rows);
    checked(report, &connection)?.print();
    Ok(())
}
