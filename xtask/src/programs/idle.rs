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
    let (processes, pairs) = if options.quick { (2, 10) } else { (30, 8) };
    // Of each part, of each process: the ratio, and both times of a slice.
    let mut found = vec![Vec::new(); PARTS.len()];
    for process in 0..processes {
        let ways = if process % 2 == 0 {
            [Way::Stock, Way::Extension]
        } else {
            [Way::Extension, Way::Stock]
        };
        let run = place.run_in("wal", "idle")?;
        let mut command = place.program("sql.py", Way::Extension);
        command
            .arg(run.database())
            .arg(format!("first={}", ways[0].name()));
        let mut worker = Worker::start(&mut command)?;
        worker.hear_ready()?;
        for (part, found) in PARTS.iter().zip(&mut found) {
            found.push(one(&mut worker, part, pairs, ways)?);
        }
    }
    let (mut lines, mut measured, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for (part, found) in PARTS.iter().zip(&found) {
        let of = |what: fn(&Measured) -> f64| found.iter().map(what).collect::<Vec<_>>();
        let ratio = median(of(|one| one.ratio));
        let [stock, extension] = [median(of(|one| one.stock)), median(of(|one| one.extension))];
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

/// Medians of one part in one process, times in milliseconds.
#[derive(Clone, Copy)]
struct Measured {
    ratio: f64,
    stock: f64,
    extension: f64,
}

fn one(worker: &mut Worker, part: &str, pairs: usize, ways: [Way; 2]) -> Result<Measured, Failure> {
    let mut slice = |way: Way, times: u64| -> Result<f64, Failure> {
        worker.tell(&format!("{} {part} {times}", way.name()))?;
        Ok(worker.hear()?.parse()?)
    };
    let mut times = 1;
    // Once around unmeasured, and as many as fill a slice.
    loop {
        let seconds = slice(Way::Stock, times)?;
        slice(Way::Extension, times)?;
        if seconds >= SLICE / 2.0 {
            break;
        }
        times *= 2;
    }
    let mut took = [Vec::new(), Vec::new()];
    for pair in 0..pairs {
        let mut order = ways;
        if pair % 2 == 1 {
            order.reverse();
        }
        for way in order {
            took[way as usize].push(slice(way, times)?);
        }
    }
    let pairs = took[1].iter().zip(&took[0]);
    Ok(Measured {
        ratio: median(pairs.map(|(ours, stock)| ours / stock).collect()),
        stock: median(took[0].clone()) * 1000.0,
        extension: median(took[1].clone()) * 1000.0,
    })
}
