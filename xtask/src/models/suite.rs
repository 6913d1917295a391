//! Builds the library for one model, runs its scenarios, reads what they say.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::Failure;

/// Tests that are built into one program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tests {
    pub package: &'static str,
    /// In its `tests`; `None` is the library itself.
    pub target: Option<&'static str>,
}

/// The scenarios.
const SCENARIOS: Tests = Tests {
    package: "onepen",
    target: None,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Model {
    /// No model: std's threads and the machine's own schedules.
    Plain,
    Loom,
    Shuttle,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub enum Strength {
    Quick,
    #[default]
    Usual,
    Long,
}

/// For one whole suite.
const LIMIT: Duration = Duration::from_secs(3600);

/// For one scenario of a long run. Two run at a time on two processors, so the
/// seventy of both suites end within an hour even if none is done before.
const LONG_SCENARIO: Duration = Duration::from_secs(60);

pub struct Scenario {
    pub name: String,
    passed: bool,
    explored: Option<Explored>,
}

#[derive(Clone, Copy)]
struct Explored {
    schedules: u64,
    seconds: f64,
    /// There would have been more.
    cut_off: bool,
}

pub struct Report {
    pub model: Model,
    pub scenarios: Vec<Scenario>,
    pub output: String,
    took: Duration,
    ended_well: bool,
}

impl Model {
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "std",
            Self::Loom => "loom",
            Self::Shuttle => "shuttle",
        }
    }

    /// Builds `tests` under this model, and says where they are. `root` is the
    /// workspace, `target` where everyday work builds.
    ///
    /// Flags change what every dependency is built with, so each model keeps
    /// its results apart from those of everyday work.
    pub fn build(self, root: &Path, target: &Path, tests: Tests) -> Result<PathBuf, Failure> {
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo
            .args(["test", "--quiet", "--no-run", "--package", tests.package])
            .arg("--message-format=json-render-diagnostics")
            .current_dir(root)
            .stdin(Stdio::null());
        match tests.target {
            None => cargo.arg("--lib"),
            Some(name) => cargo.args(["--test", name]),
        };
        let target = match self {
            Self::Plain => target.to_path_buf(),
            Self::Loom | Self::Shuttle => target.join("models").join(self.name()),
        };
        // Both, or a build directory that somebody has set for all their work
        // would be used.
        cargo.env("CARGO_TARGET_DIR", &target);
        cargo.env("CARGO_BUILD_BUILD_DIR", &target);
        if self != Self::Plain {
            cargo
                .env("RUSTFLAGS", format!("--cfg onepen_{}", self.name()))
                // A thousand times through the same code: worth optimising. Checks
                // stay on. Lines of a backtrace are worth less than the time that
                // they take to build.
                .env("CARGO_PROFILE_DEV_OPT_LEVEL", "1")
                .env("CARGO_PROFILE_DEV_DEBUG", "0");
        }
        let built = cargo
            .output()
            .map_err(|error| format!("cargo does not start: {error}"))?;
        if !built.status.success() {
            let said = String::from_utf8_lossy(&built.stderr);
            return Err(
                format!("the library does not build under {}:\n{said}", self.name()).into(),
            );
        }
        String::from_utf8_lossy(&built.stdout)
            .lines()
            .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
            .filter(|message| message["profile"]["test"] == true)
            .find_map(|message| message["executable"].as_str().map(PathBuf::from))
            .ok_or_else(|| "cargo built no tests".into())
    }
}

/// The directory of the workspace this very program was built from.
pub fn root() -> Result<PathBuf, Failure> {
    let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = xtask.parent().ok_or("xtask is not inside a workspace")?;
    Ok(root.to_path_buf())
}

pub fn run(
    model: Model,
    strength: Strength,
    seed: Option<u64>,
    filter: &str,
) -> Result<Report, Failure> {
    let root = root()?;
    let since = Instant::now();
    eprintln!("{}: building …", model.name());
    let mut tests = Command::new(model.build(&root, &root.join("target"), SCENARIOS)?);
    match (model, strength) {
        (Model::Loom, Strength::Long) => drop(tests.env("ONEPEN_MODEL_PREEMPTIONS", "4")),
        (Model::Shuttle, Strength::Quick) => drop(tests.env("ONEPEN_MODEL_PERCENT", "10")),
        (Model::Shuttle, Strength::Long) => drop(tests.env("ONEPEN_MODEL_PERCENT", "3000")),
        _ => {}
    }
    if strength == Strength::Long {
        tests.env("ONEPEN_MODEL_SECONDS", LONG_SCENARIO.as_secs().to_string());
    }
    if let Some(seed) = seed {
        tests.env("ONEPEN_MODEL_SEED", seed.to_string());
    }
    eprintln!("{}: running …", model.name());
    tests.arg(if filter.is_empty() {
        "models::"
    } else {
        filter
    });
    let again = copy_of(&tests);
    tests.arg("--show-output");
    let mut ended = 0;
    let (ended_well, mut output) = watch(tests, LIMIT, |line| {
        if strength == Strength::Long && line.starts_with("test ") && line.contains(" ... ") {
            ended += 1;
            let so_far = since.elapsed().as_secs();
            eprintln!("{}: {so_far:4} s, {ended:2}: {line}", model.name());
        }
    })?;
    if !output.contains("\ntest result:") {
        // A blocked caller whose scenario fails aborts the process rather than
        // leave its closure behind, and takes the captured output with it.
        eprintln!("{}: aborted; running once more, uncaptured …", model.name());
        let mut again = again;
        again.args(["--nocapture", "--test-threads=1"]);
        output = watch(again, LIMIT, |_| {})?.1;
    }
    let report = Report {
        model,
        scenarios: scenarios(&output),
        took: since.elapsed(),
        ended_well: ended_well == Some(true),
        output,
    };
    if report.scenarios.is_empty() && report.ended_well {
        return Err(format!("no scenario is called `{filter}`").into());
    }
    Ok(report)
}

