//! One copy: what is asked of it, and its way from a source to its place.

use std::fmt;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::future::Copying;
use super::pace::{Halt, Limits, Pace};
use super::place::{BESIDE, Part, Place, beside};
use super::source::Source;
use super::through::{self, Ended};
use super::{Check, Copied, Phase, Progress, WhenLogFull, aside, copy};
use crate::cancel::CancelToken;
use crate::database::Database;
use crate::engine::Until;
use crate::error::{Error, ErrorKind, Result};
use crate::pen::Pen;
use crate::sqlite::SqliteEngine;
use crate::sync::Arc;

type OnProgress<'a> = Box<dyn FnMut(&Progress) + Send + 'a>;

/// The part of the time that copying takes when the caller does not say.
const SHARE: f64 = 0.25;

/// The same of the pen's time, in which nobody can write.
const SHARE_OF_PEN: f64 = 0.04;

/// The same for the check, which pins nothing and has time.
const SHARE_OF_CHECK: f64 = 0.1;

/// How far a copy stands behind other threads (`nice`).
#[cfg(target_os = "linux")]
const NICE: i32 = 10;

/// A copy of a database that has not been made yet
/// ([`Database::backup_to`], [`restore`](super::restore)).
#[must_use = "nothing is copied until `run`"]
pub struct Transfer<'a> {
    plan: Plan,
    progress: Option<OnProgress<'a>>,
}

struct Plan {
    source: Source,
    target: PathBuf,
    replace: bool,
    check: Check,
    compact: bool,
    snapshot: bool,
    hold: Option<Duration>,
    limits: Limits,
    deadline: Option<Duration>,
    cancel: Option<CancelToken>,
}

impl<'a> Transfer<'a> {
    pub(super) fn of_database(database: &Database, target: &Path) -> Self {
        Self::new(Source::Database(database.clone()), target)
    }

    pub(super) fn of_file(file: &Path, target: &Path) -> Self {
        Self::new(Source::File(file.to_owned()), target)
    }

    fn new(source: Source, target: &Path) -> Self {
        let plan = Plan {
            source,
            target: target.to_owned(),
            replace: false,
            check: Check::default(),
            compact: false,
            snapshot: false,
            hold: None,
            limits: Limits {
                rate: None,
                share: None,
                log: 1 << 30,
                when_log_full: WhenLogFull::default(),
            },
            deadline: None,
            cancel: None,
        };
        Self {
            plan,
            progress: None,
        }
    }

    /// Whether a database that is at the target already is replaced. Default: no,
    /// [`ErrorKind::Refused`].
    pub fn replace(mut self, replace: bool) -> Self {
        self.plan.replace = replace;
        self
    }

    /// How the copy is checked before it takes its place. Default:
    /// [`Check::Full`].
    pub fn check(mut self, check: Check) -> Self {
        self.plan.check = check;
        self
    }

    /// Copies with `VACUUM INTO`: the copy has no free pages and its tables lie in
    /// order, so it is smaller; it takes longer. What is copied is the content, so
    /// rowids of tables without an `INTEGER PRIMARY KEY` may change
    /// (<https://www.sqlite.org/lang_vacuum.html>). Default: no.
    pub fn compact(mut self, compact: bool) -> Self {
        self.plan.compact = compact;
        self
    }

    /// Copies the state of the moment at which it begins, from a snapshot, as it is
    /// done in any case of a database that is not open for writing here. No copying
    /// is done in the pen's turn then, but the write-ahead log cannot be reset until
    /// the end, and grows ([`log_limit`](Self::log_limit)). Default: no.
    pub fn snapshot(mut self, snapshot: bool) -> Self {
        self.plan.snapshot = snapshot;
        self
    }

    /// Over a rollback journal: when others have written so often that copying began
    /// anew too many times, one last copy is made as fast as possible, during which
    /// nobody can commit, for so long at most; whoever wants to waits. Default: it
    /// is refused ([`ErrorKind::Refused`]), and the message says who has the file
    /// open. Of no use where there is a write-ahead log.
    pub fn hold_writers(mut self, at_most: Duration) -> Self {
        self.plan.hold = Some(at_most);
        self
    }

