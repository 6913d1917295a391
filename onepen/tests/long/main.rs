//! Work that takes longer than others want to wait.

#[path = "../common/mod.rs"]
mod common;

mod limits;
mod prepare;
mod steps;
