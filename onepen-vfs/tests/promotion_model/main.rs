//! Promoted transactions, in every order of their steps.
//!
//! The machine is the real one (`onepen_vfs::promotion`). Around it stands a model of
//! SQLite's core in write-ahead mode, one shared access or lock in each step, from
//! `walTryBeginRead`, `sqlite3WalBeginWriteTransaction`, `walRestartLog`,
//! `sqlite3WalEndWriteTransaction`, `sqlite3WalEndReadTransaction`, `walCheckpoint`
//! and the part of `walIndexReadHdr` that takes the write lock to read a torn header;
//! and of the operating system's locks, of a gate reduced to a line and a turn, and of
//! programs. Connections are processes: any may be killed between two steps.
//! What nobody can know is both: whether a checkpoint follows, whether a
//! transaction that reads will write, whether it ends in COMMIT or ROLLBACK.
//!
//! Demanded in every state: see `world::Promotion::properties`; and that from every state
//! everybody who lives can still finish (no deadlock, and no loop without a way out).
//!
//! That the model can fail is shown too: the mistakes of two earlier attempts, and
//! others, are noticed.

mod paths;
mod shared;
mod sqlite;
mod vfs;
mod world;

use std::collections::HashSet;

use onepen_vfs::promotion::{Action, Answer, Call, Machine, Told, Will};
use stateright::{Checker, Model};

use world::Kind::{Immediate, Passive, Perhaps, Read, ReadWrite, Truncate};
use world::Known::{Nothing, Reads, Writes};
use world::PassesOver::{Anybody, Idle};
use world::{Planted, Promotion, Seen};

/// Runs it, and returns what it came to.
fn passes(model: Promotion) -> Seen {
    let (states, broken) = paths::look(&model);
    println!("{states} states");
    if !broken.is_empty() {
        println!("{broken:?}");
        // The way there.
        model.checker().spawn_bfs().join().assert_properties();
        panic!("{broken:?}");
    }
    model.seen
}

/// What of it does not hold.
fn fails(model: &Promotion) -> Vec<&'static str> {
    paths::look(model).1
}

/// Every machine between two calls, whatever was asked before and came of it.
fn machines() -> HashSet<Machine> {
    const CALLS: [Call; 8] = [
        Call::LockRead,
        Call::UnlockRead,
        Call::LockWrite,
        Call::UnlockWrite,
        Call::LockCheckpoint,
        Call::UnlockCheckpoint,
        Call::Demote,
        Call::Close,
    ];
    let mut between = HashSet::from([Machine::default()]);
    let mut within = HashSet::new();
    let mut to_do = vec![(Machine::default(), None)];
    while let Some((machine, action)) = to_do.pop() {
        let mut go_on = |mut machine: Machine, go: &dyn Fn(&mut Machine) -> Action| {
            let next = go(&mut machine);
            let is_new = match next {
                Action::Answer(_) => between.insert(machine),
                _ => within.insert((machine, next)),
            };
            if is_new {
                let under_way = (!matches!(next, Action::Answer(_))).then_some(next);
                to_do.push((machine, under_way));
            }
        };
        match action {
            None => CALLS
                .iter()
                .for_each(|&call| go_on(machine, &|machine| machine.ask(call))),
            Some(Action::Foresee) => [Will::Read, Will::Write, Will::Turn, Will::Perhaps]
                .iter()
                .for_each(|&will| {
                    go_on(machine, &|machine| machine.told(Told::Foreseen(will)));
                }),
            Some(_) => [Told::Yes, Told::No]
                .iter()
                .for_each(|&told| go_on(machine, &|machine| machine.told(told))),
        }
    }
    between
}

