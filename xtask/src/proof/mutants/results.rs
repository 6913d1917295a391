//! What became of each mutant, written down as it comes; and what is argued.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::sync::Mutex;

use serde_json::{Value, json};

use super::trial::Verdict;
use crate::proof::Failure;

/// A file with a line for each verdict.
pub struct Results {
    file: Mutex<std::fs::File>,
}

impl Results {
    /// Those that were there, and the file to write more to; an empty one unless
    /// the run `goes_on`.
    pub fn open(path: &Path, goes_on: bool) -> Result<(BTreeMap<String, Verdict>, Self), Failure> {
        let mut known = BTreeMap::new();
        if goes_on && path.exists() {
            for line in std::fs::read_to_string(path)?.lines() {
                // The last line may have been cut off.
                known.extend(read(line));
            }
        }
        let file = std::fs::File::options()
            .create(true)
            .append(true)
            .open(path)?;
        if !goes_on {
            file.set_len(0)?;
        }
        let file = Mutex::new(file);
        Ok((known, Self { file }))
    }

    pub fn add(&self, mutant: &str, verdict: &Verdict) -> Result<(), Failure> {
        let line = json!({
            "mutant": mutant, "verdict": verdict.word(), "detail": verdict.detail(),
        });
        let mut file = self.file.lock().map_err(|_| "a worker panicked")?;
        Ok(file.write_all(format!("{line}\n").as_bytes())?)
    }
}

fn read(line: &str) -> Option<(String, Verdict)> {
    let line: Value = serde_json::from_str(line).ok()?;
    let verdict = Verdict::read(line["verdict"].as_str()?, line["detail"].as_str()?)?;
    Some((line["mutant"].as_str()?.to_owned(), verdict))
}

/// The mutants of which docs/proof.md says why no test can, or has to, notice
/// them; each with the heading it stands under.
pub const ARGUED: &str = include_str!("argued.txt");

/// Mutants by name, with the heading above them.
///
/// # Errors
/// For a mutant without a heading, and one that stands there twice.
pub fn argued(text: &str) -> Result<BTreeMap<&str, &str>, Failure> {
    let mut heading = None;
    let mut argued = BTreeMap::new();
    for line in text.lines().map(str::trim) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(name) = line
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
        {
            heading = Some(name);
            continue;
        }
        let heading = heading.ok_or_else(|| format!("no heading above: {line}"))?;
        if argued.insert(line, heading).is_some() {
            return Err(format!("argued twice: {line}").into());
        }
    }
    Ok(argued)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_heading_of_the_argued_is_a_word_of_the_page() {
        let page = std::fs::read_to_string(crate::proof::root().join("docs/proof.md")).unwrap();
        let argued = argued(ARGUED).unwrap();
        for heading in argued.values() {
            assert!(page.contains(&format!("`{heading}`")), "{heading}");
        }
    }

    #[test]
    fn what_is_argued_is_about_files_and_functions_that_are_there() {
        for mutant in argued(ARGUED).unwrap().keys() {
            let (file, _) = mutant.split_once(": ").expect("file: change");
            let source = std::fs::read_to_string(crate::proof::root().join(file));
            let source = source.unwrap_or_else(|error| panic!("{mutant}: {error}"));
            let change = mutant.split(" #").next().unwrap();
            if let Some((_, function)) = change.rsplit_once(" in ") {
                let name = function.rsplit("::").next().unwrap();
                assert!(source.contains(&format!("fn {name}")), "{mutant}");
            }
        }
    }

    #[test]
    fn a_run_goes_on_after_a_line_that_was_cut_off() {
        let directory = std::env::temp_dir().join(format!("mutants-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let path = directory.join("results");
        let (_, results) = Results::open(&path, false).unwrap();
        results.add("a", &Verdict::Lives(3)).unwrap();
        results.add("b", &Verdict::Unviable).unwrap();
        let written = std::fs::read(&path).unwrap();
        std::fs::write(&path, &written[..written.len() - 5]).unwrap();
        let (known, _) = Results::open(&path, true).unwrap();
        assert_eq!(known, BTreeMap::from([("a".to_owned(), Verdict::Lives(3))]));
        std::fs::remove_dir_all(directory).unwrap();
    }
}
