//! What the library and its tests are, as a number: what was found out about these
//! very sources need not be found out again.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;

/// The library and what it stands on.
pub const PACKAGES: [&str; 2] = ["onepen-lock", "onepen"];

/// Another number when any file of the library or of its tests is another, or
/// `Cargo.lock`.
///
/// # Errors
/// When one cannot be read.
pub fn number(root: &Path) -> std::io::Result<u64> {
    let mut hash = DefaultHasher::new();
    std::fs::read(root.join("Cargo.lock"))?.hash(&mut hash);
    for package in PACKAGES {
        add(&root.join(package), &mut hash)?;
    }
    Ok(hash.finish())
}

/// All files below, in an order of their own.
fn add(directory: &Path, hash: &mut DefaultHasher) -> std::io::Result<()> {
    let entries: Result<Vec<_>, _> = std::fs::read_dir(directory)?.collect();
    let mut paths: Vec<_> = entries?.into_iter().map(|entry| entry.path()).collect();
    paths.sort();
    for path in paths {
        path.file_name().hash(hash);
        if path.is_dir() {
            add(&path, hash)?;
        } else {
            std::fs::read(&path)?.hash(hash);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_number_of_these_sources_changes_with_any_file_of_them() {
        let home = std::env::temp_dir().join(format!("onepen-sources-{}", std::process::id()));
        let number = || super::number(&home).unwrap();
        for package in super::PACKAGES {
            std::fs::create_dir_all(home.join(package).join("src")).unwrap();
        }
        std::fs::write(home.join("Cargo.lock"), "").unwrap();
        let empty = number();
        std::fs::write(home.join("onepen/src/a.rs"), "").unwrap();
        let named = number();
        std::fs::write(home.join("onepen/src/a.rs"), "a").unwrap();
        let filled = number();
        assert!(empty != named && named != filled && empty != filled);
        assert_eq!(number(), filled);
        std::fs::remove_dir_all(home).unwrap();
    }
}
