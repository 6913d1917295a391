//! What is known of transactions that begin with the same statement: whether such
//! transactions write. Pure, but for one table that the whole process shares.
//!
//! A transaction's *kind* is a hash of its first statement's text without numbers,
//! strings, spaces and the signs around parameters, so that a program that writes
//! values into its SQL has no more kinds than statements. Nothing of the text is
//! kept. Two kinds with one hash share a fate, which costs a needless wait or a
//! refused upgrade, and nothing worse.
//!
//! # How long a kind is promoted
//!
//! Of a transaction that has only read so far nobody can say whether it will write: the
//! next of a kind that never wrote may be the first that does, and without its turn
//! SQLite may refuse it. So a kind is taken for one that writes, and refused nothing,
//! *until that has cost others enough*: until its transactions, one after the other
//! without a write, have kept the turn for
//!
//! - 32 ms, of a kind that never wrote,
//! - 500 ms, of a kind that once did, in a row since its last write.
//!
//! Each counts as long as the shortest of its kind (whoever was not scheduled for a
//! while reads no longer for it), one sixteenth of a millisecond at least, and no more
//! than an eighth, or of a kind that wrote a twentieth, of the whole. So a program that
//! reads and writes at once is promoted although only one in five hundred of its
//! transactions writes; and one that reads for 10 ms each time only eight times.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::promotion::Will;

/// Times are counted in sixteenths of a millisecond.
const UNIT: Duration = Duration::from_nanos(62_500);

/// So long may transactions of a kind keep the turn for nothing: if it never wrote,
const UNKNOWN: u64 = 32 * 16;
/// and if it did.
const WROTE: u64 = 500 * 16;

/// However long they take, so many of them at least.
const UNKNOWN_AT_LEAST: u64 = 8;
const WROTE_AT_LEAST: u64 = 20;

/// So many transactions that wrote to one database only, and none that went on to
/// another one, before none is expected to.
const ALONE: u64 = 255;

/// Of a statement's text so much is looked at.
const LOOKED_AT: usize = 1024;

/// Kinds that are remembered at a time. A new one takes the place of an old one.
const PLACES: usize = 1024;
const WAYS: usize = 4;

/// Each place: the kind, with what is known of it in the low bits. 0: nobody's.
static TABLE: [AtomicU64; PLACES] = [const { AtomicU64::new(0) }; PLACES];

/// What is known of a kind, in the low bits of its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Known {
    wrote: bool,
    /// What is left of the time that it may cost.
    left: u64,
    /// The shortest that ended without a write, to 255.
    shortest: u64,
    /// Transactions since one went on to another database.
    alone: u64,
}

impl Known {
    const BITS: u32 = 1 + 13 + 8 + 8;
    const MASK: u64 = (1 << Self::BITS) - 1;
    const NOTHING: Self = Self {
        wrote: false,
        left: UNKNOWN,
        shortest: 255,
        alone: 0,
    };

    fn unpack(bits: u64) -> Self {
        Self {
            wrote: bits & 1 != 0,
            left: bits >> 1 & 0x1fff,
            shortest: bits >> 14 & 0xff,
            alone: bits >> 22 & 0xff,
        }
    }

    fn pack(self) -> u64 {
        u64::from(self.wrote)
            | self.left.min(0x1fff) << 1
            | self.shortest.min(0xff) << 14
            | self.alone.min(0xff) << 22
    }

    fn will(self) -> Will {
        match self {
            Self { left: 0, .. } => Will::Read,
            Self { wrote: true, .. } => Will::Write,
            Self { wrote: false, .. } => Will::Perhaps,
        }
    }

    /// After one of them that wrote.
    fn after_write(self) -> Self {
        Self {
            wrote: true,
            left: WROTE,
            ..self
        }
    }

    /// After one of them that only read, and kept the turn for so long.
    fn after_read(self, held: Duration) -> Self {
        let held = u64::try_from(held.as_nanos() / UNIT.as_nanos()).unwrap_or(u64::MAX);
        let shortest = self.shortest.min(held);
        let most = if self.wrote {
            WROTE / WROTE_AT_LEAST
        } else {
            UNKNOWN / UNKNOWN_AT_LEAST
        };
        // What is capped at 255 may be anything above.
        let counts = if shortest == 255 { held } else { shortest };
        Self {
            shortest,
            left: self.left.saturating_sub(counts.clamp(1, most)),
            ..self
        }
    }
}

const _: () = assert!(WROTE <= 0x1fff && UNKNOWN <= WROTE);

/// The kinds of the statements that a connection began with lately, because to tell a
/// kind takes longer than to tell a text.
#[derive(Clone, Copy, Debug, Default)]
pub struct Lately([(u64, u64); 4]);

impl Lately {
    /// As [`Kind::of`].
    pub fn kind_of(&mut self, statement: &[u8]) -> Kind {
        let text = whole(statement);
        let at = &mut self.0[(text >> 62) as usize];
        if at.0 != text {
            *at = (text, Kind::of(statement).0);
        }
        Kind(at.1)
    }
}

