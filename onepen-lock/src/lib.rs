//! What happens to a SQLite database between processes: [`gate`] is a fair queue for
//! the write lock, [`holders`] says who holds which lock, [`systems`]
//! where a database must not lie, [`text`] shows what others chose as a name. SQLite
//! itself is not linked, and no file of a database is ever opened by a process that has it open.

pub mod fork;
pub mod gate;
pub mod holders;
pub mod systems;
pub mod text;

// The page of the crate is compiled with the other examples.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
