//! Which deeds a client does: one kind of run for each thing that can go wrong.
//!
//! Guarantee: what a client does next depends on the seed, on which client it
//! is and on how many deeds it has done, on nothing else.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::deeds::{COLUMNS, Deed, How, INDEX, Judged, Part, Spoil};
use crate::bench::random::{Random, mix};

/// A kind of run.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum,
)]
#[serde(rename_all = "kebab-case")]
pub enum Workload {
    /// Transfers between accounts, beside sums over all of them
    Bank,
    /// Lists that are appended to and read: judged without any numbering
    ListAppend,
    /// One number that everybody counts up
    Counter,
    /// Two people on call, of whom one must stay
    WriteSkew,
    /// Writes that fail, panic, roll back, are cancelled, among others that do not
    GroupAbort,
    /// Readers that stay for long beside writers, with a short log
    LongReader,
    /// Columns and indexes come and go
    Ddl,
    /// Each write is at once read by somebody else
    ReadYourWrites,
}

/// All, in the order in which they run.
pub const ALL: [Workload; 8] = [
    Workload::Bank,
    Workload::ListAppend,
    Workload::Counter,
    Workload::WriteSkew,
    Workload::GroupAbort,
    Workload::LongReader,
    Workload::Ddl,
    Workload::ReadYourWrites,
];

const ACCOUNTS: u64 = 40;
const REGISTERS: u64 = 12;
const PAIRS: u64 = 4;

impl Workload {
    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bank => "bank",
            Self::ListAppend => "list-append",
            Self::Counter => "counter",
            Self::WriteSkew => "write-skew",
            Self::GroupAbort => "group-abort",
            Self::LongReader => "long-reader",
            Self::Ddl => "ddl",
            Self::ReadYourWrites => "read-your-writes",
        }
    }

    /// How its history is judged.
    pub fn judged(self) -> Judged {
        match self {
            Self::ListAppend => Judged::ByLists,
            _ => Judged::BySerial,
        }
    }

    /// What is in the registers before the first deed; those beyond the rows of
    /// their table are facts of the schema.
    pub fn start(self) -> Vec<(u64, i64)> {
        let registers = |n: u64, value: i64| (0..n).map(|key| (key, value)).collect();
        match self {
            Self::Bank => registers(ACCOUNTS, 100),
            Self::ListAppend => Vec::new(),
            Self::Counter => registers(1, 0),
            Self::WriteSkew => registers(2 * PAIRS, 1),
            Self::Ddl => vec![(0, 0), (COLUMNS, 1), (INDEX, 0)],
            Self::GroupAbort | Self::LongReader | Self::ReadYourWrites => registers(REGISTERS, 0),
        }
    }
}

/// Where a client's deeds come from.
pub struct Draw {
    workload: Workload,
    random: Random,
    first_id: u64,
    /// Deeds drawn so far.
    done: u64,
    client: u64,
    /// Whether it is a task of the library, or a thread, or a stranger.
    pub kind: ClientKind,
}

/// What a client is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientKind {
    /// A thread that uses the library.
    Thread,
    /// A task that uses the library.
    Task,
    /// A thread with a plain connection.
    Stranger,
}

impl Draw {
    /// Of one client of one process. Ids read as process, client, deed.
    pub fn new(
        workload: Workload,
        seed: u64,
        incarnation: u64,
        client: u64,
        kind: ClientKind,
    ) -> Self {
        let who = incarnation * 10_000 + client;
        Self {
            workload,
            random: Random::new(seed ^ mix(who + 1)),
            first_id: who * 100_000_000,
            done: 0,
            client: who,
            kind,
        }
    }

    /// The client, unique in the run.
    pub fn client(&self) -> u64 {
        self.client
    }

    /// The next deed.
    pub fn next(&mut self) -> Deed {
        self.done += 1;
        let mut deed = Deed {
            id: self.first_id + self.done,
            writes: true,
            parts: Vec::new(),
            how: match self.below(10) {
                0 => How::Once,
                1 => How::Submit,
                _ => How::Plain,
            },
            deadline: None,
            dropped: false,
        };
        match self.workload {
            Workload::Bank => self.bank(&mut deed),
            Workload::ListAppend => self.lists(&mut deed),
            Workload::Counter => self.counter(&mut deed),
            Workload::WriteSkew => self.write_skew(&mut deed),
            Workload::GroupAbort => self.group_abort(&mut deed),
            Workload::LongReader => self.long_reader(&mut deed),
            Workload::Ddl => self.ddl(&mut deed),
            Workload::ReadYourWrites => self.read_your_writes(&mut deed),
        }
        if !deed.writes {
            deed.how = match self.below(4) {
                0 => How::Snapshot,
                _ => How::Plain,
            };
        }
        deed
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.random
            .between(0, bound.cast_signed() - 1)
            .cast_unsigned()
    }

