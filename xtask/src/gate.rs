//! `cargo xtask gate`: processes that write to one database as fast as they can,
//! in turns at the gate, and over plain connections with SQLite's `busy_timeout`.
//!
//! The two alternate within one run, on databases of their own on the same disk,
//! and what is told are medians. The processes are
//! `onepen/examples/between_processes.rs`.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

type Failure = Box<dyn std::error::Error>;

const USAGE: &str = "\
usage: cargo xtask gate [options] [FILTER]

  --runs N       how often each row is measured with each way (5)
  --seconds S    how long each of those lasts (2)
  --dir DIR      where the databases are made (target/gate)
  --alone        also onepen without the gate
  --json FILE    all that was measured, as JSON
  --kills N      instead: kills N writers at random moments, and demands that the
                 next goes on within 100 ms and that nothing acknowledged is lost
  FILTER         only rows whose name contains it

Ends with 1 when a row does not reach what it must.
";

/// One line of the table.
struct Row {
    name: &'static str,
    processes: usize,
    threads: usize,
    full: bool,
    held_us: u32,
    must: Must,
}

/// What the gate has to reach, against `busy_timeout`.
struct Must {
    /// Writes of the slowest process, of those of the fastest.
    share: f64,
    /// Milliseconds.
    longest_wait: Option<f64>,
    /// Throughput, of that of `busy_timeout`.
    throughput: f64,
}

const fn row(
    name: &'static str,
    processes: usize,
    threads: usize,
    full: bool,
    held_us: u32,
    throughput: f64,
) -> Row {
    let tiny_normal = held_us == 0 && !full;
    Row {
        name,
        processes,
        threads,
        full,
        held_us,
        must: Must {
            share: if tiny_normal { 0.85 } else { 0.9 },
            longest_wait: if processes == 4 && threads == 1 {
                Some(25.0)
            } else {
                None
            },
            throughput,
        },
    }
}

const ROWS: &[Row] = &[
    row("4 processes, tiny, NORMAL", 4, 1, false, 0, 0.8),
    row("8 processes, tiny, NORMAL", 8, 1, false, 0, 0.8),
    row("4 processes, tiny, FULL", 4, 1, true, 0, 0.95),
    row("8 processes, tiny, FULL", 8, 1, true, 0, 0.95),
    row("4 processes, held 1 ms, NORMAL", 4, 1, false, 1000, 0.95),
    row("8 processes, held 1 ms, NORMAL", 8, 1, false, 1000, 0.95),
    row("4 processes, held 1 ms, FULL", 4, 1, true, 1000, 0.95),
    row("8 processes, held 1 ms, FULL", 8, 1, true, 1000, 0.95),
    row("4 processes of 4 threads, tiny, FULL", 4, 4, true, 0, 1.0),
    row(
        "4 processes of 4 threads, tiny, NORMAL",
        4,
        4,
        false,
        0,
        1.0,
    ),
];

struct Options {
    runs: usize,
    seconds: f64,
    dir: PathBuf,
    ways: Vec<&'static str>,
    json: Option<PathBuf>,
    kills: Option<u32>,
    filter: String,
}

/// What one way did in one run of a row.
#[derive(Clone, Copy)]
struct Ran {
    per_second: f64,
    share: f64,
    longest_ms: f64,
    p99_ms: f64,
    errors: u64,
}

