//! Writes that share their transaction with nobody: of a caller that found the
//! pen free, and the exclusive ones from the queue.
//!
//! Guarantees: what such a write is told of itself is what it would be told as a
//! member of a group; a closure that may run only once is run once.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use super::bounds::LongWaits;
use super::member::{foreign_keys, lost, member};
use super::{Group, begin, patience_of_all};
use crate::engine::{Engine, GiveUp, Patience, cancelled};
use crate::error::{Error, ErrorKind, Result, Waited, WaitedFor};
use crate::pen::job::{Kind, Ticket};
use crate::pen::queue::Queued;
use crate::pen::turn::{NotTaken, Turn};
use crate::pen::{Held, Pen, gave_up, patience};
use crate::sync::{Arc, Ordering, lock};

impl<E: Engine> Held<'_, E> {
    /// Runs the closure of a caller that found the pen free, on its own thread.
    pub(crate) fn run_alone<T, C>(
        &mut self,
        ticket: &Ticket,
        kind: Kind,
        since: Instant,
        call: &mut C,
    ) -> std::thread::Result<Result<T>>
    where
        C: FnMut(&mut E) -> Result<T>,
    {
        let pen = self.pen;
        let Some(engine) = self.engine.as_deref_mut() else {
            return Ok(Err(Error::new(
                ErrorKind::Closed,
                "the pen was not in hand",
            )));
        };
        let patience = patience(ticket, since);
        // A cancelled token ends even a call that would not have to wait. A
        // deadline does not: it bounds waiting, and there was none.
        if patience.exhausted() == Some(GiveUp::Cancelled) {
            let error = cancelled(Waited::new(WaitedFor::Pen, since.elapsed()));
            return Ok(Err(error.with_label(ticket.label.clone())));
        }
        let mut turn = match Turn::take(pen, &patience, ticket.label.as_deref()) {
            Ok(turn) => turn,
            Err(NotTaken { why, what }) => {
                let mut waited = Waited::new(what, since.elapsed());
                if what == WaitedFor::Turn {
                    (waited.holder, waited.position) = pen.write_lock.holder();
                } else {
                    waited.holder = pen.permit_holder();
                }
                let error = gave_up(why, waited);
                return Ok(Err(error.with_label(ticket.label.clone())));
            }
        };
        let answer = match kind {
            Kind::Exclusive => {
                let mut ran = Ok(Err(never_ran()));
                if let Err(error) = exclusive_begins(pen, engine, &patience) {
                    return Ok(Err(error.with_label(ticket.label.clone())));
                }
                let ended = exclusively(engine, |engine| {
                    ran = catch_unwind(AssertUnwindSafe(|| call(engine)));
                });
                match (ran, ended) {
                    (Ok(Ok(_)), Err(error)) => Ok(Err(error)),
                    (ran, _) => ran,
                }
            }
            Kind::Maintenance => catch_unwind(AssertUnwindSafe(|| call(engine))),
            Kind::Grouped | Kind::Alone => transact(pen, engine, &patience, since, |engine| {
                catch_unwind(AssertUnwindSafe(|| call(engine)))
            }),
        };
        turn.wrote(usize::from(kind != Kind::Maintenance));
        drop(turn);
        pen.tally.turn(1, since.elapsed());
        answer.map(|answer| {
            answer.map_err(|error| error.waited_since(since).with_label(ticket.label.clone()))
        })
    }
}

fn never_ran() -> Error {
    Error::new(
        ErrorKind::Closed,
        "bug in onepen: an exclusive closure did not run",
    )
}

/// One closure in a transaction of its own.
fn transact<E: Engine, T>(
    pen: &Pen<E>,
    engine: &mut E,
    patience: &dyn Patience,
    since: Instant,
    call: impl FnOnce(&mut E) -> std::thread::Result<Result<T>>,
) -> std::thread::Result<Result<T>> {
    if let Err(error) = begin(pen, engine, patience) {
        return Ok(Err(error));
    }
    let ran = member(engine, call);
    match ran {
        Ok(Ok(_)) if engine.is_autocommit() => {
            engine.rollback();
            Ok(Err(lost()))
        }
        // COMMIT would find it too, but the error must not tell whether the
        // write was in a group.
        Ok(Ok(_)) if engine.owes_foreign_keys() => {
            engine.rollback();
            Ok(Err(foreign_keys()))
        }
        Ok(Ok(value)) => match engine.commit(patience) {
            Ok(()) => Ok(Ok(value)),
            Err(failed) => {
                engine.rollback();
                Ok(Err(failed.to_error(since, patience)))
            }
        },
        failed => {
            engine.rollback();
            failed
        }
    }
}

fn exclusive_begins<E: Engine>(
    pen: &Pen<E>,
    engine: &mut E,
    patience: &dyn Patience,
) -> Result<()> {
    pen.at_write_lock.store(true, Ordering::Relaxed);
    let begun = engine.exclusive_begins(patience);
    pen.at_write_lock.store(false, Ordering::Relaxed);
    begun
}

/// After `exclusive_begins`.
fn exclusively<E: Engine>(engine: &mut E, call: impl FnOnce(&mut E)) -> Result<()> {
    call(engine);
    engine.exclusive_ends()
}

pub(super) fn run_exclusive<E: Engine>(
    pen: &Pen<E>,
    engine: &mut E,
    group: &mut Group<E>,
    job: Queued<E>,
) {
    group.members.push(Arc::clone(&job)); // where `abandon` would find it
    lock(&pen.state).holder.label = job.header().label();
    let started = Instant::now();
    let waited = started.saturating_duration_since(job.header().since);
    pen.tally.waited(waited);
    let mut long = LongWaits::default();
    long.add(pen, job.header(), waited);
    long.say(pen);
    if job.header().kind == Kind::Maintenance {
        job.run(engine);
    } else if let Err(error) = exclusive_begins(pen, engine, &patience_of_all([&job])) {
        job.discard();
        job.fail(error);
    } else if let Err(error) = exclusively(engine, |engine| {
        job.run(engine);
    }) && job.answered_ok()
    {
        // What the closure says of itself, an error or a panic, comes first.
        job.fail(error);
    }
    pen.tally.turn(1, started.elapsed());
    group.last_size = usize::from(job.header().kind == Kind::Exclusive);
    group.members.clear();
    group.answer(job);
}
