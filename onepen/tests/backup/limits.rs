//! What ends a copy, and what a log that grows does to it.

use std::time::Duration;

use onepen::backup::{Phase, WhenLogFull};
use onepen::{CancelToken, ErrorKind};

use super::{names, pair, scene, write};

#[test]
fn a_copy_can_be_cancelled_in_every_phase_and_leaves_nothing() {
    let scene = scene();
    for compact in [false, true] {
        for phase in [Phase::Copying, Phase::Checking, Phase::Finishing] {
            let token = CancelToken::new();
            let cancelled = scene
                .db
                .backup_to(scene.dir().join("copy.db"))
                .compact(compact)
                // So that there is a tick in every phase.
                .share(0.05)
                .cancel_with(&token)
                .progress(|done| {
                    if done.phase == phase {
                        token.cancel();
                    }
                })
                .run();
            // A check, or VACUUM INTO, may be over before its first tick.
            match cancelled {
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Cancelled, "{error}");
                    assert_eq!(names(scene.dir()), [""; 0]);
                }
                Ok(_) => {
                    assert!(!token.is_cancelled());
                    std::fs::remove_file(scene.dir().join("copy.db")).unwrap();
                }
            }
        }
    }
}

#[test]
fn a_deadline_ends_it_and_the_old_target_stays() {
    let scene = scene();
    let target = scene.dir().join("copy.db");
    scene.db.backup_to(&target).run().unwrap();
    write(&scene.db);
    let late = scene
        .db
        .backup_to(&target)
        .replace(true)
        .rate(1 << 20) // some seconds
        .deadline(Duration::from_millis(50))
        .run()
        .unwrap_err();
    assert_eq!(late.kind(), ErrorKind::DeadlineExceeded);
    assert!(late.to_string().contains("bytes were copied"), "{late}");
    assert_eq!(pair(&target), (0, 0));
    assert_eq!(names(scene.dir()), ["copy.db"]);
}

/// Makes the log longer with every step.
fn grow(scene: &super::Scene) {
    scene
        .db
        .execute(
            "UPDATE weight SET fill = randomblob(1000) WHERE id % 4 = 0",
            (),
        )
        .unwrap();
}

#[test]
fn a_log_that_grows_over_its_limit_ends_the_copy_or_not_as_the_caller_chose() {
    let limit = 1 << 20;
    // Each with a log that is short at first.
    let run = |then| {
        let scene = scene();
        let target = scene.dir().join("copy.db");
        let ran = scene
            .db
            .backup_to(&target)
            .snapshot(true)
            .log_limit(limit, then)
            .progress(|done| {
                if done.phase == Phase::Copying && done.started_over == 0 {
                    grow(&scene);
                }
            })
            .run();
        match &ran {
            Ok(_) => assert_eq!(pair(&target), (0, 0)),
            Err(_) => assert_eq!(names(scene.dir()), [""; 0]),
        }
        ran
    };
    for then in [WhenLogFull::Stop, WhenLogFull::StartOver(0)] {
        let stopped = run(then).unwrap_err();
        assert_eq!(stopped.kind(), ErrorKind::LogLimit);
        assert!(
            stopped.to_string().contains("over the limit of 1048576"),
            "{stopped}"
        );
    }
    assert_eq!(run(WhenLogFull::StartOver(3)).unwrap().started_over, 1);
    for then in [WhenLogFull::GoOn, WhenLogFull::Hurry] {
        let copied = run(then).unwrap();
        assert_eq!(copied.started_over, 0);
        assert!(copied.log_max > limit, "{copied:?}");
    }
}

#[test]
fn the_log_is_short_again_after_a_copy_of_a_snapshot() {
    let scene = scene();
    scene
        .db
        .backup_to(scene.dir().join("copy.db"))
        .snapshot(true)
        .progress(|done| {
            if done.phase == Phase::Copying {
                grow(&scene);
            }
        })
        .run()
        .unwrap();
    assert_eq!(scene.db.stats().oldest_snapshot, None);
    let resets = scene.db.stats().wal_resets;
    super::common::until("the log is reset", || {
        grow(&scene);
        scene.db.stats().wal_resets > resets
    });
}
