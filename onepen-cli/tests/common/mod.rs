//! Runs the command and reads what it says.

#![allow(dead_code, reason = "each test binary uses its part")]

use std::process::{Command, Output};

/// What a run of the command left.
pub struct Ran {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().expect("the command ended by itself"),
            stdout: String::from_utf8(output.stdout).expect("the report is text"),
            stderr: String::from_utf8(output.stderr).expect("messages are text"),
        }
    }
}

/// Runs `onepen` to its end.
pub fn onepen(arguments: &[&str]) -> Ran {
    let output = Command::new(env!("CARGO_BIN_EXE_onepen"))
        .args(arguments)
        // Where a user's settings must not reach.
        .env_remove("NO_COLOR")
        .output();
    output.expect("the command starts").into()
}

/// A run of the benchmark that is over soon.
pub fn quick(arguments: &[&str]) -> Ran {
    let short = [
        "bench",
        "--json",
        "--rounds",
        "1",
        "--duration",
        "50ms",
        "--threads",
        "2",
        "--tasks",
        "4",
    ];
    onepen(&[&short, arguments].concat())
}

/// Its report.
pub fn json(ran: &Ran) -> serde_json::Value {
    serde_json::from_str(&ran.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}\n{}", ran.stdout, ran.stderr))
}

/// A file of the examples.
pub fn example(name: &str) -> String {
    format!("{}/examples/{name}", env!("CARGO_MANIFEST_DIR"))
}
