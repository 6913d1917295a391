//! The building blocks: lines, pools, permits, waits.

use crate::planted::{Bug, loom};

const LINE: &str = "onepen/src/blocks/line.rs";

pub(super) const BUGS: &[Bug] = &[
    Bug {
        what: "a permit comes back to nobody in line",
        file: LINE,
        changes: &[(
            "match state.waiting.pop_front() {",
            "match state.waiting.pop_front().filter(|_| false) {",
        )],
        by: loom("models::line::one_at_a_time_has_the_permit_and_whoever_waits_gets_it"),
    },
    Bug {
        what: "there are more permits than there are",
        file: LINE,
        changes: &[(
            "state.free = state.free.checked_sub(1)?;",
            "state.free = state.free.saturating_sub(1);",
        )],
        by: loom("models::line::one_at_a_time_has_the_permit_and_whoever_waits_gets_it"),
    },
    Bug {
        what: "who gives up stays in the line of permits",
        file: LINE,
        changes: &[("state.waiting.remove(place);", "let _ = place;")],
        by: loom("models::line::a_waiter_that_is_cancelled_leaves_nothing_in_the_line"),
    },
    Bug {
        what: "a dropped task keeps the permit it was given",
        file: LINE,
        changes: &[(
            "&& waiter.outcome() == Some(Ok(()))",
            "&& waiter.outcome() != Some(Ok(()))",
        )],
        by: loom("models::line::a_task_that_is_dropped_at_any_moment_passes_its_permit_on"),
    },
];