/// The same program with the same arguments and environment.
fn copy_of(command: &Command) -> Command {
    let mut copy = Command::new(command.get_program());
    copy.args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => copy.env(name, value),
            None => copy.env_remove(name),
        };
    }
    copy
}

/// Runs `command` to its end, or kills it when it takes longer than `limit`.
/// Says whether it succeeded (`None`: killed) and what it printed, of which
/// `hear` is told each line when it comes.
pub fn watch(
    mut command: Command,
    limit: Duration,
    mut hear: impl FnMut(&str) + Send,
) -> Result<(Option<bool>, String), Failure> {
    let (reads, writes) = std::io::pipe()?;
    let mut child = command
        .stdout(writes.try_clone()?)
        .stderr(writes)
        .spawn()
        .map_err(|error| format!("the tests do not start: {error}"))?;
    drop(command); // it holds the other end of the pipe
    std::thread::scope(|scope| {
        let reader = scope.spawn(move || -> std::io::Result<String> {
            let (mut output, mut line) = (String::new(), Vec::new());
            let mut reads = BufReader::new(reads);
            while reads.read_until(b'\n', &mut line)? > 0 {
                let text = String::from_utf8_lossy(&line);
                hear(text.trim_end());
                output.push_str(&text);
                line.clear();
            }
            Ok(output)
        });
        let since = Instant::now();
        let ended = loop {
            if let Some(status) = child.try_wait()? {
                break Some(status.success());
            }
            if since.elapsed() > limit {
                // With whomever it has started, if it leads a group: they have the
                // pipe, too.
                #[cfg(unix)]
                let _ = Command::new("kill")
                    .args(["-9", "--", &format!("-{}", child.id())])
                    .status();
                let _ = child.kill();
                child.wait()?;
                break None;
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        match reader.join() {
            Ok(output) => Ok((ended, output?)),
            Err(_) => Err("the reader of a child's output panicked".into()),
        }
    })
}

/// `test NAME ... ok` says how it ended; `model: NAME: N schedules in S s`, how
/// far it went.
fn scenarios(output: &str) -> Vec<Scenario> {
    let mut scenarios: Vec<Scenario> = Vec::new();
    let mut explored = Vec::new();
    for line in output.lines() {
        if let Some((name, verdict)) = line
            .strip_prefix("test ")
            .and_then(|line| line.split_once(" ... "))
        {
            scenarios.push(Scenario {
                name: short(name).to_owned(),
                passed: verdict == "ok",
                explored: None,
            });
        }
        if let Some((name, said)) = line
            .strip_prefix("model: ")
            .and_then(|line| line.split_once(": "))
        {
            let mut words = said.split(' ');
            let schedules = words.next().and_then(|word| word.parse().ok());
            let seconds = words.nth(2).and_then(|word| word.parse().ok());
            let read = schedules.zip(seconds).map(|(schedules, seconds)| Explored {
                schedules,
                seconds,
                cut_off: said.ends_with("cut off"),
            });
            explored.push((short(name).to_owned(), read));
        }
    }
    for scenario in &mut scenarios {
        let said = explored.iter().find(|(name, _)| *name == scenario.name);
        scenario.explored = said.and_then(|(_, explored)| *explored);
    }
    scenarios
}

fn short(name: &str) -> &str {
    name.strip_prefix("models::").unwrap_or(name)
}

impl Report {
    pub fn failed(&self) -> bool {
        !self.ended_well || self.scenarios.iter().any(|scenario| !scenario.passed)
    }

    pub fn cell(&self, name: &str) -> String {
        match self.scenarios.iter().find(|found| found.name == name) {
            None => "-".into(),
            Some(Scenario { passed: false, .. }) => "FAILED".into(),
            Some(Scenario { explored: None, .. }) => "ok".into(),
            Some(Scenario {
                explored: Some(explored),
                ..
            }) => {
                let more = if explored.cut_off { "+" } else { "" };
                let (schedules, seconds) = (explored.schedules, explored.seconds);
                format!("{schedules}{more} in {seconds:.2} s")
            }
        }
    }

    pub fn summary(&self) -> String {
        let schedules: u64 = self
            .scenarios
            .iter()
            .filter_map(|scenario| scenario.explored)
            .map(|explored| explored.schedules)
            .sum();
        format!(
            "{}: {} scenarios, {schedules} schedules, {:.1} s with building: {}",
            self.model.name(),
            self.scenarios.len(),
            self.took.as_secs_f64(),
            if self.failed() {
                "FAILED"
            } else {
                "all passed"
            },
        )
    }
}
