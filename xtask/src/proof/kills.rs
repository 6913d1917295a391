//! Programs that are killed, at every point and at any time: the tests of
//! `onepen/tests/kills` and of the gate's steps, with every system call and as
//! many cycles as asked for.
//!
//! Many cycles are run a thousand at a time, each thousand with a seed of its own;
//! what each found is remembered for these very sources, so that a run that was
//! broken off goes on (`--anew` forgets it).

use super::memory::{Figure, Memory, add};
use super::tests::figures;
use super::{Ask, Failure, Figures, Strength};

/// Cycles that are run together.
const TOGETHER: u64 = 1000;

/// The test of those that are killed at any time.
const RANDOM: &str = "random::processes_killed_at_any_time";

/// Runs them.
pub fn run(ask: &Ask) -> Result<Figures, Failure> {
    let mut ask = ask.clone();
    let words = ask.words.len();
    ask.words.retain(|word| word != "--anew");
    let anew = ask.words.len() < words;
    let [cycles, deed] = ask.own_words(["--cycles", "--deed"])?;
    let mut left: u64 = match (cycles, ask.strength) {
        (Some(cycles), _) => cycles
            .parse()
            .map_err(|_| format!("--cycles {cycles}: not a number"))?,
        (None, Strength::Quick) => 200,
        (None, Strength::Usual) => 2000,
        (None, Strength::Long) => 20_000,
    };
    let stride = match ask.strength {
        Strength::Quick => "11",
        _ => "1",
    };
    let deed = deed.unwrap_or_default();
    let steps = ["-p", "onepen-lock", "--test", "gate", "steps::"];
    let points = ["-p", "onepen", "--test", "kills", "--", "--skip", RANDOM];
    let mut all = figures(&steps, &[])?.0;
    let environment = [("ONEPEN_KILL_STRIDE", stride), ("ONEPEN_KILL_DEED", &*deed)];
    all.extend(figures(&points, &environment)?.0);
    let mut memory = Memory::of("kills", "", anew)?;
    let first = ask.seed.unwrap_or(1);
    let mut sums = Vec::new();
    for seed in first.. {
        let now = left.min(TOGETHER);
        if now == 0 {
            break;
        }
        left -= now;
        add(&mut sums, thousand(&mut memory, seed, now)?);
    }
    let named = |(what, sum): Figure| (&*what.leak(), sum.to_string());
    all.extend(sums.into_iter().map(named));
    Ok(Figures(all))
}

/// So many cycles with this seed; from the memory, or run.
fn thousand(memory: &mut Memory, seed: u64, cycles: u64) -> Result<Vec<Figure>, Failure> {
    let part = format!("seed {seed}, {cycles} cycles");
    if let Some(known) = memory.get(&part) {
        println!("   {part}: run before");
        return Ok(known);
    }
    let tests = ["-p", "onepen", "--test", "kills", "--", RANDOM];
    let environment = [
        ("ONEPEN_CYCLES", &*cycles.to_string()),
        ("ONEPEN_SEED", &*seed.to_string()),
    ];
    let found: Result<Vec<_>, Failure> = figures(&tests, &environment)?
        .0
        .into_iter()
        .map(|(what, number)| Ok((what.to_owned(), number.parse()?)))
        .collect();
    let found = found?;
    memory.keep(&part, &found)?;
    Ok(found)
}
