//! This program started again, as a worker.
//!
//! Protocol, one JSON value per line: the parent sends what is to be done, the
//! worker answers as often as it likes; the end of its input tells it to end.
//! So a worker never outlives its parent for longer than it takes to notice.

use std::io::{BufRead, BufReader, Write};
use std::process::{ChildStdin, Command, Stdio};
use std::thread;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// A worker process.
pub struct Child {
    /// The process itself.
    pub process: std::process::Child,
    input: Option<ChildStdin>,
}

impl Child {
    /// Starts this program with a hidden subcommand and tells it what to do.
    /// `heard` gets every answer, or why a line was none, on a thread of its
    /// own; it is dropped when the worker's output has ended, or when it has
    /// answered `false`.
    pub fn start<A: DeserializeOwned>(
        subcommand: &str,
        what: &impl Serialize,
        mut heard: impl FnMut(Result<A, String>) -> bool + Send + 'static,
    ) -> Result<Self, String> {
        let start = || -> std::io::Result<Self> {
            let mut process = Command::new(std::env::current_exe()?)
                .arg(subcommand)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()?;
            let output = process.stdout.take().expect("it was asked for");
            let input = process.stdin.take();
            // Ends with the worker's output.
            thread::spawn(move || {
                for line in BufReader::new(output).lines() {
                    let answer = line
                        .map_err(|error| error.to_string())
                        .and_then(|line| {
                            serde_json::from_str(&line).map_err(|error| error.to_string())
                        })
                        .map_err(|why| format!("a worker's answer: {why}"));
                    if !heard(answer) {
                        return;
                    }
                }
            });
            Ok(Self { process, input })
        };
        let mut child = start().map_err(|error| format!("cannot start a worker: {error}"))?;
        let line = serde_json::to_string(what).map_err(|error| error.to_string())?;
        child.tell(&line)?;
        Ok(child)
    }

    /// Sends a line, unless it was told to end.
    pub fn tell(&mut self, line: &str) -> Result<(), String> {
        let Some(input) = &mut self.input else {
            return Ok(());
        };
        writeln!(input, "{line}").map_err(|error| format!("cannot reach a worker: {error}"))
    }

    /// Tells it to end.
    pub fn end(&mut self) {
        self.input = None;
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.end();
        let _ = self.process.wait();
    }
}

/// What the worker answers with.
pub fn say(answer: &impl Serialize) -> Result<(), String> {
    let line = serde_json::to_string(answer).map_err(|error| error.to_string())?;
    let mut output = std::io::stdout().lock();
    writeln!(output, "{line}")
        .and_then(|()| output.flush())
        .map_err(|error| error.to_string())
}
