//! One file's turns at the gate between processes.
//!
//! Safe to use from any thread: who sleeps here is not always inside of SQLite.

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use onepen_lock::gate::{Gate, Seat, Waited};
use onepen_lock::systems;

use crate::promotion::Identity;

/// How often it is looked whether somebody who does not queue has let the lock go.
const LOOK: Duration = Duration::from_millis(1);

/// Who was met beside the queue is expected for so long.
const LATELY: Duration = Duration::from_secs(10);

/// SQLite's busy handler counts a sleep as long as it was meant to be. So much of
/// its patience may be lost by waking up early when the lock is not to be had yet.
const EARLY_AT_MOST: Duration = Duration::from_millis(200);

/// One file's place at the gate.
pub struct Turns {
    path: PathBuf,
    /// `None` inside: there is no place, and every turn is granted.
    seat: OnceLock<Option<Seat>>,
    /// Which database it is.
    identity: OnceLock<Option<Identity>>,
    /// It is our turn.
    turn: AtomicBool,
    /// Patience lost since the lock was last taken, in nanoseconds.
    early: AtomicU64,
    /// It was refused and nobody slept here since.
    refused: AtomicBool,
    /// Somebody who does not queue had the lock in our turn: when.
    met: Mutex<Option<Instant>>,
    /// It does not sleep here after a refusal: it asks again whenever it likes.
    polls: AtomicBool,
}

impl Turns {
    /// For the database at `path`. Nothing is opened yet.
    pub fn new(path: PathBuf) -> Self {
        Self {
            path,
            seat: OnceLock::new(),
            identity: OnceLock::new(),
            turn: AtomicBool::new(false),
            early: AtomicU64::new(0),
            refused: AtomicBool::new(false),
            met: Mutex::new(None),
            polls: AtomicBool::new(false),
        }
    }

    /// Takes the place at the gate, with the first call.
    #[inline]
    pub fn seat(&self) -> Option<&Seat> {
        self.seat.get_or_init(|| self.join()).as_ref()
    }

    /// Whether [`seat`](Self::seat) was called, whatever came of it.
    #[inline]
    pub fn is_seated(&self) -> bool {
        self.seat.get().is_some()
    }

    /// Which database it is, if it has a place at the gate.
    pub fn identity(&self) -> Option<Identity> {
        self.seat()?;
        *self.identity.get_or_init(|| {
            let found = self.path.metadata().ok()?;
            Some((found.dev(), found.ino()))
        })
    }

    fn join(&self) -> Option<Seat> {
        if !self.path.metadata().ok()?.is_file() {
            return None;
        }
        // Over the network the side file would be another one for each machine.
        if systems::unfit(&self.path).ok()?.is_some() {
            return None;
        }
        let label = std::env::var("ONEPEN_LABEL").ok();
        let label = label.or_else(|| std::fs::read_to_string("/proc/self/comm").ok());
        let label = label.as_deref().unwrap_or("").trim();
        Gate::join(&self.path, label).ok().map(|gate| gate.seat())
    }

    /// Takes the turn if that needs no waiting.
    #[inline]
    pub fn try_take(&self) -> bool {
        let Some(seat) = self.seat() else {
            return true;
        };
        let taken = seat.try_take(None);
        if taken {
            self.turn.store(true, Relaxed);
            self.refused.store(false, Relaxed);
        }
        taken
    }

    /// The same for who is sent to its busy handler otherwise. That may be one that
    /// does not sleep here but asks again by itself: who polls is never there when it
    /// is its turn, and takes its chance, as without the gate. (A refused upgrade
    /// polls nothing: its transaction is over.)
    pub fn try_take_or_poll(&self) -> bool {
        if self.try_take() {
            return true;
        }
        if self.refused.swap(true, Relaxed) {
            self.polls.store(true, Relaxed);
        }
        self.polls.load(Relaxed)
    }

    /// The same for who may be refused without any handler: that says nothing of whether
    /// the connection polls. (A checkpoint that waits for nobody.)
    pub fn try_take_or_go_on_polling(&self) -> bool {
        self.try_take() || self.polls.load(Relaxed)
    }

    /// Takes the turn if that needs no waiting, for who goes on in either case.
    pub fn try_take_by_the_way(&self) {
        if let Some(seat) = self.seat()
            && seat.try_take(None)
        {
            self.turn.store(true, Relaxed);
        }
    }

    /// The turn is for a transaction that reads first, for so long at most. `false`: it
    /// is lost already.
    pub fn reads_first(&self, time: Duration) -> bool {
        self.is_still_ours(|seat| seat.reads_first(time))
    }

    /// With the write lock in hand: whether it is still our turn, as it stays then.
    #[inline]
    pub fn confirm(&self) -> bool {
        self.is_still_ours(Seat::confirm)
    }

    #[inline]
    fn is_still_ours(&self, confirm: impl FnOnce(&Seat) -> bool) -> bool {
        let Some(Some(seat)) = self.seat.get() else {
            return true;
        };
        // Who polls has none that could be lost.
        let ours = !self.turn.load(Relaxed) || confirm(seat);
        if !ours {
            self.turn.store(false, Relaxed);
        }
        ours
    }

    /// The lock was taken.
    pub fn locked(&self) {
        self.early.store(0, Relaxed);
    }

    /// The lock was refused although it is our turn.
    pub fn met_a_stranger(&self) {
        *self.met.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// Whether that was lately.
    pub fn met_a_stranger_lately(&self, now: Instant) -> bool {
        let met = *self.met.lock().unwrap_or_else(PoisonError::into_inner);
        met.is_some_and(|met| now.saturating_duration_since(met) < LATELY)
    }

    /// The end of a turn with so many commits, if there is one.
    #[inline]
    pub fn pass_on(&self, commits: u64) {
        if self.turn.load(Relaxed) {
            self.turn.store(false, Relaxed);
            if let Some(Some(seat)) = self.seat.get() {
                seat.pass_on(commits, commits, || false);
            }
        }
    }

    /// Whether there is a turn to pass on.
    #[inline]
    pub fn has_turn(&self) -> bool {
        self.turn.load(Relaxed)
    }

    /// Nobody wants the turn any more.
    pub fn leave(&self) {
        self.refused.store(false, Relaxed);
        self.pass_on(0);
        if let Some(Some(seat)) = self.seat.get() {
            seat.leave();
        }
    }

    /// Waits after a refusal: for the turn, or, when it has come, for the lock.
    /// `false`: there is no place at the gate, and nobody has waited.
    pub fn sleep(&self, time: Duration) -> bool {
        let Some(Some(seat)) = self.seat.get() else {
            return false;
        };
        self.refused.store(false, Relaxed);
        self.polls.store(false, Relaxed);
        let until = Instant::now() + time;
        if self.turn.load(Relaxed) && seat.has_the_turn() {
            self.wait_for_the_lock(seat, time, until);
        } else if seat.wait(None, Some(until), &|| false) == Waited::Turn {
            self.turn.store(true, Relaxed);
            seat.leave_a_gap();
        }
        true
    }

    /// It is our turn, and the lock is somebody's who does not queue.
    fn wait_for_the_lock(&self, seat: &Seat, time: Duration, until: Instant) {
        seat.met_a_stranger();
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            std::thread::sleep(left.min(LOOK));
            let left = until.saturating_duration_since(Instant::now());
            let early = self.early.load(Relaxed) + nanos(left.min(time));
            if early <= nanos(EARLY_AT_MOST) && !seat.lock_is_held() {
                self.early.store(early, Relaxed);
                return;
            }
        }
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
