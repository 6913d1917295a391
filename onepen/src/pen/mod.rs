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
pub(crate) mod future;
pub(crate) mod group;
pub(crate) mod job;
pub(crate) mod queue;
pub(crate) mod turn;

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::Waker;
use std::time::{Duration, Instant};

use self::job::{Kind, Member, NO_WORD, Ticket, drop_quietly, unwrap_ran};
use self::queue::{Queue, Queued};
use self::turn::WriteLock;
use crate::cancel::{Cancel, CancelToken};
use crate::engine::{Bystanders, Engine, GiveUp, Patience, Until};
use crate::error::{Error, ErrorKind, Result, Waited, WaitedFor};
use crate::stats::Tally;
use crate::sync::{Arc, AtomicBool, AtomicU8, Mutex, Ordering, WaitWord, lock};
use crate::timer::{Expires, Timer};

/// What a caller wants when the queue is at its bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum WhenFull {
    /// Wait for space, in order, until the call's deadline.
    #[default]
    Wait,
    /// Fail at once with [`ErrorKind::QueueFull`].
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

/// Who has the pen: for the errors of those who wait in vain.
#[derive(Clone, Default)]
pub(crate) struct Holder {
    pub(crate) since: Option<Instant>,
    pub(crate) label: Option<Arc<str>>,
    pub(crate) thread: Option<std::thread::ThreadId>,
}

/// Whom a COMMIT over a rollback journal waits for.
pub(crate) const READERS: &str = "reads, streams or snapshots of this process";

/// A write beyond the queue's bound.
struct InLobby<E> {
    job: Queued<E>,
    /// The task that submitted it and waits until it is queued.
    submitter: Option<Waker>,
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
    /// When the timer will call us: the earliest is the last.
    calls: Vec<Instant>,
    pub(crate) holder: Holder,
}

pub(crate) struct Pen<E> {
    pub(crate) state: Mutex<State<E>>,
    words: [WaitWord; WORDS],
    epoch: AtomicU8,
    /// The writer thread sleeps here.
    writer: WaitWord,
    /// Callers of `submit` that wait in the lobby sleep here.
    admitted: WaitWord,
    /// The holder is waiting for a lock outside this process.
    pub(crate) at_write_lock: AtomicBool,
    timer: Arc<dyn Timer>,
    /// Whose turn it is, between processes.
    pub(crate) write_lock: Arc<dyn WriteLock>,
    pub(crate) limits: Limits,
    pub(crate) tally: Tally,
    id: usize,
    /// How errors call the database.
    name: std::sync::OnceLock<Arc<str>>,
    /// Who has to be out of the way of a COMMIT, if anybody.
    bystanders: std::sync::OnceLock<Arc<dyn Bystanders>>,
}

crate::sync::thread_local! {
    #[allow(clippy::missing_const_for_thread_local, reason = "loom's macro does not know that form")]
    /// The pens that this thread holds.
    static INSIDE: std::cell::RefCell<Vec<usize>> = std::cell::RefCell::new(Vec::new());
}

/// Marks this thread as holding a pen, while it lives.
pub(crate) struct Inside;

impl Inside {
    pub(crate) fn enter(id: usize) -> Self {
        INSIDE.with(|inside| inside.borrow_mut().push(id));
        Self
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        INSIDE.with(|inside| inside.borrow_mut().pop());
    }
}

