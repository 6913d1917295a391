//! The same parts of SQL two ways in slices of some milliseconds, by turns: while one
//! works the other waits, so that whatever else the machine does strikes both. The order
//! within a pair changes.

use serde_json::{Value, json};

use super::{Failure, median};

/// Seconds of one slice, about.
const SLICE: f64 = 0.015;

/// What a part took.
pub struct Part {
    pub name: &'static str,
    pairs: usize,
    /// The median over the pairs of the second's time by the first's.
    pub ratio: f64,
    /// Of a slice of each.
    pub ms: [f64; 2],
    /// What was run in each slice, times so many.
    pub times: u64,
}

impl Part {
    pub fn json(&self, names: [&str; 2]) -> Value {
        json!({
            "part": self.name, "pairs": self.pairs, "ratio": self.ratio, "times": self.times,
            format!("{}_ms", names[0]): self.ms[0], format!("{}_ms", names[1]): self.ms[1],
        })
    }
}

/// Runs a part by turns: `slice` runs it one way, so many times, and tells the seconds.
pub fn measure(
    name: &'static str,
    pairs: usize,
    mut slice: impl FnMut(usize, u64) -> Result<f64, Failure>,
) -> Result<Part, Failure> {
    let mut times = 1;
    // Once around unmeasured, and as many as fill a slice.
    loop {
        let seconds = slice(0, times)?;
        slice(1, times)?;
        if seconds >= SLICE / 2.0 {
            break;
        }
        times *= 2;
    }
    let mut took = [Vec::new(), Vec::new()];
    for pair in 0..pairs {
        let mut order = [0, 1];
        if pair % 2 == 1 {
            order.reverse();
        }
        for way in order {
            took[way].push(slice(way, times)?);
        }
    }
    let ratios = took[1]
        .iter()
        .zip(&took[0])
        .map(|(second, first)| second / first);
    Ok(Part {
        name,
        pairs,
        ratio: median(ratios.collect()),
        ms: took.map(|took| median(took) * 1000.0),
        times,
    })
}
