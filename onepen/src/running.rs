//! What the holder of the pen is doing, for those who ask from outside.
//!
//! Written by whoever runs a closure, with a few plain stores; read by the one who
//! oversees, which is rare. A text that was being written while it was read is
//! left out.

#![cfg_attr(
    not(feature = "tracing"),
    allow(dead_code, reason = "only events tell of it")
)]

use std::panic::Location;
use std::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering, fence};
use std::sync::{Arc, Mutex, PoisonError};

/// So much of a statement is kept.
const WORDS: usize = 16;

#[derive(Default)]
pub(crate) struct Running {
    /// Odd while a closure runs.
    count: AtomicU64,
    at: AtomicPtr<Location<'static>>,
    label: Mutex<Option<Arc<str>>>,
    labelled: AtomicUsize,
    /// Odd while the text changes.
    version: AtomicU64,
    length: AtomicUsize,
    text: [AtomicU64; WORDS],
}

/// What was seen.
pub(crate) struct Seen {
    pub(crate) count: u64,
    pub(crate) at: Option<&'static Location<'static>>,
    pub(crate) label: Option<Arc<str>>,
    /// The last statement, without the values that were written in it.
    pub(crate) last: Option<String>,
}

/// A closure runs for as long as this lives.
pub(crate) struct Runs<'a>(&'a Running);

impl Drop for Runs<'_> {
    fn drop(&mut self) {
        self.0.step();
    }
}

impl Running {
    #[inline]
    fn step(&self) {
        let count = self.count.load(Ordering::Relaxed);
        self.count.store(count + 1, Ordering::Release);
    }

    #[inline]
    pub(crate) fn begin(
        &self,
        at: &'static Location<'static>,
        label: Option<&Arc<str>>,
    ) -> Runs<'_> {
        self.note(at, label);
        self.length.store(0, Ordering::Relaxed);
        self.step();
        Runs(self)
    }

    /// Whose call it is.
    #[inline]
    pub(crate) fn note(&self, at: &'static Location<'static>, label: Option<&Arc<str>>) {
        self.at
            .store(std::ptr::from_ref(at).cast_mut(), Ordering::Relaxed);
        if label.is_some() || self.labelled.load(Ordering::Relaxed) != 0 {
            self.labelled
                .store(usize::from(label.is_some()), Ordering::Relaxed);
            *self.label.lock().unwrap_or_else(PoisonError::into_inner) = label.cloned();
        }
    }

    /// A statement begins.
    #[inline]
    pub(crate) fn statement(&self, sql: &str) {
        let bytes = sql.as_bytes();
        let bytes = &bytes[..bytes.len().min(WORDS * 8)];
        let version = self.version.load(Ordering::Relaxed);
        self.version.store(version + 1, Ordering::Relaxed);
        fence(Ordering::Release);
        for (place, chunk) in bytes.chunks(8).enumerate() {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.text[place].store(u64::from_ne_bytes(word), Ordering::Relaxed);
        }
        self.length.store(bytes.len(), Ordering::Relaxed);
        self.version.store(version + 2, Ordering::Release);
    }

    pub(crate) fn count(&self) -> u64 {
        self.count.load(Ordering::Acquire)
    }

    pub(crate) fn look(&self) -> Seen {
        let count = self.count();
        let at = self.at.load(Ordering::Relaxed);
        let label = self
            .label
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let version = self.version.load(Ordering::Acquire);
        let length = self.length.load(Ordering::Relaxed).min(WORDS * 8);
        let mut bytes: Vec<u8> = self
            .text
            .iter()
            .flat_map(|word| word.load(Ordering::Relaxed).to_ne_bytes())
            .collect();
        fence(Ordering::Acquire);
        let whole = version.is_multiple_of(2) && version == self.version.load(Ordering::Relaxed);
        bytes.truncate(length);
        Seen {
            count,
            // SAFETY: null, or made from a `&'static` by `begin`.
            at: unsafe { at.as_ref() },
            label,
            last: (whole && length > 0).then(|| without_values(&String::from_utf8_lossy(&bytes))),
        }
    }
}

/// A statement with `?` for every value that is written out in it.
pub(crate) fn without_values(sql: &str) -> String {
    let mut shown = String::with_capacity(sql.len());
    let mut rest = sql.chars().peekable();
    let mut in_word = false;
    while let Some(c) = rest.next() {
        match c {
            '\'' => {
                // A blob's x goes with it. Cut off in the middle it ends the text.
                if matches!(shown.chars().last(), Some('x' | 'X')) && in_word {
                    shown.pop();
                }
                shown.push('?');
                while let Some(c) = rest.next() {
                    if c == '\'' && rest.next_if_eq(&'\'').is_none() {
                        break;
                    }
                }
                in_word = false;
            }
            '"' => {
                // May be a text that is mistaken for a name.
                shown.push_str("\"…\"");
                while let Some(c) = rest.next() {
                    if c == '"' && rest.next_if_eq(&'"').is_none() {
                        break;
                    }
                }
                in_word = false;
            }
            '-' if rest.peek() == Some(&'-') => while rest.next().is_some_and(|c| c != '\n') {},
            '/' if rest.peek() == Some(&'*') => {
                let mut last = ' ';
                for c in rest.by_ref() {
                    if last == '*' && c == '/' {
                        break;
                    }
                    last = c;
                }
            }
            c if c.is_ascii_digit() && !in_word => {
                shown.push('?');
                while rest
                    .next_if(|c| c.is_ascii_alphanumeric() || *c == '.')
                    .is_some()
                {}
            }
            c => {
                in_word = c.is_alphanumeric() || matches!(c, '_' | '?' | ':' | '@' | '$');
                shown.push(c);
            }
        }
    }
    shown
}

#[cfg(all(test, not(any(onepen_loom, onepen_shuttle))))]
mod tests {
    use super::*;

    #[test]
    fn no_value_that_is_written_in_a_statement_is_shown() {
        for (sql, shown) in [
            (
                "SELECT a1 FROM t2 WHERE b = 15.5e3",
                "SELECT a1 FROM t2 WHERE b = ?",
            ),
            (
                "INSERT INTO a VALUES ('it''s', x'00', ?1, :n)",
                "INSERT INTO a VALUES (?, ?, ?1, :n)",
            ),
            ("SELECT \"pass\"\"word\", 'cut of", "SELECT \"…\", ?"),
            (
                "SELECT 1 -- secret\n, 2 /* 's */ + 0x1F",
                "SELECT ? , ?  + ?",
            ),
        ] {
            assert_eq!(without_values(sql), shown);
        }
    }

    #[test]
    fn what_runs_is_seen_with_its_last_statement() {
        let running = Running::default();
        assert_eq!(running.look().count % 2, 0);
        let label: Arc<str> = "checkout".into();
        let runs = running.begin(Location::caller(), Some(&label));
        running.statement(&format!("UPDATE a SET n = ?1 {}", " ".repeat(500)));
        let seen = running.look();
        assert_eq!(seen.count % 2, 1);
        assert_eq!(seen.label.as_deref(), Some("checkout"));
        assert!(seen.at.unwrap().file().ends_with("running.rs"));
        assert!(seen.last.unwrap().starts_with("UPDATE a SET n = ?1"));
        drop(runs);
        let runs = running.begin(Location::caller(), None);
        let seen = running.look();
        assert!(seen.last.is_none() && seen.label.is_none());
        drop(runs);
        assert_eq!(running.count() % 2, 0);
    }
}
