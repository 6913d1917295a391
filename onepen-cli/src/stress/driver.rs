//! Runs one workload: starts the workers, kills and stops some of them on the
//! way, and gathers what they and the database have to say.
//!
//! Guarantee: when it returns, no worker is left, whatever went wrong.

use std::collections::BTreeSet;
use std::fs;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use onepen_check::{History, Mode, Op, Outcome, Transaction};
use rusqlite::Connection;
use rustix::process::{Pid, Signal, kill_process};

use super::deeds::{COLUMNS, INDEX, Judged, SCHEMA};
use super::log::now;
use super::worker::{Answer, Figures, SUBCOMMAND, Spec};
use super::workloads::Workload;
use crate::bench::random::Random;
use crate::bench::scratch::Scratch;
use crate::bench::ways::{self, Durability, Journal};
use crate::child::Child;

/// What is to be done.
#[derive(Clone, Debug)]
pub struct Plan {
    pub workloads: Vec<Workload>,
    pub processes: u32,
    pub threads: u32,
    pub tasks: u32,
    pub strangers: u32,
    pub duration: Duration,
    pub durability: Durability,
    pub kill: bool,
    pub stop: bool,
    pub faults: bool,
    pub seed: u64,
}

/// What a run left.
pub struct Ran {
    /// What was recorded, in the scratch directory.
    pub history: PathBuf,
    /// What the workers counted.
    pub figures: Figures,
    /// Processes that were killed.
    pub kills: u64,
    /// Processes that were stopped for a while.
    pub stops: u64,
    /// The run was ended before its time.
    pub interrupted: bool,
}

/// How long past the end a worker may take to end: longer than any wait for a
/// lock is allowed to be.
const PATIENCE: Duration = Duration::from_secs(60);

enum Event {
    Said(Result<Answer, String>),
    Gone,
}

/// A worker, or the place of one.
struct Slot {
    child: Child,
    spec: Spec,
    latest: Figures,
    /// It said that it had ended.
    ended: bool,
    /// We killed it.
    killed: bool,
    /// Its output is over.
    gone: bool,
    stopped_until: Option<Instant>,
}

impl Slot {
    fn start(spec: Spec, events: &Sender<(u64, Event)>) -> Result<Self, String> {
        /// Tells when nothing more will be heard.
        struct Gone(Sender<(u64, Event)>, u64);
        impl Drop for Gone {
            fn drop(&mut self) {
                let _ = self.0.send((self.1, Event::Gone));
            }
        }
        let incarnation = spec.incarnation;
        let gone = Gone(events.clone(), incarnation);
        let child = Child::start(SUBCOMMAND, &spec, move |answer| {
            gone.0.send((gone.1, Event::Said(answer))).is_ok()
        })?;
        Ok(Self {
            child,
            spec,
            latest: Figures::default(),
            ended: false,
            killed: false,
            gone: false,
            stopped_until: None,
        })
    }

    fn signal(&self, signal: Signal) {
        // A process that has ended meanwhile cannot be signalled: it is waited
        // for by us alone, so its number is nobody else's yet.
        let _ = kill_process(Pid::from_child(&self.child.process), signal);
    }

    fn kill(&mut self) {
        self.killed = true;
        self.signal(Signal::KILL);
    }

    fn status(&mut self) -> Option<ExitStatus> {
        self.child.end();
        self.child.process.wait().ok()
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if !self.gone {
            self.kill();
        }
    }
}

/// A run under way.
struct Run<'a> {
    plan: &'a Plan,
    slots: Vec<Slot>,
    events: Sender<(u64, Event)>,
    heard: Receiver<(u64, Event)>,
    next: u64,
    /// Figures of those that are gone.
    figures: Figures,
    kills: u64,
    stops: u64,
}

