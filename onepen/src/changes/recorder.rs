//! Which tables the transaction of a connection may have changed.
//!
//! SQLite says which statement begins to run (its trace); which tables a
//! statement may write is known from compiling its text once more, under the
//! authorizer, at the end of the member in which it was first met. That is kept,
//! by text, for as long as the schema stays.
//!
//! Why that misses nothing: what a statement writes is a function of its text and
//! the schema. Whenever the schema changes SQLite compiles a statement again
//! before it runs, and so asks the authorizer; a member in which *anything* that
//! writes was compiled ends with a look at the schema's version, and a new
//! version empties the memory. A member that changes the schema itself may have
//! changed any table.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::ffi::{CStr, CString, c_int};
use std::sync::Arc;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ffi as sqlite};

use super::{Tables, ffi};

/// How many statements are remembered.
const MOST_STATEMENTS: usize = 4096;

/// How many a single member may add before it may have changed any table.
const MOST_UNKNOWN: usize = 128;

/// Where a statement was last seen, by its address: a small cache before the
/// texts.
const PLACES: usize = 256;

struct Statement {
    text: Arc<CStr>,
    /// Indices of names; `None` is any table.
    tables: Option<Box<[u32]>>,
    /// The transaction it was last noted in.
    noted: u64,
}

/// What the schema says beyond what the authorizer is asked.
#[derive(Default)]
struct Schema {
    version: Option<i64>,
    /// Tables with AUTOINCREMENT: an insert also writes `sqlite_sequence`.
    counted: Vec<String>,
    /// Virtual tables' own tables, which they write by themselves.
    shadows: Vec<String>,
}

struct Memory {
    schema: Schema,
    names: Vec<Arc<str>>,
    by_name: HashMap<Arc<str>, u32>,
    statements: Vec<Statement>,
    by_text: HashMap<Arc<CStr>, u32>,
    places: Box<[(usize, u32); PLACES]>,
    /// The statements of the open transaction, each once.
    ran: Vec<u32>,
    /// Statements of the running member that were not known.
    unknown: Vec<CString>,
    /// They were too many to be looked up.
    crowded: bool,
    transaction: u64,
    /// What the last commit had changed; the next often does the same.
    last: (Vec<u32>, Tables),
}

/// Where the open transaction was when a savepoint was set.
#[derive(Clone, Copy, Default)]
struct Mark {
    ran: usize,
    any: bool,
}

pub(crate) struct Recorder {
    on: Cell<bool>,
    /// A member runs.
    inside: Cell<bool>,
    /// Any table may have been changed in the open transaction.
    any: Cell<bool>,
    /// Something that writes was compiled in the running member.
    compiled: Cell<bool>,
    mark: Cell<Mark>,
    memory: RefCell<Memory>,
    /// What the authorizer is asked while we compile.
    asked: RefCell<Option<Asked>>,
}

#[derive(Default)]
struct Asked {
    tables: Vec<(String, bool)>,
    any: bool,
}

impl Recorder {
    pub(crate) fn new() -> Self {
        Self {
            on: Cell::new(false),
            inside: Cell::new(false),
            any: Cell::new(false),
            compiled: Cell::new(false),
            mark: Cell::default(),
            memory: RefCell::new(Memory::new()),
            asked: RefCell::new(None),
        }
    }

    pub(crate) fn is_on(&self) -> bool {
        self.on.get()
    }

    /// Begins or ends listening, between two transactions.
    pub(crate) fn turn(&self, connection: &Connection, on: bool) {
        self.on.set(on);
        ffi::trace(connection, self, on);
        *self.memory.borrow_mut() = Memory::new();
        self.forget_transaction();
    }

    /// Somebody had the connection and may have taken the trace away.
    pub(crate) fn again(&self, connection: &Connection) {
        if self.on.get() {
            ffi::trace(connection, self, true);
        }
    }

