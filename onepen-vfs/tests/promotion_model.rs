//! Promoted transactions, in every order of their steps.
//!
//! The machine is the real one (`src/promotion.rs`). Around it stands a model of
//! SQLite's core in write-ahead mode, one shared access or lock in each step, from
//! `walTryBeginRead`, `sqlite3WalBeginWriteTransaction`, `walRestartLog`,
//! `sqlite3WalEndWriteTransaction`, `sqlite3WalEndReadTransaction`, `walCheckpoint`
//! and the part of `walIndexReadHdr` that takes the write lock to read a torn header;
//! and of the operating system's locks, of a gate reduced to a line and a turn, and of
//! programs. Connections are processes: any may be killed between two steps.
//! What nobody can know is both: whether a checkpoint follows, whether a
//! transaction that reads will write, whether it ends in COMMIT or ROLLBACK.
//!
//! Demanded in every state: see `Promotion::properties`; and that from every state
//! everybody who lives can still finish (no deadlock, and no loop without a way out).
//!
//! That the model can fail is shown too: the mistakes of two earlier attempts, and
//! others, are noticed.

#[path = "../src/promotion.rs"]
#[allow(dead_code, reason = "the model asks less than the VFS")]
mod promotion;

#[path = "promotion_model/sqlite.rs"]
mod sqlite;

#[path = "promotion_model/paths.rs"]
mod paths;

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};

use promotion::{Action, Answer, Call, Machine, Stage, Told, Will};
use sqlite::{At, Core, Header, Shared};
use stateright::{Checker, Model, Property};

use Kind::{Immediate, Passive, Perhaps, Read, ReadWrite, Truncate};
use Known::{Nothing, Reads, Writes};

/// What a program does in one transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    /// BEGIN, SELECT, UPDATE, COMMIT.
    ReadWrite,
    /// BEGIN, SELECT, and then an UPDATE or not.
    Perhaps,
    /// BEGIN, SELECT, COMMIT.
    Read,
    /// BEGIN IMMEDIATE, UPDATE, COMMIT; or a single UPDATE.
    Immediate,
    /// `PRAGMA wal_checkpoint`.
    Passive,
    /// `PRAGMA wal_checkpoint(TRUNCATE)`.
    Truncate,
}

/// What has been learned of the explicit transactions of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Known {
    Nothing,
    Reads,
    Writes,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Connection {
    core: Core,
    machine: Machine,
    /// Part of the queue, or a stranger without the VFS.
    has_vfs: bool,
    alive: bool,
    /// Done from behind.
    to_do: Vec<Kind>,
    known: Known,
    /// The call that is under way, and what the machine wants done now.
    call: Option<(Call, Action)>,
    /// What the last lock of the operating system said.
    real: bool,
    /// As remembered for [`Action::HeaderIsSame`].
    remembered: Header,
    /// This transaction was foreseen to write, and it has waited as long as need be.
    promised: bool,
    /// It got the write lock with its snapshot.
    promoted: bool,
    is_waiting: Option<Will>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct State {
    shared: Shared,
    connections: Vec<Connection>,
    /// The gate: whose turn, and who stands in line.
    turn: Option<usize>,
    line: Vec<usize>,
    kills: u8,
    demotions: u8,
    torn: u8,
    impatient: u8,
    checkpoints: u8,
    /// Committed by anybody; the database's number has to be the same.
    commits: u8,
    broken: Option<Broken>,
}

/// A promise that was not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Broken {
    /// A transaction with the write lock of its first read found its snapshot stale.
    Stale,
    /// A transaction that was promised the lock was refused it.
    Refused,
    /// A call was answered in a way that the core asserts against.
    Nonsense,
}

/// What has happened somewhere; to see that the model comes to it.
#[derive(Debug, Default)]
struct Seen {
    restart_while_promoted: AtomicBool,
    retry_while_promoted: AtomicBool,
    stale_upgrade: AtomicBool,
    demoted: AtomicBool,
    gave_up: AtomicBool,
}

