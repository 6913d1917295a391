//! What is seen of a copy: the bar, the line at the end, the JSON.

use std::io::{IsTerminal, Write};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use onepen::Error;
use onepen::backup::{Check, Copied, Phase, Progress};
use onepen_lock::text::in_one_line;
use serde_json::{Value, json};

use super::Ends;

pub(super) struct Show {
    bar: ProgressBar,
}

impl Show {
    pub(super) fn new(quiet: bool) -> Self {
        let target = if quiet || !std::io::stderr().is_terminal() {
            ProgressDrawTarget::hidden()
        } else {
            ProgressDrawTarget::stderr()
        };
        let bar = ProgressBar::with_draw_target(None, target).with_style(
            ProgressStyle::with_template("{wide_bar} {bytes} of {total_bytes}  {msg}")
                .expect("the template is valid"),
        );
        Self { bar }
    }

    pub(super) fn progress(&self, done: &Progress) {
        self.bar.set_length(done.of.max(done.bytes));
        self.bar.set_position(done.bytes);
        self.bar.set_message(match done.phase {
            Phase::Checking => "checking",
            Phase::Finishing => "finishing",
            _ if done.started_over > 0 => "copying, begun anew",
            _ => "copying",
        });
    }

    pub(super) fn end(&self) {
        self.bar.finish_and_clear();
    }
}

/// Prints to standard output; a reader that has gone is no error.
pub fn print(line: &str) {
    let mut output = std::io::stdout().lock();
    let _ = writeln!(output, "{line}").and_then(|()| output.flush());
}

pub(super) fn line(ends: &dyn Ends, copied: &Copied) -> String {
    let checked = match copied.check {
        Check::Full => ", checked (integrity_check)",
        Check::Quick => ", checked (quick_check)",
        _ => ", not checked",
    };
    format!(
        "{}: {} in {:.1?}{checked}",
        in_one_line(&ends.to()),
        indicatif::BinaryBytes(copied.bytes),
        copied.took
    )
}

/// The name and version of the form of `--json`.
const SCHEMA: &str = "onepen-backup/1";

pub(super) fn json(ends: &dyn Ends, copied: &Copied) -> Value {
    json!({
        "schema": SCHEMA,
        "from": ends.from(),
        "to": ends.to(),
        "bytes": copied.bytes,
        "page_size": copied.page_size,
        "seconds": copied.took.as_secs_f64(),
        "copying_seconds": copied.copying.as_secs_f64(),
        "checking_seconds": copied.checking.as_secs_f64(),
        "check": match copied.check {
            Check::Full => "full",
            Check::Quick => "quick",
            _ => "none",
        },
        "log_max": copied.log_max,
        "started_over": copied.started_over,
        "leftovers": copied.leftovers.iter().map(|path| path.display().to_string()).collect::<Vec<_>>(),
    })
}

pub(super) fn json_error(error: &Error) -> Value {
    json!({"schema": SCHEMA, "error": format!("{:?}", error.kind()), "message": error.to_string()})
}
