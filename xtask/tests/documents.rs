//! What the project's pages say about the project is so: links lead somewhere,
//! tests that are named exist, and the picture of the rooms is the sources'.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The project's pages, relative to its root.
fn pages() -> Vec<PathBuf> {
    let mut pages: Vec<PathBuf> = [
        "README.md",
        "ARCHITECTURE.md",
        "CHANGELOG.md",
        "python/README.md",
    ]
    .map(PathBuf::from)
    .to_vec();
    markdown(Path::new("docs"), &mut pages);
    pages.sort();
    pages
}

fn markdown(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(root().join(directory)).expect("there are documents") {
        let path = directory.join(entry.expect("an entry").file_name());
        if root().join(&path).is_dir() {
            markdown(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "md") {
            found.push(path);
        }
    }
}

/// The text outside of code blocks.
fn prose(page: &str) -> String {
    page.split("```").step_by(2).collect()
}

fn sources(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() && !path.ends_with("target") {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The names of all functions below `#[test]`, and of those that pytest takes for tests.
fn tests() -> BTreeSet<String> {
    let mut files = Vec::new();
    for package in [
        "onepen-lock",
        "onepen-check",
        "onepen",
        "onepen-cli",
        "onepen-vfs",
        "xtask",
    ] {
        sources(&root().join(package), &mut files);
    }
    let mut names = BTreeSet::new();
    for file in files {
        let text = fs::read_to_string(file).expect("a source file");
        for after in text.split("#[test]").skip(1) {
            let name = after.split_once("fn ").map_or("", |(_, name)| name);
            names.insert(name.split('(').next().unwrap_or_default().to_owned());
        }
        // Tests that a macro of the file makes: `name = "what it is about"`.
        if text.contains("macro_rules!") && text.contains("#[test]") {
            let lines = text.lines().filter_map(|line| line.split_once(" = \""));
            names.extend(lines.map(|(name, _)| name.trim_start().to_owned()));
        }
    }
    for entry in fs::read_dir(root().join("python/tests")).expect("there are tests in Python") {
        let path = entry.expect("an entry").path();
        if path.extension().is_some_and(|extension| extension == "py") {
            let text = fs::read_to_string(path).expect("a source file");
            for after in text.split("\ndef ").skip(1) {
                let name = after.split('(').next().unwrap_or_default();
                // A page may leave out what only says that it is a test.
                names.extend([name, name.trim_start_matches("test_")].map(str::to_owned));
            }
        }
    }
    names
}

#[test]
fn every_test_that_a_page_names_exists() {
    let tests = tests();
    let mut named = 0;
    for page in pages() {
        let text = prose(&read(&page));
        // What stands between backticks and has the look of a test's name.
        for word in text.split('`').skip(1).step_by(2) {
            let name = word.rsplit("::").next().unwrap_or(word);
            let is_identifier = name
                .chars()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
            if is_identifier && name.matches('_').count() >= 3 {
                named += 1;
                assert!(
                    tests.contains(name),
                    "{}: there is no test `{name}`",
                    page.display()
                );
            }
        }
    }
    assert!(named > 40, "only {named} names were recognised");
}

/// How GitHub names a heading.
fn anchor(heading: &str) -> String {
    heading
        .trim_start_matches('#')
        .trim()
        .to_lowercase()
        .chars()
        .filter(|c| c.is_alphanumeric() || *c == ' ' || *c == '-')
        .map(|c| if c == ' ' { '-' } else { c })
        .collect()
}

#[test]
fn every_link_within_the_project_leads_somewhere() {
    let mut links = 0;
    for page in pages() {
        let text = prose(&read(&page));
        for after in text.split("](").skip(1) {
            let target = after.split(')').next().unwrap_or_default();
            if target.contains("://") {
                continue;
            }
            links += 1;
            let (file, heading) = target.split_once('#').unwrap_or((target, ""));
            let to = match file {
                "" => page.clone(),
                file => page.parent().expect("a page lies somewhere").join(file),
            };
            assert!(
                root().join(&to).exists(),
                "{}: {target} leads nowhere",
                page.display()
            );
            assert!(
                heading.is_empty()
                    || prose(&read(&to))
                        .lines()
                        .any(|line| line.starts_with('#') && anchor(line) == heading),
                "{}: {target} leads to no heading",
                page.display()
            );
        }
    }
    assert!(links > 10, "only {links} links were recognised");
}

/// The rooms of the library from the picture in ARCHITECTURE.md, the highest
/// layer first.
fn layers() -> Vec<Vec<String>> {
    let page = read("ARCHITECTURE.md");
    let picture = page.split("```").nth(1).expect("there is a picture");
    let mut layers = Vec::new();
    let mut is_first_line = false;
    for line in picture.lines() {
        if line.starts_with(" ┌") || line.starts_with(" ├") {
            is_first_line = true;
        } else if std::mem::take(&mut is_first_line) {
            // The names stand first in a cell, and two spaces end them.
            let cells = line.split('│').filter(|cell| !cell.trim().is_empty());
            let names = cells.flat_map(|cell| {
                let names = cell.trim().split("  ").next().unwrap_or_default();
                names.split(" · ").map(|name| name.trim().to_owned())
            });
            layers.push(names.collect());
        }
    }
    layers
}

/// A file or a directory called `tests`, which may look down on its own room.
fn is_of_tests(file: &Path) -> bool {
    let library = root().join("onepen/src");
    let inside = file.strip_prefix(library).unwrap_or(file);
    inside
        .components()
        .any(|part| matches!(part.as_os_str().to_str(), Some("tests" | "tests.rs")))
}

#[test]
fn a_room_uses_only_rooms_below_it() {
    let layers = layers();
    let mut place = BTreeMap::new();
    for (depth, layer) in layers.iter().enumerate() {
        for room in layer {
            place.insert(room.as_str(), depth);
        }
    }
    let library = root().join("onepen/src");
    for entry in fs::read_dir(&library).expect("the library") {
        let path = entry.expect("an entry").path();
        let room = path.file_stem().and_then(|stem| stem.to_str());
        let room = room.expect("a name").to_owned();
        // The crate itself, and the pen under a magnifying glass.
        if room == "lib" || room == "models" {
            continue;
        }
        let Some(&depth) = place.get(room.as_str()) else {
            panic!("the picture in ARCHITECTURE.md has no room `{room}`");
        };
        // The one exception the page names.
        if room == "options" {
            continue;
        }
        let mut files = vec![path.clone()];
        if path.is_dir() {
            files.clear();
            sources(&path, &mut files);
        }
        for file in files.iter().filter(|file| !is_of_tests(file)) {
            let text = fs::read_to_string(file).expect("a source file");
            let text = text.split("#[cfg(all(test").next().unwrap_or_default();
            let text = text.split("#[cfg(test)]").next().unwrap_or_default();
            let code = text.lines().filter(|line| !line.trim().starts_with("//"));
            for line in code {
                for after in line.split("crate::").skip(1) {
                    let used: String = after
                        .chars()
                        .take_while(|c| c.is_ascii_lowercase() || *c == '_')
                        .collect();
                    if let Some(&below) = place.get(used.as_str()) {
                        assert!(
                            below >= depth,
                            "{}: `{room}` uses `{used}`, which stands above it",
                            file.display()
                        );
                    }
                }
            }
        }
    }
    assert!(layers.len() > 5 && place.len() > 20, "{layers:?}");
}
