//! Images that broke a promise, kept so that they can be judged again.
//!
//! A directory for each: the files as they were before anybody opened them, and
//! beside them, in `about`, which check it was and what had been told.

use std::path::{Path, PathBuf};

use crate::campaign::{self, Check};
use crate::disk::Image;
use crate::ledger::Verdict;
use crate::told::Told;

/// Keeps an image; where.
pub fn keep(id: &str, check: &str, told: &Told, image: &Image) -> PathBuf {
    let home = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .join("power")
        .join(id);
    let files = home.join("image");
    let _ = std::fs::remove_dir_all(&home);
    std::fs::create_dir_all(&files).unwrap();
    campaign::put(&files, image);
    std::fs::write(home.join("about"), format!("{check}\n{told}")).unwrap();
    home
}

/// Judges a kept image again, a copy of it.
///
/// # Panics
/// When that is not a kept image.
pub fn replay(home: &Path, checks: &[Check]) -> Verdict {
    let about = std::fs::read_to_string(home.join("about"))
        .unwrap_or_else(|error| panic!("{}: not a kept image: {error}", home.display()));
    let (name, told) = about.split_once('\n').expect("a check and what was told");
    let check = checks
        .iter()
        .find(|check| check.name == name)
        .unwrap_or_else(|| panic!("there is no check `{name}` any more"));
    let told = Told::parse(told).unwrap();
    let copy = campaign::scratch();
    for entry in std::fs::read_dir(home.join("image")).unwrap().flatten() {
        std::fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
    }
    (check.judge)(&(check.recover)(copy.path())?, &told)
}
