//! The building blocks, for people who keep their connections themselves.
//!
//! [`Database`](crate::Database) puts these together and has the rules built in.
//! Here they are one by one, over plain [`rusqlite::Connection`]s, for a program
//! or an ORM that has connections already. They go together as you like.
//!
//! | block | what goes wrong without it |
//! |---|---|
//! | [`PerThread`]: a connection for each thread | connections of threads that are gone stay open |
//! | [`Pool`]: a bounded number of them | the next user finds himself in the last one's transaction |
//! | [`Shared`], [`SharedWrites`]: one for all | a thread joins another's transaction, and is rolled back with it |
//! | [`WritePermit`]: whose turn it is to write | whoever came last is served first; "database is locked" |
//! | [`Transaction`], [`Transactions`] | lost updates; BUSY at once, whatever the timeout |
//! | [`BusyHandler`] | a wait for a lock that nothing can end |
//! | [`Retry`], [`Class`] | repeating for ever what cannot succeed |
//! | [`Tracked`]: a connection that knows where things began | a transaction is open, and nobody knows whose |
//!
//! Each has a page in the repository, with a program that fails without it:
//! `docs/guide`.
//!
//! What waits, waits in order (save for SQLite's own lock, which knows none), has
//! a deadline and can be cancelled ([`Wait`]), and says in its error who was in
//! the way.
//!
//! For connections of other libraries: [`PerThread`], [`WritePermit`] and
//! [`Class::of_code`] do not care whose they are.

mod busy;
pub(crate) mod inside;
pub(crate) mod line;
mod per_thread;
pub(crate) mod permit;
mod pool;
pub(crate) mod raw;
mod raw_busy;
pub(crate) mod retry;
mod schedule;
mod shared;
mod tracked;
pub(crate) mod transaction;
mod wait;

pub use busy::{Busy, BusyControl, BusyHandler, BusyWait, EffectiveTimeout, effective_timeout};
pub use per_thread::PerThread;
pub use permit::{TakeTurn, TaskTurn, WritePermit, WriteTurn};
pub use pool::{Get, Pool, PoolOptions, PoolState, Pooled};
pub use raw::Holds;
pub use retry::{Class, Repeat, Retry};
pub use schedule::Schedule;
pub use shared::{Shared, SharedWrites};
pub use tracked::{LeftBehind, Leftover, Tracked};
pub use transaction::{
    Behavior, Deferred, Exclusive, Immediate, MayWrite, Savepoint, Transaction, TransactionState,
    Transactions,
};
pub use wait::Wait;

fn polled_again() -> crate::Error {
    crate::Error::new(
        crate::ErrorKind::Closed,
        "the answer of this wait was already taken",
    )
}

fn closed() -> crate::Error {
    crate::Error::new(crate::ErrorKind::Closed, "it was closed")
}

// The pages of the guide are compiled and run with the other examples.
#[cfg(doctest)]
mod guide {
    #[doc = include_str!("../../../docs/guide/busy.md")]
    struct Busy;
    #[doc = include_str!("../../../docs/guide/connection-per-thread.md")]
    struct ConnectionPerThread;
    #[doc = include_str!("../../../docs/guide/pool.md")]
    struct Pool;
    #[doc = include_str!("../../../docs/guide/retry.md")]
    struct Retry;
    #[doc = include_str!("../../../docs/guide/shared-connection.md")]
    struct SharedConnection;
    #[doc = include_str!("../../../docs/guide/transactions.md")]
    struct Transactions;
    #[doc = include_str!("../../../docs/guide/write-permit.md")]
    struct WritePermit;
}
