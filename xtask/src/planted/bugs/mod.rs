//! The known bugs, by the room they are in.

mod blocks;
mod guards;
mod pen;
mod readers;

use super::Bug;

/// For the short form: one of each kind, those that are built fastest.
pub(super) const QUICK: &[&str] = &[];

pub(super) fn all() -> impl Iterator<Item = &'static Bug> {
    [blocks::BUGS, guards::BUGS, pen::BUGS, readers::BUGS]
        .into_iter()
        .flatten()
}
