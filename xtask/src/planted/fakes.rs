//! Wrong things that are built by tests of their own: libraries that lie to
//! `onepen stress`, histories with an anomaly in them, a gate without one of its
//! steps. Such a test passes when the instrument has found the thing out.

use std::process::Command;
use std::time::{Duration, Instant};

use super::{Row, Wanted};
use crate::models::Failure;
use crate::models::suite::{root, watch};

struct Fakes {
    instrument: &'static str,
    package: &'static str,
    /// As `cargo test` selects what to build.
    target: &'static [&'static str],
    /// In the names of the tests.
    filter: &'static str,
    quick: bool,
}

const FAKES: &[Fakes] = &[
    Fakes {
        instrument: "onepen stress",
        package: "onepen-cli",
        target: &["--bin", "onepen"],
        filter: "stress::planted::a_library_that",
        quick: false,
    },
    Fakes {
        instrument: "onepen-check",
        package: "onepen-check",
        target: &["--tests"],
        filter: "planted",
        quick: true,
    },
    Fakes {
        instrument: "stateright",
        package: "onepen-lock",
        target: &["--test", "gate_model"],
        filter: "is_noticed",
        quick: true,
    },
];

/// Longer than any of it takes.
const LIMIT: Duration = Duration::from_secs(900);

pub(super) fn run(wanted: &Wanted) -> Result<Vec<Row>, Failure> {
    let mut rows = Vec::new();
    for fakes in FAKES.iter().filter(|fakes| fakes.quick || !wanted.quick) {
        if wanted.only.is_some() && !fakes.may_have(wanted) {
            continue;
        }
        eprintln!("building {} …", fakes.package);
        let began = Instant::now();
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo
            .args(["test", "--quiet", "--package", fakes.package])
            .args(fakes.target)
            .args(["--", "--format=pretty", fakes.filter])
            .current_dir(root()?);
        let (ended, output) = watch(cargo, LIMIT, |_| {})?;
        let mut found: Vec<Row> = output.lines().filter_map(|line| fakes.row(line)).collect();
        if found.is_empty() {
            let what = format!("no test of {} has `{}`", fakes.package, fakes.filter);
            return Err(format!("{what} in its name, or it does not build:\n{output}").into());
        }
        if ended != Some(true) && found.iter().all(|row| row.noticed.is_ok()) {
            return Err(format!("{} failed:\n{output}", fakes.package).into());
        }
        let count = u32::try_from(found.len()).unwrap_or(u32::MAX);
        found
            .iter_mut()
            .for_each(|row| row.took = began.elapsed() / count);
        rows.extend(found);
    }
    rows.retain(|row| wanted.has_name(&row.what, &row.instrument));
    Ok(rows)
}

impl Fakes {
    /// Before its tests are known by their names.
    fn may_have(&self, wanted: &Wanted) -> bool {
        let only = wanted.only.as_deref().unwrap_or_default();
        self.instrument.contains(only) || only.contains(' ')
    }

    /// Out of a line of the harness.
    fn row(&self, line: &str) -> Option<Row> {
        let (name, verdict) = line.strip_prefix("test ")?.split_once(" ... ")?;
        let name = name.rsplit("::").next()?.replace('_', " ");
        Some(Row {
            what: name,
            instrument: self.instrument.to_owned(),
            noticed: match verdict {
                "ok" => Ok("found out".to_owned()),
                other => Err(other.to_owned()),
            },
            took: Duration::ZERO,
            before: false,
        })
    }
}