impl<E: Engine> Pen<E> {
    pub(crate) fn new(
        engine: E,
        limits: Limits,
        timer: Arc<dyn Timer>,
        write_lock: Arc<dyn WriteLock>,
    ) -> Arc<Self> {
        use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
        static NEXT: AtomicUsize = AtomicUsize::new(1);
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
                calls: Vec::new(),
                holder: Holder::default(),
            }),
            words: std::array::from_fn(|_| WaitWord::new()),
            epoch: AtomicU8::new(0),
            writer: WaitWord::new(),
            admitted: WaitWord::new(),
            at_write_lock: AtomicBool::new(false),
            timer,
            write_lock,
            limits,
            tally: Tally::default(),
            id: NEXT.fetch_add(1, Relaxed),
            name: std::sync::OnceLock::new(),
            bystanders: std::sync::OnceLock::new(),
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

    /// Names the database in an error.
    pub(crate) fn context(&self, error: Error) -> Error {
        match self.name.get() {
            Some(name) => error.with_database(name),
            None => error,
        }
    }

    /// Whether this thread holds this pen, or is its writer thread.
    pub(crate) fn is_inside(&self) -> bool {
        INSIDE.with(|inside| inside.borrow().contains(&self.id))
    }

    /// Whether a write that this thread waited for would wait for this thread.
    pub(crate) fn is_in_its_way(&self) -> bool {
        self.is_inside() || self.is_bystander()
    }

    fn is_bystander(&self) -> bool {
        self.bystanders.get().is_some_and(|them| them.are_here())
    }

    pub(crate) fn enter(&self) -> Inside {
        Inside::enter(self.id)
    }

    pub(crate) fn refuse_reentry(&self) -> Result<()> {
        if self.is_bystander() {
            return Err(Error::new(
                ErrorKind::Reentrant,
                "a write was started inside a read closure of the same database; over a rollback \
                 journal a COMMIT waits until nobody reads, so it would wait for itself: write \
                 after the read has ended, or use `submit` and wait for it there",
            ));
        }
        if self.is_inside() {
            return Err(Error::new(
                ErrorKind::Reentrant,
                "a write was started inside a write closure of the same database, where it would \
                 wait for itself; use the transaction the closure was given, or `submit`",
            ));
        }
        Ok(())
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
                word.wait(seen, None);
                // Woken with the group before ours: sleep with our own, where
                // nobody is woken again for the others' sake.
                word = self.choose_word(answer.header());
            }
        });
        unwrap_ran(ran)
    }

    /// The word for a job that is queued now. A job that moves is not missed:
    /// [`Wake::add`] reads the word after the answer is final, we look at the
    /// answer after the word is stored, and both in one total order.
    fn choose_word(&self, header: &job::Header) -> &WaitWord {
        let word = self.epoch.load(Ordering::Relaxed) % WORDS as u8;
        header.word.store(word, Ordering::SeqCst);
        &self.words[word as usize]
    }

    /// Puts a job at the end of the queue, or of the lobby when the queue is at
    /// its bound. An error is the job's answer; it was not queued then.
    pub(crate) fn enqueue(self: &Arc<Self>, ticket: &Ticket, job: &Queued<E>) -> Result<()> {
        if let Some(token) = &ticket.cancel {
            token.watch(Box::new(Watch {
                pen: Arc::downgrade(self),
                job: Arc::downgrade(job),
            }));
        }
        let header = job.header();
        if ticket
            .cancel
            .as_ref()
            .is_some_and(CancelToken::is_cancelled)
        {
            return Err(cancelled(Waited::new(
                WaitedFor::Pen,
                header.since.elapsed(),
            )));
        }
        let mut state = lock(&self.state);
        if state.closed {
            return Err(closed());
        }
        let before = state.queue.len() + state.lobby.len();
        header
            .position
            .store(u32::try_from(before).unwrap_or(u32::MAX), Ordering::Relaxed);
        if self.has_room(&state, header.bytes) && state.lobby.is_empty() {
            state.queue.push(Arc::clone(job));
        } else if self.limits.when_full == WhenFull::Refuse {
            return Err(Error::new(
                ErrorKind::QueueFull,
                format!(
                    "the write queue is full: {} writes, {} bytes",
                    state.queue.len(),
                    state.queue.bytes()
                ),
            ));
        } else {
            header.enter_lobby();
            state.lobby.push_back(InLobby {
                job: Arc::clone(job),
                submitter: None,
            });
        }
        self.tally.queued(before + 1);
        if let Some(deadline) = header.deadline
            && state
                .calls
                .last()
                .is_none_or(|&earliest| deadline < earliest)
        {
            state.calls.push(deadline);
            let this: Arc<dyn Expires> = Arc::clone(self) as _;
            self.timer.wake_at(deadline, &this);
        }
        let wake = self.claim_writer_wakeup(&mut state);
        drop(state);
        if wake {
            self.writer.advance();
        }
        // After the job is queued: a cancellation either found it there, or is
        // seen here.
        if ticket
            .cancel
            .as_ref()
            .is_some_and(CancelToken::is_cancelled)
        {
            self.cancel(job);
        }
        Ok(())
    }

    fn has_room(&self, state: &State<E>, bytes: u32) -> bool {
        state.queue.len() < self.limits.queue_members
            // A single write larger than the bound must pass all the same.
            && (state.queue.is_empty()
                || state.queue.bytes() + bytes as usize <= self.limits.queue_bytes)
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

    /// Lets callers in the lobby move up.
    pub(crate) fn admit(&self, state: &mut State<E>) -> Admitted {
        let mut admitted = Admitted {
            any: false,
            wakers: Vec::new(),
        };
        while let Some(first) = state.lobby.front() {
            if !self.has_room(state, first.job.header().bytes) {
                break;
            }
            let Some(first) = state.lobby.pop_front() else {
                break;
            };
            state.queue.push(first.job);
            admitted.wakers.extend(first.submitter);
            admitted.any = true;
        }
        admitted
    }

    pub(crate) fn announce(&self, admitted: Admitted) {
        if admitted.any {
            self.admitted.advance();
            admitted.wakers.into_iter().for_each(wake_task);
        }
    }

    /// Blocks until `job` is out of the lobby.
    pub(crate) fn wait_until_admitted(&self, job: &Queued<E>) {
        loop {
            let seen = self.admitted.current();
            if !job.header().is_in_lobby() {
                return;
            }
            self.admitted.wait(seen, None);
        }
    }

    /// The same for a task: `false` means that `waker` will be woken.
    pub(crate) fn poll_admitted(&self, job: &Queued<E>, waker: &Waker) -> bool {
        if !job.header().is_in_lobby() {
            return true;
        }
        let waker = waker.clone(); // foreign code: not under the lock
        let mut state = lock(&self.state);
        // From the back: the first time, it has just come.
        let mut lobby = state.lobby.iter_mut().rev();
        let Some(waiting) = lobby.find(|waiting| Arc::ptr_eq(&waiting.job, job)) else {
            return true;
        };
        let replaced = waiting.submitter.replace(waker);
        drop(state);
        drop(replaced);
        false
    }

    /// Ends a job that has not started. A job that has is left alone.
    pub(crate) fn cancel(&self, job: &Queued<E>) {
        let mut state = lock(&self.state);
        let Some(ended) = self.end(&mut state, job) else {
            return;
        };
        let admitted = self.admit(&mut state);
        drop(state);
        self.announce(admitted);
        self.answer(ended, cancelled);
    }

    /// Takes a job that nobody claimed off the queue, for [`answer`](Self::answer).
    fn end(&self, state: &mut State<E>, job: &Queued<E>) -> Option<Ended<E>> {
        let header = job.header();
        if !header.is_waiting() {
            return None;
        }
        let in_lobby = header.is_in_lobby();
        let waited = self.waited(state, header, in_lobby);
        let mut wake = Wake::default();
        header.claim();
        if in_lobby {
            let mut lobby = state.lobby.iter();
            let place = lobby.position(|waiting| Arc::ptr_eq(&waiting.job, job));
            let left = place.and_then(|place| state.lobby.remove(place));
            // Its submitter waits for admission, which never comes.
            wake.wakers.extend(left.and_then(|left| left.submitter));
            wake.lobby = true;
        } else {
            state.queue.mark_dead(header.bytes);
        }
        Some(Ended {
            job: Arc::clone(job),
            waited,
            wake,
        })
    }

    /// Answers a job that was ended, and wakes whoever waits for it. The pen's
    /// lock is not held: what the closure owns is dropped here.
    fn answer(&self, ended: Ended<E>, error: fn(Waited) -> Error) {
        let Ended {
            job,
            waited,
            mut wake,
        } = ended;
        job.discard();
        job.fail(error(waited).with_label(job.header().label.clone()));
        wake.add(&*job);
        wake.wake_all(self);
        drop_quietly(job);
    }

    /// What a job that ends now has waited for.
    fn waited(&self, state: &State<E>, header: &job::Header, in_lobby: bool) -> Waited {
        let what = if in_lobby {
            WaitedFor::QueueSpace
        } else if self.bystanders.get().is_some_and(|them| them.are_awaited()) {
            WaitedFor::Readers
        } else if self.at_write_lock.load(Ordering::Relaxed) {
            WaitedFor::WriteLock
        } else {
            WaitedFor::Pen
        };
        let mut waited = Waited::new(what, header.since.elapsed());
        waited.position = Some(header.position.load(Ordering::Relaxed) as usize);
        waited.holder = match what {
            WaitedFor::WriteLock => Some("another process, or another library in this one".into()),
            WaitedFor::Readers => Some(READERS.into()),
            _ => state.holder.describe(),
        };
        waited
    }

    /// How many writes wait for the pen.
    pub(crate) fn queue_len(&self) -> usize {
        let state = lock(&self.state);
        state.queue.len() + state.lobby.len()
    }

    /// No new writes from now on; those that are queued are finished.
    pub(crate) fn close(&self) {
        let mut state = lock(&self.state);
        state.closed = true;
        let never_started = state.writer == Writer::NotStarted && state.queue.is_empty();
        let wake = self.claim_writer_wakeup(&mut state);
        drop(state);
        if wake && !never_started {
            self.writer.advance();
        }
    }

    /// Drops the engine as soon as nobody needs it: now, or when whoever has the
    /// pen gives it back and the queue is finished.
    pub(crate) fn retire(&self) {
        let engine = {
            let mut state = lock(&self.state);
            state.closed = true;
            state.retired = true;
            if state.queue.is_empty() {
                state.engine.take()
            } else {
                None
            }
        };
        drop(engine); // not under the lock: it closes a connection
    }

    /// Gives the pen back, and to the writer thread if somebody waits.
    fn put_back(&self, engine: Box<E>) {
        let mut state = lock(&self.state);
        state.holder = Holder::default();
        let retired = if state.retired && state.queue.is_empty() {
            Some(engine)
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
                drop(state);
                drop(engine);
                return None;
            }
            state.writer = Writer::Parked;
            drop(state);
            self.announce(admitted);
            self.writer.wait(seen, None);
        }
    }

    /// Wakes those whose jobs are done, each sleeping place once.
    pub(crate) fn wake_words(&self, words: u32) {
        for (index, word) in self.words.iter().enumerate() {
            if words & (1 << index) != 0 {
                word.advance();
            }
        }
    }

    pub(crate) fn next_epoch(&self) {
        self.epoch.fetch_add(1, Ordering::Relaxed);
    }
}

