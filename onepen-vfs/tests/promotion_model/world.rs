//! Who there is, what may happen next, and what is demanded of every state.

use std::sync::atomic::{AtomicBool, Ordering};

use onepen_vfs::promotion::{Action, Call, Machine, Stage, Told, Will};
use stateright::{Model, Property};

use super::shared::{Header, Shared};
use super::sqlite::{At, Core};

/// What a program does in one transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
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
pub enum Known {
    Nothing,
    Reads,
    Writes,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Connection {
    pub core: Core,
    pub machine: Machine,
    /// Part of the queue, or a stranger without the VFS.
    pub has_vfs: bool,
    pub alive: bool,
    /// Done from behind.
    pub to_do: Vec<Kind>,
    pub known: Known,
    /// The call that is under way, and what the machine wants done now.
    pub call: Option<(Call, Action)>,
    /// What the last lock of the operating system said.
    pub real: bool,
    /// As remembered for [`Action::HeaderIsSame`].
    pub remembered: Header,
    /// This transaction was foreseen to write, and it has waited as long as need be.
    pub promised: bool,
    /// It got the write lock with its snapshot.
    pub promoted: bool,
    pub is_waiting: Option<Will>,
    /// It took the turn, and does not know better.
    pub has_turn: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    pub shared: Shared,
    pub connections: Vec<Connection>,
    /// The gate: whose turn, and who stands in line.
    pub turn: Option<usize>,
    pub line: Vec<usize>,
    /// Who has the turn may read for a while.
    pub reads: bool,
    /// Somebody found that the turn stands still, and is about to pass it over.
    pub stands_still: bool,
    pub kills: u8,
    pub demotions: u8,
    pub torn: u8,
    pub impatient: u8,
    pub checkpoints: u8,
    /// Committed by anybody; the database's number has to be the same.
    pub commits: u8,
    pub broken: Option<Broken>,
}

/// A promise that was not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Broken {
    /// A transaction with the write lock of its first read found its snapshot stale.
    Stale,
    /// A transaction that was promised the lock was refused it.
    Refused,
    /// A call was answered in a way that the core asserts against.
    Nonsense,
}

/// What has happened somewhere; to see that the model comes to it.
#[derive(Debug, Default)]
pub struct Seen {
    pub restart_while_promoted: AtomicBool,
    pub retry_while_promoted: AtomicBool,
    pub stale_upgrade: AtomicBool,
    pub demoted: AtomicBool,
    pub gave_up: AtomicBool,
}

impl Seen {
    pub fn mark(what: &AtomicBool) {
        what.store(true, Ordering::Relaxed);
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Move {
    /// The next step; of two that are possible, the one named yes.
    Go(usize),
    /// The other.
    Else(usize),
    Kill(usize),
    Demote(usize),
    /// The header is being written while this one reads it.
    Torn(usize),
    LosePatience(usize),
    /// Somebody looks at the turn, and finds that its owner does not move.
    LookAtTurn,
    /// The gate gives it on.
    PassOver,
}

/// A mistake, to see that it is noticed.
///
/// Not among them: to leave out [`Action::HeaderIsSame`]. The core looks itself, and
/// begins again; that is slower, and takes a retry for an end, but loses nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Planted {
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
    /// A kind is taken for one that only reads as soon as one of it did.
    LearnsAtOnce,
    /// Nobody asks whether the turn is still its own.
    NotConfirmed,
    /// An upgrade that meets the lock of one who does not write gives up.
    WaitsNotABit,
}

/// When the gate gives on a turn whose owner does not move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PassesOver {
    Never,
    /// Unless it reads what it is going to change, and its time for that is not over.
    Idle,
    /// Also then.
    Anybody,
}

