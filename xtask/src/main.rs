//! The project's own chores: `cargo xtask <verb>`.

mod builds;
mod compare;
mod gate;
mod models;
mod planted;
mod programs;
mod proof;
mod published;
mod sources;

const USAGE: &str = "\
usage: cargo xtask <verb> [options]

  compare   all contenders of the table \"Must reach\", alternating in one run
            (`cargo xtask compare --help`)
  figures   what `compare --json` wrote, into docs/benchmarks.md
  builds    the threading tests over SQLITE_THREADSAFE=0, 1 and 2
            (`cargo xtask builds --help`)
  gate      processes that write to one database, in turns and with busy_timeout
            (`cargo xtask gate --help`)
  models    the hand-over of the pen under loom and shuttle, and with planted
            bugs (`cargo xtask models --help`)
  proof     every instrument of docs/proof.md, or one, and a table of what they
            looked at (`cargo xtask proof --help`)
  programs  Python and Node programs nobody changed, as they are and with the
            extension (`cargo xtask programs --help`)
";

fn main() {
    let mut words = std::env::args().skip(1);
    let outcome = match words.next().as_deref() {
        Some("compare") => compare::main(words.collect()),
        Some("figures") => published::main(&words.collect::<Vec<_>>()),
        Some("builds") => builds::main(&words.collect::<Vec<_>>()),
        Some("gate") => gate::main(words.collect()),
        Some("models") => models::main(words.collect()),
        Some("proof") => proof::main(words.collect()),
        Some("programs") => programs::main(words.collect()),
        Some("help" | "--help" | "-h") => {
            print!("{USAGE}");
            Ok(())
        }
        other => {
            match other {
                Some(verb) => eprintln!("there is no verb `{verb}`\n\n{USAGE}"),
                None => eprint!("{USAGE}"),
            }
            std::process::exit(2);
        }
    };
    if let Err(error) = outcome {
        eprintln!("cargo xtask: {error}");
        std::process::exit(1);
    }
}
