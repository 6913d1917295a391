//! Ways that are wrong on purpose: each must be found out by the invariant of
//! every workload that claims to find such a thing.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rusqlite::Connection;

use super::driver::{Slice, WorkloadKind, WorkloadSpec, run_opened};
use super::scratch::Scratch;
use super::sql::{Fault, Session, Sql, Value};
use super::ways::{self, Client, Durability, Journal, OnConnection, Opened, Way};
use super::workloads::{
    Acknowledged, Bank, Draw, Insert, Job, Mix, Tpcb, Variables, Verdict, Workload, Ycsb,
};

/// A database in a workload's starting state.
struct Bench {
    workload: Arc<dyn Workload>,
    path: PathBuf,
    // Removed when dropped.
    _scratch: Scratch,
}

impl Bench {
    fn new(workload: impl Workload + 'static) -> Self {
        let scratch = Scratch::new(None).unwrap();
        scratch.build(&workload.load()).unwrap();
        Self {
            path: scratch.fresh(Journal::Wal).unwrap(),
            workload: Arc::new(workload),
            _scratch: scratch,
        }
    }

    fn connect(&self) -> Connection {
        ways::open(&self.path, Durability::Normal, Duration::from_secs(5)).unwrap()
    }

    /// Lets one client run this many transactions; all must be acknowledged.
    fn run(&self, client: &mut dyn Client, transactions: usize) -> Acknowledged {
        let mut draw = Draw::new(1, 0);
        let effects = (0..transactions)
            .map(|_| {
                let job = self.workload.write(&mut draw);
                client.run(&job).unwrap();
                job.work().effects()
            })
            .sum();
        Acknowledged {
            effects,
            unknown: 0,
        }
    }

    fn verdict(&self, acknowledged: Acknowledged) -> Verdict {
        let connection = self.connect();
        self.workload
            .verify(&mut OnConnection(&connection), None, acknowledged)
            .unwrap()
    }
}

/// Honest: every job in a transaction.
struct Honest(Connection);

/// Acknowledges without having committed.
struct Forgetful(Connection);

/// Reads a row once and believes it for ever: what a transaction does that
/// read before somebody else wrote.
struct Stale {
    connection: Connection,
    seen: HashMap<String, Vec<Value>>,
}

fn run_all(job: &Job, session: &mut dyn Session) -> Result<(), Fault> {
    let mut variables = Variables::new();
    for part in 0..job.work().parts() {
        variables = job.work().run(part, &variables, session)?;
    }
    Ok(())
}

impl Client for Honest {
    fn run(&mut self, job: &Job) -> Result<(), Fault> {
        self.0.execute_batch("BEGIN")?;
        run_all(job, &mut OnConnection(&self.0))?;
        Ok(self.0.execute_batch("COMMIT")?)
    }
}

impl Client for Forgetful {
    fn run(&mut self, job: &Job) -> Result<(), Fault> {
        self.0.execute_batch("BEGIN")?;
        run_all(job, &mut OnConnection(&self.0))?;
        Ok(self.0.execute_batch("ROLLBACK")?)
    }
}

impl Client for Stale {
    fn run(&mut self, job: &Job) -> Result<(), Fault> {
        run_all(job, self)
    }
}

impl Session for Stale {
    fn execute(&mut self, sql: &Sql, params: &[Value]) -> Result<usize, Fault> {
        OnConnection(&self.connection).execute(sql, params)
    }

    fn first(&mut self, sql: &Sql, params: &[Value], row: &mut [Value]) -> Result<bool, Fault> {
        let key = format!("{}{params:?}", sql.sqlite);
        if let Some(seen) = self.seen.get(&key) {
            row.clone_from_slice(seen);
            return Ok(true);
        }
        let found = OnConnection(&self.connection).first(sql, params, row)?;
        self.seen.insert(key, row.to_vec());
        Ok(found)
    }
}

fn all_workloads() -> Vec<(&'static str, Bench)> {
    vec![
        ("insert", Bench::new(Insert)),
        ("bank", Bench::new(Bank::new(1))),
        ("tpcb", Bench::new(Tpcb::new(1))),
        ("ycsb-a", Bench::new(Ycsb::new(Mix::A, 1))),
        ("ycsb-f", Bench::new(Ycsb::new(Mix::F, 1))),
    ]
}

#[test]
fn what_was_committed_is_found_and_nothing_is_reported() {
    for (name, bench) in all_workloads() {
        let acknowledged = bench.run(&mut Honest(bench.connect()), 50);
        assert!(acknowledged.effects > 0, "{name}");
        let verdict = bench.verdict(acknowledged);
        assert_eq!(
            (verdict.lost, verdict.violations),
            (Some(0), vec![]),
            "{name}"
        );
    }
}

