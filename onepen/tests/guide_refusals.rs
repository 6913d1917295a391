//! The program of the guide on refusals, run; alone, because it loads a second
//! SQLite into its process.

#[path = "../examples/guide_refusals.rs"]
mod guide_refusals;

#[test]
fn the_program_of_the_guide_on_refusals_fails_without_and_works_with_it() {
    guide_refusals::main().unwrap();
}
