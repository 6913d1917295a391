//! The pen: the right to be the one writer, and the queue for it.
//!
//! # Algorithm
//!
//! The engine (the write connection) sits in a box inside the pen's state.
//! Whoever takes the box out holds the pen; no other rule is needed, and no
//! thread can use the engine without it.
//!
//! * A blocking caller that finds the box there, and nobody waiting, takes it
//!   and runs its own closure on its own thread: no hand-over, no allocation.
//! * Everybody else becomes a [job](job) at the end of the queue. The **writer
//!   thread** takes the box and runs the queue as *groups*
//!   ([`group`]): everyone who is waiting, committed by one COMMIT,
//!   acknowledged only after it. No timer is involved. A group ends when nobody
//!   waits, or at its bound of members, bytes or time.
//! * After a group of several members the writer thread keeps the box (the pen
//!   is *hot*), because the callers it just woke will be back: were the box free,
//!   the first of them would commit alone while the rest queue. After a few
//!   groups of one the pen cools down and lone callers run on their own thread
//!   again.
//!
//! # Order
//!
//! First come, first served within a [priority](job::Priority). Nobody takes
//! the box while somebody is queued, except the writer thread.
//!
//! # Waiting
//!
//! Every job may carry a deadline and a cancel token. Both take the pen's lock,
//! find the job still queued, and answer it; a job that was claimed runs and
//! gets its true outcome. The queue is bounded: beyond the bound, callers wait
//! in the *lobby* (in order, holding nothing but themselves) or are refused, as
//! they chose.

pub(crate) mod borrowed;
#[cfg_attr(
    any(onepen_loom, onepen_shuttle, not(target_os = "linux")),
    allow(dead_code, reason = "everybody sleeps there")
)]
mod eager;
mod ending;
pub(crate) mod future;
pub(crate) mod group;
mod held;
mod herald;
pub(crate) mod job;
mod lobby;
pub(crate) mod queue;
pub(crate) mod turn;
mod wake;

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use self::ending::{WhileSomebodyWaits, closed};
pub(crate) use self::ending::{gave_up, patience};
use self::held::{Held, Holder};
use self::job::{Kind, Ticket, unwrap_ran};
use self::lobby::InLobby;
use self::queue::Queue;
use self::turn::WriteLock;
use self::wake::Wake;
use crate::engine::{Bystanders, Engine, Witness};
use crate::error::{Error, Result};
use crate::stats::Tally;
use crate::sync::{Arc, AtomicBool, AtomicU8, Mutex, WaitWord, lock};
use crate::timer::{Calls, Timer};

/// What a caller wants when the queue is at its bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum WhenFull {
    /// Wait for space, in order, until the call's deadline.
    #[default]
    Wait,
    /// Fail at once with [`ErrorKind::QueueFull`](crate::ErrorKind::QueueFull).
    Refuse,
}

/// The bounds of a pen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    pub(crate) queue_members: usize,
    pub(crate) queue_bytes: usize,
    pub(crate) when_full: WhenFull,
    pub(crate) group_members: usize,
    pub(crate) group_bytes: usize,
    pub(crate) group_time: Duration,
    /// From so many blocked members on, a group is woken by a second thread.
    pub(crate) wake_beside: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            queue_members: 128 * 1024,
            queue_bytes: 64 << 20,
            when_full: WhenFull::Wait,
            group_members: 4096,
            group_bytes: 16 << 20,
            group_time: Duration::from_millis(5),
            wake_beside: 16,
        }
    }
}

/// Blocked callers sleep on one of these, by the batch they were queued in, so
/// that one wake-up reaches a whole group and hardly anybody else.
const WORDS: usize = 16;

/// Groups of one in a row after which the pen is cold again.
const COOL_AFTER: u8 = 4;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Writer {
    NotStarted,
    Busy,
    Parked,
    Ended,
}

pub(crate) struct State<E> {
    /// The pen itself.
    pub(crate) engine: Option<Box<E>>,
    pub(crate) queue: Queue<E>,
    lobby: VecDeque<InLobby<E>>,
    writer: Writer,
    hot: bool,
    lone_groups: u8,
    closed: bool,
    retired: bool,
    /// What has to be closed before the engine is.
    before_engine: Option<Box<dyn FnOnce() + Send>>,
    /// When the timer will call us.
    calls: Calls,
    pub(crate) holder: Holder,
}

