//! What transactions of a stress run do, and what they write down of it.
//!
//! Guarantees: a deed is a value that carries everything it draws, so that it
//! can run on any thread and again; what it returns is what *this* run saw, so
//! that an answer out of a run that did not count is found out. Every writing
//! deed on registers takes its serial number and leaves its record in the
//! ledger inside its own transaction; deeds on lists do neither.

use std::time::Duration;

use onepen_check::{History, Mode, Op};
use serde::{Deserialize, Serialize};

use crate::bench::sql::{Fault, Session, Sql, Value, integer};

/// One transaction.
#[derive(Clone, Debug)]
pub struct Deed {
    /// Unique in the run.
    pub id: u64,
    /// Whether it means to write.
    pub writes: bool,
    /// What it does, in order.
    pub parts: Vec<Part>,
    /// Through which call of the library.
    pub how: How,
    /// A deadline of its own.
    pub deadline: Option<Duration>,
    /// Whether its future is dropped in the middle; only tasks have futures.
    pub dropped: bool,
}

/// Which call of the library.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// `write` or `read`.
    Plain,
    /// `write_once`.
    Once,
    /// `submit`, and waiting for it.
    Submit,
    /// A `Snapshot`.
    Snapshot,
}

/// One step.
#[derive(Clone, Debug)]
pub enum Part {
    /// Moves an amount, if it is there.
    Transfer { from: u64, to: u64, amount: i64 },
    /// Adds in SQL.
    Add { key: u64, by: i64 },
    /// Reads, and writes what it computed from that in the program.
    AddSlowly { key: u64, by: i64 },
    /// Reads registers, a statement for each.
    Look(Vec<u64>),
    /// Reads all registers of a range in one statement.
    Range { from: u64, to: u64 },
    /// Goes off call if the other is on call, else on call.
    OnCall { me: u64, other: u64 },
    /// Waits, in the middle of the transaction.
    Pause(Duration),
    /// Appends to a list.
    Append { key: u64, value: i64 },
    /// Reads a list.
    List(u64),
    /// Changes the schema: one column more, or one less.
    Columns { more: bool },
    /// Changes the schema: an index, made or dropped.
    Index { made: bool },
    /// Reads how many columns there are, and whether there is an index.
    Schema,
    /// Fails.
    Spoil(Spoil),
}

/// How a deed fails after it has written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spoil {
    /// With an error of its own.
    Error,
    /// With a panic.
    Panic,
    /// With a constraint.
    Constraint,
    /// With a constraint that rolls the transaction back.
    Rollback,
    /// The same, and goes on as if nothing had happened.
    Swallowed,
    /// With a foreign key that is looked at only by COMMIT.
    Deferred,
}

/// The payload of a panic on purpose.
pub struct OnPurpose;

/// Keys of registers that are not rows of the table of registers.
pub const COLUMNS: u64 = 1_000_000;
/// See [`COLUMNS`].
pub const INDEX: u64 = 1_000_001;

/// The tables, and nothing in them.
pub const SCHEMA: &str = "
    CREATE TABLE onepen_stress_clock(n INTEGER NOT NULL);
    INSERT INTO onepen_stress_clock VALUES (0);
    CREATE TABLE onepen_stress_ledger(serial INTEGER NOT NULL, id INTEGER NOT NULL, steps TEXT NOT NULL);
    CREATE TABLE onepen_stress_register(key INTEGER PRIMARY KEY, value INTEGER NOT NULL);
    CREATE TABLE onepen_stress_list(place INTEGER PRIMARY KEY, key INTEGER NOT NULL, value INTEGER NOT NULL);
    CREATE INDEX onepen_stress_by_key ON onepen_stress_list(key, place, value);
    CREATE TABLE onepen_stress_shape(c0 INTEGER);
    CREATE TABLE onepen_stress_unique(n INTEGER PRIMARY KEY);
    INSERT INTO onepen_stress_unique VALUES (1);
    CREATE TABLE onepen_stress_child(
        parent INTEGER REFERENCES onepen_stress_unique(n) DEFERRABLE INITIALLY DEFERRED);
";

const TICK: Sql = Sql::plain("UPDATE onepen_stress_clock SET n = n + 1 RETURNING n");
const CLOCK: Sql = Sql::plain("SELECT n FROM onepen_stress_clock");
const RECORD: Sql = Sql::plain("INSERT INTO onepen_stress_ledger VALUES (?1, ?2, ?3)");
const GET: Sql = Sql::plain("SELECT value FROM onepen_stress_register WHERE key = ?1");
const PUT: Sql = Sql::plain("UPDATE onepen_stress_register SET value = ?2 WHERE key = ?1");
const ADD: Sql = Sql::plain(
    "UPDATE onepen_stress_register SET value = value + ?2 WHERE key = ?1 RETURNING value",
);
const TAKE: Sql = Sql::plain(
    "UPDATE onepen_stress_register SET value = value - ?2 WHERE key = ?1 AND value >= ?2 RETURNING value",
);
const RANGE: Sql = Sql::plain(
    "SELECT group_concat(key || '=' || value) FROM onepen_stress_register WHERE key BETWEEN ?1 AND ?2",
);
const APPEND: Sql = Sql::plain("INSERT INTO onepen_stress_list(key, value) VALUES (?1, ?2)");
const LIST: Sql = Sql::plain(
    "SELECT group_concat(value) FROM (SELECT value FROM onepen_stress_list WHERE key = ?1 ORDER BY place)",
);
const COUNT_COLUMNS: Sql =
    Sql::plain("SELECT count(*) FROM pragma_table_info('onepen_stress_shape')");
