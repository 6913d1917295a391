//! That the write-ahead log must not be reset by anybody.
//!
//! When the flush of a database file fails, systems take what it was about for
//! written, and a later flush succeeds without having written it
//! (<https://lwn.net/Articles/752063/>). What had been copied there from the log is
//! then to be had from the log alone; but SQLite's shared memory says that it was
//! copied, and so any other process would reset the log. Linux tells of the failure
//! once to each descriptor that was open then; who opens the file later is not told.
//!
//! Guarantees: what one member says is seen by every other from then on, whoever of
//! them lives; it is forgotten only by somebody who knew, before he opened the
//! database, that nobody had it open. For whoever opens it first reads the log from
//! its beginning, and SQLite copies all of it anew. What is said after that look is
//! not forgotten.
//!
//! A program that does not take part is not told.

use std::mem::offset_of;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::Ordering::SeqCst;

use super::layout::{Header, MAGIC, SLOTS};
use super::lock_table::Files;
use super::member::Gate;
use super::{alive, clock, file};

/// That the log was to be kept, and that nobody has the database open any more:
/// whoever opens it next has SQLite copy all of the log anew.
#[derive(Clone, Copy, Debug)]
pub struct Left(u64);

impl Left {
    /// To be asked before anything of the database is opened. `None`: nobody wants
    /// the log kept, or somebody still has the database open.
    pub fn of(database: &Path) -> Option<Self> {
        let side = file::open_to_read(database).ok()??;
        let word = |at: usize| {
            let mut bytes = [0; 8];
            side.read_exact_at(&mut bytes, at as u64).ok()?;
            Some(u64::from_ne_bytes(bytes))
        };
        let why = word(offset_of!(Header, log_kept)).filter(|&why| why != 0)?;
        word(offset_of!(Header, magic)).filter(|&magic| magic == MAGIC)?;
        let is_open = Files::of(&database.canonicalize().ok()?).is_open();
        // Where the kernel's list cannot be read: those who take part.
        let is_open =
            is_open.unwrap_or_else(|| (0..SLOTS).any(|slot| alive::is_claimed(&side, slot)));
        (!is_open).then_some(Self(why))
    }
}

impl Gate {
    /// From now on nobody who takes part copies from the log, resets or removes it,
    /// until everybody has closed the database.
    pub fn keep_log(&self) {
        if self.inner.is_here() {
            // Another number than before, so that whoever is about to forget what was
            // said before does not forget this.
            let why = clock::now() | 1;
            self.inner.map.header.log_kept.store(why, SeqCst);
        }
    }

    /// Whether somebody has said so.
    pub fn log_is_kept(&self) -> bool {
        self.inner.map.header.log_kept.load(SeqCst) != 0
    }

    /// After SQLite has opened the database, and with it read the log anew.
    pub fn log_was_recovered(&self, left: Left) {
        let why = &self.inner.map.header.log_kept;
        let _ = why.compare_exchange(left.0, 0, SeqCst, SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn database() -> (tempfile::TempDir, std::path::PathBuf) {
        let home = tempfile::tempdir().expect("a directory");
        let path = home.path().join("a.db");
        std::fs::write(&path, b"").expect("a file");
        (home, path)
    }

    #[test]
    fn that_the_log_is_kept_outlives_who_said_it_and_is_forgotten_by_who_comes_first() {
        let (_home, path) = database();
        assert!(Left::of(&path).is_none(), "there is no side file");
        let gate = Gate::join(&path, "one").expect("a place");
        assert!(!gate.log_is_kept() && Left::of(&path).is_none());
        gate.keep_log();
        assert!(gate.log_is_kept());
        drop(gate);
        let left = Left::of(&path).expect("nobody has it open");
        let gate = Gate::join(&path, "two").expect("a place");
        assert!(gate.log_is_kept());
        gate.log_was_recovered(left);
        assert!(!gate.log_is_kept());
    }

    #[test]
    fn what_is_said_after_the_look_is_not_forgotten() {
        let (_home, path) = database();
        let gate = Gate::join(&path, "one").expect("a place");
        gate.keep_log();
        let left = Left::of(&path).expect("nobody has it open");
        gate.keep_log();
        gate.log_was_recovered(left);
        assert!(gate.log_is_kept());
    }
}
