//! The known bugs, by the room they are in.

mod backup;
mod blocks;
mod changes;
mod durability;
mod files;
mod gate;
mod guards;
mod pen;
mod readers;

use super::Bug;

/// For the short form: one or two of each kind, of few builds.
pub(super) const QUICK: &[&str] = &[
    // `--lib` under loom
    "a follower is not woken",
    "nobody is admitted from the lobby",
    // `--lib`
    "an answer of an undone run is delivered",
    "a write of unknown outcome may be retried",
    "a reader's statement is not reset",
    // `--test groups`
    "a COMMIT that is not ours is let through",
    "SQLite is not asked for deferred foreign keys",
    "SQLite is not asked whether the transaction is open",
    // `--test faults`
    "NORMAL instead of FULL",
    "a failed flush is told as not committed",
    // `--test changes`
    "a change is told before its COMMIT",
    // `--test backup`
    "the log of the replaced database stays",
    // `-p onepen-lock --test gate`
    "a turn may be taken before those who wait",
    "a lock that a forked child has kept is taken for a living owner's",
];

pub(super) fn all() -> impl Iterator<Item = &'static Bug> {
    [
        durability::BUGS,
        pen::BUGS,
        guards::BUGS,
        readers::BUGS,
        blocks::BUGS,
        files::BUGS,
        gate::BUGS,
        changes::BUGS,
        backup::BUGS,
    ]
    .into_iter()
    .flatten()
}