/// Sleepers to wake once no lock is held.
#[derive(Default)]
pub(crate) struct Wake {
    words: u32,
    lobby: bool,
    wakers: Vec<Waker>,
}

impl Wake {
    /// Makes the answer of `job` final.
    pub(crate) fn add<E>(&mut self, job: &dyn Member<E>) {
        self.wakers.extend(job.finish());
        let word = job.header().word.load(Ordering::SeqCst);
        if word != NO_WORD {
            self.words |= 1 << word;
        }
    }

    /// Wakes them. Keeps the allocation for the next time.
    pub(crate) fn wake_all<E: Engine>(&mut self, pen: &Pen<E>) {
        pen.wake_words(self.words);
        if self.lobby {
            pen.admitted.advance();
        }
        self.wakers.drain(..).for_each(wake_task);
        self.words = 0;
        self.lobby = false;
    }
}

/// A job that was taken off the queue unrun and has no answer yet.
struct Ended<E> {
    job: Queued<E>,
    waited: Waited,
    wake: Wake,
}

pub(crate) struct Admitted {
    any: bool,
    wakers: Vec<Waker>,
}

/// A waker is foreign code: its panic is not our business.
fn wake_task(waker: Waker) {
    let _ = catch_unwind(AssertUnwindSafe(|| waker.wake()));
}

