//! `cargo xtask figures`: writes what `compare --json` measured into the page
//! that shows it, so that no figure there was typed by hand.

use std::path::Path;

use serde_json::Value;

use crate::compare::Failure;
use crate::compare::table::{machine, number, times};

const USAGE: &str = "\
usage: cargo xtask figures FILE

  FILE   what `cargo xtask compare --json FILE` wrote; its figures go into
         docs/benchmarks.md, in place of those that are there
";
const BEGIN: &str = "<!-- figures: begin -->\n";
const END: &str = "<!-- figures: end -->";

/// Runs the verb with the words after it.
pub fn main(words: &[String]) -> Result<(), Failure> {
    let [file] = words else {
        print!("{USAGE}");
        return Ok(());
    };
    if file.starts_with('-') {
        print!("{USAGE}");
        return Ok(());
    }
    let text = std::fs::read_to_string(file).map_err(|error| format!("{file}: {error}"))?;
    let measured: Value =
        serde_json::from_str(&text).map_err(|error| format!("{file}: {error}"))?;
    let page = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("..")
        .join("docs/benchmarks.md");
    let before = std::fs::read_to_string(&page)?;
    let after = replace_block(&before, &markdown(&measured)?)
        .ok_or("docs/benchmarks.md has no place for figures any more")?;
    std::fs::write(&page, after)?;
    println!("docs/benchmarks.md has the figures of {file}");
    Ok(())
}

fn replace_block(page: &str, block: &str) -> Option<String> {
    let (before, rest) = page.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}{block}{END}{after}"))
}

fn markdown(measured: &Value) -> Result<String, Failure> {
    let sections = measured["sections"].as_array().ok_or("no sections in it")?;
    let mut text = format!(
        "{}\n{}\n",
        machine(&measured["machine"]).trim_end(),
        if measured["quick"] == true {
            "\nWith `--quick`: few and short rounds.\n"
        } else {
            ""
        }
    );
    text += "| what | must | is | least … most | |\n|---|---|---|---|---|\n";
    for section in sections {
        for goal in list(&section["goals"]) {
            text += &goal_row(section, goal);
        }
    }
    for section in sections {
        let rows: Vec<_> = list(&section["contenders"])
            .iter()
            .filter(|contender| !contender["rate"].is_null() || !contender["trouble"].is_null())
            .collect();
        if rows.is_empty() {
            continue;
        }
        let unit = words(&section["unit"]);
        text += &format!(
            "\n**{}**: {} rounds of {} s\n\n| | {unit} | least … most | p99 µs | |\n|---|--:|--:|--:|---|\n",
            words(&section["title"]),
            section["rounds"],
            section["seconds"],
        );
        for contender in rows {
            text += &format!(
                "| {} | {} | {} | {} | {} |\n",
                words(&contender["label"]),
                figure(&contender["rate"]["median"], number),
                range(&contender["rate"], number),
                figure(&contender["p99_us"]["median"], number),
                words(&contender["trouble"]),
            );
        }
    }
    Ok(text)
}

fn goal_row(section: &Value, goal: &Value) -> String {
    let words_of_goal = words(&goal["goal"]);
    let show = if words_of_goal.contains('≥') {
        times
    } else {
        number
    };
    let (is, between) = match &goal["value"] {
        Value::Object(_) => (
            figure(&goal["value"]["median"], show),
            range(&goal["value"], show),
        ),
        why => (words(why).to_owned(), String::new()),
    };
    let disturbed = section["cores_used_by_others"]
        .as_f64()
        .is_some_and(|cores| cores >= crate::compare::table::DISTURBED);
    format!(
        "| {} | {words_of_goal} | {is} | {between} | {}{} |\n",
        words(&section["title"]),
        words(&goal["verdict"]),
        if disturbed {
            ", others were busy on the machine"
        } else {
            ""
        }
    )
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn words(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn figure(value: &Value, show: fn(f64) -> String) -> String {
    value.as_f64().map(show).unwrap_or_default()
}

fn range(spread: &Value, show: fn(f64) -> String) -> String {
    match (spread["least"].as_f64(), spread["most"].as_f64()) {
        (Some(least), Some(most)) => format!("{} … {}", show(least), show(most)),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_the_block_is_replaced() {
        let page = format!("above\n{BEGIN}old\n{END}\nbelow\n");
        let new = replace_block(&page, "new\n").expect("there is a block");
        assert_eq!(new, format!("above\n{BEGIN}new\n{END}\nbelow\n"));
        assert_eq!(replace_block("no block", "new"), None);
    }

    #[test]
    fn a_missed_goal_and_a_disturbed_run_are_said() {
        let measured = json!({
            "machine": {}, "quick": false,
            "sections": [{
                "title": "one", "unit": "tx/s", "rounds": 3, "seconds": 1.0,
                "cores_used_by_others": 1.0,
                "contenders": [
                    {"label": "a", "rate": {"median": 1234.0, "least": 1.0, "most": 2000.0}, "trouble": null},
                    {"label": "b", "rate": null, "trouble": "WRONG: 1 row is missing"},
                ],
                "goals": [{"goal": "a ≥ 2 × b", "verdict": "missed",
                           "value": {"median": 1.5, "least": 1.0, "most": 1.75}}],
            }],
        });
        let text = markdown(&measured).expect("it has sections");
        assert!(text.contains("| one | a ≥ 2 × b | 1.500 × | 1.000 × … 1.750 × | missed, others were busy on the machine |"), "{text}");
        assert!(
            text.contains("| a | 1,234 | 1.0 … 2,000 |")
                || text.contains("| a | 1,234 | 1 … 2,000 |"),
            "{text}"
        );
        assert!(text.contains("WRONG: 1 row is missing"), "{text}");
    }
}
