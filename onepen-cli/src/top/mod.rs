//! `onepen top`: who holds, waits for and reads a database, live.
//!
//! Guarantees: it only looks. The database is not opened through SQLite, nothing is
//! locked or written, and no process is asked or stopped. What it cannot see it
//! says. The terminal is given back as it was, also after a panic.

mod look;
mod order;
mod picture;
mod screen;
mod text;
mod watch;

#[cfg(test)]
mod tests;

use std::io::{ErrorKind, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ratatui::crossterm::event::{self, Event};

use self::order::Sort;
use self::picture::Picture;
use self::screen::{After, Screen};
use self::watch::Watch;
use crate::words::{complain, duration, name, say};

/// How often a signal is looked for.
const SIGNALS: Duration = Duration::from_millis(200);

#[derive(clap::Args)]
pub struct Args {
    /// The database file
    database: PathBuf,

    /// How often to look: 500ms, 2s
    #[arg(short, long, value_name = "TIME", default_value = "1s", value_parser = duration)]
    interval: Duration,

    /// Print one picture and end: rates over one interval
    #[arg(long)]
    once: bool,

    /// Print pictures as JSON, one on each line; with --once just one
    #[arg(long)]
    json: bool,

    /// What rows are sorted by
    #[arg(short, long, value_enum, default_value_t)]
    sort: Sort,

    /// Only rows with this text in their number, label, command or what they do
    #[arg(short, long, value_name = "TEXT", default_value = "")]
    filter: String,
}

/// Runs the verb. 0: done; 2: could not look.
pub fn run(args: &Args) -> ExitCode {
    let mut source = Source {
        args,
        watch: Watch::new(name(&args.database)),
    };
    let is_live = !args.once && !args.json && std::io::stdout().is_terminal();
    let done = if is_live {
        live(&mut source)
    } else {
        print(&mut source)
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            complain("top", why);
            ExitCode::from(2)
        }
    }
}

/// Where pictures come from.
struct Source<'a> {
    args: &'a Args,
    watch: Watch,
}

impl Source<'_> {
    fn next(&mut self) -> Result<Picture, String> {
        Ok(self.watch.picture(&look::look(&self.args.database)?))
    }

    /// The next one, with its rows as they were asked for.
    fn arranged(&mut self) -> Result<Picture, String> {
        let mut picture = self.next()?;
        order::arrange(&mut picture.rows, self.args.sort, false, &self.args.filter);
        Ok(picture)
    }
}

/// Set by ctrl-C and by being asked to end.
fn end_asked() -> Result<Arc<AtomicBool>, String> {
    let end = Arc::new(AtomicBool::new(false));
    let asked = Arc::clone(&end);
    ctrlc::set_handler(move || asked.store(true, Ordering::Relaxed))
        .map_err(|error| format!("signals cannot be heard: {error}"))?;
    Ok(end)
}

/// Pictures for scripts; without a terminal, one for a reader.
fn print(source: &mut Source<'_>) -> Result<(), String> {
    let end = end_asked()?;
    source.next()?; // rates need two looks
    loop {
        let next = Instant::now() + source.args.interval;
        loop {
            let left = next.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            if end.load(Ordering::Relaxed) {
                return Ok(());
            }
            std::thread::sleep(left.min(SIGNALS));
        }
        let picture = source.arranged()?;
        if source.args.json {
            let json = serde_json::to_string(&picture).map_err(|error| error.to_string())?;
            let mut output = std::io::stdout().lock();
            match writeln!(output, "{json}").and_then(|()| output.flush()) {
                Ok(()) => {}
                // Whoever read it has seen enough.
                Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(()),
                Err(error) => return Err(format!("cannot print: {error}")),
            }
        } else {
            say(&text::plain(&picture))?;
        }
        if source.args.once || !source.args.json {
            return Ok(());
        }
    }
}

/// The live view.
fn live(source: &mut Source<'_>) -> Result<(), String> {
    let end = end_asked()?;
    let mut picture = Some(source.next()?); // before the terminal is taken
    let terminal = |error: std::io::Error| format!("the terminal cannot be used: {error}");
    let mut screen_of = ratatui::try_init().map_err(terminal)?;
    let mut screen = Screen::new(
        source.args.interval,
        source.args.sort,
        source.args.filter.clone(),
    );
    let mut trouble: Option<String> = None;
    let mut next = Instant::now() + Duration::from_millis(200).min(screen.interval);
    let done = loop {
        let drawn =
            screen_of.draw(|frame| screen.draw(frame, picture.as_ref(), trouble.as_deref()));
        if let Err(error) = drawn {
            break Err(terminal(error));
        }
        // Keys until the next look is due.
        let after = loop {
            if end.load(Ordering::Relaxed) {
                break After::Quit;
            }
            let now = Instant::now();
            if now >= next && !screen.paused {
                next = now + screen.interval;
                match source.next() {
                    Ok(new) => (picture, trouble) = (Some(new), None),
                    // Gone for a moment, or for good: the last picture stays.
                    Err(why) => trouble = Some(why),
                }
                break After::Draw;
            }
            let left = if screen.paused {
                SIGNALS
            } else {
                next.saturating_duration_since(now).min(SIGNALS)
            };
            match event::poll(left).and_then(|is_there| is_there.then(event::read).transpose()) {
                Ok(Some(Event::Key(key))) => match screen.key(key) {
                    After::Nothing => {}
                    after => {
                        next = next.min(Instant::now() + screen.interval);
                        break after;
                    }
                },
                Ok(Some(Event::Resize(..))) => break After::Draw,
                Ok(_) => {}
                Err(error) => {
                    trouble = Some(error.to_string());
                    break After::Quit;
                }
            }
        };
        if after == After::Quit {
            break Ok(());
        }
    };
    ratatui::try_restore().map_err(terminal)?;
    done
}
