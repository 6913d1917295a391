//! The life of one worker process: it opens the database, lets its clients work
//! until it is told to end, and says from time to time how far it is.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

use ::onepen::{Database, Options};
use onepen_check::Transaction;
use serde::{Deserialize, Serialize};

use super::clients::{Ended, Stranger, by_task, by_thread};
use super::deeds::{Deed, OnPurpose};
use super::faults;
use super::log::Log;
use super::workloads::{ClientKind, Draw, Workload};
use crate::bench::ways::Durability;
use crate::child::say;

/// The hidden subcommand that makes this program a worker.
pub const SUBCOMMAND: &str = "stress-worker";

/// Longer than others keep the lock, shorter than anybody's patience.
const WAIT: Duration = Duration::from_secs(10);

/// Everything a worker must know.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Spec {
    /// What is run.
    pub workload: Workload,
    /// On which file.
    pub path: PathBuf,
    /// Where it writes down what it does.
    pub log: PathBuf,
    /// What COMMIT promises.
    pub durability: Durability,
    /// Blocking threads.
    pub threads: u32,
    /// Tasks, all on one thread.
    pub tasks: u32,
    /// Where the random numbers begin.
    pub seed: u64,
    /// Which process this is; a process that takes another's place has another.
    pub incarnation: u64,
    /// Whether its clients use plain connections.
    pub stranger: bool,
    /// Whether its disk fails now and then.
    pub faults: bool,
}

/// What a worker says.
#[derive(Debug, Serialize, Deserialize)]
pub enum Answer {
    /// How far it is.
    Going(Figures),
    /// It has ended as it was told.
    Ended(Figures),
    /// It could not open the database, or write its log.
    Failed(String),
}

/// What a worker has counted so far.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Figures {
    /// Answers that were given.
    pub answered: u64,
    /// Faults that were injected.
    pub faults: u64,
    /// Errors by class.
    pub errors: BTreeMap<String, u64>,
    /// Violations that need no history to be seen, each once.
    pub violations: Vec<String>,
}

impl Figures {
    /// Adds those of another worker.
    pub fn add(&mut self, more: &Self) {
        self.answered += more.answered;
        self.faults += more.faults;
        for (class, n) in &more.errors {
            *self.errors.entry(class.clone()).or_default() += n;
        }
        for violation in &more.violations {
            if !self.violations.contains(violation) {
                self.violations.push(violation.clone());
            }
        }
    }
}

/// What the clients of a worker share.
struct Shared {
    spec: Spec,
    log: Log,
    over: AtomicBool,
    figures: Mutex<Figures>,
}

impl Shared {
    fn draw(&self, number: u32, kind: ClientKind) -> Draw {
        let Spec {
            workload,
            seed,
            incarnation,
            ..
        } = self.spec;
        Draw::new(workload, seed, incarnation, u64::from(number), kind)
    }

    fn begin(&self, deed: &Deed, draw: &Draw) -> Transaction {
        match self.log.invoked(deed, draw.client()) {
            Ok(transaction) => transaction,
            Err(why) => give_up(&why),
        }
    }

    fn end(&self, transaction: Transaction, deed: &Deed, ended: Ended) {
        let Ended {
            outcome,
            done,
            class,
            violation,
        } = ended;
        if let Err(why) = self.log.answer(transaction, deed, outcome, done) {
            give_up(&why);
        }
        if class.is_some() || violation.is_some() {
            let mut figures = self.figures.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(class) = class {
                *figures.errors.entry(class).or_default() += 1;
            }
            // The first few say it all.
            if let Some(violation) = violation.filter(|_| figures.violations.len() < 10) {
                figures.violations.push(violation);
            }
        }
    }

    fn figures(&self) -> Figures {
        let figures = self.figures.lock().unwrap_or_else(PoisonError::into_inner);
        Figures {
            answered: self.log.answered(),
            faults: faults::injected(),
            ..figures.clone()
        }
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }
}

/// Without its log a worker proves nothing.
fn give_up(why: &str) -> ! {
    let _ = say(&Answer::Failed(why.to_owned()));
    std::process::exit(2);
}

/// The life of a worker; `false` when it could not run.
pub fn worker() -> bool {
    // Ctrl-C reaches the whole group; the parent tells us what to do.
    let _ = ctrlc::set_handler(|| {});
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if !info.payload().is::<OnPurpose>() {
            hook(info);
        }
    }));
    let answer = work().map_or_else(Answer::Failed, Answer::Ended);
    say(&answer).is_ok() && matches!(answer, Answer::Ended(_))
}