/// Runs the verb with the words after it.
pub fn main(words: Vec<String>) -> Result<(), Failure> {
    let Some(options) = parse(words)? else {
        print!("{USAGE}");
        return Ok(());
    };
    if let Some(kills) = options.kills {
        return kill(kills);
    }
    let program = build()?;
    std::fs::create_dir_all(&options.dir)?;
    println!(
        "medians of {} runs of {} s each; waits in ms; in brackets the worst run",
        options.runs, options.seconds
    );
    let (mut reached, mut told) = (true, Vec::new());
    for row in ROWS.iter().filter(|row| row.name.contains(&options.filter)) {
        let mut ran = vec![Vec::new(); options.ways.len()];
        for run in 0..options.runs {
            for turn in 0..options.ways.len() {
                // Who begins changes with every run.
                let way = (turn + run) % options.ways.len();
                ran[way].push(measure(&program, row, options.ways[way], &options)?);
            }
        }
        println!("\n{}", row.name);
        for (way, runs) in options.ways.iter().zip(&ran) {
            println!(
                "  {way:12} {:>9.0} writes/s   slowest/fastest {:.3} ({:.3})   longest wait {:>8.1} \
                 ({:.1})   p99 {:.2}   errors {}",
                median(runs, |ran| ran.per_second),
                median(runs, |ran| ran.share),
                runs.iter().map(|ran| ran.share).fold(f64::MAX, f64::min),
                median(runs, |ran| ran.longest_ms),
                runs.iter().map(|ran| ran.longest_ms).fold(0.0, f64::max),
                median(runs, |ran| ran.p99_ms),
                runs.iter().map(|ran| ran.errors).sum::<u64>(),
            );
        }
        let ratios: Vec<f64> = ran[0]
            .iter()
            .zip(&ran[1])
            .map(|(gate, busy)| gate.per_second / busy.per_second)
            .collect();
        let ratio = middle(ratios);
        let failures = failures(row, &ran[0], ratio);
        println!(
            "  throughput {ratio:.2} of busy_timeout's   {}",
            if failures.is_empty() {
                "reached".to_owned()
            } else {
                format!("NOT REACHED: {}", failures.join("; "))
            }
        );
        reached &= failures.is_empty();
        told.push(as_json(row, &options.ways, &ran, ratio, &failures));
    }
    if let Some(path) = &options.json {
        let all = json!({ "runs": options.runs, "seconds": options.seconds, "rows": told });
        std::fs::write(path, serde_json::to_string_pretty(&all)? + "\n")?;
    }
    if reached {
        Ok(())
    } else {
        Err("not everything was reached".into())
    }
}

fn failures(row: &Row, gate: &[Ran], ratio: f64) -> Vec<String> {
    let mut failures = Vec::new();
    let share = median(gate, |ran| ran.share);
    if share < row.must.share {
        failures.push(format!("share {share:.3} < {}", row.must.share));
    }
    let longest = median(gate, |ran| ran.longest_ms);
    if let Some(most) = row.must.longest_wait
        && longest > most
    {
        failures.push(format!("longest wait {longest:.1} ms > {most} ms"));
    }
    if ratio < row.must.throughput {
        failures.push(format!("throughput {ratio:.2} < {}", row.must.throughput));
    }
    if gate.iter().any(|ran| ran.errors > 0) {
        failures.push("errors".to_owned());
    }
    failures
}

fn as_json(row: &Row, ways: &[&str], ran: &[Vec<Ran>], ratio: f64, failures: &[String]) -> Value {
    let ways: Vec<_> = ways
        .iter()
        .zip(ran)
        .map(|(way, runs)| {
            let each = |of: fn(&Ran) -> f64| runs.iter().map(of).collect::<Vec<_>>();
            json!({
                "way": way,
                "writes_per_second": each(|ran| ran.per_second),
                "slowest_of_fastest": each(|ran| ran.share),
                "longest_wait_ms": each(|ran| ran.longest_ms),
                "p99_ms": each(|ran| ran.p99_ms),
                "errors": runs.iter().map(|ran| ran.errors).sum::<u64>(),
            })
        })
        .collect();
    json!({
        "row": row.name,
        "processes": row.processes,
        "threads": row.threads,
        "synchronous": synchronous(row),
        "held_us": row.held_us,
        "ways": ways,
        "throughput_of_busy_timeout": ratio,
        "not_reached": failures,
    })
}

fn synchronous(row: &Row) -> &'static str {
    if row.full { "FULL" } else { "NORMAL" }
}

fn median(runs: &[Ran], of: impl Fn(&Ran) -> f64) -> f64 {
    middle(runs.iter().map(of).collect())
}