    /// At most so many bytes are copied in a second. Default: no limit.
    pub fn rate(mut self, bytes_per_second: u64) -> Self {
        self.plan.limits.rate = Some(bytes_per_second.max(1));
        self
    }

    /// At most this part of the time is spent copying and checking, and the rest
    /// of it resting: 0.25 takes four times as long and a quarter of a processor.
    /// Between 0.01 and 1. Default: through the pen 0.04, for it is the part of
    /// the pen's time in which nobody can write, and for the check 0.1, but all of it
    /// while nobody writes; otherwise 0.25 and 0.1. From a
    /// [snapshot](Self::snapshot), the longer it takes, the longer the log grows.
    pub fn share(mut self, share: f64) -> Self {
        self.plan.limits.share = Some(if share.is_nan() {
            1.0
        } else {
            share.clamp(0.01, 1.0)
        });
        self
    }

    /// How many bytes the file of the write-ahead log may have while pages are
    /// copied (or as many as it has when copying begins, if those are more), and
    /// what happens beyond. Default: 1 GiB, [`WhenLogFull::Stop`].
    pub fn log_limit(mut self, bytes: u64, then: WhenLogFull) -> Self {
        self.plan.limits.log = bytes;
        self.plan.limits.when_log_full = then;
        self
    }

    /// The longest all of it may take; when it takes longer the target is as it was
    /// before ([`ErrorKind::DeadlineExceeded`]). Default: as long as it takes, with
    /// waits for others bounded by [`Options::wait`](crate::Options::wait).
    pub fn deadline(mut self, time: Duration) -> Self {
        self.plan.deadline = Some(time);
        self
    }

    /// A token that ends it from another thread. The target is as it was before.
    pub fn cancel_with(mut self, token: &CancelToken) -> Self {
        self.plan.cancel = Some(token.clone());
        self
    }

    /// Is called after each step, on the thread that makes the copy: about once for
    /// each megabyte, and every 10 ms while the copy is being checked.
    pub fn progress(mut self, each: impl FnMut(&Progress) + Send + 'a) -> Self {
        self.progress = Some(Box::new(each));
        self
    }

    /// Makes the copy, on a thread of its own and of low priority; returns when it is in its place and a loss
    /// of power cannot take it away.
    ///
    /// # Errors
    /// After any of them the target is as it was before.
    /// - [`ErrorKind::Refused`]: the target is not fit; the message says why, and
    ///   nothing was read.
    /// - [`ErrorKind::LogLimit`]: see [`log_limit`](Self::log_limit).
    /// - [`ErrorKind::Damaged`]: the copy did not pass its [`check`](Self::check).
    /// - [`ErrorKind::DeadlineExceeded`], [`ErrorKind::Cancelled`].
    /// - [`ErrorKind::Io`], [`ErrorKind::Sqlite`]: something could not be read or
    ///   written. Only when the flush of the directory failed, at the very end, is
    ///   the target a new one: the message says so, and [`Error::outcome`] is
    ///   [`Unknown`](crate::Outcome::Unknown).
    pub fn run(self) -> Result<Copied> {
        let prepared = self.prepare();
        std::thread::scope(|scope| {
            let maker = in_thread(|builder| builder.spawn_scoped(scope, || prepared.make()))?;
            match maker.join() {
                Ok(made) => made,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    /// On the thread that asks for it, which may be the one that has the pen.
    pub(super) fn prepare(self) -> Prepared<'a> {
        let through = match &self.plan.source {
            Source::Database(database) => through::pen(database).is_some(),
            Source::File(_) => false,
        };
        Prepared {
            through: through && !self.plan.snapshot && !self.plan.compact,
            transfer: self,
        }
    }
}

impl Transfer<'static> {
    /// [`run`](Self::run) for a task: the work is done on a thread of its own, and
    /// begins when this is first polled.
    ///
    /// # Cancel safety
    /// When the future is dropped, the copy ends as if it had been
    /// [cancelled](Self::cancel_with), some milliseconds later: the target is as it
    /// was before, and no part of a copy is left. Only when the copy was taking its
    /// place at that very moment may it be there, and then it is whole.
    ///
    /// ```
    /// # async fn shown() -> onepen::Result<()> {
    /// # let db = onepen::Database::open_in_memory()?;
    /// let copied = db.backup_to("copy.db").run_async().await?;
    /// println!("{} bytes in {:?}", copied.bytes, copied.took);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub fn run_async(self) -> impl Future<Output = Result<Copied>> + Send + 'static {
        Copying::New(Box::new(self))
    }

    /// A token that ends it, as the caller's does.
    pub(super) fn end_with_its_future(&mut self) -> CancelToken {
        let token = match &self.plan.cancel {
            Some(callers) => callers.child(),
            None => CancelToken::new(),
        };
        self.plan.cancel = Some(token.clone());
        token
    }
}

/// A copy that can be made on any thread.
pub(super) struct Prepared<'a> {
    transfer: Transfer<'a>,
    /// Through the pen.
    through: bool,
}

