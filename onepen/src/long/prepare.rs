//! Long reading before a short write.
//!
//! The reading is done outside of the write transaction, where it hinders nobody,
//! while a listener of its own hears what is committed meanwhile. Inside the
//! transaction it is done again only if a table that it read was among those: so
//! what is written was in any case decided on what is there.
//!
//! Which tables it reads the authorizer is asked, for which its statements are
//! compiled anew, each time.

use std::sync::Arc;

use crate::call::Call;
use crate::changes::Tables;
use crate::database::Database;
use crate::error::Result;
use crate::readers::ReadTx;
use crate::tx::WriteTx;

impl Database {
    /// Reads for as long as it takes, then writes what follows from it, as if both
    /// had been one write; but nobody waits for the reading.
    ///
    /// `read` runs in a read transaction first. `write` is given what it returned,
    /// in a write transaction of its own. Between the two somebody may have
    /// committed something: then `read` is run again, inside the write
    /// transaction, and **exactly when** that is:
    ///
    /// - a table that `read` read (views looked through) may have been changed by
    ///   a commit of this process, as [`changes`](Self::changes) tells it;
    /// - any commit of another process or another library;
    /// - any commit that may have changed any table: one that changed the schema,
    ///   for example; or any commit at all, when `read` read a virtual table.
    ///
    /// ```
    /// # fn main() -> onepen::Result<()> {
    /// # let db = onepen::Database::open_in_memory()?;
    /// # db.execute("CREATE TABLE sale(cents INTEGER)", ())?;
    /// # db.execute("CREATE TABLE report(cents INTEGER)", ())?;
    /// db.prepare_then_write(
    ///     |tx| tx.query_row("SELECT total(cents) FROM sale", (), |row| row.get::<_, f64>(0)),
    ///     |tx, total| tx.execute("INSERT INTO report VALUES (?1)", (total,)),
    /// )?;
    /// # Ok(()) }
    /// ```
    ///
    /// What `read` learns from elsewhere (an SQL function of your own, a file) is
    /// not looked at. Both closures may be run again.
    ///
    /// # Errors
    /// As [`read`](Self::read) and [`write`](Self::write).
    #[track_caller]
    pub fn prepare_then_write<P, T, R, W>(&self, read: R, write: W) -> Result<T>
    where
        P: Send,
        T: Send,
        R: Fn(&ReadTx) -> Result<P> + Send,
        W: Fn(&WriteTx<'_>, &P) -> Result<T> + Send,
    {
        self.with().prepare_then_write(read, write)
    }
}

impl Call<'_> {
    /// [`Database::prepare_then_write`] with these settings, for each of the two.
    ///
    /// # Errors
    /// As there.
    #[track_caller]
    pub fn prepare_then_write<P, T, R, W>(self, read: R, write: W) -> Result<T>
    where
        P: Send,
        T: Send,
        R: Fn(&ReadTx) -> Result<P> + Send,
        W: Fn(&WriteTx<'_>, &P) -> Result<T> + Send,
    {
        let database = self.database();
        let mut changes = database.changes()?;
        let (prepared, read_tables) = self.clone().read(|tx| tx.noting_tables(|| read(tx)))?;
        let read_tables = match read_tables {
            Some(names) => Tables::of(names.into_iter().map(Arc::from)),
            None => Tables::ANY,
        };
        let mut stale = false;
        self.write_alone(move |tx| {
            // Whatever was committed before this transaction began has been told.
            while let Some(change) = changes.try_next() {
                stale |= change.tables().overlaps(&read_tables);
            }
            if stale {
                // Nobody can commit now: this is the state that is written to.
                let again = database.read(|tx| read(tx))?;
                return write(tx, &again);
            }
            write(tx, &prepared)
        })
    }
}
