//! A database in which every write can be checked afterwards.
//!
//! Each write is a member with a number of its own. It takes the next number of a
//! clock, leaves one row in `ledger`, two in `half`, and moves something between
//! two accounts: so its traces are in several tables, an index and old pages, and a
//! part of it is seen to be a part. Members that are answered together carry their
//! team's name and size. Members from [`FAILING`] on fail after they have written.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use onepen::{Database, Options};
use rusqlite::Connection;

use crate::told::Told;

/// The database, in its directory.
pub const NAME: &str = "a.db";

/// What lies beside it in mapped memory.
pub const VOLATILE: [&str; 2] = ["a.db-shm", "a.db-gate"];

/// Members with a number from here on are to fail.
pub const FAILING: i64 = 1_000_000;

const ACCOUNTS: i64 = 16;

pub const SCHEMA: &str = "
CREATE TABLE clock(n INTEGER NOT NULL);
INSERT INTO clock VALUES (0);
CREATE TABLE ledger(op INTEGER PRIMARY KEY, serial INTEGER NOT NULL UNIQUE,
                    team INTEGER NOT NULL, size INTEGER NOT NULL, filler TEXT NOT NULL);
CREATE TABLE half(op INTEGER NOT NULL, part INTEGER NOT NULL, filler TEXT NOT NULL);
CREATE INDEX half_op ON half(op);
CREATE TABLE account(id INTEGER PRIMARY KEY, balance INTEGER NOT NULL);
INSERT INTO account WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 15)
                    SELECT i, 0 FROM n;
";

/// What was found wrong with an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// What was acknowledged, or seen, is not there.
    Lost,
    /// A part of something is there.
    Torn,
    /// What was refused is there.
    Refused,
    /// SQLite says that the file is damaged, or its content is not what was written.
    Damaged,
    /// It cannot be used.
    Unusable,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    pub kind: Kind,
    pub what: String,
}

pub type Verdict = Result<(), Violation>;

pub fn violation(kind: Kind, what: impl Into<String>) -> Verdict {
    Err(Violation {
        kind,
        what: what.into(),
    })
}

impl From<rusqlite::Error> for Violation {
    fn from(error: rusqlite::Error) -> Self {
        let kind = match error.sqlite_error_code() {
            Some(rusqlite::ErrorCode::DatabaseCorrupt | rusqlite::ErrorCode::NotADatabase) => {
                Kind::Damaged
            }
            _ => Kind::Unusable,
        };
        Self {
            kind,
            what: error.to_string(),
        }
    }
}

/// A member and those that are answered with it.
#[derive(Clone, Copy, Debug)]
pub struct Member {
    pub op: i64,
    pub team: i64,
    pub size: i64,
}

impl Member {
    pub fn alone(op: i64) -> Self {
        let (team, size) = (op, 1);
        Self { op, team, size }
    }

    /// Does its work, inside of a transaction that somebody else ends. Answers with
    /// its number in the order of all.
    pub fn run(self, connection: &Connection) -> rusqlite::Result<i64> {
        let serial = self.first_half(connection)?;
        self.second_half(connection)?;
        Ok(serial)
    }

    pub fn first_half(self, connection: &Connection) -> rusqlite::Result<i64> {
        let Self { op, team, size } = self;
        let serial: i64 = connection
            .prepare_cached("UPDATE clock SET n = n + 1 RETURNING n")?
            .query_row((), |row| row.get(0))?;
        connection
            .prepare_cached("INSERT INTO ledger VALUES (?1, ?2, ?3, ?4, ?5)")?
            .execute((op, serial, team, size, filler(op)))?;
        self.half(connection, 0)?;
        Ok(serial)
    }

    pub fn second_half(self, connection: &Connection) -> rusqlite::Result<()> {
        self.half(connection, 1)?;
        let mut transfer =
            connection.prepare_cached("UPDATE account SET balance = balance + ?2 WHERE id = ?1")?;
        let amount = self.op % 97;
        transfer.execute((self.op % ACCOUNTS, -amount))?;
        transfer.execute(((self.op + 5) % ACCOUNTS, amount))?;
        Ok(())
    }

    fn half(self, connection: &Connection, part: i64) -> rusqlite::Result<()> {
        connection
            .prepare_cached("INSERT INTO half VALUES (?1, ?2, ?3)")?
            .execute((self.op, part, filler(self.op)))?;
        Ok(())
    }
}

fn filler(op: i64) -> String {
    format!("{op:0>300}")
}

/// Sets it up, and closes it: all of it is on the disk.
pub fn set_up(directory: &Path, pragmas: &str) {
    let connection = Connection::open(directory.join(NAME)).unwrap();
    connection.execute_batch(pragmas).unwrap();
    connection.execute_batch(SCHEMA).unwrap();
    connection.close().unwrap();
}

/// What a recovered database holds.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    /// How many writes it had.
    pub clock: i64,
    pub members: BTreeSet<i64>,
    /// `PRAGMA user_version`.
    pub version: i64,
    /// Numbers of tables and columns beyond the ledger's own.
    pub more: i64,
}

/// Opens what is left of the database `name` as anybody would, lets SQLite recover
/// it, and reads it: `None` when there is no such file, or nothing in it.
///
/// # Errors
/// When it is damaged, or there is a part of something.
pub fn recover(directory: &Path, name: &str) -> Result<Option<Ledger>, Violation> {
    let path = directory.join(name);
    if !path.exists() {
        return Ok(None);
    }
    let connection = Connection::open(&path)?;
    let ledger = read(&connection)?;
    connection.close().map_err(|(_, error)| error)?;
    Ok(ledger)
}

