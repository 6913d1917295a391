//! The pen: who writes next, in which group, and who is told.

use crate::planted::{Bug, loom, scenario, shuttle, unit};

const GROUP: &str = "onepen/src/pen/group.rs";
const ALONE: &str = "onepen/src/pen/group/alone.rs";
const BOUNDS: &str = "onepen/src/pen/group/bounds.rs";
const MEMBER: &str = "onepen/src/pen/group/member.rs";
const EAGER: &str = "onepen/src/pen/eager.rs";
const ENDING: &str = "onepen/src/pen/ending.rs";
const HELD: &str = "onepen/src/pen/held.rs";
const HERALD: &str = "onepen/src/pen/herald.rs";
const LOBBY: &str = "onepen/src/pen/lobby.rs";
const PEN: &str = "onepen/src/pen/mod.rs";
const QUEUE: &str = "onepen/src/pen/queue.rs";
const WAKE: &str = "onepen/src/pen/wake.rs";

/// What two instruments have to notice, each by itself.
type Changes = &'static [(&'static str, &'static str)];

const ACKNOWLEDGE_EARLY: Changes = &[(
    "fn commit<E: Engine>(engine: &mut E, group: &mut Group<E>) {\n",
    "fn commit<E: Engine>(engine: &mut E, group: &mut Group<E>) {\n    \
             for job in &group.members { group.wake.add(&**job); }\n",
)];

const PASSES_ITS_DEADLINE: Changes = &[(
    "if !header.is_waiting() {\n            return None;",
    "if header.is_done() {\n            return None;",
)];

const NO_LOOK_AT_AUTOCOMMIT: Changes = &[(
    "    if engine.is_autocommit() {\n        return Fate::Failed { gone: true };\n    }\n    if fine && ",
    "    if fine && ",
)];

