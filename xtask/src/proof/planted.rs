//! Every known bug, in a copy of the library, and what notices it
//! ([`crate::planted`]).

use super::{Ask, Failure, Figures, Strength};
use crate::planted::{self, Wanted};

/// Plants them all, or those of the short form.
pub fn run(ask: &Ask) -> Result<Figures, Failure> {
    let mut wanted = Wanted {
        quick: ask.strength == Strength::Quick,
        ..Wanted::default()
    };
    let mut words = ask.words.iter();
    while let Some(word) = words.next() {
        match word.as_str() {
            "--json" => wanted.json = true,
            "--anew" => wanted.anew = true,
            "--only" => wanted.only = Some(words.next().ok_or("--only needs a text")?.clone()),
            other => {
                return Err(
                    format!("`{other}` is not known here: --only TEXT, --anew, --json").into(),
                );
            }
        }
    }
    let noticed = planted::run(&wanted)?;
    let mut figures = vec![(
        "planted bugs, each of them noticed",
        noticed.all.to_string(),
    )];
    if noticed.before > 0 {
        let before = noticed.before.to_string();
        figures.push(("of them by a run before, of the same sources", before));
    }
    Ok(Figures(figures))
}
