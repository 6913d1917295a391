//! Copies of a database in use, and back.

use crate::planted::{Bug, test};

const PLACE: &str = "onepen/src/backup/place.rs";
const ALONE: &str = "onepen/src/backup/alone.rs";
const TRANSFER: &str = "onepen/src/backup/transfer.rs";

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
];
