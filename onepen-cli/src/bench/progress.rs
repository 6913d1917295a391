//! What is to be seen while it runs, and the key that ends it early.
//!
//! Guarantees: nothing moves unless standard error is a terminal; the first
//! ctrl-C ends the run and the report shows what there is, the second one ends
//! the program.

use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use signal_hook::consts::SIGINT;

use super::driver::{Plan, Watch};

/// The bar and the ear for ctrl-C.
pub struct Progress {
    bar: ProgressBar,
    slice: Duration,
    interrupted: Arc<AtomicBool>,
}

/// What a program that was ended by SIGINT answers.
const INTERRUPTED: i32 = 130;

impl Progress {
    /// Begins to show and to listen.
    pub fn new(plan: &Plan) -> Result<Self, String> {
        let interrupted = Arc::new(AtomicBool::new(false));
        // In this order: the first ctrl-C arms what the second one triggers.
        signal_hook::flag::register_conditional_shutdown(
            SIGINT,
            INTERRUPTED,
            Arc::clone(&interrupted),
        )
        .and_then(|_| signal_hook::flag::register(SIGINT, Arc::clone(&interrupted)))
        .map_err(|error| format!("cannot listen for ctrl-C: {error}"))?;
        let target = if std::io::stderr().is_terminal() {
            ProgressDrawTarget::stderr()
        } else {
            ProgressDrawTarget::hidden()
        };
        let millis = u64::try_from(plan.expected().as_millis()).unwrap_or(u64::MAX);
        let bar = ProgressBar::with_draw_target(Some(millis), target).with_style(
            ProgressStyle::with_template("{wide_bar} {percent:>3} %  {msg}")
                .expect("the template is valid"),
        );
        Ok(Self {
            bar,
            slice: plan.slice.duration,
            interrupted,
        })
    }

    /// Takes the bar away.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

impl Watch for Progress {
    fn begins(&self, way: &str, threads: u32, round: u32) {
        self.bar
            .set_message(format!("round {}, {threads} threads: {way}", round + 1));
    }

    fn go_on(&self, passed: Duration) -> bool {
        let done = self.bar.position();
        let slice = u64::try_from(self.slice.as_millis())
            .unwrap_or(u64::MAX)
            .max(1);
        let passed = u64::try_from(passed.as_millis())
            .unwrap_or(u64::MAX)
            .min(slice - 1);
        // Slices that are done are whole multiples.
        self.bar.set_position(done - done % slice + passed);
        !self.interrupted.load(Ordering::Relaxed)
    }

    fn ended(&self) {
        let slice = u64::try_from(self.slice.as_millis())
            .unwrap_or(u64::MAX)
            .max(1);
        let done = self.bar.position();
        self.bar.set_position(done - done % slice + slice);
    }
}
