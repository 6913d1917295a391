//! A query that is run again when its tables change.
//!
//! Which tables a query reads SQLite's authorizer is asked while the query is
//! compiled. Whatever was committed while nobody looked is one reason to run
//! again, not many.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use futures_core::Stream;

use super::Tables;
use super::listener::{Changes, Nothing};
use crate::error::Result;
use crate::pen::job::Ticket;
use crate::readers::{ReadTx, Readers};

/// Maps the rows of a state.
type Run<T> = dyn Fn(&ReadTx) -> Result<Vec<T>> + Send + Sync;

/// What a [`Watch`] asks, and with which limits.
pub(crate) struct Query<T> {
    pub(crate) sql: String,
    pub(crate) run: Arc<Run<T>>,
    pub(crate) ticket: Ticket,
    pub(crate) readers: Arc<Readers>,
}

type Asked<T> = Result<(Vec<T>, Option<Tables>)>;

impl<T> Query<T> {
    /// The rows; and the tables, if they are not known.
    fn asking(&self, known: bool) -> impl FnOnce(&ReadTx) -> Asked<T> + Send + use<T> {
        let run = Arc::clone(&self.run);
        let sql = (!known).then(|| self.sql.clone());
        move |tx| {
            // Run first: SQLite looks whether the schema it knows is that of this
            // state when a statement runs, not when it is compiled.
            let rows = run(tx)?;
            let tables = match sql {
                Some(sql) => Some(match tx.tables_of(&sql)? {
                    Some(names) => Tables::of(names.into_iter().map(Arc::from)),
                    None => Tables::ANY,
                }),
                None => None,
            };
            Ok((rows, tables))
        }
    }
}

/// What [`Database::watch`](crate::Database::watch) gives: the rows of a query,
/// at first and again whenever its tables may have changed. An [`Iterator`] that
/// waits, and a [`Stream`] for tasks; both end when the database is closed.
///
/// Commits between two looks are one reason to run the query again: whoever is
/// slow sees fewer states, and always the latest. An error is an item; the next
/// look tries again at the next change.
pub struct Watch<T> {
    query: Query<T>,
    changes: Changes,
    /// The query is to be run whatever has changed.
    due: bool,
    /// The tables it reads, once that was asked.
    known: bool,
    running: Option<Pin<Box<dyn Future<Output = Asked<T>> + Send>>>,
}

impl<T: 'static> Watch<T> {
    pub(crate) fn new(query: Query<T>, changes: Changes) -> Self {
        Self {
            query,
            changes,
            due: true,
            known: false,
            running: None,
        }
    }

    /// The next rows, waiting at most so long for a change; `None` when nothing
    /// changed, or the database was closed ([`is_closed`](Self::is_closed)).
    pub fn next_within(&mut self, wait: Duration) -> Option<Result<Vec<T>>> {
        self.next_until(Instant::now().checked_add(wait))
    }

    /// Whether the database was closed.
    pub fn is_closed(&self) -> bool {
        self.changes.is_closed()
    }

    fn next_until(&mut self, deadline: Option<Instant>) -> Option<Result<Vec<T>>> {
        if !self.due {
            match self.changes.wait_until(deadline) {
                Ok(change) => self.noticed(change.tables()),
                Err(Nothing::Yet | Nothing::Ever) => return None,
            }
        }
        self.drain();
        let asking = self.query.asking(self.known);
        let asked = self.query.readers.read(&self.query.ticket, asking);
        Some(self.answered(asked))
    }

    /// Everything that was committed before the query begins is in its answer.
    fn drain(&mut self) {
        while let Some(change) = self.changes.try_next() {
            self.noticed(change.tables());
        }
        self.due = false;
    }

    fn noticed(&mut self, tables: &Tables) {
        self.due = true;
        if tables.is_any() {
            // The schema, perhaps, and with it what the query reads.
            self.known = false;
            self.changes.want(Tables::ANY);
        }
    }

    fn answered(&mut self, asked: Asked<T>) -> Result<Vec<T>> {
        let (rows, tables) = asked?;
        if let Some(tables) = tables {
            self.changes.want(tables);
            self.known = true;
        }
        Ok(rows)
    }
}

impl<T: 'static> Iterator for Watch<T> {
    type Item = Result<Vec<T>>;

    /// Waits for the next change; `None` when the database was closed.
    fn next(&mut self) -> Option<Self::Item> {
        self.next_until(None)
    }
}

impl<T: Send + 'static> Stream for Watch<T> {
    type Item = Result<Vec<T>>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        if this.running.is_none() {
            if !this.due {
                match ready!(this.changes.poll(cx)) {
                    Some(change) => this.noticed(change.tables()),
                    None => return Poll::Ready(None),
                }
            }
            this.drain();
            let asking = this.query.asking(this.known);
            let reading = this
                .query
                .readers
                .read_async(this.query.ticket.clone(), asking);
            this.running = Some(Box::pin(reading));
        }
        let Some(running) = &mut this.running else {
            return Poll::Pending;
        };
        let asked = ready!(running.as_mut().poll(cx));
        this.running = None;
        Poll::Ready(Some(this.answered(asked)))
    }
}

impl<T> fmt::Debug for Watch<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").finish_non_exhaustive()
    }
}
