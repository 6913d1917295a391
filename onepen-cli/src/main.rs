//! The command `onepen`: what can be said to it. What it does is in the rooms.

mod backup;
mod bench;
mod checkpoint;
mod child;
#[cfg(unix)]
mod doctor;
#[cfg(unix)]
mod files;
mod named;
mod restore;
#[cfg(unix)]
mod stress;
#[cfg(unix)]
mod top;
#[cfg(unix)]
mod trace;
mod words;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// One SQLite database, any number of threads, tasks and processes.
#[derive(Parser)]
#[command(name = "onepen", version)]
#[command(
    help_template = "{about}\n\n{before-help}{usage-heading} {usage}\n\n{all-args}{after-help}"
)]
#[command(before_help = "\
Examples:
  onepen bench                                  all ways side by side, in half a minute
  onepen bench --workload insert --threads 128  a heavier load of small writes
  onepen bench --sweep 1,2,4,8,16 --html b.html throughput against writers, as a page
  onepen bench --script tx.sql --db app.db      your transactions on a copy of your data
  onepen doctor app.db                          who holds the lock, and what is wrong
  onepen top app.db                             who writes, waits and reads, live
  onepen trace -- python3 app.py                why \"database is locked\", of any program
  onepen stress app.db --kill --stop            a proof on a copy of your data that nothing is lost
  onepen backup app.db copy.db                  a copy of a database in use
  onepen restore copy.db app.db --force         and back
  onepen checkpoint app.db                      moves the write-ahead log, names who pins it
")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Will SQLite hold my load, and which way of using it?
    #[command(before_help = "\
Examples:
  onepen bench
  onepen bench --workload tpcb --threads 64 --readers 4
  onepen bench --ways pool,onepen --processes 4 --duration 2s
  onepen bench --sweep 1,2,4,8,16,32 --html bench.html
  onepen bench --script tx.sql --db app.db --json > bench.json
  onepen bench --postgres postgres://me@localhost/bench
")]
    #[command(
        help_template = "{about}\n\n{before-help}{usage-heading} {usage}\n\n{all-args}{after-help}"
    )]
    #[command(after_help = "\
Exit status: 0 done; 1 an acknowledged update was lost or an invariant broken;
2 wrong usage, or something could not run. Ctrl-C ends the run and shows what
there is; a second one ends the program.")]
    Bench(Box<bench::Args>),

    /// Who holds the lock, and what is wrong with the way a database is used?
    #[cfg(unix)]
    #[command(before_help = "\
Examples:
  onepen doctor app.db
  onepen doctor app.db --watch
  onepen doctor app.db --json | jq -r '.findings[].name'
")]
    #[command(
        help_template = "{about}\n\n{before-help}{usage-heading} {usage}\n\n{all-args}{after-help}"
    )]
    #[command(after_help = "\
It only reads, and opens nothing through SQLite. Exit status: 0 nothing found;
1 findings; 2 it could not look.")]
    Doctor(doctor::Args),

    /// Who holds, waits for and reads a database, live.
    #[cfg(unix)]
    #[command(before_help = "\
Examples:
  onepen top app.db
  onepen top app.db --interval 250ms --sort wait
  onepen top app.db --once
  onepen top app.db --json | jq '.rows[] | select(.does == \"waits\")'
")]
    #[command(
        help_template = "{about}\n\n{before-help}{usage-heading} {usage}\n\n{all-args}{after-help}"
    )]
    #[command(after_help = "\
Only looks: nothing is opened through SQLite, locked or written. Keys: q quits,
s sorts, / filters, h helps. Exit status: 0 done; 2 could not look.")]
    Top(top::Args),

    /// Runs a program and tells who waited for which SQLite lock, for whom, and why.
    #[cfg(unix)]
    #[command(before_help = "\
Examples:
  onepen trace -- python3 app.py
  onepen trace --sort failed --output locks.txt -- npm test
  onepen trace --json --output locks.json -- ./server --port 8080
")]
    #[command(
        help_template = "{about}\n\n{before-help}{usage-heading} {usage}\n\n{all-args}{after-help}"
    )]
    #[command(after_help = "\
