//! A running program: it says `ready`, starts when told, and reports one line.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdout, Command, Stdio};

use serde_json::Value;

use super::place::{Place, Run};
use super::{Failure, Way};

/// Killed when dropped.
pub struct Worker {
    process: Child,
    output: BufReader<ChildStdout>,
}

/// What several of one program reported, together.
#[derive(Clone, Debug, Default)]
pub struct Report {
    pub done: u64,
    pub errors: u64,
    /// What was said most often.
    pub said: Option<String>,
    pub seconds: f64,
    pub longest_ms: f64,
    pub p99_ms: f64,
}

impl Worker {
    pub fn start(command: &mut Command) -> Result<Self, Failure> {
        let mut process = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("{command:?}: {error}"))?;
        let output = BufReader::new(process.stdout.take().ok_or("no pipe")?);
        Ok(Self { process, output })
    }

    pub fn hear(&mut self) -> Result<String, Failure> {
        let mut line = String::new();
        if self.output.read_line(&mut line)? == 0 {
            return Err("a program ended early; what it said is above".into());
        }
        Ok(line.trim().to_owned())
    }

    pub fn hear_ready(&mut self) -> Result<(), Failure> {
        match self.hear()?.as_str() {
            "ready" => Ok(()),
            other => Err(format!("a program said: {other}").into()),
        }
    }

    pub fn tell(&mut self, line: &str) -> Result<(), Failure> {
        let input = self.process.stdin.as_mut().ok_or("no pipe")?;
        Ok(writeln!(input, "{line}")?)
    }

    /// SIGKILL, and waits until it is dead.
    pub fn kill(&mut self) -> Result<(), Failure> {
        self.process.kill()?;
        self.process.wait()?;
        Ok(())
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Several programs together: each that many times, with the words after its database.
/// They are ready before the first starts.
pub fn together(
    place: &Place,
    run: &Run,
    way: Way,
    programs: &[(&str, usize, &[String])],
) -> Result<Vec<Report>, Failure> {
    let mut kinds = Vec::new();
    for (program, processes, words) in programs {
        let mut workers = Vec::new();
        for _ in 0..*processes {
            let mut command = place.program(program, way);
            let mut worker = Worker::start(command.arg(run.database()).args(*words))?;
            worker.hear_ready()?;
            workers.push(worker);
        }
        kinds.push(workers);
    }
    for worker in kinds.iter_mut().flatten() {
        worker.tell("go")?;
    }
    let mut reports = Vec::new();
    for workers in &mut kinds {
        let told = workers
            .iter_mut()
            .map(|worker| Ok(serde_json::from_str(&worker.hear()?)?))
            .collect::<Result<Vec<Value>, Failure>>()?;
        reports.push(Report::of(&told)?);
    }
    Ok(reports)
}

impl Report {
    fn of(told: &[Value]) -> Result<Self, Failure> {
        let mut report = Self::default();
        let mut said = std::collections::BTreeMap::<&str, u64>::new();
        for each in told {
            let number = |name: &str| each[name].as_f64().ok_or(format!("no `{name}` in {each}"));
            report.done += number("done")? as u64;
            report.seconds = report.seconds.max(number("seconds")?);
            report.longest_ms = report.longest_ms.max(number("longest_ms")?);
            report.p99_ms = report.p99_ms.max(number("p99_ms")?);
            for (text, times) in each["errors"].as_object().ok_or("no `errors`")? {
                *said.entry(text).or_default() += times.as_u64().ok_or("not a count")?;
            }
        }
        report.errors = said.values().sum();
        let most = said.into_iter().max_by_key(|(_, times)| *times);
        report.said = most.map(|(text, _)| text.to_owned());
        Ok(report)
    }

    pub fn per_second(&self) -> f64 {
        self.done as f64 / self.seconds
    }

    /// Of a hundred transactions.
    pub fn failed(&self) -> f64 {
        100.0 * self.errors as f64 / (self.done + self.errors).max(1) as f64
    }
}
