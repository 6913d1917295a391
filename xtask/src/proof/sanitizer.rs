//! The library and SQLite built with a sanitizer of the compiler, and their tests
//! run: ThreadSanitizer for data races, AddressSanitizer (with LeakSanitizer) for
//! memory that is used after its end, beyond its bounds, or never given back.
//!
//! The C compiler instruments SQLite as rustc does our code, so that a race or an
//! overflow between the two is seen as well. What is known and is no mistake of
//! ours is in `tsan.supp` and `lsan.supp`, each line with its reason.
//!
//! On the stable toolchain, by `RUSTC_BOOTSTRAP`: it is the compiler that the
//! product is built with. ThreadSanitizer needs the standard library built with
//! it, too (`-Zbuild-std`; component `rust-src`): without, it does not know what
//! the locks of the standard library order, and reports what is right.
//!
//! Each program of tests is a part of its own: what passed is remembered for these very
//! sources and suppressions (`--anew` forgets it), so that a run that was broken off
//! goes on, and one that fails leaves the others their turn.
//!
//! Before each run a program with the mistake that the sanitizer is for has to be
//! reported (`probes`).

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use super::memory::{Figure, Memory, add};
use super::{Ask, Failure, Figures, Strength, cargo, root};

struct Sanitizer {
    name: &'static str,
    /// What the compilers call it.
    flag: &'static str,
    /// The variables with options of the run-time, and what they say.
    options: &'static [(&'static str, &'static str)],
    build_std: bool,
    /// What a report begins with.
    report: &'static str,
    /// A program with the mistake that it is for.
    probe: &'static str,
    /// Of a part, the tests that cannot be run with it.
    skips: &'static [(&'static str, &'static str)],
}

const HOST: &str = "x86_64-unknown-linux-gnu";

/// Of `onepen`, those in which threads of this process meet, without what
/// replaces calls of the C library (`faults`, `crash`: the sanitizers replace the
/// same ones) or loads a second SQLite.
const TESTS: &[&str] = &[
    "groups",
    "waiting",
    "one_pen",
    "reads",
    "changes",
    "blocks",
    "serialized",
    "rollback",
    "checkpoint",
    "lifecycle",
    "keyed",
    "backup",
    "long",
];

const QUICK: &[&str] = &["groups", "waiting", "blocks"];

/// `cargo xtask proof tsan`.
pub fn tsan(ask: &Ask) -> Result<Figures, Failure> {
    Sanitizer {
        name: "tsan",
        flag: "thread",
        options: &[("TSAN_OPTIONS", "suppressions=SUPP exitcode=66")],
        build_std: true,
        report: "WARNING: ThreadSanitizer",
        probe: "race.rs",
        // They let a store fault, and look at numbers in the handler: an atomic store is done
        // inside of the run-time, with its lock in hand, and so the handler hangs.
        skips: &[("onepen-lock --test gate", "steps::")],
    }
    .run(ask)
}

/// `cargo xtask proof asan`.
pub fn asan(ask: &Ask) -> Result<Figures, Failure> {
    Sanitizer {
        name: "asan",
        flag: "address",
        options: &[
            // Not what is read beside global variables: `refusals` looks through all
            // the constants of the process for copies of SQLite, on purpose.
            (
                "ASAN_OPTIONS",
                "detect_stack_use_after_return=1:report_globals=0",
            ),
            ("LSAN_OPTIONS", "suppressions=SUPP print_suppressions=0"),
        ],
        build_std: false,
        report: "ERROR: ",
        probe: "stale.rs",
        skips: &[],
    }
    .run(ask)
}

impl Sanitizer {
    fn run(&self, ask: &Ask) -> Result<Figures, Failure> {
        let mut ask = ask.clone();
        let words = ask.words.len();
        ask.words.retain(|word| word != "--anew");
        let anew = ask.words.len() < words;
        let [only] = ask.own_words(["--only"])?;
        if !cfg!(all(target_arch = "x86_64", target_os = "linux")) {
            return Err("the sanitizers are set up for x86-64 Linux".into());
        }
        self.sees()?;
        let parts: Vec<String> = parts(ask.strength)
            .into_iter()
            .filter(|part| only.as_ref().is_none_or(|only| part.contains(&**only)))
            .collect();
        let suppressed = std::fs::read_to_string(self.suppressions())?;
        let mut memory = Memory::of(self.name, &suppressed, anew)?;
        let (mut sums, mut failed) = (Vec::new(), Vec::new());
        for part in parts {
            if let Some(known) = memory.get(&part) {
                println!("   {part}: run before");
                add(&mut sums, known);
                continue;
            }
            match self.count(&part) {
                Ok(found) => {
                    memory.keep(&part, &found)?;
                    add(&mut sums, found);
                }
                Err(error) => {
                    println!("   {part}: {error}");
                    failed.push(part);
                }
            }
        }
        if !failed.is_empty() {
            let failed = failed.join(", ");
            return Err(format!("{}: a report, or a test failed: {failed}", self.name).into());
        }
        if sums.is_empty() {
            return Err(format!("{} ran nothing: no part has that name", self.name).into());
        }
        let named = |(what, sum): Figure| (&*what.leak(), sum.to_string());
        let mut figures: Vec<_> = sums.into_iter().map(named).collect();
        figures.push(("reports", "0".to_owned()));
        Ok(Figures(figures))
    }

