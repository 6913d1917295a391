//! Libraries that are wrong on purpose: each must be found out by the same
//! deeds, the same ledger and the same checkers that judge the real one.

use std::time::Duration;

use onepen_check::{Class, History, Mode, Outcome, Report, Transaction};
use rusqlite::Connection;

use super::deeds::{Deed, Done, How, Judged, Part};
use super::driver;
use super::log::now;
use super::worker::Figures;
use super::workloads::{ClientKind, Draw, Workload};
use crate::bench::ways::{self, Durability, OnConnection};

/// A database with the tables of a workload, and what was told about it.
struct Scene {
    dir: tempfile::TempDir,
    workload: Workload,
    history: History,
    figures: Figures,
    next: u64,
}

impl Scene {
    fn new(workload: Workload) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("scene.db");
        let wal = Connection::open(&path).unwrap();
        wal.pragma_update(None, "journal_mode", "wal").unwrap();
        driver::prepare(&path, workload).unwrap();
        let mut history = History::new(match workload.judged() {
            Judged::BySerial => Mode::Serial,
            Judged::ByLists => Mode::Append,
        });
        history.start = workload.start();
        Self {
            dir,
            workload,
            history,
            figures: Figures::default(),
            next: 1_000,
        }
    }

    fn connect(&self) -> Connection {
        let path = self.dir.path().join("scene.db");
        ways::open(&path, Durability::Normal, Duration::from_secs(5)).unwrap()
    }

    fn deed(&mut self, writes: bool, parts: &[Part]) -> Deed {
        self.next += 1;
        Deed {
            id: self.next,
            writes,
            parts: parts.to_vec(),
            how: How::Plain,
            deadline: None,
            dropped: false,
        }
    }

    /// What a deed does on a connection, without a transaction around it.
    fn run(&self, deed: &Deed, connection: &Connection) -> Done {
        let mut session = OnConnection(connection);
        deed.run(self.workload.judged(), &mut session).unwrap()
    }

    /// A library answers a deed that was asked for before everything that
    /// `answer` does.
    fn tell(&mut self, deed: &Deed, answer: impl FnOnce(&mut Self) -> Done) {
        let invoked = now();
        let mut done = answer(self);
        let mut told = Transaction::write(deed.id, 1, invoked, now(), Outcome::Committed);
        told.writes = deed.writes;
        told.serial = done.serial;
        let mut ops = std::mem::take(&mut done.notes.ops);
        for op in &mut ops {
            if let onepen_check::Op::List { key, at } = *op {
                *op = self.history.list(key, done.notes.elements(at));
            }
        }
        self.history.push(told, &ops);
    }

    /// An honest write in between, of somebody else.
    fn honest(&mut self, writes: bool, parts: &[Part]) {
        let deed = self.deed(writes, parts);
        self.tell(&deed, |scene| {
            let connection = scene.connect();
            let begin = if writes { "BEGIN IMMEDIATE" } else { "BEGIN" };
            connection.execute_batch(begin).unwrap();
            let done = scene.run(&deed, &connection);
            connection.execute_batch("COMMIT").unwrap();
            done
        });
    }

    fn report(mut self) -> Report {
        let connection = self.connect();
        driver::look(
            &connection,
            &mut self.history,
            self.workload,
            &mut self.figures,
        )
        .unwrap();
        assert_eq!(self.figures.violations, [""; 0]);
        self.history.check()
    }
}

const ADD: Part = Part::AddSlowly { key: 0, by: 3 };
const LOOK: fn() -> Part = || Part::Look(vec![0]);
const APPEND: Part = Part::Append { key: 0, value: 7 };

fn must_find(scene: Scene, class: Class) {
    let report = scene.report();
    assert!(report.of(class).is_some(), "no {class}: {report:?}");
}

#[test]
fn an_honest_library_is_clean_in_every_workload() {
    for workload in super::workloads::ALL {
        let mut scene = Scene::new(workload);
        let mut draw = Draw::new(workload, 1, 1, 1, ClientKind::Stranger);
        let mut written = 0;
        for _ in 0..60 {
            let mut deed = draw.next();
            // Failures are for the real clients, and time for real readers.
            deed.parts
                .retain(|part| !matches!(part, Part::Spoil(_) | Part::Pause(_)));
            written += u32::from(deed.writes);
            scene.honest(deed.writes, &deed.parts);
        }
        let report = scene.report();
        assert!(report.is_clean(), "{}: {report:?}", workload.name());
        assert!(written > 10, "{}: {written}", workload.name());
    }
}

#[test]
fn a_library_that_acknowledges_before_it_commits_is_found_out() {
    for (workload, part) in [(Workload::Counter, ADD), (Workload::ListAppend, APPEND)] {
        let mut scene = Scene::new(workload);
        let deed = scene.deed(true, &[part]);
        scene.tell(&deed, |scene| {
            let connection = scene.connect();
            connection.execute_batch("BEGIN IMMEDIATE").unwrap();
            // And then the COMMIT fails, or the process ends.
            scene.run(&deed, &connection)
        });
        must_find(scene, Class::LostWrite);
    }
}

