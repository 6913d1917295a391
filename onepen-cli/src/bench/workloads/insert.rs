//! One small row per transaction: what a log, a queue or an event store does.
//!
//! Invariant: as many rows as were acknowledged.

use super::{Acknowledged, Draw, Job, Part, Sql, Value, Variables, Verdict, Work, Workload};
use crate::bench::sql::{Fault, Session, number};

/// The workload.
pub struct Insert;

const INSERT_TEXT: &str = "INSERT INTO event (client, body) VALUES (?1, ?2)";
const INSERT: Sql = Sql::both(
    INSERT_TEXT,
    "INSERT INTO event (client, body) VALUES ($1, $2)",
);
const LATEST: Sql = Sql::plain("SELECT body FROM event ORDER BY id DESC LIMIT 1");

impl Workload for Insert {
    fn load(&self) -> Vec<Sql> {
        vec![Sql::both(
            "CREATE TABLE event (id INTEGER PRIMARY KEY, client INTEGER NOT NULL, body TEXT NOT NULL)",
            "CREATE TABLE event (id BIGSERIAL PRIMARY KEY, client INTEGER NOT NULL, body TEXT NOT NULL)",
        )]
    }

    fn write(&self, draw: &mut Draw) -> Job {
        Job::Insert(InsertJob::Row {
            client: draw.client,
        })
    }

    fn read(&self, _draw: &mut Draw) -> Option<Job> {
        Some(Job::Insert(InsertJob::Latest))
    }

    fn verify(
        &self,
        session: &mut dyn Session,
        _before: Option<&Value>,
        acknowledged: Acknowledged,
    ) -> Result<Verdict, Fault> {
        let rows = number(session, &Sql::plain("SELECT count(*) FROM event"), &[])?;
        Ok(Verdict::of_count("rows", rows, acknowledged))
    }
}

/// Its transactions.
#[derive(Clone, Debug)]
pub enum InsertJob {
    /// Insert one row.
    Row {
        /// Who inserts it.
        client: u32,
    },
    /// Read the newest row.
    Latest,
}

/// What every row carries.
const BODY: &str = "something small happened";

/// The values of an insert: who, and what.
pub type Params = (u32, &'static str);

impl InsertJob {
    /// The statement and its values, when this is an insert.
    pub fn statement(&self) -> Option<(&'static str, Params)> {
        match self {
            Self::Row { client } => Some((INSERT_TEXT, (*client, BODY))),
            Self::Latest => None,
        }
    }
}

impl Work for InsertJob {
    fn part(&self, _part: usize) -> Part {
        match self {
            Self::Row { .. } => Part::WriteOne,
            Self::Latest => Part::ReadOne,
        }
    }

    fn run(
        &self,
        _part: usize,
        _variables: &Variables,
        session: &mut dyn Session,
    ) -> Result<Variables, Fault> {
        match self {
            Self::Row { client } => {
                let body = Value::Text(BODY.to_owned());
                session.execute(&INSERT, &[Value::Integer(i64::from(*client)), body])?;
            }
            Self::Latest => {
                session.first(&LATEST, &[], &mut [Value::Null])?;
            }
        }
        Ok(Variables::new())
    }

    fn effects(&self) -> u64 {
        matches!(self, Self::Row { .. }).into()
    }
}
