//! What a worker writes down while it works.
//!
//! Guarantee: what was asked for is in the operating system's hands before it is
//! asked for, and what was told after it was told, so that a worker that is
//! killed leaves at most its last line unfinished. Times are of the clock that
//! all processes of the machine share.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use onepen_check::{History, Mode, Op, Outcome, Transaction, text};

use super::deeds::{Deed, Done};

/// The log of one worker process.
pub struct Log {
    path: PathBuf,
    file: Mutex<File>,
    answered: AtomicU64,
}

impl Log {
    /// A new file.
    pub fn new(path: &Path) -> Result<Self, String> {
        let file = OpenOptions::new()
            .append(true)
            .create_new(true)
            .open(path)
            .map_err(|error| super::cannot_write(path, &error))?;
        Ok(Self {
            path: path.to_owned(),
            file: Mutex::new(file),
            answered: AtomicU64::new(0),
        })
    }

    /// How many were answered so far.
    pub fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    /// A deed is about to be asked for.
    pub fn invoked(&self, deed: &Deed, client: u64) -> Result<Transaction, String> {
        let invoked = now();
        let mut transaction = Transaction::write(
            deed.id,
            client,
            invoked,
            Transaction::NEVER,
            Outcome::Unknown,
        );
        transaction.writes = deed.writes;
        let notes = History::new(Mode::Append);
        self.put(&transaction, &deed.appends(), notes, text::invoked)?;
        Ok(transaction)
    }

    /// It was answered: with what it did, or with nothing but an outcome.
    pub fn answer(
        &self,
        mut transaction: Transaction,
        deed: &Deed,
        outcome: Outcome,
        done: Option<Done>,
    ) -> Result<(), String> {
        transaction.returned = now();
        transaction.outcome = outcome;
        let (ops, notes) = match done {
            Some(mut done) => {
                transaction.serial = done.serial;
                (std::mem::take(&mut done.notes.ops), done.notes)
            }
            None => (deed.appends(), History::new(Mode::Append)),
        };
        self.answered.fetch_add(1, Ordering::Relaxed);
        self.put(&transaction, &ops, notes, text::answered)
    }

    fn put(
        &self,
        transaction: &Transaction,
        ops: &[Op],
        mut notes: History,
        as_text: fn(&Transaction, &History) -> String,
    ) -> Result<(), String> {
        notes.push(transaction.clone(), ops);
        let line = as_text(&notes.transactions[0], &notes);
        // One after the other, so that only the last line can be cut.
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.write_all(line.as_bytes())
            .map_err(|error| super::cannot_write(&self.path, &error))
    }
}

/// Nanoseconds of the machine's monotonic clock.
pub fn now() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec.cast_unsigned() * 1_000_000_000 + now.tv_nsec.cast_unsigned()
}
