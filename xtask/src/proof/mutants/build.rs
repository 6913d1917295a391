//! One build with all mutants in it that can be told apart when it runs.
//!
//! Guarantees: what does not compile is found by the compiler's own words, and
//! named: a change that is no program ("unviable"), or one for which there is no
//! switch ("apart", as in a constant), which needs a build of its own.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use super::list::Mutant;
use super::weave::{MODULE, Part, Woven, weave};
use crate::proof::Failure;

/// How a mutant comes to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// By a switch in the one build.
    Switch,
    /// By a build of its own.
    Apart,
    /// Not at all: it does not compile.
    Unviable,
}

/// A workspace that may be changed.
pub struct Workspace {
    pub root: PathBuf,
    pub target: PathBuf,
    pub packages: Vec<String>,
    /// What is built in, as cargo's `--features` has it.
    pub features: &'static str,
}

/// A program of tests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    pub name: String,
    pub executable: PathBuf,
    /// Where cargo would start it.
    pub directory: PathBuf,
}

/// What became of a build.
enum Said {
    Programs(Vec<Program>),
    Errors(Vec<Error>),
}

struct Error {
    message: String,
    /// File and bytes, those that it is about first.
    spans: Vec<(String, Range<usize>)>,
}

impl Workspace {
    /// Weaves the mutants of `ways` that have a switch into the sources until
    /// they build, and builds their tests. Those that turn out to have none are
    /// changed in `ways`.
    ///
    /// # Errors
    /// When it does not build for another reason.
    pub fn weave(&self, mutants: &[Mutant], ways: &mut [Way]) -> Result<Vec<Program>, Failure> {
        let mut originals = BTreeMap::new();
        for mutant in mutants {
            if !originals.contains_key(&mutant.file) {
                self.add_switch(&mutant.file)?;
                // Behind what was just added, if it is the root of its crate.
                let source = std::fs::read_to_string(self.root.join(&mutant.file))?;
                originals.insert(mutant.file.clone(), source);
            }
        }
        let mut check = true;
        loop {
            let woven = self.write(&originals, mutants, ways)?;
            match self.build(check)? {
                Said::Programs(_) if check => check = false,
                Said::Programs(programs) => return Ok(programs),
                Said::Errors(errors) => {
                    let known = count(ways, Way::Switch);
                    for error in &errors {
                        judge(error, &woven, ways);
                    }
                    let left = count(ways, Way::Switch);
                    eprintln!("mutants: {left} of {known} may compile …");
                    if left == known {
                        let messages: Vec<_> = errors.iter().map(|e| &*e.message).collect();
                        return Err(format!("does not build:\n{}", messages.join("\n")).into());
                    }
                }
            }
        }
    }

    /// The change of one mutant, in the text of its file, which is returned as it
    /// was.
    pub fn plant(&self, mutant: &Mutant) -> Result<String, Failure> {
        let path = self.root.join(&mutant.file);
        let original = std::fs::read_to_string(&path)?;
        let mut changed = original.clone();
        changed.replace_range(mutant.bytes(&original)?, &mutant.replacement);
        std::fs::write(path, changed)?;
        Ok(original)
    }

    /// The file as it was.
    pub fn heal(&self, mutant: &Mutant, original: &str) -> Result<(), Failure> {
        Ok(std::fs::write(self.root.join(&mutant.file), original)?)
    }

    /// Builds the tests; `None` when they do not compile.
    pub fn tests(&self) -> Result<Option<Vec<Program>>, Failure> {
        match self.build(true)? {
            Said::Errors(_) => return Ok(None),
            Said::Programs(_) => {}
        }
        match self.build(false)? {
            Said::Errors(_) => Ok(None),
            Said::Programs(programs) => Ok(Some(programs)),
        }
    }

    /// The module that the switches ask, in the crate of this file.
    fn add_switch(&self, source: &str) -> Result<(), Failure> {
        let src = match source.find("src/") {
            Some(at) => self.root.join(&source[..at]).join("src"),
            None => return Err(format!("{source}: not in a `src`").into()),
        };
        let lib = src.join("lib.rs");
        let mut text = std::fs::read_to_string(&lib)?;
        let line = format!("\n#[doc(hidden)]\npub mod {MODULE};\n");
        if !text.ends_with(&line) {
            text.push_str(&line);
            std::fs::write(lib, text)?;
        }
        let module = src.join(MODULE).with_extension("rs");
        Ok(std::fs::write(module, include_str!("switch.rs.txt"))?)
    }

