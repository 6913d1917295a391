//! What has to notice a bug: one test, of the library as it is or under a model.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::models::Failure;
use crate::models::suite::{Model, Tests, watch};

/// A test, and how it is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Instrument {
    build: Build,
    /// As the harness calls it.
    test: &'static str,
}

/// What has to be built for a test.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Build {
    model: Model,
    tests: Tests,
}

pub(super) enum Fate {
    Noticed(&'static str),
    Missed,
}

/// A scenario of `onepen/src/models`, in every schedule.
pub(super) const fn loom(test: &'static str) -> Instrument {
    of(Model::Loom, "onepen", None, test)
}

/// The same, in schedules drawn at random.
pub(super) const fn shuttle(test: &'static str) -> Instrument {
    of(Model::Shuttle, "onepen", None, test)
}

/// The same, in the schedules of the machine.
pub(super) const fn scenario(test: &'static str) -> Instrument {
    of(Model::Plain, "onepen", None, test)
}

/// A test inside the library.
pub(super) const fn unit(test: &'static str) -> Instrument {
    of(Model::Plain, "onepen", None, test)
}

/// A test of the library's interface, in `onepen/tests`.
pub(super) const fn test(target: &'static str, test: &'static str) -> Instrument {
    of(Model::Plain, "onepen", Some(target), test)
}

/// The same of `onepen-lock`.
pub(super) const fn lock_test(target: &'static str, test: &'static str) -> Instrument {
    of(Model::Plain, "onepen-lock", Some(target), test)
}

/// A test inside `onepen-lock`.
pub(super) const fn lock_unit(test: &'static str) -> Instrument {
    of(Model::Plain, "onepen-lock", None, test)
}

const fn of(
    model: Model,
    package: &'static str,
    target: Option<&'static str>,
    test: &'static str,
) -> Instrument {
    let tests = Tests { package, target };
    Instrument {
        build: Build { model, tests },
        test,
    }
}

impl Instrument {
    pub(super) fn name(self) -> &'static str {
        self.test
    }

    pub(super) fn build(self) -> Build {
        self.build
    }

    pub(super) fn is_scenario(self) -> bool {
        self.test.starts_with("models::")
    }

    /// Runs the test alone, out of the built `tests`; what hangs longer than
    /// `limit` has noticed, too.
    pub(super) fn run(
        self,
        tests: &Path,
        copy: &Path,
        limit: Duration,
    ) -> Result<(Fate, String), Failure> {
        let mut command = Command::new(tests);
        command
            .args(["--exact", self.test, "--nocapture"])
            .current_dir(copy.join(self.build.tests.package))
            .env("RUST_BACKTRACE", "0");
        // So that a test that hangs can be ended with its children.
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let (ended, output) = watch(command, limit, |_| {})?;
        if !output.contains("running 1 test") {
            return Err(format!("there is no test `{}`:\n{output}", self.test).into());
        }
        let fate = match ended {
            Some(true) => Fate::Missed,
            Some(false) if output.contains("deadlock") => Fate::Noticed("deadlock"),
            Some(false) => Fate::Noticed("failed"),
            None => Fate::Noticed("hangs"),
        };
        Ok((fate, output))
    }
}

impl Build {
    pub(super) fn run(self, root: &Path, target: &Path) -> Result<PathBuf, Failure> {
        self.model.build(root, target, self.tests)
    }
}

impl fmt::Display for Build {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Tests { package, target } = self.tests;
        write!(f, "{package} {}", target.unwrap_or("--lib"))?;
        match self.model {
            Model::Plain => Ok(()),
            model => write!(f, " under {}", model.name()),
        }
    }
}

impl fmt::Display for Instrument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Tests { package, target } = self.build.tests;
        let place = match (self.build.model, package, target) {
            (Model::Plain, "onepen", None) => "unit",
            (Model::Plain, _, None) => "lock unit",
            (Model::Plain, _, Some(target)) => target,
            (model, ..) => model.name(),
        };
        let name = self.test.strip_prefix("models::").unwrap_or(self.test);
        write!(f, "{place}: {name}")
    }
}
