//! The mutants: which small changes there are, as `cargo mutants --list` says.

use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::proof::Failure;

/// One small change of one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mutant {
    /// From 1 on; 0 is the program as it is.
    pub number: usize,
    pub file: String,
    pub genre: Genre,
    pub line: usize,
    pub column: usize,
    end: (usize, usize),
    pub replacement: String,
    /// What the function returns, as it is written, with the arrow.
    pub returns: String,
    /// File, change and function without the place, and which of several that
    /// read alike: stays what it is when lines above come and go.
    pub name: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Genre {
    /// A function that returns at once.
    Returns,
    Operator,
    /// One of `!` and `-` less.
    Unary,
    Arm,
    Guard,
    /// A field less, where the rest comes from `..base`.
    Field,
}

impl Mutant {
    /// `file:line:column: change`, as cargo-mutants calls it.
    pub fn place(&self) -> String {
        let Self {
            file, line, column, ..
        } = self;
        let change = self.name.strip_prefix(&**file).unwrap_or(&self.name);
        let change = change.split(" #").next().unwrap_or(change);
        format!("{file}:{line}:{column}{change}")
    }

    /// Which bytes of `source`, the text of its file, it replaces.
    ///
    /// # Errors
    /// When there is no such place.
    pub fn bytes(&self, source: &str) -> Result<Range<usize>, Failure> {
        let at = |(line, column)| offset(source, line, column);
        at((self.line, self.column))
            .zip(at(self.end))
            .map(|(start, end)| start..end)
            .ok_or_else(|| format!("{}: there is no such place", self.place()).into())
    }
}

/// Lines and columns (characters, not bytes) count from 1.
fn offset(source: &str, line: usize, column: usize) -> Option<usize> {
    let start: usize = source
        .split_inclusive('\n')
        .take(line.checked_sub(1)?)
        .map(str::len)
        .sum();
    let rest = source.get(start..)?;
    let column = column.checked_sub(1)?;
    let within = rest.char_indices().map(|(at, _)| at).chain([rest.len()]);
    Some(start + within.take(column + 1).last()?)
}

/// The mutants of `files` (globs) in the workspace at `root`, for [`read`].
///
/// # Errors
/// When there is no cargo-mutants.
pub fn list(root: &Path, files: &[&str]) -> Result<Value, Failure> {
    let mut cargo = Command::new("cargo");
    cargo
        .current_dir(root)
        .args(["mutants", "--list", "--json", "--no-config"]);
    for file in files {
        cargo.args(["--file", file]);
    }
    let output = cargo.output()?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!(
            "cargo mutants failed (cargo install --locked cargo-mutants):\n{said}"
        )
        .into());
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// Out of the list as cargo-mutants writes it.
///
/// # Errors
/// When something is not understood.
pub fn read(list: &Value) -> Result<Vec<Mutant>, Failure> {
    let list = list.as_array().ok_or("the list of mutants is no list")?;
    let mut times = HashMap::new();
    let mut mutants = Vec::new();
    for (index, entry) in list.iter().enumerate() {
        let mut mutant = one(entry).ok_or_else(|| format!("not understood: {entry}"))?;
        mutant.number = index + 1;
        let times = times.entry(mutant.name.clone()).or_insert(0);
        *times += 1;
        if *times > 1 {
            mutant.name = format!("{} #{times}", mutant.name);
        }
        mutants.push(mutant);
    }
    Ok(mutants)
}

fn one(entry: &Value) -> Option<Mutant> {
    let place = |end: &str| {
        let place = &entry["span"][end];
        let number = |key: &str| Some(place[key].as_u64()? as usize);
        Some((number("line")?, number("column")?))
    };
    let (line, column) = place("start")?;
    let file = entry["file"].as_str()?.to_owned();
    let name = entry["name"].as_str()?;
    let change = name.strip_prefix(&format!("{file}:{line}:{column}"))?;
    Some(Mutant {
        number: 0,
        name: format!("{file}{change}"),
        genre: match entry["genre"].as_str()? {
            "FnValue" => Genre::Returns,
            "BinaryOperator" => Genre::Operator,
            "UnaryOperator" => Genre::Unary,
            "MatchArm" => Genre::Arm,
            "MatchArmGuard" => Genre::Guard,
            "StructField" => Genre::Field,
            _ => return None,
        },
        line,
        column,
        end: place("end")?,
        replacement: entry["replacement"].as_str()?.to_owned(),
        returns: entry["function"]["return_type"]
            .as_str()
            .unwrap_or_default()
            .to_owned(),
        file,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_found_by_line_and_character() {
        let source = "ä = 1\nbö = 2\n";
        assert_eq!(offset(source, 1, 1), Some(0));
        assert_eq!(offset(source, 1, 3), Some(3));
        assert_eq!(&source[offset(source, 2, 3).unwrap()..], " = 2\n");
        assert_eq!(offset(source, 9, 1), Some(source.len()));
    }

    #[test]
    fn mutants_that_read_alike_are_told_apart_by_their_order() {
        let entry = |line: u64| {
            serde_json::json!({
                "file": "a.rs", "genre": "UnaryOperator", "replacement": "",
                "name": format!("a.rs:{line}:5: delete ! in f"),
                "span": {"start": {"line": line, "column": 5}, "end": {"line": line, "column": 6}},
            })
        };
        let list = serde_json::Value::from(vec![entry(3), entry(4)]);
        let mutants = read(&list).unwrap();
        assert_eq!(mutants[0].name, "a.rs: delete ! in f");
        assert_eq!(mutants[1].name, "a.rs: delete ! in f #2");
        assert_eq!(mutants[1].place(), "a.rs:4:5: delete ! in f");
    }
}