    /// A transaction begins, or has been rolled back.
    pub(crate) fn forget_transaction(&self) {
        if !self.on.get() {
            return;
        }
        self.any.set(false);
        self.compiled.set(false);
        self.mark.set(Mark::default());
        let mut memory = self.memory.borrow_mut();
        memory.ran.clear();
        memory.unknown.clear();
        memory.crowded = false;
        memory.transaction += 1;
    }

    pub(crate) fn set_inside(&self, inside: bool) {
        self.inside.set(inside);
    }

    pub(crate) fn savepoint(&self) {
        let ran = self.memory.borrow().ran.len();
        let any = self.any.get();
        self.mark.set(Mark { ran, any });
    }

    pub(crate) fn rollback_to(&self) {
        let mark = self.mark.get();
        self.any.set(mark.any);
        let mut memory = self.memory.borrow_mut();
        let memory = &mut *memory;
        for id in memory.ran.drain(mark.ran.min(memory.ran.len())..) {
            memory.statements[id as usize].noted = 0;
        }
    }

    /// The running member may have changed any table.
    pub(crate) fn any(&self) {
        self.any.set(true);
    }

    /// The authorizer was asked: a statement is being compiled.
    pub(crate) fn compiling(&self, action: c_int, table: Option<&CStr>, database: Option<&CStr>) {
        if !self.on.get() {
            return;
        }
        let (schema_changes, inserts) = match action {
            sqlite::SQLITE_INSERT => (is_schema(table), true),
            sqlite::SQLITE_UPDATE | sqlite::SQLITE_DELETE => (is_schema(table), false),
            sqlite::SQLITE_CREATE_INDEX
            | sqlite::SQLITE_CREATE_TABLE
            | sqlite::SQLITE_CREATE_TRIGGER
            | sqlite::SQLITE_CREATE_VIEW
            | sqlite::SQLITE_CREATE_VTABLE
            | sqlite::SQLITE_DROP_INDEX
            | sqlite::SQLITE_DROP_TABLE
            | sqlite::SQLITE_DROP_TRIGGER
            | sqlite::SQLITE_DROP_VIEW
            | sqlite::SQLITE_DROP_VTABLE
            | sqlite::SQLITE_ALTER_TABLE
            | sqlite::SQLITE_ANALYZE
            | sqlite::SQLITE_REINDEX
            | sqlite::SQLITE_ATTACH
            | sqlite::SQLITE_DETACH => (true, false),
            _ => return,
        };
        if let Some(asked) = &mut *self.asked.borrow_mut() {
            asked.any |= schema_changes;
            if let Some(name) = qualified(table, database) {
                asked.tables.push((name, inserts));
            } else {
                asked.any = true;
            }
        } else if self.inside.get() {
            self.compiled.set(true);
            if schema_changes {
                self.any.set(true);
            }
        }
    }

    /// A statement begins to run.
    pub(super) fn ran(&self, address: usize, text: &CStr) {
        if !self.inside.get() {
            return; // one of ours: BEGIN, COMMIT and the like
        }
        self.memory.borrow_mut().note(address, text);
    }

    /// The member is over: finds out about statements that were not known.
    pub(crate) fn settle(&self, connection: &Connection) {
        if !self.on.get() {
            return;
        }
        let known = self.memory.borrow().unknown.is_empty();
        if self.compiled.replace(false) || !known {
            self.learn(connection);
        }
    }

