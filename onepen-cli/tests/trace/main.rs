//! `onepen trace`: real programs, unmodified, and what it says of them.
//!
//! Strangers that have a lock are Python programs of the test; the traced program
//! is Python (a shared SQLite), Node (`better-sqlite3`, SQLite linked in and
//! hidden) or this very file's (rusqlite, SQLite linked in).

#![cfg(target_os = "linux")]

#[path = "../common/mod.rs"]
mod common;
#[path = "../../../onepen-lock/tests/common/mod.rs"]
mod python;

mod classes;
mod cures;
mod linked_in;
mod programs;

use std::path::Path;
use std::process::{Command, Stdio};

use common::Ran;
use python::Python;
use rusqlite::Connection;
use serde_json::Value;
use tempfile::TempDir;

fn database(path: &Path, mode: &str) {
    let connection = Connection::open(path).unwrap();
    let set = format!("PRAGMA journal_mode={mode}");
    connection.query_row(&set, [], |_| Ok(())).unwrap();
    connection
        .execute_batch("CREATE TABLE t(n); INSERT INTO t VALUES (0)")
        .unwrap();
}

/// Traces a program; its report is JSON.
fn trace(command: &mut Command) -> (Ran, Value) {
    let program = command.get_program().to_owned();
    let arguments: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
    let mut traced = Command::new(env!("CARGO_BIN_EXE_onepen"));
    for (name, value) in command.get_envs() {
        traced.env(name, value.expect("set"));
    }
    let home = TempDir::new().unwrap();
    let report = home.path().join("report.json");
    let output = traced
        .args(["trace", "--json", "--output"])
        .arg(&report)
        .arg("--")
        .arg(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let ran = Ran::from(output);
    let json = std::fs::read_to_string(&report).unwrap_or_default();
    let json = serde_json::from_str(&json).unwrap_or(Value::Null);
    (ran, json)
}

const START: &str = "
import os, signal, sqlite3, sys, threading, time
path = sys.argv[1]
def connect(timeout, **more):
    return sqlite3.connect(path, isolation_level=None, timeout=timeout, **more)
def refused(c, sql):
    try: c.execute(sql).fetchall()
    except sqlite3.OperationalError as e: print(e, flush=True)
    else: raise SystemExit('it was not refused: ' + sql)
";

fn trace_python(path: &Path, program: &str) -> (Ran, Value) {
    let (ran, report) = trace(
        Command::new("python3")
            .args(["-c", &format!("{START}{program}")])
            .arg(path),
    );
    assert_eq!(ran.code, 0, "{}{}", ran.stdout, ran.stderr);
    assert_eq!(report["schema"], "onepen-trace/1");
    assert_eq!(report["dropped"], 0);
    (ran, report)
}

/// Its one row of this class.
#[track_caller]
fn row<'a>(report: &'a Value, class: &str) -> &'a Value {
    let rows = report["contentions"].as_array().expect("rows");
    let found: Vec<_> = rows.iter().filter(|it| it["class"] == class).collect();
    assert_eq!(found.len(), 1, "one {class} in {report:#}");
    assert_eq!(found[0]["guide"], format!("docs/guide/trace.md#{class}"));
    found[0]
}

/// Somebody untraced who has the write lock.
fn writer(path: &Path) -> Python {
    Python::at_gate(path, "c = connect(); c.execute('BEGIN IMMEDIATE'); gate()")
}

#[track_caller]
fn is_behind(row: &Value, holder: &Python) {
    let who = row["holders"][0]["who"].as_str().unwrap();
    assert!(
        who.contains(&format!("(pid {}, not traced)", holder.pid())),
        "{row:#}"
    );
}
