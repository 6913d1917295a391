//! What is to be run: the mutants, the one build with them in it, and which
//! tests come by which of them. Kept on disk, so that a run can go on.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use super::build::{Program, Way, Workspace};
use super::list::{Mutant, read};
use super::scratch;
use super::trial::{Alone, Test, alone, names};
use crate::proof::Failure;

/// A test that takes longer, alone, is not asked: there are others.
const LONGEST: Duration = Duration::from_secs(3);

#[derive(Debug)]
pub struct Plan {
    /// As cargo-mutants gave it.
    list: Value,
    pub mutants: Vec<Mutant>,
    /// By the mutant's number.
    pub ways: Vec<Way>,
    pub programs: Vec<Program>,
    pub tests: Vec<Test>,
    /// Which tests are not asked, and why.
    pub left_out: Vec<(String, &'static str)>,
}

impl Plan {
    /// Builds everything, and runs every test once without a mutant.
    ///
    /// # Errors
    /// When it does not build.
    pub fn make(
        workspace: &Workspace,
        list: Value,
        asked: &dyn Fn(&str) -> bool,
        jobs: usize,
    ) -> Result<Self, Failure> {
        let mutants = read(&list)?;
        let mut ways = vec![Way::Switch; mutants.len() + 1];
        let programs = workspace.weave(&mutants, &mut ways)?;
        let mut plan = Self {
            list,
            mutants,
            ways,
            programs,
            tests: Vec::new(),
            left_out: Vec::new(),
        };
        plan.run_alone(asked, jobs)?;
        Ok(plan)
    }

    fn run_alone(&mut self, asked: &dyn Fn(&str) -> bool, jobs: usize) -> Result<(), Failure> {
        let scratch = scratch("alone");
        let mut all = Vec::new();
        for (index, program) in self.programs.iter().enumerate() {
            if asked(&program.name) {
                let names = names(program, &scratch)?;
                all.extend(names.into_iter().map(|name| (index, name)));
            }
        }
        eprintln!("mutants: {} tests as they are …", all.len());
        let found = in_parallel(jobs, &all, |job, (program, name)| {
            let scratch = scratch.join(job.to_string());
            alone(&self.programs, *program, name, self.mutants.len(), &scratch)
        })?;
        for ((program, name), found) in all.into_iter().zip(found) {
            let left_out = match found {
                Alone::Passes(test) if test.took > LONGEST => "takes too long",
                Alone::Passes(test) => {
                    self.tests.push(test);
                    continue;
                }
                Alone::Fails => "does not pass alone",
            };
            let name = format!("{}: {name}", self.programs[program].name);
            self.left_out.push((name, left_out));
        }
        if self.tests.is_empty() {
            return Err("no test passes in a build with switches, none of them thrown".into());
        }
        Ok(())
    }

    /// The tests that come by a mutant.
    pub fn tests_of(&self, mutant: usize) -> Vec<&Test> {
        let come_by = |test: &&Test| test.reaches.contains(&mutant);
        self.tests.iter().filter(come_by).collect()
    }

    /// The tests that come by any mutant of a file.
    pub fn tests_near(&self, mutant: &Mutant) -> Vec<&Test> {
        let near: BTreeSet<usize> = self
            .mutants
            .iter()
            .filter(|other| other.file == mutant.file)
            .map(|other| other.number)
            .collect();
        self.tests
            .iter()
            .filter(|test| !test.reaches.is_disjoint(&near))
            .collect()
    }

    pub fn save(&self, path: &Path, digest: u64) -> Result<(), Failure> {
        let ways: Vec<_> = self.ways.iter().map(|way| *way as u8).collect();
        let programs: Vec<_> = self
            .programs
            .iter()
            .map(|one| json!([one.name, one.executable, one.directory]))
            .collect();
        let tests: Vec<_> = self
            .tests
            .iter()
            .map(|test| {
                let micros = test.took.as_micros() as u64;
                json!([test.program, test.name, micros, test.reaches])
            })
            .collect();
        let left_out: Vec<_> = self.left_out.iter().map(|(name, _)| name).collect();
        let saved = json!({
            "digest": digest, "list": self.list, "ways": ways, "programs": programs,
            "tests": tests, "left_out": left_out,
        });
        Ok(std::fs::write(path, saved.to_string())?)
    }

