//! Writes that carry an idempotency key.

use std::borrow::Cow;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use crate::call::{Call, Rows, Submitted};
use crate::cancel::CancelToken;
use crate::database::Database;
use crate::error::{Outcome, Result};
use crate::keys::{self, Claim};
use crate::params::Parameters;
use crate::pen::job::Priority;
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

/// A write with an idempotency key, made by [`Call::key`]. It has the settings and
/// the writes of a [`Call`], each of which answers with [`Once`].
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

/// Settings may come before the key or after it; whichever is given last counts.
impl KeyedCall<'_> {
    /// [`Call::deadline`].
    pub fn deadline(mut self, wait: Duration) -> Self {
        self.call = self.call.deadline(wait);
        self
    }

    /// [`Call::priority`].
    pub fn priority(mut self, priority: Priority) -> Self {
        self.call = self.call.priority(priority);
        self
    }

    /// [`Call::label`].
    pub fn label(mut self, label: impl Into<Arc<str>>) -> Self {
        self.call = self.call.label(label);
        self
    }

    /// [`Call::limit`].
    pub fn limit(mut self, limit: Duration) -> Self {
        self.call = self.call.limit(limit);
        self
    }

    /// [`Call::cancel_with`].
    pub fn cancel_with(mut self, token: &CancelToken) -> Self {
        self.call = self.call.cancel_with(token);
        self
    }
}

