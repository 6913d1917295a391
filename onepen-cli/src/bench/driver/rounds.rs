//! The whole run: all ways, alternating, round after round, for every number
//! of threads. After each slice the database is looked at: what was
//! acknowledged must be in it.

use std::time::Duration;

use super::slice::Slice;
use super::tally::Ran;
use super::{WorkloadKind, processes};
use crate::bench::scratch::Scratch;
use crate::bench::sql::{Fault, Session, Value};
use crate::bench::ways::{self, About, Durability, Journal, OnConnection};
use crate::bench::workloads::{Acknowledged, Verdict, Workload};

/// What is to be run.
pub struct Plan {
    /// Which ways.
    pub ways: Vec<&'static About>,
    /// Numbers of writing threads, one point of the report each.
    pub threads: Vec<u32>,
    /// Tasks of each process; as many as threads if not given.
    pub tasks: Option<u32>,
    /// Processes.
    pub processes: u32,
    /// How often.
    pub rounds: u32,
    /// All the rest; its way, threads, tasks and path are set for each slice.
    pub slice: Slice,
}

/// Who looks on.
pub trait Watch {
    /// A slice is about to begin.
    fn begins(&self, way: &str, threads: u32, round: u32);
    /// It has been running for so long.
    fn passed(&self, time: Duration);
    /// It has ended.
    fn ended(&self);
    /// Whether the run is to end now.
    fn stop(&self) -> bool;
}

/// All ways at one number of threads.
pub struct Point {
    /// Writing threads of each process.
    pub threads: u32,
    /// In the order of the plan.
    pub ways: Vec<(&'static About, Vec<Round>)>,
}

/// One slice and what it left.
pub enum Round {
    /// It ran.
    Ran(Box<Ran>, Verdict),
    /// It did not, and why.
    Failed(String),
}

/// Runs the plan. What is there when `watch` says stop is the result; the
/// flag says whether it did.
pub fn run(
    plan: &Plan,
    scratch: &Scratch,
    watch: &dyn Watch,
) -> Result<(Vec<Point>, bool), String> {
    let mut points: Vec<_> = plan
        .threads
        .iter()
        .map(|&threads| Point {
            threads,
            ways: plan.ways.iter().map(|about| (*about, Vec::new())).collect(),
        })
        .collect();
    for round in 0..plan.rounds {
        for point in &mut points {
            for (about, rounds) in &mut point.ways {
                // What could not run once need not be tried again.
                if matches!(rounds.last(), Some(Round::Failed(_))) {
                    continue;
                }
                if watch.stop() {
                    return Ok((points, true));
                }
                watch.begins(about.name, point.threads, round);
                let slice = Slice {
                    way: about.name.to_owned(),
                    threads: point.threads,
                    tasks: plan.tasks.unwrap_or(point.threads),
                    seed: plan.slice.seed.wrapping_add(u64::from(round)),
                    ..plan.slice.clone()
                };
                let outcome = one(plan, slice, about, scratch, watch)
                    .map_or_else(Round::Failed, |(ran, verdict)| {
                        Round::Ran(Box::new(ran), verdict)
                    });
                let cut_short = watch.stop();
                // A slice that was cut short is better than nothing, and only than that.
                if !cut_short || rounds.is_empty() {
                    rounds.push(outcome);
                }
                watch.ended();
            }
        }
    }
    Ok((points, watch.stop()))
}

fn one(
    plan: &Plan,
    mut slice: Slice,
    about: &About,
    scratch: &Scratch,
    watch: &dyn Watch,
) -> Result<(Ran, Verdict), String> {
    let said = |fault: Fault| fault.to_string();
    slice.path = scratch.fresh(about.journal).map_err(said)?;
    let workload = slice.workload.build(&slice.path)?;
    if about.journal == Journal::Server
        && let Some(server) = &slice.server
    {
        server.prepare(&workload.load()).map_err(said)?;
    }
    let before = look(&slice, about, |session| workload.remember(session)).map_err(said)?;
    let ran = processes::run(&slice, plan.processes, |passed| {
        watch.passed(passed);
        !watch.stop()
    })?;
    let verdict = judge(&slice, about, workload.as_ref(), before.as_ref(), &ran).map_err(said)?;
    Ok((ran, verdict))
}

/// What the invariant says about a slice.
fn judge(
    slice: &Slice,
    about: &About,
    workload: &dyn Workload,
    before: Option<&Value>,
    ran: &Ran,
) -> Result<Verdict, Fault> {
    let acknowledged = Acknowledged {
        effects: ran.writers.effects,
        unknown: ran.writers.unknown,
    };
    let mut verdict = look(slice, about, |session| {
        workload.verify(session, before, acknowledged)
    })?;
    for counted in [&ran.readers, &ran.writers] {
        if let Some(torn) = counted.errors.get("torn read") {
            verdict.violations.push(torn.example.clone());
        }
    }
    Ok(verdict)
}

/// Looks at a way's database from the outside, with a connection of its own.
fn look<T>(
    slice: &Slice,
    about: &About,
    look: impl FnOnce(&mut dyn Session) -> Result<T, Fault>,
) -> Result<T, Fault> {
    match (&slice.server, about.journal) {
        (Some(server), Journal::Server) => look(&mut server.session()?),
        _ => {
            let connection = ways::open(&slice.path, Durability::Full, Duration::from_secs(5))?;
            look(&mut OnConnection(&connection))
        }
    }
}

impl Plan {
    /// How long it will run, without what is between the slices.
    pub fn expected(&self) -> Duration {
        self.slice.duration * self.slices()
    }

    /// How many slices it has.
    pub fn slices(&self) -> u32 {
        let combinations = self.ways.len() * self.threads.len();
        u32::try_from(combinations).unwrap_or(u32::MAX) * self.rounds
    }

    /// Whether the workload is the user's own.
    pub fn is_script(&self) -> bool {
        self.slice.workload.kind == WorkloadKind::Script
    }
}
