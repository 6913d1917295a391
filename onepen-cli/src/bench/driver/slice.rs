//! One way, on the threads of one process, for one slice of time.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::gate::Gate;
use super::tally::{Counted, Ran, Tallies, Tally, histogram, record};
use crate::bench::fsyncs;
use crate::bench::script::Script;
use crate::bench::sql::Value;
use crate::bench::ways::{self, Client, Durability, Onepen, Opened, Server, Setup, Way};
use crate::bench::workloads::{Bank, Draw, Insert, Mix, Tpcb, User, Workload, Ycsb};

/// Everything one process must know to take part.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Slice {
    /// The way's name.
    pub way: String,
    /// What is run.
    pub workload: WorkloadSpec,
    /// On which file.
    pub path: PathBuf,
    /// What COMMIT promises.
    pub durability: Durability,
    /// Writing threads of each process.
    pub threads: u32,
    /// Reading threads of each process.
    pub readers: u32,
    /// Tasks of each process, for a way whose clients are tasks.
    pub tasks: u32,
    /// This process, from 0.
    pub process: u32,
    /// For how long.
    pub duration: Duration,
    /// Where the random numbers begin.
    pub seed: u64,
    /// PostgreSQL.
    pub server: Option<Server>,
}

/// Which workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum WorkloadKind {
    Insert,
    Bank,
    Tpcb,
    YcsbA,
    YcsbB,
    YcsbC,
    YcsbF,
    Script,
}

/// A workload, in a form that can be sent to another process.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct WorkloadSpec {
    /// Which.
    pub kind: WorkloadKind,
    /// How large.
    pub scale: u32,
    /// The script's text.
    pub script: Option<String>,
    /// The text of the script of readers.
    pub read_script: Option<String>,
    /// Variables given on the command line.
    pub define: Vec<(String, String)>,
    /// A query whose first value must not change.
    pub invariant: Option<String>,
}

impl WorkloadSpec {
    /// The workload itself; a script is checked against the database at `path`.
    pub fn build(&self, path: &Path) -> Result<Arc<dyn Workload>, String> {
        Ok(match self.kind {
            WorkloadKind::Insert => Arc::new(Insert),
            WorkloadKind::Bank => Arc::new(Bank::new(self.scale)),
            WorkloadKind::Tpcb => Arc::new(Tpcb::new(self.scale)),
            WorkloadKind::YcsbA => Arc::new(Ycsb::new(Mix::A, self.scale)),
            WorkloadKind::YcsbB => Arc::new(Ycsb::new(Mix::B, self.scale)),
            WorkloadKind::YcsbC => Arc::new(Ycsb::new(Mix::C, self.scale)),
            WorkloadKind::YcsbF => Arc::new(Ycsb::new(Mix::F, self.scale)),
            WorkloadKind::Script => Arc::new(self.user(path)?),
        })
    }

    fn user(&self, path: &Path) -> Result<User, String> {
        let connection = ways::open(path, Durability::Full, Duration::from_secs(5))
            .map_err(|fault| format!("the copy of the database: {fault}"))?;
        let mut define = vec![("scale".to_owned(), Value::Integer(i64::from(self.scale)))];
        define.extend(
            self.define
                .iter()
                .map(|(name, value)| (name.clone(), literal(value))),
        );
        let compile = |what: &str, text: &str| {
            Script::compile(text, &connection, &define).map_err(|error| format!("{what}, {error}"))
        };
        let script = self
            .script
            .as_deref()
            .ok_or("the workload script needs --script FILE")?;
        let reader = self
            .read_script
            .as_deref()
            .map(|text| compile("the script of the readers", text))
            .transpose()?;
        Ok(User::new(
            compile("the script", script)?,
            reader,
            self.invariant.clone(),
        ))
    }
}

/// A variable of the command line: a number if it looks like one.
fn literal(text: &str) -> Value {
    text.parse()
        .map(Value::Integer)
        .or_else(|_| text.parse().map(Value::Real))
        .unwrap_or_else(|_| Value::Text(text.to_owned()))
}

impl Slice {
    fn setup(&self) -> Setup {
        Setup {
            path: self.path.clone(),
            durability: self.durability,
            server: self.server.clone(),
        }
    }

    fn first_client(&self) -> u32 {
        // Tasks can be more than threads; numbers only have to differ.
        self.process * (1 + self.threads.max(self.tasks) + self.readers)
    }
}

/// Runs it. `start` is called when everybody is ready; `go_on` again and
/// again while it runs, and ends it early by answering `false`.
pub fn run(
    slice: &Slice,
    start: impl FnOnce() -> Result<(), String>,
    go_on: impl FnMut(Duration) -> bool,
) -> Result<Ran, String> {
    let about = ways::by_name(&slice.way)
        .ok_or_else(|| format!("there is no way {}; see --list", slice.way))?;
    let workload = slice.workload.build(&slice.path)?;
    let opened = (about.open)(&slice.setup()).map_err(|fault| fault.to_string())?;
    run_opened(slice, &workload, &opened, start, go_on)
}

