//! What a member may do, and what it leaves behind.

use crate::planted::{Bug, shuttle, test, unit};

const RAW: &str = "onepen/src/raw.rs";
const SQLITE: &str = "onepen/src/sqlite.rs";
const LIVE: &str = "onepen/src/sqlite/live.rs";
const READ: &str = "onepen/src/readers/raw.rs";

pub(super) const BUGS: &[Bug] = &[
    Bug {
        what: "a refused member is not rolled back in SQLite",
        file: SQLITE,
        changes: &[("        live.check(live.rollback_to.run())?;\n", "")],
        by: shuttle("models::real::every_schedule_on_real_sqlite_is_strictly_serialisable"),
    },
    Bug {
        what: "a write reads before it has the write lock",
        file: LIVE,
        changes: &[("c\"BEGIN IMMEDIATE\"", "c\"BEGIN\"")],
        by: shuttle("models::real::strangers_and_checkpoints_change_nothing_about_it"),
    },
    Bug {
        what: "the closure may commit by itself",
        file: RAW,
        changes: &[(
            "        match action {\n            ffi::SQLITE_TRANSACTION => Some(",
            "        match action {\n            ffi::SQLITE_TRANSACTION if false => Some(",
        )],
        by: test("groups", "refusals::commit_inside_a_member_is_refused"),
    },
    Bug {
        what: "a COMMIT that is not ours is let through",
        file: RAW,
        changes: &[(
            "        self.may_commit.set(!inside);\n",
            "        self.may_commit.set(true);\n",
        )],
        by: test(
            "groups",
            "rollbacks::a_member_that_swallows_an_automatic_rollback_cannot_write_in_autocommit",
        ),
    },
    Bug {
        what: "settings outlast a member",
        file: RAW,
        changes: &[(
            "        if !self.inside.get() {\n            return None;\n        }\n        match action {",
            "        if !self.inside.get() || action == ffi::SQLITE_PRAGMA {\n            return None;\n        }\n        match action {",
        )],
        by: test(
            "groups",
            "refusals::pragmas_that_outlast_a_member_are_refused",
        ),
    },
    Bug {
        what: "SQLite is not asked for deferred foreign keys",
        file: RAW,
        changes: &[("    current != 0\n", "    current < 0\n")],
        by: test(
            "groups",
            "rollbacks::a_deferred_foreign_key_violation_fails_only_its_member",
        ),
    },
    Bug {
        what: "SQLite is not asked whether the transaction is open",
        file: SQLITE,
        changes: &[(
            "            .is_none_or(|live| live.connection.is_autocommit())",
            "            .is_none_or(|_| false)",
        )],
        by: test(
            "groups",
            "rollbacks::or_rollback_undoes_only_its_own_member",
        ),
    },
    Bug {
        what: "a statement that a member forgot is not reset",
        file: RAW,
        changes: &[("    unsafe { reset_unfinished(connection, |_| ()) };\n", "")],
        by: test(
            "groups",
            "leftovers::a_forgotten_returning_cursor_does_not_wedge_the_group",
        ),
    },
    Bug {
        what: "the last row id is inherited",
        file: RAW,
        changes: &[(
            "ffi::sqlite3_set_last_insert_rowid(connection.handle(), 0)",
            "connection.handle()",
        )],
        by: test("groups", "leftovers::last_insert_rowid_is_not_inherited"),
    },
    Bug {
        what: "guards that a member took away are not put back",
        file: SQLITE,
        changes: &[(
            "            if exposed {\n",
            "            if false && exposed {\n",
        )],
        by: test(
            "groups",
            "refusals::guards_that_a_member_removed_are_back_for_the_next_one",
        ),
    },
    Bug {
        what: "a transaction left open by an exclusive call is kept",
        file: SQLITE,
        changes: &[(
            "        if left_open {\n",
            "        if false && left_open {\n",
        )],
        by: test(
            "lifecycle",
            "exclusive::a_transaction_left_open_is_rolled_back_and_reported",
        ),
    },
    Bug {
        what: "a reader's statement is not reset",
        file: READ,
        changes: &[(
            "        if ended && !self.is_reading() {\n            return true;\n        }\n",
            "        if ended {\n            return true;\n        }\n",
        )],
        by: unit(
            "readers::tests::reading::forgotten_rows_neither_pin_the_log_nor_disturb_the_next",
        ),
    },
    Bug {
        what: "a read may write to temporary tables",
        file: READ,
        changes: &[(
            "            text(schema) != Some(b\"temp\")\n",
            "            true\n",
        )],
        by: unit("readers::tests::reading::nothing_that_a_read_runs_can_write_or_leave_a_trace"),
    },
];
