//! What every command reads and writes alike: times, numbers, its output.

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use onepen_lock::text::in_one_line;

/// Prints the result; a reader that has gone is no error.
pub fn say(text: &str) -> Result<(), String> {
    let mut output = std::io::stdout().lock();
    match output
        .write_all(text.as_bytes())
        .and_then(|()| output.flush())
    {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(format!("cannot print: {error}"))
        }
        _ => Ok(()),
    }
}

/// A time as people write it: `500ms`, `1.5` (seconds), `2min`, `1h`; any length.
pub fn time(text: &str) -> Result<Duration, String> {
    let number = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let seconds = match &text[number.len()..] {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        _ => return Err("units are ms, s, min and h".to_owned()),
    };
    let number: f64 = number
        .trim()
        .parse()
        .map_err(|_| "expected a time such as 500ms or 2s")?;
    Duration::try_from_secs_f64(number * seconds)
        .map_err(|_| "must be a time that has an end, and not less than nothing".to_owned())
}

/// The same, at least 10 ms and at most a day.
pub fn duration(text: &str) -> Result<Duration, String> {
    let time = time(text)?;
    match (Duration::from_millis(10)..=Duration::from_secs(86_400)).contains(&time) {
        true => Ok(time),
        false => Err("must be between 10ms and a day".to_owned()),
    }
}

/// A whole number with its thousands apart.
pub fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A text of several lines without what moves a terminal's cursor: the names of
/// files and of libraries are whatever somebody chose.
pub fn printable(text: &str) -> String {
    text.split('\n')
        .map(in_one_line)
        .collect::<Vec<_>>()
        .join("\n")
}

/// The name of a file, in one line.
pub fn name(path: &Path) -> String {
    in_one_line(&path.display().to_string())
}

/// Says on standard error why a command could not do its work. What comes after the
/// first line is indented, so that nothing in it passes for a line of ours.
pub fn complain(verb: &str, why: impl std::fmt::Display) {
    use std::io::Write as _;
    let why = why.to_string().replace('\n', "\n    ");
    // Where that cannot be written to, the exit status is all that is left, and it is
    // not spoilt by a panic.
    let _ = writeln!(std::io::stderr(), "onepen {verb}: {}", printable(&why));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_with_their_units_and_none_is_without_end() {
        assert_eq!(time("1.5"), Ok(Duration::from_millis(1500)));
        assert_eq!(time("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(time("2min"), Ok(Duration::from_secs(120)));
        assert_eq!(time("1h"), Ok(Duration::from_secs(3600)));
        assert_eq!(time("0s"), Ok(Duration::ZERO));
        for wrong in ["", "s", "-1s", "1y", "nan", "inf", "1e300", "1e300h", "2 2"] {
            assert!(time(wrong).is_err(), "{wrong}");
        }
        assert_eq!(duration("1h"), Ok(Duration::from_secs(3600)));
        for wrong in ["0", "9ms", "25h", "1e300"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_is_printed_moves_no_cursor_and_a_name_is_one_line() {
        let hostile = "a\u{1b}]0;title\u{7}\u{202e}\nfix: rm -rf /";
        assert_eq!(printable(hostile), "a?]0;title??\nfix: rm -rf /");
        assert_eq!(name(Path::new(hostile)), "a?]0;title???fix: rm -rf /");
    }
}
