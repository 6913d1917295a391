//! Running the queue as groups.
//!
//! A group is one transaction: `BEGIN IMMEDIATE`, its members in the order
//! they came, `COMMIT`, and only then the answers. Members are independent of
//! each other, and two ways of running them give that:
//!
//! * **bare**: nothing around a member. As long as every member succeeds, this
//!   is right and costs nothing. When one fails, whatever it changed is still
//!   there, so the whole transaction is rolled back and everybody is run again,
//!   with
//! * **savepoints**: one around every member, rolled back when it fails. A group
//!   in which somebody failed is followed by groups run this way for a while
//!   (`WARY_GROUPS`), so a program whose writes often fail pays for savepoints
//!   rather than for running twice.
//!
//! Running again is sound because closures are re-runnable by contract, and
//! because no answer of an undone run is ever delivered: not a value, and not
//! an error either (it may be about a neighbour's row that is gone).
//!
//! SQLite may end the transaction under a member (`ON CONFLICT ROLLBACK`, an
//! interrupted write, an I/O error). Then everybody before that member is run
//! again as a group, and that member in a transaction of its own, where its
//! rollback is nobody else's business. A COMMIT that is refused for what one of
//! the members did (SQLite refuses every COMMIT after a statement has met
//! corruption) has the same end: each is run again in a transaction of its own.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use super::herald::Herald;
use super::job::{Header, Kind, Member, Ticket, drop_quietly};
use super::queue::Queued;
use super::turn::Turn;
use super::{Held, Pen, Wake, WhileSomebodyWaits, cancelled, gave_up, patience};
use crate::engine::{Engine, GiveUp, Patience, Until};
use crate::error::{Error, ErrorKind, Outcome, Result, Waited, WaitedFor};
use crate::sync::{Arc, Ordering, lock};
use crate::trace::event;

/// Groups run with savepoints after one in which a member failed.
const WARY_GROUPS: u32 = 64;

/// Members claimed at a time: few enough that what was claimed is also run
/// within the group's time, many enough that the lock is not the cost.
const CLAIM: usize = 32;

/// A claimed job, and whether it must have a transaction of its own.
struct Claimed<E> {
    job: Queued<E>,
    alone: bool,
}

/// The writer thread's own memory of the group it runs.
pub(crate) struct Group<E> {
    /// Run, with their answers, waiting for the COMMIT.
    members: Vec<Queued<E>>,
    /// To be run next.
    claimed: VecDeque<Claimed<E>>,
    wary: u32,
    last_size: usize,
    wake: Wake,
    herald: Herald,
}

/// How one pass over the claimed ended. The transaction is open after
/// `Everybody`, and rolled back after the others.
enum Pass {
    Everybody,
    /// A bare member failed after others: run everybody again with savepoints.
    Again,
    /// SQLite ended the transaction under the last of `members`.
    Gone,
    /// The first member failed; it has its answer.
    FirstFailed,
}

impl<E: Engine> Group<E> {
    pub(crate) fn new() -> Self {
        Self {
            members: Vec::new(),
            claimed: VecDeque::new(),
            wary: 0,
            last_size: 0,
            wake: Wake::default(),
            herald: Herald::default(),
        }
    }

    pub(crate) fn last_size(&self) -> usize {
        self.last_size
    }

    /// The answer of `job` is final.
    fn answer(&mut self, job: Queued<E>) {
        self.wake.add(&*job);
        // Ours may be the last hold on it, and what the closure owns may panic
        // when it is dropped.
        drop_quietly(job);
    }

    /// Wakes everybody who has been answered, or has them woken.
    fn announce(&mut self, pen: &Arc<Pen<E>>) {
        if self.wake.sleepers() >= pen.limits.wake_beside {
            let words = self.wake.take_words();
            if !self.herald.wake(pen, words) {
                pen.wake_words(words);
            }
        }
        self.wake.wake_all(pen);
    }

