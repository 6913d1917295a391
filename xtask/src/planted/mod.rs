//! Plants known bugs, one at a time, and demands that an instrument notices.
//!
//! No switch in the product selects a bug: each is a small change to the text of
//! a copy of the library ([`bugs`]). Text that is not found exactly once ends the
//! run, so a bug cannot silently stop being planted when the code moves on. And
//! every instrument has to be quiet before anything is planted: a test that fails
//! by itself notices nothing.
//!
//! Instruments that are pointed at something wrong by tests of their own (wrong
//! libraries, broken histories) are in the same table ([`fakes`]).

mod bugs;
pub(crate) mod copy;
mod done;
mod fakes;
mod instrument;

use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, Instant};

use self::copy::Copy;
use self::done::Done;
pub use self::instrument::Instrument;
use self::instrument::{Build, Fate, lock_test, lock_unit, loom, scenario, shuttle, test, unit};
use crate::models::Failure;
use crate::models::suite::root;

/// One known way to be wrong.
pub struct Bug {
    /// What is wrong.
    what: &'static str,
    file: &'static str,
    /// Replaced, each found exactly once in the file.
    changes: &'static [(&'static str, &'static str)],
    /// What has to notice.
    by: Instrument,
}

/// Which bugs, and how to tell of them.
#[derive(Default)]
pub struct Wanted {
    /// Only what has this in its name or in its instrument's.
    pub only: Option<String>,
    /// One of each kind.
    pub quick: bool,
    /// Only those that a scenario of the models has to notice.
    pub only_models: bool,
    /// Also what a run before, of the same sources, has noticed already.
    pub anew: bool,
    pub json: bool,
}

/// One line of the table.
struct Row {
    what: String,
    instrument: String,
    /// How it was noticed, or why it was not.
    noticed: Result<String, String>,
    took: Duration,
    /// By a run before, of the same sources.
    before: bool,
}

/// How many there were.
pub struct Noticed {
    pub all: usize,
    /// By a run before, of the same sources.
    pub before: usize,
}

/// Plants what is wanted. An error, when one was not noticed.
///
/// What was noticed is remembered, so that a run that is broken off goes on.
pub fn run(wanted: &Wanted) -> Result<Noticed, Failure> {
    let root = root()?;
    // With the dependencies that tests and models have built already.
    let target = root.join("target");
    let bugs: Vec<&Bug> = bugs::all().filter(|bug| wanted.has(bug)).collect();
    let copy = Copy::of(&root, &target.join("models").join("planted"))?;
    for bug in &bugs {
        bug.planted(&root)?; // complains before anything is built
    }
    // Its name has been found: the others take long to be built.
    let with_fakes = !wanted.only_models && (wanted.only.is_none() || bugs.is_empty());
    let mut done = Done::of(&root, target.join("models").join("noticed"))?;
    if wanted.anew {
        done.forget();
    }

    let whats = bugs.iter().map(|bug| bug.what.len()).max().unwrap_or(0);
    let mut rows = Vec::new();
    if !wanted.json {
        println!("{:whats$}  {:24}  noticed by", "bug", "how");
    }
    let mut tell = |row: Row| {
        if !wanted.json {
            row.print(whats);
        }
        rows.push(row);
    };
    let (before, new): (Vec<&Bug>, Vec<&Bug>) =
        bugs.into_iter().partition(|bug| done.get(bug).is_some());
    for bug in before {
        let how = done.get(bug).unwrap_or_default().to_owned();
        let mut row = bug.row(Ok(how), Duration::ZERO);
        row.before = true;
        tell(row);
    }
    // One build after the other: each bug then changes one file of the last.
    let mut builds: Vec<(Build, Vec<&Bug>)> = Vec::new();
    for bug in new {
        let build = bug.by.build();
        match builds.iter_mut().find(|(known, _)| *known == build) {
            Some((_, bugs)) => bugs.push(bug),
            None => builds.push((build, vec![bug])),
        }
    }
    for (build, bugs) in builds {
        let limits = quiet(build, &bugs, &copy.root, &target)?;
        for bug in bugs {
            let row = bug.run(&copy, &target, limits[&bug.by])?;
            if let Ok(how) = &row.noticed {
                done.add(bug, how)?;
            }
            tell(row);
        }
    }
    if with_fakes {
        for row in fakes::run(wanted)? {
            tell(row);
        }
    }
    if wanted.json {
        let rows: Vec<_> = rows.iter().map(Row::json).collect();
        println!("{:#}", serde_json::Value::from(rows));
    }
    let missed: Vec<&str> = rows
        .iter()
        .filter(|row| row.noticed.is_err())
        .map(|row| &*row.what)
        .collect();
    match &*missed {
        [] if rows.is_empty() => Err("no planted bug has that in its name".into()),
        [] => Ok(Noticed {
            all: rows.len(),
            before: rows.iter().filter(|row| row.before).count(),
        }),
        missed => Err(format!(
            "{} planted bugs were not noticed:\n  {}",
            missed.len(),
            missed.join("\n  ")
        )
        .into()),
    }
}

