//! The turn to write to a file, for people who have connections of their own.
//!
//! Guarantees: in this process one at a time has the turn of a file, whatever
//! path led to it; turns are given in the order they were asked for; every write
//! of a [`Database`](crate::Database) over the same file takes the same turn. So
//! none of those who take it meets another's write lock.
//!
//! The queued writes of a `Database` stand in the line as one: those that come
//! while it waits for its turn share it.
//!
//! The turn orders those who ask for it. It is no lock of SQLite's: a connection
//! that writes without it is a stranger to the others, and is waited for.

use std::collections::HashMap;
use std::future::Future;
use std::panic::Location;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError, Weak};
use std::task::{Context, Poll, ready};
use std::time::Instant;

use super::Wait;
use super::inside::{self, Inside};
use super::line::{Left, Line, Waiting};
use crate::engine::{GiveUp, Patience, gave_up};
use crate::error::{self, Error, ErrorKind, Result, Waited, WaitedFor};
use crate::file::{self, FileId};
use crate::sync::{Arc, lock};

/// The turns of one file in this process.
pub(crate) struct Turns {
    line: Arc<Line>,
    id: usize,
    born: u32,
    /// Who has a [`WriteTurn`]; the pen does not say.
    holder: crate::sync::Mutex<Option<Holder>>,
}

#[derive(Clone, Copy)]
struct Holder {
    since: Instant,
    thread: std::thread::ThreadId,
    place: &'static Location<'static>,
}

impl Turns {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            line: Line::new(1),
            id: inside::new_id(),
            born: crate::fork::born(),
            holder: crate::sync::Mutex::new(None),
        })
    }

    /// The turns of the file `id`.
    pub(crate) fn of(id: &FileId) -> Arc<Self> {
        static FILES: Mutex<Option<HashMap<FileId, Weak<Turns>>>> = Mutex::new(None);
        let mut files = FILES.lock().unwrap_or_else(PoisonError::into_inner);
        let files = files.get_or_insert_default();
        if let Some(turns) = files.get(id).and_then(Weak::upgrade)
            // In a child, the parent's are held by threads that are not there.
            && crate::fork::check(turns.born).is_ok()
        {
            return turns;
        }
        files.retain(|_, turns| turns.strong_count() > 0);
        let turns = Self::new();
        files.insert(id.clone(), Arc::downgrade(&turns));
        turns
    }

    /// Waits for the turn; [`pass_on`](Self::pass_on) is owed after an `Ok`.
    pub(crate) fn take(&self, patience: &dyn Patience) -> Result<(), GiveUp> {
        self.line.take(patience).map_err(|left| match left {
            Left::GaveUp(why) => why,
            Left::Closed => GiveUp::NobodyWaits, // nobody closes this line
        })
    }

    pub(crate) fn pass_on(&self) {
        self.line.give_back();
    }

    /// Marks this thread as the one whose turn it is.
    pub(crate) fn enter(&self) -> Inside {
        Inside::enter(self.id)
    }

    /// Whether it is this thread's turn.
    pub(crate) fn is_held_here(&self) -> bool {
        Inside::is_in(self.id)
    }

    /// Who has the turn, if it is somebody with a permit.
    pub(crate) fn holder(&self) -> Option<error::Holder> {
        let Holder {
            since,
            thread,
            place,
        } = (*lock(&self.holder))?;
        let what = format!("a write permit taken at {place} on {thread:?}");
        Some(error::Holder::here(what, Some(since.elapsed())))
    }
}

/// The permit to write to a file, to be asked for by people who keep a
/// connection of their own for each thread. In the order asked for; the writes of
/// a [`Database`](crate::Database) over the same file take their turns in the
/// same line.
///
/// ```
/// # fn main() -> onepen::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let path = dir.path().join("app.db");
/// use onepen::blocks::{Transactions, WritePermit};
/// let mut connection = rusqlite::Connection::open(&path)?; // or diesel's, or anybody's
/// let permit = WritePermit::of(&path)?;
///
/// let turn = permit.take()?;
/// connection.immediate(|tx| tx.execute_batch("CREATE TABLE account(n)"))?;
/// drop(turn); // the next one's turn
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct WritePermit {
    turns: Arc<Turns>,
    name: Arc<str>,
    wait: Wait,
}

impl WritePermit {
    /// The permit of the file at `path`, which must be there: open a connection
    /// first.
    ///
    /// # Errors
    /// [`ErrorKind::Io`], when there is no such file or it cannot be looked at.
    pub fn of(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let doing = || {
            let path = path.display();
            format!("{path}: a write permit needs a database that is there")
        };
        let id = file::identify(path)
            .and_then(|id| id.ok_or_else(|| std::io::ErrorKind::NotFound.into()))
            .map_err(|error| Error::io(doing(), error))?;
        Ok(Self {
            turns: Turns::of(&id),
            name: crate::error::shown(path),
            wait: Wait::default(),
        })
    }

    /// How long [`take`](Self::take) waits. Default: at most 10 seconds.
    pub fn wait(mut self, wait: Wait) -> Self {
        self.wait = wait;
        self
    }

    /// Waits for the turn, in the order asked.
    ///
    /// For the turns of two files at once, ask in the same order everywhere:
    /// otherwise two threads can wait for each other, until their deadlines.
    ///
    /// # Errors
    /// - [`ErrorKind::DeadlineExceeded`], [`ErrorKind::Cancelled`]: with how long
    ///   was waited, and for whom.
    /// - [`ErrorKind::Reentrant`]: this thread has the turn: a permit, or it is
    ///   inside a write closure of a `Database` over this file.
    /// - [`ErrorKind::Forked`]: the permit was made before a `fork`.
    #[track_caller]
    pub fn take(&self) -> Result<WriteTurn> {
        self.take_with(&self.wait)
    }