const COUNT_INDEXES: Sql =
    Sql::plain("SELECT count(*) FROM sqlite_schema WHERE name = 'onepen_stress_shape_index'");
const DUPLICATE: Sql = Sql::plain("INSERT INTO onepen_stress_unique VALUES (1)");
const DUPLICATE_ROLLBACK: Sql =
    Sql::plain("INSERT OR ROLLBACK INTO onepen_stress_unique VALUES (1)");
const ORPHAN: Sql = Sql::plain("INSERT INTO onepen_stress_child VALUES (2)");

/// What a deed saw and did.
#[derive(Debug)]
pub struct Done {
    /// The serial it took or saw; none on lists.
    pub serial: Option<u64>,
    /// The steps, and the elements of the lists among them.
    pub notes: History,
}

/// Which of the two ways of judging the run is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Judged {
    /// By serials.
    BySerial,
    /// By lists.
    ByLists,
}

impl Deed {
    /// Does it, inside a transaction that somebody else begins and ends.
    pub fn run(&self, judged: Judged, session: &mut dyn Session) -> Result<Done, Fault> {
        let mut hand = Hand {
            session,
            notes: History::new(match judged {
                Judged::BySerial => Mode::Serial,
                Judged::ByLists => Mode::Append,
            }),
        };
        let serial = match judged {
            Judged::ByLists => None,
            Judged::BySerial if self.writes => Some(hand.number(&TICK, &[])?),
            Judged::BySerial => Some(hand.number(&CLOCK, &[])?),
        };
        for part in &self.parts {
            hand.part(part)?;
        }
        if let Some(serial) = serial {
            if self.writes {
                let steps = onepen_check::text::steps_of(&hand.notes.ops, &hand.notes);
                let record = [
                    Value::Integer(serial),
                    Value::Integer(self.id.cast_signed()),
                    Value::Text(steps),
                ];
                hand.session.execute(&RECORD, &record)?;
            } else if hand.number(&CLOCK, &[])? != serial {
                return Err(Fault::Torn(format!(
                    "T{} read two states in one transaction: the clock went on from {serial}",
                    self.id
                )));
            }
        }
        Ok(Done {
            serial: serial.map(i64::cast_unsigned),
            notes: hand.notes,
        })
    }

    /// What it will append: known before it runs.
    pub fn appends(&self) -> Vec<Op> {
        let append = |part: &Part| match *part {
            Part::Append { key, value } => Some(Op::Append { key, value }),
            _ => None,
        };
        self.parts.iter().filter_map(append).collect()
    }
}

struct Hand<'a> {
    session: &'a mut dyn Session,
    notes: History,
}

