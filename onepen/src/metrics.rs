//! The counters of a database, for whoever collects them through the `metrics`
//! facade.
//!
//! Told when asked, from what is counted anyway: a write pays nothing for it, with
//! the feature or without.

use metrics::{counter, gauge};

use crate::database::Database;
use crate::stats::Histogram;

impl Database {
    /// Tells the `metrics` facade how this database is doing: call it when metrics
    /// are collected, or every few seconds. Every one has the label `database`,
    /// its name.
    ///
    /// Counters: `onepen_commits`, `onepen_writes`, `onepen_pen_held`,
    /// `onepen_log_resets`, `onepen_leases_ended`. Gauges: `onepen_queue_length`, `onepen_readers`,
    /// `onepen_readers_in_use`, `onepen_log_frames`,
    /// `onepen_reads_overdue`, `onepen_oldest_snapshot_seconds`,
    /// `onepen_log_pinned_seconds` (0 when there is none); and of `onepen_wait_seconds` and `onepen_held_seconds` the
    /// quantiles 0.5, 0.99 and 1 since the database was opened, labelled `quantile`.
    pub fn tell_metrics(&self) {
        let stats = self.stats();
        let name: String = self.shared.connector.name.to_string();
        let count = |what: &'static str, value: u64| {
            counter!(what, "database" => name.clone()).absolute(value);
        };
        count("onepen_commits", self.commits());
        count("onepen_writes", stats.writes);
        count("onepen_pen_held", stats.groups);
        count("onepen_log_resets", stats.wal_resets);
        count("onepen_leases_ended", stats.leases_ended);
        let measure = |what: &'static str, value: f64| {
            gauge!(what, "database" => name.clone()).set(value);
        };
        measure("onepen_queue_length", stats.queue_length as f64);
        measure("onepen_readers", stats.readers as f64);
        measure("onepen_readers_in_use", stats.readers_in_use as f64);
        measure("onepen_reads_overdue", stats.overdue.len() as f64);
        measure("onepen_log_frames", f64::from(stats.wal_frames));
        let seconds = |it: Option<std::time::Duration>| it.map_or(0.0, |it| it.as_secs_f64());
        measure(
            "onepen_oldest_snapshot_seconds",
            seconds(stats.oldest_snapshot),
        );
        measure("onepen_log_pinned_seconds", seconds(stats.wal_pinned_for));
        let quantiles = |what: &'static str, of: &Histogram| {
            for (label, quantile) in [("0.5", 0.5), ("0.99", 0.99), ("1", 1.0)] {
                gauge!(what, "database" => name.clone(), "quantile" => label)
                    .set(of.quantile(quantile).as_secs_f64());
            }
        };
        quantiles("onepen_wait_seconds", &stats.waits);
        quantiles("onepen_held_seconds", &stats.holds);
    }
}
