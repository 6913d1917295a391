//! What the extension costs a program that is alone.
//!
//! Two processes, one each way, run the same parts of SQL in slices of some
//! milliseconds, by turns: while one works the other sleeps at its pipe, so that
//! whatever else the machine does strikes both. The order within a pair changes.

use serde_json::json;

use super::place::Place;
use super::worker::Worker;
use super::{Failure, Options, Told, Way, median};

pub const NAME: &str = "idle cost, one process";

const MUST: f64 = 1.02;
/// Seconds of one slice, about.
const SLICE: f64 = 0.015;
const PARTS: &[&str] = &[
    "autocommit_writes",
    "autocommit_reads",
    "transactions",
    "bulk",
    "queries",
];

pub fn measure(place: &Place, options: &Options) -> Result<Told, Failure> {
    let pairs = if options.quick { 10 } else { 300 };
    let runs = [
        place.run_in("wal", "idle-stock")?,
        place.run_in("wal", "idle-extension")?,
    ];
    let mut workers = Vec::new();
    for (way, run) in [Way::Stock, Way::Extension].into_iter().zip(&runs) {
        let mut command = place.program("sql.py", way);
        let mut worker = Worker::start(command.arg(run.database()))?;
        worker.hear_ready()?;
        workers.push(worker);
    }
    let mut slice = |way: Way, part: &str, times: u64| -> Result<f64, Failure> {
        let worker = &mut workers[way as usize];
        worker.tell(&format!("{part} {times}"))?;
        Ok(worker.hear()?.parse()?)
    };
    let (mut lines, mut measured) = (Vec::new(), Vec::new());
    let mut ratios = Vec::new();
    for part in PARTS {
        let mut times = 1;
        // Once around unmeasured, and as many as fill a slice.
        loop {
            let seconds = slice(Way::Stock, part, times)?;
            slice(Way::Extension, part, times)?;
            if seconds >= SLICE / 2.0 {
                break;
            }
            times *= 2;
        }
        let mut took = [Vec::new(), Vec::new()];
        for pair in 0..pairs {
            let mut order = [Way::Stock, Way::Extension];
            if pair % 2 == 1 {
                order.reverse();
            }
            for way in order {
                took[way as usize].push(slice(way, part, times)?);
            }
        }
        let ratio = median(
            took[1]
                .iter()
                .zip(&took[0])
                .map(|(ours, stock)| ours / stock)
                .collect(),
        );
        let each = |way: Way| median(took[way as usize].clone()) * 1000.0;
        lines.push(format!(
            "{part:18} stock {:>7.3} ms   extension {:>7.3} ms   {ratio:.3}",
            each(Way::Stock),
            each(Way::Extension),
        ));
        measured.push(json!({
            "part": part, "pairs": pairs, "ratio": ratio,
            "stock_ms": each(Way::Stock), "extension_ms": each(Way::Extension),
        }));
        ratios.push(ratio);
    }
    for (way, run) in [Way::Stock, Way::Extension].into_iter().zip(&runs) {
        place.look(run, way)?;
    }
    let all = ratios
        .iter()
        .product::<f64>()
        .powf(1.0 / ratios.len() as f64);
    lines.push(format!(
        "all parts alike    {all:.3} of stock's time (at most {MUST})"
    ));
    let mut failures = Vec::new();
    if all > MUST && !options.quick {
        failures.push(format!("{all:.3} of stock's time"));
    }
    Ok(Told {
        row: NAME.to_owned(),
        lines,
        failures,
        json: json!({ "parts": measured, "all": all }),
    })
}
