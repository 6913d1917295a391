//! `onepen doctor`: every finding is provoked by real processes and files, and a
//! healthy database has none.

#![cfg(target_os = "linux")]

#[path = "../common/mod.rs"]
mod common;
#[path = "../../../onepen-lock/tests/common/mod.rs"]
mod python;

mod files;
mod libraries;
mod looking;
mod transactions;

use std::path::Path;
use std::process::Command;

use common::{Ran, json, onepen};
use python::Python;
use serde_json::Value;

fn doctor(path: &Path) -> Ran {
    let path = path.to_str().expect("a path of letters");
    onepen(&["doctor", path, "--for", "500ms", "--json"])
}

/// Its one finding of this name.
#[track_caller]
fn finding(ran: &Ran, name: &str) -> Value {
    assert_eq!(ran.code, 1, "{}{}", ran.stdout, ran.stderr);
    let report = json(ran);
    let findings = report["findings"].as_array().unwrap();
    let found: Vec<_> = findings.iter().filter(|it| it["name"] == name).collect();
    assert_eq!(found.len(), 1, "one {name} in {report:#}");
    assert_eq!(
        found[0]["guide"],
        format!("docs/guide/who-holds-the-lock.md#{name}")
    );
    found[0].clone()
}

#[track_caller]
fn says(finding: &Value, parts: &[&str]) {
    let evidence = finding["evidence"].as_str().unwrap();
    for part in parts {
        assert!(evidence.contains(part), "`{part}` is missing: {evidence}");
    }
}

#[track_caller]
fn is_about(finding: &Value, process: &Python) {
    assert_eq!(finding["pids"], serde_json::json!([process.pid()]));
    says(finding, &[&format!("python3 (pid {})", process.pid())]);
}

fn names(ran: &Ran) -> Vec<String> {
    let report = json(ran);
    let findings = report["findings"].as_array().unwrap().iter();
    findings
        .map(|it| it["name"].as_str().unwrap().to_owned())
        .collect()
}

fn may(command: &str) -> bool {
    let tried = Command::new("sh").args(["-c", command]).output().unwrap();
    if !tried.status.success() {
        eprintln!("this system does not allow `{command}`: not tested here");
    }
    tried.status.success()
}