fn middle(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// One run of one way, on a new database.
fn measure(program: &Path, row: &Row, way: &str, options: &Options) -> Result<Ran, Failure> {
    let dir = options.dir.join(format!("run-{}", std::process::id()));
    if dir.exists() {
        std::fs::remove_dir_all(&dir)?;
    }
    std::fs::create_dir(&dir)?;
    let mut workers = Vec::new();
    for _ in 0..row.processes {
        let mut worker = Worker::start(program, &dir.join("a.db"), row, way, options)?;
        // One after the other: plain connections that make a database together
        // refuse each other the change of journal, and this is not about that.
        let heard = worker.hear()?;
        if heard.trim() != "ready" {
            return Err(format!("a worker said: {heard}").into());
        }
        workers.push(worker);
    }
    for worker in &mut workers {
        writeln!(worker.process.stdin.as_mut().ok_or("no pipe")?, "go")?;
    }
    let told = workers
        .iter_mut()
        .map(|worker| Ok(serde_json::from_str(&worker.hear()?)?))
        .collect::<Result<Vec<Value>, Failure>>()?;
    drop(workers);
    std::fs::remove_dir_all(&dir)?;
    let number = |value: &Value, name: &str| value[name].as_f64().unwrap_or(f64::NAN);
    let each = |name: &'static str| told.iter().map(move |told| number(told, name));
    let (writes, most) = (each("writes"), each("writes").fold(0.0, f64::max));
    Ok(Ran {
        per_second: writes.clone().sum::<f64>() / each("seconds").fold(0.0, f64::max),
        share: writes.fold(f64::MAX, f64::min) / most,
        longest_ms: each("max_us").fold(0.0, f64::max) / 1000.0,
        p99_ms: each("p99_us").fold(0.0, f64::max) / 1000.0,
        errors: each("errors").sum::<f64>() as u64,
    })
}

struct Worker {
    process: Child,
    output: BufReader<std::process::ChildStdout>,
}

impl Worker {
    fn start(
        program: &Path,
        database: &Path,
        row: &Row,
        way: &str,
        options: &Options,
    ) -> Result<Self, Failure> {
        let mut process = Command::new(program)
            .arg(database)
            .arg(format!("way={way}"))
            .arg(format!("synchronous={}", synchronous(row)))
            .arg(format!("held_us={}", row.held_us))
            .arg(format!("threads={}", row.threads))
            .arg(format!("seconds={}", options.seconds))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let output = BufReader::new(process.stdout.take().ok_or("no pipe")?);
        Ok(Self { process, output })
    }

    fn hear(&mut self) -> Result<String, Failure> {
        let mut line = String::new();
        if self.output.read_line(&mut line)? == 0 {
            return Err("a worker ended early; what it said is above".into());
        }
        Ok(line)
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn cargo() -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(root());
    cargo
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn build() -> Result<PathBuf, Failure> {
    let built = cargo()
        .args(["build", "--release", "-p", "onepen"])
        .args(["--example", "between_processes"])
        .status()?;
    if !built.success() {
        return Err("the example `between_processes` does not build".into());
    }
    let target = std::env::var_os("CARGO_TARGET_DIR");
    let target = target.map_or_else(|| root().join("target"), PathBuf::from);
    Ok(target.join("release/examples/between_processes"))
}

/// The long form of the test that kills writers.
fn kill(kills: u32) -> Result<(), Failure> {
    let passed = cargo()
        .args([
            "test",
            "--release",
            "-p",
            "onepen",
            "--test",
            "gate",
            "kills",
        ])
        .args(["--", "--nocapture"])
        .env("ONEPEN_KILLS", kills.to_string())
        .status()?;
    if passed.success() {
        Ok(())
    } else {
        Err("a kill stalled the others, or lost something".into())
    }
}

fn parse(words: Vec<String>) -> Result<Option<Options>, Failure> {
    use lexopt::prelude::*;
    let mut options = Options {
        runs: 5,
        seconds: 2.0,
        dir: root().join("target/gate"),
        ways: vec!["gate", "busy_timeout"],
        json: None,
        kills: None,
        filter: String::new(),
    };
    let mut parser = lexopt::Parser::from_args(words);
    while let Some(word) = parser.next()? {
        match word {
            Long("runs") => options.runs = parser.value()?.parse::<usize>()?.max(1),
            Long("seconds") => options.seconds = parser.value()?.parse()?,
            Long("dir") => options.dir = parser.value()?.into(),
            Long("alone") => options.ways.push("alone"),
            Long("json") => options.json = Some(parser.value()?.into()),
            Long("kills") => options.kills = Some(parser.value()?.parse()?),
            Long("help") | Short('h') => return Ok(None),
            Value(filter) => options.filter = filter.string()?,
            other => return Err(other.unexpected().into()),
        }
    }
    Ok(Some(options))
}
