//! Who is told what was committed.
//!
//! # Guarantees
//! - **Never too little.** Every table that a COMMIT changed is named, whatever
//!   changed it: a trigger, a cascade of foreign keys, REPLACE, `DELETE FROM t`,
//!   a virtual table. Where that cannot be known (the schema changed, a closure
//!   took the connection itself, `exclusively`, another process), the answer is
//!   "any table" ([`Tables::is_any`]). Too much may be named.
//! - **Once, in commit order, afterwards.** One [`Change`] for each COMMIT that
//!   wrote, after it is as durable as the database's setting makes it. Nothing of
//!   a member that was rolled back, nor of a run that was undone.
//! - **Bounded.** A listener that is slower than the writers gets the changes it
//!   has no room for folded into one, and is told how many those were.
//! - **Nothing for nobody.** Without a listener a COMMIT pays for one load.
//!
//! # How
//! SQLite's update hook is blind to tables without row ids, to `DELETE FROM t`
//! and to what REPLACE removes. Its *authorizer* is not: while a statement is
//! compiled it is asked about every table the statement may write, those in
//! triggers and cascades included. So a statement's tables are a property of its
//! text and the schema, found by compiling it once more and kept
//! ([`recorder`]); that a statement ran is what SQLite's statement trace says.
//!
//! | file | subject |
//! |---|---|
//! | [`tables`] | a set of tables |
//! | [`recorder`], [`ffi`] | which tables a transaction may have changed |
//! | [`hub`] | to whom it is told, and what others have committed |
//! | [`listener`] | a listener's end: blocking, or a stream |
//! | [`watch`] | a query, run again when its tables change |
//! | [`token`] | waiting for the COMMIT of somebody else |

mod ffi;
pub(crate) mod hub;
mod listener;
pub(crate) mod recorder;
mod tables;
pub(crate) mod token;
mod watch;

pub use listener::{Change, Changes, Origin};
pub use tables::Tables;
pub use token::{CommitAddress, CommitToken};
pub(crate) use watch::Query;
pub use watch::Watch;
