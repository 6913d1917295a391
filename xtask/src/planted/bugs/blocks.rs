//! The building blocks: lines, pools, permits, waits.

use crate::planted::{Bug, loom, shuttle, test};

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
    Bug {
        what: "a transaction left open goes on to the next user of a pool",
        file: "onepen/src/blocks/pool.rs",
        changes: &[
            (
                "let left = kept.connection.tidy();",
                "let left: Vec<Leftover> = Vec::new();",
            ),
            (
                "!damaged && kept.connection.is_autocommit() && !self.line.is_closed()",
                "!damaged && !self.line.is_closed()",
            ),
        ],
        by: test(
            "blocks",
            "pool::a_transaction_left_open_is_rolled_back_and_reported_with_where_it_began",
        ),
    },
    Bug {
        what: "a connection that met damage is given out again",
        file: "onepen/src/blocks/pool.rs",
        changes: &[("let fit = !damaged && ", "let fit = (damaged || true) && ")],
        by: test(
            "blocks",
            "pool::a_connection_that_met_damage_is_not_given_out_again",
        ),
    },
    Bug {
        what: "an opening that failed keeps its place in the pool",
        file: "onepen/src/blocks/pool.rs",
        changes: &[(
            "        self.0.inner.line.give_back();\n",
            "        let _ = &self.0.inner.line;\n",
        )],
        by: shuttle("models::pool::an_opening_that_fails_or_panics_passes_its_place_on"),
    },
    Bug {
        what: "a connection that comes back to a closed pool stays",
        file: "onepen/src/blocks/pool.rs",
        changes: &[
            (
                "let fit = !damaged && kept.connection.is_autocommit() && !self.line.is_closed();",
                "let fit = !damaged && kept.connection.is_autocommit();",
            ),
            (
                "        if self.line.is_closed() {\n            let idle",
                "        if false {\n            let idle",
            ),
        ],
        by: shuttle("models::pool::closing_leaves_no_connection_behind_and_nobody_waiting"),
    },
    Bug {
        what: "a permit comes back to the last in line",
        file: LINE,
        changes: &[("state.waiting.pop_front()", "state.waiting.pop_back()")],
        by: shuttle("models::pool::connections_are_had_in_the_order_they_were_asked_for"),
    },
    Bug {
        what: "a deadline ends a wait and leaves it in the line",
        file: LINE,
        changes: &[(
            "                in_time\n",
            "                in_time || true\n",
        )],
        by: loom("models::line::a_deadline_and_a_permit_that_comes_back_end_a_wait_in_one_way"),
    },
    Bug {
        what: "the pen writes without its turn among the permits",
        file: "onepen/src/pen/turn.rs",
        changes: &[(
            "turns.take(patience).map_err(|why| NotTaken { why, what })?;",
            "let _ = (patience, what);",
        )],
        by: loom("models::turns::nobody_writes_through_the_pen_while_somebody_has_a_permit"),
    },
    Bug {
        what: "who gives up at the gate keeps the turn among the permits",
        file: "onepen/src/pen/turn.rs",
        changes: &[(
            "            taken.map_err(|why| NotTaken { why, what })?;",
            "            if let Err(why) = taken {\n                std::mem::forget(here);\n                \
             return Err(NotTaken { why, what });\n            }",
        )],
        by: loom("models::turns::a_write_that_gives_up_at_the_gate_passes_on_the_turn_it_has_here"),
    },
    Bug {
        what: "a thread that has the turn waits for it",
        file: "onepen/src/blocks/permit.rs",
        changes: &[(
            "        if self.turns.is_held_here() {",
            "        if false && self.turns.is_held_here() {",
        )],
        by: test(
            "blocks",
            "permit::a_thread_that_would_wait_for_itself_is_told",
        ),
    },
    Bug {
        what: "a wait for a lock cannot be cancelled",
        file: "onepen/src/blocks/busy.rs",
        changes: &[
            (
                "let why = if patience.exhausted().is_some() {",
                "let why = if false {",
            ),
            (
                "                    if patience.exhausted().is_none() {\n                        return true;",
                "                    if true {\n                        return true;",
            ),
        ],
        by: test(
            "blocks",
            "busy::cancelling_ends_a_wait_that_an_interrupt_does_not",
        ),
    },
    Bug {
        what: "a statement inside a transaction is repeated by itself",
        file: "onepen/src/blocks/retry.rs",
        changes: &[(
            "(alone && class != Class::Locked).then_some(class)",
            "((alone || true) && class != Class::Locked).then_some(class)",
        )],
        by: test(
            "blocks",
            "retry::inside_a_transaction_no_statement_is_repeated_by_itself",
        ),
    },
    Bug {
        what: "a serialized connection stays open over a forgotten statement",
        file: "onepen/src/threading/serialized.rs",
        changes: &[(
            "            close(connection);",
            "            drop(connection);\n            let _ = close;",
        )],
        by: test(
            "serialized",
            "a_forgotten_statement_does_not_keep_the_file_open",
        ),
    },
];
