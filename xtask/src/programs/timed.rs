//! What is done in a time: writers that think, and readers beside writers.

use serde_json::json;

use super::place::Place;
use super::worker::{Report, together};
use super::{Failure, Options, Told, Way, median};

/// Programs that run together, and what they must reach.
pub struct Row {
    pub name: &'static str,
    programs: &'static [(&'static str, usize)],
    must: &'static [Must],
}

/// Of one of the programs, by its place in the row.
enum Must {
    /// Per second, of stock's.
    Rate(usize, f64),
    /// Milliseconds.
    Longest(usize, f64),
}

pub const ROWS: &[Row] = &[
    Row {
        name: "8 processes with think time",
        programs: &[("think.py", 8)],
        must: &[Must::Rate(0, 1.3), Must::Longest(0, 50.0)],
    },
    Row {
        name: "4 readers beside 1 promoted writer",
        programs: &[("reads.py", 4), ("stdlib.py", 1)],
        must: &[Must::Rate(0, 0.9), Must::Rate(1, 0.9)],
    },
    Row {
        name: "4 readers beside 2 promoted writers",
        programs: &[("reads.py", 4), ("stdlib.py", 2)],
        must: &[Must::Rate(0, 0.9), Must::Rate(1, 0.9)],
    },
];

pub fn measure(row: &Row, place: &Place, options: &Options) -> Result<Told, Failure> {
    // Of each way and program, the runs.
    let mut ran = [(); 2].map(|()| vec![Vec::<Report>::new(); row.programs.len()]);
    let words = [format!("seconds={}", options.seconds)];
    let programs: Vec<_> = row
        .programs
        .iter()
        .map(|&(program, processes)| (program, processes, &words[..]))
        .collect();
    let mut failures = Vec::new();
    for each in 0..options.runs {
        for way in options.ways(each) {
            let run = place.run("wal")?;
            let reports = together(place, &run, way, &programs)?;
            let left = place.look(&run, way)?;
            if way == Way::Extension && left["integrity"] != "ok" {
                failures.push(format!("integrity: {}", left["integrity"]));
            }
            for (at, report) in reports.into_iter().enumerate() {
                ran[way as usize][at].push(report);
            }
        }
    }
    let [stock, extension] = &ran;
    let of =
        |reports: &[Report], what: fn(&Report) -> f64| median(reports.iter().map(what).collect());
    let mut lines = Vec::new();
    let mut measured = Vec::new();
    for way in options.ways(0) {
        for (at, (program, processes)) in row.programs.iter().enumerate() {
            let reports = &ran[way as usize][at];
            let errors: u64 = reports.iter().map(|report| report.errors).sum();
            let said = reports.iter().find_map(|report| report.said.clone());
            let worst = reports
                .iter()
                .map(|report| report.longest_ms)
                .fold(0.0, f64::max);
            lines.push(format!(
                "{:9} {processes} {program:10} {:>7.0}/s   longest {:>7.1} ms (worst {worst:.1})   \
                 p99 {:>6.1} ms   errors {errors}{}",
                way.name(),
                of(reports, Report::per_second),
                of(reports, |report| report.longest_ms),
                of(reports, |report| report.p99_ms),
                said.as_ref()
                    .map(|said| format!(" ({said})"))
                    .unwrap_or_default(),
            ));
            let each = |what: fn(&Report) -> f64| reports.iter().map(what).collect::<Vec<_>>();
            measured.push(json!({
                "way": way.name(),
                "program": program,
                "processes": processes,
                "per_second": each(Report::per_second),
                "longest_ms": each(|report| report.longest_ms),
                "p99_ms": each(|report| report.p99_ms),
                "errors": errors,
                "said": said,
            }));
            if way == Way::Extension && errors > 0 {
                failures.push(format!("{program}: {errors} errors"));
            }
        }
    }
    if !options.stock {
        for must in row.must {
            let (reached, line) = match *must {
                Must::Rate(at, least) => {
                    let pairs = stock[at].iter().zip(&extension[at]);
                    let ratios = pairs.map(|(stock, ours)| ours.per_second() / stock.per_second());
                    let ratio = median(ratios.collect());
                    let program = row.programs[at].0;
                    let line = format!("{program}: {ratio:.2} of stock's rate (at least {least})");
                    (ratio >= least, line)
                }
                Must::Longest(at, most) => {
                    let longest = of(&extension[at], |report| report.longest_ms);
                    (
                        longest <= most,
                        format!("longest {longest:.1} ms (at most {most})"),
                    )
                }
            };
            lines.push(line.clone());
            // A second on somebody else's machine proves no rate.
            if !reached && !options.quick {
                failures.push(line);
            }
        }
    }
    Ok(Told {
        row: row.name.to_owned(),
        lines,
        failures,
        json: json!({ "seconds": options.seconds, "measured": measured }),
    })
}
