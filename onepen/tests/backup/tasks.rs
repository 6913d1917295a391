//! Copies that tasks wait for.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};

use onepen::backup::{Phase, restore};
use onepen::{CancelToken, ErrorKind};

use super::common::{block_on, gate, until};
use super::{names, pair, scene, write};

#[test]
fn a_task_can_wait_for_a_copy_and_for_the_way_back() {
    let scene = scene();
    write(&scene.db);
    let (copy, back) = (scene.dir().join("copy.db"), scene.dir().join("back.db"));
    let copied = block_on(scene.db.backup_to(&copy).run_async()).unwrap();
    assert_eq!(copied.bytes, std::fs::metadata(&copy).unwrap().len());
    block_on(restore(&copy, &back).run_async()).unwrap();
    assert_eq!(pair(&back), (1, 1));
    let refused = block_on(scene.db.backup_to(&copy).run_async()).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Refused);
}

#[test]
fn a_copy_whose_future_is_dropped_ends_and_leaves_nothing() {
    for phase in [Phase::Copying, Phase::Finishing] {
        let scene = scene();
        let (arrive, at) = gate();
        let there = AtomicBool::new(false);
        let ended = Arc::new(());
        let alive = Arc::clone(&ended);
        let mut made = Box::pin(
            scene
                .db
                .backup_to(scene.dir().join("copy.db"))
                .progress(move |done| {
                    let _ = &alive;
                    if done.phase == phase && !there.swap(true, Ordering::Relaxed) {
                        arrive.stop();
                    }
                })
                .run_async(),
        );
        let mut context = Context::from_waker(Waker::noop());
        assert!(made.as_mut().poll(&mut context).is_pending());
        at.wait_for_arrival();
        drop(made);
        at.open();
        until("its thread ends", || Arc::strong_count(&ended) == 1);
        assert_eq!(names(scene.dir()), [""; 0], "{phase:?}");
        write(&scene.db);
    }
}

#[test]
fn nothing_begins_before_the_first_poll() {
    let scene = scene();
    drop(scene.db.backup_to(scene.dir().join("copy.db")).run_async());
    assert_eq!(names(scene.dir()), [""; 0]);
}

#[test]
fn a_token_of_the_callers_ends_it_too_and_is_not_spoilt_by_the_future() {
    let scene = scene();
    let token = CancelToken::new();
    let copy = |token: &CancelToken| {
        let copy = scene.db.backup_to(scene.dir().join("copy.db"));
        copy.cancel_with(token).run_async()
    };
    {
        let mut dropped = pin!(copy(&token));
        let mut context = Context::from_waker(Waker::noop());
        let _: Poll<_> = dropped.as_mut().poll(&mut context);
    }
    assert!(!token.is_cancelled());
    token.cancel();
    let cancelled = block_on(copy(&token)).unwrap_err();
    assert_eq!(cancelled.kind(), ErrorKind::Cancelled);
}

#[test]
fn a_panic_of_the_callers_reaches_the_task() {
    let scene = scene();
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let copy = scene.db.backup_to(scene.dir().join("copy.db"));
        block_on(copy.progress(|_| panic!("on purpose")).run_async())
    }));
    assert!(panicked.is_err());
    assert_eq!(names(scene.dir()), [""; 0]);
}
