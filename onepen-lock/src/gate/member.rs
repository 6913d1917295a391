//! One process at the gate: its slot, taken at [`Gate::join`] and free again with
//! the last handle, or with the process.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::time::Duration;

use rustix::thread::futex;

use super::layout::SLOTS;
use super::lock_table::Files;
use super::map::Map;
use super::notes::{self, Note, Stamp};
use super::queue::{Place, World};
use super::seat::{Line, Seat};
use super::{NotJoined, SLICE, View, alive, clock, file, text};
use crate::fork::PerProcess;

/// This process's place at the gate of one database. Clones are the same place;
/// it is free again when the last clone and the last [`Seat`] are gone.
///
/// Joining again the database that this process has joined gives the same place.
/// In a forked child neither it nor its seats take part: every turn is granted at
/// once, without an order.
///
/// ```
/// # #[cfg(target_os = "linux")]
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// # let database = dir.path().join("app.db");
/// # std::fs::File::create(&database)?;
/// use onepen_lock::gate::{Gate, Waited};
///
/// let gate = Gate::join(&database, "orders")?;
/// let seat = gate.seat();
/// assert_eq!(seat.take(None, None, &|| false), Waited::Turn);
/// // BEGIN IMMEDIATE … COMMIT
/// seat.pass_on(1, 1, || false);
/// # Ok(()) }
/// # #[cfg(not(target_os = "linux"))]
/// # fn main() {}
/// ```
#[derive(Clone)]
pub struct Gate {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    file: File,
    pub(super) map: Map,
    path: PathBuf,
    pub(super) files: Files,
    slot: usize,
    generation: u16,
    born: u32,
    /// A turn's length, in nanoseconds.
    pub(super) slice: u64,
    /// Who of this process wants the turn.
    pub(super) line: Mutex<Line>,
    /// The line has moved.
    pub(super) moved: Condvar,
    pub(super) seats: AtomicU64,
    /// Whoever has the turn should leave others a gap first.
    pub(super) gap_due: AtomicBool,
}

type Joined = HashMap<(u64, u64), Weak<Inner>>;

fn joined() -> std::sync::MutexGuard<'static, Joined> {
    static JOINED: PerProcess<Mutex<Joined>> = PerProcess::new();
    JOINED.get().lock().unwrap_or_else(PoisonError::into_inner)
}

impl Gate {
    /// Takes a place at the gate of the database at `database`, which has to be
    /// there, and makes its side file if there is none. `label` is what others
    /// are shown; 40 bytes of it.
    ///
    /// # Errors
    /// [`NotJoined`] says why there is none. The database can be written to all the
    /// same, without an order.
    pub fn join(database: &Path, label: &str) -> Result<Self, NotJoined> {
        Self::join_with(database, label, SLICE)
    }

    /// [`join`](Self::join) with another length of a turn than [`SLICE`], 2 ms at
    /// most. For measurements: what is fair is the same for all.
    ///
    /// # Errors
    /// As [`join`](Self::join).
    pub fn join_with(database: &Path, label: &str, slice: Duration) -> Result<Self, NotJoined> {
        let born = crate::fork::born();
        let (file, map, path) = file::open(database)?;
        let meta = file.metadata()?;
        let mut joined = joined();
        joined.retain(|_, inner| inner.strong_count() > 0);
        let id = (meta.dev(), meta.ino());
        let known = joined.get(&id).and_then(Weak::upgrade);
        if let Some(inner) = known.filter(|inner| inner.is_here() && !inner.map.is_lost()) {
            return Ok(Self { inner });
        }
        let slot = claim_slot(&file)?;
        let generation = settle(&map, slot, label);
        let inner = Arc::new(Inner {
            file,
            map,
            path,
            files: Files::of(&database.canonicalize()?),
            slot,
            generation,
            born,
            slice: clock::nanos(slice).min(super::queue::LONGEST_SLICE),
            line: Mutex::default(),
            moved: Condvar::new(),
            seats: AtomicU64::new(1),
            gap_due: AtomicBool::new(false),
        });
        joined.insert(id, Arc::downgrade(&inner));
        Ok(Self { inner })
    }

    /// A seat for one more connection that writes.
    pub fn seat(&self) -> Seat {
        Seat::new(Arc::clone(&self.inner))
    }

    /// How many other processes wait for their turn now.
    pub fn others_are_waiting(&self) -> u32 {
        self.inner.place().how_many_wait()
    }

    /// Who is here, and what they are doing, this process included.
    pub fn look(&self) -> View {
        let inner = &*self.inner;
        super::observer::view(&inner.map, clock::now(), |slot| {
            slot == inner.slot || alive::is_claimed(&inner.file, slot)
        })
    }

    /// Says whether this process wants notes from now on.
    pub fn listen(&self, listens: bool) {
        let inner = &*self.inner;
        if inner.is_here() {
            notes::listen(&inner.map, inner.slot, listens);
        }
    }

    /// Whether another process wants notes. Costs two loads.
    #[inline]
    pub fn others_listen(&self) -> bool {
        let inner = &*self.inner;
        notes::others_listen(&inner.map, inner.slot) && inner.is_here()
    }

