//! Killed at any time: two to four processes of three threads each, of which one
//! or all die after 5 to 35 milliseconds, again and again.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use onepen::Database;

use crate::common::{child, in_child, options};
use crate::deeds::{OLD, make, pair, rows_of};
use crate::points::directory;

/// In the tests; `cargo xtask proof kills --cycles 20000` asks for more.
const CYCLES: u32 = 200;
const THREADS: u32 = 3;
/// Nobody writes more in its short life.
const WRITES_OF_ONE: u32 = 1 << 16;

/// Writes pairs until it is killed, and says of each when it is acknowledged.
#[test]
fn writer() {
    let Some(path) = in_child() else {
        return;
    };
    let number: u32 = std::env::var("ONEPEN_TEST_NUMBER")
        .unwrap()
        .parse()
        .unwrap();
    // A short log, so that checkpoints are killed as well.
    let db = options()
        .wal_limit(64, Duration::from_millis(1))
        .open(path)
        .unwrap();
    let next = AtomicU32::new(number * WRITES_OF_ONE);
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                loop {
                    let n = next.fetch_add(1, Relaxed);
                    db.write(|tx| pair(tx, n)).unwrap();
                    let line = format!("\n> {n}\n");
                    std::io::stdout().lock().write_all(line.as_bytes()).unwrap();
                }
            });
        }
    });
}

struct Writer {
    process: Child,
    acknowledged: Receiver<(Instant, u32)>,
}

impl Writer {
    fn start(path: &Path, number: u32) -> Self {
        let mut process = child("random::writer", path)
            .env("ONEPEN_TEST_NUMBER", number.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut output = BufReader::new(process.stdout.take().unwrap());
        let (said, acknowledged) = channel();
        std::thread::spawn(move || {
            let mut line = String::new();
            // The last line may be half of one.
            while output.read_line(&mut line).is_ok_and(|read| read > 0) && line.ends_with('\n') {
                if let Some(n) = line.strip_prefix("> ") {
                    let _ = said.send((Instant::now(), n.trim().parse().unwrap()));
                }
                line.clear();
            }
        });
        Self {
            process,
            acknowledged,
        }
    }

    fn kill(&mut self) {
        self.process.kill().unwrap();
    }

    /// All it ever acknowledged that was not yet asked for; when it is dead, to
    /// its last word.
    fn last_words(mut self) -> impl Iterator<Item = u32> {
        self.process.wait().unwrap();
        self.acknowledged.into_iter().map(|(_, n)| n)
    }

    /// Waits for something that was acknowledged after `since`; when that was.
    fn goes_on(&self, since: Instant, acknowledged: &mut BTreeSet<u32>) -> Duration {
        loop {
            let heard = self.acknowledged.recv_timeout(Duration::from_secs(60));
            let (at, n) = heard.expect("whoever lives goes on");
            acknowledged.insert(n);
            if at > since {
                return at - since;
            }
        }
    }
}

fn check(path: &Path, acknowledged: &BTreeSet<u32>, context: &str) {
    let db: Database = options().open(path).unwrap();
    let whole: String = db
        .query_row("PRAGMA integrity_check", (), |row| row.get(0))
        .unwrap();
    assert_eq!(whole, "ok", "{context}");
    let rows = rows_of(&db, context);
    let lost: Vec<_> = acknowledged.difference(&rows).collect();
    assert!(
        lost.is_empty(),
        "{context}: acknowledged and lost: {lost:?}"
    );
    assert!(rows.contains(&OLD), "{context}");
}

#[test]
fn processes_killed_at_any_time_lose_nothing_tear_nothing_and_stall_nobody() {
    let cycles = std::env::var("ONEPEN_CYCLES").map_or(CYCLES, |cycles| cycles.parse().unwrap());
    let seed = std::env::var("ONEPEN_SEED").map_or(1, |seed| seed.parse().unwrap());
    let mut random = 0x9e37_79b9_7f4a_7c15_u64 ^ seed;
    let mut dice = |below: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % below
    };
    let (mut kills, mut acknowledged_in_all, mut checked) = (0, 0, 0);
    let mut pauses = Vec::new();
    let mut cycle = 0;
    while cycle < cycles {
        // A file, and whoever writes to it until all are killed together.
        let dir = directory();
        let path = dir.path().join("a.db");
        make(&path);
        let processes = 2 + dice(3) as usize;
        // Numbers from one on: `OLD` is of none of them.
        let mut number = 0;
        let mut start = || {
            number += 1;
            Writer::start(&path, number)
        };
        let mut writers: Vec<_> = (0..processes).map(|_| start()).collect();
        let mut acknowledged = BTreeSet::new();
        loop {
            cycle += 1;
            // The moment of the kill is drawn.
            std::thread::sleep(Duration::from_micros(5_000 + dice(30_000)));
            if dice(6) == 0 || cycle >= cycles {
                break;
            }
            let victim = dice(processes as u64) as usize;
            let mut victim = std::mem::replace(&mut writers[victim], start());
            victim.kill();
            kills += 1;
            let at = Instant::now();
            acknowledged.extend(victim.last_words());
            // Those that live. The new one may not have begun.
            let pause = writers
                .iter()
                .map(|writer| writer.goes_on(at, &mut acknowledged));
            pauses.extend(pause.min());
        }
        for writer in &mut writers {
            writer.kill();
            kills += 1;
        }
        for writer in writers {
            acknowledged.extend(writer.last_words());
        }
        check(&path, &acknowledged, &format!("seed {seed}, cycle {cycle}"));
        acknowledged_in_all += acknowledged.len();
        checked += 1;
    }
    pauses.sort();
    println!(
        "\nthe next write after a kill was acknowledged after {:.1?} (median), {:.1?} (longest)",
        pauses[pauses.len() / 2],
        pauses[pauses.len() - 1],
    );
    println!("proof: {kills} kills at any time");
    println!("proof: {acknowledged_in_all} acknowledged writes, all there");
    println!("proof: {checked} files, all whole");
    assert!(
        acknowledged_in_all > kills,
        "they were killed before they wrote"
    );
}
