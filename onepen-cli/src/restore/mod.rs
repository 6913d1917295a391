//! `onepen restore`: a copy takes the place of a database.

use std::path::PathBuf;
use std::process::ExitCode;

use crate::backup::{Ends, How, make};

/// `onepen restore`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// The copy
    pub backup: PathBuf,

    /// The database; nobody may have it open
    pub target: PathBuf,

    #[command(flatten)]
    pub how: How,
}

impl Ends for Args {
    fn from(&self) -> String {
        self.backup.display().to_string()
    }

    fn to(&self) -> String {
        self.target.display().to_string()
    }
}

/// Runs `onepen restore`.
pub fn run(args: &Args) -> ExitCode {
    let transfer = onepen::backup::restore(&args.backup, &args.target);
    ExitCode::from(make("restore", &args.how, transfer, args))
}
