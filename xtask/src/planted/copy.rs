//! A copy of the library's sources, to be broken.

use std::path::{Path, PathBuf};

use super::Bug;
use crate::models::Failure;
use crate::sources::PACKAGES;

/// A workspace with nothing but the library in it.
pub(crate) struct Copy {
    original: PathBuf,
    pub(super) root: PathBuf,
}

impl Copy {
    pub(crate) fn of(original: &Path, root: &Path) -> Result<Self, Failure> {
        if root.exists() {
            std::fs::remove_dir_all(root)?;
        }
        std::fs::create_dir_all(root)?;
        let manifest = std::fs::read_to_string(original.join("Cargo.toml"))?;
        let manifest: String = manifest
            .lines()
            .map(|line| match line.split_once(" = ") {
                Some((key @ ("members" | "default-members"), _)) => {
                    format!("{key} = {PACKAGES:?}\n")
                }
                // Cargo keeps the packages of two workspaces apart in one target
                // directory by name and version alone.
                Some(("version", version)) => {
                    format!("version = \"{}+planted\"\n", version.trim_matches('"'))
                }
                _ => format!("{line}\n"),
            })
            .collect();
        std::fs::write(root.join("Cargo.toml"), manifest)?;
        std::fs::copy(original.join("Cargo.lock"), root.join("Cargo.lock"))?;
        for package in PACKAGES {
            copy_dir(&original.join(package), &root.join(package))?;
        }
        Ok(Self {
            original: original.to_path_buf(),
            root: root.to_path_buf(),
        })
    }

    pub(super) fn plant(&self, bug: &Bug) -> Result<(), Failure> {
        let text = bug.planted(&self.original)?;
        Ok(std::fs::write(self.root.join(bug.file), text)?)
    }

    pub(super) fn heal(&self, bug: &Bug) -> Result<(), Failure> {
        std::fs::copy(self.original.join(bug.file), self.root.join(bug.file))?;
        Ok(())
    }
}

fn copy_dir(from: &Path, to: &Path) -> Result<(), Failure> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type()?.is_dir() {
            copy_dir(&from, &to)?;
        } else {
            std::fs::copy(&from, &to)?;
        }
    }
    Ok(())
}
