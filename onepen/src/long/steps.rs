//! A big job in slices, with everybody else between them.
//!
//! # Guarantees
//! - Each slice is one transaction, committed when it has taken its time, and the
//!   next one queues behind everybody who came meanwhile: nobody waits for more
//!   than one slice and its COMMIT. Between two slices SQLite's lock is free for
//!   a moment, for programs that do not queue with us.
//! - Items are done in order, each in exactly one committed slice. After an error
//!   those before the failed slice are done, and the error's slice is undone.
//! - With a name the place is kept in the database, in the same transactions: the
//!   same call goes on there, after a crash as well.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::call::Call;
use crate::database::Database;
use crate::error::Result;
use crate::tx::WriteTx;

/// How long a slice takes, with its COMMIT.
const SLICE: Duration = Duration::from_millis(5);

/// How long SQLite's lock is left free between two slices: longer than those who
/// ask for it every millisecond sleep.
const PAUSE: Duration = Duration::from_millis(1);

/// The most that is added to it while the disk is slow.
const LONGEST_PAUSE: Duration = Duration::from_millis(50);

/// The most items in a slice.
const MOST: usize = 1 << 16;

/// Nobody means a longer one.
const LONGEST_SLICE: Duration = Duration::from_secs(24 * 60 * 60);

/// What was done by [`Database::write_in_steps`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stepped {
    /// Items that are committed, those of former calls with this name included.
    pub done: u64,
    /// How many of those were done before this call.
    pub before: u64,
    /// Transactions so far.
    pub slices: u64,
}

/// A big job, made by [`Call::in_steps`].
#[must_use = "a job does nothing until it is given its items"]
pub struct Steps<'a> {
    call: Call<'a>,
    slice: Duration,
    pause: Duration,
    name: Option<String>,
    progress: Option<Box<dyn FnMut(Stepped) + 'a>>,
}

impl<'a> Call<'a> {
    /// A job that is too big for one transaction: see [`Database::write_in_steps`].
    /// The deadline and the label are those of each slice.
    pub fn in_steps(self) -> Steps<'a> {
        Steps {
            call: self,
            slice: SLICE,
            pause: PAUSE,
            name: None,
            progress: None,
        }
    }
}

impl Database {
    /// Runs `each` for every item, in as many transactions as it takes: each is
    /// committed after a few milliseconds, and everybody who waits gets the pen
    /// before the next. [`Call::in_steps`] has the settings: a name to go on
    /// under after a crash, progress, the length of a slice.
    ///
    /// ```
    /// # fn main() -> onepen::Result<()> {
    /// # let db = onepen::Database::open_in_memory()?;
    /// # db.execute("CREATE TABLE a(n INTEGER)", ())?;
    /// let stepped = db.write_in_steps(0..100_000, |tx, n| {
    ///     tx.execute("INSERT INTO a VALUES (?1)", (n,))?;
    ///     Ok(())
    /// })?;
    /// assert_eq!(stepped.done, 100_000);
    /// # Ok(()) }
    /// ```
    ///
    /// `each` may be run again for an item whose slice was undone.
    ///
    /// # Errors
    /// As [`write`](Self::write). What was committed before stays.
    #[track_caller]
    pub fn write_in_steps<I, F>(&self, items: I, each: F) -> Result<Stepped>
    where
        I: IntoIterator,
        I::Item: Send + Sync,
        F: Fn(&WriteTx<'_>, &I::Item) -> Result<()> + Send + Sync,
    {
        self.with().in_steps().run(items, each)
    }
}

impl<'a> Steps<'a> {
    /// How long a slice takes, with its COMMIT: what somebody who comes meanwhile
    /// waits for. Default: 5 ms.
    pub fn slice(mut self, time: Duration) -> Self {
        self.slice = time.min(LONGEST_SLICE);
        self
    }

    /// How long nobody of this job writes between two slices, at least: after a COMMIT
    /// that took longer than a slice it is by so much longer, 50 ms at most. Default:
    /// 1 ms.
    pub fn pause(mut self, time: Duration) -> Self {
        self.pause = time;
        self
    }

