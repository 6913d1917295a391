//! pgbench's own transaction ("TPC-B (sort of)"), statement by statement, over
//! tables of the same names and sizes (<https://www.postgresql.org/docs/current/pgbench.html>).
//!
//! Invariant: the accounts, the tellers, the branches and the history agree on
//! the sum of all changes, and the history has one row per acknowledged
//! transaction. At scale 1 all clients update one branch row, in PostgreSQL as
//! here: raise `--scale` to the number of clients for a fair view of its row locks.

use super::{Acknowledged, Draw, Job, Part, Sql, Value, Variables, Verdict, Work, Workload};
use crate::bench::sql::{Fault, Session, number};

const ACCOUNTS: i64 = 100_000;
const TELLERS: i64 = 10;

const UPDATE_ACCOUNT: Sql = Sql::both(
    "UPDATE pgbench_accounts SET abalance = abalance + ?2 WHERE aid = ?1",
    "UPDATE pgbench_accounts SET abalance = abalance + $2 WHERE aid = $1",
);
const SELECT_ACCOUNT: Sql = Sql::both(
    "SELECT abalance FROM pgbench_accounts WHERE aid = ?1",
    "SELECT abalance FROM pgbench_accounts WHERE aid = $1",
);
const UPDATE_TELLER: Sql = Sql::both(
    "UPDATE pgbench_tellers SET tbalance = tbalance + ?2 WHERE tid = ?1",
    "UPDATE pgbench_tellers SET tbalance = tbalance + $2 WHERE tid = $1",
);
const UPDATE_BRANCH: Sql = Sql::both(
    "UPDATE pgbench_branches SET bbalance = bbalance + ?2 WHERE bid = ?1",
    "UPDATE pgbench_branches SET bbalance = bbalance + $2 WHERE bid = $1",
);
const INSERT_HISTORY: Sql = Sql::both(
    "INSERT INTO pgbench_history (tid, bid, aid, delta, mtime) VALUES (?1, ?2, ?3, ?4, CURRENT_TIMESTAMP)",
    "INSERT INTO pgbench_history (tid, bid, aid, delta, mtime) VALUES ($1, $2, $3, $4, CURRENT_TIMESTAMP)",
);

/// The workload.
pub struct Tpcb {
    scale: i64,
}

impl Tpcb {
    /// One branch, 10 tellers and 100,000 accounts per unit of scale.
    pub fn new(scale: u32) -> Self {
        Self {
            scale: i64::from(scale),
        }
    }
}

impl Workload for Tpcb {
    fn load(&self) -> Vec<Sql> {
        let rows = |table: &str, count: i64, columns: &str| {
            let text = format!(
                "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {count})
                 INSERT INTO {table} SELECT {columns} FROM n"
            );
            Sql {
                sqlite: text.clone().into(),
                postgres: text.into(),
            }
        };
        vec![
            Sql::plain(
                "CREATE TABLE pgbench_branches (bid INTEGER PRIMARY KEY, bbalance INTEGER, filler CHAR(88))",
            ),
            Sql::plain(
                "CREATE TABLE pgbench_tellers (tid INTEGER PRIMARY KEY, bid INTEGER, tbalance INTEGER, filler CHAR(84))",
            ),
            Sql::plain(
                "CREATE TABLE pgbench_accounts (aid INTEGER PRIMARY KEY, bid INTEGER, abalance INTEGER, filler CHAR(84))",
            ),
            Sql::plain(
                "CREATE TABLE pgbench_history (tid INTEGER, bid INTEGER, aid INTEGER, delta INTEGER, mtime TIMESTAMP, filler CHAR(22))",
            ),
            rows("pgbench_branches", self.scale, "i, 0, NULL"),
            rows(
                "pgbench_tellers",
                self.scale * TELLERS,
                "i, (i - 1) / 10 + 1, 0, NULL",
            ),
            rows(
                "pgbench_accounts",
                self.scale * ACCOUNTS,
                // pgbench's filler is as wide, and blank.
                "i, (i - 1) / 100000 + 1, 0, \
                 '                                                                                    '",
            ),
        ]
    }

