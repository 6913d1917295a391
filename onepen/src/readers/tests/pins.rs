//! How long a state is kept for reading: transactions left open, snapshots.

use super::*;

#[test]
fn a_snapshot_stays_what_it_is_and_moves_between_threads() {
    let db = Fixture::new(1);
    db.write();
    let snapshot = db.readers.snapshot(&patient()).expect("a snapshot");
    db.write();
    assert_eq!((count_in(&snapshot), db.count()), (1, 2));
    assert_eq!(db.readers.in_use(), 1);
    assert!(db.readers.oldest_snapshot().is_some());
    assert!(!db.can_restart_log(), "the snapshot needs the log");
    let there = std::thread::spawn(move || count_in(&snapshot));
    assert_eq!(there.join().expect("no panic"), 1);
    assert_eq!(
        (db.readers.in_use(), db.readers.oldest_snapshot()),
        (0, None)
    );
    db.readers.rest();
    assert!(db.can_restart_log());
    let opened = db.readers.opened();
    drop(db.readers.snapshot(&patient()));
    assert_eq!(
        db.readers.opened(),
        opened,
        "connections are kept for later"
    );
}

#[test]
fn a_thread_with_snapshots_still_reads() {
    let db = Fixture::new(1);
    let snapshots: Vec<_> = (0..4)
        .map(|_| db.readers.snapshot(&patient()).expect("a snapshot"))
        .collect();
    assert_eq!(db.count(), 0);
    assert_eq!(db.readers.in_use(), snapshots.len());
}

#[test]
fn a_finished_read_leaves_its_transaction_to_the_next_while_nothing_changes() {
    let db = Fixture::new(1);
    let still_open = || {
        let mut open = false;
        db.readers.pool.slots.visit(|index| {
            // SAFETY: `visit` lends us the slot.
            let tx = unsafe { db.readers.pool.desks.get(index) };
            open |= tx.as_ref().is_some_and(|tx| tx.raw().is_reading());
        });
        open
    };
    // Until the caretaker does not come in between.
    until(|| {
        db.count();
        db.count();
        still_open()
    });
    // A look at the connection itself is no reason to end it as long as nothing
    // was left running on it.
    until(|| {
        let look = |tx: &ReadTx| Ok(tx.connection().is_autocommit());
        assert_eq!(db.readers.read(&patient(), look).ok(), Some(false));
        still_open()
    });
    assert!(db.readers.hold(LONG).drained());
    assert!(!still_open());
    assert!(db.can_restart_log());

    db.count();
    let read = db.readers.read(&patient(), |_| {
        db.write();
        Ok(())
    });
    read.expect("a read");
    assert!(!still_open(), "it does not see the present state");
}

#[test]
fn nobody_who_stopped_reading_pins_the_log() {
    let db = Fixture::new(4);
    let readers = &db.readers;
    for _ in 0..3 {
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..50).for_each(|_| assert!(count(readers) >= 0)));
            }
        });
        // The caretaker comes, without being asked.
        until(|| db.can_restart_log());
        db.write();
    }
}

#[test]
fn who_reads_without_pause_lets_the_log_be_reset_once_it_is_copied_back() {
    let db = Fixture::new(1);
    for _ in 0..20 {
        db.write();
        db.count();
        db.count();
        // Another process, which cannot hold our readers back.
        let copied = "PRAGMA wal_checkpoint(PASSIVE)";
        db.stranger()
            .query_row(copied, (), |_| Ok(()))
            .expect("it is copied back");
        db.count();
        assert!(db.can_restart_log());
    }
}
