//! One mutant on trial: does a test fail?
//!
//! Guarantees: only tests that come by the mutant's place are asked, the quick
//! ones first, until one fails; a failure counts when it comes again, or the
//! verdict says that it did not; what stands still for longer than any test took
//! without the mutant has been noticed, too, and is ended with its children.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use super::build::Program;
use crate::proof::Failure;

/// A test that passes without a mutant.
#[derive(Clone, Debug, PartialEq)]
pub struct Test {
    /// Index into the programs.
    pub program: usize,
    pub name: String,
    pub took: Duration,
    /// The mutants whose place it comes by.
    pub reaches: BTreeSet<usize>,
}

/// What became of a mutant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// By this test.
    Noticed(String),
    /// One of these did not end.
    Hung(String),
    /// The whole process ended early.
    Died(String),
    /// This test failed, but not when it was run again.
    Shaky(String),
    /// All these tests passed.
    Lives(usize),
    /// It does not compile.
    Unviable,
}

impl Verdict {
    pub fn word(&self) -> &'static str {
        match self {
            Self::Noticed(_) => "noticed",
            Self::Hung(_) => "hung",
            Self::Died(_) => "died",
            Self::Shaky(_) => "shaky",
            Self::Lives(_) => "lives",
            Self::Unviable => "unviable",
        }
    }

    pub fn detail(&self) -> String {
        match self {
            Self::Noticed(by) | Self::Hung(by) | Self::Died(by) | Self::Shaky(by) => by.clone(),
            Self::Lives(tests) => tests.to_string(),
            Self::Unviable => String::new(),
        }
    }

    pub fn read(word: &str, detail: &str) -> Option<Self> {
        let by = detail.to_owned();
        Some(match word {
            "noticed" => Self::Noticed(by),
            "hung" => Self::Hung(by),
            "died" => Self::Died(by),
            "shaky" => Self::Shaky(by),
            "lives" => Self::Lives(detail.parse().ok()?),
            "unviable" => Self::Unviable,
            _ => return None,
        })
    }
}

/// Longer than this, and than four times what it takes, no test stands still.
const PATIENCE: Duration = Duration::from_secs(12);

/// At a time in one process: many of them wait for something.
const THREADS: usize = 4;

/// A test that takes no longer comes first.
const QUICK: Duration = Duration::from_millis(400);

/// How a process with some tests ended.
#[derive(Debug, PartialEq, Eq)]
enum Ended {
    Passed,
    Failed(String),
    Hung(Vec<String>),
    Died(String),
}

/// Runs tests, beside others that do the same elsewhere.
pub struct Court<'a> {
    pub programs: &'a [Program],
    /// Where the tests put their files.
    pub scratch: PathBuf,
}

impl Court<'_> {
    /// Tries mutant `number` before `tests`, which are the ones that come by it.
    pub fn try_one(&self, number: usize, tests: &[&Test]) -> Result<Verdict, Failure> {
        let mut shaky = None;
        for batch in batches(tests) {
            let mut left = batch;
            loop {
                match self.run(number, &left)? {
                    Ended::Passed => break,
                    Ended::Hung(who) => return Ok(Verdict::Hung(who.join(", "))),
                    Ended::Died(how) => return Ok(Verdict::Died(how)),
                    Ended::Failed(who) => {
                        let Some(at) = left.iter().position(|test| test.name == who) else {
                            return Err(format!("a test nobody asked for failed: {who}").into());
                        };
                        let test = left.remove(at);
                        let again = (0..2).map(|_| self.run(number, &[test]));
                        for ended in again {
                            if ended? != Ended::Passed {
                                return Ok(Verdict::Noticed(who));
                            }
                        }
                        shaky.get_or_insert(who);
                        if left.is_empty() {
                            break;
                        }
                    }
                }
            }
        }
        Ok(match shaky {
            Some(who) => Verdict::Shaky(who),
            None => Verdict::Lives(tests.len()),
        })
    }

    fn run(&self, number: usize, tests: &[&Test]) -> Result<Ended, Failure> {
        let program = &self.programs[tests[0].program];
        std::fs::create_dir_all(&self.scratch)?;
        let mut command = start(program, &self.scratch);
        command
            .env("XTASK_MUTANT", number.to_string())
            .arg(format!("--test-threads={THREADS}"))
            .arg("--exact")
            .args(tests.iter().map(|test| &test.name));
        let longest = tests.iter().map(|test| test.took).max().unwrap_or_default();
        let ended = watch(command, PATIENCE + 4 * longest, tests)?;
        std::fs::remove_dir_all(&self.scratch)?;
        Ok(ended)
    }
}

/// The tests of each program, the quick ones of all programs before the rest.
fn batches<'t>(tests: &[&'t Test]) -> Vec<Vec<&'t Test>> {
    let (quick, slow): (Vec<&Test>, Vec<&Test>) = tests.iter().partition(|t| t.took <= QUICK);
    let mut batches = Vec::new();
    for tests in [quick, slow] {
        let mut of: std::collections::BTreeMap<usize, Vec<&Test>> = Default::default();
        for test in tests {
            of.entry(test.program).or_default().push(test);
        }
        let mut of: Vec<_> = of.into_values().collect();
        of.sort_by_key(|tests| tests.iter().map(|test| test.took).sum::<Duration>());
        batches.extend(of);
    }
    batches
}

