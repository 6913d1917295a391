//! The power goes again, while SQLite recovers from the first time.

use std::sync::OnceLock;

use onepen::Database;

use crate::campaign::{self, Campaign, scratch};
use crate::disk::{Disk, Names, Style};
use crate::ledger::{self, Member, NAME, VOLATILE};
use crate::modes;
use crate::random::Random;
use crate::recorder::{Log, Recording};
use crate::wal::{self, LEDGER, options, write};

const TWICE: Campaign = Campaign {
    name: "twice",
    percent: 5,
    check: LEDGER,
    volatile: &VOLATILE,
    per_recording: 50,
    options,
};

/// One image of `outer`, any, recovered by SQLite and used by onepen, and all of
/// that recorded.
fn record_recovery(outer: &Log, seed: u64, open: fn() -> onepen::Options) -> Log {
    let mut random = Random::of(&[seed, 2]);
    let moment = outer.began + random.below(outer.events.len() - outer.began + 1);
    let mut disk = Disk::default();
    for event in &outer.events[..moment] {
        disk.apply(event);
    }
    let names = Names::EACH[random.below(2)];
    let style = Style::EACH[random.below(4)];
    let mut image = disk.image(names, style, &mut random);
    disk.add_volatile(&mut image, &VOLATILE, &mut random);
    let home = scratch();
    campaign::put(home.path(), &image);
    let recording = Recording::with_volatile(home.path());
    for word in disk.told.words() {
        recording.say(word);
    }
    // Half of them are recovered by onepen itself.
    if random.percent(50) {
        ledger::recover(home.path(), NAME).unwrap();
    }
    let db: Database = open().open(home.path().join(NAME)).unwrap();
    for op in 900..905 {
        write(&db, &recording, Member::alone(op));
    }
    db.close();
    recording.finish()
}

#[test]
fn power_recover_twice() {
    let outer = OnceLock::new();
    let record = |seed| {
        let outer = outer.get_or_init(|| wal::record_groups(campaign::seed()));
        record_recovery(outer, seed, options)
    };
    TWICE.run(record).assert_clean();
}

/// The same with a rollback journal, which is recovered in quite another way.
#[test]
fn power_roll_back_twice() {
    let campaign = Campaign {
        name: "twice rollback",
        percent: 3,
        options: modes::truncate,
        ..TWICE
    };
    let outer = OnceLock::new();
    let record = |seed| {
        let outer = outer.get_or_init(|| modes::record_truncate(campaign::seed()));
        record_recovery(outer, seed, modes::truncate)
    };
    campaign.run(record).assert_clean();
}
