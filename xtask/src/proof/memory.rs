//! What an instrument has found before, so that a run that is broken off goes on
//! where it was.
//!
//! Guarantees: it holds for these very sources ([`crate::sources`]) and for what
//! the instrument itself depends on; whoever changes anything of it starts anew.
//! Only what ended well is remembered.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write;
use std::path::{Path, PathBuf};

use super::{Failure, root};

/// A figure and what it is of.
pub type Figure = (String, u64);

pub struct Memory {
    path: PathBuf,
    /// What it holds for.
    of: u64,
    text: String,
}

impl Memory {
    /// What is remembered of the instrument `name`, which depends on the sources and
    /// on the text `also`; nothing of it if it is to be run `anew`.
    ///
    /// # Errors
    /// When the sources cannot be read.
    pub fn of(name: &str, also: &str, anew: bool) -> Result<Self, Failure> {
        let directory = root().join("target").join("proof");
        std::fs::create_dir_all(&directory)?;
        let mut hash = DefaultHasher::new();
        (crate::sources::number(&root())?, also).hash(&mut hash);
        let path = directory.join(format!("{name}.found"));
        if anew && path.exists() {
            std::fs::remove_file(&path)?;
        }
        Ok(Self::at(&path, hash.finish()))
    }

    fn at(path: &Path, of: u64) -> Self {
        Self {
            path: path.to_path_buf(),
            of,
            text: std::fs::read_to_string(path).unwrap_or_default(),
        }
    }

    /// The figures of a part that was run before.
    pub fn get(&self, part: &str) -> Option<Vec<Figure>> {
        let prefix = format!("{:016x}\t{part}\t", self.of);
        let known: Vec<_> = self
            .text
            .lines()
            .filter_map(|line| line.strip_prefix(&*prefix)?.split_once('\t'))
            .filter_map(|(number, what)| Some((what.to_owned(), number.parse().ok()?)))
            .collect();
        (!known.is_empty()).then_some(known)
    }

    /// Remembers a part that ended well.
    ///
    /// # Errors
    /// When it cannot be written down.
    pub fn keep(&mut self, part: &str, found: &[Figure]) -> Result<(), Failure> {
        let lines: String = found
            .iter()
            .map(|(what, number)| format!("{:016x}\t{part}\t{number}\t{what}\n", self.of))
            .collect();
        let mut file = std::fs::File::options()
            .create(true)
            .append(true)
            .open(&self.path)?;
        file.write_all(lines.as_bytes())?;
        self.text.push_str(&lines);
        Ok(())
    }
}

/// Adds up figures of the same.
pub fn add(sums: &mut Vec<Figure>, found: Vec<Figure>) {
    for (what, number) in found {
        match sums.iter_mut().find(|(known, _)| *known == what) {
            Some((_, sum)) => *sum += number,
            None => sums.push((what, number)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_found_is_remembered_for_these_sources_and_this_part_alone() {
        let home = std::env::temp_dir().join(format!("onepen-memory-{}", std::process::id()));
        std::fs::create_dir_all(&home).unwrap();
        let path = home.join("found");
        let found = vec![("kills".to_owned(), 3), ("files".to_owned(), 1)];
        let mut memory = Memory::at(&path, 7);
        assert_eq!(memory.get("seed 1"), None);
        memory.keep("seed 1", &found).unwrap();
        assert_eq!(memory.get("seed 1").as_ref(), Some(&found));
        let again = Memory::at(&path, 7);
        assert_eq!(again.get("seed 1").as_ref(), Some(&found));
        assert_eq!(again.get("seed"), None, "another part");
        assert_eq!(Memory::at(&path, 8).get("seed 1"), None, "changed");
        std::fs::remove_dir_all(home).unwrap();
    }

    #[test]
    fn figures_of_the_same_are_added_up() {
        let mut sums = vec![("kills".to_owned(), 3)];
        add(
            &mut sums,
            vec![("files".to_owned(), 1), ("kills".to_owned(), 4)],
        );
        assert_eq!(sums, [("kills".to_owned(), 7), ("files".to_owned(), 1)]);
    }
}
