//! What each threading mode costs per call.
//!
//! Run with `cargo run --release -p onepen --example threading_cost`. The smallest
//! thing one can ask of SQLite is measured (a prepared `SELECT 1`, stepped and
//! reset), so that the mutexes have the largest share they can have; and a read
//! of one row by its key. The modes take turns, in processes of their own, because
//! single-thread mode is a decision for a whole process. The fastest round counts:
//! whatever else the machine does can only make one slower.

use std::process::Command;
use std::time::Instant;

use onepen::rusqlite::{CachedStatement, Connection};
use onepen::threading::{self, MultiThread, Serialized, SingleThread, ThreadingMode};
use onepen::{Error, Result};

const CALLS: u32 = 100_000;
const ROUNDS: usize = 20;
const MODES: [&str; 4] = ["single-thread", "multi-thread", "serialized", "in sections"];

fn main() -> Result<()> {
    if let Some(mode) = std::env::args().nth(1) {
        return child(&mode);
    }
    println!(
        "compiled: {}; SQLite {}; fastest of {ROUNDS} rounds of {CALLS} calls, ns per call\n",
        threading::compiled(),
        onepen::rusqlite::version()
    );
    let mut found = [const { (Vec::new(), Vec::new()) }; MODES.len()];
    for _ in 0..ROUNDS {
        for (mode, (smallest, row)) in MODES.iter().zip(&mut found) {
            let output = Command::new(std::env::current_exe().map_err(Error::other)?)
                .arg(mode)
                .output()
                .map_err(Error::other)?;
            let text = String::from_utf8_lossy(&output.stdout);
            let numbers: Vec<f64> = text
                .split_whitespace()
                .filter_map(|n| n.parse().ok())
                .collect();
            let [one, two] = numbers[..] else {
                let why = String::from_utf8_lossy(&output.stderr).into_owned();
                return Err(Error::other(format!("{mode}: {why}")));
            };
            smallest.push(one);
            row.push(two);
        }
    }
    println!("{:15} {:>9} {:>12}", "", "SELECT 1", "row by key");
    for (mode, (smallest, row)) in MODES.iter().zip(&found) {
        println!("{mode:15} {:9.0} {:12.0}", fastest(smallest), fastest(row));
    }
    println!(
        "\nserialized: every call takes the connection's mutex. in sections: one `Serialized::with` \
         around each query, which is what makes sharing sound."
    );
    Ok(())
}

fn fastest(numbers: &[f64]) -> f64 {
    numbers.iter().copied().fold(f64::INFINITY, f64::min)
}

fn child(mode: &str) -> Result<()> {
    if mode == "single-thread" {
        // SAFETY: this process has one thread.
        unsafe { threading::configure_single_thread()? };
        let connection = SingleThread::open_in_memory()?;
        assert_eq!(
            threading::effective_mode(&connection),
            ThreadingMode::SingleThread
        );
        return measure(|section| section(&connection));
    }
    if mode == "multi-thread" {
        let connection = MultiThread::open_in_memory()?;
        return measure(|section| section(&connection));
    }
    let connection = Serialized::open_in_memory()?;
    assert_eq!(connection.effective_mode(), ThreadingMode::Serialized);
    if mode == "in sections" {
        return measure(|section| connection.with(|c| section(c)));
    }
    // One section around everything: the calls alone.
    connection.with(|c| measure(|section| section(c)))
}

type Section<'a> = &'a mut dyn FnMut(&Connection) -> Result<()>;

fn measure(run: impl Fn(Section<'_>) -> Result<()>) -> Result<()> {
    run(&mut |c| {
        c.execute_batch(
            "CREATE TABLE a(id INTEGER PRIMARY KEY, n);
             WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t LIMIT 1000)
             INSERT INTO a(n) SELECT n FROM t",
        )?;
        Ok(())
    })?;
    let smallest = time(|_| {
        run(&mut |c| {
            let mut statement = c.prepare_cached("SELECT 1")?;
            one(&mut statement, None)
        })
    })?;
    let row = time(|n| {
        run(&mut |c| {
            let mut statement = c.prepare_cached("SELECT n FROM a WHERE id = ?1")?;
            one(&mut statement, Some(i64::from(n % 1000 + 1)))
        })
    })?;
    println!("{smallest} {row}");
    Ok(())
}

fn one(statement: &mut CachedStatement<'_>, key: Option<i64>) -> Result<()> {
    let n: i64 = match key {
        None => statement.query_row((), |row| row.get(0))?,
        Some(key) => statement.query_row((key,), |row| row.get(0))?,
    };
    assert!(n > 0);
    Ok(())
}

fn time(mut call: impl FnMut(u32) -> Result<()>) -> Result<f64> {
    for n in 0..CALLS / 10 {
        call(n)?;
    }
    let since = Instant::now();
    for n in 0..CALLS {
        call(n)?;
    }
    Ok(since.elapsed().as_secs_f64() * 1e9 / f64::from(CALLS))
}