    #[cold]
    fn learn(&self, connection: &Connection) {
        let mut unknown = std::mem::take(&mut self.memory.borrow_mut().unknown);
        if std::mem::take(&mut self.memory.borrow_mut().crowded) {
            self.any.set(true);
        }
        if self.any.get() {
            // What they were compiled against may be gone, and it does not matter.
            // The schema is looked at again before anything more is learnt; what
            // ran before stays, should this member alone be undone.
            self.memory.borrow_mut().schema.version = None;
            return;
        }
        let Some(version) = schema_version(connection) else {
            self.any.set(true);
            return;
        };
        if self.memory.borrow().schema.version != Some(version) {
            let Some(schema) = Schema::read(connection, version) else {
                self.any.set(true);
                return;
            };
            let mut memory = self.memory.borrow_mut();
            // Those that ran are looked up anew, in their order: the mark is a
            // place among them.
            let ran = std::mem::take(&mut memory.ran);
            let texts = ran
                .iter()
                .map(|&id| memory.statements[id as usize].text.as_ref().to_owned());
            unknown.splice(0..0, texts.collect::<Vec<_>>());
            memory.forget_statements();
            memory.schema = schema;
        }
        for text in unknown {
            let tables = self.tables_of(connection, &text);
            self.memory.borrow_mut().learn(text, tables);
        }
    }

    /// What a statement may write; `None` is any table.
    fn tables_of(&self, connection: &Connection, text: &CStr) -> Option<Vec<(String, bool)>> {
        let ask = || {
            *self.asked.borrow_mut() = Some(Asked::default());
            let compiled = ffi::compile(connection, text);
            let asked = self.asked.borrow_mut().take().unwrap_or_default();
            (compiled && !asked.any).then_some(asked.tables)
        };
        if let Some(tables) = ask() {
            return Some(tables);
        }
        // The statements of virtual tables write what ordinary ones may not.
        let defensive = DbConfig::SQLITE_DBCONFIG_DEFENSIVE;
        if connection.set_db_config(defensive, false).is_err() {
            return None;
        }
        let tables = ask();
        // Should that fail the next member is less guarded against itself alone.
        let _ = connection.set_db_config(defensive, true);
        tables
    }

    /// What the transaction, committed now, may have changed.
    pub(crate) fn take(&self) -> Tables {
        if self.any.get() {
            return Tables::ANY;
        }
        self.memory.borrow_mut().tables_of_transaction()
    }
}

fn is_schema(table: Option<&CStr>) -> bool {
    table.is_none_or(|table| {
        let table = table.to_bytes();
        [&b"sqlite_master"[..], b"sqlite_schema"]
            .iter()
            .any(|name| table.eq_ignore_ascii_case(name))
    })
}

/// How a table is called: by its name alone in the database itself.
fn qualified(table: Option<&CStr>, database: Option<&CStr>) -> Option<String> {
    let table = table?.to_string_lossy();
    match database.map(CStr::to_string_lossy) {
        None => Some(table.into_owned()),
        Some(database) if database == "main" => Some(table.into_owned()),
        Some(database) => Some(format!("{database}.{table}")),
    }
}

fn schema_version(connection: &Connection) -> Option<i64> {
    connection
        .query_row("PRAGMA schema_version", (), |row| row.get(0))
        .ok()
}

impl Schema {
    fn read(connection: &Connection, version: i64) -> Option<Self> {
        let names = |sql: &str| {
            let mut statement = connection.prepare(sql).ok()?;
            let names = statement.query_map((), |row| row.get(0)).ok()?;
            names.collect::<rusqlite::Result<Vec<String>>>().ok()
        };
        Some(Self {
            version: Some(version),
            counted: names(
                "SELECT name FROM main.sqlite_schema WHERE type = 'table' AND \
                 upper(sql) LIKE '%AUTOINCREMENT%'",
            )?,
            shadows: names("SELECT name FROM pragma_table_list WHERE type = 'shadow'")?,
        })
    }

    /// What is written along with `table`, without being asked about.
    fn along_with(&self, table: &str, inserts: bool) -> impl Iterator<Item = &str> {
        let is_counted = inserts && self.counted.iter().any(|it| it.eq_ignore_ascii_case(table));
        // `docs` writes `docs_data`: so are they told apart by SQLite, too.
        let shadows = self.shadows.iter().filter(move |shadow| {
            shadow
                .get(..table.len())
                .is_some_and(|start| start.eq_ignore_ascii_case(table))
                && shadow.as_bytes().get(table.len()) == Some(&b'_')
        });
        is_counted
            .then_some("sqlite_sequence")
            .into_iter()
            .chain(shadows.map(|shadow| &**shadow))
    }
}

