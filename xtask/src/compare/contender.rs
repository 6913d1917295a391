//! Builds the contenders, runs one of them once, and judges whether what it
//! says about itself is what it was asked for.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::Failure;
use super::plan::{Contender, Program, Section};
use super::postgres::Postgres;

/// How one run of one contender ended.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// Its figures, which hold together.
    Ran(Value),
    /// Its figures, and why they must not be believed.
    Wrong(Value, String),
    /// It did not run, and why.
    Skipped(String),
}

/// The executables of all packages that the chosen sections need.
pub struct Built(BTreeMap<(&'static str, String), PathBuf>);

impl Built {
    /// Builds the packages one after another: each brings its own SQLite, and
    /// two such builds at once only slow each other down.
    pub fn new(root: &Path, sections: &[Section]) -> Result<Self, Failure> {
        let packages: BTreeSet<&'static str> = sections
            .iter()
            .flat_map(|section| &section.contenders)
            .filter_map(|contender| match contender.program {
                Program::Peer { package, .. } => Some(package),
                Program::Pgbench { .. } => None,
            })
            .collect();
        let mut built = BTreeMap::new();
        for package in packages {
            let manifest = root.join("peers").join(package).join("Cargo.toml");
            eprintln!("building peers/{package}");
            let output = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
                .args(["build", "--release", "--locked", "--bins", "--quiet"])
                .arg("--message-format=json-render-diagnostics")
                .arg("--manifest-path")
                .arg(&manifest)
                // Cargo's settings for the package of this program are not
                // meant for another package.
                .env_remove("CARGO_MANIFEST_DIR")
                .stderr(Stdio::inherit())
                .output()?;
            if !output.status.success() {
                return Err(format!("peers/{package} does not build").into());
            }
            for line in String::from_utf8(output.stdout)?.lines() {
                let message: Value = serde_json::from_str(line)?;
                if let Some(executable) = message["executable"].as_str() {
                    let name = message["target"]["name"].as_str().unwrap_or_default();
                    built.insert((package, name.to_owned()), PathBuf::from(executable));
                }
            }
        }
        Ok(Self(built))
    }

    fn executable(&self, package: &'static str, binary: &str) -> Result<&Path, Failure> {
        match self.0.get(&(package, binary.to_owned())) {
            Some(path) => Ok(path),
            None => Err(format!("peers/{package} has no binary `{binary}`").into()),
        }
    }
}

/// The directory of this comparison, which is removed with everything in it.
pub struct Place(PathBuf);

impl Place {
    /// Makes a directory below `base`.
    pub fn new(base: &Path) -> Result<Self, Failure> {
        let dir = base.join(format!("run-{}", std::process::id()));
        std::fs::create_dir_all(&dir)
            .map_err(|error| format!("cannot create {}: {error}", dir.display()))?;
        Ok(Self(dir.canonicalize()?))
    }

    pub fn dir(&self) -> &Path {
        &self.0
    }

    /// An empty directory for one run.
    fn fresh(&self) -> Result<PathBuf, Failure> {
        let dir = self.0.join("contender");
        if dir.exists() {
            std::fs::remove_dir_all(&dir)?;
        }
        std::fs::create_dir(&dir)?;
        Ok(dir)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // Nothing can be done about what cannot be removed; the next run has
        // another name.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// One run. An error is a contender that broke.
pub fn run(
    contender: &Contender,
    section: &Section,
    place: &Place,
    built: &Built,
    postgres: Option<&Result<Postgres, String>>,
) -> Result<Outcome, Failure> {
    match &contender.program {
        Program::Peer {
            package,
            binary,
            arguments,
        } => {
            let executable = built.executable(package, binary)?;
            let dir = place.fresh()?;
            // What the one before left to be written back is not this one's
            // affair. Without the program (it is in coreutils) it still runs.
            let _ = Command::new("sync").arg("-f").arg(&dir).status();
            let output = output_within(
                Command::new(executable)
                    .arg("--dir")
                    .arg(&dir)
                    .args(["--warmup", &section.warmup.to_string()])
                    .args(["--seconds", &section.seconds.to_string()])
                    .args(arguments),
                Duration::from_secs_f64(section.warmup + section.seconds) + PATIENCE,
            )?;
            std::fs::remove_dir_all(&dir)?;
            let report: Value = serde_json::from_str(&output)
                .map_err(|error| format!("its answer is no JSON: {error}"))?;
            Ok(judge(report))
        }
        Program::Pgbench { clients } => match postgres {
            Some(Ok(server)) => Ok(judge(server.pgbench(*clients, section.seconds)?)),
            Some(Err(reason)) => Ok(Outcome::Skipped(reason.clone())),
            None => Ok(Outcome::Skipped("not started".to_owned())),
        },
    }
}

/// How long a contender may take for opening, closing and the clients that are
/// still waiting when its time is over (a busy timeout is five seconds, and a
/// pool's is thirty).
const PATIENCE: Duration = Duration::from_secs(60);

/// What the program printed, if it ended well and in time.
fn output_within(command: &mut Command, time: Duration) -> Result<String, Failure> {
    let start = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()?;
    // One line: it fits into the pipe, so nobody has to read while we wait.
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if start.elapsed() > time {
            child.kill()?;
            child.wait()?;
            return Err(format!("it was stopped after {:.0} s", time.as_secs_f64()).into());
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let mut output = String::new();
    child
        .stdout
        .take()
        .expect("it was piped")
        .read_to_string(&mut output)?;
    if !status.success() {
        return Err(format!("it ended with {status}").into());
    }
    Ok(output)
}

/// Whether a report holds together: the file has as many rows as were
/// acknowledged, a reader read what it asked for, and SQLite's settings were
/// the ones asked for.
fn judge(report: Value) -> Outcome {
    let mut wrong = Vec::new();
    let reads = report["way"].is_string();
    if reads {
        if report["errors"]
            .as_object()
            .is_none_or(|errors| !errors.is_empty())
        {
            wrong.push(format!("errors while reading: {}", report["errors"]));
        }
    } else if !report["transactions"].is_null() && report["rows"] != report["transactions"] {
        wrong.push(format!(
            "{} acknowledged, {} rows in the file",
            report["transactions"], report["rows"]
        ));
    }
    if !report["sqlite"].is_null() {
        if report["journal_mode"] != "wal" {
            wrong.push(format!("journal_mode is {}", report["journal_mode"]));
        }
        let asked = match report["durability"].as_str() {
            Some("FULL") => 2,
            Some("NORMAL") => 1,
            _ => -1,
        };
        if !reads && report["synchronous"] != asked {
            wrong.push(format!("synchronous is {}", report["synchronous"]));
        }
    }
    if wrong.is_empty() {
        Outcome::Ran(report)
    } else {
        Outcome::Wrong(report, wrong.join("; "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn report(transactions: u64, rows: u64, synchronous: u64) -> Value {
        json!({"transactions": transactions, "rows": rows, "durability": "FULL", "sqlite": "3",
            "journal_mode": "wal", "synchronous": synchronous, "errors": {}})
    }

    #[test]
    fn a_contender_that_hangs_or_fails_is_an_error() {
        let run = |script: &str, time| output_within(Command::new("sh").args(["-c", script]), time);
        let long = Duration::from_secs(60);
        assert_eq!(run("echo 1", long).unwrap(), "1\n");
        assert!(
            run("echo 1; exit 3", long)
                .unwrap_err()
                .to_string()
                .contains('3')
        );
        let stopped = run("exec sleep 1000", Duration::ZERO).unwrap_err();
        assert!(stopped.to_string().contains("stopped"), "{stopped}");
    }

    #[test]
    fn a_lost_row_is_wrong() {
        assert!(matches!(judge(report(5, 5, 2)), Outcome::Ran(_)));
        assert!(matches!(judge(report(5, 4, 2)), Outcome::Wrong(_, why) if why.contains("4 rows")));
        assert!(matches!(judge(report(4, 5, 2)), Outcome::Wrong(..)));
    }

    #[test]
    fn another_durability_than_asked_is_wrong() {
        assert!(
            matches!(judge(report(5, 5, 1)), Outcome::Wrong(_, why) if why.contains("synchronous"))
        );
    }

    #[test]
    fn a_read_that_brought_another_row_is_wrong() {
        let mut value = report(5, 10_000, 2);
        value["way"] = json!("one");
        assert!(matches!(judge(value.clone()), Outcome::Ran(_)));
        value["errors"] = json!({"wrong row": 1});
        assert!(matches!(judge(value), Outcome::Wrong(..)));
    }
}
