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
//! Between processes that use onepen a side file may tell of commits and their
//! tables one day: [`Hub::elsewhere`] is where it would.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rusqlite::Connection;

use super::Tables;
use super::listener::{Change, Changes, Channel, Origin};
use crate::connection::{Connector, Role};
use crate::engine::Until;
use crate::error::{Error, Result};
use crate::readers::mark::CommitMark;

/// How often strangers' commits are looked for while nobody writes here.
pub(crate) const LOOK: Duration = Duration::from_millis(20);

/// Has whoever has the pen look for strangers' commits, if the pen comes soon.
pub(crate) type Look = Box<dyn Fn() + Send + Sync>;

pub(crate) struct Hub {
    listening: AtomicBool,
    /// How many commits were made through the pen.
    commits: AtomicU64,
    /// SQLite's counter after the last commit that everybody was told of.
    told: AtomicU64,
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

    /// A number that changes when anybody commits.
    fn now(&self) -> Option<u64> {
        if let Some(mark) = &self.mark {
            return Some(mark.commits());
        }
        let connection = self
            .connection
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        // Refused while somebody writes: then it is asked again.
        connection
            .query_row("PRAGMA data_version", (), |row| row.get::<_, i64>(0))
            .ok()
            .map(i64::cast_unsigned)
    }
}

impl Hub {
    pub(crate) fn new(name: &Arc<str>) -> Arc<Self> {
        Arc::new(Self {
            listening: AtomicBool::new(false),
            commits: AtomicU64::new(0),
            told: AtomicU64::new(0),
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

    /// Tells of it; in the pen's turn. `counter` is SQLite's, after it.
    pub(crate) fn tell(&self, commit: u64, tables: Tables, counter: Option<u64>) {
        if let Some(counter) = counter {
            self.told.store(counter, Ordering::SeqCst);
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

    /// Whoever has the pen and SQLite's write lock looks at SQLite's counter.
    #[inline]
    pub(crate) fn compare(&self, counter: u64) {
        if self.told.load(Ordering::SeqCst) != counter {
            self.elsewhere(Some(counter));
        }
    }

    /// Somebody else has committed something.
    #[cold]
    pub(crate) fn elsewhere(&self, counter: Option<u64>) {
        if let Some(counter) = counter {
            self.told.store(counter, Ordering::SeqCst);
        }
        self.publish(Change {
            tables: Tables::ANY,
            commit: self.commits(),
            origin: Origin::Elsewhere,
            lagged: 0,
        });
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
        let mut place = self.outlook.lock().unwrap_or_else(PoisonError::into_inner);
        let outlook = match &*place {
            Some(outlook) => Arc::clone(outlook),
            None => Arc::clone(place.insert(Arc::new(Outlook::open(connector)?))),
        };
        let channel = Channel::new();
        let mut members = self.members();
        if members.closed {
            *place = None;
            channel.close();
        } else {
            if members.channels.is_empty()
                && let Some(now) = outlook.now()
            {
                self.told.store(now, Ordering::SeqCst);
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
            self.listening.store(false, Ordering::SeqCst);
        }
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
        self.listening.store(false, Ordering::SeqCst);
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
        let told = hub.told.load(Ordering::SeqCst);
        match look {
            // Nobody commits here.
            None if now != told => hub.elsewhere(Some(now)),
            // It may be a commit of ours that is about to be told: whoever has the
            // pen knows.
            Some(look) if outlook.mark.is_some() && now != told => look(),
            Some(look) if outlook.mark.is_none() && version.replace(now) != Some(now) => look(),
            _ => {}
        }
    }
}

/// Foreign code must not end a thread of ours.
pub(super) fn quietly(run: impl FnOnce()) {
    let _ = catch_unwind(AssertUnwindSafe(run));
}