/// The same with a way that is already open.
pub fn run_opened(
    slice: &Slice,
    workload: &Arc<dyn Workload>,
    opened: &Opened,
    start: impl FnOnce() -> Result<(), String>,
    mut go_on: impl FnMut(Duration) -> bool,
) -> Result<Ran, String> {
    let readers = if workload.read(&mut Draw::new(0, 0)).is_some() {
        slice.readers
    } else {
        0
    };
    let hands = opened.threads(slice);
    let gate = Arc::new(Gate::new((hands + readers) as usize));
    thread::scope(|scope| {
        let spawn = |number: u32, reads: bool| {
            let gate = &gate;
            thread::Builder::new()
                .name(format!(
                    "{}-{number}",
                    if reads { "reader" } else { "client" }
                ))
                .spawn_scoped(scope, move || {
                    opened.hand(slice, workload, gate, number, reads)
                })
        };
        let spawned: Result<Vec<_>, _> = (0..hands)
            .map(|n| spawn(n, false))
            .chain((0..readers).map(|n| spawn(hands + n, true)))
            .collect();
        let threads = spawned.map_err(|error| {
            gate.close();
            format!("a client thread did not start: {error}; try fewer --threads")
        })?;
        if let Err(why) = gate.all_ready().and_then(|()| start()) {
            gate.close();
            return Err(why);
        }
        let flushed = fsyncs::count();
        let began = gate.open();
        loop {
            let passed = began.elapsed();
            if passed >= slice.duration || !go_on(passed) {
                break;
            }
            thread::sleep((slice.duration - passed).min(Duration::from_millis(50)));
        }
        gate.close();
        let lasted = began.elapsed();
        let mut tallies: Vec<_> = threads
            .into_iter()
            .map(|thread| {
                thread
                    .join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            })
            .collect();
        let reading = tallies.split_off(hands as usize);
        Ok(Ran {
            lasted,
            writers: Counted::from_threads(tallies),
            readers: Counted::from_threads(reading),
            fsyncs: fsyncs::count().zip(flushed).map(|(now, then)| now - then),
        })
    })
}

impl Opened {
    /// How many threads its writers are on.
    fn threads(&self, slice: &Slice) -> u32 {
        match self {
            Self::Threads(_) => slice.threads,
            Self::OneThread(_) | Self::Tasks(_) => 1,
        }
    }

    /// The life of one thread: its clients' counts.
    fn hand(
        &self,
        slice: &Slice,
        workload: &Arc<dyn Workload>,
        gate: &Arc<Gate>,
        number: u32,
        reads: bool,
    ) -> Tallies {
        let way: &dyn Way = match self {
            Self::Threads(way) | Self::OneThread(way) => way.as_ref(),
            Self::Tasks(onepen) if !reads => return tasks(onepen, slice, workload, gate),
            Self::Tasks(onepen) => onepen.as_ref(),
        };
        let mut tallies = Tallies::new();
        let draw = Draw::new(slice.seed, slice.first_client() + number);
        match way.client() {
            Ok(mut client) => {
                if gate.arrive(Ok(())) {
                    drive(
                        workload.as_ref(),
                        client.as_mut(),
                        gate,
                        draw,
                        reads,
                        &mut tallies,
                    );
                }
            }
            Err(fault) => {
                gate.arrive(Err(fault.to_string()));
            }
        }
        tallies
    }
}

/// All tasks of this process at work, on this thread.
fn tasks(
    onepen: &Arc<Onepen>,
    slice: &Slice,
    workload: &Arc<dyn Workload>,
    gate: &Arc<Gate>,
) -> Tallies {
    let runtime = match tokio::runtime::Builder::new_current_thread().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            gate.arrive(Err(format!("tokio's runtime did not start: {error}")));
            return Tallies::new();
        }
    };
    // The readers' threads are numbered after the tasks' one thread.
    let first = slice.first_client() + slice.readers + 1;
    let clients: Vec<_> = (0..slice.tasks)
        .map(|number| Draw::new(slice.seed, first + number))
        .collect();
    if !gate.arrive(Ok(())) {
        return Tallies::new();
    }
    // Never contended: all tasks are on this thread.
    let latencies = Arc::new(Mutex::new(histogram()));
    let tasks: Vec<_> = clients
        .into_iter()
        .map(|mut draw| {
            let (onepen, workload, gate) =
                (Arc::clone(onepen), Arc::clone(workload), Arc::clone(gate));
            let latencies = Arc::clone(&latencies);
            runtime.spawn(async move {
                let mut tally = Tally::new();
                // One look at the clock for each: the end of one is the beginning
                // of the next.
                let mut began = Instant::now();
                while !gate.is_over() {
                    let job = workload.write(&mut draw);
                    let answer = onepen.run(&job).await;
                    let now = Instant::now();
                    if tally.count(&job, !gate.is_over(), answer) {
                        let mut latencies =
                            latencies.lock().unwrap_or_else(PoisonError::into_inner);
                        record(&mut latencies, now - began);
                    }
                    began = now;
                }
                tally
            })
        })
        .collect();
    let clients = runtime.block_on(async {
        let mut tallies = Vec::with_capacity(tasks.len());
        for task in tasks {
            match task.await {
                Ok(tally) => tallies.push(tally),
                Err(error) => std::panic::resume_unwind(error.into_panic()),
            }
        }
        tallies
    });
    let latencies = std::mem::replace(
        &mut *latencies.lock().unwrap_or_else(PoisonError::into_inner),
        histogram(),
    );
    Tallies { clients, latencies }
}

/// One client at work.
fn drive(
    workload: &dyn Workload,
    client: &mut dyn Client,
    gate: &Gate,
    mut draw: Draw,
    reads: bool,
    tallies: &mut Tallies,
) {
    let mut tally = Tally::new();
    let mut began = Instant::now();
    while !gate.is_over() {
        let job = if reads {
            let Some(job) = workload.read(&mut draw) else {
                break;
            };
            job
        } else {
            workload.write(&mut draw)
        };
        let answer = client.run(&job);
        // One look at the clock for each: the end of one is the beginning of the next.
        let now = Instant::now();
        if tally.count(&job, !gate.is_over(), answer) {
            record(&mut tallies.latencies, now - began);
        }
        began = now;
    }
    if let Err(fault) = client.finish() {
        // What was acknowledged on its word is now missing: the invariant tells.
        tally.failed(&fault);
    }
    tallies.clients.push(tally);
}