fn work() -> Result<Figures, String> {
    let mut lines = BufReader::new(std::io::stdin()).lines();
    let line = lines
        .next()
        .transpose()
        .map_err(|error| error.to_string())?
        .ok_or("this subcommand is for onepen stress itself")?;
    let spec: Spec = serde_json::from_str(&line).map_err(|error| error.to_string())?;
    if spec.faults {
        faults::install(spec.seed ^ spec.incarnation)?;
    }
    let shared = Arc::new(Shared {
        log: Log::new(&spec.log)?,
        over: AtomicBool::new(false),
        figures: Mutex::default(),
        spec,
    });
    // Nothing is heard any more when the parent says so, or has gone.
    let (gone, parent) = mpsc::channel::<()>();
    thread::spawn(move || {
        let _ = lines.next();
        drop(gone);
    });
    if shared.spec.stranger {
        run_strangers(&shared, &parent)?;
    } else {
        run_library(&shared, &parent)?;
    }
    Ok(shared.figures())
}

fn run_strangers(shared: &Arc<Shared>, parent: &mpsc::Receiver<()>) -> Result<(), String> {
    thread::scope(|scope| {
        let strangers: Vec<_> = (0..shared.spec.threads.max(1))
            .map(|number| {
                scope.spawn(move || {
                    let mut stranger = Stranger::new(&shared.spec.path, shared.spec.durability)?;
                    let mut draw = shared.draw(number, ClientKind::Stranger);
                    while !shared.is_over() {
                        let deed = draw.next();
                        let transaction = shared.begin(&deed, &draw);
                        let ended = stranger.run(&deed, shared.spec.workload.judged());
                        shared.end(transaction, &deed, ended);
                    }
                    Ok(())
                })
            })
            .collect();
        until_told(shared, parent);
        strangers.into_iter().try_for_each(joined)
    })
}

fn run_library(shared: &Arc<Shared>, parent: &mpsc::Receiver<()>) -> Result<(), String> {
    let spec = &shared.spec;
    let durability = match spec.durability {
        Durability::Full => ::onepen::Durability::Full,
        Durability::Normal => ::onepen::Durability::Normal,
    };
    let database = Options::new()
        .durability(durability)
        .wait(WAIT)
        // Short, so that checkpoints and resets happen all the time.
        .wal_limit(256, Duration::from_millis(20))
        .open(&spec.path)
        .map_err(|error| error.to_string())?;
    faults::arm(spec.faults);
    let answer = thread::scope(|scope| {
        let mut hands: Vec<_> = (0..spec.threads)
            .map(|number| {
                let database = &database;
                scope.spawn(move || {
                    let mut draw = shared.draw(number, ClientKind::Thread);
                    while !shared.is_over() {
                        let deed = draw.next();
                        let transaction = shared.begin(&deed, &draw);
                        let ended = by_thread(database, &deed, shared.spec.workload.judged());
                        shared.end(transaction, &deed, ended);
                    }
                    Ok(())
                })
            })
            .collect();
        if spec.tasks > 0 {
            let database = &database;
            hands.push(scope.spawn(move || tasks(shared, database)));
        }
        until_told(shared, parent);
        hands.into_iter().try_for_each(joined)
    });
    faults::arm(false);
    database.close();
    answer
}

fn joined(hand: thread::ScopedJoinHandle<'_, Result<(), String>>) -> Result<(), String> {
    hand.join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// All tasks, on this thread.
fn tasks(shared: &Arc<Shared>, database: &Database) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .map_err(|error| format!("tokio's runtime did not start: {error}"))?;
    let tasks: Vec<_> = (0..shared.spec.tasks)
        .map(|number| {
            let (shared, database) = (Arc::clone(shared), database.clone());
            runtime.spawn(async move {
                let mut draw = shared.draw(shared.spec.threads + number, ClientKind::Task);
                while !shared.is_over() {
                    let deed = draw.next();
                    let transaction = shared.begin(&deed, &draw);
                    // One that was dropped is never answered.
                    if let Some(ended) =
                        by_task(&database, &deed, shared.spec.workload.judged()).await
                    {
                        shared.end(transaction, &deed, ended);
                    }
                }
            })
        })
        .collect();
    runtime.block_on(async {
        for task in tasks {
            if let Err(error) = task.await {
                std::panic::resume_unwind(error.into_panic());
            }
        }
    });
    Ok(())
}

/// Says how far it is, until the parent has had enough.
fn until_told(shared: &Shared, parent: &mpsc::Receiver<()>) {
    while parent.recv_timeout(Duration::from_millis(100)) == Err(mpsc::RecvTimeoutError::Timeout) {
        if say(&Answer::Going(shared.figures())).is_err() {
            break;
        }
    }
    shared.over.store(true, Ordering::Relaxed);
}