    fn write(&self, draw: &mut Draw) -> Job {
        Job::Tpcb(TpcbJob::Transaction {
            account: draw.random.between(1, self.scale * ACCOUNTS),
            branch: draw.random.between(1, self.scale),
            teller: draw.random.between(1, self.scale * TELLERS),
            delta: draw.random.between(-5_000, 5_000),
        })
    }

    fn read(&self, draw: &mut Draw) -> Option<Job> {
        Some(Job::Tpcb(TpcbJob::Look {
            account: draw.random.between(1, self.scale * ACCOUNTS),
        }))
    }

    fn verify(
        &self,
        session: &mut dyn Session,
        _before: Option<&Value>,
        acknowledged: Acknowledged,
    ) -> Result<Verdict, Fault> {
        let count = Sql::plain("SELECT count(*) FROM pgbench_history");
        let rows = number(session, &count, &[])?;
        let mut verdict = Verdict::of_count("rows of history", rows, acknowledged);
        let total = number(session, &TOTALS[0].1, &[])?;
        for (what, sum) in &TOTALS[1..] {
            verdict.must_equal(what, number(session, sum, &[])?, total);
        }
        Ok(verdict)
    }
}

const TOTALS: [(&str, Sql); 4] = [
    (
        "the history's sum",
        Sql::plain("SELECT CAST(coalesce(sum(delta), 0) AS BIGINT) FROM pgbench_history"),
    ),
    (
        "the accounts' sum",
        Sql::plain("SELECT CAST(sum(abalance) AS BIGINT) FROM pgbench_accounts"),
    ),
    (
        "the tellers' sum",
        Sql::plain("SELECT CAST(sum(tbalance) AS BIGINT) FROM pgbench_tellers"),
    ),
    (
        "the branches' sum",
        Sql::plain("SELECT CAST(sum(bbalance) AS BIGINT) FROM pgbench_branches"),
    ),
];

/// Its transactions.
#[derive(Clone, Debug)]
pub enum TpcbJob {
    /// The five statements.
    Transaction {
        /// pgbench's `:aid`.
        account: i64,
        /// pgbench's `:bid`.
        branch: i64,
        /// pgbench's `:tid`.
        teller: i64,
        /// pgbench's `:delta`.
        delta: i64,
    },
    /// pgbench's `select-only`.
    Look {
        /// pgbench's `:aid`.
        account: i64,
    },
}

impl Work for TpcbJob {
    fn part(&self, _part: usize) -> Part {
        match self {
            Self::Transaction { .. } => Part::Write,
            Self::Look { .. } => Part::ReadOne,
        }
    }

    fn run(
        &self,
        _part: usize,
        _variables: &Variables,
        session: &mut dyn Session,
    ) -> Result<Variables, Fault> {
        match *self {
            Self::Transaction {
                account,
                branch,
                teller,
                delta,
            } => {
                let [account, branch, teller, delta] =
                    [account, branch, teller, delta].map(Value::Integer);
                let update = |session: &mut dyn Session, sql: &Sql, key: &Value| {
                    session.execute(sql, &[key.clone(), delta.clone()])
                };
                update(session, &UPDATE_ACCOUNT, &account)?;
                session.first(
                    &SELECT_ACCOUNT,
                    std::slice::from_ref(&account),
                    &mut [Value::Null],
                )?;
                update(session, &UPDATE_TELLER, &teller)?;
                update(session, &UPDATE_BRANCH, &branch)?;
                session.execute(&INSERT_HISTORY, &[teller, branch, account, delta])?;
            }
            Self::Look { account } => {
                session.first(
                    &SELECT_ACCOUNT,
                    &[Value::Integer(account)],
                    &mut [Value::Null],
                )?;
            }
        }
        Ok(Variables::new())
    }

    fn effects(&self) -> u64 {
        matches!(self, Self::Transaction { .. }).into()
    }
}
