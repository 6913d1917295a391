//! Writes that carry an idempotency key.

use std::future::Future;
use std::sync::Arc;

use rusqlite::Params;

use crate::call::Call;
use crate::database::Database;
use crate::error::{Outcome, Result};
use crate::keys::{self, Claim};
use crate::tx::WriteTx;

/// What came of a write with a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Once<T> {
    /// It was done now, and this is what the closure returned.
    Done(T),
    /// A write with this key was committed before; the closure did not run.
    AlreadyDone,
}

impl<T> Once<T> {
    /// What the closure returned, if it ran.
    pub fn done(self) -> Option<T> {
        match self {
            Self::Done(value) => Some(value),
            Self::AlreadyDone => None,
        }
    }
}

/// A call with an idempotency key, made by [`Call::key`].
#[derive(Clone, Debug)]
#[must_use = "a call does nothing until it is given something to do"]
pub struct KeyedCall<'a> {
    call: Call<'a>,
    key: Arc<str>,
}

impl<'a> Call<'a> {
    /// Gives the write a key. It is recorded in the write's own transaction, in
    /// the table `_onepen_keys`; a second write with the same key, in whichever
    /// process and after whatever crash, does not run. Keys are 1 to 255 bytes
    /// long and remembered for [`Options::key_lifetime`](crate::Options::key_lifetime).
    ///
    /// ```
    /// # fn main() -> onepen::Result<()> {
    /// # let db = onepen::Database::open_in_memory()?;
    /// # db.execute("CREATE TABLE payment(n)", ())?;
    /// use onepen::{Once, Outcome};
    /// let pay = || db.with().key("invoice 17").execute("INSERT INTO payment VALUES (?1)", (100,));
    /// assert_eq!(pay()?, Once::Done(1));
    /// assert_eq!(pay()?, Once::AlreadyDone);
    /// assert_eq!(db.outcome_of("invoice 17")?, Outcome::Committed);
    /// # Ok(()) }
    /// ```
    pub fn key(self, key: impl Into<Arc<str>>) -> KeyedCall<'a> {
        KeyedCall {
            call: self,
            key: key.into(),
        }
    }
}

impl KeyedCall<'_> {
    /// [`Database::write`], at most once for this key.
    ///
    /// # Errors
    /// As there, and [`ErrorKind::NotAllowed`](crate::ErrorKind::NotAllowed) for
    /// a key that is empty or too long.
    pub fn write<T, F>(self, run: F) -> Result<Once<T>>
    where
        T: Send,
        F: Fn(&WriteTx<'_>) -> Result<T> + Send,
    {
        let lifetime = self.call.options().key_lifetime;
        let key = self.key;
        keys::validate(&key)?;
        self.call.write(move |tx| guarded(tx, &key, lifetime, &run))
    }

    /// [`Database::execute`], at most once for this key.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub fn execute<P>(self, sql: &str, params: P) -> Result<Once<usize>>
    where
        P: Params + Clone + Send,
    {
        self.write(move |tx| tx.execute(sql, params.clone()))
    }

    /// [`Database::write_async`], at most once for this key.
    pub fn write_async<T, F>(
        self,
        run: F,
    ) -> impl Future<Output = Result<Once<T>>> + Send + use<T, F>
    where
        T: Send + 'static,
        F: Fn(&WriteTx<'_>) -> Result<T> + Send + 'static,
    {
        let lifetime = self.call.options().key_lifetime;
        let key = self.key;
        self.call.write_async(move |tx| {
            keys::validate(&key)?;
            guarded(tx, &key, lifetime, &run)
        })
    }
}

fn guarded<T>(
    tx: &WriteTx<'_>,
    key: &str,
    lifetime: std::time::Duration,
    run: &impl Fn(&WriteTx<'_>) -> Result<T>,
) -> Result<Once<T>> {
    match tx.own_statements(|connection| keys::claim(connection, key, lifetime))? {
        Claim::Seen => Ok(Once::AlreadyDone),
        Claim::Fresh => run(tx).map(Once::Done),
    }
}

impl Database {
    /// Whether the write with this [key](Call::key) is committed: settles an
    /// [`Outcome::Unknown`].
    ///
    /// This is a write itself: what a failed COMMIT left behind the end of the
    /// log could come back after a crash until another COMMIT has overwritten it.
    ///
    /// # Errors
    /// As [`write`](Self::write). The question is then still open.
    pub fn outcome_of(&self, key: &str) -> Result<Outcome> {
        keys::validate(key)?;
        let committed =
            self.write_once(|tx| tx.own_statements(|connection| keys::settle(connection, key)))?;
        Ok(if committed {
            Outcome::Committed
        } else {
            Outcome::NotCommitted
        })
    }
}
