//! No contender, but what all of them could at best reach: one thread that
//! runs everything in a single transaction. Nothing of it is durable before
//! the end, so no program can work like this; the other figures divided by
//! this one say what durability and sharing cost.

use rusqlite::Connection;

use super::sqlite::{BUSY_TIMEOUT, connect, statements};
use super::{Client, Opened, Setup, Way};
use crate::bench::sql::Fault;
use crate::bench::workloads::{Job, Variables};

/// Opens it.
pub fn open(setup: &Setup) -> Result<Opened, Fault> {
    Ok(Opened::OneThread(Box::new(OneTransaction(setup.clone()))))
}

struct OneTransaction(Setup);

impl Way for OneTransaction {
    fn client(&self) -> Result<Box<dyn Client + '_>, Fault> {
        Ok(Box::new(Endless(connect(&self.0, BUSY_TIMEOUT)?)))
    }
}

struct Endless(Connection);

impl Client for Endless {
    fn run(&mut self, job: &Job) -> Result<(), Fault> {
        let mut variables = Variables::new();
        for part in 0..job.work().parts() {
            // Readers beside it must not hold a snapshot for ever.
            if job.work().part(part).writes() && self.0.is_autocommit() {
                self.0.execute_batch("BEGIN IMMEDIATE")?;
            }
            variables = statements(&self.0, job, part, &variables)?;
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<(), Fault> {
        if !self.0.is_autocommit() {
            self.0.execute_batch("COMMIT")?;
        }
        Ok(())
    }
}