/// The pen in hand; dropping it gives it back. While it lives, a write of this
/// thread is refused: it would wait for itself.
pub(crate) struct Held<'a, E: Engine> {
    pub(crate) pen: &'a Arc<Pen<E>>,
    pub(crate) engine: Option<Box<E>>,
    _inside: Inside,
}

impl<'a, E: Engine> Held<'a, E> {
    fn new(pen: &'a Arc<Pen<E>>, engine: Box<E>) -> Self {
        Self {
            pen,
            engine: Some(engine),
            _inside: pen.enter(),
        }
    }

    /// After a bug of ours: the next to hold the pen must not find a
    /// transaction of the last.
    fn clean_up(&mut self) {
        if let Some(engine) = &mut self.engine {
            let _ = catch_unwind(AssertUnwindSafe(|| engine.rollback()));
        }
    }
}

impl<E: Engine> Drop for Held<'_, E> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.clean_up();
        }
        if let Some(engine) = self.engine.take() {
            self.pen.put_back(engine);
        }
    }
}

/// A job's place in a token's list of calls to cancel.
struct Watch<E> {
    pen: std::sync::Weak<Pen<E>>,
    job: std::sync::Weak<dyn Member<E>>,
}

impl<E: Engine> Cancel for Watch<E> {
    fn cancel(&self) {
        if let (Some(pen), Some(job)) = (self.pen.upgrade(), self.job.upgrade()) {
            pen.cancel(&job);
        }
    }