/// Runs one workload on a fresh database of `scratch`. `go_on` is shown how many
/// deeds were answered, and ends the run early by answering `false`.
pub fn run(
    plan: &Plan,
    workload: Workload,
    scratch: &Scratch,
    go_on: impl FnMut(Duration, u64) -> bool,
) -> Result<Ran, String> {
    let path = scratch
        .fresh(Journal::Wal)
        .map_err(|fault| fault.to_string())?;
    prepare(&path, workload)
        .map_err(|error| format!("cannot make the tables of the run: {error}"))?;
    let logs = scratch.path().join(format!("{}-logs", workload.name()));
    fs::create_dir(&logs)
        .map_err(|error| format!("cannot make the directory {}: {error}", logs.display()))?;
    let (events, heard) = mpsc::channel();
    let mut run = Run {
        plan,
        slots: Vec::new(),
        events,
        heard,
        next: 1,
        figures: Figures::default(),
        kills: 0,
        stops: 0,
    };
    for number in 0..plan.processes + plan.strangers {
        let stranger = number >= plan.processes;
        let spec = Spec {
            workload,
            path: path.clone(),
            log: PathBuf::new(),
            durability: plan.durability,
            threads: if stranger { 1 } else { plan.threads },
            tasks: if stranger { 0 } else { plan.tasks },
            seed: plan.seed,
            incarnation: 0,
            stranger,
            faults: plan.faults && !stranger,
        };
        let slot = run.start(spec, &logs)?;
        run.slots.push(slot);
    }
    let interrupted = run.work(&logs, go_on)?;
    run.finish();
    let Run {
        mut figures,
        kills,
        stops,
        ..
    } = run;
    let history = gather(&path, workload, plan, &logs, &mut figures)?;
    Ok(Ran {
        history,
        figures,
        kills,
        stops,
        interrupted,
    })
}

/// Makes the tables of a run.
pub fn prepare(path: &Path, workload: Workload) -> rusqlite::Result<()> {
    let mut connection = Connection::open(path)?;
    let transaction = connection.transaction()?;
    transaction.execute_batch(SCHEMA)?;
    for (key, value) in workload.start() {
        if key < COLUMNS {
            transaction.execute(
                "INSERT INTO onepen_stress_register VALUES (?1, ?2)",
                (key.cast_signed(), value),
            )?;
        }
    }
    transaction.commit()
}

