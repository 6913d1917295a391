//! The handle: one database file, shared by everybody in the process.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Instant;

use crate::call::Call;
use crate::checkpoint::Checkpointer;
use crate::connection::Connector;
use crate::engine::Until;
use crate::error::{Error, ErrorKind, Result};
use crate::options::Options;
use crate::pen::Pen;
use crate::pen::job::{Kind, Ticket};
use crate::sqlite::SqliteEngine;
use crate::stats::Stats;
use crate::tx::WriteTx;
use crate::wal::WalLevel;

/// A handle to one SQLite database, for any number of threads and tasks.
///
/// Clones are cheap and share everything. The last one to be dropped
/// [closes](Self::close) the database.
#[derive(Clone)]
pub struct Database {
    pub(crate) shared: Arc<Shared>,
}

pub(crate) struct Shared {
    pen: Option<Arc<Pen<SqliteEngine>>>,
    pub(crate) connector: Arc<Connector>,
    wal: Arc<WalLevel>,
    checkpointer: Option<Arc<Checkpointer>>,
    /// What a call that says nothing about itself is given.
    pub(crate) ticket: Ticket,
    writer: Mutex<Option<JoinHandle<()>>>,
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
        let _ = options;
        Err(Error::new(ErrorKind::Refused, "not yet"))
    }

    pub(crate) fn open_with(path: &Path, options: Options) -> Result<Self> {
        let connector = Arc::new(Connector::new(path, options, false)?);
        let options = &connector.options;
        let patience = Until {
            deadline: Instant::now().checked_add(options.wait),
            cancel: None,
        };
        let wal = Arc::new(WalLevel::new(options.wal_pages));
        let engine = SqliteEngine::open(Arc::clone(&connector), Arc::clone(&wal), &patience)?;
        let pen = Pen::new(engine, options.limits, crate::timer::shared());
        let writer = {
            let pen = Arc::clone(&pen);
            std::thread::Builder::new()
                .name(format!("onepen-write {}", connector.name))
                .spawn(move || pen.serve())
                .map_err(|error| Error::io("the writer thread could not be started", error))?
        };
        let readers = crate::readers::Readers::new();
        let checkpointer = Checkpointer::start(
            Arc::clone(&pen),
            Arc::clone(&readers),
            Arc::clone(&connector),
            Arc::clone(&wal),
        )?;
        let ticket = Ticket {
            patience: Some(options.wait),
            ..Ticket::default()
        };
        Ok(Self {
            shared: Arc::new(Shared {
                pen: Some(pen),
                connector,
                wal,
                checkpointer: Some(checkpointer),
                ticket,
                writer: Mutex::new(Some(writer)),
            }),
        })
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
        let mut stats = Stats::default();
        if let Some(pen) = &self.shared.pen {
            pen.tally.snapshot(&mut stats);
            stats.queue_length = pen.queue_len();
        }
        stats.wal_frames = self.shared.wal.frames();
        stats.wal_frames_max = self.shared.wal.max();
        stats.wal_resets = self.shared.wal.resets();
        stats
    }

    /// Finishes everything that was queued, checkpoints, and closes the file, for
    /// every handle to it in this process. Later calls fail with
    /// [`ErrorKind::Closed`].
    ///
    /// # Errors
    /// When the last checkpoint fails; nothing is lost then, the log stays.
    pub fn close(&self) -> Result<()> {
        self.shared.close()
    }
}

impl Shared {
    /// The pen, if this handle may write.
    pub(crate) fn pen(&self) -> Result<&Arc<Pen<SqliteEngine>>> {
        self.pen.as_ref().ok_or_else(|| {
            Error::new(
                ErrorKind::NotAllowed,
                "the database was opened for reading only",
            )
        })
    }

    pub(crate) fn write<T, F>(&self, ticket: &Ticket, kind: Kind, mut call: F) -> Result<T>
    where
        T: Send,
        F: FnMut(&WriteTx<'_>) -> Result<T> + Send,
    {
        self.pen()?
            .write(ticket, kind, |engine: &mut SqliteEngine| {
                call(&WriteTx::new(engine)?)
            })
            .map_err(|error| self.connector.context(error))
    }

    fn close(&self) -> Result<()> {
        let Some(pen) = &self.pen else { return Ok(()) };
        if let Some(checkpointer) = &self.checkpointer {
            checkpointer.stop();
        }
        pen.close();
        let writer = lock_std(&self.writer).take();
        if let Some(writer) = writer
            && writer.thread().id() != std::thread::current().id()
        {
            // The thread catches everything; a panic in it has been reported.
            let _ = writer.join();
        }
        drop(pen.take_engine());
        Ok(())
    }
}

fn lock_std<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl Drop for Shared {
    fn drop(&mut self) {
        let _ = self.close();
    }
}

impl std::fmt::Debug for Database {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Database")
            .field("name", &self.shared.connector.name)
            .finish_non_exhaustive()
    }
}