impl Memory {
    fn new() -> Self {
        Self {
            schema: Schema::default(),
            names: Vec::new(),
            by_name: HashMap::new(),
            statements: Vec::new(),
            by_text: HashMap::new(),
            places: Box::new([(0, 0); PLACES]),
            ran: Vec::new(),
            unknown: Vec::new(),
            crowded: false,
            transaction: 1,
            last: (Vec::new(), Tables::of([])),
        }
    }

    fn forget_statements(&mut self) {
        let transaction = self.transaction;
        *self = Self::new();
        self.transaction = transaction;
    }

    #[inline]
    fn note(&mut self, address: usize, text: &CStr) {
        let place = (address >> 4 ^ address >> 12) % PLACES;
        let (seen, id) = self.places[place];
        // An address is used again after its statement is gone.
        if seen == address && *self.statements[id as usize].text == *text {
            return self.note_known(id);
        }
        match self.by_text.get(text) {
            Some(&id) => {
                self.places[place] = (address, id);
                self.note_known(id);
            }
            None if self.unknown.iter().any(|known| **known == *text) => {}
            None if self.unknown.len() >= MOST_UNKNOWN => self.crowded = true,
            None => self.unknown.push(text.to_owned()),
        }
    }

    #[inline]
    fn note_known(&mut self, id: u32) {
        let statement = &mut self.statements[id as usize];
        if statement.noted != self.transaction {
            statement.noted = self.transaction;
            self.ran.push(id);
        }
    }

    fn learn(&mut self, text: CString, tables: Option<Vec<(String, bool)>>) {
        if let Some(&id) = self.by_text.get(&*text) {
            return self.note_known(id);
        }
        let mut indices = Vec::new();
        for (table, inserts) in tables.iter().flatten() {
            let along: Vec<Arc<str>> = self
                .schema
                .along_with(table, *inserts)
                .map(Arc::from)
                .collect();
            indices.push(self.index(Arc::from(&**table)));
            for name in along {
                indices.push(self.index(name));
            }
        }
        indices.sort_unstable();
        indices.dedup();
        let text: Arc<CStr> = text.into();
        let id = u32::try_from(self.statements.len()).expect("fewer than MOST_STATEMENTS");
        self.statements.push(Statement {
            text: Arc::clone(&text),
            tables: tables.map(|_| indices.into()),
            noted: 0,
        });
        self.by_text.insert(text, id);
        self.note_known(id);
    }

    fn index(&mut self, name: Arc<str>) -> u32 {
        if let Some(&index) = self.by_name.get(&name) {
            return index;
        }
        let index = u32::try_from(self.names.len()).expect("a schema has fewer tables");
        self.names.push(Arc::clone(&name));
        self.by_name.insert(name, index);
        index
    }

    fn tables_of_transaction(&mut self) -> Tables {
        let mut indices = Vec::new();
        for &id in &self.ran {
            match &self.statements[id as usize].tables {
                Some(tables) => indices.extend_from_slice(tables),
                None => return Tables::ANY,
            }
        }
        indices.sort_unstable();
        indices.dedup();
        if self.last.0 != indices {
            let names = indices
                .iter()
                .map(|&index| Arc::clone(&self.names[index as usize]));
            self.last = (indices.clone(), Tables::of(names));
        }
        let tables = self.last.1.clone();
        // A program that makes its statements' texts as it goes fills it up.
        if self.statements.len() > MOST_STATEMENTS {
            let schema = std::mem::take(&mut self.schema);
            self.forget_statements();
            self.schema = schema;
        }
        tables
    }
}