impl Seen {
    fn mark(what: &AtomicBool) {
        what.store(true, Ordering::Relaxed);
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Move {
    /// The next step; of two that are possible, the one named yes.
    Go(usize),
    /// The other.
    Else(usize),
    Kill(usize),
    Demote(usize),
    /// The header is being written while this one reads it.
    Torn(usize),
    LosePatience(usize),
    /// The gate gives a turn on whose owner does not move.
    PassOver,
}

/// A mistake, to see that it is noticed.
///
/// Not among them: to leave out [`Action::HeaderIsSame`]. The core looks itself, and
/// begins again; that is slower, and takes a retry for an end, but loses nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Planted {
    Nothing,
    /// The first attempt: a read lock given back is taken for the transaction's end.
    FreedAtReadUnlock,
    /// The second: every explicit transaction is promoted.
    Everybody,
    /// A transaction that ends without having written keeps the lock.
    NotGivenBack,
    /// The core is told that it has the lock after a demotion.
    DemotedUnknown,
    /// An upgrade waits for its turn with its read lock.
    UpgradeWaits,
}

struct Promotion {
    programs: Vec<(bool, Known, Vec<Kind>)>,
    kills: u8,
    demotions: u8,
    torn: u8,
    impatient: u8,
    /// How often a checkpoint follows a commit by itself.
    checkpoints: u8,
    /// Whether the log is written and copied back at the start, so that the first
    /// writer restarts it.
    copied_back: bool,
    /// Whether the gate gives on a turn whose owner does not move.
    passes_over: bool,
    /// Whether transactions that are known to write get the lock, or the turn alone.
    locks: bool,
    planted: Planted,
    seen: Seen,
}

impl Promotion {
    fn of(programs: &[(Known, &[Kind])]) -> Self {
        let programs = programs
            .iter()
            .map(|(known, kinds)| (true, *known, kinds.iter().rev().copied().collect()))
            .collect();
        Self {
            programs,
            kills: 0,
            demotions: 0,
            torn: 0,
            impatient: 0,
            checkpoints: 0,
            copied_back: true,
            passes_over: false,
            locks: true,
            planted: Planted::Nothing,
            seen: Seen::default(),
        }
    }

    fn and_a_stranger(mut self, kinds: &[Kind]) -> Self {
        let kinds = kinds.iter().rev().copied().collect();
        self.programs.push((false, Known::Nothing, kinds));
        self
    }
}

impl State {
    fn is_done(&self, me: usize) -> bool {
        let connection = &self.connections[me];
        !connection.alive
            || connection.call.is_none()
                && connection.core.at == At::Rest
                && connection.to_do.is_empty()
    }

    fn all_done(&self) -> bool {
        (0..self.connections.len()).all(|me| self.is_done(me))
    }

    fn leave(&mut self, me: usize) {
        self.line.retain(|&who| who != me);
        if self.turn == Some(me) {
            self.turn = None;
        }
    }

    /// Whose turn it would be if `me` asked now.
    fn may_have_turn(&self, me: usize) -> bool {
        match self.turn {
            Some(owner) => owner == me,
            None => self.line.first().is_none_or(|&first| first == me),
        }
    }

    fn try_turn(&mut self, me: usize) -> bool {
        if self.may_have_turn(me) {
            self.line.retain(|&who| who != me);
            self.turn = Some(me);
            return true;
        }
        if !self.line.contains(&me) {
            self.line.push(me);
        }
        false
    }

    fn stands_in_line(&self, me: usize) -> bool {
        let connection = &self.connections[me];
        let waits = connection.is_waiting.is_some() || connection.core.at == At::Sleep;
        connection.alive && waits
    }

    /// Whether somebody who waits or sleeps would do something else now.
    fn is_worth_trying(&self, me: usize) -> bool {
        let lock_is_free = self.shared.write.is_none();
        self.may_have_turn(me) && (self.turn != Some(me) || lock_is_free)
    }
}

impl Model for Promotion {
    type State = State;
    type Action = Move;

