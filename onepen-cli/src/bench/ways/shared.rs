//! The two ways with a mutex: around the one connection, and around the act
//! of writing. A mutex knows nothing of other processes; for them both fall
//! back on the busy timeout.

use std::sync::{Mutex, PoisonError};

use rusqlite::Connection;

use super::sqlite::{BUSY_TIMEOUT, Begin, connect, run_part};
use super::{Client, Opened, Setup, Way};
use crate::bench::sql::Fault;
use crate::bench::workloads::{Job, Variables};

/// One connection for all.
pub fn mutex(setup: &Setup) -> Result<Opened, Fault> {
    Ok(Opened::Threads(Box::new(OneConnection(Mutex::new(
        connect(setup, BUSY_TIMEOUT)?,
    )))))
}

struct OneConnection(Mutex<Connection>);

impl Way for OneConnection {
    fn client(&self) -> Result<Box<dyn Client + '_>, Fault> {
        Ok(Box::new(Borrower(&self.0)))
    }
}

struct Borrower<'way>(&'way Mutex<Connection>);

impl Client for Borrower<'_> {
    fn run(&mut self, job: &Job) -> Result<(), Fault> {
        let mut variables = Variables::new();
        for part in 0..job.work().parts() {
            // A panic of another client left no transaction open that we could
            // continue by mistake: the next BEGIN would fail.
            let connection = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            variables = run_part(&connection, Begin::Immediate, job, part, &variables)?;
        }
        Ok(())
    }
}

/// A connection each, one writer at a time.
pub fn own_and_mutex(setup: &Setup) -> Result<Opened, Fault> {
    Ok(Opened::Threads(Box::new(OneWriter {
        setup: setup.clone(),
        turn: Mutex::new(()),
    })))
}

struct OneWriter {
    setup: Setup,
    turn: Mutex<()>,
}

impl Way for OneWriter {
    fn client(&self) -> Result<Box<dyn Client + '_>, Fault> {
        Ok(Box::new(TurnTaker {
            connection: connect(&self.setup, BUSY_TIMEOUT)?,
            turn: &self.turn,
        }))
    }
}

struct TurnTaker<'way> {
    connection: Connection,
    turn: &'way Mutex<()>,
}

impl Client for TurnTaker<'_> {
    fn run(&mut self, job: &Job) -> Result<(), Fault> {
        let mut variables = Variables::new();
        for part in 0..job.work().parts() {
            let _turn = job
                .work()
                .part(part)
                .writes()
                .then(|| self.turn.lock().unwrap_or_else(PoisonError::into_inner));
            variables = run_part(&self.connection, Begin::Immediate, job, part, &variables)?;
        }
        Ok(())
    }
}
