//! Which lines of the core the tests run, by `cargo llvm-cov`; and which they do
//! not, for docs/coverage.md to argue.
//!
//! The core is what decides about a write or a read, and the gate. A line that is
//! only run in a process that is killed counts as not run: the counters of such a
//! process are lost with it.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};

use super::{Ask, Failure, Figures, Strength, root};

/// Rooms of the core, by the beginnings of their paths.
const CORE: &[&str] = &[
    "onepen/src/pen/",
    "onepen/src/tx.rs",
    "onepen/src/call.rs",
    "onepen/src/keys.rs",
    "onepen/src/keyed.rs",
    "onepen/src/sqlite.rs",
    "onepen/src/sqlite/",
    "onepen/src/raw.rs",
    "onepen/src/capi.rs",
    "onepen/src/wal.rs",
    "onepen/src/checkpoint.rs",
    "onepen/src/connection.rs",
    "onepen/src/registry.rs",
    "onepen/src/readers/",
    "onepen/src/changes/",
    "onepen/src/backup/",
    "onepen/src/blocks/",
    "onepen/src/long/",
    "onepen-lock/src/",
];

/// Not the product: what tests are made of.
const NOT: &[&str] = &["/tests/", "/tests.rs", "/models/", "/together.rs"];

/// Of the lines of each room together.
const LEAST: f64 = 90.0;

#[derive(Default)]
struct Lines {
    all: u64,
    missed: Vec<u64>,
}

impl Lines {
    fn percent(&self) -> f64 {
        if self.all == 0 {
            return 100.0;
        }
        100.0 * (self.all - self.missed.len() as u64) as f64 / self.all as f64
    }
}

/// `cargo xtask proof coverage`.
pub fn run(ask: &Ask) -> Result<Figures, Failure> {
    let mut lines = false;
    for word in &ask.words {
        match word.as_str() {
            "--lines" => lines = true,
            other => return Err(format!("`{other}` is not known here: --lines").into()),
        }
    }
    let target = root().join("target").join("proof").join("coverage");
    let cov = |arguments: &[&str]| {
        let mut cargo = Command::new("cargo");
        cargo
            .current_dir(root())
            .arg("llvm-cov")
            .args(arguments)
            .env("CARGO_LLVM_COV_TARGET_DIR", &target)
            .env("CARGO_BUILD_BUILD_DIR", target.join("llvm-cov-target"))
            .stdin(Stdio::null());
        cargo
    };
    let mut tests = cov(&["--no-report", "--ignore-run-fail"]);
    tests.args(["-p", "onepen", "-p", "onepen-lock", "--lib", "--tests"]);
    if ask.strength == Strength::Quick {
        return Err("there is no short form: coverage is of all tests".into());
    }
    let status = tests
        .status()
        .map_err(|error| format!("cargo does not start: {error}"))?;
    if !status.success() {
        return Err(
            "cargo llvm-cov failed (cargo install cargo-llvm-cov; rustup component add \
                    llvm-tools)"
                .into(),
        );
    }
    // What was written by processes that were killed in the middle of it is left out.
    let report = cov(&["report", "--lcov", "--failure-mode", "all"])
        .stderr(Stdio::inherit())
        .output()?;
    if !report.status.success() {
        return Err("cargo llvm-cov has no report".into());
    }
    let files = read(&String::from_utf8_lossy(&report.stdout));
    table(&files, lines)
}

/// Out of the format of lcov: `SF:` a file, `DA:` a line and how often it ran.
fn read(report: &str) -> BTreeMap<String, Lines> {
    let mut files: BTreeMap<String, Lines> = BTreeMap::new();
    let root = root();
    let root = root.canonicalize().unwrap_or(root);
    let mut file = String::new();
    for line in report.lines() {
        if let Some(path) = line.strip_prefix("SF:") {
            let path = path.strip_prefix(&*root.to_string_lossy()).unwrap_or(path);
            file = path.trim_start_matches('/').to_owned();
        } else if let Some((line, count)) = line
            .strip_prefix("DA:")
            .and_then(|line| line.split_once(','))
        {
            let entry = files.entry(file.clone()).or_default();
            entry.all += 1;
            if count.starts_with('0') {
                entry.missed.extend(line.parse::<u64>());
            }
        }
    }
    files.retain(|file, _| {
        CORE.iter().any(|room| file.starts_with(room)) && !NOT.iter().any(|no| file.contains(no))
    });
    files
}

fn table(files: &BTreeMap<String, Lines>, lines: bool) -> Result<Figures, Failure> {
    let mut sum = Lines::default();
    println!("| file | lines | run | not run |\n|---|---|---|---|");
    for (file, found) in files {
        println!(
            "| {file} | {} | {:.1} % | {} |",
            found.all,
            found.percent(),
            found.missed.len()
        );
        sum.all += found.all;
        sum.missed.extend(&found.missed);
    }
    println!(
        "| all | {} | {:.1} % | {} |\n",
        sum.all,
        sum.percent(),
        sum.missed.len()
    );
    if lines {
        for (file, found) in files.iter().filter(|(_, found)| !found.missed.is_empty()) {
            let text = std::fs::read_to_string(root().join(file))?;
            let text: Vec<&str> = text.lines().collect();
            println!("{file}");
            for &number in &found.missed {
                let line = text.get(number as usize - 1).unwrap_or(&"");
                println!("{number:5} {line}");
            }
        }
    }
    if sum.all == 0 {
        return Err("no line of the core is in the report".into());
    }
    if sum.percent() < LEAST {
        return Err(format!(
            "{:.1} % of the core's lines ran, not {LEAST} %",
            sum.percent()
        )
        .into());
    }
    Ok(Figures(vec![
        ("lines of the core", sum.all.to_string()),
        ("% of them run", format!("{:.1}", sum.percent())),
    ]))
}
