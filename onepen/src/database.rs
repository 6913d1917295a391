//! The handle: one database file, shared by everybody in the process.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use onepen_lock::gate::Left;

use crate::blocks::permit::Turns;
use crate::call::Call;
use crate::changes::hub::{Hub, LOOK, Look};
use crate::changes::token::Known;
use crate::changes::{Changes, CommitAddress};
use crate::checkpoint::Checkpointer;
use crate::connection::{Connector, Role};
use crate::engine::Until;
use crate::error::{Error, ErrorKind, Outcome, Result};
use crate::file::TempHome;
use crate::gate::{Others, Queue};
#[cfg(feature = "tracing")]
use crate::long::overseer::Overseer;
use crate::migrate::Migrations;
use crate::options::{Journal, Options};
use crate::pen::Pen;
use crate::pen::job::{Kind, Priority, Ticket};
use crate::readers::{Readers, Reading};
use crate::sqlite::SqliteEngine;
use crate::stats::Stats;
use crate::sync::{AtomicBool, Ordering};
use crate::trace::span;
use crate::tx::{About, WriteTx, as_member};
use crate::wal::WalLevel;

/// How long after a commit its note may come.
const NOTE_COMES_WITHIN: Duration = Duration::from_millis(100);

/// A handle to one SQLite database, for any number of threads and tasks.
///
/// Clones are cheap and share everything. The last one to be dropped
/// [closes](Self::close) the database.
#[derive(Clone)]
pub struct Database {
    pub(crate) shared: Arc<Shared>,
}

/// What all handles to one file share.
pub(crate) struct Shared {
    pen: Option<Arc<Pen<SqliteEngine>>>,
    pub(crate) readers: Arc<Readers>,
    checkpointer: Option<Arc<Checkpointer>>,
    pub(crate) connector: Arc<Connector>,
    wal: Arc<WalLevel>,
    others: Arc<Others>,
    pub(crate) hub: Arc<Hub>,
    /// What a call that says nothing about itself is given.
    pub(crate) ticket: Arc<Ticket>,
    writer: Mutex<Option<JoinHandle<()>>>,
    /// Names whoever holds the pen for long.
    #[cfg(feature = "tracing")]
    _overseer: Option<Arc<Overseer>>,
    closed: AtomicBool,
    born: u32,
    /// Dropped last: the directory of a database that lives in memory.
    _home: Option<TempHome>,
}

