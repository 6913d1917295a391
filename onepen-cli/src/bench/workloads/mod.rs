//! What is run: one room per workload.
//!
//! Guarantees: a transaction is a value ([`Job`]) that carries everything it
//! needs, so it can be sent to another thread and run again with the same
//! result; a workload knows what must be true of the database afterwards
//! ([`Workload::verify`]) and so finds lost updates from the outside, without
//! trusting the way that was measured.

mod bank;
mod insert;
mod tpcb;
mod user;
mod ycsb;

pub use bank::Bank;
pub use insert::Insert;
pub use tpcb::Tpcb;
pub use user::{User, UserJob};
pub use ycsb::{Mix, Ycsb};

use super::random::Random;
use super::sql::{Fault, Session, Sql, Value};

/// A benchmark's subject: its tables, its transactions, its invariant.
pub trait Workload: Send + Sync {
    /// The statements that make the starting state, in order.
    fn load(&self) -> Vec<Sql>;

    /// The next transaction of a writing client.
    fn write(&self, draw: &mut Draw) -> Job;

    /// The next transaction of a reader beside the writers; `None` when the
    /// workload has none.
    fn read(&self, draw: &mut Draw) -> Option<Job>;

    /// What the database looks like now, before the first transaction:
    /// handed to [`Workload::verify`] afterwards.
    fn remember(&self, _session: &mut dyn Session) -> Result<Option<Value>, Fault> {
        Ok(None)
    }

    /// Compares the database with what was acknowledged.
    fn verify(
        &self,
        session: &mut dyn Session,
        before: Option<&Value>,
        acknowledged: Acknowledged,
    ) -> Result<Verdict, Fault>;
}

/// One client's source of transactions.
pub struct Draw {
    /// The client's own random numbers.
    pub random: Random,
    /// The client's number, unique in the whole run.
    pub client: u32,
}

impl Draw {
    /// The source of client `client` under the run's seed.
    pub fn new(seed: u64, client: u32) -> Self {
        Self {
            random: Random::new(seed ^ super::random::mix(u64::from(client) + 1)),
            client,
        }
    }
}

/// How many effects clients were told are in the database.
#[derive(Clone, Copy, Debug, Default)]
pub struct Acknowledged {
    /// Effects (see [`Work::effects`]) of the transactions that returned Ok.
    pub effects: u64,
    /// Effects of those whose outcome nobody knows.
    pub unknown: u64,
}

/// What the invariant says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Acknowledged effects that are not in the database; `None` when the
    /// workload cannot tell.
    pub lost: Option<u64>,
    /// Whatever else is wrong, in words.
    pub violations: Vec<String>,
}

impl Verdict {
    /// Compares a count in the database with what was acknowledged.
    fn of_count(what: &str, found: i64, acknowledged: Acknowledged) -> Self {
        let found = u64::try_from(found).unwrap_or(0);
        let at_most = acknowledged.effects + acknowledged.unknown;
        let mut verdict = Self {
            lost: Some(acknowledged.effects.saturating_sub(found)),
            violations: Vec::new(),
        };
        if found > at_most {
            verdict.violations.push(format!(
                "{} {what} more than were acknowledged",
                found - at_most
            ));
        }
        verdict
    }

    fn must_equal(&mut self, what: &str, found: i64, expected: i64) {
        if found != expected {
            self.violations
                .push(format!("{what} is {found}, must be {expected}"));
        }
    }
}

/// What one part of a transaction needs from a way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Several statements, none of which writes.
    Read,
    /// One statement that does not write: needs no BEGIN.
    ReadOne,
    /// Several statements that belong together.
    Write,
    /// One writing statement: a transaction by itself, without BEGIN.
    WriteOne,
}

impl Part {
    /// Whether it needs the write lock.
    pub fn writes(self) -> bool {
        matches!(self, Self::Write | Self::WriteOne)
    }

    /// Whether it is a transaction without BEGIN and COMMIT.
    pub fn is_single(self) -> bool {
        matches!(self, Self::ReadOne | Self::WriteOne)
    }
}

/// The variables of a script between its transactions; empty for all others.
pub type Variables = Vec<Value>;

/// What a transaction does. It may be run again, so it changes nothing but
/// the database.
pub trait Work {
    /// Its parts, each a transaction in the database. All but scripts have one.
    fn parts(&self) -> usize {
        1
    }

    /// What part number `part` needs.
    fn part(&self, part: usize) -> Part;

    /// Runs part number `part` with what the part before it answered.
    fn run(
        &self,
        part: usize,
        variables: &Variables,
        session: &mut dyn Session,
    ) -> Result<Variables, Fault>;

    /// What [`Workload::verify`] must find in the database afterwards.
    fn effects(&self) -> u64;
}

/// One transaction, ready to run on any thread.
// An enum and not a box: a heap allocation for each would be a measurable part
// of the fastest ways.
#[derive(Clone, Debug)]
pub enum Job {
    /// A row of the workload `insert`.
    Insert(insert::InsertJob),
    /// A transfer or a look at all balances.
    Bank(bank::BankJob),
    /// pgbench's own transaction.
    Tpcb(tpcb::TpcbJob),
    /// A read or an update of one record.
    Ycsb(ycsb::YcsbJob),
    /// The user's script.
    User(UserJob),
}

impl Job {
    /// The transaction behind it.
    pub fn work(&self) -> &dyn Work {
        match self {
            Self::Insert(job) => job,
            Self::Bank(job) => job,
            Self::Tpcb(job) => job,
            Self::Ycsb(job) => job,
            Self::User(job) => job,
        }
    }

    /// The one writing statement it consists of, for ways that have a call for
    /// just that.
    pub fn statement(&self) -> Option<(&'static str, insert::Params)> {
        match self {
            Self::Insert(job) => job.statement(),
            _ => None,
        }
    }
}

/// One line per workload, for `--list`.
pub const LIST: &[(&str, &str)] = &[
    (
        "insert",
        "one small row per transaction; every acknowledged row must be there",
    ),
    (
        "bank",
        "transfers that read two balances and write them back; no money and no transfer may be lost",
    ),
    (
        "tpcb",
        "pgbench's own: three updates, a select and an insert; all sums must agree",
    ),
    (
        "ycsb-a",
        "half reads, half updates of one record, a few records very hot",
    ),
    ("ycsb-b", "95 % reads, 5 % updates"),
    ("ycsb-c", "reads only"),
    ("ycsb-f", "half reads, half read-modify-write"),
    (
        "script",
        "your SQL over a copy of your database: --script FILE --db app.db",
    ),
];
