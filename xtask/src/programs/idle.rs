//! What the extension costs a program that is alone: one process each way, in
//! slices by turns ([`slices`]).

use serde_json::json;

use super::place::{Place, Run};
use super::worker::Worker;
use super::{Failure, Options, Told, Way, slices};

pub const NAME: &str = "idle cost, one process";

const MUST: f64 = 1.02;
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
    let start = |way, run: &Run| -> Result<Worker, Failure> {
        let mut worker = Worker::start(place.program("sql.py", way).arg(run.database()))?;
        worker.hear_ready()?;
        Ok(worker)
    };
    let mut workers = [
        start(Way::Stock, &runs[0])?,
        start(Way::Extension, &runs[1])?,
    ];
    let parts = PARTS
        .iter()
        .map(|part| slices::measure(&mut workers, part, pairs))
        .collect::<Result<Vec<_>, _>>()?;
    let mut lines: Vec<_> = parts
        .iter()
        .map(|part| {
            format!(
                "{:18} stock {:>7.3} ms   extension {:>7.3} ms   {:.3}",
                part.name, part.ms[0], part.ms[1], part.ratio
            )
        })
        .collect();
    let measured: Vec<_> = parts
        .iter()
        .map(|part| part.json(["stock", "extension"]))
        .collect();
    for (way, run) in [Way::Stock, Way::Extension].into_iter().zip(&runs) {
        place.look(run, way)?;
    }
    let all = slices::all(&parts);
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
