//! Programs that are killed, at every point and at any time: the tests of
//! `onepen/tests/kills` and of the gate's steps, with every system call and as
//! many cycles as asked for.

use super::tests::figures;
use super::{Ask, Failure, Figures, Strength};

/// Runs them.
pub fn run(ask: &Ask) -> Result<Figures, Failure> {
    let [cycles, deed] = ask.own_words(["--cycles", "--deed"])?;
    let cycles = match (cycles, ask.strength) {
        (Some(cycles), _) => cycles,
        (None, Strength::Quick) => "200".to_owned(),
        (None, Strength::Usual) => "2000".to_owned(),
        (None, Strength::Long) => "20000".to_owned(),
    };
    let stride = match ask.strength {
        Strength::Quick => "11",
        _ => "1",
    };
    let seed = ask.seed.unwrap_or(1).to_string();
    let deed = deed.unwrap_or_default();
    let steps = ["-p", "onepen-lock", "--test", "gate", "steps::"];
    let points = ["-p", "onepen", "--test", "kills"];
    let mut all = figures(&steps, &[])?;
    let environment = [
        ("ONEPEN_KILL_STRIDE", stride),
        ("ONEPEN_KILL_DEED", &*deed),
        ("ONEPEN_CYCLES", &*cycles),
        ("ONEPEN_SEED", &*seed),
    ];
    all.0.extend(figures(&points, &environment)?.0);
    Ok(all)
}
