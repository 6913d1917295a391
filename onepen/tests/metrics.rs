//! What the `metrics` facade is told.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use metrics::{
    Counter, CounterFn, Gauge, GaugeFn, Histogram, Key, KeyName, Metadata, Recorder, SharedString,
    Unit,
};

/// Keeps the last value of everything.
#[derive(Clone, Default)]
struct Kept(Arc<Mutex<BTreeMap<String, f64>>>);

struct One(Kept, String);

impl One {
    fn new(kept: &Kept, key: &Key) -> Arc<Self> {
        let labels = key
            .labels()
            .map(|it| format!(",{}={}", it.key(), it.value()));
        let name = format!("{}{}", key.name(), labels.collect::<String>());
        Arc::new(Self(kept.clone(), name))
    }

    fn keep(&self, value: f64) {
        self.0.0.lock().unwrap().insert(self.1.clone(), value);
    }
}

impl CounterFn for One {
    fn increment(&self, _: u64) {
        unreachable!("counters are told as they are");
    }
    fn absolute(&self, value: u64) {
        self.keep(value as f64);
    }
}

impl GaugeFn for One {
    fn increment(&self, _: f64) {}
    fn decrement(&self, _: f64) {}
    fn set(&self, value: f64) {
        self.keep(value);
    }
}

impl Recorder for Kept {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(One::new(self, key))
    }
    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(One::new(self, key))
    }
    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}

#[test]
fn what_is_told_is_what_was_counted() {
    let db = onepen::Options::new()
        .label("ledger")
        .open_in_memory()
        .unwrap();
    db.execute("CREATE TABLE a(n)", ()).unwrap();
    for _ in 0..4 {
        db.execute("INSERT INTO a VALUES (1)", ()).unwrap();
    }
    let snapshot = db.snapshot().unwrap();
    let kept = Kept::default();
    metrics::with_local_recorder(&kept, || db.tell_metrics());
    drop(snapshot);
    let told = kept.0.lock().unwrap().clone();
    let of = |name: &str| told.get(&format!("{name},database=ledger")).copied();
    assert_eq!(of("onepen_commits"), Some(5.0), "{told:?}");
    assert_eq!(of("onepen_writes"), Some(5.0));
    assert_eq!(of("onepen_readers_in_use"), Some(1.0));
    assert!(of("onepen_oldest_snapshot_seconds").unwrap() > 0.0);
    let held = "onepen_held_seconds,database=ledger,quantile=1";
    assert_eq!(told[held], db.stats().holds.longest().as_secs_f64());
}
