//! What every command reads and writes alike: times, numbers, its output.

use std::io::Write;
use std::time::Duration;

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

/// A time as people write it: `500ms`, `2s`, `1min`; at least 10 ms, at most a day.
pub fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = match text.find(|c: char| c.is_ascii_alphabetic()) {
        Some(at) => text.split_at(at),
        None => (text, "s"),
    };
    let seconds = match unit {
        "ms" => 0.001,
        "s" => 1.0,
        "m" | "min" => 60.0,
        _ => return Err("units are ms, s and min".to_owned()),
    };
    let number: f64 = number
        .trim()
        .parse()
        .map_err(|_| "expected a time such as 500ms or 2s")?;
    match Duration::try_from_secs_f64(number * seconds) {
        Ok(duration)
            if (Duration::from_millis(10)..=Duration::from_secs(86_400)).contains(&duration) =>
        {
            Ok(duration)
        }
        _ => Err("must be between 10ms and a day".to_owned()),
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

/// A text without what moves a terminal's cursor: the names of files and of
/// libraries are whatever somebody chose.
pub fn printable(text: &str) -> String {
    let harmless = |c: char| match c {
        '\n' => c,
        c if c.is_control() => '?',
        c => c,
    };
    text.chars().map(harmless).collect()
}
