//! What the extension costs a program that is alone.
//!
//! Within one process two databases are open, one through the platform's VFS and one
//! through ours, and the same SQL runs in slices of some milliseconds on each, by turns:
//! whatever else the machine does, and wherever the process lies in memory, strikes both.
//! A pair of slices is one ratio; the order within a pair changes, and so does which
//! database was opened first. Told is the median of many processes' medians: where a
//! connection's memory comes to lie is worth some percent, either way.

use serde_json::json;

use super::place::Place;
use super::slices::{self, Part};
use super::worker::Worker;
use super::{Failure, Options, Told, Way, median};

pub const NAME: &str = "idle cost, one process";

const MUST: f64 = 1.02;
const WAYS: [Way; 2] = [Way::Stock, Way::Extension];
const PARTS: &[&str] = &[
    "autocommit_writes",
    "autocommit_reads",
    "transactions",
    "bulk",
    "queries",
];

pub fn measure(place: &Place, options: &Options) -> Result<Told, Failure> {
    let (processes, pairs) = if options.quick { (2, 10) } else { (30, 8) };
    // Of each part, of each process: the ratio, and both times of a slice.
    let mut found: Vec<Vec<Part>> = PARTS.iter().map(|_| Vec::new()).collect();
    for process in 0..processes {
        let run = place.run_in("wal", "idle")?;
        let mut command = place.program("sql.py", Way::Extension);
        command
            .arg(run.database())
            .arg(format!("first={}", WAYS[process % 2].name()));
        let mut worker = Worker::start(&mut command)?;
        worker.hear_ready()?;
        for (part, found) in PARTS.iter().zip(&mut found) {
            found.push(slices::measure(part, pairs, |way, times| {
                worker.tell(&format!("{} {part} {times}", WAYS[way].name()))?;
                Ok(worker.hear()?.parse()?)
            })?);
        }
    }
    let (mut lines, mut measured, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for (part, found) in PARTS.iter().zip(&found) {
        let of = |what: fn(&Part) -> f64| found.iter().map(what).collect::<Vec<_>>();
        let ratio = median(of(|one| one.ratio));
        let [stock, extension] = [median(of(|one| one.ms[0])), median(of(|one| one.ms[1]))];
        let each = of(|one| one.ratio);
        let least = each.iter().copied().fold(f64::INFINITY, f64::min);
        let most = each.iter().copied().fold(0.0, f64::max);
        lines.push(format!(
            "{part:18} stock {stock:>7.3} ms   extension {extension:>7.3} ms   {ratio:.3} \
             ({least:.3} to {most:.3})",
        ));
        measured.push(json!({
            "part": part, "processes": processes, "pairs": pairs, "ratio": ratio, "ratios": each,
            "stock_ms": stock, "extension_ms": extension,
        }));
        ratios.push(ratio);
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