    fn is_over(&self) -> bool {
        self.job.strong_count() == 0
    }
}

impl<E: Engine> Expires for Pen<E> {
    fn expire(&self, now: Instant) -> Option<Instant> {
        let mut state = lock(&self.state);
        while state.calls.pop_if(|at| *at <= now).is_some() {}
        let due: Vec<_> = state
            .queue
            .iter()
            .chain(state.lobby.iter().map(|waiting| &waiting.job))
            .filter(|job| job.header().deadline.is_some_and(|at| at <= now))
            .cloned()
            .collect();
        let ended: Vec<_> = due
            .iter()
            .filter_map(|job| self.end(&mut state, job))
            .collect();
        let lobby = state
            .lobby
            .iter()
            .filter_map(|waiting| waiting.job.header().deadline)
            .min();
        // Asked for only when no call comes earlier anyway: were every call
        // renewed, they would pile up for as long as somebody waits.
        let again = state
            .queue
            .earliest_deadline()
            .into_iter()
            .chain(lobby)
            .min()
            .filter(|again| state.calls.last().is_none_or(|call| again < call));
        state.calls.extend(again);
        let admitted = self.admit(&mut state);
        drop(state);
        self.announce(admitted);
        for ended in ended {
            self.answer(ended, deadline_exceeded);
        }
        again
    }
}

/// The patience of a group: as long as anybody is still waiting for it.
pub(crate) struct WhileSomebodyWaits<'a, E>(pub(crate) &'a Pen<E>);

impl<E: Engine> Patience for WhileSomebodyWaits<'_, E> {
    fn exhausted(&self) -> Option<GiveUp> {
        lock(&self.0.state)
            .queue
            .is_empty()
            .then_some(GiveUp::NobodyWaits)
    }
}

impl Holder {
    fn describe(&self) -> Option<Arc<str>> {
        let since = self.since?;
        let label = match &self.label {
            Some(label) => format!("`{label}` on "),
            None => String::new(),
        };
        let thread = match self.thread {
            Some(thread) => format!("{thread:?}"),
            None => "the writer thread".into(),
        };
        Some(format!("{label}{thread} since {:.1?}", since.elapsed()).into())
    }
}

fn closed() -> Error {
    Error::new(ErrorKind::Closed, "the database handle is closed")
}

pub(crate) fn cancelled(waited: Waited) -> Error {
    Error::new(ErrorKind::Cancelled, "cancelled before it started").with_waited(waited)
}

pub(crate) fn deadline_exceeded(waited: Waited) -> Error {
    Error::new(
        ErrorKind::DeadlineExceeded,
        "the deadline passed before it could start",
    )
    .with_waited(waited)
}

/// The patience of the caller behind `ticket`, from `since` on.
pub(crate) fn patience(ticket: &Ticket, since: Instant) -> Until<'_> {
    Until {
        deadline: ticket
            .patience
            .and_then(|patience| since.checked_add(patience)),
        cancel: ticket.cancel.as_ref(),
    }
}

/// What a gone patience means to its caller.
pub(crate) fn gave_up(why: GiveUp, waited: Waited) -> Error {
    match why {
        GiveUp::Cancelled => cancelled(waited),
        GiveUp::Deadline | GiveUp::NobodyWaits => deadline_exceeded(waited),
    }
}