impl Wanted {
    fn has(&self, bug: &Bug) -> bool {
        (!self.only_models || bug.by.is_scenario())
            && (!self.quick || bugs::QUICK.contains(&bug.what))
            && self.has_name(bug.what, bug.by.name())
    }

    fn has_name(&self, what: &str, instrument: &str) -> bool {
        let only = self.only.as_deref().unwrap_or_default();
        what.contains(only) || instrument.contains(only)
    }
}

/// Runs the instruments of `bugs`, which share a build, with nothing planted. How
/// long each may take, after that, before it hangs.
fn quiet(
    build: Build,
    bugs: &[&Bug],
    copy: &Path,
    target: &Path,
) -> Result<HashMap<Instrument, Duration>, Failure> {
    eprintln!("building {build} …");
    let tests = build.run(copy, target)?;
    let mut limits = HashMap::new();
    for bug in bugs {
        let by = bug.by;
        if limits.contains_key(&by) {
            continue;
        }
        let began = Instant::now();
        let (fate, output) = by.run(&tests, copy, Duration::from_secs(300))?;
        if let Fate::Noticed(how) = fate {
            return Err(format!("{} without any bug: {how}\n{output}", by.name()).into());
        }
        // Whoever is still running then waits for ever.
        limits.insert(by, began.elapsed() * 10 + Duration::from_secs(20));
    }
    Ok(limits)
}

impl Bug {
    /// The text of its file with the bug in it.
    fn planted(&self, root: &Path) -> Result<String, Failure> {
        let mut text = std::fs::read_to_string(root.join(self.file))?;
        for (from, to) in self.changes {
            let found = text.matches(from).count();
            if found != 1 {
                return Err(format!(
                    "`{}` cannot be planted: found {found} times in {}, expected once:\n{from}",
                    self.what, self.file
                )
                .into());
            }
            text = text.replace(from, to);
        }
        Ok(text)
    }

    fn run(&self, copy: &Copy, target: &Path, limit: Duration) -> Result<Row, Failure> {
        let began = Instant::now();
        copy.plant(self)?;
        let built = self.by.build().run(&copy.root, target);
        // Before the test runs, which takes nothing from the sources.
        copy.heal(self)?;
        let noticed = match built {
            Ok(tests) => match self.by.run(&tests, &copy.root, limit)?.0 {
                Fate::Noticed(how) => Ok(how.to_owned()),
                Fate::Missed => Err("NOT NOTICED".to_owned()),
            },
            Err(error) => Err(format!("does not build: {error}")),
        };
        Ok(self.row(noticed, began.elapsed()))
    }

    fn row(&self, noticed: Result<String, String>, took: Duration) -> Row {
        Row {
            what: self.what.to_owned(),
            instrument: self.by.to_string(),
            noticed,
            took,
            before: false,
        }
    }
}

impl Row {
    fn print(&self, whats: usize) {
        let how = match &self.noticed {
            Ok(how) => &**how,
            Err(why) => &**why,
        };
        let how = match self.before {
            true => format!("{how}, before"),
            false => format!("{how}, {:.0} s", self.took.as_secs_f64()),
        };
        println!("{:whats$}  {how:24}  {}", self.what, self.instrument);
    }

    fn json(&self) -> serde_json::Value {
        serde_json::json!({
            "bug": self.what,
            "instrument": self.instrument,
            "noticed": self.noticed.as_ref().ok(),
            "failure": self.noticed.as_ref().err(),
            "seconds": self.took.as_secs_f64(),
            "before": self.before,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_known_bug_can_still_be_planted() {
        let root = root().expect("the project's root");
        for bug in bugs::all() {
            if let Err(why) = bug.planted(&root) {
                panic!("{why}");
            }
        }
    }

    #[test]
    fn what_the_quick_form_names_is_there() {
        for name in bugs::QUICK {
            let found = bugs::all().filter(|bug| bug.what == *name).count();
            assert!(found > 0, "`{name}` is no planted bug");
        }
    }
}
