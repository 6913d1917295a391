//! `onepen trace -- COMMAND…`: who waited for which SQLite lock, for whom, and why?
//!
//! Data flows one way: [`program`] says whether a program can be traced, [`launch`]
//! runs it with the library of `onepen-trace` in it, [`tally`] counts what that
//! notes ([`class`] says why a wait happened, [`statement`] what of a statement is
//! shown), [`report`] shows it.
//!
//! Guarantees: the program runs as it would without, its exit status is passed on,
//! and its output is left alone. What is inferred and not seen is marked so. No
//! bound value is ever seen, and of a statement no literal is shown. Memory is
//! bounded, whatever the program does.

mod class;
mod launch;
mod program;
mod report;
mod statement;
mod tally;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::ValueEnum;

use self::launch::Failure;
use crate::words::{complain, name, printable};

/// What can be said to `onepen trace`.
#[derive(clap::Args)]
pub struct Args {
    /// Print JSON
    #[arg(long)]
    json: bool,

    /// Write the report to a file, not to standard error
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,

    /// What comes first
    #[arg(short, long, value_enum, default_value_t)]
    sort: Sort,

    /// The program and its arguments
    #[arg(required = true, last = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// The order of the report's rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Sort {
    /// The time waited, all together
    #[default]
    Total,
    /// The longest wait
    Max,
    /// How often
    Contended,
    /// How often it ended in "database is locked"
    Failed,
}

/// Runs the command.
pub fn run(args: &Args) -> ExitCode {
    // Opened before the program runs: a report that cannot be written is no use.
    let output = match &args.output {
        None => None,
        Some(path) => match std::fs::File::create(path) {
            Ok(file) => Some(file),
            Err(error) => {
                complain("trace", format!("{}: {error}", name(path)));
                return ExitCode::from(125);
            }
        },
    };
    let ran = match launch::run(&args.command) {
        Ok(ran) => ran,
        Err(Failure { code, why }) => {
            complain("trace", why);
            return ExitCode::from(code);
        }
    };
    let code = ran.exit.code();
    let report = report::Report::new(ran, args.sort);
    let text = match args.json {
        true => report.json(),
        false => Ok(printable(&report.text())),
    };
    let written = text.and_then(|text| {
        use std::io::Write as _;
        let done = match output {
            Some(mut file) => file.write_all(text.as_bytes()),
            None => std::io::stderr().lock().write_all(text.as_bytes()),
        };
        done.map_err(|error| error.to_string())
    });
    if let Err(why) = written {
        complain("trace", format!("the report cannot be written: {why}"));
    }
    ExitCode::from(code)
}
