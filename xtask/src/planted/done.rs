//! What was noticed before, so that a run that was broken off goes on where it was.
//!
//! Guarantees: it holds for these very sources (every file of the library and of
//! its tests, and `Cargo.lock`) and this very bug; whoever changes anything of it
//! starts anew. Only what was noticed is remembered.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write;
use std::path::{Path, PathBuf};

use super::Bug;
use crate::models::Failure;

pub(super) struct Done {
    path: PathBuf,
    sources: u64,
    /// How, by bug.
    noticed: HashMap<u64, String>,
}

impl Done {
    /// What is remembered in the file at `path` of the sources in `root`.
    pub(super) fn of(root: &Path, path: PathBuf) -> Result<Self, Failure> {
        let sources = crate::sources::number(root)?;
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        let prefix = format!("{sources:016x} ");
        let noticed = text
            .lines()
            .filter_map(|line| line.strip_prefix(&*prefix)?.split_once(' '))
            .filter_map(|(bug, how)| Some((u64::from_str_radix(bug, 16).ok()?, how.to_owned())))
            .collect();
        Ok(Self {
            path,
            sources,
            noticed,
        })
    }

    pub(super) fn forget(&mut self) {
        self.noticed.clear();
    }

    /// How it was noticed.
    pub(super) fn get(&self, bug: &Bug) -> Option<&str> {
        self.noticed.get(&key(bug)).map(|how| &**how)
    }

    pub(super) fn add(&mut self, bug: &Bug, how: &str) -> Result<(), Failure> {
        let key = key(bug);
        self.noticed.insert(key, how.to_owned());
        let mut file = std::fs::File::options()
            .create(true)
            .append(true)
            .open(&self.path)?;
        Ok(writeln!(file, "{:016x} {key:016x} {how}", self.sources)?)
    }
}

fn key(bug: &Bug) -> u64 {
    let mut hash = DefaultHasher::new();
    (bug.what, bug.file, bug.changes, bug.by).hash(&mut hash);
    hash.finish()
}

#[cfg(test)]
mod tests {
    use super::super::{bugs, root};
    use super::*;

    #[test]
    fn what_was_noticed_is_remembered_for_these_sources_and_this_bug_alone() {
        let home = std::env::temp_dir().join(format!("onepen-done-{}", std::process::id()));
        std::fs::create_dir_all(&home).unwrap();
        let (root, path) = (root().unwrap(), home.join("noticed"));
        let mut all = bugs::all();
        let (one, other) = (all.next().unwrap(), all.next().unwrap());
        let mut done = Done::of(&root, path.clone()).unwrap();
        assert_eq!(done.get(one), None);
        done.add(one, "failed").unwrap();
        let mut again = Done::of(&root, path.clone()).unwrap();
        assert_eq!((again.get(one), again.get(other)), (Some("failed"), None));
        again.sources += 1; // something was changed
        again.add(other, "hangs").unwrap();
        assert_eq!(Done::of(&root, path).unwrap().get(other), None);
        again.forget();
        assert_eq!(again.get(one), None);
        std::fs::remove_dir_all(home).unwrap();
    }
}
