//! One call and what is particular about it.

use std::borrow::Cow;
use std::future::Future;
use std::panic::Location;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use rusqlite::{Connection, Params, Row};

use crate::cancel::CancelToken;
use crate::changes::{Query, Watch};
use crate::database::{Database, Shared};
use crate::error::{Error, ErrorKind, Result};
use crate::options::Options;
use crate::params::{Parameters, Sent};
use crate::pen::future::{Pending, Write, block_on};
use crate::pen::job::{Kind, Priority, Ticket};
use crate::readers::{ReadTx, Readers, RowStream, Snapshot};
use crate::sqlite::SqliteEngine;
use crate::tx::{About, WriteTx, as_member};

/// A call with settings of its own, made by [`Database::with`].
#[derive(Clone)]
#[must_use = "a call does nothing until it is given something to do"]
pub struct Call<'a> {
    database: &'a Database,
    ticket: Arc<Ticket>,
}

impl<'a> Call<'a> {
    pub(crate) fn new(database: &'a Database) -> Self {
        Self {
            database,
            ticket: Arc::clone(&database.shared.ticket),
        }
    }

    /// The longest this call waits for its turn. A write that has started by
    /// then runs on and returns its true outcome; a read is also ended while it
    /// runs.
    pub fn deadline(mut self, wait: Duration) -> Self {
        let ticket = self.ticket();
        ticket.patience = Some(wait);
        ticket.deadline_is_own = true;
        self
    }

    /// Which writes go first when several wait.
    pub fn priority(mut self, priority: Priority) -> Self {
        self.ticket().priority = priority;
        self
    }

    /// A name for the call, in its errors and in the errors of those who wait
    /// for it.
    pub fn label(mut self, label: impl Into<Arc<str>>) -> Self {
        self.ticket().label = Some(label.into());
        self
    }

    /// The longest the closure of a write may hold the pen. One that runs longer is
    /// undone and fails with
    /// [`ErrorKind::LimitExceeded`](crate::ErrorKind::LimitExceeded): in the middle
    /// of a statement; code that runs no statement is not ended before it returns.
    /// Others in its group are run again, and do not notice.
    pub fn limit(mut self, limit: Duration) -> Self {
        self.ticket().limit = Some(limit);
        self
    }

    /// A token that can end the call from another thread.
    pub fn cancel_with(mut self, token: &CancelToken) -> Self {
        self.ticket().cancel = Some(token.clone());
        self
    }

    /// This call's own, from the first setting on.
    fn ticket(&mut self) -> &mut Ticket {
        Arc::make_mut(&mut self.ticket)
    }

    /// It takes the room of these in the queue.
    pub(crate) fn holding<S: Sent>(mut self, rows: &Result<Rows<S>>) -> Self {
        self.ticket().bytes = rows.as_ref().map_or(0, Rows::bytes);
        self
    }