    /// The plan that was saved, with the digest of its sources, if its programs
    /// are still there.
    pub fn load(path: &Path) -> Option<(Self, u64)> {
        let saved: Value = serde_json::from_slice(&std::fs::read(path).ok()?).ok()?;
        let list = |key: &str| saved[key].as_array();
        let ways = list("ways")?.iter().map(|way| match way.as_u64()? {
            0 => Some(Way::Switch),
            1 => Some(Way::Apart),
            _ => Some(Way::Unviable),
        });
        let programs = list("programs")?.iter().map(|one| {
            let executable = PathBuf::from(one[1].as_str()?);
            executable.exists().then_some(Program {
                name: one[0].as_str()?.to_owned(),
                executable,
                directory: PathBuf::from(one[2].as_str()?),
            })
        });
        let tests = list("tests")?.iter().map(|test| {
            let reaches = test[3].as_array()?.iter();
            Some(Test {
                program: test[0].as_u64()? as usize,
                name: test[1].as_str()?.to_owned(),
                took: Duration::from_micros(test[2].as_u64()?),
                reaches: reaches
                    .map(|one| Some(one.as_u64()? as usize))
                    .collect::<Option<_>>()?,
            })
        });
        let left_out = list("left_out")?.iter();
        let plan = Self {
            mutants: read(&saved["list"]).ok()?,
            list: saved["list"].clone(),
            ways: ways.collect::<Option<_>>()?,
            programs: programs.collect::<Option<_>>()?,
            tests: tests.collect::<Option<_>>()?,
            left_out: left_out
                .map(|name| Some((name.as_str()?.to_owned(), "was left out")))
                .collect::<Option<_>>()?,
        };
        Some((plan, saved["digest"].as_u64()?))
    }
}

/// What the sources are, in a number: of all files of these directories.
pub fn digest(root: &Path, packages: &[String]) -> Result<u64, Failure> {
    let mut hasher = DefaultHasher::new();
    let mut open: Vec<PathBuf> = packages.iter().map(|package| root.join(package)).collect();
    while let Some(directory) = open.pop() {
        let mut entries = std::fs::read_dir(directory)?.collect::<Result<Vec<_>, _>>()?;
        entries.sort_by_key(|entry| entry.file_name());
        for entry in entries {
            if entry.file_type()?.is_dir() {
                open.push(entry.path());
            } else {
                entry.file_name().hash(&mut hasher);
                std::fs::read(entry.path())?.hash(&mut hasher);
            }
        }
    }
    Ok(hasher.finish())
}

/// `work` for each of `all`, so many at a time; in their order. The first number
/// is that of the worker.
pub fn in_parallel<T: Sync, R: Send>(
    jobs: usize,
    all: &[T],
    work: impl Fn(usize, &T) -> Result<R, Failure> + Sync,
) -> Result<Vec<R>, Failure> {
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::new());
    let failed = Mutex::new(None);
    std::thread::scope(|scope| {
        for job in 0..jobs {
            let (next, done, failed, work) = (&next, &done, &failed, &work);
            scope.spawn(move || {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(one) = all.get(index) else { break };
                    match work(job, one) {
                        Ok(result) => done
                            .lock()
                            .expect("a worker panicked")
                            .push((index, result)),
                        Err(error) => {
                            next.store(all.len(), Ordering::Relaxed);
                            let said = error.to_string();
                            failed
                                .lock()
                                .expect("a worker panicked")
                                .get_or_insert(said);
                        }
                    }
                }
            });
        }
    });
    if let Some(error) = failed.into_inner().expect("a worker panicked") {
        return Err(error.into());
    }
    let mut done = done.into_inner().expect("a worker panicked");
    done.sort_by_key(|(index, _)| *index);
    Ok(done.into_iter().map(|(_, result)| result).collect())
}
