//! What the user says about a copy.

use std::path::PathBuf;
use std::time::Duration;

use onepen::Error;
use onepen::backup::{Check, Copied, Transfer, WhenLogFull};

use super::{Ends, show};
use crate::words::{complain, name, time};

/// `onepen backup`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// The database, in use or not
    pub database: PathBuf,

    /// The copy, a file that is not there yet
    pub target: PathBuf,

    #[command(flatten)]
    pub how: How,
}

/// How a copy is made.
#[derive(clap::Args, Debug)]
pub struct How {
    /// Replace the target, if nobody has it open
    #[arg(long, short)]
    force: bool,

    /// How the copy is checked before it takes its place
    #[arg(long, value_name = "HOW", value_enum, default_value_t = Verify::Full, default_missing_value = "full", num_args = 0..=1, require_equals = true)]
    verify: Verify,

    /// Leave free pages out (VACUUM INTO): smaller, takes longer
    #[arg(long)]
    compact: bool,

    /// Copy at most so much in a second: 50M, 1G
    #[arg(long, value_name = "SIZE", value_parser = size)]
    rate: Option<u64>,

    /// Spend at most this part of the time working, and rest otherwise: 0.01 to 1
    #[arg(long, value_name = "PART", value_parser = share)]
    share: Option<f64>,

    /// How long the write-ahead log's file may grow meanwhile
    #[arg(long, value_name = "SIZE", default_value = "1G", value_parser = size)]
    log_limit: u64,

    /// What to do when it is longer
    #[arg(long, value_name = "WHAT", value_enum, default_value_t = LogFull::Stop)]
    when_log_full: LogFull,

    /// Over a rollback journal, when others write all the time: keep them from
    /// committing during a last try, for so long at most
    #[arg(long, value_name = "TIME", value_parser = time)]
    hold_writers: Option<Duration>,

    /// The longest all of it may take: 30s, 10min
    #[arg(long, value_name = "TIME", value_parser = time)]
    deadline: Option<Duration>,

    /// Print the result as JSON
    #[arg(long)]
    json: bool,

    /// Say nothing but errors
    #[arg(long, short)]
    quiet: bool,
}

#[derive(clap::ValueEnum, Clone, Copy, Debug)]
enum Verify {
    /// Every page, every index against its table
    Full,
    /// Every page
    Quick,
    /// Not at all
    None,
}

#[derive(clap::ValueEnum, Clone, Copy, Debug)]
enum LogFull {
    /// Give up
    Stop,
    /// Go on, the disk is the limit
    GoOn,
    /// Go on as fast as possible
    Hurry,
    /// Let the log be reset and begin anew, three times at most
    StartOver,
}

/// How many times it is begun anew when asked.
const TIMES: u32 = 3;

impl How {
    pub(super) fn is_quiet(&self) -> bool {
        self.quiet
    }

    pub(super) fn apply<'a>(&self, transfer: Transfer<'a>) -> Transfer<'a> {
        let mut transfer = transfer
            .replace(self.force)
            .compact(self.compact)
            .check(match self.verify {
                Verify::Full => Check::Full,
                Verify::Quick => Check::Quick,
                Verify::None => Check::None,
            })
            .log_limit(
                self.log_limit,
                match self.when_log_full {
                    LogFull::Stop => WhenLogFull::Stop,
                    LogFull::GoOn => WhenLogFull::GoOn,
                    LogFull::Hurry => WhenLogFull::Hurry,
                    LogFull::StartOver => WhenLogFull::StartOver(TIMES),
                },
            );
        if let Some(rate) = self.rate {
            transfer = transfer.rate(rate);
        }
        if let Some(share) = self.share {
            transfer = transfer.share(share);
        }
        if let Some(time) = self.hold_writers {
            transfer = transfer.hold_writers(time);
        }
        if let Some(time) = self.deadline {
            transfer = transfer.deadline(time);
        }
        transfer
    }

    /// Tells what the copy became.
    pub(super) fn done(&self, ends: &dyn Ends, copied: &Copied) {
        if self.json {
            show::print(&show::json(ends, copied).to_string());
        } else if !self.quiet {
            show::print(&show::line(ends, copied));
        }
        for left in &copied.leftovers {
            eprintln!(
                "onepen: {} was left by a copy that ended early; nobody is writing it, remove it",
                name(left)
            );
        }
    }

    /// Tells why there is none.
    pub(super) fn failed(&self, verb: &str, error: &Error) {
        if self.json {
            show::print(&show::json_error(error).to_string());
        }
        complain(verb, error);
        if error.kind() == onepen::ErrorKind::Refused && error.to_string().contains("there already")
        {
            eprintln!("To replace it, say --force.");
        }
    }
}

/// A number of bytes.
fn size(text: &str) -> Result<u64, String> {
    let number = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match text[number.len()..].to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" | "kib" => 1 << 10,
        "m" | "mb" | "mib" => 1 << 20,
        "g" | "gb" | "gib" => 1 << 30,
        _ => return Err("units are K, M and G".to_owned()),
    };
    let number: u64 = number
        .parse()
        .map_err(|_| "expected a size such as 50M or 1G")?;
    match number.checked_mul(unit) {
        Some(bytes) if bytes > 0 => Ok(bytes),
        _ => Err("must be more than nothing and less than 16 E".to_owned()),
    }
}

fn share(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(share) if (0.01..=1.0).contains(&share) => Ok(share),
        _ => Err("must be between 0.01 and 1".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_their_units_and_shares_within_their_bounds() {
        assert_eq!(size("50M"), Ok(50 << 20));
        assert_eq!(size("1GiB"), Ok(1 << 30));
        assert_eq!(size("12"), Ok(12));
        for wrong in ["", "M", "5X", "0", "-1", "99999999999G", "1.5G"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
        assert!(share("0").is_err() && share("nan").is_err() && share("1").is_ok());
    }
}
