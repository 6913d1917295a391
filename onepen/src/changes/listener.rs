//! A listener's end: blocking, or a stream.

use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use futures_core::Stream;

use super::Tables;
use super::hub::Hub;

/// How many changes wait for a listener that does not say otherwise.
const ROOM: usize = 1024;

/// Who committed a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Origin {
    /// A handle of this process to this database.
    Here,
    /// Somebody else: another process, or another library of this one.
    Elsewhere,
}

/// One COMMIT, and the tables it may have changed.
#[derive(Clone, Debug)]
pub struct Change {
    pub(super) tables: Tables,
    pub(super) commit: u64,
    pub(super) origin: Origin,
    pub(super) lagged: u64,
}

impl Change {
    /// The tables that may have changed; never too few.
    pub fn tables(&self) -> &Tables {
        &self.tables
    }

    /// The number of this commit among those of this database since it was
    /// opened: larger for a later one. See [`Database::commits`](crate::Database::commits).
    pub fn commit(&self) -> u64 {
        self.commit
    }

    /// Who made it.
    pub fn origin(&self) -> Origin {
        self.origin
    }

    /// How many commits before this one were folded into it, because the listener
    /// was slower than the writers and its channel full. Their tables are among
    /// [`tables`](Self::tables); nothing is missing.
    pub fn lagged(&self) -> u64 {
        self.lagged
    }

    fn fold(&mut self, next: Self) {
        self.tables = self.tables.and(&next.tables);
        self.commit = next.commit;
        self.lagged += 1 + next.lagged;
        if next.origin == Origin::Elsewhere {
            self.origin = Origin::Elsewhere;
        }
    }
}

/// Where a listener's changes wait for it.
pub(super) struct Channel {
    state: Mutex<State>,
    arrived: Condvar,
}

struct State {
    queue: VecDeque<Change>,
    room: usize,
    /// Changes of other tables are not wanted.
    only: Tables,
    closed: bool,
    sleeping: bool,
    waker: Option<Waker>,
}

impl Channel {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State {
                queue: VecDeque::new(),
                room: ROOM,
                only: Tables::ANY,
                closed: false,
                sleeping: false,
                waker: None,
            }),
            arrived: Condvar::new(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Never waits, whatever the listener does.
    pub(super) fn push(&self, change: &Change) {
        let mut state = self.state();
        if !state.only.overlaps(&change.tables) {
            return;
        }
        if state.queue.len() >= state.room
            && let Some(last) = state.queue.back_mut()
        {
            last.fold(change.clone());
            return; // whoever sleeps was woken for the first
        }
        state.queue.push_back(change.clone());
        self.wake(state);
    }

    pub(super) fn close(&self) {
        let mut state = self.state();
        state.closed = true;
        self.wake(state);
    }

    fn wake(&self, mut state: MutexGuard<'_, State>) {
        let sleeping = std::mem::take(&mut state.sleeping);
        let waker = state.waker.take();
        drop(state); // a waker is foreign code
        if sleeping {
            self.arrived.notify_all();
        }
        if let Some(waker) = waker {
            super::hub::quietly(|| waker.wake());
        }
    }
}

/// What [`Database::changes`](crate::Database::changes) gives: the commits from
/// then on, one [`Change`] each, in their order. An [`Iterator`] that waits for
/// the next one, and a [`Stream`] for tasks; both end when the database is closed.
///
/// Dropping it ends listening. A listener that is slow keeps nobody waiting: see
/// [`Change::lagged`].
pub struct Changes {
    pub(super) channel: Arc<Channel>,
    pub(super) hub: Arc<Hub>,
}

/// Why there is no change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Nothing {
    Yet,
    Ever,
}

impl Changes {
    /// The next change, if one is there now.
    pub fn try_next(&mut self) -> Option<Change> {
        self.channel.state().queue.pop_front()
    }

    /// The next change, waiting for it at most so long. `None` also when the
    /// database was closed ([`is_closed`](Self::is_closed)).
    pub fn next_within(&mut self, wait: Duration) -> Option<Change> {
        self.wait_until(Instant::now().checked_add(wait)).ok()
    }

    /// Whether the database was closed and nothing is left to be told.
    pub fn is_closed(&self) -> bool {
        let state = self.channel.state();
        state.closed && state.queue.is_empty()
    }

    /// From now on only commits that may have changed one of these tables; what
    /// waits already is told as it is.
    #[must_use]
    pub fn only<'t>(self, tables: impl IntoIterator<Item = &'t str>) -> Self {
        self.want(Tables::of(tables.into_iter().map(Arc::from)));
        self
    }

    /// From now on at most so many changes wait for the listener; those beyond are
    /// folded into the last ([`Change::lagged`]). Default: 1,024.
    #[must_use]
    pub fn room(self, changes: usize) -> Self {
        self.channel.state().room = changes.max(1);
        self
    }

    pub(super) fn want(&self, tables: Tables) {
        self.channel.state().only = tables;
    }

    pub(super) fn wait_until(&self, deadline: Option<Instant>) -> Result<Change, Nothing> {
        let mut state = self.channel.state();
        loop {
            if let Some(change) = state.queue.pop_front() {
                return Ok(change);
            }
            if state.closed {
                return Err(Nothing::Ever);
            }
            state.sleeping = true;
            state = match deadline {
                None => self.channel.arrived.wait(state),
                Some(at) => {
                    let left = at.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return Err(Nothing::Yet);
                    }
                    let waited = self.channel.arrived.wait_timeout(state, left);
                    Ok(waited.unwrap_or_else(PoisonError::into_inner).0)
                }
            }
            .unwrap_or_else(PoisonError::into_inner);
        }
    }

    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Change>> {
        let mut state = self.channel.state();
        if let Some(change) = state.queue.pop_front() {
            return Poll::Ready(Some(change));
        }
        if state.closed {
            return Poll::Ready(None);
        }
        let replaced = state.waker.replace(cx.waker().clone());
        drop(state);
        drop(replaced);
        Poll::Pending
    }
}

impl Iterator for Changes {
    type Item = Change;

    /// Waits for the next change; `None` when the database was closed.
    fn next(&mut self) -> Option<Change> {
        self.wait_until(None).ok()
    }
}

impl Stream for Changes {
    type Item = Change;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Change>> {
        self.poll(cx)
    }
}

impl Drop for Changes {
    fn drop(&mut self) {
        self.hub.leave(&self.channel);
    }
}

impl fmt::Debug for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Changes").finish_non_exhaustive()
    }
}
