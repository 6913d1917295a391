//! What may go to another thread, or be polled where it lies: promises of types, which
//! the compiler checks here. To take one back is a breaking change.

use onepen::{Database, Result};

fn is_send<T: Send>() {}
fn is_sync<T: Sync>() {}
fn is_unpin<T: Unpin>() {}
fn is_static<T: Send + Sync + Unpin + 'static>() {}

#[test]
fn handles_and_what_they_give_go_to_any_thread() {
    is_static::<Database>();
    is_static::<onepen::Options>();
    is_static::<onepen::CancelToken>();
    is_static::<onepen::CommitToken>();
    is_static::<onepen::CommitAddress>();
    is_static::<onepen::Change>();
    is_static::<onepen::Tables>();
    is_static::<onepen::Stats>();
    is_static::<onepen::Reading>();
    is_static::<onepen::Report>();
    is_static::<onepen::Migrations>();
    is_static::<onepen::Once<Vec<u8>>>();
    is_static::<onepen::blocks::Pool>();
    is_static::<onepen::blocks::Shared>();
    is_static::<onepen::blocks::WritePermit>();
    is_static::<onepen::blocks::PerThread<onepen::rusqlite::Connection>>();
    is_static::<onepen::threading::Serialized>();
    is_send::<onepen::Call<'static>>();
    is_sync::<onepen::Call<'static>>();
    is_send::<onepen::KeyedCall<'static>>();
    is_send::<onepen::Snapshot>();
    is_send::<onepen::Changes>();
    is_send::<onepen::Watch<Vec<u8>>>();
    is_send::<onepen::blocks::Pooled>();
    is_send::<onepen::blocks::TaskTurn>();
    is_send::<onepen::threading::MultiThread>();
}

#[test]
fn an_error_goes_wherever_errors_go_and_takes_one_word() {
    fn is_an_error<E: std::error::Error + Send + Sync + 'static>() {}
    is_an_error::<onepen::Error>();
    assert_eq!(size_of::<Result<()>>(), size_of::<usize>());
    let boxed: Box<dyn std::error::Error + Send + Sync> = onepen::Error::other("no").into();
    assert_eq!(boxed.to_string(), "no");
}

#[test]
fn futures_and_streams_go_to_any_thread_and_those_of_writes_need_no_pin() {
    fn check<F: Future + Send + Unpin + 'static>(_: F) {}
    fn check_pinned<F: Future + Send + 'static>(_: F) {}
    is_send::<onepen::Submitted<Vec<u8>>>();
    is_unpin::<onepen::Submitted<Vec<u8>>>();
    is_send::<onepen::RowStream<Vec<u8>>>();
    is_unpin::<onepen::RowStream<Vec<u8>>>();
    is_unpin::<onepen::Changes>();
    is_unpin::<onepen::Watch<Vec<u8>>>();
    is_send::<onepen::blocks::Get>();
    is_unpin::<onepen::blocks::Get>();
    is_send::<onepen::blocks::TakeTurn>();
    is_unpin::<onepen::blocks::TakeTurn>();
    let db = Database::open_in_memory().unwrap();
    // None of them is polled, and so none of them runs.
    check(db.write_async(|_| Ok(())));
    check(db.write_once_async(|_| Ok(())));
    check(db.execute_async("SELECT 1", ()));
    check(db.execute_many_async("SELECT 1", [(); 0]));
    check(db.exclusively_async(|_| Ok(())));
    check(db.submit_async(|_| Ok(())));
    check_pinned(db.read_async(|_| Ok(())));
    let call = || db.with().key("a");
    check(call().write_async(|_| Ok(())));
    check(call().write_once_async(|_| Ok(())));
    check(call().execute_async("SELECT 1", ()));
    check_pinned(call().submit_async(|_| Ok(())));
}
