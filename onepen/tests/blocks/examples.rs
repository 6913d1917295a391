//! The programs of the guide (`docs/guide`), run: each fails without its block,
//! and works with it.

#[path = "../../examples/guide_connection_per_thread.rs"]
mod guide_connection_per_thread;

#[test]
fn the_program_of_the_guide_on_connection_per_thread_fails_without_and_works_with_it() {
    guide_connection_per_thread::main().unwrap();
}

#[path = "../../examples/guide_pool.rs"]
mod guide_pool;

#[test]
fn the_program_of_the_guide_on_pool_fails_without_and_works_with_it() {
    guide_pool::main().unwrap();
}

#[path = "../../examples/guide_shared_connection.rs"]
mod guide_shared_connection;

#[test]
fn the_program_of_the_guide_on_shared_connection_fails_without_and_works_with_it() {
    guide_shared_connection::main().unwrap();
}

#[path = "../../examples/guide_write_permit.rs"]
mod guide_write_permit;

#[test]
fn the_program_of_the_guide_on_write_permit_fails_without_and_works_with_it() {
    guide_write_permit::main().unwrap();
}

#[path = "../../examples/guide_transactions.rs"]
mod guide_transactions;

#[test]
fn the_program_of_the_guide_on_transactions_fails_without_and_works_with_it() {
    guide_transactions::main().unwrap();
}

#[path = "../../examples/guide_busy.rs"]
mod guide_busy;

#[test]
fn the_program_of_the_guide_on_busy_fails_without_and_works_with_it() {
    guide_busy::main().unwrap();
}

#[path = "../../examples/guide_retry.rs"]
mod guide_retry;

#[test]
fn the_program_of_the_guide_on_retry_fails_without_and_works_with_it() {
    guide_retry::main().unwrap();
}
