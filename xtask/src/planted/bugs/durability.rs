//! What has to be on the disk, and what is said when it may not be.

use crate::planted::{Bug, lock_unit, test, unit};

const CONNECTION: &str = "onepen/src/connection.rs";
const CHECKPOINT: &str = "onepen/src/checkpoint.rs";
const TRANSACTION: &str = "onepen/src/blocks/transaction.rs";
const RETRY: &str = "onepen/src/blocks/retry.rs";
const WAL: &str = "onepen/src/wal.rs";
const KEPT: &str = "onepen-lock/src/gate/kept.rs";

pub(super) const BUGS: &[Bug] = &[
    Bug {
        what: "NORMAL instead of FULL",
        file: CONNECTION,
        changes: &[(
            "(_, Durability::Full, _) | (_, Durability::Normal, Journal::Rollback) => \"FULL\",",
            "(_, Durability::Normal, Journal::Rollback) => \"FULL\",\n            (_, Durability::Full, _) => \"NORMAL\",",
        )],
        by: test(
            "faults",
            "a_failed_flush_of_a_lone_write_is_unknown_and_is_not_retried",
        ),
    },
    Bug {
        what: "a failed flush is told as not committed",
        file: TRANSACTION,
        changes: &[(
            "        | ffi::SQLITE_FULL\n",
            "        | ffi::SQLITE_FULL\n        | ffi::SQLITE_IOERR\n",
        )],
        by: test(
            "faults",
            "a_failed_flush_is_unknown_because_a_crash_may_bring_the_group_back",
        ),
    },
    Bug {
        what: "a full disk is told as unknown",
        file: TRANSACTION,
        changes: &[("        | ffi::SQLITE_FULL\n", "")],
        by: test("faults", "a_full_disk_at_commit_is_not_committed"),
    },
    Bug {
        what: "a write of unknown outcome may be retried",
        file: RETRY,
        changes: &[(
            "Outcome::Committed | Outcome::Unknown => None,",
            "Outcome::Committed => None,\n            Outcome::Unknown => Self::of(error.sqlite()?),",
        )],
        by: unit("blocks::retry::tests::an_unknown_outcome_has_no_class_and_is_never_repeated"),
    },
    Bug {
        what: "a checkpoint flushes nothing",
        file: CHECKPOINT,
        changes: &[(
            "        if self.connector.volatile {\n            return Ok(());",
            "        if !self.connector.volatile {\n            return Ok(());",
        )],
        by: test(
            "faults",
            "what_was_copied_back_is_flushed_though_the_log_cannot_be_reset_yet",
        ),
    },
    Bug {
        what: "other processes are not told of a flush that failed",
        file: WAL,
        changes: &[(
            "            gate.keep_log();\n",
            "            let _ = gate;\n",
        )],
        by: test(
            "power",
            "processes::power_after_another_process_could_not_flush_what_it_copied",
        ),
    },
    Bug {
        what: "that a flush failed is forgotten while somebody has the database open",
        file: KEPT,
        changes: &[(
            "(!is_open).then_some(Self(why))",
            "let _ = is_open;\n        Some(Self(why))",
        )],
        by: test(
            "power",
            "processes::power_after_a_process_that_is_gone_could_not_flush_what_it_copied",
        ),
    },
    Bug {
        what: "that a flush failed just now is forgotten with what was said before",
        file: KEPT,
        changes: &[(
            "let why = clock::now() | 1;",
            "let why = clock::now() * 0 + 1;",
        )],
        by: lock_unit("gate::kept::tests::what_is_said_after_the_look_is_not_forgotten"),
    },
    Bug {
        what: "a failing checkpoint is not tried again",
        file: CHECKPOINT,
        changes: &[(
            "                    connection = None;\n                    Some(longer())",
            "                    return",
        )],
        by: test(
            "faults",
            "a_failing_checkpoint_fails_no_write_and_is_tried_again",
        ),
    },
    Bug {
        what: "a pinned log is not tried again",
        file: CHECKPOINT,
        changes: &[(
            "Ok(Tried::Pinned) => Some(longer()),",
            "Ok(Tried::Pinned) => return,",
        )],
        by: test(
            "lifecycle",
            "checkpoints::a_reader_that_pins_the_log_is_shown_and_the_log_is_reset_when_it_ends",
        ),
    },
    Bug {
        what: "readers are not held for a reset",
        file: CHECKPOINT,
        changes: &[(
            "let hold = self.readers.hold(hold_readers);",
            "let hold = self.readers.hold(hold_readers * 0);",
        )],
        by: test(
            "checkpoint",
            "the_log_is_reset_under_a_constant_writer_and_overlapping_readers",
        ),
    },
    Bug {
        what: "a checkpoint waits for readers with the pen in hand",
        file: CHECKPOINT,
        changes: &[(
            "let hold = self.readers.hold(hold_readers);",
            "let mut held = None;\n        self.pen.write(&Ticket::default(), Kind::Maintenance, |_| {\n            \
                 held = Some(self.readers.hold(hold_readers));\n            Ok(())\n        })?;\n        \
                 let hold = held.unwrap();",
        )],
        by: test(
            "checkpoint",
            "a_write_does_not_wait_while_a_checkpoint_waits_for_a_read",
        ),
    },
];
