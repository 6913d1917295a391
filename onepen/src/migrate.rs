//! Brings a schema up to date, once, whoever starts at the same moment.
//!
//! Guarantees: the version is read again under the write lock, so that of many
//! processes starting together exactly one runs each step; all pending steps
//! are one transaction, so that a failure, a panic or a loss of power leaves
//! the version there was; foreign keys are checked before it commits. A
//! database that is up to date costs one read and no lock.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use rusqlite::config::DbConfig;
use rusqlite::fallible_iterator::FallibleIterator as _;
use rusqlite::{Batch, Connection, Transaction, TransactionBehavior};

use crate::blocks::transaction::outcome_of_failed_commit;
use crate::connection::{is_contention, retry};
use crate::engine::Patience;
use crate::error::{Error, ErrorKind, Result, WaitedFor};

type Code = dyn Fn(&Transaction<'_>) -> Result<()> + Send + Sync;

/// The steps that lead from an empty database to the schema a program needs
/// ([`Options::migrations`](crate::Options::migrations)).
///
/// `PRAGMA user_version` counts the steps a database has had. When it is
/// opened, those it has not had are run in order, in **one** write transaction:
/// either all of them are in the database afterwards or none. Append steps, and
/// never change, remove or reorder one that was released.
///
/// Several processes may start at once: the version is read again under
/// SQLite's write lock, and each step runs once. The others wait, at most for
/// [`Options::wait`](crate::Options::wait). All steps hold that lock together,
/// so a long data migration is better done in pieces by the program itself.
///
/// Every opening runs its own migrations, also of a file that is already open
/// in this process.
///
/// # Foreign keys
/// While the steps run foreign keys are not enforced, so that a table can be
/// rebuilt in the way of <https://www.sqlite.org/lang_altertable.html#otheralter>
/// (create, copy, drop, rename) without its `ON DELETE` actions firing. Before
/// COMMIT `PRAGMA foreign_key_check` looks at the whole database, and what it
/// finds is an error; with [`Options::foreign_keys(false)`](crate::Options::foreign_keys)
/// it does not look.
///
/// # What a step may not do
/// BEGIN, COMMIT and ROLLBACK (savepoints are fine), VACUUM, ATTACH, and what
/// SQLite's [defensive mode](https://www.sqlite.org/c3ref/c_dbconfig_defensive.html)
/// forbids, such as writing to `sqlite_schema`.
///
/// # Errors
/// A failing step is named in the error, and nothing is changed. A
/// `user_version` beyond the last step is
/// [`ErrorKind::NewerDatabase`]: a newer version of the program was here.
///
/// ```
/// # fn main() -> onepen::Result<()> {
/// use onepen::{Migrations, Options};
///
/// let migrations = Migrations::new()
///     .step(
///         "users",
///         "CREATE TABLE user (id INTEGER PRIMARY KEY, name TEXT NOT NULL);
///          CREATE INDEX user_name ON user (name);",
///     )
///     .step("e-mail", "ALTER TABLE user ADD COLUMN mail TEXT")
///     .step_with("root", |tx| {
///         tx.execute("INSERT INTO user (name) VALUES (?1)", ["root"]).map(drop)
///     });
/// let db = Options::new().migrations(migrations).open_in_memory()?;
/// # drop(db);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, Default)]
#[must_use = "migrations do nothing until they are given to `Options::migrations`"]
pub struct Migrations {
    steps: Vec<Step>,
}

#[derive(Clone)]
struct Step {
    name: Cow<'static, str>,
    action: Action,
}

#[derive(Clone)]
enum Action {
    Sql(Cow<'static, str>),
    Code(Arc<Code>),
}

impl fmt::Debug for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.name, f)
    }
}

impl Migrations {
    /// No steps.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a step of SQL: any number of statements. `name` is for errors only.
    pub fn step(
        self,
        name: impl Into<Cow<'static, str>>,
        sql: impl Into<Cow<'static, str>>,
    ) -> Self {
        self.push(name, Action::Sql(sql.into()))
    }

