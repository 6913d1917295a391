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
//! Before each run a program with the mistake that the sanitizer is for has to be
//! reported (`probes`).

use std::path::PathBuf;
use std::process::{Command, Stdio};

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
    }
    .run(ask)
}

impl Sanitizer {
    fn run(&self, ask: &Ask) -> Result<Figures, Failure> {
        if let Some(word) = ask.words.first() {
            return Err(format!("`{word}` is not known here").into());
        }
        if !cfg!(all(target_arch = "x86_64", target_os = "linux")) {
            return Err("the sanitizers are set up for x86-64 Linux".into());
        }
        self.sees()?;
        let quick = ask.strength == Strength::Quick;
        let mut tests = self.cargo();
        tests.args(["-p", "onepen", "--lib"]);
        for name in if quick { QUICK } else { TESTS } {
            tests.args(["--test", name]);
        }
        let mut ran = self.count(tests)?;
        let mut tests = self.cargo();
        tests.args(["-p", "onepen-lock", "--lib", "--test", "gate"]);
        ran += self.count(tests)?;
        Ok(Figures(vec![
            ("tests", ran.to_string()),
            ("reports", "0".to_owned()),
        ]))
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

    /// How many tests passed without a report.
    fn count(&self, mut tests: Command) -> Result<u64, Failure> {
        let output = tests
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .stdout(Stdio::piped())
            .output()?;
        let said = String::from_utf8_lossy(&output.stdout);
        print!("{said}");
        let passed = said
            .lines()
            .filter_map(|line| line.strip_prefix("test result: ok. ")?.split(' ').next())
            .filter_map(|number| number.parse::<u64>().ok())
            .sum();
        if !output.status.success() || said.contains(self.report) {
            return Err(format!("{} found something, or a test failed", self.name).into());
        }
        if passed == 0 {
            return Err(format!("{} ran no test: see above", self.name).into());
        }
        Ok(passed)
    }
}