/// Every call that writes in a transaction of ours. (`exclusively` has none.)
impl<'a> KeyedCall<'a> {
    /// [`Database::write`], at most once for this key.
    ///
    /// # Errors
    /// As there, and [`ErrorKind::NotAllowed`](crate::ErrorKind::NotAllowed) for
    /// a key that is empty or too long.
    #[track_caller]
    pub fn write<T, F>(self, run: F) -> Result<Once<T>>
    where
        T: Send,
        F: Fn(&WriteTx<'_>) -> Result<T> + Send,
    {
        let (call, key) = self.parts();
        let key = key?;
        call.write(move |tx| key.once(tx, &run))
    }

    /// [`Database::write_once`], at most once for this key.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    #[track_caller]
    pub fn write_once<T, F>(self, run: F) -> Result<Once<T>>
    where
        T: Send,
        F: FnOnce(&WriteTx<'_>) -> Result<T> + Send,
    {
        let (call, key) = self.parts();
        let key = key?;
        call.write_once(move |tx| key.once(tx, run))
    }

    /// [`Database::execute`], at most once for this key.
    ///
    /// # Errors
    /// As [`write`](Self::write), and those of [`Parameters::send`].
    #[track_caller]
    pub fn execute<P>(self, sql: &str, params: P) -> Result<Once<usize>>
    where
        P: Parameters,
    {
        let params = params.send()?;
        self.write(move |tx| tx.run(sql, &params))
    }

    /// [`Database::execute_many`], at most once for this key.
    ///
    /// # Errors
    /// As [`execute`](Self::execute).
    #[track_caller]
    pub fn execute_many<P>(
        self,
        sql: &str,
        rows: impl IntoIterator<Item = P>,
    ) -> Result<Once<usize>>
    where
        P: Parameters,
    {
        let rows = Rows::of(rows);
        let (call, key) = self.parts();
        let call = call.holding(&rows);
        let (key, rows) = (key?, rows?);
        call.write(move |tx| key.once(tx, |tx| rows.execute(tx, sql)))
    }

    /// [`Database::write_async`], at most once for this key.
    #[track_caller]
    pub fn write_async<T, F>(
        self,
        run: F,
    ) -> impl Future<Output = Result<Once<T>>> + Send + use<T, F>
    where
        T: Send + 'static,
        F: Fn(&WriteTx<'_>) -> Result<T> + Send + 'static,
    {
        let (call, key) = self.parts();
        call.grouped(key.map(|key| move |tx: &WriteTx<'_>| key.once(tx, &run)))
    }

    /// [`Database::write_once_async`], at most once for this key.
    #[track_caller]
    pub fn write_once_async<T, F>(
        self,
        run: F,
    ) -> impl Future<Output = Result<Once<T>>> + Send + use<T, F>
    where
        T: Send + 'static,
        F: FnOnce(&WriteTx<'_>) -> Result<T> + Send + 'static,
    {
        let (call, key) = self.parts();
        call.alone(key.map(|key| move |tx: &WriteTx<'_>| key.once(tx, run)))
    }

    /// [`Database::execute_async`], at most once for this key.
    #[track_caller]
    pub fn execute_async<P, S>(
        self,
        sql: S,
        params: P,
    ) -> impl Future<Output = Result<Once<usize>>> + Send + 'static + use<P, S>
    where
        P: Parameters<Sent: 'static>,
        S: Into<Cow<'static, str>>,
    {
        let (call, key) = self.parts();
        let sql = sql.into();
        let run = key.and_then(|key| {
            let params = params.send()?;
            Ok(move |tx: &WriteTx<'_>| key.once(tx, |tx| tx.run(&sql, &params)))
        });
        call.grouped(run)
    }

    /// [`Database::execute_many_async`], at most once for this key.
    #[track_caller]
    pub fn execute_many_async<P, S, R>(
        self,
        sql: S,
        rows: R,
    ) -> impl Future<Output = Result<Once<usize>>> + Send + 'static + use<P, S, R>
    where
        P: Parameters<Sent: 'static>,
        S: Into<Cow<'static, str>>,
        R: IntoIterator<Item = P>,
    {
        let (call, key) = self.parts();
        let sql = sql.into();
        let rows = Rows::of(rows);
        let call = call.holding(&rows);
        let run = key.and_then(|key| {
            let rows = rows?;
            Ok(move |tx: &WriteTx<'_>| key.once(tx, |tx| rows.execute(tx, &sql)))
        });
        call.grouped(run)
    }

    /// [`Database::submit`], at most once for this key.
    ///
    /// # Errors
    /// As there, and for a key that is empty or too long.
    #[track_caller]
    pub fn submit<T, F>(self, run: F) -> Result<Submitted<Once<T>>>
    where
        T: Send + 'static,
        F: Fn(&WriteTx<'_>) -> Result<T> + Send + 'static,
    {
        let (call, key) = self.parts();
        let key = key?;
        call.submit(move |tx| key.once(tx, &run))
    }

    /// [`Database::submit_async`], at most once for this key.
    #[track_caller]
    pub fn submit_async<T, F>(
        self,
        run: F,
    ) -> impl Future<Output = Result<Submitted<Once<T>>>> + Send + use<T, F>
    where
        T: Send + 'static,
        F: Fn(&WriteTx<'_>) -> Result<T> + Send + 'static,
    {
        let (call, key) = self.parts();
        let submitted = key.map(|key| call.submit_async(move |tx| key.once(tx, &run)));
        async move { submitted?.await }
    }

    fn parts(self) -> (Call<'a>, Result<Key>) {
        let lifetime = self.call.options().key_lifetime;
        let name = self.key;
        let key = keys::validate(&name).map(|()| Key { name, lifetime });
        (self.call, key)
    }
}

/// A key that can be one.
struct Key {
    name: Arc<str>,
    lifetime: Duration,
}

impl Key {
    /// Runs `run` unless this was done before.
    fn once<T>(
        &self,
        tx: &WriteTx<'_>,
        run: impl FnOnce(&WriteTx<'_>) -> Result<T>,
    ) -> Result<Once<T>> {
        match tx.own_statements(|connection| keys::claim(connection, &self.name, self.lifetime))? {
            Claim::Seen => Ok(Once::AlreadyDone),
            Claim::Fresh => run(tx).map(Once::Done),
        }
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
    #[track_caller]
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
