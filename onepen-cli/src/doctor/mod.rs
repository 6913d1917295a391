//! `onepen doctor`: what is wrong with the way a database is used?
//!
//! Data flows one way: [`files`], [`sample`] and [`programs`] look, [`findings`]
//! judges, [`report`] shows. Nothing is opened through SQLite and nothing is
//! written: a tool that closes last would checkpoint, and remove the log.

mod findings;
mod programs;
mod report;
mod sample;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;

use self::programs::Programs;
use self::report::Report;
use self::sample::Samples;
use crate::files::Files;
use crate::words::{complain, duration, name, printable, say};

/// Nothing is wrong.
const FINE: u8 = 0;
/// Something is.
const FINDINGS: u8 = 1;
/// It could not look.
const COULD_NOT_LOOK: u8 = 2;

/// What can be said to `onepen doctor`.
#[derive(Parser)]
pub struct Args {
    /// The database
    #[arg(value_name = "DATABASE")]
    database: PathBuf,

    /// How long to look, and with --watch how long each time
    #[arg(long = "for", value_name = "TIME", default_value = "1s", value_parser = window)]
    window: Duration,

    /// Go on, and tell what is new and what is over, until ctrl-C
    #[arg(long)]
    watch: bool,

    /// Print JSON; with --watch one line for each time
    #[arg(long)]
    json: bool,
}

fn window(text: &str) -> Result<Duration, String> {
    let window = duration(text)?;
    match (Duration::from_millis(500)..=Duration::from_secs(60)).contains(&window) {
        true => Ok(window),
        false => Err("must be between 500ms and a minute".to_owned()),
    }
}

/// Runs the command.
pub fn run(args: &Args) -> ExitCode {
    let code = match args.watch {
        true => watch(args),
        false => visit(args, true).and_then(|report| {
            say(&match args.json {
                true => report.json(true)?,
                false => printable(&report.text()),
            })?;
            Ok(code(&report))
        }),
    };
    ExitCode::from(code.unwrap_or_else(|why| {
        complain("doctor", why);
        COULD_NOT_LOOK
    }))
}

fn code(report: &Report) -> u8 {
    match report.findings.is_empty() {
        true => FINE,
        false => FINDINGS,
    }
}

/// Looks once, for the whole window.
fn visit(args: &Args, aloud: bool) -> Result<Report, String> {
    let files = Files::look(&args.database)?;
    thread::scope(|scope| {
        let (tell, holders) = std::sync::mpsc::channel();
        let sampling = scope.spawn(|| {
            Samples::take(&files, args.window, |first| {
                // Whoever holds the lock is named at once, and judged later.
                if aloud && !args.json {
                    let name = name(&files.path);
                    let _ = say(&printable(&format!("{name}\n\n{}", report::now(first))));
                }
                let processes = first
                    .look
                    .holders
                    .iter()
                    .filter_map(|it| it.process.as_ref());
                let _ = tell.send(processes.map(|it| it.pid).collect());
                drop(tell);
            })
        });
        // Beside the looks: searching programs for SQLite takes its time.
        let mut programs = match holders.recv() {
            Ok(holders) => programs::look(&files, &holders),
            Err(_) => Programs::default(), // it could not look, and says so
        };
        let samples = sampling.join().map_err(|_| "a bug: looking panicked")??;
        programs.look_again(&files);
        let findings = findings::all(&files, &samples, &programs);
        Ok(Report::new(&files, &samples, &programs, findings))
    })
}

fn watch(args: &Args) -> Result<u8, String> {
    static ENOUGH: AtomicBool = AtomicBool::new(false);
    ctrlc::set_handler(|| {
        // The second time at once.
        if ENOUGH.swap(true, Ordering::SeqCst) {
            std::process::exit(COULD_NOT_LOOK.into());
        }
    })
    .map_err(|error| format!("cannot listen for ctrl-C: {error}"))?;
    let began = Instant::now();
    let mut before = Vec::new();
    let mut last = FINE;
    let mut aloud = true;
    while !ENOUGH.load(Ordering::SeqCst) {
        let report = visit(args, aloud)?;
        say(&match (args.json, aloud) {
            (true, _) => report.json(false)?,
            (false, true) => printable(&report.text()),
            (false, false) => {
                printable(&report::changes(&before, &report.findings, began.elapsed()))
            }
        })?;
        aloud = false;
        last = code(&report);
        before = report.findings;
    }
    Ok(last)
}