    /// After the last group.
    pub(crate) fn end(self, pen: &Pen<E>) {
        self.herald.stop(pen);
    }

    /// Answers everybody after a bug of ours; nobody may wait for ever.
    pub(crate) fn abandon(&mut self, pen: &Pen<E>) {
        self.fail_all(|| {
            Error::new(
                ErrorKind::Closed,
                "a bug in onepen ended this write; whether it is committed is unknown",
            )
            .with_outcome(Outcome::Unknown)
        });
        self.wake.wake_all(pen);
    }

    /// Fails everybody who was claimed, all for the same reason.
    fn fail_all(&mut self, error: impl Fn() -> Error) {
        let claimed = self.claimed.drain(..).map(|claimed| claimed.job);
        let everybody: Vec<_> = self.members.drain(..).chain(claimed).collect();
        for job in everybody {
            job.fail(error().with_label(job.header().label.clone()));
            self.answer(job);
        }
    }
}

impl<E: Engine> Held<'_, E> {
    /// Serves the head of the queue: one group, or one job that goes alone.
    pub(crate) fn run_group(&mut self, group: &mut Group<E>) {
        let pen = self.pen;
        let Some(engine) = self.engine.as_deref_mut() else {
            return;
        };
        group.last_size = 0;
        let Ok(mut turn) = Turn::take(pen, &WhileSomebodyWaits(pen), None) else {
            return; // everybody gave up and has been answered
        };
        let kind = lock(&pen.state).queue.next_kind();
        match kind {
            None => return,
            Some(Kind::Exclusive | Kind::Maintenance) => run_exclusive(pen, engine, group),
            Some(Kind::Grouped | Kind::Alone) => run_turn(pen, engine, group),
        }
        turn.wrote(group.last_size);
        drop(turn); // others need not wait until everybody is awake
        group.announce(pen);
    }

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
            Err(why) => {
                let mut waited = Waited::new(WaitedFor::Turn, since.elapsed());
                (waited.holder, waited.position) = pen.write_lock.holder();
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

fn lost() -> Error {
    Error::new(
        ErrorKind::TransactionLost,
        "SQLite rolled the transaction back while the closure ran, and the closure returned Ok; \
         nothing was written",
    )
}

/// BEGIN, bracketed so that others can say what is waited for.
fn begin<E: Engine>(pen: &Pen<E>, engine: &mut E, patience: &dyn Patience) -> Result<()> {
    pen.at_write_lock.store(true, Ordering::Relaxed);
    let begun = engine.begin(patience);
    pen.at_write_lock.store(false, Ordering::Relaxed);
    begun
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

/// Runs foreign code between the guards.
fn member<E: Engine, R>(engine: &mut E, call: impl FnOnce(&mut E) -> R) -> R {
    engine.member_begins();
    let ran = call(engine);
    engine.member_ends();
    ran
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

fn run_exclusive<E: Engine>(pen: &Pen<E>, engine: &mut E, group: &mut Group<E>) {
    let job = {
        let mut state = lock(&pen.state);
        let Some(job) = state.queue.claim() else {
            return;
        };
        state.holder.label.clone_from(&job.header().label);
        job
    };
    let started = Instant::now();
    let waited = started.saturating_duration_since(job.header().since);
    pen.tally.waited(waited);
    let mut long = LongWaits::default();
    long.add(pen, job.header(), waited);
    long.say(pen);
    group.members.push(Arc::clone(&job)); // where `abandon` would find it
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

/// One turn with the write lock: as many members as the bounds allow.
fn run_turn<E: Engine>(pen: &Pen<E>, engine: &mut E, group: &mut Group<E>) {
    if let Err(error) = begin(pen, engine, &WhileSomebodyWaits(pen)) {
        if error.kind() == ErrorKind::DeadlineExceeded {
            return; // everybody gave up and has been answered
        }
        // The database itself refused. It is everybody's answer who waits now.
        claim_all(pen, group);
        fail_all(group, error);
        return;
    }
    let started = Instant::now();
    let mut bounds = Bounds::of(pen, started);
    bounds.claim(pen, group);
    if group.claimed.is_empty() {
        engine.rollback(); // they were cancelled while we waited for the lock
        return;
    }
    let mut wary = group.wary > 0;
    group.wary = group.wary.saturating_sub(1);
    loop {
        if group.claimed.front().is_some_and(|first| first.alone) {
            run_begun_alone(engine, group);
        } else {
            match pass(pen, engine, group, &mut bounds, wary) {
                Pass::Everybody => {
                    // Whoever is queued from here on is in a later group.
                    pen.next_epoch();
                    commit(engine, group);
                }
                Pass::FirstFailed => group.wary = WARY_GROUPS,
                Pass::Again => {
                    group.wary = WARY_GROUPS;
                    wary = true;
                    run_again(group, None);
                }
                Pass::Gone => {
                    group.wary = WARY_GROUPS;
                    let culprit = group.members.pop();
                    run_again(group, culprit);
                }
            }
        }
        // From here on only those who were claimed: they cannot be cancelled
        // any more, and a turn that others may join for ever would never end.
        bounds.closed = true;
        if group.claimed.is_empty() {
            break;
        }
        let patience = patience_of_all(group.claimed.iter().map(|claimed| &claimed.job));
        if let Err(error) = begin(pen, engine, &patience) {
            fail_all(group, error);
            break;
        }
    }
    let held = started.elapsed();
    event!(
        DEBUG,
        "group",
        members = group.last_size,
        held_us = held.as_micros() as u64
    );
    pen.tally.turn(group.last_size, held);
}

/// Puts everybody who ran back in line, in order; the culprit by itself.
fn run_again<E>(group: &mut Group<E>, culprit: Option<Queued<E>>) {
    if let Some(job) = culprit {
        group.claimed.push_front(Claimed { job, alone: true });
    }
    for job in group.members.drain(..).rev() {
        group.claimed.push_front(Claimed { job, alone: false });
    }
}

/// Runs the claimed, and whoever else may join, in the open transaction.
fn pass<E: Engine>(
    pen: &Pen<E>,
    engine: &mut E,
    group: &mut Group<E>,
    bounds: &mut Bounds,
    wary: bool,
) -> Pass {
    loop {
        if group.claimed.is_empty() {
            bounds.claim(pen, group);
        }
        if group.claimed.front().is_none_or(|next| next.alone) {
            return Pass::Everybody;
        }
        let Some(Claimed { job, .. }) = group.claimed.pop_front() else {
            return Pass::Everybody;
        };
        let fate = if wary {
            run_with_savepoint(engine, &*job)
        } else {
            run_bare(engine, &*job)
        };
        let first = group.members.is_empty();
        group.members.push(job);
        match fate {
            Fate::Stays => {}
            // Nobody else's work is in the transaction, so this answer is final
            // and nobody has to run again.
            Fate::Failed { gone } if first => {
                engine.rollback();
                if let Some(job) = group.members.pop() {
                    if gone {
                        fail_if_ok(&*job);
                    }
                    group.last_size += 1;
                    group.answer(job);
                }
                return Pass::FirstFailed;
            }
            Fate::Failed { gone } => {
                engine.rollback();
                return if gone || wary {
                    Pass::Gone
                } else {
                    Pass::Again
                };
            }
        }
    }
}

enum Fate {
    /// The member is done, or was undone by itself alone.
    Stays,
    /// It has to be undone, and only undoing everybody does that.
    Failed { gone: bool },
}

fn run_bare<E: Engine>(engine: &mut E, job: &dyn Member<E>) -> Fate {
    let fine = member(engine, |engine| job.run(engine));
    if engine.is_autocommit() {
        return Fate::Failed { gone: true };
    }
    if fine && !engine.owes_foreign_keys() {
        return Fate::Stays;
    }
    if fine {
        job.fail(foreign_keys());
    }
    Fate::Failed { gone: false }
}

fn run_with_savepoint<E: Engine>(engine: &mut E, job: &dyn Member<E>) -> Fate {
    if let Err(error) = engine.savepoint() {
        job.fail(error);
        return Fate::Failed {
            gone: engine.is_autocommit(),
        };
    }
    let fine = member(engine, |engine| job.run(engine));
    if engine.is_autocommit() {
        return Fate::Failed { gone: true };
    }
    let owes = engine.owes_foreign_keys();
    if fine && owes {
        job.fail(foreign_keys());
    }
    let ended = if fine && !owes {
        engine.release()
    } else {
        engine.rollback_to()
    };
    match ended {
        Ok(()) => Fate::Stays,
        // The savepoint is in an unknown state: the transaction has to go.
        Err(error) => {
            job.fail(error);
            Fate::Failed { gone: true }
        }
    }
}

/// The next job, in the transaction that was just begun, by itself.
fn run_begun_alone<E: Engine>(engine: &mut E, group: &mut Group<E>) {
    let Some(Claimed { job, .. }) = group.claimed.pop_front() else {
        return;
    };
    let fine = member(engine, |engine| job.run(engine));
    if engine.is_autocommit() {
        fail_if_ok(&*job);
        engine.rollback();
        group.last_size += 1;
        group.answer(job);
    } else if fine && !engine.owes_foreign_keys() {
        group.members.push(job);
        commit(engine, group);
    } else {
        if fine {
            job.fail(foreign_keys());
        }
        engine.rollback();
        group.last_size += 1;
        group.answer(job);
    }
}

/// Commits, and answers every member: with what it returned, or, all alike,
/// with what became of the COMMIT. When the COMMIT was refused for something
/// that one of them did, they are put back in line, each for itself.
fn commit<E: Engine>(engine: &mut E, group: &mut Group<E>) {
    let patience = patience_of_all(&group.members);
    if let Err(failed) = engine.commit(&patience) {
        engine.rollback();
        if failed.may_be_one_members_doing() && group.members.len() > 1 {
            // Which member's is not known, so each answers for itself alone.
            for job in group.members.drain(..).rev() {
                group.claimed.push_front(Claimed { job, alone: true });
            }
            return;
        }
        for job in &group.members {
            let header = job.header();
            let error = if job.answered_ok() {
                failed.to_error(header.since, &patience)
            } else {
                // It had undone itself: of it nothing was in the transaction. But
                // its own error may be about a neighbour that is gone.
                failed.without_trace()
            };
            job.fail(error.with_label(header.label.clone()));
        }
    }
    group.last_size += group.members.len();
    let mut members = std::mem::take(&mut group.members);
    members.drain(..).for_each(|job| group.answer(job));
    group.members = members; // its allocation
}

/// A closure that swallowed the loss of its transaction and returned `Ok`.
fn fail_if_ok<E>(job: &dyn Member<E>) {
    if job.answered_ok() {
        job.fail(lost());
    }
}

fn fail_all<E: Engine>(group: &mut Group<E>, error: Error) {
    let failure = Arc::new(error);
    group.last_size += group.members.len() + group.claimed.len();
    group.fail_all(|| Error::same_as(&failure));
}

/// Those who share a transaction wait together, until the last of them would
/// give up.
fn patience_of_all<'a, E: 'a>(jobs: impl IntoIterator<Item = &'a Queued<E>>) -> Until<'static> {
    let deadlines = jobs.into_iter().map(|job| job.header().deadline);
    let deadline = deadlines.reduce(|a, b| Some(a?.max(b?))).flatten();
    Until {
        deadline,
        cancel: None,
    }
}

fn foreign_keys() -> Error {
    Error::sqlite_error(rusqlite::Error::SqliteFailure(
        rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CONSTRAINT_FOREIGNKEY),
        Some("FOREIGN KEY constraint failed".into()),
    ))
}

/// What ends a group. None of it keeps the first member out.
struct Bounds {
    members_left: usize,
    bytes_left: usize,
    /// `None`: time does not end it.
    until: Option<Instant>,
    closed: bool,
}

impl Bounds {
    fn of<E: Engine>(pen: &Pen<E>, started: Instant) -> Self {
        Self {
            members_left: pen.limits.group_members,
            bytes_left: pen.limits.group_bytes,
            until: started.checked_add(pen.limits.group_time),
            closed: false,
        }
    }

    /// Claims the next few, if the group may still grow.
    fn claim<E: Engine>(&mut self, pen: &Pen<E>, group: &mut Group<E>) {
        if self.closed {
            return;
        }
        let now = Instant::now();
        let nobody_yet = group.members.is_empty() && group.claimed.is_empty();
        let is_over = self.until.is_some_and(|until| now >= until) || pen.write_lock.should_end();
        if !nobody_yet && is_over {
            self.closed = true;
            return;
        }
        let mut long = LongWaits::default();
        let mut state = lock(&pen.state);
        while group.claimed.len() < CLAIM
            && self.members_left > 0
            && (self.bytes_left > 0 || nobody_yet && group.claimed.is_empty())
        {
            match state.queue.next_kind() {
                Some(Kind::Grouped) => {}
                // Before anybody else ran it may use this very transaction.
                Some(Kind::Alone) if group.claimed.is_empty() && group.members.is_empty() => {}
                _ => {
                    self.closed = self.closed || !group.members.is_empty();
                    break;
                }
            }
            let Some(job) = state.queue.claim() else {
                break;
            };
            let header = job.header();
            let waited = now.saturating_duration_since(header.since);
            pen.tally.waited(waited);
            long.add(pen, header, waited);
            self.members_left -= 1;
            self.bytes_left = self.bytes_left.saturating_sub(header.bytes as usize);
            let alone = header.kind == Kind::Alone;
            if group.members.is_empty() && group.claimed.is_empty() {
                state.holder.label.clone_from(&header.label);
            }
            group.claimed.push_back(Claimed { job, alone });
            if alone {
                self.closed = true;
                break;
            }
        }
        let admitted = pen.admit(&mut state);
        drop(state);
        pen.announce(admitted);
        long.say(pen);
    }
}

/// Writes that waited for longer than is thought right, to be told of without the
/// pen's lock: whoever listens to events is foreign code.
#[derive(Default)]
struct LongWaits {
    writes: usize,
    longest: Duration,
    label: Option<Arc<str>>,
}

impl LongWaits {
    #[inline]
    fn add<E>(&mut self, pen: &Pen<E>, header: &Header, waited: Duration) {
        if cfg!(feature = "tracing") && pen.witness.get().is_some_and(|it| it.is_long(waited)) {
            self.writes += 1;
            if waited > self.longest {
                self.longest = waited;
                self.label.clone_from(&header.label);
            }
        }
    }

    #[inline]
    fn say<E>(&self, pen: &Pen<E>) {
        if self.writes > 0 {
            event!(
                WARN,
                "a wait was long",
                database = pen.name.get().map(|name| &**name),
                waits = "for the pen",
                waited_ms = self.longest.as_millis() as u64,
                label = self.label.as_deref(),
                writes = self.writes,
            );
            let _ = pen;
        }
    }
}

/// Claims everybody who could have been in this turn.
fn claim_all<E: Engine>(pen: &Pen<E>, group: &mut Group<E>) {
    let mut state = lock(&pen.state);
    while state
        .queue
        .next_kind()
        .is_some_and(|kind| matches!(kind, Kind::Grouped | Kind::Alone))
    {
        let Some(job) = state.queue.claim() else {
            break;
        };
        group.claimed.push_back(Claimed { job, alone: false });
    }
    let admitted = pen.admit(&mut state);
    drop(state);
    pen.announce(admitted);
}
