//! What is known of transactions that begin with the same statement: whether such
//! transactions write. Pure, but for one table that the whole process shares.
//!
//! A transaction's *kind* is a hash of its first statement's text without numbers,
//! strings, spaces and the signs around parameters, so that a program that writes
//! values into its SQL has no more kinds than statements. Nothing of the text is
//! kept. Two kinds with one hash share a fate, which costs a needless wait or a
//! refused upgrade, and nothing worse.
//!
//! A kind that wrote is expected to write; after 20 transactions of it in a
//! row that only read it is expected to read.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::promotion::Will;

/// How many transactions of a kind may read only before it is no longer expected to
/// write. A kind of which one in so many writes is still promoted every time.
const CREDIT: u64 = 20;

/// Of a statement's text so much is looked at.
const LOOKED_AT: usize = 1024;

/// Kinds that are remembered at a time. A new one takes the place of an old one.
const PLACES: usize = 1024;

/// Each place: the kind, with what is left of its credit in the low byte (0: it only
/// reads). 0: nobody's.
static TABLE: [AtomicU64; PLACES] = [const { AtomicU64::new(0) }; PLACES];

/// A transaction's kind. The low byte is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind(u64);

impl Kind {
    /// The kind of transactions that begin with `statement`.
    pub fn of(statement: &[u8]) -> Self {
        // FNV-1a: short texts, no key needed (see above on equal hashes).
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        let mut bytes = statement.iter().take(LOOKED_AT);
        while let Some(&byte) = bytes.next() {
            match byte {
                b'\'' => {
                    // To its end; a doubled quote begins the next string.
                    bytes.by_ref().find(|&&byte| byte == b'\'');
                }
                b'0'..=b'9' | b'?' | b',' | b'(' | b')' | b' ' | b'\t' | b'\r' | b'\n' => {}
                byte => {
                    hash ^= u64::from(byte);
                    hash = hash.wrapping_mul(0x0100_0000_01b3);
                }
            }
        }
        hash ^= hash >> 32;
        Self((hash & !0xff) | 1 << 8)
    }

    fn place(self) -> &'static AtomicU64 {
        &TABLE[(self.0 >> 9) as usize % PLACES]
    }

    /// Whether transactions of this kind are expected to write.
    pub fn will(self) -> Will {
        let known = self.place().load(Relaxed);
        if known & !0xff != self.0 {
            Will::Perhaps
        } else if known & 0xff == 0 {
            Will::Read
        } else {
            Will::Write
        }
    }

    /// One of them has ended.
    pub fn learn(self, wrote: bool) {
        let place = self.place();
        let known = place.load(Relaxed);
        let credit = if wrote {
            CREDIT
        } else if known & !0xff == self.0 {
            (known & 0xff).saturating_sub(1)
        } else {
            0
        };
        // Two at once: the last one counts.
        if known != self.0 | credit {
            place.store(self.0 | credit, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_is_the_statement_without_its_values() {
        let of = |text: &str| Kind::of(text.as_bytes());
        assert_eq!(
            of("SELECT v FROM t WHERE id = 17 AND name = 'it''s'"),
            of("SELECT v FROM t WHERE id = 4 AND name = 'x'")
        );
        assert_eq!(
            of("SELECT 1 WHERE a IN (?,?)"),
            of("SELECT 1 WHERE a IN (?, ?, ?)")
        );
        assert_ne!(of("SELECT v FROM t"), of("SELECT v FROM u"));
        assert_ne!(of("SELECT '"), of("SELECT x"));
    }

    #[test]
    fn a_kind_is_expected_to_write_until_it_has_not_for_a_while() {
        let kind = Kind::of(b"SELECT a_kind_of_this_test");
        assert_eq!(kind.will(), Will::Perhaps);
        kind.learn(false);
        assert_eq!(kind.will(), Will::Read);
        kind.learn(true);
        for _ in 0..CREDIT {
            assert_eq!(kind.will(), Will::Write);
            kind.learn(false);
        }
        assert_eq!(kind.will(), Will::Read);
    }
}