    /// Whether it reports the mistake it is for, under the same options.
    fn sees(&self) -> Result<(), Failure> {
        let target = self.target();
        std::fs::create_dir_all(&target)?;
        let program = target.join("probe");
        let source = root().join("xtask/src/proof/probes").join(self.probe);
        let built = Command::new("rustc")
            .env("RUSTC_BOOTSTRAP", "1")
            .args(["--edition=2024", "-Cunsafe-allow-abi-mismatch=sanitizer"])
            .arg(format!("-Zsanitizer={}", self.flag))
            .arg("-o")
            .args([&program, &source])
            .status()?;
        if !built.success() {
            return Err(format!("{}: {} does not build", self.name, self.probe).into());
        }
        let mut probe = Command::new(program);
        self.set_options(&mut probe);
        let said = probe.output()?;
        let report = String::from_utf8_lossy(&said.stderr);
        if said.status.success() || !report.contains(self.report) {
            return Err(format!("{} is blind: it did not report {}", self.name, self.probe).into());
        }
        Ok(())
    }

    fn target(&self) -> PathBuf {
        root().join("target").join("proof").join(self.name)
    }

    fn set_options(&self, command: &mut Command) {
        let supp = self.suppressions();
        for (name, value) in self.options {
            command.env(name, value.replace("SUPP", &supp.to_string_lossy()));
        }
    }

    fn cargo(&self) -> Command {
        let target = self.target();
        let mut cargo = cargo();
        cargo
            .args(["test", "--no-fail-fast", "--target", HOST])
            .env("RUSTC_BOOTSTRAP", "1")
            .env("RUSTFLAGS", format!("-Zsanitizer={}", self.flag))
            .env("CFLAGS", format!("-fsanitize={} -g", self.flag))
            // Both, or a build directory that somebody has set for all their work
            // would be used.
            .env("CARGO_TARGET_DIR", &target)
            .env("CARGO_BUILD_BUILD_DIR", &target)
            .env("CARGO_PROFILE_DEV_OPT_LEVEL", "1");
        if self.build_std {
            cargo.arg("-Zbuild-std");
        }
        self.set_options(&mut cargo);
        cargo
    }

    fn suppressions(&self) -> PathBuf {
        let name = if self.name == "tsan" {
            "tsan.supp"
        } else {
            "lsan.supp"
        };
        root().join("xtask").join("src").join("proof").join(name)
    }

    /// How many tests of a part passed without a report.
    fn count(&self, part: &str) -> Result<Vec<Figure>, Failure> {
        let mut tests = self.cargo();
        tests.arg("-p").args(part.split(' ')).arg("--");
        for (_, skipped) in self.skips.iter().filter(|(of, _)| *of == part) {
            tests.args(["--skip", skipped]);
        }
        let mut running = tests.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        let output = running.stdout.take().ok_or("the tests say nothing")?;
        let (mut passed, mut reported) = (0, false);
        for line in BufReader::new(output).lines() {
            let line = line?;
            println!("{line}");
            reported |= line.contains(self.report);
            let number = line
                .strip_prefix("test result: ok. ")
                .and_then(|rest| rest.split(' ').next()?.parse::<u64>().ok());
            passed += number.unwrap_or(0);
        }
        let status = running.wait()?;
        if !status.success() || reported {
            return Err("a report, or a test failed: see above".into());
        }
        if passed == 0 {
            return Err("no test was run: see above".into());
        }
        Ok(vec![("tests".to_owned(), passed)])
    }
}

/// What is run, each part by itself: the arguments of `cargo test` after `-p`. First
/// what most depends on threads, in the smallest tests.
fn parts(strength: Strength) -> Vec<String> {
    let of_onepen = match strength {
        Strength::Quick => QUICK,
        _ => TESTS,
    };
    [
        "onepen-lock --lib",
        "onepen-lock --test gate",
        "onepen --lib",
    ]
    .map(str::to_owned)
    .into_iter()
    .chain(of_onepen.iter().map(|name| format!("onepen --test {name}")))
    .collect()
}
