//! Commits of others than this pen.

use std::time::Duration;

use onepen::{Journal, Options, Origin};

use crate::common::{Scene, options, quick, until};

const SCHEMA: &str = "CREATE TABLE a(n INTEGER PRIMARY KEY)";
const LONG: Duration = Duration::from_secs(60);

#[test]
fn a_commit_of_a_stranger_is_told_though_nobody_writes_here() {
    for journal in [Journal::Wal, Journal::Rollback] {
        let scene = Scene::with(quick().journal(journal), SCHEMA);
        let mut changes = scene.db.changes().unwrap();
        let stranger = scene.stranger();
        for round in 0..3 {
            stranger.busy_timeout(LONG).unwrap();
            stranger
                .execute("INSERT INTO a DEFAULT VALUES", ())
                .unwrap();
            let change = changes.next_within(LONG).unwrap();
            assert_eq!(change.origin(), Origin::Elsewhere, "{journal:?}, {round}");
            assert!(change.tables().is_any());
        }
    }
}

#[test]
fn a_commit_of_a_stranger_is_told_before_the_next_of_ours() {
    for journal in [Journal::Wal, Journal::Rollback] {
        let scene = Scene::with(options().journal(journal), SCHEMA);
        let stranger = scene.stranger();
        stranger.busy_timeout(LONG).unwrap();
        let mut changes = scene.db.changes().unwrap();
        scene.db.execute("INSERT INTO a VALUES (1)", ()).unwrap();
        stranger.execute("INSERT INTO a VALUES (2)", ()).unwrap();
        scene.db.execute("INSERT INTO a VALUES (3)", ()).unwrap();
        let origins: Vec<Origin> = std::iter::from_fn(|| changes.try_next())
            .map(|change| change.origin())
            .collect();
        assert_eq!(
            origins,
            [Origin::Here, Origin::Elsewhere, Origin::Here],
            "{journal:?}"
        );
    }
}

#[test]
fn our_own_commits_and_checkpoints_are_not_taken_for_a_strangers() {
    for journal in [Journal::Wal, Journal::Rollback] {
        let options = quick()
            .journal(journal)
            .wal_limit(16, Duration::from_millis(20));
        let scene = Scene::with(options, SCHEMA);
        let mut changes = scene.db.changes().unwrap();
        let write = |rounds: u64| {
            for _ in 0..rounds {
                let insert = "INSERT INTO a DEFAULT VALUES";
                scene.db.execute(insert, ()).unwrap();
                scene
                    .db
                    .query_row("SELECT 1 FROM a", (), |_| Ok(()))
                    .unwrap();
            }
        };
        write(200);
        if journal == Journal::Wal {
            until("a reset of the log", || {
                write(20);
                scene.db.stats().wal_resets > 0
            });
        }
        // Longer than the thread that looks sleeps, and then something of ours.
        while let Some(change) = changes.next_within(Duration::from_millis(60)) {
            assert_eq!(change.origin(), Origin::Here, "{journal:?}");
        }
        write(1);
        assert_eq!(changes.next().unwrap().origin(), Origin::Here);
    }
}

#[test]
fn a_database_open_for_reading_only_is_told_of_what_others_write() {
    let scene = Scene::with(quick(), SCHEMA);
    let path = scene.path();
    scene.db.close();
    let writer = scene.stranger();
    writer.execute("INSERT INTO a VALUES (1)", ()).unwrap();
    let reading = Options::new().read_only(true).open(&path).unwrap();
    let mut changes = reading.changes().unwrap();
    writer.execute("INSERT INTO a VALUES (2)", ()).unwrap();
    let change = changes.next_within(LONG).unwrap();
    assert_eq!(change.origin(), Origin::Elsewhere);
}
