//! The library onepen, from threads and from async tasks.
//!
//! A job's parts are closures that may be run again; a single insert takes the
//! statement-level call, as a program would. The tasks run on one thread of a
//! tokio runtime: what is measured is the pen, not an executor.

use std::sync::Arc;

use ::onepen::{Database, Error, ErrorKind, ReadTx, WriteTx};
use rusqlite::{Statement, params_from_iter};

use super::{Client, Durability, Opened, Setup, Way};
use crate::bench::sql::{Fault, Session, Sql, Value};
use crate::bench::workloads::{Job, Variables};

fn database(setup: &Setup) -> Result<Database, Fault> {
    let durability = match setup.durability {
        Durability::Full => ::onepen::Durability::Full,
        Durability::Normal => ::onepen::Durability::Normal,
    };
    Ok(::onepen::Options::new()
        .durability(durability)
        .open(&setup.path)?)
}

/// Blocking threads.
pub fn threads(setup: &Setup) -> Result<Opened, Fault> {
    Ok(Opened::Threads(Box::new(Onepen(database(setup)?))))
}

/// Tasks.
pub fn tasks(setup: &Setup) -> Result<Opened, Fault> {
    Ok(Opened::Tasks(Arc::new(Onepen(database(setup)?))))
}

/// An open database.
pub struct Onepen(Database);

impl Way for Onepen {
    fn client(&self) -> Result<Box<dyn Client + '_>, Fault> {
        Ok(Box::new(Caller(&self.0)))
    }
}

struct Caller<'way>(&'way Database);

impl Client for Caller<'_> {
    fn run(&mut self, job: &Job) -> Result<(), Fault> {
        if let Some((sql, params)) = job.statement() {
            self.0.execute(sql, params).map_err(fault)?;
            return Ok(());
        }
        let mut variables = Variables::new();
        for part in 0..job.work().parts() {
            variables = if job.work().part(part).writes() {
                self.0
                    .write(|tx| {
                        let session = &mut Writing(tx);
                        job.work().run(part, &variables, session).map_err(error)
                    })
                    .map_err(fault)?
            } else {
                self.0
                    .read(|tx| {
                        let session = &mut Reading(tx);
                        job.work().run(part, &variables, session).map_err(error)
                    })
                    .map_err(fault)?
            };
        }
        Ok(())
    }
}

impl Onepen {
    /// Runs one transaction from a task.
    pub async fn run(&self, job: &Job) -> Result<(), Fault> {
        if let Some((sql, params)) = job.statement() {
            self.0.execute_async(sql, params).await.map_err(fault)?;
            return Ok(());
        }
        let mut variables = Variables::new();
        for part in 0..job.work().parts() {
            variables = if job.work().part(part).writes() {
                let job = job.clone();
                self.0
                    .write_async(move |tx| {
                        let session = &mut Writing(tx);
                        job.work().run(part, &variables, session).map_err(error)
                    })
                    .await
                    .map_err(fault)?
            } else {
                let job = job.clone();
                self.0
                    .read_async(move |tx| {
                        let session = &mut Reading(tx);
                        job.work().run(part, &variables, session).map_err(error)
                    })
                    .await
                    .map_err(fault)?
            };
        }
        Ok(())
    }
}

/// What a closure returns: the library's own errors as they are.
pub fn error(fault: Fault) -> Error {
    match fault {
        Fault::Onepen(error) => error,
        other => Error::other(other),
    }
}

/// What the closure returned, out of the library again.
pub fn fault(error: Error) -> Fault {
    if error.kind() != ErrorKind::Other {
        return Fault::Onepen(error);
    }
    match error.into_other() {
        Err(error) => Fault::Onepen(error),
        Ok(other) => match other.downcast::<Fault>() {
            Ok(fault) => *fault,
            Err(other) => Fault::Workload(other.to_string()),
        },
    }
}

/// Statements in a write closure.
pub struct Writing<'a, 'tx>(pub &'a WriteTx<'tx>);

impl Session for Writing<'_, '_> {
    fn execute(&mut self, sql: &Sql, params: &[Value]) -> Result<usize, Fault> {
        Ok(self.0.execute(&sql.sqlite, params_from_iter(params))?)
    }

    fn first(&mut self, sql: &Sql, params: &[Value], row: &mut [Value]) -> Result<bool, Fault> {
        first(&mut *self.0.prepare(&sql.sqlite)?, params, row)
    }
}

/// Statements in a read closure.
pub struct Reading<'a>(pub &'a ReadTx);

impl Session for Reading<'_> {
    fn execute(&mut self, sql: &Sql, params: &[Value]) -> Result<usize, Fault> {
        // Only a statement without rows that does not write comes here.
        Ok(self
            .0
            .prepare(&sql.sqlite)?
            .execute(params_from_iter(params))?)
    }

    fn first(&mut self, sql: &Sql, params: &[Value], row: &mut [Value]) -> Result<bool, Fault> {
        first(&mut *self.0.prepare(&sql.sqlite)?, params, row)
    }
}

fn first(
    statement: &mut Statement<'_>,
    params: &[Value],
    row: &mut [Value],
) -> Result<bool, Fault> {
    let mut rows = statement.query(params_from_iter(params))?;
    let mut found = false;
    while let Some(next) = rows.next()? {
        if !found {
            for (column, place) in row.iter_mut().enumerate() {
                *place = next.get(column)?;
            }
            found = true;
        }
    }
    Ok(found)
}