    fn init_states(&self) -> Vec<State> {
        let shared = Shared::new(self.copied_back);
        let connection = |(has_vfs, known, to_do): &(bool, Known, Vec<Kind>)| Connection {
            core: Core::new(shared.header),
            machine: Machine::default(),
            has_vfs: *has_vfs,
            alive: true,
            to_do: to_do.clone(),
            known: *known,
            call: None,
            real: false,
            remembered: shared.header,
            promised: false,
            promoted: false,
            is_waiting: None,
        };
        vec![State {
            connections: self.programs.iter().map(connection).collect(),
            shared,
            turn: None,
            line: Vec::new(),
            kills: self.kills,
            demotions: self.demotions,
            torn: self.torn,
            impatient: self.impatient,
            checkpoints: self.checkpoints,
            commits: 0,
            broken: None,
        }]
    }

    fn actions(&self, state: &State, moves: &mut Vec<Move>) {
        for (me, connection) in state.connections.iter().enumerate() {
            if state.is_done(me) {
                continue;
            }
            match connection.call {
                Some((call, Action::TryTurn)) if self.upgrade_waits(call) => {
                    if state.is_worth_trying(me) {
                        moves.push(Move::Go(me));
                    }
                }
                Some((_, Action::Wait(_))) => {
                    if state.is_worth_trying(me) {
                        moves.push(Move::Go(me));
                    }
                    if state.impatient > 0 {
                        moves.push(Move::LosePatience(me));
                    }
                }
                Some((_, Action::ExpectsCheckpoint)) => {
                    moves.push(Move::Go(me));
                    if state.checkpoints > 0 {
                        moves.push(Move::Else(me));
                    }
                }
                Some((_, Action::Retries)) => {
                    moves.push(Move::Go(me));
                    // In doubt it may say no.
                    if matches!(connection.core.at, At::Retry { .. }) {
                        moves.push(Move::Else(me));
                    }
                }
                Some(_) => moves.push(Move::Go(me)),
                None => {
                    if connection.core.at != At::Sleep || state.is_worth_trying(me) {
                        moves.push(Move::Go(me));
                    }
                    let is_choice = match connection.core.at {
                        At::Snapshot => connection.to_do.last() == Some(&Kind::Perhaps),
                        At::Commit => true,
                        At::Ended => connection.core.committed && state.checkpoints > 0,
                        _ => false,
                    };
                    if is_choice {
                        moves.push(Move::Else(me));
                    }
                    if connection.core.at == At::ReadHeader && state.torn > 0 {
                        moves.push(Move::Torn(me));
                    }
                    let stays = connection.core.at == At::Snapshot;
                    if stays && connection.machine.stage() == Stage::Promoted && state.demotions > 0
                    {
                        moves.push(Move::Demote(me));
                    }
                }
            }
            if state.kills > 0 {
                moves.push(Move::Kill(me));
            }
        }
        if self.passes_over
            && let Some(owner) = state.turn
            && state.shared.write.is_none()
            && (0..state.connections.len()).any(|me| me != owner && state.stands_in_line(me))
        {
            moves.push(Move::PassOver);
        }
    }

