//! `onepen bench`: will SQLite hold my load, and which way of using it?
//!
//! Data flows one way: [`args`] make a plan, [`driver`] runs it (the [`ways`]
//! run the [`workloads`] on databases of the [`scratch`] directory), [`report`]
//! shows what came out. The report goes to standard output, everything else
//! to standard error.

pub mod args;
pub mod codes;
mod driver;
mod fsyncs;
#[cfg(test)]
mod planted;
pub mod progress;
pub mod random;
mod report;
pub mod scratch;
mod script;
pub mod sql;
pub mod ways;
mod workloads;

use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;

pub use args::Args;
pub use driver::worker;

use driver::Plan;
pub use driver::Watch;
use progress::Progress;
use report::{Report, Style, Surroundings};
use scratch::Scratch;

use crate::words::{complain, name, say};

/// Everything was measured and nothing was lost.
const DONE: u8 = 0;
/// Some way lost an acknowledged update or broke an invariant.
const VIOLATED: u8 = 1;
/// Something could not run.
const COULD_NOT_RUN: u8 = 2;

/// Runs the command.
pub fn run(args: &Args) -> ExitCode {
    let code = bench(args).unwrap_or_else(|why| {
        complain("bench", why);
        COULD_NOT_RUN
    });
    ExitCode::from(code)
}

fn bench(args: &Args) -> Result<u8, String> {
    if args.list {
        return list().map(|()| DONE);
    }
    let plan = args.plan()?;
    if let Some(path) = &args.html {
        // Rather now than after the run.
        let mut file = std::fs::OpenOptions::new();
        file.create(true)
            .append(true)
            .open(path)
            .map_err(|error| format!("cannot write {}: {error}", name(path)))?;
    }
    let postgres = plan
        .slice
        .server
        .as_ref()
        .map(|server| {
            server
                .version()
                .map_err(|fault| format!("cannot reach PostgreSQL: {fault}"))
        })
        .transpose()?;
    let scratch = Scratch::new(args.dir.as_deref())?;
    match &args.db {
        Some(original) => scratch.copy_of(original)?,
        None => {
            let workload = plan.slice.workload.build(&scratch.parent())?;
            scratch
                .build(&workload.load())
                .map_err(|fault| format!("cannot build the database: {fault}"))?;
        }
    }
    let code = measure(args, &plan, &scratch, postgres);
    if let Some(server) = &plan.slice.server
        && let Err(fault) = server.clean()
    {
        eprintln!(
            "The schema {} is still in PostgreSQL: {fault}",
            server.schema
        );
    }
    if let Err(error) = scratch.remove() {
        eprintln!("The scratch directory could not be removed: {error}");
    }
    code
}

fn measure(
    args: &Args,
    plan: &Plan,
    scratch: &Scratch,
    postgres: Option<String>,
) -> Result<u8, String> {
    // A mistake in a script is said once, before anything runs.
    if plan.is_script() {
        let path = scratch
            .fresh(ways::Journal::Wal)
            .map_err(|fault| fault.to_string())?;
        plan.slice.workload.build(&path)?;
    }
    // Before anything is said: from then on ctrl-C has its meaning.
    let progress = Progress::new(
        plan.expected(),
        plan.slice.duration,
        scratch.path().to_owned(),
    )?;
    eprintln!(
        "Scratch databases in {} ({}); {}, about {}.",
        name(&scratch.parent()),
        scratch.file_system(),
        match plan.slices() {
            1 => "1 measurement".to_owned(),
            n => format!("{n} measurements"),
        },
        about(plan.expected()),
    );
    if scratch.is_memory() {
        eprintln!(
            "Warning: {} is memory, a flush to disk costs nothing there: \
             choose a directory on a disk with --dir.",
            scratch.file_system()
        );
    }
    let (points, interrupted) = driver::run(plan, scratch, &progress)?;
    progress.finish();
    let surroundings = Surroundings {
        file_system: scratch.file_system().to_owned(),
        postgres,
    };
    let report = Report::new(plan, surroundings, points, interrupted);
    show(args, &report)?;
    Ok(if report.is_violated() {
        VIOLATED
    } else if report.could_not_run() {
        COULD_NOT_RUN
    } else {
        DONE
    })
}

fn show(args: &Args, report: &Report) -> Result<(), String> {
    let text = if args.json {
        report.json() + "\n"
    } else {
        report::print(report, style())
    };
    say(&text)?;
    if let Some(path) = &args.html {
        std::fs::write(path, report::page(report))
            .map_err(|error| format!("cannot write {}: {error}", name(path)))?;
        eprintln!("The page is in {}.", name(path));
    }
    Ok(())
}

fn style() -> Style {
    let terminal = std::io::stdout().is_terminal();
    let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    Style {
        // https://no-color.org
        color: terminal && !set("NO_COLOR") && !dumb,
        width: terminal
            .then(terminal_size::terminal_size)
            .flatten()
            .map_or(120, |(width, _)| usize::from(width.0)),
    }
}

fn about(duration: Duration) -> String {
    match duration.as_secs() {
        0..120 => format!("{:.0} s", duration.as_secs_f64().ceil()),
        seconds => format!("{} min", seconds.div_ceil(60)),
    }
}

fn list() -> Result<(), String> {
    let mut text = String::from("Ways (--ways a,b,c):\n");
    let mut add = |name: &str, line: &str| text.push_str(&format!("  {name:19}  {line}\n"));
    for way in ways::ALL {
        add(way.name, way.line);
    }
    text.push_str("\nWorkloads (--workload NAME):\n");
    let mut add = |name: &str, line: &str| text.push_str(&format!("  {name:19}  {line}\n"));
    for (name, line) in workloads::LIST {
        add(name, line);
    }
    say(&text)
}
