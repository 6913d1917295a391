//! This process's place in the queue between processes, as the pen sees it.
//!
//! One place for each database that is open for writing: the pen decides which
//! thread is next in this process, [the gate](onepen_lock::gate) which process.
//! Without a place (another operating system, no permission for the side file)
//! everything works as before, and SQLite's lock decides alone.

use std::path::Path;
use std::sync::{OnceLock, Weak};

use onepen_lock::gate::{Gate, NotJoined, Seat, Stand, Waited};
use onepen_lock::holders::Process;

use crate::engine::{GiveUp, Patience};
use crate::error::Holder;
use crate::pen::turn::{Alone, Done, WriteLock};
use crate::sync::Arc;
use crate::trace::event;

/// Who else waits to write in this process.
pub(crate) trait Queue: Send + Sync {
    fn how_many(&self) -> usize;
}

/// The write lock of a file that other processes may open.
pub(crate) struct AtGate {
    gate: Gate,
    seat: Seat,
}

impl AtGate {
    /// Takes a place at the gate of the database at `path`.
    pub(crate) fn join(path: &Path, name: &str) -> Result<Self, NotJoined> {
        let gate = Gate::join(path, name)?;
        let seat = gate.seat();
        Ok(Self { gate, seat })
    }
}

impl WriteLock for AtGate {
    fn take_now(&self, label: Option<&str>) -> bool {
        let taken = self.seat.try_take(label);
        if taken {
            self.seat.leave_a_gap();
        }
        taken
    }

    fn take(&self, patience: &dyn Patience, label: Option<&str>) -> Result<(), GiveUp> {
        let given_up = || patience.exhausted().is_some();
        match self.seat.take(label, patience.deadline(), &given_up) {
            Waited::Turn => Ok(()),
            Waited::TimedOut => Err(GiveUp::Deadline),
            Waited::GaveUp => Err(patience.exhausted().unwrap_or(GiveUp::Cancelled)),
        }
    }

    fn pass_on(&self, done: Done, more: &mut dyn FnMut() -> bool) {
        self.seat.pass_on(done.commits, done.writes, more);
    }

    fn should_end(&self) -> bool {
        self.seat.should_end()
    }

    fn others_are_waiting(&self) -> usize {
        self.seat.others_are_waiting() as usize
    }

    fn met_a_stranger(&self) {
        self.seat.met_a_stranger();
    }

    fn holder(&self) -> (Option<Holder>, Option<usize>) {
        let first = self.gate.look().members.into_iter().next();
        let holder = first.and_then(|first| {
            let Stand::Turn {
                since,
                thread,
                purpose,
                ..
            } = first.stand
            else {
                return None;
            };
            let process = Process::look(first.pid).ok();
            let process = process.filter(|process| process.started == first.started);
            Some(Holder {
                pid: Some(first.pid),
                activity: process.as_ref().map(|process| process.activity),
                command: process
                    .filter(|process| !process.command.is_empty())
                    .map(|process| process.command.into()),
                thread: (thread != 0).then(|| format!("thread {thread}").into()),
                label: purpose.map(Into::into),
                since: Some(since),
                ..Holder::default()
            })
        });
        (holder, self.seat.position())
    }
}

/// What stands before the pen of one database.
pub(crate) struct Others {
    pub(crate) write_lock: Arc<dyn WriteLock>,
    /// Why there is no place in the queue between processes.
    pub(crate) alone_because: Option<Arc<str>>,
    here: OnceLock<Weak<dyn Queue>>,
    /// Where members leave notes for each other.
    pub(crate) notes: Option<Gate>,
}

impl Others {
    /// Nobody is before the pen.
    pub(crate) fn none(because: impl Into<Arc<str>>) -> Self {
        Self {
            write_lock: Arc::new(Alone),
            alone_because: Some(because.into()),
            here: OnceLock::new(),
            notes: None,
        }
    }

    /// Those at the gate of the database at `path`.
    pub(crate) fn at_gate(path: &Path, name: &str) -> Self {
        match AtGate::join(path, name) {
            Ok(at_gate) => Self {
                notes: Some(at_gate.gate.clone()),
                write_lock: Arc::new(at_gate),
                alone_because: None,
                here: OnceLock::new(),
            },
            Err(why) => {
                let why = why.to_string();
                event!(WARN, "no place at the gate", database = name, why = &*why);
                Self::none(why)
            }
        }
    }

    /// Who waits for this process's pen from here on.
    pub(crate) fn and_here(&self, queue: Weak<dyn Queue>) {
        let _ = self.here.set(queue);
    }

    /// How many writes of this process wait, and how many other processes.
    pub(crate) fn how_many(&self) -> usize {
        let here = self.here.get().and_then(Weak::upgrade);
        here.map_or(0, |here| here.how_many()) + self.write_lock.others_are_waiting()
    }

    /// The turn, outside of the pen: while a new database is given its journal and
    /// its schema. `None` when it did not come in time.
    pub(crate) fn turn(&self, patience: &dyn Patience) -> Option<Opening<'_>> {
        let lock = &*self.write_lock;
        (lock.take_now(None) || lock.take(patience, None).is_ok()).then_some(Opening(lock))
    }
}

/// The turn of who makes a database.
pub(crate) struct Opening<'a>(&'a dyn WriteLock);

impl Drop for Opening<'_> {
    fn drop(&mut self) {
        self.0.pass_on(Done::default(), &mut || false);
    }
}