    fn next_state(&self, last: &State, chosen: Move) -> Option<State> {
        let mut state = last.clone();
        match chosen {
            Move::Go(me) => self.go(&mut state, me, true),
            Move::Else(me) => self.go(&mut state, me, false),
            Move::Kill(me) => {
                state.kills -= 1;
                state.connections[me].alive = false;
                state.connections[me].is_waiting = None;
                state.shared.forget(me);
                state.leave(me);
            }
            Move::Demote(me) => {
                state.demotions -= 1;
                Seen::mark(&self.seen.demoted);
                if self.planted == Planted::DemotedUnknown {
                    state.shared.write = None;
                } else {
                    self.call(&mut state, me, Call::Demote);
                    state.connections[me].promised = false;
                    state.connections[me].promoted = false;
                }
            }
            Move::Torn(me) => {
                state.torn -= 1;
                state.connections[me].core.at = At::TornLock;
                self.call(&mut state, me, Call::LockWrite);
            }
            Move::LosePatience(me) => {
                state.impatient -= 1;
                Seen::mark(&self.seen.gave_up);
                state.connections[me].promised = false;
                state.connections[me].is_waiting = None;
                self.told(&mut state, me, Told::No);
            }
            Move::PassOver => state.turn = None,
        }
        (state != *last).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("one writer", |_, state: &State| {
                let mut writers = (0..state.connections.len())
                    .filter(|&me| state.connections[me].alive && state.connections[me].core.writes);
                match (writers.next(), writers.next()) {
                    (None, _) => true,
                    (Some(one), None) => state.shared.write == Some(one),
                    (Some(_), Some(_)) => false,
                }
            }),
            Property::always("no update is lost", |_, state: &State| {
                state.shared.header.value == state.commits
            }),
            Property::always("what was promised is kept", |_, state: &State| {
                state.broken.is_none()
            }),
            Property::always("who waits holds nothing", |_, state: &State| {
                state.connections.iter().enumerate().all(|(me, one)| {
                    (one.is_waiting.is_none() && one.core.at != At::Sleep)
                        || !one.alive
                        || !state.shared.is_held_by(me)
                        || one.machine.checkpointing()
                })
            }),
            Property::always("a known reader never waits", |_, state: &State| {
                state.connections.iter().all(|one| {
                    one.is_waiting.is_none()
                        || one.known != Known::Reads
                        || one.to_do.last() != Some(&Kind::Read)
                })
            }),
            Property::always(
                "between transactions nothing is held",
                |_, state: &State| {
                    state.connections.iter().enumerate().all(|(me, one)| {
                        let rests = one.core.at == At::Rest && one.call.is_none();
                        let keeps = one.machine.again() || one.machine.expects_checkpoint();
                        !one.alive
                            || !rests
                            || !state.shared.is_held_by(me)
                                && (keeps || state.turn != Some(me))
                                && !one.machine.holds_write()
                    })
                },
            ),
            Property::sometimes("all of it is done", |_, state: &State| {
                state.all_done() && state.commits > 0
            }),
        ]
    }
}

impl Promotion {
    /// The next step of one connection.
    fn go(&self, state: &mut State, me: usize, yes: bool) {
        match state.connections[me].call {
            Some((call, action)) => {
                let told = self.carry_out(state, me, call, action, yes);
                self.told(state, me, told);
            }
            None => self.step(state, me, yes),
        }
        // What nobody else can see needs no step of its own.
        while state.connections[me].call.is_none() && self.is_private(state, me) {
            self.step(state, me, true);
        }
    }

    /// Whether the core's next step touches nothing that is shared, and is the only
    /// one that is possible.
    fn is_private(&self, state: &State, me: usize) -> bool {
        let connection = &state.connections[me];
        let core = &connection.core;
        match core.at {
            At::Rest => !connection.to_do.is_empty() && state.torn == 0,
            At::Snapshot => state.demotions == 0 && connection.to_do.last() != Some(&Kind::Perhaps),
            At::Restart => core.is_on_log(),
            At::Ended => !core.committed || state.checkpoints == 0,
            _ => false,
        }
    }

    /// The core asks; its connection stands at where the answer is expected.
    fn call(&self, state: &mut State, me: usize, call: Call) {
        let connection = &mut state.connections[me];
        let action = if connection.has_vfs {
            connection.machine.ask(call)
        } else {
            Action::Pass
        };
        self.follow(state, me, call, action);
    }

    fn told(&self, state: &mut State, me: usize, told: Told) {
        let connection = &mut state.connections[me];
        let Some((call, _)) = connection.call else {
            return;
        };
        let action = if connection.has_vfs {
            connection.machine.told(told)
        } else {
            Action::Answer(Answer::AsReal)
        };
        self.follow(state, me, call, action);
    }

    fn upgrade_waits(&self, call: Call) -> bool {
        self.planted == Planted::UpgradeWaits && call == Call::LockWrite
    }

    /// Goes on until something shared is to be done, or to the answer.
    fn follow(&self, state: &mut State, me: usize, call: Call, mut action: Action) {
        loop {
            match action {
                Action::Answer(answer) => {
                    state.connections[me].call = None;
                    let ok = match answer {
                        Answer::Ok => true,
                        Answer::NotYourTurn => false,
                        Answer::AsReal => state.connections[me].real,
                    };
                    if call != Call::Demote {
                        self.answered(state, me, call, ok);
                    }
                    return;
                }
                Action::Foresee | Action::BeginsTransaction | Action::Learn(_) => {
                    let told = self.carry_out(state, me, call, action, true);
                    action = state.connections[me].machine.told(told);
                }
                action => {
                    let connection = &mut state.connections[me];
                    connection.call = Some((call, action));
                    connection.is_waiting = match action {
                        Action::Wait(will) => Some(will),
                        Action::TryTurn if self.upgrade_waits(call) => Some(Will::Write),
                        _ => None,
                    };
                    return;
                }
            }
        }
    }

