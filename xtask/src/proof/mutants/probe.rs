//! A small crate whose mutants are judged twice: by switches, and by cargo-mutants
//! with a build for each. The verdicts have to be the same.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use super::build::{Way, Workspace, count};
use super::list::{Genre, list};
use super::plan::Plan;
use super::trial::{Court, Verdict};
use super::{alone, scratch};
use crate::proof::Failure;

/// With a version of its own, as the workspaces of the core have.
fn manifest(version: &str) -> String {
    format!(
        "[workspace]\n[package]\nname = \"probe\"\nversion = \"0.0.0+{version}\"\n\
         edition = \"2024\"\n"
    )
}

/// Everything that the weaver has to know, some of it tested and some not.
const SOURCE: &str = include_str!("probe.rs.txt");

/// Runs it, unless this very program has run it already.
pub fn run_once(home: &Path) -> Result<(), Failure> {
    let mut hasher = DefaultHasher::new();
    std::fs::read(std::env::current_exe()?)?.hash(&mut hasher);
    let (program, kept) = (hasher.finish().to_string(), home.join("probe.agreed"));
    if std::fs::read_to_string(&kept).ok().as_ref() != Some(&program) {
        run(home)?;
        std::fs::write(kept, program)?;
    }
    Ok(())
}

/// Returns how many mutants were judged alike.
///
/// # Errors
/// When a verdict differs, or a kind of mutant or of verdict did not occur.
pub fn run(home: &Path) -> Result<usize, Failure> {
    let home = &home.join("probe");
    if home.exists() {
        std::fs::remove_dir_all(home)?;
    }
    let crates = ["switched", "apart"].map(|version| (home.join(version).join("probe"), version));
    for (root, version) in &crates {
        std::fs::create_dir_all(root.join("src"))?;
        std::fs::write(root.join("Cargo.toml"), manifest(version))?;
        std::fs::write(root.join("src/lib.rs"), SOURCE)?;
    }
    eprintln!("mutants: a small crate, by switches and by cargo-mutants …");
    let theirs = theirs(&crates[0].0)?;
    let [workspace, apart] = crates.map(|(root, _)| Workspace {
        root,
        target: home.join("build"),
        packages: vec!["probe".to_owned()],
        features: "",
    });
    let list = list(&workspace.root, &["src/lib.rs"])?;
    let plan = Plan::make(&workspace, list, &|_| true, 2)?;
    let court = Court {
        programs: &plan.programs,
        scratch: scratch("probe"),
    };
    let mut seen = Vec::new();
    let mut mutants: Vec<_> = plan.mutants.iter().collect();
    // First, so that what they build would be noticed by the others, if it took the
    // place of what those need.
    mutants.sort_by_key(|mutant| plan.ways[mutant.number] != Way::Apart);
    for mutant in mutants {
        let ours = match plan.ways[mutant.number] {
            Way::Unviable => Verdict::Unviable,
            Way::Apart => alone(&plan, mutant, &apart)?,
            Way::Switch => court.try_one(mutant.number, &plan.tests_of(mutant.number))?,
        };
        let word = match ours {
            Verdict::Noticed(_) | Verdict::Died(_) | Verdict::Shaky(_) => "CaughtMutant",
            Verdict::Hung(_) => "Timeout",
            Verdict::Lives(_) => "MissedMutant",
            Verdict::Unviable => "Unviable",
        };
        let their = theirs.get(&mutant.place()).map(String::as_str);
        if their != Some(word) {
            let said = their.unwrap_or("nothing");
            return Err(format!(
                "the switches say {word}, and cargo-mutants {said}: {}",
                mutant.place()
            )
            .into());
        }
        seen.push((mutant.genre, word));
    }
    for word in ["CaughtMutant", "Timeout", "MissedMutant", "Unviable"] {
        if seen.iter().all(|(_, seen)| *seen != word) {
            return Err(format!("no mutant of the small crate was {word}").into());
        }
    }
    use Genre::{Arm, Field, Guard, Operator, Returns, Unary};
    for genre in [Arm, Field, Guard, Operator, Returns, Unary] {
        for word in ["CaughtMutant", "MissedMutant"] {
            if !seen.contains(&(genre, word)) {
                return Err(format!("no {genre:?} of the small crate was {word}").into());
            }
        }
    }
    if count(&plan.ways, Way::Apart) == 0 {
        return Err("no mutant of the small crate needs a build of its own".into());
    }
    Ok(seen.len())
}

/// What cargo-mutants says, by place.
fn theirs(root: &Path) -> Result<BTreeMap<String, String>, Failure> {
    let output = Command::new("cargo")
        .args([
            "mutants",
            "--no-config",
            "--jobs=2",
            "--timeout=8",
            "--colors=never",
        ])
        .args(["--cap-lints=true", "--no-times"])
        .current_dir(root)
        .env_remove("CARGO_TARGET_DIR")
        .env_remove("CARGO_BUILD_BUILD_DIR")
        .stdin(Stdio::null())
        .output()?;
    let out = root.join("mutants.out");
    let outcomes = std::fs::read(out.join("outcomes.json")).map_err(|error| {
        let said = String::from_utf8_lossy(&output.stderr);
        format!("cargo mutants failed (cargo install --locked cargo-mutants): {error}\n{said}")
    })?;
    std::fs::remove_dir_all(out)?;
    let outcomes: Value = serde_json::from_slice(&outcomes)?;
    let outcomes = outcomes["outcomes"].as_array().ok_or("no outcomes")?;
    Ok(outcomes
        .iter()
        .filter_map(|one| {
            let name = one["scenario"]["Mutant"]["name"].as_str()?;
            Some((name.to_owned(), one["summary"].as_str()?.to_owned()))
        })
        .collect())
}
