//! Where there is no gate: the same interface, and nobody ever joins.

use std::convert::Infallible;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use super::{NotJoined, View, Waited};

/// This process's place at the gate of one database.
#[derive(Clone, Debug)]
pub struct Gate(Infallible);

/// One connection's place within its process.
#[derive(Debug)]
pub struct Seat(Infallible);

/// A state of the database between two commits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "documented where it works")]
pub struct Stamp {
    pub commits: u32,
    pub checksum: u64,
}

/// What one commit did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "documented where it works")]
pub struct Note {
    pub before: Stamp,
    pub after: Stamp,
    pub changed: Option<Vec<String>>,
    pub tokens: Vec<u64>,
    pub all_tokens: bool,
}

/// Looks at the gate of a database from outside.
#[derive(Debug)]
pub struct Observer(Infallible);

/// That those who are gone wanted the log kept.
#[derive(Clone, Copy, Debug)]
pub struct Left(Infallible);

#[allow(missing_docs, reason = "documented where it works")]
impl Gate {
    pub fn join(_database: &Path, _label: &str) -> Result<Self, NotJoined> {
        Err(NotJoined::Unsupported)
    }

    pub fn join_with(_database: &Path, _label: &str, _slice: Duration) -> Result<Self, NotJoined> {
        Err(NotJoined::Unsupported)
    }

    pub fn seat(&self) -> Seat {
        match self.0 {}
    }

    pub fn others_are_waiting(&self) -> u32 {
        match self.0 {}
    }

    pub fn look(&self) -> View {
        match self.0 {}
    }

    pub fn listen(&self, _listens: bool) {
        match self.0 {}
    }

    pub fn others_listen(&self) -> bool {
        match self.0 {}
    }

    pub fn forget_the_dead(&self) {
        match self.0 {}
    }

    pub fn note(&self, _note: &Note) {
        match self.0 {}
    }

    pub fn notes(&self, _from: Stamp, _to: Stamp) -> Option<Vec<Note>> {
        match self.0 {}
    }

    pub fn note_of(&self, _commits: u32) -> Option<Note> {
        match self.0 {}
    }

    pub fn keep_log(&self) {
        match self.0 {}
    }

    pub fn log_is_kept(&self) -> bool {
        match self.0 {}
    }

    pub fn log_was_recovered(&self, left: Left) {
        match left.0 {}
    }

    pub fn path(&self) -> &Path {
        match self.0 {}
    }
}

#[allow(missing_docs, reason = "documented where it works")]
impl Left {
    pub fn of(_database: &Path) -> Option<Self> {
        None
    }
}

#[allow(missing_docs, reason = "documented where it works")]
impl Seat {
    pub fn try_take(&self, _purpose: Option<&str>) -> bool {
        match self.0 {}
    }

    pub fn wait(
        &self,
        _purpose: Option<&str>,
        _until: Option<Instant>,
        _given_up: &dyn Fn() -> bool,
    ) -> Waited {
        match self.0 {}
    }

    pub fn take(
        &self,
        _purpose: Option<&str>,
        _until: Option<Instant>,
        _given_up: &dyn Fn() -> bool,
    ) -> Waited {
        match self.0 {}
    }

    pub fn pass_on(&self, _commits: u64, _writes: u64, _more: impl FnOnce() -> bool) {
        match self.0 {}
    }

    pub fn leave(&self) {
        match self.0 {}
    }

    pub fn should_end(&self) -> bool {
        match self.0 {}
    }

    pub fn others_are_waiting(&self) -> u32 {
        match self.0 {}
    }

    pub fn position(&self) -> Option<usize> {
        match self.0 {}
    }

    pub fn reads_first(&self, _time: Duration) -> bool {
        match self.0 {}
    }

    pub fn confirm(&self) -> bool {
        match self.0 {}
    }

    pub fn has_the_turn(&self) -> bool {
        match self.0 {}
    }

    pub fn is_somebody_waiting(&self) -> bool {
        match self.0 {}
    }

    pub fn lock_is_held(&self) -> bool {
        match self.0 {}
    }

    pub fn leave_a_gap(&self) {
        match self.0 {}
    }

    pub fn met_a_stranger(&self) {
        match self.0 {}
    }
}

#[allow(missing_docs, reason = "documented where it works")]
impl Observer {
    pub fn open(_database: &Path) -> io::Result<Option<Self>> {
        Ok(None)
    }

    pub fn look(&self) -> io::Result<View> {
        match self.0 {}
    }
}
