//! Plants known bugs, one at a time, and demands that a scenario notices.
//!
//! No switch in the product selects a bug: each is a small change to the text of
//! a copy of the library. Text that is not found exactly once ends the run, so a
//! bug cannot silently stop being planted when the code moves on.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::Failure;
use super::suite::{Model, root, watch};

/// Longer than any of these scenarios takes; whoever is still running then
/// waits for ever.
const HANGS: Duration = Duration::from_secs(60);

struct Bug {
    what: &'static str,
    file: &'static str,
    /// Replaced, each found exactly once in the file.
    changes: &'static [(&'static str, &'static str)],
    model: Model,
    scenario: &'static str,
}

const GROUP: &str = "onepen/src/pen/group.rs";
const ENDING: &str = "onepen/src/pen/ending.rs";
const HELD: &str = "onepen/src/pen/held.rs";
const HERALD: &str = "onepen/src/pen/herald.rs";
const LOBBY: &str = "onepen/src/pen/lobby.rs";
const PEN: &str = "onepen/src/pen/mod.rs";
const QUEUE: &str = "onepen/src/pen/queue.rs";
const WAKE: &str = "onepen/src/pen/wake.rs";
const SLOTS: &str = "onepen/src/readers/slots.rs";

const BUGS: &[Bug] = &[
    Bug {
        what: "acknowledge before COMMIT",
        file: GROUP,
        changes: &[(
            "fn commit<E: Engine>(engine: &mut E, group: &mut Group<E>) {\n",
            "fn commit<E: Engine>(engine: &mut E, group: &mut Group<E>) {\n    \
             for job in &group.members { group.wake.add(&**job); }\n",
        )],
        model: Model::Loom,
        scenario: "handover::every_write_is_answered_once_and_only_after_its_commit",
    },
    Bug {
        what: "acknowledge before COMMIT",
        file: GROUP,
        changes: &[(
            "fn commit<E: Engine>(engine: &mut E, group: &mut Group<E>) {\n",
            "fn commit<E: Engine>(engine: &mut E, group: &mut Group<E>) {\n    \
             for job in &group.members { group.wake.add(&**job); }\n",
        )],
        model: Model::Shuttle,
        scenario: "crowd::many_callers_each_get_their_own_answer",
    },
    Bug {
        what: "a follower is not woken",
        file: WAKE,
        changes: &[(
            "self.words |= 1 << word.load(Ordering::Relaxed);",
            "self.words |= 0 << word.load(Ordering::Relaxed);",
        )],
        model: Model::Loom,
        scenario: "handover::three_callers_are_all_served",
    },
    Bug {
        what: "a caller that moves on is missed (weak memory)",
        file: WAKE,
        changes: &[(
            "        fence(Ordering::SeqCst);\n        &self.words",
            "        &self.words",
        )],
        model: Model::Loom,
        scenario: "handover::three_callers_are_all_served",
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
        model: Model::Loom,
        scenario: "handover::a_caller_whose_waking_was_left_to_the_second_thread_is_woken",
    },
    Bug {
        what: "the writer parks without looking again",
        file: PEN,
        changes: &[(
            "self.writer.wait(seen, None);",
            "let _ = seen; self.writer.wait(self.writer.current(), None);",
        )],
        model: Model::Loom,
        scenario: "handover::whoever_arrives_as_the_queue_runs_empty_is_served",
    },
    Bug {
        what: "a lone caller does not hand over",
        file: PEN,
        changes: &[(
            "let wake = self.claim_writer_wakeup(&mut state);\n        drop(state);\n        drop(retired);",
            "let wake = false;\n        drop(state);\n        drop(retired);",
        )],
        model: Model::Loom,
        scenario: "handover::a_caller_that_ran_by_itself_hands_over_to_whoever_queued_meanwhile",
    },
    Bug {
        what: "a hot pen wakes nobody",
        file: PEN,
        changes: &[(
            "let wake = state.writer == Writer::Parked\n",
            "let wake = !state.hot && state.writer == Writer::Parked\n",
        )],
        model: Model::Loom,
        scenario: "handover::a_hot_pen_with_nobody_left_still_serves_the_next",
    },
    Bug {
        what: "a running job can be cancelled",
        file: ENDING,
        changes: &[(
            "if !header.is_waiting() {\n            return None;",
            "if header.is_done() {\n            return None;",
        )],
        model: Model::Loom,
        scenario: "handover::a_cancelled_write_is_either_run_or_refused",
    },
    Bug {
        what: "a running job can pass its deadline",
        file: ENDING,
        changes: &[(
            "if !header.is_waiting() {\n            return None;",
            "if header.is_done() {\n            return None;",
        )],
        model: Model::Shuttle,
        scenario: "crowd::cancels_deadlines_and_the_lobby_together_lose_nobody",
    },
    Bug {
        what: "whoever passes the deadline is not told",
        file: ENDING,
        changes: &[("self.answer(ended, deadline_exceeded);", "drop(ended);")],
        model: Model::Loom,
        scenario: "handover::a_deadline_ends_a_waiting_write_and_no_other",
    },
    Bug {
        what: "a dropped task leaves its write in the queue",
        file: "onepen/src/pen/future.rs",
        changes: &[("            self.pen.cancel(&self.member);\n", "")],
        model: Model::Shuttle,
        scenario: "crowd::a_task_dropped_at_any_moment_was_run_or_never_runs",
    },
    Bug {
        what: "a task is woken where it was before",
        file: "onepen/src/pen/job.rs",
        changes: &[(
            "if !known.is_some_and(|waker| waker.will_wake(cx.waker())) {",
            "if known.is_none() {",
        )],
        model: Model::Shuttle,
        scenario: "crowd::a_task_that_moved_is_woken_where_it_is_now",
    },
    Bug {
        what: "a value is delivered by a group that failed",
        file: GROUP,
        changes: &[(
            "for job in &group.members {\n            let header",
            "for job in &group.members[..0] {\n            let header",
        )],
        model: Model::Loom,
        scenario: "handover::a_group_whose_commit_failed_is_told_so_and_gets_no_value",
    },
    Bug {
        what: "an Unknown COMMIT is tried again",
        file: GROUP,
        changes: &[(
            "if let Err(failed) = engine.commit(&patience) {",
            "let twice = engine.commit(&patience).or_else(|_| engine.commit(&patience));\n    \
             if let Err(failed) = twice {",
        )],
        model: Model::Loom,
        scenario: "handover::a_group_whose_commit_is_unknown_is_told_so_and_gets_no_value",
    },
    Bug {
        what: "a failed COMMIT of a lone caller is tried again",
        file: GROUP,
        changes: &[(
            "match engine.commit(patience) {",
            "match engine.commit(patience).or_else(|_| engine.commit(patience)) {",
        )],
        model: Model::Plain,
        scenario: "groups::a_commit_that_fails_is_not_tried_again_for_a_lone_caller_either",
    },
    Bug {
        what: "no look at autocommit after a member",
        file: GROUP,
        changes: &[(
            "    if engine.is_autocommit() {\n        return Fate::Failed { gone: true };\n    }\n    if fine && ",
            "    if fine && ",
        )],
        model: Model::Plain,
        scenario: "groups::a_member_that_hides_the_loss_of_the_transaction_is_told",
    },
    Bug {
        what: "no look at autocommit after a member",
        file: GROUP,
        changes: &[(
            "    if engine.is_autocommit() {\n        return Fate::Failed { gone: true };\n    }\n    if fine && ",
            "    if fine && ",
        )],
        model: Model::Shuttle,
        scenario: "crowd::a_panic_or_failure_anywhere_in_a_group_is_its_own_callers_alone",
    },
    Bug {
        what: "no look at deferred foreign keys",
        file: GROUP,
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
        model: Model::Plain,
        scenario: "groups::a_member_that_owes_a_foreign_key_is_refused_and_nobody_else",
    },
    Bug {
        what: "a panic or failure leaves its changes and savepoint",
        file: GROUP,
        changes: &[("        engine.rollback_to()\n", "        Ok(())\n")],
        model: Model::Shuttle,
        scenario: "crowd::a_panic_in_member_n_comes_back_to_its_caller_and_harms_no_neighbour",
    },
    Bug {
        what: "an answer of an undone run is delivered",
        file: GROUP,
        changes: &[(
            "                    run_again(group, None);\n",
            "                    let undone: Vec<_> = group.members.drain(..).collect();\n                    undone.into_iter().for_each(|job| group.answer(job));\n",
        )],
        model: Model::Plain,
        scenario: "groups::no_answer_of_an_undone_run_is_delivered",
    },
    Bug {
        what: "a write_once runs in a group",
        file: GROUP,
        changes: &[(
            "let alone = header.kind == Kind::Alone;",
            "let alone = false;",
        )],
        model: Model::Plain,
        scenario: "groups::a_write_once_runs_once_whatever_happens_around_it",
    },
    Bug {
        what: "nobody is admitted from the lobby",
        file: LOBBY,
        changes: &[(
            "while let Some(first) = state.lobby.front() {",
            "while let Some(first) = state.lobby.front().filter(|_| false) {",
        )],
        model: Model::Loom,
        scenario: "handover::a_write_in_the_lobby_is_admitted_and_its_submitter_woken",
    },
    Bug {
        what: "who is cancelled in the lobby is not woken",
        file: ENDING,
        changes: &[("            wake.lobby = true;\n", "")],
        model: Model::Loom,
        scenario: "handover::cancelling_in_the_lobby_wakes_its_submitter_and_lets_the_next_move_up",
    },
    Bug {
        what: "the queue has no bound",
        file: LOBBY,
        changes: &[(
            "state.queue.len() < self.limits.queue_members",
            "state.queue.len() < usize::MAX",
        )],
        model: Model::Shuttle,
        scenario: "crowd::the_queue_never_holds_more_than_its_bound_and_refuses_when_told_to",
    },
    Bug {
        what: "closing does not wake the writer",
        file: PEN,
        changes: &[(
            "        if wake && !never_started {\n",
            "        if wake && never_started {\n",
        )],
        model: Model::Loom,
        scenario: "handover::closing_finishes_what_is_queued_and_refuses_the_rest",
    },
    Bug {
        what: "the writer ends while a caller has the pen",
        file: PEN,
        changes: &[(
            "                && (state.engine.is_some() || state.retired)\n",
            "",
        )],
        model: Model::Loom,
        scenario: "handover::the_writer_ends_only_when_the_pen_was_given_back",
    },
    Bug {
        what: "a write inside a write waits for itself",
        file: HELD,
        changes: &[("        if self.is_inside() {\n", "        if false {\n")],
        model: Model::Shuttle,
        scenario: "crowd::a_write_inside_a_write_is_refused_wherever_it_runs",
    },
    Bug {
        what: "a refused member is not rolled back in SQLite",
        file: "onepen/src/sqlite.rs",
        changes: &[("        live.check(live.rollback_to.run())?;\n", "")],
        model: Model::Shuttle,
        scenario: "real::every_schedule_on_real_sqlite_is_strictly_serialisable",
    },
    Bug {
        what: "a read has no snapshot",
        file: "onepen/src/readers/mod.rs",
        changes: &[(
            "        access.begin(ticket)?;\n        let tx = access.tx();\n        let answer = f(tx)",
            "        let tx = access.tx();\n        let answer = f(tx)",
        )],
        model: Model::Shuttle,
        scenario: "real::every_schedule_on_real_sqlite_is_strictly_serialisable",
    },
    Bug {
        what: "a read goes on in a state that is gone",
        file: "onepen/src/readers/raw.rs",
        changes: &[(
            "            && self.lease.mark.get() == self.mark_now()\n",
            "",
        )],
        model: Model::Shuttle,
        scenario: "real::every_schedule_on_real_sqlite_is_strictly_serialisable",
    },
    Bug {
        what: "a write reads before it has the write lock",
        file: "onepen/src/sqlite.rs",
        changes: &[("c\"BEGIN IMMEDIATE\"", "c\"BEGIN\"")],
        model: Model::Shuttle,
        scenario: "real::strangers_and_checkpoints_change_nothing_about_it",
    },
    Bug {
        what: "a reader given back goes to nobody in line",
        file: SLOTS,
        changes: &[(
            "        let served = self.serve(&mut line);\n        if !line.holders",
            "        let served = Served(Vec::new());\n        if !line.holders",
        )],
        model: Model::Loom,
        scenario: "slots::more_readers_than_slots_are_all_served",
    },
    Bug {
        what: "who joins the line of readers does not look again",
        file: SLOTS,
        changes: &[(
            "        let served = self.serve(&mut line);\n        drop(line);\n        \
             served.wake();\n        self.wait(",
            "        drop(line);\n        self.wait(",
        )],
        model: Model::Loom,
        scenario: "slots::a_slot_has_one_owner_at_a_time_and_whoever_waits_gets_it",
    },
    Bug {
        what: "a reader is not ordered after the one before it",
        file: SLOTS,
        changes: &[(
            "compare_exchange(from, to, Ordering::AcqRel, Ordering::Relaxed)",
            "compare_exchange(from, to, Ordering::Relaxed, Ordering::Relaxed)",
        )],
        model: Model::Loom,
        scenario: "slots::a_slot_has_one_owner_at_a_time_and_whoever_waits_gets_it",
    },
    Bug {
        what: "who gives up stays in the line of readers",
        file: SLOTS,
        changes: &[("line.waiting.remove(place);", "let _ = place;")],
        model: Model::Loom,
        scenario: "slots::a_waiter_that_is_cancelled_takes_nothing_with_it",
    },
    Bug {
        what: "readers that are held get slots",
        file: SLOTS,
        changes: &[(
            "if line.waiting.is_empty() || !line.holders.is_empty() {",
            "if line.waiting.is_empty() {",
        )],
        model: Model::Loom,
        scenario: "slots::nobody_reads_while_readers_are_held_and_all_read_on_afterwards",
    },
    Bug {
        what: "the caretaker does not ask",
        file: SLOTS,
        changes: &[("if slot.swap(0, CARETAKER) {", "if slot.owner() == 0 {")],
        model: Model::Loom,
        scenario: "slots::the_caretaker_meets_nobody_in_a_slot",
    },
    Bug {
        what: "two who close get the same slot",
        file: SLOTS,
        changes: &[(" && !line.emptied.contains(index)", "")],
        model: Model::Loom,
        scenario: "slots::closing_waits_for_readers_refuses_others_and_gets_each_slot_once",
    },
    Bug {
        what: "a priority starves the rest",
        file: QUEUE,
        changes: &[(
            "const MAX_BYPASS: u32 = 8;",
            "const MAX_BYPASS: u32 = u32::MAX;",
        )],
        model: Model::Shuttle,
        scenario: "crowd::no_waiting_write_is_passed_by_more_than_eight_for_each_before_it",
    },
    Bug {
        what: "the last come is first served",
        file: QUEUE,
        changes: &[(
            "self.lanes[header.priority as usize].push_back(job);",
            "self.lanes[header.priority as usize].push_front(job);",
        )],
        model: Model::Plain,
        scenario: "groups::members_that_wait_together_share_one_commit",
    },
];

