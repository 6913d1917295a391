//! What is to be seen while it runs, and the key that ends it early.
//!
//! Guarantees: nothing moves unless standard error is a terminal; the first
//! ctrl-C ends the run and the report shows what there is, the second one ends
//! the program and still leaves no scratch directory behind.

use std::cell::Cell;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::driver::Watch;

/// The bar and the ear for ctrl-C.
pub struct Progress {
    bar: ProgressBar,
    slice: Duration,
    /// Slices that have ended.
    done: Cell<u32>,
    interrupted: Arc<AtomicBool>,
}

/// What a program that was ended by SIGINT answers.
const INTERRUPTED: i32 = 130;

impl Progress {
    /// Begins to show and to listen: how long it all will take, and each part of
    /// it. `scratch` is removed when the program is ended in the middle.
    pub fn new(expected: Duration, slice: Duration, scratch: PathBuf) -> Result<Self, String> {
        let interrupted = Arc::new(AtomicBool::new(false));
        let heard = Arc::clone(&interrupted);
        ctrlc::set_handler(move || {
            if heard.swap(true, Ordering::Relaxed) {
                remove(&scratch);
                std::process::exit(INTERRUPTED);
            }
        })
        .map_err(|error| format!("cannot listen for ctrl-C: {error}"))?;
        let target = if std::io::stderr().is_terminal() {
            ProgressDrawTarget::stderr()
        } else {
            ProgressDrawTarget::hidden()
        };
        let millis = u64::try_from(expected.as_millis()).unwrap_or(u64::MAX);
        let bar = ProgressBar::with_draw_target(Some(millis), target).with_style(
            ProgressStyle::with_template("{wide_bar} {percent:>3} %  {msg}")
                .expect("the template is valid"),
        );
        Ok(Self {
            bar,
            slice,
            done: Cell::new(0),
            interrupted,
        })
    }

    /// Says what is under way.
    pub fn say(&self, what: String) {
        self.bar.set_message(what);
    }

    /// Takes the bar away.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

impl Progress {
    fn show(&self, time: Duration) {
        let millis = (self.slice * self.done.get() + time.min(self.slice)).as_millis();
        self.bar
            .set_position(u64::try_from(millis).unwrap_or(u64::MAX));
    }
}

/// Removes a directory in which clients still make files.
fn remove(scratch: &Path) {
    for _ in 0..100 {
        match std::fs::remove_dir_all(scratch) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {}
            _ => return,
        }
    }
}

impl Watch for Progress {
    fn begins(&self, way: &str, threads: u32, round: u32) {
        let threads = match threads {
            1 => "1 thread".to_owned(),
            n => format!("{n} threads"),
        };
        self.bar
            .set_message(format!("round {}, {threads}: {way}", round + 1));
    }

    fn passed(&self, time: Duration) {
        self.show(time);
    }

    fn ended(&self) {
        self.done.set(self.done.get() + 1);
        self.show(Duration::ZERO);
    }

    fn stop(&self) -> bool {
        self.interrupted.load(Ordering::Relaxed)
    }
}
