//! What the user says on the command line, and what it means.
//!
//! Guarantee: whatever cannot work together is refused here, before a file is
//! touched, with what to say instead.

use std::path::PathBuf;
use std::time::Duration;

use crate::words::duration;

use super::driver::{Plan, Slice, WorkloadKind, WorkloadSpec};
use super::ways::{self, About, Durability, Journal, Server};

/// Async tasks, unless the user or a sweep says how many.
const TASKS: u32 = 1_000;

/// The ways of using SQLite side by side, on real files.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// List the ways and the workloads, one line each, and end
    #[arg(long)]
    pub list: bool,

    /// What is run [default: bank; see --list]
    #[arg(long, short, value_name = "NAME", value_enum, default_value_t = WorkloadKind::Bank)]
    #[arg(
        hide_default_value = true,
        default_value_if("script", clap::builder::ArgPredicate::IsPresent, "script")
    )]
    pub workload: WorkloadKind,

    /// Only these ways, in this order: a,b,c [see --list]
    #[arg(long, value_name = "WAYS", value_delimiter = ',')]
    pub ways: Vec<String>,

    /// Writing threads of each process
    #[arg(long, short, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub threads: u32,

    /// One measurement for each of these numbers of threads: 1,2,4,8
    #[arg(long, value_name = "N,…", value_delimiter = ',', conflicts_with = "threads", value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub sweep: Vec<u32>,

    /// Processes at the same time, each with its threads
    #[arg(long, short, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=256))]
    pub processes: u32,

    /// Tasks of each process in onepen-async [default: 1000; in a sweep as many as threads]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub tasks: Option<u32>,

    /// Threads of each process that read beside the writers
    #[arg(long, short, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=4096))]
    pub readers: u32,

    /// How long each way runs in each round: 500ms, 2s
    #[arg(long, short, value_name = "TIME", default_value = "500ms", value_parser = duration)]
    pub duration: Duration,

    /// How often each way runs; the report shows medians
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub rounds: u32,

    /// What an acknowledged transaction has survived: a loss of power, or only the end of the process
    #[arg(long, value_enum, default_value_t = Durability::Full)]
    pub durability: Durability,

    /// Size of the workload's tables
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub scale: u32,

    /// Your own transactions: SQL with pgbench's \set and :variables
    #[arg(long, value_name = "FILE", requires = "db")]
    pub script: Option<PathBuf>,

    /// The database the script is for; it is copied and never written
    #[arg(long, value_name = "FILE", requires = "script")]
    pub db: Option<PathBuf>,

    /// What --readers run beside the script
    #[arg(long, value_name = "FILE", requires = "script")]
    pub read_script: Option<PathBuf>,

    /// A query whose first value must be the same before and after the script
    #[arg(long, value_name = "SQL", requires = "script")]
    pub invariant: Option<String>,

    /// A variable for the script
    #[arg(long, short = 'D', value_name = "NAME=VALUE", requires = "script", value_parser = definition)]
    pub define: Vec<(String, String)>,

    /// Compare with this PostgreSQL: postgres://user@host/database
    #[arg(long, value_name = "URL")]
    pub postgres: Option<String>,

    /// Where the scratch databases live [default: the file system of this directory]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,

    /// Where the random numbers begin
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,

    /// Print the report as JSON instead of the table
    #[arg(long)]
    pub json: bool,

    /// Also write the report as one self-contained page with plots
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
}

fn definition(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value))
            if !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') =>
        {
            Ok((name.to_owned(), value.to_owned()))
        }
        _ => Err("expected NAME=VALUE".to_owned()),
    }
}

impl Args {
    /// The plan they stand for.
    pub fn plan(&self) -> Result<Plan, String> {
        if self.workload == WorkloadKind::Script && self.script.is_none() {
            return Err("the workload script needs --script FILE and --db FILE".to_owned());
        }
        if self.workload != WorkloadKind::Script && self.script.is_some() {
            return Err("--script is a workload of its own: leave --workload out".to_owned());
        }
        if self.script.is_some() && self.readers > 0 && self.read_script.is_none() {
            return Err("--readers beside a script need --read-script FILE".to_owned());
        }
        let read = |path: &Option<PathBuf>| {
            path.as_ref()
                .map(|path| {
                    std::fs::read_to_string(path)
                        .map_err(|error| format!("cannot read {}: {error}", path.display()))
                })
                .transpose()
        };
        Ok(Plan {
            ways: self.ways()?,
            threads: if self.sweep.is_empty() {
                vec![self.threads]
            } else {
                self.sweep.clone()
            },
            tasks: match self.tasks {
                None if self.sweep.is_empty() => Some(TASKS),
                tasks => tasks,
            },
            processes: self.processes,
            rounds: self.rounds,
            slice: Slice {
                way: String::new(),
                workload: WorkloadSpec {
                    kind: self.workload,
                    scale: self.scale,
                    script: read(&self.script)?,
                    read_script: read(&self.read_script)?,
                    define: self.define.clone(),
                    invariant: self.invariant.clone(),
                },
                path: PathBuf::new(),
                durability: self.durability,
                threads: self.threads,
                readers: self.readers,
                tasks: 0,
                process: 0,
                duration: self.duration,
                seed: self.seed,
                server: self.postgres.clone().map(|url| Server {
                    url,
                    schema: format!("onepen_bench_{}", std::process::id()),
                }),
            },
        })
    }

    fn ways(&self) -> Result<Vec<&'static About>, String> {
        let is_server = |about: &&About| about.journal == Journal::Server;
        if self.script.is_some() && self.postgres.is_some() {
            return Err(
                "a script runs over a copy of your SQLite file, its tables are not in PostgreSQL: \
                 leave --postgres out"
                    .to_owned(),
            );
        }
        if self.ways.is_empty() {
            return Ok(ways::ALL
                .iter()
                .filter(|about| about.is_default() || self.postgres.is_some() && is_server(about))
                .collect());
        }
        let mut chosen: Vec<&'static About> = Vec::new();
        for name in &self.ways {
            let about = ways::by_name(name.trim()).ok_or_else(|| {
                let known: Vec<_> = ways::ALL.iter().map(|about| about.name).collect();
                format!("there is no way {name}; there are {}", known.join(", "))
            })?;
            if chosen.iter().any(|known| known.name == about.name) {
                return Err(format!("the way {name} is there twice"));
            }
            chosen.push(about);
        }
        if chosen.iter().any(is_server) && self.postgres.is_none() {
            return Err("the way postgres needs --postgres URL".to_owned());
        }
        Ok(chosen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn definitions_are_a_name_and_a_value() {
        assert_eq!(definition("a=b=c"), Ok(("a".into(), "b=c".into())));
        for text in ["a", "=1", "a b=1"] {
            assert!(definition(text).is_err(), "{text}");
        }
    }
}
