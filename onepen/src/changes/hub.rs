//! To whom commits are told, and what others have committed.
//!
//! The write connection tells of its own commits, in their order, because only
//! the holder of the pen commits. Commits of strangers (another process, another
//! library) are noticed by a counter that SQLite keeps in the memory shared by
//! all users of a write-ahead log: by the next holder of the pen, once it has
//! SQLite's write lock and before it writes, so that the order is right; and,
//! when nobody writes here, by a thread that looks every [`LOOK`], which exists
//! while somebody listens. Over a rollback journal that thread asks
//! `PRAGMA data_version` instead.
//!
//! Processes that stand at the gate leave each other notes of what they committed
//! ([`onepen_lock::gate`]), while somebody listens. Where the notes form a chain from
//! the last commit that was told to the present one, each commit is told with its
//! tables ([`Hub::elsewhere`]); where they do not, it was "any table".

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use onepen_lock::gate::{Gate, Note, Stamp};
use rusqlite::Connection;

use super::Tables;
use super::listener::{Change, Changes, Channel, Origin};
use crate::connection::{Connector, Role};
use crate::engine::Until;
use crate::error::{Error, Result};
use crate::readers::mark::CommitMark;

/// How often strangers' commits are looked for while nobody writes here.
pub(crate) const LOOK: Duration = Duration::from_millis(20);

/// Those that listened and died are forgotten once in so many notes.
const FORGET: u64 = 1024;

/// Has whoever has the pen look for strangers' commits, if the pen comes soon.
pub(crate) type Look = Box<dyn Fn() + Send + Sync>;

pub(crate) struct Hub {
    listening: AtomicBool,
    /// How many commits were made through the pen.
    commits: AtomicU64,
    /// The state after the last commit that everybody was told of.
    told: Mutex<Stamp>,
    /// Where processes leave notes for each other.
    notes: OnceLock<Gate>,
    noted: AtomicU64,
    members: Mutex<Members>,
    /// Kept while it is made, for which others have to be waited: not by those
    /// who tell.
    outlook: Mutex<Option<Arc<Outlook>>>,
    stopped: Condvar,
    name: Arc<str>,
}

#[derive(Default)]
struct Members {
    channels: Vec<Arc<Channel>>,
    /// Looks for strangers' commits.
    thread: Option<JoinHandle<()>>,
    /// Calls that wait for a commit of another process.
    waiting: usize,
    closed: bool,
}

/// A connection that is there to see what others commit.
struct Outlook {
    mark: Option<CommitMark>,
    // After the mark, whose memory it keeps in place.
    connection: Mutex<Connection>,
}

impl Outlook {
    fn open(connector: &Connector) -> Result<Self> {
        let patience = Until {
            deadline: Instant::now().checked_add(connector.options.wait),
            cancel: None,
        };
        let connection = connector.open(Role::Reader, &patience)?;
        let look = || {
            connection.execute_batch("BEGIN")?;
            connection.query_row("SELECT count(*) FROM sqlite_schema", (), |_| Ok(()))?;
            let mark = CommitMark::of(&connection);
            connection.execute_batch("COMMIT")?;
            Ok(mark)
        };
        let what = connector.reads_wait_for();
        let mark = crate::connection::retry(&patience, what, Instant::now(), look)?;
        Ok(Self {
            mark,
            connection: Mutex::new(connection),
        })
    }

    /// What changes when anybody commits.
    fn now(&self) -> Option<Stamp> {
        if let Some(mark) = &self.mark {
            return Some(mark.stamp());
        }
        let connection = self
            .connection
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        // Refused while somebody writes: then it is asked again.
        connection
            .query_row("PRAGMA data_version", (), |row| row.get::<_, i64>(0))
            .ok()
            .map(|version| Stamp {
                commits: version as u32,
                checksum: 0,
            })
    }
}

impl Hub {
    pub(crate) fn new(name: &Arc<str>) -> Arc<Self> {
        Arc::new(Self {
            listening: AtomicBool::new(false),
            commits: AtomicU64::new(0),
            told: Mutex::default(),
            notes: OnceLock::new(),
            noted: AtomicU64::new(0),
            members: Mutex::default(),
            outlook: Mutex::new(None),
            stopped: Condvar::new(),
            name: Arc::clone(name),
        })
    }

