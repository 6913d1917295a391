//! Looking at the side file without taking part.
//!
//! Reads a copy of the file: nothing is locked, mapped or written, and whoever
//! looks can neither be harmed by what the file contains nor by what becomes of
//! it. All of it is what the processes *say*; only [`Member::alive`] comes from
//! the kernel.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::layout::{MAGIC, Page, Phase, SIZE, SLOTS, Slot, Turn};
use super::view::{Counters, Member, Stand, View};
use super::{alive, clock, file, map, text};

/// Looks at the gate of a database from outside.
///
/// ```
/// # #[cfg(target_os = "linux")]
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// # let database = dir.path().join("app.db");
/// # std::fs::File::create(&database)?;
/// use onepen_lock::gate::{Gate, Observer, Stand};
/// let gate = Gate::join(&database, "orders")?;
/// let observer = Observer::open(&database)?.expect("somebody uses the gate");
/// let view = observer.look()?;
/// assert_eq!(view.members[0].label, "orders");
/// assert_eq!(view.members[0].pid, std::process::id());
/// assert_eq!(view.members[0].stand, Stand::Idle);
/// # Ok(()) }
/// # #[cfg(not(target_os = "linux"))]
/// # fn main() {}
/// ```
#[derive(Debug)]
pub struct Observer {
    file: File,
}

impl Observer {
    /// Opens the side file of `database`; `None` when there is none, because
    /// nobody ever wrote to this database through a gate.
    ///
    /// # Errors
    /// When the database is not there, or the side file is there and may not be
    /// read.
    pub fn open(database: &Path) -> io::Result<Option<Self>> {
        Ok(file::open_to_read(database)?.map(|file| Self { file }))
    }

    /// Looks. A file that is not ours, or of another version, shows nobody.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn look(&self) -> io::Result<View> {
        let mut bytes = vec![0; SIZE];
        let mut length = 0;
        while length < SIZE {
            match self.file.read_at(&mut bytes[length..], length as u64) {
                Ok(0) => break,
                Ok(more) => length += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        let Some(page) = map::copy(&bytes) else {
            return Ok(View::default());
        };
        if page.header.magic.load(Relaxed) != MAGIC {
            return Ok(View::default());
        }
        Ok(view(&page, clock::now(), |slot| {
            alive::is_claimed(&self.file, slot)
        }))
    }
}

pub(super) fn view(page: &Page, now: u64, is_alive: impl Fn(usize) -> bool) -> View {
    let turn = Turn::unpack(page.header.turn.load(Relaxed)).owner;
    let since = |then: u64| Duration::from_nanos(now.saturating_sub(then));
    let last = page.header.tickets.load(Relaxed);
    let mut seen: Vec<(u64, Member)> = (0..SLOTS)
        .filter_map(|index| {
            let slot = &page.slots[index];
            let generation = slot.generation.load(Relaxed);
            if generation == 0 {
                return None; // nobody ever had it
            }
            let has_turn =
                turn.filter(|turn| turn.slot == index && turn.generation == generation as u16);
            let ticket = slot.ticket.load(Relaxed);
            let waits = page.header.waiting[index / 64].load(Relaxed) >> (index % 64) & 1 == 1;
            let (rank, stand) = if let Some(turn) = has_turn {
                let stand = Stand::Turn {
                    since: since(slot.turn_since.load(Relaxed)),
                    thread: slot.thread.load(Relaxed),
                    purpose: Some(text::read(&slot.purpose, &slot.purpose_version))
                        .filter(|purpose| !purpose.is_empty()),
                    claimed: turn.phase != Phase::Granted,
                };
                (0, stand)
            } else if ticket != 0 && waits {
                let stand = Stand::Waiting {
                    before: 0,
                    since: since(slot.waits_since.load(Relaxed)),
                    threads: slot.waiters.load(Relaxed).max(1),
                };
                // The older the ticket, the more were drawn since.
                (
                    u64::MAX - last.wrapping_sub(ticket).min(u64::MAX - 2) - 1,
                    stand,
                )
            } else {
                (u64::MAX, Stand::Idle)
            };
            let alive = is_alive(index);
            // Of the dead only whoever left a turn behind is of interest.
            (alive || has_turn.is_some()).then(|| (rank, member(index, slot, alive, stand)))
        })
        .collect();
    seen.sort_by_key(|(rank, _)| *rank);
    let mut waiting = 0;
    let mut members: Vec<_> = seen.into_iter().map(|(_, member)| member).collect();
    for member in &mut members {
        if let Stand::Waiting { before, .. } = &mut member.stand {
            *before = waiting;
            waiting += 1;
        }
    }
    View { members }
}

fn member(index: usize, slot: &Slot, alive: bool, stand: Stand) -> Member {
    let nanos =
        |counter: &std::sync::atomic::AtomicU64| Duration::from_nanos(counter.load(Relaxed));
    Member {
        slot: index,
        pid: slot.pid.load(Relaxed),
        started: slot.started.load(Relaxed),
        alive,
        label: text::read(&slot.label, &slot.label_version),
        stand,
        counters: Counters {
            turns: slot.turns.load(Relaxed),
            commits: slot.commits.load(Relaxed),
            writes: slot.writes.load(Relaxed),
            waits: slot.waits.load(Relaxed),
            waited: nanos(&slot.waited),
            longest_wait: nanos(&slot.longest_wait),
            passed_over: slot.passed_over.load(Relaxed),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gate::layout::{LABEL, Owner};

    #[test]
    fn the_turn_comes_first_and_then_the_line_in_its_order() {
        let page = map::blank();
        for (slot, ticket) in [(0, 0), (1, 9), (2, 7), (3, 0)] {
            page.slots[slot].generation.store(1, Relaxed);
            page.slots[slot].pid.store(100 + slot as u32, Relaxed);
            page.slots[slot].ticket.store(ticket, Relaxed);
        }
        page.header.tickets.store(9, Relaxed);
        page.header.waiting[0].store(0b0110, Relaxed);
        let turn = Turn::unpack(0).next(Some(Owner {
            slot: 3,
            generation: 1,
            phase: Phase::Held,
        }));
        page.header.turn.store(turn.word, Relaxed);
        let seen = view(&page, 0, |_| true);
        let pids: Vec<_> = seen.members.iter().map(|member| member.pid).collect();
        assert_eq!(pids, [103, 102, 101, 100]);
        assert!(matches!(seen.members[0].stand, Stand::Turn { .. }));
        assert!(matches!(
            seen.members[1].stand,
            Stand::Waiting { before: 0, .. }
        ));
        assert!(matches!(
            seen.members[2].stand,
            Stand::Waiting { before: 1, .. }
        ));
        assert_eq!(seen.members[3].stand, Stand::Idle);
        // The dead are shown only for the turn they left behind.
        let seen = view(&page, 0, |_| false);
        assert_eq!(seen.members.len(), 1);
        assert!(!seen.members[0].alive);
    }

    #[test]
    fn any_content_can_be_looked_at() {
        for byte in [0, 1, 0x7f, 0xff, 0x1b] {
            let page = map::copy(&vec![byte; SIZE]).unwrap();
            for member in view(&page, 1, |_| true).members {
                assert!(member.label.len() <= LABEL * 3);
                assert!(!member.label.chars().any(char::is_control));
            }
        }
        assert!(map::copy(&[0; 8]).is_none());
    }
}