impl Database {
    /// Opens the database at `path` with the default [`Options`], creating it if
    /// it is not there.
    ///
    /// # Errors
    /// See [`Options::open`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Options::new().open(path)
    }

    /// Opens a private database that is gone with its last handle
    /// ([`Options::open_in_memory`]).
    ///
    /// # Errors
    /// See [`Options::open_in_memory`].
    pub fn open_in_memory() -> Result<Self> {
        Options::new().open_in_memory()
    }

    pub(crate) fn open_in_memory_with(options: Options) -> Result<Self> {
        crate::threading::refuse_single_thread()?;
        let home = TempHome::new()
            .map_err(|error| Error::io("no directory for a database in memory", error))?;
        let path = home.path().join("memory");
        Ok(Self {
            shared: Shared::open(&path, options, Turns::new(), Some(home))?,
        })
    }

    pub(crate) fn open_with(path: &Path, options: Options) -> Result<Self> {
        crate::threading::refuse_single_thread()?;
        let shared = crate::registry::find_or_open(path, options, |options, turns| {
            Shared::open(path, options, turns, None)
        })?;
        Ok(Self { shared })
    }

    /// A call with a deadline, a priority, a label or a cancel token of its own.
    ///
    /// ```
    /// # fn main() -> onepen::Result<()> {
    /// # let db = onepen::Database::open_in_memory()?;
    /// # db.execute("CREATE TABLE a(n)", ())?;
    /// use std::time::Duration;
    /// db.with()
    ///     .label("checkout")
    ///     .deadline(Duration::from_millis(250))
    ///     .priority(onepen::Priority::High)
    ///     .write(|tx| tx.execute("INSERT INTO a VALUES (?1)", (1,)))?;
    /// # Ok(()) }
    /// ```
    pub fn with(&self) -> Call<'_> {
        Call::new(self)
    }

    /// What happened since the database was opened.
    pub fn stats(&self) -> Stats {
        let shared = &*self.shared;
        let mut stats = Stats::default();
        if let Some(pen) = &shared.pen {
            pen.tally.snapshot(&mut stats);
            stats.queue_length = pen.queue_len();
        }
        stats.readers = shared.readers.opened();
        stats.readers_in_use = shared.readers.in_use();
        stats.oldest_snapshot = shared.readers.oldest_snapshot();
        stats.overdue = self.reading();
        stats.overdue.retain(|reading| reading.overdue);
        stats.leases_ended = shared.readers.leases.ended();
        stats.processes_waiting = shared.others.write_lock.others_are_waiting();
        stats.alone_because.clone_from(&shared.others.alone_because);
        stats.wal_frames = shared.wal.frames();
        stats.wal_frames_max = shared.wal.max();
        stats.wal_resets = shared.wal.resets();
        stats.wal_pinned_for = shared
            .checkpointer
            .as_ref()
            .and_then(|checkpointer| checkpointer.pinned_for());
        stats
    }

    /// Who reads now in this process, whoever has done so for longest first.
    ///
    /// ```
    /// # fn main() -> onepen::Result<()> {
    /// # let db = onepen::Database::open_in_memory()?;
    /// let snapshot = db.with().label("export").snapshot()?;
    /// let reading = db.reading();
    /// assert_eq!(reading[0].label.as_deref(), Some("export"));
    /// println!("{}", reading[0]); // `export`, a snapshot of …, begun at src/main.rs:12:35, since …
    /// # drop(snapshot); Ok(()) }
    /// ```
    pub fn reading(&self) -> Vec<Reading> {
        self.shared.readers.leases.reading(Instant::now())
    }

    /// Finishes everything that was queued, waits for the reads that run,
    /// checkpoints and closes the file, for every handle to it in this process.
    /// Later calls fail with [`ErrorKind::Closed`].
    ///
    /// Called within a write or read closure it cannot wait for that closure; the
    /// rest is done when the closure ends. When another thread is closing the
    /// database already, this returns at once.
    pub fn close(&self) {
        self.shared.close();
    }
}