impl Hand<'_> {
    fn part(&mut self, part: &Part) -> Result<(), Fault> {
        match part {
            &Part::Transfer { from, to, amount } => {
                let taken = self.maybe(&TAKE, &[key(from), Value::Integer(amount)])?;
                let Some(left) = taken else {
                    return self.look(from).map(|_| ());
                };
                self.changed(from, left + amount, left);
                self.add(to, amount)?;
            }
            &Part::Add { key, by } => self.add(key, by)?,
            &Part::AddSlowly { key, by } => {
                let value = self.look(key)?;
                self.put(key, value + by)?;
            }
            Part::Look(keys) => {
                for &key in keys {
                    self.look(key)?;
                }
            }
            &Part::Range { from, to } => self.range(from, to)?,
            &Part::OnCall { me, other } => {
                self.look(me)?;
                let is_covered = self.look(other)? == 1;
                self.put(me, i64::from(!is_covered))?;
            }
            &Part::Pause(time) => std::thread::sleep(time),
            &Part::Append { key: list, value } => {
                self.session
                    .execute(&APPEND, &[key(list), Value::Integer(value)])?;
                self.notes.ops.push(Op::Append { key: list, value });
            }
            &Part::List(list) => self.list(list)?,
            Part::Schema => {
                self.columns()?;
                self.index()?;
            }
            &Part::Columns { more } => {
                let columns = self.columns()?;
                let change = if more {
                    format!("ADD COLUMN c{columns} INTEGER DEFAULT {columns}")
                } else {
                    format!("DROP COLUMN c{}", columns - 1)
                };
                // At least one must stay, and not for ever more.
                if (2..40).contains(&columns) || more && columns < 40 {
                    self.ddl(format!("ALTER TABLE onepen_stress_shape {change}"))?;
                    let value = columns + if more { 1 } else { -1 };
                    self.notes.ops.push(Op::Write {
                        key: COLUMNS,
                        value,
                    });
                }
            }
            &Part::Index { made } => {
                if self.index()? == i64::from(made) {
                    return Ok(());
                }
                self.ddl(if made {
                    "CREATE INDEX onepen_stress_shape_index ON onepen_stress_shape(c0)".to_owned()
                } else {
                    "DROP INDEX onepen_stress_shape_index".to_owned()
                })?;
                let value = i64::from(made);
                self.notes.ops.push(Op::Write { key: INDEX, value });
            }
            &Part::Spoil(spoil) => self.spoil(spoil)?,
        }
        Ok(())
    }

    fn spoil(&mut self, spoil: Spoil) -> Result<(), Fault> {
        match spoil {
            Spoil::Error => Err(Fault::Workload("on purpose".to_owned())),
            Spoil::Panic => std::panic::panic_any(OnPurpose),
            Spoil::Constraint => self.session.execute(&DUPLICATE, &[]).map(|_| ()),
            Spoil::Rollback => self.session.execute(&DUPLICATE_ROLLBACK, &[]).map(|_| ()),
            Spoil::Swallowed => {
                let _ = self.session.execute(&DUPLICATE_ROLLBACK, &[]);
                Ok(())
            }
            Spoil::Deferred => self.session.execute(&ORPHAN, &[]).map(|_| ()),
        }
    }

    /// A number from a statement that has one.
    fn number(&mut self, sql: &Sql, params: &[Value]) -> Result<i64, Fault> {
        self.maybe(sql, params)?
            .ok_or_else(|| Fault::Torn(format!("no row from {}", sql.sqlite)))
    }

    fn maybe(&mut self, sql: &Sql, params: &[Value]) -> Result<Option<i64>, Fault> {
        let mut row = [Value::Null];
        let found = self.session.first(sql, params, &mut row)?;
        found.then(|| integer(&row[0])).transpose()
    }

    fn text(&mut self, sql: &Sql, params: &[Value]) -> Result<String, Fault> {
        let mut row = [Value::Null];
        self.session.first(sql, params, &mut row)?;
        Ok(match row {
            [Value::Text(text)] => text,
            _ => String::new(),
        })
    }

    fn look(&mut self, register: u64) -> Result<i64, Fault> {
        let value = self.number(&GET, &[key(register)])?;
        self.saw(register, value);
        Ok(value)
    }

    fn saw(&mut self, key: u64, value: i64) {
        let value = Some(value);
        self.notes.ops.push(Op::Read { key, value });
    }

    fn changed(&mut self, key: u64, from: i64, to: i64) {
        self.saw(key, from);
        self.notes.ops.push(Op::Write { key, value: to });
    }

    fn add(&mut self, register: u64, by: i64) -> Result<(), Fault> {
        let now = self.number(&ADD, &[key(register), Value::Integer(by)])?;
        self.changed(register, now - by, now);
        Ok(())
    }

    fn put(&mut self, register: u64, value: i64) -> Result<(), Fault> {
        self.session
            .execute(&PUT, &[key(register), Value::Integer(value)])?;
        self.notes.ops.push(Op::Write {
            key: register,
            value,
        });
        Ok(())
    }

    fn range(&mut self, from: u64, to: u64) -> Result<(), Fault> {
        let text = self.text(&RANGE, &[key(from), key(to)])?;
        for pair in text.split(',').filter(|pair| !pair.is_empty()) {
            let parsed = pair
                .split_once('=')
                .and_then(|(key, value)| Some((key.parse().ok()?, value.parse().ok()?)));
            let (key, value) = parsed.ok_or_else(|| unreadable(&text))?;
            self.saw(key, value);
        }
        Ok(())
    }

    fn list(&mut self, list: u64) -> Result<(), Fault> {
        let text = self.text(&LIST, &[key(list)])?;
        let values: Option<Vec<i64>> = text
            .split(',')
            .filter(|value| !value.is_empty())
            .map(|value| value.parse().ok())
            .collect();
        let op = self
            .notes
            .list(list, &values.ok_or_else(|| unreadable(&text))?);
        self.notes.ops.push(op);
        Ok(())
    }

    fn columns(&mut self) -> Result<i64, Fault> {
        let columns = self.number(&COUNT_COLUMNS, &[])?;
        self.saw(COLUMNS, columns);
        Ok(columns)
    }

    fn index(&mut self) -> Result<i64, Fault> {
        let indexes = self.number(&COUNT_INDEXES, &[])?;
        self.saw(INDEX, indexes);
        Ok(indexes)
    }

    fn ddl(&mut self, sql: String) -> Result<(), Fault> {
        let sql = Sql {
            postgres: sql.clone().into(),
            sqlite: sql.into(),
        };
        self.session.execute(&sql, &[]).map(|_| ())
    }
}

fn key(key: u64) -> Value {
    Value::Integer(key.cast_signed())
}

fn unreadable(text: &str) -> Fault {
    let text: String = text.chars().take(40).collect();
    Fault::Torn(format!("a read returned what nobody wrote: {text:?}"))
}