impl Prepared<'_> {
    pub(super) fn make(mut self) -> Result<Copied> {
        go_behind_others();
        let plan = &self.transfer.plan;
        plan.make(self.through, self.transfer.progress.as_deref_mut())
            .map_err(|error| plan.source.context(error))
    }
}

pub(super) fn in_thread<T>(
    begin: impl FnOnce(std::thread::Builder) -> std::io::Result<T>,
) -> Result<T> {
    begin(std::thread::Builder::new().name("onepen-backup".to_owned()))
        .map_err(|error| Error::io("no thread for the copy could be started", error))
}

/// Processors go to others first: a copy competes with writers for nothing else
/// but these, the disk, and a millisecond of the pen now and then.
fn go_behind_others() {
    // On Linux it is this thread that is meant, and its children.
    #[cfg(target_os = "linux")]
    let _ = rustix::process::setpriority_process(None, NICE);
}

impl Plan {
    fn make(
        &self,
        through: bool,
        progress: Option<&mut (dyn FnMut(&Progress) + Send + '_)>,
    ) -> Result<Copied> {
        let began = Instant::now();
        let path = self.source.path();
        let place = Place::find(&self.target, path, self.replace)?;
        let part = place.begin(path)?;
        let until = Until {
            deadline: self.deadline.and_then(|time| began.checked_add(time)),
            cancel: self.cancel.as_ref(),
        };
        let log = beside(path, BESIDE[0]);
        let writes = || match &self.source {
            Source::Database(database) => database.shared.hub.commits(),
            Source::File(_) => 0,
        };
        let mut pace = Pace::new(self.limits, until, progress, log);
        if through {
            pace.beside(&writes);
        }
        pace.take_share(SHARE);
        let (part, size) = self.copy(through, &place, part, &mut pace)?;
        let copying = began.elapsed();
        part.flush()?;
        pace.take_share(SHARE_OF_CHECK);
        pace.work_begins();
        self.check.run(&part.path, || {
            rest_or_go_on(&mut pace, Phase::Checking, size.bytes, size.bytes)
        })?;
        let checking = began.elapsed().saturating_sub(copying);
        rest_or_go_on(&mut pace, Phase::Finishing, size.bytes, size.bytes)?;
        place.fill(part)?;
        Ok(Copied {
            bytes: size.bytes,
            page_size: size.page_size,
            took: began.elapsed(),
            copying,
            checking,
            check: self.check,
            log_max: pace.log_max,
            started_over: pace.started_over,
            leftovers: place.leftovers(),
        })
    }

    fn copy(
        &self,
        through: bool,
        place: &Place,
        mut part: Part,
        pace: &mut Pace<'_, '_>,
    ) -> Result<(Part, copy::Size)> {
        let mut tries = copy::MOST_RESTARTS;
        if through && let Source::Database(database) = &self.source {
            match self.through(database.shared.pen()?, &part, pace)? {
                Ended::Whole(size) => return Ok((part, size)),
                // Not into the same file: whoever has the pen may still write to it.
                Ended::InVain => part = place.begin(self.source.path())?,
            }
            tries = 0; // over a rollback journal it would be the same again
        }
        loop {
            pace.begin();
            let tried = if self.compact {
                self.vacuum(&part, pace)
            } else {
                self.pages(&part, pace, tries)
            };
            match tried {
                Ok(size) => return Ok((part, size)),
                Err(Halt::Error(error)) => return Err(error),
                Err(Halt::StartOver) => {
                    part.clear()?;
                    self.source.let_log_be_reset(&pace.until);
                }
            }
        }
    }

    fn through(
        &self,
        pen: &Arc<Pen<SqliteEngine>>,
        part: &Part,
        pace: &mut Pace<'_, '_>,
    ) -> Result<Ended> {
        pace.begin();
        // The log is reset as ever, whatever its length.
        pace.pins_log = false;
        pace.take_share(SHARE_OF_PEN);
        let tried = through::copy(pen, part, pace, self.source.patience());
        pace.pins_log = true;
        pace.take_share(SHARE);
        match tried {
            Ok(ended) => Ok(ended),
            Err(Halt::Error(error)) => Err(error),
            Err(Halt::StartOver) => Ok(Ended::InVain),
        }
    }

    fn pages(
        &self,
        part: &Part,
        pace: &mut Pace<'_, '_>,
        tries: u32,
    ) -> std::result::Result<copy::Size, Halt> {
        let state = self.source.open(&self.while_waiting(pace))?;
        let others = copy::Others {
            patience: self.source.patience(),
            tries,
            hold: self.hold,
            path: self.source.path(),
        };
        copy::copy(state.connection(), part, pace, &others)
    }

    fn vacuum(
        &self,
        part: &Part,
        pace: &mut Pace<'_, '_>,
    ) -> std::result::Result<copy::Size, Halt> {
        let connection = self.source.connection(&self.while_waiting(pace))?;
        let page_size = connection.pragma_query_value(None, "page_size", |row| row.get(0))?;
        let target = part.path.to_str().ok_or_else(|| {
            Error::new(
                ErrorKind::Refused,
                format!(
                    "{}: VACUUM INTO needs a name that is UTF-8",
                    self.target.display()
                ),
            )
        })?;
        let mut halted = None;
        let done = aside::run(
            connection,
            move |connection| connection.execute("VACUUM INTO ?1", [target]).map(drop),
            || match step(pace, Phase::Copying, part.length(), 0) {
                Ok(pause) => Ok(pause),
                Err(Halt::Error(error)) => Err(error),
                Err(over @ Halt::StartOver) => {
                    halted = Some(over);
                    Err(Error::new(ErrorKind::Cancelled, "the log is to be reset"))
                }
            },
        );
        match (done, halted) {
            (_, Some(halted)) => Err(halted),
            (Err(error), None) => Err(copy::written(part, error).into()),
            (Ok(()), None) => Ok(copy::Size {
                bytes: part.length(),
                page_size,
            }),
        }
    }

    fn while_waiting<'p>(&self, pace: &Pace<'p, '_>) -> Until<'p> {
        let usual = || Instant::now().checked_add(self.source.patience());
        Until {
            deadline: pace.until.deadline.or_else(usual),
            cancel: pace.until.cancel,
        }
    }
}

fn rest_or_go_on(pace: &mut Pace<'_, '_>, phase: Phase, bytes: u64, of: u64) -> Result<bool> {
    step(pace, phase, bytes, of).map_err(|halt| match halt {
        Halt::Error(error) => error,
        Halt::StartOver => Error::new(ErrorKind::Cancelled, "nothing is copied any more"),
    })
}

/// Whether to pause for a tick, of a statement that runs by itself.
fn step(
    pace: &mut Pace<'_, '_>,
    phase: Phase,
    bytes: u64,
    of: u64,
) -> std::result::Result<bool, Halt> {
    pace.look(phase, bytes, of)?;
    Ok(pace.is_to_rest(phase, bytes))
}

impl fmt::Debug for Transfer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transfer")
            .field("from", &self.plan.source.path())
            .field("to", &self.plan.target)
            .field("replace", &self.plan.replace)
            .field("check", &self.plan.check)
            .field("compact", &self.plan.compact)
            .finish_non_exhaustive()
    }
}
