//! What all ways over plain SQLite share: opening a connection, running a
//! transaction on it.
//!
//! Guarantee: when [`run_part`] has returned, no transaction is open.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, params_from_iter};

use super::{Durability, Journal, Setup};
use crate::bench::sql::{Fault, Session, Sql, Value};
use crate::bench::workloads::{Job, Part, Variables};

/// The timeout everybody's example has.
pub const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// How a writing transaction begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begin {
    /// `BEGIN`: the write lock is asked for at the first write.
    Deferred,
    /// `BEGIN IMMEDIATE`: it is asked for at once.
    Immediate,
}

/// A connection to a database that exists.
pub fn open(path: &Path, durability: Durability, timeout: Duration) -> Result<Connection, Fault> {
    let connection = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    // Opening is not what is measured: the first in a WAL database recovers it
    // while the others must wait.
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.set_prepared_statement_cache_capacity(64);
    connection.execute_batch(match durability {
        Durability::Full => "PRAGMA synchronous = FULL",
        Durability::Normal => "PRAGMA synchronous = NORMAL",
    })?;
    // As onepen has them: the ways are not to differ in this.
    connection.execute_batch("PRAGMA foreign_keys = ON; PRAGMA cache_size = -8192")?;
    connection.busy_timeout(timeout)?;
    Ok(connection)
}

/// A connection as the setup says.
pub fn connect(setup: &Setup, timeout: Duration) -> Result<Connection, Fault> {
    open(&setup.path, setup.durability, timeout)
}

/// Prepares the file: nobody else has it open.
pub fn set_journal(path: &Path, journal: Journal) -> Result<(), Fault> {
    let mode = match journal {
        Journal::Rollback => "DELETE",
        Journal::Wal => "WAL",
        Journal::AsItIs | Journal::Server => return Ok(()),
    };
    let connection = open(path, Durability::Full, BUSY_TIMEOUT)?;
    let set: String =
        connection.pragma_update_and_check(None, "journal_mode", mode, |row| row.get(0))?;
    if set.eq_ignore_ascii_case(mode) {
        Ok(())
    } else {
        Err(Fault::Workload(format!(
            "SQLite could not switch the scratch database to the journal {mode}, it stayed with {set}: \
             choose another directory with --dir"
        )))
    }
}

/// Runs all parts of a job on one connection.
pub fn run(connection: &Connection, begin: Begin, job: &Job) -> Result<(), Fault> {
    let mut variables = Variables::new();
    for part in 0..job.work().parts() {
        variables = run_part(connection, begin, job, part, &variables)?;
    }
    Ok(())
}

/// Runs one part as one transaction.
pub fn run_part(
    connection: &Connection,
    begin: Begin,
    job: &Job,
    part: usize,
    variables: &Variables,
) -> Result<Variables, Fault> {
    let kind = job.work().part(part);
    if kind.is_single() {
        return statements(connection, job, part, variables);
    }
    let begin = match (kind, begin) {
        (Part::Write, Begin::Immediate) => "BEGIN IMMEDIATE",
        _ => "BEGIN",
    };
    run_cached(connection, begin)?;
    let answer = statements(connection, job, part, variables)
        .and_then(|answer| run_cached(connection, "COMMIT").map(|()| answer));
    if answer.is_err() && !connection.is_autocommit() {
        run_cached(connection, "ROLLBACK")?;
    }
    answer
}

/// The statements of a part, without what is around them.
pub fn statements(
    connection: &Connection,
    job: &Job,
    part: usize,
    variables: &Variables,
) -> Result<Variables, Fault> {
    // The same shortcut that onepen has a call for, or the comparison would
    // charge the others for our boxes of values.
    if let Some((sql, params)) = job.statement() {
        connection.prepare_cached(sql)?.execute(params)?;
        return Ok(Variables::new());
    }
    job.work()
        .run(part, variables, &mut OnConnection(connection))
}

fn run_cached(connection: &Connection, sql: &str) -> Result<(), Fault> {
    connection.prepare_cached(sql)?.execute(())?;
    Ok(())
}

/// Statements on a plain connection.
pub struct OnConnection<'connection>(pub &'connection Connection);

impl Session for OnConnection<'_> {
    fn execute(&mut self, sql: &Sql, params: &[Value]) -> Result<usize, Fault> {
        Ok(self
            .0
            .prepare_cached(&sql.sqlite)?
            .execute(params_from_iter(params))?)
    }

    fn first(&mut self, sql: &Sql, params: &[Value], row: &mut [Value]) -> Result<bool, Fault> {
        let mut statement = self.0.prepare_cached(&sql.sqlite)?;
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
}