fn read(connection: &Connection) -> Result<Option<Ledger>, Violation> {
    let wrong = |kind, what: String| Err(Violation { kind, what });
    let number = |sql: &str| connection.query_row(sql, (), |row| row.get::<_, i64>(0));
    let check: String = connection.query_row("PRAGMA integrity_check(1)", (), |row| row.get(0))?;
    if check != "ok" {
        return wrong(Kind::Damaged, check);
    }
    if number("SELECT count(*) FROM sqlite_schema WHERE name = 'account'")? == 0 {
        return Ok(None);
    }
    let clock = number("SELECT n FROM clock")?;
    let mut teams: BTreeMap<i64, (i64, i64)> = BTreeMap::new();
    let mut halves = BTreeMap::new();
    let mut statement =
        connection.prepare("SELECT op, serial, team, size, filler FROM ledger ORDER BY serial")?;
    let mut rows = statement.query(())?;
    let mut expected = 0;
    while let Some(row) = rows.next()? {
        let (op, serial): (i64, i64) = (row.get(0)?, row.get(1)?);
        expected += 1;
        if serial != expected {
            let what = format!("member {op} is number {serial}, and {expected} is missing");
            return wrong(Kind::Torn, what);
        }
        if row.get_ref(4)?.as_str().ok() != Some(&filler(op)) {
            return wrong(Kind::Damaged, format!("the text of member {op}"));
        }
        halves.insert(op, 0);
        teams.entry(row.get(2)?).or_insert((0, row.get(3)?)).0 += 1;
    }
    if clock != expected {
        let what = format!("{clock} on the clock, {expected} in the ledger");
        return wrong(Kind::Torn, what);
    }
    let mut statement = connection.prepare("SELECT op, filler FROM half")?;
    let mut rows = statement.query(())?;
    while let Some(row) = rows.next()? {
        let op: i64 = row.get(0)?;
        if row.get_ref(1)?.as_str().ok() != Some(&filler(op)) {
            return wrong(Kind::Damaged, format!("a half of member {op}"));
        }
        match halves.get_mut(&op) {
            Some(halves) => *halves += 1,
            None => return wrong(Kind::Torn, format!("a half of member {op} alone")),
        }
    }
    if let Some((op, halves)) = halves.iter().find(|(_, halves)| **halves != 2) {
        return wrong(Kind::Torn, format!("member {op} has {halves} halves"));
    }
    if let Some((team, (count, size))) = teams.iter().find(|(_, (count, size))| count != size) {
        return wrong(Kind::Torn, format!("{count} of the {size} of team {team}"));
    }
    let sum = number("SELECT sum(balance) FROM account")?;
    if sum != 0 {
        return wrong(Kind::Torn, format!("the accounts are off by {sum}"));
    }
    Ok(Some(Ledger {
        clock,
        members: halves.into_keys().collect(),
        version: number("PRAGMA user_version")?,
        more: number(
            "SELECT count(*) FROM sqlite_schema AS s, pragma_table_info(s.name) AS c
             WHERE s.name = 'more' OR c.name = 'more'",
        )?,
    }))
}

/// Holds what was told against it.
pub fn judge(ledger: Option<&Ledger>, told: &Told) -> Verdict {
    let Some(ledger) = ledger else {
        if told.acknowledged.is_empty() && told.seen == 0 && told.done.is_empty() {
            return Ok(());
        }
        return violation(Kind::Lost, "everything, the schema too");
    };
    let there = &ledger.members;
    if let Some(op) = there.iter().find(|op| **op >= FAILING) {
        return violation(Kind::Refused, format!("member {op}, which failed"));
    }
    if let Some(op) = told.refused.intersection(there).next() {
        return violation(Kind::Refused, format!("member {op}, which was refused"));
    }
    let lost: Vec<_> = told.acknowledged.difference(there).collect();
    if !lost.is_empty() {
        let of = told.acknowledged.len();
        return violation(Kind::Lost, format!("of {of} acknowledged members {lost:?}"));
    }
    if told.seen > ledger.clock {
        let (seen, clock) = (told.seen, ledger.clock);
        let what = format!("somebody saw state {seen}, it is {clock} now");
        return violation(Kind::Lost, what);
    }
    Ok(())
}

/// Opens it with onepen and writes: a database that was recovered is a database.
/// The gate's file of a dead boot keeps nobody from writing.
pub fn check_is_usable(directory: &Path, options: Options) -> Verdict {
    let failed = |error: onepen::Error| Violation {
        kind: Kind::Unusable,
        what: error.to_string(),
    };
    let db = options.open(directory.join(NAME)).map_err(failed)?;
    let used = use_it(&db).map_err(failed);
    db.close();
    used
}

fn use_it(db: &Database) -> onepen::Result<()> {
    db.write(|tx| tx.execute_batch("CREATE TABLE used(n); INSERT INTO used VALUES (1)"))?;
    let seen: i64 = db.query_row("SELECT n FROM used", (), |row| row.get(0))?;
    assert_eq!(seen, 1);
    db.write(|tx| tx.execute_batch("DROP TABLE used"))
}
