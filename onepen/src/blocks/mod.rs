//! The building blocks.

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
