//! Hears what is committed, and shows a query that keeps itself up to date.
//!
//! `cargo run --release --example changes` shows it;
//! `cargo run --release --example changes -- cost` measures what it costs
//! writers: tasks on an executor of this file write as fast as they can, with and
//! without a listener in turn, and the medians are compared.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use onepen::{Database, Durability, Options, Result};

fn main() -> Result<()> {
    match std::env::args().nth(1).as_deref() {
        Some("cost") => cost(),
        _ => show(),
    }
}

fn show() -> Result<()> {
    let db = Database::open_in_memory()?;
    db.write(|tx| {
        tx.execute_batch(
            "CREATE TABLE account(name TEXT PRIMARY KEY, cents INTEGER) WITHOUT ROWID;
             CREATE TABLE entry(name TEXT, cents INTEGER);
             CREATE TRIGGER booked AFTER INSERT ON entry BEGIN
                 UPDATE account SET cents = cents + new.cents WHERE name = new.name; END;
             INSERT INTO account VALUES ('Ada', 0), ('Alan', 0);",
        )
    })?;

    let changes = db.changes()?;
    let mut rich = db.watch(
        "SELECT name, cents FROM account WHERE cents > 0 ORDER BY name",
        (),
        |row| Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?)),
    )?;
    assert_eq!(rich.next().transpose()?, Some(Vec::new()));

    db.execute("INSERT INTO entry VALUES (?1, ?2)", ("Ada", 500))?;
    // The trigger changed what is watched.
    let now = rich.next().transpose()?.unwrap_or_default();
    println!("watched: {now:?}");
    assert_eq!(now, [("Ada".to_owned(), 500)]);

    db.close(); // ends the listeners, after what they have not heard yet
    for change in changes {
        println!("commit {}: {}", change.commit(), change.tables());
    }
    Ok(())
}

const TASKS: usize = 256;
const ROUNDS: usize = 9;
const ROUND: Duration = Duration::from_millis(700);

fn cost() -> Result<()> {
    let dir = tempfile::tempdir().expect("a directory");
    let db = Options::new()
        .durability(Durability::Normal)
        .open(dir.path().join("cost.db"))?;
    db.execute("CREATE TABLE a(id INTEGER PRIMARY KEY, n INTEGER)", ())?;
    let (mut without, mut with) = (Vec::new(), Vec::new());
    round(&db); // warm
    for _ in 0..ROUNDS {
        without.push(round(&db));
        let changes = db.changes()?;
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        let listener = std::thread::spawn(move || {
            let mut changes = changes;
            let mut heard = 0_u64;
            while stopped.try_recv() != Err(std::sync::mpsc::TryRecvError::Disconnected) {
                let change = changes.next_within(Duration::from_millis(50));
                heard += change.map_or(0, |change| 1 + change.lagged());
            }
            heard
        });
        with.push(round(&db));
        drop(stop);
        assert!(listener.join().expect("the listener") > 0);
        db.execute("DELETE FROM a", ())?;
    }
    let mut ratios: Vec<f64> = with.iter().zip(&without).map(|(w, wo)| w / wo).collect();
    let median = |of: &mut Vec<f64>| {
        of.sort_by(f64::total_cmp);
        of[of.len() / 2]
    };
    println!("writes/s without a listener: {:>9.0}", median(&mut without));
    println!("writes/s with a listener:    {:>9.0}", median(&mut with));
    println!(
        "with / without, median of {ROUNDS} pairs: {:.3}",
        median(&mut ratios)
    );
    Ok(())
}

/// Writes a second, from many tasks, as fast as they can.
fn round(db: &Database) -> f64 {
    let until = Instant::now() + ROUND;
    let tasks = (0..TASKS).map(|_| {
        let db = db.clone();
        async move {
            let mut done = 0_u64;
            while Instant::now() < until {
                db.execute_async("INSERT INTO a(n) VALUES (?1)", (1,))
                    .await
                    .expect("a write");
                done += 1;
            }
            done
        }
    });
    let since = Instant::now();
    let done: u64 = run_all(tasks.collect()).into_iter().sum();
    done as f64 / since.elapsed().as_secs_f64()
}

/// The smallest executor: one thread, a list of who was woken.
fn run_all<F: Future<Output = u64>>(tasks: Vec<F>) -> Vec<u64> {
    struct Woken {
        list: Mutex<Vec<usize>>,
        thread: std::thread::Thread,
    }
    struct One(usize, Arc<Woken>);
    impl Wake for One {
        fn wake(self: Arc<Self>) {
            let mut list = self.1.list.lock().expect("the list");
            list.push(self.0);
            if list.len() == 1 {
                self.1.thread.unpark();
            }
        }
    }
    let count = tasks.len();
    let woken = Arc::new(Woken {
        list: Mutex::new((0..count).collect()),
        thread: std::thread::current(),
    });
    let wakers: Vec<Waker> = (0..count)
        .map(|place| Arc::new(One(place, Arc::clone(&woken))).into())
        .collect();
    let mut tasks: Vec<Pin<Box<F>>> = tasks.into_iter().map(Box::pin).collect();
    let mut results = vec![None; count];
    while results.iter().any(Option::is_none) {
        let list = std::mem::take(&mut *woken.list.lock().expect("the list"));
        if list.is_empty() {
            std::thread::park();
        }
        for place in list {
            if results[place].is_none() {
                let mut cx = Context::from_waker(&wakers[place]);
                if let Poll::Ready(done) = tasks[place].as_mut().poll(&mut cx) {
                    results[place] = Some(done);
                }
            }
        }
    }
    results.into_iter().flatten().collect()
}
