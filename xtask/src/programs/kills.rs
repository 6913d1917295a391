//! Workers are killed at random moments, and new ones take their place.
//!
//! Demanded: nobody else meets an error, every COMMIT that was answered is there,
//! no update is lost, and the file is sound.

use std::time::{Duration, Instant};

use serde_json::json;

use super::place::{Place, Run};
use super::worker::Worker;
use super::{Failure, Options, Told, Way};

pub const NAME: &str = "SIGKILL of random workers";

const WORKERS: usize = 6;

pub fn measure(place: &Place, options: &Options) -> Result<Told, Failure> {
    let mut told = Told {
        row: format!("{NAME}, {} kills", options.kills),
        lines: Vec::new(),
        failures: Vec::new(),
        json: json!({ "kills": options.kills, "workers": WORKERS }),
    };
    for way in options.ways(0) {
        let run = place.run("wal")?;
        let began = Instant::now();
        spree(place, &run, way, options.kills)?;
        let seconds = began.elapsed().as_secs_f64();
        let left = place.look(&run, way)?;
        let (mut answered, mut failed, mut longest_us, mut missing) = (0, 0, 0, 0);
        let mut committed = 0;
        for worker in 0..WORKERS {
            let notes = std::fs::read(run.file(&format!("notes-{worker}"))).unwrap_or_default();
            let note = |at: usize| {
                let bytes = notes
                    .get(at * 8..at * 8 + 8)
                    .and_then(|bytes| bytes.try_into().ok());
                bytes.map_or(0, u64::from_le_bytes)
            };
            let there = left["done"][worker.to_string()].as_u64().unwrap_or(0);
            committed += there;
            missing += note(0).saturating_sub(there);
            answered += note(0);
            failed += note(1);
            longest_us = longest_us.max(note(2));
        }
        let counter = left["counter"].as_u64().ok_or("no counter")?;
        let lost = committed as i64 - counter as i64;
        told.lines.push(format!(
            "{:9} {answered:>6} answered   {failed} failed   {missing} missing   {lost} lost   \
             longest {:.1} ms   integrity {}   {seconds:.0} s",
            way.name(),
            longest_us as f64 / 1000.0,
            left["integrity"],
        ));
        told.json[way.name()] = json!({
            "answered": answered, "failed": failed, "missing": missing, "lost": lost,
            "longest_ms": longest_us as f64 / 1000.0, "integrity": left["integrity"],
            "seconds": seconds,
        });
        if way == Way::Extension {
            let checks = [
                (failed == 0, format!("{failed} errors elsewhere")),
                (
                    missing == 0,
                    format!("{missing} answered commits are missing"),
                ),
                (lost == 0, format!("{lost} updates lost")),
                (
                    answered > u64::from(options.kills),
                    "hardly anything was written".to_owned(),
                ),
                (
                    left["integrity"] == "ok",
                    format!("integrity: {}", left["integrity"]),
                ),
            ];
            let failures = checks.into_iter().filter(|(reached, _)| !reached);
            told.failures.extend(failures.map(|(_, said)| said));
        }
    }
    Ok(told)
}

/// Six workers; every 50 ms or so one of them dies and is born again.
fn spree(place: &Place, run: &Run, way: Way, kills: u32) -> Result<(), Failure> {
    let errors = std::fs::File::create(run.file("errors"))?;
    let start = |worker: usize| -> Result<Worker, Failure> {
        let mut command = place.program("killed.py", way);
        let notes = run.file(&format!("notes-{worker}"));
        command
            .arg(run.database())
            .arg(format!("worker={worker}"))
            .arg(format!("notes={}", notes.display()))
            .stderr(errors.try_clone()?);
        Worker::start(&mut command)
    };
    let mut workers = Vec::new();
    for worker in 0..WORKERS {
        workers.push(start(worker)?);
    }
    for worker in &mut workers {
        worker.hear_ready()?;
    }
    let mut chance = Chance(u64::from(std::process::id()) << 20 | 1);
    for _ in 0..kills {
        std::thread::sleep(Duration::from_micros(20_000 + chance.below(60_000)));
        let at = chance.below(WORKERS as u64) as usize;
        workers[at].kill()?;
        workers[at] = start(at)?;
    }
    // The last born has to get its turn too.
    std::thread::sleep(Duration::from_millis(300));
    for worker in &mut workers {
        worker.kill()?;
    }
    Ok(())
}

/// Xorshift: where and when need not be the same twice.
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}