/// A hash of the text as it is, eight bytes at a time. Never 0.
fn whole(text: &[u8]) -> u64 {
    let (words, rest) = text[..text.len().min(LOOKED_AT)].as_chunks::<8>();
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    let mut hash = text.len() as u64 ^ 0x9e37_79b9_7f4a_7c15;
    for word in words.iter().chain([&last]) {
        hash = (hash ^ u64::from_le_bytes(*word)).wrapping_mul(0xff51_afd7_ed55_8ccd);
        hash ^= hash >> 32;
    }
    hash | 1
}

/// A transaction's kind. The bits of what is known of it are 0.
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
        Self((hash & !Known::MASK) | 1 << Known::BITS)
    }

    /// Where it is, or would be put: one of a few places, so that two kinds that meet
    /// do not drive each other out all the time.
    fn place(self) -> &'static AtomicU64 {
        let hash = (self.0 >> (Known::BITS + 1)) as usize;
        let first = hash / WAYS % (PLACES / WAYS) * WAYS;
        let ways = &TABLE[first..first + WAYS];
        let is = |place: &AtomicU64, kind: u64| place.load(Relaxed) & !Known::MASK == kind;
        (ways.iter().find(|place| is(place, self.0)))
            .or_else(|| ways.iter().find(|place| is(place, 0)))
            .unwrap_or(&ways[hash % WAYS])
    }

    fn known(self) -> Known {
        let place = self.place().load(Relaxed);
        if place & !Known::MASK == self.0 {
            Known::unpack(place)
        } else {
            Known::NOTHING
        }
    }

    fn learn(self, before: Known, now: Known) {
        // Two at once: the last one counts. A place is taken with the first.
        if now != before || now == Known::NOTHING {
            self.place().store(self.0 | now.pack(), Relaxed);
        }
    }

    /// Whether transactions of this kind are expected to write.
    pub fn will(self) -> Will {
        self.known().will()
    }

    /// One of them wrote.
    pub fn wrote(self) {
        let known = self.known();
        self.learn(known, known.after_write());
    }

    /// One of them ended without a write, after so long.
    pub fn only_read(self, held: Duration) {
        let known = self.known();
        if known.left != 0 {
            self.learn(known, known.after_read(held));
        }
    }

    /// Whether they may go on to another database of the connection.
    pub fn may_go_on(self) -> bool {
        self.known().alone < ALONE
    }

    /// One of them went on to another database, or ended without, where there was one.
    pub fn went_on(self, to_another: bool) {
        let known = self.known();
        let alone = if to_another {
            0
        } else {
            (known.alone + 1).min(ALONE)
        };
        self.learn(known, Known { alone, ..known });
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

    fn after(mut known: Known, held: Duration) -> u32 {
        let mut times = 0;
        while known.will() != Will::Read {
            known = known.after_read(held);
            assert_eq!(known, Known::unpack(known.pack()));
            times += 1;
        }
        times
    }

    #[test]
    fn a_kind_that_is_remembered_is_that_of_the_statement() {
        let mut lately = Lately::default();
        let mut text = String::new();
        for round in 0..40 {
            text += "SELECT x ";
            let texts = [text.clone(), format!("{text}{round}"), format!("{text}y")];
            for text in texts.iter().chain(&texts) {
                assert_eq!(lately.kind_of(text.as_bytes()), Kind::of(text.as_bytes()));
            }
        }
    }

    #[test]
    fn a_kind_is_promoted_until_it_has_cost_others_enough() {
        let wrote = Known::NOTHING.after_write();
        assert_eq!(Known::NOTHING.will(), Will::Perhaps);
        assert_eq!(wrote.will(), Will::Write);
        for (micros, unknown, once) in [
            (0, 512, 8000),
            (100, 512, 8000),
            (1000, 32, 500),
            (10_000, 8, 50),
            (17_000, 8, 30),
            (10_000_000, 8, 20),
        ] {
            let held = Duration::from_micros(micros);
            assert_eq!(after(Known::NOTHING, held), unknown, "{held:?}");
            assert_eq!(after(wrote, held), once, "{held:?}");
        }
    }

    #[test]
    fn who_was_not_scheduled_for_a_while_counts_as_long_as_the_others() {
        let short = Known::NOTHING.after_read(Duration::from_micros(50));
        let long = short.after_read(Duration::from_millis(40));
        assert_eq!(long.left, UNKNOWN - 2);
    }

    #[test]
    fn a_kind_that_writes_again_begins_anew() {
        let kind = Kind::of(b"SELECT a_kind_of_this_test");
        for _ in 0..500 {
            assert_eq!(kind.will(), Will::Perhaps);
            kind.only_read(Duration::ZERO);
        }
        kind.wrote();
        for _ in 0..WROTE {
            assert_eq!(kind.will(), Will::Write);
            kind.only_read(Duration::ZERO);
        }
        assert_eq!(kind.will(), Will::Read);
        kind.wrote();
        assert_eq!(kind.will(), Will::Write);
    }

    #[test]
    fn a_kind_is_expected_to_go_on_to_another_database_until_it_has_not_for_a_while() {
        let kind = Kind::of(b"SELECT another_kind_of_this_test");
        kind.went_on(true);
        for _ in 0..ALONE {
            assert!(kind.may_go_on());
            kind.went_on(false);
        }
        assert!(!kind.may_go_on());
        kind.went_on(true);
        assert!(kind.may_go_on());
    }
}
