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
//!
//! `bounds` says how large a group becomes, `member` runs one of it, `alone` is
//! for writes that share their transaction with nobody.

mod alone;
mod bounds;
mod member;

use std::collections::VecDeque;
use std::time::Instant;

use self::alone::run_exclusive;
use self::bounds::{Bounds, claim_all};
use self::member::{Fate, fail_if_ok, run_bare, run_begun_alone, run_with_savepoint};
use super::herald::Herald;
use super::job::{Kind, drop_quietly};
use super::queue::Queued;
use super::turn::Turn;
use super::{Held, Pen, Wake, WhileSomebodyWaits};
use crate::engine::{Engine, Patience, Until};
use crate::error::{Error, ErrorKind, Outcome, Result};
use crate::sync::{Arc, Ordering, lock};
use crate::trace::event;

/// Groups run with savepoints after one in which a member failed.
const WARY_GROUPS: u32 = 64;

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
        let crowd = self.wake.sleepers() >= pen.limits.wake_beside;
        pen.eager.crowd(crowd);
        if crowd {
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
            job.fail(error().with_label(job.header().label()));
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
        let exclusive = {
            let mut state = lock(&pen.state);
            match state.queue.next_kind() {
                None => return,
                // Under the lock under which it was looked at: it may give up, and whoever
                // is next then needs a transaction.
                Some(Kind::Exclusive | Kind::Maintenance) => state.queue.claim(),
                Some(Kind::Grouped | Kind::Alone) => None,
            }
        };
        match exclusive {
            Some(job) => run_exclusive(pen, engine, group, job),
            None => run_turn(pen, engine, group),
        }
        turn.wrote(group.last_size);
        drop(turn); // others need not wait until everybody is awake
        group.announce(pen);
    }
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
            job.fail(error.with_label(header.label()));
        }
    }
    group.last_size += group.members.len();
    let mut members = std::mem::take(&mut group.members);
    members.drain(..).for_each(|job| group.answer(job));
    group.members = members; // its allocation
}

fn fail_all<E: Engine>(group: &mut Group<E>, error: Error) {
    let failure = Arc::new(error);
    group.last_size += group.members.len() + group.claimed.len();
    group.fail_all(|| Error::same_as(&failure));
}

/// BEGIN, bracketed so that others can say what is waited for.
fn begin<E: Engine>(pen: &Pen<E>, engine: &mut E, patience: &dyn Patience) -> Result<()> {
    pen.at_write_lock.store(true, Ordering::Relaxed);
    let begun = engine.begin(patience);
    pen.at_write_lock.store(false, Ordering::Relaxed);
    begun
}

/// Those who share a transaction wait together, until the last of them would
/// give up.
fn patience_of_all<'a, E: 'a>(jobs: impl IntoIterator<Item = &'a Queued<E>>) -> Until<'static> {
    let deadlines = jobs.into_iter().map(|job| job.header().deadline());
    let deadline = deadlines.reduce(|a, b| Some(a?.max(b?))).flatten();
    Until {
        deadline,
        cancel: None,
    }
}