    /// What the VFS does for the machine.
    fn carry_out(
        &self,
        state: &mut State,
        me: usize,
        call: Call,
        action: Action,
        yes: bool,
    ) -> Told {
        let planted = self.planted;
        let connection = &mut state.connections[me];
        match action {
            Action::Foresee => {
                let writes = if self.locks { Will::Write } else { Will::Turn };
                let will = match (connection.to_do.last(), connection.known) {
                    (Some(Kind::ReadWrite | Kind::Read | Kind::Perhaps), _)
                        if planted == Planted::Everybody =>
                    {
                        Will::Write
                    }
                    (Some(Kind::ReadWrite | Kind::Read | Kind::Perhaps), Known::Writes) => writes,
                    (Some(Kind::ReadWrite | Kind::Read | Kind::Perhaps), Known::Nothing) => {
                        Will::Perhaps
                    }
                    _ => Will::Read,
                };
                // A turn is no promise where turns are passed over.
                connection.promised =
                    will == Will::Write || will == Will::Turn && !self.passes_over;
                return Told::Foreseen(will);
            }
            Action::RememberHeader => connection.remembered = state.shared.header,
            Action::HeaderIsSame => {
                return (connection.remembered == state.shared.header).into();
            }
            Action::TryTurn => return state.try_turn(me).into(),
            Action::Wait(_) => {}
            Action::BeginsTransaction => return (!connection.core.is_open).into(),
            Action::Retries => {
                let retries = matches!(connection.core.at, At::Retry { .. });
                if retries && connection.machine.stage() == Stage::Promoted {
                    Seen::mark(&self.seen.retry_while_promoted);
                }
                return (retries && yes).into();
            }
            Action::Pass => {
                let slot = connection.core.wanted;
                let real = match call {
                    Call::LockRead => state.shared.lock_read(me, slot),
                    Call::LockWrite => state.shared.lock_write(me),
                    Call::LockCheckpoint => state.shared.lock_checkpoint(me),
                    Call::UnlockRead => {
                        state.shared.unlock_read(me, slot);
                        if planted == Planted::FreedAtReadUnlock
                            && connection.promoted
                            && state.shared.write == Some(me)
                        {
                            state.shared.write = None;
                        }
                        true
                    }
                    Call::UnlockWrite => state.shared.unlock_write(me),
                    Call::UnlockCheckpoint => {
                        state.shared.checkpoint = None;
                        true
                    }
                    Call::Demote | Call::Close => true,
                };
                state.connections[me].real = real;
                return real.into();
            }
            Action::RealLockWrite => {
                let real = state.shared.lock_write(me);
                state.connections[me].real = real;
                return real.into();
            }
            Action::RealUnlockWrite => {
                if planted != Planted::NotGivenBack {
                    state.shared.unlock_write(me);
                }
            }
            Action::ExpectsCheckpoint => return (!yes).into(),
            Action::NoCheckpointCame => {}
            Action::Learn(true) => connection.known = Known::Writes,
            Action::Learn(false) => {
                if connection.known == Known::Nothing {
                    connection.known = Known::Reads;
                }
            }
            Action::PassOn => state.leave(me),
            Action::Answer(_) => {}
        }
        Told::Yes
    }
}

/// Runs it, and returns what it came to.
fn passes(model: Promotion) -> Seen {
    let (states, broken) = paths::look(&model);
    println!("{states} states");
    if !broken.is_empty() {
        println!("{broken:?}");
        // The way there.
        model.checker().spawn_bfs().join().assert_properties();
        panic!("{broken:?}");
    }
    model.seen
}

/// What of it does not hold.
fn fails(model: &Promotion) -> Vec<&'static str> {
    paths::look(model).1
}

