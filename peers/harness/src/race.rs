//! The race itself: nobody starts before everybody is ready, everybody is told
//! at the same moment that the time is over, and what was counted is what was
//! acknowledged.
//!
//! A rate counts the operations acknowledged between the end of the warm-up
//! and the end of the time, divided by the time that really passed (a machine
//! with more clients than cores wakes its time-keeper late). What a client was
//! still waiting for at the end is finished and counts as a latency, so that a
//! client that was starved until the end shows in the maximum. Everything that
//! was acknowledged at any time counts as a transaction, so that the rows in
//! the file must equal the transactions reported.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::{Args, Report};

/// One race of `clients` clients.
pub struct Race {
    args: Args,
    gate: Arc<Gate>,
    tally: Mutex<Tally>,
}

/// What all clients have reported so far.
struct Tally {
    in_time: u64,
    transactions: u64,
    /// Nanoseconds.
    latencies: Histogram<u64>,
    errors: BTreeMap<String, u64>,
}

impl Race {
    /// A race for as many clients as the arguments say.
    pub fn new(args: &Args) -> Self {
        Self {
            args: args.clone(),
            gate: Arc::new(Gate::new(args)),
            tally: Mutex::new(Tally {
                in_time: 0,
                transactions: 0,
                latencies: Histogram::new_with_bounds(1, 1_000_000_000_000, 3)
                    .expect("these bounds are valid"),
                errors: BTreeMap::new(),
            }),
        }
    }

    /// A thread is ready: blocks until all clients are.
    pub fn enter(&self) -> Lap<'_> {
        self.gate.arrive_and_block();
        Lap::new(self)
    }

    /// A task is ready: waits, without blocking its executor, until all
    /// clients are.
    pub async fn enter_async(&self) -> Lap<'_> {
        Arrive {
            gate: &self.gate,
            arrived: false,
        }
        .await;
        Lap::new(self)
    }

    /// The figures of all clients, once the last one has dropped its [`Lap`].
    ///
    /// # Panics
    ///
    /// When the race was never run.
    pub fn report(&self, name: &str) -> Report {
        let ran = self
            .gate
            .ran()
            .expect("a race must be run before it is reported");
        let tally = self.tally();
        let micros = |nanos: u64| nanos as f64 / 1_000.0;
        Report::new(name, &self.args)
            .with("tx_per_s", tally.in_time as f64 / ran.as_secs_f64())
            .with("p50_us", micros(tally.latencies.value_at_quantile(0.50)))
            .with("p99_us", micros(tally.latencies.value_at_quantile(0.99)))
            .with("max_us", micros(tally.latencies.max()))
            .with("errors", &tally.errors)
            .with("transactions", tally.transactions)
    }

    fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One client's way through the race. What it counted reaches the race when it
/// is dropped; latencies do in handfuls before (a histogram for each of a
/// thousand tasks would be tens of megabytes that nobody but us needs).
pub struct Lap<'race> {
    race: &'race Race,
    n: i64,
    sample: u32,
    until_sample: u32,
    started: Option<Instant>,
    in_time: u64,
    transactions: u64,
    latencies: Vec<u64>,
}

const HANDFUL: usize = 64;

impl<'race> Lap<'race> {
    fn new(race: &'race Race) -> Self {
        Self {
            race,
            n: 0,
            sample: race.args.sample,
            until_sample: 0,
            started: None,
            in_time: 0,
            transactions: 0,
            latencies: Vec::new(),
        }
    }

    /// The number of the next operation of this client, from 0; `None` when
    /// the time is over. The operation begins now.
    // Not an iterator: each number must be answered by `finished`, and the
    // loop's body needs the lap for that.
    #[expect(
        clippy::should_implement_trait,
        reason = "the body needs `&mut self` too"
    )]
    pub fn next(&mut self) -> Option<i64> {
        match self.race.gate.phase() {
            WARMUP => {}
            MEASURED => {
                if self.until_sample == 0 {
                    self.until_sample = self.sample;
                    self.started = Some(Instant::now());
                }
                self.until_sample -= 1;
            }
            _ => return None,
        }
        let n = self.n;
        self.n += 1;
        Some(n)
    }

    /// How the operation ended: acknowledged, or failed with an error of this
    /// class (see [`crate::class_of`]).
    pub fn finished(&mut self, outcome: Result<(), String>) {
        let started = self.started.take();
        match outcome {
            Ok(()) => {
                self.transactions += 1;
                if self.race.gate.phase() == MEASURED {
                    self.in_time += 1;
                }
                if let Some(started) = started {
                    let nanos = started.elapsed().as_nanos();
                    self.latencies
                        .push(u64::try_from(nanos).unwrap_or(u64::MAX));
                    if self.latencies.len() == HANDFUL {
                        self.hand_in(&mut self.race.tally());
                    }
                }
            }
            Err(class) => *self.race.tally().errors.entry(class).or_default() += 1,
        }
    }

    fn hand_in(&mut self, tally: &mut Tally) {
        for nanos in self.latencies.drain(..) {
            tally.latencies.saturating_record(nanos);
        }
    }
}

impl Drop for Lap<'_> {
    fn drop(&mut self) {
        let mut tally = self.race.tally();
        tally.in_time += self.in_time;
        tally.transactions += self.transactions;
        self.hand_in(&mut tally);
    }
}

