//! Instruments that are tests, and say themselves what they looked at: in lines
//! such as `proof: 118 kills before a system call`. Lines that say the same are
//! added up.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use super::{Failure, Figures, cargo};

/// Runs `cargo test` with `which` tests and these variables, shows what they say,
/// and gathers their figures.
///
/// # Errors
/// A test that fails, and tests without a figure: then nothing was looked at.
pub fn figures(which: &[&str], variables: &[(&str, &str)]) -> Result<Figures, Failure> {
    let mut tests = cargo();
    tests.args(["test", "--quiet"]).args(which);
    tests.args(if which.contains(&"--") {
        &["--nocapture"][..]
    } else {
        &["--", "--nocapture"]
    });
    tests.envs(variables.iter().copied()).stdout(Stdio::piped());
    let mut running = tests.spawn()?;
    let output = running.stdout.take().ok_or("the tests say nothing")?;
    let mut sums: Vec<(String, u64)> = Vec::new();
    for line in BufReader::new(output).lines() {
        let line = line?;
        // The harness may have begun the line.
        let Some((_, figure)) = line.split_once("proof: ") else {
            continue;
        };
        println!("   {figure}");
        let Some((number, what)) = figure.split_once(' ') else {
            continue;
        };
        let number: u64 = number.parse()?;
        match sums.iter_mut().find(|(known, _)| known == what) {
            Some((_, sum)) => *sum += number,
            None => sums.push((what.to_owned(), number)),
        }
    }
    let status = running.wait()?;
    if !status.success() {
        return Err(format!("cargo test {}: {status}", which.join(" ")).into());
    }
    if sums.is_empty() {
        return Err(format!("cargo test {}: no figures", which.join(" ")).into());
    }
    let named = |(what, sum): (String, u64)| (&*what.leak(), sum.to_string());
    Ok(Figures(sums.into_iter().map(named).collect()))
}