impl Shared {
    fn open(
        path: &Path,
        options: Options,
        turns: Arc<Turns>,
        home: Option<TempHome>,
    ) -> Result<Arc<Self>> {
        let connector = Arc::new(Connector::new(path, options, home.is_some())?);
        let options = &connector.options;
        // Many processes that start together and make a new database would refuse
        // each other the locks for it. One that is there is opened first, whoever is
        // writing to it, and nothing is put beside what turns out to be none.
        let is_new = path.metadata().is_ok_and(|file| file.len() == 0);
        let patience = Until {
            deadline: Instant::now().checked_add(options.wait),
            cancel: None,
        };
        let wal = Arc::new(WalLevel::new(options.wal_pages));
        let readers = Arc::new(Readers::new(Arc::clone(&connector)));
        let ticket = Ticket {
            patience: Some(options.wait),
            limit: options.write_limit,
            ..Ticket::default()
        };
        let in_memory = home.is_some();
        let gate = || {
            Arc::new(if in_memory {
                Others::none("the database is in memory")
            } else if options.read_only {
                Others::none("the database is open for reading only")
            } else if !options.gate {
                Others::none("Options::gate is off")
            } else {
                Others::at_gate(&connector.path, &connector.name)
            })
        };
        let early = is_new.then(&gate);
        let may_be_left = options.gate && !options.read_only && !in_memory;
        let left = may_be_left.then(|| Left::of(&connector.path)).flatten();
        let opening = early.as_ref().and_then(|early| early.turn(&patience));
        let mut shared = Self {
            pen: None,
            readers,
            checkpointer: None,
            wal,
            others: Arc::new(Others::none("the database is open for reading only")),
            hub: Hub::new(&connector.name),
            ticket: Arc::new(ticket),
            writer: Mutex::new(None),
            #[cfg(feature = "tracing")]
            _overseer: None,
            closed: AtomicBool::new(false),
            born: crate::fork::born(),
            _home: home,
            connector: Arc::clone(&connector),
        };
        if options.read_only {
            // To say now, not at the first read, that the file is no database.
            drop(connector.open(Role::Reader, &patience)?);
            return Ok(Arc::new(shared));
        }
        if let Some(migrations) = &options.migrations {
            let mut connection = connector.open(Role::Writer, &patience)?;
            migrations
                .run(&mut connection, &patience)
                .map_err(|error| connector.blame(connector.context(error)))?;
        }
        let hold = (options.journal == Journal::Rollback).then(|| Arc::clone(&shared.readers));
        let mut engine = SqliteEngine::open(
            Arc::clone(&connector),
            Arc::clone(&shared.wal),
            hold,
            &patience,
        )?;
        engine.tell(Arc::clone(&shared.hub));
        #[cfg(feature = "tracing")]
        let running = Arc::clone(&engine.running);
        drop(opening);
        let others = match early {
            Some(gate) => gate,
            None => gate(),
        };
        shared.others = Arc::clone(&others);
        let engine = engine.among(&others);
        let pen = Pen::new(
            engine,
            options.limits,
            crate::timer::shared(),
            Arc::clone(&others.write_lock),
        );
        others.and_here(Arc::downgrade(&pen) as Weak<dyn Queue>);
        if let Some(gate) = &others.notes {
            shared.hub.read_notes(gate);
            shared.wal.share(gate);
            if let Some(left) = left {
                gate.log_was_recovered(left);
            }
        }
        pen.stand_in_line(turns);
        pen.call_it(&connector.name);
        #[cfg(feature = "tracing")]
        if let Some(after) = options.log_writes {
            let name = &connector.name;
            shared._overseer = Some(Overseer::start(&pen, running, name, after));
        }
        pen.ask(Arc::clone(&connector.strangers) as _);
        if options.journal == Journal::Rollback {
            pen.mind(Arc::clone(&shared.readers) as _);
        }
        shared.pen = Some(Arc::clone(&pen));
        if options.journal == Journal::Wal {
            shared.checkpointer = Some(Checkpointer::start(
                Arc::clone(&pen),
                Arc::clone(&shared.readers),
                Arc::clone(&connector),
                Arc::clone(&shared.wal),
            )?);
        }
        let writer = std::thread::Builder::new()
            .name(format!("onepen-write {}", connector.name))
            .spawn(move || pen.serve())
            .map_err(|error| Error::io("the writer thread could not be started", error))?;
        shared.writer = Mutex::new(Some(writer));
        Ok(Arc::new(shared))
    }

    /// The pen, if this handle may write.
    pub(crate) fn pen(&self) -> Result<&Arc<Pen<SqliteEngine>>> {
        crate::fork::check(self.born)?;
        self.pen.as_ref().ok_or_else(|| {
            Error::new(
                ErrorKind::NotAllowed,
                "the database was opened for reading only",
            )
        })
    }

    pub(crate) fn readers(&self) -> Result<&Arc<Readers>> {
        crate::fork::check(self.born)?;
        Ok(&self.readers)
    }