    fn members(&self) -> MutexGuard<'_, Members> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[inline]
    pub(crate) fn is_listening(&self) -> bool {
        self.listening.load(Ordering::SeqCst)
    }

    pub(crate) fn commits(&self) -> u64 {
        self.commits.load(Ordering::SeqCst)
    }

    /// A COMMIT through the pen has succeeded.
    #[inline]
    pub(crate) fn committed(&self) -> u64 {
        // Nobody else commits: whoever calls has the pen.
        let commit = self.commits.load(Ordering::Relaxed) + 1;
        self.commits.store(commit, Ordering::SeqCst);
        commit
    }

    fn told(&self) -> MutexGuard<'_, Stamp> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where processes leave notes for each other.
    pub(crate) fn read_notes(&self, gate: &Gate) {
        let _ = self.notes.set(gate.clone());
    }

    pub(crate) fn notes(&self) -> Option<&Gate> {
        self.notes.get()
    }

    /// Whether another process wants to be told.
    #[inline]
    pub(crate) fn others_listen(&self) -> bool {
        self.notes.get().is_some_and(Gate::others_listen)
    }

    /// Leaves a note for the others.
    pub(crate) fn note(&self, note: &Note) {
        let Some(gate) = self.notes.get() else { return };
        gate.note(note);
        if self
            .noted
            .fetch_add(1, Ordering::Relaxed)
            .is_multiple_of(FORGET)
        {
            gate.forget_the_dead();
        }
    }

    /// Tells of it; in the pen's turn. With it everything is told up to `after`.
    pub(crate) fn tell(&self, commit: u64, tables: Tables, after: Option<Stamp>) {
        if let Some(after) = after {
            *self.told() = after;
        }
        if !tables.is_empty() {
            self.publish(Change {
                tables,
                commit,
                origin: Origin::Here,
                lagged: 0,
            });
        }
    }

    /// Whoever has the pen and SQLite's write lock looks at what SQLite counts.
    #[inline]
    pub(crate) fn compare(&self, now: Stamp) {
        if self.told().commits != now.commits {
            self.elsewhere(Some(now));
        }
    }

    /// Somebody else has committed something.
    #[cold]
    pub(crate) fn elsewhere(&self, now: Option<Stamp>) {
        let told = now.map(|now| std::mem::replace(&mut *self.told(), now));
        let notes = self.notes.get().zip(told).zip(now);
        let notes = notes.and_then(|((gate, told), now)| gate.notes(told, now));
        let publish = |tables: Tables| {
            if tables.is_empty() {
                return; // it was all undone before it was committed
            }
            self.publish(Change {
                tables,
                commit: self.commits(),
                origin: Origin::Elsewhere,
                lagged: 0,
            });
        };
        match notes {
            None => publish(Tables::ANY),
            Some(notes) => {
                for note in notes {
                    let names = note.changed.map(|names| names.into_iter().map(Arc::from));
                    publish(names.map_or(Tables::ANY, Tables::of));
                }
            }
        }
    }

    /// What changes with every commit, now.
    pub(crate) fn now(&self, connector: &Connector) -> Result<Option<Stamp>> {
        let outlook = self.outlook(connector)?;
        Ok(outlook.mark.as_ref().map(CommitMark::stamp))
    }

    fn outlook(&self, connector: &Connector) -> Result<Arc<Outlook>> {
        let mut place = self.outlook.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(match &*place {
            Some(outlook) => Arc::clone(outlook),
            None => Arc::clone(place.insert(Arc::new(Outlook::open(connector)?))),
        })
    }

    fn publish(&self, change: Change) {
        // Not under the lock: a waker may drop a listener.
        let channels = self.members().channels.clone();
        for channel in &channels {
            channel.push(&change);
        }
    }

    /// A new listener. It is told of every commit that is made from now on.
    pub(crate) fn join(
        self: &Arc<Self>,
        connector: &Connector,
        look: impl FnOnce() -> Option<Look>,
    ) -> Result<Changes> {
        let outlook = self.outlook(connector)?;
        let channel = Channel::new();
        let mut members = self.members();
        if members.closed {
            let place = self.outlook.lock();
            *place.unwrap_or_else(PoisonError::into_inner) = None;
            channel.close();
        } else {
            if members.channels.is_empty() {
                // Before the look: what is committed after it is noted.
                if let Some(gate) = self.notes.get() {
                    gate.listen(true);
                }
                if let Some(now) = outlook.now() {
                    *self.told() = now;
                }
            }
            if members.thread.is_none() {
                members.thread = Some(self.start(&outlook, look())?);
            }
            members.channels.push(Arc::clone(&channel));
            self.listening.store(true, Ordering::SeqCst);
            self.stopped.notify_all();
        }
        drop(members);
        Ok(Changes {
            channel,
            hub: Arc::clone(self),
        })
    }