#[test]
fn the_short_way_of_a_lock_is_the_long_one() {
    let (mut locks, mut unlocks, mut writes) = (0, 0, 0);
    for machine in machines() {
        for granted in [true, false] {
            if machine.may_read_at_once() {
                let mut long = machine;
                assert_eq!(long.ask(Call::LockRead), Action::Foresee, "{machine:?}");
                assert_eq!(long.told(Told::Foreseen(Will::Read)), Action::Pass);
                assert_eq!(long.told(granted.into()), Action::Answer(Answer::AsReal));
                let mut short = machine;
                short.short_lock_read(granted);
                assert_eq!(short, long, "{machine:?}");
                // What follows a granted one may go the short way, and ends with nothing kept.
                assert!(!granted || short.may_end_at_once() && short.rests());
                locks += 1;
            }
            if machine.may_end_at_once() {
                let mut long = machine;
                assert_eq!(long.ask(Call::UnlockRead), Action::Pass, "{machine:?}");
                let mut next = long.told(granted.into());
                let mut short = machine;
                if short.short_unlock_read() {
                    assert_eq!(next, Action::PassOn, "{machine:?}");
                    next = long.told(Told::Yes);
                }
                assert_eq!(next, Action::Answer(Answer::AsReal), "{machine:?}");
                assert_eq!(short, long, "{machine:?}");
                if machine.rests() {
                    assert_eq!(next, Action::Answer(Answer::AsReal), "{machine:?}");
                    assert!(short.may_read_at_once(), "{machine:?}");
                    let mut again = machine;
                    assert!(again.short_unlock_read(), "the turn is passed on");
                }
                unlocks += 1;
            }
        }
        for yes in [true, false] {
            if machine.may_write_at_once() {
                // Both whether the transaction begins with it, and whether it does not.
                let mut long = machine;
                let first = long.ask(Call::LockWrite);
                assert_eq!(first, Action::BeginsTransaction, "{machine:?}");
                assert_eq!(long.told(yes.into()), Action::TryTurn);
                assert_eq!(long.told(Told::Yes), Action::RealLockWrite);
                let mut next = long.told(Told::Yes);
                let then = match yes {
                    true => Action::ConfirmTurn,
                    false => Action::Learn(true),
                };
                assert_eq!(next, then, "{machine:?}");
                next = long.told(Told::Yes);
                assert_eq!(next, Action::Answer(Answer::AsReal), "{machine:?}");
                let mut short = machine;
                short.short_lock_write();
                assert_eq!(short, long, "{machine:?}");
                writes += 1;
            }
            if machine.may_end_write_at_once() {
                let mut long = machine;
                assert_eq!(long.ask(Call::UnlockWrite), Action::Pass, "{machine:?}");
                assert_eq!(long.told(Told::Yes), Action::ExpectsCheckpoint);
                let mut next = long.told(yes.into());
                if !yes {
                    assert_eq!(next, Action::PassOn, "{machine:?}");
                    next = long.told(Told::Yes);
                }
                assert_eq!(next, Action::Answer(Answer::AsReal), "{machine:?}");
                let mut short = machine;
                short.short_unlock_write(yes);
                assert_eq!(short, long, "{machine:?}");
                writes += 1;
            }
        }
    }
    assert!(locks > 0 && unlocks > 0 && writes > 0);
}

#[test]
fn promoted_transactions_lose_no_update_and_are_refused_nothing() {
    let seen = passes(Promotion::of(&[
        (Writes, &[ReadWrite, ReadWrite]),
        (Writes, &[ReadWrite]),
    ]));
    assert!(seen.restart_while_promoted.into_inner());
    assert!(seen.retry_while_promoted.into_inner());
    passes(Promotion {
        copied_back: false,
        ..Promotion::of(&[
            (Writes, &[ReadWrite]),
            (Writes, &[ReadWrite]),
            (Writes, &[ReadWrite]),
        ])
    });
}