impl Run<'_> {
    fn start(&mut self, spec: Spec, logs: &Path) -> Result<Slot, String> {
        let incarnation = self.next;
        self.next += 1;
        let spec = Spec {
            log: logs.join(format!("{incarnation}.log")),
            incarnation,
            ..spec
        };
        Slot::start(spec, &self.events)
    }

    /// Until the time is over; answers whether that was early.
    fn work(
        &mut self,
        logs: &Path,
        mut go_on: impl FnMut(Duration, u64) -> bool,
    ) -> Result<bool, String> {
        let began = Instant::now();
        let mut random = Random::new(self.plan.seed);
        let mut soon = move |least: i64, most: i64| {
            let millis = random.between(least, most).cast_unsigned();
            (
                Instant::now() + Duration::from_millis(millis),
                random.bits(),
            )
        };
        let (mut next_kill, mut next_stop) = (soon(100, 500), soon(50, 300));
        loop {
            match self.heard.recv_timeout(Duration::from_millis(10)) {
                Ok((incarnation, event)) => self.hear(incarnation, event, logs, true)?,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Err("no worker is left".to_owned()),
            }
            let now = Instant::now();
            for slot in &mut self.slots {
                if slot.stopped_until.is_some_and(|until| until <= now) {
                    slot.stopped_until = None;
                    slot.signal(Signal::CONT);
                }
            }
            if self.plan.kill && next_kill.0 <= now {
                let slots = self.slots.len() as u64;
                let slot = &mut self.slots[(next_kill.1 % slots) as usize];
                // Not one that has not begun yet, or none would ever get far.
                if slot.latest.answered > 0 && !slot.killed {
                    slot.kill();
                    self.kills += 1;
                }
                next_kill = soon(50, 400);
            }
            if self.plan.stop && next_stop.0 <= now {
                let slots = self.slots.len() as u64;
                let slot = &mut self.slots[(next_stop.1 % slots) as usize];
                if slot.stopped_until.is_none() && !slot.killed {
                    slot.signal(Signal::STOP);
                    slot.stopped_until = Some(soon(20, 300).0);
                    self.stops += 1;
                }
                next_stop = soon(50, 300);
            }
            let answered = self.slots.iter().map(|slot| slot.latest.answered);
            let answered = self.figures.answered + answered.sum::<u64>();
            let passed = began.elapsed();
            if !go_on(passed, answered) {
                return Ok(true);
            }
            if passed >= self.plan.duration {
                return Ok(false);
            }
        }
    }

    fn hear(
        &mut self,
        incarnation: u64,
        event: Event,
        logs: &Path,
        start_again: bool,
    ) -> Result<(), String> {
        let place = |slot: &Slot| slot.spec.incarnation == incarnation;
        let Some(at) = self.slots.iter().position(place) else {
            return Ok(());
        };
        let slot = &mut self.slots[at];
        match event {
            Event::Said(Ok(Answer::Going(figures))) => slot.latest = figures,
            Event::Said(Ok(Answer::Ended(figures))) => {
                slot.latest = figures;
                slot.ended = true;
            }
            Event::Said(Ok(Answer::Failed(why))) => {
                slot.killed = true;
                if incarnation <= u64::from(self.plan.processes + self.plan.strangers)
                    && slot.latest.answered == 0
                {
                    return Err(format!("a worker could not begin: {why}"));
                }
                let violation = format!("a worker that took another's place failed: {why}");
                slot.latest.violations.push(violation);
            }
            // The last line of one that was killed may be cut.
            Event::Said(Err(_)) if slot.killed => {}
            Event::Said(Err(why)) => slot.latest.violations.push(why),
            Event::Gone => {
                slot.gone = true;
                let status = slot.status();
                if !slot.killed && !slot.ended {
                    let how = status.map_or("in an unknown way".to_owned(), |s| s.to_string());
                    let violation = format!("a worker process ended by itself: {how}");
                    slot.latest.violations.push(violation);
                }
                self.figures.add(&std::mem::take(&mut slot.latest));
                if start_again {
                    let spec = slot.spec.clone();
                    self.slots[at] = self.start(spec, logs)?;
                }
            }
        }
        Ok(())
    }

    /// Tells everybody to end, and waits for it.
    fn finish(&mut self) {
        for slot in &mut self.slots {
            slot.signal(Signal::CONT);
            slot.child.end();
        }
        let until = Instant::now() + PATIENCE;
        while self.slots.iter().any(|slot| !slot.gone) {
            let left = until.saturating_duration_since(Instant::now());
            let event = match self.heard.recv_timeout(left) {
                Ok((incarnation, event)) => self.hear(incarnation, event, Path::new(""), false),
                Err(_) => break,
            };
            if let Err(why) = event {
                self.figures.violations.push(why);
            }
        }
        for slot in self.slots.iter_mut().filter(|slot| !slot.gone) {
            let violation = format!(
                "a worker process had not ended {} s after it was told to",
                PATIENCE.as_secs()
            );
            self.figures.violations.push(violation);
            self.figures.add(&std::mem::take(&mut slot.latest));
            slot.kill();
        }
    }
}

/// Puts together what was recorded and what is in the database.
fn gather(
    path: &Path,
    workload: Workload,
    plan: &Plan,
    logs: &Path,
    figures: &mut Figures,
) -> Result<PathBuf, String> {
    let mut history = History::new(match workload.judged() {
        Judged::BySerial => Mode::Serial,
        Judged::ByLists => Mode::Append,
    });
    history.about = format!(
        "{}, seed {}, {} processes of {} threads and {} tasks, {} strangers{}{}{}",
        workload.name(),
        plan.seed,
        plan.processes,
        plan.threads,
        plan.tasks,
        plan.strangers,
        if plan.kill { ", kill" } else { "" },
        if plan.stop { ", stop" } else { "" },
        if plan.faults { ", faults" } else { "" },
    );
    history.start = workload.start();
    let entries = fs::read_dir(logs).map_err(|error| format!("{}: {error}", logs.display()))?;
    for entry in entries {
        let log = entry.map_err(|error| error.to_string())?.path();
        let file = fs::File::open(&log).map_err(|error| format!("{}: {error}", log.display()))?;
        history
            .add_log(BufReader::new(file))
            .map_err(|error| format!("{}: {error}", log.display()))?;
    }
    let connection = ways::open(path, plan.durability, Duration::from_secs(5))
        .map_err(|fault| format!("cannot open the database after the run: {fault}"))?;
    look(&connection, &mut history, workload, figures)
        .map_err(|error| format!("cannot read the database after the run: {error}"))?;
    let file = logs.with_file_name(format!("{}.history", workload.name()));
    let write = || -> std::io::Result<()> {
        let mut to = std::io::BufWriter::new(fs::File::create(&file)?);
        history.write_to(&mut to)?;
        std::io::Write::flush(&mut to)
    };
    write().map_err(|error| super::cannot_write(&file, &error))?;
    Ok(file)
}