    /// Adds a step of code, which works in the transaction it is given and
    /// neither begins nor ends one. It should do nothing outside of the
    /// database: when a later step fails it will be run again at the next
    /// opening.
    pub fn step_with<F, E>(self, name: impl Into<Cow<'static, str>>, code: F) -> Self
    where
        F: Fn(&Transaction<'_>) -> Result<(), E> + Send + Sync + 'static,
        E: Into<Error>,
    {
        let code = move |tx: &Transaction<'_>| code(tx).map_err(Into::into);
        self.push(name, Action::Code(Arc::new(code)))
    }

    /// The version these steps lead to: how many they are.
    pub fn version(&self) -> u32 {
        // `user_version` has 31 bits, and nobody writes 2³¹ steps.
        u32::try_from(self.steps.len()).unwrap_or(u32::MAX)
    }

    fn push(mut self, name: impl Into<Cow<'static, str>>, action: Action) -> Self {
        self.steps.push(Step {
            name: name.into(),
            action,
        });
        self
    }

    /// Runs what is pending over a connection that is in no transaction.
    /// Returns the version the database has now.
    pub(crate) fn run(&self, connection: &mut Connection, patience: &dyn Patience) -> Result<u32> {
        let since = Instant::now();
        let connection = &*connection;
        let before = retry(patience, WaitedFor::Opening, since, || {
            version_of(connection)
        })?;
        if self.pending(before)?.is_empty() {
            return Ok(self.version());
        }
        if connection.is_readonly(rusqlite::MAIN_DB)? {
            return Err(Error::new(
                ErrorKind::Refused,
                format!(
                    "the database is at version {before}, this program needs {}, and it is open \
                     for reading only; open it for writing once",
                    self.version()
                ),
            ));
        }

        // The pragma does nothing inside of a transaction, so this comes first,
        // and is undone last.
        let keys = ForeignKeysOff::new(connection)?;
        let tx = retry(patience, WaitedFor::WriteLock, since, || {
            Transaction::new_unchecked(connection, TransactionBehavior::Immediate)
        })?;
        // Somebody else may have been faster while we waited.
        let before = version_of(&tx)?;
        let pending = self.pending(before)?;
        if pending.is_empty() {
            return Ok(self.version());
        }
        for (version, step) in (before + 1..).zip(pending) {
            step.run(&tx)
                .map_err(|error| error.with_label(Some(step.title(version).into())))?;
        }
        tx.pragma_update(None, "user_version", self.version())?;
        if keys.were_enforced {
            check_foreign_keys(&tx)?;
        }
        commit(&tx, patience, since)?;
        Ok(self.version())
    }

    /// The steps that a database at `version` has not had.
    fn pending(&self, version: i64) -> Result<&[Step]> {
        let known = self.version();
        match usize::try_from(version) {
            Ok(done) if done <= self.steps.len() => Ok(&self.steps[done..]),
            Ok(_) => Err(Error::new(
                ErrorKind::NewerDatabase,
                format!(
                    "the database is at version {version}, and this program knows versions up to \
                     {known}: a newer version of the program has been here; use that one, or \
                     restore a backup made before it"
                ),
            )),
            Err(_) => Err(Error::new(
                ErrorKind::Refused,
                format!(
                    "the database's `PRAGMA user_version` is {version}, which no migration made: \
                     something else uses it"
                ),
            )),
        }
    }
}

impl Step {
    fn title(&self, version: i64) -> String {
        format!("migration to version {version} (`{}`)", self.name)
    }

    fn run(&self, tx: &Transaction<'_>) -> Result<()> {
        match &self.action {
            Action::Sql(sql) => run_sql(tx, sql)?,
            Action::Code(code) => code(tx)?,
        }
        // Code may have ended the transaction, or SQLite itself has (OR
        // ROLLBACK), and the code went on as if nothing had happened.
        if tx.is_autocommit() {
            return Err(Error::new(
                ErrorKind::TransactionLost,
                "the step ended the transaction it ran in; look at what it left behind",
            ));
        }
        Ok(())
    }
}

/// As `execute_batch`, but a statement that would begin or end a transaction is
/// refused before it runs.
fn run_sql(tx: &Transaction<'_>, sql: &str) -> Result<()> {
    let mut batch = Batch::new(tx, sql);
    while let Some(mut statement) = batch.next()? {
        if let Some(text) = statement.expanded_sql()
            && controls_transaction(&text)
        {
            return Err(Error::new(
                ErrorKind::NotAllowed,
                "a step may not BEGIN, COMMIT or ROLLBACK: all steps are one transaction, which \
                 begins before the first and ends after the last",
            ));
        }
        let mut rows = statement.query(())?;
        while rows.next()?.is_some() {}
    }
    Ok(())
}

/// Whether this one statement, which SQLite has parsed, is BEGIN, COMMIT, END
/// or a ROLLBACK of everything. The first word decides, and nothing but space
/// and comments can come before it.
fn controls_transaction(statement: &str) -> bool {
    let mut rest = statement;
    loop {
        rest = rest.trim_start_matches(|c: char| c.is_ascii_whitespace() || c == ';');
        if let Some(comment) = rest.strip_prefix("--") {
            rest = comment.split_once('\n').map_or("", |(_, after)| after);
        } else if let Some(comment) = rest.strip_prefix("/*") {
            rest = comment.split_once("*/").map_or("", |(_, after)| after);
        } else {
            break;
        }
    }
    let mut words = rest
        .split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .filter(|word| !word.is_empty());
    let first = words.next().unwrap_or_default().to_ascii_uppercase();
    match first.as_str() {
        "BEGIN" | "COMMIT" | "END" => true,
        // ROLLBACK [TRANSACTION] TO is about a savepoint. A comment between the
        // words would be taken for words: then it is refused, which is safe.
        "ROLLBACK" => {
            let mut words = words.skip_while(|word| word.eq_ignore_ascii_case("TRANSACTION"));
            !words
                .next()
                .is_some_and(|word| word.eq_ignore_ascii_case("TO"))
        }
        _ => false,
    }
}

fn version_of(connection: &Connection) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, "user_version", |row| row.get(0))
}