/// Every machine between two calls, whatever was asked before and came of it.
fn machines() -> HashSet<Machine> {
    const CALLS: [Call; 8] = [
        Call::LockRead,
        Call::UnlockRead,
        Call::LockWrite,
        Call::UnlockWrite,
        Call::LockCheckpoint,
        Call::UnlockCheckpoint,
        Call::Demote,
        Call::Close,
    ];
    let mut between = HashSet::from([Machine::default()]);
    let mut within = HashSet::new();
    let mut to_do = vec![(Machine::default(), None)];
    while let Some((machine, action)) = to_do.pop() {
        let mut go_on = |mut machine: Machine, go: &dyn Fn(&mut Machine) -> Action| {
            let next = go(&mut machine);
            let is_new = match next {
                Action::Answer(_) => between.insert(machine),
                _ => within.insert((machine, next)),
            };
            if is_new {
                let under_way = (!matches!(next, Action::Answer(_))).then_some(next);
                to_do.push((machine, under_way));
            }
        };
        match action {
            None => CALLS
                .iter()
                .for_each(|&call| go_on(machine, &|machine| machine.ask(call))),
            Some(Action::Foresee) => [Will::Read, Will::Write, Will::Turn, Will::Perhaps]
                .iter()
                .for_each(|&will| {
                    go_on(machine, &|machine| machine.told(Told::Foreseen(will)));
                }),
            Some(_) => [Told::Yes, Told::No]
                .iter()
                .for_each(|&told| go_on(machine, &|machine| machine.told(told))),
        }
    }
    between
}

#[test]
fn the_short_way_of_a_read_lock_is_the_long_one() {
    let (mut locks, mut unlocks) = (0, 0);
    for machine in machines() {
        for granted in [true, false] {
            if machine.may_read_at_once() {
                let mut long = machine;
                assert_eq!(long.ask(Call::LockRead), Action::Foresee, "{machine:?}");
                assert_eq!(long.told(Told::Foreseen(Will::Read)), Action::Pass);
                assert_eq!(long.told(granted.into()), Action::Answer(Answer::AsReal));
                let mut short = machine;
                short.short_lock_read(granted);
                assert_eq!(short, long, "{machine:?}");
                locks += 1;
            }
            if machine.may_end_at_once() {
                let mut long = machine;
                assert_eq!(long.ask(Call::UnlockRead), Action::Pass, "{machine:?}");
                let mut next = long.told(granted.into());
                let mut short = machine;
                if short.short_unlock_read() {
                    assert_eq!(next, Action::PassOn, "{machine:?}");
                    next = long.told(Told::Yes);
                }
                assert_eq!(next, Action::Answer(Answer::AsReal), "{machine:?}");
                assert_eq!(short, long, "{machine:?}");
                unlocks += 1;
            }
        }
    }
    assert!(locks > 0 && unlocks > 0);
}

#[test]
fn promoted_transactions_lose_no_update_and_are_refused_nothing() {
    let seen = passes(Promotion::of(&[
        (Writes, &[ReadWrite, ReadWrite]),
        (Writes, &[ReadWrite]),
    ]));
    assert!(seen.restart_while_promoted.into_inner());
    assert!(seen.retry_while_promoted.into_inner());
    passes(Promotion {
        copied_back: false,
        ..Promotion::of(&[
            (Writes, &[ReadWrite]),
            (Writes, &[ReadWrite]),
            (Writes, &[ReadWrite]),
        ])
    });
}

/// Without the lock: the turn alone keeps others away, as long as all are known to
/// write or begin as writers. Where it is passed over, SQLite refuses, and nothing is
/// lost.
#[test]
fn transactions_with_the_turn_alone_are_refused_nothing_while_all_queue() {
    let base = || Promotion {
        locks: false,
        ..Promotion::of(&[(Writes, &[ReadWrite, ReadWrite]), (Writes, &[ReadWrite])])
    };
    passes(base());
    passes(Promotion {
        locks: false,
        ..Promotion::of(&[(Writes, &[ReadWrite, Perhaps]), (Nothing, &[Immediate])])
    });
    passes(Promotion {
        passes_over: true,
        ..base()
    });
    passes(Promotion {
        kills: 1,
        passes_over: true,
        locks: false,
        ..Promotion::of(&[(Writes, &[ReadWrite]), (Reads, &[ReadWrite])])
    });
}

