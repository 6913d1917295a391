//! What somebody was told before the power went.

use std::collections::BTreeSet;
use std::fmt;

/// Said at one moment of a recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// This write was answered with Ok.
    Acknowledged(i64),
    /// Its closure failed, and it was told so: it never happened.
    Refused(i64),
    /// It was told that nobody knows.
    Unknown(i64),
    /// A read saw the state after so many writes.
    Seen(i64),
    /// A step of the test is over: what came of it may be relied on.
    Done(i64),
}

/// All that was said up to a moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    pub acknowledged: BTreeSet<i64>,
    pub refused: BTreeSet<i64>,
    pub unknown: BTreeSet<i64>,
    pub seen: i64,
    pub done: BTreeSet<i64>,
}

impl Told {
    pub fn hear(&mut self, word: Word) {
        match word {
            Word::Acknowledged(op) => drop(self.acknowledged.insert(op)),
            Word::Refused(op) => drop(self.refused.insert(op)),
            Word::Unknown(op) => drop(self.unknown.insert(op)),
            Word::Seen(serial) => self.seen = self.seen.max(serial),
            Word::Done(step) => drop(self.done.insert(step)),
        }
    }

    pub fn is_done(&self, step: i64) -> bool {
        self.done.contains(&step)
    }

    pub fn words(&self) -> impl Iterator<Item = Word> {
        let words = |of: &BTreeSet<i64>, word: fn(i64) -> Word| {
            of.iter().copied().map(word).collect::<Vec<_>>()
        };
        let mut all = words(&self.acknowledged, Word::Acknowledged);
        all.extend(words(&self.refused, Word::Refused));
        all.extend(words(&self.unknown, Word::Unknown));
        all.extend(words(&self.done, Word::Done));
        all.push(Word::Seen(self.seen));
        all.into_iter()
    }

    /// Reads what [`fmt::Display`] wrote.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut told = Self::default();
        for line in text.lines() {
            let word = line
                .split_once(' ')
                .and_then(|(word, number)| Some((word, number.parse().ok()?)));
            told.hear(match word {
                Some(("acknowledged", op)) => Word::Acknowledged(op),
                Some(("refused", op)) => Word::Refused(op),
                Some(("unknown", op)) => Word::Unknown(op),
                Some(("seen", serial)) => Word::Seen(serial),
                Some(("done", step)) => Word::Done(step),
                _ => return Err(format!("not understood: {line}")),
            });
        }
        Ok(told)
    }
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for word in self.words() {
            let (word, number) = match word {
                Word::Acknowledged(op) => ("acknowledged", op),
                Word::Refused(op) => ("refused", op),
                Word::Unknown(op) => ("unknown", op),
                Word::Seen(serial) => ("seen", serial),
                Word::Done(step) => ("done", step),
            };
            writeln!(f, "{word} {number}")?;
        }
        Ok(())
    }
}