#[test]
fn a_library_that_repeats_a_write_of_unknown_outcome_is_found_out() {
    for (workload, part) in [(Workload::Counter, ADD), (Workload::ListAppend, APPEND)] {
        let mut scene = Scene::new(workload);
        let deed = scene.deed(true, &[part]);
        scene.tell(&deed, |scene| {
            let connection = scene.connect();
            scene.run(&deed, &connection);
            scene.run(&deed, &connection)
        });
        must_find(scene, Class::AppliedTwice);
    }
}

#[test]
fn a_library_that_delivers_the_value_of_an_undone_run_is_found_out() {
    let mut scene = Scene::new(Workload::Counter);
    let deed = scene.deed(true, &[ADD]);
    scene.tell(&deed, |scene| {
        let connection = scene.connect();
        connection.execute_batch("BEGIN IMMEDIATE").unwrap();
        let undone = scene.run(&deed, &connection);
        connection.execute_batch("ROLLBACK").unwrap();
        scene.honest(true, &[ADD]);
        scene.run(&deed, &connection);
        undone
    });
    must_find(scene, Class::WrongAnswer);
}

#[test]
fn a_library_that_says_failed_of_what_it_committed_is_found_out() {
    let mut scene = Scene::new(Workload::Counter);
    scene.honest(true, &[ADD]);
    let last = scene.history.transactions.last_mut().unwrap();
    last.outcome = Outcome::NotCommitted;
    must_find(scene, Class::Resurrected);
}

#[test]
fn a_library_that_reads_in_a_snapshot_it_forgot_to_end_is_found_out() {
    for (workload, write, read, class) in [
        (Workload::Counter, ADD, LOOK(), Class::StaleRead),
        (
            Workload::ListAppend,
            APPEND,
            Part::List(0),
            Class::GSingleRealTime,
        ),
    ] {
        let mut scene = Scene::new(workload);
        let reader = scene.connect();
        reader.execute_batch("BEGIN").unwrap();
        reader
            .query_row("SELECT count(*) FROM onepen_stress_list", (), |_| Ok(()))
            .unwrap();
        scene.honest(true, &[write]);
        let deed = scene.deed(false, &[read]);
        scene.tell(&deed, |scene| scene.run(&deed, &reader));
        drop(reader);
        must_find(scene, class);
    }
}

#[test]
fn a_library_that_writes_what_it_computed_before_its_turn_is_found_out() {
    let mut scene = Scene::new(Workload::Counter);
    let deed = scene.deed(true, &[ADD]);
    scene.tell(&deed, |scene| {
        let connection = scene.connect();
        // Computed in a transaction of its own …
        connection.execute_batch("BEGIN IMMEDIATE").unwrap();
        let stale = scene.run(&deed, &connection);
        connection.execute_batch("ROLLBACK").unwrap();
        scene.honest(true, &[ADD]);
        // … and written when its turn came.
        let mut done = stale;
        done.serial = Some(2);
        connection
            .execute_batch(&format!(
                "UPDATE onepen_stress_register SET value = 3 WHERE key = 0;
                 UPDATE onepen_stress_clock SET n = 2;
                 INSERT INTO onepen_stress_ledger VALUES (2, {}, 'r0=0 w0=3')",
                deed.id
            ))
            .unwrap();
        done
    });
    must_find(scene, Class::LostUpdate);
}

#[test]
fn a_library_that_commits_statement_by_statement_is_found_out() {
    // The reader looks between the two statements of a transfer.
    let mut scene = Scene::new(Workload::Bank);
    let halves = [Part::Add { key: 0, by: -9 }, Part::Add { key: 1, by: 9 }];
    let first = scene.deed(true, &halves[..1]);
    let connection = scene.connect();
    let mut done = None;
    scene.tell(&first.clone(), |scene| {
        // Half of it, under the same number as the other half.
        let part = scene.run(&first, &connection);
        scene.honest(false, &[Part::Look(vec![0, 1])]);
        connection
            .execute_batch(&format!(
                "UPDATE onepen_stress_register SET value = value + 9 WHERE key = 1;
                 UPDATE onepen_stress_ledger SET steps = steps || ' r1=100 w1=109' WHERE id = {}",
                first.id
            ))
            .unwrap();
        let mut whole = part;
        whole.notes.ops.extend([
            onepen_check::Op::Read {
                key: 1,
                value: Some(100),
            },
            onepen_check::Op::Write { key: 1, value: 109 },
        ]);
        done = whole.serial;
        whole
    });
    assert_eq!(done, Some(1));
    must_find(scene, Class::ReadSkew);
}

#[test]
fn a_library_that_lets_an_aborted_write_go_on_by_itself_is_found_out() {
    let mut scene = Scene::new(Workload::GroupAbort);
    let connection = scene.connect();
    connection.execute_batch("BEGIN IMMEDIATE").unwrap();
    let _ = connection.execute(
        "INSERT OR ROLLBACK INTO onepen_stress_unique VALUES (1)",
        (),
    );
    assert!(connection.is_autocommit());
    // The rest of the closure, each statement a transaction of its own.
    connection
        .execute(
            "UPDATE onepen_stress_register SET value = 5 WHERE key = 0",
            (),
        )
        .unwrap();
    scene.honest(false, &[LOOK()]);
    let report = scene.report();
    assert!(report.of(Class::GarbageRead).is_some(), "{report:?}");
    assert!(report.of(Class::EndState).is_some(), "{report:?}");
}