    /// As [`take`](Self::take), with a wait of its own.
    ///
    /// # Errors
    /// As there.
    #[track_caller]
    pub fn take_with(&self, wait: &Wait) -> Result<WriteTurn> {
        let place = Location::caller();
        self.check()?;
        let since = Instant::now();
        self.turns
            .take(&wait.patience(since))
            .map_err(|why| self.in_vain(why, since))?;
        self.note(place);
        Ok(WriteTurn {
            _inside: self.turns.enter(),
            _taken: Taken(Arc::clone(&self.turns)),
        })
    }

    /// Runs `work` when it is our turn.
    ///
    /// # Errors
    /// As [`take`](Self::take), and those of `work`.
    #[track_caller]
    pub fn hold<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let _turn = self.take()?;
        work()
    }

    /// The same for a task, which is not blocked while it waits, and may keep the
    /// turn while it waits for something else. A write of a `Database` over this
    /// file that the task then waits for fails at its deadline: nothing can tell
    /// that it waits for itself.
    ///
    /// Cancel safe: a future that is dropped leaves the line.
    #[track_caller]
    pub fn take_async(&self) -> TakeTurn {
        let since = Instant::now();
        let waiting = self.wait_in_line(since);
        TakeTurn {
            permit: self.clone(),
            place: Location::caller(),
            since,
            waiting: Some(waiting),
        }
    }

    fn wait_in_line(&self, since: Instant) -> Waiting {
        let deadline = self.wait.deadline(since);
        self.turns.line.wait(deadline, self.wait.token().cloned())
    }

    /// How many wait for the turn now.
    pub fn waiting(&self) -> usize {
        self.turns.line.waiting()
    }

    fn check(&self) -> Result<()> {
        crate::fork::check(self.turns.born)?;
        if self.turns.is_held_here() {
            return Err(self.context(Error::new(
                ErrorKind::Reentrant,
                "this thread has the turn to write already, and would wait for itself",
            )));
        }
        Ok(())
    }

    fn note(&self, place: &'static Location<'static>) {
        *lock(&self.turns.holder) = Some(Holder {
            since: Instant::now(),
            thread: std::thread::current().id(),
            place,
        });
    }

    fn in_vain(&self, why: GiveUp, since: Instant) -> Error {
        let mut waited = Waited::new(WaitedFor::Pen, since.elapsed());
        let holder = self.turns.holder();
        let pen = || Some(error::Holder::here("a write of `Database`", None));
        waited.holder = holder.or_else(pen);
        self.context(gave_up(why, waited))
    }

    fn context(&self, error: Error) -> Error {
        error.with_database(&self.name)
    }
}

impl std::fmt::Debug for WritePermit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WritePermit")
            .field("file", &self.name)
            .field("waiting", &self.waiting())
            .finish_non_exhaustive()
    }
}

/// A turn that was granted; the next one's when dropped.
struct Taken(Arc<Turns>);

impl Drop for Taken {
    fn drop(&mut self) {
        if crate::fork::check(self.0.born).is_err() {
            return; // the parent's turn, and the parent's line
        }
        *lock(&self.0.holder) = None;
        self.0.pass_on();
    }
}

/// The turn to write. Dropping it gives it to the next in line: after the last
/// COMMIT, and with no transaction open.
///
/// It stays on its thread, so that the thread is told instead of blocked when it
/// would wait for itself:
///
/// ```compile_fail,E0277
/// # fn main() -> onepen::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let path = dir.path().join("app.db");
/// # drop(rusqlite::Connection::open(&path)?.execute_batch("CREATE TABLE a(n)"));
/// let permit = onepen::blocks::WritePermit::of(&path)?;
/// let turn = permit.take()?;
/// std::thread::scope(|scope| { scope.spawn(|| drop(turn)); });
/// # Ok(()) }
/// ```
#[must_use = "the turn is over when this is dropped"]
pub struct WriteTurn {
    // Before the turn is passed on.
    _inside: Inside,
    _taken: Taken,
}

impl std::fmt::Debug for WriteTurn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WriteTurn").finish_non_exhaustive()
    }
}

/// The turn of a task, which may move between threads.
#[must_use = "the turn is over when this is dropped"]
pub struct TaskTurn {
    _taken: Taken,
}

impl std::fmt::Debug for TaskTurn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TaskTurn").finish_non_exhaustive()
    }
}

/// A task's wait for its turn ([`WritePermit::take_async`]).
#[must_use = "futures do nothing unless polled"]
pub struct TakeTurn {
    permit: WritePermit,
    place: &'static Location<'static>,
    since: Instant,
    waiting: Option<Waiting>,
}

impl Future for TakeTurn {
    type Output = Result<TaskTurn>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        this.permit.check()?;
        let Some(waiting) = &mut this.waiting else {
            return Poll::Ready(Err(super::polled_again()));
        };
        let taken = ready!(Pin::new(waiting).poll(cx));
        this.waiting = None;
        Poll::Ready(match taken {
            Ok(()) => {
                this.permit.note(this.place);
                Ok(TaskTurn {
                    _taken: Taken(Arc::clone(&this.permit.turns)),
                })
            }
            Err(Left::GaveUp(why)) => Err(this.permit.in_vain(why, this.since)),
            Err(Left::Closed) => Err(this.permit.in_vain(GiveUp::NobodyWaits, this.since)),
        })
    }
}

impl std::fmt::Debug for TakeTurn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TakeTurn")
            .field("permit", &self.permit)
            .finish_non_exhaustive()
    }
}
