//! Copies of a database in use, and back.

use crate::planted::{Bug, test};

const PLACE: &str = "onepen/src/backup/place.rs";
const ALONE: &str = "onepen/src/backup/alone.rs";
const TRANSFER: &str = "onepen/src/backup/transfer.rs";
const THROUGH: &str = "onepen/src/backup/through.rs";
const FUTURE: &str = "onepen/src/backup/future.rs";
const CHECKPOINT: &str = "onepen/src/checkpoint.rs";
const COPIES: &str = "onepen/src/sqlite/copies.rs";
const COPYING: &str = "onepen/src/sqlite/copying.rs";

pub(super) const BUGS: &[Bug] = &[
    Bug {
        what: "a copy that is being written is taken for a leftover",
        file: PLACE,
        changes: &[("            let _ = part.file.try_lock();\n", "")],
        by: test(
            "backup",
            "crashes::one_that_is_being_written_is_not_taken_for_a_leftover",
        ),
    },
    Bug {
        what: "a copy replaces what was made meanwhile",
        file: PLACE,
        changes: &[(
            "            rename_to_nothing(&part.path, &self.target)",
            "            fs::rename(&part.path, &self.target)",
        )],
        by: test(
            "backup",
            "targets::a_file_that_was_made_meanwhile_is_not_replaced",
        ),
    },
    Bug {
        what: "a copy that failed stays",
        file: PLACE,
        changes: &[(
            "        if !self.placed {\n            let _ = fs::remove_file(&self.path);",
            "        if !self.placed {",
        )],
        by: test(
            "backup",
            "limits::a_copy_can_be_cancelled_in_every_phase_and_leaves_nothing",
        ),
    },
    Bug {
        what: "a log of another database is applied to the copy",
        file: PLACE,
        changes: &[(
            "            if length(&path) > 0 {\n                return Err",
            "            if false && length(&path) > 0 {\n                return Err",
        )],
        by: test(
            "backup",
            "targets::a_log_of_another_database_is_never_left_beside_the_copy",
        ),
    },
    Bug {
        what: "the log of the replaced database stays",
        file: ALONE,
        changes: &[
            (
                "        if has_log(path) {\n            fold_in_log(path)?;\n            refuse_if_open(path)?;\n        }",
                "        let _ = fold_in_log;",
            ),
            (
                "if !this.is_still_there().map_err(io)? || has_log(path) {",
                "if !this.is_still_there().map_err(io)? {",
            ),
            (
                "        for ending in BESIDE {",
                "        for ending in &BESIDE[..0] {",
            ),
        ],
        by: test(
            "backup",
            "restores::the_log_of_the_replaced_database_is_never_applied_to_the_new_one",
        ),
    },
    Bug {
        what: "a database that others have open is replaced",
        file: ALONE,
        changes: &[
            (
                "fn refuse_if_open(path: &Path) -> Result<()> {\n",
                "fn refuse_if_open(path: &Path) -> Result<()> {\n    if true { return Ok(()) }\n",
            ),
            ("        this.lock()?;\n", ""),
        ],
        by: test(
            "backup",
            "restores::it_is_refused_while_another_process_has_the_target_open_and_that_one_is_named",
        ),
    },
    Bug {
        what: "a damaged copy takes its place",
        file: TRANSFER,
        changes: &[(
            "        self.check.run(&part.path, || {",
            "        Check::None.run(&part.path, || {",
        )],
        by: test(
            "backup",
            "copies::damage_is_found_before_the_copy_takes_its_place",
        ),
    },
    Bug {
        what: "a write that fails makes a copy begin anew",
        file: COPYING,
        changes: &[(
            "        let whole = has_log && !live.copies.is_empty();",
            "        let whole = has_log && live.copies.is_empty();",
        )],
        by: test(
            "backup",
            "through::writes_that_fail_neither_make_it_start_over_nor_come_into_it",
        ),
    },
    Bug {
        what: "what a write did that failed is committed, because a copy is made",
        file: COPYING,
        changes: &[(
            "live.whole.take() || live.connection.execute_batch(UNDO).is_err()",
            "live.whole.take()",
        )],
        by: test(
            "backup",
            "through::writes_that_fail_neither_make_it_start_over_nor_come_into_it",
        ),
    },
    Bug {
        what: "a COMMIT of nothing, made for a copy, is told as somebody else's",
        file: COPYING,
        changes: &[("            self.announce_nothing(live);\n", "")],
        by: test(
            "backup",
            "through::writes_that_fail_neither_make_it_start_over_nor_come_into_it",
        ),
    },
    Bug {
        what: "that a copy began anew is not noticed, and it is made for ever",
        file: COPIES,
        changes: &[(
            "began_anew |= state == State::More && self.pages < expected;",
            "began_anew |= false && self.pages < expected;",
        )],
        by: test(
            "backup",
            "copies::over_a_rollback_journal_a_strangers_writes_make_it_start_over",
        ),
    },
    Bug {
        what: "a part of a copy is taken for all of it when the connection was opened anew",
        file: THROUGH,
        changes: &[(
            "            Ok(None) => {\n",
            "            Ok(None) => {\n                if done > 0 { return Ok(Ended::Whole(Size { bytes: part.length(), page_size: 4096 })); }\n",
        )],
        by: test(
            "backup",
            "through::somebody_who_has_the_database_to_himself_makes_it_start_over",
        ),
    },
    Bug {
        what: "a copy that was given up goes on, and keeps its file",
        file: COPIES,
        changes: &[(
            "        self.0.store(false, Ordering::SeqCst);",
            "        self.0.store(true, Ordering::SeqCst);",
        )],
        by: test(
            "backup",
            "through::a_copy_that_ended_early_is_ended_in_the_pens_turn_and_keeps_no_file",
        ),
    },
    Bug {
        what: "a copy through the pen is ended by a log that it does not pin",
        file: TRANSFER,
        changes: &[("        pace.pins_log = false;\n", "")],
        by: test(
            "backup",
            "through::the_log_is_reset_while_a_copy_is_made_and_its_limit_is_of_no_account",
        ),
    },
    Bug {
        what: "zeros are written over pages of a copy",
        file: THROUGH,
        changes: &[(
            "part.make_room(bytes.max(room), next)?;",
            "part.make_room(bytes.saturating_sub(4 << 20), next)?;",
        )],
        by: test(
            "backup",
            "through::rows_that_are_changed_added_and_removed_meanwhile_are_so_in_the_copy",
        ),
    },
    Bug {
        what: "a log is truncated while a copy is made, which begins anew",
        file: CHECKPOINT,
        changes: &[("far_over && !engine.is_copied()", "far_over")],
        by: test(
            "backup",
            "through::a_log_that_has_grown_long_is_reset_without_making_it_start_over",
        ),
    },
    Bug {
        what: "a snapshot is copied into a file that whoever has the pen still writes to",
        file: TRANSFER,
        changes: &[(
            "Ended::InVain => part = place.begin(self.source.path())?,",
            "Ended::InVain => { part = part; part.clear()? }",
        )],
        by: test(
            "backup",
            "through::whoever_has_the_pen_when_it_is_given_up_writes_to_no_other_copy",
        ),
    },
    Bug {
        what: "a copy whose future was dropped goes on",
        file: FUTURE,
        changes: &[(
            "        self.token.cancel(); // of no effect when it has ended\n",
            "        let _ = &self.token;\n",
        )],
        by: test(
            "backup",
            "tasks::a_copy_whose_future_is_dropped_ends_and_leaves_nothing",
        ),
    },
];