fn start(program: &Program, scratch: &Path) -> Command {
    // So that a mutant that never has enough takes the memory of nobody else.
    let mut command = Command::new("sh");
    command
        .args(["-c", "ulimit -v 16000000; exec \"$0\" \"$@\""])
        .arg(&program.executable)
        .current_dir(&program.directory)
        .env("TMPDIR", scratch)
        .env("RUST_BACKTRACE", "0")
        .stdin(Stdio::null())
        .stderr(Stdio::null());
    // So that it can be ended with its children.
    #[cfg(unix)]
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    command
}

/// Follows the process until it ends, a test fails, or none has ended for
/// `patience`.
fn watch(mut command: Command, patience: Duration, tests: &[&Test]) -> Result<Ended, Failure> {
    let mut child = command.stdout(Stdio::piped()).spawn()?;
    let output = child.stdout.take().ok_or("a child without output")?;
    let (tell, hear) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
            if tell.send(line).is_err() {
                break;
            }
        }
    });
    let mut pending: BTreeSet<&str> = tests.iter().map(|test| &*test.name).collect();
    let mut last = Instant::now();
    let mut status = None;
    let ended = loop {
        match hear.recv_timeout(Duration::from_millis(20)) {
            Ok(line) => {
                let line = String::from_utf8_lossy(&line);
                match verdict(&line) {
                    Some((who, true)) => {
                        pending.remove(who);
                        last = Instant::now();
                    }
                    Some((who, false)) if pending.contains(who) => {
                        break Ended::Failed(who.to_owned());
                    }
                    _ => {}
                }
                continue;
            }
            // A child of the child may have the pipe.
            Err(mpsc::RecvTimeoutError::Timeout) if status.is_none() => {}
            Err(_) => break over(status.map_or_else(|| child.wait(), Ok)?, &pending),
        }
        status = child.try_wait()?;
        if last.elapsed() > patience {
            break Ended::Hung(pending.iter().map(|&who| who.to_owned()).collect());
        }
    };
    end(&mut child)?;
    Ok(ended)
}

fn over(status: std::process::ExitStatus, pending: &BTreeSet<&str>) -> Ended {
    if status.success() && pending.is_empty() {
        Ended::Passed
    } else {
        Ended::Died(status.to_string())
    }
}

/// `test NAME ... ok`, or not ok.
fn verdict(line: &str) -> Option<(&str, bool)> {
    let (name, verdict) = line.strip_prefix("test ")?.rsplit_once(" ... ")?;
    let name = name.split(" - ").next().unwrap_or(name);
    match verdict.split(' ').next()? {
        "ok" => Some((name, true)),
        "FAILED" => Some((name, false)),
        _ => None,
    }
}

/// Ends it and whomever it has started.
fn end(child: &mut Child) -> Result<(), Failure> {
    #[cfg(unix)]
    let _ = Command::new("kill")
        .args(["-9", "--", &format!("-{}", child.id())])
        .stderr(Stdio::null())
        .status();
    let _ = child.kill();
    child.wait()?;
    Ok(())
}

/// What a test is, when it is run alone without a mutant.
pub enum Alone {
    Passes(Test),
    Fails,
}

/// The names of the tests of a program.
pub fn names(program: &Program, scratch: &Path) -> Result<Vec<String>, Failure> {
    let output = start(program, scratch)
        .args(["--list", "--format=terse"])
        .output()?;
    Ok(String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| line.strip_suffix(": test"))
        .map(str::to_owned)
        .collect())
}

/// Runs one test as the program is, and sees by which of `mutants` (numbers to
/// that) it comes.
pub fn alone(
    programs: &[Program],
    program: usize,
    name: &str,
    mutants: usize,
    scratch: &Path,
) -> Result<Alone, Failure> {
    std::fs::create_dir_all(scratch)?;
    let reached = scratch.join("reached");
    std::fs::write(&reached, vec![0; mutants + 1])?;
    let mut test = Test {
        program,
        name: name.to_owned(),
        took: Duration::ZERO,
        reaches: BTreeSet::new(),
    };
    let mut command = start(&programs[program], scratch);
    command
        .env("XTASK_MUTANTS_REACHED", &reached)
        .args(["--exact", name]);
    let began = Instant::now();
    let ended = watch(command, Duration::from_secs(120), &[&test])?;
    test.took = began.elapsed();
    let seen = std::fs::read(&reached)?;
    test.reaches = (1..=mutants).filter(|&mutant| seen[mutant] != 0).collect();
    std::fs::remove_dir_all(scratch)?;
    Ok(match ended {
        Ended::Passed => Alone::Passes(test),
        _ => Alone::Fails,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_harness_is_understood() {
        assert_eq!(verdict("test a::b ... ok"), Some(("a::b", true)));
        assert_eq!(
            verdict("test a::b - should panic ... FAILED"),
            Some(("a::b", false))
        );
        assert_eq!(verdict("test a::b ... FAILED"), Some(("a::b", false)));
        assert_eq!(verdict("test a has been running for over 60 seconds"), None);
        assert_eq!(verdict("test result: ok. 3 passed"), None);
    }

    #[test]
    fn a_verdict_is_read_as_it_was_written() {
        for verdict in [
            Verdict::Noticed("a::b".into()),
            Verdict::Hung("a, b".into()),
            Verdict::Died("signal 6".into()),
            Verdict::Shaky("a".into()),
            Verdict::Lives(12),
            Verdict::Unviable,
        ] {
            let read = Verdict::read(verdict.word(), &verdict.detail());
            assert_eq!(read, Some(verdict));
        }
    }
}
