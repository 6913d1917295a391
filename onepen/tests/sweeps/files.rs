//! Calls on files.

use std::path::Path;

use crate::deeds::DEEDS;
use crate::disk::{Call, Fault};
use crate::trial::{self, Failing, is_long};

impl Failing for Fault {
    fn fired(&self) -> usize {
        self.fired()
    }
}

/// Every deed, with each such call failing in turn: with the first of `errnos`,
/// and with the others too when there is time (`cargo xtask proof sweeps --long`).
fn sweep(call: Call, errnos: &[(i32, &str)]) {
    let errnos = &errnos[..if is_long() { errnos.len() } else { 1 }];
    let mut points = 0;
    for deed in &DEEDS {
        for &(errno, name) in errnos {
            // A lock that fails for good is one that somebody else has, says SQLite
            // of those in the log, and it is waited for.
            let often = [1, usize::MAX];
            for &times in &often[..if call == Call::Lock { 1 } else { 2 }] {
                for spare in 0.. {
                    let often = if times == 1 { "once" } else { "for good" };
                    let what = format!("{call:?} {name} after {spare}, {often}");
                    let plan = |dir: &Path| Fault::plan(dir, call, errno, spare, times);
                    if trial::run(deed, &what, plan) == 0 {
                        break;
                    }
                    points += 1;
                }
            }
        }
    }
    println!("\nproof: {points} calls failed ({call:?})");
    assert!(points > 0, "no {call:?} was ever made");
}

const EIO: (i32, &str) = (libc::EIO, "EIO");
const ENOSPC: (i32, &str) = (libc::ENOSPC, "ENOSPC");
const EDQUOT: (i32, &str) = (libc::EDQUOT, "EDQUOT");
const ENOMEM: (i32, &str) = (libc::ENOMEM, "ENOMEM");
const EMFILE: (i32, &str) = (libc::EMFILE, "EMFILE");
const EACCES: (i32, &str) = (libc::EACCES, "EACCES");

#[test]
fn whichever_write_fails_what_was_told_is_true() {
    sweep(Call::Write, &[EIO, ENOSPC, EDQUOT]);
}

#[test]
fn whichever_write_finds_the_disk_full_half_way_what_was_told_is_true() {
    sweep(Call::ShortWrite, &[ENOSPC, EIO]);
}

#[test]
fn whichever_flush_fails_what_was_told_is_true() {
    sweep(Call::Sync, &[EIO, ENOSPC, EDQUOT]);
}

#[test]
fn whichever_truncation_fails_what_was_told_is_true() {
    sweep(Call::Truncate, &[EIO]);
}

#[test]
fn whichever_mapping_fails_what_was_told_is_true() {
    sweep(Call::Map, &[ENOMEM, EACCES]);
}

#[test]
fn whichever_opening_fails_what_was_told_is_true() {
    sweep(Call::Open, &[EMFILE, EACCES, EIO]);
}

#[test]
fn whichever_reading_fails_what_was_told_is_true() {
    sweep(Call::Read, &[EIO]);
}

#[test]
fn whichever_lock_fails_what_was_told_is_true() {
    sweep(Call::Lock, &[EIO]);
}

#[test]
fn whichever_name_cannot_be_removed_or_changed_what_was_told_is_true() {
    sweep(Call::Name, &[EIO]);
}