pub struct Promotion {
    pub programs: Vec<(bool, Known, Vec<Kind>)>,
    pub kills: u8,
    pub demotions: u8,
    pub torn: u8,
    pub impatient: u8,
    /// How often a checkpoint follows a commit by itself.
    pub checkpoints: u8,
    /// Whether the log is written and copied back at the start, so that the first
    /// writer restarts it.
    pub copied_back: bool,
    pub passes_over: PassesOver,
    /// Whether transactions that are known to write get the lock, or the turn alone.
    pub locks: bool,
    /// Whether a kind that only read is still promoted, and so promised the same as one
    /// that is known to write. Without it, one that only read is known for that.
    pub patient: bool,
    pub planted: Planted,
    pub seen: Seen,
}

impl Promotion {
    pub fn of(programs: &[(Known, &[Kind])]) -> Self {
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
            passes_over: PassesOver::Never,
            locks: true,
            patient: false,
            planted: Planted::Nothing,
            seen: Seen::default(),
        }
    }

    pub fn and_a_stranger(mut self, kinds: &[Kind]) -> Self {
        let kinds = kinds.iter().rev().copied().collect();
        self.programs.push((false, Known::Nothing, kinds));
        self
    }
}

impl State {
    pub fn is_done(&self, me: usize) -> bool {
        let connection = &self.connections[me];
        !connection.alive
            || connection.call.is_none()
                && connection.core.at == At::Rest
                && connection.to_do.is_empty()
    }

    pub fn all_done(&self) -> bool {
        (0..self.connections.len()).all(|me| self.is_done(me))
    }

    pub fn leave(&mut self, me: usize) {
        self.line.retain(|&who| who != me);
        self.connections[me].has_turn = false;
        if self.turn == Some(me) {
            self.give_turn(None);
        }
    }

    pub fn give_turn(&mut self, to: Option<usize>) {
        self.turn = to;
        self.reads = false;
        self.stands_still = false;
    }

    /// Whether the turn is still its own. Who was about to pass it over finds it changed.
    pub fn confirm(&mut self, me: usize, reads: bool) -> bool {
        let ours = self.turn == Some(me);
        if ours {
            self.give_turn(self.turn);
            self.reads = reads;
        }
        self.connections[me].has_turn = ours;
        ours
    }

    /// Whose turn it would be if `me` asked now.
    pub fn may_have_turn(&self, me: usize) -> bool {
        match self.turn {
            Some(owner) => owner == me,
            None => self.line.first().is_none_or(|&first| first == me),
        }
    }

    pub fn try_turn(&mut self, me: usize) -> bool {
        if self.connections[me].has_turn {
            return true; // as far as it knows
        }
        if self.may_have_turn(me) {
            self.line.retain(|&who| who != me);
            self.give_turn(Some(me));
            self.connections[me].has_turn = true;
            return true;
        }
        if !self.line.contains(&me) {
            self.line.push(me);
        }
        false
    }

    pub fn stands_in_line(&self, me: usize) -> bool {
        let connection = &self.connections[me];
        let waits = connection.is_waiting.is_some() || connection.core.at == At::Sleep;
        connection.alive && waits
    }

    /// Whether somebody who waits or sleeps would do something else now.
    pub fn is_worth_trying(&self, me: usize) -> bool {
        let lock_is_free = self.shared.write.is_none();
        if self.connections[me].has_turn {
            lock_is_free
        } else {
            self.may_have_turn(me)
        }
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
            has_turn: false,
        };
        vec![State {
            connections: self.programs.iter().map(connection).collect(),
            shared,
            turn: None,
            line: Vec::new(),
            reads: false,
            stands_still: false,
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
                Some((_, Action::WaitABit)) => {
                    let in_vain = state.shared.header != connection.remembered;
                    let no = self.planted == Planted::WaitsNotABit;
                    if state.shared.write.is_none() || in_vain || no {
                        moves.push(Move::Go(me));
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
        if self.passes_over != PassesOver::Never
            && let Some(owner) = state.turn
            && state.shared.write.is_none()
            && !state.stands_still
            && !(state.reads && self.passes_over == PassesOver::Idle)
            && (0..state.connections.len()).any(|me| me != owner && state.stands_in_line(me))
        {
            moves.push(Move::LookAtTurn);
        }
        if state.stands_still {
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
            Move::LookAtTurn => state.stands_still = true,
            Move::PassOver => state.give_turn(None),
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
