//! What the user says on the command line, and what it means.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use super::driver::Plan;
use super::workloads::{ALL, Workload};
use crate::bench::ways::Durability;
use crate::words::duration;

/// Everything at once on a database, and a proof that nothing was lost, torn or mixed up.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Your database; it is copied and never written [default: a new one]
    pub database: Option<PathBuf>,

    /// Only these workloads: a,b,c [default: all]
    #[arg(long, short, value_name = "NAMES", value_enum, value_delimiter = ',')]
    pub workload: Vec<Workload>,

    /// Processes that use the library
    #[arg(long, short, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub processes: u32,

    /// Threads of each process
    #[arg(long, short, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(0..=1024))]
    pub threads: u32,

    /// Async tasks of each process
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(0..=4096))]
    pub tasks: u32,

    /// Kill processes (kill -9) and start others in their place
    #[arg(long)]
    pub kill: bool,

    /// Stop processes for a while (SIGSTOP, SIGCONT), wherever they are
    #[arg(long)]
    pub stop: bool,

    /// Let reads, writes, truncations and flushes of the library's processes fail now and then
    #[arg(long)]
    pub faults: bool,

    /// Plain SQLite clients beside, each a process of its own
    #[arg(long, value_name = "N", num_args = 0..=1, default_value_t = 0, default_missing_value = "2", value_parser = clap::value_parser!(u32).range(0..=64))]
    pub strangers: u32,

    /// How long each workload runs: 500ms, 10s, 30min
    #[arg(long, short, value_name = "TIME", default_value = "3s", value_parser = duration)]
    pub duration: Duration,

    /// What an acknowledged transaction has survived: a loss of power, or only the end of the process
    #[arg(long, value_enum, default_value_t = Durability::Full)]
    pub durability: Durability,

    /// Where the random numbers begin [default: somewhere, and the report says where]
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,

    /// Where the scratch database lives [default: beside yours, else here]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,

    /// Keep what was recorded, a file for each workload
    #[arg(long, value_name = "DIR")]
    pub history: Option<PathBuf>,

    /// Check recorded histories again, and do nothing else
    #[arg(long, value_name = "FILE", num_args = 1.., conflicts_with_all = ["database", "workload", "history", "dir", "seed"])]
    pub check: Vec<PathBuf>,

    /// Print the report as JSON
    #[arg(long)]
    pub json: bool,
}

impl Args {
    /// The plan they stand for.
    pub fn plan(&self) -> Result<Plan, String> {
        if self.threads + self.tasks == 0 {
            return Err("a process without --threads and without --tasks has nothing to do".into());
        }
        let mut workloads = self.workload.clone();
        if workloads.is_empty() {
            workloads.extend(ALL);
        }
        workloads.sort_unstable();
        workloads.dedup();
        Ok(Plan {
            workloads,
            processes: self.processes,
            threads: self.threads,
            tasks: self.tasks,
            strangers: self.strangers,
            duration: self.duration,
            durability: self.durability,
            kill: self.kill,
            stop: self.stop,
            faults: self.faults,
            seed: self.seed.unwrap_or_else(|| {
                let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
                u64::from(now.unwrap_or_default().subsec_nanos())
            }),
        })
    }
}
