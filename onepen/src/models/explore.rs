//! One scenario, three machines.

/// How far to go. The counts are for one scenario; the suite has some twenty.
#[derive(Clone, Copy)]
pub(super) struct Effort {
    /// Preemptions per execution that loom tries.
    #[cfg_attr(
        not(onepen_loom),
        expect(dead_code, reason = "only loom counts preemptions")
    )]
    pub(super) preemptions: usize,
    /// Schedules that shuttle tries, of each kind.
    #[cfg_attr(
        not(all(onepen_shuttle, not(onepen_loom))),
        expect(dead_code, reason = "only shuttle counts schedules")
    )]
    pub(super) schedules: usize,
}

impl Default for Effort {
    fn default() -> Self {
        Self {
            preemptions: 3,
            schedules: 3000,
        }
    }
}

/// Runs `scenario` through as many schedules as this build can.
#[track_caller]
pub(super) fn explore(scenario: fn()) {
    explore_with(Effort::default(), scenario);
}

/// Over std's threads the schedules are the machine's own.
#[cfg(not(any(onepen_loom, onepen_shuttle)))]
pub(super) fn explore_with(_: Effort, scenario: fn()) {
    // Interpreted by Miri a scenario takes seconds, and has schedules of its own.
    for _ in 0..if cfg!(miri) { 1 } else { 50 } {
        scenario();
    }
}

/// `ONEPEN_MODEL_PREEMPTIONS` replaces the bound of every scenario;
/// `ONEPEN_MODEL_SECONDS` ends each, with what it has counted by then.
#[cfg(onepen_loom)]
pub(super) fn explore_with(effort: Effort, scenario: fn()) {
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    let since = std::time::Instant::now();
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound =
        Some(number("ONEPEN_MODEL_PREEMPTIONS").unwrap_or(effort.preemptions));
    builder.max_branches = 100_000;
    builder.max_duration = time_limit();
    // How often it looks at the clock.
    builder.checkpoint_interval = 100;
    let executions = std::sync::Arc::new(AtomicUsize::new(0));
    let count = std::sync::Arc::clone(&executions);
    builder.check(move || {
        count.fetch_add(1, Relaxed);
        scenario();
    });
    report(executions.load(Relaxed), since);
}

/// `ONEPEN_MODEL_PERCENT` takes so many of the schedules, at most
/// `ONEPEN_MODEL_SECONDS` long, `ONEPEN_MODEL_SEED` others,
/// `ONEPEN_MODEL_REPLAY` runs one that was printed by a failure.
#[cfg(all(onepen_shuttle, not(onepen_loom)))]
pub(super) fn explore_with(effort: Effort, scenario: fn()) {
    use shuttle::Runner;
    use shuttle::scheduler::{PctScheduler, RandomScheduler, ReplayScheduler};

    if let Ok(schedule) = std::env::var("ONEPEN_MODEL_REPLAY") {
        Runner::new(ReplayScheduler::new_from_encoded(&schedule), config()).run(scenario);
        return;
    }
    for schedule in regressions() {
        Runner::new(ReplayScheduler::new_from_encoded(&schedule), config()).run(scenario);
    }
    let since = std::time::Instant::now();
    let schedules =
        (effort.schedules * number("ONEPEN_MODEL_PERCENT").unwrap_or(100)).div_ceil(100);
    let seed = number("ONEPEN_MODEL_SEED").unwrap_or(1) as u64;
    let mut config = config();
    config.max_time = time_limit().map(|limit| limit / 2);
    let random = RandomScheduler::new_from_seed(seed, schedules);
    let mut ran = Runner::new(random, config.clone()).run(scenario);
    // Few, well-chosen preemptions: finds what needs one thread to be very late.
    let adversarial = PctScheduler::new_from_seed(seed, 3, schedules);
    ran += Runner::new(adversarial, config).run(scenario);
    report(ran, since);
}

#[cfg(all(onepen_shuttle, not(onepen_loom)))]
pub(super) fn config() -> shuttle::Config {
    let mut config = shuttle::Config::new();
    // SQLite parses and sorts on the stack of whoever calls it.
    config.stack_size = 1 << 20;
    config.silence_warnings = true;
    config
}

/// Schedules that once failed the running test: one a line in
/// `model-regressions/<test>`.
#[cfg(all(onepen_shuttle, not(onepen_loom)))]
fn regressions() -> Vec<String> {
    let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("model-regressions")
        .join(test_name().replace("::", "-"));
    let lines = std::fs::read_to_string(file).unwrap_or_default();
    lines.lines().map(str::to_owned).collect()
}

#[cfg(any(onepen_loom, onepen_shuttle))]
fn number(variable: &str) -> Option<usize> {
    std::env::var(variable).ok()?.parse().ok()
}

/// For one scenario.
#[cfg(any(onepen_loom, onepen_shuttle))]
fn time_limit() -> Option<std::time::Duration> {
    let seconds = number("ONEPEN_MODEL_SECONDS")?;
    Some(std::time::Duration::from_secs(seconds as u64))
}

#[cfg(any(onepen_loom, onepen_shuttle))]
fn test_name() -> String {
    let thread = std::thread::current();
    thread.name().unwrap_or("main").to_owned()
}

/// Read by `cargo xtask models`.
#[cfg(any(onepen_loom, onepen_shuttle))]
pub(super) fn report(schedules: usize, since: std::time::Instant) {
    let took = since.elapsed().as_secs_f64();
    let cut = match time_limit() {
        Some(limit) if since.elapsed() >= limit => ", cut off",
        _ => "",
    };
    println!(
        "model: {}: {schedules} schedules in {took:.2} s{cut}",
        test_name()
    );
}
