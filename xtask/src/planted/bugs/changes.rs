//! Who is told of which commit, and when.

use crate::planted::{Bug, test};

const SQLITE: &str = "onepen/src/sqlite.rs";
const RECORDER: &str = "onepen/src/changes/recorder.rs";
const HUB: &str = "onepen/src/changes/hub.rs";

pub(super) const BUGS: &[Bug] = &[
    Bug {
        what: "a change is told before its COMMIT",
        file: SQLITE,
        changes: &[(
            "        let code = live.commit.run();\n        if code == ffi::SQLITE_OK {\n            self.let_readers_go();\n            self.announce(live);",
            "        self.announce(live);\n        let code = live.commit.run();\n        if code == ffi::SQLITE_OK {\n            self.let_readers_go();",
        )],
        by: test(
            "changes",
            "order::a_change_is_told_only_when_everybody_can_read_it_and_in_commit_order",
        ),
    },
    Bug {
        what: "a token is settled before its COMMIT",
        file: SQLITE,
        changes: &[(
            "        let code = live.commit.run();\n        if code == ffi::SQLITE_OK {\n            self.let_readers_go();\n            self.announce(live);",
            "        self.tokens.borrow_mut().settle(Outcome::Committed);\n        let code = live.commit.run();\n        if code == ffi::SQLITE_OK {\n            self.let_readers_go();\n            self.announce(live);",
        )],
        by: test("changes", "order::a_token_is_not_settled_before_its_commit"),
    },
    Bug {
        what: "a member that was undone is told of",
        file: RECORDER,
        changes: &[(
            "        for id in memory.ran.drain(mark.ran.min(memory.ran.len())..) {",
            "        for id in memory.ran.drain(memory.ran.len()..) {",
        )],
        by: test(
            "changes",
            "order::nothing_is_told_of_a_member_that_was_rolled_back",
        ),
    },
    Bug {
        what: "commits of strangers are not looked for by a writer",
        file: HUB,
        changes: &[(
            "        if self.told().commits != now.commits {",
            "        if false && self.told().commits != now.commits {",
        )],
        by: test(
            "changes",
            "elsewhere::a_commit_of_a_stranger_is_told_before_the_next_of_ours",
        ),
    },
    Bug {
        what: "our own commits are taken for a stranger's",
        file: HUB,
        changes: &[(
            "        if let Some(after) = after {\n            *self.told() = after;\n        }\n        if !tables.is_empty()",
            "        let _ = after;\n        if !tables.is_empty()",
        )],
        by: test(
            "changes",
            "elsewhere::our_own_commits_and_checkpoints_are_not_taken_for_a_strangers",
        ),
    },
    Bug {
        what: "a trigger that was made later is not seen",
        file: RECORDER,
        changes: &[(
            "        if self.memory.borrow().schema.version != Some(version) {",
            "        if self.memory.borrow().schema.version.is_none() {",
        )],
        by: test(
            "changes",
            "tables::a_trigger_that_is_made_later_is_seen_through_by_statements_prepared_before",
        ),
    },
    Bug {
        what: "a statement that is not known changes nothing",
        file: RECORDER,
        changes: &[(
            "            None if self.unknown.len() >= MOST_UNKNOWN => self.crowded = true,",
            "            None if self.unknown.len() >= MOST_UNKNOWN => {}",
        )],
        by: test(
            "changes",
            "tables::a_closure_of_ten_thousand_different_statements_may_have_changed_any_table",
        ),
    },
];