const WARMUP: u8 = 0;
const MEASURED: u8 = 1;
const OVER: u8 = 2;

/// Opens when the last client has arrived, and keeps the time from then on.
struct Gate {
    phase: AtomicU8,
    warmup: Duration,
    time: Duration,
    state: Mutex<GateState>,
    opened: Condvar,
}

struct GateState {
    missing: usize,
    open: bool,
    tasks: Vec<Waker>,
    ran: Option<Duration>,
}

impl Gate {
    fn new(args: &Args) -> Self {
        Self {
            phase: AtomicU8::new(WARMUP),
            warmup: args.warmup,
            time: args.time,
            state: Mutex::new(GateState {
                missing: args.clients,
                open: false,
                tasks: Vec::new(),
                ran: None,
            }),
            opened: Condvar::new(),
        }
    }

    fn phase(&self) -> u8 {
        // Nothing is published by this number: a client that sees it late runs
        // one operation more, which counts as late.
        self.phase.load(Ordering::Relaxed)
    }

    /// Sleeps until this long after `start`, and then begins `phase`.
    fn begin_at(&self, start: Instant, after: Duration, phase: u8) -> Instant {
        std::thread::sleep(after.saturating_sub(start.elapsed()));
        self.phase.store(phase, Ordering::Relaxed);
        Instant::now()
    }

    fn lock(&self) -> MutexGuard<'_, GateState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the time-keeper, whose answer the rate needs.
    fn ran(&self) -> Option<Duration> {
        let mut state = self.lock();
        while state.open && state.ran.is_none() {
            state = self
                .opened
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        state.ran
    }

    fn arrive(self: &Arc<Self>, state: &mut GateState) {
        state.missing = state
            .missing
            .checked_sub(1)
            .expect("more clients than announced");
        if state.missing > 0 {
            return;
        }
        state.open = true;
        self.opened.notify_all();
        state.tasks.drain(..).for_each(Waker::wake);
        let gate = Arc::clone(self);
        let opened = Instant::now();
        std::thread::spawn(move || {
            let start = gate.begin_at(opened, gate.warmup, MEASURED);
            let end = gate.begin_at(start, gate.time, OVER);
            gate.lock().ran = Some(end - start);
            gate.opened.notify_all();
        });
    }

    fn arrive_and_block(self: &Arc<Self>) {
        let mut state = self.lock();
        self.arrive(&mut state);
        while !state.open {
            state = self
                .opened
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// The future that passes the gate.
struct Arrive<'gate> {
    gate: &'gate Arc<Gate>,
    arrived: bool,
}

impl Future for Arrive<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let mut state = self.gate.lock();
        if !self.arrived {
            self.gate.arrive(&mut state);
        }
        if state.open {
            return Poll::Ready(());
        }
        state.tasks.push(context.waker().clone());
        drop(state);
        self.arrived = true;
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Durability;

    fn args(clients: usize) -> Args {
        Args {
            dir: "unused".into(),
            clients,
            tasks: false,
            warmup: Duration::from_millis(10),
            time: Duration::from_millis(20),
            durability: Durability::Full,
            sample: 4,
            way: None,
        }
    }

    #[test]
    fn every_acknowledged_operation_is_counted_and_every_error_has_its_class() {
        let race = Race::new(&args(3));
        let counted = Mutex::new((0, 0));
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    let (mut good, mut bad) = (0, 0);
                    let mut lap = race.enter();
                    while let Some(n) = lap.next() {
                        if n % 10 == 9 {
                            bad += 1;
                            lap.finished(Err("locked".into()));
                        } else {
                            good += 1;
                            lap.finished(Ok(()));
                        }
                    }
                    let mut sum = counted.lock().unwrap();
                    sum.0 += good;
                    sum.1 += bad;
                });
            }
        });
        let (good, bad) = counted.into_inner().unwrap();
        let report = race.report("test").into_value();
        assert_eq!(report["transactions"], good);
        assert_eq!(report["errors"]["locked"], bad);
        assert!(report["tx_per_s"].as_f64().unwrap() > 0.0);
        assert!(report["p50_us"].as_f64() <= report["max_us"].as_f64());
    }

    #[test]
    fn the_warm_up_counts_as_transactions_but_not_in_the_rate() {
        let race = Race::new(&args(1));
        let mut lap = race.enter();
        let mut before = 0;
        while lap.next().is_some() {
            if race.gate.phase() == WARMUP {
                before += 1;
            }
            lap.finished(Ok(()));
        }
        drop(lap);
        assert!(before > 0);
        let tally = race.tally();
        // The phase may have changed between our look and the lap's own.
        assert!(tally.in_time + before <= tally.transactions + 1);
        assert!(tally.in_time > 0);
    }

    #[test]
    fn nobody_starts_before_everybody_is_ready() {
        let race = Race::new(&args(2));
        let late = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let _lap = race.enter();
                assert!(late.load(Ordering::SeqCst));
            });
            late.store(true, Ordering::SeqCst);
            let mut context = Context::from_waker(Waker::noop());
            let mut task = std::pin::pin!(race.enter_async());
            // The other client may or may not have arrived; polling again is
            // allowed and must not count this one twice.
            while task.as_mut().poll(&mut context).is_pending() {
                std::thread::yield_now();
            }
        });
    }
}