    #[track_caller]
    pub(crate) fn write<T, F>(&self, ticket: &Ticket, kind: Kind, mut call: F) -> Result<T>
    where
        T: Send,
        F: FnMut(&WriteTx<'_>) -> Result<T> + Send,
    {
        span!(
            "write",
            database = &*self.connector.name,
            label = ticket.label.as_deref()
        );
        let about = About::of(ticket);
        self.pen()?
            .write(ticket, kind, |engine: &mut SqliteEngine| {
                as_member(engine, &about, &mut call)
            })
            .map_err(|error| self.connector.context(error))
    }

    /// A new listener.
    pub(crate) fn changes(&self) -> Result<Changes> {
        crate::fork::check(self.born)?;
        self.hub.join(&self.connector, || {
            let pen = Arc::downgrade(self.pen.as_ref()?);
            let look: Look = Box::new(move || {
                let Some(pen) = pen.upgrade() else { return };
                let ticket = Ticket {
                    priority: Priority::High,
                    label: Some("changes".into()),
                    // Whoever has the pen now looks by himself when he is next.
                    patience: Some(LOOK),
                    ..Ticket::default()
                };
                let _ = pen.write(&ticket, Kind::Maintenance, |engine: &mut SqliteEngine| {
                    engine.look_out();
                    Ok(())
                });
            });
            Some(look)
        })
    }

    /// Waits for the commit of another process.
    pub(crate) fn wait_for(
        &self,
        address: &CommitAddress,
        at_most: Duration,
    ) -> Result<Option<Outcome>> {
        crate::fork::check(self.born)?;
        let Some(gate) = self.hub.notes() else {
            return Ok(None);
        };
        let _waiting = self.hub.wait_for_notes();
        let since = Instant::now();
        // Its writer leaves the note right after the commit.
        let mut missing: Option<Instant> = None;
        loop {
            let Some(now) = self.hub.now(&self.connector)? else {
                return Ok(None);
            };
            match address.look(gate, now) {
                Known::Outcome(outcome) => return Ok(Some(outcome)),
                Known::Never => return Ok(None),
                Known::NoNote => {
                    let since = *missing.get_or_insert_with(Instant::now);
                    if since.elapsed() > NOTE_COMES_WITHIN {
                        return Ok(None);
                    }
                }
                Known::NotYet => {}
            }
            let left = at_most.saturating_sub(since.elapsed());
            if left.is_zero() {
                return Ok(None);
            }
            crate::sync::pause(left.min(Duration::from_millis(1)));
        }
    }

    /// Migrations of a second opener, on the connection that is there.
    pub(crate) fn migrate(&self, migrations: &Migrations) -> Result<()> {
        let patience = Until {
            deadline: Instant::now().checked_add(self.connector.options.wait),
            cancel: None,
        };
        self.pen()?
            .write(
                &self.ticket,
                Kind::Exclusive,
                |engine: &mut SqliteEngine| migrations.run(engine.connection_mut()?, &patience),
            )
            .map_err(|error| self.connector.context(error))?;
        Ok(())
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    fn close(&self) {
        if crate::fork::check(self.born).is_err() {
            // The connections are the parent's. Whatever closing them would do
            // to the file or to its locks, a child must not do it; nor are the
            // threads here that would have to be joined.
            std::mem::forget(Arc::clone(&self.readers));
            std::mem::forget(Arc::clone(&self.hub));
            return;
        }
        if self.closed.swap(true, Ordering::SeqCst) {
            return;
        }
        // Readers before the writer, so that the writer's connection is the last
        // and closing it checkpoints and removes the log.
        let checkpointer = self.checkpointer.as_ref();
        let unfinished = checkpointer.and_then(|checkpointer| checkpointer.stop());
        let Some(pen) = &self.pen else {
            self.hub.close();
            self.readers.close();
            return;
        };
        pen.close();
        let inside = pen.is_in_its_way();
        let writer = self
            .writer
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(writer) = writer
            && writer.thread().id() != std::thread::current().id()
            && !inside
        {
            // The thread catches everything; a panic in it has been reported.
            let _ = writer.join();
        }
        self.hub.close();
        self.readers.close();
        pen.retire(move || {
            if let Some(thread) = unfinished {
                let _ = thread.join();
            }
        });
    }
}

impl Queue for Pen<SqliteEngine> {
    fn how_many(&self) -> usize {
        self.queue_len()
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.close();
    }
}

impl std::fmt::Debug for Database {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Database")
            .field("name", &self.shared.connector.name)
            .finish_non_exhaustive()
    }
}
