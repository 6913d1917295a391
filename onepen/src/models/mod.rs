//! The pen under a magnifying glass: the same code as in a program, over a
//! fake engine, run through schedules that a real machine shows once a year.
//!
//! A scenario is a plain function. [`explore`] runs it
//!
//! * over std's threads, a few times (`cargo test`);
//! * over [loom](https://docs.rs/loom) with `--cfg onepen_loom`: every
//!   interleaving with at most so many preemptions, weak memory included;
//! * over [shuttle](https://docs.rs/shuttle) with `--cfg onepen_shuttle`:
//!   thousands of random and of adversarial (PCT) schedules, of more threads
//!   than loom can count.
//!
//! `cargo xtask models` runs the last two. Each scenario is also shown to fail
//! when the bug it is for is planted in the pen (`cargo xtask models --planted`):
//! a check that was never red is no evidence.
//!
//! | file | subject |
//! |---|---|
//! | [`fake`] | the engine, its faults, and the timer that is fired by hand |
//! | [`explore`] | one scenario, three machines |
//! | `handover` | two or three threads: small enough for loom |
//! | `crowd` | more threads, panics, priorities, dropped futures |
//! | `groups` | what a group makes of a failing member or COMMIT; no threads at all |
//! | `queued` | who waits for a queued write, and what a cancelled one leaves behind; no threads either |
//! | `bounds` | how large a group becomes, how often its members run, who is told what |
//! | `kept` | what the queue keeps, and who wakes those in it |
//! | `line` | who is next, for everything that is given out by turns |
//! | `pool` | connections of SQLite's own, given out by that line |
//! | `turns` | the pen and those who write by a permit |
//! | `slots` | who may use which reader connection, and who is next |
//! | `real` | the pen with SQLite itself inside the model |

#[cfg(not(any(onepen_loom, onepen_shuttle)))]
mod bounds;
mod explore;
mod fake;

#[cfg(not(onepen_loom))]
mod crowd;
#[cfg(not(any(onepen_loom, onepen_shuttle)))]
mod groups;
mod handover;
#[cfg(not(any(onepen_loom, onepen_shuttle)))]
mod kept;
mod line;
#[cfg(not(onepen_loom))]
mod pool;
#[cfg(not(any(onepen_loom, onepen_shuttle)))]
mod queued;
#[cfg(not(onepen_loom))]
mod real;
mod slots;
mod turns;

use std::time::{Duration, Instant};

use self::fake::{FakeEngine, World};
use crate::error::Result;
use crate::pen::job::{Answer, Job, Kind, Ticket};
use crate::pen::queue::Queued;
use crate::pen::{Limits, Pen};
use crate::sync::{Arc, thread};

/// Longer than any test runs: what is due after it is due when a test says so.
const LONG: Duration = Duration::from_secs(3600);

/// Bounds that no scenario meets unless it sets them: a model must not depend
/// on how fast the machine is.
fn limits() -> Limits {
    Limits {
        group_time: LONG,
        ..Limits::default()
    }
}

/// A pen over a fake engine, with its writer thread.
struct Rig {
    world: Arc<World>,
    pen: Arc<Pen<FakeEngine>>,
    timer: Arc<fake::HandTimer>,
}

type Writer = thread::JoinHandle<()>;

impl Rig {
    fn new(limits: Limits) -> Self {
        let world = World::new();
        let timer = Arc::new(fake::HandTimer::default());
        let pen = Pen::new(
            FakeEngine::new(Arc::clone(&world)),
            limits,
            Arc::clone(&timer) as _,
            Arc::new(fake::FakeWriteLock(Arc::clone(&world))),
        );
        Self { world, pen, timer }
    }

    fn start_writer(&self) -> Writer {
        let pen = Arc::clone(&self.pen);
        thread::spawn(move || pen.serve())
    }

    /// Closes the pen, waits for its writer, and looks whether all is in order:
    /// nobody waits, no transaction is open, and the engine kept its protocol.
    fn finish(self, writer: Writer) {
        self.pen.close();
        writer.join().expect("the writer thread panicked");
        self.look();
    }

    /// Runs the writer on this thread until everybody has an answer. For
    /// scenarios whose subject is not the hand-over.
    fn serve_here(&self) {
        self.pen.close();
        self.pen.serve();
    }

    fn look(self) {
        assert_eq!(self.pen.queue_len(), 0, "somebody was left in the queue");
        let engine = crate::sync::lock(&self.pen.state)
            .engine
            .take()
            .expect("the pen was not given back at the end");
        self.world.check(&engine);
    }

    /// Writes `row` the blocking way, and insists on durable acknowledgement.
    fn write(&self, row: u32) -> Result<u32> {
        write(&self.pen, &self.world, &Ticket::default(), row)
    }

    /// Queues a write of `row` without waiting for it.
    fn queue(&self, row: u32) -> Handle<u32> {
        self.queue_with(&Ticket::default(), Kind::Grouped, move |engine| {
            engine.insert(row)?;
            Ok(row)
        })
    }

    fn queue_with<T, C>(&self, ticket: &Ticket, kind: Kind, call: C) -> Handle<T>
    where
        T: Send + 'static,
        C: FnMut(&mut FakeEngine) -> Result<T> + Send + 'static,
    {
        let job = Arc::new(Job::new(ticket, kind, Instant::now(), call));
        let member: Queued<FakeEngine> = Arc::clone(&job) as _;
        let refused = self.pen.enqueue(ticket, &member).err();
        Handle {
            member,
            answer: job as _,
            refused: refused.into(),
        }
    }
}

fn write(pen: &Arc<Pen<FakeEngine>>, world: &Arc<World>, ticket: &Ticket, row: u32) -> Result<u32> {
    let answer = pen.write(ticket, Kind::Grouped, |engine| {
        engine.insert(row)?;
        Ok(row)
    });
    settle(world, row, &answer);
    answer
}

/// A panic that is part of the scenario: without the hook, which prints, and
/// which shuttle takes for a failure.
fn panic_quietly(payload: &'static str) -> ! {
    std::panic::resume_unwind(Box::new(payload))
}

/// What must hold between an answer and the database at the moment the answer
/// is known: Ok means committed, and an error that says so means it never is.
fn settle<T>(world: &World, row: u32, answer: &Result<T>) {
    match answer {
        Ok(_) => assert!(
            world.has_committed(row),
            "row {row} was acknowledged before it was committed"
        ),
        Err(error) if error.outcome() == crate::Outcome::NotCommitted => world.deny(row),
        Err(_) => {}
    }
}

/// A write that was queued: what a task has, without the task.
struct Handle<T> {
    member: Queued<FakeEngine>,
    answer: std::sync::Arc<dyn Answer<T>>,
    refused: std::cell::RefCell<Option<crate::Error>>,
}

impl<T> Handle<T> {
    /// The answer, which must be there; once.
    fn answer(&self) -> Result<T> {
        if let Some(refused) = self.refused.take() {
            return Err(refused);
        }
        crate::pen::job::unwrap_ran(self.answer.take().expect("a job without an answer"))
    }
}