    fn write(
        &self,
        originals: &BTreeMap<String, String>,
        mutants: &[Mutant],
        ways: &mut [Way],
    ) -> Result<BTreeMap<String, Woven>, Failure> {
        let mut all = BTreeMap::new();
        for (file, original) in originals {
            let here: Vec<&Mutant> = mutants
                .iter()
                .filter(|mutant| mutant.file == *file && ways[mutant.number] == Way::Switch)
                .collect();
            let woven = weave(original, &here).map_err(|error| format!("{file}: {error}"))?;
            for &mutant in &woven.no_place {
                ways[mutant] = Way::Apart;
            }
            let path = self.root.join(file);
            if std::fs::read_to_string(&path)? != woven.text {
                std::fs::write(path, &woven.text)?;
            }
            all.insert(file.clone(), woven);
        }
        Ok(all)
    }

    /// Checks the libraries, or builds all tests.
    fn build(&self, check: bool) -> Result<Said, Failure> {
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        match check {
            true => cargo.args(["check", "--lib"]),
            false => cargo.args(["test", "--no-run", "--lib", "--tests"]),
        };
        for package in &self.packages {
            cargo.args(["--package", package]);
        }
        if !self.features.is_empty() {
            cargo.args(["--features", self.features]);
        }
        let output = cargo
            .args(["--quiet", "--message-format=json"])
            .current_dir(&self.root)
            .env("CARGO_TARGET_DIR", &self.target)
            .env("CARGO_BUILD_BUILD_DIR", &self.target)
            .env("CARGO_PROFILE_DEV_DEBUG", "0")
            // Gigabytes, for what is built once.
            .env("CARGO_INCREMENTAL", "0")
            // A change may well be something that a lint denies.
            .env("RUSTFLAGS", "--cap-lints=allow")
            .stdin(Stdio::null())
            .output()
            .map_err(|error| format!("cargo does not start: {error}"))?;
        let messages = String::from_utf8_lossy(&output.stdout);
        let messages = messages
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok());
        if output.status.success() {
            return Ok(Said::Programs(
                messages.filter_map(|said| program(&said)).collect(),
            ));
        }
        let errors: Vec<Error> = messages
            .filter_map(|said| error(&said["message"]))
            .collect();
        if errors.is_empty() {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(format!("does not build:\n{said}").into());
        }
        Ok(Said::Errors(errors))
    }
}

pub fn count(ways: &[Way], way: Way) -> usize {
    // The first is the program as it is.
    ways.iter().skip(1).filter(|one| **one == way).count()
}

fn program(said: &Value) -> Option<Program> {
    if said["profile"]["test"] != true {
        return None;
    }
    let executable = PathBuf::from(said["executable"].as_str()?);
    let manifest = Path::new(said["manifest_path"].as_str()?);
    let directory = manifest.parent()?.to_path_buf();
    let package = directory.file_name()?.to_string_lossy();
    let target = &said["target"];
    let name = match target["kind"][0].as_str()? {
        "test" => format!("{package} {}", target["name"].as_str()?),
        _ => format!("{package} --lib"),
    };
    Some(Program {
        name,
        executable,
        directory,
    })
}

fn error(message: &Value) -> Option<Error> {
    if message["level"] != "error" {
        return None;
    }
    let mut spans: Vec<(bool, String, Range<usize>)> = Vec::new();
    let children = message["children"].as_array().into_iter().flatten();
    for said in std::iter::once(message).chain(children) {
        for span in said["spans"].as_array().into_iter().flatten() {
            let byte = |key: &str| span[key].as_u64().map(|byte| byte as usize);
            spans.push((
                span["is_primary"] == true && std::ptr::eq(said, message),
                span["file_name"].as_str()?.to_owned(),
                byte("byte_start")?..byte("byte_end")?,
            ));
        }
    }
    spans.sort_by_key(|(primary, ..)| !primary);
    // "aborting due to 3 previous errors" is about nothing.
    (!spans.is_empty()).then(|| Error {
        message: message["rendered"].as_str().unwrap_or_default().to_owned(),
        spans: spans
            .into_iter()
            .map(|(_, file, bytes)| (file, bytes))
            .collect(),
    })
}

/// Takes those out that an error is about.
fn judge(error: &Error, woven: &BTreeMap<String, Woven>, ways: &mut [Way]) {
    let blamed = error
        .spans
        .iter()
        .find_map(|(file, bytes)| woven.get(file)?.blame(bytes));
    let Some((numbers, part)) = blamed else {
        return;
    };
    for &number in numbers {
        ways[number] = match part {
            Part::Change => Way::Unviable,
            Part::Switch => Way::Apart,
        };
    }
}