/// Adds what the database itself says.
pub fn look(
    connection: &Connection,
    history: &mut History,
    workload: Workload,
    figures: &mut Figures,
) -> rusqlite::Result<()> {
    let integrity: String = connection.query_row("PRAGMA integrity_check", (), |row| row.get(0))?;
    if integrity != "ok" {
        figures
            .violations
            .push(format!("the database is damaged: {integrity}"));
    }
    let debt: i64 =
        connection.query_row("SELECT count(*) FROM pragma_foreign_key_check", (), |row| {
            row.get(0)
        })?;
    if debt > 0 {
        figures.violations.push(format!(
            "{debt} rows were committed that break a foreign key"
        ));
    }
    if workload.judged() == Judged::ByLists {
        return last_look(connection, history);
    }
    let number = |row: &rusqlite::Row<'_>, at| row.get(at).map(i64::cast_unsigned);
    let mut ledger =
        connection.prepare("SELECT serial, id, steps FROM onepen_stress_ledger ORDER BY rowid")?;
    let mut rows = ledger.query(())?;
    while let Some(row) = rows.next()? {
        let (serial, id) = (number(row, 0)?, number(row, 1)?);
        let steps: String = row.get(2)?;
        let from = history.ops.len();
        if history.read_ops(steps.split(' ')).is_none() {
            let violation =
                format!("the ledger has an entry that nobody wrote, at serial {serial}");
            figures.violations.push(violation);
        }
        let ops = from..history.ops.len();
        history.ledger.push(onepen_check::Entry { serial, id, ops });
    }
    let mut registers = connection.prepare("SELECT key, value FROM onepen_stress_register")?;
    let mut rows = registers.query(())?;
    while let Some(row) = rows.next()? {
        history.end.push((number(row, 0)?, row.get(1)?));
    }
    if workload == Workload::Ddl {
        let schema = "SELECT (SELECT count(*) FROM pragma_table_info('onepen_stress_shape')),
                (SELECT count(*) FROM sqlite_schema WHERE name = 'onepen_stress_shape_index')";
        let (columns, index) =
            connection.query_row(schema, (), |row| Ok((row.get(0)?, row.get(1)?)))?;
        history.end.extend([(COLUMNS, columns), (INDEX, index)]);
    }
    Ok(())
}

/// Reads every list that anybody used, as one more transaction.
fn last_look(connection: &Connection, history: &mut History) -> rusqlite::Result<()> {
    let invoked = now();
    let lists: BTreeSet<u64> = history.ops.iter().map(|op| op.key()).collect();
    let mut select =
        connection.prepare("SELECT value FROM onepen_stress_list WHERE key = ?1 ORDER BY place")?;
    let mut ops: Vec<Op> = Vec::with_capacity(lists.len());
    for list in lists {
        let values: Vec<i64> = select
            .query_map([list.cast_signed()], |row| row.get(0))?
            .collect::<Result<_, _>>()?;
        ops.push(history.list(list, &values));
    }
    // No client has this id.
    let look = Transaction::read(1, 0, invoked, now(), Outcome::Committed);
    history.push(look, &ops);
    Ok(())
}