/// Every broken reference in the database, by table.
fn check_foreign_keys(tx: &Transaction<'_>) -> Result<()> {
    let mut statement = tx.prepare(
        "SELECT \"table\", parent, count(*) FROM pragma_foreign_key_check() GROUP BY 1, 2 ORDER BY 1, 2",
    )?;
    let broken: Vec<String> = statement
        .query_map((), |row| {
            let (child, parent, rows): (String, String, i64) =
                (row.get(0)?, row.get(1)?, row.get(2)?);
            Ok(format!("{rows} in `{child}` to `{parent}`"))
        })?
        .collect::<rusqlite::Result<_>>()?;
    if broken.is_empty() {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::NotAllowed,
        format!(
            "after the migrations foreign keys point to rows that are not there: {}; nothing was \
             changed (`PRAGMA foreign_key_check` shows those that were so before)",
            broken.join(", ")
        ),
    ))
}

/// Not [`Transaction::commit`], which would roll back when readers have to be
/// waited for, as over a rollback journal.
fn commit(tx: &Transaction<'_>, patience: &dyn Patience, since: Instant) -> Result<()> {
    let committed = retry(patience, WaitedFor::Readers, since, || {
        match tx.execute_batch("COMMIT") {
            Err(error) if !is_contention(&error) => Ok(Err(error)),
            other => other.map(Ok),
        }
    })?;
    committed.map_err(|error| {
        let code = error.sqlite_error().map_or(0, |error| error.extended_code);
        Error::commit(&Arc::new(error), outcome_of_failed_commit(code))
    })
}

/// Foreign keys unenforced until dropped.
struct ForeignKeysOff<'a> {
    connection: &'a Connection,
    were_enforced: bool,
}

impl<'a> ForeignKeysOff<'a> {
    fn new(connection: &'a Connection) -> Result<Self> {
        let were_enforced = connection.db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_FKEY)?;
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_FKEY, false)?;
        Ok(Self {
            connection,
            were_enforced,
        })
    }
}

impl Drop for ForeignKeysOff<'_> {
    fn drop(&mut self) {
        // Can fail only for a number that SQLite does not know, and it knew
        // this one.
        let _ = self
            .connection
            .set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_FKEY, self.were_enforced);
    }
}

#[cfg(all(test, not(any(onepen_loom, onepen_shuttle))))]
mod tests;
