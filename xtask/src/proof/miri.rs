//! The part of the project that calls no C, interpreted by Miri: undefined
//! behaviour, data races under weak memory, and leaks, in several schedules.
//!
//! What runs: the pen over the fake engine with its borrowed closures
//! (`pen/borrowed`, the one place of the pen with `unsafe`), the slots of the
//! readers, the line of the blocks and permits; the gate's page in memory, with
//! threads in the place of processes (`gate::together`). Miri runs no C, so nothing in which SQLite takes part. Rooms without
//! any `unsafe` and without threads (the history checkers, the parsers of the
//! kernel's lists) have nothing that it could find, and are left out.

use std::process::{Command, Stdio};

use super::{Ask, Failure, Figures, Strength, root};

struct Part {
    package: &'static str,
    /// As `cargo miri test` selects what to build.
    target: &'static [&'static str],
    filters: &'static [&'static str],
    /// Those of the short form, and in how many schedules.
    quick: &'static [&'static str],
    quick_seeds: u64,
}

const PARTS: &[Part] = &[
    Part {
        package: "onepen",
        target: &["--lib"],
        filters: &[
            "models::handover",
            "models::crowd",
            "models::groups",
            "models::queued",
            "models::line",
            "models::slots",
            "models::turns",
        ],
        quick: &["models::handover", "models::slots", "models::turns"],
        quick_seeds: 1,
    },
    Part {
        package: "onepen-lock",
        target: &["--lib"],
        filters: &[
            "gate::layout",
            "gate::notes",
            "gate::observer",
            "gate::text",
            "gate::together",
        ],
        quick: &["gate::layout", "gate::text", "gate::together"],
        quick_seeds: 8,
    },
];

/// What starts the process's timer thread, which never ends: a leak to Miri.
const SKIPPED: &[&str] = &["a_deadline_and_a_permit_that_comes_back"];

/// `cargo xtask proof miri`.
pub fn run(ask: &Ask) -> Result<Figures, Failure> {
    if let Some(word) = ask.words.first() {
        return Err(format!("`{word}` is not known here").into());
    }
    let first = ask.seed.unwrap_or(0);
    let (mut passed, mut schedules) = (0, 0);
    for part in PARTS {
        let seeds = match ask.strength {
            Strength::Quick => part.quick_seeds,
            Strength::Usual => 8,
            Strength::Long => 64,
        };
        let filters = match ask.strength {
            Strength::Quick => part.quick,
            Strength::Usual | Strength::Long => part.filters,
        };
        if !filters.is_empty() {
            let tests = one(part, filters, first, seeds)?;
            passed += tests;
            schedules += tests * seeds;
        }
    }
    Ok(Figures(vec![
        ("tests run to their end", passed.to_string()),
        ("schedules of them", schedules.to_string()),
    ]))
}

fn one(part: &Part, filters: &[&str], first: u64, seeds: u64) -> Result<u64, Failure> {
    let Part {
        package, target, ..
    } = part;
    let directory = root().join("target").join("proof").join("miri");
    let flags = format!(
        "-Zmiri-disable-isolation -Zmiri-permissive-provenance -Zmiri-many-seeds={first}..{}",
        first + seeds
    );
    // Not through `$CARGO`, which is the one of another toolchain.
    let mut cargo = Command::new("cargo");
    cargo
        .current_dir(root())
        .args(["+nightly", "miri", "test", "--package", package])
        .args(*target)
        .arg("--")
        .args(filters);
    for skipped in SKIPPED {
        cargo.args(["--skip", skipped]);
    }
    let output = cargo
        .env("MIRIFLAGS", flags)
        .env("CARGO_TARGET_DIR", &directory)
        .env("CARGO_BUILD_BUILD_DIR", &directory)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| format!("cargo +nightly does not start: {error}"))?;
    let said = String::from_utf8_lossy(&output.stdout);
    print!("{said}");
    if !output.status.success() {
        return Err(format!(
            "{package}: Miri found something, or is not there \
             (rustup component add --toolchain nightly miri rust-src)"
        )
        .into());
    }
    // Each schedule says it, and their lines get mixed up: whoever failed is in the
    // status.
    let passed = said
        .lines()
        .filter_map(|line| line.strip_prefix("running ")?.split(' ').next())
        .filter_map(|number| number.parse::<u64>().ok())
        .max()
        .unwrap_or(0);
    if passed == 0 {
        return Err(format!("{package}: no test was interpreted").into());
    }
    Ok(passed)
}