    fn two_of(&mut self, bound: u64) -> (u64, u64) {
        let one = self.below(bound);
        (one, (one + 1 + self.below(bound - 1)) % bound)
    }

    fn add(&mut self, key: u64) -> Part {
        let by = self.random.between(1, 9);
        if self.below(2) == 0 {
            Part::Add { key, by }
        } else {
            Part::AddSlowly { key, by }
        }
    }

    fn bank(&mut self, deed: &mut Deed) {
        if self.below(5) == 0 {
            deed.writes = false;
            // In two statements: a snapshot that is torn between them shows.
            let middle = self.below(ACCOUNTS - 1);
            deed.parts = vec![
                Part::Range {
                    from: 0,
                    to: middle,
                },
                Part::Range {
                    from: middle + 1,
                    to: ACCOUNTS,
                },
            ];
        } else {
            let (from, to) = self.two_of(ACCOUNTS);
            let amount = self.random.between(1, 60);
            deed.parts = vec![Part::Transfer { from, to, amount }];
        }
    }

    fn lists(&mut self, deed: &mut Deed) {
        // New lists after a while, or reading them would be all there is.
        let round = self.done / 64;
        let steps = 1 + self.below(4);
        for step in 0..steps {
            let key = round * 8 + self.below(8);
            deed.parts.push(if self.below(2) == 0 {
                Part::List(key)
            } else {
                Part::Append {
                    key,
                    value: (deed.id * 4 + step).cast_signed(),
                }
            });
        }
        deed.writes = !deed.appends().is_empty();
    }

    fn counter(&mut self, deed: &mut Deed) {
        if self.below(4) == 0 {
            deed.writes = false;
            deed.parts = vec![Part::Look(vec![0])];
        } else {
            deed.parts = vec![self.add(0)];
        }
    }

    fn write_skew(&mut self, deed: &mut Deed) {
        let pair = 2 * self.below(PAIRS);
        if self.below(4) == 0 {
            deed.writes = false;
            deed.parts = vec![Part::Look(vec![pair, pair + 1])];
        } else {
            let side = self.below(2);
            deed.parts = vec![Part::OnCall {
                me: pair + side,
                other: pair + 1 - side,
            }];
        }
    }

    fn group_abort(&mut self, deed: &mut Deed) {
        if self.below(8) == 0 {
            deed.writes = false;
            deed.parts = vec![Part::Range {
                from: 0,
                to: REGISTERS,
            }];
            return;
        }
        let (one, two) = self.two_of(REGISTERS);
        deed.parts = vec![self.add(one), self.add(two)];
        let spoil = match self.below(60) {
            0 => Spoil::Error,
            // A panic of a task would end the task.
            1 if self.kind != ClientKind::Task => Spoil::Panic,
            2 => Spoil::Constraint,
            3 => Spoil::Rollback,
            // Without the library's guards it would go on by itself.
            4 if self.kind != ClientKind::Stranger => Spoil::Swallowed,
            5 => Spoil::Deferred,
            6 => {
                deed.deadline = Some(Duration::from_micros(self.below(2_000)));
                return;
            }
            7 if self.kind == ClientKind::Task => {
                deed.dropped = true;
                return;
            }
            _ => return,
        };
        // In the middle or at the end: something is written before it.
        let place = 1 + usize::from(self.below(2) == 0);
        deed.parts.insert(place, Part::Spoil(spoil));
    }

    fn long_reader(&mut self, deed: &mut Deed) {
        if self.done.is_multiple_of(50)
            || self.kind == ClientKind::Thread && self.client.is_multiple_of(4)
        {
            deed.writes = false;
            let all = Part::Range {
                from: 0,
                to: REGISTERS,
            };
            for _ in 0..1 + self.below(5) {
                let pause = Duration::from_millis(1 + self.below(120));
                deed.parts.extend([all.clone(), Part::Pause(pause)]);
            }
            deed.parts.push(all);
        } else {
            let key = self.below(REGISTERS);
            deed.parts = vec![self.add(key)];
        }
    }

    fn ddl(&mut self, deed: &mut Deed) {
        match self.below(12) {
            0 => deed.parts = vec![Part::Columns { more: true }],
            1 => deed.parts = vec![Part::Columns { more: false }],
            2 => {
                let made = self.below(2) == 0;
                deed.parts = vec![Part::Index { made }];
            }
            3..8 => {
                deed.writes = false;
                deed.parts = vec![Part::Schema, Part::Look(vec![0])];
            }
            _ => deed.parts = vec![self.add(0), Part::Schema],
        }
    }

    fn read_your_writes(&mut self, deed: &mut Deed) {
        // Everybody writes and reads the same few registers by turns.
        let key = self.client % 3;
        if self.done.is_multiple_of(2) {
            deed.writes = false;
            deed.parts = vec![Part::Look(vec![key])];
        } else {
            deed.parts = vec![self.add(key)];
        }
    }
}