    /// Keeps the place in the database under this name, in a table
    /// `_onepen_steps(name, done)`. The same name with the same items goes on
    /// after the last committed one; when everything is done it does nothing. To
    /// begin again, delete the row.
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Called after each COMMIT, on this thread.
    pub fn progress(mut self, progress: impl FnMut(Stepped) + 'a) -> Self {
        self.progress = Some(Box::new(progress));
        self
    }

    /// Does it.
    ///
    /// # Errors
    /// As [`Database::write_in_steps`].
    #[track_caller]
    pub fn run<I, F>(mut self, items: I, each: F) -> Result<Stepped>
    where
        I: IntoIterator,
        I::Item: Send + Sync,
        F: Fn(&WriteTx<'_>, &I::Item) -> Result<()> + Send + Sync,
    {
        let before = match &self.name {
            Some(name) => self.call.clone().write(|tx| place(tx, name))?,
            None => 0,
        };
        let mut stepped = Stepped {
            done: before,
            before,
            slices: 0,
        };
        let mut items = items.into_iter();
        for _ in 0..before {
            if items.next().is_none() {
                break;
            }
        }
        let mut ready: VecDeque<I::Item> = VecDeque::new();
        // So many were done in the time of a slice; a few at first.
        let mut aim = 64;
        // The part of a slice that is left for running: a COMMIT may well take
        // longer than what it commits.
        let mut share = 0.5;
        loop {
            ready.extend(items.by_ref().take(aim - ready.len().min(aim)));
            if ready.is_empty() {
                return Ok(stepped);
            }
            let (ready_now, slice) = (&ready, self.slice.mul_f64(share));
            let (name, done) = (self.name.as_deref(), stepped.done);
            let run = |tx: &WriteTx<'_>| {
                let began = Instant::now();
                let mut count = 0;
                for item in ready_now {
                    each(tx, item)?;
                    count += 1;
                    if began.elapsed() >= slice {
                        break;
                    }
                }
                if let Some(name) = name {
                    keep_place(tx, name, done + count as u64)?;
                }
                Ok((count, began, began.elapsed()))
            };
            let (count, began, ran) = self.call.clone().write_alone(run)?;
            ready.drain(..count);
            stepped.done += count as u64;
            stepped.slices += 1;
            if let Some(progress) = &mut self.progress {
                progress(stepped);
            }
            let took = began.elapsed().as_secs_f64().max(1e-9);
            share = f64::midpoint(share, ran.as_secs_f64() / took).clamp(0.02, 1.0);
            // As many as fit, and a few more to find out whether more do.
            let fit = count as f64 / took * self.slice.as_secs_f64() * 1.25;
            aim = (fit as usize).clamp(1, (aim * 4).min(MOST));
            // A COMMIT that takes longer than a slice waits for a disk that is busy
            // with something else, mostly with flushing what is copied back from the
            // log: then others go first for as long as that took.
            let commit = Duration::from_secs_f64(took).saturating_sub(ran);
            let slow = commit.saturating_sub(self.slice).min(LONGEST_PAUSE);
            let pause = self.pause.saturating_add(slow);
            if !pause.is_zero() {
                crate::sync::pause(pause);
            }
        }
    }
}

fn place(tx: &WriteTx<'_>, name: &str) -> Result<u64> {
    tx.execute_batch(
        "CREATE TABLE IF NOT EXISTS main._onepen_steps (
            name TEXT NOT NULL PRIMARY KEY,
            done INTEGER NOT NULL
         ) WITHOUT ROWID",
    )?;
    let done = "SELECT done FROM main._onepen_steps WHERE name = ?1";
    let done = tx.query_row_optional(done, (name,), |row| row.get::<_, i64>(0))?;
    Ok(done.map_or(0, i64::cast_unsigned))
}

fn keep_place(tx: &WriteTx<'_>, name: &str, done: u64) -> Result<()> {
    tx.execute(
        "INSERT INTO main._onepen_steps VALUES (?1, ?2)
         ON CONFLICT(name) DO UPDATE SET done = excluded.done",
        (name, done.cast_signed()),
    )?;
    Ok(())
}

impl std::fmt::Debug for Steps<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Steps")
            .field("slice", &self.slice)
            .field("pause", &self.pause)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}