    pub(crate) fn options(&self) -> &'a Options {
        &self.database.shared.connector.options
    }

    fn shared(&self) -> &'a Shared {
        &self.database.shared
    }

    /// [`Database::write`] with these settings.
    ///
    /// # Errors
    /// As there.
    #[track_caller]
    pub fn write<T, F>(self, run: F) -> Result<T>
    where
        T: Send,
        F: Fn(&WriteTx<'_>) -> Result<T> + Send,
    {
        self.shared().write(&self.ticket, Kind::Grouped, run)
    }

    /// [`Database::write_once`] with these settings.
    ///
    /// # Errors
    /// As there.
    #[track_caller]
    pub fn write_once<T, F>(self, run: F) -> Result<T>
    where
        T: Send,
        F: FnOnce(&WriteTx<'_>) -> Result<T> + Send,
    {
        self.shared().write(&self.ticket, Kind::Alone, once(run))
    }

    /// [`Database::execute`] with these settings.
    ///
    /// # Errors
    /// As there.
    #[track_caller]
    pub fn execute<P>(self, sql: &str, params: P) -> Result<usize>
    where
        P: Parameters,
    {
        let params = params.send()?;
        self.write(move |tx| tx.run(sql, &params))
    }

    /// [`Database::execute_many`] with these settings.
    ///
    /// # Errors
    /// As there.
    #[track_caller]
    pub fn execute_many<P>(self, sql: &str, rows: impl IntoIterator<Item = P>) -> Result<usize>
    where
        P: Parameters,
    {
        let rows = Rows::of(rows);
        let call = self.holding(&rows);
        let rows = rows?;
        call.write(move |tx| rows.execute(tx, sql))
    }

    /// [`Database::exclusively`] with these settings.
    ///
    /// # Errors
    /// As there.
    pub fn exclusively<T, F>(self, run: F) -> Result<T>
    where
        T: Send,
        F: FnOnce(&mut Connection) -> Result<T> + Send,
    {
        let shared = self.shared();
        shared
            .pen()?
            .write(
                &self.ticket,
                Kind::Exclusive,
                with_connection(Arc::clone(shared.readers()?), run),
            )
            .map_err(|error| shared.connector.context(error))
    }

    /// [`Database::write_async`] with these settings.
    #[track_caller]
    pub fn write_async<T, F>(self, run: F) -> impl Future<Output = Result<T>> + Send + use<T, F>
    where
        T: Send + 'static,
        F: Fn(&WriteTx<'_>) -> Result<T> + Send + 'static,
    {
        self.grouped(Ok(run))
    }

    /// [`Database::write_once_async`] with these settings.
    #[track_caller]
    pub fn write_once_async<T, F>(
        self,
        run: F,
    ) -> impl Future<Output = Result<T>> + Send + use<T, F>
    where
        T: Send + 'static,
        F: FnOnce(&WriteTx<'_>) -> Result<T> + Send + 'static,
    {
        self.alone(Ok(run))
    }

    /// [`Database::execute_async`] with these settings.
    #[track_caller]
    pub fn execute_async<P, S>(
        self,
        sql: S,
        params: P,
    ) -> impl Future<Output = Result<usize>> + Send + 'static + use<P, S>
    where
        P: Parameters<Sent: 'static>,
        S: Into<Cow<'static, str>>,
    {
        let sql = sql.into();
        let statement = params.send();
        self.grouped(statement.map(|params| move |tx: &WriteTx<'_>| tx.run(&sql, &params)))
    }

    /// [`Database::execute_many_async`] with these settings.
    #[track_caller]
    pub fn execute_many_async<P, S, R>(
        self,
        sql: S,
        rows: R,
    ) -> impl Future<Output = Result<usize>> + Send + 'static + use<P, S, R>
    where
        P: Parameters<Sent: 'static>,
        S: Into<Cow<'static, str>>,
        R: IntoIterator<Item = P>,
    {
        let sql = sql.into();
        let rows = Rows::of(rows);
        self.holding(&rows)
            .grouped(rows.map(|rows| move |tx: &WriteTx<'_>| rows.execute(tx, &sql)))
    }

    /// [`Database::exclusively_async`] with these settings.
    pub fn exclusively_async<T, F>(
        self,
        run: F,
    ) -> impl Future<Output = Result<T>> + Send + use<T, F>
    where
        T: Send + 'static,
        F: FnOnce(&mut Connection) -> Result<T> + Send + 'static,
    {
        let readers = Arc::clone(&self.shared().readers);
        self.future(Kind::Exclusive, Ok(with_connection(readers, run)))
    }

    /// [`Database::submit`] with these settings.
    ///
    /// # Errors
    /// As there.
    #[track_caller]
    pub fn submit<T, F>(self, run: F) -> Result<Submitted<T>>
    where
        T: Send + 'static,
        F: Fn(&WriteTx<'_>) -> Result<T> + Send + 'static,
    {
        let pen = Arc::clone(self.shared().pen()?);
        let inside = pen.is_in_its_way();
        let run = with_tx(About::of(&self.ticket), run);
        let pending = Pending::enqueue(pen, &self.ticket, Kind::Grouped, run, None)?;
        // From within a closure that writes wait for nobody could make room while
        // we wait.
        if !inside {
            pending.pen().wait_until_admitted(pending.member());
        }
        Ok(Submitted { pending })
    }

    /// [`Database::submit_async`] with these settings.
    #[track_caller]
    pub fn submit_async<T, F>(
        self,
        run: F,
    ) -> impl Future<Output = Result<Submitted<T>>> + Send + use<T, F>
    where
        T: Send + 'static,
        F: Fn(&WriteTx<'_>) -> Result<T> + Send + 'static,
    {
        let pen = self.shared().pen().map(Arc::clone);
        let about = About::of(&self.ticket);
        let ticket = self.ticket;
        let mut new = Some((pen, run));
        let mut queued: Option<Pending<SqliteEngine, T>> = None;
        std::future::poll_fn(move |cx| {
            if let Some((pen, run)) = new.take() {
                let run = with_tx(about.clone(), run);
                let pending = Pending::enqueue(pen?, &ticket, Kind::Grouped, run, None)?;
                queued = Some(pending);
            }
            match &queued {
                Some(pending) if !pending.pen().poll_admitted(pending.member(), cx.waker()) => {
                    Poll::Pending
                }
                _ => Poll::Ready(match queued.take() {
                    Some(pending) => Ok(Submitted { pending }),
                    None => Err(ran_already()),
                }),
            }
        })
    }

    /// [`Database::read`] with these settings.
    ///
    /// # Errors
    /// As there, and when the deadline passes while `run` runs a query.
    #[track_caller]
    pub fn read<T>(self, run: impl FnOnce(&ReadTx) -> Result<T>) -> Result<T> {
        self.shared().readers()?.read(&self.ticket, run)
    }

    /// [`Database::query_row`] with these settings.
    ///
    /// # Errors
    /// As there, and when the deadline passes while the query runs.
    #[track_caller]
    pub fn query_row<T, P, F>(self, sql: &str, params: P, map: F) -> Result<T>
    where
        P: Params,
        F: FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    {
        self.shared()
            .readers()?
            .query_row(&self.ticket, sql, params, map)
    }

    /// [`Database::snapshot`] with these settings.
    ///
    /// # Errors
    /// As there.
    #[track_caller]
    pub fn snapshot(self) -> Result<Snapshot> {
        self.shared().readers()?.snapshot(&self.ticket)
    }

    /// [`Database::read_async`] with these settings.
    #[track_caller]
    pub fn read_async<T, F>(self, run: F) -> impl Future<Output = Result<T>> + Send + use<T, F>
    where
        T: Send + 'static,
        F: FnOnce(&ReadTx) -> Result<T> + Send + 'static,
    {
        let readers = self.shared().readers().map(Arc::clone);
        let ticket = self.ticket;
        let at = Location::caller();
        async move {
            let ticket = Arc::unwrap_or_clone(ticket);
            readers?.read_async_at(ticket, at, run).await
        }
    }

    /// [`Database::stream`] with these settings.
    ///
    /// # Errors
    /// As there.
    #[track_caller]
    pub fn stream<T, P, F>(self, sql: impl Into<String>, params: P, map: F) -> Result<RowStream<T>>
    where
        T: Send + 'static,
        P: Parameters<Sent: 'static>,
        F: FnMut(&Row<'_>) -> rusqlite::Result<T> + Send + 'static,
    {
        let params = params.send()?;
        Ok(self
            .shared()
            .readers()?
            .stream(Arc::unwrap_or_clone(self.ticket), sql, params, map))
    }

    /// The future of a write that may share its COMMIT; or of the error for which
    /// there is none.
    #[track_caller]
    pub(crate) fn grouped<T: 'static, F>(
        self,
        run: Result<F>,
    ) -> Write<SqliteEngine, impl FnMut(&mut SqliteEngine) -> Result<T> + Send + use<T, F>, T>
    where
        F: Fn(&WriteTx<'_>) -> Result<T> + Send + 'static,
    {
        let about = About::of(&self.ticket);
        self.future(Kind::Grouped, run.map(|run| with_tx(about, run)))
    }

    /// The same for one that has a transaction of its own.
    #[track_caller]
    pub(crate) fn alone<T: 'static, F>(
        self,
        run: Result<F>,
    ) -> Write<SqliteEngine, impl FnMut(&mut SqliteEngine) -> Result<T> + Send + use<T, F>, T>
    where
        F: FnOnce(&WriteTx<'_>) -> Result<T> + Send + 'static,
    {
        let about = About::of(&self.ticket);
        self.future(Kind::Alone, run.map(|run| with_tx(about, once(run))))
    }

    pub(crate) fn database(&self) -> &'a Database {
        self.database
    }

    /// A closure that shares its transaction with nobody, and may run again.
    #[track_caller]
    pub(crate) fn write_alone<T, F>(self, run: F) -> Result<T>
    where
        T: Send,
        F: FnMut(&WriteTx<'_>) -> Result<T> + Send,
    {
        self.shared().write(&self.ticket, Kind::Alone, run)
    }

    /// [`Database::watch`] with these settings, each time the query is run.
    ///
    /// # Errors
    /// As there.
    pub fn watch<T, P, F>(self, sql: impl Into<String>, params: P, map: F) -> Result<Watch<T>>
    where
        T: Send + 'static,
        P: Params + Clone + Send + Sync + 'static,
        F: Fn(&Row<'_>) -> rusqlite::Result<T> + Send + Sync + 'static,
    {
        let shared = self.shared();
        let sql = sql.into();
        let text = sql.clone();
        let query = Query {
            sql,
            run: Arc::new(move |tx: &ReadTx| tx.query_map(&text, params.clone(), &map)),
            ticket: Arc::unwrap_or_clone(self.ticket),
            readers: Arc::clone(shared.readers()?),
        };
        Ok(Watch::new(query, shared.changes()?))
    }

    fn future<T, C>(self, kind: Kind, call: Result<C>) -> Write<SqliteEngine, C, T>
    where
        C: FnMut(&mut SqliteEngine) -> Result<T> + Send + 'static,
    {
        match call {
            Ok(call) => Write::New {
                pen: self.shared().pen().map(Arc::clone),
                ticket: self.ticket,
                kind,
                call,
            },
            Err(error) => Write::Refused(self.shared().connector.context(error)),
        }
    }
}

/// A closure over a transaction, as the pen takes it.
fn with_tx<T, F>(about: About, mut run: F) -> impl FnMut(&mut SqliteEngine) -> Result<T> + Send
where
    F: FnMut(&WriteTx<'_>) -> Result<T> + Send,
{
    move |engine| as_member(engine, &about, &mut run)
}

fn with_connection<T, F>(
    readers: Arc<Readers>,
    run: F,
) -> impl FnMut(&mut SqliteEngine) -> Result<T> + Send
where
    F: FnOnce(&mut Connection) -> Result<T> + Send,
{
    let mut run = Some(run);
    move |engine| match run.take() {
        Some(run) => {
            // Transactions that only wait for the next read would be in the way
            // of a checkpoint, a VACUUM, a change of the journal.
            readers.rest();
            run(engine.connection_mut()?)
        }
        None => Err(ran_already()),
    }
}

pub(crate) fn once<T, F>(run: F) -> impl FnMut(&WriteTx<'_>) -> Result<T> + Send
where
    F: FnOnce(&WriteTx<'_>) -> Result<T> + Send,
{
    let mut run = Some(run);
    move |tx| match run.take() {
        Some(run) => run(tx),
        None => Err(ran_already()),
    }
}

/// The pen never runs these kinds twice.
fn ran_already() -> Error {
    debug_assert!(
        false,
        "bug in the pen: a closure that may run once was run again"
    );
    Error::new(ErrorKind::Closed, "the closure already ran")
}

/// The parameters of one statement that is run for each of them.
pub(crate) struct Rows<S>(Vec<S>);

impl<S: Sent> Rows<S> {
    pub(crate) fn of<P>(rows: impl IntoIterator<Item = P>) -> Result<Self>
    where
        P: Parameters<Sent = S>,
    {
        let rows = rows.into_iter().map(Parameters::send);
        Ok(Self(rows.collect::<Result<_>>()?))
    }

    /// What they take in the queue, as far as their type tells.
    fn bytes(&self) -> u32 {
        u32::try_from(size_of_val(self.0.as_slice())).unwrap_or(u32::MAX)
    }

    pub(crate) fn execute(&self, tx: &WriteTx<'_>, sql: &str) -> Result<usize> {
        let mut statement = tx.prepare(sql)?;
        let mut changed = 0;
        for row in &self.0 {
            changed += row
                .execute(&mut statement)
                .map_err(|error| tx.explain(error))?;
        }
        Ok(changed)
    }
}

/// A write that was [submitted](Database::submit): a future of its answer.
#[must_use = "the write runs in any case, but its outcome is only known through this"]
pub struct Submitted<T> {
    pending: Pending<SqliteEngine, T>,
}

impl<T: Send + 'static> Submitted<T> {
    /// Whether the outcome is known.
    pub fn is_done(&self) -> bool {
        self.pending.is_done()
    }

    /// Blocks until the outcome is known.
    ///
    /// # Errors
    /// As [`Database::write`].
    ///
    /// # Panics
    /// When the closure panicked, with its payload.
    pub fn wait(mut self) -> Result<T> {
        self.pending.pen().refuse_reentry()?;
        block_on(|cx| self.pending.poll(cx))
    }
}

impl<T: Send + 'static> Future for Submitted<T> {
    type Output = Result<T>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<T>> {
        if !self.is_done() {
            self.pending.pen().refuse_reentry()?;
        }
        self.pending.poll(cx)
    }
}

impl<T> Drop for Submitted<T> {
    fn drop(&mut self) {
        self.pending.detach();
    }
}

impl<T> std::fmt::Debug for Submitted<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Submitted").finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Call<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Call")
            .field("ticket", &self.ticket)
            .finish_non_exhaustive()
    }
}
