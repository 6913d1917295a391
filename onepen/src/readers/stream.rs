//! Large results without loading them.
//!
//! The query is not run by a thread that waits whenever its reader is slow, but
//! a batch at a time by whoever asks: an iterator on its own thread, a task
//! through the [reading threads](super::threads), which fill a bounded buffer
//! and go on to other work. So any number of streams can be open, and a slow
//! one keeps nothing but its own connection.

use std::any::Any;
use std::collections::VecDeque;
use std::fmt;
use std::panic::{AssertUnwindSafe, Location, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::Weak;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use futures_core::Stream;
use rusqlite::Row;

use super::cursor::Cursor;
use super::future::{CancelOnDrop, wake, with_token_of_its_own};
use super::lease::Ends;
use super::threads::{Sweep, Task, given_up};
use super::{Limits, Readers, limits, wait_limits};
use crate::error::{Error, Result};
use crate::params::Sent;
use crate::pen::job::Ticket;
use crate::sync::{Arc, Condvar, Mutex, lock};

/// The most rows that are kept ready.
const BUFFER: usize = 256;
/// Rows made between two looks at whether anybody still wants them, and handed
/// over together; fewer when they are slow.
const BATCH: usize = 64;
const SLOW: Duration = Duration::from_millis(1);

/// The rows of a query, a few at a time, all of one committed state of the
/// database.
///
/// It is an [`Iterator`] for threads, which runs the query as it goes, and a
/// [`Stream`] for tasks, for which up to 256 rows are made ready on a thread of
/// ours. The query starts, and its snapshot is taken, when the first row is
/// asked for. An error is the last item. Dropping the rows stops the query.
///
/// While they live they keep the write-ahead log from being reset, like a
/// [`Snapshot`](crate::Snapshot).
///
/// # Panics
/// Where the mapping panicked, with what it panicked.
#[must_use = "rows do nothing unless asked for"]
pub struct RowStream<T> {
    shared: Arc<Shared<T>>,
}

/// A row, or an error, or the panic of its mapping.
type Item<T> = Result<Result<T>, Box<dyn Any + Send>>;

struct Shared<T> {
    readers: Arc<Readers>,
    state: Mutex<State<T>>,
    filled: Condvar,
    query: CancelOnDrop,
}

struct State<T> {
    source: Source<T>,
    buffer: VecDeque<Item<T>>,
    waker: Option<Waker>,
}

enum Source<T> {
    Here(Box<dyn Produce<T>>),
    /// Somebody is filling the buffer.
    Away,
    Ended,
}

trait Produce<T>: Send {
    /// The next row; `None` at the end.
    fn next(&mut self, readers: &Arc<Readers>) -> Option<Result<T>>;
    /// How long it waits for a thread to go on.
    fn wait_limits(&self, queued: Instant) -> Limits;
    /// Ends the query, whose lease is over: that is its next row.
    fn end(&mut self);
}

struct Query<P, F> {
    ticket: Ticket,
    since: Instant,
    sql: String,
    params: Option<P>,
    cursor: Option<Cursor>,
    map: F,
    at: &'static Location<'static>,
    stream: Weak<dyn Ends>,
    ended: Option<Error>,
}

impl<T, P, F> Produce<T> for Query<P, F>
where
    P: Sent,
    F: FnMut(&Row<'_>) -> rusqlite::Result<T> + Send,
{
    fn next(&mut self, readers: &Arc<Readers>) -> Option<Result<T>> {
        if let Some(ended) = self.ended.take() {
            return Some(Err(ended));
        }
        if let Some(params) = self.params.take() {
            match self.start(readers, params) {
                Ok(cursor) => self.cursor = Some(cursor),
                Err(error) => return Some(Err(error)),
            }
        }
        self.cursor.as_mut()?.next(&mut self.map).transpose()
    }

    fn wait_limits(&self, queued: Instant) -> Limits {
        if self.ticket.deadline_is_own {
            limits(&self.ticket, self.since)
        } else {
            wait_limits(&self.ticket, queued)
        }
    }

    fn end(&mut self) {
        if let Some(cursor) = self.cursor.take() {
            self.ended = Some(cursor.lease_ended());
        }
    }
}

impl<P: Sent, F> Query<P, F> {
    fn start(&self, readers: &Arc<Readers>, params: P) -> Result<Cursor> {
        let snapshot = readers.snapshot_since(&self.ticket, self.since, self.at)?;
        snapshot.keep(); // its query runs until it is dropped
        snapshot.tenure().is_of_a_stream(Weak::clone(&self.stream));
        let limits = limits(&self.ticket, self.since);
        snapshot.raw().watch(Box::new(limits), self.since);
        Cursor::new(snapshot, &self.sql, params)
    }
}

impl Readers {
    /// The rows of a query as they are asked for.
    #[track_caller]
    pub(crate) fn stream<T, P, F>(
        self: &Arc<Self>,
        ticket: Ticket,
        sql: impl Into<String>,
        params: P,
        map: F,
    ) -> RowStream<T>
    where
        P: Sent + 'static,
        F: FnMut(&Row<'_>) -> rusqlite::Result<T> + Send + 'static,
        T: Send + 'static,
    {
        let callers = ticket.cancel.clone();
        let (ticket, query) = with_token_of_its_own(ticket);
        let at = Location::caller();
        let sql = sql.into();
        let shared = Arc::new_cyclic(|shared: &Weak<Shared<T>>| {
            let source = Box::new(Query {
                ticket,
                since: Instant::now(),
                sql,
                params: Some(params),
                cursor: None,
                map,
                at,
                stream: Weak::clone(shared) as _,
                ended: None,
            });
            Shared {
                readers: Arc::clone(self),
                state: Mutex::new(State {
                    source: Source::Here(source),
                    buffer: VecDeque::new(),
                    waker: None,
                }),
                filled: Condvar::new(),
                query,
            }
        });
        if let Some(callers) = callers {
            callers.watch(Box::new(Sweep {
                readers: Arc::downgrade(self),
                life: Arc::downgrade(&shared),
            }));
        }
        RowStream { shared }
    }
}

impl<T> Shared<T> {
    /// Takes the source out and makes rows until there are `at_most`.
    fn fill(&self, source: Box<dyn Produce<T>>, at_most: usize) {
        let mut source = Some(source);
        while let Some(producer) = &mut source {
            let mut batch = Vec::with_capacity(BATCH);
            if self.make(&mut **producer, &mut batch) {
                // Before anybody learns of the end: with it the snapshot ends.
                source = None;
            }
            let mut state = lock(&self.state);
            if matches!(state.source, Source::Ended) {
                return; // nobody wants them; dropped without the lock
            }
            state.buffer.extend(batch);
            if state.buffer.len() >= at_most || source.is_none() {
                state.source = source.take().map_or(Source::Ended, Source::Here);
            }
            let waker = state.waker.take();
            drop(state);
            self.filled.notify_all();
            wake(waker);
        }
    }

    /// Makes some rows; says whether there will be no more.
    fn make(&self, producer: &mut dyn Produce<T>, batch: &mut Vec<Item<T>>) -> bool {
        let since = Instant::now();
        let is_slow = |made: usize| made.is_power_of_two() && since.elapsed() > SLOW;
        while batch.len() < BATCH && !is_slow(batch.len()) {
            match catch_unwind(AssertUnwindSafe(|| producer.next(&self.readers))) {
                Ok(None) => return true,
                Ok(Some(row)) => {
                    let last = row.is_err();
                    batch.push(Ok(row));
                    if last {
                        return true;
                    }
                }
                Err(panic) => {
                    batch.push(Err(panic));
                    return true;
                }
            }
        }
        false
    }

    fn take_source(state: &mut State<T>) -> Option<Box<dyn Produce<T>>> {
        match std::mem::replace(&mut state.source, Source::Away) {
            Source::Here(source) => Some(source),
            other => {
                state.source = other;
                None
            }
        }
    }
}

impl<T: Send> Ends for Shared<T> {
    /// What is in the buffer is still told.
    fn end(&self) -> bool {
        match &mut lock(&self.state).source {
            Source::Here(source) => {
                source.end();
                true
            }
            Source::Away => false,
            Source::Ended => true,
        }
    }
}

fn unwrap<T>(item: Item<T>) -> Result<T> {
    item.unwrap_or_else(|panic| resume_unwind(panic))
}

impl<T> Iterator for RowStream<T> {
    type Item = Result<T>;

    fn next(&mut self) -> Option<Result<T>> {
        let mut state = lock(&self.shared.state);
        loop {
            if let Some(item) = state.buffer.pop_front() {
                drop(state);
                return Some(unwrap(item));
            }
            if let Some(source) = Shared::take_source(&mut state) {
                drop(state);
                self.shared.fill(source, 1);
                state = lock(&self.shared.state);
            } else if matches!(state.source, Source::Ended) {
                return None;
            } else {
                state = self
                    .shared
                    .filled
                    .wait(state)
                    .unwrap_or_else(std::sync::PoisonError::into_inner);
            }
        }
    }
}

impl<T: Send + 'static> Stream for RowStream<T> {
    type Item = Result<T>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<T>>> {
        let shared = &self.shared;
        let mut state = lock(&shared.state);
        let item = state.buffer.pop_front();
        if item.is_none() {
            if matches!(state.source, Source::Ended) {
                return Poll::Ready(None);
            }
            match &mut state.waker {
                Some(waker) => waker.clone_from(cx.waker()),
                empty => *empty = Some(cx.waker().clone()),
            }
        }
        let source = if state.buffer.len() < BUFFER / 2 {
            Shared::take_source(&mut state)
        } else {
            None
        };
        drop(state);
        if let Some(source) = source {
            let task = Fill {
                shared: Arc::clone(shared),
                source,
                queued: Instant::now(),
            };
            let refused = shared.readers.refuse_inside_a_write(
                "a write closure waits for a stream of the same database; over a rollback journal \
                 the stream waits for the closure: read through the transaction the closure was \
                 given",
            );
            match refused {
                Ok(()) => shared
                    .readers
                    .threads
                    .submit(&shared.readers, Box::new(task)),
                Err(error) => Box::new(task).refuse(error),
            }
        }
        match item {
            Some(item) => Poll::Ready(Some(unwrap(item))),
            None => Poll::Pending,
        }
    }
}

struct Fill<T> {
    shared: Arc<Shared<T>>,
    source: Box<dyn Produce<T>>,
    queued: Instant,
}

impl<T: Send> Task for Fill<T> {
    fn run(self: Box<Self>, _: &Arc<Readers>) {
        self.shared.fill(self.source, BUFFER);
    }

    fn refuse(self: Box<Self>, error: Error) {
        let mut state = lock(&self.shared.state);
        state.source = Source::Ended;
        state.buffer.push_back(Ok(Err(error)));
        let waker = state.waker.take();
        drop(state);
        self.shared.filled.notify_all();
        wake(waker);
    }

    fn deadline(&self) -> Option<Instant> {
        self.source.wait_limits(self.queued).deadline
    }

    fn given_up(&self) -> Option<Error> {
        given_up(&self.source.wait_limits(self.queued), self.queued)
    }
}

impl<T> Drop for RowStream<T> {
    fn drop(&mut self) {
        self.shared.query.cancel();
        let mut state = lock(&self.shared.state);
        let source = std::mem::replace(&mut state.source, Source::Ended);
        let buffer = std::mem::take(&mut state.buffer);
        drop(state);
        // Foreign destructors run without the lock.
        drop((source, buffer));
    }
}

impl<T> fmt::Debug for RowStream<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RowStream").finish_non_exhaustive()
    }
}
