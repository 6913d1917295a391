//! One SQLite database, any number of threads, tasks and processes.
mod cancel;
mod connection;
mod engine;
mod error;
mod migrate;
mod options;
mod pen;
mod readers;
mod stats;
mod sync;
mod timer;
pub use cancel::CancelToken;
pub use error::*;
pub use migrate::Migrations;
pub use options::*;
pub use pen::{WhenFull, job::Priority};
pub use readers::{ReadTx, Snapshot, Statement};
pub use stats::*;
/// placeholder
#[derive(Debug, Clone)]
pub struct Database {
    readers: std::sync::Arc<readers::Readers>,
    writer: std::sync::Arc<std::sync::Mutex<rusqlite::Connection>>,
    dir: Option<std::sync::Arc<tempfile::TempDir>>,
}
#[expect(missing_docs)]
impl Database {
    pub(crate) fn open_with(path: &std::path::Path, options: Options) -> Result<Self> {
        let connector = std::sync::Arc::new(connection::Connector::new(path, options, false)?);
        let patience = engine::Until {
            deadline: None,
            cancel: None,
        };
        let writer = connector.open(connection::Role::Writer, &patience)?;
        Ok(Self {
            readers: std::sync::Arc::new(readers::Readers::new(connector)),
            writer: std::sync::Arc::new(std::sync::Mutex::new(writer)),
            dir: None,
        })
    }
    pub(crate) fn open_in_memory_with(options: Options) -> Result<Self> {
        let dir = tempfile::tempdir().unwrap();
        let mut db = Self::open_with(&dir.path().join("db"), options)?;
        db.dir = Some(dir.into());
        Ok(db)
    }
    pub fn open_in_memory() -> Result<Self> {
        Self::open_in_memory_with(Options::new())
    }
    pub fn open(path: impl AsRef<std::path::Path>) -> Result<Self> {
        Options::new().open(path)
    }
    pub fn read<T>(&self, f: impl FnOnce(&ReadTx) -> Result<T>) -> Result<T> {
        self.readers.read(&pen::job::Ticket::default(), f)
    }
    pub fn query_row<T, P: rusqlite::Params>(
        &self,
        sql: &str,
        params: P,
        f: impl FnOnce(&rusqlite::Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<T> {
        self.readers
            .query_row(&pen::job::Ticket::default(), sql, params, f)
    }
}
