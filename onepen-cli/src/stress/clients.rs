//! Who does the deeds: threads and tasks of the library, and strangers with a
//! connection of their own.
//!
//! Guarantee: what is written down as the answer is what the library returned,
//! nothing that a closure left behind on the way.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use ::onepen::{Call, Database, ErrorKind, Outcome as Said};
use onepen_check::Outcome;
use rusqlite::Connection;

use super::deeds::{Deed, Done, How, Judged, OnPurpose};
use crate::bench::sql::Fault;
use crate::bench::ways::onepen::{Reading, Writing, error, fault};
use crate::bench::ways::{self, Durability, OnConnection};

/// How a deed ended.
pub struct Ended {
    /// What its client was told.
    pub outcome: Outcome,
    /// What it did, if it did.
    pub done: Option<Done>,
    /// The class of its error.
    pub class: Option<String>,
    /// It is a violation by itself: told to nobody but by a library that is wrong.
    pub violation: Option<String>,
}

impl Ended {
    fn of(deed: &Deed, answer: Result<Done, Fault>) -> Self {
        let fault = match answer {
            Ok(done) => {
                return Self {
                    outcome: Outcome::Committed,
                    done: Some(done),
                    class: None,
                    violation: None,
                };
            }
            Err(fault) => fault,
        };
        let outcome = if deed.writes && fault.is_unknown() {
            Outcome::Unknown
        } else {
            Outcome::NotCommitted
        };
        let violation = match &fault {
            Fault::Torn(what) => Some(what.clone()),
            Fault::Onepen(error) if may_never_be_said(error) => {
                Some(format!("a caller of the library was told {error}"))
            }
            _ => None,
        };
        Self {
            outcome,
            done: None,
            class: Some(match &fault {
                Fault::Workload(_) => "on purpose".to_owned(),
                fault => fault.class(),
            }),
            violation,
        }
    }
}

/// "Database is locked" in any of its forms, and "the schema has changed", are
/// the library's to deal with; what it says instead is that a deadline passed.
fn may_never_be_said(error: &::onepen::Error) -> bool {
    use rusqlite::ffi;
    let primary = error.sqlite_code().map(|code| code & 0xff);
    error.kind() == ErrorKind::Sqlite
        && matches!(
            primary,
            Some(ffi::SQLITE_BUSY | ffi::SQLITE_LOCKED | ffi::SQLITE_PROTOCOL | ffi::SQLITE_SCHEMA)
        )
        || error.outcome() == Said::Committed
}

fn call<'a>(database: &'a Database, deed: &Deed) -> Call<'a> {
    match deed.deadline {
        Some(deadline) => database.with().deadline(deadline),
        None => database.with(),
    }
}

/// A deed of a thread.
pub fn by_thread(database: &Database, deed: &Deed, judged: Judged) -> Ended {
    let write = |tx: &::onepen::WriteTx<'_>| deed.run(judged, &mut Writing(tx)).map_err(error);
    let answer = catch_unwind(AssertUnwindSafe(|| {
        let call = call(database, deed);
        if deed.writes {
            match deed.how {
                How::Plain | How::Snapshot => call.write(write),
                How::Once => call.write_once(write),
                How::Submit => {
                    let deed = deed.clone();
                    call.submit(move |tx| deed.run(judged, &mut Writing(tx)).map_err(error))?
                        .wait()
                }
            }
        } else if deed.how == How::Snapshot {
            let snapshot = call.snapshot()?;
            deed.run(judged, &mut Reading(&snapshot)).map_err(error)
        } else {
            call.read(|tx| deed.run(judged, &mut Reading(tx)).map_err(error))
        }
    }));
    match answer {
        Ok(answer) => Ended::of(deed, answer.map_err(fault)),
        Err(payload) if payload.is::<OnPurpose>() => {
            Ended::of(deed, Err(Fault::Workload("on purpose".to_owned())))
        }
        Err(payload) => std::panic::resume_unwind(payload),
    }
}

/// A deed of a task.
pub async fn by_task(database: &Database, deed: &Deed, judged: Judged) -> Option<Ended> {
    let call = call(database, deed);
    let its = deed.clone();
    let answer = if deed.writes {
        if deed.dropped {
            // Looked at once, so that it is on its way, and then left alone.
            let write =
                call.write_async(move |tx| its.run(judged, &mut Writing(tx)).map_err(error));
            return match pin!(write).poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(answer) => Some(Ended::of(deed, answer.map_err(fault))),
                Poll::Pending => None,
            };
        }
        match deed.how {
            How::Once => {
                call.write_once_async(move |tx| its.run(judged, &mut Writing(tx)).map_err(error))
                    .await
            }
            How::Submit => {
                let submitted = call
                    .submit_async(move |tx| its.run(judged, &mut Writing(tx)).map_err(error))
                    .await;
                match submitted {
                    Ok(submitted) => submitted.await,
                    Err(error) => Err(error),
                }
            }
            How::Plain | How::Snapshot => {
                call.write_async(move |tx| its.run(judged, &mut Writing(tx)).map_err(error))
                    .await
            }
        }
    } else {
        call.read_async(move |tx| its.run(judged, &mut Reading(tx)).map_err(error))
            .await
    };
    Some(Ended::of(deed, answer.map_err(fault)))
}

/// A plain connection, as a careful program without the library has it.
pub struct Stranger {
    connection: Connection,
    done: u64,
}

/// How often a stranger checkpoints, in the way that gets in everybody's way.
const CHECKPOINT: u64 = 200;

impl Stranger {
    /// Opens it.
    pub fn new(path: &Path, durability: Durability) -> Result<Self, String> {
        let connection = ways::open(path, durability, Duration::from_secs(5));
        Ok(Self {
            connection: connection.map_err(|fault| fault.to_string())?,
            done: 0,
        })
    }

    /// Does a deed.
    pub fn run(&mut self, deed: &Deed, judged: Judged) -> Ended {
        self.done += 1;
        if self.done.is_multiple_of(CHECKPOINT) {
            // It may be busy, and that is nobody's business.
            let _ = self
                .connection
                .query_row("PRAGMA wal_checkpoint(TRUNCATE)", (), |_| Ok(()));
        }
        let connection = &self.connection;
        let answer = catch_unwind(AssertUnwindSafe(|| {
            let begin = if deed.writes {
                "BEGIN IMMEDIATE"
            } else {
                "BEGIN"
            };
            connection.execute_batch(begin)?;
            let done = deed.run(judged, &mut OnConnection(connection))?;
            connection.execute_batch("COMMIT")?;
            Ok(done)
        }));
        if !connection.is_autocommit() {
            // An error here leaves the connection to its next BEGIN, which fails.
            let _ = connection.execute_batch("ROLLBACK");
        }
        Ended::of(
            deed,
            answer.unwrap_or_else(|payload| {
                if payload.is::<OnPurpose>() {
                    Err(Fault::Workload("on purpose".to_owned()))
                } else {
                    std::panic::resume_unwind(payload)
                }
            }),
        )
    }
}