    pub(super) fn leave(&self, channel: &Arc<Channel>) {
        let mut members = self.members();
        members
            .channels
            .retain(|other| !Arc::ptr_eq(other, channel));
        if members.channels.is_empty() {
            self.listen_no_more(&members);
        }
    }

    fn listen_no_more(&self, members: &Members) {
        self.listening.store(false, Ordering::SeqCst);
        if let Some(gate) = self.notes.get()
            && members.waiting == 0
        {
            gate.listen(false);
        }
    }

    /// As long as the result lives, others leave notes.
    pub(crate) fn wait_for_notes(&self) -> impl Sized {
        struct Waiting<'a>(&'a Hub);
        impl Drop for Waiting<'_> {
            fn drop(&mut self) {
                let mut members = self.0.members();
                members.waiting -= 1;
                if members.channels.is_empty() {
                    self.0.listen_no_more(&members);
                }
            }
        }
        self.members().waiting += 1;
        if let Some(gate) = self.notes.get() {
            gate.listen(true);
        }
        Waiting(self)
    }

    fn start(
        self: &Arc<Self>,
        outlook: &Arc<Outlook>,
        look: Option<Look>,
    ) -> Result<JoinHandle<()>> {
        let hub = Arc::downgrade(self);
        let outlook = Arc::clone(outlook);
        std::thread::Builder::new()
            .name(format!("onepen-changes {}", self.name))
            .spawn(move || look_out(&hub, &outlook, look.as_deref()))
            .map_err(|error| Error::io("the thread that looks for changes did not start", error))
    }

    /// Nobody is told anything any more.
    pub(crate) fn close(&self) {
        let mut members = self.members();
        members.closed = true;
        self.listen_no_more(&members);
        let channels = std::mem::take(&mut members.channels);
        let thread = members.thread.take();
        drop(members);
        self.stopped.notify_all();
        if let Some(thread) = thread
            && thread.thread().id() != std::thread::current().id()
        {
            let _ = thread.join();
        }
        let outlook = self
            .outlook
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        drop(outlook); // its connection
        for channel in channels {
            channel.close();
        }
    }

    /// Sleeps until the next look; `false` when there is none.
    fn pause(&self) -> bool {
        let mut members = self.members();
        if !members.closed {
            members = if members.channels.is_empty() {
                // Nobody listens: until somebody does.
                self.stopped
                    .wait(members)
                    .unwrap_or_else(PoisonError::into_inner)
            } else {
                self.stopped
                    .wait_timeout(members, LOOK)
                    .unwrap_or_else(PoisonError::into_inner)
                    .0
            };
        }
        !members.closed
    }
}

/// The thread that looks for what strangers commit while nobody writes here.
fn look_out(hub: &Weak<Hub>, outlook: &Outlook, look: Option<&(dyn Fn() + Send + Sync)>) {
    // Over a rollback journal the number changes with our own commits, too.
    let mut version = None;
    loop {
        // Whoever owns the hub joins this thread.
        let Some(hub) = hub.upgrade() else { return };
        if !hub.pause() {
            return;
        }
        if !hub.is_listening() {
            version = None;
            continue;
        }
        let Some(now) = outlook.now() else { continue };
        let told = *hub.told();
        match look {
            // Nobody commits here.
            None if now.commits != told.commits => hub.elsewhere(Some(now)),
            // It may be a commit of ours that is about to be told: whoever has the
            // pen knows.
            Some(look) if outlook.mark.is_some() && now.commits != told.commits => look(),
            Some(look) if outlook.mark.is_none() && version.replace(now) != Some(now) => look(),
            _ => {}
        }
    }
}

/// Foreign code must not end a thread of ours.
pub(super) fn quietly(run: impl FnOnce()) {
    let _ = catch_unwind(AssertUnwindSafe(run));
}
