//! Which file it is, whose process it is, and who else has it open.

use crate::planted::{Bug, test};

const FORK: &str = "onepen/src/fork.rs";
const FILE: &str = "onepen/src/file.rs";
const REGISTRY: &str = "onepen/src/registry.rs";
const CONNECTION: &str = "onepen/src/connection.rs";

pub(super) const BUGS: &[Bug] = &[
    Bug {
        what: "a child may use its parent's handle",
        file: FORK,
        changes: &[(
            "    if onepen_lock::fork::generation() == born {",
            "    if true || onepen_lock::fork::generation() == born {",
        )],
        by: test(
            "fork",
            "a_child_cannot_use_its_parents_handle_and_does_no_harm_by_dropping_it",
        ),
    },
    Bug {
        what: "a child may open what its parent has open",
        file: REGISTRY,
        changes: &[(
            "            if place.is_in_use() {\n                return Err(inherited(path));\n            }\n",
            "",
        )],
        by: test(
            "fork",
            "a_child_cannot_open_a_file_that_was_open_when_it_was_forked",
        ),
    },
    Bug {
        what: "the database file is opened besides SQLite",
        file: REGISTRY,
        changes: &[(
            "fn identify(path: &Path) -> Result<Option<FileId>> {\n",
            "fn identify(path: &Path) -> Result<Option<FileId>> {\n    drop(std::fs::File::open(path));\n",
        )],
        by: test(
            "lifecycle",
            "opening::opening_a_file_that_is_open_drops_none_of_its_locks",
        ),
    },
    Bug {
        what: "a file has as many pens as names",
        file: REGISTRY,
        changes: &[(
            "let place = places.entry(id).or_default();",
            "let _ = id;\n        let place = places.entry(identify(Path::new(\"/proc/self/exe\"))?.unwrap()).or_default();\n        *place = Arc::default();",
        )],
        by: test("one_pen", "all_paths_to_a_file_share_its_pen"),
    },
    Bug {
        what: "a file with two names is accepted",
        file: FILE,
        changes: &[("    place.one_name()?;\n", "")],
        by: test("one_pen", "a_file_with_two_names_is_refused"),
    },
    Bug {
        what: "a path is taken for a URI",
        file: CONNECTION,
        changes: &[(
            "        let path = std::path::absolute(path)\n",
            "        let path = std::io::Result::Ok(path.to_path_buf())\n",
        )],
        by: test(
            "lifecycle",
            "opening::a_path_that_looks_like_a_uri_is_a_path",
        ),
    },
    Bug {
        what: "a connection trusts the schema",
        file: CONNECTION,
        changes: &[(
            "DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false",
            "DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, true",
        )],
        by: test(
            "lifecycle",
            "opening::every_connection_is_defensive_and_trusts_no_schema",
        ),
    },
];
