//! The gate's file after a loss of power.

use crate::campaign::scratch;
use crate::ledger::{self, Member, NAME};
use crate::random::Random;
use crate::recorder::{Event, Recording};
use crate::wal::options;

/// It lies in mapped memory and is never flushed: what is found of it is what it
/// held at any moment, or a part of that, or rubbish. Whoever it says has the turn
/// is dead.
#[test]
fn power_the_gate_of_a_dead_boot_keeps_nobody_waiting() {
    let home = scratch();
    ledger::set_up(home.path(), "PRAGMA journal_mode = WAL");
    let recording = Recording::with_volatile(home.path());
    let db = options().open(home.path().join(NAME)).unwrap();
    for op in 1..=4 {
        db.write(|tx| {
            // While we have the turn.
            recording.keep_volatile();
            Ok(Member::alone(op).run(tx.connection()).map(drop)?)
        })
        .unwrap();
    }
    db.close();
    drop(db);
    let log = recording.finish();
    let mut images: Vec<Vec<u8>> = log
        .events
        .iter()
        .filter_map(|event| match event {
            Event::Volatile(name, bytes) if name.ends_with("-gate") => Some(bytes.to_vec()),
            _ => None,
        })
        .collect();
    assert_eq!(images.len(), 4, "what the gate held was not seen");
    assert!(
        images
            .iter()
            .all(|image| image.iter().any(|&byte| byte != 0))
    );
    let mut random = Random::of(&[crate::campaign::seed()]);
    for image in images.clone() {
        images.push(image[..image.len() / 2].to_vec());
        images.push(image[..random.below(image.len())].to_vec());
        // Some sectors of it.
        let mut torn = image.clone();
        for sector in torn.chunks_mut(512) {
            if random.percent(50) {
                sector.fill(0);
            }
        }
        images.push(torn);
        let mut spoiled = image;
        let half = spoiled.len() / 2;
        random.fill(&mut spoiled[64..half]);
        images.push(spoiled);
    }
    let mut rubbish = vec![0; images[0].len()];
    random.fill(&mut rubbish);
    images.extend([Vec::new(), rubbish]);
    for (index, image) in images.iter().enumerate() {
        let home = scratch();
        ledger::set_up(home.path(), "PRAGMA journal_mode = WAL");
        std::fs::write(home.path().join(format!("{NAME}-gate")), image).unwrap();
        ledger::check_is_usable(home.path(), options())
            .unwrap_or_else(|violation| panic!("gate {index}: {violation:?}"));
    }
}
