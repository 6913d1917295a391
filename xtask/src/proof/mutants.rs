//! Every small change that `cargo mutants` can think of in the core (a function
//! that returns at once, a comparison the other way round), one at a time: is
//! there a test that fails? Those that survive are printed; docs/proof.md has an
//! argument for each that is left.

use std::process::{Command, Stdio};

use super::{Ask, Failure, Figures, Strength, root};

/// What is changed.
const CORE: &[&str] = &[
    "onepen/src/pen/*.rs",
    "onepen/src/pen/group/*.rs",
    "onepen/src/blocks/line.rs",
    "onepen/src/blocks/retry.rs",
    "onepen-lock/src/gate/queue.rs",
    "onepen-lock/src/gate/seat.rs",
    "onepen-lock/src/gate/layout.rs",
];

/// Which tests have to notice: those of the core, for the others take as long
/// and are about something else.
const TESTS: &[&str] = &["--lib", "--test=groups", "--test=waiting", "--test=gate"];

/// `cargo xtask proof mutants`.
pub fn run(ask: &Ask) -> Result<Figures, Failure> {
    let mut cargo = Command::new("cargo");
    cargo
        .current_dir(root())
        .args([
            "mutants",
            "--no-shuffle",
            "--colors=never",
            "--baseline=run",
        ])
        .args(["--package=onepen", "--package=onepen-lock"])
        .args(["--minimum-test-timeout=30", "--build-timeout=600"])
        .arg("--output")
        .arg(root().join("target").join("proof").join("mutants"));
    let mut words = ask.words.iter();
    let mut files = Vec::new();
    let mut shard = None;
    while let Some(word) = words.next() {
        let mut value = || words.next().cloned().ok_or(format!("{word} needs a value"));
        match word.as_str() {
            "--file" => files.push(value()?),
            "--shard" => shard = Some(value()?),
            other => {
                return Err(format!("`{other}` is not known here: --file, --shard K/N").into());
            }
        }
    }
    if files.is_empty() {
        files.extend(CORE.iter().map(|file| (*file).to_owned()));
    }
    for file in files {
        cargo.args(["--file", &file]);
    }
    if ask.strength == Strength::Quick {
        shard.get_or_insert_with(|| "0/20".to_owned());
    }
    if let Some(shard) = &shard {
        cargo.args(["--shard", shard]);
    }
    cargo.arg("--").args(TESTS);
    let output = cargo
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| format!("cargo does not start: {error}"))?;
    let said = String::from_utf8_lossy(&output.stdout);
    print!("{said}");
    let missed = said
        .lines()
        .filter(|line| line.starts_with("MISSED"))
        .count();
    // 0: all were noticed; 2: some were not; 3: some ended by the clock.
    match output.status.code() {
        Some(0 | 2 | 3) => {}
        _ => return Err("cargo mutants failed (cargo install cargo-mutants)".into()),
    }
    let summary = said.lines().last().unwrap_or_default().to_owned();
    if missed > 0 {
        return Err(format!("{missed} mutants live: {summary}").into());
    }
    Ok(Figures(vec![("", summary)]))
}
