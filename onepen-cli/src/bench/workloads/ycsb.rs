//! The core workloads A, B, C and F of the Yahoo! Cloud Serving Benchmark:
//! one record of ten fields of 100 bytes, by a zipfian key
//! (Cooper et al., Benchmarking Cloud Serving Systems with YCSB).
//!
//! Invariant: every update also counts up the record's version, so the
//! versions add up to the acknowledged updates. F computes the new version
//! from the one it read: a lost update is missing in the sum.

use super::{Acknowledged, Draw, Job, Part, Sql, Value, Variables, Verdict, Work, Workload};
use crate::bench::random::{Keys, Random};
use crate::bench::sql::{Fault, Session, integer, number};

const RECORDS_PER_SCALE: u32 = 10_000;
const FIELDS: usize = 10;
const FIELD_BYTES: usize = 100;

/// Which operations, in what shares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mix {
    /// Half reads, half updates.
    A,
    /// 95 % reads, 5 % updates.
    B,
    /// Reads.
    C,
    /// Half reads, half read-modify-write.
    F,
}

/// The workload.
pub struct Ycsb {
    mix: Mix,
    records: u32,
    keys: Keys,
}

impl Ycsb {
    /// 10,000 records (about 11 MB) per unit of scale.
    pub fn new(mix: Mix, scale: u32) -> Self {
        let records = RECORDS_PER_SCALE * scale;
        Self {
            mix,
            records,
            keys: Keys::new(u64::from(records)),
        }
    }
}

const READ: Sql = Sql::both(
    "SELECT version, field0, field1, field2, field3, field4, field5, field6, field7, field8, field9 \
     FROM usertable WHERE id = ?1",
    "SELECT version, field0, field1, field2, field3, field4, field5, field6, field7, field8, field9 \
     FROM usertable WHERE id = $1",
);
const READ_TO_WRITE: Sql = Sql::both(
    "SELECT version, field0, field1, field2, field3, field4, field5, field6, field7, field8, field9 \
     FROM usertable WHERE id = ?1",
    // READ COMMITTED, PostgreSQL's default, loses updates without the lock.
    "SELECT version, field0, field1, field2, field3, field4, field5, field6, field7, field8, field9 \
     FROM usertable WHERE id = $1 FOR UPDATE",
);

macro_rules! per_field {
    ($($n:literal)*) => {
        /// A blind update of one field.
        const UPDATE: [Sql; FIELDS] = [$(Sql::both(
            concat!("UPDATE usertable SET field", $n, " = ?2, version = version + 1 WHERE id = ?1"),
            concat!("UPDATE usertable SET field", $n, " = $2, version = version + 1 WHERE id = $1"),
        )),*];
        /// The writing half of read-modify-write.
        const WRITE_BACK: [Sql; FIELDS] = [$(Sql::both(
            concat!("UPDATE usertable SET field", $n, " = ?2, version = ?3 WHERE id = ?1"),
            concat!("UPDATE usertable SET field", $n, " = $2, version = $3 WHERE id = $1"),
        )),*];
    };
}
per_field!(0 1 2 3 4 5 6 7 8 9);

impl Workload for Ycsb {
    fn load(&self) -> Vec<Sql> {
        let columns = (0..FIELDS)
            .map(|n| format!(", field{n} TEXT NOT NULL"))
            .collect::<String>();
        let table = format!(
            "CREATE TABLE usertable (id INTEGER PRIMARY KEY, version INTEGER NOT NULL{columns})"
        );
        let rows = |field: &str| {
            format!(
                "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {})
                 INSERT INTO usertable SELECT i, 0{} FROM n",
                self.records,
                format!(", {field}").repeat(FIELDS)
            )
        };
        vec![
            Sql {
                sqlite: table.clone().into(),
                postgres: table.into(),
            },
            Sql {
                sqlite: rows("hex(randomblob(50))").into(),
                postgres: rows("substr(repeat(md5(random()::text), 4), 1, 100)").into(),
            },
        ]
    }

    fn write(&self, draw: &mut Draw) -> Job {
        let key = self.keys.draw(&mut draw.random);
        let reads = match self.mix {
            Mix::A | Mix::F => 50,
            Mix::B => 95,
            Mix::C => 100,
        };
        Job::Ycsb(if draw.random.between(1, 100) <= reads {
            YcsbJob::Read { key }
        } else {
            let seed = draw.random.bits();
            match self.mix {
                Mix::F => YcsbJob::ReadModifyWrite { key, seed },
                _ => YcsbJob::Update { key, seed },
            }
        })
    }

    fn read(&self, draw: &mut Draw) -> Option<Job> {
        let key = self.keys.draw(&mut draw.random);
        Some(Job::Ycsb(YcsbJob::Read { key }))
    }

    fn verify(
        &self,
        session: &mut dyn Session,
        _before: Option<&Value>,
        acknowledged: Acknowledged,
    ) -> Result<Verdict, Fault> {
        let sum = Sql::plain("SELECT CAST(sum(version) AS BIGINT) FROM usertable");
        let updates = number(session, &sum, &[])?;
        Ok(Verdict::of_count("updates", updates, acknowledged))
    }
}

/// Its operations.
#[derive(Clone, Debug)]
pub enum YcsbJob {
    /// Read a whole record.
    Read {
        /// Which.
        key: i64,
    },
    /// Write one field.
    Update {
        /// Of which record.
        key: i64,
        /// What is written, and where.
        seed: u64,
    },
    /// Read a record, write one field of it.
    ReadModifyWrite {
        /// Which.
        key: i64,
        /// What is written, and where.
        seed: u64,
    },
}

impl Work for YcsbJob {
    fn part(&self, _part: usize) -> Part {
        match self {
            Self::Read { .. } => Part::ReadOne,
            Self::Update { .. } => Part::WriteOne,
            Self::ReadModifyWrite { .. } => Part::Write,
        }
    }

    fn run(
        &self,
        _part: usize,
        _variables: &Variables,
        session: &mut dyn Session,
    ) -> Result<Variables, Fault> {
        match *self {
            Self::Read { key } => {
                record(session, &READ, key)?;
            }
            Self::Update { key, seed } => {
                let (field, text) = change(seed);
                session.execute(&UPDATE[field], &[Value::Integer(key), text])?;
            }
            Self::ReadModifyWrite { key, seed } => {
                let version = record(session, &READ_TO_WRITE, key)?;
                let (field, text) = change(seed);
                session.execute(
                    &WRITE_BACK[field],
                    &[Value::Integer(key), text, Value::Integer(version + 1)],
                )?;
            }
        }
        Ok(Variables::new())
    }

    fn effects(&self) -> u64 {
        (!matches!(self, Self::Read { .. })).into()
    }
}

/// Reads all of a record; answers its version.
fn record(session: &mut dyn Session, sql: &Sql, key: i64) -> Result<i64, Fault> {
    let mut row = [const { Value::Null }; 1 + FIELDS];
    if !session.first(sql, &[Value::Integer(key)], &mut row)? {
        return Err(Fault::Workload(format!("record {key} is missing")));
    }
    integer(&row[0])
}

/// Which field gets what text.
fn change(seed: u64) -> (usize, Value) {
    let mut random = Random::new(seed);
    let field = (random.bits() % FIELDS as u64) as usize;
    let mut text = String::with_capacity(FIELD_BYTES + 16);
    while text.len() < FIELD_BYTES {
        use std::fmt::Write;
        write!(text, "{:016x}", random.bits()).expect("writing to a string cannot fail");
    }
    text.truncate(FIELD_BYTES);
    (field, Value::Text(text))
}
