//! The calls of [`Database`] with nothing particular about them: this is where
//! each is documented. [`Call`](crate::Call) has the same with settings.

use std::borrow::Cow;
use std::future::Future;
use std::time::Duration;

use rusqlite::{Connection, Params, Row};

use crate::call::{Submitted, once};
use crate::changes::{Changes, CommitAddress, Watch};
use crate::database::Database;
use crate::error::{Outcome, Result};
use crate::params::Parameters;
use crate::pen::job::Kind;
use crate::readers::{ReadTx, RowStream, Snapshot};
use crate::tx::WriteTx;

impl Database {
    /// Runs `run` in a write transaction, on this thread or on the writer
    /// thread, and returns when it is committed.
    ///
    /// `run` may be run **more than once**: when somebody else's failure rolls
    /// back the group it was in, it runs again. It is `Fn`, so it cannot change
    /// what it captured; effects outside the database belong after `write` has
    /// returned. Use [`write_once`](Self::write_once) for a closure that must not
    /// be repeated.
    ///
    /// ```
    /// # fn main() -> onepen::Result<()> {
    /// # let db = onepen::Database::open_in_memory()?;
    /// # db.execute("CREATE TABLE seat(id INTEGER PRIMARY KEY, taken_by TEXT)", ())?;
    /// # db.execute_many("INSERT INTO seat(id) VALUES (?1)", [(1,), (2,)])?;
    /// let seat: i64 = db.write(|tx| {
    ///     let free = tx.query_row("SELECT min(id) FROM seat WHERE taken_by IS NULL", (), |row| row.get(0))?;
    ///     tx.execute("UPDATE seat SET taken_by = ?2 WHERE id = ?1", (free, "Ada"))?;
    ///     Ok(free)
    /// })?;
    /// println!("your seat is number {seat}"); // not in the closure: it may run twice
    /// # Ok(()) }
    /// ```
    ///
    /// # Guarantees
    /// Durable acknowledgement (1), independent members (2), arrival order (3),
    /// bounded waiting (6): see the [crate documentation](crate#guarantees).
    ///
    /// # Errors
    /// What `run` returned; [`ErrorKind::DeadlineExceeded`](crate::ErrorKind::DeadlineExceeded) when its turn did not
    /// come in time; [`ErrorKind::CommitFailed`](crate::ErrorKind::CommitFailed), with an
    /// [outcome](crate::Outcome) to look at; [`ErrorKind::Reentrant`](crate::ErrorKind::Reentrant) when called
    /// within a write closure of the same database (over a
    /// [rollback journal](crate::Journal::Rollback) also within a read closure); [`ErrorKind::Closed`](crate::ErrorKind::Closed),
    /// [`ErrorKind::Forked`](crate::ErrorKind::Forked), [`ErrorKind::QueueFull`](crate::ErrorKind::QueueFull).
    ///
    /// # Panics
    /// When `run` panics, with its payload, after its changes were undone.
    #[track_caller]
    pub fn write<T, F>(&self, run: F) -> Result<T>
    where
        T: Send,
        F: Fn(&WriteTx<'_>) -> Result<T> + Send,
    {
        self.shared.write(&self.shared.ticket, Kind::Grouped, run)
    }

    /// Like [`write`](Self::write) for a closure that must run at most once: it
    /// gets a transaction of its own, and shares its COMMIT with nobody.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    ///
    /// # Panics
    /// As [`write`](Self::write).
    #[track_caller]
    pub fn write_once<T, F>(&self, run: F) -> Result<T>
    where
        T: Send,
        F: FnOnce(&WriteTx<'_>) -> Result<T> + Send,
    {
        self.shared
            .write(&self.shared.ticket, Kind::Alone, once(run))
    }

    /// Runs one statement and returns how many rows it changed.
    ///
    /// The statement may run on the writer thread, and again. So the
    /// [parameters](Parameters) are a tuple or an array of values that can move
    /// there; those of `params!` and `named_params!` are evaluated on this thread
    /// first.
    ///
    /// ```
    /// # fn main() -> onepen::Result<()> {
    /// # let db = onepen::Database::open_in_memory()?;
    /// # db.execute("CREATE TABLE user(name TEXT, age INTEGER)", ())?;
    /// use onepen::rusqlite::{named_params, params};
    /// db.execute("INSERT INTO user VALUES (?1, ?2)", ("Ada", 36))?;
    /// db.execute("INSERT INTO user VALUES (?1, ?2)", params!["Grace", 85])?;
    /// db.execute(
    ///     "INSERT INTO user VALUES (:name, :age)",
    ///     named_params! {":name": "Alan", ":age": 41},
    /// )?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`write`](Self::write), and those of [`Parameters::send`].
    #[track_caller]
    pub fn execute<P>(&self, sql: &str, params: P) -> Result<usize>
    where
        P: Parameters,
    {
        let params = params.send()?;
        self.shared
            .write(&self.shared.ticket, Kind::Grouped, move |tx| {
                tx.run(sql, &params)
            })
    }

    /// Runs one statement for each row of parameters, all in one transaction;
    /// how many rows were changed in total.
    ///
    /// ```
    /// # fn main() -> onepen::Result<()> {
    /// # let db = onepen::Database::open_in_memory()?;
    /// # db.execute("CREATE TABLE point(x REAL, y REAL)", ())?;
    /// let rows = [(0.0, 1.0), (0.5, 0.5)];
    /// assert_eq!(db.execute_many("INSERT INTO point VALUES (?1, ?2)", rows)?, 2);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`write`](Self::write).
    #[track_caller]
    pub fn execute_many<P>(&self, sql: &str, rows: impl IntoIterator<Item = P>) -> Result<usize>
    where
        P: Parameters,
    {
        self.with().execute_many(sql, rows)
    }

    /// Has the write connection to itself, outside any transaction: for VACUUM,
    /// ATTACH, PRAGMA, and whatever else cannot share.
    ///
    /// The connection is opened anew afterwards, so nothing that was set on it
    /// stays. The closure begins and ends its own transactions; one that it
    /// leaves open is rolled back and reported.
    ///
    /// ```
    /// # fn main() -> onepen::Result<()> {
    /// # let db = onepen::Database::open_in_memory()?;
    /// db.exclusively(|connection| Ok(connection.execute_batch("VACUUM")?))?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`write`](Self::write).
    ///
    /// # Panics
    /// As [`write`](Self::write).
    pub fn exclusively<T, F>(&self, run: F) -> Result<T>
    where
        T: Send,
        F: FnOnce(&mut Connection) -> Result<T> + Send,
    {
        self.with().exclusively(run)
    }

    /// [`write`](Self::write) for tasks. No runtime is needed and no executor
    /// thread is blocked: the closure runs on the writer thread.
    ///
    /// ```
    /// # fn main() {}
    /// async fn add(db: &onepen::Database, name: String) -> onepen::Result<i64> {
    ///     db.write_async(move |tx| {
    ///         tx.execute("INSERT INTO user(name) VALUES (?1)", (&name,))?;
    ///         Ok(tx.last_insert_rowid())
    ///     })
    ///     .await
    /// }
    /// ```
    ///
    /// # Cancel safety
    /// Nothing is queued before the first poll. Dropping the future before the
    /// closure has started takes it out of the queue. After that the write runs
    /// on, unharmed and without harming anybody; only its answer is lost.
    #[track_caller]
    pub fn write_async<T, F>(&self, run: F) -> impl Future<Output = Result<T>> + Send + use<T, F>
    where
        T: Send + 'static,
        F: Fn(&WriteTx<'_>) -> Result<T> + Send + 'static,
    {
        self.with().write_async(run)
    }

    /// [`write_once`](Self::write_once) for tasks; cancel safety as
    /// [`write_async`](Self::write_async).
    #[track_caller]
    pub fn write_once_async<T, F>(
        &self,
        run: F,
    ) -> impl Future<Output = Result<T>> + Send + use<T, F>
    where
        T: Send + 'static,
        F: FnOnce(&WriteTx<'_>) -> Result<T> + Send + 'static,
    {
        self.with().write_once_async(run)
    }

    /// [`execute`](Self::execute) for tasks; cancel safety as
    /// [`write_async`](Self::write_async).
    #[track_caller]
    pub fn execute_async<P, S>(
        &self,
        sql: S,
        params: P,
    ) -> impl Future<Output = Result<usize>> + Send + 'static + use<P, S>
    where
        P: Parameters<Sent: 'static>,
        S: Into<Cow<'static, str>>,
    {
        self.with().execute_async(sql, params)
    }

    /// [`execute_many`](Self::execute_many) for tasks; cancel safety as
    /// [`write_async`](Self::write_async).
    #[track_caller]
    pub fn execute_many_async<P, S, R>(
        &self,
        sql: S,
        rows: R,
    ) -> impl Future<Output = Result<usize>> + Send + 'static + use<P, S, R>
    where
        P: Parameters<Sent: 'static>,
        S: Into<Cow<'static, str>>,
        R: IntoIterator<Item = P>,
    {
        self.with().execute_many_async(sql, rows)
    }

    /// [`exclusively`](Self::exclusively) for tasks; cancel safety as
    /// [`write_async`](Self::write_async).
    pub fn exclusively_async<T, F>(
        &self,
        run: F,
    ) -> impl Future<Output = Result<T>> + Send + use<T, F>
    where
        T: Send + 'static,
        F: FnOnce(&mut Connection) -> Result<T> + Send + 'static,
    {
        self.with().exclusively_async(run)
    }

    /// Runs `run` on this thread over one committed state of the database,
    /// waiting for no writer (over a [rollback journal](crate::Journal::Rollback)
    /// it does wait, and a write within `run` is an error).
    ///
    /// # Guarantees
    /// Snapshot reads (4), read your writes (5), bounded waiting (6): see the
    /// [crate documentation](crate#guarantees).
    ///
    /// # Errors
    /// What `run` returned; [`ErrorKind::DeadlineExceeded`](crate::ErrorKind::DeadlineExceeded) when no reader
    /// connection became free in time; [`ErrorKind::Closed`](crate::ErrorKind::Closed),
    /// [`ErrorKind::Forked`](crate::ErrorKind::Forked).
    ///
    /// # Panics
    /// When `run` panics, after its transaction was ended.
    #[inline]
    #[track_caller]
    pub fn read<T>(&self, run: impl FnOnce(&ReadTx) -> Result<T>) -> Result<T> {
        self.shared.readers()?.read(&self.shared.ticket, run)
    }

    /// The first row of a single query.
    ///
    /// ```
    /// # fn main() -> onepen::Result<()> {
    /// # let db = onepen::Database::open_in_memory()?;
    /// let version: String = db.query_row("SELECT sqlite_version()", (), |row| row.get(0))?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`read`](Self::read); `QueryReturnedNoRows` when there is no row;
    /// [`ErrorKind::NotAllowed`](crate::ErrorKind::NotAllowed) when the statement writes.
    #[inline]
    #[track_caller]
    pub fn query_row<T, P, F>(&self, sql: &str, params: P, map: F) -> Result<T>
    where
        P: Params,
        F: FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    {
        self.shared
            .readers()?
            .query_row(&self.shared.ticket, sql, params, map)
    }

    /// One committed state of the database, as a value: it stays what it is until
    /// it is dropped, and may move to another thread.
    ///
    /// It has a connection of its own, and it keeps the write-ahead log from
    /// being reset: [`Stats::oldest_snapshot`](crate::Stats::oldest_snapshot).
    ///
    /// ```
    /// # fn main() -> onepen::Result<()> {
    /// # let db = onepen::Database::open_in_memory()?;
    /// # db.execute("CREATE TABLE a(n)", ())?;
    /// let count = "SELECT count(*) FROM a";
    /// let before = db.snapshot()?;
    /// db.execute("INSERT INTO a VALUES (1)", ())?;
    /// let was: i64 = before.query_row(count, (), |row| row.get(0))?;
    /// let is: i64 = db.query_row(count, (), |row| row.get(0))?;
    /// assert_eq!((was, is), (0, 1));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`read`](Self::read).
    #[track_caller]
    pub fn snapshot(&self) -> Result<Snapshot> {
        self.shared.readers()?.snapshot(&self.shared.ticket)
    }

    /// [`read`](Self::read) for tasks: runs on a reader thread, and no executor
    /// thread is blocked. Its deadline counts from the first poll.
    ///
    /// # Cancel safety
    /// Nothing is queued before the first poll. Dropping the future keeps a
    /// queued read from running and interrupts one that runs.
    #[track_caller]
    pub fn read_async<T, F>(&self, run: F) -> impl Future<Output = Result<T>> + Send + use<T, F>
    where
        T: Send + 'static,
        F: FnOnce(&ReadTx) -> Result<T> + Send + 'static,
    {
        self.with().read_async(run)
    }

    /// The rows of a query, a few at a time, all of one committed state: for
    /// results that are too large to load. An [`Iterator`] for threads and a
    /// [`Stream`](futures_core::Stream) for tasks.
    ///
    /// ```
    /// # fn main() -> onepen::Result<()> {
    /// # let db = onepen::Database::open_in_memory()?;
    /// let numbers = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1)
    ///                SELECT i FROM n";
    /// let mut sum = 0;
    /// for row in db.stream(numbers, (100_000,), |row| row.get::<_, i64>(0))? {
    ///     sum += row?;
    /// }
    /// assert_eq!(sum, 5_000_050_000);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::Forked`](crate::ErrorKind::Forked). Everything else is an item of the rows, the last.
    #[track_caller]
    pub fn stream<T, P, F>(&self, sql: impl Into<String>, params: P, map: F) -> Result<RowStream<T>>
    where
        T: Send + 'static,
        P: Parameters<Sent: 'static>,
        F: FnMut(&Row<'_>) -> rusqlite::Result<T> + Send + 'static,
    {
        self.with().stream(sql, params, map)
    }

    /// Listens: every commit from now on, and which tables it may have changed.
    ///
    /// ```
    /// # fn main() -> onepen::Result<()> {
    /// # let db = onepen::Database::open_in_memory()?;
    /// # db.execute("CREATE TABLE visit(page TEXT)", ())?;
    /// let mut changes = db.changes()?;
    /// db.execute("INSERT INTO visit VALUES ('/')", ())?;
    /// let change = changes.next().unwrap();
    /// assert!(change.tables().contains("visit"));
    /// # Ok(()) }
    /// ```
    ///
    /// # Guarantees
    /// A commit is told once, after it is durable, in commit order. Every table it
    /// changed is named; sometimes more, or [any](crate::Tables::is_any). Nothing
    /// is told of what was rolled back. Commits of other processes are told, too,
    /// within some 20 ms, several perhaps as one, as changes of any table.
    ///
    /// Telling never waits for a listener; one that is slow is told how much it
    /// [lagged](crate::Change::lagged). A COMMIT that [failed on its way to the
    /// disk](crate::Outcome::Unknown) is not told.
    ///
    /// # Errors
    /// [`ErrorKind::Forked`](crate::ErrorKind::Forked); and when the first
    /// listener's connection cannot be opened.
    pub fn changes(&self) -> Result<Changes> {
        self.shared.changes()
    }

    /// Runs a query, and again whenever a table it reads may have changed.
    ///
    /// ```
    /// # fn main() -> onepen::Result<()> {
    /// # let db = onepen::Database::open_in_memory()?;
    /// # db.execute("CREATE TABLE task(id INTEGER PRIMARY KEY, done INT DEFAULT 0)", ())?;
    /// let mut open = db.watch("SELECT id FROM task WHERE NOT done", (), |row| row.get::<_, i64>(0))?;
    /// assert_eq!(open.next().unwrap()?, []);
    /// db.execute("INSERT INTO task DEFAULT VALUES", ())?;
    /// assert_eq!(open.next().unwrap()?, [1]);
    /// # Ok(()) }
    /// ```
    ///
    /// Views and triggers are looked through. A query over a virtual table is run
    /// again after every commit, because such a table may read any other; what an
    /// SQL function of your own reads cannot be seen.
    ///
    /// # Errors
    /// As [`changes`](Self::changes). What a run of the query fails with is an
    /// item.
    pub fn watch<T, P, F>(&self, sql: impl Into<String>, params: P, map: F) -> Result<Watch<T>>
    where
        T: Send + 'static,
        P: Params + Clone + Send + Sync + 'static,
        F: Fn(&Row<'_>) -> rusqlite::Result<T> + Send + Sync + 'static,
    {
        self.with().watch(sql, params, map)
    }

    /// Waits, at most so long, until it is known what became of a write of another
    /// process, and reads that begin here from then on include it if it was
    /// committed. `address` is what [`CommitToken::address`](crate::CommitToken::address)
    /// gave within its closure.
    ///
    /// `None` when that is not known: not yet, or never. Never, when the writer died
    /// between COMMIT and its note (microseconds), when 128 commits came after it before
    /// anybody asked, when all processes have closed the database since (the log is made
    /// anew then), when it is another database, or when this process has no place at
    /// the [gate](crate::Options::gate). Whoever needs the answer for longer than that
    /// gives the write a [key](crate::Call::key) and asks
    /// [`outcome_of`](Self::outcome_of).
    ///
    /// # Errors
    /// [`ErrorKind::Forked`](crate::ErrorKind::Forked); and when a connection to look
    /// with cannot be opened.
    pub fn wait_for(&self, address: &CommitAddress, at_most: Duration) -> Result<Option<Outcome>> {
        self.shared.wait_for(address, at_most)
    }

    /// How many commits were made through this database since it was opened: the
    /// number of the last ([`Change::commit`](crate::Change::commit)).
    pub fn commits(&self) -> u64 {
        self.shared.hub.commits()
    }

    /// Queues a write and returns at once. The handle can be awaited, asked, or
    /// dropped: the write runs all the same, and [`close`](Self::close) does not
    /// return before it has.
    ///
    /// ```
    /// # fn main() -> onepen::Result<()> {
    /// # let db = onepen::Database::open_in_memory()?;
    /// # db.execute("CREATE TABLE visit(page TEXT)", ())?;
    /// let visit = db.submit(|tx| tx.execute("INSERT INTO visit VALUES ('/')", ()))?;
    /// // … other work …
    /// assert_eq!(visit.wait()?, 1);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// When the write was not queued: [`ErrorKind::QueueFull`](crate::ErrorKind::QueueFull),
    /// [`ErrorKind::Closed`](crate::ErrorKind::Closed), [`ErrorKind::Cancelled`](crate::ErrorKind::Cancelled). When the queue is at its bound and the choice is to
    /// wait, this waits for space.
    #[track_caller]
    pub fn submit<T, F>(&self, run: F) -> Result<Submitted<T>>
    where
        T: Send + 'static,
        F: Fn(&WriteTx<'_>) -> Result<T> + Send + 'static,
    {
        self.with().submit(run)
    }

    /// [`submit`](Self::submit) for tasks: waits for space in the queue, and
    /// resolves to the handle.
    ///
    /// # Cancel safety
    /// Nothing is queued before the first poll. Dropping the future before it has
    /// resolved takes the write out of the queue, unless it has started.
    #[track_caller]
    pub fn submit_async<T, F>(
        &self,
        run: F,
    ) -> impl Future<Output = Result<Submitted<T>>> + Send + use<T, F>
    where
        T: Send + 'static,
        F: Fn(&WriteTx<'_>) -> Result<T> + Send + 'static,
    {
        self.with().submit_async(run)
    }
}