pub(super) const BUGS: &[Bug] = &[
    Bug {
        what: "acknowledge before COMMIT",
        file: GROUP,
        changes: ACKNOWLEDGE_EARLY,
        by: loom("models::handover::every_write_is_answered_once_and_only_after_its_commit"),
    },
    Bug {
        what: "acknowledge before COMMIT",
        file: GROUP,
        changes: ACKNOWLEDGE_EARLY,
        by: shuttle("models::crowd::many_callers_each_get_their_own_answer"),
    },
    Bug {
        what: "whoever is next after an exclusive call that gave up is run as one",
        file: GROUP,
        changes: &[(
            "Some(Kind::Exclusive | Kind::Maintenance) => state.queue.claim(),",
            "Some(Kind::Exclusive | Kind::Maintenance) => {\n                    \
                 drop(state);\n                    lock(&pen.state).queue.claim()\n                }",
        )],
        by: loom(
            "models::handover::a_write_behind_an_exclusive_call_that_gives_up_has_a_transaction",
        ),
    },
    Bug {
        what: "a follower is not woken",
        file: WAKE,
        changes: &[(
            "self.words |= 1 << word.load(Ordering::Relaxed);",
            "self.words |= 0 << word.load(Ordering::Relaxed);",
        )],
        by: loom("models::handover::three_callers_are_all_served"),
    },
    Bug {
        what: "a caller that moves on is missed (weak memory)",
        file: WAKE,
        changes: &[(
            "        fence(Ordering::SeqCst);\n        &self.words",
            "        &self.words",
        )],
        by: loom("models::handover::three_callers_are_all_served"),
    },
    Bug {
        what: "a ring between the look and the sleep is missed",
        file: HERALD,
        changes: &[
            (
                "            let seen = self.rung.current();\n            match self.words",
                "            match self.words",
            ),
            (
                "0 => self.rung.wait(seen, None),",
                "0 => self.rung.wait(self.rung.current(), None),",
            ),
        ],
        by: loom("models::handover::a_caller_whose_waking_was_left_to_the_second_thread_is_woken"),
    },
    Bug {
        what: "the writer parks without looking again",
        file: PEN,
        changes: &[(
            "self.writer.wait(seen, None);",
            "let _ = seen; self.writer.wait(self.writer.current(), None);",
        )],
        by: loom("models::handover::whoever_arrives_as_the_queue_runs_empty_is_served"),
    },
    Bug {
        what: "a lone caller does not hand over",
        file: PEN,
        changes: &[(
            "let wake = self.claim_writer_wakeup(&mut state);\n        drop(state);\n        drop(retired);",
            "let wake = false;\n        drop(state);\n        drop(retired);",
        )],
        by: loom(
            "models::handover::a_caller_that_ran_by_itself_hands_over_to_whoever_queued_meanwhile",
        ),
    },
    Bug {
        what: "a hot pen wakes nobody",
        file: PEN,
        changes: &[(
            "let wake = state.writer == Writer::Parked\n",
            "let wake = !state.hot && state.writer == Writer::Parked\n",
        )],
        by: loom("models::handover::a_hot_pen_with_nobody_left_still_serves_the_next"),
    },
    Bug {
        what: "a running job can be cancelled",
        file: ENDING,
        changes: PASSES_ITS_DEADLINE,
        by: loom("models::handover::a_cancelled_write_is_either_run_or_refused"),
    },
    Bug {
        what: "a running job can pass its deadline",
        file: ENDING,
        changes: PASSES_ITS_DEADLINE,
        by: shuttle("models::crowd::cancels_deadlines_and_the_lobby_together_lose_nobody"),
    },
    Bug {
        what: "whoever passes the deadline is not told",
        file: ENDING,
        changes: &[("self.answer(ended, deadline_exceeded);", "drop(ended);")],
        by: loom("models::handover::a_deadline_ends_a_waiting_write_and_no_other"),
    },
    Bug {
        what: "a dropped task leaves its write in the queue",
        file: "onepen/src/pen/future.rs",
        changes: &[("            self.pen.cancel(&self.member);\n", "")],
        by: shuttle("models::crowd::a_task_dropped_at_any_moment_was_run_or_never_runs"),
    },
    Bug {
        what: "a task is woken where it was before",
        file: "onepen/src/pen/job.rs",
        changes: &[(
            "if !known.is_some_and(|waker| waker.will_wake(cx.waker())) {",
            "if known.is_none() {",
        )],
        by: shuttle("models::crowd::a_task_that_moved_is_woken_where_it_is_now"),
    },
    Bug {
        what: "a value is delivered by a group that failed",
        file: GROUP,
        changes: &[(
            "for job in &group.members {\n            let header",
            "for job in &group.members[..0] {\n            let header",
        )],
        by: loom("models::handover::a_group_whose_commit_failed_is_told_so_and_gets_no_value"),
    },
    Bug {
        what: "an Unknown COMMIT is tried again",
        file: GROUP,
        changes: &[(
            "if let Err(failed) = engine.commit(&patience) {",
            "let twice = engine.commit(&patience).or_else(|_| engine.commit(&patience));\n    \
             if let Err(failed) = twice {",
        )],
        by: loom("models::handover::a_group_whose_commit_is_unknown_is_told_so_and_gets_no_value"),
    },
    Bug {
        what: "a failed COMMIT of a lone caller is tried again",
        file: ALONE,
        changes: &[(
            "match engine.commit(patience) {",
            "match engine.commit(patience).or_else(|_| engine.commit(patience)) {",
        )],
        by: scenario(
            "models::groups::a_commit_that_fails_is_not_tried_again_for_a_lone_caller_either",
        ),
    },
    Bug {
        what: "no look at autocommit after a member",
        file: MEMBER,
        changes: NO_LOOK_AT_AUTOCOMMIT,
        by: scenario("models::groups::a_member_that_hides_the_loss_of_the_transaction_is_told"),
    },
    Bug {
        what: "no look at autocommit after a member",
        file: MEMBER,
        changes: NO_LOOK_AT_AUTOCOMMIT,
        by: shuttle(
            "models::crowd::a_panic_or_failure_anywhere_in_a_group_is_its_own_callers_alone",
        ),
    },
    Bug {
        what: "no look at deferred foreign keys",
        file: MEMBER,
        changes: &[
            (
                "if fine && !engine.owes_foreign_keys() {\n        return",
                "if fine {\n        return",
            ),
            (
                "let owes = engine.owes_foreign_keys();",
                "let owes = false;",
            ),
            (
                "} else if fine && !engine.owes_foreign_keys() {",
                "} else if fine {",
            ),
        ],
        by: scenario("models::groups::a_member_that_owes_a_foreign_key_is_refused_and_nobody_else"),
    },
    Bug {
        what: "a panic or failure leaves its changes and savepoint",
        file: MEMBER,
        changes: &[("        engine.rollback_to()\n", "        Ok(())\n")],
        by: shuttle(
            "models::crowd::a_panic_in_member_n_comes_back_to_its_caller_and_harms_no_neighbour",
        ),
    },
    Bug {
        what: "an answer of an undone run is delivered",
        file: GROUP,
        changes: &[(
            "                    run_again(group, None);\n",
            "                    let undone: Vec<_> = group.members.drain(..).collect();\n                    undone.into_iter().for_each(|job| group.answer(job));\n",
        )],
        by: scenario("models::groups::no_answer_of_an_undone_run_is_delivered"),
    },
    Bug {
        what: "a write_once runs in a group",
        file: BOUNDS,
        changes: &[(
            "let alone = header.kind == Kind::Alone;",
            "let alone = false;",
        )],
        by: scenario("models::groups::a_write_once_runs_once_whatever_happens_around_it"),
    },
    Bug {
        what: "nobody is admitted from the lobby",
        file: LOBBY,
        changes: &[(
            "while let Some(first) = state.lobby.front() {",
            "while let Some(first) = state.lobby.front().filter(|_| false) {",
        )],
        by: loom("models::handover::a_write_in_the_lobby_is_admitted_and_its_submitter_woken"),
    },
    Bug {
        what: "who is cancelled in the lobby is not woken",
        file: ENDING,
        changes: &[("            wake.lobby = true;\n", "")],
        by: loom(
            "models::handover::cancelling_in_the_lobby_wakes_its_submitter_and_lets_the_next_move_up",
        ),
    },
    Bug {
        what: "the queue has no bound",
        file: LOBBY,
        changes: &[(
            "state.queue.len() < self.limits.queue_members",
            "state.queue.len() < usize::MAX",
        )],
        by: shuttle(
            "models::crowd::the_queue_never_holds_more_than_its_bound_and_refuses_when_told_to",
        ),
    },
    Bug {
        what: "closing does not wake the writer",
        file: PEN,
        changes: &[(
            "        state.closed = true;\n        let wake = self.claim_writer_wakeup(&mut state);\n",
            "        state.closed = true;\n        let wake = false;\n",
        )],
        by: loom("models::handover::closing_finishes_what_is_queued_and_refuses_the_rest"),
    },
    Bug {
        what: "the writer ends while a caller has the pen",
        file: PEN,
        changes: &[(
            "                && (state.engine.is_some() || state.retired)\n",
            "",
        )],
        by: loom("models::handover::the_writer_ends_only_when_the_pen_was_given_back"),
    },
    Bug {
        what: "a write inside a write waits for itself",
        file: HELD,
        changes: &[("        if self.is_inside() {\n", "        if false {\n")],
        by: shuttle("models::crowd::a_write_inside_a_write_is_refused_wherever_it_runs"),
    },
    Bug {
        what: "a priority starves the rest",
        file: QUEUE,
        changes: &[(
            "const MAX_BYPASS: u32 = 8;",
            "const MAX_BYPASS: u32 = u32::MAX;",
        )],
        by: shuttle(
            "models::crowd::no_waiting_write_is_passed_by_more_than_eight_for_each_before_it",
        ),
    },
    Bug {
        what: "the last come is first served",
        file: QUEUE,
        changes: &[(
            "self.lanes[header.priority as usize].push_back(job);",
            "self.lanes[header.priority as usize].push_front(job);",
        )],
        by: scenario("models::groups::members_that_wait_together_share_one_commit"),
    },
    Bug {
        what: "callers stay impatient while others want the processor",
        file: EAGER,
        changes: &[(
            "score > TOO_BAD && self.all.swap(false, Ordering::Relaxed)",
            "score > TOO_BAD && self.all.load(Ordering::Relaxed)",
        )],
        by: unit(
            "pen::eager::tests::when_the_processor_is_wanted_everybody_sleeps_within_fifty_milliseconds",
        ),
    },
];
