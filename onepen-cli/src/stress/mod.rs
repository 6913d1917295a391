//! `onepen stress`: does it lose, tear or mix up anything on *my* machine?
//!
//! Data flows one way: [`args`] make a plan, [`driver`] runs each workload with
//! [`worker`] processes, whose [`clients`] do the [`deeds`] that [`workloads`]
//! draw and [`log`] what they were told; the histories are judged by the crate
//! `onepen-check`, and [`report`] says what came out. The report goes to standard
//! output, everything else to standard error.

pub mod args;
mod clients;
mod deeds;
mod driver;
mod faults;
mod log;
#[cfg(test)]
mod planted;
mod report;
mod worker;
mod workloads;

use std::fs;
use std::io::BufReader;
use std::path::Path;
use std::process::ExitCode;

use onepen_check::History;

pub use args::Args;
pub use worker::worker;

use crate::bench::progress::Progress;
use crate::bench::scratch::Scratch;
use crate::words::{complain, name, say};
use driver::Plan;
use report::{Report, Run, grouped};

/// Nothing is wrong.
const CLEAN: u8 = 0;
/// Something was lost, torn or mixed up.
const ANOMALY: u8 = 1;
/// Something could not run.
const COULD_NOT_RUN: u8 = 2;

/// Runs the command.
pub fn run(args: &Args) -> ExitCode {
    let report = if args.check.is_empty() {
        stress(args)
    } else {
        check(args)
    };
    let told = report.and_then(|report| {
        let text = if args.json {
            report.json()?
        } else {
            report.text()
        };
        say(&text).map(|()| report.is_clean)
    });
    ExitCode::from(match told {
        Ok(true) => CLEAN,
        Ok(false) => ANOMALY,
        Err(why) => {
            complain("stress", why);
            COULD_NOT_RUN
        }
    })
}

/// What is recorded lies beside the scratch database, on the disk that matters to the
/// user; and needs room.
fn cannot_write(path: &Path, error: &std::io::Error) -> String {
    let full = match error.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
            "; what is recorded lies beside the scratch database: run for a shorter time \
             (--duration), or choose a disk with more room (--dir)"
        }
        _ => "",
    };
    format!("cannot write {}: {error}{full}", name(path))
}

fn read(path: &Path) -> Result<History, String> {
    let cannot = |error: &dyn std::fmt::Display| format!("cannot read {}: {error}", name(path));
    let file = fs::File::open(path).map_err(|error| cannot(&error))?;
    History::read_from(BufReader::new(file)).map_err(|error| cannot(&error))
}

fn report(runs: Vec<Run>) -> Report {
    Report {
        schema: report::SCHEMA,
        onepen: env!("CARGO_PKG_VERSION"),
        sqlite: rusqlite::version(),
        seed: None,
        file_system: None,
        interrupted: false,
        not_run: Vec::new(),
        is_clean: runs.iter().all(Run::is_clean),
        runs,
    }
}

fn check(args: &Args) -> Result<Report, String> {
    let runs: Result<Vec<_>, _> = args
        .check
        .iter()
        .map(|path| read(path).map(|history| Run::of(name(path), &history)))
        .collect();
    runs.map(report)
}

fn stress(args: &Args) -> Result<Report, String> {
    let plan = args.plan()?;
    if let Some(kept) = &args.history {
        // Rather now than after the run.
        fs::create_dir_all(kept).map_err(|error| format!("cannot make {}: {error}", name(kept)))?;
    }
    // On the file system that matters to the user.
    let beside = args.database.as_deref().and_then(Path::parent);
    let beside = beside.filter(|parent| !parent.as_os_str().is_empty());
    let scratch = Scratch::new(args.dir.as_deref().or(beside))?;
    match &args.database {
        Some(original) => scratch.copy_of(original)?,
        None => scratch
            .build(&[])
            .map_err(|fault| format!("cannot build the database: {fault}"))?,
    }
    let runs = plan.workloads.len().try_into().unwrap_or(u32::MAX);
    let progress = Progress::new(
        plan.duration * runs,
        plan.duration,
        scratch.path().to_owned(),
    )?;
    eprintln!(
        "Scratch database in {} ({}); {} workloads, {:.0?} each; seed {}.",
        name(&scratch.parent()),
        scratch.file_system(),
        plan.workloads.len(),
        plan.duration,
        plan.seed,
    );
    if scratch.is_memory() {
        eprintln!(
            "Warning: {} is memory, a flush to disk costs nothing there: \
             choose a directory on a disk with --dir.",
            scratch.file_system()
        );
    }
    let answer = all(args, &plan, &scratch, &progress);
    progress.finish();
    match &answer {
        Ok(report) if !report.is_clean => {
            eprintln!(
                "The database and the logs were left in {}.",
                name(&scratch.keep())
            );
        }
        _ => {
            if let Err(error) = scratch.remove() {
                eprintln!("The scratch directory could not be removed: {error}");
            }
        }
    }
    answer
}

fn all(args: &Args, plan: &Plan, scratch: &Scratch, progress: &Progress) -> Result<Report, String> {
    use crate::bench::Watch;
    let mut runs = Vec::new();
    let mut interrupted = false;
    for &workload in &plan.workloads {
        let ran = driver::run(plan, workload, scratch, |passed, answered| {
            progress.say(format!(
                "{}: {} transactions",
                workload.name(),
                grouped(answered)
            ));
            progress.passed(passed);
            !progress.stop()
        })?;
        progress.ended();
        progress.say(format!("{}: checking", workload.name()));
        let history = read(&ran.history)?;
        let mut run = Run::of(workload.name().to_owned(), &history);
        run.kills = ran.kills;
        run.stops = ran.stops;
        run.faults = ran.figures.faults;
        run.errors = ran.figures.errors;
        run.violations = ran.figures.violations;
        if let Some(kept) = &args.history {
            let to = kept.join(format!("{}.history", workload.name()));
            fs::copy(&ran.history, &to).map_err(|error| cannot_write(&to, &error))?;
            run.history = Some(to);
        } else if !run.is_clean() {
            run.history = Some(ran.history);
        }
        runs.push(run);
        interrupted = ran.interrupted;
        if interrupted {
            break;
        }
    }
    Ok(Report {
        seed: Some(plan.seed),
        file_system: Some(scratch.file_system().to_owned()),
        interrupted,
        not_run: (plan.workloads.iter().skip(runs.len()))
            .map(|workload| workload.name().to_owned())
            .collect(),
        ..report(runs)
    })
}
