//! The power goes: at every moment of a recording, with every loss that a disk is
//! allowed, and what was promised is still true.
//!
//! How it works. `interpose` hears every call that changes a file, on its way to
//! the C library; `recorder` writes them down, with what callers were told in
//! between. `disk` says what a disk may hold if the power goes after any of them.
//! `campaign` makes such images, has each recovered by SQLite and judged by
//! `ledger`, and keeps those that break a promise (`kept`).
//!
//! 20,000 images in all, or `ONEPEN_POWER_IMAGES`; other choices of chance with
//! `ONEPEN_POWER_SEED`; `cargo xtask proof power` sets both.
#![cfg(all(
    target_os = "linux",
    target_env = "gnu",
    any(target_arch = "x86_64", target_arch = "aarch64")
))]

#[path = "../common/mod.rs"]
mod common;

mod campaign;
mod copies;
mod disk;
mod flush;
mod gate;
mod interpose;
mod journal;
mod kept;
mod ledger;
mod modes;
mod opening;
mod planted;
mod processes;
mod random;
mod recorder;
mod told;
mod twice;
mod wal;

/// All that is demanded of images, to judge a kept one again.
fn checks() -> [campaign::Check; 5] {
    [
        wal::LEDGER,
        copies::BACKUP_CHECK,
        copies::RESTORE_CHECK,
        opening::MIGRATION_CHECK,
        flush::AT_COMMIT_CHECK,
    ]
}