/// Without the lock: the turn alone keeps others away, as long as all are known to
/// write or begin as writers. Where it is passed over, SQLite refuses, and nothing is
/// lost.
#[test]
fn transactions_with_the_turn_alone_are_refused_nothing_while_all_queue() {
    let base = || Promotion {
        locks: false,
        ..Promotion::of(&[(Writes, &[ReadWrite, ReadWrite]), (Writes, &[ReadWrite])])
    };
    passes(base());
    passes(Promotion {
        locks: false,
        ..Promotion::of(&[(Writes, &[ReadWrite, Perhaps]), (Nothing, &[Immediate])])
    });
    passes(Promotion {
        passes_over: Anybody,
        ..base()
    });
    passes(Promotion {
        kills: 1,
        passes_over: Anybody,
        locks: false,
        ..Promotion::of(&[(Writes, &[ReadWrite]), (Reads, &[ReadWrite])])
    });
}

/// However slowly who has the turn is scheduled: between the turn and the write lock it is
/// passed over, does not know it, and finds out before it writes; only within its first
/// reads nobody passes it over, for a while. Beside those who take the write lock for a
/// moment to read a torn header.
#[test]
fn who_was_passed_over_before_it_read_or_wrote_takes_nothing_from_who_has_the_turn() {
    for locks in [false, true] {
        passes(Promotion {
            locks,
            passes_over: Idle,
            ..Promotion::of(&[(Writes, &[ReadWrite, ReadWrite]), (Writes, &[ReadWrite])])
        });
        passes(Promotion {
            locks,
            passes_over: Idle,
            copied_back: false,
            ..Promotion::of(&[
                (Writes, &[ReadWrite]),
                (Writes, &[ReadWrite]),
                (Nothing, &[Immediate]),
            ])
        });
        passes(Promotion {
            locks,
            torn: 1,
            passes_over: Idle,
            ..Promotion::of(&[(Writes, &[ReadWrite]), (Writes, &[ReadWrite])])
        });
    }
    passes(Promotion {
        patient: true,
        locks: false,
        passes_over: Idle,
        ..Promotion::of(&[(Nothing, &[Perhaps, ReadWrite]), (Nothing, &[Immediate])])
    });
    passes(Promotion {
        kills: 1,
        locks: false,
        passes_over: Idle,
        ..Promotion::of(&[(Writes, &[ReadWrite]), (Nothing, &[Immediate])])
    });
}

/// A kind of which it is not known whether it writes has the turn each time, until it is
/// known that it does not: also the first of them that writes is refused nothing.
#[test]
fn a_kind_that_seldom_writes_is_refused_nothing_while_it_is_promoted() {
    let base = || Promotion {
        patient: true,
        locks: false,
        ..Promotion::of(&[(Nothing, &[Perhaps, ReadWrite]), (Nothing, &[ReadWrite])])
    };
    passes(base());
    passes(Promotion { kills: 1, ..base() });
    passes(Promotion {
        patient: true,
        locks: false,
        ..Promotion::of(&[
            (Nothing, &[Perhaps]),
            (Writes, &[Perhaps]),
            (Nothing, &[Immediate]),
        ])
    });
}

/// With checkpoints by themselves after commits, foreseen or not, and turns that are
/// passed over.
#[test]
fn checkpoints_after_commits_and_turns_passed_over_change_nothing() {
    passes(Promotion {
        checkpoints: 1,
        passes_over: Anybody,
        ..Promotion::of(&[(Writes, &[ReadWrite]), (Writes, &[ReadWrite])])
    });
}

#[test]
fn a_process_may_be_killed_between_any_two_steps() {
    passes(Promotion {
        kills: 1,
        ..Promotion::of(&[(Writes, &[ReadWrite, ReadWrite]), (Writes, &[ReadWrite])])
    });
    passes(Promotion {
        kills: 1,
        ..Promotion::of(&[(Writes, &[ReadWrite]), (Nothing, &[Perhaps])])
    });
}

#[test]
fn readers_do_not_wait_and_checkpointers_do_no_harm() {
    for checkpoint in [Passive, Truncate] {
        passes(Promotion {
            passes_over: Anybody,
            ..Promotion::of(&[
                (Writes, &[ReadWrite]),
                (Reads, &[Read]),
                (Nothing, &[checkpoint]),
            ])
        });
    }
}