impl Bug {
    /// The text of its file with the bug in it.
    fn planted(&self, root: &Path) -> Result<String, Failure> {
        let mut text = std::fs::read_to_string(root.join(self.file))?;
        for (from, to) in self.changes {
            let found = text.matches(from).count();
            if found != 1 {
                return Err(format!(
                    "`{}` cannot be planted: found {found} times in {}, expected once:\n{from}",
                    self.what, self.file
                )
                .into());
            }
            text = text.replace(from, to);
        }
        Ok(text)
    }
}

pub fn run(filter: Option<&str>) -> Result<(), Failure> {
    let root = root()?;
    let target = root.join("target").join("models").join("planted");
    let copy = Copy::of(&root, &target.join("copy"))?;
    let bugs: Vec<&Bug> = BUGS
        .iter()
        .filter(|bug| filter.is_none_or(|filter| bug.scenario.contains(filter)))
        .collect();

    for bug in &bugs {
        copy.plant(bug)?; // complains before anything is built
        copy.heal(bug)?;
    }

    // Whatever fails here failed before anything was planted.
    for model in [Model::Plain, Model::Loom, Model::Shuttle] {
        let scenarios: Vec<_> = bugs.iter().filter(|bug| bug.model == model).collect();
        if scenarios.is_empty() {
            continue;
        }
        let tests = model.build(&copy.root, &target)?;
        for bug in scenarios {
            if let (Fate::Caught(how), output) = run_one(&tests, bug.scenario)? {
                return Err(format!("{} without any bug: {how}\n{output}", bug.scenario).into());
            }
        }
    }

    let width = |of: fn(&Bug) -> &str| bugs.iter().map(|bug| of(bug).len()).max().unwrap_or(0);
    let (whats, scenarios) = (width(|bug| bug.what), width(|bug| bug.scenario));
    println!(
        "{:whats$}  {:7}  {:scenarios$}  noticed",
        "bug", "model", "scenario"
    );
    let mut missed = 0;
    for bug in bugs {
        copy.plant(bug)?;
        let built = bug.model.build(&copy.root, &target);
        copy.heal(bug)?;
        let (fate, _) = run_one(&built?, bug.scenario)?;
        let noticed = match fate {
            Fate::Caught(how) => how,
            Fate::Missed => {
                missed += 1;
                "NO"
            }
        };
        let model = bug.model.name();
        println!(
            "{:whats$}  {model:7}  {:scenarios$}  {noticed}",
            bug.what, bug.scenario
        );
    }
    if missed > 0 {
        return Err(format!("{missed} planted bugs were not noticed").into());
    }
    Ok(())
}

