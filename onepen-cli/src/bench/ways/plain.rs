//! A connection per thread, in the variants the literature names, and the
//! mistake of opening one for every transaction.

use std::time::{Duration, Instant};

use rusqlite::Connection;

use super::sqlite::{BUSY_TIMEOUT, Begin, connect, run, run_part};
use super::{Client, Opened, Setup, Way};
use crate::bench::random::Random;
use crate::bench::sql::Fault;
use crate::bench::workloads::{Job, Variables};

/// What the variants differ in.
pub struct Variant {
    timeout: Duration,
    begin: Begin,
    retry: bool,
}

/// SQLite as it comes.
pub const NAIVE: Variant = Variant {
    timeout: Duration::ZERO,
    begin: Begin::Deferred,
    retry: false,
};

/// With a timeout.
pub const TIMEOUT: Variant = Variant {
    timeout: BUSY_TIMEOUT,
    begin: Begin::Deferred,
    retry: false,
};

/// With a timeout, over WAL.
pub const WAL_TIMEOUT: Variant = TIMEOUT;

/// Asking for the write lock at once, and again and again.
pub const WAL_IMMEDIATE_RETRY: Variant = Variant {
    timeout: Duration::ZERO,
    begin: Begin::Immediate,
    retry: true,
};

const RETRY_AFTER: Duration = Duration::from_millis(1);
const RETRY_FOR: Duration = Duration::from_secs(30);

/// Opens one of them.
pub fn open(setup: &Setup, variant: &'static Variant) -> Result<Opened, Fault> {
    Ok(Opened::Threads(Box::new(Plain {
        setup: setup.clone(),
        variant,
    })))
}

struct Plain {
    setup: Setup,
    variant: &'static Variant,
}

impl Way for Plain {
    fn client(&self) -> Result<Box<dyn Client + '_>, Fault> {
        Ok(Box::new(OwnConnection {
            connection: connect(&self.setup, self.variant.timeout)?,
            variant: self.variant,
            jitter: Random::new(std::ptr::from_ref(self).addr() as u64),
        }))
    }
}

struct OwnConnection {
    connection: Connection,
    variant: &'static Variant,
    jitter: Random,
}

impl Client for OwnConnection {
    fn run(&mut self, job: &Job) -> Result<(), Fault> {
        if !self.variant.retry {
            return run(&self.connection, self.variant.begin, job);
        }
        let mut variables = Variables::new();
        for part in 0..job.work().parts() {
            variables = self.until_it_works(job, part, &variables)?;
        }
        Ok(())
    }
}

impl OwnConnection {
    fn until_it_works(
        &mut self,
        job: &Job,
        part: usize,
        variables: &Variables,
    ) -> Result<Variables, Fault> {
        let began = Instant::now();
        loop {
            match run_part(&self.connection, self.variant.begin, job, part, variables) {
                Err(fault) if fault.is_busy() && began.elapsed() < RETRY_FOR => {
                    // Half to one and a half of it, so that two never meet for ever.
                    std::thread::sleep(RETRY_AFTER.mul_f64(0.5 + self.jitter.unit()));
                }
                answer => return answer,
            }
        }
    }
}

/// Opens a connection for every transaction.
pub fn reopen(setup: &Setup) -> Result<Opened, Fault> {
    Ok(Opened::Threads(Box::new(Reopen(setup.clone()))))
}

struct Reopen(Setup);

impl Way for Reopen {
    fn client(&self) -> Result<Box<dyn Client + '_>, Fault> {
        Ok(Box::new(Reopener(&self.0)))
    }
}

struct Reopener<'way>(&'way Setup);

impl Client for Reopener<'_> {
    fn run(&mut self, job: &Job) -> Result<(), Fault> {
        let connection = connect(self.0, BUSY_TIMEOUT)?;
        run(&connection, Begin::Immediate, job)
    }
}