pub(crate) struct Pen<E> {
    pub(crate) state: Mutex<State<E>>,
    words: [WaitWord; WORDS],
    epoch: AtomicU8,
    /// The writer thread sleeps here.
    writer: WaitWord,
    /// The thread that wakes large groups sleeps here.
    bell: herald::Bell,
    /// Whether callers give the processor away before they sleep.
    eager: eager::Eager,
    /// Callers of `submit` that wait in the lobby sleep here.
    admitted: WaitWord,
    /// The holder is waiting for a lock outside this process.
    pub(crate) at_write_lock: AtomicBool,
    /// The holder is waiting for its turn between processes. Only errors tell of
    /// it, so no model needs to see it.
    pub(crate) at_gate: AtomicBool,
    timer: Arc<dyn Timer>,
    /// Whose turn it is, between processes.
    pub(crate) write_lock: Arc<dyn WriteLock>,
    /// The line in this process, of those who write without this pen too.
    turns: std::sync::OnceLock<Arc<crate::blocks::permit::Turns>>,
    pub(crate) limits: Limits,
    pub(crate) tally: Tally,
    id: usize,
    /// How errors call the database.
    pub(crate) name: std::sync::OnceLock<Arc<str>>,
    /// Who has to be out of the way of a COMMIT, if anybody.
    bystanders: std::sync::OnceLock<Arc<dyn Bystanders>>,
    /// Who knows who is in the way outside this pen.
    pub(crate) witness: std::sync::OnceLock<Arc<dyn Witness>>,
}