The program is not changed; it and its children are seen, other processes are named
where they were in the way. The report goes to standard error, or to --output.
Exit status: the program's own (128 + the signal's number, if one ended it); before
it ran: 2 wrong usage, 125 it cannot be traced, 126 it cannot be run, 127 it was not
found.")]
    Trace(trace::Args),

    /// A copy of a database in use: one state, checked, there complete or not at all
    #[command(before_help = "\
Examples:
  onepen backup app.db copy.db
  onepen backup app.db copy.db --force --rate 50M --json
  onepen backup app.db copy.db --compact --verify=quick
")]
    #[command(
        help_template = "{about}\n\n{before-help}{usage-heading} {usage}\n\n{all-args}{after-help}"
    )]
    #[command(after_help = "\
Exit status: 0 done; 1 it was begun and failed (damage, a full disk, the log's
limit, the deadline); 2 it was not begun (wrong usage, the target is there or in
use); 130 ended by ctrl-C. After anything but 0 the target is as it was.")]
    Backup(Box<backup::Args>),

    /// A copy takes the place of a database that nobody has open
    #[command(before_help = "\
Examples:
  onepen restore copy.db app.db
  onepen restore copy.db app.db --force
")]
    #[command(
        help_template = "{about}\n\n{before-help}{usage-heading} {usage}\n\n{all-args}{after-help}"
    )]
    #[command(after_help = "Exit status: as of `onepen backup`.")]
    Restore(Box<restore::Args>),

    /// Moves the write-ahead log into the database, and names who keeps it long
    #[command(before_help = "\
Examples:
  onepen checkpoint app.db
  onepen checkpoint app.db --wait 5s --truncate
")]
    #[command(
        help_template = "{about}\n\n{before-help}{usage-heading} {usage}\n\n{all-args}{after-help}"
    )]
    #[command(after_help = "\
Exit status: 0 all is moved and the log starts over (or there is none); 1 it is
pinned, moved in part, or moved by somebody else just now; 2 it could not be tried.")]
    Checkpoint(Box<checkpoint::Args>),

    /// One of the processes of `bench --processes`.
    #[command(hide = true)]
    BenchWorker,

    /// Everything at once on a database, and a proof that nothing was lost, torn or mixed up
    #[cfg(unix)]
    #[command(before_help = "\
Examples:
  onepen stress
  onepen stress app.db --duration 10s
  onepen stress app.db --kill --stop --faults --strangers
  onepen stress --workload list-append,bank --processes 4 --seed 7 --history kept
  onepen stress --check kept/bank.history
")]
    #[command(
        help_template = "{about}\n\n{before-help}{usage-heading} {usage}\n\n{all-args}{after-help}"
    )]
    #[command(after_help = "\
Exit status: 0 nothing is wrong; 1 an anomaly was found, and is shown;
2 wrong usage, or something could not run. Ctrl-C ends the run and checks what
there is; a second one ends the program.")]
    Stress(Box<stress::Args>),

    /// One of the processes of `stress`.
    #[cfg(unix)]
    #[command(hide = true)]
    StressWorker,
}

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Bench(args) => bench::run(&args),
        Command::Backup(args) => backup::run(&args),
        Command::Restore(args) => restore::run(&args),
        Command::Checkpoint(args) => checkpoint::run(&args),
        #[cfg(unix)]
        Command::Doctor(args) => doctor::run(&args),
        #[cfg(unix)]
        Command::Top(args) => top::run(&args),
        #[cfg(unix)]
        Command::Trace(args) => trace::run(&args),
        Command::BenchWorker if bench::worker() => ExitCode::SUCCESS,
        Command::BenchWorker => ExitCode::FAILURE,
        #[cfg(unix)]
        Command::Stress(args) => stress::run(&args),
        #[cfg(unix)]
        Command::StressWorker if stress::worker() => ExitCode::SUCCESS,
        #[cfg(unix)]
        Command::StressWorker => ExitCode::FAILURE,
    }
}
