//! A pool of connections as most programs have it: r2d2 with its defaults.
//! The manager is ours, because r2d2_sqlite pins another rusqlite; it does
//! what that one does.

use rusqlite::Connection;

use super::sqlite::{BUSY_TIMEOUT, Begin, connect, run_part};
use super::{Client, Opened, Setup, Way};
use crate::bench::sql::Fault;
use crate::bench::workloads::{Job, Variables};

struct Manager(Setup);

impl r2d2::ManageConnection for Manager {
    type Connection = Connection;
    type Error = Fault;

    fn connect(&self) -> Result<Connection, Fault> {
        connect(&self.0, BUSY_TIMEOUT)
    }

    fn is_valid(&self, connection: &mut Connection) -> Result<(), Fault> {
        Ok(connection.execute_batch("")?)
    }

    fn has_broken(&self, _connection: &mut Connection) -> bool {
        false
    }
}

/// Fills the pool.
pub fn open(setup: &Setup) -> Result<Opened, Fault> {
    Ok(Opened::Threads(Box::new(Pool(r2d2::Pool::new(Manager(
        setup.clone(),
    ))?))))
}

struct Pool(r2d2::Pool<Manager>);

impl Way for Pool {
    fn client(&self) -> Result<Box<dyn Client + '_>, Fault> {
        Ok(Box::new(Borrower(&self.0)))
    }
}

struct Borrower<'way>(&'way r2d2::Pool<Manager>);

impl Client for Borrower<'_> {
    fn run(&mut self, job: &Job) -> Result<(), Fault> {
        let mut variables = Variables::new();
        for part in 0..job.work().parts() {
            let connection = self.0.get()?;
            variables = run_part(&connection, Begin::Immediate, job, part, &variables)?;
        }
        Ok(())
    }
}