impl<E: Engine> Pen<E> {
    pub(crate) fn new(
        engine: E,
        limits: Limits,
        timer: Arc<dyn Timer>,
        write_lock: Arc<dyn WriteLock>,
    ) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State {
                engine: Some(Box::new(engine)),
                queue: Queue::new(),
                lobby: VecDeque::new(),
                writer: Writer::NotStarted,
                hot: false,
                lone_groups: 0,
                closed: false,
                retired: false,
                before_engine: None,
                calls: Calls::default(),
                holder: Holder::default(),
            }),
            words: std::array::from_fn(|_| WaitWord::new()),
            epoch: AtomicU8::new(0),
            writer: WaitWord::new(),
            bell: herald::Bell::new(),
            eager: eager::Eager::new(),
            admitted: WaitWord::new(),
            at_write_lock: AtomicBool::new(false),
            at_gate: AtomicBool::new(false),
            timer,
            write_lock,
            turns: std::sync::OnceLock::new(),
            limits,
            tally: Tally::default(),
            id: crate::blocks::inside::new_id(),
            name: std::sync::OnceLock::new(),
            bystanders: std::sync::OnceLock::new(),
            witness: std::sync::OnceLock::new(),
        })
    }

    /// What errors call the database from here on.
    pub(crate) fn call_it(&self, name: &Arc<str>) {
        let _ = self.name.set(Arc::clone(name));
    }

    /// Who has to be out of the way of a COMMIT from here on.
    pub(crate) fn mind(&self, bystanders: Arc<dyn Bystanders>) {
        let _ = self.bystanders.set(bystanders);
    }

    /// Whom to ask who is in the way outside this pen, from here on.
    pub(crate) fn ask(&self, witness: Arc<dyn Witness>) {
        let _ = self.witness.set(witness);
    }

    /// Names the database in an error.
    pub(crate) fn context(&self, error: Error) -> Error {
        match self.name.get() {
            Some(name) => error.with_database(name),
            None => error,
        }
    }

    /// Runs `call` and blocks until its outcome is known.
    pub(crate) fn write<T, C>(
        self: &Arc<Self>,
        ticket: &Ticket,
        kind: Kind,
        mut call: C,
    ) -> Result<T>
    where
        T: Send,
        C: FnMut(&mut E) -> Result<T> + Send,
    {
        self.refuse_reentry()?;
        let mut state = lock(&self.state);
        if state.closed {
            return Err(closed());
        }
        if !state.hot
            && state.queue.is_empty()
            && state.lobby.is_empty()
            && let Some(engine) = state.engine.take()
        {
            let since = Instant::now();
            state.holder = Holder {
                since: Some(since),
                label: ticket.label.clone(),
                thread: Some(std::thread::current().id()),
            };
            drop(state);
            let mut held = Held::new(self, engine);
            let answer = held.run_alone(ticket, kind, since, &mut call);
            drop(held); // the next writer need not wait for our panic
            return unwrap_ran(answer);
        }
        drop(state);
        self.write_queued(ticket, kind, call)
    }

    #[inline(never)]
    fn write_queued<T, C>(self: &Arc<Self>, ticket: &Ticket, kind: Kind, call: C) -> Result<T>
    where
        T: Send,
        C: FnMut(&mut E) -> Result<T> + Send,
    {
        let ran = borrowed::with_job(ticket, kind, call, |job| {
            let answer = job.answer();
            let mut word = self.choose_word(answer.header());
            if let Err(refused) = self.enqueue(ticket, job.member()) {
                return Ok(Err(refused));
            }
            loop {
                let seen = word.current();
                if let Some(ran) = answer.take() {
                    return ran;
                }
                if !self.eager.wait(|| word.current() != seen) {
                    word.wait(seen, None);
                }
                // Woken with the group before ours: sleep with our own, where
                // nobody is woken again for the others' sake. (A group that
                // already runs has its word: with the next one's, it would
                // wake that.)
                if answer.header().is_waiting() {
                    word = self.choose_word(answer.header());
                }
            }
        });
        unwrap_ran(ran)
    }

    /// Whether the caller has to wake the writer thread: it sleeps, there is
    /// work, and the pen is there for it to take.
    fn claim_writer_wakeup(&self, state: &mut State<E>) -> bool {
        let wake = state.writer == Writer::Parked
            && (state.engine.is_some() && !state.queue.is_empty() || state.closed);
        if wake {
            state.writer = Writer::Busy;
        }
        wake
    }

    /// How many writes wait for the pen, those that are claimed not counted.
    pub(crate) fn queue_len(&self) -> usize {
        let state = lock(&self.state);
        state.queue.len() + state.lobby.len()
    }

    /// No new writes from now on; those that are queued are finished.
    pub(crate) fn close(&self) {
        let mut state = lock(&self.state);
        state.closed = true;
        let wake = self.claim_writer_wakeup(&mut state);
        drop(state);
        if wake {
            self.writer.advance();
        }
    }

    /// Drops the engine as soon as nobody needs it: now, or when whoever has the
    /// pen gives it back and the queue is finished. `before` runs first, for an
    /// engine that must outlive something.
    pub(crate) fn retire(&self, before: impl FnOnce() + Send + 'static) {
        let retired = {
            let mut state = lock(&self.state);
            state.closed = true;
            state.retired = true;
            state.before_engine = Some(Box::new(before));
            match state.engine.take() {
                Some(engine) if state.queue.is_empty() => Some(state.retire(engine)),
                engine => {
                    state.engine = engine;
                    None
                }
            }
        };
        drop(retired); // not under the lock: it closes a connection
    }

    /// Gives the pen back, and to the writer thread if somebody waits.
    fn put_back(&self, engine: Box<E>) {
        let mut state = lock(&self.state);
        state.holder = Holder::default();
        let retired = if state.retired && state.queue.is_empty() {
            Some(state.retire(engine))
        } else {
            state.engine = Some(engine);
            None
        };
        let wake = self.claim_writer_wakeup(&mut state);
        drop(state);
        drop(retired);
        if wake {
            self.writer.advance();
        }
    }

    /// The writer thread: serves the queue until the pen is closed and nobody
    /// is queued.
    pub(crate) fn serve(self: &Arc<Self>) {
        // It would wait for itself, whatever it is doing: running a closure,
        // waking a task, or dropping what somebody left behind.
        let _inside = self.enter();
        let mut group = group::Group::new();
        while let Some(engine) = self.next_turn() {
            let mut held = Held::new(self, engine);
            // Foreign code runs under `catch_unwind` of its own; this one is for
            // bugs of ours, which must not strand everybody who waits.
            let turn = catch_unwind(AssertUnwindSafe(|| held.run_group(&mut group)));
            if turn.is_err() {
                held.clean_up();
                group.abandon(self);
            }
            let mut state = lock(&self.state);
            if group.last_size() > 1 {
                state.hot = true;
                state.lone_groups = 0;
            } else if state.hot && group.last_size() == 1 {
                state.lone_groups += 1;
                state.hot = state.lone_groups < COOL_AFTER;
            }
            state.holder = Holder::default();
            state.engine = held.engine.take();
        }
        group.end(self);
    }

    #[cfg(test)]
    pub(crate) fn is_hot(&self) -> bool {
        lock(&self.state).hot
    }

    /// Sleeps until there is work and the pen is there; `None` is the end.
    fn next_turn(&self) -> Option<Box<E>> {
        loop {
            let seen = self.writer.current();
            let mut state = lock(&self.state);
            let admitted = self.admit(&mut state);
            if !state.queue.is_empty()
                && let Some(engine) = state.engine.take()
            {
                state.writer = Writer::Busy;
                state.holder.since = Some(Instant::now());
                drop(state);
                self.announce(admitted);
                return Some(engine);
            }
            // Not while a caller runs by itself: whoever closed the pen takes the
            // engine next, and `put_back` wakes us.
            if state.closed
                && state.queue.is_empty()
                && state.lobby.is_empty()
                && (state.engine.is_some() || state.retired)
            {
                state.writer = Writer::Ended;
                let engine = if state.retired {
                    state.engine.take()
                } else {
                    None
                };
                let retired = engine.map(|engine| state.retire(engine));
                drop(state);
                drop(retired);
                return None;
            }
            state.writer = Writer::Parked;
            drop(state);
            self.announce(admitted);
            self.writer.wait(seen, None);
        }
    }
}
