//! Switches: of a connection by URI parameter or PRAGMA, of a process by environment.

use std::ffi::CStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::OnceLock;

use super::Open;
use crate::promotion::Call;
use crate::sqlite;

impl Open {
    /// `PRAGMA onepen` and `PRAGMA onepen_promote`: the answer, or `None` for another.
    pub(super) fn pragma(&self, name: &[u8], value: Option<&[u8]>) -> Option<&'static CStr> {
        if name.eq_ignore_ascii_case(b"onepen") {
            return Some(if self.through.get() {
                c"off"
            } else if self.turns.seat().is_some() {
                c"on"
            } else {
                c"no place at the gate"
            });
        }
        if !name.eq_ignore_ascii_case(b"onepen_promote") {
            return None;
        }
        if let Some(promote) = value.and_then(Promote::of) {
            self.promote.set(promote);
            if promote != Promote::Lock && !self.through.get() {
                self.drive(Call::Demote, || sqlite::OK);
            }
        }
        Some(self.promote.get().name())
    }
}

/// What is done for transactions that read first and write later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Promote {
    /// Nothing: they begin as they do without us.
    Off,
    /// They get the turn at their first read.
    Turn,
    /// They get the write lock as well, once they are known to write.
    Lock,
}

impl Promote {
    pub(super) fn of(value: &[u8]) -> Option<Self> {
        if is_off(value) {
            Some(Self::Off)
        } else if value.eq_ignore_ascii_case(b"lock") {
            Some(Self::Lock)
        } else if [&b"turn"[..], b"on", b"1", b"yes", b"true"]
            .iter()
            .any(|on| value.eq_ignore_ascii_case(on))
        {
            Some(Self::Turn)
        } else {
            None
        }
    }

    /// Where nothing is said of the connection.
    pub(super) fn of_process() -> Self {
        static SAID: OnceLock<Promote> = OnceLock::new();
        *SAID.get_or_init(|| {
            std::env::var_os("ONEPEN_PROMOTE")
                .and_then(|value| Self::of(value.as_bytes()))
                .unwrap_or(Self::Turn)
        })
    }

    pub(super) fn name(self) -> &'static CStr {
        match self {
            Self::Off => c"off",
            Self::Turn => c"turn",
            Self::Lock => c"lock",
        }
    }
}

/// As SQLite reads a boolean of a URI.
pub(super) fn is_off(value: &[u8]) -> bool {
    [&b"0"[..], b"off", b"no", b"false"]
        .iter()
        .any(|off| value.eq_ignore_ascii_case(off))
}
