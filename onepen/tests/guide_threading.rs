//! The programs of the guide on threading modes and on SQLite's log, run.

#[path = "../examples/guide_threading_modes.rs"]
mod guide_threading_modes;

#[test]
fn the_program_of_the_guide_on_threading_modes_fails_without_and_works_with_it() {
    guide_threading_modes::main().unwrap();
}

#[path = "../examples/guide_log_and_status.rs"]
mod guide_log_and_status;

#[test]
fn the_program_of_the_guide_on_log_and_status_fails_without_and_works_with_it() {
    guide_log_and_status::main().unwrap();
}