#[test]
fn every_acknowledged_transaction_that_was_not_committed_is_missed() {
    for (name, bench) in all_workloads() {
        let acknowledged = bench.run(&mut Forgetful(bench.connect()), 50);
        assert_eq!(
            bench.verdict(acknowledged).lost,
            Some(acknowledged.effects),
            "{name}"
        );
    }
}

#[test]
fn more_in_the_database_than_was_acknowledged_is_a_violation() {
    for (name, bench) in all_workloads() {
        let mut acknowledged = bench.run(&mut Honest(bench.connect()), 50);
        acknowledged.effects -= 1;
        assert_eq!(bench.verdict(acknowledged).violations.len(), 1, "{name}");
        // Unless one ended with nobody knowing how.
        acknowledged.unknown = 1;
        assert_eq!(bench.verdict(acknowledged).violations, [""; 0], "{name}");
    }
}

#[test]
fn an_update_computed_from_a_stale_read_is_counted_as_lost() {
    for (name, bench) in [
        ("bank", Bench::new(Bank::new(1))),
        ("ycsb-f", Bench::new(Ycsb::new(Mix::F, 1))),
    ] {
        let mut client = Stale {
            connection: bench.connect(),
            seen: HashMap::new(),
        };
        // Far more than there are accounts and hot records: some meet twice.
        let acknowledged = bench.run(&mut client, 2_000);
        let verdict = bench.verdict(acknowledged);
        assert!(
            verdict.lost.is_some_and(|lost| lost > 0),
            "{name}: {verdict:?}"
        );
    }
}

/// Commits every statement by itself, and lets somebody look after the first
/// one that wrote.
struct Halfway<'look> {
    connection: Connection,
    look: &'look mut dyn FnMut(),
}

impl Session for Halfway<'_> {
    fn execute(&mut self, sql: &Sql, params: &[Value]) -> Result<usize, Fault> {
        let changed = OnConnection(&self.connection).execute(sql, params)?;
        (self.look)();
        Ok(changed)
    }

    fn first(&mut self, sql: &Sql, params: &[Value], row: &mut [Value]) -> Result<bool, Fault> {
        OnConnection(&self.connection).first(sql, params, row)
    }
}

#[test]
fn a_reader_that_sees_half_a_transfer_reports_it() {
    let bench = Bench::new(Bank::new(1));
    let mut draw = Draw::new(1, 0);
    let transfer = bench.workload.write(&mut draw);
    let audit = bench.workload.read(&mut draw).unwrap();
    let reader = bench.connect();
    let mut seen = Vec::new();
    let mut session = Halfway {
        connection: bench.connect(),
        look: &mut || {
            let look = run_all(&audit, &mut OnConnection(&reader));
            seen.push(look.map_err(|fault| fault.class()));
        },
    };
    run_all(&transfer, &mut session).unwrap();
    // Between the two updates, and after both.
    assert_eq!(seen, [Err("torn read".to_owned()), Ok(())]);
}

/// [`Forgetful`] on every thread.
struct AllForgetful(PathBuf);

impl Way for AllForgetful {
    fn client(&self) -> Result<Box<dyn Client + '_>, Fault> {
        let timeout = Duration::from_secs(5);
        let connection = ways::open(&self.0, Durability::Normal, timeout)?;
        Ok(Box::new(Forgetful(connection)))
    }
}

#[test]
fn the_driver_hands_every_acknowledgement_of_every_thread_to_the_invariant() {
    let bench = Bench::new(Insert);
    let slice = Slice {
        way: "forgetful".to_owned(),
        workload: WorkloadSpec {
            kind: WorkloadKind::Insert,
            scale: 1,
            script: None,
            read_script: None,
            define: Vec::new(),
            invariant: None,
        },
        path: bench.path.clone(),
        durability: Durability::Normal,
        threads: 3,
        readers: 0,
        tasks: 0,
        process: 0,
        duration: Duration::from_millis(50),
        seed: 1,
        server: None,
    };
    let opened = Opened::Threads(Box::new(AllForgetful(bench.path.clone())));
    let ran = run_opened(&slice, &bench.workload, &opened, || Ok(()), |_| true).unwrap();
    assert!(ran.writers.committed > 0);
    assert_eq!(ran.writers.shares.len(), 3);
    let acknowledged = Acknowledged {
        effects: ran.writers.effects,
        unknown: ran.writers.unknown,
    };
    assert_eq!(
        bench.verdict(acknowledged).lost,
        Some(ran.writers.committed)
    );
}