    /// Forgets those that listened and are gone. Costs a system call for each that
    /// listens.
    pub fn forget_the_dead(&self) {
        let inner = &*self.inner;
        for slot in notes::listeners(&inner.map) {
            if slot != inner.slot && !alive::is_claimed(&inner.file, slot) {
                notes::listen(&inner.map, slot, false);
            }
        }
    }

    /// Notes what a commit of this process did, after it.
    pub fn note(&self, note: &Note) {
        if self.inner.is_here() {
            notes::write(&self.inner.map, note);
        }
    }

    /// What every commit after `from` up to `to` did, in order. `None` when there is
    /// no note of one of them, or none that is surely of it: then anything may have
    /// been changed.
    pub fn notes(&self, from: Stamp, to: Stamp) -> Option<Vec<Note>> {
        notes::chain(&self.inner.map, from, to)
    }

    /// The note of the commit with this number, if there is one.
    pub fn note_of(&self, commits: u32) -> Option<Note> {
        notes::read(&self.inner.map, commits)
    }

    /// The side file.
    pub fn path(&self) -> &Path {
        &self.inner.path
    }
}

impl std::fmt::Debug for Gate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gate")
            .field("path", &self.inner.path)
            .field("slot", &self.inner.slot)
            .finish_non_exhaustive()
    }
}

fn claim_slot(file: &File) -> Result<usize, NotJoined> {
    for slot in 0..SLOTS {
        if alive::claim(file, slot)? {
            return Ok(slot);
        }
    }
    Err(NotJoined::Full)
}

/// Makes the slot ours. What its last owner left is of another generation from
/// the first step on.
fn settle(map: &Map, slot: usize, label: &str) -> u16 {
    let own = &map.slots[slot];
    let generation = own.generation.fetch_add(1, SeqCst).wrapping_add(1);
    if generation == 0 {
        own.generation.store(1, SeqCst); // 0 is a slot that nobody ever had
    }
    map.header.waiting[slot / 64].fetch_and(!(1 << (slot % 64)), SeqCst);
    own.ticket.store(0, SeqCst);
    notes::listen(map, slot, false);
    for counter in [
        &own.turns,
        &own.commits,
        &own.writes,
        &own.waits,
        &own.waited,
        &own.longest_wait,
        &own.passed_over,
    ] {
        counter.store(0, Relaxed);
    }
    own.waiters.store(0, Relaxed);
    own.reads_until.store(0, Relaxed);
    own.pid.store(std::process::id(), Relaxed);
    own.started.store(started().unwrap_or(0), Relaxed);
    text::write(&own.label, &own.label_version, label);
    own.generation.load(SeqCst) as u16
}

/// When this process started: field 22 of its `stat`, whose second is a name in
/// parentheses that may contain anything.
fn started() -> Option<u64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    let after_name = stat.rsplit_once(')')?.1;
    after_name.split_whitespace().nth(19)?.parse().ok()
}

/// The kernel's side of [`World`].
pub(super) struct Kernel<'a>(&'a Inner);

impl World for Kernel<'_> {
    fn lives(&self, slot: usize) -> bool {
        alive::is_claimed(&self.0.file, slot)
    }

    fn lock_is_held(&self) -> bool {
        self.0.files.lock_is_held()
    }

    fn wake(&self, word: &AtomicU32) {
        word.fetch_add(1, SeqCst);
        // All of them: only threads of one process ever sleep on a word.
        let _ = futex::wake(word, futex::Flags::empty(), i32::MAX as u32);
    }
}

impl Inner {
    /// Whether this is the process that joined, and no child of it.
    pub(super) fn is_here(&self) -> bool {
        crate::fork::generation() == self.born
    }

    pub(super) fn place(&self) -> Place<'_, Kernel<'_>> {
        Place {
            page: &self.map,
            slot: self.slot,
            generation: self.generation,
            world: Kernel(self),
        }
    }

    pub(super) fn line(&self) -> std::sync::MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sleeps until somebody wakes this slot, unless that happened since its word
    /// was `seen`, for so many nanoseconds at most.
    pub(super) fn sleep(&self, seen: u32, nanos: u64) {
        let timeout = futex::Timespec {
            tv_sec: (nanos / 1_000_000_000).try_into().unwrap_or(i64::MAX),
            tv_nsec: (nanos % 1_000_000_000).try_into().unwrap_or(0),
        };
        let word = &self.map.slots[self.slot].word;
        // Woken, moved on, timed out, interrupted: look again.
        let _ = futex::wait(word, futex::Flags::empty(), seen, Some(&timeout));
    }

    /// The pids that the members give.
    pub(super) fn pids(&self) -> Vec<u32> {
        (self.map.slots.iter())
            .filter(|slot| slot.generation.load(Relaxed) != 0)
            .map(|slot| slot.pid.load(Relaxed))
            .collect()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // In a child the slot is the parent's.
        if self.is_here() {
            self.place().give_up();
            notes::listen(&self.map, self.slot, false);
            // Not only by closing the file: a child may have a copy of it.
            alive::let_go(&self.file, self.slot);
        }
    }
}
