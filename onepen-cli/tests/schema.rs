//! The JSON report is what the README says it is, field by field.

mod common;

use std::collections::{BTreeMap, BTreeSet};

use common::{example, json, quick};
use serde_json::Value;

/// Path and allowed types of every field the README documents.
fn documented() -> BTreeMap<String, BTreeSet<String>> {
    let readme = include_str!("../README.md");
    let (_, section) = readme.split_once("## The JSON report").unwrap();
    section
        .lines()
        .filter_map(|line| {
            let mut cells = line.strip_prefix("| `")?.split(" | ");
            let path = cells.next()?.trim_end_matches('`');
            let types = cells.next()?.split(" or ");
            Some((
                path.to_owned(),
                types.map(|name| name.trim().to_owned()).collect(),
            ))
        })
        .collect()
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// Checks a value against the documentation; collects the paths it has.
fn check(
    path: &str,
    value: &Value,
    documented: &BTreeMap<String, BTreeSet<String>>,
    seen: &mut BTreeSet<String>,
) {
    if let Some(types) = documented.get(path) {
        assert!(
            types.contains(kind(value)),
            "{path} is {value}, must be {types:?}"
        );
        seen.insert(path.to_owned());
        return;
    }
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let path = if path.is_empty() {
                    name.clone()
                } else {
                    format!("{path}.{name}")
                };
                check(&path, value, documented, seen);
            }
        }
        Value::Array(items) => {
            for item in items {
                check(&format!("{path}[]"), item, documented, seen);
            }
        }
        // An object that is missing as a whole: all its fields may be.
        Value::Null => {
            let prefix = format!("{path}.");
            let fields: Vec<_> = documented
                .iter()
                .filter(|(path, _)| path.starts_with(&prefix))
                .collect();
            assert!(!fields.is_empty(), "{path} is not documented");
            for (path, types) in fields {
                assert!(types.contains("null"), "{path} is null, must be {types:?}");
            }
        }
        _ => panic!("{path} is not documented"),
    }
}

#[test]
fn every_field_of_the_json_report_is_documented_and_has_its_type() {
    let documented = documented();
    assert!(documented.len() > 40, "{documented:?}");
    let db = example("data/chinook.sqlite");
    let script = example("chinook-invoice.sql");
    let mut seen = BTreeSet::new();
    for arguments in [
        &["--readers", "1", "--sweep", "1,2"][..],
        // A violation.
        &[
            "--script",
            &script,
            "--db",
            &db,
            "--ways",
            "mutex",
            "--invariant",
            "SELECT count(*) FROM Invoice",
            "--durability",
            "normal",
        ],
    ] {
        // A sweep says how many threads by itself.
        let report = json(&if arguments.contains(&"--sweep") {
            common::onepen(
                &[
                    &[
                        "bench", "--json", "--rounds", "1", "-d", "30ms", "--tasks", "2",
                    ],
                    arguments,
                ]
                .concat(),
            )
        } else {
            quick(arguments)
        });
        assert_eq!(report["schema"], "onepen-bench/1");
        check("", &report, &documented, &mut seen);
    }
    let never: Vec<_> = documented
        .keys()
        .filter(|path| !seen.contains(*path))
        .collect();
    assert!(never.is_empty(), "documented and never there: {never:?}");
}