/// With checkpoints by themselves after commits, foreseen or not, and turns that are
/// passed over.
#[test]
fn checkpoints_after_commits_and_turns_passed_over_change_nothing() {
    passes(Promotion {
        checkpoints: 1,
        passes_over: true,
        ..Promotion::of(&[(Writes, &[ReadWrite]), (Writes, &[ReadWrite])])
    });
}

#[test]
fn a_process_may_be_killed_between_any_two_steps() {
    passes(Promotion {
        kills: 1,
        ..Promotion::of(&[(Writes, &[ReadWrite, ReadWrite]), (Writes, &[ReadWrite])])
    });
    passes(Promotion {
        kills: 1,
        ..Promotion::of(&[(Writes, &[ReadWrite]), (Nothing, &[Perhaps])])
    });
}

#[test]
fn readers_do_not_wait_and_checkpointers_do_no_harm() {
    for checkpoint in [Passive, Truncate] {
        passes(Promotion {
            passes_over: true,
            ..Promotion::of(&[
                (Writes, &[ReadWrite]),
                (Reads, &[Read]),
                (Nothing, &[checkpoint]),
            ])
        });
    }
}

#[test]
fn what_kind_a_transaction_is_may_be_unknown_or_known_wrongly() {
    let seen = passes(Promotion {
        passes_over: true,
        ..Promotion::of(&[(Nothing, &[ReadWrite, ReadWrite]), (Reads, &[ReadWrite])])
    });
    assert!(
        seen.stale_upgrade.into_inner(),
        "an upgrade is SQLite's own business"
    );
    passes(Promotion {
        passes_over: true,
        ..Promotion::of(&[(Nothing, &[Perhaps]), (Writes, &[Perhaps, Perhaps])])
    });
}

#[test]
fn others_write_too_in_turn_or_as_strangers() {
    passes(Promotion::of(&[
        (Writes, &[ReadWrite, ReadWrite]),
        (Nothing, &[Immediate, Immediate]),
    ]));
    passes(
        Promotion::of(&[(Writes, &[ReadWrite, ReadWrite])]).and_a_stranger(&[ReadWrite, ReadWrite]),
    );
}

#[test]
fn a_torn_header_an_impatient_program_and_a_demotion_change_nothing() {
    let base = || Promotion::of(&[(Writes, &[ReadWrite, ReadWrite]), (Writes, &[ReadWrite])]);
    passes(Promotion { torn: 1, ..base() });
    let seen = passes(Promotion {
        impatient: 1,
        ..base()
    });
    assert!(seen.gave_up.into_inner());
    let seen = passes(Promotion {
        demotions: 1,
        ..base()
    });
    assert!(seen.demoted.into_inner());
}

#[test]
fn mistakes_are_noticed() {
    let base = || Promotion::of(&[(Writes, &[ReadWrite, ReadWrite]), (Writes, &[ReadWrite])]);
    let with_reader = || Promotion::of(&[(Writes, &[ReadWrite]), (Reads, &[Read])]);
    let learning = || Promotion::of(&[(Reads, &[ReadWrite]), (Writes, &[ReadWrite])]);
    let may_write = || Promotion::of(&[(Writes, &[Perhaps]), (Writes, &[ReadWrite])]);
    let passed_over = |model| Promotion {
        passes_over: true,
        ..model
    };
    let demoted = |model| Promotion {
        demotions: 1,
        ..model
    };
    for (planted, model, expected) in [
        (Planted::FreedAtReadUnlock, base(), "one writer"),
        (
            Planted::FreedAtReadUnlock,
            passed_over(base()),
            "no update is lost",
        ),
        (
            Planted::Everybody,
            with_reader(),
            "a known reader never waits",
        ),
        (
            Planted::NotGivenBack,
            may_write(),
            "between transactions nothing is held",
        ),
        (Planted::NotGivenBack, may_write(), paths::STUCK),
        (Planted::DemotedUnknown, demoted(base()), "one writer"),
        (Planted::UpgradeWaits, learning(), "who waits holds nothing"),
    ] {
        let found = fails(&Promotion { planted, ..model });
        println!("{planted:?}: {found:?}");
        assert!(
            found.contains(&expected),
            "{planted:?}: {expected} holds; {found:?} do not"
        );
    }
}
