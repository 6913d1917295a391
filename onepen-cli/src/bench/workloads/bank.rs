//! Transfers between accounts, the way applications write them: read both
//! balances, compute, write both back.
//!
//! Invariant: no money appears or vanishes, and each account's own count of
//! transfers (read, incremented and written back in the same way) adds up to
//! two per acknowledged transfer. An update that overwrote another one is
//! missing in that sum: that is how lost updates are counted. A reader beside
//! the writers must see all money at every moment.

use super::{Acknowledged, Draw, Job, Part, Sql, Value, Variables, Verdict, Work, Workload};
use crate::bench::sql::{Fault, Session, integer, number};

const ACCOUNTS_PER_SCALE: i64 = 1_000;
const OPENING_BALANCE: i64 = 1_000;

const READ: Sql = Sql::both(
    "SELECT balance, transfers FROM account WHERE id = ?1",
    // READ COMMITTED, PostgreSQL's default, loses updates without the lock.
    "SELECT balance, transfers FROM account WHERE id = $1 FOR UPDATE",
);
const WRITE: Sql = Sql::both(
    "UPDATE account SET balance = ?2, transfers = ?3 WHERE id = ?1",
    "UPDATE account SET balance = $2, transfers = $3 WHERE id = $1",
);
const ALL_MONEY: Sql = Sql::plain("SELECT CAST(sum(balance) AS BIGINT) FROM account");
const ALL_TRANSFERS: Sql = Sql::plain("SELECT CAST(sum(transfers) AS BIGINT) FROM account");

/// The workload.
pub struct Bank {
    accounts: i64,
}

impl Bank {
    /// A bank of 1,000 accounts per unit of scale.
    pub fn new(scale: u32) -> Self {
        Self {
            accounts: ACCOUNTS_PER_SCALE * i64::from(scale),
        }
    }

    fn all_money(&self) -> i64 {
        self.accounts * OPENING_BALANCE
    }
}

impl Workload for Bank {
    fn load(&self) -> Vec<Sql> {
        let rows = format!(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {})
             INSERT INTO account SELECT i, {OPENING_BALANCE}, 0 FROM n",
            self.accounts
        );
        vec![
            Sql::both(
                "CREATE TABLE account (id INTEGER PRIMARY KEY, balance INTEGER NOT NULL, transfers INTEGER NOT NULL)",
                "CREATE TABLE account (id BIGINT PRIMARY KEY, balance BIGINT NOT NULL, transfers BIGINT NOT NULL)",
            ),
            Sql {
                sqlite: rows.clone().into(),
                postgres: rows.into(),
            },
        ]
    }

    fn write(&self, draw: &mut Draw) -> Job {
        let from = draw.random.between(1, self.accounts);
        // Any account but that one.
        let to = 1 + (from - 1 + draw.random.between(1, self.accounts - 1)) % self.accounts;
        Job::Bank(BankJob::Transfer {
            from,
            to,
            amount: draw.random.between(1, 100),
        })
    }

    fn read(&self, _draw: &mut Draw) -> Option<Job> {
        Some(Job::Bank(BankJob::Audit {
            expected: self.all_money(),
        }))
    }

    fn verify(
        &self,
        session: &mut dyn Session,
        _before: Option<&Value>,
        acknowledged: Acknowledged,
    ) -> Result<Verdict, Fault> {
        let updates = number(session, &ALL_TRANSFERS, &[])?;
        let mut verdict = Verdict::of_count("account updates", updates, acknowledged);
        let money = number(session, &ALL_MONEY, &[])?;
        verdict.must_equal("the sum of all balances", money, self.all_money());
        Ok(verdict)
    }
}

/// Its transactions.
#[derive(Clone, Debug)]
pub enum BankJob {
    /// Move money.
    Transfer {
        /// The account that pays.
        from: i64,
        /// The account that is paid.
        to: i64,
        /// How much.
        amount: i64,
    },
    /// Look at all the money there is.
    Audit {
        /// How much that must be.
        expected: i64,
    },
}

impl Work for BankJob {
    fn part(&self, _part: usize) -> Part {
        match self {
            Self::Transfer { .. } => Part::Write,
            Self::Audit { .. } => Part::ReadOne,
        }
    }

    fn run(
        &self,
        _part: usize,
        _variables: &Variables,
        session: &mut dyn Session,
    ) -> Result<Variables, Fault> {
        match *self {
            Self::Transfer { from, to, amount } => {
                // In the order of their numbers, as everybody who locks rows must.
                let mut sides = [(from, -amount), (to, amount)];
                sides.sort_unstable();
                let mut rows = [const { [Value::Null, Value::Null] }; 2];
                for ((account, _), row) in sides.iter().zip(&mut rows) {
                    if !session.first(&READ, &[Value::Integer(*account)], row)? {
                        return Err(Fault::Workload(format!("account {account} is missing")));
                    }
                }
                for ((account, change), [balance, transfers]) in sides.into_iter().zip(&rows) {
                    session.execute(
                        &WRITE,
                        &[
                            Value::Integer(account),
                            Value::Integer(integer(balance)? + change),
                            Value::Integer(integer(transfers)? + 1),
                        ],
                    )?;
                }
            }
            Self::Audit { expected } => {
                let found = number(session, &ALL_MONEY, &[])?;
                if found != expected {
                    return Err(Fault::Torn(format!(
                        "a reader saw {found} in all accounts together, must be {expected}"
                    )));
                }
            }
        }
        Ok(Variables::new())
    }

    fn effects(&self) -> u64 {
        match self {
            Self::Transfer { .. } => 2,
            Self::Audit { .. } => 0,
        }
    }
}
