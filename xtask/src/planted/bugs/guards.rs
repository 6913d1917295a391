//! What a member may do, and what it leaves behind.

use crate::planted::{Bug, shuttle};


pub(super) const BUGS: &[Bug] = &[
    Bug {
        what: "a refused member is not rolled back in SQLite",
        file: "onepen/src/sqlite.rs",
        changes: &[("        live.check(live.rollback_to.run())?;\n", "")],
        by: shuttle("models::real::every_schedule_on_real_sqlite_is_strictly_serialisable"),
    },
    Bug {
        what: "a write reads before it has the write lock",
        file: "onepen/src/sqlite.rs",
        changes: &[("c\"BEGIN IMMEDIATE\"", "c\"BEGIN\"")],
        by: shuttle("models::real::strangers_and_checkpoints_change_nothing_about_it"),
    },
];