enum Fate {
    Caught(&'static str),
    Missed,
}

fn run_one(tests: &Path, scenario: &str) -> Result<(Fate, String), Failure> {
    let mut command = Command::new(tests);
    command
        .args(["--exact", &format!("models::{scenario}"), "--nocapture"])
        .env("RUST_BACKTRACE", "0");
    let (ended, output) = watch(command, HANGS)?;
    if !output.contains("running 1 test") {
        return Err(format!("there is no scenario `{scenario}`:\n{output}").into());
    }
    let fate = match ended {
        Some(true) => Fate::Missed,
        Some(false) if output.contains("deadlock") => Fate::Caught("yes: deadlock"),
        Some(false) => Fate::Caught("yes: failed"),
        None => Fate::Caught("yes: hangs"),
    };
    Ok((fate, output))
}

/// The library and what it stands on.
const PACKAGES: [&str; 2] = ["onepen-lock", "onepen"];

/// A workspace with nothing but the library in it.
struct Copy {
    original: PathBuf,
    root: PathBuf,
}

impl Copy {
    fn of(original: &Path, root: &Path) -> Result<Self, Failure> {
        if root.exists() {
            std::fs::remove_dir_all(root)?;
        }
        std::fs::create_dir_all(root)?;
        let manifest = std::fs::read_to_string(original.join("Cargo.toml"))?;
        let manifest: String = manifest
            .lines()
            .map(|line| match line.split_once(" = ") {
                Some((key @ ("members" | "default-members"), _)) => {
                    format!("{key} = {PACKAGES:?}\n")
                }
                _ => format!("{line}\n"),
            })
            .collect();
        std::fs::write(root.join("Cargo.toml"), manifest)?;
        std::fs::copy(original.join("Cargo.lock"), root.join("Cargo.lock"))?;
        for package in PACKAGES {
            copy_dir(&original.join(package), &root.join(package))?;
        }
        Ok(Self {
            original: original.to_path_buf(),
            root: root.to_path_buf(),
        })
    }

    fn plant(&self, bug: &Bug) -> Result<(), Failure> {
        let text = bug.planted(&self.original)?;
        Ok(std::fs::write(self.root.join(bug.file), text)?)
    }

    fn heal(&self, bug: &Bug) -> Result<(), Failure> {
        std::fs::copy(self.original.join(bug.file), self.root.join(bug.file))?;
        Ok(())
    }
}

fn copy_dir(from: &Path, to: &Path) -> Result<(), Failure> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type()?.is_dir() {
            copy_dir(&from, &to)?;
        } else {
            std::fs::copy(&from, &to)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_known_bug_can_still_be_planted() {
        let root = root().expect("the project's root");
        for bug in BUGS {
            if let Err(why) = bug.planted(&root) {
                panic!("{why}");
            }
        }
    }
}
