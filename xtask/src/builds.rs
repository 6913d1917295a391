//! `cargo xtask builds`: the threading tests over SQLite as it can be compiled.
//!
//! `LIBSQLITE3_FLAGS` is the environment of a whole build and changes every
//! object of SQLite, so each of the three has a target directory of its own, and
//! going back and forth compiles nothing again.

use std::path::Path;
use std::process::Command;

const USAGE: &str = "\
usage: cargo xtask builds [0|1|2]...

  Compiles SQLite with SQLITE_THREADSAFE=0 (single-thread), 1 (serialized) and 2
  (multi-thread), or with those that are named, and runs the threading tests
  over each (onepen/tests/threading_modes.rs and serialized.rs).
";

/// Runs the verb with the words after it.
pub fn main(words: &[String]) -> Result<(), Box<dyn std::error::Error>> {
    let all = ["0".to_owned(), "1".to_owned(), "2".to_owned()];
    let asked = if words.is_empty() { &all } else { words };
    if words.iter().any(|word| word == "--help") {
        print!("{USAGE}");
        return Ok(());
    }
    if let Some(word) = asked.iter().find(|word| !all.contains(word)) {
        eprint!("{USAGE}");
        return Err(format!("there is no SQLITE_THREADSAFE={word}").into());
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    for number in asked {
        println!("== SQLITE_THREADSAFE={number}");
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
        cargo
            .args(["test", "--locked", "--quiet", "--manifest-path"])
            .arg(root.join("builds/threading/Cargo.toml"))
            .arg("--target-dir")
            .arg(root.join(format!("builds/threading/target/{number}")))
            .env("LIBSQLITE3_FLAGS", format!("-DSQLITE_THREADSAFE={number}"));
        let mutexes = if number == "0" {
            "without-mutexes"
        } else {
            "with-mutexes"
        };
        cargo.args(["--features", mutexes]);
        let status = cargo.status()?;
        if !status.success() {
            return Err(format!("SQLITE_THREADSAFE={number}: {status}").into());
        }
    }
    Ok(())
}
