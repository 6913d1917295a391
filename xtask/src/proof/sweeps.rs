//! Every call on a file and every allocation fails in turn: the tests of
//! `onepen/tests/sweeps`; `--long` with every allocation and every kind of error.

use super::tests::figures;
use super::{Ask, Failure, Figures, Strength};

/// Runs them.
pub fn run(ask: &Ask) -> Result<Figures, Failure> {
    let [] = ask.own_words([])?;
    let how = match ask.strength {
        Strength::Quick => "quick",
        Strength::Usual | Strength::Long => "long",
    };
    let tests = ["-p", "onepen", "--test", "sweeps"];
    figures(&tests, &[("ONEPEN_SWEEPS", how)])
}