#[test]
fn what_kind_a_transaction_is_may_be_unknown_or_known_wrongly() {
    let seen = passes(Promotion {
        passes_over: Anybody,
        ..Promotion::of(&[(Nothing, &[ReadWrite, ReadWrite]), (Reads, &[ReadWrite])])
    });
    assert!(
        seen.stale_upgrade.into_inner(),
        "an upgrade is SQLite's own business"
    );
    passes(Promotion {
        passes_over: Anybody,
        ..Promotion::of(&[(Nothing, &[Perhaps]), (Writes, &[Perhaps, Perhaps])])
    });
}

#[test]
fn others_write_too_in_turn_or_as_strangers() {
    passes(Promotion::of(&[
        (Writes, &[ReadWrite, ReadWrite]),
        (Nothing, &[Immediate, Immediate]),
    ]));
    passes(
        Promotion::of(&[(Writes, &[ReadWrite, ReadWrite])]).and_a_stranger(&[ReadWrite, ReadWrite]),
    );
}

#[test]
fn a_torn_header_an_impatient_program_and_a_demotion_change_nothing() {
    let base = || Promotion::of(&[(Writes, &[ReadWrite, ReadWrite]), (Writes, &[ReadWrite])]);
    passes(Promotion { torn: 1, ..base() });
    let seen = passes(Promotion {
        impatient: 1,
        ..base()
    });
    assert!(seen.gave_up.into_inner());
    let seen = passes(Promotion {
        demotions: 1,
        ..base()
    });
    assert!(seen.demoted.into_inner());
}

#[test]
fn mistakes_are_noticed() {
    let base = || Promotion::of(&[(Writes, &[ReadWrite, ReadWrite]), (Writes, &[ReadWrite])]);
    let with_reader = || Promotion::of(&[(Writes, &[ReadWrite]), (Reads, &[Read])]);
    let learning = || Promotion::of(&[(Reads, &[ReadWrite]), (Writes, &[ReadWrite])]);
    let may_write = || Promotion::of(&[(Writes, &[Perhaps]), (Writes, &[ReadWrite])]);
    let seldom = || Promotion::of(&[(Nothing, &[Perhaps, ReadWrite]), (Writes, &[ReadWrite])]);
    let beside_a_writer =
        || Promotion::of(&[(Writes, &[ReadWrite]), (Nothing, &[Immediate, Immediate])]);
    let patient = |model| Promotion {
        patient: true,
        ..model
    };
    let passed_over = |model| Promotion {
        passes_over: Anybody,
        ..model
    };
    let idle = |model| Promotion {
        locks: false,
        passes_over: Idle,
        ..model
    };
    let demoted = |model| Promotion {
        demotions: 1,
        ..model
    };
    for (planted, model, expected) in [
        (Planted::FreedAtReadUnlock, base(), "one writer"),
        (
            Planted::FreedAtReadUnlock,
            passed_over(base()),
            "no update is lost",
        ),
        (
            Planted::Everybody,
            with_reader(),
            "a known reader never waits",
        ),
        (
            Planted::NotGivenBack,
            may_write(),
            "between transactions nothing is held",
        ),
        (Planted::NotGivenBack, may_write(), paths::STUCK),
        (Planted::DemotedUnknown, demoted(base()), "one writer"),
        (Planted::UpgradeWaits, learning(), "who waits holds nothing"),
        (
            Planted::NotConfirmed,
            idle(base()),
            "what was promised is kept",
        ),
        (
            Planted::WaitsNotABit,
            idle(beside_a_writer()),
            "what was promised is kept",
        ),
        (
            Planted::WaitsNotABit,
            Promotion {
                torn: 1,
                locks: false,
                ..base()
            },
            "what was promised is kept",
        ),
        (
            Planted::LearnsAtOnce,
            patient(seldom()),
            "what was promised is kept",
        ),
    ] {
        let found = fails(&Promotion { planted, ..model });
        println!("{planted:?}: {found:?}");
        assert!(
            found.contains(&expected),
            "{planted:?}: {expected} holds; {found:?} do not"
        );
    }
}
